//! Promise: a keyed log is a table. The newest message of each key is found by its key, in the log, in snapshots, forks and
//! after every kind of end; compaction takes nothing but what newer messages supersede, keeps offsets, and keeps to its bound.
#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests fail by panicking, and their numbers are small"
)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::{memory, small};
use lanterman::disk::{Disk, Fate, MemoryDisk};
use lanterman::{
    Clock, Compression, Durability, Error, KeptMessage, Keyed, NewMessage, Options, Snapshot, Store,
    ValueType,
};

const LOG: &str = "table";

/// A clock that goes when it is told.
#[derive(Debug, Default)]
struct Hand {
    millis: AtomicU64,
}

impl Hand {
    fn advance(&self, by: Duration) {
        let millis = u64::try_from(by.as_millis()).unwrap();
        self.millis.fetch_add(millis, Ordering::Relaxed);
    }
}

impl Clock for Hand {
    fn wall_ms(&self) -> i64 {
        i64::try_from(self.millis.load(Ordering::Relaxed)).unwrap()
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.millis.load(Ordering::Relaxed))
    }
}

fn keyed_options() -> Options {
    small().compact(false)
}

fn open(options: Options, disk: &Arc<MemoryDisk>) -> Store {
    options
        .disk(Arc::clone(disk) as Arc<dyn Disk>)
        .open_copying(common::PATH)
        .unwrap()
}

fn keyed_store() -> (Arc<MemoryDisk>, Store) {
    let disk = memory();
    let store = open(keyed_options(), &disk);
    store.set_keyed(LOG, Some(&Keyed::new())).unwrap();
    (disk, store)
}

fn put(store: &Store, log: &str, key: &str, value: &[u8]) -> u64 {
    let mut writer = store.writer(log).unwrap();
    let message = NewMessage::new(value).key(key.as_bytes());
    writer.append_message(&message).unwrap().get()
}

fn value_of(message: Option<KeptMessage>) -> Option<Vec<u8>> {
    message.map(|message| message.value().to_vec())
}

/// Everything that is appended so far goes into slabs, and their keys into runs.
fn settle(store: &Store) {
    store.commit_all(Durability::Disk).unwrap();
    store.checkpoint().unwrap();
    while store.step().unwrap() {}
}

/// Enough messages of other keys for slabs to be closed.
fn fill(store: &Store, log: &str, from: u64, count: u64) {
    let mut writer = store.writer(log).unwrap();
    for number in from..from + count {
        let key = format!("filler {number:08}");
        writer
            .append_message(&NewMessage::new(&[7; 100]).key(key.as_bytes()))
            .unwrap();
    }
    writer.commit(Durability::Disk).unwrap();
}

#[test]
fn the_newest_message_of_a_key_is_found_wherever_it_stands() {
    let (disk, store) = keyed_store();
    put(&store, LOG, "a", b"first");
    put(&store, LOG, "b", b"only");
    put(&store, LOG, "a", b"second");
    let log = store.log(LOG).unwrap();
    assert_eq!(
        value_of(log.get_key(b"a").unwrap()),
        Some(b"second".to_vec()),
        "in memory"
    );
    let early = log.snapshot();
    fill(&store, LOG, 0, 3000);
    settle(&store);
    put(&store, LOG, "a", b"third");
    for (key, expected) in [("a", Some("third")), ("b", Some("only")), ("c", None), ("", None)] {
        let found = value_of(log.get_key(key.as_bytes()).unwrap());
        assert_eq!(found, expected.map(|value| value.as_bytes().to_vec()), "{key}");
    }
    assert_eq!(value_of(early.get_key(b"a").unwrap()), Some(b"second".to_vec()));
    assert_eq!(value_of(early.get_key(b"filler 00000001").unwrap()), None);
    store.commit_all(Durability::Disk).unwrap();
    drop((log, early, store));
    let again = open(keyed_options(), &disk);
    let log = again.log(LOG).unwrap();
    assert_eq!(log.keyed(), Some(Keyed::new()));
    assert_eq!(
        value_of(log.get_key(b"a").unwrap()),
        Some(b"third".to_vec()),
        "reopened"
    );
    assert_eq!(
        value_of(log.get_key(b"filler 00002999").unwrap()),
        Some(vec![7; 100])
    );
}

