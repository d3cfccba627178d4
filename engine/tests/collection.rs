//! Promise: the space of what nobody can reach any more comes back, and nothing else does: what a snapshot, a cursor, a
//! kept value or another process reads stays until he lets go of it, whatever crashes in between.
#![allow(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    unsafe_code,
    reason = "tests fail by panicking; the directories of maps are their own"
)]

mod common;

use std::sync::Arc;

use common::{memory, open_on, small};
use lanterman::disk::{Disk, MemoryDisk};
use lanterman::{Durability, HeldBack, Log, Options, Snapshot, Store};

const MESSAGES: u64 = 1500;

fn message(offset: u64) -> Vec<u8> {
    vec![(offset % 251) as u8; 1000]
}

/// A log of 1.5 MB in slabs of 64 KiB, and nothing of it in memory.
fn filled(store: &Store) -> Log {
    let mut writer = store.writer("events").unwrap();
    for offset in 0..MESSAGES {
        writer.append(&message(offset)).unwrap();
    }
    writer.commit(Durability::Disk).unwrap();
    drop(writer);
    while store.step().unwrap() {}
    store.checkpoint().unwrap();
    store.log("events").unwrap()
}

fn read(snapshot: &Snapshot) -> Vec<u64> {
    let check = |message: lanterman::KeptMessage| {
        let offset = message.offset().get();
        assert!(
            message.value()[..] == message_of(offset)[..],
            "another message at {offset}"
        );
        offset
    };
    snapshot
        .range(..)
        .unwrap()
        .map(|found| check(found.unwrap()))
        .collect()
}

fn message_of(offset: u64) -> Vec<u8> {
    message(offset)
}

fn kept() -> Vec<u64> {
    (0..100).chain(1400..MESSAGES).collect()
}

fn sound(store: &Store) {
    let check = store.check_space().unwrap();
    assert!(check.faults.is_empty(), "{:?}", check.faults);
    let space = check.space;
    assert_eq!(
        space.live + space.pinned + space.garbage + space.free,
        space.bytes,
        "every byte is one of four: {space:?}"
    );
}

#[test]
fn the_space_of_deleted_messages_comes_back_and_the_others_stay() {
    let disk = memory();
    let store = open_on(disk.clone());
    let log = filled(&store);
    store.collect().unwrap();
    let before = disk.used_bytes();
    store.delete("events", 100..1400).unwrap();
    let collected = store.collect().unwrap();
    assert!(collected.held.is_empty(), "{collected:?}");
    let after = disk.used_bytes();
    assert!(after + 1_000_000 < before, "{before} bytes before, {after} after");
    assert_eq!(read(&log.snapshot()), kept());
    sound(&store);
    drop((store, log));
    let store = open_on(Arc::new(disk.kill_image().unwrap()));
    assert_eq!(read(&store.snapshot("events").unwrap()), kept());
    sound(&store);
}

#[test]
fn a_snapshot_and_a_cursor_keep_what_they_read_and_nothing_more() {
    let disk = memory();
    let store = open_on(disk.clone());
    let log = filled(&store);
    store.collect().unwrap();
    let snapshot = log.snapshot();
    let whole = store.snapshot_all();
    let mut cursor = log.cursor(0u64).unwrap();
    cursor.next().unwrap().unwrap();
    let before = disk.used_bytes();
    store.delete("events", 100..1400).unwrap();
    for _ in 0..3 {
        let collected = store.collect().unwrap();
        assert!(
            collected
                .held
                .iter()
                .any(|held| matches!(held, HeldBack::Pins { bytes, .. } if *bytes > 1_000_000)),
            "{collected:?}"
        );
        // Those taken before the deletion, in whichever way.
        assert_eq!(read(&snapshot), (0..MESSAGES).collect::<Vec<_>>());
        assert_eq!(read(&whole.log("events").unwrap()).len() as u64, MESSAGES);
        assert_eq!(read(&log.snapshot()), kept());
        sound(&store);
        // The store goes on, and collects what comes and goes meanwhile.
        let mut writer = store.writer("other").unwrap();
        for _ in 0..300 {
            writer.append(&message(7)).unwrap();
        }
        writer.commit(Durability::Disk).unwrap();
        drop(writer);
        while store.step().unwrap() {}
        store.checkpoint().unwrap();
        store.delete("other", ..).unwrap();
    }
    assert!(
        disk.used_bytes() < before + 2_000_000,
        "what was born later does not wait for the snapshot"
    );
    let mut seen = 1;
    while let Some(message) = cursor.next().unwrap() {
        assert!(message.value() == message_of(message.offset().get()));
        seen += 1;
    }
    assert!(
        seen >= 200,
        "a cursor that follows goes on, over what was deleted or not"
    );
    drop((snapshot, whole, cursor));
    let collected = store.collect().unwrap();
    assert!(collected.held.is_empty(), "{collected:?}");
    assert!(disk.used_bytes() + 1_000_000 < before);
    assert!(store.oldest_pin().is_none());
}

