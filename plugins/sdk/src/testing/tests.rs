//! The tree for tests does what a cluster does: triggers, parking, sessions, time.

use serde::Deserialize;

use crate::{
    After, Answer, Before, Change, Context, Create, Ended, NoArgs, Park, Path, Reason, Result, SessionEnd, TestTree,
    Timer, Tree, Verdict, json,
};

/// Does what its arguments say.
struct Probe;

const MANIFEST: &str = r#"
name = "probe"
version = "0.1.0"
world = "conclave:plugin@0.1"

[[procedure]]
name = "park-on"
params = ["path: path", "all: boolean = false", "until?: integer", "again: boolean = false", "write?: path"]
parks = true

[[procedure]]
name = "loops"
parks = true

[[procedure]]
name = "not-said"

[[procedure]]
name = "write"
params = ["path: path", "fail: boolean = false"]

[[query]]
name = "cheats"

[[trigger]]
on = "before"
name = "second"
order = 2
paths = ["/guarded/**"]

[[trigger]]
on = "before"
name = "first"
order = 1
paths = ["/guarded/*"]

[[trigger]]
on = "after"
paths = ["/copied/*", "/forever/*"]

[[trigger]]
on = "session-end"

[[trigger]]
on = "timer"
name = "tick"
every-ms = 1000

[[needs]]
paths = ["/**"]
ops = ["read"]

[[needs]]
paths = ["/own/**", "/copies/**", "/forever/**", "/ended/**"]
ops = ["create", "write"]
"#;

crate::export!(
    Probe: manifest(MANIFEST), before, after, session_end, timer,
    procedures(park_on, loops, not_said, write), queries(cheats)
);

#[derive(Deserialize)]
struct ParkOn {
    path: Path,
    all: bool,
    until: Option<u64>,
    again: bool,
    write: Option<Path>,
}

/// Parks once; then says why it was run again. With `write` it notes each run there.
fn park_on(tree: &Tree, context: &Context, args: ParkOn) -> Result<Answer<String>> {
    if let Some(path) = &args.write {
        tree.create(path.join("run-")?, "", Create::with_parents().numbered())?;
    }
    let park = Park::exists(&args.path).until_ms(args.until).state(&context.ticket()?);
    let park = if args.all { park.wake_all() } else { park };
    let Some(resumed) = context.resumed().filter(|_| !args.again) else { return Ok(park.into()) };
    assert_eq!(resumed.state::<u64>()?, Some(context.ticket()?), "a call keeps its ticket");
    Ok(Answer::Done(format!("{:?}", resumed.reason)))
}

fn loops(tree: &Tree, _: &Context, _: NoArgs) -> Result<Answer<()>> {
    tree.create("/own/loops-", "", Create::with_parents().numbered())?;
    Ok(Park::exists("/").into())
}

fn not_said(_: &Tree, _: &Context, _: NoArgs) -> Result<Answer<()>> {
    Ok(Park::exists("/x").into())
}

#[derive(Deserialize)]
struct Write {
    path: Path,
    fail: bool,
}

fn write(tree: &Tree, _: &Context, args: Write) -> Result<()> {
    tree.create(&args.path, "x", Create::with_parents())?;
    if args.fail { Err("as it was told".into()) } else { Ok(()) }
}

fn cheats(tree: &Tree, _: &Context, _: NoArgs) -> Result<()> {
    tree.create("/own/x", "", Create::default()).map(drop)
}

impl Before for Probe {
    fn check(&self, tree: &Tree, context: &Context, change: &Change) -> Verdict {
        assert!(tree.create("/own/x", "", Create::default()).unwrap_err().is("read-only"));
        match change.text() {
            Ok(text) if text.starts_with("bad") => Verdict::refuse(format!("{} refuses {text}", context.trigger())),
            Ok(text) => Verdict::rewrite(format!("{text},{}", context.trigger())),
            Err(error) => Verdict::refuse(error),
        }
    }
}

impl After for Probe {
    fn react(&self, tree: &Tree, _: &Context, changes: &[Change]) -> Result<()> {
        for change in changes {
            match (change.path.starts_with("/forever/"), change.text()) {
                (true, _) => drop(tree.create("/forever/n-", "", Create::default().numbered())?),
                (false, Ok("refuse me")) => return Err("no".into()),
                (false, _) => {
                    drop(tree.create(format!("/copies/{}", change.path.name()), "", Create::with_parents())?)
                }
            }
        }
        Ok(())
    }
}

