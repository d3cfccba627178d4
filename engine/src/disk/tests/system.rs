//! What only the disk of the system can show: links, modes, other processes, refusals.

use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::*;

fn system() -> SystemDisk {
    SystemDisk::new(SystemOptions::for_tests()).unwrap()
}

#[test]
fn a_planted_link_is_never_followed() {
    let directory = tempfile::tempdir().unwrap();
    let (target, link) = (directory.path().join("target"), directory.path().join("link"));
    std::fs::write(&target, b"precious").unwrap();
    symlink(&target, &link).unwrap();
    for (name, disk) in system_disks() {
        for mode in [OpenMode::Read, OpenMode::ReadWrite, OpenMode::CreateNew] {
            assert!(disk.open(&link, mode).is_err(), "{name} followed the link");
        }
        assert!(disk.lock(&link).is_err());
        assert!(disk.open_shared(&link, 512).is_err());
        assert_eq!(disk.metadata(&link).unwrap().unwrap().kind, PathKind::Other);
        assert!(disk.create_directory(&link).is_err());
    }
    assert_eq!(std::fs::read(&target).unwrap(), b"precious");
    assert!(!directory.path().join("nowhere").exists());
    symlink(
        directory.path().join("nowhere"),
        directory.path().join("dangling"),
    )
    .unwrap();
    assert!(
        system()
            .open(&directory.path().join("dangling"), OpenMode::CreateNew)
            .is_err()
    );
    assert!(!directory.path().join("nowhere").exists());
}

#[test]
fn a_fifo_a_device_and_a_file_with_two_names_are_refused_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let fifo = directory.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let disk = system();
    assert_eq!(
        disk.open(&fifo, OpenMode::Read).unwrap_err().kind(),
        io::ErrorKind::InvalidInput
    );
    assert!(disk.open(&fifo, OpenMode::ReadWrite).is_err());
    assert!(disk.open(Path::new("/dev/zero"), OpenMode::Read).is_err());
    let (one, two) = (directory.path().join("one"), directory.path().join("two"));
    std::fs::write(&one, b"precious").unwrap();
    std::fs::hard_link(&one, &two).unwrap();
    assert_eq!(
        disk.open(&two, OpenMode::ReadWrite).unwrap_err().kind(),
        io::ErrorKind::InvalidInput
    );
    assert!(disk.lock(&two).is_err());
    assert_eq!(contents(&*disk.open(&two, OpenMode::Read).unwrap()), b"precious");
}

