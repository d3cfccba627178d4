//! Promise: a splice puts what another log has behind the end of a log, by reference and with new offsets, all of it or
//! nothing; deleted offsets stay deleted; logs appended to logs read through, however deep. Shown case by case, after
//! closing and after a crash too.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests fail by panicking, and their numbers are small"
)]

mod common;

use std::sync::Arc;

use common::{append, check_values, end, large_slabs, lives, memory, offsets, open_on, small, value};
use lanterman::disk::{FaultyDisk, OperationKind};
use lanterman::{Durability, Error, ErrorKind};

#[test]
fn concatenation_goes_on_where_the_log_ended_and_both_go_their_own_ways() {
    for quiet in [false, true] {
        let disk = memory();
        let store = open_on(disk.clone());
        append(&store, "first", 0..300);
        append(&store, "second", 300..700);
        if quiet {
            store.checkpoint().unwrap();
            append(&store, "other", 0..1);
            store.checkpoint().unwrap();
        }
        let receipt = store.concat("first", "second").unwrap();
        assert_eq!((receipt.offsets, receipt.log.as_str()), (300..700, "first"));
        append(&store, "first", 700..710);
        append(&store, "second", 700..705);
        store.delete("second", 0..50).unwrap();
        assert_eq!(check_values(&store, "first", 0), 710);
        for (how, store) in lives(&disk, store) {
            assert_eq!(check_values(&store, "first", 0), 710, "{how}");
            assert_eq!(store.log("second").unwrap().start().get(), 50, "{how}");
            append(&store, "first", 710..712);
            assert_eq!(check_values(&store, "first", 0), 712, "{how}");
        }
    }
}

#[test]
fn a_range_is_taken_with_its_deleted_offsets_and_nothing_else() {
    let disk = memory();
    let store = open_on(disk.clone());
    append(&store, "source", 0..100);
    store.delete("source", 0..10).unwrap();
    store.delete("source", 40..45).unwrap();
    append(&store, "log", 0..3);
    assert_eq!(store.splice("log", "source", 38..50).unwrap().offsets, 3..15);
    assert_eq!(store.splice("log", "source", 5..12).unwrap().offsets, 15..22);
    // The whole of a log is what it has, and not what retention took at its front.
    assert_eq!(store.concat("log", "source").unwrap().offsets, 22..112);
    let kept =
        |offset: &u64| !(5..10).contains(offset) && !(15..20).contains(offset) && !(52..57).contains(offset);
    for (how, store) in lives(&disk, store) {
        let expected: Vec<u64> = (0..112).filter(kept).collect();
        assert_eq!(offsets(&store, "log"), expected, "{how}");
        let log = store.snapshot("log").unwrap();
        for (offset, number) in [
            (0u64, 0),
            (3, 38),
            (10, 45),
            (14, 49),
            (20, 10),
            (22, 10),
            (111, 99),
        ] {
            assert_eq!(
                log.get(offset).unwrap().value()[..],
                value(number)[..],
                "{how}, {offset}"
            );
        }
        assert!(matches!(log.get(16u64), Err(Error::Deleted { .. })), "{how}");
    }
}

#[test]
fn bad_ranges_a_log_of_its_own_and_unknown_logs_are_refused_and_change_nothing() {
    let disk = memory();
    let store = open_on(disk.clone());
    append(&store, "log", 0..10);
    append(&store, "source", 0..10);
    append(&store, "empty", 0..0);
    let version = store.version();
    let itself = store.concat("log", "log").unwrap_err();
    assert!(matches!(itself, Error::SpliceIntoItself { .. }), "{itself}");
    let itself = store.splice("log", "log", 2..3).unwrap_err();
    assert_eq!(itself.kind(), ErrorKind::FixTheCall);
    #[allow(clippy::reversed_empty_ranges, reason = "that is the point")]
    let ranges = [
        (3..3, "it is empty"),
        (5..11, "behind the last message"),
        (7..3, "ends before it begins"),
    ];
    for (range, reason) in ranges {
        let error = store.splice("log", "source", range).unwrap_err();
        assert!(error.to_string().contains(reason), "{error}");
    }
    assert!(matches!(
        store.concat("log", "empty"),
        Err(Error::InvalidRange { .. } | Error::UnknownLog { .. })
    ));
    assert!(matches!(
        store.concat("log", "nobody"),
        Err(Error::UnknownLog { .. })
    ));
    assert!(matches!(
        store.concat("nobody", "source"),
        Err(Error::UnknownLog { .. })
    ));
    assert_eq!((store.version(), end(&store, "log")), (version, 10));
    assert!(store.log("nobody").is_err(), "a refused splice makes no log");
}

