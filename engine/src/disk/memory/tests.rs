use super::*;
use crate::disk::crash_choices;

const ROOT: &str = "/";

fn contents(disk: &MemoryDisk, path: &str) -> Option<Vec<u8>> {
    let file = disk.open(Path::new(path), OpenMode::Read).ok()?;
    let mut bytes = vec![0; usize::try_from(file.bytes().unwrap()).unwrap()];
    assert_eq!(file.read_at(0, &mut bytes).unwrap(), bytes.len());
    Some(bytes)
}

fn create(disk: &MemoryDisk, path: &str) -> Arc<dyn DiskFile> {
    disk.open(Path::new(path), OpenMode::CreateNew).unwrap()
}

fn power_cut(disk: &MemoryDisk, fate: Fate) -> MemoryDisk {
    disk.crash_image(|_, _| fate).unwrap()
}

#[test]
fn a_power_cut_takes_what_was_not_synced_and_leaves_what_was() {
    let disk = MemoryDisk::new();
    let file = create(&disk, "/file");
    file.write_at(0, &[1; 8192], Sync::No).unwrap();
    assert_eq!(contents(&power_cut(&disk, Fate::Lost), "/file"), None);
    assert_eq!(
        contents(&power_cut(&disk, Fate::Kept), "/file").unwrap(),
        [1; 8192]
    );
    disk.sync_directory(Path::new(ROOT)).unwrap();
    assert_eq!(
        contents(&power_cut(&disk, Fate::Lost), "/file").unwrap(),
        Vec::<u8>::new()
    );
    file.sync_data().unwrap();
    file.write_at(0, &[2; 4096], Sync::No).unwrap();
    file.write_at(100, &[3; 100], Sync::No).unwrap();
    assert_eq!(
        contents(&power_cut(&disk, Fate::Lost), "/file").unwrap(),
        [1; 8192]
    );
    let torn = disk
        .crash_image(|number, _| {
            if number == 0 {
                Fate::Torn { bytes: 512 }
            } else {
                Fate::Lost
            }
        })
        .unwrap();
    let torn = contents(&torn, "/file").unwrap();
    assert_eq!((&torn[..512], &torn[512..]), (&[2; 512][..], &[1; 7680][..]));
    assert_eq!(contents(&disk, "/file").unwrap()[..100], [2; 100]);
}

#[test]
fn a_synced_file_without_a_synced_name_is_gone() {
    let disk = MemoryDisk::new();
    disk.create_directory(Path::new("/store")).unwrap();
    let file = create(&disk, "/store/file");
    file.write_at(0, b"bytes", Sync::Data).unwrap();
    disk.sync_directory(Path::new("/store")).unwrap();
    // The directory's own name was never synced.
    assert_eq!(contents(&power_cut(&disk, Fate::Lost), "/store/file"), None);
    disk.sync_directory(Path::new(ROOT)).unwrap();
    assert_eq!(
        contents(&power_cut(&disk, Fate::Lost), "/store/file").unwrap(),
        b"bytes"
    );
}

#[test]
fn a_durable_write_saves_its_own_pages_and_older_writes_do_not_come_back_over_it() {
    let disk = MemoryDisk::new();
    let file = create(&disk, "/file");
    disk.sync_directory(Path::new(ROOT)).unwrap();
    file.write_at(0, &[1; 12_288], Sync::No).unwrap();
    file.write_at(4096, &[2; 4096], Sync::Data).unwrap();
    let lost = contents(&power_cut(&disk, Fate::Lost), "/file").unwrap();
    assert_eq!(lost, [&[0; 4096][..], &[2; 4096]].concat());
    let kept = contents(&power_cut(&disk, Fate::Kept), "/file").unwrap();
    assert_eq!(kept, contents(&disk, "/file").unwrap());
    file.punch(0..4096).unwrap();
    file.write_at(100, &[3; 10], Sync::Data).unwrap();
    assert_eq!(
        contents(&power_cut(&disk, Fate::Kept), "/file"),
        contents(&disk, "/file")
    );
    assert_eq!(
        contents(&power_cut(&disk, Fate::Lost), "/file"),
        contents(&disk, "/file")
    );
}

#[test]
fn a_rename_that_is_lost_leaves_the_old_name_and_its_bytes() {
    let disk = MemoryDisk::new();
    create(&disk, "/old").write_at(0, b"bytes", Sync::Data).unwrap();
    disk.sync_directory(Path::new(ROOT)).unwrap();
    disk.rename(Path::new("/old"), Path::new("/new")).unwrap();
    let lost = power_cut(&disk, Fate::Lost);
    assert_eq!(
        (contents(&lost, "/old").unwrap(), contents(&lost, "/new")),
        (b"bytes".to_vec(), None)
    );
    let kept = power_cut(&disk, Fate::Kept);
    assert_eq!(
        (contents(&kept, "/new").unwrap(), contents(&kept, "/old")),
        (b"bytes".to_vec(), None)
    );
}

