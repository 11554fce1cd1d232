//! Links over real sockets on loopback: who gets in, who does not and why, and what ends a connection.
#![allow(clippy::unwrap_used)]

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use time::OffsetDateTime;
use tokio::net::UdpSocket;

use crate::connection::AGED_CODE;
use crate::pki::Spec;
use crate::pki::tests::Bench;
use crate::{Connection, Credentials, Dialer, Error, FrameReader, FrameWriter, Listener, Plane, Refusal, Side, Tuning};

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// No test waits longer than this for anything.
const DEADLINE: Duration = Duration::from_secs(20);

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.unwrap()
}

fn tuning() -> Tuning {
    Tuning { handshake: Duration::from_secs(10), ..Tuning::default() }
}

fn listen(plane: Plane, credentials: &Credentials) -> (Listener, SocketAddr) {
    let listener = Listener::unchecked(LOOPBACK, plane, credentials, tuning()).unwrap();
    let address = listener.local_address().unwrap();
    (listener, address)
}

fn dialer(plane: Plane, credentials: &Credentials) -> Dialer {
    Dialer::unchecked(credentials, plane, tuning()).unwrap()
}

/// Both ends of a connection.
async fn connect(dialer: &Dialer, listener: &Listener) -> (Connection, Connection) {
    let address = listener.local_address().unwrap();
    let (dialled, accepted) = soon(async { tokio::join!(dialer.connect(address, None), listener.accept()) }).await;
    (dialled.unwrap(), accepted.unwrap())
}

#[tokio::test]
async fn both_sides_know_the_other_and_exchange_frames() {
    let bench = Bench::new();
    let (listener, _) = listen(Plane::Client, &bench.member(1));
    let dialer = Dialer::new(&bench.client("ci-7"), Plane::Client).unwrap();
    let (client, member) = connect(&dialer, &listener).await;
    assert_eq!(
        (client.principal().to_string(), member.principal().to_string()),
        ("member/1".into(), "client/ci-7".into())
    );

    let (send, _receive) = client.open_bi().await.unwrap();
    let mut writer = FrameWriter::new(send);
    writer.push(b"hello").unwrap();
    writer.push_bytes(vec![5; 1 << 20].into()).unwrap();
    let (flushed, read) = soon(async {
        tokio::join!(writer.flush(), async {
            let (_send, receive) = member.accept_bi().await.unwrap();
            let mut reader = FrameReader::new(receive);
            let first = reader.next(1 << 20).await.unwrap().unwrap();
            (first, reader.next(1 << 20).await.unwrap().unwrap())
        })
    })
    .await;
    flushed.unwrap();
    assert_eq!((read.0, read.1.len()), ("hello".into(), 1 << 20));
}

#[tokio::test]
async fn members_know_each_other_on_the_peer_plane() {
    let bench = Bench::new();
    let (listener, address) = listen(Plane::Peer, &bench.member(1));
    let dialer = Dialer::new(&bench.member(2), Plane::Peer).unwrap();
    let (dialled, accepted) = soon(async { tokio::join!(dialer.connect(address, Some(1)), listener.accept()) }).await;
    assert_eq!(dialled.unwrap().principal().member_id(), Some(1));
    assert_eq!(accepted.unwrap().principal().member_id(), Some(2));
}

/// Dials with bad credentials, expects this reason on both sides, and that a good dialer still gets in.
async fn refused_by_listener(bench: &Bench, plane: Plane, bad: &Credentials, code: &str) {
    let (listener, address) = listen(plane, &bench.member(1));
    let mut refusals = listener.refusals();
    let error = soon(dialer(plane, bad).connect(address, None)).await.unwrap_err();
    assert!(matches!(error, Error::Refused { side: Side::Peer, .. }), "{code}: {error}");
    assert_eq!(error.refusal().unwrap().code(), code, "{error}");
    assert!(error.is_certificate_problem(), "{error}");
    let told = soon(refusals.recv()).await.unwrap();
    assert!(matches!(told.error, Error::Refused { side: Side::Us, .. }), "{code}: {}", told.error);
    assert_eq!(told.error.refusal().unwrap().code(), code);

    let good = match plane {
        Plane::Client => bench.client("good"),
        Plane::Peer => bench.member(2),
    };
    let (_dialled, accepted) = connect(&dialer(plane, &good), &listener).await;
    assert_eq!(accepted.principal(), good.principal());
}

