//! Promise: readers are never disturbed. Writers, transactions, checkpoints and recycling go on at full speed with small
//! limits while cursors, random reads and snapshots check every message, which says of itself what it must be.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use lanterman::{Durability, Log, Options, Store};

const RUN: Duration = Duration::from_secs(2);

fn value_of(log: u64, offset: u64) -> Vec<u8> {
    let length = 16 + (offset.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 54) as usize;
    let mut value = Vec::with_capacity(length);
    value.extend_from_slice(&log.to_le_bytes());
    value.extend_from_slice(&offset.to_le_bytes());
    value.resize(length, (offset % 251) as u8);
    value
}

fn check(log: u64, offset: u64, value: &[u8]) {
    assert!(
        value == value_of(log, offset),
        "log {log} offset {offset} is not what was appended"
    );
}

fn append_for_long(store: &Store, log: u64, stop: &AtomicBool) -> u64 {
    let mut writer = store.writer(&format!("log-{log}")).unwrap();
    let mut offset = 0u64;
    while !stop.load(Ordering::Relaxed) {
        let given = writer.append(&value_of(log, offset)).unwrap().get();
        assert_eq!(given, offset);
        offset += 1;
        if offset.is_multiple_of(5000) {
            writer
                .commit(if offset.is_multiple_of(2) {
                    Durability::Process
                } else {
                    Durability::Disk
                })
                .unwrap();
        }
        if offset.is_multiple_of(20) && offset < 4000 {
            writer.commit(Durability::Process).unwrap();
        }
    }
    writer.commit(Durability::Disk).unwrap();
    offset
}

fn follow(log: &Log, number: u64, stop: &AtomicBool, seen: &AtomicU64) {
    let mut cursor = log.cursor(0u64).unwrap();
    loop {
        let stopping = stop.load(Ordering::Acquire);
        let mut any = false;
        while let Some(message) = cursor.next().unwrap() {
            check(number, message.offset().get(), message.value());
            seen.fetch_add(1, Ordering::Relaxed);
            any = true;
        }
        if stopping && !any {
            return;
        }
    }
}

fn jump_about(log: &Log, number: u64, stop: &AtomicBool) {
    let mut state = 88172645463325252u64 ^ number;
    while !stop.load(Ordering::Relaxed) {
        let snapshot = log.snapshot();
        let end = snapshot.end().get();
        if end == 0 {
            continue;
        }
        let mut cursor = snapshot.cursor(0u64).unwrap();
        for _ in 0..200 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let offset = state % end;
            check(number, offset, cursor.get(offset).unwrap().value());
        }
        let kept = snapshot.get(end - 1).unwrap();
        check(number, end - 1, kept.value());
    }
}

fn run(options: Options) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = options.clone().open_copying(&path).unwrap();
    for log in 0..3 {
        store.create_log(&format!("log-{log}")).unwrap();
    }
    let (stop, quiet, seen) = (AtomicBool::new(false), AtomicBool::new(false), AtomicU64::new(0));
    let transactions = AtomicU64::new(0);
    let mut ends = [0u64; 3];
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..3)
            .map(|log| {
                let (store, stop) = (&store, &stop);
                scope.spawn(move || append_for_long(store, log, stop))
            })
            .collect();
        for log in 0..3u64 {
            let reader = store.log(&format!("log-{log}")).unwrap();
            let (stop, quiet, seen) = (&stop, &quiet, &seen);
            let other = reader.clone();
            scope.spawn(move || follow(&reader, log, quiet, seen));
            scope.spawn(move || jump_about(&other, log, stop));
        }
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let number = transactions.load(Ordering::Relaxed);
                store
                    .transaction(|transaction| {
                        transaction.append("left", &value_of(100, number))?;
                        transaction.append("right", &value_of(101, number))
                    })
                    .unwrap();
                transactions.fetch_add(1, Ordering::Relaxed);
            }
        });
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let cut = store.snapshot_all();
                if let (Ok(left), Ok(right)) = (cut.log("left"), cut.log("right")) {
                    assert_eq!(
                        left.end(),
                        right.end(),
                        "a transaction is in a version whole or not at all"
                    );
                }
                std::thread::yield_now();
            }
        });
        let start = Instant::now();
        while start.elapsed() < RUN {
            store.checkpoint().unwrap();
            std::thread::park_timeout(Duration::from_millis(20));
        }
        stop.store(true, Ordering::Release);
        for (end, writer) in ends.iter_mut().zip(writers) {
            *end = writer.join().unwrap();
        }
        quiet.store(true, Ordering::Release);
    });
    assert_eq!(
        seen.load(Ordering::Relaxed),
        ends.iter().sum::<u64>(),
        "followers saw every message once"
    );
    store.close().unwrap();
    let store = options.open_copying(&path).unwrap();
    for (log, end) in ends.iter().enumerate() {
        let snapshot = store.snapshot(&format!("log-{log}")).unwrap();
        assert_eq!(snapshot.end().get(), *end);
        for message in snapshot.range(..).unwrap() {
            let message = message.unwrap();
            check(log as u64, message.offset().get(), message.value());
        }
    }
    assert_eq!(
        store.snapshot("left").unwrap().end().get(),
        transactions.load(Ordering::Relaxed)
    );
}

#[test]
fn readers_see_every_message_whole_beside_writers_transactions_and_checkpoints() {
    run(Options::new()
        .slab_bytes_max(64 << 10)
        .tail_memory_bytes(1 << 20)
        .journal_bytes_max(256 << 10)
        .journal_segment_bytes(64 << 10, 256 << 10)
        .slab_segment_bytes(256 << 10, 4 << 20));
}

#[test]
fn readers_see_every_message_whole_with_the_default_limits() {
    run(Options::new());
}
