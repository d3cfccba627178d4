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

use common::model::Random;
use common::{memory, open_on, value};
use lanterman::{Compression, Durability, Error, KeptMessage, NewMessage, Snapshot, Store, Writer};

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

/// A log in slabs of all kinds, with deleted messages, parts of a large value, a compressed stretch and a tail in memory.
fn of_all_kinds(store: &Store) -> Snapshot {
    let mut writer = store.writer("events").unwrap();
    let write = |writer: &mut Writer, numbers: std::ops::Range<u64>| {
        for number in numbers {
            writer.append(&value(number)).unwrap();
        }
        writer.commit(Durability::Disk).unwrap();
        while store.step().unwrap() {}
    };
    write(&mut writer, 0..2000);
    writer
        .append_large(&NewMessage::new(b""), vec![7; 3 << 20].as_slice())
        .unwrap();
    store
        .set_compression("events", Some(&Compression::lz4()))
        .unwrap();
    write(&mut writer, 2000..4000);
    store.set_compression("events", None).unwrap();
    write(&mut writer, 4000..6000);
    for range in [100..130, 777..778, 2500..2600, 4000..4800] {
        store.delete("events", range).unwrap();
    }
    store.collect().unwrap();
    write(&mut writer, 6000..6100);
    store.delete("events", 5000..5001).unwrap();
    store.snapshot("events").unwrap()
}

#[test]
fn many_messages_at_once_are_those_that_are_got_one_by_one() {
    let disk = memory();
    let store = open_on(disk.clone());
    of_all_kinds(&store);
    store.close().unwrap();
    let store = open_on(disk);
    let snapshot = store.snapshot("events").unwrap();
    let end = snapshot.end().get();
    let seed = 0x6d61_6e79;
    let mut random = Random::from_seed(seed);
    let mut shown = 0;
    for round in 0..200 {
        let count = random.below(80);
        let asked: Vec<u64> = (0..count).map(|_| random.below(end)).collect();
        let one_by_one: Result<Vec<KeptMessage>, Error> =
            asked.iter().map(|offset| snapshot.get(*offset)).collect();
        let context = format!("seed {seed}, round {round}");
        match (snapshot.get_many(&asked), one_by_one) {
            (Ok(many), Ok(alone)) => {
                let of = |messages: &[KeptMessage]| -> Vec<_> {
                    let seen = messages.iter();
                    seen.map(|message| (message.offset(), message.value().clone()))
                        .collect()
                };
                assert!(of(&many) == of(&alone), "{context}");
                shown += many.len();
            }
            (Err(many), Err(alone)) => assert_eq!(many.to_string(), alone.to_string(), "{context}"),
            (many, alone) => panic!("{context}: {} and {}", many.is_ok(), alone.is_ok()),
        }
        // Without those that are none, so that all kinds are read.
        let there: Vec<u64> = asked
            .into_iter()
            .filter(|offset| snapshot.get(*offset).is_ok())
            .collect();
        let many = snapshot.get_many(&there).unwrap();
        assert!(
            many.iter()
                .map(|message| message.offset().get())
                .eq(there.iter().copied()),
            "{context}"
        );
        shown += many.len();
    }
    assert!(shown > 1000, "{shown} messages were read");
}
