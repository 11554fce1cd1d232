//! Requests of one znode, of many, and of sessions, against a member inside the process.

use conclave_protocol::{Condition, Kind, Op, Refusal, SessionId, Step, Value};
use futures::TryStreamExt;

use super::*;
use crate::fake::Fake;

fn code(error: &crate::Error) -> &'static str {
    error.refusal().unwrap().code()
}

#[tokio::test]
async fn creating_says_whether_the_znode_was_there() {
    let fake = Fake::new();
    let client = fake.client().await;
    let at = client.at("/x");
    let first = at.create("1").or_set().await.unwrap();
    assert!(!first.replaced && first.stat.version == 0);
    let second = at.create("2").or_set().await.unwrap();
    assert!(second.replaced && second.stat.version == 1 && second.path.as_str() == "/x");
    assert_eq!(code(&at.create("3").await.unwrap_err()), "znode-exists");
    let acl = AccessList::open();
    at.create("").sequential().container().ttl(Duration::from_millis(1_500)).acl(acl.clone()).await.unwrap();
    let Some(Op::Create(create)) = fake.world().ops.last().cloned() else { panic!("no create") };
    let kind = Kind { ephemeral: false, sequential: true, container: true, ttl_ms: Some(1_500) };
    assert_eq!((create.kind, create.acl), (kind, Some(acl)));
    assert_eq!(millis(Duration::MAX), u64::MAX, "for the cluster to refuse");
}

#[tokio::test]
async fn data_is_edited_where_it_is() {
    let fake = Fake::new();
    let client = fake.client().await;
    let at = client.at("/n");
    assert_eq!(code(&at.add(1).await.unwrap_err()), "no-znode");
    assert_eq!(at.add(5).or_create().await.unwrap().number, 5);
    assert_eq!(at.add(-7).await.unwrap().number, -2);
    assert_eq!(at.max(10).await.unwrap().number, 10);
    let edited = at.min(3).if_version(2).await.unwrap();
    assert_eq!((edited.number, edited.stat.version), (3, 3));
    assert_eq!(code(&at.min(3).if_version(4).await.unwrap_err()), "bad-version");
    assert_eq!(at.append("!").await.unwrap().version, 4);
    assert_eq!(at.swap("3!", "4").await.unwrap().version, 5);
    assert_eq!(at.get().await.unwrap().data, "4");
}

#[tokio::test]
async fn a_subtree_is_deleted_part_by_part() {
    let fake = Fake::new();
    let client = fake.client().await;
    for n in 0..10 {
        client.at(format!("/a/{n}")).create("").parents().await.unwrap();
    }
    let top = client.at("/a");
    assert_eq!(top.delete_all().part_size(3).part().await.unwrap(), Pruned { count: 3, more: true });
    let told = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let tell = std::sync::Arc::clone(&told);
    let gone = top.delete_all().part_size(3).on_part(move |gone| tell.lock().unwrap().push(gone)).await;
    assert_eq!(gone.unwrap(), 8);
    assert_eq!(*told.lock().unwrap(), [3, 6, 8]);
    assert_eq!(top.delete_all().await.unwrap(), 0, "there is nothing left: that is what was wanted");
    assert_eq!(code(&top.delete_all().part().await.unwrap_err()), "no-znode");
}

#[tokio::test]
async fn deleting_gives_up_when_nobody_answers() {
    let fake = Fake::new();
    let client = fake.client().await;
    client.at("/a").create("").await.unwrap();
    fake.world().swallow = usize::MAX;
    let gone = client.at("/a").delete_all().within(Duration::from_millis(20)).into_future();
    let gone = tokio::time::timeout(Duration::from_secs(10), gone).await.expect("it has no end");
    assert!(matches!(gone, Err(crate::Error::Unknown { .. })), "{gone:?}");
    assert_eq!(fake.world().late.len(), 3);
}

#[tokio::test]
async fn all_is_gone_only_when_no_late_part_can_delete_what_comes_next() {
    for has_session in [false, true] {
        let fake = Fake::new();
        let client = fake.client().await;
        if has_session {
            client.session().await.unwrap();
        }
        client.at("/a").create("").await.unwrap();
        fake.world().swallow = 1;
        let deleting = client.at("/a").delete_all().within(Duration::from_millis(50));
        let deleting = tokio::spawn(deleting.into_future());
        let gone = async || while client.at("/a").exists().await.unwrap() {};
        tokio::time::timeout(Duration::from_secs(10), gone()).await.expect("it is not asked for again");
        // The answer to the second part came before this one's.
        client.at("/a").exists().await.unwrap();
        assert_eq!(fake.world().late.len(), 1);
        if has_session {
            // In a session the first part is behind us, by its order.
            assert_eq!(deleting.await.unwrap().unwrap(), 1);
        } else {
            assert!(!deleting.is_finished(), "the first part may still come");
            deleting.abort();
        }
    }
}

