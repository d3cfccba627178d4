//! Promise: a named snapshot holds its logs as of one version, through openings, crashes and power cuts, whatever is deleted
//! from them, kept of them or dropped; it is found by its label and by nothing else. A history holds the past as far
//! as its window reaches. Shown case by case, with a clock that the test turns.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests fail by panicking, and their numbers are small"
)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use common::{append, check_values, end, lives, memory, offsets, open_on, small, value};
use lanterman::disk::MemoryDisk;
use lanterman::{Clock, Durability, Error, ErrorKind, Moment, Retention, Snapshot, Store};

const MINUTE: Duration = Duration::from_secs(60);

fn values(snapshot: &Snapshot) -> Vec<Vec<u8>> {
    let messages = snapshot.range(..).unwrap();
    messages
        .map(|message| message.unwrap().value().to_vec())
        .collect()
}

fn numbered(numbers: std::ops::Range<u64>) -> Vec<Vec<u8>> {
    numbers.map(value).collect()
}

#[test]
fn a_named_snapshot_outlasts_deletion_retention_dropping_and_the_process() {
    for checkpointed in [false, true] {
        let disk = memory();
        let store = open_on(disk.clone());
        append(&store, "events", 0..300);
        append(&store, "audit", 0..20);
        if checkpointed {
            store.checkpoint().unwrap();
        }
        let made = store.create_snapshot("monday", &[]).unwrap();
        assert_eq!(made, store.named_snapshots());
        assert_eq!(made.len(), 2);
        append(&store, "events", 300..310);
        store.delete("events", 10..200).unwrap();
        store.retain("audit", &Retention::new().from(15)).unwrap();
        store.drop_log("events").unwrap();
        store.collect().unwrap();
        append(&store, "events", 90..91);
        for (how, store) in lives(&disk, store) {
            assert_eq!(store.named_snapshots(), made, "{how}");
            let events = store.named_snapshot("monday", "events").unwrap();
            assert_eq!(
                (events.name(), events.version()),
                ("events", made[1].version),
                "{how}"
            );
            assert_eq!(values(&events), numbered(0..300), "{how}");
            let audit = store.named_snapshot("monday", "audit").unwrap();
            assert_eq!(values(&audit), numbered(0..20), "{how}");
            assert_eq!(check_values(&store, "events", 90), 1, "{how}");
            let logs: Vec<_> = store.logs().into_iter().map(|log| log.name).collect();
            assert_eq!(logs, ["audit", "events"], "{how}: a snapshot is listed as a log");
            assert_eq!(store.snapshot_all().names(), logs, "{how}");
            store.collect().unwrap();
            assert_eq!(values(&events), numbered(0..300), "{how}, after a collection");
        }
    }
}

#[test]
fn a_named_snapshot_forks_into_a_log_that_can_be_written() {
    let disk = memory();
    let store = open_on(disk.clone());
    append(&store, "events", 0..50);
    store.create_snapshot("monday", &["events"]).unwrap();
    store.delete("events", 0..40).unwrap();
    let store = lives(&disk, store).remove(0).1;
    let snapshot = store.named_snapshot("monday", "events").unwrap();
    snapshot.fork("again").unwrap();
    append(&store, "again", 50..55);
    assert_eq!(check_values(&store, "again", 0), 55);
    store.drop_snapshot("monday").unwrap();
    store.collect().unwrap();
    assert_eq!(check_values(&store, "again", 0), 55);
    assert_eq!(values(&snapshot), numbered(0..50), "who reads it goes on");
    assert_eq!(store.named_snapshots(), []);
    assert_eq!(offsets(&store, "events"), (40..50).collect::<Vec<_>>());
}