#[test]
fn an_unlink_that_is_lost_brings_the_file_back_until_the_directory_is_synced() {
    let disk = MemoryDisk::new();
    create(&disk, "/file").write_at(0, b"bytes", Sync::Data).unwrap();
    disk.sync_directory(Path::new(ROOT)).unwrap();
    disk.unlink(Path::new("/file")).unwrap();
    assert_eq!(disk.used_bytes(), 0);
    assert_eq!(
        contents(&power_cut(&disk, Fate::Lost), "/file").unwrap(),
        b"bytes"
    );
    create(&disk, "/file").write_at(0, b"newer", Sync::Data).unwrap();
    assert_eq!(
        contents(&power_cut(&disk, Fate::Lost), "/file").unwrap(),
        b"bytes"
    );
    disk.sync_directory(Path::new(ROOT)).unwrap();
    assert_eq!(
        contents(&power_cut(&disk, Fate::Lost), "/file").unwrap(),
        b"newer"
    );
    assert_eq!(disk.state.lock().medium.images.len(), 1);
}

#[test]
fn every_subset_of_unsynced_units_makes_a_disk_that_works() {
    let disk = MemoryDisk::new();
    disk.create_directory(Path::new("/store")).unwrap();
    let file = create(&disk, "/store/a");
    file.reserve(0..12_288).unwrap();
    file.write_at(4096, &[5; 4096], Sync::No).unwrap();
    disk.rename(Path::new("/store/a"), Path::new("/store/b")).unwrap();
    file.punch(0..8192).unwrap();
    disk.unlink(Path::new("/store/b")).unwrap();
    create(&disk, "/store/a").write_at(0, b"again", Sync::No).unwrap();
    let units = disk.unsynced().len();
    assert_eq!(units, 9);
    let mut seen = std::collections::HashSet::new();
    for fates in crash_choices(units, 64, 1) {
        let image = disk.crash_image(|number, _| fates[number]).unwrap();
        let state = [contents(&image, "/store/a"), contents(&image, "/store/b")];
        assert_eq!(image.unsynced(), []);
        if image.exists(Path::new("/store")).unwrap() && state[0].is_none() {
            create(&image, "/store/a")
                .write_at(0, b"usable", Sync::Data)
                .unwrap();
        }
        seen.insert(state);
    }
    assert!(seen.len() > 10, "only {} different outcomes", seen.len());
}

#[test]
fn a_killed_process_loses_its_locks_and_nothing_else_until_the_power_fails() {
    let disk = MemoryDisk::new();
    let file = create(&disk, "/file");
    disk.sync_directory(Path::new(ROOT)).unwrap();
    file.write_at(5000, b"written", Sync::No).unwrap();
    let lock = disk.lock(Path::new("/lock")).unwrap();
    let table = disk.open_shared(Path::new("/readers"), 8).unwrap();
    table.store(1, 9);
    let slot = table.try_lock_slot(1).unwrap();
    let after = disk.kill_image().unwrap();
    assert_eq!(contents(&after, "/file"), contents(&disk, "/file"));
    assert_eq!(after.used_bytes(), disk.used_bytes());
    assert!(after.lock(Path::new("/lock")).unwrap().is_some());
    let seen = after.open_shared(Path::new("/readers"), 8).unwrap();
    assert_eq!(seen.load(1), Some(9));
    assert!(!seen.slot_is_locked(1).unwrap());
    assert_eq!(
        contents(&power_cut(&after, Fate::Lost), "/file").unwrap(),
        Vec::<u8>::new()
    );
    after
        .open(Path::new("/file"), OpenMode::ReadWrite)
        .unwrap()
        .write_at(0, b"apart", Sync::No)
        .unwrap();
    assert_ne!(contents(&after, "/file"), contents(&disk, "/file"));
    drop((lock, slot));
}

#[test]
fn a_full_disk_refuses_whole_reservations_and_has_room_again_after_freeing() {
    let disk = MemoryDisk::new();
    disk.set_space(Some(64 * 1024));
    let file = create(&disk, "/file");
    file.reserve(0..48 * 1024).unwrap();
    let other = create(&disk, "/other");
    let error = other.reserve(0..32 * 1024).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert_eq!((other.bytes().unwrap(), disk.used_bytes()), (0, 48 * 1024));
    assert_eq!(disk.free_bytes(Path::new(ROOT)).unwrap(), 16 * 1024);
    // Reserved blocks take writes on a full disk; new ones do not.
    disk.set_space(Some(48 * 1024));
    file.write_at(0, &[1; 48 * 1024], Sync::Data).unwrap();
    assert_eq!(
        other.write_at(0, b"x", Sync::No).unwrap_err().kind(),
        io::ErrorKind::StorageFull
    );
    file.punch(0..8192).unwrap();
    other.reserve(0..8192).unwrap();
    disk.unlink(Path::new("/file")).unwrap();
    assert!(other.reserve(0..12_288).is_err(), "an open file keeps its space");
    drop(file);
    other.reserve(0..48 * 1024).unwrap();
    disk.set_space(None);
    other.reserve(0..1 << 20).unwrap();
}

#[test]
fn the_medium_keeps_no_page_that_was_never_written() {
    let disk = MemoryDisk::new();
    let file = create(&disk, "/file");
    file.reserve(0..64 << 20).unwrap();
    file.write_at(32 << 20, &[1; 4096], Sync::Data).unwrap();
    file.sync_data().unwrap();
    let state = disk.state.lock();
    let image = state.image(0).unwrap();
    assert_eq!((image.pages.len(), image.bytes), (1, 64 << 20));
}
