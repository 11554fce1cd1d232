//! Certificate authorities: make them, issue and renew certificates, revoke them.
//!
//! Two authorities, one for each plane, so that a stolen client authority makes no member. Their files lie in one
//! directory: `client-ca.{crt,key,crl}` and `peer-ca.{crt,key,crl}`. Keys are Ed25519 (small, quick, and every
//! handshake is the same size), mode 0600, and never overwritten.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ED25519, SanType, SerialNumber,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use time::{Duration, OffsetDateTime};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::Plane;
use crate::identity::{Principal, TrustDomain, only_uri};

pub(crate) mod files;

pub use files::{CLIENT_CA, CLIENT_CRL, PEER_CA, PEER_CRL, TLS_CRT, TLS_KEY};

/// Days that an authority is valid.
pub const AUTHORITY_DAYS: u32 = 3650;
/// Days that a certificate is valid, unless told otherwise.
pub const CERTIFICATE_DAYS: u32 = 365;
/// Certificates begin this much in the past, for clocks that are a little behind.
const BACKDATE: Duration = Duration::minutes(10);
/// Bytes of a serial number: random, so that no register is needed to keep them apart (RFC 5280 allows 20).
const SERIAL_BYTES: usize = 16;

/// Why an authority could not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A key is there already; it is never overwritten, as everything issued with it would be lost.
    #[error("{} exists and is not overwritten; move it away first if it is really to be replaced", .0.display())]
    Exists(PathBuf),
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is there, and is not what it should be.
    #[error("{}: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The certificate asked for is not this authority's to issue.
    #[error("{0}")]
    NotOurs(String),
    /// Keys or signatures could not be made.
    #[error("cannot make the certificate: {0}")]
    Crypto(String),
}

impl Error {
    pub(crate) fn unreadable(path: &Path, reason: impl fmt::Display) -> Self {
        Self::Unreadable { path: path.to_owned(), reason: reason.to_string() }
    }
}

impl From<rcgen::Error> for Error {
    fn from(error: rcgen::Error) -> Self {
        Self::Crypto(error.to_string())
    }
}

/// A certificate's serial number; text form is lower-case hexadecimal.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Serial(Vec<u8>);

impl Serial {
    fn random() -> Result<Self, Error> {
        let mut bytes = vec![0; SERIAL_BYTES];
        rustls::crypto::ring::default_provider()
            .secure_random
            .fill(&mut bytes)
            .map_err(|_| Error::Crypto("no randomness".to_owned()))?;
        // The first bit clear and the second set: positive, and of one length in every encoding.
        bytes[0] = bytes[0] & 0x7f | 0x40;
        Ok(Self(bytes))
    }

    /// From the big-endian bytes of a certificate; leading zeros are of the encoding, not of the number.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Self {
        let zeros = bytes.iter().take_while(|b| **b == 0).count();
        Self(bytes[zeros..].to_vec())
    }

    pub(crate) fn to_rcgen(&self) -> SerialNumber {
        SerialNumber::from_slice(&self.0)
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Serial({self})")
    }
}

impl FromStr for Serial {
    type Err = Error;

    /// Hexadecimal, with or without colons.
    fn from_str(text: &str) -> Result<Self, Error> {
        let invalid = || Error::NotOurs(format!("{text:?} is not a serial number (hexadecimal)"));
        let digits: String = text.chars().filter(|c| *c != ':').collect();
        let fits = (1..=40).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit());
        if !fits {
            return Err(invalid());
        }
        let even = if digits.len().is_multiple_of(2) { digits } else { format!("0{digits}") };
        let bytes: Result<Vec<u8>, _> =
            (0..even.len()).step_by(2).map(|at| u8::from_str_radix(&even[at..at + 2], 16)).collect();
        Ok(Self::from_bytes(&bytes.map_err(|_| invalid())?))
    }
}

