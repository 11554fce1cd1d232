//! TLS 1.3, mutual, without resumption: whom to believe, and quinn's configurations made of it.
//!
//! Resumption skips the certificate verifier, so a revoked certificate would go on working: no tickets, no session
//! storage, no 0-RTT, on either side (RFC 8446, 8.1 and 4.6.1).

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{ClientConfig, DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};
use time::OffsetDateTime;
use webpki::{CertRevocationList, EndEntityCert, KeyUsage, RevocationOptionsBuilder, UnknownStatusPolicy};

use crate::Plane;
use crate::credentials::Credentials;
use crate::error::Error;
use crate::identity::{Principal, TrustDomain};
use crate::refusal::Refusal;

/// The server name of a dialled member whose id does not matter.
const ANY_MEMBER: &str = "member-any";
/// Before the id of the member that is dialled. Only the own verifier sees the name: it is not sent (no SNI).
const MEMBER: &str = "member-";

/// Explicitly ring: which provider is the process's default depends on who else is linked in.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The name that makes the verifier insist on this member.
pub(crate) fn server_name(expected: Option<u64>) -> String {
    expected.map_or_else(|| ANY_MEMBER.to_owned(), |id| format!("{MEMBER}{id}"))
}

/// Which side of a connection a verifier stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Listener,
    Dialer,
}

