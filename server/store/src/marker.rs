//! The marker: a small durable file that tells whether the unsynced tables beside it can be believed.
//!
//! What was committed without a sync lies in the kernel's pages. It outlives the process, not the machine; so it is
//! believed when the last run ended cleanly, or when nothing but that process has ended since: same boot, same file on
//! the same mount.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use crate::Error;
use crate::error::io;

/// Its name in the data directory.
const FILE: &str = "marker";
/// The first bytes of the file.
const MAGIC: &[u8; 8] = b"cncl-mrk";
/// Bytes of the checksum at its end.
const CHECK_BYTES: usize = 16;
/// So many crashes in a row, each within a minute of opening, and the tables are suspected to be the cause.
const EARLY_CRASHES: u32 = 2;
/// `STATX_MNT_ID_UNIQUE` (Linux 6.8), which rustix does not name: ids that are not used again. Older kernels ignore it
/// and give the plain id.
const MNT_ID_UNIQUE: StatxFlags = StatxFlags::from_bits_retain(0x4000);

/// One boot of the machine.
#[derive(Clone, Debug)]
pub struct Boot(Option<String>);

impl Boot {
    /// This one. Where the kernel does not tell, no later boot is taken for the same.
    #[must_use]
    pub fn current() -> Self {
        Self(fs::read_to_string("/proc/sys/kernel/random/boot_id").ok().map(|id| id.trim().to_owned()))
    }

    /// A boot of this id, to pretend another one in tests.
    #[must_use]
    pub fn named(id: &str) -> Self {
        Self(Some(id.to_owned()))
    }
}

/// Why the tables were thrown away, to be built again from the newest checkpoint and the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Discarded {
    /// The machine went down while they were open: pages may be missing.
    OtherBoot,
    /// They were not closed, and are now another file or on another mount than the one that was open.
    OtherPlace,
    /// There is no marker, or it can't be read.
    Unmarked,
    /// The member crashed twice in a row within a minute of opening them.
    Crashing,
    /// There is a marker or a checkpoint, and no tables.
    Missing,
    /// The caller knows that they are wrong: [`Options::discard`](crate::Options::discard).
    Asked,
}

impl std::fmt::Display for Discarded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::OtherBoot => "the machine went down while the tables were open",
            Self::OtherPlace => "the tables were not closed, and lie in another file or mount now",
            Self::Unmarked => "the marker of the tables is missing or unreadable",
            Self::Crashing => "two crashes in a row within a minute of opening the tables",
            Self::Missing => "the tables are gone",
            Self::Asked => "the tables are known to be wrong",
        })
    }
}

/// Which file on which mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    device: u64,
    inode: u64,
    mount: u64,
}

impl Place {
    /// Of a file; none when it is not there.
    pub(crate) fn of(path: &Path) -> Result<Option<Self>, Error> {
        match statx(CWD, path, AtFlags::empty(), StatxFlags::INO | StatxFlags::MNT_ID | MNT_ID_UNIQUE) {
            Ok(stat) => Ok(Some(Self {
                device: u64::from(stat.stx_dev_major) << 32 | u64::from(stat.stx_dev_minor),
                inode: stat.stx_ino,
                mount: stat.stx_mnt_id,
            })),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(error) => Err(io("look at", path)(error.into())),
        }
    }
}

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Marker {
    pub(crate) cluster: String,
    /// The N of the directory `env-N` that the tables lie in.
    pub(crate) environment: u32,
    boot: Option<String>,
    place: Place,
    /// Closed, and synced before that.
    clean: bool,
    /// Opened less than a minute ago, when it was written.
    young: bool,
    /// How many runs before this one crashed in a row while young.
    early_crashes: u32,
}

/// What a marker file turned out to be.
pub(crate) enum Found {
    /// There is none, or it is damaged.
    Nothing,
    /// One of another format.
    OtherFormat(u32),
    /// One of ours.
    Marker(Marker),
}

impl Marker {
    /// Of tables that are about to be written.
    pub(crate) fn open(cluster: &str, environment: u32, boot: &Boot, place: Place, early_crashes: u32) -> Self {
        Self {
            cluster: cluster.to_owned(),
            environment,
            boot: boot.0.clone(),
            place,
            clean: false,
            young: true,
            early_crashes,
        }
    }

    /// Whether the tables, which are at `place` now, can be believed; with them, how many early crashes in a row the
    /// run that now begins comes after.
    pub(crate) fn judge(&self, boot: &Boot, place: Option<Place>) -> Result<u32, Discarded> {
        let Some(place) = place else { return Err(Discarded::Missing) };
        if self.clean {
            // Synced: they may even have been moved to another machine.
            return Ok(0);
        }
        if self.boot.is_none() || self.boot != boot.0 {
            return Err(Discarded::OtherBoot);
        }
        if self.place != place {
            return Err(Discarded::OtherPlace);
        }
        let early_crashes = if self.young { self.early_crashes + 1 } else { 0 };
        if early_crashes >= EARLY_CRASHES { Err(Discarded::Crashing) } else { Ok(early_crashes) }
    }

    /// Whether the tables were synced and closed.
    pub(crate) fn is_clean(&self) -> bool {
        self.clean
    }

    /// Whether it still has to be told that a minute passed.
    pub(crate) fn is_young(&self) -> bool {
        self.young && !self.clean
    }

    /// A minute passed without a crash.
    pub(crate) fn settled(&self) -> Self {
        Self { young: false, early_crashes: 0, ..self.clone() }
    }