#[test]
fn a_writer_goes_on_behind_what_was_spliced_beside_it() {
    let disk = memory();
    let store = open_on(disk.clone());
    append(&store, "source", 0..50);
    let mut writer = store.writer("log").unwrap();
    let mut expected = Vec::new();
    for round in 0..40u64 {
        for number in 0..round % 7 {
            writer.append(&value(1_000 + number)).unwrap();
            expected.push(value(1_000 + number));
        }
        let before = writer.next_offset().get();
        assert_eq!(
            store.concat("log", "source").unwrap().offsets,
            before..before + 50
        );
        assert_eq!(writer.next_offset().get(), before + 50);
        expected.extend((0..50).map(value));
        if round % 5 == 0 {
            writer.commit(Durability::Disk).unwrap();
        }
        if round % 9 == 4 {
            while store.step().unwrap() {}
        }
    }
    writer.append(&value(7)).unwrap();
    expected.push(value(7));
    writer.commit(Durability::Disk).unwrap();
    drop(writer);
    for (how, store) in lives(&disk, store) {
        let log = store.snapshot("log").unwrap();
        let found = log
            .range(..)
            .unwrap()
            .map(|message| message.unwrap().value().to_vec());
        assert!(found.eq(expected.iter().cloned()), "{how}");
    }
}

#[test]
fn appends_and_splices_of_many_threads_never_come_between_each_other() {
    let disk = memory();
    let store = open_on(disk.clone());
    append(&store, "log", 0..1);
    append(&store, "source", 0..30);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| (0..40).for_each(|_| drop(store.concat("log", "source").unwrap())));
        }
        scope.spawn(|| {
            let mut writer = store.writer("log").unwrap();
            for _ in 0..500 {
                writer.append(b"between").unwrap();
                writer.commit(Durability::Process).unwrap();
            }
        });
        scope.spawn(|| {
            for _ in 0..30 {
                store.checkpoint().unwrap();
                store.delete("log", 0..1).unwrap();
            }
        });
    });
    store.commit_all(Durability::Disk).unwrap();
    for (how, store) in lives(&disk, store) {
        let log = store.snapshot("log").unwrap();
        assert_eq!(log.end().get(), 1 + 3 * 40 * 30 + 500, "{how}");
        let mut runs = 0;
        let mut next = 0;
        for message in log.range(..).unwrap() {
            let message = message.unwrap();
            if message.value()[..] == b"between"[..] {
                assert_eq!(next, 0, "{how}: a message in the middle of a splice");
            } else {
                assert!(message.value()[..] == value(next)[..], "{how}: another value");
                next = (next + 1) % 30;
                runs += u64::from(next == 0);
            }
        }
        assert_eq!(runs, 120, "{how}");
    }
}

/// How many reads and writes a call made.
fn cost(disk: &FaultyDisk, call: impl FnOnce()) -> (usize, usize) {
    let before = disk.operation_kinds().len();
    call();
    let kinds = disk.operation_kinds();
    let count = |kind| kinds.iter().skip(before).filter(|found| **found == kind).count();
    (count(OperationKind::Read), count(OperationKind::Write))
}

#[test]
fn logs_in_logs_read_through_and_cost_the_same_however_long_they_are() {
    let memory = memory();
    let disk = Arc::new(FaultyDisk::new(memory.clone()));
    let open = || small().disk(disk.clone()).open_copying(common::PATH).unwrap();
    let mut store = open();
    append(&store, "0", 0..1_000);
    let mut length = 1_000u64;
    for depth in 0..40u64 {
        let (inner, outer) = (depth.to_string(), (depth + 1).to_string());
        store.fork(&inner, &outer).unwrap();
        if depth % 8 == 7 {
            // Nothing is in memory then.
            store.close().unwrap();
            store = open();
        }
        let (reads, writes) = cost(&disk, || drop(store.append_log(&outer, &inner).unwrap()));
        // Nodes along two edges of a tree whose height is the logarithm of its length, and one block of the journal.
        assert!(reads <= 32, "depth {depth}: {reads} reads for {length} messages");
        assert!(writes <= 2, "depth {depth}: {writes} writes");
        length *= 2;
        assert_eq!(end(&store, &outer), length);
        if depth > 3 {
            store.drop_log(&inner).unwrap();
        }
    }
    store.delete("40", 5_000..length - 5_000).unwrap();
    drop(store);
    for store in [open(), open_on(Arc::new(memory.kill_image().unwrap()))] {
        let snapshot = store.snapshot("40").unwrap();
        assert_eq!(snapshot.end().get(), length);
        for offset in [0, 999, 1_000, 4_999, length - 5_000, length - 1] {
            assert!(
                snapshot.get(offset).unwrap().value()[..] == value(offset % 1_000)[..],
                "{offset}"
            );
        }
        assert!(matches!(snapshot.get(length / 2), Err(Error::Deleted { .. })));
        assert_eq!(snapshot.range(..).unwrap().count(), 10_000);
        std::mem::forget(store);
    }
}

