//! Where certificates, keys and lists lie, and how they are written: whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::Error;
use crate::Plane;

/// A credentials directory's own certificate.
pub const TLS_CRT: &str = "tls.crt";
/// A credentials directory's own key, mode 0600.
pub const TLS_KEY: &str = "tls.key";
/// The certificate of the authority that members are known by.
pub const PEER_CA: &str = "peer-ca.crt";
/// The certificate of the authority that clients are known by.
pub const CLIENT_CA: &str = "client-ca.crt";
/// The peer authority's revocation list.
pub const PEER_CRL: &str = "peer-ca.crl";
/// The client authority's revocation list.
pub const CLIENT_CRL: &str = "client-ca.crl";

/// The certificate and the key of a plane's authority.
pub(crate) fn authority(dir: &Path, plane: Plane) -> (PathBuf, PathBuf) {
    match plane {
        Plane::Client => (dir.join(CLIENT_CA), dir.join("client-ca.key")),
        Plane::Peer => (dir.join(PEER_CA), dir.join("peer-ca.key")),
    }
}

pub(crate) fn revocation_list(dir: &Path, plane: Plane) -> PathBuf {
    dir.join(match plane {
        Plane::Client => CLIENT_CRL,
        Plane::Peer => PEER_CRL,
    })
}

pub(crate) fn read(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(|source| Error::Io { path: path.to_owned(), source })
}

/// Makes a directory that only its owner can look into.
pub(crate) fn make_dir(path: &Path) -> Result<(), Error> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| Error::Io { path: path.to_owned(), source })
}

/// Writes a key where none is.
pub(crate) fn write_new_key(path: &Path, pem: &str) -> Result<(), Error> {
    // Linked into place when it is complete, so that a crash leaves no half key that looks like one; a link
    // fails where a file is, which a rename does not.
    let draft = draft(path);
    let written = write(&draft, pem, 0o600).and_then(|()| fs::hard_link(&draft, path));
    let cleared = fs::remove_file(&draft);
    match written.and(cleared).and_then(|()| sync_dir(path)) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Err(Error::Exists(path.to_owned())),
        Err(source) => Err(Error::Io { path: path.to_owned(), source }),
    }
}

/// Writes a file that may be there already, so that a reader sees the old or the new one.
pub(crate) fn replace(path: &Path, text: &str) -> Result<(), Error> {
    let draft = draft(path);
    write(&draft, text, 0o644)
        .and_then(|()| fs::rename(&draft, path))
        .and_then(|()| sync_dir(path))
        .map_err(|source| Error::Io { path: path.to_owned(), source })
}

fn draft(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    name.into()
}

fn write(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn sync_dir(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(dir) if dir.as_os_str().is_empty() => File::open(".")?.sync_all(),
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}
