//! Promise: logs of which nothing is made when a store is opened are there all the same: by name, in lists, in versions that
//! somebody held before they were asked for, for the collection, and in the next checkpoint. Shown case by case, over several
//! pages of the catalog.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests fail by panicking, and their numbers are small"
)]

mod common;

use std::sync::{Arc, Barrier};

use common::{append, check_values, end, memory, open_on, value};
use lanterman::disk::MemoryDisk;
use lanterman::{Durability, Error, Store, StoreSnapshot};

/// Three pages of the catalog and a half.
const LOGS: u64 = 450;

fn name(number: u64) -> String {
    format!("log {number:03}")
}

/// The first value of a log, and how many it has: some have slabs, most have a tail.
fn values_of(number: u64) -> std::ops::Range<u64> {
    let count = if number.is_multiple_of(50) {
        600
    } else {
        number % 4
    };
    number * 10..number * 10 + count
}

fn check(store: &Store, number: u64) {
    let values = values_of(number);
    assert_eq!(
        check_values(store, &name(number), values.start),
        values.end - values.start,
        "log {number}"
    );
}

fn check_in(snapshot: &StoreSnapshot, number: u64) {
    let log = snapshot.log(&name(number)).unwrap();
    let found = log
        .range(0..)
        .unwrap()
        .map(|message| message.unwrap().value().to_vec());
    assert!(
        found.eq(values_of(number).map(value)),
        "log {number} of a held version"
    );
}

/// A store of many logs that was closed, opened again.
fn reopened() -> (Arc<MemoryDisk>, Store) {
    let disk = memory();
    let store = open_on(disk.clone());
    for number in 0..LOGS {
        append(&store, &name(number), values_of(number));
    }
    store.close().unwrap();
    let store = open_on(disk.clone());
    (disk, store)
}

#[test]
fn what_nobody_asked_for_is_listed_found_and_kept() {
    let (disk, store) = reopened();
    let all: Vec<String> = (0..LOGS).map(name).collect();
    let listed = |store: &Store| -> Vec<(String, u64)> {
        let logs = store.logs();
        logs.into_iter().map(|log| (log.name, log.end.get())).collect()
    };
    let wanted: Vec<(String, u64)> = (0..LOGS)
        .map(|number| (name(number), values_of(number).count() as u64))
        .collect();
    assert!(listed(&store) == wanted, "logs in the list");
    assert!(store.snapshot_all().names() == all, "names of the newest version");
    assert!(matches!(store.log("log"), Err(Error::UnknownLog { .. })));
    // Pages are written anew for one of their logs each, and for one that goes.
    for number in [7, 130, 300] {
        append(
            &store,
            &name(number),
            values_of(number).end..values_of(number).end + 1,
        );
    }
    store.drop_log(&name(8)).unwrap();
    store.checkpoint().unwrap();
    assert_eq!(store.snapshot_all().names().len(), all.len() - 1);
    store.close().unwrap();
    let store = open_on(disk);
    assert!(matches!(store.log(&name(8)), Err(Error::UnknownLog { .. })));
    for number in (0..LOGS).filter(|number| ![7, 8, 130, 300].contains(number)) {
        check(&store, number);
    }
    assert_eq!(end(&store, &name(130)), values_of(130).count() as u64 + 1);
}

#[test]
fn a_version_that_is_held_has_logs_that_were_asked_for_later() {
    let (_disk, store) = reopened();
    let held = store.snapshot_all();
    // Edited, dropped, dropped and made anew, and appended to; what it had is garbage but for the version.
    store.delete(&name(50), 0..600).unwrap();
    store.drop_log(&name(100)).unwrap();
    store.drop_log(&name(150)).unwrap();
    append(&store, &name(150), 0..2);
    append(&store, &name(200), 0..5);
    let newer = store.snapshot_all();
    for _ in 0..3 {
        store.checkpoint().unwrap();
        store.collect().unwrap();
    }
    assert!(
        held.names().into_iter().eq((0..LOGS).map(name)),
        "names of the held version"
    );
    for number in (0..LOGS).rev() {
        check_in(&held, number);
    }
    assert!(matches!(newer.log(&name(100)), Err(Error::UnknownLog { .. })));
    assert_eq!(newer.log(&name(150)).unwrap().end().get(), 2);
    assert_eq!(newer.names().len() as u64, LOGS - 1);
}

#[test]
fn the_name_of_a_log_that_nobody_asked_for_is_taken() {
    let (_disk, store) = reopened();
    let error = store.fork(&name(0), &name(1)).unwrap_err();
    assert!(matches!(error, Error::LogExists { .. }), "{error}");
    let (first, count) = (values_of(3).start, values_of(3).count() as u64);
    store
        .transaction(|transaction| transaction.append(&name(3), &value(first + count)))
        .unwrap();
    assert_eq!(check_values(&store, &name(3), first), count + 1);
    store.fork(&name(50), "a fork").unwrap();
    assert_eq!(check_values(&store, "a fork", values_of(50).start), 600);
}

#[test]
fn the_collection_leaves_what_nobody_asked_for() {
    let (disk, store) = reopened();
    for number in (0..LOGS).step_by(100) {
        store.drop_log(&name(number)).unwrap();
    }
    store.collect().unwrap();
    for number in (0..LOGS).filter(|number| number % 100 != 0) {
        check(&store, number);
    }
    store.close().unwrap();
    let store = open_on(disk);
    store.collect().unwrap();
    (0..LOGS)
        .filter(|number| number % 100 != 0)
        .for_each(|number| check(&store, number));
}

#[test]
fn all_who_ask_at_once_get_the_same_log() {
    const ASKING: u64 = 4;
    let (_disk, store) = reopened();
    let barrier = Barrier::new(4);
    let writers: u64 = std::thread::scope(|scope| {
        let ask = |turn: u64| {
            let (store, barrier) = (store.clone(), &barrier);
            scope.spawn(move || {
                barrier.wait();
                let mut writers = Vec::new();
                for step in 0..LOGS {
                    // All begin with the same logs, and then go different ways.
                    let number = if step < 200 {
                        step
                    } else {
                        (step * (2 * turn + 1)) % LOGS
                    };
                    match store.writer(&name(number)) {
                        Ok(writer) => writers.push(writer),
                        Err(error) => assert!(matches!(error, Error::WriterOpen { .. }), "{error}"),
                    }
                }
                barrier.wait();
                for writer in &mut writers {
                    writer.append(&value(0)).unwrap();
                    writer.commit(Durability::Disk).unwrap();
                }
                writers.len() as u64
            })
        };
        let threads: Vec<_> = (0..ASKING).map(ask).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    // The ways lead to all logs together, to each once.
    let ends: u64 = store.logs().iter().map(|log| log.end.get()).sum();
    let before: u64 = (0..LOGS).map(|number| values_of(number).count() as u64).sum();
    assert_eq!((writers, ends), (LOGS, before + LOGS));
}
