//! Compiled components on this member's disk, so that a restart need not compile them again: each under its digest and the
//! engine's version, and only as this member itself wrote it.
//!
//! What the engine is given is run as machine code, so a file that somebody else wrote must never reach it. Every file carries
//! an HMAC-SHA-256 under a secret that lies beside it and that only this member's user can read; one that does not hold is
//! as good as none. Who can read the secret can run code here without a file of ours.

use std::fs::{self, OpenOptions};
use std::hash::{Hash, Hasher};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use conclave_protocol::plugin::ComponentDigest;
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use sha2::{Digest, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::Error;

/// What a file begins with: its format, in a number that changes with it.
const MAGIC: &[u8; 8] = b"cnclaot1";
const MAC_BYTES: usize = 32;
const SECRET: &str = "secret";
const SECRET_BYTES: usize = 32;
/// What the names of files end in.
const ENDING: &str = ".aot";
/// Machine code of a component of the greatest size takes less.
const FILE_BYTES: u64 = 512 << 20;

/// A folder of compiled components.
pub(crate) struct Cache {
    folder: PathBuf,
    secret: hmac::Key,
    /// Others use it too: what this one does not want stays.
    shared: bool,
}

impl Cache {
    /// The folder, made if it is missing, and its secret.
    pub(crate) fn open(folder: &Path, shared: bool) -> Result<Self, Error> {
        let failed = |why: String| Error::Cache { folder: folder.display().to_string(), why };
        fs::create_dir_all(folder).map_err(|error| failed(error.to_string()))?;
        let secret = secret(&folder.join(SECRET)).map_err(|error| failed(format!("{SECRET}: {error}")))?;
        Ok(Self { folder: folder.to_owned(), secret: hmac::Key::new(hmac::HMAC_SHA256, &secret), shared })
    }

    /// The component of this digest, if this member compiled it with this engine before.
    pub(crate) fn load(&self, engine: &Engine, digest: ComponentDigest) -> Option<Component> {
        let version = version(engine);
        let path = self.path(digest, &version);
        let file = read(&path).ok()?;
        let Some(code) = self.verified(&file, digest, &version) else {
            tracing::warn!("{}: damaged, or written by somebody else: compiling again", path.display());
            return None;
        };
        match deserialize(engine, code) {
            Ok(component) => Some(component),
            Err(error) => {
                tracing::warn!("{}: {error:#}: compiling again", path.display());
                None
            }
        }
    }

    /// Keeps a compiled component. That it can't be kept costs time at the next start and nothing else.
    pub(crate) fn store(&self, engine: &Engine, digest: ComponentDigest, component: &Component) {
        let version = version(engine);
        let path = self.path(digest, &version);
        let written = component
            .serialize()
            .map_err(|error| io::Error::other(format!("{error:#}")))
            .and_then(|code| self.write(&path, digest, &version, &code));
        if let Err(error) = written {
            tracing::warn!("{}: the compiled component can't be kept: {error}", path.display());
        }
    }

    /// Removes what is of no wanted component, and what other engines left.
    pub(crate) fn retain(&self, engine: &Engine, wanted: &dyn Fn(&ComponentDigest) -> bool) {
        if self.shared {
            return;
        }
        let ending = format!("-{}{ENDING}", version(engine));
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| name.ends_with(ENDING)) else { continue };
            let digest = name.strip_suffix(&ending).and_then(parse);
            if !digest.is_some_and(|digest| wanted(&digest)) {
                // One that stays is removed the next time.
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    fn path(&self, digest: ComponentDigest, version: &str) -> PathBuf {
        self.folder.join(format!("{digest}-{version}{ENDING}"))
    }

    /// The code in a file, if this member wrote it, for this component and this engine.
    fn verified<'f>(&self, file: &'f [u8], digest: ComponentDigest, version: &str) -> Option<&'f [u8]> {
        let rest = file.strip_prefix(MAGIC)?;
        let (mac, code) = rest.split_at_checked(MAC_BYTES)?;
        hmac::verify(&self.secret, &signed(digest, version, code), mac).is_ok().then_some(code)
    }

    fn write(&self, path: &Path, digest: ComponentDigest, version: &str, code: &[u8]) -> io::Result<()> {
        let mac = hmac::sign(&self.secret, &signed(digest, version, code));
        // Under another name first: a reader sees the whole or nothing. What a crash tears has a wrong HMAC.
        // A name of its own, as others may be at the same.
        let whose = format!("{}-{:?}", std::process::id(), std::thread::current().id());
        let unfinished = path.with_extension(format!("{whose}.part"));
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
        file.write_all(MAGIC)?;
        file.write_all(mac.as_ref())?;
        file.write_all(code)?;
        drop(file);
        fs::rename(&unfinished, path)
    }
}

