//! Promise: a full disk can be made room on by the store itself: deleting, retaining, dropping and giving back what that leaves
//! work when nothing else does, again and again, in a store that was open and in one that is opened on the full disk; appends go
//! on afterwards, and nothing acknowledged is lost.
#![allow(
    clippy::cast_possible_truncation,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests fail by panicking, and their numbers are small"
)]

mod common;

use std::sync::Arc;

use common::{PATH, small, value};
use lanterman::disk::{Disk, MemoryDisk};
use lanterman::{Durability, Error, ErrorKind, Options, Retention, Store, Writer};

const SPACE: u64 = 40 << 20;

/// A disk with little space.
fn narrow() -> Arc<MemoryDisk> {
    let disk = MemoryDisk::new();
    disk.set_space(Some(SPACE));
    Arc::new(disk)
}

fn options() -> Options {
    small().collect(false)
}

fn open(disk: &Arc<MemoryDisk>) -> Store {
    let disk: Arc<dyn Disk> = Arc::<MemoryDisk>::clone(disk);
    options().disk(disk).open_copying(PATH).unwrap()
}

/// Appends until the disk is full, with the numbers that follow.
fn fill(writer: &mut Writer) -> Error {
    loop {
        let next = writer.next_offset().get();
        let outcome = writer.append(&value(next)).and_then(|_| {
            if next.is_multiple_of(16) {
                writer.commit(Durability::Disk)?;
            }
            Ok(())
        });
        if let Err(error) = outcome {
            return error;
        }
    }
}

/// Every message from `from` on is there, up to `end` at least.
fn check(store: &Store, from: u64, end: u64, context: &str) {
    let snapshot = store.snapshot("events").unwrap();
    let mut next = from;
    for message in snapshot.range(from..).unwrap() {
        let message = message.unwrap();
        assert_eq!(message.offset().get(), next, "{context}");
        assert!(
            message.value()[..] == value(next)[..],
            "{context}: another message at {next}"
        );
        next += 1;
    }
    assert!(next >= end, "{context}: {next} messages of {end}");
}

/// Deletes the front of the log, in one of the ways there are; gives where it begins afterwards.
fn make_room(store: &Store, start: u64, end: u64, way: u64) -> u64 {
    let from = start + (end - start) * (2 + way % 3) / 5;
    match way % 2 {
        0 => store.delete("events", start..from).unwrap(),
        _ => store.retain("events", &Retention::new().from(from)).unwrap(),
    };
    let collected = store.collect().unwrap();
    let bytes = collected.punched_bytes + collected.segment_bytes;
    assert!(bytes > SPACE / 5, "round {way}: {collected:?}");
    from
}

#[test]
fn deleting_and_collecting_makes_room_on_a_full_disk_again_and_again() {
    let mut disk = narrow();
    let mut store = open(&disk);
    let mut start = 0;
    for round in 0..12u64 {
        let context = format!("round {round}");
        let mut writer = store.writer("events").unwrap();
        let error = fill(&mut writer);
        assert_eq!(error.kind(), ErrorKind::FreeSpace, "{context}: {error}");
        let durable = writer.durable_end().get();
        assert!(durable > start + 1000, "{context}: little was written");
        drop(writer);
        check(&store, start, durable, &context);
        if round % 3 == 2 {
            // The process dies, and the next one finds the disk full.
            disk = Arc::new(disk.kill_image().unwrap());
            std::mem::forget(std::mem::replace(&mut store, open(&disk)));
            check(&store, start, durable, &context);
        }
        start = make_room(&store, start, durable, round);
        check(&store, start, durable, &context);
        assert!(
            disk.used_bytes() < SPACE / 10 * 9,
            "{context}: {}",
            disk.used_bytes()
        );
    }
    store.close().unwrap();
    check(&open(&disk), start, 0, "at the end");
}

#[test]
fn deleting_makes_room_when_others_took_what_a_close_gave_back() {
    let disk = Arc::new(MemoryDisk::new());
    let open = || {
        let disk: Arc<dyn Disk> = Arc::<MemoryDisk>::clone(&disk);
        let options = options().slab_segment_bytes(128 << 20, 128 << 20);
        options.disk(disk).open_copying(PATH).unwrap()
    };
    let store = open();
    common::append(&store, "events", 0..150_000);
    store.close().unwrap();
    disk.set_space(Some(disk.used_bytes()));
    let store = open();
    let mut writer = store.writer("events").unwrap();
    // Checkpoints take the little that was kept.
    let error = loop {
        let next = writer.next_offset().get();
        writer.append(&value(next)).unwrap();
        if let Err(error) = store.checkpoint() {
            break error;
        }
    };
    assert_eq!(error.kind(), ErrorKind::FreeSpace, "{error}");
    let end = writer.next_offset().get();
    drop(writer);
    let start = make_room(&store, 0, 150_000, 0);
    check(&store, start, end, "on the full disk");
    store.close().unwrap();
    check(&open(), start, end, "opened again");
}

#[test]
fn dropping_a_log_makes_room_on_a_full_disk() {
    let disk = narrow();
    let store = open(&disk);
    for round in 0..10 {
        let mut writer = store.writer("events").unwrap();
        let error = fill(&mut writer);
        assert_eq!(error.kind(), ErrorKind::FreeSpace, "round {round}: {error}");
        drop(writer);
        store.drop_log("events").unwrap();
        store.collect().unwrap();
        assert!(
            disk.used_bytes() < SPACE / 4,
            "round {round}: {}",
            disk.used_bytes()
        );
    }
    store.close().unwrap();
}

#[test]
fn appends_do_not_take_what_deletions_were_given() {
    let disk = narrow();
    let store = open(&disk);
    let mut writer = store.writer("events").unwrap();
    fill(&mut writer);
    let durable = writer.durable_end().get();
    for round in 0..10 {
        // Mostly within the journal's segment; now and then the reserve has to be used.
        store.delete("events", round * 2..round * 2 + 1).unwrap();
        let error = fill(&mut writer);
        assert_eq!(error.kind(), ErrorKind::FreeSpace, "round {round}: {error}");
    }
    let start = make_room(&store, 0, durable, 0);
    let before = writer.next_offset().get();
    fill(&mut writer);
    assert!(writer.next_offset().get() > before + 1000, "appends go on");
    let durable = writer.durable_end().get();
    drop(writer);
    make_room(&store, start, durable, 1);
    store.close().unwrap();
}
