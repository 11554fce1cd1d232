//! `conclave server`, run as a program, as far as it goes without a cluster.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;

use common::{Ran, done, run};

/// A directory with a member's certificate and its configuration.
fn member(dir: &Path) -> String {
    done(dir, &["pki", "init", "--dir", "ca"]);
    done(dir, &["pki", "issue", "member", "1", "--dir", "ca", "--out", "tls"]);
    let text = done(dir, &["server", "--print-defaults"]);
    std::fs::write(dir.join("member.toml"), &text).unwrap();
    text
}

fn check(dir: &Path, text: &str) -> Ran {
    std::fs::write(dir.join("member.toml"), text).unwrap();
    run(dir, &["server", "--config", "member.toml", "--check-config"])
}

#[test]
fn the_printed_defaults_pass_the_check_which_says_what_would_be_used() {
    let dir = tempfile::tempdir().unwrap();
    let text = member(dir.path());
    let ran = check(dir.path(), &text);
    assert_eq!(ran.code, 0, "{}", ran.err);
    for said in ["member.toml is good", "production", "0.0.0.0:7101", "member/1 of conclave", "not there yet"] {
        assert!(ran.out.contains(said), "{said}: {}", ran.out);
    }
    assert!(!dir.path().join("data").exists(), "a check makes nothing");
    let json = done(dir.path(), &["server", "--config", "member.toml", "--check-config", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((json["member"].as_u64(), json["data_exists"].as_bool()), (Some(1), Some(false)));
    assert_eq!(json["certificate"]["uri"], "spiffe://conclave/member/1");
    let data = serde_json::json!({ "value": 1 << 20, "least": 1 << 10, "most": 3 << 19 });
    assert_eq!(json["limits"]["data_bytes"], data);
    let ran = check(dir.path(), &text.replace("multi_steps = 5000", "multi_steps = 70"));
    assert!(ran.out.contains("limits       multi_steps 70 (of 1 to 10000)"), "{}", ran.out);
}

#[test]
fn what_is_wrong_with_a_configuration_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let text = member(dir);
    for (from, to, said) in [
        ("heartbeat_ms", "hartbeat_ms", "did you mean `raft.heartbeat_ms`?"),
        ("member = 1 ", "member = 9 ", "`member` is 9: it is not among `members`"),
        ("member = 1 ", "member = 2 ", "the certificate is member/1's, but this is member 2"),
        ("multi_steps = 5000", "multi_steps = 0", "limits.multi_steps is 0, it must be between 1 and 10000"),
        ("multi_steps", "multi_step", "did you mean `limits.multi_steps`?"),
        ("tls = \"tls\"", "tls = \"gone\"", "conclave pki issue member 1"),
        ("127.0.0.1:7301", "0.0.0.0:7301", "listen.admin"),
        ("cluster = ", "cluster ", "member.toml"),
    ] {
        assert!(text.contains(from), "{from}");
        let ran = check(dir, &text.replace(from, to));
        assert_eq!(ran.code, 2, "{to}: {}{}", ran.out, ran.err);
        assert!(ran.err.starts_with("error: ") && ran.err.contains(said), "{to}: {}", ran.err);
    }
    // A client's certificate, a key of another certificate, no authority for clients.
    done(dir, &["pki", "issue", "client", "x", "--dir", "ca", "--out", "client"]);
    let ran = check(dir, &text.replace("tls = \"tls\"", "tls = \"client\""));
    assert!(ran.code == 2 && ran.err.contains("client/x"), "{}", ran.err);
    std::fs::rename(dir.join("tls/client-ca.crt"), dir.join("aside")).unwrap();
    let ran = check(dir, &text);
    assert!(ran.code == 2 && ran.err.contains("client plane"), "{}", ran.err);
    std::fs::rename(dir.join("aside"), dir.join("tls/client-ca.crt")).unwrap();
    std::fs::copy(dir.join("client/tls.key"), dir.join("tls/tls.key")).unwrap();
    assert_eq!(check(dir, &text).code, 2);
    let ran = run(dir, &["server", "--config", "gone.toml"]);
    assert!(ran.code == 2 && ran.err.contains("gone.toml"), "{}", ran.err);
    assert_eq!(run(dir, &["server"]).code, 2);
}

#[test]
fn a_member_whose_parent_is_gone_does_not_start() {
    let dir = tempfile::tempdir().unwrap();
    member(dir.path());
    // Process 1 is nobody's parent here, as this test is.
    let ran = run(dir.path(), &["server", "--config", "member.toml", "--parent-pid", "1"]);
    assert!(ran.code == 1 && ran.err.contains("is gone"), "{}", ran.err);
    assert!(!dir.path().join("data").exists());
}

#[test]
fn help_is_an_overview_and_version_is_told() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(done(dir.path(), &["--version"]).trim(), concat!("conclave ", env!("CARGO_PKG_VERSION")));
    let help = done(dir.path(), &["--help"]);
    for said in ["dev ", "server ", "pki ", "Exit codes:", "--json"] {
        assert!(help.contains(said), "{said}: {help}");
    }
}