#[test]
fn a_value_that_is_kept_stays_where_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let options = small().protect_reclaimed(true);
    // SAFETY: the directory is this test's own; nobody else touches its files.
    let store = unsafe { options.open(&path) }.unwrap();
    let log = filled(&store);
    let bytes = log.snapshot().get(700u64).unwrap().value().clone();
    store.delete("events", 100..1400).unwrap();
    let held = store.collect().unwrap().held;
    assert!(
        held.iter()
            .any(|held| matches!(held, HeldBack::Windows { bytes } if *bytes > 0)),
        "{held:?}"
    );
    // What was given back around it is inaccessible by now: a wrong page would end the process.
    assert!(bytes[..] == message(700)[..]);
    assert_eq!(read(&log.snapshot()), kept());
    drop(bytes);
    // Roots that readers have let go of are freed a little later.
    let begin = std::time::Instant::now();
    loop {
        let held = store.collect().unwrap().held;
        if held.is_empty() {
            break;
        }
        assert!(begin.elapsed().as_secs() < 60, "{held:?}");
        std::thread::yield_now();
    }
    assert_eq!(read(&log.snapshot()), kept());
    sound(&store);
}

#[test]
fn a_process_that_reads_keeps_its_checkpoint_until_it_has_moved_on() {
    let disk = memory();
    let store = open_on(disk.clone());
    filled(&store);
    let reader = small()
        .read_only(true)
        .disk(disk.clone())
        .open_copying(common::PATH)
        .unwrap();
    let snapshot = reader.snapshot("events").unwrap();
    store.delete("events", 100..1400).unwrap();
    let before = disk.used_bytes();
    let held = store.collect().unwrap().held;
    assert!(
        held.iter().any(|held| matches!(held, HeldBack::Reader { .. })),
        "{held:?}"
    );
    assert_eq!(read(&snapshot).len() as u64, MESSAGES);
    reader.refresh().unwrap();
    // It stands on the new checkpoint, but for the snapshot.
    assert!(!store.collect().unwrap().held.is_empty());
    assert_eq!(read(&snapshot).len() as u64, MESSAGES);
    assert_eq!(read(&reader.snapshot("events").unwrap()), kept());
    drop(snapshot);
    reader.refresh().unwrap();
    let held = store.collect().unwrap().held;
    assert!(held.is_empty(), "{held:?}");
    // A new segment may have been begun meanwhile.
    let space = store.space().unwrap();
    assert!(
        disk.used_bytes() + 500_000 < before,
        "{before} bytes before, {} after: {space:?}",
        disk.used_bytes()
    );
    assert_eq!(read(&reader.snapshot("events").unwrap()), kept());
}

#[test]
fn a_collection_that_is_cut_short_anywhere_is_done_again() {
    let disk = memory();
    // Many segments, so that there are many places to be cut short at.
    let options = small().slab_segment_bytes(64 << 10, 256 << 10);
    let store = options.disk(disk.clone()).open_copying(common::PATH).unwrap();
    filled(&store);
    store.delete("events", 100..1400).unwrap();
    let mut images: Vec<MemoryDisk> = Vec::new();
    loop {
        let collected = store.collect_step(64 << 10).unwrap();
        images.push(disk.kill_image().unwrap());
        images.push(disk.crash_image(|_, _| lanterman::disk::Fate::Lost).unwrap());
        if collected.waiting_bytes == 0 {
            break;
        }
    }
    assert!(images.len() >= 10, "{} images", images.len());
    for image in images {
        let image: Arc<dyn Disk> = Arc::new(image);
        let again = small()
            .disk(Arc::clone(&image))
            .open_copying(common::PATH)
            .unwrap();
        assert_eq!(read(&again.snapshot("events").unwrap()), kept());
        again.collect().unwrap();
        sound(&again);
        assert_eq!(read(&again.snapshot("events").unwrap()), kept());
    }
}

#[test]
fn the_background_collects_by_itself() {
    let directory = tempfile::tempdir().unwrap();
    let store = Options::new()
        .slab_bytes_max(64 << 10)
        .slab_segment_bytes(64 << 10, 512 << 10)
        .open_copying(directory.path().join("store"))
        .unwrap();
    filled(&store);
    store.delete("events", ..).unwrap();
    let patience = std::time::Instant::now();
    loop {
        let mut bytes = 0;
        for entry in std::fs::read_dir(directory.path().join("store/segments")).unwrap() {
            use std::os::unix::fs::MetadataExt;
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "slabs") {
                bytes += std::fs::metadata(path).map_or(0, |metadata| metadata.blocks() * 512);
            }
        }
        if bytes < 1_000_000 {
            break;
        }
        assert!(patience.elapsed().as_secs() < 60, "{bytes} bytes are still there");
        std::thread::yield_now();
    }
}

