//! `conclave dev`, run as a program, with the members that it starts.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;

use common::{Dev, base_port, is_alive, run, signal};
use conclave_client::{Client, Options};
use rustix::process::{Pid, Signal};

fn pid(dir: &Path, member: u64) -> Option<u32> {
    let text = std::fs::read_to_string(dir.join(format!(".conclave/members/{member}/pid"))).ok()?;
    Some(text.trim().parse().unwrap())
}

fn write(dir: &Path, path: &str, data: &str) {
    with_client(dir, async |client| {
        client.at(path).create(data.to_owned()).await.unwrap();
    });
}

fn read(dir: &Path, path: &str) -> String {
    with_client(dir, async |client| String::from_utf8(client.at(path).get().await.unwrap().data.to_vec()).unwrap())
}

fn with_client<T>(dir: &Path, work: impl AsyncFnOnce(Client) -> T) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let options = Options::from_dir(dir.join(".conclave")).unwrap();
        let client = Client::connect(options).await.unwrap();
        let result = work(client.clone()).await;
        client.close().await.unwrap();
        result
    })
}

#[test]
fn one_member_comes_up_and_has_its_data_when_it_is_started_again() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let base = base_port().to_string();
    let mut dev = Dev::start(dir, &["--members", "1", "--base-port", &base]);
    let said = dev.ready();
    assert!(said.contains(&format!("in .conclave · mutual TLS · 1 member   1 leader 127.0.0.1:{base} pid ")), "{said}");
    assert_eq!(std::fs::read_to_string(dir.join(".conclave/.gitignore")).unwrap(), "*\n");
    write(dir, "/kept", "v1");

    // Held by one at a time, and only as what it is.
    let second = run(dir, &["dev"]);
    assert!(second.code == 1 && second.err.starts_with("refused: in-use: "), "{}", second.err);
    assert!(second.err.contains(&format!("(pid {})", dev.pid())), "{}", second.err);
    let member = pid(dir, 1).unwrap();
    let server = run(dir, &["server", "--config", ".conclave/members/1/member.toml"]);
    assert!(server.code == 1 && server.err.contains(&member.to_string()), "{}", server.err);

    dev.stop();
    assert!(!is_alive(member));
    assert_eq!(pid(dir, 1), None);
    let other = run(dir, &["dev", "--members", "3"]);
    assert!(other.code == 1 && other.err.contains("holds a cluster of 1 member, you asked for 3"), "{}", other.err);

    let config = std::fs::read_to_string(dir.join(".conclave/members/1/member.toml")).unwrap();
    assert!(config.contains("initialize = false"), "it may never be made anew: {config}");
    let mut dev = Dev::start(dir, &[]);
    let again = dev.ready();
    assert_eq!(said.split_whitespace().nth(1), again.split_whitespace().nth(1), "the cluster's id");
    assert_eq!(read(dir, "/kept"), "v1");
    dev.stop();
}

#[test]
fn a_member_that_is_killed_is_reported_and_started_again_while_clients_are_served() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let mut dev = Dev::start(dir, &["--base-port", &base_port().to_string()]);
    let said = dev.ready();
    assert!(said.contains("3 members") && said.matches("pid").count() == 3, "{said}");
    assert_eq!(said.matches("leader").count(), 1, "{said}");
    write(dir, "/before", "1");
    let old = pid(dir, 2).unwrap();
    // A Ctrl-C in the terminal goes to the group in the foreground: not theirs.
    let process = Pid::from_raw(i32::try_from(old).unwrap());
    assert_eq!(rustix::process::getpgid(process).ok(), process);
    signal(old, Signal::KILL);
    let reported = dev.line("report", |line| line.starts_with("member 2"));
    assert_eq!(reported, format!("member 2 (pid {old}) was killed by signal 9; starting it again in 1 s"));
    write(dir, "/during", "2");
    let back = dev.line("restart", |line| line.starts_with("member 2 runs again"));
    let new = pid(dir, 2).unwrap();
    assert!(new != old && back.contains(&new.to_string()), "{back}");
    assert_eq!((read(dir, "/before"), read(dir, "/during")), ("1".to_owned(), "2".to_owned()));
    let members = [1, 2, 3].map(|id| pid(dir, id).unwrap());
    dev.stop();
    assert_eq!(members.map(is_alive), [false; 3]);
}

#[test]
fn members_end_with_a_dev_that_is_killed_and_the_next_one_takes_over() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let mut dev = Dev::start(dir, &["--members", "1", "--base-port", &base_port().to_string()]);
    dev.ready();
    write(dir, "/kept", "v1");
    let member = pid(dir, 1).unwrap();
    signal(dev.pid(), Signal::KILL);
    dev.end();
    // At once: it waits for the orphan itself.
    let mut dev = Dev::start(dir, &[]);
    dev.ready();
    assert!(!is_alive(member));
    assert_eq!(read(dir, "/kept"), "v1");
    dev.stop();
}

#[test]
fn without_restart_a_member_stays_down() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let mut dev = Dev::start(dir, &["--no-restart", "--base-port", &base_port().to_string()]);
    dev.ready();
    signal(pid(dir, 3).unwrap(), Signal::KILL);
    let reported = dev.line("report", |line| line.starts_with("member 3"));
    assert!(reported.ends_with("was killed by signal 9; it is left down (--no-restart)"), "{reported}");
    write(dir, "/two-are-enough", "1");
    assert_eq!(pid(dir, 3), None);
    dev.stop();
}

#[test]
fn a_port_that_is_taken_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let base = base_port();
    let taken = std::net::UdpSocket::bind(("127.0.0.1", base + 101)).unwrap();
    let ran = run(dir, &["dev", "--base-port", &base.to_string()]);
    assert_eq!(ran.code, 1);
    assert!(ran.err.starts_with(&format!("refused: port-in-use: port {} on 127.0.0.1", base + 101)), "{}", ran.err);
    drop(taken);
    // What was refused is no obstacle, and later starts look again.
    let mut dev = Dev::start(dir, &["--base-port", &base.to_string()]);
    dev.ready();
    dev.stop();
    let taken = std::net::TcpListener::bind(("127.0.0.1", base + 202)).unwrap();
    let ran = run(dir, &["dev"]);
    assert!(ran.code == 1 && ran.err.contains(&format!("port {} on 127.0.0.1", base + 202)), "{}", ran.err);
    drop(taken);
}

#[test]
fn a_member_that_cannot_start_is_shown_with_what_it_said() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let args = ["--members", "1", "--base-port", &base_port().to_string()];
    let mut dev = Dev::start(dir, &args);
    dev.ready();
    dev.stop();
    std::fs::write(dir.join(".conclave/members/1/tls/tls.crt"), "noise").unwrap();
    let mut dev = Dev::start(dir, &["--no-restart"]);
    let reported = dev.line("report", |line| line.starts_with("member 1"));
    assert!(reported.contains("ended with exit code 1; it is left down"), "{reported}");
    dev.line("the reason", |line| line.contains("tls.crt"));
    let (status, errors) = dev.end();
    assert_eq!(status.code(), Some(1));
    assert!(errors.contains("1 of 1 members cannot be started"), "{errors}");
}

#[test]
fn a_directory_of_something_else_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("main.rs"), "").unwrap();
    let ran = run(dir.path(), &["dev", "--dir", "."]);
    assert!(ran.code == 1 && ran.err.starts_with("refused: not-ours: "), "{}", ran.err);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing was written");
    assert_eq!(run(dir.path(), &["dev", "--members", "2"]).code, 2);
}
