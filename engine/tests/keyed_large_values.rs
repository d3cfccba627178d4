//! Promise: a keyed log takes values of any length. Each is found by its key and read whole, in snapshots and forks too, and
//! its parts go with its message when a newer one supersedes it, in one version, so that the log keeps to its bound; no
//! crash leaves half of one.
#![allow(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests fail by panicking, and their numbers are small"
)]

mod common;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use common::model::Random;
use common::{MovedClock, memory, parts_in, small};
use lanterman::disk::{Disk, Fate, MemoryDisk, OpenMode, RecordingDisk, Replay, Sync, read_full_at};
use lanterman::{
    Compression, Durability, Error, KeptMessage, Keyed, NewMessage, Options, Snapshot, Store, ValueType,
};

const LOG: &str = "table";
/// Values above so many bytes come in parts of 12 KiB.
const LARGE: u64 = 1000;

fn options() -> Options {
    small().compact(false).large_value_bytes(LARGE)
}

fn open(options: Options, disk: &Arc<MemoryDisk>) -> Store {
    let disk = Arc::clone(disk) as Arc<dyn Disk>;
    options.disk(disk).open_copying(common::PATH).unwrap()
}

fn keyed_store(options: Options) -> (Arc<MemoryDisk>, Store) {
    let disk = memory();
    let store = open(options, &disk);
    store.set_keyed(LOG, Some(&Keyed::new())).unwrap();
    (disk, store)
}

/// Bytes that say which value they are of.
fn bytes(length: usize, number: u64) -> Vec<u8> {
    let mut random = Random::from_seed(number);
    (0..length).map(|_| random.next() as u8).collect()
}

/// Puts a value, and gives the offsets of its parts; its message comes behind them.
fn put(store: &Store, log: &str, key: &[u8], value: &[u8]) -> Range<u64> {
    let mut writer = store.writer(log).unwrap();
    let first = writer.next_offset().get();
    let offset = writer
        .append_large(&NewMessage::new(b"").key(key), value)
        .unwrap();
    first..offset.get()
}

/// The value of a message, whole.
fn whole(snapshot: &Snapshot, message: &KeptMessage) -> Result<Vec<u8>, Error> {
    let mut reader = snapshot.read_value(message.offset())?;
    let mut value = Vec::new();
    while let Some(part) = reader.next_part()? {
        value.extend_from_slice(&part);
    }
    Ok(value)
}

fn newest(snapshot: &Snapshot, key: &[u8]) -> Option<Vec<u8>> {
    let found = snapshot.get_key(key).unwrap()?;
    Some(whole(snapshot, &found).unwrap())
}

/// Everything that is appended so far goes into slabs, and their keys into runs.
fn settle(store: &Store) {
    store.commit_all(Durability::Disk).unwrap();
    store.checkpoint().unwrap();
    while store.step().unwrap() {}
}

/// The parts that the messages of a log name.
fn named_parts(store: &Store, log: &str) -> u64 {
    let snapshot = store.log(log).unwrap().snapshot();
    let heads = snapshot
        .range(..)
        .unwrap()
        .map(Result::unwrap)
        .filter(|message| message.value_type() == ValueType::BY_REFERENCE);
    let parts = heads.map(|message| (message.value().len() as u64 - 32) / 16);
    parts.sum()
}

