//! Promise: damage of the catalog, of a tree's node, or of the newest checkpoint costs no more than it must. A store that is
//! opened for reading gives every log that can be told, and names what hides the others; a node hides its own offsets; a
//! newest checkpoint that is damaged is replaced by the one before it where the journal leads to the same versions. Shown by
//! damaging these blocks, found by their kind.
#![allow(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests fail by panicking, and their numbers are small"
)]

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::{check_values, memory, small, value};
use lanterman::disk::{Disk, MemoryDisk, OpenMode, Sync, read_full_at};
use lanterman::{Durability, Error, Store};

/// Kinds of blocks, as their headers say.
const NODE: u8 = 3;
const CHECKPOINT: u8 = 4;
const PAGE: u8 = 6;

fn append(store: &Store, log: &str, numbers: std::ops::Range<u64>) {
    let mut writer = store.writer(log).unwrap();
    for number in numbers {
        writer.append(&value(number)).unwrap();
    }
    writer.commit(Durability::Disk).unwrap();
}

/// The blocks of a kind, oldest first.
fn blocks(disk: &MemoryDisk, kind: u8) -> Vec<(PathBuf, u64)> {
    let directory = Path::new("/store/segments");
    let mut names = disk.list(directory).unwrap();
    names.sort();
    let mut found = Vec::new();
    for name in names.iter().filter(|name| name.ends_with(".slabs")) {
        let path = directory.join(name);
        let file = disk.open(&path, OpenMode::Read).unwrap();
        let mut bytes = vec![0; file.bytes().unwrap() as usize];
        read_full_at(&*file, 0, &mut bytes).unwrap();
        let is_block = |page: &[u8]| page[..4] == *b"LTNB" && page[4] == kind;
        let pages = bytes.chunks(4096).enumerate().filter(|(_, page)| is_block(page));
        found.extend(pages.map(|(page, _)| (path.clone(), page as u64 * 4096)));
    }
    found
}

fn flip(disk: &MemoryDisk, (path, position): &(PathBuf, u64)) {
    let file = disk.open(path, OpenMode::ReadWrite).unwrap();
    let mut byte = [0];
    file.read_at(position + 70, &mut byte).unwrap();
    file.write_at(position + 70, &[byte[0] ^ 1], Sync::Data).unwrap();
}

fn read_only(disk: &Arc<MemoryDisk>) -> Result<Store, Error> {
    small()
        .read_only(true)
        .disk(disk.clone())
        .open_copying(common::PATH)
}

fn write(disk: &Arc<MemoryDisk>) -> Result<Store, Error> {
    small().disk(disk.clone()).open_copying(common::PATH)
}

#[test]
fn a_damaged_page_of_the_catalog_hides_its_own_logs_and_no_others() {
    let disk = memory();
    let store = write(&disk).unwrap();
    // A page has 128 logs.
    for number in 0..140 {
        append(&store, &format!("log {number:03}"), 0..2);
    }
    store.checkpoint().unwrap();
    append(&store, "log 001", 2..4);
    append(&store, "log 139", 2..4);
    append(&store, "new", 0..3);
    let disk = disk
        .crash_image(|_, _| lanterman::disk::Fate::Lost)
        .map(Arc::new)
        .unwrap();
    drop(store);
    // The newest of those that say that they are page 0.
    let mut pages = blocks(&disk, PAGE);
    pages.retain(|(path, position)| {
        let mut number = [1; 8];
        let file = disk.open(path, OpenMode::Read).unwrap();
        file.read_at(position + 64, &mut number).unwrap();
        number == [0; 8]
    });
    let (path, position) = pages.pop().unwrap();
    flip(&disk, &(path.clone(), position));

    let store = read_only(&disk).unwrap();
    let damage = store.damage();
    assert!(damage.len() == 1 && damage[0].path == path && damage[0].position.get() == position);
    // A name that is not known may be on the page: nobody is told that there is no such log.
    for name in ["log 001", "no log at all"] {
        match store.log(name) {
            Err(Error::Damaged(damage)) => assert!(damage.path == path && damage.position.get() == position),
            other => panic!("{name}: {other:?}"),
        }
        assert!(matches!(store.snapshot_all().log(name), Err(Error::Damaged(_))));
    }
    // Those of the other page are read, with what the journal has of them, and what was created since as well.
    assert_eq!(check_values(&store, "log 139", 0), 4);
    assert_eq!(check_values(&store, "log 130", 0), 2);
    assert_eq!(check_values(&store, "new", 0), 3);
    drop(store);

    // A writer's next checkpoint would leave the page out for good, so there is none.
    match write(&disk) {
        Err(Error::Damaged(damage)) => assert!(damage.path == path && damage.position.get() == position),
        other => panic!("{other:?}"),
    }
    flip(&disk, &(path, position));
    let store = write(&disk).unwrap();
    assert!(store.damage().is_empty());
    assert_eq!(check_values(&store, "log 001", 0), 4);
}