/// What a certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Whose it is.
    pub principal: Principal,
    /// Its number.
    pub serial: Serial,
    /// From when it is valid.
    pub not_before: OffsetDateTime,
    /// Until when it is valid.
    pub not_after: OffsetDateTime,
}

/// Reads what the first certificate of a PEM text says, without verifying it.
///
/// # Errors
/// [`Error::Unreadable`] (naming `path`, which is not opened) when it is no certificate of ours.
pub fn summary(path: &Path, pem: &str) -> Result<Summary, Error> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes())
        .map_err(|e| Error::unreadable(path, format!("no certificate in PEM form: {e}")))?;
    summary_of(&der).map_err(|reason| Error::unreadable(path, reason))
}

pub(crate) fn summary_of(der: &CertificateDer<'_>) -> Result<Summary, String> {
    let principal = Principal::from_certificate(der).map_err(|e| e.to_string())?;
    let (_, parsed) = X509Certificate::from_der(der).map_err(|e| e.to_string())?;
    Ok(Summary {
        principal,
        serial: Serial::from_bytes(parsed.raw_serial()),
        not_before: parsed.validity().not_before.to_datetime(),
        not_after: parsed.validity().not_after.to_datetime(),
    })
}

/// What to issue.
#[derive(Debug, Clone)]
pub struct Spec {
    /// For whom.
    pub principal: Principal,
    /// From when on it is valid.
    pub not_before: OffsetDateTime,
    /// Until when it is valid.
    pub not_after: OffsetDateTime,
}

impl Spec {
    /// A certificate that is valid from now on, for so many days.
    pub fn new(principal: Principal, days: u32) -> Self {
        let now = OffsetDateTime::now_utc();
        Self { principal, not_before: now - BACKDATE, not_after: now + Duration::days(i64::from(days)) }
    }
}

/// A certificate and its key, fresh from an authority.
#[derive(Clone)]
pub struct Issued {
    /// What the certificate says.
    pub summary: Summary,
    /// The certificate.
    pub cert_pem: String,
    /// The private key (PKCS #8).
    pub key_pem: String,
}

impl fmt::Debug for Issued {
    /// Leaves the key out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued").field("summary", &self.summary).finish_non_exhaustive()
    }
}

/// One plane's certificate authority.
pub struct Authority {
    plane: Plane,
    domain: TrustDomain,
    dir: PathBuf,
    cert_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl fmt::Debug for Authority {
    /// Leaves the key out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("plane", &self.plane).field("domain", &self.domain).finish_non_exhaustive()
    }
}

impl Authority {
    /// Makes an authority and writes it into `dir` (made if missing) as `client-ca.*` or `peer-ca.*`.
    ///
    /// # Errors
    /// [`Error::Exists`] when there is one already, [`Error::Io`] when it cannot be written.
    pub fn create(dir: &Path, plane: Plane, domain: &TrustDomain) -> Result<Self, Error> {
        let key = KeyPair::generate_for(&PKCS_ED25519)?;
        let mut params = CertificateParams::default();
        let now = OffsetDateTime::now_utc();
        params.not_before = now - BACKDATE;
        params.not_after = now + Duration::days(i64::from(AUTHORITY_DAYS));
        params.serial_number = Some(Serial::random()?.to_rcgen());
        // The names of the two must differ: chains are built by name. The serial's head keeps a later authority
        // of the same installation apart as well, so that both can be trusted while one replaces the other.
        let tag = params.serial_number.as_ref().map(|n| n.to_bytes()).unwrap_or_default();
        let tag = Serial(tag.into_iter().take(4).collect());
        params.distinguished_name = common_name(&format!("{domain} {plane} authority {tag}"));
        params.subject_alt_names = vec![uri_name(&domain.uri())?];
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let cert_pem = params.self_signed(&key)?.pem();
        let (cert_path, key_path) = files::authority(dir, plane);
        files::make_dir(dir)?;
        // The key first: it is the file that decides whether there is an authority.
        files::write_new_key(&key_path, &key.serialize_pem())?;
        files::replace(&cert_path, &cert_pem)?;
        Self::from_pem(dir, plane, cert_pem, key, &cert_path)
    }