/// The umask belongs to the whole process, so the work is done in a child of the test program.
#[test]
fn files_and_directories_are_for_their_owner_alone_under_any_umask() {
    const PLACE: &str = "LANTERMAN_TEST_UMASK_DIRECTORY";
    if let Some(place) = std::env::var_os(PLACE) {
        let (disk, place) = (system(), Path::new(&place).to_path_buf());
        disk.create_directory(&place.join("directory")).unwrap();
        disk.open(&place.join("directory/file"), OpenMode::CreateNew)
            .unwrap();
        disk.lock(&place.join("directory/lock")).unwrap();
        disk.open_shared(&place.join("directory/readers"), 512).unwrap();
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let test = "disk::tests::system::files_and_directories_are_for_their_owner_alone_under_any_umask";
    let status = child("umask 0; exec \"$0\" \"$@\"", test, PLACE, place.path())
        .status()
        .unwrap();
    assert!(status.success());
    for (name, mode) in [
        ("directory", 0o700),
        ("directory/file", 0o600),
        ("directory/lock", 0o600),
        ("directory/readers", 0o600),
    ] {
        let found = std::fs::metadata(place.path().join(name)).unwrap();
        assert_eq!(found.permissions().mode() & 0o7777, mode, "{name}");
    }
}

/// A child takes the locks and is killed with them in its hands.
#[test]
fn the_lock_of_another_process_is_seen_and_goes_when_it_is_killed() {
    const PLACE: &str = "LANTERMAN_TEST_LOCK_DIRECTORY";
    if let Some(place) = std::env::var_os(PLACE) {
        let (disk, place) = (system(), Path::new(&place).to_path_buf());
        let _lock = disk.lock(&place.join("lock")).unwrap().unwrap();
        let table = disk.open_shared(&place.join("readers"), 512).unwrap();
        let _slot = table.try_lock_slot(2).unwrap().unwrap();
        table.store(2, 42);
        std::fs::write(place.join("ready"), b"").unwrap();
        // Ends by itself when the parent is gone, whatever became of it.
        std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let test = "disk::tests::system::the_lock_of_another_process_is_seen_and_goes_when_it_is_killed";
    let mut child = child("exec \"$0\" \"$@\"", test, PLACE, place.path())
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    while !place.path().join("ready").exists() {
        assert!(
            child.try_wait().unwrap().is_none(),
            "the child ended before it was ready"
        );
        std::thread::yield_now();
    }
    let disk = system();
    assert!(disk.lock(&place.path().join("lock")).unwrap().is_none());
    let table = disk.open_shared(&place.path().join("readers"), 512).unwrap();
    assert_eq!(table.load(2), Some(42));
    assert!(table.slot_is_locked(2).unwrap());
    assert!(table.try_lock_slot(2).unwrap().is_none());
    assert!(!table.slot_is_locked(1).unwrap());
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(disk.lock(&place.path().join("lock")).unwrap().is_some());
    assert!(!table.slot_is_locked(2).unwrap());
    assert!(table.try_lock_slot(2).unwrap().is_some());
}

#[test]
fn a_map_needs_the_right_to_map() {
    let directory = tempfile::tempdir().unwrap();
    let disk = SystemDisk::new(SystemOptions::default()).unwrap();
    let file = disk
        .open(&directory.path().join("file"), OpenMode::CreateNew)
        .unwrap();
    file.reserve(0..4096).unwrap();
    assert_eq!(file.map(4096).unwrap_err().kind(), io::ErrorKind::Unsupported);
}

#[test]
fn a_file_cut_short_behind_a_map_is_an_error_of_populating_and_no_signal() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    let file = system().open(&path, OpenMode::CreateNew).unwrap();
    file.reserve(0..65_536).unwrap();
    let map = file.map(65_536).unwrap();
    map.populate(0..65_536).unwrap();
    Command::new("truncate")
        .args(["-s", "8192"])
        .arg(&path)
        .status()
        .unwrap();
    assert_eq!(
        map.populate(0..65_536).unwrap_err().kind(),
        io::ErrorKind::UnexpectedEof
    );
    map.populate(0..8192).unwrap();
}

#[test]
fn a_reservation_takes_real_blocks() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    let file = system().open(&path, OpenMode::CreateNew).unwrap();
    file.reserve(0..1 << 20).unwrap();
    assert!(std::fs::metadata(&path).unwrap().blocks() * 512 >= 1 << 20);
    file.punch(0..1 << 20).unwrap();
    assert!(std::fs::metadata(&path).unwrap().blocks() * 512 < 65_536);
    assert_eq!(file.bytes().unwrap(), 1 << 20);
}

