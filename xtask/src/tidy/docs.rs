//! Docs: what they link to and which files and tests they name exists.

use std::collections::BTreeSet;

use super::Finding;

/// Endings of the files that docs name in backticks, from the root.
const FILES: [&str; 4] = [".rs", ".toml", ".md", ".wit"];

/// The heading cell of a table's column whose words in backticks are tests.
const TEST_COLUMN: &str = "Test";

/// Everything that is to say about a page. `exists` is asked for paths from the root; `functions` are all names of
/// functions in the sources.
pub(super) fn check(name: &str, text: &str, exists: &dyn Fn(&str) -> bool, functions: &BTreeSet<&str>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let (mut is_code, mut test_column) = (false, None);
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
        }
        if is_code {
            continue;
        }
        for target in links(line) {
            let file = target.split('#').next().unwrap_or_default();
            let is_ours = !file.is_empty() && !target.contains("://") && !target.starts_with("mailto:");
            if is_ours && !exists(&resolve(name, file)) {
                findings.push(Finding::at(name, number, format!("a link to {target}, which is not there")));
            }
        }
        for file in spans(line).filter(|span| is_file(span)) {
            if !exists(file) {
                findings.push(Finding::at(name, number, format!("it names {file}, which is not there")));
            }
        }
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        if cells.len() < 3 {
            test_column = None;
        } else if let Some(column) = cells.iter().position(|cell| *cell == TEST_COLUMN) {
            test_column = Some(column);
        } else if let Some(cell) = test_column.and_then(|column| cells.get(column)) {
            for test in spans(cell).filter(|span| !span.contains('/') && !functions.contains(span)) {
                findings.push(Finding::at(name, number, format!("it names the test {test}, which is not there")));
            }
        }
    }
    findings
}

/// The targets of `[words](target)`.
fn links(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| rest.split(')').next())
}

/// What stands in backticks.
fn spans(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

fn is_file(span: &str) -> bool {
    let plain = |c: char| c.is_alphanumeric() || "/._-".contains(c);
    span.contains('/') && FILES.iter().any(|ending| span.ends_with(ending)) && span.chars().all(plain)
}

/// A link as a path from the root.
fn resolve(page: &str, link: &str) -> String {
    let mut parts: Vec<&str> = page.split('/').collect();
    parts.pop();
    for part in link.split('/') {
        match part {
            "." | "" => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str, text: &str) -> usize {
        let exists = |file: &str| ["README.md", "docs/a.md", "a/src/b.rs"].contains(&file);
        check(name, text, &exists, &BTreeSet::from(["it_holds"])).len()
    }

    #[test]
    fn links_are_followed_from_their_page() {
        assert_eq!(found("README.md", "[a](docs/a.md) [b](https://x.y/z) [c](#here) [d](docs/a.md#x)"), 0);
        assert_eq!(found("docs/a.md", "[a](../README.md) [b](a.md) [c](./a.md)"), 0);
        assert_eq!(found("docs/a.md", "[a](README.md) [b](../b.md)"), 2);
    }

    #[test]
    fn files_in_backticks_exist() {
        assert_eq!(found("README.md", "`a/src/b.rs`, `b.rs`, `cargo test a/src/*.rs`"), 0);
        assert_eq!(found("README.md", "`a/src/c.rs`"), 1);
    }

    #[test]
    fn tests_in_the_column_of_tests_exist() {
        let table = |test: &str| format!("| Rule | Test |\n|---|---|\n| `not_a_test` | {test} |\n\n| a | `free` |\n");
        assert_eq!(found("README.md", &table("`it_holds`")), 0);
        assert_eq!(found("README.md", &table("`it_holds`, `it_does_not`")), 1);
    }

    #[test]
    fn code_blocks_are_left_alone() {
        assert_eq!(found("README.md", "```\n[a](b.md) `a/src/c.rs`\n```\n"), 0);
    }
}