#[test]
fn a_large_value_is_found_by_its_key_and_goes_whole_once_it_is_superseded() {
    let (disk, store) = keyed_store(options());
    let values: Vec<Vec<u8>> = (0..5).map(|number| bytes(100_000, number)).collect();
    let old = put(&store, LOG, b"film", &values[0]);
    assert!(old.end - old.start > 5, "it came in parts");
    put(&store, LOG, b"a", b"small");
    let other = put(&store, LOG, b"other", &values[1]);
    settle(&store);
    store.fork(LOG, "fork").unwrap();
    let before = store.log(LOG).unwrap().snapshot();
    let middle = put(&store, LOG, b"film", &values[2]);
    let new = put(&store, LOG, b"film", &values[3]);
    let plan = store.plan_compaction(LOG).unwrap();
    assert!(plan.superseded_bytes > 200_000, "{plan:?}");
    assert!((200_000..202_000).contains(&plan.live_bytes), "{plan:?}");
    settle(&store);
    let receipt = store.compact(LOG).unwrap();
    assert_eq!(receipt.removed, 2);
    assert!((200_000..202_000).contains(&receipt.removed_bytes), "{receipt:?}");
    let parts: Vec<u64> = other.clone().chain(new.clone()).collect();
    let check = |store: &Store, how: &str| {
        let snapshot = store.log(LOG).unwrap().snapshot();
        assert_eq!(parts_in(store, LOG), parts, "{how}");
        assert!(newest(&snapshot, b"film").unwrap() == values[3], "{how}");
        assert!(newest(&snapshot, b"other").unwrap() == values[1], "{how}");
        let scanned = snapshot.scan_keys(..).unwrap().map(Result::unwrap);
        let lengths: Vec<usize> = scanned
            .map(|message| whole(&snapshot, &message).unwrap().len())
            .collect();
        assert_eq!(lengths, [5, 100_000, 100_000], "{how}");
        for gone in [old.start, middle.start, middle.end] {
            let error = snapshot.get(gone).unwrap_err();
            assert!(matches!(error, Error::Deleted { .. }), "{how}: {error}");
        }
        let fork = store.log("fork").unwrap().snapshot();
        assert!(newest(&fork, b"film").unwrap() == values[0], "{how}");
        let summary = snapshot.summary().unwrap();
        assert_eq!(
            (summary.messages(), summary.parts()),
            (3, parts.len() as u64),
            "{how}"
        );
        assert_eq!(
            summary.deleted() + 3 + summary.parts(),
            new.end + 1 - snapshot.start().get()
        );
    };
    check(&store, "compacted");
    assert!(
        newest(&before, b"film").unwrap() == values[0],
        "a snapshot keeps it"
    );
    drop(before);
    store.collect().unwrap();
    check(&store, "collected");
    let cut = Arc::new(disk.crash_image(|_, _| Fate::Lost).unwrap());
    check(&open(options(), &cut), "cut");
    assert_eq!(store.compact(LOG).unwrap().removed, 0);
    // A marker takes the whole value with it.
    let mut writer = store.writer(LOG).unwrap();
    writer
        .append_message(&NewMessage::delete_marker(b"film"))
        .unwrap();
    drop(writer);
    assert_eq!(store.compact(LOG).unwrap().removed, 1);
    assert_eq!(parts_in(&store, LOG), other.collect::<Vec<_>>());
    assert!(store.log(LOG).unwrap().get_key(b"film").unwrap().is_none());
}

#[test]
fn a_large_value_without_a_key_is_refused_before_its_first_part() {
    let (_disk, store) = keyed_store(options());
    let mut writer = store.writer(LOG).unwrap();
    let value = bytes(100_000, 1);
    let refused = writer
        .append_large(&NewMessage::new(b""), &value[..])
        .unwrap_err();
    assert!(matches!(refused, Error::KeyRequired { .. }), "{refused}");
    let long = vec![1; (64 << 10) + 1];
    let refused = writer.append_large(&NewMessage::new(b"").key(&long), &value[..]);
    assert!(matches!(refused, Err(Error::TooLarge { part: "key", .. })));
    assert_eq!(writer.next_offset().get(), 0);
}

#[test]
fn the_bound_holds_where_one_key_among_many_is_put_again_and_again_with_a_large_value() {
    let clock = MovedClock::at(1_700_000_000_000);
    let (_disk, store) = keyed_store(options().compact(true).clock(clock.clone()));
    for number in 0..2_000_u64 {
        put(&store, LOG, &number.to_le_bytes(), &[1; 100]);
    }
    let value = bytes(150_000, 3);
    for round in 0..60 {
        put(&store, LOG, b"film", &value);
        store.commit_all(Durability::Disk).unwrap();
        clock.pass(1_000);
        while store.step().unwrap() {}
        let summary = store.log(LOG).unwrap().snapshot().summary().unwrap();
        let live = 2_000 * 108 + 150_004;
        // Beside the bound: what came since the look of a second ago, and a slab that waits in memory.
        let most = live * 3 / 2 + 2 * 150_000 + (64 << 10);
        let found = summary.value_bytes() + summary.key_bytes();
        assert!(found <= most, "{found} bytes after {round}, {most} are allowed");
    }
    assert!(newest(&store.log(LOG).unwrap().snapshot(), b"film").unwrap() == value);
    // What the disk needs is bounded as well: slabs that lost parts alone do not stay as they were.
    settle(&store);
    store.collect().unwrap();
    let space = store.space().unwrap();
    assert!(space.live < 1_200_000, "{space:?}");
}