/// What is authenticated: which component and which engine the code is of, and the code.
fn signed(digest: ComponentDigest, version: &str, code: &[u8]) -> Vec<u8> {
    // Of the code its hash, so that it need not be copied.
    [MAGIC, &digest.0[..], Sha256::digest(version).as_slice(), Sha256::digest(code).as_slice()].concat()
}

/// The engine's version and settings, as far as compiled code depends on them.
fn version(engine: &Engine) -> String {
    struct Text(Sha256);
    impl Hasher for Text {
        fn finish(&self) -> u64 {
            0
        }

        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }
    }
    let mut text = Text(Sha256::new());
    engine.precompile_compatibility_hash().hash(&mut text);
    text.0.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

fn parse(hex: &str) -> Option<ComponentDigest> {
    let mut digest = ComponentDigest::default();
    if hex.len() != 2 * digest.0.len() || !hex.is_ascii() {
        return None;
    }
    for (at, byte) in digest.0.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(digest)
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = fs::File::open(path)?;
    let bytes = file.metadata()?.len();
    if bytes > FILE_BYTES {
        return Err(io::Error::other("it is too large"));
    }
    let mut all = Vec::with_capacity(usize::try_from(bytes).unwrap_or(0));
    file.take(FILE_BYTES).read_to_end(&mut all)?;
    Ok(all)
}

