//! Promise: no crash loses an acknowledged message of a log whose slabs are compressed, while slabs are written and adopted,
//! ranges are deleted and erased, and compression is changed; and no failing call does.
#![allow(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests fail by panicking, and their numbers are small"
)]

mod common;

use std::sync::Arc;

use common::{large_slabs, memory, value};
use lanterman::disk::{Disk, Fate, Fault, FaultyDisk, MemoryDisk, RecordingDisk, Replay};
use lanterman::{Compression, Durability, Error, Options, Store};

const LOG: &str = "events";
/// What a round appends.
const MESSAGES: u64 = 1_500;
const ROUNDS: u64 = 4;
/// What each round deletes of its own messages, and nobody looks for.
const DELETED: std::ops::Range<u64> = 100..140;

fn options(disk: Arc<dyn Disk>) -> Options {
    large_slabs().slab_bytes_max(128 << 10).disk(disk)
}

/// Appends, deletes and erases, with another compression in each round; `acknowledged` is told the log's end.
fn work(store: &Store, mut acknowledged: impl FnMut(u64)) -> Result<(), Error> {
    for round in 0..ROUNDS {
        let compression = match round % 3 {
            0 => Some(Compression::lz4().with_batch_bytes(8 << 10)),
            1 => Some(Compression::zstd(1)),
            _ => None,
        };
        store.set_compression(LOG, compression.as_ref())?;
        let first = round * MESSAGES;
        let mut writer = store.writer(LOG)?;
        for number in first..first + MESSAGES {
            writer.append(&value(number))?;
        }
        // More than is copied into the journal: it is adopted as slabs.
        writer.commit(Durability::Disk)?;
        acknowledged(writer.next_offset().get());
        drop(writer);
        store.delete(LOG, first + DELETED.start..first + DELETED.end)?;
        store.checkpoint()?;
        while store.step()? {}
    }
    store.collect().map(|_| ())
}

fn check(image: MemoryDisk, acknowledged: u64, place: &str) {
    let store = options(Arc::new(image))
        .open_copying(common::PATH)
        .unwrap_or_else(|error| panic!("{place}: {error}"));
    let end = store.log(LOG).map_or(0, |log| log.end().get());
    assert!(
        end >= acknowledged,
        "{place}: ends at {end}, {acknowledged} were acknowledged"
    );
    if end == 0 {
        return;
    }
    let log = store.log(LOG).unwrap();
    let mut cursor = log.cursor(0u64).unwrap();
    let mut next = 0;
    while let Some(message) = cursor.next().unwrap_or_else(|error| panic!("{place}: {error}")) {
        let offset = message.offset().get();
        let is_missing = |missed: u64| !DELETED.contains(&(missed % MESSAGES));
        assert!(
            !(next..offset).any(is_missing),
            "{place}: {next}..{offset} are gone"
        );
        assert!(
            message.value() == value(offset),
            "{place}: another message at {offset}"
        );
        next = offset + 1;
    }
    assert!(
        next == end || DELETED.contains(&(next % MESSAGES)),
        "{place}: nothing behind {next}"
    );
}

#[test]
fn no_crash_loses_a_message_of_a_compressed_log() {
    let recording = Arc::new(RecordingDisk::new(memory()));
    let store = options(recording.clone()).open_copying(common::PATH).unwrap();
    let mut acknowledged = Vec::new();
    work(&store, |end| {
        acknowledged.push((recording.operation_count(), end))
    })
    .unwrap();
    assert!(store.counters().slabs_written > 4, "nothing was compressed");
    store.close().unwrap();
    let mut replay = Replay::new(MemoryDisk::new());
    let operations = recording.operations();
    for (done, operation) in operations.iter().enumerate() {
        replay.apply(operation).unwrap();
        let known = acknowledged.iter().rev().find(|(count, _)| *count <= done + 1);
        let known = known.map_or(0, |(_, end)| *end);
        for fate in 0..2 {
            let is_kept = |unit: usize| fate == 1 && !(done * 31 + unit).is_multiple_of(3);
            let image = replay.disk().crash_image(|unit, _| match is_kept(unit) {
                true => Fate::Kept,
                false => Fate::Lost,
            });
            check(
                image.unwrap(),
                known,
                &format!("after {done} operations, fate {fate}"),
            );
        }
    }
    assert!(operations.len() > 60, "{} operations", operations.len());
}

#[test]
fn no_failing_call_loses_a_message_of_a_compressed_log() {
    let faulty = Arc::new(FaultyDisk::new(memory()));
    let store = options(faulty.clone()).open_copying(common::PATH).unwrap();
    work(&store, |_| {}).unwrap();
    drop(store);
    let operations = faulty.operation_kinds().len() as u64;
    let mut noticed = 0;
    for number in 0..operations {
        let memory = memory();
        let faulty = Arc::new(FaultyDisk::new(Arc::<MemoryDisk>::clone(&memory)));
        let fault = [Fault::Error(5), Fault::Error(28), Fault::SyncLost { error: 5 }][number as usize % 3];
        faulty.fail_at(number, fault);
        let mut acknowledged = 0;
        if let Ok(store) = options(faulty.clone()).open_copying(common::PATH) {
            noticed += u64::from(work(&store, |end| acknowledged = end).is_err());
        }
        let cut = memory.crash_image(|_, _| Fate::Lost).unwrap();
        check(cut, acknowledged, &format!("operation {number}, {fault:?}"));
    }
    assert!(noticed > operations / 5, "{noticed} of {operations} were noticed");
}
