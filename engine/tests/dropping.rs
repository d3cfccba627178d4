//! Promise: a dropped log is gone for everybody who comes later, its name is free at once, and whoever held it goes on;
//! a log with a writer cannot be dropped. Shown case by case, after closing and after a crash too.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests fail by panicking, and their numbers are small"
)]

mod common;

use std::sync::Arc;

use common::{Stopping, append, check_values, end, lives, memory, offsets, open_on, small, value};
use lanterman::{Durability, Error, ErrorKind};

#[test]
fn a_dropped_log_is_gone_and_its_name_is_free_at_once() {
    for steps in [false, true] {
        let disk = memory();
        let store = open_on(disk.clone());
        append(&store, "events", 0..500);
        append(&store, "other", 0..10);
        if steps {
            store.checkpoint().unwrap();
        }
        let bytes: u64 = (0..500).map(|number| value(number).len() as u64).sum();
        let receipt = store.drop_log("events").unwrap();
        assert_eq!(
            (receipt.messages, receipt.bytes, receipt.is_exact),
            (500, bytes, true)
        );
        assert_eq!((receipt.offsets, receipt.log.as_str()), (0..500, "events"));
        assert!(matches!(store.log("events"), Err(Error::UnknownLog { .. })));
        assert!(matches!(store.drop_log("events"), Err(Error::UnknownLog { .. })));
        assert!(matches!(
            store.delete("events", 0..1),
            Err(Error::UnknownLog { .. })
        ));
        assert_eq!(store.logs().len(), 1);
        let without = open_on(Arc::new(disk.kill_image().unwrap()));
        assert!(without.log("events").is_err() && without.logs().len() == 1);
        append(&store, "events", 7..9);
        for (how, store) in lives(&disk, store) {
            assert_eq!(check_values(&store, "events", 7), 2, "{how}");
            assert_eq!(check_values(&store, "other", 0), 10, "{how}");
        }
    }
}

#[test]
fn a_log_with_a_writer_is_not_dropped_and_a_dropped_one_gets_none() {
    let disk = memory();
    let store = open_on(disk.clone());
    append(&store, "events", 0..5);
    let mut writer = store.writer("events").unwrap();
    let error = store.drop_log("events").unwrap_err();
    assert!(matches!(error, Error::WriterOpen { .. }), "{error}");
    assert_eq!(error.kind(), ErrorKind::Retry);
    writer.append(&value(5)).unwrap();
    writer.commit(Durability::Disk).unwrap();
    drop(writer);
    store.drop_log("events").unwrap();
    // A writer of that name is one of a new log.
    let writer = store.writer("events").unwrap();
    assert_eq!(writer.next_offset().get(), 0);
}

#[test]
fn handles_of_a_dropped_log_answer_that_it_is_unknown_or_show_nothing() {
    let disk = memory();
    let store = open_on(disk);
    append(&store, "events", 0..5);
    let log = store.log("events").unwrap();
    store.drop_log("events").unwrap();
    assert!(matches!(log.cursor(0u64), Err(Error::UnknownLog { .. })));
    assert!(matches!(log.durable_cursor(0u64), Err(Error::UnknownLog { .. })));
    assert_eq!((log.start(), log.snapshot().message_count()), (log.end(), 0));
    assert!(
        log.snapshot()
            .cursor(log.end())
            .unwrap()
            .next()
            .unwrap()
            .is_none()
    );
}

#[test]
fn snapshots_and_cursors_go_on_over_the_drop_and_over_collection() {
    for step in [false, true] {
        let disk = memory();
        let store = open_on(disk.clone());
        append(&store, "events", 0..600);
        if step {
            store.checkpoint().unwrap();
        }
        let snapshot = store.snapshot("events").unwrap();
        let all = store.snapshot_all();
        let mut cursor = store.log("events").unwrap().cursor(0u64).unwrap();
        for number in 0..3 {
            assert!(cursor.next().unwrap().unwrap().value() == value(number));
        }
        store.drop_log("events").unwrap();
        append(&store, "events", 50..52);
        for _ in 0..3 {
            store.checkpoint().unwrap();
            while store.step().unwrap() {}
            store.collect().unwrap();
        }
        for number in 3..600 {
            assert!(
                cursor.next().unwrap().unwrap().value() == value(number),
                "{number}"
            );
        }
        assert!(cursor.next().unwrap().is_none(), "the cursor stays at the end");
        assert_eq!(snapshot.range(..).unwrap().count(), 600);
        assert!(all.names().contains(&"events".to_owned()));
        let then = all.log("events").unwrap();
        assert_eq!((then.end().get(), then.range(..).unwrap().count()), (600, 600));
        assert_eq!(end(&store, "events"), 2);
    }
}

