//! Promise: each commit level keeps what it says, the watermarks say how far, durable cursors read no further, and after a
//! failed sync nothing is acknowledged until the store is opened again. Shown on disks that forget and disks that fail.
#![allow(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests fail by panicking, and their numbers are small"
)]

mod common;

use std::sync::Arc;

use common::{check_values, memory, open_on, value};
use lanterman::disk::{Fate, Fault, FaultyDisk, OperationKind};
use lanterman::{Durability, ErrorKind};

#[test]
fn process_commits_survive_a_kill_and_disk_commits_a_power_cut() {
    let disk = memory();
    let store = open_on(disk.clone());
    let mut writer = store.writer("events").unwrap();
    writer.append(&value(0)).unwrap();
    writer.commit(Durability::Disk).unwrap();
    assert_eq!((writer.committed_end().get(), writer.durable_end().get()), (1, 1));
    writer.append(&value(1)).unwrap();
    writer.commit(Durability::Process).unwrap();
    assert_eq!((writer.committed_end().get(), writer.durable_end().get()), (2, 1));
    writer.append(&value(2)).unwrap();
    assert_eq!((writer.next_offset().get(), writer.committed_end().get()), (3, 2));

    let killed = open_on(Arc::new(disk.kill_image().unwrap()));
    assert_eq!(check_values(&killed, "events", 0), 2);
    let cut = open_on(Arc::new(disk.crash_image(|_, _| Fate::Lost).unwrap()));
    assert_eq!(check_values(&cut, "events", 0), 1);
    // A later commit to the disk covers what went before it.
    writer.commit(Durability::Disk).unwrap();
    assert_eq!(writer.durable_end().get(), 3);
    let cut = open_on(Arc::new(disk.crash_image(|_, _| Fate::Lost).unwrap()));
    assert_eq!(check_values(&cut, "events", 0), 3);
}

#[test]
fn a_durable_cursor_reads_only_what_a_power_cut_would_leave() {
    let store = open_on(memory());
    let mut writer = store.writer("events").unwrap();
    let log = store.log("events").unwrap();
    let (mut all, mut durable) = (log.cursor(0u64).unwrap(), log.durable_cursor(0u64).unwrap());
    writer.append(&value(0)).unwrap();
    assert!(all.next().unwrap().is_some());
    assert!(durable.next().unwrap().is_none());
    writer.commit(Durability::Process).unwrap();
    assert!(durable.next().unwrap().is_none());
    writer.commit(Durability::Disk).unwrap();
    assert_eq!(durable.next().unwrap().unwrap().value(), value(0));
}

#[test]
fn nothing_is_acknowledged_after_a_failed_sync_until_the_store_is_opened_again() {
    for kind in [OperationKind::WriteSync, OperationKind::SyncData] {
        let memory = memory();
        let faulty = Arc::new(FaultyDisk::new(memory.clone()));
        let store = open_on(faulty.clone());
        let mut writer = store.writer("events").unwrap();
        writer.append(&value(0)).unwrap();
        writer.commit(Durability::Disk).unwrap();
        writer.append(&value(1)).unwrap();
        if kind == OperationKind::SyncData {
            // What is written without a sync makes the next commit one of two steps.
            writer.commit(Durability::Process).unwrap();
            writer.append(&value(2)).unwrap();
        }
        let fired = faulty.fired();
        faulty.fail_kind(kind, 0, Fault::SyncLost { error: 5 });
        assert!(writer.commit(Durability::Disk).is_err());
        assert_eq!(faulty.fired(), fired + 1, "the fault never struck");
        assert_eq!(writer.durable_end().get(), 1);
        faulty.clear_faults();
        // The device works again, and still nothing is acknowledged.
        for durability in [Durability::Process, Durability::Disk] {
            assert_eq!(writer.commit(durability).unwrap_err().kind(), ErrorKind::Reopen);
        }
        assert_eq!(store.checkpoint().unwrap_err().kind(), ErrorKind::Reopen);
        assert_eq!(
            store
                .transaction(|tx| tx.append("other", b"x"))
                .unwrap_err()
                .kind(),
            ErrorKind::Reopen
        );
        // Reading goes on.
        assert!(check_values(&store, "events", 0) >= 2);
        drop((writer, store));
        let cut = open_on(Arc::new(memory.crash_image(|_, _| Fate::Lost).unwrap()));
        assert!(check_values(&cut, "events", 0) >= 1);
        let mut writer = cut.writer("events").unwrap();
        writer.append(b"again").unwrap();
        writer.commit(Durability::Disk).unwrap();
    }
}

