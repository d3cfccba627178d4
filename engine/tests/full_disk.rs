//! Promise: a full disk is a typed error; nothing acknowledged is lost, reading goes on, and so does appending once there is
//! room, without reopening. Shown on a disk in memory whose room is taken away and given back.
#![allow(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests fail by panicking, and their numbers are small"
)]

mod common;

use common::{check_values, memory, open_on, value};
use lanterman::{Durability, Error, ErrorKind, WhenFull};

#[test]
fn a_full_disk_is_a_typed_error_and_appending_goes_on_when_there_is_room() {
    let disk = memory();
    let store = open_on(disk.clone());
    let mut writer = store.writer("events").unwrap();
    let mut next = 0;
    for round in 0..20 {
        disk.set_space(Some(disk.used_bytes() + (round << 14)));
        let error = loop {
            match writer.append(&value(next)) {
                Ok(_) => next += 1,
                Err(error) => break error,
            }
            if next % 50 == 0
                && let Err(error) = writer.commit(Durability::Disk)
            {
                break error;
            }
        };
        assert!(matches!(error, Error::StorageFull { .. }), "{error}");
        assert_eq!(error.kind(), ErrorKind::FreeSpace);
        assert_eq!(check_values(&store, "events", 0), next);
        disk.set_space(None);
        writer.commit(Durability::Disk).unwrap();
        assert_eq!(writer.durable_end().get(), next);
    }
    drop((writer, store));
    assert_eq!(check_values(&open_on(disk), "events", 0), next);
}

#[test]
fn appends_without_commits_meet_the_full_disk_when_memory_is_used_up() {
    for when_full in [WhenFull::Wait, WhenFull::Refuse] {
        let disk = memory();
        let store = common::small()
            .when_full(when_full)
            .disk(disk.clone())
            .open_copying(common::PATH)
            .unwrap();
        let mut writer = store.writer("events").unwrap();
        disk.set_space(Some(disk.used_bytes()));
        let mut next = 0;
        let error = loop {
            match writer.append(&value(next)) {
                Ok(_) => next += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::FreeSpace, "{when_full:?}: {error}");
        assert!(next > 1000, "memory held only {next}");
        assert_eq!(check_values(&store, "events", 0), next);
        disk.set_space(None);
        loop {
            match writer.append(&value(next)) {
                Ok(_) => break,
                Err(error) => assert_eq!(error.kind(), ErrorKind::Retry),
            }
        }
        writer.commit(Durability::Disk).unwrap();
        assert_eq!(check_values(&store, "events", 0), next + 1);
    }
}

#[test]
fn a_store_opens_and_reads_on_a_full_disk() {
    let disk = memory();
    let store = open_on(disk.clone());
    let mut writer = store.writer("events").unwrap();
    for number in 0..500 {
        writer.append(&value(number)).unwrap();
    }
    writer.commit(Durability::Disk).unwrap();
    let image = std::sync::Arc::new(disk.kill_image().unwrap());
    image.set_space(Some(image.used_bytes()));
    let store = open_on(image);
    assert_eq!(check_values(&store, "events", 0), 500);
}