/// How a value that a splice brought without its parts names those of another.
#[test]
fn a_message_that_came_without_its_parts_takes_no_others_with_it() {
    let (_disk, store) = keyed_store(options());
    let value = bytes(60_000, 4);
    let parts = put(&store, LOG, b"stays", &value);
    let count = parts.end - parts.start;
    store.set_keyed("source", Some(&Keyed::new())).unwrap();
    // One part more than stand before the other's message, so that its list falls on them.
    let source = put(&store, "source", b"comes", &bytes(60_000 + 12_000, 5));
    assert_eq!(source.end - source.start, count + 1);
    store.splice(LOG, "source", source.end..).unwrap();
    let cut = store.log(LOG).unwrap().get_key(b"comes").unwrap().unwrap();
    assert_eq!(cut.value_type(), ValueType::BY_REFERENCE);
    put(&store, LOG, b"comes", b"short");
    settle(&store);
    assert_eq!(store.compact(LOG).unwrap().removed, 1);
    let snapshot = store.log(LOG).unwrap().snapshot();
    assert!(newest(&snapshot, b"stays").unwrap() == value);
    assert_eq!(parts_in(&store, LOG), parts.collect::<Vec<_>>());
}

/// A message of the model.
#[derive(Clone, PartialEq)]
struct Row {
    key: Vec<u8>,
    /// `None` for a marker.
    value: Option<Vec<u8>>,
    parts: Range<u64>,
    /// Some of its parts were deleted.
    is_cut: bool,
}

#[derive(Clone, Default)]
struct Model {
    rows: BTreeMap<u64, Row>,
}

impl Model {
    fn delete(&mut self, gone: Range<u64>) {
        self.rows.retain(|offset, _| !gone.contains(offset));
        for row in self.rows.values_mut() {
            row.is_cut |= row.parts.start < gone.end && gone.start < row.parts.end;
        }
    }

    fn newest(&self) -> BTreeMap<&[u8], u64> {
        let rows = self.rows.iter();
        rows.map(|(offset, row)| (row.key.as_slice(), *offset)).collect()
    }

    /// Takes over what compaction removed, if it may have: messages that are not the newest, each with all of its parts.
    fn follow(&mut self, store: &Store, seed: u64) {
        let left = common::offsets(store, LOG);
        let newest: Vec<u64> = self.newest().into_values().collect();
        let parts = parts_in(store, LOG);
        for (offset, row) in &self.rows {
            if left.binary_search(offset).is_ok() {
                continue;
            }
            assert!(
                !newest.contains(offset),
                "seed {seed}: the newest, at {offset}, is gone"
            );
            let stayed = parts.iter().find(|part| row.parts.contains(part));
            assert_eq!(stayed, None, "seed {seed}: a part of {offset} stayed");
        }
        self.rows.retain(|offset, _| left.binary_search(offset).is_ok());
        assert_eq!(left.len(), self.rows.len(), "seed {seed}: something came back");
    }

    fn check(&self, snapshot: &Snapshot, seed: u64) {
        for message in snapshot.range(..).unwrap() {
            let message = message.unwrap();
            let row = &self.rows[&message.offset().get()];
            self.check_message(snapshot, &message, row, seed);
        }
        let newest = self.newest();
        for number in 0..KEYS {
            let key = number.to_le_bytes();
            let found = snapshot.get_key(&key).unwrap();
            let found = found.map(|message| message.offset().get());
            let expected = newest.get(key.as_slice()).copied();
            let expected = expected.filter(|offset| self.rows[offset].value.is_some());
            assert_eq!(found, expected, "seed {seed}: key {number}");
        }
    }