#[test]
fn every_failing_change_leaves_what_was_acknowledged() {
    let run = |faulty: &Arc<FaultyDisk>| {
        let store = common::small().disk(faulty.clone()).open_copying(common::PATH);
        let Ok(store) = store else { return 0 };
        let Ok(mut writer) = store.writer("events") else {
            return 0;
        };
        let mut acknowledged = 0;
        for number in 0..300 {
            if writer.append(&value(number)).is_err() {
                break;
            }
            if number % 20 == 19 {
                match writer.commit(Durability::Disk) {
                    Ok(_) => acknowledged = number + 1,
                    Err(_) => break,
                }
            }
            if number % 100 == 99 && store.checkpoint().is_err() {
                break;
            }
        }
        acknowledged
    };
    let count = {
        let faulty = Arc::new(FaultyDisk::new(memory()));
        assert_eq!(run(&faulty), 300);
        faulty.operations()
    };
    for number in 0..count {
        for fault in [
            Fault::Error(5),
            Fault::Error(28),
            Fault::Torn { bytes: 700, error: 5 },
            Fault::ShortRead { bytes: 9 },
        ] {
            let memory = memory();
            let faulty = Arc::new(FaultyDisk::new(memory.clone()));
            faulty.fail_at(number, fault);
            let acknowledged = run(&faulty);
            for image in [
                memory.kill_image().unwrap(),
                memory.crash_image(|_, _| Fate::Lost).unwrap(),
            ] {
                let store = open_on(Arc::new(image));
                let found = check_values(&store, "events", 0);
                assert!(
                    found >= acknowledged,
                    "fault {fault:?} at {number}: {found} of {acknowledged}"
                );
            }
        }
    }
}

#[test]
fn a_root_that_a_killed_process_left_unsynced_is_durable_before_the_journal_it_replaces_goes() {
    for skip in 0..12 {
        let memory = memory();
        let faulty = Arc::new(FaultyDisk::new(memory.clone()));
        let store = open_on(faulty.clone());
        let mut writer = store.writer("events").unwrap();
        for number in 0..600 {
            writer.append(&value(number)).unwrap();
            if number % 10 == 0 {
                writer.commit(Durability::Disk).unwrap();
            }
        }
        writer.commit(Durability::Disk).unwrap();
        // A durable write that was written and not yet synced when the process was killed.
        faulty.fail_kind(
            OperationKind::WriteSync,
            skip,
            Fault::Torn {
                bytes: 4096,
                error: 5,
            },
        );
        let struck = store.checkpoint().is_err();
        let killed = Arc::new(memory.kill_image().unwrap());
        let store = open_on(killed.clone());
        assert_eq!(check_values(&store, "events", 0), 600);
        let cut = |_: usize, unit: &lanterman::disk::Unit| match unit {
            lanterman::disk::Unit::Write { .. } => Fate::Lost,
            _ => Fate::Kept,
        };
        let again = open_on(Arc::new(killed.crash_image(cut).unwrap()));
        assert_eq!(check_values(&again, "events", 0), 600, "skip {skip}");
        assert!(struck || skip > 0, "the fault never struck");
    }
}

