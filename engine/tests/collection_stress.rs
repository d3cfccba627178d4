//! Promise: whoever reads is not disturbed by what is given back beside him. Threads append, delete, fork, splice and drop,
//! others hold snapshots, cursors and values and compare them again and again, and two collect all the time, while every
//! page that was given back is inaccessible: whoever looks at one ends the process.
//!
//! The work is done in a process of its own, so that its end is a failure of the test and not of all tests. A run takes two
//! seconds, with `LANTERMAN_DEEP=1` a minute, and `LANTERMAN_STRESS_SECONDS` says otherwise. `LANTERMAN_SEED=n` draws
//! another one.
#![allow(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    unsafe_code,
    reason = "a test stops at the first surprise, says how much it compared, and keeps the contract of maps by itself"
)]

mod common;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::model::Random;
use lanterman::{Cursor, Durability, KeptMessage, Options, Retention, Snapshot, Store};

/// The number of a message at each offset of a log; nothing where it was deleted.
type Model = Vec<Option<u64>>;

const CHURNING: u64 = 3;
/// What a thread holds at a time.
const HELD: usize = 12;

fn duration() -> Duration {
    let told = std::env::var("LANTERMAN_STRESS_SECONDS").ok();
    let is_deep = std::env::var("LANTERMAN_DEEP").is_ok_and(|deep| deep == "1");
    let seconds = told.and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(seconds.unwrap_or(if is_deep { 60 } else { 2 }))
}

fn seed() -> u64 {
    let told = std::env::var("LANTERMAN_SEED").ok();
    told.and_then(|seed| seed.parse().ok()).unwrap_or(1)
}

fn value(number: u64) -> Vec<u8> {
    let length = match number % 16 {
        0 => 9_000 + number * 7919 % 30_000,
        _ => number * 977 % 900,
    };
    let mut value = number.to_le_bytes().to_vec();
    value.resize(8 + length as usize, (number % 251) as u8);
    value
}

/// The offsets of the messages that are there.
fn shown(model: &Model) -> impl Iterator<Item = u64> + '_ {
    (0..)
        .zip(model)
        .filter_map(|(offset, number)| number.map(|_| offset))
}

/// The offsets of `all` that `others` does not have; both rise.
fn without(all: &[u64], others: &[u64]) -> Vec<u64> {
    let is_other = |offset: &&u64| others.binary_search(offset).is_err();
    all.iter().filter(is_other).copied().collect()
}

/// What the threads share.
struct Run {
    store: Store,
    stop: AtomicBool,
    numbers: AtomicU64,
    compared: AtomicU64,
    given_back: AtomicU64,
}

/// Something that is held while others delete what it shows.
enum Held {
    Snapshot(Snapshot, Model),
    /// With the offset that it reads on from.
    Cursor(Box<Cursor>, Model, u64),
    Value(KeptMessage, u64),
}

/// Ends all threads, also when one of them has failed.
struct Ending<'a>(&'a Run);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Release);
    }
}

/// A thread's own log, with the forks that it makes of it.
struct Churn<'a> {
    run: &'a Run,
    random: Random,
    name: String,
    model: Model,
    forks: VecDeque<(String, Model)>,
    made: u64,
    held: VecDeque<Held>,
}

impl Run {
    fn stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    fn check(&self, found: &[u8], number: u64) {
        assert!(found == value(number), "message {number} is another one");
        self.compared.fetch_add(1, Ordering::Relaxed);
    }

    /// Compares the messages of a log, one by one, and what the log says of their number.
    fn compare(&self, name: &str, snapshot: &Snapshot, model: &Model) {
        let found = snapshot.range(..).unwrap().map(|message| {
            let message = message.unwrap();
            let offset = message.offset().get();
            if let Some(Some(number)) = model.get(offset as usize) {
                self.check(message.value(), *number);
            }
            offset
        });
        let found: Vec<u64> = found.collect();
        let wanted: Vec<u64> = shown(model).collect();
        let start = snapshot.start().get();
        let summary = snapshot.summary().unwrap();
        let counted = (summary.messages(), summary.deleted());
        let messages = wanted.len() as u64;
        let is_whole = found == wanted && snapshot.end().get() == model.len() as u64;
        assert!(
            is_whole && counted == (messages, snapshot.end().get() - start - messages),
            "{name}, {start}..{}, must be ..{} with {messages} messages: has {}, and says {counted:?} are there and deleted; \
             not deleted: {:?}; missing: {:?}; exact: {}",
            snapshot.end(),
            model.len(),
            found.len(),
            without(&found, &wanted),
            without(&wanted, &found),
            summary.is_exact(),
        );
    }

