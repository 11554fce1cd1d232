//! Arguments: checked and completed with what the manifest says of them, before any code of the plugin runs.

use bytes::Bytes;
use conclave_protocol::plugin::{Param, ParamKind, Procedure};
use conclave_protocol::{Path, limits};

use crate::cbor::{self, Head, Reader};
use crate::{json, near};

/// Characters of a value that an error shows.
const SHOWN: usize = 40;

/// The arguments as the guest gets them: a map with every parameter, in the manifest's order. The caller sends a map from names,
/// or an array of positional ones, or nothing; texts become what their parameter's type is.
///
/// # Errors
/// What is wrong with them.
pub(crate) fn normalise(procedure: &Procedure, args: &[u8]) -> Result<Bytes, String> {
    if args.len() > limits::CALL_BYTES {
        return Err(format!("the arguments have {} bytes, {} are allowed", args.len(), limits::CALL_BYTES));
    }
    let given = given(procedure, args)?;
    let mut out = Vec::with_capacity(args.len() + 64);
    cbor::put_head(&mut out, 5, procedure.params.len() as u64);
    for (param, given) in procedure.params.iter().zip(given) {
        cbor::put_text(&mut out, &param.name);
        match (given, &param.default) {
            (Some(item), _) => convert(param, item, &mut out).map_err(|why| format!("{}: {why}", param.name))?,
            (None, Some(default)) => {
                convert_text(param.kind, default, &mut out).map_err(|why| format!("{}: {why}", param.name))?;
            }
            (None, None) if param.optional => cbor::put_null(&mut out),
            (None, None) => return Err(format!("{} is missing: {}", param.name, takes(procedure))),
        }
    }
    if out.len() > limits::CALL_BYTES {
        return Err(format!("the arguments have {} bytes, {} are allowed", out.len(), limits::CALL_BYTES));
    }
    Ok(out.into())
}

/// Whether a default is of its parameter's type.
///
/// # Errors
/// Why it is not.
pub(crate) fn check_default(param: &Param) -> Result<(), String> {
    match &param.default {
        Some(default) => convert_text(param.kind, default, &mut Vec::new()),
        None => Ok(()),
    }
}

/// For each parameter the item that was given for it.
fn given<'a>(procedure: &Procedure, args: &'a [u8]) -> Result<Vec<Option<&'a [u8]>>, String> {
    let malformed = |why: &str| format!("the arguments are no CBOR: {why}");
    let mut given = vec![None; procedure.params.len()];
    if args.is_empty() {
        return Ok(given);
    }
    let mut reader = Reader::new(args);
    match reader.head().map_err(malformed)? {
        Head::Null => {}
        Head::Array(count) => {
            let mut left = count;
            let mut at = 0;
            while reader.more(&mut left).map_err(malformed)? {
                let item = reader.item().map_err(malformed)?;
                let Some(param) = procedure.params.get(at) else {
                    let all = count.map_or_else(|| "they".to_owned(), |count| count.to_string());
                    return Err(format!("{all} arguments are too many: {}", takes(procedure)));
                };
                given[at] = present(param, item);
                at += 1;
            }
        }
        Head::Map(mut left) => {
            let mut seen = vec![false; given.len()];
            while reader.more(&mut left).map_err(malformed)? {
                let Head::Text(name) = reader.head().map_err(malformed)? else {
                    return Err("the arguments have a name that is no text".to_owned());
                };
                let item = reader.item().map_err(malformed)?;
                let Some(at) = procedure.params.iter().position(|param| param.name == name) else {
                    return Err(unknown(procedure, name));
                };
                if std::mem::replace(&mut seen[at], true) {
                    return Err(format!("{name} is given twice"));
                }
                given[at] = present(&procedure.params[at], item);
            }
        }
        _ => return Err("the arguments are neither a map from names to values nor an array of values".to_owned()),
    }
    if !reader.is_at_end() {
        return Err(malformed("bytes follow after them"));
    }
    Ok(given)
}

/// Null stands for an optional argument that is not given.
fn present<'a>(param: &Param, item: &'a [u8]) -> Option<&'a [u8]> {
    (!param.optional || item != [0xf6]).then_some(item)
}

fn unknown(procedure: &Procedure, name: &str) -> String {
    let names = procedure.params.iter().map(|param| param.name.as_str());
    let hint = near::hint(name, names);
    format!("there is no parameter {:?}{hint}: {}", excerpt(name), takes(procedure))
}

