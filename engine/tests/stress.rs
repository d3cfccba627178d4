//! Promise: readers are never disturbed, and nothing acknowledged is lost by closing. Writers, group commits,
//! transactions, deletions, checkpoints and recycling go on at full speed with small limits while cursors, random reads, held
//! snapshots, kept bytes and a second opening for reading check every message, which says of itself what it must be.
//!
//! A run takes two seconds, with `LANTERMAN_DEEP=1` a minute, and `LANTERMAN_STRESS_SECONDS` says otherwise. It is this
//! test that runs under the address and the thread sanitizer. Threads are joined by name and not by the end of their
//! scope, which the thread sanitizer cannot see.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::print_stderr,
    unsafe_code,
    reason = "a test stops at the first surprise, says how much it verified, and keeps the contract of maps by itself"
)]

use std::collections::{BTreeSet, VecDeque};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use lanterman::{Durability, Error, Log, Options, Retention, Snapshot, Store, Transaction};

/// Logs whose followers count what they see.
const FOLLOWED: u64 = 3;
/// Logs that transactions write to.
const LEFT: u64 = 100;
const RIGHT: u64 = 101;
/// A log of which one thread deletes ranges.
const SHRINKING: u64 = 102;
/// Snapshots and messages that one thread holds at a time.
const HELD: usize = 64;

fn duration() -> Duration {
    let told = std::env::var("LANTERMAN_STRESS_SECONDS").ok();
    let deep = std::env::var("LANTERMAN_DEEP").is_ok_and(|deep| deep == "1");
    let seconds = told.and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(seconds.unwrap_or(if deep { 60 } else { 2 }))
}

fn name_of(log: u64) -> String {
    match log {
        LEFT => "left".into(),
        RIGHT => "right".into(),
        SHRINKING => "shrinking".into(),
        _ => format!("log-{log}"),
    }
}

fn value_of(log: u64, offset: u64) -> Vec<u8> {
    let length = 16 + (offset.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 54) as usize;
    let mut value = Vec::with_capacity(length);
    value.extend_from_slice(&log.to_le_bytes());
    value.extend_from_slice(&offset.to_le_bytes());
    value.resize(length, (offset % 251) as u8);
    value
}

/// What all threads of a run share.
struct Run<'a> {
    store: &'a Store,
    /// Writers end.
    stop: AtomicBool,
    /// Writers have ended: followers end when they have caught up.
    quiet: AtomicBool,
    followed: AtomicU64,
    verified: AtomicU64,
    transactions: AtomicU64,
}

/// Ends all threads, also when one of them has failed: otherwise the others would go on until the disk is full, and nobody
/// would learn what went wrong.
struct Ending<'a>(&'a Run<'a>);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Release);
        self.0.quiet.store(true, Ordering::Release);
    }
}

