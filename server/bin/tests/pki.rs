//! `conclave pki`, run as a program.
#![allow(clippy::unwrap_used)]

mod common;

use std::os::unix::fs::PermissionsExt;

use common::{done, run};

#[test]
fn certificates_are_made_shown_renewed_and_revoked() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    done(dir, &["pki", "init", "--dir", "ca", "--trust-domain", "acme.example"]);
    let member = done(dir, &["pki", "issue", "member", "3", "--dir", "ca"]);
    assert!(member.starts_with("member/3 of acme.example"), "{member}");
    done(dir, &["pki", "issue", "client", "ci-7", "--dir", "ca", "--out", "ci", "--days", "2"]);
    for (name, there) in [("tls.crt", true), ("tls.key", true), ("peer-ca.crt", true), ("client-ca.crt", false)] {
        assert_eq!(dir.join("ci").join(name).exists(), there, "{name}");
    }
    assert!(dir.join("ca/member-3/client-ca.crt").exists());
    let mode = std::fs::metadata(dir.join("ci/tls.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let show = |what: &str| -> serde_json::Value {
        serde_json::from_str(&done(dir, &["pki", "show", what, "--json"])).unwrap()
    };
    let before = show("ci/tls.crt");
    assert_eq!(before["uri"], "spiffe://acme.example/client/ci-7");
    assert_eq!(before["days_left"], 2);
    assert_eq!(show("ci"), before, "a directory stands for its certificate");

    let key = std::fs::read(dir.join("ci/tls.key")).unwrap();
    done(dir, &["pki", "renew", "ci", "--dir", "ca", "--days", "90"]);
    let after = show("ci");
    assert_eq!(after["days_left"], 90);
    assert_eq!(after["uri"], before["uri"]);
    assert_ne!(after["serial"], before["serial"]);
    assert_eq!(std::fs::read(dir.join("ci/tls.key")).unwrap(), key, "the key stays");

    let serial = after["serial"].as_str().unwrap();
    done(dir, &["pki", "revoke", "ci", "--dir", "ca", "--copy-to", "ca/member-3"]);
    done(dir, &["pki", "revoke", "--serial", "0abc", "--kind", "member", "--dir", "ca"]);
    let authorities = show("ca");
    assert_eq!(authorities["authorities"][0]["revoked"], serde_json::json!([serial]));
    assert_eq!(authorities["authorities"][1]["revoked"], serde_json::json!(["0abc"]));
    assert!(dir.join("ca/member-3/client-ca.crl").exists());
}

#[test]
fn keys_are_never_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    done(dir, &["pki", "init", "--dir", "ca"]);
    done(dir, &["pki", "issue", "client", "x", "--dir", "ca"]);
    let files = ["ca/client-ca.key", "ca/peer-ca.key", "ca/client-x/tls.key", "ca/client-x/tls.crt"];
    let read = || files.map(|file| std::fs::read(dir.join(file)).unwrap());
    let before = read();
    for args in [
        &["pki", "init", "--dir", "ca"][..],
        &["pki", "issue", "client", "x", "--dir", "ca"],
        &["pki", "issue", "member", "1", "--dir", "ca", "--out", "ca/client-x"],
    ] {
        let ran = run(dir, args);
        assert_eq!(ran.code, 1, "{args:?}");
        assert!(ran.err.starts_with("refused: exists: "), "{}", ran.err);
        assert!(ran.err.contains(".key exists and is not overwritten"), "{}", ran.err);
    }
    assert_eq!(read(), before);
    // Half an installation: making the other half would be an authority that knows nothing of the first.
    std::fs::remove_file(dir.join("ca/client-ca.key")).unwrap();
    assert_eq!(run(dir, &["pki", "init", "--dir", "ca"]).code, 1);
    assert!(!dir.join("ca/client-ca.key").exists());
}

#[test]
fn mistakes_are_told_apart_by_exit_code_and_say_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    done(dir, &["pki", "init", "--dir", "ca"]);
    done(dir, &["pki", "init", "--dir", "other", "--trust-domain", "other"]);
    done(dir, &["pki", "issue", "client", "x", "--dir", "other", "--out", "x"]);
    std::fs::write(dir.join("noise"), "noise").unwrap();
    for (args, code, said) in [
        (&["pki", "issue", "client", "a", "--dir", "nowhere"][..], 1, "conclave pki init --dir nowhere"),
        (&["pki", "issue", "client", "a/b", "--dir", "ca"], 2, "\"a/b\" is not a client name"),
        (&["pki", "issue", "member", "0", "--dir", "ca"], 2, "0 is not in 1"),
        (&["pki", "issue", "client", "a", "--dir", "ca", "--days", "0"], 2, "--days"),
        (&["pki", "init", "--dir", "new", "--trust-domain", "Not A Domain"], 2, "trust domain"),
        (&["pki", "renew", "x", "--dir", "ca"], 1, "refused: not-ours: "),
        (&["pki", "revoke", "x", "--dir", "ca"], 1, "refused: not-ours: "),
        (&["pki", "revoke", "--dir", "ca"], 2, "CERTIFICATE"),
        (&["pki", "revoke", "--serial", "12", "--dir", "ca"], 2, "--kind"),
        (&["pki", "revoke", "--serial", "12", "--kind", "client", "--dir", "ca", "--copy-to", "gone"], 2, "gone"),
        (&["pki", "show", "noise"], 1, "noise: "),
        (&["pki", "show", "gone"], 1, "gone"),
        (&["pki"], 2, "Usage"),
    ] {
        let ran = run(dir, args);
        assert_eq!(ran.code, code, "{args:?}: {}", ran.err);
        assert!(ran.err.contains(said), "{args:?}: {}", ran.err);
    }
    assert!(!dir.join("ca/client-ca.crl").exists(), "what is refused changes nothing");
}