#[tokio::test]
async fn clients_without_one_good_identity_are_refused_by_name() {
    let (bench, other) = (Bench::new(), Bench::new());
    let spec = bench.named("x");
    let uri = spec.principal.uri();
    let forged = |uris: &[&str]| bench.forged(&bench.client, &spec, uris);
    // A client of another installation that trusts ours: what it shows is refused.
    let stranger = {
        let issued = other.client.issue(&other.named("x")).unwrap();
        bench.with(&issued)
    };
    for (bad, code) in [
        (stranger, "unknown-authority"),
        (forged(&[]), "no-uri"),
        (forged(&[&uri, &uri]), "several-uris"),
        (forged(&[&uri, "https://example.com"]), "several-uris"),
        (forged(&["https://example.com"]), "bad-uri"),
        (forged(&["spiffe://other.example/client/x"]), "other-domain"),
        (forged(&["spiffe://acme.example/member/1"]), "wrong-plane"),
        (bench.member(2), "wrong-plane"),
    ] {
        refused_by_listener(&bench, Plane::Client, &bad, code).await;
    }
}

#[tokio::test]
async fn certificates_out_of_their_time_are_refused() {
    let bench = Bench::new();
    let day = time::Duration::days(1);
    let now = OffsetDateTime::now_utc();
    for (not_before, not_after) in [(now - 2 * day, now - day), (now + day, now + 2 * day)] {
        let spec = Spec { not_before, not_after, ..bench.named("late") };
        let bad = bench.with(&bench.client.issue(&spec).unwrap());
        refused_by_listener(&bench, Plane::Client, &bad, "expired").await;
    }
}

#[tokio::test]
async fn only_members_of_the_peer_authority_pass_the_peer_port() {
    let bench = Bench::new();
    let forged = |authority, uri: &str| bench.forged(authority, &bench.numbered(2), &[uri]);
    for (bad, code) in [
        (bench.client("ci"), "wrong-plane"),
        (forged(&bench.peer, "spiffe://acme.example/client/x"), "wrong-plane"),
        (forged(&bench.client, "spiffe://acme.example/member/2"), "unknown-authority"),
    ] {
        refused_by_listener(&bench, Plane::Peer, &bad, code).await;
    }
}

#[tokio::test]
async fn a_dialer_refuses_whoever_is_not_the_member_it_dialled() {
    let bench = Bench::new();
    let other = Bench::new();
    let dial = async |shown: &Credentials, expected| {
        let (_listener, address) = listen(Plane::Client, shown);
        let error = soon(dialer(Plane::Client, &bench.client("ci")).connect(address, expected)).await.unwrap_err();
        assert!(matches!(error, Error::Refused { side: Side::Us, .. }), "{error}");
        error.refusal().unwrap().clone()
    };
    let refusal = dial(&bench.member(1), Some(2)).await;
    assert_eq!(refusal, Refusal::WrongMember("member/2 was dialled, member/1 answered".to_owned()));
    // A client that plays the server: its certificate is of the wrong authority.
    assert_eq!(dial(&bench.client("evil"), None).await.code(), "wrong-plane");
    assert_eq!(dial(&other.member(1), Some(1)).await, Refusal::UnknownAuthority);
    let two = ["spiffe://acme.example/member/1", "spiffe://acme.example/member/2"];
    assert_eq!(dial(&bench.forged(&bench.peer, &bench.numbered(1), &two), Some(1)).await, Refusal::SeveralUris);
    assert_eq!(dial(&bench.forged(&bench.peer, &bench.numbered(1), &[]), Some(1)).await, Refusal::NoUri);
}

#[tokio::test]
async fn nobody_gets_in_without_a_certificate() {
    let bench = Bench::new();
    let (listener, address) = listen(Plane::Client, &bench.member(1));
    let mut refusals = listener.refusals();
    let client = bench.client("ci");
    let verifier = crate::tls::Verifier::new(Plane::Client, crate::tls::Role::Dialer, &client).unwrap();
    let mut tls = crate::tls::client_config(Plane::Client, &client, std::sync::Arc::new(verifier)).unwrap();
    struct Nothing;
    impl std::fmt::Debug for Nothing {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("Nothing")
        }
    }
    impl rustls::client::ResolvesClientCert for Nothing {
        fn resolve(
            &self,
            _: &[&[u8]],
            _: &[rustls::SignatureScheme],
        ) -> Option<std::sync::Arc<rustls::sign::CertifiedKey>> {
            None
        }
        fn has_certs(&self) -> bool {
            false
        }
    }
    tls.client_auth_cert_resolver = std::sync::Arc::new(Nothing);
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
    let endpoint = quinn::Endpoint::client(LOOPBACK).unwrap();
    let config = quinn::ClientConfig::new(std::sync::Arc::new(crypto));
    let connecting = endpoint.connect_with(config, address, "member-1").unwrap();
    // The dialer's side of the handshake ends well; the listener's answer comes after it.
    let end = match soon(connecting).await {
        Ok(connection) => soon(connection.closed()).await,
        Err(end) => end,
    };
    assert_eq!(Error::from_end(address, end).refusal(), Some(&Refusal::NoCertificate));
    assert_eq!(soon(refusals.recv()).await.unwrap().error.refusal(), Some(&Refusal::NoCertificate));
}

