//! Free bytes that a test tells, a reserve in a real directory.

use super::*;

const MIB: u64 = 1 << 20;

fn storage() -> Storage {
    Storage { reserve_bytes: 4 * MIB, least_free_bytes: 10 * MIB, ..Storage::default() }
}

struct Bench {
    dir: tempfile::TempDir,
    free: Arc<AtomicU64>,
    room: Room,
    now: Duration,
}

impl Bench {
    fn new(free_bytes: u64) -> Self {
        let (dir, free) = (tempfile::tempdir().unwrap(), Arc::new(AtomicU64::new(free_bytes)));
        let room = Room::open(dir.path(), &storage(), Some(Arc::clone(&free))).unwrap();
        Self { dir, free, room, now: monotonic() }
    }

    /// So much is free, and it is looked at, later than anything is put off to.
    fn free(&mut self, bytes: u64) -> Growth {
        self.now += REMAKE_AFTER * 2;
        self.free.store(bytes, Ordering::Relaxed);
        self.room.look_at(self.now).unwrap();
        assert_eq!((self.room.free_bytes(), self.room.reserve_held()), (bytes, self.reserve().is_some()));
        self.room.growth()
    }

    /// Bytes of the reserve's file, if there is one, and whether all its blocks are there.
    fn reserve(&self) -> Option<u64> {
        use std::os::unix::fs::MetadataExt;
        let file = std::fs::metadata(self.dir.path().join("reserve")).ok()?;
        assert!(file.blocks() * 512 >= file.len(), "it holds no room");
        Some(file.len())
    }
}

fn refused(free_bytes: u64, least_bytes: u64) -> Growth {
    Growth::Refused { free_bytes, least_bytes }
}

#[test]
fn growth_is_refused_below_the_mark_and_allowed_again_a_tenth_above() {
    let mut bench = Bench::new(100 * MIB);
    assert_eq!((bench.room.growth(), bench.reserve()), (Growth::Allowed, Some(4 * MIB)));
    assert_eq!(bench.free(10 * MIB), Growth::Allowed);
    assert_eq!(bench.free(10 * MIB - 1), refused(10 * MIB - 1, 11 * MIB));
    assert!(bench.room.refuses_growth());
    assert_eq!(bench.free(11 * MIB - 1), refused(11 * MIB - 1, 11 * MIB));
    assert_eq!(bench.free(11 * MIB), Growth::Allowed);
    assert_eq!(bench.free(10 * MIB), Growth::Allowed);
    assert_eq!(bench.reserve(), Some(4 * MIB), "it is not touched by that");
}

#[test]
fn the_reserve_is_given_up_once_and_nothing_grows_until_it_is_back() {
    let mut bench = Bench::new(100 * MIB);
    assert!(bench.room.release());
    assert_eq!((bench.reserve(), bench.room.reserve_held()), (None, false));
    assert_eq!(bench.room.growth(), refused(100 * MIB, 15 * MIB), "at once, before anybody looked");
    assert!(!bench.room.release());
    bench.room.look_at(bench.now).unwrap();
    assert_eq!(bench.reserve(), None, "not at once: whoever needs the room is given time to use it");
    assert_eq!(bench.free(15 * MIB - 1), refused(15 * MIB - 1, 15 * MIB));
    assert_eq!(bench.free(15 * MIB), Growth::Allowed);
    assert_eq!(bench.reserve(), Some(4 * MIB));
    assert!(bench.room.release(), "there it is again");
}

#[test]
fn a_member_that_starts_on_a_full_disk_makes_its_reserve_when_there_is_room() {
    let mut bench = Bench::new(12 * MIB);
    assert_eq!((bench.room.growth(), bench.reserve()), (refused(12 * MIB, 15 * MIB), None));
    assert_eq!(bench.free(20 * MIB), Growth::Allowed);
    assert_eq!(bench.reserve(), Some(4 * MIB));
}

#[test]
fn a_reserve_outlives_the_member_and_has_the_size_that_is_asked_for() {
    let bench = Bench::new(100 * MIB);
    let full = Some(Arc::new(AtomicU64::new(0)));
    let open = |reserve_bytes| {
        let room = Room::open(bench.dir.path(), &Storage { reserve_bytes, ..storage() }, full.clone()).unwrap();
        (room.reserve_held(), bench.reserve())
    };
    std::fs::write(bench.dir.path().join("reserve.new"), b"half-made").unwrap();
    assert_eq!(open(4 * MIB), (true, Some(4 * MIB)), "there is no room to make one now");
    assert!(!bench.dir.path().join("reserve.new").exists());
    assert_eq!(open(3 * MIB), (false, None));
    assert_eq!(open(0), (false, None));
}

#[test]
fn with_no_reserve_and_no_mark_nothing_is_ever_refused() {
    let dir = tempfile::tempdir().unwrap();
    let none = Storage { reserve_bytes: 0, least_free_bytes: 0, ..storage() };
    let room = Room::open(dir.path(), &none, Some(Arc::default())).unwrap();
    assert_eq!((room.growth(), room.reserve_held()), (Growth::Allowed, false));
    assert!(!room.release());
    assert!(room.refuses_growth(), "somebody found it full a moment ago");
    room.look().unwrap();
    assert!(!room.refuses_growth());
}

#[test]
fn a_reserve_that_somebody_removed_is_made_again() {
    let mut bench = Bench::new(100 * MIB);
    std::fs::remove_file(bench.dir.path().join("reserve")).unwrap();
    assert_eq!(bench.free(14 * MIB), refused(14 * MIB, 15 * MIB));
    assert_eq!(bench.free(15 * MIB), Growth::Allowed);
    assert_eq!(bench.reserve(), Some(4 * MIB));
}

#[test]
fn a_reserve_that_cannot_be_made_is_gone_without() {
    let bench = Bench::new(0);
    // A directory of that name: the file can't be made, and the disk is not why.
    std::fs::create_dir(bench.dir.path().join("reserve.new")).unwrap();
    bench.free.store(100 * MIB, Ordering::Relaxed);
    bench.room.look_at(bench.now + REMAKE_AFTER * 2).unwrap();
    assert_eq!((bench.room.growth(), bench.room.reserve_held()), (Growth::Allowed, false));
}

#[test]
fn the_real_file_system_is_asked_and_a_mark_above_a_tenth_of_it_is_a_tenth() {
    let dir = tempfile::tempdir().unwrap();
    let all = Storage { reserve_bytes: 0, least_free_bytes: u64::MAX, ..storage() };
    let room = Room::open(dir.path(), &all, None).unwrap();
    let space = rustix::fs::statvfs(dir.path()).unwrap();
    assert_eq!(room.inner.least_bytes, space.f_frsize * space.f_blocks / 10);
    let bytes = room.free_bytes();
    assert!(bytes > 0 && bytes <= space.f_frsize * space.f_blocks, "{bytes}");
}

#[test]
fn whoever_waits_for_room_has_the_reserve_then_a_moment_and_no_more_once_the_member_stops() {
    let bench = Bench::new(100 * MIB);
    assert!(bench.room.wait());
    assert!(!bench.room.reserve_held());
    assert!(bench.room.wait(), "it may try again");
    let waiting = bench.room.clone();
    let thread = std::thread::spawn(move || while waiting.wait() {});
    bench.room.stop();
    thread.join().unwrap();
    assert!(!bench.room.wait());
}