/// The secret in a file that only this user can read; a new one where there is none, or where others could have read it.
fn secret(path: &Path) -> io::Result<[u8; SECRET_BYTES]> {
    match fs::File::open(path) {
        Ok(file) => {
            let is_private = file.metadata()?.mode() & 0o077 == 0;
            let mut bytes = Vec::new();
            file.take(SECRET_BYTES as u64 + 1).read_to_end(&mut bytes)?;
            match bytes.try_into() {
                Ok(secret) if is_private => return Ok(secret),
                _ => tracing::warn!("{}: no secret any more: making another, compiling again", path.display()),
            }
            fs::remove_file(path)?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let mut secret = [0; SECRET_BYTES];
    SystemRandom::new().fill(&mut secret).map_err(|_| io::Error::other("this machine gives no random bytes"))?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(&secret)?;
    file.sync_all()?;
    Ok(secret)
}

/// A component from machine code that this member compiled.
#[allow(unsafe_code, reason = "the engine can't see whether machine code is its own; the caller's HMAC says so")]
fn deserialize(engine: &Engine, code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: `code` must be what `Component::serialize` gave, unchanged. It comes from `Cache::verified`: its HMAC holds under
    // a secret of 32 random bytes that only this member's user can read, and `Cache::write` signs nothing else. The HMAC covers
    // the bytes in memory that are handed over here, so that a file that changes meanwhile changes nothing. It covers the hash
    // of the engine's version and settings too, and the engine itself refuses code of another version.
    unsafe { Component::deserialize(engine, code) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::{Budgets, engine};

    const DIGEST: ComponentDigest = ComponentDigest([7; 32]);

    fn engine() -> Engine {
        engine::engine(&Budgets { time: None, ..Budgets::default() }).unwrap()
    }

    fn component(engine: &Engine) -> Component {
        let wat = "(component (core module $m (func (export \"f\"))) (core instance (instantiate $m)))";
        Component::new(engine, wat::parse_str(wat).unwrap()).unwrap()
    }

    /// A cache with one component in it, and where that lies.
    fn filled(engine: &Engine) -> (tempfile::TempDir, Cache, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path(), false).unwrap();
        assert!(cache.load(engine, DIGEST).is_none());
        cache.store(engine, DIGEST, &component(engine));
        let path = cache.path(DIGEST, &version(engine));
        (folder, cache, path)
    }

    #[test]
    fn what_was_compiled_is_found_again_by_digest_and_after_a_restart() {
        let engine = engine();
        let (folder, cache, path) = filled(&engine);
        assert!(cache.load(&engine, DIGEST).is_some());
        assert!(cache.load(&engine, ComponentDigest([8; 32])).is_none());
        assert!(Cache::open(folder.path(), false).unwrap().load(&engine, DIGEST).is_some());
        for private in [&path, &folder.path().join(SECRET)] {
            assert_eq!(fs::metadata(private).unwrap().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn a_file_with_any_byte_changed_is_as_good_as_none_and_is_written_anew() {
        let engine = engine();
        let (_folder, cache, path) = filled(&engine);
        let good = fs::read(&path).unwrap();
        for at in [0, 7, 8, 39, 40, 41, good.len() / 2, good.len() - 1] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            fs::write(&path, &bad).unwrap();
            assert!(cache.load(&engine, DIGEST).is_none(), "byte {at}");
        }
        for length in [0, 8, 39, 40, good.len() - 1] {
            fs::write(&path, &good[..length]).unwrap();
            assert!(cache.load(&engine, DIGEST).is_none(), "{length} bytes");
        }
        cache.store(&engine, DIGEST, &component(&engine));
        assert!(cache.load(&engine, DIGEST).is_some());
    }

    #[test]
    fn a_file_of_another_component_or_another_member_is_not_taken() {
        let engine = engine();
        let (_folder, cache, path) = filled(&engine);
        let other = ComponentDigest([8; 32]);
        fs::copy(&path, cache.path(other, &version(&engine))).unwrap();
        assert!(cache.load(&engine, other).is_none());
        let (_theirs, foreign, at) = filled(&engine);
        fs::copy(&path, &at).unwrap();
        assert!(foreign.load(&engine, DIGEST).is_none());
    }

    #[test]
    fn a_secret_that_others_could_read_is_replaced_and_vouches_for_nothing() {
        let engine = engine();
        let (folder, _, _) = filled(&engine);
        let secret = folder.path().join(SECRET);
        let before = fs::read(&secret).unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(Cache::open(folder.path(), false).unwrap().load(&engine, DIGEST).is_none());
        let after = fs::read(&secret).unwrap();
        assert_ne!(before, after);
        fs::write(&secret, "short").unwrap();
        Cache::open(folder.path(), false).unwrap();
        assert_eq!(fs::read(&secret).unwrap().len(), SECRET_BYTES);
        assert_eq!(fs::metadata(&secret).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn what_another_engine_compiled_is_not_taken_and_goes_with_what_nobody_wants() {
        let engine = engine();
        let (_folder, cache, path) = filled(&engine);
        let other = engine::engine(&Budgets::default()).unwrap();
        assert_ne!(version(&engine), version(&other));
        assert!(cache.load(&other, DIGEST).is_none());
        fs::copy(&path, cache.path(DIGEST, &version(&other))).unwrap();
        assert!(cache.load(&other, DIGEST).is_none(), "under its name it is another engine's still");
        cache.retain(&engine, &|_| true);
        assert!(path.exists() && !cache.path(DIGEST, &version(&other)).exists());
        cache.retain(&engine, &|digest| *digest != DIGEST);
        assert!(!path.exists());
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = Cache::open(&file.path().join("below"), false).err().unwrap();
        assert!(matches!(&error, Error::Cache { folder, .. } if folder.ends_with("below")), "{error}");
    }
}
