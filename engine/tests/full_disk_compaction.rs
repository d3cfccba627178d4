//! Promise: a keyed log that has filled the disk is compacted by the store itself, out of the reserve, again and again, in a
//! store that was open and in one that is opened on the full disk; keys are found and scanned all the while, collecting gives
//! the space back, appends go on without reopening, and nothing acknowledged is lost. That is so for few and many keys, small
//! and large values, also where what stays is many times the reserve. Where nothing can be done, because somebody holds all of
//! it or there is no reserve, compacting says so and changes nothing that is shown.
#![allow(
    clippy::cast_possible_truncation,
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

use common::{MovedClock, PATH, small, value};
use lanterman::disk::{Disk, Fate, MemoryDisk};
use lanterman::{
    CompactionReceipt, Durability, Error, ErrorKind, Keyed, NewMessage, Snapshot, Store, Writer,
};

const LOG: &str = "table";

/// A full disk, and what fills it.
#[derive(Debug, Clone, Copy)]
struct Shape {
    space: u64,
    reserve: u64,
    keys: u64,
    /// Values are as long as most of the other tests', times this.
    stretch: usize,
}

const FEW: Shape = Shape {
    space: 40 << 20,
    reserve: 2 << 20,
    keys: 1500,
    stretch: 1,
};

/// A disk with little space and a keyed log in it.
fn narrow(shape: &Shape) -> (Arc<MemoryDisk>, Store) {
    let disk = MemoryDisk::new();
    disk.set_space(Some(shape.space));
    let disk = Arc::new(disk);
    let store = open(&disk, shape);
    store.set_keyed(LOG, Some(&Keyed::new())).unwrap();
    (disk, store)
}

fn open(disk: &Arc<MemoryDisk>, shape: &Shape) -> Store {
    let disk: Arc<dyn Disk> = Arc::<MemoryDisk>::clone(disk);
    let options = small().collect(false).compact(false).reserve_bytes(shape.reserve);
    options.disk(disk).open_copying(PATH).unwrap()
}

impl Shape {
    /// The message at an offset.
    fn value(&self, offset: u64) -> Vec<u8> {
        value(offset).repeat(self.stretch)
    }
}

/// The key of the message at an offset: each of `keys` comes often, and in no order.
fn key(offset: u64, keys: u64) -> Vec<u8> {
    let mixed = offset.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    format!("key {:06}", mixed % keys).into_bytes()
}

/// Appends until the disk is full; what every message is follows from its offset.
fn fill(writer: &mut Writer, shape: &Shape) -> Error {
    loop {
        let next = writer.next_offset().get();
        let (key, value) = (key(next, shape.keys), shape.value(next));
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

/// The newest message of each key in a log that had `end` messages.
fn table(end: u64, shape: &Shape) -> BTreeMap<Vec<u8>, u64> {
    let mut table = BTreeMap::new();
    for offset in (0..end).rev() {
        table.entry(key(offset, shape.keys)).or_insert(offset);
        if table.len() as u64 == shape.keys {
            break;
        }
    }
    table
}

/// Scanning gives the table, and so does looking for each key, and for one that was never there.
fn check(snapshot: &Snapshot, table: &BTreeMap<Vec<u8>, u64>, shape: &Shape, context: &str) {
    let mut expected = table.iter();
    for found in snapshot.scan_prefix(b"key ").unwrap() {
        let found = found.unwrap();
        let (key, offset) = expected.next().expect("no more keys than there are");
        assert_eq!(found.key().map(|key| &key[..]), Some(key.as_slice()), "{context}");
        assert_eq!(found.offset().get(), *offset, "{context}: {key:?}");
        assert!(
            found.value()[..] == shape.value(*offset)[..],
            "{context}: another value at {offset}"
        );
    }
    assert_eq!(expected.next(), None, "{context}: a key is not scanned");
    // A part of them; another one from one time to the next, since the offsets are others.
    for (key, offset) in table.iter().filter(|(_, offset)| *offset % 7 == 0).take(60) {
        let found = snapshot.get_key(key).unwrap().expect("a key that is there");
        assert_eq!(found.offset().get(), *offset, "{context}: {key:?}");
        assert!(
            found.value()[..] == shape.value(*offset)[..],
            "{context}: another value at {offset}"
        );
    }
    assert!(snapshot.get_key(b"key none").unwrap().is_none(), "{context}");
}

/// The messages that are left are no others than the newest of their keys, if it `is_compacted`, and those at least.
fn check_log(
    store: &Store,
    table: &BTreeMap<Vec<u8>, u64>,
    shape: &Shape,
    is_compacted: bool,
    context: &str,
) {
    let snapshot = store.snapshot(LOG).unwrap();
    check(&snapshot, table, shape, context);
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
    shape: &Shape,
    context: &str,
) -> Result<CompactionReceipt, Error> {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                check(&store.snapshot(LOG).unwrap(), table, shape, context);
            }
        });
        let compacted = store.compact(LOG);
        done.store(true, Ordering::Release);
        compacted
    })
}