/// Runs in a child with a small file system mounted for it alone: ext4 on a loop device, or in memory where there are none.
#[test]
fn a_full_disk_is_an_error_that_leaves_nothing_behind_and_passes_when_space_is_freed() {
    const PLACE: &str = "LANTERMAN_TEST_FULL_DISK_DIRECTORY";
    const TEST: &str = "disk::tests::system::a_full_disk_is_an_error_that_leaves_nothing_behind_and_passes_when_space_is_freed";
    if let Some(place) = std::env::var_os(PLACE) {
        for (name, disk) in system_disks() {
            let root = Path::new(&place).join("mounted").join(name);
            disk.create_directory(&root).unwrap();
            fill_and_free(&*disk, &root);
            std::fs::remove_dir_all(&root).unwrap();
        }
        std::fs::write(Path::new(&place).join("passed"), b"").unwrap();
        return;
    }
    for mount in [
        "truncate -s 24M \"$P/image\" && mkfs.ext4 -q -m 0 \"$P/image\" && mount -o loop \"$P/image\" \"$P/mounted\"",
        "mount -t tmpfs -o size=20m none \"$P/mounted\"",
    ] {
        let place = tempfile::tempdir().unwrap();
        std::fs::create_dir(place.path().join("mounted")).unwrap();
        let inner = format!("P=\"${PLACE}\"; {mount} || exit 77; exec \"$0\" \"$@\"");
        let shell =
            "unshare -m true 2>/dev/null && O=-m || O=-rm; exec unshare $O sh -c \"$INNER\" \"$0\" \"$@\"";
        let status = child(shell, TEST, PLACE, place.path())
            .env("INNER", inner)
            .status()
            .unwrap();
        if status.success() {
            assert!(place.path().join("passed").exists());
        } else {
            assert_ne!(status.code(), Some(101), "the child failed");
            skip(mount, &io::Error::other("nothing can be mounted"));
        }
    }
}

fn fill_and_free(disk: &dyn Disk, root: &Path) {
    let kept = disk.open(&root.join("kept"), OpenMode::CreateNew).unwrap();
    kept.write_at(0, &pattern(8192, 1), Sync::Data).unwrap();
    disk.sync_directory(root).unwrap();
    let free_bytes = disk.free_bytes(root).unwrap();
    assert!(free_bytes < 64 << 20, "this would fill a real disk");
    for wanted in [free_bytes * 2, free_bytes + (1 << 20)] {
        assert_eq!(
            kept.reserve(0..wanted).unwrap_err().kind(),
            io::ErrorKind::StorageFull
        );
        assert_eq!(kept.bytes().unwrap(), 8192);
        // A few blocks may go on the extents of the file itself.
        assert!(disk.free_bytes(root).unwrap() + 65_536 >= free_bytes);
    }
    // Writes that nobody reserved for: the ring meets short writes on the way into the full disk.
    let path = root.join("filler");
    let filler = disk.open(&path, OpenMode::CreateNew).unwrap();
    let bytes = shared(pattern(64 << 20, 2));
    let mut writer = disk.bulk_writer(4).unwrap();
    writer.submit(&filler, 0, Arc::clone(&bytes), 0..64 << 20, 1);
    let mut completions = Vec::new();
    while writer.in_flight() > 0 {
        writer.reap(true, &mut completions);
    }
    assert_eq!(completions.len(), 1);
    assert_eq!(
        completions.pop().unwrap().result.unwrap_err().kind(),
        io::ErrorKind::StorageFull
    );
    let error = filler.write_at(0, (*bytes).as_ref(), Sync::Data).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert_eq!(contents(&*kept)[..], pattern(8192, 1)[..]);
    drop(filler);
    disk.unlink(&path).unwrap();
    disk.sync_directory(root).unwrap();
    kept.reserve(0..8 << 20).unwrap();
}

#[test]
fn a_required_way_is_used_or_refused_and_the_description_says_which() {
    let directory = tempfile::tempdir().unwrap();
    let options = SystemOptions {
        direct: Choice::Required,
        ..SystemOptions::for_tests()
    };
    let disk = SystemDisk::new(options).unwrap();
    match disk.open(&directory.path().join("file"), OpenMode::CreateNew) {
        Ok(file) => {
            assert!(file.is_direct());
            assert!(disk.describe().direct);
        }
        Err(error) => {
            assert_eq!(error.kind(), io::ErrorKind::Unsupported);
            assert!(!directory.path().join("file").exists());
            skip("direct access", &error);
        }
    }
    let off = SystemOptions {
        direct: Choice::Off,
        ring: Choice::Off,
        ..SystemOptions::for_tests()
    };
    let disk = SystemDisk::new(off).unwrap();
    assert!(!disk.describe().direct);
    assert!(!disk.describe().ring);
    assert!(
        !disk
            .open(&directory.path().join("other"), OpenMode::CreateNew)
            .unwrap()
            .is_direct()
    );
}

