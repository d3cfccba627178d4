//! Promise: a deleted message is gone for everybody who comes later, and for nobody else: its offset answers `Deleted` and
//! is never given out again, the others stay what and where they are, through crashes and openings; whoever held the log
//! from before reads on. Shown by named cases, and by random work beside a model.
#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "tests fail by panicking, and say which seed replays them"
)]

mod common;

use std::sync::Arc;

use common::model::{Model, Random, check_snapshot, message};
use common::{memory, open_on, small, value};
use lanterman::disk::MemoryDisk;
use lanterman::{Background, Durability, Error, ErrorKind, Log, NewMessage, Retention, Snapshot, Store};

const NAMES: [&str; 3] = ["inbox", "audit", "events"];

fn check(store: &Store, name: &str, model: &Model, context: &str) {
    match store.snapshot(name) {
        Ok(snapshot) => check_snapshot(&snapshot, model, &format!("{context}, log {name}")),
        Err(Error::UnknownLog { .. }) => assert!(model.is_empty(), "{context}: {name} is unknown"),
        Err(other) => panic!("{context}: {other}"),
    }
}

/// How many messages that destroyed, and how many bytes.
fn delete_from(model: &mut Model, range: std::ops::Range<u64>) -> (u64, u64) {
    let mut destroyed = (0, 0);
    for offset in range {
        if let Some(message) = model[usize::try_from(offset).unwrap()].take() {
            destroyed = (destroyed.0 + 1, destroyed.1 + message.len() as u64);
        }
    }
    destroyed
}

fn random_work(seed: u64, steps: u64) {
    let mut random = Random::from_seed(seed);
    let mut disk = memory();
    let mut store = open_on(disk.clone());
    let mut models: [Model; 3] = Default::default();
    let mut held: Vec<(Snapshot, Model)> = Vec::new();
    let mut number = 0;
    for step in 0..steps {
        let log = usize::try_from(random.below(3)).unwrap();
        let (name, context) = (NAMES[log], format!("seed {seed}, step {step}"));
        let length = models[log].len() as u64;
        match random.below(20) {
            0..=6 => {
                let mut writer = store.writer(name).unwrap();
                for _ in 0..random.below(40) {
                    number += 1;
                    let message = message(&mut random, number);
                    writer.append(&message).unwrap();
                    models[log].push(Some(message));
                }
                let level =
                    [Durability::Disk, Durability::Process][usize::try_from(random.below(2)).unwrap()];
                writer.commit(level).unwrap();
            }
            7..=10 if length > 0 => {
                let first = random.below(length);
                let most = 1 + random.below(60);
                let end = first + random.below((length - first).min(most) + 1);
                let receipt = store.delete(name, first..end).unwrap();
                let destroyed = delete_from(&mut models[log], first..end);
                assert_eq!(receipt.offsets, first..end, "{context}");
                let told = (receipt.messages, receipt.bytes);
                assert_eq!((told, receipt.is_exact), (destroyed, true), "{context}");
            }
            11 if length > 0 => {
                let from = random.below(length + 1);
                let receipt = store.retain(name, &Retention::new().from(from)).unwrap();
                let destroyed = delete_from(&mut models[log], 0..from);
                let told = (receipt.messages, receipt.bytes);
                assert_eq!((told, receipt.is_exact), (destroyed, true), "{context}");
            }
            12 => {
                store.checkpoint().unwrap();
            }
            13 => while store.step().unwrap() {},
            14 => {
                if length > 0 {
                    held.push((store.snapshot(name).unwrap(), models[log].clone()));
                }
                if held.len() > 4 {
                    held.remove(0);
                }
            }
            15 => {
                // All of it or nothing, beside an append to another log.
                let other = (log + 1) % 3;
                number += 1;
                let message = message(&mut random, number);
                let end = random.below(length + 1);
                store
                    .transaction(|transaction| {
                        transaction.append(NAMES[other], &message)?;
                        if length > 0 {
                            transaction.delete(name, 0..end)?;
                        }
                        Ok(())
                    })
                    .unwrap();
                models[other].push(Some(message));
                if length > 0 {
                    delete_from(&mut models[log], 0..end);
                }
            }
            16 | 17 => {
                held.clear();
                let kill = random.below(2) == 0;
                if kill {
                    disk = Arc::new(disk.kill_image().unwrap());
                    std::mem::forget(store);
                } else {
                    store.close().unwrap();
                }
                store = open_on(disk.clone());
            }
            18 => {
                store.collect().unwrap();
                let space = store.check_space().unwrap();
                assert!(space.faults.is_empty(), "{context}: {:?}", space.faults);
            }
            _ => check(&store, name, &models[log], &context),
        }
        if random.below(8) == 0 {
            for (snapshot, model) in &held {
                check_snapshot(
                    snapshot,
                    model,
                    &format!("{context}, held snapshot of {}", snapshot.name()),
                );
            }
        }
    }
    for (name, model) in NAMES.iter().zip(&models) {
        check(&store, name, model, &format!("seed {seed}, at the end"));
    }
}

