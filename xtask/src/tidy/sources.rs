//! Rules on one Rust file.

use super::Finding;
use super::code::{blanked, function, has_word};

/// A file is one room. From here on it is worth a look, ...
const LONG: usize = 400;
/// ... and from here on it is more than one.
const TOO_LONG: usize = 600;

/// Functions that wait for a condition, with a deadline: the only ones in tests that may sleep between two looks.
const WAITERS: [&str; 3] = ["eventually", "eventually_async", "until"];

/// What lifts the rule on sleeping for the next lines of code; the reason follows it.
const ALLOW_SLEEP: &str = "tidy: allow sleep, ";

/// What code must not contain, and why.
const BANNED: [(&str, &str); 6] = [
    ("#[ignore", "a test that is not run holds nothing"),
    ("todo!", "unfinished code does not go in"),
    ("unimplemented!", "unfinished code does not go in"),
    ("dbg!", "left over from a search for a bug"),
    ("assert!(true", "it cannot fail"),
    ("#![allow(warnings", "allow one lint, and say why"),
];

/// Everything that is to say about a file.
pub(super) fn check(name: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !text.starts_with("//! ") {
        findings.push(Finding::at(name, 1, "the first line is one `//! ` sentence: what this file is for"));
    }
    match text.lines().count() {
        lines if lines > TOO_LONG => {
            findings.push(Finding::of(name, format!("{lines} lines: more than one room, over {TOO_LONG} is too long")));
        }
        lines if lines > LONG => findings.push(Finding::note(name, format!("{lines} lines"))),
        _ => {}
    }
    let code = blanked(text);
    for (number, line) in (1..).zip(code.lines()) {
        for (word, why) in BANNED {
            if has_word(line, word) {
                findings.push(Finding::at(name, number, format!("`{word}`: {why}")));
            }
        }
    }
    findings.extend(sleeps(name, text, &code));
    findings
}

/// Sleeping in tests: slow when the time is too long, and a failure by chance when it is too short.
fn sleeps(name: &str, text: &str, code: &str) -> Vec<Finding> {
    let (mut is_test, mut is_marked) = (is_test_file(name), false);
    let (mut within, mut is_allowed) = ("", false);
    let mut findings = Vec::new();
    for ((number, line), source) in (1..).zip(code.lines()).zip(text.lines()) {
        // What follows `#[cfg(test)] mod tests {` is tests; `mod tests;` is another file.
        is_test |= is_marked && line.trim_start().starts_with("mod ") && line.contains('{');
        is_marked = line.trim_start().starts_with("#[cfg(test)]") || is_marked && line.trim_start().starts_with("#[");
        if let Some(function) = function(line) {
            within = function;
        }
        if let Some((_, reason)) = source.split_once(ALLOW_SLEEP) {
            is_allowed = !reason.trim().is_empty();
        }
        if !has_word(line, "sleep(") {
            continue;
        }
        if is_test && !is_allowed && !WAITERS.contains(&within) {
            let what = format!("sleeping in a test: wait for a condition, or say above `// {ALLOW_SLEEP}<reason>`");
            findings.push(Finding::at(name, number, what));
        }
        is_allowed = false;
    }
    findings
}

fn is_test_file(name: &str) -> bool {
    name.starts_with("tests/") || name.contains("/tests/") || name.ends_with("/tests.rs")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(name: &str, text: &str) -> Vec<String> {
        check(name, text).iter().map(Finding::to_string).collect()
    }

    #[test]
    fn a_good_file_passes() {
        assert!(check("a/src/b.rs", "//! A room.\nfn f() { thread::sleep(TICK) }\n").is_empty());
    }

    #[test]
    fn a_file_begins_with_its_purpose() {
        assert_eq!(said("a.rs", "use b;\n").len(), 1);
        assert_eq!(said("a.rs", "//!\n").len(), 1);
    }

    #[test]
    fn length_is_a_note_and_then_a_failure() {
        let long = |lines: usize| check("a.rs", &format!("//! A.\n{}", "\n".repeat(lines - 1)));
        assert!(long(LONG).is_empty());
        assert!(long(LONG + 1)[0].is_note);
        assert!(!long(TOO_LONG + 1)[0].is_note);
    }

    #[test]
    fn banned_words_are_found_in_code_only() {
        let text = "//! A todo!() in words.\n// dbg!(x)\nlet s = \"#[ignore]\";\nmy_todo!();\n";
        assert!(check("a.rs", text).is_empty());
        for word in ["#[ignore]", "#[ignore = \"slow\"]", "todo!()", "unimplemented!()", "dbg!(1)", "assert!(true)"] {
            assert_eq!(said("a.rs", &format!("//! A.\n{word}\n")).len(), 1, "{word}");
        }
    }

    #[test]
    fn sleeping_is_found_in_tests_only() {
        let text = "//! A.\nfn f() {\n    tokio::time::sleep(X).await;\n}\n";
        assert!(check("a/src/b.rs", text).is_empty());
        for name in ["a/src/tests.rs", "a/tests/b.rs", "tests/harness/src/lib.rs", "a/src/b/tests/c.rs"] {
            assert_eq!(check(name, text)[0].line, Some(3), "{name}");
        }
        let within = "//! A.\n#[cfg(test)]\nmod tests {\n    fn f() { sleep(X) }\n}\n";
        assert_eq!(check("a/src/b.rs", within)[0].line, Some(4));
        let beside = "//! A.\n#[cfg(test)]\nmod tests;\nfn f() { sleep(X) }\n";
        assert!(check("a/src/b.rs", beside).is_empty());
    }

    #[test]
    fn a_waiter_may_sleep_and_so_may_who_gives_a_reason() {
        assert!(check("tests/a.rs", "//! A.\npub async fn eventually() {\n    sleep(X)\n}\n").is_empty());
        let with = |words: &str| check("tests/a.rs", &format!("//! A.\nfn f() {{\n    // {words}\n    sleep(X)\n}}\n"));
        assert!(with("tidy: allow sleep, the time itself is what is tested").is_empty());
        assert_eq!(with("tidy: allow sleep, ").len(), 1);
    }

    #[test]
    fn a_reason_is_good_for_one_sleep() {
        let text = "//! A.\nfn f() {\n    // tidy: allow sleep, why\n    sleep(X);\n    sleep(X);\n}\n";
        assert_eq!(check("tests/a.rs", text)[0].line, Some(5));
    }
}
