//! Who a peer is: the principal that the one URI SAN of its certificate names.

use std::fmt;
use std::str::FromStr;

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::refusal::Refusal;

/// Longest client name, in bytes: it is part of znode owners, log lines and metrics labels.
const NAME_BYTES_MAX: usize = 64;
/// Longest trust domain, in bytes (SPIFFE-ID, section 2.1).
const DOMAIN_BYTES_MAX: usize = 255;
/// Context-specific tag number of `uniformResourceIdentifier` in GeneralName (RFC 5280, 4.2.1.6).
const URI_TAG: u32 = 6;

/// The name that all certificates of one installation share: lower-case letters, digits, `.`, `-`, `_`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomain(String);

impl TrustDomain {
    /// Checks and takes a trust domain.
    ///
    /// # Errors
    /// [`Invalid`] when it is empty, too long or holds another character.
    pub fn new(text: &str) -> Result<Self, Invalid> {
        let fits = (1..=DOMAIN_BYTES_MAX).contains(&text.len())
            && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_'));
        if fits { Ok(Self(text.to_owned())) } else { Err(Invalid { what: "trust domain", text: text.to_owned() }) }
    }

    /// The domain as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `spiffe://<domain>`, which an authority's own certificate carries.
    pub fn uri(&self) -> String {
        format!("spiffe://{}", self.0)
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for TrustDomain {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        Self::new(text)
    }
}

/// Who somebody is. `Display` is the short form (`client/ci-7`, `member/3`); [`Principal::uri`] the full one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Principal {
    /// A client, by name.
    Client {
        /// The installation it belongs to.
        domain: TrustDomain,
        /// Its name: letters, digits, `.`, `_`, `-`, at most 64.
        name: String,
    },
    /// A member of the cluster, by id.
    Member {
        /// The installation it belongs to.
        domain: TrustDomain,
        /// Its id: never zero, never used twice.
        id: u64,
    },
}

impl Principal {
    /// A client of that name.
    ///
    /// # Errors
    /// [`Invalid`] when the name is empty, longer than 64 bytes or holds another character.
    pub fn client(domain: &TrustDomain, name: &str) -> Result<Self, Invalid> {
        // `.` and `..` would be path steps wherever a name becomes a directory.
        let fits = (1..=NAME_BYTES_MAX).contains(&name.len())
            && !matches!(name, "." | "..")
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        if !fits {
            return Err(Invalid { what: "client name", text: name.to_owned() });
        }
        Ok(Self::Client { domain: domain.clone(), name: name.to_owned() })
    }

    /// The member of that id.
    ///
    /// # Errors
    /// [`Invalid`] when the id is zero, which stands for "none" on the wire.
    pub fn member(domain: &TrustDomain, id: u64) -> Result<Self, Invalid> {
        if id == 0 {
            return Err(Invalid { what: "member id", text: "0".to_owned() });
        }
        Ok(Self::Member { domain: domain.clone(), id })
    }

    /// The installation that the principal belongs to.
    pub const fn domain(&self) -> &TrustDomain {
        match self {
            Self::Client { domain, .. } | Self::Member { domain, .. } => domain,
        }
    }

    /// The id, if this is a member.
    pub const fn member_id(&self) -> Option<u64> {
        match self {
            Self::Client { .. } => None,
            Self::Member { id, .. } => Some(*id),
        }
    }

    /// The name, if this is a client.
    pub fn client_name(&self) -> Option<&str> {
        match self {
            Self::Client { name, .. } => Some(name),
            Self::Member { .. } => None,
        }
    }

    /// The full form: `spiffe://<trust domain>/client/<name>` or `spiffe://<trust domain>/member/<id>`.
    pub fn uri(&self) -> String {
        format!("spiffe://{}/{self}", self.domain())
    }

    /// Reads the full form; only what [`Principal::uri`] writes is accepted, byte for byte.
    ///
    /// # Errors
    /// [`Invalid`] when it is anything else.
    pub fn parse_uri(uri: &str) -> Result<Self, Invalid> {
        let invalid = || Invalid { what: "identity", text: uri.to_owned() };
        let rest = uri.strip_prefix("spiffe://").ok_or_else(invalid)?;
        let (domain, path) = rest.split_once('/').ok_or_else(invalid)?;
        let domain = TrustDomain::new(domain).map_err(|_| invalid())?;
        let (kind, who) = path.split_once('/').ok_or_else(invalid)?;
        let principal = match kind {
            "client" => Self::client(&domain, who),
            "member" => Self::member(&domain, who.parse().map_err(|_| invalid())?),
            _ => return Err(invalid()),
        }
        .map_err(|_| invalid())?;
        // `+7` and `007` parse as numbers; two spellings of one identity must not exist.
        if principal.uri() == uri { Ok(principal) } else { Err(invalid()) }
    }

