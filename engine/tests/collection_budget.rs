//! Promise: the collection in the background keeps to its budget, and whoever wants to know learns which readers hold garbage
//! back, each once and with who it is.
#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests fail by panicking"
)]

mod common;

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::{memory, small};
use lanterman::disk::MemoryDisk;
use lanterman::{Clock, Durability, Holder, Options, SlowReader, SlowReaderKind, Store};

/// A clock that is turned by hand, and goes on by itself at each look if that is asked for.
#[derive(Debug, Default)]
struct Hand {
    now_ms: AtomicU64,
    step_ms: AtomicU64,
}

impl Hand {
    fn turn(&self, by: Duration) {
        let by = u64::try_from(by.as_millis()).unwrap();
        self.now_ms.fetch_add(by, Ordering::SeqCst);
    }

    fn now(&self) -> Duration {
        Duration::from_millis(self.now_ms.load(Ordering::SeqCst))
    }
}

impl Clock for Hand {
    fn wall_ms(&self) -> i64 {
        1_700_000_000_000_i64 + i64::try_from(self.now().as_millis()).unwrap()
    }

    fn monotonic(&self) -> Duration {
        let step = self.step_ms.load(Ordering::SeqCst);
        self.now_ms.fetch_add(step, Ordering::SeqCst);
        self.now()
    }
}

const MESSAGES: u64 = 3000;

/// A store with 3 MB of which most is deleted, and nothing of that collected.
fn with_garbage(
    options: Options,
    clock: &Arc<Hand>,
    before: impl FnOnce(&Store),
) -> (Arc<MemoryDisk>, Store) {
    let disk = memory();
    let store = options
        .clock(clock.clone())
        .disk(disk.clone())
        .open_copying(common::PATH)
        .unwrap();
    let mut writer = store.writer("events").unwrap();
    for _ in 0..MESSAGES {
        writer.append(&[7; 1000]).unwrap();
    }
    writer.commit(Durability::Disk).unwrap();
    drop(writer);
    while store.step().unwrap() {}
    store.checkpoint().unwrap();
    before(&store);
    store.delete("events", 100..MESSAGES - 100).unwrap();
    (disk, store)
}

fn given_back(store: &Store) -> u64 {
    store.space().unwrap().given_back
}

#[test]
fn the_background_gives_back_so_many_bytes_a_second_and_no_more() {
    const RATE: u64 = 400_000;
    let clock = Arc::new(Hand::default());
    let options = small().collect_bytes_per_second(RATE);
    let (_disk, store) = with_garbage(options, &clock, |_| {});
    let (mut seconds, mut idle_seconds) = (0, 0);
    let mut before = given_back(&store);
    loop {
        clock.turn(Duration::from_secs(1));
        seconds += 1;
        for _ in 0..20 {
            store.step().unwrap();
            clock.turn(Duration::from_millis(1));
        }
        let now = given_back(&store);
        // One turn may give back a segment whole, which is half a megabyte.
        assert!(
            now - before <= RATE + (512 << 10),
            "{} bytes in a second",
            now - before
        );
        // A segment given back whole is paid for by a longer rest.
        idle_seconds = if now == before { idle_seconds + 1 } else { 0 };
        if idle_seconds > 4 {
            break;
        }
        before = now;
    }
    assert!(before > 2_000_000, "{before} bytes after {seconds} seconds");
    assert!(
        before <= RATE * (seconds - idle_seconds) + (512 << 10),
        "all of it came back within {seconds} seconds"
    );
    store.close().unwrap();
}

#[test]
fn the_background_rests_for_as_long_as_its_share_of_the_time_demands() {
    let clock = Arc::new(Hand::default());
    let options = small().collect_time_percent(10).collect_bytes_per_second(400_000);
    let (_disk, store) = with_garbage(options, &clock, |_| {});
    clock.turn(Duration::from_secs(2));
    // From here on each look at the clock takes a second, so that a turn lasts for one at least.
    clock.step_ms.store(1000, Ordering::SeqCst);
    while !store.step().unwrap() {}
    let end = clock.now();
    clock.step_ms.store(0, Ordering::SeqCst);
    clock.turn(Duration::from_secs(7));
    assert!(
        !store.step().unwrap(),
        "it worked for a second and rested for seven, from {end:?} on"
    );
    clock.turn(Duration::from_secs(100));
    assert!(store.step().unwrap(), "it rests no longer");
    store.close().unwrap();
}

type Told = Arc<Mutex<Vec<SlowReader>>>;

