//! Promise: a value of any length goes in from a reader and comes out in parts, whole or not at all; its message is the
//! only one that readers see of it, wherever the log is forked, spliced, closed or cut by a crash.
#![allow(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests fail by panicking, and their numbers are small"
)]

mod common;

use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;

use common::model::Random;
use common::{lives, memory, parts_in, small};
use lanterman::disk::{Disk, Fate, Fault, FaultyDisk, MemoryDisk};
use lanterman::{Constraints, Durability, Error, LogItem, NewMessage, Offset, Snapshot, Store, ValueType};

const LOG: &str = "pictures";
const KIND: ValueType = ValueType::new(70_001);

/// Bytes without a pattern that the length of a part could hide.
fn bytes(length: usize, seed: u64) -> Vec<u8> {
    let mut random = Random::from_seed(seed);
    (0..length).map(|_| random.next() as u8).collect()
}

/// Stores of these tests take parts above 1,000 bytes, so that few bytes make many of them.
fn open(disk: Arc<dyn Disk>) -> Store {
    small()
        .large_value_bytes(1000)
        .disk(disk)
        .open_copying(common::PATH)
        .unwrap()
}

fn message() -> NewMessage<'static> {
    NewMessage::new(b"").value_type(KIND).key(b"name").time_ms(7)
}

fn append(store: &Store, value: &[u8]) -> Offset {
    let mut writer = store.writer(LOG).unwrap();
    let offset = writer.append_large(&message(), value).unwrap();
    writer.commit(Durability::Disk).unwrap();
    offset
}

fn read(snapshot: &Snapshot, offset: Offset) -> Vec<u8> {
    let mut reader = snapshot.read_value(offset).unwrap();
    assert_eq!(reader.value_type(), KIND);
    let mut value = Vec::new();
    reader.read_to_end(&mut value).unwrap();
    assert_eq!(value.len() as u64, reader.value_bytes());
    value
}

fn offsets(store: &Store) -> Vec<u64> {
    let mut cursor = store.log(LOG).unwrap().cursor(0u64).unwrap();
    let mut found = Vec::new();
    while let Some(message) = cursor.next().unwrap() {
        found.push(message.offset().get());
    }
    found
}

#[test]
fn a_large_value_is_one_message_and_reads_back_from_anywhere() {
    let disk = memory();
    let store = open(disk.clone());
    let value = bytes(300_001, 1);
    let small = append(&store, &value[..1000]);
    let large = append(&store, &value);
    let last = append(&store, b"last");
    assert_eq!((small.get(), last.get()), (0, large.get() + 1));
    assert!(large.get() > 4, "it came in parts");
    let check = |store: &Store, how: &str| {
        assert_eq!(offsets(store), [0, large.get(), last.get()], "{how}");
        let snapshot = store.snapshot(LOG).unwrap();
        assert_eq!(read(&snapshot, small), value[..1000], "{how}");
        assert_eq!(read(&snapshot, large), value, "{how}");
        assert_eq!(read(&snapshot, last), b"last", "{how}");
        let kept = snapshot.get(large).unwrap();
        assert_eq!(kept.value_type(), ValueType::BY_REFERENCE);
        assert_eq!(
            (kept.key().unwrap().as_ref(), kept.time_ms()),
            (&b"name"[..], Some(7))
        );
        for part in 1..large.get() {
            let error = snapshot.get(part).unwrap_err();
            assert!(matches!(error, Error::PartOfValue { .. }), "{how}: {error}");
        }
        let summary = snapshot.summary().unwrap();
        assert_eq!(
            (summary.messages(), summary.parts()),
            (3, large.get() - 1),
            "{how}"
        );
        let mut cursor = snapshot.cursor(1u64).unwrap();
        match cursor.next_item().unwrap() {
            Some(LogItem::Deleted(run)) => assert_eq!(run, 1..large.get(), "{how}"),
            other => panic!("{how}: {other:?}"),
        }
    };
    check(&store, "in memory");
    for (how, store) in lives(&disk, store) {
        check(&store, how);
    }
    let store = open(disk);
    let mut reader = store.log(LOG).unwrap().read_value(large).unwrap();
    assert_eq!(reader.first_offset().get(), 1);
    let mut random = Random::from_seed(2);
    for _ in 0..200 {
        let from = random.below(300_001) as usize;
        let length = random.below(40_000) as usize;
        let until = (from + length).min(value.len());
        reader.seek(SeekFrom::Start(from as u64)).unwrap();
        let mut found = vec![0; until - from];
        reader.read_exact(&mut found).unwrap();
        assert!(found == value[from..until], "{from}..{until}");
    }
    assert_eq!(reader.seek(SeekFrom::End(-1)).unwrap(), 300_000);
    assert_eq!(reader.next_part().unwrap().unwrap().as_ref(), &value[300_000..]);
    assert!(reader.next_part().unwrap().is_none());
    assert!(reader.seek(SeekFrom::Current(-300_002)).is_err());
}

