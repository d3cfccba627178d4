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

/// A store whose newest segment of slabs is large and hardly used, closed: its disk, and the values in it.
fn closed_with_room_left() -> (std::sync::Arc<lanterman::disk::MemoryDisk>, u64) {
    let disk = memory();
    let store = roomy().disk(disk.clone()).open_copying(common::PATH).unwrap();
    common::append(&store, "events", 0..5_000);
    store.close().unwrap();
    (disk, 5_000)
}

/// One segment of slabs for everything.
fn roomy() -> lanterman::Options {
    common::small().slab_segment_bytes(32 << 20, 32 << 20)
}

#[test]
fn a_closed_store_holds_hardly_more_room_than_it_uses() {
    let (disk, _) = closed_with_room_left();
    let used = disk.used_bytes();
    assert!(used < 5 << 20, "{used} bytes for one of messages");
    // A visit that writes a little does not reserve all of it again, and gives back what it did.
    let store = roomy().disk(disk.clone()).open_copying(common::PATH).unwrap();
    common::append(&store, "events", 5_000..6_000);
    assert!(disk.used_bytes() < used + (3 << 20), "{}", disk.used_bytes());
    store.close().unwrap();
    assert!(disk.used_bytes() < used + (1 << 20), "{}", disk.used_bytes());
    let store = roomy().disk(disk).open_copying(common::PATH).unwrap();
    assert_eq!(check_values(&store, "events", 0), 6_000);
}

#[test]
fn room_that_a_close_gave_back_is_reserved_again_before_it_is_written_to() {
    for room in [0, 300 << 10, 3 << 20] {
        let (disk, mut next) = closed_with_room_left();
        let store = roomy().disk(disk.clone()).open_copying(common::PATH).unwrap();
        let mut writer = store.writer("events").unwrap();
        disk.set_space(Some(disk.used_bytes() + room));
        let error = loop {
            match writer.append(&value(next)) {
                Ok(_) => next += 1,
                Err(error) => break error,
            }
            assert!(next < 200_000, "the disk was never full");
        };
        assert_eq!(error.kind(), ErrorKind::FreeSpace, "{error}");
        assert_eq!(check_values(&store, "events", 0), next);
        disk.set_space(None);
        writer.commit(Durability::Disk).unwrap();
        drop((writer, store));
        let store = roomy().disk(disk).open_copying(common::PATH).unwrap();
        assert_eq!(check_values(&store, "events", 0), next);
    }
}
