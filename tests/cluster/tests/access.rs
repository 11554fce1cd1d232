//! Access lists on a whole cluster: nothing of a closed znode reaches whoever may not read it, by whatever way.
#![allow(clippy::unwrap_used, missing_docs)]

use std::time::Duration;

use conclave_client::{
    AccessList, ChangeKind, Check, Client, Condition, Error, Grant, Path, Refusal, SetStep, Step, Watch, WatchEvent,
    Who,
};
use conclave_testing::{Cluster, PATIENCE};

fn only(client: &Client) -> AccessList {
    let principal = client.peer().unwrap().principal;
    AccessList(vec![Grant { who: Who::Principal(principal), may: "crwda".parse().unwrap() }])
}

fn is_not_allowed<T: std::fmt::Debug>(answer: Result<T, Error>) -> bool {
    match answer.unwrap_err() {
        Error::Refused(Refusal::NotAllowed { .. }) => true,
        Error::Refused(Refusal::Step { cause, .. }) => matches!(*cause, Refusal::NotAllowed { .. }),
        other => panic!("{other}"),
    }
}

/// The paths that a watch tells of, up to this one.
async fn told(watch: &mut Watch, upto: &str) -> Vec<(ChangeKind, String)> {
    let mut told = Vec::new();
    loop {
        let event = tokio::time::timeout(PATIENCE, watch.next()).await.unwrap().unwrap().unwrap();
        let WatchEvent::Changes { changes, .. } = event else { panic!("{event:?}") };
        for change in changes {
            if change.path.as_str() == upto {
                return told;
            }
            told.push((change.kind, change.path.to_string()));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_znode_is_closed_to_every_kind_of_request() {
    let cluster = Cluster::start(3).await.unwrap();
    let (ann, bob) = (cluster.client("ann").await.unwrap(), cluster.client("bob").await.unwrap());
    ann.at("/open").create("").await.unwrap();
    let created = ann.at("/vault").create("secret").acl(only(&ann)).await.unwrap();
    ann.at("/vault/inner").create("more").await.unwrap();

    let vault = bob.at("/vault");
    assert!(is_not_allowed(vault.get().await));
    assert!(is_not_allowed(vault.stat().await));
    assert!(is_not_allowed(bob.at("/vault/absent").exists().await), "nor is it told what is not there");
    assert!(is_not_allowed(vault.children().await));
    assert!(is_not_allowed(vault.count().await));
    assert!(is_not_allowed(bob.many(["/open", "/vault/inner"]).await));
    assert!(is_not_allowed(vault.subtree().await.map(drop)));
    assert!(is_not_allowed(vault.acl().await));
    assert!(is_not_allowed(vault.set("x").await));
    assert!(is_not_allowed(vault.add(1).await));
    assert!(is_not_allowed(vault.swap("guess", "x").await));
    assert!(is_not_allowed(vault.set_acl(AccessList::open()).await));
    assert!(is_not_allowed(bob.at("/vault/x").create("").await));
    assert!(is_not_allowed(bob.at("/vault/x/y").create("").parents().await));
    assert!(is_not_allowed(bob.at("/vault/inner").delete().await));
    assert!(is_not_allowed(bob.at("/vault").delete().recursive().await), "what is below is its own");
    assert!(is_not_allowed(bob.at("/vault").delete_all().await));
    assert!(is_not_allowed(
        bob.call("counter", "increment").positional("/vault").await.map(drop).map_err(refused_below)
    ));
    let path = |text: &str| Path::parse(text).unwrap();
    let steps = [
        Step::Set(SetStep { path: path("/open"), data: "x".into(), if_version: None }),
        Step::Check(Check { path: path("/vault"), condition: Condition::Data("secret".into()) }),
    ];
    assert!(is_not_allowed(bob.multi(steps).await), "each step is asked for itself");
    assert_eq!(bob.at("/open").get().await.unwrap().stat.version, 0);

    // What may not be read is left out of what may.
    let names: Vec<_> = bob.at("/").children().await.unwrap().children;
    assert!(names.iter().any(|entry| entry.name == "vault" && entry.stat.is_none()));
    let mut tree = bob.at("/").subtree().await.unwrap();
    while let Some(entry) = tree.next().await {
        assert!(!entry.unwrap().path.as_str().starts_with("/vault"));
    }
    assert_eq!(ann.at("/vault/inner").get().await.unwrap().data, "more");
    assert_eq!(ann.at("/vault").get().await.unwrap().stat, {
        let stat = ann.at("/vault").stat().await.unwrap().unwrap();
        assert_eq!(stat.created, created.stat.created);
        stat
    });
}

/// A procedure's own refusal names what it was not allowed.
fn refused_below(error: Error) -> Error {
    match error {
        Error::Refused(Refusal::PluginRefused { message, .. }) if message.contains("may not") => {
            Error::Refused(Refusal::NotAllowed {
                principal: String::new(),
                action: message,
                path: Path::parse("/").unwrap(),
            })
        }
        other => other,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_tell_of_nothing_that_may_not_be_read_neither_live_nor_resumed() {
    let cluster = Cluster::start(3).await.unwrap();
    let (ann, bob) = (cluster.client("ann").await.unwrap(), cluster.client("bob").await.unwrap());
    let begun = ann.at("/begin").create("").await.unwrap().stat.created;
    let mut live = bob.watch("/").subtree().with_data().since(begun).await.unwrap();
    ann.at("/vault").create("secret").acl(only(&ann)).await.unwrap();
    ann.at("/vault/inner").create("").await.unwrap();
    ann.at("/vault/inner").set("1").await.unwrap();
    ann.at("/shared").create("").await.unwrap();
    // Closed: told as the last thing; what comes after is not.
    ann.at("/shared").set_acl(only(&ann)).await.unwrap();
    ann.at("/shared").set("hidden").await.unwrap();
    ann.at("/shared").set_acl(AccessList::open()).await.unwrap();
    ann.at("/shared").set("seen").await.unwrap();
    ann.at("/vault").delete().recursive().await.unwrap();
    ann.at("/end").create("").await.unwrap();
    use ChangeKind::{Acl, Created, Data, Deleted};
    let vault = "/vault".to_owned();
    let shared = || "/shared".to_owned();
    // That children of the root come and go is told by a listing of the root too.
    let expected = [
        (Created, vault.clone()),
        (Created, shared()),
        (Acl, shared()),
        (Acl, shared()),
        (Data, shared()),
        (Deleted, vault),
    ];
    assert_eq!(told(&mut live, "/end").await, expected);
    let mut resumed = bob.watch("/").subtree().since(begun).await.unwrap();
    assert_eq!(told(&mut resumed, "/end").await, expected);
    let mut own = ann.watch("/vault").subtree().since(begun).await.unwrap();
    ann.at("/vault").create("end").await.unwrap();
    ann.at("/vault/end").create("").await.unwrap();
    let all: Vec<String> = told(&mut own, "/vault/end").await.into_iter().map(|(_, path)| path).collect();
    assert_eq!(all, ["/vault", "/vault/inner", "/vault/inner", "/vault/inner", "/vault", "/vault"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_backups_and_members_are_the_administrators() {
    let cluster = Cluster::start(3).await.unwrap();
    let (ann, bob) = (cluster.client("ann").await.unwrap(), cluster.client("bob").await.unwrap());
    let mut list = only(&ann);
    list.0.push(Grant { who: Who::Anyone, may: "crwd".parse().unwrap() });
    ann.at("/").set_acl(list).await.unwrap();
    let anns = ann.session().await.unwrap().id();
    ann.at("/mine").create("").ephemeral().await.unwrap();
    assert!(is_not_allowed(bob.end_session(anns).await));
    assert!(is_not_allowed(bob.owned(anns).await));
    assert!(is_not_allowed(bob.backup().await.map(drop)));
    assert!(is_not_allowed(bob.step_down().await));
    assert!(is_not_allowed(bob.at("/").set_acl(AccessList::open()).await));
    let bobs = bob.session().await.unwrap();
    assert_eq!(bob.sessions().await.unwrap().iter().map(|one| one.session).collect::<Vec<_>>(), [bobs.id()]);
    let all: Vec<_> = ann.sessions().linearizable().await.unwrap().iter().map(|one| one.session).collect();
    assert_eq!(all, [anns, bobs.id()]);
    // Another client of the same principal, and an administrator, may.
    bob.at("/bobs").create("").ephemeral().await.unwrap();
    ann.end_session(bobs.id()).await.unwrap();
    assert!(!ann.at("/bobs").exists().await.unwrap());
    tokio::time::timeout(PATIENCE, bobs.lost()).await.unwrap();
    let again = ann.end_session(bobs.id()).within(Duration::from_secs(5)).await.unwrap_err();
    assert!(matches!(again, Error::Refused(Refusal::SessionOver { .. })), "{again}");
}