/// Linux marks pages clean that it could not write, and they read back. Whoever opens the store takes up what the device
/// has; otherwise what is acknowledged then stands behind a hole.
#[test]
fn what_a_failed_sync_lost_is_not_believed_when_the_store_is_opened_at_once() {
    // What fails: the durable write of a commit, the sync behind a volatile one, that of slabs which a commit adopts.
    for (kind, large, skip) in [
        (OperationKind::WriteSync, false, 0),
        (OperationKind::SyncData, false, 0),
        (OperationKind::SyncData, true, 0),
        (OperationKind::SyncData, true, 1),
        (OperationKind::SyncData, true, 2),
    ] {
        let memory = memory();
        let faulty = Arc::new(FaultyDisk::new(memory.clone()));
        let store = open_on(faulty.clone());
        let mut writer = store.writer("events").unwrap();
        writer.append(&value(0)).unwrap();
        writer.commit(Durability::Disk).unwrap();
        // Slabs of a megabyte in all: the commit adopts them.
        for number in 1..if large { 4_000 } else { 2 } {
            writer.append(&value(number)).unwrap();
        }
        if kind == OperationKind::SyncData {
            writer.commit(Durability::Process).unwrap();
        }
        let end = writer.next_offset().get();
        faulty.fail_kind(kind, skip, Fault::SyncLost { error: 5 });
        writer.append(&value(end)).unwrap();
        let failed = writer.commit(Durability::Disk).is_err();
        assert!(failed || skip > 0, "the fault never struck");
        faulty.clear_faults();
        drop((writer, store));

        let store = open_on(memory.clone());
        let found = check_values(&store, "events", 0);
        assert!(found >= 1, "the acknowledged message is gone");
        let mut writer = store.writer("events").unwrap();
        for number in found..found + 3 {
            writer.append(&value(number)).unwrap();
            writer.commit(Durability::Disk).unwrap();
        }
        let cut = open_on(Arc::new(memory.crash_image(|_, _| Fate::Lost).unwrap()));
        assert_eq!(
            check_values(&cut, "events", 0),
            found + 3,
            "{kind:?}, large {large}, skip {skip}"
        );
    }
}

/// The root slot that a checkpoint wrote last: if its sync failed, the older one is what the device has.
#[test]
fn a_root_slot_that_a_failed_sync_lost_is_not_believed() {
    for skip in 0..3 {
        let memory = memory();
        let faulty = Arc::new(FaultyDisk::new(memory.clone()));
        let store = open_on(faulty.clone());
        let mut writer = store.writer("events").unwrap();
        for number in 0..600 {
            writer.append(&value(number)).unwrap();
            if number % 50 == 49 {
                writer.commit(Durability::Disk).unwrap();
            }
        }
        faulty.fail_kind(OperationKind::WriteSync, skip, Fault::SyncLost { error: 5 });
        assert_eq!(store.checkpoint().is_err(), skip < 2, "two slots are written");
        faulty.clear_faults();
        drop((writer, store));
        let store = open_on(memory.clone());
        assert_eq!(check_values(&store, "events", 0), 600);
        let mut writer = store.writer("events").unwrap();
        for number in 600..1_200 {
            writer.append(&value(number)).unwrap();
            if number % 50 == 49 {
                writer.commit(Durability::Disk).unwrap();
            }
        }
        let cut = open_on(Arc::new(memory.crash_image(|_, _| Fate::Lost).unwrap()));
        assert_eq!(check_values(&cut, "events", 0), 1_200, "skip {skip}");
    }
}

#[test]
fn a_sync_that_fails_for_want_of_space_is_a_failed_sync_and_not_a_full_disk() {
    let memory = memory();
    let faulty = Arc::new(FaultyDisk::new(memory.clone()));
    let store = open_on(faulty.clone());
    let mut writer = store.writer("events").unwrap();
    writer.append(&value(0)).unwrap();
    writer.commit(Durability::Process).unwrap();
    writer.append(&value(1)).unwrap();
    faulty.fail_kind(OperationKind::SyncData, 0, Fault::SyncLost { error: 28 });
    assert_eq!(
        writer.commit(Durability::Disk).unwrap_err().kind(),
        ErrorKind::Reopen
    );
    faulty.clear_faults();
    assert_eq!(
        writer.commit(Durability::Disk).unwrap_err().kind(),
        ErrorKind::Reopen
    );
}
