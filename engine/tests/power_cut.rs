//! Promise: after a power cut at any moment, everything acknowledged as durable is there, in order and equal, what
//! follows is a prefix of what was appended, and transactions are whole or absent.
//!
//! Shown by recording every change that a workload makes to the disk, with what was acknowledged when, and opening what
//! a power cut leaves after each of the changes, for many choices of what was not yet synced.
#![allow(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "tests fail by panicking, and their numbers are small"
)]

mod common;

use std::sync::Arc;

use common::{check_values, memory, open_on, value};
use lanterman::disk::{Disk, Fate, MemoryDisk, Operation, RecordingDisk, Replay, crash_choices};
use lanterman::{Durability, Store};

/// What was acknowledged once the disk had seen so many changes: durable ends of the logs, committed transactions.
struct Acknowledged {
    changes: usize,
    ends: [u64; 2],
    transactions: u64,
}

const LOGS: [&str; 2] = ["first", "second"];

fn workload(disk: &Arc<RecordingDisk>) -> Vec<Acknowledged> {
    let store = open_on(Arc::<RecordingDisk>::clone(disk));
    let mut acknowledged = Vec::new();
    let mut ends = [0; 2];
    let mut transactions = 0;
    let mut durable = [0; 2];
    for round in 0..40u64 {
        for (number, name) in LOGS.iter().enumerate() {
            let mut writer = store.writer(name).unwrap();
            for _ in 0..(3 + round * 13 % 60) {
                writer.append(&value(ends[number])).unwrap();
                ends[number] += 1;
            }
            match (round + number as u64) % 3 {
                0 => drop(writer.commit(Durability::Process).unwrap()),
                1 => {
                    writer.commit(Durability::Disk).unwrap();
                    durable[number] = ends[number];
                }
                _ => {}
            }
        }
        if round % 2 == 1 {
            store
                .transaction(|transaction| {
                    transaction.append(LOGS[0], &value(ends[0]))?;
                    transaction.append(LOGS[1], &value(ends[1]))?;
                    transaction.append("pairs", b"pair")
                })
                .unwrap();
            ends = ends.map(|end| end + 1);
            durable = ends;
            transactions += 1;
        }
        if round % 5 == 4 {
            store.checkpoint().unwrap();
        }
        while store.step().unwrap() {}
        acknowledged.push(Acknowledged {
            changes: disk.operation_count(),
            ends: durable,
            transactions,
        });
    }
    std::mem::forget(store);
    acknowledged
}

fn check(image: MemoryDisk, promised: Option<&Acknowledged>) {
    let disk: Arc<dyn Disk> = Arc::new(image);
    let store: Store = open_on(disk);
    let ends = LOGS.map(|name| check_values(&store, name, 0));
    let pairs = store.log("pairs").map_or(0, |log| log.end().get());
    if let Some(promised) = promised {
        assert!(
            ends[0] >= promised.ends[0] && ends[1] >= promised.ends[1],
            "{ends:?} of {:?}",
            promised.ends
        );
        assert!(
            pairs >= promised.transactions,
            "{pairs} of {} transactions",
            promised.transactions
        );
    }
    // It takes new messages as if nothing had been.
    let mut writer = store.writer(LOGS[0]).unwrap();
    assert_eq!(writer.append(&value(ends[0])).unwrap().get(), ends[0]);
    writer.commit(Durability::Disk).unwrap();
}

#[test]
fn a_power_cut_after_any_change_loses_nothing_that_was_acknowledged() {
    let disk = Arc::new(RecordingDisk::new(memory()));
    let acknowledged = workload(&disk);
    let operations = disk.operations();
    assert!(operations.len() > 150, "only {} changes", operations.len());
    let mut replay = Replay::new(MemoryDisk::new());
    let mut states = 0;
    for (number, operation) in operations.iter().enumerate() {
        let promised = acknowledged
            .iter()
            .rev()
            .find(|acknowledged| acknowledged.changes <= number);
        let is_write = matches!(operation, Operation::Write { .. });
        if is_write && replay.begin(operation).unwrap() {
            states += cut(&replay, promised, number as u64);
        }
        replay.apply(operation).unwrap();
        states += cut(
            &replay,
            acknowledged
                .iter()
                .rev()
                .find(|found| found.changes <= number + 1),
            number as u64,
        );
    }
    assert!(states > 1000, "only {states} states");
}

/// Opens what a power cut now leaves, for several choices; says how many.
fn cut(replay: &Replay, promised: Option<&Acknowledged>, seed: u64) -> usize {
    let units = replay.disk().unsynced().len();
    let choices = crash_choices(units, 4, seed);
    // All of a few, and of many an even choice of four.
    let step = choices.len().div_ceil(4).max(1);
    let mut states = 0;
    for fates in choices.iter().skip(seed as usize % step).step_by(step) {
        let image = replay
            .disk()
            .crash_image(|unit, _| fates.get(unit).copied().unwrap_or(Fate::Lost))
            .unwrap();
        check(image, promised);
        states += 1;
    }
    states
}