    /// Reads the principal from an end-entity certificate: exactly one URI SAN, whatever else it carries.
    ///
    /// The certificate's chain is *not* verified here.
    ///
    /// # Errors
    /// [`Refusal::Malformed`], [`Refusal::NoUri`], [`Refusal::SeveralUris`] or [`Refusal::BadUri`].
    pub fn from_certificate(certificate: &CertificateDer<'_>) -> Result<Self, Refusal> {
        let uri = only_uri(certificate)?;
        Self::parse_uri(&uri).map_err(|_| Refusal::BadUri(uri))
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client { name, .. } => write!(f, "client/{name}"),
            Self::Member { id, .. } => write!(f, "member/{id}"),
        }
    }
}

impl FromStr for Principal {
    type Err = Invalid;

    fn from_str(uri: &str) -> Result<Self, Invalid> {
        Self::parse_uri(uri)
    }
}

/// Text that is not a name of the kind that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a {what}")]
pub struct Invalid {
    what: &'static str,
    text: String,
}

/// The one URI among a certificate's alternative names.
///
/// x509-parser and not webpki's `valid_uri_names`: the latter leaves out names that it cannot read, so that two
/// URIs can look like one.
pub(crate) fn only_uri(certificate: &CertificateDer<'_>) -> Result<String, Refusal> {
    let malformed = || Refusal::Malformed("not an X.509 certificate".to_owned());
    let (rest, parsed) = X509Certificate::from_der(certificate).map_err(|_| malformed())?;
    if !rest.is_empty() {
        return Err(malformed());
    }
    let names = parsed
        .subject_alternative_name()
        .map_err(|_| Refusal::Malformed("unreadable subject alternative names".to_owned()))?
        .ok_or(Refusal::NoUri)?;
    let mut only = None;
    for name in &names.value.general_names {
        let uri = match name {
            GeneralName::URI(uri) => (*uri).to_owned(),
            GeneralName::Invalid(tag, bytes) if tag.0 == URI_TAG => String::from_utf8_lossy(bytes).into_owned(),
            _ => continue,
        };
        if only.replace(uri).is_some() {
            return Err(Refusal::SeveralUris);
        }
    }
    only.ok_or(Refusal::NoUri)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn an_identity_has_one_spelling() {
        for uri in ["spiffe://acme.example/client/ci-7", "spiffe://a/member/18446744073709551615"] {
            assert_eq!(Principal::parse_uri(uri).unwrap().uri(), uri);
        }
        let member = Principal::parse_uri("spiffe://acme/member/3").unwrap();
        assert_eq!((member.to_string().as_str(), member.member_id()), ("member/3", Some(3)));
    }

    #[test]
    fn other_spellings_are_refused() {
        let long = format!("spiffe://a/client/{}", "x".repeat(65));
        for uri in [
            "",
            "spiffe://",
            "spiffe:///client/x",
            "spiffe://a",
            "spiffe://a/",
            "spiffe://a/client",
            "spiffe://a/client/",
            "spiffe://a/client/x/y",
            "spiffe://a/client/x?y",
            "spiffe://a/client/x%20",
            "spiffe://a/client/..",
            "spiffe://a/client/\u{e9}",
            "SPIFFE://a/client/x",
            "spiffe://A/client/x",
            "spiffe://a:1/client/x",
            "spiffe://u@a/client/x",
            "https://a/client/x",
            "spiffe://a/member/0",
            "spiffe://a/member/+3",
            "spiffe://a/member/03",
            "spiffe://a/member/-1",
            "spiffe://a/member/18446744073709551616",
            "spiffe://a/admin/x",
            long.as_str(),
        ] {
            assert!(Principal::parse_uri(uri).is_err(), "{uri} was accepted");
        }
    }

    #[test]
    fn noise_is_no_certificate() {
        for bytes in [&b""[..], b"x", &[0x30, 0x82, 0xff, 0xff]] {
            let refusal = Principal::from_certificate(&CertificateDer::from(bytes)).unwrap_err();
            assert!(matches!(refusal, Refusal::Malformed(_)), "{refusal}");
        }
    }
}