    fn check_message(&self, snapshot: &Snapshot, message: &KeptMessage, row: &Row, seed: u64) {
        let offset = message.offset();
        assert_eq!(message.key().unwrap().as_ref(), row.key, "seed {seed}: {offset}");
        match (whole(snapshot, message), &row.value) {
            (Ok(found), Some(value)) => assert!(!row.is_cut && found == *value, "seed {seed}: {offset}"),
            (Ok(found), None) => assert!(found.is_empty(), "seed {seed}: {offset}"),
            (Err(Error::ValueCut { .. }), _) => assert!(row.is_cut, "seed {seed}: {offset} was cut"),
            (Err(error), _) => panic!("seed {seed}: {offset}: {error}"),
        }
    }
}

const KEYS: u64 = 12;

struct Run {
    seed: u64,
    random: Random,
    disk: Arc<MemoryDisk>,
    store: Store,
    model: Model,
    held: Vec<(Snapshot, Model)>,
}

impl Run {
    fn new(seed: u64) -> Self {
        let (disk, store) = keyed_store(Self::options(seed));
        let compression = seed
            .is_multiple_of(3)
            .then(|| Compression::lz4().with_batch_bytes(4 << 10));
        store.set_compression(LOG, compression.as_ref()).unwrap();
        Run {
            seed,
            random: Random::from_seed(seed),
            disk,
            store,
            model: Model::default(),
            held: Vec::new(),
        }
    }

    fn options(seed: u64) -> Options {
        options().compact(seed.is_multiple_of(2))
    }

    fn put_some(&mut self, step: u64) {
        for _ in 0..self.random.below(12) {
            let key = self.random.below(KEYS).to_le_bytes().to_vec();
            let length = match self.random.below(4) {
                0 => self.random.below(70_000),
                _ => self.random.below(600),
            };
            let value = bytes(length as usize, step);
            if self.random.below(12) == 0 {
                let mut writer = self.store.writer(LOG).unwrap();
                let offset = writer
                    .append_message(&NewMessage::delete_marker(&key))
                    .unwrap()
                    .get();
                let row = Row {
                    key,
                    value: None,
                    parts: 0..0,
                    is_cut: false,
                };
                self.model.rows.insert(offset, row);
                continue;
            }
            let parts = put(&self.store, LOG, &key, &value);
            let row = Row {
                key,
                value: Some(value),
                parts: parts.clone(),
                is_cut: false,
            };
            self.model.rows.insert(parts.end, row);
        }
    }

    fn delete_some(&mut self) {
        let log = self.store.log(LOG).unwrap();
        let (start, end) = (log.start().get(), log.end().get());
        let gone = match self.random.below(2) {
            0 => 0..(start + self.random.below(20)).min(end),
            _ => {
                let first = self.random.below(end + 1);
                first..first + self.random.below((end - first).min(12) + 1)
            }
        };
        self.store.delete(LOG, gone.clone()).unwrap();
        self.model.delete(gone);
    }

    fn crash(&mut self) {
        self.store.commit_all(Durability::Disk).unwrap();
        self.held.clear();
        let random = &mut self.random;
        let fate = |_: usize, _: &_| match random.below(2) {
            0 => Fate::Lost,
            _ => Fate::Kept,
        };
        self.disk = Arc::new(self.disk.crash_image(fate).unwrap());
        self.store = open(Self::options(self.seed), &self.disk);
    }

    /// The log ends, and a fork of it is spliced into its place.
    fn fork_and_splice(&mut self, step: u64) {
        if self.model.rows.is_empty() {
            return;
        }
        let fork = format!("fork {step}");
        self.store.fork(LOG, &fork).unwrap();
        self.model
            .check(&self.store.log(&fork).unwrap().snapshot(), self.seed);
        self.store.drop_log(LOG).unwrap();
        self.store.set_keyed(LOG, Some(&Keyed::new())).unwrap();
        self.store.splice(LOG, &fork, ..).unwrap();
        let first = self.store.log(&fork).unwrap().start().get();
        let moved = |row: Row| Row {
            parts: row.parts.start.saturating_sub(first)..row.parts.end.saturating_sub(first),
            ..row
        };
        let rows = std::mem::take(&mut self.model.rows).into_iter();
        self.model.rows = rows.map(|(offset, row)| (offset - first, moved(row))).collect();
        self.store.drop_log(&fork).unwrap();
    }

