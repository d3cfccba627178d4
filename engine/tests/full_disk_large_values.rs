//! Promise: a keyed log of values in parts that has filled the disk is compacted out of the reserve too. The parts of a value
//! go in the version in which its message goes, so each step leaves room for the slabs in which they stand as well; whoever
//! reads meanwhile finds each value whole, the space comes back, and nothing acknowledged is lost. Where somebody holds all
//! of it, compacting says so and takes no value apart.
#![allow(
    clippy::cast_possible_truncation,
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests fail by panicking, and their numbers are small"
)]

mod common;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::model::Random;
use common::{PATH, parts_in, small};
use lanterman::disk::{Disk, Fate, MemoryDisk};
use lanterman::{Durability, Error, ErrorKind, Keyed, NewMessage, Snapshot, Store, Writer};

const LOG: &str = "table";

/// A full disk, and what fills it.
#[derive(Debug)]
struct Shape {
    space: u64,
    reserve: u64,
    keys: u64,
    /// One value of so many comes in parts.
    one_large_in: u64,
    length_max: u64,
}

impl Shape {
    fn of(random: &mut Random) -> Self {
        let space = (24 + random.below(17)) << 20;
        let one_large_in = 1 + random.below(8);
        let length_max = 20_000 + random.below(150_000);
        // What stays is a half of the disk at most.
        let keys_max = space / 2 * one_large_in / (length_max / 2);
        Shape {
            space,
            // A sixteenth of the store is the most, and what waits in memory must fit into it.
            reserve: (1536 + random.below(1024)) << 10,
            keys: 1 + random.below(keys_max),
            one_large_in,
            length_max,
        }
    }

    fn open(&self, disk: &Arc<MemoryDisk>) -> Store {
        let disk: Arc<dyn Disk> = Arc::<MemoryDisk>::clone(disk);
        let options = small().collect(false).compact(false).large_value_bytes(1000);
        options
            .reserve_bytes(self.reserve)
            .disk(disk)
            .open_copying(PATH)
            .unwrap()
    }
}

/// The newest message of a key.
#[derive(Debug)]
struct Row {
    parts: Range<u64>,
    length: usize,
}

impl Row {
    fn value(&self) -> Vec<u8> {
        bytes(self.length, self.parts.end)
    }
}

type Table = BTreeMap<Vec<u8>, Row>;

/// Bytes that say at which offset the message of the value is, or would be.
fn bytes(length: usize, offset: u64) -> Vec<u8> {
    let offset = offset.to_le_bytes();
    offset.iter().copied().cycle().take(length).collect()
}

/// Puts values until the disk is full.
fn fill(writer: &mut Writer, shape: &Shape, random: &mut Random, table: &mut Table) -> Error {
    let part_bytes = (64 << 10) / 4 - 4096;
    loop {
        let key = format!("key {:06}", random.below(shape.keys)).into_bytes();
        let length = match random.below(shape.one_large_in) {
            0 => 1001 + random.below(shape.length_max),
            _ => random.below(1000),
        };
        let length = length as usize;
        let parts = if length > 1000 {
            length.div_ceil(part_bytes)
        } else {
            0
        };
        let first = writer.next_offset().get();
        let parts = first..first + parts as u64;
        let value = bytes(length, parts.end);
        let message = NewMessage::new(b"").key(&key);
        let appended = writer.append_large(&message, &value[..]);
        let committed = appended.and_then(|offset| {
            assert_eq!(offset.get(), parts.end, "nobody else appends");
            table.insert(key, Row { parts, length });
            writer.commit(Durability::Disk)
        });
        if let Err(error) = committed {
            return error;
        }
    }
}

/// Scanning gives the table, and each value is whole.
fn check(snapshot: &Snapshot, table: &Table, context: &str) {
    let mut expected = table.iter();
    for found in snapshot.scan_keys(..).unwrap() {
        let found = found.unwrap();
        let (key, row) = expected.next().expect("no more keys than there are");
        assert_eq!(found.key().map(|key| &key[..]), Some(key.as_slice()), "{context}");
        assert_eq!(found.offset().get(), row.parts.end, "{context}: {key:?}");
        let mut reader = snapshot.read_value(found.offset()).unwrap();
        let mut value = Vec::new();
        while let Some(part) = reader.next_part().unwrap() {
            value.extend_from_slice(&part);
        }
        assert!(value == row.value(), "{context}: another value at {row:?}");
    }
    assert!(expected.next().is_none(), "{context}: a key is not scanned");
}

/// Nothing is left but the newest message of each key and its parts.
fn check_compacted(store: &Store, table: &Table, context: &str) {
    check(&store.snapshot(LOG).unwrap(), table, context);
    let mut newest: Vec<u64> = table.values().map(|row| row.parts.end).collect();
    newest.sort_unstable();
    assert_eq!(common::offsets(store, LOG), newest, "{context}");
    let mut parts: Vec<u64> = table.values().flat_map(|row| row.parts.clone()).collect();
    parts.sort_unstable();
    assert_eq!(parts_in(store, LOG), parts, "{context}");
}

/// Compacts while somebody else reads.
fn compact(store: &Store, table: &Table, context: &str) -> Result<(), Error> {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                check(&store.snapshot(LOG).unwrap(), table, context);
            }
        });
        let compacted = store.compact(LOG);
        done.store(true, Ordering::Release);
        compacted.map(drop)
    })
}

#[test]
fn a_full_log_of_values_in_parts_is_compacted_out_of_the_reserve() {
    let first = std::env::var("LANTERMAN_SEED").map_or(0, |seed| seed.parse().unwrap());
    for seed in first..first + 6 {
        let mut random = Random::from_seed(seed);
        let shape = Shape::of(&mut random);
        let context = format!("seed {seed}, {shape:?}");
        let disk = MemoryDisk::new();
        disk.set_space(Some(shape.space));
        let disk = Arc::new(disk);
        let store = shape.open(&disk);
        store.set_keyed(LOG, Some(&Keyed::new())).unwrap();
        let mut table = Table::new();
        for round in 0..2 {
            let context = format!("round {round}, {context}");
            let before = common::end(&store, LOG);
            let mut writer = store.writer(LOG).unwrap();
            let error = fill(&mut writer, &shape, &mut random, &mut table);
            assert_eq!(error.kind(), ErrorKind::FreeSpace, "{context}: {error}");
            drop(writer);
            assert!(common::end(&store, LOG) > before + 100, "{context}: little room");
            let held = (random.below(3) == 0).then(|| store.snapshot(LOG).unwrap());
            if let Some(held) = held {
                // Nothing comes back meanwhile.
                if let Err(error) = store.compact(LOG) {
                    assert_eq!(error.kind(), ErrorKind::FreeSpace, "{context}: {error}");
                }
                check(&held, &table, &context);
                check(&store.snapshot(LOG).unwrap(), &table, &context);
            }
            compact(&store, &table, &context).unwrap_or_else(|error| panic!("{context}: {error}"));
            check_compacted(&store, &table, &context);
            store.collect().unwrap();
            check_compacted(&store, &table, &context);
            let live: usize = table.values().map(|row| row.length).sum();
            let used = disk.used_bytes();
            let most = live as u64 * 5 / 4 + shape.reserve + (1 << 20);
            assert!(used < most, "{context}: {used} bytes for {live}");
        }
        let cut = Arc::new(disk.crash_image(|_, _| Fate::Lost).unwrap());
        check_compacted(&shape.open(&cut), &table, &context);
    }
}