    /// The tables are synced, and closed.
    pub(crate) fn closed(&self) -> Self {
        Self { clean: true, ..self.settled() }
    }

    /// Reads the one of this data directory.
    pub(crate) fn read(dir: &Path, format: u32) -> Result<Found, Error> {
        let path = dir.join(FILE);
        match fs::read(&path) {
            Ok(bytes) => Ok(Self::decode(&bytes, format)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Found::Nothing),
            Err(error) => Err(io("read", &path)(error)),
        }
    }

    /// Replaces the one of this data directory, durably.
    pub(crate) fn write(&self, dir: &Path, format: u32) -> Result<(), Error> {
        let (path, next) = (dir.join(FILE), dir.join("marker.new"));
        let write = || -> io::Result<()> {
            let mut file = File::create(&next)?;
            file.write_all(&self.encode(format))?;
            file.sync_all()
        };
        write().map_err(io("write", &next))?;
        fs::rename(&next, &path).map_err(io("replace", &path))?;
        sync_dir(dir)
    }

    /// Removes the one of this data directory, durably: from then on its tables are not believed.
    pub(crate) fn remove(dir: &Path) -> Result<(), Error> {
        let path = dir.join(FILE);
        match fs::remove_file(&path) {
            Ok(()) => sync_dir(dir),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(io("remove", &path)(error)),
        }
    }

    /// Magic, format, postcard, checksum of all that.
    fn encode(&self, format: u32) -> Vec<u8> {
        let head = [&MAGIC[..], &format.to_le_bytes()].concat();
        let mut bytes = postcard::to_extend(self, head).expect("a Vec takes every byte, and fields have known lengths");
        let check = xxh3_128(&bytes).to_le_bytes();
        bytes.extend_from_slice(&check);
        bytes
    }

    fn decode(bytes: &[u8], format: u32) -> Found {
        let Some((signed, check)) = bytes.split_last_chunk::<CHECK_BYTES>() else { return Found::Nothing };
        if xxh3_128(signed).to_le_bytes() != *check {
            return Found::Nothing;
        }
        let Some((found, body)) = signed.strip_prefix(MAGIC).and_then(<[u8]>::split_first_chunk::<4>) else {
            return Found::Nothing;
        };
        match u32::from_le_bytes(*found) {
            found if found != format => Found::OtherFormat(found),
            _ => postcard::from_bytes(body).map_or(Found::Nothing, Found::Marker),
        }
    }
}

/// Makes the names in a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), Error> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(io("sync the directory", dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = Place { device: 1, inode: 2, mount: 3 };

    fn marker() -> Marker {
        Marker::open("c", 1, &Boot::named("b"), PLACE, 0)
    }

    #[test]
    fn every_damaged_byte_makes_the_marker_unreadable() {
        let bytes = marker().encode(1);
        assert!(matches!(Marker::decode(&bytes, 1), Found::Marker(read) if read == marker()));
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << bit;
                assert!(matches!(Marker::decode(&damaged, 1), Found::Nothing), "byte {at}, bit {bit}");
            }
            assert!(matches!(Marker::decode(&bytes[..at], 1), Found::Nothing), "cut at {at}");
        }
    }

    #[test]
    fn a_marker_of_another_format_is_told_from_a_damaged_one() {
        assert!(matches!(Marker::decode(&marker().encode(7), 1), Found::OtherFormat(7)));
    }

    #[test]
    fn unclean_tables_are_believed_only_in_the_same_boot_and_place() {
        let (boot, place) = (Boot::named("b"), Some(PLACE));
        let elsewhere = Some(Place { inode: 9, ..PLACE });
        for other in [Place { device: 9, ..PLACE }, Place { inode: 9, ..PLACE }, Place { mount: 9, ..PLACE }] {
            assert_eq!(marker().judge(&boot, Some(other)), Err(Discarded::OtherPlace));
            assert_eq!(marker().closed().judge(&boot, Some(other)), Ok(0), "closed, it may have been moved");
        }
        assert_eq!(marker().judge(&boot, place), Ok(1));
        assert_eq!(marker().judge(&Boot::named("other"), place), Err(Discarded::OtherBoot));
        assert_eq!(marker().judge(&boot, None), Err(Discarded::Missing));
        assert_eq!(marker().closed().judge(&Boot::named("other"), elsewhere), Ok(0));
        let unknown = Marker { boot: None, ..marker() };
        assert_eq!(unknown.judge(&Boot(None), place), Err(Discarded::OtherBoot), "two unknown boots are not the same");
    }

    #[test]
    fn the_second_early_crash_in_a_row_discards() {
        let (boot, place) = (Boot::named("b"), Some(PLACE));
        let second = Marker::open("c", 1, &boot, PLACE, 1);
        assert_eq!(second.judge(&boot, place), Err(Discarded::Crashing));
        assert_eq!(second.settled().judge(&boot, place), Ok(0), "a run of a minute ends the row");
    }

    #[test]
    fn the_place_of_a_file_is_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        fs::write(&a, "").unwrap();
        fs::write(&b, "").unwrap();
        assert_eq!(Place::of(&a).unwrap(), Place::of(&a).unwrap());
        assert_ne!(Place::of(&a).unwrap(), Place::of(&b).unwrap());
        assert_eq!(Place::of(&dir.path().join("c")).unwrap(), None);
    }
}