    fn step(&mut self, step: u64) {
        match self.random.below(20) {
            0..=8 => self.put_some(step),
            9 => self.delete_some(),
            10..=12 => {
                self.store.compact(LOG).unwrap();
            }
            13 => {
                self.store.checkpoint().unwrap();
            }
            14..=15 => {
                for _ in 0..self.random.below(10) {
                    self.store.step().unwrap();
                }
            }
            16 if self.held.len() < 3 => {
                let snapshot = self.store.log(LOG).unwrap().snapshot();
                self.held.push((snapshot, self.model.clone()));
            }
            16 => {
                let (snapshot, then) = self.held.remove(self.random.below(3) as usize);
                then.check(&snapshot, self.seed);
            }
            17 => {
                self.store.collect().unwrap();
            }
            18 => self.crash(),
            _ => self.fork_and_splice(step),
        }
        self.model.follow(&self.store, self.seed);
        self.model
            .check(&self.store.log(LOG).unwrap().snapshot(), self.seed);
    }
}

fn run_model(seed: u64, steps: u64) {
    let mut run = Run::new(seed);
    for step in 0..steps {
        run.step(step);
    }
    for (snapshot, then) in &run.held {
        then.check(snapshot, seed);
    }
}

#[test]
fn large_values_among_small_ones_agree_with_a_table_in_memory() {
    for seed in 0..9 {
        run_model(seed, 100);
    }
}

/// Key, length and number of the value that is put at each step of recorded work.
fn recorded_puts() -> impl Iterator<Item = (&'static [u8], usize, u64)> {
    let keys: [&[u8]; 3] = [b"film", b"note", b"other film"];
    let lengths = [50_000, 300, 30_000];
    (0..24_u64).map(move |number| {
        let index = (number % 3) as usize;
        (keys[index], lengths[index] + number as usize * 100, number)
    })
}

/// Puts, compacts and makes checkpoints, every step of it recorded; gives how many puts were acknowledged when so many
/// operations of the disk were done.
fn recorded_work(disk: &Arc<RecordingDisk>) -> Vec<(usize, u64)> {
    let store = options()
        .disk(Arc::clone(disk) as Arc<dyn Disk>)
        .open_copying(common::PATH)
        .unwrap();
    store.set_keyed(LOG, Some(&Keyed::new())).unwrap();
    let mut acknowledged = Vec::new();
    for (key, length, number) in recorded_puts() {
        put(&store, LOG, key, &bytes(length, number));
        store.commit_all(Durability::Disk).unwrap();
        acknowledged.push((disk.operation_count(), number + 1));
        match number % 8 {
            3 => drop(store.checkpoint().unwrap()),
            5 => drop(store.compact(LOG).unwrap()),
            7 => drop(store.collect().unwrap()),
            _ => {}
        }
    }
    store.close().unwrap();
    acknowledged
}

fn check_crashed(image: MemoryDisk, acknowledged: u64, place: &str) {
    let store = open(options(), &Arc::new(image));
    let Ok(log) = store.log(LOG) else {
        assert_eq!(acknowledged, 0, "{place}");
        return;
    };
    if log.keyed().is_none() {
        assert_eq!(acknowledged, 0, "{place}");
        return;
    }
    // What was abandoned goes with the next writer.
    drop(store.writer(LOG).unwrap());
    assert_eq!(
        parts_in(&store, LOG).len() as u64,
        named_parts(&store, LOG),
        "{place}"
    );
    let snapshot = log.snapshot();
    for message in snapshot.range(..).unwrap() {
        whole(&snapshot, &message.unwrap()).unwrap();
    }
    let puts: Vec<_> = recorded_puts().collect();
    for (key, _, _) in &puts[..3] {
        let of_key = puts.iter().filter(|(other, _, _)| other == key);
        let least = of_key.clone().rfind(|(_, _, number)| *number < acknowledged);
        let found = newest(&snapshot, key);
        let is_one = |(_, length, number): &&(_, usize, u64)| found == Some(bytes(*length, *number));
        match (of_key.clone().find(is_one), least) {
            (Some((_, _, number)), Some((_, _, least))) => assert!(number >= least, "{place}: too old"),
            (Some(_), None) => {}
            (None, least) => assert!(found.is_none() && least.is_none(), "{place}: lost or torn"),
        }
    }
    store.compact(LOG).unwrap();
    assert_eq!(
        parts_in(&store, LOG).len() as u64,
        named_parts(&store, LOG),
        "{place}"
    );
    let left = log.snapshot();
    for (key, _, _) in &puts[..3] {
        assert!(
            newest(&snapshot, key) == newest(&left, key),
            "{place}: after a compaction"
        );
    }
}

