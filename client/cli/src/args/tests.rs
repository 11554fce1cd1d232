//! What the command line takes, and what it does not.

use clap::{CommandFactory, Parser};

use super::*;

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

fn parse(line: &[&str]) -> Result<Line, clap::Error> {
    Line::try_parse_from(std::iter::once("conclave").chain(line.iter().copied()))
}

fn command(line: &[&str]) -> Command {
    parse(line).unwrap().command
}

#[test]
fn the_command_line_is_sound() {
    Line::command().debug_assert();
}

#[test]
fn options_of_all_commands_may_stand_before_and_behind_them() {
    for line in [["--json", "--timeout", "2s", "get", "/a"], ["get", "/a", "--json", "--timeout", "2s"]] {
        let globals = parse(&line).unwrap().globals;
        assert!(globals.json);
        assert_eq!(globals.timeout, Some(Duration::from_secs(2)));
    }
    let globals = parse(&["get", "/a", "--endpoints", "a:1,b:2"]).unwrap().globals;
    assert_eq!(globals.endpoints, ["a:1", "b:2"]);
    assert!(parse(&["get", "/a", "--certificate", "c.pem"]).is_err(), "a certificate needs its key");
}

#[test]
fn data_comes_from_one_place() {
    for (line, positional, text, file) in [
        (&["set", "/a", "v2"][..], Some("v2"), None, None),
        (&["set", "/a", "-"], Some("-"), None, None),
        (&["set", "/a", "-5"], Some("-5"), None, None),
        (&["set", "/a", "--data", "--x"], None, Some("--x"), None),
        (&["set", "/a", "--file", "f"], None, None, Some("f")),
        (&["set", "/a", "--", "--x"], Some("--x"), None, None),
        (&["set", "/a"], None, None, None),
    ] {
        let Command::Set(set) = command(line) else { panic!("{line:?}") };
        let seen = (set.data.positional.as_deref(), set.data.text.as_deref(), set.data.file);
        assert_eq!(seen, (positional, text, file.map(PathBuf::from)), "{line:?}");
    }
    for line in [&["set", "/a", "x", "--data", "y"][..], &["set", "/a", "--data", "y", "--file", "f"]] {
        assert!(parse(line).is_err(), "{line:?}");
    }
}

#[test]
fn what_stands_behind_the_dashes_is_the_command() {
    let Command::Lock(lock) = command(&["lock", "/m", "--wait", "30s", "--", "sh", "-c", "x", "--json"]) else {
        panic!("it is a lock");
    };
    assert_eq!(lock.command, ["sh", "-c", "x", "--json"]);
    assert_eq!((lock.wait, lock.grace), (Some(Duration::from_secs(30)), Duration::from_secs(2)));
    let Command::Create(create) = command(&["create", "/m", "data", "-e", "--", "sh", "-c", "x"]) else {
        panic!("it is a create");
    };
    assert_eq!(create.command, ["sh", "-c", "x"]);
    assert_eq!(create.data.positional.as_deref(), Some("data"));
    for line in [
        &["lock", "/m"][..],
        &["lock", "/m", "--show", "--", "x"],
        &["lock", "/m", "--show", "--wait", "1s"],
        &["lock", "/m", "--wait", "30", "--", "x"],
        &["create", "/m", "--", "x"],
    ] {
        assert!(parse(line).is_err(), "{line:?}");
    }
    assert!(parse(&["lock", "--show", "/m"]).is_ok());
}

#[test]
fn a_call_takes_numbers_below_zero() {
    let Command::Call(call) = command(&["call", "counter", "increment", "/hits", "-5"]) else {
        panic!("it is a call");
    };
    assert_eq!(call.args, ["/hits", "-5"]);
}

#[test]
fn what_makes_no_sense_is_refused_here() {
    for line in [
        &["get"][..],
        &["set", "/a", "x", "--if-version", "-1"],
        &["set", "/a", "x", "--fence", "/a"],
        &["watch", "/a", "--recursive", "--children"],
        &["watch", "/a", "--since", "x"],
        &["bench", "--workload", "fly"],
        &["bench", "--clients", "0"],
        &["bench", "--depth", "0"],
        &["bench", "--seconds", "-1"],
        &["no-such-command"],
    ] {
        assert!(parse(line).is_err(), "{line:?}");
    }
}

#[test]
fn the_examples_of_the_tour_are_taken() {
    for line in [
        &["create", "/app/config", "--data", "v1", "--parents"][..],
        &["watch", "/app", "--recursive"],
        &["set", "/app/config", "v2", "--if-version", "0"],
        &["set", "/app/release", "v9", "--fence", "/locks/deploy/holder@17"],
        &["lock", "--show", "/locks/deploy"],
        &["create", "/members/m-", "--ephemeral", "--sequential"],
        &["import", "-"],
        &["export", "/app", "tree.json"],
        &[
            "bench",
            "--workload",
            "write",
            "--clients",
            "64",
            "--depth",
            "8",
            "--seconds",
            "5",
            "--size",
            "100",
            "--json",
        ],
        &["status"],
    ] {
        assert!(parse(line).is_ok(), "{line:?}");
    }
}