#[test]
fn labels_follow_the_rules_of_names_and_are_given_once() {
    let disk = memory();
    let store = open_on(disk.clone());
    let error = store.create_snapshot("monday", &[]).unwrap_err();
    assert!(matches!(error, Error::InvalidOption { .. }), "{error}");
    append(&store, "events", 0..5);
    for bad in ["", "a\nb"] {
        assert!(matches!(
            store.create_snapshot(bad, &[]),
            Err(Error::InvalidName(_))
        ));
        assert!(matches!(store.drop_snapshot(bad), Err(Error::InvalidName(_))));
    }
    let error = store
        .create_snapshot("monday", &["events", "nobody"])
        .unwrap_err();
    assert!(matches!(error, Error::UnknownLog { .. }), "{error}");
    assert_eq!(store.named_snapshots(), [], "all logs or none");
    store.create_snapshot("monday", &["events", "events"]).unwrap();
    let error = store.create_snapshot("monday", &["events"]).unwrap_err();
    assert!(matches!(error, Error::SnapshotExists { .. }), "{error}");
    assert_eq!(error.kind(), ErrorKind::FixTheCall);
    assert!(matches!(
        store.named_snapshot("monday", "other"),
        Err(Error::UnknownLog { .. })
    ));
    assert!(matches!(
        store.named_snapshot("tuesday", "events"),
        Err(Error::UnknownSnapshot { .. })
    ));
    assert!(matches!(
        store.drop_snapshot("tuesday"),
        Err(Error::UnknownSnapshot { .. })
    ));
    // A label is no name of a log.
    append(&store, "monday", 0..1);
    store.fork("events", "tuesday").unwrap();
    for (how, store) in lives(&disk, store) {
        let error = store.create_snapshot("monday", &[]).unwrap_err();
        assert!(matches!(error, Error::SnapshotExists { .. }), "{how}: {error}");
        store.drop_snapshot("monday").unwrap();
        store.create_snapshot("monday", &[]).unwrap();
        assert_eq!(store.named_snapshots().len(), 3, "{how}");
    }
}

#[test]
fn a_named_snapshot_has_all_of_a_transaction_or_nothing() {
    let disk = memory();
    let store = open_on(disk.clone());
    append(&store, "left", 0..1);
    append(&store, "right", 0..1);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 1..150u64 {
                let work = |transaction: &mut lanterman::Transaction| {
                    transaction.append("left", &value(number))?;
                    transaction.delete("right", number - 1..number)?;
                    transaction.append("right", &value(number))
                };
                store.transaction(work).unwrap();
            }
        });
        for number in 0..40 {
            store.create_snapshot(&format!("{number}"), &[]).unwrap();
        }
    });
    for (how, store) in lives(&disk, store) {
        for number in 0..40 {
            let label = format!("{number}");
            let left = store.named_snapshot(&label, "left").unwrap();
            let right = store.named_snapshot(&label, "right").unwrap();
            assert_eq!(left.end(), right.end(), "{how}, {label}");
            let last = right.end().get() - 1;
            assert_eq!(
                right.start().get(),
                last,
                "{how}, {label}: what one version deleted"
            );
            assert_eq!(values(&right), numbered(last..last + 1), "{how}, {label}");
            assert_eq!(left.version(), right.version());
        }
    }
}

/// A clock that the test turns.
#[derive(Debug, Default)]
struct Turned(AtomicI64);

impl Turned {
    fn turn(&self, by: Duration) {
        let by_ms = i64::try_from(by.as_millis()).unwrap();
        self.0.fetch_add(by_ms, Ordering::Relaxed);
    }
}

impl Clock for Turned {
    fn wall_ms(&self) -> i64 {
        1_700_000_000_000 + self.0.load(Ordering::Relaxed)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed).unsigned_abs())
    }
}

fn with_history(disk: &Arc<MemoryDisk>, clock: &Arc<Turned>) -> Store {
    small()
        .disk(disk.clone())
        .clock(clock.clone())
        .history(MINUTE * 10, MINUTE)
        .open_copying(common::PATH)
        .unwrap()
}

fn work(store: &Store) {
    while store.step().unwrap() {}
}

#[test]
fn a_history_gives_the_newest_point_at_or_before_a_moment() {
    let disk = memory();
    let clock = Arc::new(Turned::default());
    let mut store = with_history(&disk, &clock);
    append(&store, "quiet", 0..3);
    let mut told = Vec::new();
    for minute in 0..30u64 {
        append(&store, "events", minute..minute + 1);
        work(&store);
        told.push((clock.wall_ms(), store.version(), minute + 1));
        // More than one turn in an interval makes no more points.
        clock.turn(MINUTE / 4);
        append(&store, "quick", 0..1);
        work(&store);
        clock.turn(MINUTE * 3 / 4);
        if minute % 7 == 3 {
            store.close().unwrap();
            store = with_history(&disk, &clock);
        }
    }
    let now = clock.wall_ms();
    let of_log = |name: &str| {
        let all = store.named_snapshots().into_iter();
        all.filter(|point| point.automatic && point.log == name).count()
    };
    assert!(
        (10..=12).contains(&of_log("events")),
        "{} points",
        of_log("events")
    );
    assert_eq!(of_log("quiet"), 1, "a log that does not change needs one point");
    for (time_ms, version, end) in told {
        let at = store.snapshot_at("events", Moment::TimeMs(time_ms + 30_000));
        if time_ms + 30_000 < now - 600_000 {
            assert!(matches!(at, Err(Error::NoHistory { .. })), "{time_ms}");
            continue;
        }
        assert_eq!(values(&at.unwrap()), numbered(0..end), "at {time_ms}");
        let at = store.snapshot_at("events", Moment::Version(version)).unwrap();
        assert_eq!(at.end().get(), end, "at version {version}");
    }
    assert_eq!(
        store
            .snapshot_at("quiet", Moment::TimeMs(now))
            .unwrap()
            .end()
            .get(),
        3
    );
    // The window's first moment has what was there then, however long ago it came.
    let first = Moment::TimeMs(now - 599_000);
    assert_eq!(store.snapshot_at("quiet", first).unwrap().end().get(), 3);
    assert!(store.snapshot_at("events", first).unwrap().end().get() >= 19);
    for (moment, reason) in [
        (Moment::TimeMs(now + 1), "in the future"),
        (
            Moment::Version(lanterman::Version::new(u64::MAX)),
            "in the future",
        ),
        (Moment::TimeMs(now - 601_000), "before the window"),
        (
            Moment::Version(lanterman::Version::new(1)),
            "first point is after",
        ),
    ] {
        let error = store.snapshot_at("events", moment).unwrap_err();
        assert!(error.to_string().contains(reason), "{error}");
    }
    let error = store.snapshot_at("nobody", Moment::TimeMs(now)).unwrap_err();
    assert!(matches!(error, Error::NoHistory { .. }), "{error}");
}