#[test]
fn no_crash_leaves_half_of_a_large_value() {
    let recording = Arc::new(RecordingDisk::new(memory()));
    let acknowledged = recorded_work(&recording);
    let operations = recording.operations();
    let mut replay = Replay::new(MemoryDisk::new());
    let mut random = Random::from_seed(11);
    for (done, operation) in operations.iter().enumerate() {
        replay.apply(operation).unwrap();
        let known = acknowledged.iter().rev().find(|(count, _)| *count <= done + 1);
        let known = known.map_or(0, |(_, puts)| *puts);
        let lost = done % 3;
        let image = replay.disk().crash_image(|_, _| match (lost, random.below(2)) {
            (0, _) | (2, 0) => Fate::Lost,
            _ => Fate::Kept,
        });
        check_crashed(
            image.unwrap(),
            known,
            &format!("after {done} operations, fate {lost}"),
        );
    }
    assert!(operations.len() > 150, "{}", operations.len());
}

/// Flips a bit wherever a file of slabs holds these bytes: closing a store may leave older copies of its newest messages.
fn flip_in_slabs(disk: &MemoryDisk, wanted: &[u8]) {
    let directory = Path::new("/store/segments");
    let mut flipped = 0;
    for name in disk.list(directory).unwrap() {
        if !name.ends_with(".slabs") {
            continue;
        }
        let file = disk.open(&directory.join(name), OpenMode::ReadWrite).unwrap();
        let mut bytes = vec![0; file.bytes().unwrap() as usize];
        read_full_at(&*file, 0, &mut bytes).unwrap();
        for (at, found) in bytes.windows(wanted.len()).enumerate() {
            if found == wanted {
                file.write_at(at as u64, &[found[0] ^ 1], Sync::No).unwrap();
                flipped += 1;
            }
        }
    }
    assert!(flipped > 0, "the bytes are in no slab");
}

#[test]
fn parts_that_cannot_be_read_go_too_and_a_message_that_cannot_keeps_its_parts() {
    // In the first slab small messages and four of the parts, in the next one the last part and the message.
    let value = bytes(60_000, 20);
    for (damaged, removed) in [(10_000, 1), (50_500, 0)] {
        let (disk, store) = keyed_store(options());
        for number in 0..50_u64 {
            put(&store, LOG, &number.to_le_bytes(), &[1; 100]);
        }
        let parts = put(&store, LOG, b"film", &value);
        put(&store, LOG, b"film", b"short");
        for number in 50..700_u64 {
            put(&store, LOG, &number.to_le_bytes(), &[1; 100]);
        }
        // Their keys are told in order, so that nobody has to read the slabs for them.
        settle(&store);
        store.checkpoint().unwrap();
        store.close().unwrap();
        flip_in_slabs(&disk, &value[damaged..damaged + 16]);
        let store = open(options(), &disk);
        let receipt = store.compact(LOG).unwrap();
        assert_eq!(receipt.removed, removed, "{damaged}");
        let kept = (1 - removed) * (parts.end - parts.start - 1);
        assert_eq!(parts_in(&store, LOG).len() as u64, kept, "{damaged}");
        let snapshot = store.log(LOG).unwrap().snapshot();
        assert!(newest(&snapshot, b"film").unwrap() == b"short", "{damaged}");
        for number in 0..50_u64 {
            assert!(
                newest(&snapshot, &number.to_le_bytes()).unwrap() == [1; 100],
                "{damaged}: {number}"
            );
        }
        assert_eq!(snapshot.get(parts.end).is_ok(), removed == 0, "{damaged}");
    }
}