impl SessionEnd for Probe {
    fn ended(&self, tree: &Tree, _: &Context, ended: &Ended) -> Result<()> {
        let own = tree.children("/eph").all()?.iter().filter(|child| child.stat.owner == Some(ended.session)).count();
        tree.create("/ended/e-", format!("{own} {}", ended.expired), Create::with_parents().numbered())?;
        if own == 0 { Err("undone".into()) } else { Ok(()) }
    }
}

impl Timer for Probe {
    fn tick(&self, tree: &Tree, context: &Context) -> Result<()> {
        assert_eq!((context.trigger(), context.caller()), ("tick", None));
        tree.create("/own/tick-", context.now_ms().to_string(), Create::with_parents().numbered()).map(drop)
    }
}

fn tree() -> TestTree {
    TestTree::new::<Probe>()
}

#[test]
fn before_triggers_have_their_say_in_order_and_see_what_the_others_made_of_it() {
    let t = tree();
    t.create("/guarded", "");
    t.create("/guarded/a", "v");
    assert_eq!(t.text("/guarded").unwrap(), ",second");
    assert_eq!(t.text("/guarded/a").unwrap(), "v,first,second");
    let error = t.client("a").set("/guarded/a", "bad").unwrap_err();
    assert_eq!((error.code(), error.message()), (Some("plugin-refused"), "probe: first refuses bad"));
    // One step of several is enough.
    let both = t.client("a").transact(|tree| {
        tree.create("/fine", "", Create::default())?;
        tree.set("/guarded/a", "bad")
    });
    assert!(both.is_err() && t.data("/fine").is_none());
}

#[test]
fn after_triggers_write_in_the_same_transaction_and_not_for_ever() {
    let t = tree();
    t.create("/copied/a", "");
    assert_eq!(t.stat("/copies/a").unwrap().created, t.stat("/copied/a").unwrap().created);
    assert!(t.client("a").create("/copied/b", "refuse me", Create::default()).is_err());
    assert!(t.data("/copied/b").is_none());
    let error = t.client("a").create("/forever/a", "", Create::with_parents()).unwrap_err();
    assert!(error.is("plugin-loop") && t.data("/forever").is_none());
}

#[test]
fn a_call_is_a_transaction_within_what_the_manifest_needs() {
    let t = tree();
    let call = t.client("a").call("write", json!(["/own/a", true]));
    assert_eq!(call.refusal().unwrap().message(), "probe: as it was told");
    assert!(t.data("/own").is_none());
    let error = t.client("a").call("write", json!(["/other/a"])).refusal().unwrap();
    assert!(error.message().contains("not-allowed: plugin probe may not create /other"), "{error}");
    assert!(t.client("a").query::<()>("cheats", json!(null)).unwrap_err().message().contains("read-only"));
    assert!(t.client("a").call("nothing", json!(null)).refusal().unwrap().is("no-procedure"));
}

#[test]
fn what_a_run_that_parks_has_written_stays() {
    let t = tree();
    let call = t.client("a").call("park-on", json!({"path": "/x", "write": "/own/w"}));
    assert!(call.is_parked() && t.names("/own/w").len() == 1);
    t.create("/x", "");
    assert_eq!((call.reply::<String>().unwrap().as_str(), t.names("/own/w").len()), ("Change", 2));
}

#[test]
fn parking_on_what_holds_already_runs_again_at_once_and_not_for_ever() {
    let t = tree();
    t.create("/x", "");
    assert_eq!(t.client("a").call("park-on", json!(["/x"])).reply::<String>().unwrap(), "Change");
    let refusal = t.client("a").call("loops", json!(null)).refusal().unwrap();
    assert!(refusal.is("plugin-loop"), "{refusal}");
    assert_eq!(t.names("/own").len(), 5);
}

#[test]
fn one_is_woken_by_ticket_while_its_condition_holds() {
    let t = tree();
    let calls = ["a", "b"].map(|name| t.client(name).call("park-on", json!(["/x"])));
    let passed = t.client("c").transact(|tree| {
        tree.create("/x", "", Create::default())?;
        tree.delete("/x")
    });
    passed.unwrap();
    assert!(calls.iter().all(crate::TestCall::is_parked), "nobody ever saw it");
    t.create("/x", "");
    assert!(calls.iter().all(crate::TestCall::is_done));
}