#[test]
fn a_log_that_nothing_was_committed_to_can_be_dropped() {
    let disk = memory();
    let store = open_on(disk.clone());
    let mut writer = store.writer("events").unwrap();
    writer.append(b"never committed").unwrap();
    drop(writer);
    store.drop_log("events").unwrap();
    for (how, store) in lives(&disk, store) {
        assert!(store.logs().is_empty(), "{how}");
        store.create_log("events").unwrap();
        assert!(offsets(&store, "events").is_empty(), "{how}");
    }
}

#[test]
fn logs_come_and_go_while_others_write_and_nothing_of_them_comes_back() {
    let disk = memory();
    let store = open_on(disk.clone());
    std::thread::scope(|scope| {
        for thread in 0..3u64 {
            let store = &store;
            scope.spawn(move || {
                for round in 0..250u64 {
                    // All threads meet at one name, and at their own.
                    for name in ["shared".to_owned(), format!("own {thread}")] {
                        if let Ok(mut writer) = store.writer(&name) {
                            for number in 0..20 {
                                writer.append(&value(number)).unwrap();
                            }
                            writer.commit(Durability::Process).unwrap();
                        }
                        let outcome = store.transaction(|transaction| {
                            transaction.append(&name, b"and one more")?;
                            transaction.append("kept", &value(round))
                        });
                        assert!(
                            matches!(outcome, Ok(_) | Err(Error::UnknownLog { .. })),
                            "{outcome:?}"
                        );
                        match store.drop_log(&name) {
                            Ok(_) | Err(Error::UnknownLog { .. } | Error::WriterOpen { .. }) => {}
                            Err(other) => panic!("{other}"),
                        }
                    }
                    if round % 40 == thread {
                        store.checkpoint().unwrap();
                    }
                }
            });
        }
    });
    store.commit_all(Durability::Disk).unwrap();
    let kept = end(&store, "kept");
    let left: Vec<_> = store.logs().into_iter().map(|log| (log.name, log.end)).collect();
    for (how, store) in lives(&disk, store) {
        assert_eq!(end(&store, "kept"), kept, "{how}");
        let found: Vec<_> = store.logs().into_iter().map(|log| (log.name, log.end)).collect();
        assert_eq!(found, left, "{how}");
    }
}

#[test]
fn a_transaction_that_found_a_log_before_it_was_dropped_is_refused_alone() {
    let disk = memory();
    let clock = Arc::new(Stopping::default());
    let store = small()
        .disk(disk.clone())
        .clock(clock.clone())
        .open_copying(common::PATH)
        .unwrap();
    append(&store, "events", 0..5);
    append(&store, "other", 0..5);
    std::thread::scope(|scope| {
        let dropper = std::thread::Builder::new().name("stopped".to_owned());
        let store = &store;
        dropper
            .spawn_scoped(scope, || store.drop_log("events").unwrap())
            .unwrap();
        clock.wait_until_stopped();
        let looks = clock.looks();
        let late = scope.spawn(|| {
            store.transaction(|transaction| {
                transaction.append("new", b"for the chunk of which somebody looks at the clock")?;
                transaction.append("events", &value(5))?;
                transaction.append("other", &value(5))
            })
        });
        // It has found its logs when it has memory for the new one.
        while clock.looks() == looks {
            std::thread::yield_now();
        }
        clock.release();
        let error = late.join().unwrap().unwrap_err();
        assert!(
            matches!(&error, Error::UnknownLog { name } if name == "events"),
            "{error}"
        );
    });
    append(&store, "other", 5..6);
    for (how, store) in lives(&disk, store) {
        assert_eq!(check_values(&store, "other", 0), 6, "{how}");
        assert!(store.log("events").is_err() && store.log("new").is_err(), "{how}");
    }
}
