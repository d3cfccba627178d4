//! Promise: a fork has what its origin had, at the same offsets and in O(1), can be written, and is as separate as a copy;
//! a name is taken only by a fork that was made. Shown case by case, after closing and after a crash too.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests fail by panicking, and their numbers are small"
)]

mod common;

use std::sync::Arc;

use common::{Stopping, append, check_values, end, lives, memory, open_on, small, value};
use lanterman::disk::{Fate, Fault, FaultyDisk};
use lanterman::{Error, ErrorKind, Store};

#[test]
fn a_fork_goes_its_own_way_from_where_it_was_made() {
    for in_slabs in [0, 1, 2] {
        let disk = memory();
        let store = open_on(disk.clone());
        append(&store, "events", 0..700);
        match in_slabs {
            // In memory; in a tail slab of a quiet log; partly in slabs of its tree.
            1 => {
                store.checkpoint().unwrap();
                append(&store, "other", 0..1);
                store.checkpoint().unwrap();
            }
            2 => while store.step().unwrap() {},
            _ => {}
        }
        store.fork("events", "trial").unwrap();
        append(&store, "trial", 700..710);
        append(&store, "events", 700..704);
        store.delete("trial", 5..9).unwrap();
        for (how, store) in lives(&disk, store) {
            assert_eq!(check_values(&store, "events", 0), 704, "{how}, {in_slabs}");
            let trial = store.snapshot("trial").unwrap();
            assert_eq!(trial.end().get(), 710, "{how}, {in_slabs}");
            assert!(matches!(trial.get(7u64), Err(Error::Deleted { .. })));
            for offset in [0, 4, 9, 699, 700, 709] {
                assert_eq!(trial.get(offset).unwrap().value()[..], value(offset)[..], "{how}");
            }
        }
    }
}

#[test]
fn a_fork_of_what_nobody_committed_commits_it() {
    let disk = memory();
    let store = open_on(disk.clone());
    let mut writer = store.writer("events").unwrap();
    for number in 0..20 {
        writer.append(&value(number)).unwrap();
    }
    store.fork("events", "trial").unwrap();
    assert_eq!(writer.durable_end().get(), 20);
    let cut = open_on(Arc::new(disk.crash_image(|_, _| Fate::Lost).unwrap()));
    assert_eq!(check_values(&cut, "trial", 0), 20);
    assert_eq!(check_values(&cut, "events", 0), 20);
}

#[test]
fn a_fork_at_an_offset_ends_there_and_one_at_the_start_is_empty_and_begins_there() {
    let disk = memory();
    let store = open_on(disk.clone());
    append(&store, "events", 0..50);
    store.delete("events", 0..10).unwrap();
    store.delete("events", 20..25).unwrap();
    store.fork_at("events", "half", 30u64).unwrap();
    store.fork_at("events", "none", 10u64).unwrap();
    store.fork_at("events", "all", 50u64).unwrap();
    for (name, offset) in [("front", 4u64), ("run", 22)] {
        let error = store.fork_at("events", name, offset).unwrap_err();
        assert!(matches!(error, Error::Deleted { .. }), "{error}");
        assert_eq!(error.kind(), ErrorKind::FixTheCall);
        assert!(matches!(store.log(name), Err(Error::UnknownLog { .. })));
    }
    let error = store.fork_at("events", "future", 51u64).unwrap_err();
    assert!(matches!(error, Error::OutOfRange { .. }), "{error}");
    let none = store.log("none").unwrap();
    assert_eq!((none.start().get(), none.end().get()), (10, 10));
    append(&store, "none", 10..12);
    for (how, store) in lives(&disk, store) {
        assert_eq!((end(&store, "half"), end(&store, "all")), (30, 50), "{how}");
        let half = store.snapshot("half").unwrap();
        assert!(matches!(half.get(22u64), Err(Error::Deleted { .. })), "{how}");
        assert_eq!(half.get(29u64).unwrap().value()[..], value(29)[..], "{how}");
        assert_eq!(half.start().get(), 10, "{how}");
        let none = store.snapshot("none").unwrap();
        assert_eq!((none.start().get(), none.end().get()), (10, 12), "{how}");
        assert_eq!(none.get(11u64).unwrap().value()[..], value(11)[..], "{how}");
        assert!(
            store.log("front").is_err() && store.log("future").is_err(),
            "{how}"
        );
    }
}

