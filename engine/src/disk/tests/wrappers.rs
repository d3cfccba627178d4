//! The faulty and the recording disk do what their plans and records say.

use super::*;

const EIO: i32 = libc::EIO;

fn faulty() -> (Arc<FaultyDisk>, Arc<MemoryDisk>, Arc<dyn DiskFile>) {
    let memory = Arc::new(MemoryDisk::new());
    let disk = Arc::new(FaultyDisk::new(Arc::clone(&memory) as Arc<dyn Disk>));
    let file = disk.open(Path::new("/file"), OpenMode::CreateNew).unwrap();
    memory.sync_directory(Path::new("/")).unwrap();
    (disk, memory, file)
}

fn after_power_cut(memory: &MemoryDisk) -> Vec<u8> {
    let image = memory.crash_image(|_, _| Fate::Lost).unwrap();
    contents(&*image.open(Path::new("/file"), OpenMode::Read).unwrap())
}

#[test]
fn the_planned_operation_fails_and_no_other() {
    let (disk, _, file) = faulty();
    disk.fail_at(disk.operations() + 1, Fault::Error(libc::ENOSPC));
    file.write_at(0, b"first", Sync::No).unwrap();
    assert_eq!(
        file.write_at(0, b"other", Sync::No).unwrap_err().kind(),
        io::ErrorKind::StorageFull
    );
    assert_eq!(contents(&*file), b"first");
    assert_eq!(disk.fired(), 1);
    disk.fail_from(disk.operations(), Fault::Error(EIO));
    assert!(file.sync_data().is_err());
    assert!(disk.list(Path::new("/")).is_err());
    disk.clear_faults();
    file.sync_data().unwrap();
    disk.fail_kind(OperationKind::Reserve, 1, Fault::Error(EIO));
    file.reserve(0..4096).unwrap();
    assert!(file.reserve(0..8192).is_err());
    file.reserve(0..8192).unwrap();
    assert_eq!(
        disk.operation_kinds()[..2],
        [OperationKind::Open, OperationKind::Write]
    );
}

#[test]
fn a_torn_write_leaves_its_beginning_and_a_short_read_gives_less() {
    let (disk, _, file) = faulty();
    disk.fail_kind(OperationKind::Write, 0, Fault::Torn { bytes: 3, error: EIO });
    assert_eq!(
        file.write_at(0, b"abcdef", Sync::No).unwrap_err().raw_os_error(),
        Some(EIO)
    );
    assert_eq!(contents(&*file), b"abc");
    disk.fail_kind(OperationKind::Read, 0, Fault::ShortRead { bytes: 2 });
    assert_eq!(file.read_at(0, &mut [0; 3]).unwrap(), 2);
    disk.fail_kind(OperationKind::Read, 0, Fault::ShortRead { bytes: 0 });
    assert_eq!(contents(&*file), b"abc");
}

#[test]
fn a_sync_that_fails_once_loses_the_bytes_although_the_next_succeeds() {
    let (disk, memory, file) = faulty();
    file.write_at(0, b"kept", Sync::Data).unwrap();
    file.write_at(4, b"lost", Sync::No).unwrap();
    disk.fail_kind(OperationKind::SyncData, 0, Fault::SyncLost { error: EIO });
    assert!(file.sync_data().is_err());
    file.sync_data().unwrap();
    assert_eq!(contents(&*file), b"keptlost");
    assert_eq!(after_power_cut(&memory), b"kept");
    disk.fail_kind(OperationKind::WriteSync, 0, Fault::SyncLost { error: EIO });
    assert!(file.write_at(4, b"gone", Sync::Data).is_err());
    file.sync_data().unwrap();
    assert_eq!(after_power_cut(&memory), b"kept");
}

#[test]
fn a_sync_that_lies_makes_nothing_durable() {
    let (disk, memory, file) = faulty();
    disk.fail_kind(OperationKind::WriteSync, 0, Fault::SyncLies);
    file.write_at(0, b"lie", Sync::Data).unwrap();
    assert_eq!(after_power_cut(&memory), b"");
    disk.fail_kind(OperationKind::SyncData, 0, Fault::SyncLies);
    file.sync_data().unwrap();
    assert_eq!(after_power_cut(&memory), b"");
    file.sync_data().unwrap();
    assert_eq!(after_power_cut(&memory), b"lie");
}

#[test]
fn faults_strike_bulk_writes_too() {
    let (disk, _, file) = faulty();
    disk.fail_kind(OperationKind::Write, 1, Fault::Error(EIO));
    let mut writer = disk.bulk_writer(4).unwrap();
    for token in 0..3 {
        writer.submit(&file, token * 4096, shared(pattern(4096, 1)), 0..4096, token);
    }
    let mut completions = Vec::new();
    writer.reap(true, &mut completions);
    let failed: Vec<bool> = completions
        .iter()
        .map(|completion| completion.result.is_err())
        .collect();
    assert_eq!(failed, [false, true, false]);
}

