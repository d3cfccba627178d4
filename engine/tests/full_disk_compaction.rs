//! Promise: a keyed log that has filled the disk is compacted by the store itself, out of the reserve, again and again, in a
//! store that was open and in one that is opened on the full disk; keys are found and scanned all the while, collecting gives
//! the space back, appends go on without reopening, and nothing acknowledged is lost. Where the reserve is too small, compacting
//! says so and changes nothing that is shown, and it works when something was deleted.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests fail by panicking, and their numbers are small"
)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{PATH, small, value};
use lanterman::disk::{Disk, Fate, MemoryDisk};
use lanterman::{
    CompactionReceipt, Durability, Error, ErrorKind, Keyed, NewMessage, Retention, Snapshot, Store, Writer,
};

const LOG: &str = "table";
const SPACE: u64 = 40 << 20;
/// So many keys that their newest messages fit into the reserve.
const FEW: u64 = 1500;

/// A disk with little space and a keyed log in it.
fn narrow() -> (Arc<MemoryDisk>, Store) {
    let disk = MemoryDisk::new();
    disk.set_space(Some(SPACE));
    let disk = Arc::new(disk);
    let store = open(&disk);
    store.set_keyed(LOG, Some(&Keyed::new())).unwrap();
    (disk, store)
}

fn open(disk: &Arc<MemoryDisk>) -> Store {
    let disk: Arc<dyn Disk> = Arc::<MemoryDisk>::clone(disk);
    let options = small().collect(false).compact(false);
    options.disk(disk).open_copying(PATH).unwrap()
}

/// The key of the message at an offset: each of `keys` comes often, and in no order.
fn key(offset: u64, keys: u64) -> Vec<u8> {
    let mixed = offset.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    format!("key {:06}", mixed % keys).into_bytes()
}

/// Appends until the disk is full; what every message is follows from its offset.
fn fill(writer: &mut Writer, keys: u64) -> Error {
    loop {
        let next = writer.next_offset().get();
        let (key, value) = (key(next, keys), value(next));
        let outcome = writer
            .append_message(&NewMessage::new(&value).key(&key))
            .and_then(|_| {
                if next.is_multiple_of(16) {
                    writer.commit(Durability::Disk)?;
                }
                Ok(())
            });
        if let Err(error) = outcome {
            return error;
        }
    }
}

/// The newest message of each key in a log that has the messages from `start` to `end`.
fn table(start: u64, end: u64, keys: u64) -> BTreeMap<Vec<u8>, u64> {
    let mut table = BTreeMap::new();
    for offset in (start..end).rev() {
        table.entry(key(offset, keys)).or_insert(offset);
        if table.len() as u64 == keys {
            break;
        }
    }
    table
}

/// Scanning gives the table, and so does looking for each key, and for one that was never there.
fn check(snapshot: &Snapshot, table: &BTreeMap<Vec<u8>, u64>, context: &str) {
    let mut expected = table.iter();
    for found in snapshot.scan_prefix(b"key ").unwrap() {
        let found = found.unwrap();
        let (key, offset) = expected.next().expect("no more keys than there are");
        assert_eq!(found.key().map(|key| &key[..]), Some(key.as_slice()), "{context}");
        assert_eq!(found.offset().get(), *offset, "{context}: {key:?}");
        assert!(
            found.value()[..] == value(*offset)[..],
            "{context}: another value at {offset}"
        );
    }
    assert_eq!(expected.next(), None, "{context}: a key is not scanned");
    // A part of them; another one from one time to the next, since the offsets are others.
    for (key, offset) in table.iter().filter(|(_, offset)| *offset % 7 == 0) {
        let found = snapshot.get_key(key).unwrap().expect("a key that is there");
        assert_eq!(found.offset().get(), *offset, "{context}: {key:?}");
        assert!(
            found.value()[..] == value(*offset)[..],
            "{context}: another value at {offset}"
        );
    }
    assert!(snapshot.get_key(b"key none").unwrap().is_none(), "{context}");
}

