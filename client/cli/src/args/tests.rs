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
    assert_eq!(call.arguments.args, ["/hits", "-5"]);
}

#[test]
fn a_namespace_is_an_option_of_every_command() {
    for line in [&["--namespace", "/p", "get", "/a"][..], &["get", "/a", "--namespace", "/p"]] {
        assert_eq!(parse(line).unwrap().globals.namespace.as_deref(), Some("/p"));
    }
}

#[test]
fn a_read_is_as_fresh_as_it_says() {
    use conclave_client::Consistency;
    for (line, consistency) in [
        (&["get", "/a"][..], None),
        (&["get", "/a", "--stale"], Some(Consistency::Stale)),
        (&["get", "/a", "--stale-within", "500ms"], Some(Consistency::Within(500))),
        (&["get", "/a", "/b", "--linearizable"], Some(Consistency::Linearizable)),
    ] {
        let Command::Get(get) = command(line) else { panic!("{line:?}") };
        assert_eq!(get.fresh.consistency(), consistency, "{line:?}");
    }
    for other in ["ls", "stat", "exists", "count", "tree"] {
        assert!(parse(&[other, "/a", "--linearizable"]).is_ok(), "{other}");
    }
    assert!(parse(&["acl", "get", "/a", "--stale"]).is_ok());
}

#[test]
fn an_update_says_one_way_how() {
    let Command::Update(update) = command(&["update", "/a", "--add", "-5", "--or-create"]) else { panic!("an update") };
    assert_eq!((update.add, update.or_create), (Some(-5), true));
    let Command::Update(update) = command(&["update", "/a", "--swap", "-x", "", "--if-version", "3"]) else {
        panic!("an update");
    };
    assert_eq!(update.swap.unwrap(), ["-x", ""]);
    assert_eq!(update.if_version, Some(3));
    for line in [
        &["update", "/a"][..],
        &["update", "/a", "--add", "1", "--min", "2"],
        &["update", "/a", "--swap", "x"],
        &["update", "/a", "--add", "1.5"],
    ] {
        assert!(parse(line).is_err(), "{line:?}");
    }
}

#[test]
fn all_behind_exec_is_the_command() {
    let line =
        ["watch", "/a", "-r", "--kinds", "created,deleted", "--exit-on-failure", "--exec", "sh", "-c", "x", "--json"];
    let Command::Watch(watch) = command(&line) else { panic!("a watch") };
    assert_eq!(watch.exec, ["sh", "-c", "x", "--json"]);
    assert_eq!(watch.kinds, [Kind::Created, Kind::Deleted]);
    assert!(watch.recursive && watch.exit_on_failure);
    let Command::Watch(watch) = command(&["watch", "/a", "--since", "17@6f1c", "--names", "*.json"]) else {
        panic!("a watch");
    };
    assert!(matches!(watch.since, Some(Since::Bookmark(bookmark)) if bookmark.cluster == "6f1c"));
    let Command::Watch(watch) = command(&["watch", "/a", "--since", "17"]) else { panic!("a watch") };
    assert_eq!(watch.since, Some(Since::Zxid(conclave_client::Zxid(17))));
}

#[test]
fn a_kind_of_znode_is_what_can_be() {
    let line = ["create", "/a", "x", "--ttl", "30d", "--or-set", "--acl", "anyone:r", "--acl", "me:crwda"];
    let Command::Create(create) = command(&line) else { panic!("a create") };
    assert_eq!(create.ttl, Some(Duration::from_secs(30 * 86_400)));
    assert_eq!(create.acl, ["anyone:r", "me:crwda"]);
    assert!(parse(&["create", "/a", "--container", "--ttl", "10m"]).is_ok());
    assert!(parse(&["create", "/a", "--container", "--ephemeral"]).is_err());
    assert!(parse(&["create", "/a", "--or-set", "--sequential"]).is_err());
}

#[test]
fn what_makes_no_sense_is_refused_here() {
    for line in [
        &["get"][..],
        &["get", "/a", "--stale", "--linearizable"],
        &["get", "/a", "--stale-within", "5"],
        &["delete", "/a", "--recursive", "--in-parts"],
        &["ls", "/a", "--limit", "0"],
        &["ls", "/a", "--names", "--long"],
        &["ls", "/a", "--tree", "--prefix", "x"],
        &["acl", "set", "/a"],
        &["session", "show", "x"],
        &["barrier", "enter", "/b", "--members", "0", "--", "x"],
        &["watch", "/a", "--existence", "--children"],
        &["watch", "/a", "--snapshot", "--since", "1"],
        &["watch", "/a", "--kinds", "moved"],
        &["watch", "/a", "--names", "a/b"],
        &["watch", "/a", "--exit-on-failure"],
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
        &["update", "/hits", "--add", "1", "--or-create"],
        &["acl", "set", "/app", "me:crwda", "client/deploy:rw", "anyone:r"],
        &["session", "kill", "17"],
        &["txn", "deploy.txn"],
        &["txn", "-", "--fence", "/l@1"],
        &["shell", "--json"],
        &["delete", "/app", "--in-parts"],
        &["ls", "/app", "--prefix", "job-", "--limit", "10", "--after", "job-3", "--data"],
    ] {
        assert!(parse(line).is_ok(), "{line:?}");
    }
}
