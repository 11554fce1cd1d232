//! Nothing is resumed, nothing is older than TLS 1.3.
#![allow(clippy::unwrap_used)]

use rustls::{ClientConnection, HandshakeKind, ProtocolVersion, ServerConnection};

use super::*;
use crate::pki::tests::Bench;

fn configs(bench: &Bench) -> (ClientConfig, ServerConfig) {
    let (member, client) = (bench.member(1), bench.client("ci"));
    let plane = Plane::Client;
    let listening = Arc::new(Verifier::new(plane, Role::Listener, &member).unwrap());
    let dialling = Arc::new(Verifier::new(plane, Role::Dialer, &client).unwrap());
    (client_config(plane, &client, dialling).unwrap(), server_config(plane, &member, listening).unwrap())
}

/// Shakes hands in memory and reads all that follows; says of which kind the handshake was.
fn shake(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) -> HandshakeKind {
    let name = ServerName::try_from(server_name(Some(1))).unwrap();
    let mut client = ClientConnection::new(Arc::clone(client), name).unwrap();
    let mut server = ServerConnection::new(Arc::clone(server)).unwrap();
    // Two flights each way, and one more for tickets.
    for _ in 0..4 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut rest = &wire[..];
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets().unwrap();
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut rest = &wire[..];
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets().unwrap();
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    assert_eq!(client.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    assert!(server.peer_certificates().is_some());
    assert_eq!(client.handshake_kind(), server.handshake_kind());
    client.handshake_kind().unwrap()
}

#[test]
fn tickets_storage_and_early_data_are_off() {
    let (client, server) = configs(&Bench::new());
    assert_eq!((server.send_tls13_tickets, server.max_early_data_size), (0, 0));
    assert!(!server.session_storage.can_cache() && !server.ticketer.enabled());
    assert!(!client.enable_early_data && !client.enable_sni);
}

#[test]
fn a_second_connection_is_a_full_handshake() {
    let bench = Bench::new();
    let (client, server) = configs(&bench);
    let (client, server) = (Arc::new(client), Arc::new(server));
    assert_eq!([shake(&client, &server), shake(&client, &server)], [HandshakeKind::Full; 2]);
}

#[test]
fn either_side_alone_prevents_resumption() {
    let bench = Bench::new();
    // What resumes when both sides want it: without this the test below could not fail.
    let willing = || {
        let (mut client, mut server) = configs(&bench);
        client.resumption = Resumption::in_memory_sessions(8);
        server.send_tls13_tickets = 2;
        server.session_storage = rustls::server::ServerSessionMemoryCache::new(8);
        (client, server)
    };
    let second = |client: ClientConfig, server: ServerConfig| {
        let (client, server) = (Arc::new(client), Arc::new(server));
        shake(&client, &server);
        shake(&client, &server)
    };
    let (client, server) = willing();
    assert_eq!(second(client, server), HandshakeKind::Resumed);
    assert_eq!(second(configs(&bench).0, willing().1), HandshakeKind::Full);
    assert_eq!(second(willing().0, configs(&bench).1), HandshakeKind::Full);
}

#[test]
fn a_hello_of_tls_1_2_is_refused() {
    let mut hello = vec![3, 3];
    hello.extend([7; 32]); // random
    hello.extend([0, 0, 2, 0xc0, 0x2b, 1, 0]); // no session, one suite of TLS 1.2, no compression
    let extensions = [
        &[0, 10, 0, 4, 0, 2, 0, 29][..], // x25519
        &[0, 13, 0, 4, 0, 2, 8, 7],      // Ed25519
    ]
    .concat();
    hello.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
    hello.extend(extensions);
    let mut record = vec![22, 3, 1];
    record.extend(u16::try_from(hello.len() + 4).unwrap().to_be_bytes());
    record.extend([1, 0]);
    record.extend(u16::try_from(hello.len()).unwrap().to_be_bytes());
    record.extend(hello);

    let (_, server) = configs(&Bench::new());
    let mut server = ServerConnection::new(Arc::new(server)).unwrap();
    server.read_tls(&mut &record[..]).unwrap();
    let error = server.process_new_packets().unwrap_err();
    assert!(matches!(error, rustls::Error::PeerIncompatible(_)), "{error:?}");
}

#[test]
fn a_key_of_another_certificate_is_refused_at_once() {
    let bench = Bench::new();
    let issued = bench.peer.issue(&bench.numbered(1)).unwrap();
    let other = bench.peer.issue(&bench.numbered(2)).unwrap();
    let mixed = bench.with(&crate::pki::Issued { key_pem: other.key_pem, ..issued });
    let verifier = Arc::new(Verifier::new(Plane::Peer, Role::Listener, &mixed).unwrap());
    let error = server_config(Plane::Peer, &mixed, verifier).unwrap_err();
    assert!(matches!(error, Error::Credentials(_)), "{error}");
}
