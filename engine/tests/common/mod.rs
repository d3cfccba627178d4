//! What the tests of promises share: small limits, values that tell their offset, comparison without long output.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::cast_possible_truncation,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "each test uses a part of this; tests fail by panicking, and their numbers are small"
)]

pub mod model;
pub mod stages;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use lanterman::disk::{Disk, Fate, MemoryDisk};
use lanterman::{Background, Clock, Durability, Error, Options, Store};

pub const PATH: &str = "/store";

/// Limits so small that growing, sealing, rolling and checkpoints happen in a short test; no thread in the background.
pub fn small() -> Options {
    Options::new()
        .background(Background::Manual)
        .slab_bytes_max(64 << 10)
        .tail_memory_bytes(1 << 20)
        .journal_bytes_max(64 << 10)
        .slab_segment_bytes(64 << 10, 512 << 10)
        .journal_segment_bytes(64 << 10, 128 << 10)
}

/// The same with slabs that are large enough to be adopted and not copied into the journal.
pub fn large_slabs() -> Options {
    small()
        .slab_bytes_max(1 << 20)
        .tail_memory_bytes(4 << 20)
        .slab_segment_bytes(1 << 20, 4 << 20)
}

pub fn open_on(disk: Arc<dyn Disk>) -> Store {
    small().disk(disk).open_copying(PATH).unwrap()
}

pub fn memory() -> Arc<MemoryDisk> {
    Arc::new(MemoryDisk::new())
}

/// A value that says which it is, of a length that varies.
pub fn value(number: u64) -> Vec<u8> {
    let mut value = number.to_le_bytes().to_vec();
    value.resize(8 + (number as usize * 37) % 400, number as u8);
    value
}

/// Checks that the log holds exactly the values from `first` on, as many as it says; gives its end.
pub fn check_values(store: &Store, log: &str, first: u64) -> u64 {
    let Ok(log) = store.log(log) else { return 0 };
    let end = log.end().get();
    let mut cursor = log.cursor(0u64).unwrap();
    for offset in 0..end {
        let message = cursor.next().unwrap().expect("a message below the end");
        assert!(
            message.offset().get() == offset,
            "offset {} where {offset} must be",
            message.offset()
        );
        assert!(
            message.value() == value(first + offset),
            "another value at {offset}"
        );
    }
    assert!(cursor.next().unwrap().is_none(), "a message behind the end");
    end
}

/// Appends values to a log and commits them.
pub fn append(store: &Store, name: &str, values: std::ops::Range<u64>) {
    let mut writer = store.writer(name).unwrap();
    for number in values {
        writer.append(&value(number)).unwrap();
    }
    writer.commit(Durability::Disk).unwrap();
}

/// Offset behind the last message of a log.
pub fn end(store: &Store, name: &str) -> u64 {
    store.log(name).unwrap().end().get()
}

/// The offsets of a log's messages.
pub fn offsets(store: &Store, name: &str) -> Vec<u64> {
    let snapshot = store.snapshot(name).unwrap();
    let messages = snapshot.range(..).unwrap();
    messages.map(|message| message.unwrap().offset().get()).collect()
}

/// The store after a crash, after a power cut, and after closing.
pub fn lives(disk: &Arc<MemoryDisk>, store: Store) -> Vec<(&'static str, Store)> {
    let killed = open_on(Arc::new(disk.kill_image().unwrap()));
    let cut = open_on(Arc::new(disk.crash_image(|_, _| Fate::Lost).unwrap()));
    store.clone().close().unwrap();
    drop(store);
    let closed = open_on(disk.clone());
    vec![("killed", killed), ("cut", cut), ("closed", closed)]
}

/// A clock that stands still, and stops a thread where it looks at it: one named "stopped" where it asks how long
/// something took or lies back, as a commit does while its block is being written, and a checkpoint before it makes a slab
/// or a tail, and when it has written its root; one
/// named "stopped early" where it asks for the time of day, as a checkpoint does before it writes its first block.
#[derive(Debug, Default)]
pub struct Stopping {
    stopped: AtomicBool,
    released: AtomicBool,
    looks: AtomicU64,
}

impl Stopping {
    fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        while !self.released.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
    }

    pub fn wait_until_stopped(&self) {
        while !self.stopped.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
    }

    pub fn release(&self) {
        self.released.store(true, Ordering::SeqCst);
    }

    /// How often other threads have looked.
    pub fn looks(&self) -> u64 {
        self.looks.load(Ordering::SeqCst)
    }
}

impl Clock for Stopping {
    fn wall_ms(&self) -> i64 {
        if std::thread::current().name() == Some("stopped early") {
            self.stop();
        }
        1_700_000_000_000
    }

    fn monotonic(&self) -> Duration {
        if std::thread::current().name() == Some("stopped") {
            self.stop();
        } else {
            self.looks.fetch_add(1, Ordering::SeqCst);
        }
        Duration::ZERO
    }
}

/// A clock that a test moves; what it shows is both the time of day and how long the system runs.
#[derive(Debug)]
pub struct MovedClock(AtomicI64);

impl MovedClock {
    pub fn at(wall_ms: i64) -> Arc<Self> {
        Arc::new(MovedClock(AtomicI64::new(wall_ms)))
    }

    pub fn pass(&self, ms: i64) {
        self.0.fetch_add(ms, Ordering::Relaxed);
    }

    pub fn set(&self, wall_ms: i64) {
        self.0.store(wall_ms, Ordering::Relaxed);
    }
}

impl Clock for MovedClock {
    fn wall_ms(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed) as u64)
    }
}

/// The offsets of a log that have a part of a large value.
pub fn parts_in(store: &Store, name: &str) -> Vec<u64> {
    let snapshot = store.snapshot(name).unwrap();
    let mut cursor = snapshot.cursor(snapshot.start()).unwrap();
    let offsets = snapshot.start().get()..snapshot.end().get();
    let is_part = |offset: &u64| matches!(cursor.get(*offset), Err(Error::PartOfValue { .. }));
    offsets.filter(is_part).collect()
}
