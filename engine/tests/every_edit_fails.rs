//! Promise: whatever call to the disk fails, and however, during deletions, retention, forks, splices, drops, named
//! snapshots, collection and erasing, whoever called gets an error that says where, or does not notice; what was
//! acknowledged is there, the edit that was refused was done wholly or not at all, whether the store goes on, is opened
//! again, or lost its power; and the next collection finds everything in its place.
//!
//! Shown by running some work once to count its operations, and then once for each operation with a fault there.
//! `LANTERMAN_DEEP=1` tries every fault at each operation, otherwise they take turns.
#![allow(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "tests fail by panicking, and say which fault they tried"
)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::stages::{Stages, State};
use common::{PATH, memory, small};
use lanterman::disk::{Disk, Fate, Fault, FaultyDisk, MemoryDisk};
use lanterman::{Clock, Error, ErrorKind, Store};

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

const FAULTS: [Fault; 6] = [
    Fault::Error(EIO),
    Fault::Error(ENOSPC),
    Fault::Torn {
        bytes: 700,
        error: EIO,
    },
    Fault::ShortRead { bytes: 9 },
    Fault::SyncLost { error: EIO },
    Fault::SyncLost { error: ENOSPC },
];

fn value_bytes(number: u64) -> usize {
    9 + number as usize * 977 % 2_900
}

/// A clock of which each look takes a second, so that nothing is waited for long.
#[derive(Debug, Default)]
struct Hurried(AtomicU64);

impl Clock for Hurried {
    fn wall_ms(&self) -> i64 {
        1_700_000_000_000
    }

    fn monotonic(&self) -> Duration {
        Duration::from_secs(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

fn open(disk: Arc<dyn Disk>) -> Result<Store, Error> {
    let clock = Arc::new(Hurried::default());
    small().clock(clock).disk(disk).open_copying(PATH)
}

/// Does a bit of everything, until something is refused.
fn work(stages: &Stages, store: &Store, life: u64) -> Result<(), Error> {
    let name = |part: &str| format!("{part}-{life}");
    let (first, second) = (name("first"), name("second"));
    let (first, second) = (first.as_str(), second.as_str());
    let numbers = life * 1_000;
    stages.append(store, &[first, second], numbers..numbers + 60)?;
    store.checkpoint()?;
    stages.append(store, &[first], numbers + 60..numbers + 80)?;
    stages.create_snapshot(store, &name("label"), &[first])?;
    stages.delete(store, first, 10..45)?;
    stages.fork(store, first, &name("fork"), None)?;
    let receipt = stages.delete(store, &name("fork"), 50..51)?;
    stages.splice(store, second, first, 45..70)?;
    store.collect_step(u64::MAX)?;
    stages.retain(store, second, 20)?;
    stages.drop_snapshot(store, &name("label"))?;
    store.wait_erased(&receipt, Duration::from_secs(60))?;
    stages.append(store, &[first, second], numbers + 80..numbers + 90)?;
    stages.drop_log(store, first)?;
    store.checkpoint()?;
    store.collect()?;
    Ok(())
}

/// An error of the disk says what, where, and what kind of thing to do.
fn check_told(error: &Error, context: &str) {
    // Without the table of readers nobody knows whether a reader is in the way.
    if matches!(error, Error::StillHeld { held, .. } if held.contains("nobody knows of")) {
        return;
    }
    let kind = error.kind();
    let is_known = matches!(
        kind,
        ErrorKind::System | ErrorKind::FreeSpace | ErrorKind::Reopen | ErrorKind::CheckTheDevice
    );
    assert!(is_known, "{context}: {error:?} is of kind {kind:?}");
    assert!(
        error.to_string().contains('/'),
        "{context}: an error that names no place: {error}"
    );
}

/// What the store holds, but for logs without messages: those of a transaction that was refused may have their names.
fn read(stages: &Stages, store: &Store) -> Result<State, String> {
    let mut state = stages.read_state(store, |_| true)?;
    state.logs.retain(|_, log| !log.is_empty());
    Ok(state)
}

/// The store holds what the last acknowledged step left, or what the one that was refused would have.
fn check(stages: &Stages, store: &Store, context: &str) -> State {
    let found = read(stages, store).unwrap_or_else(|error| panic!("{context}: {error}"));
    let allowed = found == stages.newest() || stages.refused().is_some_and(|refused| found == refused);
    assert!(
        allowed,
        "{context}: {found:?} was left, and not {:?}",
        stages.newest()
    );
    found
}

/// Everything works again, with the disk as it is now.
fn check_sound(disk: Arc<dyn Disk>, stages: &Stages, context: &str) {
    let store = open(disk).unwrap_or_else(|error| panic!("{context}: opening: {error}"));
    let before = check(stages, &store, context);
    let fresh = Stages::new(|| 0, value_bytes);
    work(&fresh, &store, 7).unwrap_or_else(|error| panic!("{context}: afterwards: {error}"));
    let after = read(stages, &store).unwrap();
    for (log, held) in before.logs.iter().chain(&fresh.newest().logs) {
        assert!(
            after.logs.get(log) == Some(held),
            "{context}: {log} is another one afterwards"
        );
    }
    assert_eq!(after.named, before.named, "{context}");
    let faults = store.check_space().unwrap().faults;
    assert!(faults.is_empty(), "{context}: {faults:?}");
    store.close().unwrap();
}

/// Runs the work with a fault at one of its operations; gives whether anybody noticed.
fn strike(number: u64, fault: Fault) -> bool {
    let context = format!("operation {number}, {fault:?}");
    let memory: Arc<MemoryDisk> = memory();
    let faulty = Arc::new(FaultyDisk::new(Arc::<MemoryDisk>::clone(&memory)));
    faulty.fail_at(number, fault);
    let stages = Stages::new(|| 0, value_bytes);
    let noticed = match open(Arc::<FaultyDisk>::clone(&faulty) as Arc<dyn Disk>) {
        Err(error) => Some(error),
        Ok(store) => match work(&stages, &store, 0) {
            Ok(()) => store.close().err(),
            Err(error) => {
                // It may be read as before; what was refused is not seen half.
                check(&stages, &store, &context);
                Some(error)
            }
        },
    };
    if let Some(error) = &noticed {
        check_told(error, &context);
    }
    let cut = Arc::new(memory.crash_image(|_, _| Fate::Lost).unwrap());
    check_sound(cut, &stages, &format!("{context}, after a power cut"));
    check_sound(memory, &stages, &format!("{context}, opened again"));
    noticed.is_some()
}

#[test]
fn an_edit_is_done_or_not_whatever_call_fails() {
    let faulty = Arc::new(FaultyDisk::new(memory()));
    let store = open(Arc::<FaultyDisk>::clone(&faulty) as Arc<dyn Disk>).unwrap();
    let stages = Stages::new(|| 0, value_bytes);
    work(&stages, &store, 0).unwrap();
    store.close().unwrap();
    let operations = faulty.operation_kinds().len() as u64;
    assert!(operations > 200, "only {operations} operations");
    let is_deep = std::env::var("LANTERMAN_DEEP").is_ok_and(|deep| deep == "1");
    let mut noticed = 0;
    for number in 0..operations {
        for (turn, fault) in (0..).zip(FAULTS) {
            if is_deep || (number + turn).is_multiple_of(FAULTS.len() as u64) {
                noticed += u64::from(strike(number, fault));
            }
        }
    }
    assert!(
        noticed > operations / 4,
        "{noticed} faults of {operations} were noticed"
    );
}