/// What a procedure takes, in words.
fn takes(procedure: &Procedure) -> String {
    if procedure.params.is_empty() {
        return format!("{} takes none", procedure.name);
    }
    let params: Vec<String> = procedure.params.iter().map(ToString::to_string).collect();
    format!("{} takes {}", procedure.name, params.join(", "))
}

/// Appends an item as its parameter's type has it.
fn convert(param: &Param, item: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
    let head = Reader::new(item).head().map_err(str::to_owned)?;
    if let Head::Text(text) = head {
        return convert_text(param.kind, text, out);
    }
    match (param.kind, head) {
        (ParamKind::Json, _) => out.extend(item),
        (ParamKind::Integer, Head::Unsigned(_)) => out.extend(item),
        (ParamKind::Integer, Head::Negative(number)) if i64::try_from(number).is_ok() => out.extend(item),
        (ParamKind::Duration, Head::Unsigned(_)) => out.extend(item),
        (ParamKind::Number, Head::Float(number)) if number.is_finite() => cbor::put_float(out, number),
        // The nearest floating-point number will do.
        (ParamKind::Number, Head::Unsigned(number)) => cbor::put_float(out, number as f64),
        (ParamKind::Number, Head::Negative(number)) => cbor::put_float(out, -1.0 - number as f64),
        (ParamKind::Boolean, Head::Bool(value)) => cbor::put_bool(out, value),
        (ParamKind::Bytes, Head::Bytes(bytes)) => cbor::put_bytes(out, bytes),
        (kind, head) => return Err(format!("{} is not {}", shown(head), wanted(kind))),
    }
    Ok(())
}

/// Appends a text, as people write arguments, as its parameter's type has it.
fn convert_text(kind: ParamKind, text: &str, out: &mut Vec<u8>) -> Result<(), String> {
    let wrong = || format!("{:?} is not {}", excerpt(text), wanted(kind));
    match kind {
        ParamKind::Path => {
            Path::parse(text).map_err(|error| error.to_string())?;
            cbor::put_text(out, text);
        }
        ParamKind::Text => cbor::put_text(out, text),
        ParamKind::Integer => match (text.parse::<i64>(), text.parse::<u64>()) {
            (Ok(number), _) => cbor::put_integer(out, number),
            (_, Ok(number)) => cbor::put_head(out, 0, number),
            _ => return Err(wrong()),
        },
        ParamKind::Number => {
            let number = text.parse::<f64>().ok().filter(|number| number.is_finite()).ok_or_else(wrong)?;
            cbor::put_float(out, number);
        }
        ParamKind::Boolean => cbor::put_bool(out, text.parse().map_err(|_| wrong())?),
        ParamKind::Bytes => cbor::put_bytes(out, text.as_bytes()),
        ParamKind::Duration => cbor::put_head(out, 0, milliseconds(text).ok_or_else(wrong)?),
        ParamKind::Json => json::to_cbor(text, out).map_err(|why| format!("{}: {why}", wrong()))?,
    }
    Ok(())
}

/// The milliseconds of `500ms`, `10s`, `2m`, `1h`, or of a plain number.
fn milliseconds(text: &str) -> Option<u64> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let unit = match &text[digits..] {
        "" | "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    text[..digits].parse::<u64>().ok()?.checked_mul(unit)
}

fn wanted(kind: ParamKind) -> &'static str {
    match kind {
        ParamKind::Path => "a path, which is a text that begins with /",
        ParamKind::Text => "a text",
        ParamKind::Integer => "an integer",
        ParamKind::Number => "a number",
        ParamKind::Boolean => "true or false",
        ParamKind::Bytes => "bytes",
        ParamKind::Duration => "a time such as 500ms, 10s, 2m, 1h or a number of milliseconds",
        ParamKind::Json => "JSON (a text has its quotes: \"\\\"like this\\\"\")",
    }
}

/// An item that is no text, in words.
fn shown(head: Head<'_>) -> String {
    match head {
        Head::Unsigned(number) => number.to_string(),
        Head::Negative(number) => (-1 - i128::from(number)).to_string(),
        Head::Float(number) => number.to_string(),
        Head::Bool(value) => value.to_string(),
        Head::Null => "null".to_owned(),
        Head::Bytes(bytes) => format!("a string of {} bytes", bytes.len()),
        Head::Text(text) => format!("{:?}", excerpt(text)),
        Head::Array(_) => "an array".to_owned(),
        Head::Map(_) => "a map".to_owned(),
        Head::Tag(tag) => format!("a value with the tag {tag}"),
        Head::Simple(value) => format!("the simple value {value}"),
        Head::Break => "a break".to_owned(),
    }
}

fn excerpt(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests;
