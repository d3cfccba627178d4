//! Promise: no crash of a compaction, and no call to the disk that fails during one, takes the newest message of a key or
//! brings the store into disorder.
#![allow(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests fail by panicking, and their numbers are small"
)]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::{memory, small};
use lanterman::disk::{Disk, Fate, Fault, FaultyDisk, MemoryDisk, RecordingDisk, Replay};
use lanterman::{Durability, Error, Keyed, NewMessage, Options, Store};

const LOG: &str = "table";

fn keyed_options() -> Options {
    small().compact(false)
}

/// Whether chance keeps what a crash may lose: the same for the same numbers.
fn is_kept(seed: u64) -> bool {
    // The upper bit of a product with an odd number without a pattern.
    (seed.wrapping_add(1)).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 63 == 1
}

/// Appends, makes checkpoints and compacts until something fails; notes how far commits were acknowledged.
fn work_under_faults(store: &Store, acknowledged: &mut u64) -> Result<(), Error> {
    store.set_keyed(LOG, Some(&Keyed::new()))?;
    for round in 0..4_u64 {
        let mut writer = store.writer(LOG)?;
        for number in 0..200_u64 {
            let key = fault_key(round * 200 + number);
            writer.append_message(&crash_message(&key, round * 200 + number))?;
        }
        writer.commit(Durability::Disk)?;
        *acknowledged = writer.next_offset().get();
        drop(writer);
        store.compact(LOG)?;
        store.checkpoint()?;
        store.step()?;
    }
    store.collect()?;
    Ok(())
}

fn fault_key(number: u64) -> String {
    format!("key {:03}", number * 7 % 60)
}

#[test]
fn a_call_that_fails_during_a_compaction_takes_nothing_but_what_is_superseded() {
    let open_faulty = |faulty: &Arc<FaultyDisk>| {
        let disk = Arc::clone(faulty) as Arc<dyn Disk>;
        keyed_options().disk(disk).open_copying(common::PATH)
    };
    let faulty = Arc::new(FaultyDisk::new(memory()));
    let store = open_faulty(&faulty).unwrap();
    work_under_faults(&store, &mut 0).unwrap();
    drop(store);
    let operations = faulty.operation_kinds().len() as u64;
    let faults = [Fault::Error(5), Fault::Error(28), Fault::SyncLost { error: 5 }];
    let keys: Vec<String> = (0..800).map(fault_key).collect();
    let mut noticed = 0;
    for number in 0..operations {
        let fault = faults[usize::try_from(number % 3).unwrap()];
        let memory = memory();
        let faulty = Arc::new(FaultyDisk::new(Arc::<MemoryDisk>::clone(&memory)));
        faulty.fail_at(number, fault);
        let mut acknowledged = 0;
        if let Ok(store) = open_faulty(&faulty) {
            if work_under_faults(&store, &mut acknowledged).is_err() {
                noticed += 1;
            }
            drop(store);
        }
        let place = format!("operation {number}, {fault:?}");
        let cut = memory.crash_image(|_, _| Fate::Lost).unwrap();
        check_crashed(cut, &keys, acknowledged, &format!("{place}, power cut"));
        let kept = memory.crash_image(|_, _| Fate::Kept).unwrap();
        check_crashed(kept, &keys, acknowledged, &format!("{place}, opened again"));
    }
    assert!(noticed > operations / 5, "{noticed} of {operations} were noticed");
}

/// What was acknowledged when so many operations of the disk were done: the log's end.
type Acknowledged = Vec<(usize, u64)>;

