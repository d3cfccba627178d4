//! What the states found, each as small as it can be said.

use std::path::Path;
use std::sync::Arc;

use lanterman::disk::{Disk, Fate, MemoryDisk, OpenMode, Operation, RecordingDisk, Unit};
use lanterman::{Durability, Store};

use crate::check::{PATH, open};
use crate::trace::walk;
use crate::workload::small;

fn open_on(disk: &Arc<MemoryDisk>) -> Store {
    let disk: Arc<dyn Disk> = Arc::<MemoryDisk>::clone(disk);
    open(&small(), disk).unwrap()
}

fn commit(store: &Store, value: &[u8], durability: Durability) {
    let mut writer = store.writer("log").unwrap();
    writer.append(value).unwrap();
    writer.commit(durability).unwrap();
}

fn messages(store: &Store) -> u64 {
    store.log("log").map_or(0, |log| log.end().get())
}

/// What is found after a power cut that takes everything it may.
fn power_cut(disk: &MemoryDisk) -> Arc<MemoryDisk> {
    Arc::new(disk.crash_image(|_, _| Fate::Lost).unwrap())
}

/// Opens what a kill leaves at a moment, commits, and cuts the power.
fn commit_after_a_kill(killed: MemoryDisk) {
    let killed = Arc::new(killed);
    let store = open_on(&killed);
    let before = messages(&store);
    commit(&store, b"kept", Durability::Disk);
    let cut = power_cut(&killed);
    assert_eq!(messages(&open_on(&cut)), before + 1);
    drop(store);
}

#[test]
fn a_store_in_a_directory_that_nobody_synced_is_kept() {
    let disk = MemoryDisk::new();
    disk.create_directory(Path::new(PATH)).unwrap();
    commit_after_a_kill(disk);
}

#[test]
fn names_that_a_killed_process_did_not_sync_are_synced_before_they_are_relied_on() {
    let recording = Arc::new(RecordingDisk::new(Arc::new(MemoryDisk::new())));
    let disk: Arc<dyn Disk> = Arc::<RecordingDisk>::clone(&recording);
    let store = open(&small(), disk).unwrap();
    for _ in 0..5 {
        commit(&store, &[7; 30_000], Durability::Disk);
    }
    let operations = recording.operations();
    let mut renamings = 0;
    walk(MemoryDisk::new(), &operations, |moment, disk| {
        let before = moment.changes.checked_sub(1).map(|before| &operations[before]);
        if let Some(Operation::Rename { .. }) = before {
            renamings += 1;
            commit_after_a_kill(disk.kill_image().unwrap());
        }
        true
    });
    // The first segment, the root, and a roll of the journal.
    assert!(renamings >= 3, "only {renamings}");
    drop(store);
}

#[test]
fn what_a_killed_process_had_only_written_is_durable_once_the_store_has_opened() {
    let disk = Arc::new(MemoryDisk::new());
    let store = open_on(&disk);
    commit(&store, b"written", Durability::Process);
    let killed = Arc::new(disk.kill_image().unwrap());
    let again = open_on(&killed);
    assert_eq!(messages(&again), 1);
    assert_eq!(again.logs()[0].durable_end.get(), 1);
    assert_eq!(messages(&open_on(&power_cut(&killed))), 1);
    drop((store, again));
}

#[test]
fn a_version_that_was_found_torn_never_becomes_whole() {
    let disk = Arc::new(MemoryDisk::new());
    let store = open_on(&disk);
    commit(&store, b"first", Durability::Disk);
    // Three pages, of which the last is the same in both lives.
    let value = |life: u8| [vec![life; 100], vec![7; 9_900]].concat();
    let keep = |disk: &MemoryDisk, kept: [Fate; 3]| {
        let [.., Unit::Write { .. }, Unit::Write { .. }, Unit::Write { .. }] = disk.unsynced().as_slice()
        else {
            panic!("the block is not what was written last");
        };
        let first = disk.unsynced().len() - 3;
        let fate = |unit: usize| unit.checked_sub(first).map_or(Fate::Lost, |page| kept[page]);
        Arc::new(disk.crash_image(|unit, _| fate(unit)).unwrap())
    };
    commit(&store, &value(1), Durability::Process);
    let torn = keep(&disk, [Fate::Kept, Fate::Kept, Fate::Lost]);
    let again = open_on(&torn);
    assert_eq!(messages(&again), 1);
    commit(&again, &value(2), Durability::Process);
    let torn = keep(&torn, [Fate::Lost, Fate::Lost, Fate::Kept]);
    assert_eq!(messages(&open_on(&torn)), 1);
    drop((store, again));
}

#[test]
fn spare_files_that_crashes_left_are_removed_when_the_store_is_opened() {
    let disk = Arc::new(MemoryDisk::new());
    drop(open_on(&disk));
    let segments = Path::new(PATH).join("segments");
    for number in 0x10..0x1a {
        let name = segments.join(format!("{number:016x}.free"));
        disk.open(&name, OpenMode::CreateNew).unwrap();
    }
    drop(open_on(&disk));
    let names = disk.list(&segments).unwrap();
    let spares = names.iter().filter(|name| name.ends_with(".free")).count();
    assert!(spares <= 3, "{names:?}");
}
