//! What fits passes, what does not is refused in words.

use conclave_plugin::{Create, TestTree};

use super::*;

const SETTINGS: &str = r#"{"schemas": [
    {"paths": "/app/*/config", "schema": {
        "type": "object", "required": ["port"],
        "properties": {"port": {"type": "integer", "minimum": 1}, "name": {"type": "string", "pattern": "^[a-z]+$"}}
    }},
    {"paths": "/users/*", "schema-at": "/schemas/user", "required": true}
]}"#;

fn tree() -> TestTree {
    TestTree::new::<Schema>().settings(SETTINGS)
}

fn put(t: &TestTree, path: &str, data: &str) -> std::result::Result<(), String> {
    let how = Create { or_set: true, ..Create::with_parents() };
    t.client("a").create(path, data, how).map(drop).map_err(|error| error.message().to_owned())
}

#[test]
fn data_has_to_fit_its_schema_however_it_is_written() {
    let t = tree();
    put(&t, "/app/a/config", r#"{"port": 80}"#).unwrap();
    let error = put(&t, "/app/b/config", r#"{"port": "80"}"#).unwrap_err();
    assert!(error.contains("/app/b/config does not fit its schema: at /port: \"80\" is not of type"), "{error}");
    assert_eq!(t.data("/app/b"), None);
    assert!(put(&t, "/app/a/config", "{}").unwrap_err().contains("port"));
    assert!(put(&t, "/app/a/config", "port = 80").unwrap_err().contains("is no JSON"));
    assert!(put(&t, "/app/a/config", r#"{"port": 0, "name": "A"}"#).unwrap_err().contains("; "));
    assert_eq!(t.text("/app/a/config").unwrap(), r#"{"port": 80}"#);
}

#[test]
fn what_has_no_schema_and_what_is_empty_passes() {
    let t = tree();
    put(&t, "/other", "x").unwrap();
    put(&t, "/app/a/config/below", "x").unwrap();
    assert_eq!(t.text("/app/a/config").as_deref(), Some(""));
    t.delete("/app/a/config/below");
    t.delete("/app/a/config");
    assert!(put(&TestTree::new::<Schema>(), "/app/a/config", "x").is_ok());
}

#[test]
fn a_schema_may_lie_in_a_znode_and_has_to_be_one() {
    let t = tree();
    assert!(put(&t, "/users/ann", "{}").unwrap_err().contains("/schemas/user, which does not exist"));
    assert!(
        put(&t, "/schemas/user", r#"{"type": "objekt"}"#).unwrap_err().contains("the schema of /schemas/user is none")
    );
    put(&t, "/schemas/user", r#"{"type": "object", "required": ["email"]}"#).unwrap();
    assert!(put(&t, "/users/ann", "{}").is_err() && put(&t, "/users/ann", "").is_err());
    put(&t, "/users/ann", r#"{"email": "ann@example.org"}"#).unwrap();
    put(&t, "/schemas/user", "true").unwrap();
    put(&t, "/users/ann", "{}").unwrap();
}

#[test]
fn a_schema_never_fetches_another() {
    let t = TestTree::new::<Schema>()
        .settings(r#"{"schemas": [{"paths": "/a", "schema": {"$ref": "http://example.org/s"}}]}"#);
    assert!(put(&t, "/a", "1").unwrap_err().contains("the schema of /a is none"));
}

#[test]
fn wrong_settings_refuse_and_say_so() {
    for (settings, why) in [("{", "settings"), (r#"{"schemas": [{"paths": "/a"}]}"#, "either schema or schema-at")] {
        let t = TestTree::new::<Schema>().settings(settings);
        assert!(put(&t, "/a", "1").unwrap_err().contains(why));
    }
}
