//! Promise: no crash, and no call to the disk that fails, brings a message that breaks a rule into its log, takes the rules
//! away, or makes the store forget what they compare with.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests fail by panicking, and their numbers are small"
)]

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;

use common::{PATH, memory, small};
use lanterman::disk::{Disk, Fate, Fault, FaultyDisk, MemoryDisk, RecordingDisk, Replay};
use lanterman::{Constraints, Durability, Error, NewMessage, Store, ValueType};

const LOG: &str = "events";
const DEAD: &str = "dead";
const RULES: &str = r#"{"rules": [
    {"name": "in order", "require": {"rising": "/n"}},
    {"name": "once", "require": {"unique_key": {"within_messages": 10000}}, "on_violation": {"divert": "dead"}}
]}"#;

/// What was acknowledged as durable.
#[derive(Debug, Default, Clone, Copy)]
struct Acknowledged {
    is_constrained: bool,
    end: u64,
    dead: u64,
}

fn rules() -> Constraints {
    Constraints::from_json(RULES).unwrap()
}

fn open(disk: Arc<dyn Disk>) -> Result<Store, Error> {
    small().disk(disk).open_copying(PATH)
}

fn append(store: &Store, number: u64, key: u64) -> Result<(), Error> {
    let (value, key) = (format!("{{\"n\": {number}}}"), format!("key {key}"));
    let mut writer = store.writer(LOG)?;
    let message = NewMessage::new(value.as_bytes())
        .value_type(ValueType::JSON)
        .key(key.as_bytes());
    writer.append_message(&message).map(|_| ())
}

/// Every fifth message is out of order and refused, every seventh has a key that was there and is diverted; some come
/// through transactions that take in another log. Calls `noted` where everything before it is on the disk.
fn work(store: &Store, noted: &mut dyn FnMut(Acknowledged)) -> Result<(), Error> {
    let mut acknowledged = Acknowledged::default();
    store.create_log(LOG)?;
    store.set_constraints(LOG, Some(&rules()))?;
    acknowledged.is_constrained = true;
    noted(acknowledged);
    for number in 1..120_u64 {
        let is_twin = number.is_multiple_of(7);
        match append(store, number, if is_twin { 1 } else { number }) {
            Ok(()) => assert!(!is_twin),
            Err(Error::Diverted { .. }) => assert!(is_twin),
            Err(other) => return Err(other),
        }
        if number.is_multiple_of(5) {
            match append(store, number - 3, 1000 + number) {
                Err(Error::Constraint(violation)) => assert_eq!(violation.rule, "in order"),
                Err(other) => return Err(other),
                Ok(()) => panic!("{number} is out of order"),
            }
        }
        if number.is_multiple_of(30) {
            let value = format!("{{\"n\": {number}.5}}");
            let key = format!("key {number}.5");
            store.transaction(|transaction| {
                let message = NewMessage::new(value.as_bytes()).value_type(ValueType::JSON);
                transaction.append_message(LOG, &message.key(key.as_bytes()))?;
                transaction.append("audit", b"seen").map(|_| ())
            })?;
        }
        if number.is_multiple_of(20) {
            store.writer(LOG)?.commit(Durability::Disk)?;
            acknowledged.end = store.log(LOG)?.end().get();
            // A diverted message is committed at once, before what a later commit makes durable.
            acknowledged.dead = number / 7;
            noted(acknowledged);
        }
        if number.is_multiple_of(50) {
            store.checkpoint()?;
        }
    }
    Ok(())
}

fn check(image: MemoryDisk, acknowledged: Acknowledged, place: &str) {
    let store = open(Arc::new(image)).unwrap();
    let Ok(log) = store.log(LOG) else {
        assert!(!acknowledged.is_constrained, "{place}: the log is gone");
        return;
    };
    let Some(constraints) = log.constraints().unwrap() else {
        assert!(!acknowledged.is_constrained, "{place}: the rules are gone");
        assert_eq!(log.end().get(), 0, "{place}");
        return;
    };
    let snapshot = log.snapshot();
    let end = snapshot.end().get();
    assert!(end >= acknowledged.end, "{place}: {end} of {acknowledged:?}");
    let mut broken = Vec::new();
    snapshot
        .check_constraints(&constraints, |violation| {
            broken.push(violation);
            true
        })
        .unwrap();
    assert!(broken.is_empty(), "{place}: {broken:?}");
    let dead = store.log(DEAD).map_or(0, |dead| dead.end().get());
    assert!(dead >= acknowledged.dead, "{place}: {dead} of {acknowledged:?}");
    let keys: BTreeSet<Vec<u8>> = snapshot
        .range(..)
        .unwrap()
        .map(|message| message.unwrap().key().unwrap().to_vec())
        .collect();
    assert_eq!(keys.len() as u64, end, "{place}");
    // What the rules compare with is known again.
    if end > 0 {
        assert!(
            matches!(append(&store, 1, 5000), Err(Error::Constraint(_))),
            "{place}"
        );
        assert!(
            matches!(append(&store, 5000, 1), Err(Error::Diverted { .. })),
            "{place}"
        );
    }
    assert_eq!(
        store.log(DEAD).map_or(0, |log| log.end().get()),
        dead + u64::from(end > 0)
    );
    assert!(append(&store, 5001, 5001).is_ok(), "{place}");
}

#[test]
fn no_failing_call_lets_a_message_past_its_rules() {
    let faulty = Arc::new(FaultyDisk::new(memory()));
    work(&open(faulty.clone()).unwrap(), &mut |_| {}).unwrap();
    let operations = faulty.operation_kinds().len() as u64;
    let mut noticed = 0;
    for number in 0..operations {
        let disk = memory();
        let faulty = Arc::new(FaultyDisk::new(Arc::<MemoryDisk>::clone(&disk)));
        let fault = match number % 3 {
            0 => Fault::Error(5),
            1 => Fault::Error(28),
            _ => Fault::SyncLost { error: 5 },
        };
        faulty.fail_at(number, fault);
        let mut acknowledged = Acknowledged::default();
        if let Ok(store) = open(faulty) {
            noticed += u64::from(work(&store, &mut |told| acknowledged = told).is_err());
        }
        for fate in [Fate::Lost, Fate::Kept] {
            let place = format!("operation {number} of {operations}, {fault:?}, {fate:?}");
            check(disk.crash_image(|_, _| fate).unwrap(), acknowledged, &place);
        }
    }
    assert!(noticed > operations / 5, "{noticed} of {operations}");
}

#[test]
fn no_crash_lets_a_message_past_its_rules() {
    let recording = Arc::new(RecordingDisk::new(memory()));
    let mut told = Vec::new();
    let store = open(recording.clone()).unwrap();
    work(&store, &mut |acknowledged| {
        told.push((recording.operation_count(), acknowledged))
    })
    .unwrap();
    drop(store);
    let mut replay = Replay::new(MemoryDisk::new());
    for (done, operation) in recording.operations().iter().enumerate() {
        replay.apply(operation).unwrap();
        let known = told.iter().rev().find(|(count, _)| *count <= done + 1);
        let acknowledged = known.map_or_else(Acknowledged::default, |(_, acknowledged)| *acknowledged);
        for seed in 0..3_usize {
            let image = replay
                .disk()
                .crash_image(|unit, _| match (seed, (done + unit * 7) % 3) {
                    (0, _) | (2, 0) => Fate::Lost,
                    _ => Fate::Kept,
                });
            let place = format!("after operation {done}, choice {seed}");
            check(image.unwrap(), acknowledged, &place);
        }
    }
}
