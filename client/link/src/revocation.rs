//! Revocation lists: read one back, add a serial number, sign it again.

use std::path::Path;

use rcgen::{
    CertificateRevocationListParams, Issuer, KeyIdMethod, KeyPair, RevocationReason, RevokedCertParams, SerialNumber,
};
use rustls::pki_types::CertificateRevocationListDer;
use rustls::pki_types::pem::PemObject;
use time::{Duration, OffsetDateTime};
use x509_parser::prelude::{CertificateRevocationList, FromDer};

use crate::pki::{Error, Serial, files};

/// `nextUpdate` is mandatory, but not enforced by us: a list that nobody renewed must not stop a cluster.
const LIST_DAYS: i64 = 3650;

/// The entries of one authority's list.
pub(crate) struct List {
    number: u64,
    entries: Vec<(Serial, OffsetDateTime)>,
}

impl List {
    /// Reads a list; a missing file is an empty list.
    pub(crate) fn load(path: &Path) -> Result<Self, Error> {
        if !path.exists() {
            return Ok(Self { number: 0, entries: Vec::new() });
        }
        let pem = files::read(path)?;
        let der = CertificateRevocationListDer::from_pem_slice(pem.as_bytes())
            .map_err(|e| Error::unreadable(path, format!("no revocation list in PEM form: {e}")))?;
        let (_, parsed) = CertificateRevocationList::from_der(&der).map_err(|e| Error::unreadable(path, e))?;
        let number = parsed.crl_number().and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
        let entries = parsed
            .iter_revoked_certificates()
            .map(|entry| (Serial::from_bytes(entry.raw_serial()), entry.revocation_date.to_datetime()))
            .collect();
        Ok(Self { number, entries })
    }

    pub(crate) fn add(&mut self, serial: &Serial) {
        if !self.entries.iter().any(|(known, _)| known == serial) {
            self.entries.push((serial.clone(), OffsetDateTime::now_utc()));
        }
    }

    pub(crate) fn serials(self) -> Vec<Serial> {
        self.entries.into_iter().map(|(serial, _)| serial).collect()
    }

    /// The list in PEM form, under the next number.
    pub(crate) fn sign(&self, issuer: &Issuer<'_, KeyPair>) -> Result<String, Error> {
        let now = OffsetDateTime::now_utc();
        let entry = |(serial, since): &(Serial, OffsetDateTime)| RevokedCertParams {
            serial_number: serial.to_rcgen(),
            revocation_time: *since,
            reason_code: Some(RevocationReason::Unspecified),
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: now,
            next_update: now + Duration::days(LIST_DAYS),
            crl_number: SerialNumber::from(self.number + 1),
            issuing_distribution_point: None,
            revoked_certs: self.entries.iter().map(entry).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(params.signed_by(issuer)?.pem()?)
    }
}