impl Run<'_> {
    fn check(&self, log: u64, offset: u64, value: &[u8]) {
        assert!(
            value == value_of(log, offset),
            "log {log} offset {offset} is not what was appended"
        );
        self.verified.fetch_add(1, Ordering::Relaxed);
    }

    fn stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    fn log(&self, log: u64) -> Log {
        self.store.log(&name_of(log)).unwrap()
    }

    /// Appends and commits in every way there is; gives the log's end.
    fn append(&self, log: u64) -> u64 {
        let mut writer = self.store.writer(&name_of(log)).unwrap();
        let mut offset = 0u64;
        let mut later = VecDeque::new();
        while !self.stopping() {
            let given = writer.append(&value_of(log, offset)).unwrap().get();
            assert_eq!(given, offset);
            offset += 1;
            let eager = offset < 4000 && offset.is_multiple_of(20);
            if offset.is_multiple_of(4000) {
                writer.commit(Durability::Disk).unwrap();
            } else if offset % 4000 == 3000 {
                later.push_back(writer.commit_async(Durability::Disk).unwrap());
            } else if offset % 4000 == 1500 || eager {
                writer.commit(Durability::Process).unwrap();
            }
            if later.len() > 2 {
                later.pop_front().unwrap().wait().unwrap();
            }
        }
        for commit in later {
            commit.wait().unwrap();
        }
        writer.commit(Durability::Disk).unwrap();
        offset
    }

    /// Commits one message at a time, so that groups gather; gives the log's end.
    fn append_and_commit_each(&self, log: u64) -> u64 {
        let mut writer = self.store.writer(&name_of(log)).unwrap();
        let mut offset = 0u64;
        while !self.stopping() {
            writer.append(&value_of(log, offset)).unwrap();
            writer.commit(Durability::Disk).unwrap();
            offset += 1;
            assert_eq!(self.log(log).information().durable_end.get(), offset);
        }
        offset
    }

    fn follow(&self, log: u64) {
        let mut cursor = self.log(log).cursor(0u64).unwrap();
        loop {
            let quiet = self.quiet.load(Ordering::Acquire);
            let mut any = false;
            while let Some(message) = cursor.next().unwrap() {
                self.check(log, message.offset().get(), message.value());
                self.followed.fetch_add(1, Ordering::Relaxed);
                any = true;
            }
            if quiet && !any {
                return;
            }
        }
    }

    fn follow_what_is_durable(&self, log: u64) {
        let reader = self.log(log);
        let mut cursor = reader.durable_cursor(0u64).unwrap();
        while !self.stopping() {
            let found = cursor.next_within(Duration::from_millis(5)).unwrap();
            if let Some(message) = found {
                let offset = message.offset();
                self.check(log, offset.get(), message.value());
                assert!(offset < reader.information().durable_end);
            }
        }
    }

    fn jump_about(&self, log: u64) {
        let mut state = 88_172_645_463_325_252u64 ^ log;
        let mut held: VecDeque<Snapshot> = VecDeque::new();
        let mut kept = VecDeque::new();
        while !self.stopping() {
            let snapshot = self.log(log).snapshot();
            let end = snapshot.end().get();
            if end == 0 {
                continue;
            }
            let mut cursor = snapshot.cursor(0u64).unwrap();
            for turn in 0..200 {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                let offset = state % end;
                let message = cursor.get(offset).unwrap();
                self.check(log, offset, message.value());
                if turn % 50 == 0 {
                    kept.push_back((offset, message.to_bytes()));
                }
            }
            kept.push_back((end - 1, snapshot.get(end - 1).unwrap().value().clone()));
            held.push_back(snapshot);
            // The oldest are let go of long after what they show was written elsewhere.
            while kept.len() > HELD {
                let (offset, bytes) = kept.pop_front().unwrap();
                self.check(log, offset, &bytes);
            }
            if held.len() > HELD {
                let oldest = held.pop_front().unwrap();
                let last = oldest.end().get() - 1;
                self.check(log, last, oldest.get(last).unwrap().value());
            }
        }
    }

    fn transact(&self) {
        while !self.stopping() {
            let number = self.transactions.load(Ordering::Relaxed);
            self.store
                .transaction(|transaction| {
                    transaction.append("left", &value_of(LEFT, number))?;
                    transaction.append("right", &value_of(RIGHT, number))
                })
                .unwrap();
            self.transactions.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Appends to a log and deletes ranges of it, and compares snapshots that were taken before; gives what is left.
    fn delete_some(&self) -> (u64, Vec<u64>) {
        let name = name_of(SHRINKING);
        let mut state = 0x2545_F491_4F6C_DD1Du64;
        let mut dice = |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below.max(1)
        };
        let (mut shown, mut end) = (BTreeSet::new(), 0u64);
        let mut held: VecDeque<(Snapshot, BTreeSet<u64>)> = VecDeque::new();
        while !self.stopping() {
            let mut writer = self.store.writer(&name).unwrap();
            for _ in 0..dice(200) {
                writer.append(&value_of(SHRINKING, end)).unwrap();
                shown.insert(end);
                end += 1;
            }
            drop(writer);
            held.push_back((self.log(SHRINKING).snapshot(), shown.clone()));
            let first = end.saturating_sub(dice(1000));
            let offsets = first..(first + dice(150)).min(end);
            match dice(8) {
                0 => {
                    let from = end.saturating_sub(2000);
                    self.store.retain(&name, &Retention::new().from(from)).unwrap();
                    shown = shown.split_off(&from);
                }
                1 => {
                    let delete = |transaction: &mut Transaction| {
                        transaction.durability(Durability::Process);
                        transaction.delete(&name, offsets.clone())
                    };
                    self.store.transaction(delete).unwrap();
                    shown.retain(|offset| !offsets.contains(offset));
                }
                _ => {
                    self.store.delete(&name, offsets.clone()).unwrap();
                    shown.retain(|offset| !offsets.contains(offset));
                }
            }
            self.compare(&self.log(SHRINKING).snapshot(), &shown);
            if held.len() > 8 {
                let (oldest, wanted) = held.pop_front().unwrap();
                self.compare(&oldest, &wanted);
            }
        }
        (end, shown.into_iter().collect())
    }

    fn compare(&self, snapshot: &Snapshot, wanted: &BTreeSet<u64>) {
        let mut found = snapshot.range(..).unwrap();
        for offset in wanted {
            let message = found.next().unwrap().unwrap();
            assert_eq!(
                message.offset().get(),
                *offset,
                "another message than the next one"
            );
            self.check(SHRINKING, *offset, message.value());
        }
        assert!(found.next().is_none(), "a deleted message is there");
    }

    /// Follows the log of which ranges are deleted: offsets rise, and each message is what was appended.
    fn follow_what_shrinks(&self) {
        let mut next = 0;
        let mut cursor = self.log(SHRINKING).cursor(0u64).unwrap();
        while !self.stopping() {
            if let Some(message) = cursor.next_within(Duration::from_millis(5)).unwrap() {
                let offset = message.offset().get();
                assert!(offset >= next, "a cursor went back");
                self.check(SHRINKING, offset, message.value());
                next = offset + 1;
            }
        }
    }

    /// A transaction is in a version whole or not at all, and whoever saw one half sees the other.
    fn compare_both_sides(&self) {
        while !self.stopping() {
            let cut = self.store.snapshot_all();
            if let (Ok(left), Ok(right)) = (cut.log("left"), cut.log("right")) {
                assert_eq!(left.end(), right.end(), "half a transaction is in a version");
            }
            if let (Ok(left), Ok(right)) = (self.store.log("left"), self.store.log("right")) {
                let seen = left.snapshot().end();
                assert!(right.snapshot().end() >= seen, "half a transaction is visible");
            }
            std::thread::yield_now();
        }
    }

    /// As another process does: opens for reading, follows for a while, goes, comes again.
    fn read_beside(&self, options: &Options, path: &Path) {
        let options = options.clone().read_only(true);
        while !self.stopping() {
            let store = options.clone().open_copying(path).unwrap();
            let mut cursor = store.log(&name_of(0)).unwrap().cursor(0u64).unwrap();
            for _ in 0..20 {
                while let Some(message) = cursor.next().unwrap() {
                    self.check(0, message.offset().get(), message.value());
                    if self.stopping() {
                        return;
                    }
                }
                store.refresh().unwrap();
            }
            assert!(!self.store.readers().unwrap().is_empty());
        }
    }
}