#[tokio::test]
async fn the_planes_do_not_speak_with_each_other() {
    let bench = Bench::new();
    let (_listener, address) = listen(Plane::Peer, &bench.member(1));
    let error = soon(dialer(Plane::Client, &bench.client("ci")).connect(address, None)).await.unwrap_err();
    assert_eq!(error.refusal(), Some(&Refusal::Protocol), "{error}");
    let (_listener, address) = listen(Plane::Client, &bench.member(1));
    let error = soon(dialer(Plane::Peer, &bench.member(2)).connect(address, None)).await.unwrap_err();
    assert_eq!(error.refusal(), Some(&Refusal::Protocol), "{error}");
}

#[tokio::test]
async fn credentials_of_the_wrong_kind_are_refused_before_dialling() {
    let bench = Bench::new();
    assert!(matches!(Dialer::new(&bench.client("ci"), Plane::Peer), Err(Error::Credentials(_))));
    assert!(matches!(Dialer::new(&bench.member(1), Plane::Client), Err(Error::Credentials(_))));
    assert!(matches!(Listener::bind(LOOPBACK, Plane::Client, &bench.client("ci")), Err(Error::Credentials(_))));
}

#[tokio::test]
async fn a_new_revocation_list_ends_the_connection_and_bars_the_next() {
    let bench = Bench::new();
    let (bad, good) = (bench.client("bad"), bench.client("good"));
    let (listener, address) = listen(Plane::Client, &bench.member(1));
    let (bad_client, _bad_member) = connect(&dialer(Plane::Client, &bad), &listener).await;
    let (good_client, _good_member) = connect(&dialer(Plane::Client, &good), &listener).await;

    bench.client.revoke(&bad.summary().serial).unwrap();
    // The member's own certificate may change with the same stroke.
    assert_eq!(listener.reload(&bench.member(1)).unwrap(), 1);
    let end = soon(bad_client.closed()).await;
    assert!(matches!(&end, Error::Refused { side: Side::Peer, reason: Refusal::Revoked, .. }), "{end}");
    assert!(good_client.close_reason().is_none());

    let error = soon(dialer(Plane::Client, &bad).connect(address, None)).await.unwrap_err();
    assert_eq!(error.refusal(), Some(&Refusal::Revoked), "{error}");
    connect(&dialer(Plane::Client, &good), &listener).await;
}

#[tokio::test]
async fn a_dialer_hangs_up_on_a_member_that_was_revoked() {
    let bench = Bench::new();
    let member = bench.member(1);
    let (listener, address) = listen(Plane::Peer, &member);
    let dialer = dialer(Plane::Peer, &bench.member(2));
    let (dialled, accepted) = connect(&dialer, &listener).await;
    bench.peer.revoke(&member.summary().serial).unwrap();
    assert_eq!(dialer.reload(&bench.member(2)).unwrap(), 1);
    assert!(matches!(soon(dialled.closed()).await, Error::ClosedHere));
    assert_eq!(soon(accepted.closed()).await.refusal(), Some(&Refusal::Revoked));
    assert_eq!(soon(dialer.connect(address, Some(1))).await.unwrap_err().refusal(), Some(&Refusal::Revoked));
}

#[tokio::test]
async fn a_reload_that_fails_changes_nothing() {
    let bench = Bench::new();
    let (listener, _) = listen(Plane::Client, &bench.member(1));
    let mut inner = bench.member(1);
    std::sync::Arc::get_mut(&mut inner.inner).unwrap().client_ca.clear();
    assert!(matches!(listener.reload(&inner), Err(Error::Credentials(_))));
    connect(&dialer(Plane::Client, &bench.client("ci")), &listener).await;
}

