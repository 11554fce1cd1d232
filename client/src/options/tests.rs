//! Where options come from: the order of the search, and what is said when something is wrong.

use std::collections::HashMap;
use std::fs;

use super::*;

const FULL: &str = r#"
endpoints = ["127.0.0.1:7101", "127.0.0.1:7102"]
cluster = "6f1c"
certificate = "pki/clients/admin.crt"
key = "pki/clients/admin.key"
ca = "pki/peer-ca.crt"
session_timeout_ms = 4000
request_timeout_ms = 1500
connect_timeout_ms = 700
"#;

fn directory(text: &str) -> (tempfile::TempDir, PathBuf) {
    let top = tempfile::tempdir().unwrap();
    let dir = top.path().join(DIRECTORY);
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join(FILE), text).unwrap();
    (top, dir)
}

fn search(given: Option<&Path>, variables: &[(&str, &str)], here: &Path) -> Result<Options, ConfigError> {
    let variables: HashMap<&str, OsString> = variables.iter().map(|(name, value)| (*name, value.into())).collect();
    Options::search(given, |name| variables.get(name).cloned(), here)
}

#[test]
fn a_directory_above_is_found_and_its_paths_are_relative_to_it() {
    let (top, dir) = directory(FULL);
    let here = top.path().join("a/b");
    fs::create_dir_all(&here).unwrap();
    let options = search(None, &[], &here).unwrap();
    assert_eq!(options.source(), &Source::Found(dir.clone()));
    assert_eq!(options.endpoints(), ["127.0.0.1:7101", "127.0.0.1:7102"]);
    assert_eq!(options.cluster(), Some("6f1c"));
    assert_eq!(options.certificate, dir.join("pki/clients/admin.crt"));
    assert_eq!(options.key, dir.join("pki/clients/admin.key"));
    assert_eq!(options.ca, dir.join("pki/peer-ca.crt"));
    assert_eq!(options.session_timeout, Duration::from_secs(4));
    assert_eq!(options.request_timeout, Duration::from_millis(1500));
    assert_eq!(options.connect_timeout, Duration::from_millis(700));
}

#[test]
fn a_named_directory_comes_before_the_variable_and_that_before_one_above() {
    let (top, found) = directory(FULL);
    let (_a, variable) = directory(&FULL.replace("6f1c", "variable"));
    let (_b, given) = directory(&FULL.replace("6f1c", "given"));
    let set = [("CONCLAVE_DIR", variable.to_str().unwrap())];
    let options = search(Some(&given), &set, top.path()).unwrap();
    assert_eq!((options.cluster(), options.source()), (Some("given"), &Source::Given(given)));
    let options = search(None, &set, top.path()).unwrap();
    assert_eq!((options.cluster(), options.source()), (Some("variable"), &Source::Variable(variable)));
    let options = search(None, &[("CONCLAVE_DIR", "")], top.path()).unwrap();
    assert_eq!(options.source(), &Source::Found(found));
}

#[test]
fn a_named_directory_that_is_not_there_is_an_error_and_no_other_is_looked_for() {
    let (top, _found) = directory(FULL);
    let absent = top.path().join("absent");
    assert!(
        matches!(search(Some(&absent), &[], top.path()), Err(ConfigError::File { path, .. }) if path == absent.join(FILE))
    );
}

#[test]
fn single_variables_come_before_the_file() {
    let (top, dir) = directory(FULL);
    let options =
        search(None, &[("CONCLAVE_ENDPOINTS", "h:1, h:2,"), ("CONCLAVE_KEY", "other.key")], top.path()).unwrap();
    assert_eq!(options.endpoints(), ["h:1", "h:2"]);
    assert_eq!(options.key, top.path().join("other.key"));
    assert_eq!(options.certificate, dir.join("pki/clients/admin.crt"));
    assert_eq!(options.overrides(), ["CONCLAVE_ENDPOINTS", "CONCLAVE_KEY"]);
}

#[test]
fn four_variables_need_no_directory_and_three_say_what_is_missing() {
    let top = tempfile::tempdir().unwrap();
    let all =
        [("CONCLAVE_ENDPOINTS", "h:1"), ("CONCLAVE_CERTIFICATE", "c"), ("CONCLAVE_KEY", "k"), ("CONCLAVE_CA", "a")];
    assert_eq!(search(None, &all, top.path()).unwrap().source(), &Source::Environment);
    let error = search(None, &all[..3], top.path()).unwrap_err();
    assert!(matches!(&error, ConfigError::Missing { what: "ca", .. }), "{error}");
}

#[test]
fn nothing_at_all_says_what_was_looked_for() {
    let top = tempfile::tempdir().unwrap();
    let text = search(None, &[], top.path()).unwrap_err().to_string();
    for part in ["CONCLAVE_DIR", "CONCLAVE_ENDPOINTS", ".conclave", "conclave dev"] {
        assert!(text.contains(part), "{part} is missing in: {text}");
    }
}

#[test]
fn an_unknown_key_is_refused_with_the_nearest_one() {
    for (line, expected) in [
        ("endpoint = [\"h:1\"]", Some("endpoints")),
        ("sesion_timeout_ms = 1", Some("session_timeout_ms")),
        ("colour = 1", None),
    ] {
        let (top, _dir) = directory(line);
        match search(None, &[], top.path()) {
            Err(ConfigError::UnknownKey { nearest, .. }) => assert_eq!(nearest, expected, "{line}"),
            other => panic!("{line}: {other:?}"),
        }
    }
}

#[test]
fn wrong_values_are_refused_by_name() {
    for (from, to, what) in [
        ("127.0.0.1:7101", "127.0.0.1", "endpoints"),
        ("127.0.0.1:7101", ":7101", "endpoints"),
        ("127.0.0.1:7101", "h:99999", "endpoints"),
        ("session_timeout_ms = 4000", "session_timeout_ms = 100", "session_timeout_ms"),
        ("session_timeout_ms = 4000", "session_timeout_ms = 86400001", "session_timeout_ms"),
        ("request_timeout_ms = 1500", "request_timeout_ms = 0", "request_timeout_ms"),
    ] {
        let (top, _dir) = directory(&FULL.replace(from, to));
        match search(None, &[], top.path()) {
            Err(ConfigError::Bad { what: named, .. }) => assert_eq!(named, what),
            other => panic!("{to}: {other:?}"),
        }
    }
    for text in ["endpoints = [", "endpoints = 7", "endpoints = []\ncertificate = \"c\"\nkey = \"k\"\nca = \"a\""] {
        let (top, _dir) = directory(text);
        assert!(search(None, &[], top.path()).is_err(), "{text}");
    }
}