#[test]
fn a_damaged_node_of_a_tree_names_the_offsets_that_it_hides_and_the_rest_is_read() {
    let disk = memory();
    let store = write(&disk).unwrap();
    append(&store, "events", 0..800);
    append(&store, "other", 0..10);
    while store.step().unwrap() {}
    store.close().unwrap();
    // The newest of those that show what the log has in slabs: the names of logs have a tree too.
    let mut nodes = blocks(&disk, NODE);
    nodes.retain(|(path, position)| {
        let mut slabs = [0; 4];
        let file = disk.open(path, OpenMode::Read).unwrap();
        file.read_at(position + 68, &mut slabs).unwrap();
        u32::from_le_bytes(slabs) > 1
    });
    let node = nodes.pop().unwrap();
    flip(&disk, &node);
    for store in [read_only(&disk).unwrap(), write(&disk).unwrap()] {
        let log = store.log("events").unwrap();
        assert_eq!(log.end().get(), 800);
        let mut cursor = log.cursor(0u64).unwrap();
        let Err(Error::Damaged(damage)) = cursor.next().map(|_| ()) else {
            panic!("the node is not damaged")
        };
        assert!(damage.path == node.0 && damage.position.get() == node.1);
        assert_eq!(damage.log.as_deref(), Some("events"));
        let lost = damage.offsets.clone().unwrap();
        assert!(lost.start == 0 && lost.end > 100 && lost.end < 800, "{lost:?}");
        cursor.seek(lost.end).unwrap();
        for number in lost.end..800 {
            assert!(
                cursor.next().unwrap().unwrap().value() == value(number),
                "at {number}"
            );
        }
        assert_eq!(check_values(&store, "other", 0), 10);
    }
}

/// The root file as it is when a crash comes between the writing of its two slots: one names the checkpoint before.
fn between_two_slots() -> (Arc<MemoryDisk>, (PathBuf, u64)) {
    let disk = memory();
    let store = write(&disk).unwrap();
    append(&store, "events", 0..50);
    store.checkpoint().unwrap();
    let root = disk.open(Path::new("/store/root"), OpenMode::ReadWrite).unwrap();
    let slots = |root: &dyn lanterman::disk::DiskFile| {
        let mut slots = [[0u8; 4096]; 2];
        for (slot, bytes) in slots.iter_mut().enumerate() {
            read_full_at(root, slot as u64 * 4096, bytes).unwrap();
        }
        slots
    };
    let sequence = |slot: &[u8; 4096]| u64::from_le_bytes(slot[32..40].try_into().unwrap());
    let before = slots(&*root);
    append(&store, "events", 50..70);
    store.checkpoint().unwrap();
    append(&store, "events", 70..75);
    let after = slots(&*root);
    let second = usize::from(sequence(&after[1]) > sequence(&after[0]));
    let disk = disk
        .crash_image(|_, _| lanterman::disk::Fate::Lost)
        .map(Arc::new)
        .unwrap();
    let root = disk.open(Path::new("/store/root"), OpenMode::ReadWrite).unwrap();
    root.write_at(second as u64 * 4096, &before[second], Sync::Data)
        .unwrap();
    let newest = blocks(&disk, CHECKPOINT).pop().unwrap();
    (disk, newest)
}

#[test]
fn a_damaged_newest_checkpoint_is_replaced_by_the_one_before_where_the_journal_leads_to_the_same() {
    let (disk, newest) = between_two_slots();
    assert_eq!(check_values(&read_only(&disk).unwrap(), "events", 0), 75);
    flip(&disk, &newest);
    assert_eq!(check_values(&read_only(&disk).unwrap(), "events", 0), 75);
    // A writer goes on from it too, and overwrites the slot that is of no use first.
    let store = write(&disk).unwrap();
    assert_eq!(check_values(&store, "events", 0), 75);
    append(&store, "events", 75..80);
    store.close().unwrap();
    assert_eq!(check_values(&write(&disk).unwrap(), "events", 0), 80);
}

#[test]
fn an_older_checkpoint_whose_journal_does_not_reach_the_newer_one_does_not_take_its_place() {
    let (disk, newest) = between_two_slots();
    flip(&disk, &newest);
    // The journal behind the older checkpoint is gone: the newest version that it leads to is before the damaged one.
    let directory = Path::new("/store/segments");
    for name in disk.list(directory).unwrap() {
        if name.ends_with(".journal") {
            let file = disk.open(&directory.join(name), OpenMode::ReadWrite).unwrap();
            let length = file.bytes().unwrap();
            file.write_at(4096, &vec![0; length as usize - 4096], Sync::Data)
                .unwrap();
        }
    }
    for outcome in [read_only(&disk), write(&disk)] {
        match outcome {
            Err(Error::Damaged(damage)) => {
                assert!(
                    damage.path == newest.0 && damage.position.get() == newest.1,
                    "{damage}"
                )
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_journal_segment_whose_header_is_damaged_is_no_end_of_the_journal() {
    let disk = memory();
    let store = small()
        .journal_bytes_max(1 << 30)
        .disk(disk.clone())
        .open_copying(common::PATH)
        .unwrap();
    append(&store, "events", 0..400);
    for number in 0..60 {
        append(&store, "events", 400 + number..401 + number);
    }
    let disk = disk
        .crash_image(|_, _| lanterman::disk::Fate::Lost)
        .map(Arc::new)
        .unwrap();
    let directory = Path::new("/store/segments");
    let mut journals = disk.list(directory).unwrap();
    journals.retain(|name| name.ends_with(".journal"));
    journals.sort();
    assert!(journals.len() > 1, "the journal did not roll: {journals:?}");
    let newest = directory.join(journals.pop().unwrap());
    flip(&disk, &(newest.clone(), 0));
    for outcome in [read_only(&disk), write(&disk)] {
        match outcome {
            Err(Error::Damaged(damage)) => assert!(damage.path == newest, "{damage}"),
            Ok(store) => panic!("a log of {} messages", store.log("events").unwrap().end()),
            other => panic!("{other:?}"),
        }
    }
}