#[test]
fn random_deletions_agree_with_a_model() {
    let only = std::env::var("LANTERMAN_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seeds = only.map_or(1..60, |seed| seed..seed + 1);
    for seed in seeds {
        random_work(seed, 150);
    }
}

fn ten(disk: &Arc<MemoryDisk>) -> Store {
    let store = open_on(disk.clone());
    let mut writer = store.writer("events").unwrap();
    for offset in 0..10 {
        writer.append(&value(offset)).unwrap();
    }
    writer.commit(Durability::Disk).unwrap();
    drop(writer);
    store
}

fn offsets(log: &Log) -> Vec<u64> {
    let mut cursor = log.cursor(0u64).unwrap();
    let mut found = Vec::new();
    while let Some(message) = cursor.next().unwrap() {
        found.push(message.offset().get());
    }
    found
}

#[test]
fn ranges_that_are_none_or_reach_too_far_are_refused_and_change_nothing() {
    let disk = memory();
    let store = ten(&disk);
    #[allow(clippy::reversed_empty_ranges, reason = "that is the point")]
    let reversed = store.delete("events", 7..3).unwrap_err();
    assert_eq!(reversed.kind(), ErrorKind::FixTheCall);
    assert!(
        reversed.to_string().contains("ends before it begins"),
        "{reversed}"
    );
    let beyond = store.delete("events", 5..11).unwrap_err();
    assert!(beyond.to_string().contains("behind the last message"), "{beyond}");
    assert!(matches!(
        store.delete("nobody", 0..1),
        Err(Error::UnknownLog { .. })
    ));
    let before = store.version();
    let nothing = store.delete("events", 4..4).unwrap();
    assert_eq!(
        (nothing.messages, nothing.version),
        (0, before),
        "an empty range is no commit"
    );
    assert_eq!(
        offsets(&store.log("events").unwrap()),
        (0..10).collect::<Vec<_>>()
    );
}

#[test]
fn what_is_deleted_stays_deleted_and_deleting_it_again_destroys_nothing() {
    let disk = memory();
    let store = ten(&disk);
    let first = store.delete("events", 2..5).unwrap();
    assert_eq!((first.messages, first.is_exact), (3, true));
    let again = store.delete("events", 2..6).unwrap();
    assert_eq!(again.messages, 1, "three of the four were gone");
    for store in [store, open_on(Arc::new(disk.kill_image().unwrap()))] {
        let log = store.log("events").unwrap();
        assert_eq!(offsets(&log), [0, 1, 6, 7, 8, 9]);
        let error = log.snapshot().get(3u64).unwrap_err();
        assert!(
            matches!(&error, Error::Deleted { run, .. } if *run == (2..6)),
            "{error}"
        );
        assert_eq!(log.end().get(), 10, "offsets stay taken");
        assert!(
            log.snapshot()
                .get(10u64)
                .is_err_and(|error| matches!(error, Error::OutOfRange { .. }))
        );
    }
}

#[test]
fn deleting_the_front_moves_the_start_also_over_what_was_deleted_behind_it() {
    let disk = memory();
    let store = ten(&disk);
    store.delete("events", 3..6).unwrap();
    store.delete("events", 0..3).unwrap();
    let log = store.log("events").unwrap();
    assert_eq!(log.start().get(), 6);
    assert_eq!(offsets(&log), [6, 7, 8, 9]);
    store.delete("events", ..).unwrap();
    assert_eq!((log.start().get(), log.end().get()), (10, 10));
    let mut writer = store.writer("events").unwrap();
    assert_eq!(writer.append(b"next").unwrap().get(), 10);
    writer.commit(Durability::Disk).unwrap();
    store.checkpoint().unwrap();
    let again = open_on(Arc::new(disk.kill_image().unwrap()));
    assert_eq!(offsets(&again.log("events").unwrap()), [10]);
}

#[test]
fn a_transaction_that_deletes_and_appends_is_seen_whole_or_not_at_all() {
    let disk = memory();
    let store = ten(&disk);
    let before = store.snapshot_all();
    let receipt = store
        .transaction(|transaction| {
            transaction.delete("events", 0..4)?;
            transaction.append("done", b"four")
        })
        .unwrap();
    assert_eq!(receipt.deletions[0].messages, 4);
    let after = store.snapshot_all();
    assert!(before.log("done").is_err());
    assert_eq!(
        before.log("events").unwrap().range(..).unwrap().count(),
        10,
        "an older version of the store"
    );
    assert_eq!(after.log("events").unwrap().range(..).unwrap().count(), 6);
    let refused = store.transaction(|transaction| {
        transaction.append("done", b"never")?;
        transaction.delete("events", 0..99)
    });
    assert!(matches!(refused, Err(Error::InvalidRange { .. })));
    assert_eq!(
        store.log("done").unwrap().end().get(),
        1,
        "nothing of it is there"
    );
}

#[test]
fn messages_that_are_appended_and_not_committed_can_be_deleted() {
    let disk = memory();
    let store = open_on(disk.clone());
    let mut writer = store.writer("events").unwrap();
    for offset in 0..10 {
        writer.append(&value(offset)).unwrap();
    }
    let receipt = store.delete("events", 4..6).unwrap();
    assert_eq!(receipt.messages, 2);
    writer.append(&value(10)).unwrap();
    writer.commit(Durability::Disk).unwrap();
    let again = open_on(Arc::new(disk.kill_image().unwrap()));
    assert_eq!(
        offsets(&again.log("events").unwrap()),
        [0, 1, 2, 3, 6, 7, 8, 9, 10]
    );
}

#[test]
fn a_log_with_a_deleted_tail_goes_quiet_and_takes_new_messages() {
    let disk = memory();
    let store = ten(&disk);
    store.delete("events", 7..8).unwrap();
    // Twice: the log gives its memory back at the second.
    for _ in 0..2 {
        store.checkpoint().unwrap();
        store.writer("other").unwrap().append(b"x").unwrap();
        store.commit_all(Durability::Disk).unwrap();
    }
    store.checkpoint().unwrap();
    assert_eq!(
        offsets(&store.log("events").unwrap()),
        [0, 1, 2, 3, 4, 5, 6, 8, 9]
    );
    let mut writer = store.writer("events").unwrap();
    assert_eq!(writer.append(&value(10)).unwrap().get(), 10);
    writer.commit(Durability::Disk).unwrap();
    store.delete("events", 9..10).unwrap();
    let expected = [0, 1, 2, 3, 4, 5, 6, 8, 10];
    assert_eq!(offsets(&store.log("events").unwrap()), expected);
    let again = open_on(Arc::new(disk.kill_image().unwrap()));
    assert_eq!(offsets(&again.log("events").unwrap()), expected);
}

#[test]
fn a_deletion_that_ends_within_a_batch_commits_all_of_it() {
    let disk = memory();
    let store = open_on(disk.clone());
    let mut writer = store.writer("events").unwrap();
    let batch = [b"zero", b"one_", b"two_", b"more"].map(|value| NewMessage::new(value));
    writer.append_batch(batch).unwrap();
    store.delete("events", 1..2).unwrap();
    let again = open_on(Arc::new(disk.kill_image().unwrap()));
    assert_eq!(offsets(&again.log("events").unwrap()), [0, 2, 3]);
    drop(writer);
}

#[test]
fn a_plan_counts_the_tail_of_a_quiet_log() {
    let disk = memory();
    ten(&disk).close().unwrap();
    let store = open_on(disk);
    let plan = store.plan_deletion("events", 3..5).unwrap();
    assert_eq!(plan.messages, 2);
    let plan = store.plan_retention("events", &Retention::new().from(4)).unwrap();
    assert_eq!(plan.messages, 4);
    assert_eq!(store.delete("events", 3..5).unwrap().messages, 2);
}

#[test]
fn a_process_that_only_reads_follows_deletions() {
    let disk = memory();
    let store = ten(&disk);
    let reader = small()
        .read_only(true)
        .disk(disk.clone())
        .open_copying(common::PATH)
        .unwrap();
    assert_eq!(offsets(&reader.log("events").unwrap()).len(), 10);
    store.delete("events", 5..7).unwrap();
    reader.refresh().unwrap();
    assert_eq!(offsets(&reader.log("events").unwrap()), [0, 1, 2, 3, 4, 7, 8, 9]);
    store.checkpoint().unwrap();
    store.delete("events", 0..1).unwrap();
    reader.refresh().unwrap();
    assert_eq!(offsets(&reader.log("events").unwrap()), [1, 2, 3, 4, 7, 8, 9]);
}

#[test]
fn whole_slabs_go_without_being_read() {
    let disk = memory();
    let options = small().background(Background::Manual);
    let store = options
        .clone()
        .disk(disk.clone())
        .open_copying(common::PATH)
        .unwrap();
    let mut writer = store.writer("events").unwrap();
    for _ in 0..2000 {
        writer.append(&[7; 1000]).unwrap();
    }
    writer.commit(Durability::Disk).unwrap();
    drop(writer);
    store.checkpoint().unwrap();
    let receipt = store.delete("events", 200..1800).unwrap();
    let told = (receipt.messages, receipt.bytes, receipt.is_exact);
    assert_eq!(told, (1600, 1_600_000, true));
    let held: u64 = receipt.blocks.iter().map(|block| block.bytes).sum();
    assert!(held > 1_600_000, "{held} bytes of blocks held what was deleted");
    assert!(
        receipt.blocks.iter().all(|block| !block.is_node),
        "the tree's only node was changed"
    );
    let kept: Vec<u64> = (0..200).chain(1800..2000).collect();
    assert_eq!(offsets(&store.log("events").unwrap()), kept);
    store.close().unwrap();
    let again = open_on(disk);
    assert_eq!(offsets(&again.log("events").unwrap()), kept);
    let rest = again.delete("events", ..).unwrap();
    assert_eq!((rest.messages, rest.bytes, rest.is_exact), (400, 400_000, true));
    assert!(offsets(&again.log("events").unwrap()).is_empty());
}

/// Appends and deletes in turns, and says how much memory tails hold at the end.
fn tail_memory_after_edits(store: &Store, turns: u64) -> u64 {
    let mut writer = store.writer("events").unwrap();
    for _ in 0..turns {
        for number in 0..64 {
            writer.append(&[u8::try_from(number).unwrap(); 1000]).unwrap();
        }
        while store.step().unwrap() {}
        let end = store.log("events").unwrap().end().get();
        store.delete("events", 1..end - 10).unwrap();
    }
    store.counters().tail_memory_bytes
}

#[test]
fn who_stands_still_holds_no_memory_for_each_edit_behind_him() {
    for who in ["a cursor", "a snapshot of all logs"] {
        let store = open_on(memory());
        tail_memory_after_edits(&store, 1);
        let cursor = (who == "a cursor").then(|| store.log("events").unwrap().cursor(0u64).unwrap());
        let all = cursor.is_none().then(|| store.snapshot_all());
        let few = tail_memory_after_edits(&store, 10);
        let many = tail_memory_after_edits(&store, 60);
        // What was replaced is destroyed some turns later.
        assert!(
            many < few + (512 << 10),
            "{who}: {few} bytes of tails after 10 edits, {many} after 70"
        );
        drop((cursor, all));
    }
}

#[test]
fn snapshots_of_all_logs_between_edits_show_each_what_it_was() {
    let store = ten(&memory());
    let shown = |snapshot: &lanterman::StoreSnapshot| {
        let log = snapshot.log("events").unwrap();
        let messages = log.range(..).unwrap();
        messages
            .map(|message| message.unwrap().offset().get())
            .collect::<Vec<_>>()
    };
    let mut snapshots = Vec::new();
    for deleted in 1..9 {
        // Of some versions nobody takes one, and some are let go of before the end.
        if deleted % 3 != 0 {
            snapshots.push((deleted - 1, store.snapshot_all()));
        }
        store.delete("events", 0..deleted).unwrap();
        if deleted == 6 {
            snapshots.remove(1);
            store.collect().unwrap();
        }
        for (from, snapshot) in &snapshots {
            assert_eq!(shown(snapshot), (*from..10).collect::<Vec<_>>());
        }
    }
}