#[test]
fn names_that_are_taken_are_refused_and_a_fork_that_fails_takes_none() {
    let memory = memory();
    let disk = Arc::new(FaultyDisk::new(memory.clone()));
    let store = small().disk(disk.clone()).open_copying(common::PATH).unwrap();
    append(&store, "events", 0..10);
    append(&store, "other", 0..1);
    for taken in ["other", "events"] {
        let error = store.fork("events", taken).unwrap_err();
        assert!(matches!(error, Error::LogExists { .. }), "{error}");
    }
    assert!(matches!(
        store.fork("nobody", "trial"),
        Err(Error::UnknownLog { .. })
    ));
    assert!(matches!(store.fork("events", ""), Err(Error::InvalidName(_))));
    store.fork("events", "trial").unwrap();
    assert!(matches!(
        store.fork("other", "trial"),
        Err(Error::LogExists { .. })
    ));
    disk.fail_from(disk.operations(), Fault::Error(5));
    store.fork("events", "never").unwrap_err();
    assert!(matches!(store.log("never"), Err(Error::UnknownLog { .. })));
    std::mem::forget(store);
    let store = open_on(Arc::new(memory.kill_image().unwrap()));
    assert!(store.log("never").is_err());
    assert_eq!(check_values(&store, "trial", 0), 10);
}

#[test]
fn of_two_forks_to_one_name_one_is_made() {
    let disk = memory();
    let store = open_on(disk.clone());
    append(&store, "events", 0..10);
    for round in 0..50 {
        let name = format!("trial {round}");
        let made: usize = std::thread::scope(|scope| {
            let forks: Vec<_> = (0..3)
                .map(|_| scope.spawn(|| store.fork("events", &name)))
                .collect();
            forks
                .into_iter()
                .map(|fork| match fork.join().unwrap() {
                    Ok(()) => 1,
                    Err(Error::LogExists { .. }) => 0,
                    Err(other) => panic!("{other}"),
                })
                .sum()
        });
        assert_eq!(made, 1, "{name}");
    }
    let store = open_on(Arc::new(disk.kill_image().unwrap()));
    assert_eq!(store.logs().len(), 51);
}

#[test]
fn a_snapshot_forks_into_what_it_holds_whatever_became_of_its_log() {
    let disk = memory();
    let store = open_on(disk.clone());
    append(&store, "events", 0..300);
    let before = store.snapshot("events").unwrap();
    before.fork("at once").unwrap();
    append(&store, "events", 300..310);
    before.fork("behind an append").unwrap();
    store.delete("events", 100..200).unwrap();
    before.fork("behind a deletion").unwrap();
    store.drop_log("events").unwrap();
    before.fork("behind a drop").unwrap();
    assert!(matches!(before.fork("at once"), Err(Error::LogExists { .. })));
    store.collect().unwrap();
    let names = [
        "at once",
        "behind an append",
        "behind a deletion",
        "behind a drop",
    ];
    for name in names {
        append(&store, name, 300..305);
    }
    for (how, store) in lives(&disk, store) {
        for name in names {
            assert_eq!(check_values(&store, name, 0), 305, "{how}, {name}");
        }
    }
}

#[test]
fn a_snapshot_of_an_older_version_of_the_store_forks_into_that_version() {
    let disk = memory();
    let store = open_on(disk.clone());
    append(&store, "events", 0..20);
    let all = store.snapshot_all();
    append(&store, "events", 20..30);
    store.delete("events", 0..5).unwrap();
    all.log("events").unwrap().fork("then").unwrap();
    for (how, store) in lives(&disk, store) {
        assert_eq!(check_values(&store, "then", 0), 20, "{how}");
    }
}