#[test]
fn a_snapshot_finds_keys_in_memory_that_a_larger_piece_has_taken_the_place_of() {
    let (_disk, store) = keyed_store();
    let mut writer = store.writer(LOG).unwrap();
    let put = |writer: &mut lanterman::Writer, value: u64| {
        let message = value.to_le_bytes();
        writer
            .append_message(&NewMessage::new(&message).key(b"key"))
            .unwrap();
    };
    put(&mut writer, 1);
    let before = store.log(LOG).unwrap().snapshot();
    assert_eq!(
        value_of(before.get_key(b"key").unwrap()),
        Some(1_u64.to_le_bytes().to_vec())
    );
    // The memory of a log grows; the snapshot keeps the piece that it had.
    (2..2_000).for_each(|value| put(&mut writer, value));
    let now = store.log(LOG).unwrap().get_key(b"key").unwrap();
    assert_eq!(value_of(now), Some(1_999_u64.to_le_bytes().to_vec()));
    assert_eq!(
        value_of(before.get_key(b"key").unwrap()),
        Some(1_u64.to_le_bytes().to_vec())
    );
    assert!(before.get_key(b"other").unwrap().is_none());
}

#[test]
fn a_scan_gives_the_newest_of_each_key_in_the_order_of_the_keys() {
    let (_disk, store) = keyed_store();
    for (key, value) in [("b", "1"), ("a", "2"), ("ab", "3"), ("b", "4"), ("\u{ff}", "5")] {
        put(&store, LOG, key, value.as_bytes());
    }
    fill(&store, LOG, 0, 2000);
    settle(&store);
    put(&store, LOG, "ab", b"6");
    store
        .writer(LOG)
        .unwrap()
        .append_message(&NewMessage::delete_marker(b"a"))
        .unwrap();
    let snapshot = store.log(LOG).unwrap().snapshot();
    let listed = |scan: lanterman::KeyScan| -> Vec<(String, String)> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        scan.map(|message| {
            let message = message.unwrap();
            (text(message.key().unwrap()), text(message.value()))
        })
        .collect()
    };
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    assert_eq!(listed(snapshot.scan_prefix(b"a").unwrap()), [pair("ab", "6")]);
    let range: Vec<_> = listed(snapshot.scan_keys(b"a".as_slice()..b"c".as_slice()).unwrap());
    assert_eq!(range, [pair("ab", "6"), pair("b", "4")]);
    let range: Vec<_> = listed(snapshot.scan_keys(b"ab".as_slice()..=b"b".as_slice()).unwrap());
    assert_eq!(range, [pair("ab", "6"), pair("b", "4")]);
    assert_eq!(
        listed(snapshot.scan_keys(b"\x80".as_slice()..).unwrap()),
        [pair("\u{ff}", "5")]
    );
    assert_eq!(snapshot.scan_prefix(b"filler ").unwrap().count(), 2000);
    assert_eq!(snapshot.scan_keys(..).unwrap().count(), 2003);
    assert_eq!(snapshot.scan_prefix(b"nothing").unwrap().count(), 0);
}

#[test]
fn a_message_without_a_key_is_refused_however_it_comes_and_leaves_no_trace() {
    let (_disk, store) = keyed_store();
    store.create_log("plain").unwrap();
    store.writer("plain").unwrap().append(b"unkeyed").unwrap();
    let refused = |outcome: Result<(), Error>| match outcome {
        Err(Error::KeyRequired { name }) => assert_eq!(name, LOG),
        other => panic!("not refused: {other:?}"),
    };
    let mut writer = store.writer(LOG).unwrap();
    refused(writer.append(b"x").map(|_| ()));
    refused(writer.append_message(&NewMessage::new(b"x")).map(|_| ()));
    refused(writer.reserve(8).map(|_| ()));
    let batch = [NewMessage::new(b"x").key(b"k"), NewMessage::new(b"y")];
    refused(writer.append_batch(batch).map(|_| ()));
    let next = writer.next_offset();
    refused(writer.append_if(next, &NewMessage::new(b"x")).map(|_| ()));
    drop(writer);
    let together = store.transaction(|transaction| {
        transaction.append("plain", b"with it")?;
        transaction.append_message(LOG, &NewMessage::new(b"x").key(b"k"))?;
        transaction.append(LOG, b"no key")
    });
    refused(together.map(|_| ()));
    refused(store.splice(LOG, "plain", ..).map(|_| ()));
    assert_eq!(store.log(LOG).unwrap().end().get(), 0);
    assert_eq!(store.log("plain").unwrap().end().get(), 1);
    let unkeyed = store.log("plain").unwrap().get_key(b"k");
    assert!(matches!(unkeyed, Err(Error::NotKeyed { .. })));
    assert!(matches!(store.compact("plain"), Err(Error::NotKeyed { .. })));
    let too_late = store.set_keyed("plain", Some(&Keyed::new()));
    assert!(matches!(too_late, Err(Error::NotEmpty { .. })));
    let no_room = store.set_keyed(LOG, Some(&Keyed::new().space_amplification_percent(100)));
    assert!(matches!(no_room, Err(Error::InvalidOption { .. })));
    store.writer("plain").unwrap().append(b"still unkeyed").unwrap();
    let long = vec![1; (64 << 10) + 1];
    let too_long = NewMessage::new(b"").key(&long);
    let outcome = store.writer(LOG).unwrap().append_message(&too_long);
    assert!(matches!(outcome, Err(Error::TooLarge { part: "key", .. })));
}