#[test]
fn parking_is_for_sessions_and_for_who_says_so_and_ends_with_the_deadline() {
    let t = tree();
    assert!(t.without_session("a").call("park-on", json!(["/x"])).refusal().unwrap().is("no-session"));
    assert!(t.client("a").call("not-said", json!(null)).refusal().unwrap().message().contains("parks = true"));
    let until = t.now_ms() + 500;
    let call = t.client("a").call("park-on", json!({"path": "/x", "until": until}));
    let again = t.client("a").call("park-on", json!({"path": "/x", "until": until, "again": true, "write": "/own/w"}));
    t.advance(499);
    assert!(call.is_parked() && again.is_parked());
    t.advance(1);
    assert_eq!(call.reply::<String>().unwrap(), format!("{:?}", Reason::Deadline));
    assert!(again.refusal().unwrap().message().contains("parks again after Deadline"));
    assert_eq!(t.names("/own/w").len(), 1, "that run is undone");
}

#[test]
fn a_session_that_ends_runs_its_calls_then_the_trigger_and_then_its_znodes_go() {
    let t = tree();
    let a = t.client("a");
    a.create("/eph/1", "", Create::ephemeral()).unwrap();
    let call = a.call("park-on", json!({"path": "/x", "write": "/own/w"}));
    a.expire();
    assert!(call.refusal().unwrap().is("session-over") && t.names("/own/w").len() == 2);
    assert_eq!(t.text("/ended/e-0000000000").unwrap(), "1 true");
    assert!(t.data("/eph/1").is_none());
    t.client("b").close();
    assert_eq!(t.names("/ended").len(), 1, "a trigger that fails is undone alone");
    assert_ne!(t.client("a").session_id(), a.session_id());
    assert!(a.create("/eph/2", "", Create::ephemeral()).is_err(), "it is over");
}

#[test]
fn time_passes_step_by_step() {
    let t = tree();
    let start = t.now_ms();
    t.client("a").create("/ttl", "", Create { ttl_ms: Some(1_500), ..Create::default() }).unwrap();
    t.client("a").create("/box", "", Create { container: true, ..Create::default() }).unwrap();
    t.client("a").create("/box/x", "", Create::default()).unwrap();
    t.delete("/box/x");
    t.advance(3_100);
    let ticks: Vec<String> = t.names("/own").iter().map(|name| t.text(&format!("/own/{name}")).unwrap()).collect();
    assert_eq!(ticks, [1_000, 2_000, 3_000].map(|ms| (start + ms).to_string()));
    assert!(t.data("/ttl").is_none() && t.data("/box").is_none());
}

#[test]
fn the_tree_refuses_what_a_cluster_refuses() {
    let t = tree();
    let (a, once) = (t.client("a"), t.without_session("b"));
    a.create("/e", "", Create::ephemeral()).unwrap();
    let kind = |ephemeral, container, sequential, or_set| Create {
        ephemeral,
        container,
        sequential,
        or_set,
        ..Create::default()
    };
    for (client, path, how, code) in [
        (&once, "/x", Create::ephemeral(), "no-session"),
        (&a, "/x/y", Create::default(), "no-znode"),
        (&a, "/e", Create::default(), "znode-exists"),
        (&a, "x", Create::default(), "bad-path"),
        (&a, "/e/p", Create::default(), "ephemeral-parent"),
        (&a, "/e/p/q", Create::ephemeral(), "ephemeral-parent"),
        (&a, "/e", kind(false, false, false, true), "other-kind"),
        (&a, "/x", kind(true, true, false, false), "bad-request"),
        (&a, "/x", kind(false, false, true, true), "bad-request"),
    ] {
        assert_eq!(client.create(path, "", how).unwrap_err().code(), Some(code), "{path} {how:?}");
    }
    a.create("/e/mine", "", Create { ephemeral: true, ..Create::default() }).unwrap();
    assert!(a.delete("/e").unwrap_err().is("not-empty") && a.set("/none", "").unwrap_err().is("no-znode"));
    assert!(a.set("/e", vec![0; 2 << 20]).unwrap_err().is("limit"));
    a.transact(|tree| {
        assert!(tree.set_if_version("/e", "", 3).unwrap_err().is("bad-version"));
        assert_eq!(tree.delete_tree("/e")?, 2);
        Ok(())
    })
    .unwrap();
    let numbers = ["n-", "n-"].map(|name| a.create(&format!("/{name}"), "", Create::default().numbered()).unwrap());
    assert_eq!(numbers.map(|path| path.as_str().to_owned()), ["/n-0000000000", "/n-0000000001"]);
}

#[test]
#[should_panic(expected = "plugin.toml names the procedure other")]
fn a_manifest_that_names_what_is_not_there_is_found_out() {
    drop(TestTree::with_manifest::<Probe>(&MANIFEST.replace("\"write\"\n", "\"other\"\n")));
}