/// Checks the other side's certificate: chain, dates, revocation, purpose, and the one URI.
#[derive(Debug)]
pub(crate) struct Verifier {
    plane: Plane,
    role: Role,
    domain: TrustDomain,
    anchors: Vec<TrustAnchor<'static>>,
    lists: Vec<CertRevocationList<'static>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    pub(crate) fn new(plane: Plane, role: Role, credentials: &Credentials) -> Result<Self, Error> {
        let inner = &credentials.inner;
        let authorities = match (plane, role) {
            (Plane::Client, Role::Listener) => &inner.client_ca,
            _ => &inner.peer_ca,
        };
        if authorities.is_empty() {
            return Err(Error::Credentials(format!("no authority is named whose peers may come on the {plane}")));
        }
        let anchors = authorities
            .iter()
            .map(|der| webpki::anchor_from_trusted_cert(der).map(|anchor| anchor.to_owned()))
            .collect::<Result<_, _>>()
            .map_err(|e| Error::Credentials(format!("an authority's certificate is unusable: {e}")))?;
        let lists = inner
            .crls
            .iter()
            .map(|der| webpki::OwnedCertRevocationList::from_der(der).map(CertRevocationList::from))
            .collect::<Result<_, _>>()
            .map_err(|e| Error::Credentials(format!("a revocation list is unusable: {e}")))?;
        let domain = credentials.principal().domain().clone();
        let algorithms = provider().signature_verification_algorithms;
        Ok(Self { plane, role, domain, anchors, lists, algorithms })
    }

    /// Who the chain says the peer is, or why it is refused.
    pub(crate) fn check(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> Result<Principal, Refusal> {
        let (end_entity, intermediates) = chain.split_first().ok_or(Refusal::NoCertificate)?;
        let trusted = self.check_chain(end_entity, intermediates, now);
        let principal = Principal::from_certificate(end_entity);
        match (trusted, principal) {
            (Ok(()), Ok(principal)) => {
                self.check_kind(&principal)?;
                self.check_domain(principal)
            }
            // A certificate of the other plane is told as such, rather than by what gave it away.
            (Err(found @ (Refusal::UnknownAuthority | Refusal::WrongPurpose)), Ok(principal)) => {
                self.check_kind(&principal).and(Err(found))
            }
            (Err(refusal), _) | (Ok(()), Err(refusal)) => Err(refusal),
        }
    }

    fn check_chain(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Refusal> {
        let certificate = EndEntityCert::try_from(end_entity).map_err(refusal)?;
        let lists: Vec<_> = self.lists.iter().collect();
        // A list that nobody renewed goes on counting; an authority without a list has revoked nothing.
        let revocation = RevocationOptionsBuilder::new(&lists)
            .ok()
            .map(|options| options.with_status_policy(UnknownStatusPolicy::Allow).build());
        let usage = match self.role {
            Role::Listener => KeyUsage::client_auth(),
            Role::Dialer => KeyUsage::server_auth(),
        };
        certificate
            .verify_for_usage(self.algorithms.all, &self.anchors, intermediates, now, usage, revocation, None)
            .map(|_| ())
            .map_err(refusal)
    }

    fn check_kind(&self, principal: &Principal) -> Result<(), Refusal> {
        let right = match (self.plane, self.role) {
            (Plane::Client, Role::Listener) => principal.client_name().is_some(),
            _ => principal.member_id().is_some(),
        };
        if right { Ok(()) } else { Err(Refusal::WrongPlane(format!("{principal} on the {}", self.plane))) }
    }

    fn check_domain(&self, principal: Principal) -> Result<Principal, Refusal> {
        if principal.domain() == &self.domain {
            return Ok(principal);
        }
        Err(Refusal::OtherDomain(format!("{} where {} is at home", principal.domain(), self.domain)))
    }
}

fn refusal(error: webpki::Error) -> Refusal {
    use webpki::Error as E;
    let date = |at: UnixTime| {
        i64::try_from(at.as_secs())
            .ok()
            .and_then(|secs| OffsetDateTime::from_unix_timestamp(secs).ok())
            .map_or_else(|| "?".to_owned(), |at| at.to_string())
    };
    match error {
        E::CertExpired { not_after, .. } => Refusal::Expired(format!("valid until {}", date(not_after))),
        E::CertNotValidYet { not_before, .. } => Refusal::Expired(format!("valid from {}", date(not_before))),
        E::InvalidCertValidity => Refusal::Expired("valid at no time".to_owned()),
        E::UnknownIssuer => Refusal::UnknownAuthority,
        E::CertRevoked => Refusal::Revoked,
        E::RequiredEkuNotFoundContext(_) => Refusal::WrongPurpose,
        // Another authority of the same name: to the user it is an unknown one.
        E::InvalidSignatureForPublicKey => Refusal::UnknownAuthority,
        other => Refusal::Malformed(other.to_string()),
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.check(&chain(end_entity, intermediates), now).map_err(Refusal::into_tls)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let found = self.check(&chain(end_entity, intermediates), now).map_err(Refusal::into_tls)?;
        let wanted = server_name.to_str();
        if wanted != ANY_MEMBER && wanted != self::server_name(found.member_id()) {
            let text = format!("{} was dialled, {found} answered", wanted.replacen('-', "/", 1));
            return Err(Refusal::WrongMember(text).into_tls());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn chain<'a>(first: &CertificateDer<'a>, rest: &[CertificateDer<'a>]) -> Vec<CertificateDer<'a>> {
    std::iter::once(first).chain(rest).cloned().collect()
}

/// What a listener shows and demands.
pub(crate) fn server_config(
    plane: Plane,
    credentials: &Credentials,
    verifier: Arc<Verifier>,
) -> Result<ServerConfig, Error> {
    let inner = &credentials.inner;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .and_then(|config| {
            config.with_client_cert_verifier(verifier).with_single_cert(inner.chain.clone(), inner.key.clone_key())
        })
        .map_err(|e| Error::Credentials(e.to_string()))?;
    config.alpn_protocols = vec![plane.alpn().to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(config)
}

/// What a dialer shows and demands.
pub(crate) fn client_config(
    plane: Plane,
    credentials: &Credentials,
    verifier: Arc<Verifier>,
) -> Result<ClientConfig, Error> {
    let inner = &credentials.inner;
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .and_then(|config| {
            config
                .dangerous()
                .with_custom_certificate_verifier(verifier)
                .with_client_auth_cert(inner.chain.clone(), inner.key.clone_key())
        })
        .map_err(|e| Error::Credentials(e.to_string()))?;
    config.alpn_protocols = vec![plane.alpn().to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.enable_sni = false;
    Ok(config)
}

#[cfg(test)]
mod tests;