#[test]
fn keys_of_all_lengths_up_to_the_limit_are_found_behind_runs() {
    let (_disk, store) = keyed_store();
    let mut lengths: Vec<usize> = (0..40).collect();
    lengths.extend([100, 1000, 4000, 5000, 20_000, (64 << 10) - 1, 64 << 10]);
    let key = |length: usize, last: u8| {
        let mut key = vec![0xAB; length];
        key.push(last);
        key.truncate(64 << 10);
        key
    };
    let mut writer = store.writer(LOG).unwrap();
    for length in &lengths {
        for last in [0, 255] {
            let value = format!("{length} {last}");
            let key = key(*length, last);
            writer
                .append_message(&NewMessage::new(value.as_bytes()).key(&key))
                .unwrap();
        }
    }
    drop(writer);
    fill(&store, LOG, 0, 1000);
    settle(&store);
    let log = store.log(LOG).unwrap();
    for length in &lengths {
        let expected = if *length < 64 << 10 { 0 } else { 255 };
        let found = log.get_key(&key(*length, expected)).unwrap().unwrap();
        assert_eq!(found.value().as_ref(), format!("{length} {expected}").as_bytes());
    }
    let scanned: Vec<_> = log
        .snapshot()
        .scan_prefix(&[0xAB])
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert!(scanned.is_sorted_by(|one, next| one.key() < next.key()));
    assert_eq!(
        scanned.len(),
        lengths.len() * 2 - 3,
        "the keys that begin so, the longest cut to one"
    );
}

#[test]
fn compaction_takes_what_is_superseded_and_nothing_else() {
    let (disk, store) = keyed_store();
    for round in 0..20_u64 {
        for key in 0..200 {
            put(
                &store,
                LOG,
                &format!("key {key:04}"),
                &[u8::try_from(round).unwrap(); 100],
            );
        }
    }
    settle(&store);
    let before = store.log(LOG).unwrap().snapshot();
    let plan = store.plan_compaction(LOG).unwrap();
    assert_eq!(plan.keys, 200);
    assert!(plan.superseded >= 3700, "{plan:?}");
    let receipt = store.compact(LOG).unwrap();
    assert_eq!(
        (receipt.removed, receipt.removed_bytes),
        (plan.superseded, plan.superseded_bytes)
    );
    assert_eq!(store.plan_compaction(LOG).unwrap().superseded, 0);
    let check = |store: &Store| {
        let log = store.log(LOG).unwrap();
        assert_eq!(log.end().get(), 4000, "offsets stay");
        let left: Vec<_> = log.snapshot().range(0..).unwrap().map(Result::unwrap).collect();
        assert_eq!(left.len() as u64, 4000 - receipt.removed);
        for key in 0..200 {
            let found = log.get_key(format!("key {key:04}").as_bytes()).unwrap().unwrap();
            assert_eq!(
                (found.offset().get(), found.value().as_ref()),
                (3800 + key, [19; 100].as_slice())
            );
        }
        assert_eq!(log.snapshot().scan_keys(..).unwrap().count(), 200);
    };
    check(&store);
    assert_eq!(
        before.range(0..).unwrap().count(),
        4000,
        "a snapshot keeps what it has"
    );
    assert_eq!(
        value_of(before.get_key(b"key 0007").unwrap()),
        Some(vec![19; 100])
    );
    drop(before);
    settle(&store);
    let freed = store.collect().unwrap();
    assert!(freed.held.is_empty(), "{freed:?}");
    check(&store);
    let crashed = Arc::new(disk.crash_image(|_, _| Fate::Lost).unwrap());
    drop(store);
    check(&open(keyed_options(), &crashed));
}

