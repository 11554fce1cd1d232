//! Authorities and their files; and the bench of authorities that the other tests issue from.
#![allow(clippy::unwrap_used)]

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use rustls::pki_types::{CertificateRevocationListDer, PrivateKeyDer};
use tempfile::TempDir;

use super::*;
use crate::credentials::{Credentials, Inner};

/// Both authorities of one installation, and certificates of them that no honest authority would issue.
pub(crate) struct Bench {
    pub(crate) dir: TempDir,
    pub(crate) client: Authority,
    pub(crate) peer: Authority,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::of("acme.example")
    }

    pub(crate) fn of(domain: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let domain = TrustDomain::new(domain).unwrap();
        let client = Authority::create(dir.path(), Plane::Client, &domain).unwrap();
        let peer = Authority::create(dir.path(), Plane::Peer, &domain).unwrap();
        Self { dir, client, peer }
    }

    pub(crate) fn domain(&self) -> &TrustDomain {
        self.client.domain()
    }

    pub(crate) fn named(&self, name: &str) -> Spec {
        Spec::new(Principal::client(self.domain(), name).unwrap(), 1)
    }

    pub(crate) fn numbered(&self, id: u64) -> Spec {
        Spec::new(Principal::member(self.domain(), id).unwrap(), 1)
    }

    /// An honest member.
    pub(crate) fn member(&self, id: u64) -> Credentials {
        self.with(&self.peer.issue(&self.numbered(id)).unwrap())
    }

    /// An honest client.
    pub(crate) fn client(&self, name: &str) -> Credentials {
        self.with(&self.client.issue(&self.named(name)).unwrap())
    }

    /// A certificate with these URIs, signed all the same.
    pub(crate) fn forged(&self, authority: &Authority, spec: &Spec, uris: &[&str]) -> Credentials {
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let mut params = authority.params(spec).unwrap();
        params.subject_alt_names = uris.iter().map(|uri| uri_name(uri).unwrap()).collect();
        // A name in the places where others look for one: there is no falling back to them.
        params.subject_alt_names.push(SanType::DnsName("member-1".try_into().unwrap()));
        params.distinguished_name = common_name(&spec.principal.uri());
        let certificate = params.signed_by(&key, &authority.issuer).unwrap();
        let summary = Summary {
            principal: spec.principal.clone(),
            serial: Serial(vec![1]),
            not_before: spec.not_before,
            not_after: spec.not_after,
        };
        self.with(&Issued { summary, cert_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }

    /// Credentials as a file would give them, with the lists that the authorities have now.
    pub(crate) fn with(&self, issued: &Issued) -> Credentials {
        let certificate = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let list = |name| std::fs::read(self.dir.path().join(name)).ok();
        Credentials {
            inner: Arc::new(Inner {
                chain: vec![certificate(&issued.cert_pem)],
                key: PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes()).unwrap(),
                peer_ca: vec![certificate(self.peer.cert_pem())],
                client_ca: vec![certificate(self.client.cert_pem())],
                crls: [CLIENT_CRL, PEER_CRL]
                    .into_iter()
                    .filter_map(list)
                    .map(|pem| CertificateRevocationListDer::from_pem_slice(&pem).unwrap())
                    .collect(),
                summary: issued.summary.clone(),
            }),
        }
    }
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn an_authority_is_read_back_and_goes_on_issuing() {
    let bench = Bench::new();
    let again = Authority::load(bench.dir.path(), Plane::Client).unwrap();
    assert_eq!((again.domain(), again.cert_pem()), (bench.domain(), bench.client.cert_pem()));
    let issued = again.issue(&bench.named("ci-7")).unwrap();
    let read = summary(Path::new("x"), &issued.cert_pem).unwrap();
    assert_eq!(read, issued.summary);
    assert_eq!(read.principal.to_string(), "client/ci-7");
    assert_eq!(mode(&bench.dir.path().join("client-ca.key")), 0o600);
    assert_eq!(mode(&bench.dir.path().join("peer-ca.key")), 0o600);
}

#[test]
fn keys_are_never_overwritten() {
    let bench = Bench::new();
    let key = bench.dir.path().join("peer-ca.key");
    let before = std::fs::read(&key).unwrap();
    let error = Authority::create(bench.dir.path(), Plane::Peer, bench.domain()).unwrap_err();
    assert!(matches!(&error, Error::Exists(path) if *path == key), "{error}");
    assert_eq!(std::fs::read(&key).unwrap(), before);

    let dir = bench.dir.path().join("members/1");
    let issued = bench.peer.issue(&bench.numbered(1)).unwrap();
    write_credentials(&dir, &issued, &bench.peer, &bench.client).unwrap();
    let error = write_credentials(&dir, &issued, &bench.peer, &bench.client).unwrap_err();
    assert!(matches!(error, Error::Exists(_)), "{error}");
    assert_eq!(mode(&dir.join(TLS_KEY)), 0o600);
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 4, "drafts were left behind");
}

