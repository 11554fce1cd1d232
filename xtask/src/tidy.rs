//! Our own rules, which no other tool checks: on sources, on which crate may know which, on licences, on docs.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

mod arrows;
mod code;
mod docs;
mod licences;
mod metadata;
mod paths;
mod sources;

type Result<T> = std::result::Result<T, String>;

/// Something that a rule has to say about a place.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// The file, from the root.
    file: String,
    /// The line, from 1; none when the whole file is meant.
    line: Option<usize>,
    /// What is wrong, and what to do.
    what: String,
    /// Notes are printed; only the others fail.
    is_note: bool,
}

impl Finding {
    fn at(file: &str, line: usize, what: impl Into<String>) -> Self {
        Self { file: file.to_owned(), line: Some(line), what: what.into(), is_note: false }
    }

    fn of(file: &str, what: impl Into<String>) -> Self {
        Self { file: file.to_owned(), line: None, what: what.into(), is_note: false }
    }

    fn note(file: &str, what: impl Into<String>) -> Self {
        Self { is_note: true, ..Self::of(file, what) }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_note { "note" } else { "tidy" };
        match self.line {
            Some(line) => write!(f, "{kind}: {}:{line}: {}", self.file, self.what),
            None => write!(f, "{kind}: {}: {}", self.file, self.what),
        }
    }
}

/// A text file of the project: its path from the root, with `/`, and its text.
#[derive(Debug)]
struct File {
    name: String,
    text: String,
}

/// Checks every rule and prints what was found.
///
/// # Errors
/// How many findings there are that are more than notes.
pub(crate) fn run(root: &Path) -> Result<()> {
    let files = files(root)?;
    let names: BTreeSet<&str> = files.iter().map(|file| file.name.as_str()).collect();
    let rust: Vec<&File> = files.iter().filter(|file| file.name.ends_with(".rs")).collect();
    let functions: BTreeSet<&str> = rust.iter().flat_map(|file| code::functions(&file.text)).collect();
    let exists = |name: &str| names.contains(name) || root.join(name).is_dir();

    let mut findings = Vec::new();
    for file in &rust {
        findings.extend(sources::check(&file.name, &file.text));
    }
    let private = paths::private(root);
    for file in &files {
        findings.extend(paths::check(&file.name, &file.text, &private));
        if file.name.ends_with(".md") {
            findings.extend(docs::check(&file.name, &file.text, &exists, &functions));
        }
        if file.name.ends_with("Cargo.toml") {
            findings.extend(arrows::lints(&file.name, &file.text));
        }
    }
    let metadata = metadata::load(root)?;
    findings.extend(arrows::check(&metadata));
    findings.extend(licences::check(&metadata, &licences::allowed(root)?));

    findings.sort_by_key(|finding| finding.is_note);
    for finding in findings.iter().rev() {
        eprintln!("{finding}");
    }
    match findings.iter().filter(|finding| !finding.is_note).count() {
        0 => {
            println!("tidy: {} files, {} packages", files.len(), metadata.packages.len());
            Ok(())
        }
        count => Err(format!("tidy: {count} to mend")),
    }
}

/// Every text file, without what is built, hidden, or not text.
fn files(root: &Path) -> Result<Vec<File>> {
    let mut files = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let path: PathBuf = entry.map_err(failed)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let is_hidden = name.starts_with('.') && ![".ci", ".cargo", ".gitignore"].contains(&name.as_str());
            if is_hidden || name == "target" {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(text) = String::from_utf8(fs::read(&path).map_err(failed)?) {
                let from_root = path.strip_prefix(root).unwrap_or(&path);
                files.push(File { name: from_root.to_string_lossy().replace('\\', "/"), text });
            }
        }
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_says_where() {
        assert_eq!(Finding::at("a.rs", 3, "no").to_string(), "tidy: a.rs:3: no");
        assert_eq!(Finding::note("a.rs", "long").to_string(), "note: a.rs: long");
    }

    #[test]
    fn files_are_found_below_folders_but_not_what_is_built_or_hidden() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let names: Vec<String> = files(root).unwrap().into_iter().map(|file| file.name).collect();
        assert!(names.contains(&"src/tidy/code.rs".to_owned()));
        assert!(!names.iter().any(|name| name.contains("target/") || name.contains(".git/")));
    }
}