/// The process dies, and the next one finds the disk full.
fn die(disk: &mut Arc<MemoryDisk>, store: &mut Store, shape: &Shape) {
    *disk = Arc::new(disk.kill_image().unwrap());
    std::mem::forget(std::mem::replace(store, open(disk, shape)));
}

fn end(store: &Store) -> u64 {
    store.log(LOG).unwrap().end().get()
}

/// Nothing that was acknowledged is missing after a power cut.
fn check_after_a_power_cut(disk: &MemoryDisk, durable: u64, shape: &Shape, context: &str) {
    let cut = Arc::new(disk.crash_image(|_, _| Fate::Lost).unwrap());
    let store = open(&cut, shape);
    let end = end(&store);
    assert!(end >= durable, "{context}: {end} messages of {durable}");
    let table = table(end, shape);
    check_log(&store, &table, shape, false, context);
    store.compact(LOG).unwrap();
    check_log(&store, &table, shape, true, context);
}

#[test]
fn compacting_and_collecting_makes_room_on_a_full_disk_again_and_again() {
    let shape = FEW;
    let (mut disk, mut store) = narrow(&shape);
    let mut durable = 0;
    for round in 0..10u64 {
        let context = format!("round {round}");
        let mut writer = store.writer(LOG).unwrap();
        let error = fill(&mut writer, &shape);
        assert_eq!(error.kind(), ErrorKind::FreeSpace, "{context}: {error}");
        let before = std::mem::replace(&mut durable, writer.durable_end().get());
        assert!(durable > before + 1000, "{context}: little was written");
        drop(writer);
        if round % 3 == 2 {
            die(&mut disk, &mut store, &shape);
        }
        let end = end(&store);
        assert!(end >= durable, "{context}: {end} messages of {durable}");
        let table = table(end, &shape);
        check_log(&store, &table, &shape, false, &context);
        compact_beside_a_reader(&store, &table, &shape, &context).unwrap();
        check_log(&store, &table, &shape, true, &context);
        store.collect().unwrap();
        let used = disk.used_bytes();
        assert!(used < shape.space / 2, "{context}: {used}");
        check_log(&store, &table, &shape, true, &context);
    }
    fill(&mut store.writer(LOG).unwrap(), &shape);
    check_after_a_power_cut(&disk, durable, &shape, "in the end");
}

/// A number that follows from a seed and another one.
fn chance(seed: u64, number: u64, below: u64) -> u64 {
    // The finalizer of SplitMix64 (Steele, Lea, Flood, Fast Splittable Pseudorandom Number Generators, 2014).
    let mixed = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(number);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (mixed ^ (mixed >> 31)) % below
}

fn shape_of(seed: u64) -> Shape {
    let choose = |number, among: &[u64]| among[chance(seed, number, among.len() as u64) as usize];
    Shape {
        // A reserve is a sixteenth of the store at most, and what waits in memory must fit into it.
        space: choose(0, &[24, 32, 40, 48]) << 20,
        reserve: choose(1, &[1536, 2048, 4096]) << 10,
        keys: 500 + chance(seed, 2, 100).pow(2) * 3,
        stretch: choose(3, &[1, 1, 2, 5, 20]) as usize,
    }
}

