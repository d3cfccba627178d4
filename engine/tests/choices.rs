//! Promise: what the store chooses by itself follows what its logs really get, within limits, and it says what it chose and
//! why; the same under the same clock.
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::unwrap_used,
    reason = "tests fail by panicking, and their numbers are small"
)]

mod common;

use std::sync::Arc;

use common::{MovedClock, memory};
use lanterman::disk::Disk;
use lanterman::{Background, Choice, Durability, Options, Store};

const MOST: u64 = 1 << 20;
const LEAST: u64 = 64 << 10;
const MINUTE_MS: i64 = 60_000;

fn open(disk: Arc<dyn Disk>, clock: &Arc<MovedClock>) -> Store {
    Options::new()
        .background(Background::Manual)
        .clock(clock.clone())
        .slab_bytes_max(MOST)
        .tail_memory_bytes(16 << 20)
        .disk(disk)
        .open_copying(common::PATH)
        .unwrap()
}

fn slab_bytes(store: &Store) -> Choice {
    let choices = store.log("events").unwrap().choices();
    let choice = choices
        .into_iter()
        .find(|choice| choice.name == "slab_bytes")
        .unwrap();
    assert!((choice.least..=choice.most).contains(&choice.value), "{choice}");
    choice
}

/// Appends messages over so many milliseconds, and commits them.
fn append(store: &Store, clock: &MovedClock, messages: i64, bytes: usize, span_ms: i64) {
    let mut writer = store.writer("events").unwrap();
    for _ in 0..messages {
        writer.append(&vec![7; bytes]).unwrap();
        clock.pass(span_ms / messages);
    }
    writer.commit(Durability::Disk).unwrap();
}

#[test]
fn slabs_of_a_slow_log_are_small_and_grow_at_once_when_it_becomes_fast() {
    let (disk, clock) = (memory(), MovedClock::at(1_700_000_000_000));
    let store = open(disk, &clock);
    store.create_log("events").unwrap();
    assert_eq!((slab_bytes(&store).value, slab_bytes(&store).most), (MOST, MOST));
    append(&store, &clock, 60, 500, MINUTE_MS);
    assert_eq!(slab_bytes(&store).value, LEAST, "it would be chosen");
    store.checkpoint().unwrap();
    assert_eq!(slab_bytes(&store).value, LEAST);
    append(&store, &clock, 100, 2_000, MINUTE_MS);
    assert_eq!(slab_bytes(&store).value, LEAST << 2);
    // A slab is full within seconds: the next ones are as large as is allowed.
    append(&store, &clock, 3_000, 1_000, 3_000);
    let fast = slab_bytes(&store);
    assert_eq!(fast.value, MOST, "{fast}");
    let before = store.counters();
    append(&store, &clock, 20_000, 1_000, 20_000);
    while store.step().unwrap() {}
    let after = store.counters();
    let slabs = after.slabs_written - before.slabs_written;
    let bytes = after.slab_bytes_written - before.slab_bytes_written;
    assert!(bytes / slabs > MOST * 9 / 10, "{bytes} bytes in {slabs} slabs");
}

#[test]
fn checkpoints_of_a_slow_log_write_little_of_it_again_and_again() {
    let (disk, clock) = (memory(), MovedClock::at(1_700_000_000_000));
    let store = open(disk.clone(), &clock);
    let (minutes, messages, bytes) = (40, 40, 500);
    let mut written = 0;
    for _ in 0..minutes {
        append(&store, &clock, messages, bytes, MINUTE_MS);
        written += store.checkpoint().unwrap().map_or(0, |receipt| receipt.bytes);
    }
    let appended = minutes as u64 * messages as u64 * bytes as u64;
    // Without small slabs each checkpoint wrote all that was there: twenty times as much in the end.
    assert!(written < appended * 6, "{written} bytes for {appended}");
    assert!(
        store.counters().slabs_written >= appended / (LEAST * 2),
        "slabs were made"
    );
    let choice = slab_bytes(&store);
    assert!(choice.reason.contains("bytes a minute"), "{choice}");
    let snapshot = store.snapshot("events").unwrap();
    assert_eq!(
        snapshot.summary().unwrap().messages(),
        (minutes * messages) as u64
    );
    drop(snapshot);
    store.close().unwrap();
    let store = open(disk, &clock);
    assert_eq!(slab_bytes(&store).value, LEAST, "what the log has says so too");
    let mut cursor = store.log("events").unwrap().cursor(0).unwrap();
    let mut read = 0;
    while cursor.next().unwrap().is_some() {
        read += 1;
    }
    assert_eq!(read, minutes * messages);
}

#[test]
fn the_tail_of_a_log_that_became_slow_becomes_a_slab_at_a_checkpoint() {
    let (disk, clock) = (memory(), MovedClock::at(1_700_000_000_000));
    let store = open(disk, &clock);
    append(&store, &clock, 200, 1_000, 2_000);
    assert_eq!(slab_bytes(&store).value, MOST);
    let mut written = 0;
    for _ in 0..20 {
        append(&store, &clock, 1, 1_000, MINUTE_MS);
        written += store.checkpoint().unwrap().map_or(0, |receipt| receipt.bytes);
    }
    // Each of them would have written the 200 kB that came first.
    assert!(written < 10 * 200_000, "{written} bytes");
    assert_eq!(store.counters().slabs_written, 1);
}

#[test]
fn slabs_of_large_messages_hold_several_of_them_however_slowly_they_come() {
    let (disk, clock) = (memory(), MovedClock::at(1_700_000_000_000));
    let store = open(disk, &clock);
    append(&store, &clock, 4, 30_000, 60 * MINUTE_MS);
    store.checkpoint().unwrap();
    let choice = slab_bytes(&store);
    assert_eq!(choice.value, LEAST << 2, "{choice}");
}

#[test]
fn the_store_says_how_long_a_commit_waits_for_others() {
    let (disk, clock) = (memory(), MovedClock::at(1_700_000_000_000));
    let store = open(disk, &clock);
    append(&store, &clock, 10, 10, 10);
    let choices = store.choices();
    let gather = choices
        .iter()
        .find(|choice| choice.name == "commit_gather")
        .unwrap();
    // One who commits alone waits for nobody.
    assert_eq!((gather.value, gather.least, gather.unit), (0, 0, "microseconds"));
    assert!(gather.most > 0 && gather.reason.contains("too few"), "{gather}");
}
