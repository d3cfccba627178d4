//! Promise: other handles and processes read a store while it is written, follow it over checkpoints and recycled journals,
//! and see nothing that was not committed; both ways of writing give the same answers. Shown beside a writer.
#![allow(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests fail by panicking, and their numbers are small"
)]

mod common;

use common::{check_values, memory, open_on, small, value};
use lanterman::disk::Choice;
use lanterman::{Durability, Error, Options};

#[test]
fn a_reader_follows_over_checkpoints_and_recycled_segments() {
    let disk = memory();
    let store = open_on(disk.clone());
    let mut writer = store.writer("events").unwrap();
    writer.append(&value(0)).unwrap();
    writer.commit(Durability::Process).unwrap();
    let reader = small()
        .read_only(true)
        .disk(disk)
        .open_copying(common::PATH)
        .unwrap();
    assert!(matches!(
        reader.writer("events").unwrap_err(),
        Error::ReadOnly { .. }
    ));
    assert!(matches!(reader.checkpoint().unwrap_err(), Error::ReadOnly { .. }));
    let mut cursor = reader.log("events").unwrap().cursor(0u64).unwrap();
    let mut seen = 0;
    for round in 0..60u64 {
        for _ in 0..70 {
            let next = writer.next_offset().get();
            writer.append(&value(next)).unwrap();
        }
        let committed = writer.committed_end().get();
        if round % 7 != 3 {
            writer.commit(Durability::Disk).unwrap();
        }
        if round % 4 == 2 {
            store.checkpoint().unwrap();
        }
        while store.step().unwrap() {}
        reader.refresh().unwrap();
        while let Some(message) = cursor.next().unwrap() {
            assert!(message.value() == value(seen), "another value at {seen}");
            seen += 1;
        }
        assert!(
            seen >= committed,
            "a reader sees {seen} of {committed} committed messages"
        );
        assert!(
            seen <= writer.committed_end().get(),
            "a reader sees what is not committed"
        );
    }
    assert!(store.counters().checkpoints > 10);
    assert_eq!(check_values(&reader, "events", 0), writer.committed_end().get());
}

#[test]
fn journals_are_recycled_and_an_old_life_is_never_read() {
    let disk = memory();
    let store = open_on(disk.clone());
    let mut writer = store.writer("events").unwrap();
    let mut used = Vec::new();
    for round in 0..40u64 {
        for _ in 0..100 {
            let next = writer.next_offset().get();
            writer.append(&value(next)).unwrap();
            if next.is_multiple_of(10) {
                writer.commit(Durability::Disk).unwrap();
            }
        }
        writer.commit(Durability::Disk).unwrap();
        store.checkpoint().unwrap();
        used.push(disk.used_bytes());
        let image = std::sync::Arc::new(disk.kill_image().unwrap());
        assert_eq!(check_values(&open_on(image), "events", 0), (round + 1) * 100);
    }
    // The values take about 200 bytes each; journals must not pile up beside them.
    let (early, late) = (used[9], used[39]);
    assert!(
        late - early < 4 << 20,
        "{} bytes more after 3000 messages",
        late - early
    );
}

#[test]
fn both_ways_of_writing_give_the_same_answers() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let mut count = 0;
    let choices = [Choice::Off, Choice::Required, Choice::Auto];
    for ring in choices {
        for direct in choices {
            let options = small().ring(ring).direct(direct);
            let store = match options.open_copying(&path) {
                Ok(store) => store,
                Err(Error::Io { source, .. }) if ring == Choice::Required || direct == Choice::Required => {
                    assert!(source.raw_os_error().is_some() || !source.to_string().is_empty());
                    continue;
                }
                Err(error) => panic!("{ring:?}, {direct:?}: {error}"),
            };
            assert_eq!(check_values(&store, "events", 0), count);
            assert!(ring != Choice::Off || !store.describe().ring);
            let mut writer = store.writer("events").unwrap();
            for number in count..count + 900 {
                writer.append(&value(number)).unwrap();
                if number % 50 == 0 {
                    writer.commit(Durability::Disk).unwrap();
                }
            }
            count += 900;
            writer.commit(Durability::Disk).unwrap();
            while store.step().unwrap() {}
            store.checkpoint().unwrap();
            assert_eq!(check_values(&store, "events", 0), count);
        }
    }
    assert!(count >= 900, "no way of writing works here");
    let store = Options::new().read_only(true).open_copying(&path).unwrap();
    assert_eq!(check_values(&store, "events", 0), count);
}
