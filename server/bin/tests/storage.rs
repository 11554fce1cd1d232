//! Backup, restore, doctor and `server --replace`, run as programs.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;

use common::{Dev, base_port, done, run};
use serde_json::Value;

fn json(dir: &Path, args: &[&str]) -> Value {
    serde_json::from_str(&done(dir, args)).unwrap()
}

fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

/// A cluster of one member with a few znodes, and a backup of it.
fn backed_up(dir: &Path) -> (Dev, Value) {
    let base = base_port().to_string();
    let mut dev = Dev::start(dir, &["--members", "1", "--base-port", &base]);
    dev.ready();
    for n in 0..20 {
        done(dir, &["create", &format!("/data/{n}"), "--data", "v", "--parents"]);
    }
    let backup = json(dir, &["backup", "demo.backup", "--json"]);
    (dev, backup)
}

#[test]
fn a_backup_becomes_a_data_directory_that_the_doctor_finds_sound_until_it_is_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let (dev, backup) = backed_up(dir);
    assert_eq!(keys(&backup), ["bytes", "cluster", "digest", "file", "rows", "seconds", "zxid"]);
    assert!(!dir.join("demo.backup.part").exists());
    let again = run(dir, &["backup", "demo.backup"]);
    assert!(again.code == 1 && again.err.starts_with("refused: file-exists: "), "{}", again.err);
    done(dir, &["backup", "demo.backup", "--overwrite"]);

    // The cluster's own doctor; its data directory is in use.
    let online = json(dir, &["doctor", "--json"]);
    assert_eq!((online["sound"].as_bool(), online["members"][0]["role"].as_str()), (Some(true), Some("leader")));
    let used = run(dir, &["doctor", "--dir", ".conclave/members/1/data"]);
    assert!(used.code == 1 && used.err.starts_with("refused: in-use: "), "{}", used.err);
    let listed = json(dir, &["cluster", "list", "--json"]);
    assert_eq!(listed["members"][0]["voter"], true);
    let last = run(dir, &["cluster", "remove", "1"]);
    assert!(last.code == 1 && last.err.starts_with("refused: last-voter: "), "{}", last.err);
    // One that nobody starts gets no vote, and is taken out again.
    let add = ["cluster", "add", "2", "--client", "127.0.0.1:1", "--peer", "127.0.0.1:2", "--wait", "300ms", "--json"];
    let waited = run(dir, &add);
    assert_eq!(waited.code, 5, "{}{}", waited.out, waited.err);
    let error: Value = serde_json::from_str(&waited.err).unwrap();
    assert_eq!(error["error"]["code"], "timed-out");
    let found = run(dir, &["doctor"]);
    assert!(found.code == 1 && found.out.contains("error    unreachable: member 2: "), "{}", found.out);
    let removed = json(dir, &["cluster", "remove", "2", "--json"]);
    assert_eq!((&removed["done"], &removed["member"]), (&"removed".into(), &2.into()));
    dev.stop();

    let to = ["--client", "127.0.0.1:7101", "--peer", "127.0.0.1:7201", "--json"];
    let restore = |dir_: &str, cluster: &str| {
        let args = [&["restore", "demo.backup", "--dir", dir_, "--cluster", cluster][..], &to].concat();
        run(dir, &args)
    };
    let same = restore("one/data", backup["cluster"].as_str().unwrap());
    assert!(same.code == 1 && same.err.contains("same-cluster"), "{}", same.err);
    assert!(!dir.join("one/data").exists(), "a refusal leaves nothing");
    let restored = restore("one/data", "second");
    assert_eq!(restored.code, 0, "{}", restored.err);
    let restored: Value = serde_json::from_str(&restored.out).unwrap();
    assert_eq!(
        keys(&restored),
        [
            "cluster",
            "config",
            "config_written",
            "digest_after",
            "digest_before",
            "dir",
            "from_cluster",
            "member",
            "rows",
            "seconds",
            "zxid"
        ]
    );
    assert_eq!((&restored["digest_before"], &restored["digest_after"]), (&backup["digest"], &backup["digest"]));
    let twice = restore("one/data", "third");
    assert!(twice.code == 1 && twice.err.contains("not-empty"), "{}", twice.err);

    let sound = json(dir, &["doctor", "--dir", "one/data", "--json"]);
    assert_eq!(
        keys(&sound),
        [
            "applied",
            "checkpoint",
            "cluster",
            "digest",
            "dir",
            "findings",
            "log_entries",
            "log_first",
            "log_last",
            "rows",
            "sound",
            "vote_term",
            "znodes",
            "zxid"
        ]
    );
    assert_eq!(
        (&sound["digest"], &sound["sound"], &sound["cluster"]),
        (&backup["digest"], &true.into(), &"second".into())
    );
    damaged(dir);
}

/// What is said when the restored directory's log is damaged.
fn damaged(dir: &Path) {
    done(dir, &["pki", "init", "--dir", "pki"]);
    done(dir, &["pki", "issue", "member", "1", "--dir", "pki", "--out", "one/tls"]);
    assert_eq!(run(dir, &["doctor", "--config", "one/member.toml"]).code, 0);
    let log = std::fs::read_dir(dir.join("one/data/log")).unwrap().map(|entry| entry.unwrap().path());
    let segment = log.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("log-")).max().unwrap();
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[9] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let found = run(dir, &["doctor", "--config", "one/member.toml"]);
    assert!(found.code == 1 && found.out.contains("error    log: "), "{}{}", found.out, found.err);
    assert!(found.out.contains("conclave server --config one/member.toml --replace"), "{}", found.out);
    let start = run(dir, &["server", "--config", "one/member.toml"]);
    assert!(
        start.code == 1 && start.err.contains("`conclave server --config one/member.toml --replace`"),
        "{}",
        start.err
    );
}

#[test]
fn a_damaged_backup_makes_no_cluster() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let (dev, _) = backed_up(dir);
    dev.stop();
    let mut bytes = std::fs::read(dir.join("demo.backup")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    std::fs::write(dir.join("demo.backup"), bytes).unwrap();
    let to = ["--client", "127.0.0.1:7101", "--peer", "127.0.0.1:7201"];
    let args = [&["restore", "demo.backup", "--dir", "data", "--cluster", "second"][..], &to].concat();
    let ran = run(dir, &args);
    assert!(ran.code == 1 && ran.err.contains("demo.backup"), "{}", ran.err);
    assert!(!dir.join("member.toml").exists());
    let ran = run(dir, &[&["restore", "gone", "--dir", "data", "--cluster", "second"][..], &to].concat());
    assert!(ran.code == 1 && ran.err.starts_with("refused: bad-backup: "), "{}", ran.err);
}

#[test]
fn what_to_do_about_a_lost_disk_is_filled_in() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let text = done(dir, &["server", "--print-defaults"]);
    std::fs::write(dir.join("member.toml"), text).unwrap();
    let said = done(dir, &["server", "--config", "member.toml", "--replace"]);
    for part in ["conclave cluster remove 1", "issue member 4", "conclave cluster add 4 --client one.example:7101"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let said = json(dir, &["server", "--config", "member.toml", "--replace", "--json"]);
    assert_eq!(keys(&said), ["client", "cluster", "data", "member", "new_member", "peer", "steps", "tls"]);
    assert_eq!((&said["member"], &said["new_member"]), (&1.into(), &4.into()));
    assert!(!dir.join("data").exists(), "nothing is done");
}