#[tokio::test]
async fn a_certificate_that_expires_ends_its_connection() {
    let bench = Bench::new();
    let spec = Spec { not_after: OffsetDateTime::now_utc() + time::Duration::seconds(3), ..bench.named("brief") };
    let brief = bench.with(&bench.client.issue(&spec).unwrap());
    let short = Tuning { age_max: Duration::from_secs(3600), ..tuning() };
    let listener = Listener::bind_with(LOOPBACK, Plane::Client, &bench.member(1), short).unwrap();
    let (client, _member) = connect(&dialer(Plane::Client, &brief), &listener).await;
    assert!(client.close_reason().is_none());
    let end = soon(client.closed()).await;
    assert!(matches!(end.refusal(), Some(Refusal::Expired(_))), "{end}");
}

#[tokio::test]
async fn a_connection_has_a_greatest_age() {
    let bench = Bench::new();
    let short = Tuning { age_max: Duration::from_millis(50), ..tuning() };
    let listener = Listener::bind_with(LOOPBACK, Plane::Client, &bench.member(1), short).unwrap();
    let (client, _member) = connect(&dialer(Plane::Client, &bench.client("ci")), &listener).await;
    assert!(matches!(soon(client.closed()).await, Error::Closed { code: AGED_CODE, .. }));
}

#[tokio::test]
async fn closing_carries_code_and_words() {
    let bench = Bench::new();
    let (listener, _) = listen(Plane::Client, &bench.member(1));
    let (client, member) = connect(&dialer(Plane::Client, &bench.client("ci")), &listener).await;
    member.close(7, "not today");
    let end = soon(client.closed()).await;
    assert!(matches!(&end, Error::Closed { code: 7, reason } if reason == "not today"), "{end}");
    assert!(matches!(member.close_reason(), Some(Error::ClosedHere)));
}

#[tokio::test]
async fn dropping_the_last_handle_closes_also_under_open_streams() {
    let bench = Bench::new();
    let (listener, _) = listen(Plane::Client, &bench.member(1));
    let (client, member) = connect(&dialer(Plane::Client, &bench.client("ci")), &listener).await;
    let _streams = member.open_bi().await.unwrap();
    drop(member);
    assert!(matches!(soon(client.closed()).await, Error::Closed { code: 0, .. }));
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let bench = Bench::new();
    let (_listener, address) = listen(Plane::Client, &bench.member(1));
    let error = Listener::bind(address, Plane::Client, &bench.member(1)).unwrap_err();
    assert_eq!(error.to_string(), format!("port {} is in use on 127.0.0.1", address.port()));
}

#[tokio::test]
async fn a_closed_port_is_told_before_the_time_is_over() {
    let bench = Bench::new();
    let address = UdpSocket::bind(LOOPBACK).await.unwrap().local_addr().unwrap();
    let patient = Tuning { handshake: Duration::from_secs(60), ..Tuning::default() };
    let dialer = Dialer::with(&bench.client("ci"), Plane::Client, patient).unwrap();
    let error = soon(dialer.connect(address, None)).await.unwrap_err();
    assert!(matches!(error, Error::NobodyListens(at) if at == address), "{error}");
}

#[tokio::test]
async fn silence_is_told_when_the_time_is_over() {
    let bench = Bench::new();
    let silent = UdpSocket::bind(LOOPBACK).await.unwrap();
    let hasty = Tuning { handshake: Duration::from_millis(100), ..Tuning::default() };
    let dialer = Dialer::with(&bench.client("ci"), Plane::Client, hasty).unwrap();
    let error = soon(dialer.connect(silent.local_addr().unwrap(), None)).await.unwrap_err();
    assert!(matches!(error, Error::NoAnswer { .. }), "{error}");
}

/// Passes one dialer's packets on to `to`, and nothing back; tells the answers instead.
async fn one_way(to: SocketAddr) -> (SocketAddr, tokio::sync::mpsc::UnboundedReceiver<Vec<u8>>) {
    let front = UdpSocket::bind(LOOPBACK).await.unwrap();
    let back = UdpSocket::bind(LOOPBACK).await.unwrap();
    back.connect(to).await.unwrap();
    let address = front.local_addr().unwrap();
    let (tell, told) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        let (mut there, mut here) = ([0; 2048], [0; 2048]);
        loop {
            tokio::select! {
                read = front.recv_from(&mut there) => {
                    let Ok((length, _)) = read else { return };
                    if back.send(&there[..length]).await.is_err() {
                        return;
                    }
                }
                // Closed, once the test is over.
                read = back.recv(&mut here) => {
                    let Ok(length) = read else { return };
                    if tell.send(here[..length].to_vec()).is_err() {
                        return;
                    }
                }
            }
        }
    });
    (address, told)
}

