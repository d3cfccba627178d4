//! Promise: a log that nobody uses costs little memory, whether it was written to by this process or found when the store
//! was opened, and looking for garbage takes little more. Shown by counting what is allocated while many logs are made and
//! come to rest, and what a collection takes at its height.
//!
//! This is a test program of its own, since the count is that of the whole process.
#![allow(
    clippy::unwrap_used,
    unsafe_code,
    reason = "a test stops at the first surprise; an allocator that counts is an unsafe trait"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use lanterman::{Background, Options, Store};

/// The system's allocator, and how many bytes it has given out, with what it keeps for each piece.
struct Counting;

static ALLOCATED: AtomicUsize = AtomicUsize::new(0);
/// The most that it was since it was last asked for.
static PEAK: AtomicUsize = AtomicUsize::new(0);

/// What an allocator keeps for each piece.
const PIECE_BYTES: usize = 16;

// SAFETY: every call is handed on as it came, and the system's allocator keeps the contract.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let bytes = layout.size() + PIECE_BYTES;
        let allocated = ALLOCATED.fetch_add(bytes, Ordering::Relaxed) + bytes;
        PEAK.fetch_max(allocated, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        ALLOCATED.fetch_sub(layout.size() + PIECE_BYTES, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `dealloc`, and every piece came from the system's allocator.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

const LOGS: usize = 16_000;
/// What one log may take, a little less than a kilobyte of resident memory: pages have holes.
const BYTES_A_LOG_MAX: usize = 940;
/// What one that was found when the store was opened may take, as long as nobody asks for it.
const FOUND_BYTES_A_LOG_MAX: usize = 8;
/// What looking for garbage may take for one log beside the log itself: a place in a list of all logs, with room to spare.
const COLLECTED_BYTES_A_LOG_MAX: usize = 12;

/// The count is that of the whole process: one store at a time.
static ONE: Mutex<()> = Mutex::new(());

fn allocated() -> usize {
    ALLOCATED.load(Ordering::Relaxed)
}

fn bytes_a_log(before: usize) -> usize {
    allocated().saturating_sub(before) / LOGS
}

fn fill(store: &Store) {
    let names: Vec<String> = (0..LOGS).map(|number| format!("log {number}")).collect();
    for part in names.chunks(500) {
        store
            .transaction(|transaction| {
                part.iter()
                    .try_for_each(|name| transaction.append(name, b"a message").map(drop))
            })
            .unwrap();
        store.checkpoint().unwrap();
    }
    // Logs give their memory back at the first checkpoint that does not concern them.
    store
        .transaction(|transaction| transaction.append("last", b"a message"))
        .unwrap();
    store.checkpoint().unwrap();
}

#[test]
fn an_idle_log_takes_less_than_a_kilobyte() {
    let _one = ONE.lock();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let options = || Options::new().background(Background::Manual);
    let store = options().open_copying(&path).unwrap();
    let before = allocated();
    fill(&store);
    // What was replaced is destroyed some turns later.
    (0..1_000).for_each(|_| drop(store.log("last").unwrap().cursor(0u64).unwrap()));
    let written = bytes_a_log(before);
    store.close().unwrap();
    let before = allocated();
    // Mapped, since copies of what was looked at are kept, within bounds.
    // SAFETY: nobody else knows the directory.
    let store = unsafe { options().open(&path) }.unwrap();
    let found = bytes_a_log(before);
    // The first one looks into all logs, for what may have been deleted before the store was opened.
    store.collect().unwrap();
    let looked_at = bytes_a_log(before);
    store.close().unwrap();
    assert!(
        written <= BYTES_A_LOG_MAX,
        "{written} bytes a log that was written to"
    );
    assert!(
        found <= FOUND_BYTES_A_LOG_MAX,
        "{found} bytes a log that was found"
    );
    assert!(
        looked_at <= FOUND_BYTES_A_LOG_MAX,
        "{looked_at} bytes a log that was looked at"
    );
}

#[test]
fn a_look_for_garbage_takes_next_to_nothing_for_an_idle_log() {
    let _one = ONE.lock();
    let directory = tempfile::tempdir().unwrap();
    let options = Options::new().background(Background::Manual);
    let store = options.open_copying(directory.path().join("store")).unwrap();
    fill(&store);
    // The first one also opens all tails, for what may have been deleted before the store was opened.
    store.collect().unwrap();
    let before = allocated();
    PEAK.store(before, Ordering::Relaxed);
    store.collect().unwrap();
    let taken = PEAK.load(Ordering::Relaxed).saturating_sub(before) / LOGS;
    store.close().unwrap();
    assert!(
        taken <= COLLECTED_BYTES_A_LOG_MAX,
        "{taken} bytes a log for a collection"
    );
}