#[test]
fn forks_and_splices_take_values_with_them() {
    let store = open(memory());
    let value = bytes(200_000, 3);
    append(&store, b"before");
    let offset = append(&store, &value);
    store.fork(LOG, "fork").unwrap();
    drop(store.writer("other").unwrap());
    store.concat("other", LOG).unwrap();
    store.checkpoint().unwrap();
    store.concat("other", LOG).unwrap();
    let count = offset.get() + 1;
    store.delete(LOG, ..).unwrap();
    for (log, at) in [
        ("fork", offset.get()),
        ("other", offset.get()),
        ("other", count + offset.get()),
    ] {
        let snapshot = store.snapshot(log).unwrap();
        assert_eq!(read(&snapshot, Offset::new(at)), value, "{log} {at}");
    }
}

#[test]
fn a_value_of_which_a_part_was_deleted_says_so() {
    let store = open(memory());
    let offset = append(&store, &bytes(200_000, 4));
    store.delete(LOG, 0..1).unwrap();
    let error = store.log(LOG).unwrap().read_value(offset).unwrap_err();
    assert!(
        matches!(error, Error::ValueCut { missing, .. } if missing.get() == 0),
        "{error}"
    );
    assert_eq!(offsets(&store), [offset.get()]);
    store.delete(LOG, 0..offset.get() + 1).unwrap();
    assert_eq!(offsets(&store), [0u64; 0]);
}

/// Gives so many bytes and then fails.
struct Failing(u64);

impl Read for Failing {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.0 == 0 {
            return Err(io::Error::other("the line was cut"));
        }
        let bytes = out.len().min(self.0 as usize);
        out[..bytes].fill(5);
        self.0 -= bytes as u64;
        Ok(bytes)
    }
}

#[test]
fn nothing_stays_of_a_value_that_does_not_come_in() {
    let store = open(memory());
    append(&store, b"before");
    let mut writer = store.writer(LOG).unwrap();
    for length in [10, 200_000] {
        let error = writer.append_large(&message(), Failing(length)).unwrap_err();
        assert!(matches!(&error, Error::ValueSource { .. }), "{error}");
        assert!(error.to_string().contains("the line was cut"), "{error}");
    }
    let error = writer
        .append_large(&NewMessage::new(b"x"), &b"y"[..])
        .unwrap_err();
    assert!(matches!(error, Error::InvalidValue { .. }), "{error}");
    for value_type in [ValueType::PART, ValueType::BY_REFERENCE] {
        let refused = writer.append_message(&NewMessage::new(b"x").value_type(value_type));
        assert!(matches!(refused, Err(Error::InvalidValue { .. })));
    }
    drop(writer);
    let rules = r#"{"rules": [
        {"name": "short", "require": {"value_bytes": {"max": 100000}}},
        {"name": "kind", "require": {"value_types": ["bytes"]}}]}"#;
    store
        .set_constraints(LOG, Some(&Constraints::from_json(rules).unwrap()))
        .unwrap();
    let mut writer = store.writer(LOG).unwrap();
    let told = |error: Error| match error {
        Error::Constraint(violation) => (violation.rule, violation.found),
        other => panic!("{other}"),
    };
    let plain = NewMessage::new(b"");
    let long = writer.append_large(&plain, &bytes(200_000, 5)[..]).unwrap_err();
    assert_eq!(told(long), ("short".to_owned(), "200000".to_owned()));
    let other = writer
        .append_large(&message(), &bytes(50_000, 6)[..])
        .unwrap_err();
    assert_eq!(told(other).0, "kind");
    assert!(writer.append_large(&plain, &bytes(50_000, 7)[..]).is_ok());
    let summary = store.snapshot(LOG).unwrap().summary().unwrap();
    let parts = 50_000_u64.div_ceil(16 * 1024 - 4096);
    assert_eq!((summary.messages(), summary.parts()), (2, parts));
}

/// A source that appends to the same log through transactions while it is read.
struct Interrupting<'a> {
    store: &'a Store,
    value: &'a [u8],
}

impl Read for Interrupting<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.value.len().is_multiple_of(5) {
            self.store
                .transaction(|transaction| transaction.append(LOG, b"between").map(|_| ()))
                .map_err(io::Error::other)?;
        }
        let bytes = out.len().min(self.value.len()).min(7777);
        out[..bytes].copy_from_slice(&self.value[..bytes]);
        self.value = &self.value[bytes..];
        Ok(bytes)
    }
}