    /// Gives back whatever nobody holds, at once and in steps.
    fn collect(&self, turn: u64) {
        let collected = match turn % 5 {
            0 => self.store.collect().unwrap(),
            1 => {
                self.store.checkpoint().unwrap();
                self.store.collect_step(256 << 10).unwrap()
            }
            _ => self.store.collect_step(64 << 10).unwrap(),
        };
        let bytes = collected.punched_bytes + collected.segment_bytes;
        self.given_back.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Churn<'_> {
    fn append(&mut self) {
        let mut writer = self.run.store.writer(&self.name).unwrap();
        for _ in 0..self.random.below(60) {
            let number = self.run.numbers.fetch_add(1, Ordering::Relaxed);
            writer.append(&value(number)).unwrap();
            self.model.push(Some(number));
        }
        writer.commit(Durability::Process).unwrap();
    }

    fn delete(&mut self) {
        let end = self.model.len() as u64;
        let first = self.random.below(end);
        let last = (first + self.random.below(200)).min(end);
        self.run.store.delete(&self.name, first..last).unwrap();
        self.model[first as usize..last as usize].fill(None);
    }

    fn fork(&mut self) {
        self.made += 1;
        let fork = format!("{}-{}", self.name, self.made);
        self.run.store.fork(&self.name, &fork).unwrap();
        self.forks.push_back((fork, self.model.clone()));
        if self.forks.len() > 4 {
            let (oldest, model) = self.forks.pop_front().unwrap();
            let snapshot = self.run.store.snapshot(&oldest).unwrap();
            self.run.compare(&oldest, &snapshot, &model);
            self.run.store.drop_log(&oldest).unwrap();
        }
    }

    fn splice(&mut self) {
        let Some((fork, model)) = self.forks.back_mut() else {
            return;
        };
        let end = self.model.len() as u64;
        let first = self.random.below(end);
        if first < end && model.len() < 4_000 {
            self.run.store.splice(fork, &self.name, first..end).unwrap();
            model.extend_from_slice(&self.model[first as usize..]);
        }
    }

    fn hold(&mut self) {
        let log = self.run.store.log(&self.name).unwrap();
        let snapshot = log.snapshot();
        let shown = self.model.iter().flatten().next_back().copied();
        let offset = self.model.iter().rposition(Option::is_some).unwrap_or(0) as u64;
        self.held.push_back(match (self.random.below(3), shown) {
            (0, Some(number)) => Held::Value(snapshot.get(offset).unwrap(), number),
            (1, _) => {
                let cursor = snapshot.cursor(snapshot.start()).unwrap();
                Held::Cursor(Box::new(cursor), self.model.clone(), snapshot.start().get())
            }
            _ => Held::Snapshot(snapshot, self.model.clone()),
        });
        if self.held.len() > HELD {
            let oldest = self.held.pop_front();
            oldest
                .into_iter()
                .for_each(|mut oldest| self.check(&mut oldest, usize::MAX));
        }
        // One of the others is looked at, and stays.
        let any = self.random.below(self.held.len() as u64) as usize;
        let mut held = self.held.remove(any).unwrap();
        self.check(&mut held, 50);
        self.held.push_back(held);
    }

    /// Compares what is held, of a cursor at most so many messages.
    fn check(&self, held: &mut Held, most: usize) {
        match held {
            Held::Snapshot(snapshot, model) => self.run.compare(&self.name, snapshot, model),
            Held::Value(message, number) => self.run.check(message.value(), *number),
            Held::Cursor(cursor, model, next) => {
                for _ in 0..most {
                    let shown = model.iter().skip(*next as usize).position(Option::is_some);
                    let found = cursor.next().unwrap();
                    let Some(skipped) = shown else {
                        assert!(found.is_none());
                        return;
                    };
                    let offset = *next + skipped as u64;
                    let message = found.unwrap();
                    assert_eq!(message.offset().get(), offset);
                    self.run.check(message.value(), model[offset as usize].unwrap());
                    *next = offset + 1;
                }
            }
        }
    }

    fn turn(&mut self) {
        match self.random.below(12) {
            0..=3 => self.append(),
            4..=6 => self.delete(),
            7 => self.fork(),
            8 => self.splice(),
            9 if self.model.len() > 3_000 => {
                let from = self.model.len() as u64 - 1_000;
                let retention = Retention::new().from(from);
                self.run.store.retain(&self.name, &retention).unwrap();
                self.model[..from as usize].fill(None);
            }
            _ => self.hold(),
        }
    }

    fn until_told(mut self) -> Vec<(String, Model)> {
        self.append();
        while !self.run.stopping() {
            self.turn();
        }
        let mut left: Vec<_> = self.forks.into();
        left.push((self.name, self.model));
        left
    }
}

fn options() -> Options {
    Options::new()
        .slab_bytes_max(64 << 10)
        .tail_memory_bytes(1 << 20)
        .journal_bytes_max(256 << 10)
        .journal_segment_bytes(64 << 10, 256 << 10)
        .slab_segment_bytes(256 << 10, 1 << 20)
        .protect_reclaimed(true)
}

#[test]
#[ignore = "the child process of its neighbour below"]
fn reading_beside_collection() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    // SAFETY: the directory is this test's own; nobody else touches its files.
    let store = unsafe { options().open(&path) }.unwrap();
    let run = Run {
        store,
        stop: AtomicBool::new(false),
        numbers: AtomicU64::new(1),
        compared: AtomicU64::new(0),
        given_back: AtomicU64::new(0),
    };
    let left: Vec<(String, Model)> = std::thread::scope(|scope| {
        let run = &run;
        let _ending = Ending(run);
        let churning = (0..CHURNING).map(|thread| {
            let churn = Churn {
                run,
                random: Random::from_seed(seed() * CHURNING + thread),
                name: format!("log-{thread}"),
                model: Model::new(),
                forks: VecDeque::new(),
                made: 0,
                held: VecDeque::new(),
            };
            scope.spawn(move || churn.until_told())
        });
        let churning: Vec<_> = churning.collect();
        let begin = Instant::now();
        let mut turn = 0;
        // On a slow machine for as long as it takes to show something.
        let shows_little = || {
            run.given_back.load(Ordering::Relaxed) <= 1 << 20 || run.compared.load(Ordering::Relaxed) <= 1000
        };
        let lasts = |time| time < duration() || shows_little() && time < Duration::from_secs(120);
        while lasts(begin.elapsed()) && !churning.iter().any(|thread| thread.is_finished()) {
            run.collect(turn);
            turn += 1;
        }
        run.stop.store(true, Ordering::Release);
        churning
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect()
    });
    let given_back = run.given_back.load(Ordering::Relaxed);
    let compared = run.compared.load(Ordering::Relaxed);
    eprintln!(
        "{compared} messages compared while {given_back} bytes were given back, seed {}",
        seed()
    );
    assert!(
        given_back > 1 << 20 && compared > 1000,
        "too little to show anything: {compared} messages compared while {given_back} bytes were given back"
    );
    for (name, model) in &left {
        run.compare(name, &run.store.snapshot(name).unwrap(), model);
    }
    let faults = run.store.check_space().unwrap().faults;
    assert!(faults.is_empty(), "{faults:?}");
    run.store.clone().close().unwrap();
    let store = options().open_copying(&path).unwrap();
    for (name, model) in &left {
        run.compare(
            &format!("{name} opened again"),
            &store.snapshot(name).unwrap(),
            model,
        );
    }
    store.close().unwrap();
}

#[test]
fn whoever_reads_beside_collection_touches_nothing_that_was_given_back() {
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["reading_beside_collection", "--exact", "--ignored", "--nocapture"])
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&child.stdout) + String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success(), "{}: {told}", child.status);
    assert!(told.contains("1 passed"), "{told}");
    eprintln!(
        "{}",
        told.lines()
            .find(|line| line.contains("compared"))
            .unwrap_or_default()
    );
}
