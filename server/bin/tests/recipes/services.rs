//! `conclave service`: listed as long as it lives, drained on demand, and gone with its process.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::common::{conclave, is_alive};
use crate::stage::{Cluster, MORTAL, UP, cluster, until};

fn ids(cluster: &Cluster, service: &str) -> Vec<String> {
    let listed = cluster.json(&["service", "list", service]);
    let id = |one: &Value| one["id"].as_str().unwrap().to_owned();
    listed["instances"].as_array().unwrap().iter().map(id).collect()
}

#[test]
fn an_instance_is_listed_with_all_that_was_said_and_goes_with_its_command() {
    let cluster = cluster();
    let said = ["service", "register", "api", "10.0.0.7:8080", "--id", "a1", "--weight", "10", "--tag", "blue"];
    let more = ["--tag", "new", "--release", "1.2", "--region", "eu", "--zone", "b", "--meta", "owner=ann"];
    let mut api = cluster.start(&[&said, &more[..], &["--", "sh", "-c", UP]].concat());
    api.out.until("up");
    let listed = cluster.json(&["service", "list", "api"]);
    let instance = &listed["instances"][0];
    for (key, value) in [
        ("id", json!("a1")),
        ("address", json!("10.0.0.7:8080")),
        ("status", json!("up")),
        ("weight", json!(10)),
        ("version", json!("1.2")),
        ("region", json!("eu")),
        ("zone", json!("b")),
        ("tags", json!(["blue", "new"])),
        ("metadata", json!({ "owner": "ann" })),
        ("healthy", json!(true)),
    ] {
        assert_eq!(instance[key], value, "{key}: {instance}");
    }
    assert_eq!(
        cluster.done(&["service", "list", "api"]),
        "ID  ADDRESS        STATUS  WEIGHT  VERSION  PLACE  TAGS\na1  10.0.0.7:8080  up          10  1.2      eu/b   blue,new\n"
    );
    let services = cluster.json(&["service", "list"]);
    assert!(
        services["services"].as_array().unwrap().contains(&json!({ "service": "api", "instances": 1 })),
        "{services}"
    );
    assert!(cluster.done(&["service", "list"]).starts_with("SERVICE  INSTANCES\n"));
    assert_eq!(api.end().code, 0);
    assert_eq!(cluster.done(&["service", "list", "api"]), "api has no instances\n");
    let code = cluster.run(&["service", "register", "api", "x:1", "--", "sh", "-c", "exit 6"]).code;
    assert_eq!(code, 6);
    assert_eq!(ids(&cluster, "api"), [""; 0]);
}

#[test]
fn a_watch_shows_who_comes_drains_and_is_killed() {
    let cluster = cluster();
    let mut watch = cluster.start(&["--json", "service", "watch", "mail"]);
    let mut seen = || serde_json::from_str::<Value>(&watch.out.until("{")).unwrap()["instances"].take();
    let mut text = cluster.start(&["service", "watch", "mail"]);
    text.out.until("mail has no instances");
    assert_eq!(seen(), json!([]));
    let register = ["service", "register", "mail", "10.0.0.9:25", "--id", "m1", "--", "sh", "-c", UP];
    let mut mail = cluster.start(&[&["--dir", MORTAL], &register[..]].concat());
    mail.out.until("up");
    assert_eq!((&seen()[0]["status"], ids(&cluster, "mail")), (&"up".into(), vec!["m1".to_owned()]));
    text.out.until("m1  10.0.0.9:25  up ");

    assert_eq!(cluster.done(&["service", "drain", "mail", "m1"]), "draining  mail m1\n");
    assert_eq!(seen()[0]["status"], "draining");
    text.out.until("m1  10.0.0.9:25  draining ");
    let drained = cluster.json(&["service", "drain", "mail", "m1"]);
    assert_eq!(drained, json!({ "done": "draining", "service": "mail", "id": "m1" }));
    let healthy = seen();
    assert_eq!(healthy[0]["id"], "m1", "written again: {healthy}");

    mail.kill();
    assert_eq!(seen(), json!([]));
    text.out.until("mail has no instances");
    assert_eq!(ids(&cluster, "mail"), [""; 0]);
    watch.signal(Signal::TERM);
    assert_eq!(watch.ends().code, 0);
    text.signal(Signal::TERM);
    assert_eq!(text.ends().code, 0);
}