/// Options under which slow readers are noted.
fn telling(age: Duration) -> (Options, Told) {
    let told = Told::default();
    let list = Arc::clone(&told);
    let options = small().on_slow_reader(age, move |reader| list.lock().unwrap().push(reader.clone()));
    (options, told)
}

#[test]
fn whoever_holds_garbage_back_for_long_is_told_of_once() {
    const AGE: Duration = Duration::from_secs(10);
    let clock = Arc::new(Hand::default());
    let (options, told) = telling(AGE);
    let mut held = Vec::new();
    let (_disk, store) = with_garbage(options, &clock, |store| {
        held.push(store.snapshot("events").unwrap());
        clock.turn(Duration::from_secs(1));
    });
    let log = store.log("events").unwrap();
    let oldest = store.oldest_pin().unwrap();
    assert_eq!(
        (oldest.holder, oldest.age),
        (Holder::Snapshot(log.id()), Duration::from_secs(1))
    );
    store.collect().unwrap();
    assert!(told.lock().unwrap().is_empty(), "it is not old enough");
    clock.turn(AGE);
    for _ in 0..3 {
        let collected = store.collect().unwrap();
        let shown = collected.held.iter().map(ToString::to_string).collect::<String>();
        assert!(
            shown.contains("a snapshot of log 1") && shown.contains("for 11 s"),
            "{shown}"
        );
    }
    let all = std::mem::take(&mut *told.lock().unwrap());
    assert_eq!(all.len(), 1, "{all:?}");
    assert_eq!(all[0].reader, SlowReaderKind::Here(Holder::Snapshot(log.id())));
    assert_eq!(
        (all[0].version, all[0].age),
        (oldest.version, AGE + Duration::from_secs(1))
    );
    assert!(
        all[0].held_bytes.is_some_and(|bytes| bytes > 2_000_000),
        "{all:?}"
    );
    // Once nothing is held, old readers are none to speak of.
    held.clear();
    let mut cursor = log.cursor(0u64).unwrap();
    cursor.next().unwrap().unwrap();
    store.collect().unwrap();
    clock.turn(AGE + AGE);
    store.collect().unwrap();
    assert!(told.lock().unwrap().is_empty());
    // The next one that holds something is told of again.
    store.delete("events", 0..50).unwrap();
    store.collect().unwrap();
    let all = std::mem::take(&mut *told.lock().unwrap());
    assert_eq!(all.len(), 1, "{all:?}");
    assert_eq!(all[0].reader, SlowReaderKind::Here(Holder::Cursor(log.id())));
    drop(cursor);
    store.close().unwrap();
}

#[test]
fn another_process_that_reads_slowly_is_told_of() {
    const AGE: Duration = Duration::from_secs(10);
    let clock = Arc::new(Hand::default());
    let (options, told) = telling(AGE);
    let mut reader = None;
    let (disk, store) = with_garbage(options, &clock, |_| {});
    // Another store object on the same disk stands for another process.
    reader.replace(
        small()
            .read_only(true)
            .disk(disk)
            .open_copying(common::PATH)
            .unwrap(),
    );
    store.delete("events", 0..50).unwrap();
    store.collect().unwrap();
    assert!(told.lock().unwrap().is_empty());
    clock.turn(AGE);
    store.collect().unwrap();
    store.collect().unwrap();
    let all = std::mem::take(&mut *told.lock().unwrap());
    assert_eq!(all.len(), 1, "{all:?}");
    assert!(matches!(all[0].reader, SlowReaderKind::Process(_)), "{all:?}");
    assert_eq!((all[0].age, all[0].held_bytes), (AGE, None));
    drop(reader);
    store.close().unwrap();
}

#[test]
fn whoever_is_told_may_use_the_store_and_may_panic() {
    let clock = Arc::new(Hand::default());
    let slot: Arc<Mutex<Option<Store>>> = Arc::default();
    let inner = Arc::clone(&slot);
    let options = small().on_slow_reader(Duration::ZERO, move |reader| {
        let store = inner.lock().unwrap().take().unwrap();
        assert!(store.oldest_pin().is_some());
        store.collect().unwrap();
        panic!("{reader:?} is too slow");
    });
    let mut held = Vec::new();
    let (_disk, store) = with_garbage(options, &clock, |store| held.push(store.snapshot_all()));
    slot.lock().unwrap().replace(store.clone());
    store.collect().unwrap();
    assert!(slot.lock().unwrap().is_none(), "it was told");
    held.clear();
    assert!(store.collect().unwrap().held.is_empty());
    store.close().unwrap();
}