#[test]
fn messages_may_come_between_the_parts() {
    let disk = memory();
    let store = open(disk.clone());
    let value = bytes(150_000, 9);
    let mut writer = store.writer(LOG).unwrap();
    let source = Interrupting {
        store: &store,
        value: &value,
    };
    let offset = writer.append_large(&message(), source).unwrap();
    writer.commit(Durability::Disk).unwrap();
    drop(writer);
    let found = offsets(&store);
    assert!(found.len() > 2, "{found:?}");
    assert!(found.iter().any(|between| *between < offset.get()));
    for (how, store) in lives(&disk, store) {
        assert_eq!(offsets(&store), found, "{how}");
        assert_eq!(read(&store.snapshot(LOG).unwrap(), offset), value, "{how}");
    }
}

/// A source at whose end the process is killed: what is committed then is what another process finds.
struct Killed<'a> {
    store: &'a Store,
    disk: &'a MemoryDisk,
    value: &'a [u8],
    /// How many messages transactions append behind the parts, before the kill.
    behind: u64,
    found: Vec<MemoryDisk>,
}

impl Read for &mut Killed<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.value.is_empty() && !self.found.is_empty() {
            return Ok(0);
        }
        if self.value.is_empty() {
            for _ in 0..self.behind {
                self.store
                    .transaction(|transaction| transaction.append(LOG, b"behind").map(|_| ()))
                    .map_err(io::Error::other)?;
            }
            self.store
                .commit_all(Durability::Disk)
                .map_err(io::Error::other)?;
            let power_cut = self.disk.crash_image(|_, _| Fate::Lost)?;
            self.found.extend([self.disk.kill_image()?, power_cut]);
            return Ok(0);
        }
        let bytes = out.len().min(self.value.len());
        out[..bytes].copy_from_slice(&self.value[..bytes]);
        self.value = &self.value[bytes..];
        Ok(bytes)
    }
}

/// What a process leaves that is killed between parts and message.
fn killed_images(before: &[u8], value: &[u8], behind: u64, checkpoint: bool) -> Vec<MemoryDisk> {
    let disk = memory();
    let store = open(disk.clone());
    append(&store, before);
    let mut source = Killed {
        store: &store,
        disk: &disk,
        value,
        behind,
        found: Vec::new(),
    };
    let mut writer = store.writer(LOG).unwrap();
    writer.append_large(&message(), &mut source).unwrap();
    let images = std::mem::take(&mut source.found);
    if !checkpoint {
        return images;
    }
    // The next process has them in slabs before it opens a writer.
    let settled = images.into_iter().map(|image| {
        let disk = Arc::new(image);
        open(disk.clone()).close().unwrap();
        disk.crash_image(|_, _| Fate::Lost).unwrap()
    });
    settled.collect()
}

#[test]
fn parts_of_a_killed_process_go_when_a_writer_is_opened_also_behind_messages() {
    let (before, value) = (bytes(40_000, 12), bytes(150_000, 13));
    for (behind, checkpoint) in [(0, false), (0, true), (5, false), (5, true)] {
        for image in killed_images(&before, &value, behind, checkpoint) {
            let how = format!("{behind} behind, {checkpoint}");
            let disk = Arc::new(image);
            let store = open(disk.clone());
            let first = offsets(&store)[0];
            let left = parts_in(&store, LOG).len() as u64;
            assert!(left > first + 5, "{how}: {left}");
            let end = store.log(LOG).unwrap().end();
            let snapshot = store.snapshot(LOG).unwrap();
            drop(store.writer(LOG).unwrap());
            let check = |store: &Store| {
                assert_eq!(parts_in(store, LOG), (0..first).collect::<Vec<_>>(), "{how}");
                assert_eq!(offsets(store).len() as u64, 1 + behind, "{how}");
                assert_eq!(store.log(LOG).unwrap().end(), end, "{how}: offsets stay");
                let summary = store.snapshot(LOG).unwrap().summary().unwrap();
                assert_eq!(
                    (summary.messages(), summary.parts()),
                    (1 + behind, first),
                    "{how}"
                );
                assert!(
                    read(&store.snapshot(LOG).unwrap(), Offset::new(first)) == before,
                    "{how}"
                );
            };
            check(&store);
            assert_eq!(
                snapshot.summary().unwrap().parts(),
                left,
                "{how}: a version before"
            );
            drop(snapshot);
            for (life, store) in lives(&disk, store) {
                assert_eq!(parts_in(&store, LOG).len() as u64, first, "{how}: {life}");
                check(&store);
            }
        }
    }
}