#[test]
fn what_a_deleted_message_superseded_is_the_newest_again_and_stays() {
    let (disk, store) = keyed_store();
    let old = put(&store, LOG, "a", b"old");
    fill(&store, LOG, 0, 1000);
    let new = put(&store, LOG, "a", b"new");
    fill(&store, LOG, 1000, 1000);
    settle(&store);
    store.delete(LOG, new..=new).unwrap();
    let found = |store: &Store| {
        let found = store.log(LOG).unwrap().get_key(b"a").unwrap();
        found.map(|message| message.offset().get())
    };
    assert_eq!(found(&store), Some(old));
    assert_eq!(store.compact(LOG).unwrap().removed, 0);
    assert_eq!(found(&store), Some(old));
    settle(&store);
    // Written anew without the deleted one, of which runs still tell.
    store.collect().unwrap();
    assert_eq!(store.compact(LOG).unwrap().removed, 0);
    assert_eq!(found(&store), Some(old));
    assert_eq!(
        store
            .log(LOG)
            .unwrap()
            .snapshot()
            .scan_prefix(b"a")
            .unwrap()
            .count(),
        1
    );
    drop(store);
    assert_eq!(found(&open(keyed_options(), &disk)), Some(old));
}

#[test]
fn a_marker_stays_for_its_grace_and_until_the_slowest_cursor_has_seen_it() {
    let disk = memory();
    let clock = Arc::new(Hand::default());
    let store = open(keyed_options().clock(Arc::clone(&clock) as Arc<dyn Clock>), &disk);
    let hour = Duration::from_secs(3600);
    store
        .set_keyed(LOG, Some(&Keyed::new().marker_grace(hour)))
        .unwrap();
    let first = put(&store, LOG, "a", b"value");
    let marker = {
        let mut writer = store.writer(LOG).unwrap();
        writer
            .append_message(&NewMessage::delete_marker(b"a"))
            .unwrap()
            .get()
    };
    fill(&store, LOG, 0, 1500);
    settle(&store);
    let log = store.log(LOG).unwrap();
    let has = |offset: u64| match log.snapshot().get(offset) {
        Ok(_) => true,
        Err(Error::Deleted { .. }) => false,
        Err(error) => panic!("{error}"),
    };
    assert!(log.get_key(b"a").unwrap().is_none());
    store.compact(LOG).unwrap();
    assert_eq!((has(first), has(marker)), (false, true), "its grace is not over");
    let slow = log.cursor(marker).unwrap();
    clock.advance(hour * 2);
    store.compact(LOG).unwrap();
    assert!(has(marker), "a cursor stands before it");
    drop(slow);
    let fast = log.cursor(marker + 1).unwrap();
    store.compact(LOG).unwrap();
    assert!(!has(marker));
    assert!(log.get_key(b"a").unwrap().is_none());
    drop(fast);
    settle(&store);
    assert!(log.get_key(b"a").unwrap().is_none());
    assert_eq!(
        value_of(log.get_key(b"filler 00000000").unwrap()),
        Some(vec![7; 100])
    );
}

#[test]
fn the_background_keeps_to_the_bound_on_space() {
    let disk = memory();
    let clock = Arc::new(Hand::default());
    let options = small().clock(Arc::clone(&clock) as Arc<dyn Clock>);
    let store = open(options, &disk);
    store.set_keyed(LOG, Some(&Keyed::new())).unwrap();
    let mut most = 0.0_f64;
    for round in 0..200_u64 {
        for key in 0..100 {
            put(
                &store,
                LOG,
                &format!("key {:04}", (key * 7 + round) % 400),
                &[1; 200],
            );
        }
        store.commit_all(Durability::Disk).unwrap();
        clock.advance(Duration::from_secs(2));
        for _ in 0..30 {
            store.step().unwrap();
            clock.advance(Duration::from_millis(100));
        }
        let in_log = store.log(LOG).unwrap().snapshot().summary().unwrap().messages();
        if round >= 20 {
            // One slab may wait in memory beside what the bound is about.
            let in_memory = (64 << 10) / 240;
            let ratio = (in_log - in_memory.min(in_log)) as f64 / 400.0;
            most = most.max(ratio);
        }
    }
    assert!(most <= 1.5, "{most}");
    let readings = store.counters();
    assert!(readings.compaction_removed_bytes > 0);
    assert_eq!(
        store.log(LOG).unwrap().snapshot().scan_keys(..).unwrap().count(),
        400
    );
}