#[test]
fn a_full_log_of_any_shape_is_compacted_out_of_the_reserve() {
    let first = std::env::var("LANTERMAN_SEED").map_or(0, |seed| seed.parse().unwrap());
    for seed in first..first + 6 {
        let shape = shape_of(seed);
        let context = format!("seed {seed}, {shape:?}");
        let (mut disk, mut store) = narrow(&shape);
        let mut writer = store.writer(LOG).unwrap();
        let error = fill(&mut writer, &shape);
        assert_eq!(error.kind(), ErrorKind::FreeSpace, "{context}: {error}");
        let durable = writer.durable_end().get();
        drop(writer);
        if chance(seed, 4, 3) == 0 {
            die(&mut disk, &mut store, &shape);
        }
        let table = table(end(&store), &shape);
        let held = (chance(seed, 5, 3) == 0).then(|| store.snapshot(LOG).unwrap());
        let plan = store.plan_compaction(LOG).unwrap();
        if let Some(held) = held {
            // Nothing comes back while somebody holds all of it: only what fits into the reserve is written anew.
            if let Err(error) = store.compact(LOG) {
                assert_eq!(error.kind(), ErrorKind::FreeSpace, "{context}: {error}");
            }
            check(&held, &table, &shape, &context);
            assert_eq!(held.range(..).unwrap().count() as u64, end(&store), "{context}");
            check_log(&store, &table, &shape, false, &context);
        }
        match store.compact(LOG) {
            Ok(_) => {}
            Err(error) => panic!("{context}: {error}: {plan:?}"),
        }
        check_log(&store, &table, &shape, true, &context);
        store.collect().unwrap();
        check_log(&store, &table, &shape, true, &context);
        check_after_a_power_cut(&disk, durable, &shape, &context);
        if plan.superseded_bytes > shape.space / 8 {
            fill(&mut store.writer(LOG).unwrap(), &shape);
            assert!(end(&store) > durable + 100, "{context}: little room came back");
        }
    }
}

#[test]
fn the_background_makes_room_in_a_full_log_by_itself() {
    let shape = FEW;
    let disk = MemoryDisk::new();
    disk.set_space(Some(shape.space));
    let disk = Arc::new(disk);
    let clock = MovedClock::at(1_700_000_000_000);
    let options = small().clock(clock.clone());
    let options = options.disk(Arc::<MemoryDisk>::clone(&disk) as Arc<dyn Disk>);
    let store = options.open_copying(PATH).unwrap();
    store.set_keyed(LOG, Some(&Keyed::new())).unwrap();
    fill(&mut store.writer(LOG).unwrap(), &shape);
    let full = end(&store);
    for _ in 0..1000 {
        clock.pass(60);
        if let Err(error) = store.step() {
            assert_eq!(error.kind(), ErrorKind::FreeSpace, "{error}");
        }
    }
    check_log(&store, &table(full, &shape), &shape, false, "made room");
    assert!(disk.used_bytes() < shape.space / 2, "{}", disk.used_bytes());
    fill(&mut store.writer(LOG).unwrap(), &shape);
    assert!(end(&store) > full + 1000);
}

#[test]
fn where_there_is_no_reserve_compacting_a_full_log_says_so_and_changes_nothing() {
    let shape = Shape { reserve: 0, ..FEW };
    let (disk, store) = narrow(&shape);
    fill(&mut store.writer(LOG).unwrap(), &shape);
    // Not even room for a smaller segment than appends ask for.
    disk.set_space(Some(disk.used_bytes()));
    let table = table(end(&store), &shape);
    let before = common::offsets(&store, LOG);
    let error = store.compact(LOG).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FreeSpace, "{error}");
    check_log(&store, &table, &shape, false, "refused");
    assert_eq!(common::offsets(&store, LOG), before);
}