fn join<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap()
}

fn start<'scope, 'env>(
    scope: &'scope Scope<'scope, 'env>,
    run: &'env Run<'env>,
    options: &'env Options,
    path: &'env Path,
) -> Vec<ScopedJoinHandle<'scope, ()>> {
    let mut threads = vec![
        scope.spawn(move || run.transact()),
        scope.spawn(move || run.compare_both_sides()),
        scope.spawn(move || run.follow_what_is_durable(1)),
        scope.spawn(move || run.follow_what_shrinks()),
        scope.spawn(move || run.read_beside(options, path)),
    ];
    for log in 0..FOLLOWED {
        threads.push(scope.spawn(move || run.follow(log)));
        threads.push(scope.spawn(move || run.jump_about(log)));
    }
    threads
}

fn run(options: &Options, open: impl Fn(&Options, &Path) -> Store) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = open(options, &path);
    for log in (0..FOLLOWED + 2).chain([LEFT, RIGHT, SHRINKING]) {
        store.create_log(&name_of(log)).unwrap();
    }
    let run = Run {
        store: &store,
        stop: AtomicBool::new(false),
        quiet: AtomicBool::new(false),
        followed: AtomicU64::new(0),
        verified: AtomicU64::new(0),
        transactions: AtomicU64::new(0),
    };
    let (ends, (shrunk_end, shown)): (Vec<u64>, (u64, Vec<u64>)) = std::thread::scope(|scope| {
        let run = &run;
        let _ending = Ending(run);
        let mut writers: Vec<_> = (0..FOLLOWED)
            .map(|log| scope.spawn(move || run.append(log)))
            .collect();
        writers
            .extend((FOLLOWED..FOLLOWED + 2).map(|log| scope.spawn(move || run.append_and_commit_each(log))));
        let deleting = scope.spawn(move || run.delete_some());
        let others = start(scope, run, options, &path);
        let begin = Instant::now();
        while begin.elapsed() < duration()
            && !others.iter().any(ScopedJoinHandle::is_finished)
            && !deleting.is_finished()
        {
            store.checkpoint().unwrap();
            std::thread::park_timeout(Duration::from_millis(20));
        }
        run.stop.store(true, Ordering::Release);
        let ends = writers.into_iter().map(join).collect();
        run.quiet.store(true, Ordering::Release);
        others.into_iter().for_each(join);
        (ends, join(deleting))
    });
    let followed: u64 = ends.iter().zip(0..FOLLOWED).map(|(end, _)| end).sum();
    assert_eq!(
        run.followed.load(Ordering::Relaxed),
        followed,
        "followers saw every message once"
    );
    let transactions = run.transactions.load(Ordering::Relaxed);
    let verified = run.verified.load(Ordering::Relaxed);
    eprintln!("{verified} messages verified beside {followed} appended and {transactions} transactions");
    store.close().unwrap();
    let store = open(options, &path);
    let logs = ends.iter().enumerate().map(|(log, end)| (log as u64, *end));
    for (log, end) in logs.chain([(LEFT, transactions), (RIGHT, transactions)]) {
        assert_eq!(check_all(&store, log), end);
    }
    assert_eq!(check_all(&store, SHRINKING), shrunk_end);
    let snapshot = store.snapshot(&name_of(SHRINKING)).unwrap();
    let found = snapshot
        .range(..)
        .unwrap()
        .map(|message| message.unwrap().offset().get());
    assert!(found.eq(shown), "another choice of messages is left");
}