#[tokio::test]
async fn a_handshake_that_hangs_holds_up_nobody() {
    let bench = Bench::new();
    let short = Tuning { handshake: Duration::from_secs(2), ..Tuning::default() };
    let listener = Listener::bind_with(LOOPBACK, Plane::Client, &bench.member(1), short).unwrap();
    let mut refusals = listener.refusals();
    let (relay, mut answers) = one_way(listener.local_address().unwrap()).await;
    let hanging = dialer(Plane::Client, &bench.client("slow"));
    let hanging = tokio::spawn(async move { hanging.connect(relay, None).await });
    // The listener answered: the handshake has begun, and will not end.
    soon(answers.recv()).await.unwrap();
    let (_client, member) = connect(&dialer(Plane::Client, &bench.client("quick")), &listener).await;
    assert_eq!(member.principal().client_name(), Some("quick"));
    assert!(!hanging.is_finished());
    let told = soon(refusals.recv()).await.unwrap();
    assert!(matches!(told.error, Error::NoAnswer { .. }), "{}", told.error);
    hanging.abort();
}

#[tokio::test]
async fn unproven_addresses_are_asked_to_retry_on_the_peer_plane() {
    let bench = Bench::new();
    // The first byte of a long header: the form, a bit that may be anything (RFC 9287), then the type, 0 Initial,
    // 3 Retry (RFC 9000, 17.2).
    for (plane, wanted, shown) in [(Plane::Peer, 3, bench.member(2)), (Plane::Client, 0, bench.client("ci"))] {
        let (listener, address) = listen(plane, &bench.member(1));
        let (relay, mut answers) = one_way(address).await;
        let dialer = dialer(plane, &shown);
        let dial = tokio::spawn(async move { dialer.connect(relay, None).await });
        let answer = soon(answers.recv()).await.unwrap();
        assert_eq!((answer[0] >> 7, answer[0] >> 4 & 3), (1, wanted), "{plane}");
        dial.abort();
        drop(listener);
    }
}

#[tokio::test]
async fn a_closed_listener_ends_accepting_and_tells_its_peers() {
    let bench = Bench::new();
    let (listener, _) = listen(Plane::Client, &bench.member(1));
    let (client, _member) = connect(&dialer(Plane::Client, &bench.client("ci")), &listener).await;
    soon(listener.close(3, "going down")).await;
    assert!(soon(listener.accept()).await.is_none());
    assert!(matches!(soon(client.closed()).await, Error::Closed { code: 3, .. }));
}

/// A listener in a runtime of its own, which can be ended as a killed process ends: nothing is said to anybody.
fn mortal(credentials: &Credentials, address: SocketAddr) -> (tokio::runtime::Runtime, SocketAddr) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    let credentials = credentials.clone();
    runtime.spawn(async move {
        let listener = Listener::bind_with(address, Plane::Client, &credentials, endless()).unwrap();
        tell.send(listener.local_address().unwrap()).unwrap();
        let mut connections = Vec::new();
        while let Some(connection) = listener.accept().await {
            connections.push(connection);
        }
    });
    (runtime, told.recv_timeout(DEADLINE).unwrap())
}

/// Without a time-out by which silence alone would end a connection.
fn endless() -> Tuning {
    Tuning { idle_timeout: Duration::from_secs(600), keep_alive: Duration::from_millis(50), ..tuning() }
}

#[tokio::test]
async fn a_killed_listener_is_missed_long_before_the_idle_timeout() {
    let bench = Bench::new();
    let (runtime, address) = mortal(&bench.member(1), LOOPBACK);
    let dialer = Dialer::with(&bench.client("ci"), Plane::Client, endless()).unwrap();
    let client = soon(dialer.connect(address, None)).await.unwrap();
    runtime.shutdown_background();
    let end = soon(client.closed()).await;
    assert!(matches!(end, Error::ClosedHere), "{end}");
}

#[tokio::test]
async fn a_listener_that_was_killed_and_started_again_ends_the_connections_of_its_earlier_life() {
    let bench = Bench::new();
    let member = bench.member(1);
    let (runtime, address) = mortal(&member, LOOPBACK);
    let dialer = Dialer::with(&bench.client("ci"), Plane::Client, endless()).unwrap();
    let client = soon(dialer.connect(address, None)).await.unwrap();
    // Blocking, so that the port is free again.
    soon(tokio::task::spawn_blocking(move || runtime.shutdown_timeout(DEADLINE))).await.unwrap();
    let (again, _) = mortal(&member, address);
    let end = soon(client.closed()).await;
    assert!(matches!(end, Error::Reset | Error::ClosedHere), "{end}");
    again.shutdown_background();
}