/// procfs is at hand everywhere and takes neither direct access nor reservations nor locks of this kind for granted; what
/// matters is that each refusal is an error.
#[test]
fn a_file_system_that_refuses_gives_errors() {
    let disk = system();
    assert!(
        disk.open(Path::new("/proc/lanterman"), OpenMode::CreateNew)
            .is_err()
    );
    assert!(disk.create_directory(Path::new("/proc/lanterman")).is_err());
    assert!(disk.lock(Path::new("/proc/lanterman")).is_err());
    assert!(disk.open_shared(Path::new("/proc/lanterman"), 512).is_err());
}

/// The disk of the system with a plan of calls, and a file on it.
fn planned(directory: &tempfile::TempDir) -> (Arc<CallPlan>, Arc<dyn DiskFile>) {
    let plan = Arc::new(CallPlan::new());
    let disk = SystemDisk::with_calls(SystemOptions::for_tests(), Arc::clone(&plan)).unwrap();
    let file = disk
        .open(&directory.path().join("file"), OpenMode::CreateNew)
        .unwrap();
    (plan, file)
}

#[test]
fn short_and_interrupted_calls_are_continued_until_all_is_done() {
    let directory = tempfile::tempdir().unwrap();
    let (plan, file) = planned(&directory);
    let bytes = pattern(65_536, 4);
    let first = plan.calls().len() as u64;
    plan.fail_at(first, CallFault::AtMost(512));
    plan.fail_at(first + 1, CallFault::Error(libc::EINTR));
    plan.fail_at(first + 2, CallFault::AtMost(5000));
    file.write_at(0, &bytes, Sync::Data).unwrap();
    assert_eq!(plan.fired(), 3);
    assert_eq!(plan.failed_syncs(), 0);
    assert_eq!(contents(&*file), bytes[..]);
    let next = plan.calls().len() as u64;
    plan.fail_at(next, CallFault::Error(libc::EINTR));
    plan.fail_at(next + 1, CallFault::AtMost(7));
    let mut back = [0; 100];
    assert_eq!(file.read_at(0, &mut back).unwrap(), 7);
    assert_eq!(back[..7], bytes[..7]);
    let next = plan.calls().len() as u64;
    plan.fail_at(next, CallFault::Error(libc::EIO));
    assert!(file.sync_data().is_err());
    assert_eq!((plan.calls().last(), plan.failed_syncs()), (Some(&Call::Sync), 1));
    plan.fail_from(next, CallFault::Error(libc::EIO));
    assert!(file.reserve(0..4096).is_err());
    plan.clear_faults();
    file.reserve(0..4096).unwrap();
}

/// What recovery reads after a failed sync must not come out of the page cache, also where writing through it was chosen.
#[test]
fn a_direct_read_shows_what_was_written_through_the_cache() {
    let directory = tempfile::tempdir().unwrap();
    let options = SystemOptions {
        direct: Choice::Off,
        ..SystemOptions::for_tests()
    };
    let disk = SystemDisk::new(options).unwrap();
    let file = disk
        .open(&directory.path().join("file"), OpenMode::CreateNew)
        .unwrap();
    let bytes = pattern(65_536, 5);
    file.write_at(0, &bytes, Sync::No).unwrap();
    assert!(!file.is_direct());
    let mut back = AlignedBuffer::new(65_536).unwrap();
    assert_eq!(read_full_direct_at(&*file, 0, &mut back).unwrap(), 65_536);
    assert_eq!(back[..], bytes[..]);
    file.sync_data().unwrap();
    file.advise(0..65_536, Advice::DontNeed).unwrap();
    assert_eq!(contents(&*file), bytes[..]);
}
