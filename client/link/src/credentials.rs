//! What one side of a link shows and whom it believes, loaded from files.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

use crate::error::Error;
use crate::identity::Principal;
use crate::pki::{CLIENT_CA, CLIENT_CRL, PEER_CA, PEER_CRL, Summary, TLS_CRT, TLS_KEY, summary_of};

/// Where credentials lie, file by file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// Own certificate, PEM; further certificates in it are sent along.
    pub cert: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
    /// The authorities that members are known by: everybody needs them. Several may be in the file, while one
    /// replaces the other.
    pub peer_ca: PathBuf,
    /// The authorities that clients are known by: members need them.
    pub client_ca: Option<PathBuf>,
    /// Revocation lists of any of these authorities, one file each.
    pub crls: Vec<PathBuf>,
}

impl Files {
    /// The files of a directory that [`write_credentials`](crate::pki::write_credentials) wrote.
    pub fn in_dir(dir: &Path) -> Self {
        let there = |name: &str| Some(dir.join(name)).filter(|path| path.exists());
        Self {
            cert: dir.join(TLS_CRT),
            key: dir.join(TLS_KEY),
            peer_ca: dir.join(PEER_CA),
            client_ca: there(CLIENT_CA),
            crls: [PEER_CRL, CLIENT_CRL].into_iter().filter_map(there).collect(),
        }
    }
}

/// A certificate with its key, the authorities to believe, and the revocation lists. Cheap to clone.
#[derive(Clone)]
pub struct Credentials {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
    pub(crate) peer_ca: Vec<CertificateDer<'static>>,
    pub(crate) client_ca: Vec<CertificateDer<'static>>,
    pub(crate) crls: Vec<CertificateRevocationListDer<'static>>,
    pub(crate) summary: Summary,
}

impl fmt::Debug for Credentials {
    /// Leaves the key out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("summary", &self.inner.summary).finish_non_exhaustive()
    }
}

impl Credentials {
    /// Reads the files. Whether the key fits the certificate is checked where they are first used; an expired
    /// certificate is taken, with a warning, as it is the other side's to refuse.
    ///
    /// # Errors
    /// [`Error::File`], naming the file and what is wrong with it.
    pub fn load(files: &Files) -> Result<Self, Error> {
        let chain = certificates(&files.cert)?;
        let first = chain.first().ok_or_else(|| Error::file(&files.cert, "holds no certificate"))?;
        let summary = summary_of(first).map_err(|reason| Error::file(&files.cert, reason))?;
        let key = PrivateKeyDer::from_pem_slice(&read(&files.key)?)
            .map_err(|e| Error::file(&files.key, format!("holds no private key in PEM form: {e}")))?;
        warn_if_open(&files.key);
        let peer_ca = certificates(&files.peer_ca)?;
        let client_ca = files.client_ca.as_deref().map(certificates).transpose()?.unwrap_or_default();
        let crls = files.crls.iter().map(|path| list(path)).collect::<Result<_, _>>()?;
        if SystemTime::from(summary.not_after) < SystemTime::now() {
            tracing::warn!(file = %files.cert.display(), not_after = %summary.not_after, "own certificate has expired");
        }
        Ok(Self { inner: Arc::new(Inner { chain, key, peer_ca, client_ca, crls, summary }) })
    }

    /// Reads a directory that [`write_credentials`](crate::pki::write_credentials) wrote.
    ///
    /// # Errors
    /// As [`Credentials::load`].
    pub fn load_dir(dir: &Path) -> Result<Self, Error> {
        Self::load(&Files::in_dir(dir))
    }

    /// Who shows these credentials.
    pub fn principal(&self) -> &Principal {
        &self.inner.summary.principal
    }

    /// What the own certificate says, such as until when it is valid.
    pub fn summary(&self) -> &Summary {
        &self.inner.summary
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|e| Error::file(path, e))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let all: Vec<_> = CertificateDer::pem_slice_iter(&read(path)?)
        .collect::<Result<_, _>>()
        .map_err(|e| Error::file(path, format!("not a certificate in PEM form: {e}")))?;
    if all.is_empty() { Err(Error::file(path, "holds no certificate in PEM form")) } else { Ok(all) }
}

fn list(path: &Path) -> Result<CertificateRevocationListDer<'static>, Error> {
    let der = CertificateRevocationListDer::from_pem_slice(&read(path)?)
        .map_err(|e| Error::file(path, format!("holds no revocation list in PEM form: {e}")))?;
    // Here, where the file has a name, and not where the verifier is built.
    webpki::OwnedCertRevocationList::from_der(&der)
        .map_err(|e| Error::file(path, format!("unreadable revocation list: {e}")))?;
    Ok(der)
}

/// Others may look at keys that a container runtime mounts; it deserves a word, not a refusal.
fn warn_if_open(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    if let Ok(meta) = std::fs::metadata(path)
        && meta.permissions().mode() & 0o077 != 0
    {
        tracing::warn!(file = %path.display(), "the key can be read by others; chmod 600 it");
    }
}