#[test]
fn forks_and_splices_of_keyed_logs_are_tables_of_their_own() {
    let (_disk, store) = keyed_store();
    put(&store, LOG, "a", b"old");
    fill(&store, LOG, 0, 2000);
    settle(&store);
    store.fork(LOG, "fork").unwrap();
    put(&store, LOG, "a", b"new");
    fill(&store, LOG, 0, 2000);
    settle(&store);
    store.compact(LOG).unwrap();
    let get = |log: &str, key: &str| value_of(store.log(log).unwrap().get_key(key.as_bytes()).unwrap());
    assert_eq!(get("fork", "a"), Some(b"old".to_vec()));
    assert_eq!(get(LOG, "a"), Some(b"new".to_vec()));
    assert!(matches!(
        store.writer("fork").unwrap().append(b"x"),
        Err(Error::KeyRequired { .. })
    ));
    store.set_keyed("joined", Some(&Keyed::new())).unwrap();
    put(&store, "joined", "a", b"before");
    store.splice("joined", "fork", ..).unwrap();
    assert_eq!(get("joined", "a"), Some(b"old".to_vec()));
    store.splice("joined", LOG, ..).unwrap();
    assert_eq!(get("joined", "a"), Some(b"new".to_vec()));
    put(&store, "joined", "z", b"end");
    settle(&store);
    store.compact("joined").unwrap();
    settle(&store);
    store.collect().unwrap();
    for log in ["joined", LOG, "fork"] {
        let count = store.log(log).unwrap().snapshot().scan_keys(..).unwrap().count();
        assert_eq!(count, 2001 + usize::from(log == "joined"), "{log}");
    }
    assert_eq!(get("joined", "a"), Some(b"new".to_vec()));
    assert_eq!(get("fork", "a"), Some(b"old".to_vec()));
}

/// A message of the model: its key, and its value if it is no marker.
type Row = (Vec<u8>, Option<Vec<u8>>);

/// What a keyed log must hold, by offset.
#[derive(Clone, Default)]
struct Model {
    rows: BTreeMap<u64, Row>,
}

impl Model {
    fn table(&self) -> BTreeMap<&[u8], (u64, &Option<Vec<u8>>)> {
        let newest = self.rows.iter();
        newest
            .map(|(offset, (key, value))| (key.as_slice(), (*offset, value)))
            .collect()
    }

    /// Takes over what compaction removed, if it may have.
    fn follow(&mut self, store: &Store, seed: u64) {
        let snapshot = store.log(LOG).unwrap().snapshot();
        let left: BTreeMap<u64, Row> = snapshot
            .range(0..)
            .unwrap()
            .map(|message| {
                let message = message.unwrap();
                let is_marker = message.value_type() == ValueType::NIL;
                let value = (!is_marker).then(|| message.value().to_vec());
                (message.offset().get(), (message.key().unwrap().to_vec(), value))
            })
            .collect();
        let newest: BTreeSet<u64> = self.table().values().map(|(offset, _)| *offset).collect();
        for (offset, row) in &self.rows {
            let is_there = left.get(offset) == Some(row);
            assert!(
                is_there || !newest.contains(offset),
                "seed {seed}: the newest, at {offset}, is gone"
            );
        }
        let mut back = left.keys().filter(|offset| !self.rows.contains_key(offset));
        assert_eq!(back.next(), None, "seed {seed}: it came back");
        self.rows = left;
    }

