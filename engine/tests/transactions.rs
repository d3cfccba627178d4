//! Promise: a transaction over many logs is there whole or not at all, visible at once, also to those who snapshot the whole
//! store while it commits. Shown with threads that commit pairs and threads that look.
#![allow(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests fail by panicking, and their numbers are small"
)]

mod common;

use std::sync::atomic::{AtomicBool, Ordering};

use common::{memory, open_on};
use lanterman::{Durability, Error, ErrorKind, Options};

#[test]
fn a_transaction_given_up_leaves_nothing_and_one_committed_names_its_offsets() {
    let store = open_on(memory());
    let mut orders = store.writer("orders").unwrap();
    orders.append(b"zero").unwrap();
    let error = store
        .transaction(|transaction| {
            transaction.append("orders", b"never")?;
            transaction.append("audit", b"never")?;
            lanterman::abort("changed its mind")
        })
        .unwrap_err();
    assert!(matches!(error, Error::Aborted { .. }) && error.kind() == ErrorKind::FixTheCall);
    assert_eq!(orders.next_offset().get(), 1);
    assert!(store.log("audit").is_err());
    let receipt = store
        .transaction(|transaction| {
            transaction.append("orders", b"one")?;
            transaction.append("audit", b"first")?;
            transaction.append("orders", b"two")
        })
        .unwrap();
    assert_eq!(
        (
            receipt.offsets["orders"].clone(),
            receipt.offsets["audit"].clone()
        ),
        (1..3, 0..1)
    );
    assert_eq!(orders.durable_end().get(), 3);
    assert_eq!(orders.append(b"three").unwrap().get(), 3);
    assert!(store.transaction(|_| Ok(())).unwrap().offsets.is_empty());
}

#[test]
fn a_transaction_waits_for_no_reservation_and_says_so() {
    let store = open_on(memory());
    let mut writer = store.writer("events").unwrap();
    let room = writer.reserve(10).unwrap();
    let error = store
        .transaction(|transaction| transaction.append("events", b"x"))
        .unwrap_err();
    assert!(matches!(error, Error::Reserved { .. }) && error.kind() == ErrorKind::Retry);
    drop(room);
    assert_eq!(
        store
            .transaction(|transaction| transaction.append("events", b"x"))
            .unwrap()
            .offsets["events"],
        0..1
    );
}

#[test]
fn nobody_ever_sees_half_a_transaction() {
    let directory = tempfile::tempdir().unwrap();
    let store = Options::new()
        .open_copying(directory.path().join("store"))
        .unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for number in 0..150u64 {
                    store
                        .transaction(|transaction| {
                            transaction.durability(Durability::Process);
                            for log in ["a", "b", "c"] {
                                transaction.append(log, &number.to_le_bytes())?;
                            }
                            Ok(())
                        })
                        .unwrap();
                }
                done.store(true, Ordering::Release);
            });
        }
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                let all = store.snapshot_all();
                let ends: Vec<_> = ["a", "b", "c"]
                    .iter()
                    .map(|log| all.log(log).map_or(0, |log| log.end().get()))
                    .collect();
                assert!(
                    ends[0] == ends[1] && ends[1] == ends[2],
                    "half a transaction: {ends:?}"
                );
                for log in ["a", "b", "c"] {
                    if let Ok(log) = all.log(log) {
                        assert_eq!(log.range(..).unwrap().count() as u64, log.end().get());
                    }
                }
            }
        });
    });
    let ends: Vec<_> = store.logs().iter().map(|log| log.end.get()).collect();
    assert_eq!(ends, [300, 300, 300]);
}
