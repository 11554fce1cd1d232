//! The manifest of a component: TOML in a custom section, read without running code.

use conclave_protocol::limits;
use conclave_protocol::plugin::Manifest;

/// The custom section that holds it.
const SECTION: &str = "conclave:manifest";
/// What every component begins with: the magic number, and the version of components.
const HEAD: &[u8] = b"\0asm\x0d\0\x01\0";

/// Reads what a component says of itself: its name, its procedures, what it needs to be allowed. Whether it keeps to that
/// is for the cluster to check.
///
/// # Errors
/// Why it is no component with a manifest, in words.
pub fn manifest(component: &[u8]) -> Result<Manifest, String> {
    let section = section(component)?;
    let section = section.ok_or_else(|| {
        format!("it has no manifest: no custom section {SECTION:?}; `conclave plugin build` puts it in")
    })?;
    if section.len() > limits::MANIFEST_BYTES {
        return Err(format!("its manifest has {} bytes, {} is the limit", section.len(), limits::MANIFEST_BYTES));
    }
    let text = std::str::from_utf8(section).map_err(|_| "its manifest is no UTF-8".to_owned())?;
    toml::from_str(text).map_err(|error| format!("its manifest: {}", error.to_string().trim_end()))
}

/// The content of the custom section, of the component's outermost sections.
fn section(component: &[u8]) -> Result<Option<&[u8]>, String> {
    let mut rest = component.strip_prefix(HEAD).ok_or_else(|| match component.first_chunk::<8>() {
        Some(b"\0asm\x01\0\0\0") => {
            "it is a core module of WebAssembly, not a component; `conclave plugin build` makes one of it".to_owned()
        }
        _ => "it is no component of WebAssembly".to_owned(),
    })?;
    let cut = || "it ends in the middle of a section: it is cut off".to_owned();
    while let Some((id, after)) = rest.split_first() {
        let (size, after) = number(after).ok_or_else(cut)?;
        let (content, after) = after.split_at_checked(size).ok_or_else(cut)?;
        rest = after;
        if *id == 0 {
            let (length, content) = number(content).ok_or_else(cut)?;
            let (name, content) = content.split_at_checked(length).ok_or_else(cut)?;
            if name == SECTION.as_bytes() {
                return Ok(Some(content));
            }
        }
    }
    Ok(None)
}

/// A number of 32 bits in LEB128, and what follows it.
fn number(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut number = 0_u64;
    for (at, byte) in bytes.iter().enumerate().take(5) {
        number |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((usize::try_from(number).ok()?, &bytes[at + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOML: &str = "name = \"gate\"\nversion = \"0.1.0\"\nworld = \"conclave:plugin@0.1\"\n";

    /// A component of these sections: their numbers and contents.
    fn component(sections: &[(u8, &[u8])]) -> Vec<u8> {
        let mut bytes = HEAD.to_vec();
        for (id, content) in sections {
            bytes.push(*id);
            // In two bytes, as tools may.
            bytes.extend([
                u8::try_from(content.len() & 0x7f).unwrap() | 0x80,
                u8::try_from(content.len() >> 7).unwrap(),
            ]);
            bytes.extend_from_slice(content);
        }
        bytes
    }

    fn custom(name: &str, content: &[u8]) -> Vec<u8> {
        [&[u8::try_from(name.len()).unwrap()], name.as_bytes(), content].concat()
    }

    #[test]
    fn the_manifest_lies_in_a_custom_section_among_others() {
        let bytes =
            component(&[(1, &[7; 300]), (0, &custom("name", b"x")), (0, &custom(SECTION, TOML.as_bytes())), (4, b"")]);
        assert_eq!(manifest(&bytes).unwrap().name, "gate");
    }

    #[test]
    fn what_has_no_manifest_says_why() {
        let bytes = component(&[(0, &custom("name", b"x"))]);
        let bad = component(&[(0, &custom(SECTION, b"name = 1"))]);
        let binary = component(&[(0, &custom(SECTION, b"\xff"))]);
        for (bytes, why) in [
            (&b"\0asm\x01\0\0\0"[..], "core module"),
            (b"\0as", "no component"),
            (&bytes, "no manifest"),
            (&bad, "name"),
            (&binary, "no UTF-8"),
            (&bytes[..bytes.len() - 1], "cut off"),
            (&bytes[..10], "cut off"),
            (&[HEAD, &[0, 0x80, 0x80, 0x80, 0x80, 0x80]].concat(), "cut off"),
            (&[HEAD, &[0, 1, 9]].concat(), "cut off"),
        ] {
            let told = manifest(bytes).unwrap_err();
            assert!(told.contains(why), "{told}");
        }
    }
}