#[test]
fn a_history_outlasts_its_log_for_its_window_and_a_clock_that_jumps_drops_nothing() {
    let disk = memory();
    let clock = Arc::new(Turned::default());
    let store = with_history(&disk, &clock);
    append(&store, "events", 0..10);
    work(&store);
    store.create_snapshot("kept", &["events"]).unwrap();
    store.delete("events", 0..10).unwrap();
    clock.turn(MINUTE);
    work(&store);
    store.drop_log("events").unwrap();
    store.collect().unwrap();
    let before = store
        .snapshot_at("events", Moment::TimeMs(clock.wall_ms() - 30_000))
        .unwrap();
    assert_eq!(values(&before), numbered(0..10));
    drop(before);
    clock.turn(MINUTE * 11);
    work(&store);
    clock.turn(MINUTE * 2);
    append(&store, "other", 0..1);
    work(&store);
    assert!(
        store
            .snapshot_at("events", Moment::TimeMs(clock.wall_ms()))
            .is_err()
    );
    let automatic = |store: &Store| {
        let all = store.named_snapshots().into_iter();
        all.filter(|point| point.automatic)
            .map(|point| point.log)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        automatic(&store),
        ["other"],
        "the points of the dropped log have gone"
    );
    let kept = store.named_snapshot("kept", "events").unwrap();
    assert_eq!(
        values(&kept),
        numbered(0..10),
        "a snapshot with a label is not dropped by time"
    );
}

#[test]
fn bad_histories_are_refused() {
    for (window, interval) in [
        (MINUTE, Duration::ZERO),
        (MINUTE, MINUTE * 2),
        (Duration::MAX, MINUTE),
    ] {
        let error = small()
            .disk(memory())
            .history(window, interval)
            .open_copying(common::PATH)
            .unwrap_err();
        assert!(error.to_string().contains("history"), "{error}");
    }
}

#[test]
fn a_process_that_only_reads_sees_named_snapshots_come_and_go() {
    let disk = memory();
    let store = open_on(disk.clone());
    append(&store, "events", 0..30);
    let reader = small()
        .read_only(true)
        .disk(disk)
        .open_copying(common::PATH)
        .unwrap();
    for round in 0..9u64 {
        let label = format!("round {round}");
        append(&store, "events", 30 + round..31 + round);
        store.create_snapshot(&label, &[]).unwrap();
        if round % 2 == 1 {
            store.checkpoint().unwrap();
        }
        if round > 2 {
            store.drop_snapshot(&format!("round {}", round - 3)).unwrap();
        }
        reader.refresh().unwrap();
        assert_eq!(reader.named_snapshots(), store.named_snapshots(), "{label}");
        let snapshot = reader.named_snapshot(&label, "events").unwrap();
        assert_eq!(values(&snapshot), numbered(0..31 + round), "{label}");
        assert_eq!(reader.logs().len(), 1, "{label}");
    }
    assert!(matches!(
        reader.create_snapshot("mine", &[]),
        Err(Error::ReadOnly { .. })
    ));
    assert!(matches!(
        reader.drop_snapshot("round 8"),
        Err(Error::ReadOnly { .. })
    ));
    store.commit_all(Durability::Disk).unwrap();
    assert_eq!(end(&store, "events"), 39);
}
