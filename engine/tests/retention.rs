//! Promise: retention keeps what its limit names and lets older slabs go, once or as a setting that outlives the process;
//! neither a clock that jumps nor a message that says that it is old makes anything go early.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking, and their numbers are small"
)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use common::{memory, small};
use lanterman::disk::MemoryDisk;
use lanterman::{Clock, Durability, Error, NewMessage, Retention, Store};

/// A clock that tests set.
#[derive(Debug, Default)]
struct Hands {
    wall_ms: AtomicI64,
    monotonic_ms: AtomicU64,
}

impl Hands {
    fn pass(&self, time: Duration) {
        let ms = u64::try_from(time.as_millis()).unwrap();
        self.monotonic_ms.fetch_add(ms, Ordering::Relaxed);
        self.wall_ms
            .fetch_add(i64::try_from(ms).unwrap(), Ordering::Relaxed);
    }
}

impl Clock for Hands {
    fn wall_ms(&self) -> i64 {
        self.wall_ms.load(Ordering::Relaxed)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.monotonic_ms.load(Ordering::Relaxed))
    }
}

const HOUR: Duration = Duration::from_secs(3600);

fn open(disk: &Arc<MemoryDisk>, hands: &Arc<Hands>) -> Store {
    let clock: Arc<dyn Clock> = Arc::<Hands>::clone(hands);
    small()
        .clock(clock)
        .disk(disk.clone())
        .open_copying(common::PATH)
        .unwrap()
}

fn hands() -> Arc<Hands> {
    let hands = Hands::default();
    hands.wall_ms.store(1_700_000_000_000, Ordering::Relaxed);
    Arc::new(hands)
}

/// Messages of 1000 bytes, about 60 a slab, all of them in slabs.
fn append(store: &Store, count: u64) {
    let mut writer = store.writer("events").unwrap();
    for _ in 0..count {
        writer.append(&[7; 1000]).unwrap();
    }
    writer.commit(Durability::Disk).unwrap();
    drop(writer);
    store.checkpoint().unwrap();
}

fn start(store: &Store) -> u64 {
    let log = store.log("events").unwrap();
    let first = log
        .cursor(0u64)
        .unwrap()
        .next()
        .unwrap()
        .map(|message| message.offset().get());
    let start = log.start().get();
    assert!(first.is_none_or(|first| first == start));
    start
}

#[test]
fn the_newest_messages_and_bytes_are_kept_and_less_than_a_slab_more() {
    let (disk, hands) = (memory(), hands());
    let store = open(&disk, &hands);
    append(&store, 1000);
    let plan = store
        .plan_retention("events", &Retention::new().max_messages(300))
        .unwrap();
    assert_eq!(start(&store), 0, "a plan changes nothing");
    let receipt = store
        .retain("events", &Retention::new().max_messages(300))
        .unwrap();
    assert_eq!(
        (plan.messages, plan.offsets.end),
        (receipt.messages, receipt.offsets.end)
    );
    let kept = 1000 - start(&store);
    assert!((300..370).contains(&kept), "{kept} are kept");
    store
        .retain("events", &Retention::new().max_bytes(100_000))
        .unwrap();
    let kept = 1000 - start(&store);
    assert!((100..170).contains(&kept), "{kept} are kept");
    let again = store
        .retain("events", &Retention::new().max_bytes(100_000))
        .unwrap();
    assert_eq!(again.messages, 0);
    store.retain("events", &Retention::new().from(990)).unwrap();
    assert_eq!(start(&store), 990);
}

#[test]
fn limits_that_keep_nothing_or_make_no_sense_are_refused() {
    let (disk, hands) = (memory(), hands());
    let store = open(&disk, &hands);
    append(&store, 10);
    let absurd = [
        Retention::new(),
        Retention::new().max_messages(0),
        Retention::new().max_bytes(0),
        Retention::new().max_age(Duration::ZERO),
        Retention::new().max_age(Duration::from_secs(u64::MAX / 2)),
    ];
    for retention in &absurd {
        let error = store.retain("events", retention).unwrap_err();
        assert!(
            matches!(error, Error::InvalidOption { .. }),
            "{retention:?}: {error}"
        );
        assert!(store.set_retention("events", Some(retention)).is_err());
    }
    assert!(matches!(
        store.retain("events", &Retention::new().from(11)),
        Err(Error::InvalidRange { .. })
    ));
    assert!(
        store
            .set_retention("events", Some(&Retention::new().from(3)))
            .is_err()
    );
    assert_eq!(start(&store), 0);
}

#[test]
fn age_counts_on_a_clock_that_does_not_jump() {
    let (disk, hands) = (memory(), hands());
    let store = open(&disk, &hands);
    append(&store, 200);
    let old = store.log("events").unwrap().end().get();
    hands.pass(2 * HOUR);
    // A message that says that it is from 1970 was appended now.
    let mut writer = store.writer("events").unwrap();
    for _ in 0..100 {
        writer
            .append_message(&NewMessage::new(&[7; 1000]).time_ms(5))
            .unwrap();
    }
    writer.commit(Durability::Disk).unwrap();
    drop(writer);
    let retention = Retention::new().max_age(HOUR);
    // The wall clock jumps by a year, the time that has passed does not.
    hands.wall_ms.fetch_add(365 * 24 * 3_600_000, Ordering::Relaxed);
    store.retain("events", &retention).unwrap();
    let begins = start(&store);
    assert!(begins > 100 && begins <= old, "from {begins} on is kept");
    store.retain("events", &retention).unwrap();
    assert_eq!(start(&store), begins);
}

#[test]
fn a_retention_that_is_a_setting_is_applied_by_the_background_and_outlives_the_process() {
    let (disk, hands) = (memory(), hands());
    let store = open(&disk, &hands);
    append(&store, 500);
    store
        .set_retention("events", Some(&Retention::new().max_messages(100)))
        .unwrap();
    hands.pass(Duration::from_secs(2));
    while store.step().unwrap() {}
    let kept = 500 - start(&store);
    assert!((100..170).contains(&kept), "{kept} are kept");
    drop(store);
    let disk = Arc::new(disk.kill_image().unwrap());
    let store = open(&disk, &hands);
    assert_eq!(
        store.log("events").unwrap().retention(),
        Some(Retention::new().max_messages(100))
    );
    append(&store, 500);
    hands.pass(Duration::from_secs(2));
    while store.step().unwrap() {}
    assert!(start(&store) > 800);
    store.set_retention("events", None).unwrap();
    store.close().unwrap();
    let store = open(&disk, &hands);
    assert_eq!(store.log("events").unwrap().retention(), None);
}