    fn check(&self, snapshot: &Snapshot, seed: u64) {
        let table = self.table();
        for number in 0..KEYS {
            let key = model_key(number);
            let expected = table.get(key.as_slice()).and_then(|(_, value)| (*value).clone());
            let found = value_of(snapshot.get_key(&key).unwrap());
            assert_eq!(found, expected, "seed {seed}: {}", String::from_utf8_lossy(&key));
        }
        let expected: Vec<_> = table
            .iter()
            .filter_map(|(key, (offset, value))| (*value).as_ref().map(|_| (key.to_vec(), *offset)))
            .collect();
        let found: Vec<_> = snapshot
            .scan_keys(..)
            .unwrap()
            .map(|message| {
                let message = message.unwrap();
                (message.key().unwrap().to_vec(), message.offset().get())
            })
            .collect();
        assert_eq!(found, expected, "seed {seed}");
    }
}

const KEYS: u64 = 60;

fn model_key(number: u64) -> Vec<u8> {
    // Some share beginnings, some are prefixes of others.
    match number % 3 {
        0 => format!("k{}", number / 3).into_bytes(),
        1 => format!("shared beginning {:05}", number / 3).into_bytes(),
        _ => vec![0xFE; usize::try_from(number / 3).unwrap()],
    }
}

/// A generator of numbers whose seed replays them (Steele, Lea, Flood, Fast Splittable Pseudorandom Number Generators, 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

fn run_model(seed: u64, steps: u64) {
    let mut random = Random(seed);
    let mut disk = memory();
    let options = || small().compact(seed.is_multiple_of(2));
    let mut store = open(options(), &disk);
    // Markers must not go: whether one may is a matter of time.
    store.set_keyed(LOG, Some(&Keyed::new())).unwrap();
    // Every third table is compressed.
    let compression = seed
        .is_multiple_of(3)
        .then(|| Compression::lz4().with_batch_bytes(4 << 10));
    store.set_compression(LOG, compression.as_ref()).unwrap();
    let mut model = Model::default();
    let mut held: Vec<(Snapshot, Model)> = Vec::new();
    for step in 0..steps {
        match random.below(20) {
            0..=8 => {
                let mut writer = store.writer(LOG).unwrap();
                for _ in 0..random.below(80) {
                    let key = model_key(random.below(KEYS));
                    let length = usize::try_from(random.below(600)).unwrap();
                    let value = vec![u8::try_from(step % 251).unwrap(); length];
                    let is_marker = random.below(10) == 0;
                    let message = match is_marker {
                        true => NewMessage::delete_marker(&key),
                        false => NewMessage::new(&value).key(&key),
                    };
                    let offset = writer.append_message(&message).unwrap().get();
                    model.rows.insert(offset, (key, (!is_marker).then_some(value)));
                }
                if random.below(2) == 0 {
                    writer.commit(Durability::Disk).unwrap();
                }
            }
            9 => {
                let end = store.log(LOG).unwrap().end().get();
                let first = random.below(end + 1);
                let until = first + random.below((end - first).min(50) + 1);
                store.delete(LOG, first..until).unwrap();
                model.rows.retain(|offset, _| !(first..until).contains(offset));
            }
            10 => {
                let start = store.log(LOG).unwrap().start().get();
                let end = store.log(LOG).unwrap().end().get();
                let first = (start + random.below(200)).min(end);
                store.delete(LOG, ..first).unwrap();
                model.rows.retain(|offset, _| *offset >= first);
            }
            11..=12 => {
                store.compact(LOG).unwrap();
                model.follow(&store, seed);
            }
            13 => {
                store.checkpoint().unwrap();
            }
            14..=15 => {
                for _ in 0..random.below(10) {
                    store.step().unwrap();
                }
                model.follow(&store, seed);
            }
            16 => {
                if held.len() < 3 {
                    held.push((store.log(LOG).unwrap().snapshot(), model.clone()));
                } else {
                    let (snapshot, then) = held.remove(usize::try_from(random.below(3)).unwrap());
                    then.check(&snapshot, seed);
                }
            }
            17 => {
                store.collect().unwrap();
            }
            18 => {
                store.commit_all(Durability::Disk).unwrap();
                held.clear();
                let crashed = Arc::new(
                    disk.crash_image(|_, _| match random.below(2) {
                        0 => Fate::Lost,
                        _ => Fate::Kept,
                    })
                    .unwrap(),
                );
                drop(store);
                disk = crashed;
                store = open(options(), &disk);
                // What was removed in versions that are durable stays so; runs may be older.
                model.follow(&store, seed);
            }
            _ if model.rows.is_empty() => {}
            _ => {
                let fork = format!("fork {step}");
                store.fork(LOG, &fork).unwrap();
                model.check(&store.log(&fork).unwrap().snapshot(), seed);
                store.drop_log(LOG).unwrap();
                store.set_keyed(LOG, Some(&Keyed::new())).unwrap();
                store.set_compression(LOG, compression.as_ref()).unwrap();
                store.splice(LOG, &fork, ..).unwrap();
                let first = store.log(&fork).unwrap().start().get();
                model.rows = std::mem::take(&mut model.rows)
                    .into_iter()
                    .map(|(offset, row)| (offset - first, row))
                    .collect();
                store.drop_log(&fork).unwrap();
            }
        }
        model.check(&store.log(LOG).unwrap().snapshot(), seed);
    }
    for (snapshot, then) in held {
        then.check(&snapshot, seed);
    }
}