    /// Reads an authority back from its files.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Unreadable`], naming the file.
    pub fn load(dir: &Path, plane: Plane) -> Result<Self, Error> {
        let (cert_path, key_path) = files::authority(dir, plane);
        let cert_pem = files::read(&cert_path)?;
        let key = KeyPair::from_pem(&files::read(&key_path)?).map_err(|e| Error::unreadable(&key_path, e))?;
        Self::from_pem(dir, plane, cert_pem, key, &cert_path)
    }

    fn from_pem(dir: &Path, plane: Plane, cert_pem: String, key: KeyPair, path: &Path) -> Result<Self, Error> {
        let der = CertificateDer::from_pem_slice(cert_pem.as_bytes()).map_err(|e| Error::unreadable(path, e))?;
        let uri = only_uri(&der).map_err(|e| Error::unreadable(path, e))?;
        let domain = uri
            .strip_prefix("spiffe://")
            .and_then(|text| TrustDomain::new(text).ok())
            .ok_or_else(|| Error::unreadable(path, format!("{uri} names no trust domain")))?;
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(|e| Error::unreadable(path, e))?;
        Ok(Self { plane, domain, dir: dir.to_owned(), cert_pem, issuer })
    }

    /// The installation that this authority issues for.
    pub const fn domain(&self) -> &TrustDomain {
        &self.domain
    }

    /// The plane that this authority issues for.
    pub const fn plane(&self) -> Plane {
        self.plane
    }

    /// The authority's own certificate, which others trust.
    pub fn cert_pem(&self) -> &str {
        &self.cert_pem
    }

    /// Issues a certificate with a new key.
    ///
    /// # Errors
    /// [`Error::NotOurs`] when the principal is of another plane or trust domain.
    pub fn issue(&self, spec: &Spec) -> Result<Issued, Error> {
        self.issue_for_key(spec, KeyPair::generate_for(&PKCS_ED25519)?)
    }

    /// Issues a certificate to whom `cert_pem` belongs, with the same key, for so many days from now on.
    ///
    /// # Errors
    /// [`Error::NotOurs`] when it is of another plane or trust domain, [`Error::Crypto`] when it cannot be read.
    pub fn renew(&self, cert_pem: &str, key_pem: &str, days: u32) -> Result<Issued, Error> {
        let der = CertificateDer::from_pem_slice(cert_pem.as_bytes()).map_err(|e| Error::Crypto(e.to_string()))?;
        let principal = summary_of(&der).map_err(Error::Crypto)?.principal;
        self.issue_for_key(&Spec::new(principal, days), KeyPair::from_pem(key_pem)?)
    }

    fn issue_for_key(&self, spec: &Spec, key: KeyPair) -> Result<Issued, Error> {
        self.check(&spec.principal)?;
        let mut params = self.params(spec)?;
        params.subject_alt_names = vec![uri_name(&spec.principal.uri())?];
        self.sign(params, &key)
    }

    fn check(&self, principal: &Principal) -> Result<(), Error> {
        if principal.domain() != &self.domain {
            let text = format!("{} is not of the trust domain {}", principal.uri(), self.domain);
            return Err(Error::NotOurs(text));
        }
        let ours = match self.plane {
            Plane::Client => principal.client_name().is_some(),
            Plane::Peer => principal.member_id().is_some(),
        };
        if ours { Ok(()) } else { Err(Error::NotOurs(format!("the {} does not issue to {principal}", self.plane))) }
    }

    fn params(&self, spec: &Spec) -> Result<CertificateParams, Error> {
        let mut params = CertificateParams::default();
        params.not_before = spec.not_before;
        params.not_after = spec.not_after;
        params.serial_number = Some(Serial::random()?.to_rcgen());
        params.distinguished_name = common_name(&spec.principal.to_string());
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        // A member answers on both planes and dials on one; a client only dials.
        params.extended_key_usages = match self.plane {
            Plane::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
            Plane::Peer => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
        };
        Ok(params)
    }