/// Work with compactions in it, every step of which is recorded; gives what was acknowledged when, and the key of each offset.
fn recorded_work(disk: &Arc<RecordingDisk>) -> (Acknowledged, Vec<String>) {
    let store = keyed_options()
        .disk(Arc::clone(disk) as Arc<dyn Disk>)
        .open_copying(common::PATH)
        .unwrap();
    store.set_keyed(LOG, Some(&Keyed::new())).unwrap();
    let mut acknowledged = Vec::new();
    let mut keys = Vec::new();
    for round in 0..6_u64 {
        let mut writer = store.writer(LOG).unwrap();
        for number in 0..250_u64 {
            let key = format!("key {:03}", number * 7 % (60 + round));
            let offset = writer
                .append_message(&crash_message(&key, keys.len() as u64))
                .unwrap();
            assert_eq!(offset.get(), keys.len() as u64);
            keys.push(key);
        }
        writer.commit(Durability::Disk).unwrap();
        acknowledged.push((disk.operation_count(), keys.len() as u64));
        drop(writer);
        if round % 2 == 1 {
            store.checkpoint().unwrap();
        }
        store.compact(LOG).unwrap();
        for _ in 0..4 {
            store.step().unwrap();
        }
        if round == 4 {
            store.collect().unwrap();
        }
    }
    store.close().unwrap();
    (acknowledged, keys)
}

fn crash_message(key: &str, number: u64) -> NewMessage<'_> {
    // Values that say whose they are, without owning any.
    const ZEROS: [u8; 256] = [0; 256];
    let length = usize::try_from(number % 200).unwrap();
    NewMessage::new(&ZEROS[..length])
        .key(key.as_bytes())
        .time_ms(i64::try_from(number).unwrap())
}

fn check_crashed(image: MemoryDisk, keys: &[String], acknowledged: u64, place: &str) {
    let disk = Arc::new(image);
    let store = match keyed_options()
        .disk(Arc::clone(&disk) as Arc<dyn Disk>)
        .open_copying(common::PATH)
    {
        Ok(store) => store,
        Err(error) => panic!("{place}: {error}"),
    };
    let Ok(log) = store.log(LOG) else {
        assert_eq!(acknowledged, 0, "{place}");
        return;
    };
    let end = log.end().get();
    assert!(
        end >= acknowledged,
        "{place}: ends at {end}, {acknowledged} were acknowledged"
    );
    let newest: BTreeMap<&str, u64> = (0..end)
        .map(|offset| (keys[offset as usize].as_str(), offset))
        .collect();
    let snapshot = log.snapshot();
    let found: Vec<(Vec<u8>, u64)> = snapshot
        .scan_keys(..)
        .unwrap()
        .map(|message| {
            let message = message.unwrap();
            assert_eq!(message.time_ms(), Some(message.offset().get() as i64), "{place}");
            (message.key().unwrap().to_vec(), message.offset().get())
        })
        .collect();
    let expected: Vec<(Vec<u8>, u64)> = newest
        .iter()
        .map(|(key, offset)| (key.as_bytes().to_vec(), *offset))
        .collect();
    assert_eq!(found, expected, "{place}");
    for (key, offset) in newest {
        let message = snapshot.get_key(key.as_bytes()).unwrap().unwrap();
        assert_eq!(message.offset().get(), offset, "{place}: {key}");
    }
}

#[test]
fn no_crash_of_a_compaction_loses_the_newest_of_a_key() {
    let recording = Arc::new(RecordingDisk::new(memory()));
    let (acknowledged, keys) = recorded_work(&recording);
    let operations = recording.operations();
    let mut replay = Replay::new(MemoryDisk::new());
    let mut states = 0;
    for (done, operation) in operations.iter().enumerate() {
        replay.apply(operation).unwrap();
        let known = acknowledged.iter().rev().find(|(count, _)| *count <= done + 1);
        let known = known.map_or(0, |(_, end)| *end);
        for fate in 0..3_u64 {
            let image = replay
                .disk()
                .crash_image(|unit, _| match (fate, is_kept((done * 31 + unit) as u64)) {
                    (0, _) | (2, false) => Fate::Lost,
                    _ => Fate::Kept,
                })
                .unwrap();
            check_crashed(
                image,
                &keys,
                known,
                &format!("after {done} operations, fate {fate}"),
            );
            states += 1;
        }
    }
    assert!(states > 300, "{states}");
}