#[tokio::test]
async fn many_are_read_at_one_zxid_and_children_in_the_detail_that_is_wanted() {
    let fake = Fake::new();
    let client = fake.client().await;
    for name in ["a1", "a2", "b1"] {
        client.at(format!("/x/{name}")).create(name).parents().await.unwrap();
    }
    let many = client.many(["/x/a1", "/none", "/x/b1"]).await.unwrap();
    let data: Vec<_> = many.iter().map(|znode| znode.as_ref().map(|znode| znode.data.clone())).collect();
    assert_eq!(data, [Some("a1".into()), None, Some("b1".into())]);
    assert!(many.iter().flatten().all(|znode| znode.zxid == Zxid(3)));
    assert_eq!(code(&client.many(["/x", "y"]).await.unwrap_err()), "bad-path");
    assert_eq!(client.at("/x").count().await.unwrap(), 3);

    let children = client.at("/x").children().prefix("a").page_size(1);
    let names = children.clone().names_only().await.unwrap();
    assert!(!names.whole && names.children.iter().all(|entry| entry.stat.is_none() && entry.data.is_none()));
    let all: Vec<_> = children.with_data().stream().try_collect().await.unwrap();
    let data: Vec<_> = all.iter().map(|entry| entry.data.clone().unwrap()).collect();
    assert_eq!(data, ["a1", "a2"]);
    let after = client.at("/x").children().after("a1").await.unwrap();
    assert_eq!(after.children.iter().map(|entry| entry.name.as_str()).collect::<Vec<_>>(), ["a2", "b1"]);
    assert!(after.whole && after.children.iter().all(|entry| entry.stat.is_some()));
}

#[tokio::test]
async fn a_subtree_that_is_cut_short_is_an_error_and_not_a_smaller_one() {
    let fake = Fake::new();
    let client = fake.client().await;
    for n in 0..5 {
        client.at(format!("/a/{n}")).create("").parents().await.unwrap();
    }
    fake.world().breaks = 1;
    let cut: Result<Vec<_>> = client.at("/a").subtree().await.unwrap().try_collect().await;
    assert!(matches!(cut, Err(crate::Error::Interrupted { .. })));
    let whole: Vec<_> = client.at("/a").subtree().await.unwrap().try_collect().await.unwrap();
    assert_eq!(whole.len(), 6);
    assert_eq!(code(&client.at("/b").subtree().await.unwrap_err()), "no-znode");
}

#[tokio::test]
async fn a_subtree_that_waits_for_its_turn_has_the_time_that_was_said() {
    let fake = Fake::new();
    let client = fake.client().await;
    fake.world().busy = true;
    let within = Duration::from_millis(50);
    let subtree = client.at("/").subtree().within(within).into_future();
    let late = tokio::time::timeout(Duration::from_secs(10), subtree).await.expect("it has no deadline");
    assert!(matches!(late, Err(crate::Error::TimedOut { after }) if after == within), "{late:?}");
    fake.world().busy = false;
    assert!(client.at("/").subtree().within(Duration::from_secs(10)).await.is_ok());
}

#[tokio::test]
async fn access_lists_are_read_and_set() {
    let fake = Fake::new();
    let client = fake.client().await;
    let at = client.at("/x");
    at.create("").await.unwrap();
    assert_eq!(at.set_acl(AccessList::open()).if_acl_version(0).await.unwrap().acl_version, 1);
    let access = at.acl().await.unwrap();
    assert_eq!((access.acl, access.stat.acl_version, access.zxid), (AccessList::open(), 1, Zxid(2)));
}

#[tokio::test]
async fn steps_are_said_one_by_one() {
    let fake = Fake::new();
    let client = fake.client().await;
    client.at("/x").create("1").await.unwrap();
    let refused = client.transaction().check_version("/x", 0).check_absent("/x").set("/x", "2").commit().await;
    let Err(crate::Error::Refused(Refusal::Step { step: 1, cause })) = refused else { panic!("{refused:?}") };
    assert_eq!(cause.code(), "znode-exists");
    let values = client
        .multi([Step::Check(crate::Check { path: Path::parse("/x").unwrap(), condition: Condition::Exists })])
        .set_if_version("/x", "5", 0)
        .add("/x", 2)
        .create("/y", "")
        .delete_if_version("/y", 0)
        .check_data("/x", "7")
        .check_children("/", 1..=1)
        .commit()
        .await
        .unwrap();
    assert!(matches!(values[2], Value::Number { number: 7, .. }));
    assert_eq!(values.len(), 7);
    // One that makes an ephemeral znode goes through the session, and opens it.
    client.transaction().create_ephemeral("/e", "").await.unwrap();
    assert!(client.has_session());
}

#[tokio::test]
async fn sessions_are_listed_page_by_page_and_ended() {
    let fake = Fake::new();
    let client = fake.client().await;
    let all = client.sessions().page_size(2).await.unwrap();
    assert_eq!(all.iter().map(|info| info.session.0).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    assert_eq!(fake.world().queries.len(), 3);
    client.end_session(SessionId(3)).await.unwrap();
    assert_eq!(fake.world().ops.last(), Some(&Op::End(SessionId(3))));
}
