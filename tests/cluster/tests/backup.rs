//! A backup of a running cluster, and the new cluster that is made of it.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::Path;

use conclave_client::{BackupStream, Client, ClusterRefusal, Error, MemberId, Options, Refusal};
use conclave_protocol::{SideMessage, SideRequest, codec, limits};
use conclave_server::offline::{self, First};
use conclave_server::{Config, Listen, Member, MemberAddress};
use conclave_testing::{Cluster, PATIENCE, eventually, eventually_async, surroundings};
use rand::RngCore;

/// Receives a backup whole, into a file.
async fn receive(mut stream: BackupStream, file: &Path) -> conclave_client::Backup {
    let mut all = Vec::new();
    while let Some(bytes) = stream.next().await.unwrap() {
        all.extend_from_slice(&bytes);
    }
    std::fs::write(file, all).unwrap();
    stream.backup().clone()
}

/// Restores a backup, and starts the one member of the new cluster, with the old one's authorities.
async fn restored(cluster: &Cluster, file: &Path, id: u64) -> (Member, Config, offline::Restored) {
    let (client, peer) = (cluster.ports().udp().unwrap(), cluster.ports().udp().unwrap());
    let first =
        First { cluster: "restored".to_owned(), member: id, client: client.to_string(), peer: peer.to_string() };
    let data = cluster.dir().join("restored");
    let done = offline::restore(file, &data, &first, &mut |_, _, _| {}).unwrap();
    let config = Config {
        cluster: first.cluster,
        member: id,
        data,
        tls: cluster.pki().member(id).unwrap(),
        initialize: false,
        listen: Listen { client, peer, admin: None },
        members: vec![MemberAddress { id, client: first.client, peer: first.peer }],
        ..cluster.config(1).clone()
    };
    let starting = config.clone();
    let member =
        tokio::task::spawn_blocking(move || Member::start_in(&starting, surroundings())).await.unwrap().unwrap();
    eventually("the restored member is ready", || member.is_ready()).await.unwrap();
    (member, config, done)
}