#[test]
fn forks_of_forks_outlive_their_origins_and_collection() {
    let disk = memory();
    let store = open_on(disk.clone());
    append(&store, "fork 0", 0..100);
    for number in 1..12u64 {
        let (origin, fork) = (format!("fork {}", number - 1), format!("fork {number}"));
        store.fork(&origin, &fork).unwrap();
        append(&store, &fork, number * 100..number * 100 + 100);
        if number % 3 == 0 {
            store.checkpoint().unwrap();
        }
        store.drop_log(&origin).unwrap();
        store.collect().unwrap();
    }
    for (how, store) in lives(&disk, store) {
        assert_eq!(check_values(&store, "fork 11", 0), 1200, "{how}");
        assert_eq!(store.logs().len(), 1, "{how}");
    }
}

#[test]
fn a_process_that_only_reads_follows_forks_splices_and_drops() {
    let disk = memory();
    let store = open_on(disk.clone());
    append(&store, "events", 0..40);
    let reader = small()
        .read_only(true)
        .disk(disk)
        .open_copying(common::PATH)
        .unwrap();
    assert!(matches!(
        reader.fork("events", "trial"),
        Err(Error::ReadOnly { .. })
    ));
    for round in 0..12 {
        let name = format!("trial {round}");
        let before = store.snapshot("events").unwrap();
        store.fork("events", &name).unwrap();
        append(&store, &name, 40..45);
        append(&store, "again", 0..10);
        store.concat("again", &name).unwrap();
        if round % 3 == 1 {
            store.checkpoint().unwrap();
        }
        if round % 4 == 2 {
            store.delete("events", 3..4).unwrap();
            before.fork(&format!("held {round}")).unwrap();
        }
        reader.refresh().unwrap();
        let (found, expected) = (reader.logs(), store.logs());
        let names = |logs: &[lanterman::LogInformation]| {
            logs.iter()
                .map(|log| (log.name.clone(), log.end))
                .collect::<Vec<_>>()
        };
        assert_eq!(names(&found), names(&expected), "round {round}");
        for log in &expected {
            let same = |store: &Store| {
                let snapshot = store.snapshot(&log.name).unwrap();
                let all = snapshot.range(..).unwrap().map(|message| {
                    let message = message.unwrap();
                    (message.offset(), message.value().clone())
                });
                all.collect::<Vec<_>>()
            };
            assert!(same(&reader) == same(&store), "round {round}, {}", log.name);
        }
        if round % 5 == 3 {
            store.checkpoint().unwrap();
        }
        store.drop_log("again").unwrap();
        if round % 2 == 0 {
            store.drop_log(&name).unwrap();
            reader.refresh().unwrap();
            assert!(
                reader.log(&name).is_err() && reader.log("again").is_err(),
                "round {round}"
            );
        }
    }
}

#[test]
fn a_snapshot_that_forks_in_the_version_of_a_deletion_has_what_it_had() {
    let disk = memory();
    let clock = Arc::new(Stopping::default());
    let store = small()
        .disk(disk.clone())
        .clock(clock.clone())
        .open_copying(common::PATH)
        .unwrap();
    append(&store, "events", 0..5);
    append(&store, "other", 0..1);
    let before = store.snapshot("events").unwrap();
    // Time for another thread to take its place in the group that waits.
    let a_while = || (0..20_000).for_each(|_| std::thread::yield_now());
    std::thread::scope(|scope| {
        let (store, before) = (&store, &before);
        // While one block is written, the deletion and the fork meet in the next.
        std::thread::Builder::new()
            .name("stopped".to_owned())
            .spawn_scoped(scope, || append(store, "other", 1..2))
            .unwrap();
        clock.wait_until_stopped();
        scope.spawn(|| store.delete("events", 1..3).unwrap());
        a_while();
        scope.spawn(|| before.fork("then").unwrap());
        a_while();
        clock.release();
    });
    for (how, store) in lives(&disk, store) {
        assert_eq!(check_values(&store, "then", 0), 5, "{how}");
        assert!(store.snapshot("events").unwrap().get(1u64).is_err(), "{how}");
    }
}