    fn sign(&self, params: CertificateParams, key: &KeyPair) -> Result<Issued, Error> {
        let certificate = params.signed_by(key, &self.issuer)?;
        let summary = summary_of(certificate.der()).map_err(Error::Crypto)?;
        Ok(Issued { summary, cert_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }

    /// Puts a serial number on the authority's revocation list and returns the list's new text. Idempotent.
    ///
    /// The list takes effect where it is copied to and reloaded.
    ///
    /// # Errors
    /// [`Error::Unreadable`] when there is a list that cannot be read: it is not overwritten.
    pub fn revoke(&self, serial: &Serial) -> Result<String, Error> {
        let path = files::revocation_list(&self.dir, self.plane);
        let mut list = crate::revocation::List::load(&path)?;
        list.add(serial);
        let pem = list.sign(&self.issuer)?;
        files::replace(&path, &pem)?;
        Ok(pem)
    }

    /// The serial numbers that are revoked.
    ///
    /// # Errors
    /// [`Error::Unreadable`] when there is a list that cannot be read.
    pub fn revoked(&self) -> Result<Vec<Serial>, Error> {
        Ok(crate::revocation::List::load(&files::revocation_list(&self.dir, self.plane))?.serials())
    }
}

/// Writes a certificate, its key and what it trusts into `dir`, in the layout that
/// [`Credentials::load_dir`](crate::Credentials::load_dir) reads: `tls.crt`, `tls.key`, `peer-ca.crt`, and for a
/// member `client-ca.crt`. Lists of the authorities that have one are copied too.
///
/// # Errors
/// [`Error::Exists`] when there is a key already, [`Error::Io`] when something cannot be written.
pub fn write_credentials(dir: &Path, issued: &Issued, peer: &Authority, client: &Authority) -> Result<(), Error> {
    files::make_dir(dir)?;
    files::write_new_key(&dir.join(TLS_KEY), &issued.key_pem)?;
    files::replace(&dir.join(PEER_CA), peer.cert_pem())?;
    if issued.summary.principal.member_id().is_some() {
        files::replace(&dir.join(CLIENT_CA), client.cert_pem())?;
    }
    // The certificate last: with it the directory is complete.
    files::replace(&dir.join(TLS_CRT), &issued.cert_pem)?;
    copy_lists(dir, peer, client)
}

/// Replaces the certificate of `dir` by a renewed one; the key stays.
///
/// # Errors
/// [`Error::Io`] and [`Error::Unreadable`], naming the file; [`Error::NotOurs`] when another authority issued it.
pub fn renew_credentials(dir: &Path, authority: &Authority, days: u32) -> Result<Issued, Error> {
    let (cert, key) = (dir.join(TLS_CRT), dir.join(TLS_KEY));
    let cert_pem = files::read(&cert)?;
    summary(&cert, &cert_pem)?;
    let issued = authority.renew(&cert_pem, &files::read(&key)?, days)?;
    files::replace(&cert, &issued.cert_pem)?;
    Ok(issued)
}

/// Copies the authorities' revocation lists, where they have one, into a credentials directory.
///
/// # Errors
/// [`Error::Io`] when a list cannot be read or written.
pub fn copy_lists(dir: &Path, peer: &Authority, client: &Authority) -> Result<(), Error> {
    for authority in [peer, client] {
        let from = files::revocation_list(&authority.dir, authority.plane);
        if from.exists() {
            files::replace(&files::revocation_list(dir, authority.plane), &files::read(&from)?)?;
        }
    }
    Ok(())
}

fn common_name(text: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, text);
    name
}

fn uri_name(uri: &str) -> Result<SanType, Error> {
    Ok(SanType::URI(uri.try_into()?))
}

#[cfg(test)]
pub(crate) mod tests;