async fn client_of(cluster: &Cluster, config: &Config) -> Client {
    let dir = cluster.pki().client("ann").unwrap();
    let (cert, key, ca) = (dir.join("tls.crt"), dir.join("tls.key"), dir.join("peer-ca.crt"));
    Client::connect(Options::new([config.listen.client.to_string()], cert, key, ca)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_restored_is_the_same_tree_in_a_new_cluster_that_members_of_the_old_one_do_not_join() {
    let cluster = Cluster::start(3).await.unwrap();
    let ann = cluster.client("ann").await.unwrap();
    for n in 0..200 {
        ann.at(format!("/data/{n}")).create(format!("value {n}")).parents().await.unwrap();
    }
    ann.at("/data/7").delete().await.unwrap();
    let acknowledged = ann.zxid();
    let file = cluster.dir().join("a.backup");
    let backup = receive(cluster.client("ben").await.unwrap().backup().await.unwrap(), &file).await;
    assert!(backup.zxid >= acknowledged, "every write that was acknowledged before is in it");
    // What is written later is not.
    ann.at("/late").create("x").await.unwrap();

    let holds = offline::verify(&file, &mut |_, _, _| {}).unwrap();
    assert_eq!((holds.zxid, format!("{:032x}", holds.digest)), (backup.zxid.0, backup.digest.clone()));
    let (member, config, done) = restored(&cluster, &file, 9).await;
    assert_eq!((done.digest, done.backup.zxid), (holds.digest, backup.zxid.0));
    let here = client_of(&cluster, &config).await;
    for n in (0..200).filter(|n| *n != 7) {
        assert_eq!(here.at(format!("/data/{n}")).get().await.unwrap().data, format!("value {n}"));
    }
    for gone in ["/data/7", "/late"] {
        assert!(!here.at(gone).exists().await.unwrap(), "{gone}");
    }
    here.at("/data/0").set("new").await.unwrap();
    assert_eq!(ann.at("/data/0").get().await.unwrap().data, "value 0", "the old cluster goes on by itself");

    // A member of the old cluster has a good certificate, and is refused by its cluster's id.
    let old = &cluster.config(2).members[1];
    let refused = here.add_learner(MemberId(2), &old.client, &old.peer).await.unwrap_err();
    assert!(matches!(refused, Error::Declined(ClusterRefusal::NumberUsed { .. })), "{refused}");
    let stranger = MemberId(10);
    here.add_learner(stranger, &old.client, &old.peer).await.unwrap();
    let refused = here.promote(stranger).await.unwrap_err();
    assert!(matches!(refused, Error::Declined(ClusterRefusal::Unreachable { .. })), "{refused}");
    here.remove(stranger).await.unwrap();
    assert_eq!(ann.status().await.unwrap().members.len(), 3);
    tokio::task::spawn_blocking(move || member.stop()).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_cluster_takes_members_in_by_snapshot() {
    let mut cluster = Cluster::start(1).await.unwrap();
    let ann = cluster.client("ann").await.unwrap();
    ann.at("/a").create("one").await.unwrap();
    let file = cluster.dir().join("a.backup");
    receive(ann.backup().await.unwrap(), &file).await;
    let (first, config, _) = restored(&cluster, &file, 1).await;
    cluster.stop(1).await.unwrap();
    let here = client_of(&cluster, &config).await;
    here.at("/b").create("two").await.unwrap();

    let (client, peer) = (cluster.ports().udp().unwrap(), cluster.ports().udp().unwrap());
    let second = Config {
        member: 2,
        data: cluster.dir().join("second"),
        tls: cluster.pki().member(2).unwrap(),
        listen: Listen { client, peer, admin: None },
        members: vec![MemberAddress { id: 2, client: client.to_string(), peer: peer.to_string() }],
        ..config.clone()
    };
    let starting = second.clone();
    let member =
        tokio::task::spawn_blocking(move || Member::start_in(&starting, surroundings())).await.unwrap().unwrap();
    here.add_learner(MemberId(2), &client.to_string(), &peer.to_string()).await.unwrap();
    eventually_async("it has its vote", async || here.promote(MemberId(2)).await.is_ok()).await.unwrap();
    eventually("it serves", || member.is_ready()).await.unwrap();
    let there = client_of(&cluster, &second).await;
    assert_eq!(there.at("/a").get().await.unwrap().data, "one", "what only the backup held");
    assert_eq!(there.at("/b").get().await.unwrap().data, "two");
    eventually_async("both have one digest", async || {
        let status = here.status().await.unwrap();
        let known: Vec<_> = status.members.iter().filter_map(|one| Some((one.zxid?, one.digest.clone()?))).collect();
        known.len() == 2 && known[0] == known[1]
    })
    .await
    .unwrap();
    for member in [first, member] {
        tokio::task::spawn_blocking(move || member.kill()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_sends_one_backup_at_a_time_and_stops_when_its_client_goes() {
    let mut cluster = Cluster::start(1).await.unwrap();
    let ann = cluster.client("ann").await.unwrap();
    // More than windows and buffers on the way hold, of what does not pack.
    for n in 0..40 {
        let mut noise = vec![0; 900_000];
        rand::rng().fill_bytes(&mut noise);
        ann.at(format!("/{n}")).create(noise).await.unwrap();
    }
    let held = ann.backup().await.unwrap();
    assert!(held.backup().bytes > 30_000_000);
    let ben = cluster.client("ben").await.unwrap();
    let next = tokio::spawn({
        let ben = ben.clone();
        async move { ben.backup().await }
    });
    // Requests go on meanwhile, of the same connection and of whoever waits for his turn.
    ann.at("/0").set("x").await.unwrap();
    ben.at("/1").set("x").await.unwrap();
    assert!(!next.is_finished(), "there are two at a time");
    drop(held);
    let next = tokio::time::timeout(PATIENCE, next).await.unwrap().unwrap().unwrap();
    let file = cluster.dir().join("b.backup");
    receive(next, &file).await;
    offline::verify(&file, &mut |_, _, _| {}).unwrap();

    // A member that dies in the middle leaves no backup.
    let mut broken = ben.backup().await.unwrap();
    cluster.kill(1).await;
    let error = loop {
        match broken.next().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it is complete, and the member died before it had sent it"),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::Interrupted { .. }), "{error}");

    // Anything cut off or flipped is told.
    let whole = std::fs::read(&file).unwrap();
    for at in [0, 100, whole.len() / 2, whole.len() - 1] {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        std::fs::write(&file, &damaged).unwrap();
        assert!(offline::verify(&file, &mut |_, _, _| {}).is_err(), "a flipped bit at {at}");
        std::fs::write(&file, &whole[..at]).unwrap();
        assert!(offline::verify(&file, &mut |_, _, _| {}).is_err(), "cut at {at}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_member_has_can_be_backed_up_without_a_leader() {
    let mut cluster = Cluster::start(3).await.unwrap();
    let options = cluster.options_to("ann", &[1]).unwrap().with_request_timeout(std::time::Duration::from_secs(2));
    let ann = Client::connect(options).await.unwrap();
    ann.at("/a").create("one").await.unwrap();
    let written = ann.zxid();
    cluster.kill(2).await;
    cluster.kill(3).await;
    let refused = ann.backup().await.unwrap_err();
    assert!(!matches!(refused, Error::Refused(_)), "nobody can say what the newest is: {refused}");
    let file = cluster.dir().join("stale.backup");
    let backup = receive(ann.backup_stale().await.unwrap(), &file).await;
    assert!(backup.zxid >= written);
    offline::verify(&file, &mut |_, _, _| {}).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn only_who_was_welcomed_opens_side_streams_and_bad_requests_end_nothing_else() {
    use conclave_link::{Credentials, Dialer, FrameReader, FrameWriter, Plane};
    use conclave_protocol::{ClientMessage, Hello, PROTOCOL_VERSION, ServerMessage, Zxid};

    let cluster = Cluster::start(1).await.unwrap();
    let credentials = Credentials::load_dir(&cluster.pki().client("eve").unwrap()).unwrap();
    let dialer = Dialer::new(&credentials, Plane::Client).unwrap();
    let connect = async || dialer.connect(cluster.config(1).listen.client, None).await.unwrap();
    let next = async |reader: &mut FrameReader<conclave_link::RecvStream>| {
        tokio::time::timeout(PATIENCE, reader.next(4 * limits::FRAME_BYTES)).await.unwrap().unwrap()
    };

    // Without a hello, a request on any stream is no hello.
    let connection = connect().await;
    let (send, receive) = connection.open_bi().await.unwrap();
    let (mut writer, mut reader) = (FrameWriter::new(send), FrameReader::new(receive));
    writer.push(&codec::encode(&SideRequest::Health)).unwrap();
    writer.flush().await.unwrap();
    let answer = codec::decode::<ServerMessage>(&next(&mut reader).await.unwrap()).unwrap();
    assert!(matches!(answer, ServerMessage::Goodbye { refusal: Refusal::BadRequest { .. } }), "{answer:?}");

    let connection = connect().await;
    let (send, receive) = connection.open_bi().await.unwrap();
    let (mut ordered, mut replies) = (FrameWriter::new(send), FrameReader::new(receive));
    let hello = Hello { versions: vec![PROTOCOL_VERSION], attach: None, seen: Zxid(0), cluster: None };
    ordered.push(&codec::encode(&ClientMessage::Hello(hello))).unwrap();
    ordered.flush().await.unwrap();
    assert!(matches!(codec::decode(&next(&mut replies).await.unwrap()).unwrap(), ServerMessage::Welcome(_)));
    for bad in [b"\xff\xff".as_slice(), b"\xa0", &codec::encode(&ClientMessage::Heartbeat { id: 1 })] {
        let (send, receive) = connection.open_bi().await.unwrap();
        let (mut writer, mut reader) = (FrameWriter::new(send), FrameReader::new(receive));
        writer.push(bad).unwrap();
        writer.flush().await.unwrap();
        let answer = codec::decode::<SideMessage>(&next(&mut reader).await.unwrap()).unwrap();
        assert!(matches!(answer, SideMessage::Refused { refusal: Refusal::BadRequest { .. } }), "{answer:?}");
    }
    let (send, receive) = connection.open_bi().await.unwrap();
    let (mut writer, mut reader) = (FrameWriter::new(send), FrameReader::new(receive));
    writer.push(&codec::encode(&SideRequest::Health)).unwrap();
    writer.flush().await.unwrap();
    let answer = codec::decode::<SideMessage>(&next(&mut reader).await.unwrap()).unwrap();
    assert!(matches!(answer, SideMessage::Health(_)), "{answer:?}");
}