#[test]
fn a_log_three_deep_reads_like_one_that_was_appended() {
    let disk = memory();
    let store = open_on(disk.clone());
    for (name, values) in [
        ("inner", 0..40),
        ("middle", 40..60),
        ("outer", 60..63),
        ("log", 63..64),
    ] {
        append(&store, name, values);
    }
    store.append_log("middle", "inner").unwrap();
    store.append_log("outer", "middle").unwrap();
    assert_eq!(store.append_log("log", "outer").unwrap().offsets, 1..64);
    append(&store, "inner", 0..5);
    store.drop_log("middle").unwrap();
    let expected: Vec<u64> = (63..64).chain(60..63).chain(40..60).chain(0..40).collect();
    for (how, store) in lives(&disk, store) {
        let log = store.snapshot("log").unwrap();
        let found: Vec<_> = log.range(..).unwrap().map(|message| message.unwrap()).collect();
        assert_eq!(found.len(), expected.len(), "{how}");
        for (message, number) in found.iter().zip(&expected) {
            assert!(
                message.value()[..] == value(*number)[..],
                "{how}, {}",
                message.offset()
            );
        }
    }
}

#[test]
fn what_is_deleted_of_a_run_that_waits_for_its_place_is_passed_over_and_kept_so() {
    for retained in [false, true] {
        let disk = memory();
        let store = open_on(disk.clone());
        append(&store, "source", 0..100);
        store.checkpoint().unwrap();
        append(&store, "other", 0..1);
        store.checkpoint().unwrap();
        // These three stand in memory, so that the run waits behind them.
        append(&store, "log", 0..3);
        let before = store.snapshot("log").unwrap();
        store.concat("log", "source").unwrap();
        store.delete("log", 20..30).unwrap();
        let mut expected: Vec<u64> = (0..20).chain(30..103).collect();
        assert_eq!(offsets(&store, "log"), expected);
        if retained {
            // The new beginning is in the middle of the run.
            store.delete("log", 0..50).unwrap();
            expected = (50..103).collect();
        }
        append(&store, "log", 100..104);
        expected.extend(103..107);
        assert_eq!(offsets(&store, "log"), expected);
        assert_eq!(before.range(..).unwrap().count(), 3);
        for (how, store) in lives(&disk, store) {
            assert_eq!(offsets(&store, "log"), expected, "{how}");
            while store.step().unwrap() {}
            store.checkpoint().unwrap();
            assert_eq!(offsets(&store, "log"), expected, "{how}, in the tree");
            assert_eq!(end(&store, "log"), 107, "{how}");
        }
    }
}

#[test]
fn a_cursor_at_the_end_of_a_chunk_goes_on_into_what_was_spliced_behind_it() {
    let disk = memory();
    let store = open_on(disk);
    append(&store, "source", 3..50);
    // On the disk, so that it is taken by reference.
    store.checkpoint().unwrap();
    append(&store, "other", 0..1);
    store.checkpoint().unwrap();
    append(&store, "log", 0..3);
    let mut cursor = store.log("log").unwrap().cursor(0u64).unwrap();
    for number in 0..3 {
        assert!(cursor.next().unwrap().unwrap().value() == value(number));
    }
    assert!(cursor.next().unwrap().is_none());
    store.concat("log", "source").unwrap();
    store.checkpoint().unwrap();
    for number in 3..50 {
        assert!(cursor.next().unwrap().unwrap().value() == value(number));
    }
    assert!(cursor.next().unwrap().is_none());
    assert_eq!(end(&store, "log"), 50);
}

#[test]
fn a_slab_behind_a_splice_is_found_again_where_the_messages_before_it_are_in_the_journal() {
    let disk = memory();
    let store = large_slabs()
        .disk(disk.clone())
        .open_copying(common::PATH)
        .unwrap();
    append(&store, "source", 3..50);
    store.checkpoint().unwrap();
    append(&store, "other", 0..1);
    store.checkpoint().unwrap();
    append(&store, "log", 0..3);
    store.concat("log", "source").unwrap();
    let mut writer = store.writer("log").unwrap();
    for number in 50..2_050 {
        writer.append(&value(number)).unwrap();
    }
    // Large enough to be adopted and not copied.
    writer.commit(Durability::Disk).unwrap();
    assert!(store.counters().slabs_written > 0);
    drop(writer);
    for (how, store) in lives(&disk, store) {
        assert_eq!(check_values(&store, "log", 0), 2_050, "{how}");
        append(&store, "log", 2_050..2_060);
        store.checkpoint().unwrap();
        assert_eq!(check_values(&store, "log", 0), 2_060, "{how}");
    }
}
