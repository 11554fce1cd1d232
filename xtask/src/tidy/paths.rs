//! No directory of anybody's machine in what is checked in.

use std::env;
use std::path::Path;

use super::Finding;

/// Directories that no file may name: people's homes, and where this very checkout lies.
pub(super) fn private(root: &Path) -> Vec<String> {
    let homes = ["root", "home", "Users"].map(|name| format!("/{name}/"));
    let checkout = root.to_string_lossy();
    let home = env::home_dir().unwrap_or_default();
    let mine = [format!("{checkout}/"), format!("{}/", home.to_string_lossy())];
    // A checkout in a place that every machine has says nothing.
    let is_telling = |path: &String| path.matches('/').count() > 2 && !path.starts_with("/usr/");
    homes.into_iter().chain(mine.into_iter().filter(is_telling)).collect()
}

/// Where a file names one.
pub(super) fn check(name: &str, text: &str, private: &[String]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        // Not within a longer path or a word: `server/src/home/` is ours.
        let names = |path: &&String| {
            let starts = |at: usize| !line[..at].ends_with(|c: char| c.is_alphanumeric() || "._-/".contains(c));
            line.match_indices(path.as_str()).any(|(at, _)| starts(at))
        };
        if let Some(path) = private.iter().find(names) {
            findings.push(Finding::at(name, number, format!("a directory of one machine: {path}")));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str, root: &str) -> Vec<Option<usize>> {
        check("a", text, &private(Path::new(root))).iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn homes_and_this_checkout_are_found() {
        let text = ["fine", "see /home", "/a", "in /src", "/conclave/x"].concat();
        assert!(lines("fine\n", "/src/conclave").is_empty());
        assert_eq!(lines(&text, "/src/conclave"), [Some(1)]);
        assert_eq!(lines(&["\n'/ro", "ot/x'"].concat(), "/src/conclave"), [Some(2)]);
        assert_eq!(lines("\n\nin /src/conclave/x", "/src/conclave"), [Some(3)]);
    }

    #[test]
    fn a_path_of_the_project_is_none() {
        assert!(lines(&["server/src/ho", "me/x.rs, a/ro", "ot/b"].concat(), "/src/conclave").is_empty());
        assert!(lines("/src/x", "/src").is_empty());
    }
}
