//! Promise: a snapshot is what the log was when it was taken, for as long as it is held; a cursor follows what is appended
//! later; kept bytes stay what they were; offsets that a log does not have are errors. Shown across seals, checkpoints,
//! many later writes and the close of the store.
#![allow(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests fail by panicking, and their numbers are small"
)]

mod common;

use std::time::Duration;

use common::{memory, open_on, value};
use lanterman::{Durability, Error};

#[test]
fn a_snapshot_stays_what_it_was_and_says_what_it_holds_back() {
    let store = open_on(memory());
    let mut writer = store.writer("events").unwrap();
    let mut held = Vec::new();
    for number in 0..3000 {
        if number % 500 == 250 {
            held.push((number, store.snapshot("events").unwrap()));
        }
        writer.append(&value(number)).unwrap();
        if number % 700 == 0 {
            writer.commit(Durability::Disk).unwrap();
            store.checkpoint().unwrap();
        }
    }
    assert!(store.oldest_pin().is_some());
    drop(writer);
    store.clone().close().unwrap();
    for (end, snapshot) in held {
        assert_eq!((snapshot.end().get(), snapshot.message_count()), (end, end));
        let mut count = 0;
        for message in snapshot.range(..).unwrap() {
            assert!(
                message.unwrap().value()[..] == value(count)[..],
                "another value at {count}"
            );
            count += 1;
        }
        assert_eq!(count, end);
        assert!(snapshot.get(end).is_err());
    }
    assert!(store.oldest_pin().is_none());
}

#[test]
fn ranges_and_offsets_outside_a_log_are_errors() {
    let store = open_on(memory());
    let mut writer = store.writer("events").unwrap();
    for number in 0..10 {
        writer.append(&value(number)).unwrap();
    }
    let log = store.log("events").unwrap();
    let snapshot = log.snapshot();
    let is_range_error = |error: Error| matches!(error, Error::OutOfRange { .. });
    assert!(is_range_error(log.cursor(11u64).unwrap_err()));
    assert!(is_range_error(snapshot.cursor(11u64).unwrap_err()));
    assert!(is_range_error(snapshot.get(10u64).unwrap_err()));
    assert!(is_range_error(snapshot.get(u64::MAX).unwrap_err()));
    assert!(is_range_error(snapshot.range(5..12).unwrap_err()));
    assert!(is_range_error(snapshot.get_many(&[1, 10]).unwrap_err()));
    let mut cursor = log.cursor(10u64).unwrap();
    assert!(cursor.next().unwrap().is_none());
    assert!(is_range_error(cursor.seek(11u64).unwrap_err()));
    assert!(is_range_error(cursor.get(10u64).unwrap_err()));
    assert_eq!(cursor.get(3u64).unwrap().value(), value(3));
    assert_eq!(cursor.next().unwrap().unwrap().offset().get(), 4);
    assert_eq!(snapshot.range(3..=5).unwrap().count(), 3);
    assert_eq!(snapshot.range(4..4).unwrap().count(), 0);
    let many = snapshot.get_many(&[9, 0, 9, 4]).unwrap();
    assert_eq!(
        many.iter()
            .map(|message| message.offset().get())
            .collect::<Vec<_>>(),
        [9, 0, 9, 4]
    );
}

#[test]
fn a_cursor_follows_over_seals_and_checkpoints() {
    let store = open_on(memory());
    let mut writer = store.writer("events").unwrap();
    let mut cursor = store.log("events").unwrap().cursor(0u64).unwrap();
    for number in 0..4000 {
        writer.append(&value(number)).unwrap();
        if number % 3 != 0 {
            continue;
        }
        while let Some(message) = cursor.next().unwrap() {
            assert!(message.value() == value(message.offset().get()), "another value");
        }
        assert_eq!(cursor.offset().get(), number + 1);
        if number % 900 == 0 {
            writer.commit(Durability::Process).unwrap();
            store.checkpoint().unwrap();
        }
    }
    assert!(cursor.next_within(Duration::from_millis(20)).unwrap().is_none());
}

#[test]
fn kept_bytes_outlive_cursor_slab_and_store_and_are_not_copied() {
    let store = open_on(memory());
    let mut writer = store.writer("events").unwrap();
    for number in 0..2000 {
        writer.append(&value(number)).unwrap();
    }
    let snapshot = store.snapshot("events").unwrap();
    let mut kept = Vec::new();
    for offset in [1u64, 700, 1999] {
        let mut cursor = snapshot.cursor(offset).unwrap();
        let message = cursor.next().unwrap().unwrap();
        let bytes = message.to_bytes();
        assert_eq!(bytes.as_ptr(), message.value().as_ptr(), "the bytes were copied");
        kept.push((offset, bytes));
    }
    for number in 2000..6000 {
        writer.append(&value(number)).unwrap();
    }
    writer.commit(Durability::Disk).unwrap();
    drop((writer, snapshot, store));
    let checked =
        std::thread::spawn(move || kept.iter().all(|(offset, bytes)| bytes[..] == value(*offset)[..]));
    assert!(checked.join().unwrap());
}
