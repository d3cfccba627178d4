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

fn values(store: &lanterman::Store, log: &str) -> Vec<String> {
    let mut cursor = store.log(log).unwrap().cursor(0_u64).unwrap();
    let mut values = Vec::new();
    while let Some(message) = cursor.next().unwrap() {
        values.push(String::from_utf8(message.value().to_vec()).unwrap());
    }
    values
}

#[test]
fn messages_of_logs_in_between_each_other_keep_the_order_in_which_each_log_got_them() {
    let store = open_on(memory());
    store
        .transaction(|transaction| transaction.append("known", b"0"))
        .unwrap();
    let receipt = store
        .transaction(|transaction| {
            for number in 1..50 {
                let log = ["known", "new", "newer"][number * 7 % 3];
                transaction.append(log, number.to_string().as_bytes())?;
                if number % 5 == 0 {
                    transaction.append(log, b"behind")?;
                }
            }
            Ok(())
        })
        .unwrap();
    for (place, log) in ["known", "new", "newer"].into_iter().enumerate() {
        let mut expected: Vec<String> = (log == "known").then(|| "0".to_owned()).into_iter().collect();
        let before = expected.len() as u64;
        for number in (1..50).filter(|number| number * 7 % 3 == place) {
            expected.push(number.to_string());
            expected.extend((number % 5 == 0).then(|| "behind".to_owned()));
        }
        assert_eq!(values(&store, log), expected);
        assert_eq!(receipt.offsets[log], before..expected.len() as u64);
    }
}

#[test]
fn a_log_that_is_dropped_while_a_transaction_collects_is_made_anew_with_all_its_messages() {
    for is_made_between in [false, true] {
        let store = open_on(memory());
        let append = |value: &[u8]| {
            let done = store.transaction(|transaction| transaction.append("events", value));
            done.unwrap();
        };
        append(b"gone");
        let receipt = store
            .transaction(|transaction| {
                transaction.append("events", b"one")?;
                store.drop_log("events")?;
                if is_made_between {
                    append(b"zero");
                }
                transaction.append("events", b"two")
            })
            .unwrap();
        let expected: &[&str] = match is_made_between {
            true => &["zero", "one", "two"],
            false => &["one", "two"],
        };
        assert_eq!(values(&store, "events"), expected);
        assert_eq!(receipt.offsets["events"].end, expected.len() as u64);
    }
}

#[test]
fn what_was_appended_before_a_transaction_is_committed_with_it_and_counted_once() {
    let store = open_on(memory());
    let mut writer = store.writer("events").unwrap();
    for number in 0..10_u8 {
        writer.append(&[number]).unwrap();
    }
    store
        .transaction(|transaction| {
            transaction.append("other", b"first")?;
            transaction.append("events", b"last")
        })
        .unwrap();
    assert_eq!(writer.committed_end().get(), 11);
    assert_eq!(writer.durable_end().get(), 11);
    let ends: Vec<_> = store.logs().iter().map(|log| log.end.get()).collect();
    assert_eq!(ends, [11, 1]);
}

#[test]
fn every_checkpoint_has_the_logs_that_changed_since_the_one_before() {
    let store = open_on(memory());
    for changed in [3, 2, 3, 1] {
        store
            .transaction(|transaction| {
                (0..changed).try_for_each(|log| transaction.append(&format!("log {log}"), b"again"))
            })
            .unwrap();
        assert_eq!(store.checkpoint().unwrap().unwrap().logs, changed);
    }
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

#[test]
fn a_transaction_that_needs_more_memory_than_all_tails_have_is_refused_and_waits_for_nothing() {
    let store = open_on(memory());
    let over = |logs: u64| {
        store.transaction(|transaction| {
            (0..logs).try_for_each(|log| transaction.append(&format!("log {log}"), b"a message"))
        })
    };
    // The memory of the test is 1 MiB, and the smallest chunk 4 KiB.
    assert_eq!(over(256).unwrap().offsets.len(), 256);
    let error = over(257).unwrap_err();
    assert!(
        matches!(error, Error::TooLarge { bytes, limit_bytes, .. } if bytes == 257 << 12 && limit_bytes == 1 << 20),
        "{error}"
    );
    assert_eq!(error.kind(), ErrorKind::FixTheCall);
    // As often as one likes: what waits is written meanwhile.
    for _ in 0..3 {
        over(256).unwrap();
    }
    assert_eq!(store.log("log 7").unwrap().end().get(), 4);
    assert_eq!(store.log("log 256").map(|log| log.end().get()).unwrap_or(0), 0);
}
