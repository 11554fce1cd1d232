//! Why a handshake was refused, in words that both sides of it can read.

use rustls::{CertificateError, OtherError};

/// Who refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// We refused what the peer showed.
    Us,
    /// The peer refused what we showed.
    Peer,
}

/// Why a certificate, or a handshake as a whole, was refused.
#[derive(Debug, Clone, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The certificate's time is over, or (as TLS has one alert for both) has not begun.
    #[error("the certificate has expired or is not valid yet: {0}")]
    Expired(String),
    /// No trusted authority issued the certificate.
    #[error("the certificate was not issued by an authority that is trusted here")]
    UnknownAuthority,
    /// The certificate is on a revocation list.
    #[error("the certificate has been revoked")]
    Revoked,
    /// No certificate was shown.
    #[error("no certificate was shown")]
    NoCertificate,
    /// The certificate has no URI SAN.
    #[error("the certificate has no URI among its alternative names")]
    NoUri,
    /// The certificate has more than one URI SAN.
    #[error("the certificate has more than one URI among its alternative names")]
    SeveralUris,
    /// The URI SAN is not an identity of ours.
    #[error("the certificate's URI is not an identity: {0}")]
    BadUri(String),
    /// A client's certificate where a member's is wanted, or the reverse.
    #[error("the certificate is of the wrong kind for this plane: {0}")]
    WrongPlane(String),
    /// The certificate is of another installation.
    #[error("the certificate is of another trust domain: {0}")]
    OtherDomain(String),
    /// The certificate names another member than the one that was dialled.
    #[error("the certificate names another member: {0}")]
    WrongMember(String),
    /// The certificate may not be used this way (extended key usage).
    #[error("the certificate is not for this use")]
    WrongPurpose,
    /// A signature does not match its key.
    #[error("a signature does not match its key")]
    BadSignature,
    /// The certificate, or an extension of it, cannot be read.
    #[error("the certificate is malformed: {0}")]
    Malformed(String),
    /// The peer speaks another application protocol: most often, the port is of the other plane.
    #[error("the port speaks another protocol; is it the other plane's port?")]
    Protocol,
    /// The peer does not speak TLS 1.3.
    #[error("TLS 1.3 is required")]
    TlsVersion,
    /// Something else that TLS did not like.
    #[error("{0}")]
    Other(String),
}

/// Marks our own words inside rustls's error text, which QUIC carries to the peer as the close reason.
const MARK: &str = "refusal=";

impl Refusal {
    /// Is it the certificate's fault, so that dialling again without another certificate is pointless?
    pub const fn is_certificate_problem(&self) -> bool {
        !matches!(self, Self::Protocol | Self::TlsVersion | Self::Other(_))
    }

    /// A stable short name, for metrics and logs.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Expired(_) => "expired",
            Self::UnknownAuthority => "unknown-authority",
            Self::Revoked => "revoked",
            Self::NoCertificate => "no-certificate",
            Self::NoUri => "no-uri",
            Self::SeveralUris => "several-uris",
            Self::BadUri(_) => "bad-uri",
            Self::WrongPlane(_) => "wrong-plane",
            Self::OtherDomain(_) => "other-domain",
            Self::WrongMember(_) => "wrong-member",
            Self::WrongPurpose => "wrong-purpose",
            Self::BadSignature => "bad-signature",
            Self::Malformed(_) => "malformed",
            Self::Protocol => "protocol",
            Self::TlsVersion => "tls-version",
            Self::Other(_) => "other",
        }
    }

    const fn detail(&self) -> Option<&String> {
        match self {
            Self::Expired(text)
            | Self::BadUri(text)
            | Self::WrongPlane(text)
            | Self::OtherDomain(text)
            | Self::WrongMember(text)
            | Self::Malformed(text)
            | Self::Other(text) => Some(text),
            _ => None,
        }
    }

    fn from_code(code: &str, detail: &str) -> Option<Self> {
        let text = || detail.to_owned();
        Some(match code {
            "expired" => Self::Expired(text()),
            "unknown-authority" => Self::UnknownAuthority,
            "revoked" => Self::Revoked,
            "no-certificate" => Self::NoCertificate,
            "no-uri" => Self::NoUri,
            "several-uris" => Self::SeveralUris,
            "bad-uri" => Self::BadUri(text()),
            "wrong-plane" => Self::WrongPlane(text()),
            "other-domain" => Self::OtherDomain(text()),
            "wrong-member" => Self::WrongMember(text()),
            "wrong-purpose" => Self::WrongPurpose,
            "bad-signature" => Self::BadSignature,
            "malformed" => Self::Malformed(text()),
            _ => return None,
        })
    }

    /// The words that travel in a close reason; [`Refusal::from_close`] reads them back.
    pub(crate) fn marked(&self) -> String {
        let detail: String =
            self.detail().map(|text| text.chars().filter(|c| *c != ';').take(200).collect()).unwrap_or_default();
        format!("{MARK}{};{detail};", self.code())
    }

    /// The rustls error that makes the right TLS alert out of this refusal.
    pub(crate) fn into_tls(self) -> rustls::Error {
        // An alert of its own where TLS has one, for peers that are not ours; our words where it has none.
        rustls::Error::InvalidCertificate(match self {
            Self::Revoked => CertificateError::Revoked,
            Self::UnknownAuthority => CertificateError::UnknownIssuer,
            Self::WrongPurpose => CertificateError::InvalidPurpose,
            Self::BadSignature => CertificateError::BadSignature,
            other => CertificateError::Other(OtherError(std::sync::Arc::new(Marked(other)))),
        })
    }

    /// Reads a refusal from the TLS alert and the reason text that came with it.
    pub(crate) fn from_close(alert: u8, reason: &str) -> Self {
        if let Some((_, rest)) = reason.split_once(MARK)
            && let Some((code, rest)) = rest.split_once(';')
            && let Some((detail, _)) = rest.split_once(';')
            && let Some(refusal) = Self::from_code(code, detail)
        {
            return refusal;
        }
        // Alert numbers: RFC 8446, section 6, and RFC 7301, section 3.2.
        match alert {
            42 => Self::Malformed(reason.to_owned()),
            43 => Self::WrongPurpose,
            44 => Self::Revoked,
            45 => Self::Expired(reason.to_owned()),
            48 => Self::UnknownAuthority,
            51 => Self::BadSignature,
            70 => Self::TlsVersion,
            116 => Self::NoCertificate,
            120 => Self::Protocol,
            _ => Self::Other(format!("TLS alert {alert}: {reason}")),
        }
    }
}

/// A refusal whose `Debug` is the marked form: rustls prints foreign errors with `Debug` into the reason.
struct Marked(Refusal);

impl std::fmt::Debug for Marked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.marked())
    }
}

impl std::fmt::Display for Marked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.marked())
    }
}

impl std::error::Error for Marked {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_survives_the_journey_through_tls_text() {
        for refusal in [
            Refusal::NoUri,
            Refusal::SeveralUris,
            Refusal::WrongMember("member/3 was dialled, member/4 answered".to_owned()),
            Refusal::Expired("since 2020-01-01".to_owned()),
            Refusal::BadUri("spiffe://x/y".to_owned()),
        ] {
            let text = refusal.clone().into_tls().to_string();
            assert_eq!(Refusal::from_close(46, &text), refusal, "{text}");
        }
        assert_eq!(Refusal::from_close(44, "anything"), Refusal::Revoked);
        assert_eq!(Refusal::from_close(46, "refusal=;;"), Refusal::Other("TLS alert 46: refusal=;;".to_owned()));
    }
}