#[test]
fn a_writer_that_is_opened_takes_nothing_of_values_that_are_whole() {
    let disk = memory();
    let store = open(disk.clone());
    let value = bytes(150_000, 14);
    let offset = append(&store, &value);
    for (how, store) in lives(&disk, store) {
        let version = store.snapshot_all().version();
        drop(store.writer(LOG).unwrap());
        assert_eq!(
            store.snapshot_all().version(),
            version,
            "{how}: nothing is written"
        );
        assert!(read(&store.snapshot(LOG).unwrap(), offset) == value, "{how}");
        // Nor of those that a deletion of what stands behind has brought to the end.
        store
            .transaction(|transaction| transaction.append(LOG, b"behind").map(|_| ()))
            .unwrap();
        store.delete(LOG, offset.get() + 1..).unwrap();
        drop(store.writer(LOG).unwrap());
        assert!(read(&store.snapshot(LOG).unwrap(), offset) == value, "{how}");
    }
}

#[test]
fn a_value_many_times_the_memory_for_tails_goes_in() {
    let disk = memory();
    let store = small()
        .tail_memory_bytes(1 << 20)
        .disk(disk.clone())
        .open_copying(common::PATH)
        .unwrap();
    let length = 24 << 20;
    let offset = append_fives(&store, length);
    let mut reader = store.log(LOG).unwrap().read_value(offset).unwrap();
    let mut count = 0;
    while let Some(part) = reader.next_part().unwrap() {
        assert!(part.iter().all(|byte| *byte == 5));
        count += part.len() as u64;
    }
    assert_eq!(count, length);
}

fn append_fives(store: &Store, length: u64) -> Offset {
    let mut writer = store.writer(LOG).unwrap();
    let source = Failing(length + 1).take(length);
    let offset = writer.append_large(&message(), source).unwrap();
    writer.commit(Durability::Disk).unwrap();
    offset
}

/// Appends large values, commits them and makes a checkpoint, until something fails.
fn work(store: &Store, values: &[Vec<u8>], acknowledged: &mut usize) -> Result<(), Error> {
    let mut writer = store.writer(LOG)?;
    for value in values {
        writer.append_large(&message(), &value[..])?;
        writer.commit(Durability::Disk)?;
        *acknowledged += 1;
    }
    drop(writer);
    store.checkpoint()?;
    Ok(())
}

fn check_after_crash(image: MemoryDisk, values: &[Vec<u8>], acknowledged: usize, place: &str) {
    let store = open(Arc::new(image));
    let found = match store.log(LOG) {
        Ok(_) => offsets(&store),
        Err(_) => Vec::new(),
    };
    assert!(
        (acknowledged..=values.len()).contains(&found.len()),
        "{place}: {found:?}"
    );
    for (offset, value) in found.iter().zip(values) {
        let snapshot = store.snapshot(LOG).unwrap();
        assert!(read(&snapshot, Offset::new(*offset)) == *value, "{place}");
    }
    // What is left of a value that was cut off goes when a writer is opened, and appending goes on behind it.
    let next = append(&store, &values[0]);
    assert_eq!(offsets(&store).last(), Some(&next.get()), "{place}");
    let named = offsets(&store).into_iter().map(|offset| {
        let message = store.snapshot(LOG).unwrap().get(offset).unwrap();
        (message.value().len() - 32) / 16
    });
    assert_eq!(parts_in(&store, LOG).len(), named.sum::<usize>(), "{place}");
}

#[test]
fn after_a_failed_call_and_a_crash_a_value_is_whole_or_not_there() {
    let values = [bytes(90_000, 10), bytes(60_000, 11)];
    let faulty = Arc::new(FaultyDisk::new(memory()));
    work(&open(faulty.clone()), &values, &mut 0).unwrap();
    let operations = faulty.operation_kinds().len() as u64;
    let mut cut_off = 0;
    for number in 0..operations {
        let disk = memory();
        let faulty = Arc::new(FaultyDisk::new(Arc::<MemoryDisk>::clone(&disk)));
        faulty.fail_from(number, Fault::Error(5));
        let mut acknowledged = 0;
        let opened = small()
            .large_value_bytes(1000)
            .disk(faulty)
            .open_copying(common::PATH);
        if let Ok(store) = opened {
            cut_off += u64::from(work(&store, &values, &mut acknowledged).is_err());
            drop(store);
        }
        for fate in [Fate::Lost, Fate::Kept] {
            let image = disk.crash_image(|_, _| fate).unwrap();
            let place = format!("operation {number} of {operations}, {fate:?}");
            check_after_crash(image, &values, acknowledged, &place);
        }
    }
    assert!(cut_off > operations / 3, "{cut_off} of {operations}");
}