/// Every byte of every file of the store.
fn files(path: &std::path::Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push((path.display().to_string(), std::fs::read(&path).unwrap()));
        }
    }
    found
}

fn secret(number: u64) -> Vec<u8> {
    format!("<secret number {number:06}>").into_bytes()
}

/// The numbers of the secrets that stand in some file, with one of the files.
fn found_secrets(path: &std::path::Path) -> std::collections::BTreeMap<u64, String> {
    let mut found = std::collections::BTreeMap::new();
    let head = b"<secret number ";
    for (name, bytes) in files(path) {
        let mut at = 0;
        while let Some(next) = bytes[at..].windows(head.len()).position(|window| window == head) {
            let digits = at + next + head.len();
            if let Ok(number) = String::from_utf8_lossy(&bytes[digits..(digits + 6).min(bytes.len())]).parse()
            {
                found.insert(number, name.clone());
            }
            at = digits;
        }
    }
    found
}

#[test]
fn nothing_of_a_deleted_message_is_in_any_file_once_it_is_erased() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let mut store = small().open_copying(&path).unwrap();
    let mut kept = Vec::new();
    let mut number = 0;
    let mut append = |store: &Store, log: &str, count: u64, padding: usize| {
        let mut writer = store.writer(log).unwrap();
        for _ in 0..count {
            let mut value = secret(number);
            value.resize(value.len() + padding, b'.');
            writer.append(&value).unwrap();
            if number.is_multiple_of(3) {
                writer.commit(Durability::Disk).unwrap();
            }
            number += 1;
        }
        writer.commit(Durability::Disk).unwrap();
        number - count..number
    };
    // Large slabs, tails that share pages, messages that have been through several checkpoints and journals.
    for round in 0..4 {
        for log in ["one", "two", "three", "four"] {
            kept.push((log, append(&store, log, 40 + round * 7, 50)));
        }
        kept.push(("large", append(&store, "large", 300, 700)));
        store.checkpoint().unwrap();
        if round == 2 {
            store.close().unwrap();
            store = small().open_copying(&path).unwrap();
        }
    }
    let mut offset = std::collections::BTreeMap::new();
    let mut places = Vec::new();
    for (log, numbers) in kept {
        for number in numbers {
            let next = offset.entry(log).or_insert(0u64);
            places.push((log, *next, number));
            *next += 1;
        }
    }
    assert!(
        found_secrets(&path).len() == places.len(),
        "all of them are somewhere"
    );
    let goes = |log: &str, offset: u64| match log {
        "one" => offset % 5 == 3,
        "two" => (30..90).contains(&offset),
        "three" => offset < 100,
        "large" => offset.is_multiple_of(97) || (400..700).contains(&offset),
        _ => false,
    };
    let mut newest = None;
    for (log, offset, _) in places.iter().filter(|(log, offset, _)| goes(log, *offset)) {
        newest = Some(store.delete(log, *offset..*offset + 1).unwrap());
    }
    store
        .wait_erased(&newest.unwrap(), std::time::Duration::from_secs(60))
        .unwrap();
    let found = found_secrets(&path);
    for (log, offset, number) in &places {
        let file = found.get(number);
        assert_eq!(
            file.is_none(),
            goes(log, *offset),
            "offset {offset} of {log}, secret {number}, in {file:?}"
        );
    }
    for store in [&store] {
        for (log, offset, number) in &places {
            let found = store.snapshot(log).unwrap().get(*offset);
            assert_eq!(found.is_err(), goes(log, *offset));
            if let Ok(found) = found {
                assert!(found.value().starts_with(&secret(*number)));
            }
        }
    }
    sound(&store);
    store.close().unwrap();
    let store = small().open_copying(&path).unwrap();
    for (log, offset, _) in &places {
        assert_eq!(
            store.snapshot(log).unwrap().get(*offset).is_err(),
            goes(log, *offset)
        );
    }
}

#[test]
fn erasing_waits_for_whoever_still_holds_the_messages_and_says_who() {
    let disk = memory();
    let store = open_on(disk);
    let log = filled(&store);
    let snapshot = log.snapshot();
    let receipt = store.delete("events", 5..6).unwrap();
    let error = store
        .wait_erased(&receipt, std::time::Duration::from_millis(1))
        .unwrap_err();
    assert!(error.to_string().contains("snapshots and cursors"), "{error}");
    drop(snapshot);
    store
        .wait_erased(&receipt, std::time::Duration::from_secs(60))
        .unwrap();
}
