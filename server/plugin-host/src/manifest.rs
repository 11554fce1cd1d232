//! The manifest: `plugin.toml`, which lies in a custom section of the component and is read without running any code.

use serde::Deserialize;
use wasmparser::{Parser, Payload};

use crate::{Error, WORLD};

/// The custom section's name.
pub const SECTION: &str = "conclave:manifest";
/// A manifest is read by people: beyond this it is something else.
const MANIFEST_BYTES: usize = 64 << 10;
/// As of a name in a path, so that a plugin's name can be one.
const NAME_BYTES: usize = 64;

/// What a plugin is, in its author's words.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Its name, unless it is installed under another.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The world that it was built for.
    pub world: String,
    /// Its procedures.
    #[serde(default, rename = "procedure")]
    pub procedures: Vec<Procedure>,
}

/// One procedure.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Procedure {
    /// The name that it is called by.
    pub name: String,
    /// Its positional parameters, `name: type` or `name: type = default`.
    #[serde(default)]
    pub params: Vec<String>,
}

impl Manifest {
    /// The manifest in a component's bytes.
    ///
    /// # Errors
    /// [`Error::Malformed`] for bytes that are no component, [`Error::Manifest`] for a manifest that is missing, there
    /// twice, or wrong.
    pub fn read(component: &[u8]) -> Result<Self, Error> {
        let malformed = |error: wasmparser::BinaryReaderError| Error::Malformed(error.to_string());
        let mut depth = 0_usize;
        let mut found = None;
        for payload in Parser::new(0).parse_all(component) {
            match payload.map_err(malformed)? {
                Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
                Payload::End(_) => depth = depth.saturating_sub(1),
                Payload::CustomSection(section)
                    if depth == 0 && section.name() == SECTION && found.replace(section.data()).is_some() =>
                {
                    return Err(Error::Manifest("is there twice".to_owned()));
                }
                _ => {}
            }
        }
        let found = found.ok_or_else(|| Error::Manifest(format!("is missing: there is no section {SECTION}")))?;
        if found.len() > MANIFEST_BYTES {
            return Err(Error::Manifest(format!("has {} bytes, {MANIFEST_BYTES} are allowed", found.len())));
        }
        let text = std::str::from_utf8(found).map_err(|_| Error::Manifest("is not UTF-8".to_owned()))?;
        Self::parse(text)
    }

    /// The manifest that this `plugin.toml` is.
    ///
    /// # Errors
    /// [`Error::Manifest`].
    pub fn parse(text: &str) -> Result<Self, Error> {
        let manifest: Self =
            toml::from_str(text).map_err(|error| Error::Manifest(format!("can't be read: {}", error.message())))?;
        check_name("name", &manifest.name)?;
        if manifest.world != WORLD {
            return Err(Error::Manifest(format!("is for the world {:?}, this version has {WORLD}", manifest.world)));
        }
        for (at, procedure) in manifest.procedures.iter().enumerate() {
            check_name("procedure", &procedure.name)?;
            if manifest.procedures[..at].iter().any(|other| other.name == procedure.name) {
                return Err(Error::Manifest(format!("names the procedure {} twice", procedure.name)));
            }
        }
        Ok(manifest)
    }

    /// The procedure of this name.
    #[must_use]
    pub fn procedure(&self, name: &str) -> Option<&Procedure> {
        self.procedures.iter().find(|procedure| procedure.name == name)
    }
}

fn check_name(what: &str, name: &str) -> Result<(), Error> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
    if name.is_empty() || name.len() > NAME_BYTES || !name.bytes().all(allowed) {
        return Err(Error::Manifest(format!(
            "has a {what} {name:?}: 1 to {NAME_BYTES} of a-z, 0-9, - and _ are allowed"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "name = \"a\"\nversion = \"1\"\nworld = \"conclave:plugin@0.1\"\n";

    #[test]
    fn a_manifest_is_read_and_its_errors_say_what_is_wrong() {
        let manifest = Manifest::parse(&format!("{GOOD}[[procedure]]\nname = \"go\"\nparams = [\"p: path\"]")).unwrap();
        assert_eq!(manifest.procedure("go").unwrap().params, ["p: path"]);
        assert!(manifest.procedure("stop").is_none());
        for (text, why) in [
            ("name = 1".to_owned(), "can't be read"),
            (format!("{GOOD}extra = 1"), "extra"),
            (GOOD.replace("0.1", "0.2"), "0.2"),
            (GOOD.replace("\"a\"", "\"A b\""), "A b"),
            (GOOD.replace("\"a\"", "\"\""), "has a name"),
            (format!("{GOOD}[[procedure]]\nname = \"x\"\n[[procedure]]\nname = \"x\""), "twice"),
        ] {
            let error = Manifest::parse(&text).unwrap_err();
            assert!(matches!(error, Error::Manifest(_)) && error.to_string().contains(why), "{error}");
        }
    }

    #[test]
    fn bytes_that_are_no_component_are_malformed() {
        for bytes in [&b""[..], b"\0asm", b"garbage!", b"\0asm\x0d\0\x01\0\xff\xff"] {
            assert!(matches!(Manifest::read(bytes), Err(Error::Malformed(_) | Error::Manifest(_))), "{bytes:?}");
        }
    }
}