#[test]
fn a_recording_played_again_gives_the_same_disk_at_every_step() {
    let recorded = Arc::new(MemoryDisk::new());
    let disk = RecordingDisk::new(Arc::clone(&recorded) as Arc<dyn Disk>);
    let root = Path::new("/store");
    disk.create_directory(root).unwrap();
    let file = disk.open(&root.join("a"), OpenMode::CreateNew).unwrap();
    file.reserve(0..16_384).unwrap();
    file.write_at(0, &pattern(8192, 1), Sync::No).unwrap();
    file.sync_data().unwrap();
    disk.sync_directory(root).unwrap();
    disk.rename(&root.join("a"), &root.join("b")).unwrap();
    let again = disk.open(&root.join("b"), OpenMode::ReadWrite).unwrap();
    again.write_at(4096, b"durable", Sync::Data).unwrap();
    again.punch(0..4096).unwrap();
    disk.lock(&root.join("lock")).unwrap();
    disk.unlink(&root.join("lock")).unwrap();
    let operations = disk.operations();
    assert_eq!(operations.len(), disk.operation_count());

    let mut replay = Replay::new(MemoryDisk::new());
    for operation in &operations {
        replay.begin(operation).unwrap();
        replay.apply(operation).unwrap();
    }
    let read = |disk: &MemoryDisk| contents(&*disk.open(&root.join("b"), OpenMode::Read).unwrap());
    assert_eq!(read(replay.disk()), read(&recorded));
    // The new name was not synced, so a power cut brings the old one back, with what is durable.
    for disk in [replay.disk(), &recorded] {
        let image = disk.crash_image(|_, _| Fate::Kept).unwrap();
        assert_eq!(read(&image), read(&recorded));
        assert_eq!(
            disk.crash_image(|_, _| Fate::Lost)
                .unwrap()
                .list(root)
                .unwrap_err()
                .kind(),
            io::ErrorKind::NotFound
        );
    }
}

#[test]
fn a_crash_within_a_durable_write_finds_it_not_yet_durable() {
    let mut replay = Replay::new(MemoryDisk::new());
    let disk = RecordingDisk::new(Arc::new(MemoryDisk::new()));
    let file = disk.open(Path::new("/file"), OpenMode::CreateNew).unwrap();
    file.write_at(0, &pattern(8192, 1), Sync::Data).unwrap();
    let operations = disk.operations();
    replay.apply(&operations[0]).unwrap();
    replay.disk().sync_directory(Path::new("/")).unwrap();
    assert!(replay.begin(&operations[1]).unwrap());
    let choices = crash_choices(replay.disk().unsynced().len(), 64, 1);
    assert_eq!(choices.len(), 4);
    let mut lengths: Vec<usize> = choices
        .iter()
        .map(|fates| {
            let image = replay.disk().crash_image(|number, _| fates[number]).unwrap();
            contents(&*image.open(Path::new("/file"), OpenMode::Read).unwrap()).len()
        })
        .collect();
    lengths.sort_unstable();
    assert_eq!(lengths, [0, 4096, 8192, 8192]);
    replay.apply(&operations[1]).unwrap();
    assert!(replay.disk().unsynced().is_empty());
}

#[test]
fn what_a_failed_sync_lost_reads_back_until_the_cache_forgets_it() {
    let (disk, memory, file) = faulty();
    file.write_at(0, &pattern(8192, 1), Sync::No).unwrap();
    file.sync_data().unwrap();
    file.write_at(0, &pattern(4096, 2), Sync::No).unwrap();
    disk.fail_kind(OperationKind::SyncData, 0, Fault::SyncLost { error: EIO });
    assert!(file.sync_data().is_err());
    assert_eq!(disk.failed_syncs(), 1);
    file.sync_data().unwrap();
    assert_eq!(contents(&*file)[..4096], pattern(4096, 2)[..]);
    assert_eq!(after_power_cut(&memory), pattern(8192, 1)[..]);
    // What waits to be written is not forgotten.
    file.write_at(4096, &pattern(4096, 3), Sync::No).unwrap();
    file.advise(0..8192, Advice::DontNeed).unwrap();
    assert_eq!(contents(&*file)[..4096], pattern(8192, 1)[..4096]);
    assert_eq!(contents(&*file)[4096..], pattern(4096, 3)[..]);
}

#[test]
fn a_full_disk_is_no_failed_sync_of_a_write_but_one_of_a_sync() {
    let (disk, _, file) = faulty();
    let full = Fault::Error(libc::ENOSPC);
    disk.fail_kind(OperationKind::WriteSync, 0, full);
    assert!(file.write_at(0, b"x", Sync::Data).is_err());
    assert_eq!((disk.fired(), disk.failed_syncs()), (1, 0));
    disk.fail_kind(OperationKind::SyncData, 0, full);
    assert!(file.sync_data().is_err());
    assert_eq!((disk.fired(), disk.failed_syncs()), (2, 1));
}