/// Reads the whole log; gives its end.
fn check_all(store: &Store, log: u64) -> u64 {
    let snapshot = store.snapshot(&name_of(log)).unwrap();
    for message in snapshot.range(..).unwrap() {
        let message = message.unwrap();
        assert!(message.value()[..] == value_of(log, message.offset().get())[..]);
    }
    snapshot.end().get()
}

fn small() -> Options {
    Options::new()
        .slab_bytes_max(64 << 10)
        .tail_memory_bytes(1 << 20)
        .journal_bytes_max(256 << 10)
        .journal_segment_bytes(64 << 10, 256 << 10)
        .slab_segment_bytes(256 << 10, 4 << 20)
}

fn open_copying(options: &Options, path: &Path) -> Store {
    options.clone().open_copying(path).unwrap()
}

#[test]
fn readers_see_every_message_whole_beside_writers_transactions_and_checkpoints() {
    run(&small(), open_copying);
}

#[test]
fn readers_see_every_message_whole_through_maps() {
    run(&small(), |options, path| {
        // SAFETY: the directory is this test's own; nobody else touches its files.
        unsafe { options.clone().open(path) }.unwrap()
    });
}

#[test]
fn readers_see_every_message_whole_with_the_default_limits() {
    run(&Options::new(), open_copying);
}

/// Writers go on until they are told that the store is closed; the next opening follows at once, as another process would.
#[test]
fn a_store_that_is_closed_under_its_writers_keeps_all_that_was_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let mut ends = [0u64; 4];
    let begin = Instant::now();
    let mut rounds = 0u64;
    while rounds < 10 || begin.elapsed() < duration() {
        let store = open_copying(&small(), &path);
        let acknowledged = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..4u64)
                .map(|log| {
                    let store = store.clone();
                    scope.spawn(move || commit_until_closed(&store, log))
                })
                .collect();
            // The moment moves from round to round.
            std::thread::park_timeout(Duration::from_micros(3000 + rounds * 7919 % 5000));
            store.close().unwrap();
            let next = open_copying(&small(), &path);
            let ends: Vec<u64> = (0..4).map(|log| end_of(&next, log)).collect();
            next.create_log(&format!("round-{rounds}")).unwrap();
            let acknowledged: Vec<u64> = writers.into_iter().map(join).collect();
            for (end, acknowledged) in ends.iter().zip(&acknowledged) {
                assert!(
                    end >= acknowledged,
                    "{acknowledged} were acknowledged, {end} are there"
                );
            }
            next.close().unwrap();
            acknowledged
        });
        let store = open_copying(&small(), &path);
        for (log, end) in ends.iter_mut().enumerate() {
            *end = end_of(&store, log as u64);
            assert!(*end >= acknowledged[log]);
        }
        store.log(&format!("round-{rounds}")).unwrap();
        store.close().unwrap();
        rounds += 1;
    }
    let store = open_copying(&small(), &path);
    for (log, end) in ends.iter().enumerate() {
        assert_eq!(check_all(&store, log as u64), *end);
    }
    eprintln!("closed {rounds} times under writers");
}

fn end_of(store: &Store, log: u64) -> u64 {
    store.log(&name_of(log)).map_or(0, |log| log.end().get())
}

/// Gives the offset below which everything was acknowledged.
fn commit_until_closed(store: &Store, log: u64) -> u64 {
    let mut writer = match store.writer(&name_of(log)) {
        Ok(writer) => writer,
        Err(Error::Closed) => return 0,
        Err(other) => panic!("{other}"),
    };
    let mut acknowledged = 0;
    let mut offset = end_of(store, log);
    loop {
        let outcome = writer
            .append(&value_of(log, offset))
            .and_then(|_| writer.commit(Durability::Disk));
        match outcome {
            Ok(_) => acknowledged = offset + 1,
            Err(Error::Closed) => return acknowledged,
            Err(other) => panic!("{other}"),
        }
        offset += 1;
    }
}