#[test]
fn what_a_compaction_removed_from_a_tail_slab_stays_away_when_it_is_replayed_and_appended_to() {
    let (disk, store) = keyed_store();
    for round in 0..3 {
        for key in ["a", "b", "c"] {
            put(&store, LOG, key, &[round; 50]);
        }
    }
    store.commit_all(Durability::Disk).unwrap();
    // The checkpoint has a tail slab; what compaction makes of it is in the journal alone.
    store.checkpoint().unwrap();
    assert_eq!(store.compact(LOG).unwrap().removed, 6);
    put(&store, LOG, "d", b"behind it");
    store.commit_all(Durability::Disk).unwrap();
    assert_eq!(common::offsets(&store, LOG), [6, 7, 8, 9]);
    let crashed = Arc::new(disk.crash_image(|_, _| Fate::Lost).unwrap());
    let again = open(keyed_options(), &crashed);
    assert_eq!(common::offsets(&again, LOG), [6, 7, 8, 9]);
    // Every message but the first is gone, and not only those at the beginning.
    put(&store, LOG, "b", b"newest");
    put(&store, LOG, "c", b"newest");
    store.commit_all(Durability::Disk).unwrap();
    store.checkpoint().unwrap();
    assert_eq!(store.compact(LOG).unwrap().removed, 2);
    put(&store, LOG, "e", b"behind it");
    store.commit_all(Durability::Disk).unwrap();
    let crashed = Arc::new(disk.crash_image(|_, _| Fate::Lost).unwrap());
    let again = open(keyed_options(), &crashed);
    assert_eq!(common::offsets(&again, LOG), [6, 9, 10, 11, 12]);
}

#[test]
fn what_a_compaction_removed_amid_a_tail_slab_stays_away_behind_a_replay() {
    let (disk, store) = keyed_store();
    for (key, value) in [("first", "1"), ("a", "old"), ("b", "2"), ("a", "new")] {
        put(&store, LOG, key, value.as_bytes());
    }
    store.commit_all(Durability::Disk).unwrap();
    store.delete(LOG, 2..3).unwrap();
    // The tail slab of the checkpoint has the old message, and no chunk can take its messages up, since one is deleted. That
    // the old one is gone too is in the journal alone.
    store.checkpoint().unwrap();
    assert_eq!(store.compact(LOG).unwrap().removed, 1);
    let mut left = vec![0, 3];
    for behind in ["in the journal", "by the next process", "by the one after it"] {
        let crashed = Arc::new(disk.crash_image(|_, _| Fate::Lost).unwrap());
        let again = open(keyed_options(), &crashed);
        assert_eq!(common::offsets(&again, LOG), left);
        // What is appended makes the tail slab a part of the tree.
        left.push(put(&again, LOG, behind, b"behind it"));
        assert_eq!(common::offsets(&again, LOG), left, "{behind}");
        again.commit_all(Durability::Disk).unwrap();
        again.checkpoint().unwrap();
        drop(again);
        assert_eq!(put(&store, LOG, behind, b"behind it"), left[left.len() - 1]);
        store.commit_all(Durability::Disk).unwrap();
    }
}

#[test]
fn a_keyed_log_agrees_with_a_table_in_memory() {
    for seed in 0..12 {
        run_model(seed, 120);
    }
}

#[test]
#[ignore = "the long form: LANTERMAN_SEEDS says how many"]
fn a_keyed_log_agrees_with_a_table_in_memory_for_many_seeds() {
    let seeds = std::env::var("LANTERMAN_SEEDS").map_or(200, |seeds| seeds.parse().unwrap());
    for seed in 0..seeds {
        run_model(seed, 300);
    }
}
