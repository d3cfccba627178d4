//! Promise: what leads to messages, nodes of trees and open slabs, takes no more memory than it may, however many slabs are read
//! or written, and whoever reads on goes on reading the same. Shown by counting every byte that is allocated.
#![allow(
    unsafe_code,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "counts allocations, opens by mapping, and tests fail by panicking"
)]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};

use common::small;
use lanterman::{Durability, Options, Prefetch, Store};

/// Counts the bytes that are allocated now.
struct Counting;

static ALLOCATED: AtomicI64 = AtomicI64::new(0);
/// Tests that count do so one at a time.
static COUNTING: Mutex<()> = Mutex::new(());

// SAFETY: every call is the system allocator's own, with the arguments that the caller answers for.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(layout.size() as i64, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        ALLOCATED.fetch_sub(layout.size() as i64, Ordering::Relaxed);
        // SAFETY: the pointer came from `alloc` above with this layout, as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const INDEX_BYTES: u64 = 64 << 10;
/// Slabs of the log; all open they take about 0.8 KiB each.
const SLABS: u64 = 4096;
/// What may be there at any time: the bound, once more what came since and is on its way out, and the spine of a tree.
const ALLOWED_BYTES: i64 = 6 * INDEX_BYTES as i64;
const VALUE_BYTES: usize = 12 << 10;

fn allocated() -> i64 {
    ALLOCATED.load(Ordering::Relaxed)
}

fn options() -> Options {
    small().index_memory_bytes(INDEX_BYTES)
}

fn open(path: &Path) -> Store {
    // SAFETY: no other program has the files of the test.
    unsafe { options().open(path) }.unwrap()
}

fn value(number: u64) -> Vec<u8> {
    let mut value = number.to_le_bytes().to_vec();
    value.resize(VALUE_BYTES, number as u8);
    value
}

/// A log of sixteen slabs of its own that is put behind itself until it has [`SLABS`]; gives how many messages it has.
fn prepare(path: &Path) -> u64 {
    let store = open(path);
    let mut writer = store.writer("log").unwrap();
    let mut own = 0;
    while store.counters().slabs_written < 16 {
        writer.append(&value(own)).unwrap();
        own += 1;
        writer.commit(Durability::Process).unwrap();
        store.step().unwrap();
    }
    writer.commit(Durability::Disk).unwrap();
    drop(writer);
    store.checkpoint().unwrap();
    let mut slabs = 16;
    let mut end = own;
    while slabs < SLABS {
        let whole = store.fork("log", "copy");
        whole.unwrap();
        store.concat("log", "copy").unwrap();
        store.drop_log("copy").unwrap();
        slabs *= 2;
        end *= 2;
    }
    store.close().unwrap();
    end
}

#[test]
fn a_scan_a_random_reader_and_a_snapshot_hold_no_more_than_they_may() {
    let _one = COUNTING.lock().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let end = prepare(&path);
    let store = open(&path);
    let log = store.log("log").unwrap();
    let own = end / (SLABS / 16);

    let before = allocated();
    // Reading ahead loads what leads to the messages before the reader comes there.
    for policy in [Prefetch::Automatic, Prefetch::Off] {
        let mut highest = 0;
        let mut cursor = log.cursor(0_u64).unwrap().with_prefetch(policy);
        let mut read = 0;
        while let Some(message) = cursor.next().unwrap() {
            assert_eq!(message.value()[..8], (read % own).to_le_bytes());
            read += 1;
            highest = highest.max(allocated() - before);
        }
        assert_eq!(read, end);
        assert!(highest < ALLOWED_BYTES, "{policy:?}: a scan held {highest} bytes");
    }

    let mut cursor = log.cursor(0_u64).unwrap();
    let mut highest = 0;
    for turn in 0..end {
        let offset = turn.wrapping_mul(7919) % end;
        assert_eq!(
            cursor.get(offset).unwrap().value()[..8],
            (offset % own).to_le_bytes()
        );
        highest = highest.max(allocated() - before);
    }
    drop(cursor);
    assert!(highest < ALLOWED_BYTES, "a random reader held {highest} bytes");

    let snapshot = log.snapshot();
    let mut highest = 0;
    for (number, message) in snapshot.range(..).unwrap().enumerate() {
        assert_eq!(message.unwrap().value()[..8], (number as u64 % own).to_le_bytes());
        highest = highest.max(allocated() - before);
    }
    assert!(
        highest < ALLOWED_BYTES,
        "a scan of a snapshot held {highest} bytes"
    );
    assert!(store.counters().index_trims > 0);
}

#[test]
fn a_writer_holds_no_more_than_it_may_however_many_slabs_it_writes() {
    let _one = COUNTING.lock().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    // Few segments, since each takes memory of its own.
    let store = options()
        .journal_bytes_max(64 << 20)
        .slab_segment_bytes(1 << 20, 64 << 20)
        .journal_segment_bytes(1 << 20, 16 << 20);
    // SAFETY: no other program has the files of the test.
    let store = unsafe { store.open(&path) }.unwrap();
    let mut writer = store.writer("log").unwrap();
    let value = vec![7; 60_000];
    let mut highest = 0;
    let mut before = None;
    while store.counters().slabs_written < 3000 {
        writer.append(&value).unwrap();
        // What is not committed is in no checkpoint, and can be had from nowhere else.
        writer.commit(Durability::Process).unwrap();
        store.step().unwrap();
        // The first ones bring what a store has but once.
        if store.counters().slabs_written >= 50 {
            highest = highest.max(allocated() - *before.get_or_insert_with(allocated));
        }
    }
    assert!(highest < ALLOWED_BYTES, "a writer held {highest} bytes");
    let kept = store.log("log").unwrap().snapshot().get(7).unwrap();
    assert_eq!(kept.value().as_ref(), value);
}