/// The messages that are left are no others than the newest of their keys, if it `is_compacted`, and those at least.
fn check_log(store: &Store, table: &BTreeMap<Vec<u8>, u64>, is_compacted: bool, context: &str) {
    let snapshot = store.snapshot(LOG).unwrap();
    check(&snapshot, table, context);
    if is_compacted {
        let left = common::offsets(store, LOG);
        let newest: BTreeSet<u64> = table.values().copied().collect();
        assert!(
            left.iter().copied().eq(newest.iter().copied()),
            "{context}: {} messages are left of {} keys",
            left.len(),
            newest.len()
        );
    }
}

/// Compacts while somebody else looks up and scans.
fn compact_beside_a_reader(
    store: &Store,
    table: &BTreeMap<Vec<u8>, u64>,
    context: &str,
) -> Result<CompactionReceipt, Error> {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                check(&store.snapshot(LOG).unwrap(), table, context);
            }
        });
        let compacted = store.compact(LOG);
        done.store(true, Ordering::Release);
        compacted
    })
}

/// The process dies, and the next one finds the disk full.
fn die(disk: &mut Arc<MemoryDisk>, store: &mut Store) {
    *disk = Arc::new(disk.kill_image().unwrap());
    std::mem::forget(std::mem::replace(store, open(disk)));
}

fn end(store: &Store) -> u64 {
    store.log(LOG).unwrap().end().get()
}

/// Nothing that was acknowledged is missing after a power cut.
fn check_after_a_power_cut(disk: &MemoryDisk, start: u64, durable: u64, keys: u64) {
    let cut = Arc::new(disk.crash_image(|_, _| Fate::Lost).unwrap());
    let store = open(&cut);
    let end = end(&store);
    assert!(end >= durable, "{end} messages of {durable}");
    check_log(&store, &table(start, end, keys), false, "after a power cut");
    store.compact(LOG).unwrap();
    check_log(
        &store,
        &table(start, end, keys),
        true,
        "compacted after a power cut",
    );
}

#[test]
fn compacting_and_collecting_makes_room_on_a_full_disk_again_and_again() {
    let (mut disk, mut store) = narrow();
    let (mut durable, mut compacted) = (0, 0);
    for round in 0..10u64 {
        let context = format!("round {round}");
        let mut writer = store.writer(LOG).unwrap();
        let error = fill(&mut writer, FEW);
        assert_eq!(error.kind(), ErrorKind::FreeSpace, "{context}: {error}");
        let before = std::mem::replace(&mut durable, writer.durable_end().get());
        assert!(durable > before + 1000, "{context}: little was written");
        drop(writer);
        if round % 3 == 2 {
            die(&mut disk, &mut store);
        }
        let end = end(&store);
        assert!(end >= durable, "{context}: {end} messages of {durable}");
        let table = table(0, end, FEW);
        check_log(&store, &table, false, &context);
        if let Err(error) = compact_beside_a_reader(&store, &table, &context) {
            assert_eq!(error.kind(), ErrorKind::FreeSpace, "{context}: {error}");
            check_log(&store, &table, false, &context);
            // The front has no newest message of any key.
            let oldest = table.values().min().copied().unwrap();
            store.retain(LOG, &Retention::new().from(oldest - 1000)).unwrap();
            store.collect().unwrap();
            check_log(&store, &table, false, &context);
            store.compact(LOG).unwrap();
        } else {
            compacted += 1;
        }
        check_log(&store, &table, true, &context);
        store.collect().unwrap();
        assert!(disk.used_bytes() < SPACE / 2, "{context}: {}", disk.used_bytes());
        check_log(&store, &table, true, &context);
    }
    assert!(compacted > 0, "the reserve was of no use");
    fill(&mut store.writer(LOG).unwrap(), FEW);
    check_after_a_power_cut(&disk, 0, durable, FEW);
}