#[test]
fn authorities_issue_to_their_own_plane_and_domain_only() {
    let (bench, other) = (Bench::new(), Bench::of("other.example"));
    assert!(matches!(bench.client.issue(&bench.numbered(1)), Err(Error::NotOurs(_))));
    assert!(matches!(bench.peer.issue(&bench.named("x")), Err(Error::NotOurs(_))));
    assert!(matches!(bench.client.issue(&other.named("x")), Err(Error::NotOurs(_))));
}

#[test]
fn written_credentials_are_loaded_and_renewed_under_the_same_key() {
    let bench = Bench::new();
    let dir = bench.dir.path().join("members/3");
    let issued = bench.peer.issue(&bench.numbered(3)).unwrap();
    write_credentials(&dir, &issued, &bench.peer, &bench.client).unwrap();
    let first = Credentials::load_dir(&dir).unwrap();
    assert_eq!(first.principal().member_id(), Some(3));
    assert_eq!((first.inner.client_ca.len(), first.inner.peer_ca.len()), (1, 1));

    let renewed = renew_credentials(&dir, &bench.peer, 30).unwrap();
    let second = Credentials::load_dir(&dir).unwrap();
    assert_eq!(second.summary(), &renewed.summary);
    assert_eq!(first.inner.key.secret_der(), second.inner.key.secret_der());
    assert_ne!(first.summary().serial, second.summary().serial);
    assert!(second.summary().not_after > first.summary().not_after);
    assert!(matches!(renew_credentials(&dir, &bench.client, 30), Err(Error::NotOurs(_))));
}

#[test]
fn a_client_is_not_given_the_client_authority() {
    let bench = Bench::new();
    let dir = bench.dir.path().join("clients/ci");
    let issued = bench.client.issue(&bench.named("ci")).unwrap();
    write_credentials(&dir, &issued, &bench.peer, &bench.client).unwrap();
    assert!(!dir.join(CLIENT_CA).exists());
    assert!(Credentials::load_dir(&dir).unwrap().inner.client_ca.is_empty());
}

#[test]
fn bad_files_are_named_with_the_reason() {
    let bench = Bench::new();
    let dir = bench.dir.path().join("members/1");
    let issued = bench.peer.issue(&bench.numbered(1)).unwrap();
    write_credentials(&dir, &issued, &bench.peer, &bench.client).unwrap();
    std::fs::write(dir.join(CLIENT_CRL), "nonsense").unwrap();
    for name in [CLIENT_CRL, PEER_CA, TLS_KEY, TLS_CRT] {
        std::fs::write(dir.join(name), "nonsense").unwrap();
        let error = Credentials::load_dir(&dir).unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
        assert!(error.is_certificate_problem());
    }
    std::fs::remove_file(dir.join(TLS_CRT)).unwrap();
    let error = Credentials::load_dir(&dir).unwrap_err().to_string();
    assert!(error.contains(TLS_CRT) && error.contains("No such file"), "{error}");
}

#[test]
fn revoking_adds_to_the_list_once() {
    let bench = Bench::new();
    let serials: Vec<_> =
        ["a", "b"].map(|name| bench.client.issue(&bench.named(name)).unwrap().summary.serial).to_vec();
    for serial in serials.iter().chain(&serials) {
        bench.client.revoke(serial).unwrap();
    }
    assert_eq!(bench.client.revoked().unwrap(), serials);
    assert!(bench.peer.revoked().unwrap().is_empty());

    let path = bench.dir.path().join(CLIENT_CRL);
    std::fs::write(&path, "damaged").unwrap();
    assert!(matches!(bench.client.revoke(&serials[0]), Err(Error::Unreadable { .. })));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "damaged");
}

#[test]
fn serial_numbers_are_read_as_they_are_printed() {
    let serial = Serial::random().unwrap();
    assert_eq!(serial.to_string().parse::<Serial>().unwrap(), serial);
    assert_eq!("00:0a:ff".parse::<Serial>().unwrap(), "aff".parse().unwrap());
    for text in ["", "xyz", "\u{e9}", &"1".repeat(41)] {
        assert!(text.parse::<Serial>().is_err(), "{text}");
    }
}
