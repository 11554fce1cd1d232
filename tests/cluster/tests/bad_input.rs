//! What strangers and mistakes send: a typed refusal or a named reason each, and the member goes on serving.
#![allow(clippy::unwrap_used, missing_docs)]

use conclave_client::{Client, Error, Refusal};
use conclave_link::{Credentials, Dialer, Plane, Principal, TrustDomain};
use conclave_protocol::{
    Attach, ClientMessage, Delete, Hello, Nonce, Op, PROTOCOL_VERSION, ServerMessage, Zxid, limits,
};
use conclave_testing::{Cluster, Pki, Raw, eventually_async};

fn code(error: &Error) -> &'static str {
    match error {
        Error::Refused(refusal) => refusal.code(),
        other => panic!("not a refusal: {other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_are_refused_with_their_code_and_change_nothing() {
    let cluster = Cluster::start(1).await.unwrap();
    let client = cluster.client("ann").await.unwrap();
    client.at("/a").create("1").await.unwrap();
    for path in ["", "a", "/a/", "//", "/a//b", "/a/../b", "/.", "/a\0"] {
        assert_eq!(code(&client.at(path).create("x").await.unwrap_err()), "bad-path", "{path:?}");
        assert_eq!(code(&client.at(path).get().await.unwrap_err()), "bad-path", "{path:?}");
    }
    let long = format!("/{}", "n".repeat(256));
    assert_eq!(code(&client.at(long.as_str()).create("x").await.unwrap_err()), "bad-path");
    assert_eq!(code(&client.at("/big").create(vec![0; 2 << 20]).await.unwrap_err()), "limit");
    assert_eq!(code(&client.at("/a").set("2").if_version(7).await.unwrap_err()), "bad-version");
    assert_eq!(code(&client.at("/a").create("2").await.unwrap_err()), "znode-exists");
    assert_eq!(code(&client.at("/no/b").create("2").await.unwrap_err()), "no-znode");
    assert_eq!(code(&client.at("/no").delete().await.unwrap_err()), "no-znode");
    assert_eq!(code(&client.at("/").delete().recursive().await.unwrap_err()), "bad-request");
    assert_eq!(code(&client.call("nobody", "x").await.unwrap_err()), "no-plugin");
    assert_eq!(code(&client.call("counter", "x").await.unwrap_err()), "no-procedure");
    client.at("/a/x").create("seven").await.unwrap();
    assert_eq!(code(&client.call("counter", "increment").positional("/a/x").await.unwrap_err()), "plugin-refused");
    assert_eq!(client.at("/a/x").get().await.unwrap().data, "seven");
    assert_eq!(client.at("/a").get().await.unwrap().data, "1");
}

async fn raw(cluster: &Cluster, name: &str) -> Raw {
    Raw::connect(cluster, 1, name).await.unwrap()
}

fn hello(attach: Option<Attach>, seen: Zxid) -> ClientMessage {
    ClientMessage::Hello(Hello { versions: vec![PROTOCOL_VERSION], attach, seen, cluster: None })
}

fn is_bad_request(message: Option<ServerMessage>) -> bool {
    matches!(message, Some(ServerMessage::Goodbye { refusal: Refusal::BadRequest { .. } }))
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_frames_end_their_connection_with_the_reason_and_nothing_else() {
    let cluster = Cluster::start(1).await.unwrap();
    let witness = cluster.client("ann").await.unwrap();
    witness.at("/a").create("1").await.unwrap();

    // A length that lies: more than is allowed.
    let mut liar = raw(&cluster, "liar").await;
    liar.hello().await.unwrap();
    liar.writer.stream_mut().write_all(&u32::MAX.to_le_bytes()).await.unwrap();
    assert!(is_bad_request(liar.receive().await.unwrap()));

    // A frame that is cut off.
    let mut liar = raw(&cluster, "liar").await;
    liar.hello().await.unwrap();
    liar.writer.stream_mut().write_all(&[200, 0, 0, 0, 1, 2]).await.unwrap();
    liar.writer.stream_mut().finish().unwrap();
    assert!(is_bad_request(liar.receive().await.unwrap()));

    // Not a message.
    let mut liar = raw(&cluster, "liar").await;
    liar.hello().await.unwrap();
    liar.writer.push(&[0x9f; 1000]).unwrap();
    liar.writer.flush().await.unwrap();
    assert!(is_bad_request(liar.receive().await.unwrap()));

    // Not a hello first; another version; a second hello; numbers that do not rise; a session's write without one.
    let mut liar = raw(&cluster, "liar").await;
    liar.send(&ClientMessage::Heartbeat { id: 1 }).await.unwrap();
    assert!(is_bad_request(liar.receive().await.unwrap()));
    // The first version of all is refused by name, in words that it can read.
    let mut old = raw(&cluster, "old").await;
    old.send(&ClientMessage::Hello(Hello { versions: vec![1], attach: None, seen: Zxid(0), cluster: None }))
        .await
        .unwrap();
    let Some(ServerMessage::Goodbye { refusal }) = old.receive().await.unwrap() else { panic!("it is welcome") };
    assert!(refusal.to_string().contains(&format!("version {PROTOCOL_VERSION}")), "{refusal}");
    let mut liar = raw(&cluster, "liar").await;
    liar.send(&ClientMessage::Hello(Hello { versions: vec![77], attach: None, seen: Zxid(0), cluster: None }))
        .await
        .unwrap();
    assert!(is_bad_request(liar.receive().await.unwrap()));
    let mut liar = raw(&cluster, "liar").await;
    liar.hello().await.unwrap();
    liar.send(&hello(None, Zxid(0))).await.unwrap();
    assert!(is_bad_request(liar.receive().await.unwrap()));
    let mut liar = raw(&cluster, "liar").await;
    liar.hello().await.unwrap();
    liar.send(&ClientMessage::Heartbeat { id: 1 }).await.unwrap();
    assert!(is_bad_request(liar.receive().await.unwrap()));

    assert_eq!(witness.at("/a").get().await.unwrap().data, "1", "the member goes on serving");
    cluster.client("bob").await.unwrap().at("/b").create("2").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_of_another_principal_or_one_that_is_over_is_not_carried_on() {
    let cluster = Cluster::start(1).await.unwrap();
    let owner = cluster.client("owner").await.unwrap();
    let session = owner.session().await.unwrap().id();
    let attach = |seen| hello(Some(Attach { session }), seen);
    let mut thief = raw(&cluster, "thief").await;
    thief.send(&attach(Zxid(session.0))).await.unwrap();
    assert!(is_bad_request(thief.receive().await.unwrap()));
    owner.close().await.unwrap();
    let mut late = raw(&cluster, "owner").await;
    late.send(&attach(owner.zxid())).await.unwrap();
    let over = late.receive().await.unwrap();
    assert!(matches!(over, Some(ServerMessage::Goodbye { refusal: Refusal::SessionOver { .. } })), "{over:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_certificates_are_refused_by_name() {
    let cluster = Cluster::start(1).await.unwrap();
    let other = tempfile::tempdir().unwrap();
    let other = Pki::create(other.path()).unwrap();
    let endpoint = cluster.config(1).listen.client.to_string();

    // A client of another authority, that believes ours.
    let theirs = other.client("ann").unwrap();
    let ours = cluster.pki().client("ann").unwrap();
    let options = conclave_client::Options::new(
        [endpoint.clone()],
        theirs.join("tls.crt"),
        theirs.join("tls.key"),
        ours.join("peer-ca.crt"),
    );
    let Err(Error::NoConnection(none)) = Client::connect(options).await else { panic!("a stranger was let in") };
    assert!(none.is_certificate_problem(), "{none}");

    // A client's certificate at the peer port.
    let credentials = Credentials::load_dir(&ours).unwrap();
    match Dialer::new(&credentials, Plane::Peer) {
        Err(error) => assert!(error.is_certificate_problem() || !error.to_string().is_empty()),
        Ok(dialer) => assert!(dialer.connect(cluster.config(1).listen.peer, None).await.is_err()),
    }

    // A member of another cluster's authority.
    let domain = TrustDomain::new("test.conclave").unwrap();
    let principal = Principal::member(&domain, 1).unwrap();
    assert_eq!(principal.member_id(), Some(1));
    let stranger = Credentials::load_dir(&other.member(1).unwrap()).unwrap();
    let dialer = Dialer::new(&stranger, Plane::Peer).unwrap();
    assert!(dialer.connect(cluster.config(1).listen.peer, None).await.is_err());

    let client = cluster.client("ann").await.unwrap();
    client.at("/a").create("still here").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_of_another_cluster_or_in_use_is_refused() {
    let mut cluster = Cluster::start(1).await.unwrap();
    let mut config = cluster.config(1).clone();
    let error = tokio::task::spawn_blocking({
        let config = config.clone();
        move || conclave_server::Member::start(&config).map(drop).unwrap_err()
    });
    let error = error.await.unwrap().to_string();
    assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
    cluster.stop(1).await.unwrap();
    config.cluster = "another".to_owned();
    let error = tokio::task::spawn_blocking(move || conclave_server::Member::start(&config).map(drop).unwrap_err());
    let error = error.await.unwrap().to_string();
    assert!(error.contains("another") && error.contains("belongs to cluster"), "{error}");
    cluster.restart(1).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_while_all_its_room_is_taken_leaves_nothing_behind() {
    let mut cluster = Cluster::start(3).await.unwrap();
    // Without a quorum nothing is answered, and so no room becomes free.
    cluster.kill(2).await;
    cluster.kill(3).await;
    let mut greedy = raw(&cluster, "greedy").await;
    greedy.hello().await.unwrap();
    let path = conclave_protocol::Path::parse("/a").unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let until_ms = u64::try_from(now.as_millis()).unwrap() + limits::ONCE_AHEAD_MS / 2;
    for id in 1..=limits::IN_FLIGHT as u64 + 10 {
        let mut nonce = [0; 16];
        nonce[..8].copy_from_slice(&id.to_be_bytes());
        let op = Op::Delete(Delete { path: path.clone(), if_version: None, recursive: false });
        let once = ClientMessage::Once { id, nonce: Nonce::new(nonce), until_ms, fence: None, op };
        greedy.send(&once).await.unwrap();
    }
    let waiting = async || cluster.metric(1, "waiting_requests").await.unwrap();
    eventually_async("its room is taken", async || waiting().await == limits::IN_FLIGHT as u64).await.unwrap();
    drop(greedy);
    let connections = async || cluster.metric(1, "connections").await.unwrap();
    eventually_async("it is gone", async || connections().await == 0 && waiting().await == 0).await.unwrap();
}
