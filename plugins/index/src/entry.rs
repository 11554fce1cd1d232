//! Where an index keeps what: a znode for each value, and below it one for each znode that has it.

use conclave_plugin::{Create, Error, Path, Result, Tree, Value};

/// Bytes of an escaped text that may be a name; what is longer is named by its hash.
const NAME_BYTES: usize = 200;

/// A text as a name, so that different texts have different names.
pub(crate) fn name(text: &str) -> String {
    let mut name = String::new();
    for c in text.chars() {
        match c {
            '/' | '%' => name.push_str(&format!("%{:02X}", u32::from(c))),
            c if c.is_control() => name.push_str(&format!("%{:02X}", u32::from(c))),
            c => name.push(c),
        }
    }
    match name.as_str() {
        // No escape looks like these.
        "" => "%empty".to_owned(),
        "." | ".." => format!("%{name}"),
        _ if name.len() > NAME_BYTES => format!("%h{:016x}{:016x}", hash(text, 0), hash(text, 1)),
        _ => name,
    }
}

/// FNV-1a, 64 bits. Two of them make a collision of two long texts a matter of intent; then the second is refused.
fn hash(text: &str, seed: u8) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    std::iter::once(seed).chain(text.bytes()).chain([seed]).fold(0xcbf2_9ce4_8422_2325, step)
}

/// The values that a field has: texts, numbers and truths; of a list, those of its elements.
pub(crate) fn values(data: Option<&[u8]>, field: &str) -> Vec<String> {
    let json: Option<Value> = data.and_then(|data| serde_json::from_slice(data).ok());
    let found = json.as_ref().and_then(|json| match field.starts_with('/') {
        true => json.pointer(field),
        false => json.get(field),
    });
    let mut values: Vec<String> = match found {
        Some(Value::Array(elements)) => elements.iter().filter_map(text).collect(),
        Some(value) => text(value).into_iter().collect(),
        None => Vec::new(),
    };
    values.sort();
    values.dedup();
    values
}

/// A value as a text: numbers and truths have a sign that no text begins with unescaped, so that 1 and "1" differ.
pub(crate) fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(format!("\u{1}{value}")),
        _ => None,
    }
}

/// The znode of a value.
pub(crate) fn below(at: &Path, value: &str) -> Result<Path> {
    at.join(&name(value))
}

/// Puts a znode's path below a value.
pub(crate) fn add(tree: &Tree, at: &Path, value: &str, path: &Path, unique: bool) -> Result<()> {
    let value_at = below(at, value)?;
    match tree.get(&value_at)? {
        Some(znode) if znode.data != value.as_bytes() => {
            return Err(format!("{value_at} is of another value of the same hash, or was made by hand").into());
        }
        Some(_) => {}
        None => drop(tree.create(&value_at, value, Create::with_parents())?),
    }
    if unique && let Some(other) = tree.children(&value_at).with_data().first()? {
        let (other, value) = (String::from_utf8_lossy(&other.data).into_owned(), value.trim_start_matches('\u{1}'));
        return Err(if other == path.as_str() { return Ok(()) } else { taken(at, value, &other) });
    }
    match tree.create(value_at.join(&name(path))?, path.as_str(), Create::default()) {
        Err(error) if error.is("znode-exists") => Ok(()),
        made => made.map(drop),
    }
}

fn taken(at: &Path, value: &str, other: &str) -> Error {
    format!("{at}: {value:?} is taken by {other}, and has to be unique").into()
}

/// Takes a znode's path from below a value, and the value when that was the last.
pub(crate) fn remove(tree: &Tree, at: &Path, value: &str, path: &Path) -> Result<()> {
    let value_at = below(at, value)?;
    match tree.delete(value_at.join(&name(path))?) {
        Err(error) if error.is("no-znode") => return Ok(()),
        done => done?,
    }
    match tree.exists(&value_at)? {
        Some(stat) if stat.children == 0 => tree.delete(&value_at),
        _ => Ok(()),
    }
}