#[test]
fn a_watch_ends_when_nobody_reads_it_any_more() {
    let cluster = cluster();
    let mut command = conclave();
    command.args(["service", "watch", "unread"]).current_dir(cluster.dir()).stdout(Stdio::piped());
    let mut watch = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(watch.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "unread has no instances\n");
    // Without anything new to say, of which it could not write.
    let mut status = None;
    until("it ends", || {
        status = watch.try_wait().unwrap();
        status.is_some()
    });
    assert_eq!(status.unwrap().code(), Some(0));
}

#[test]
fn without_a_command_it_is_registered_until_it_is_told_to_end() {
    let cluster = cluster();
    let mut cron = cluster.start(&["service", "register", "cron", "10.0.0.1:1", "--id", "c1", "--at", "/other"]);
    assert_eq!(cron.err.until("/other"), "/other/cron/c1 is registered until Ctrl-C");
    let list = || cluster.json(&["service", "list", "cron", "--at", "/other"])["instances"].as_array().unwrap().len();
    assert_eq!(list(), 1);
    assert_eq!(ids(&cluster, "cron"), [""; 0], "it is elsewhere");
    cron.signal(Signal::TERM);
    assert_eq!(cron.ends().code, 0);
    assert_eq!(list(), 0);
}

#[test]
fn a_command_is_ended_with_the_session_that_its_instance_lives_by() {
    let cluster = cluster();
    let register = ["service", "register", "db", "10.0.0.2:1", "--id", "d1", "--", "sh", "-c"];
    let mut db = cluster.start(&[&register[..], &["echo $$; exec cat"]].concat());
    let command: u32 = db.out.until("").trim().parse().unwrap();
    let owner = cluster.json(&["stat", "/services/db/d1"])["stat"]["owner"].as_u64().unwrap();
    cluster.done(&["session", "kill", &owner.to_string()]);
    let ran = db.ends();
    assert_eq!(ran.code, 123, "{}", ran.err);
    assert!(ran.err.starts_with("lost: the session of /services/db/d1 is over"), "{}", ran.err);
    assert!(!is_alive(command), "it runs on");
    until("it is gone", || ids(&cluster, "db").is_empty());
}

#[test]
fn what_makes_no_sense_is_said_in_a_line() {
    let cluster = cluster();
    let gone = cluster.fails(1, &["service", "drain", "nobody", "x1"]);
    assert!(gone.starts_with("refused: no-znode: /services/nobody/x1 does not exist."), "{gone}");
    cluster.done(&["create", "/services/odd/o1", "--data", "no JSON", "--parents"]);
    let odd = cluster.fails_in_json(1, &["service", "drain", "odd", "o1"]);
    assert_eq!((&odd["code"], &odd["outcome"]), (&"no-instance".into(), &"not-applied".into()), "{odd}");
    for args in [
        &["list", "api", "--at", "services"][..],
        &["list", "--at", "services"],
        &["watch", "a/b"],
        &["drain", "api", "../x"],
        &["register", "a/b", "x:1"],
    ] {
        let line = cluster.fails(1, &[&["service"], args].concat());
        assert!(line.starts_with("refused: ") && !line.contains("COMMAND"), "{line}");
    }
    let register = ["service", "register", "api", "x:1"];
    let relative = cluster.fails(125, &[&register[..], &["--at", "services", "--", "true"]].concat());
    assert!(relative.ends_with("COMMAND was not run."), "{relative}");
    cluster.misunderstood(&["service", "register", "api"]);
    cluster.misunderstood(&[&register[..], &["--weight", "-1"]].concat());
    let pair = cluster.misunderstood(&[&register[..], &["--meta", "owner"]].concat());
    assert!(pair.contains("it is written KEY=VALUE"), "{pair}");
    cluster.misunderstood(&["service", "lsit"]);
}
