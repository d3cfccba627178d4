//! Promise: reading ahead changes how soon messages come and nothing else, stays within its memory, and a read ahead that
//! fails costs nothing but the read itself. Shown by reading the same logs by every policy.
#![allow(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests fail by panicking"
)]

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::{memory, small};
use lanterman::disk::{Choice, Fault, FaultyDisk, OperationKind};
use lanterman::{
    Compression, Cursor, Durability, Error, Keyed, Log, NewMessage, Prefetch, PrefetchReason, Store,
};

const POLICIES: [Prefetch; 5] = [
    Prefetch::Off,
    Prefetch::Automatic,
    Prefetch::Slabs(1),
    Prefetch::Slabs(7),
    Prefetch::Bytes(300_000),
];

fn message(offset: u64) -> Vec<u8> {
    vec![(offset % 251) as u8; 1000]
}

/// A log of 1.5 MB in slabs of 64 KiB with a gap, and nothing of it in memory.
fn filled(store: &Store) -> Log {
    let mut writer = store.writer("events").unwrap();
    for offset in 0..1500 {
        writer.append(&message(offset)).unwrap();
    }
    writer.commit(Durability::Disk).unwrap();
    drop(writer);
    while store.step().unwrap() {}
    store.delete("events", 300..420).unwrap();
    store.checkpoint().unwrap();
    store.log("events").unwrap()
}

/// The same in a store of files that is closed.
fn closed() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = small().open_copying(&path).unwrap();
    filled(&store);
    store.close().unwrap();
    (directory, path)
}

fn read(log: &Log, policy: Prefetch) -> Vec<u64> {
    let mut cursor = log.snapshot().cursor(0u64).unwrap().with_prefetch(policy);
    let mut found = Vec::new();
    while let Some(read) = cursor.next().unwrap() {
        assert!(read.value() == message(read.offset().get()), "{policy:?}");
        found.push(read.offset().get());
    }
    found
}

#[test]
fn every_policy_gives_the_same_messages_and_takes_no_more_memory_than_it_may() {
    let store = small()
        .disk(memory())
        .prefetch_memory_bytes(512 << 10)
        .open_copying(common::PATH)
        .unwrap();
    filled(&store);
    store.close().unwrap();
    let expected: Vec<u64> = (0..300).chain(420..1500).collect();
    let disk = memory();
    for policy in POLICIES {
        let store = small()
            .disk(disk.clone())
            .prefetch_memory_bytes(512 << 10)
            .open_copying(common::PATH)
            .unwrap();
        let log = match store.log("events") {
            Ok(log) => log,
            Err(_) => filled(&store),
        };
        assert_eq!(read(&log, policy), expected, "{policy:?}");
        let counters = store.counters();
        assert_eq!(
            counters.prefetch_slabs,
            counters.prefetch_hits + counters.prefetch_failures + counters.prefetch_wasted_slabs,
            "{policy:?}: {counters:?}"
        );
        assert_eq!(counters.prefetch_memory_bytes, 0, "{policy:?}");
        store.close().unwrap();
    }
}

/// Has the page cache forget the files of a store; says whether it can, which it cannot where files are memory.
fn forget_cached(store: &Path) -> bool {
    const MEMORY_FILE_SYSTEM: i64 = 0x0102_1994;
    for entry in std::fs::read_dir(store.join("segments")).unwrap() {
        let file = std::fs::File::open(entry.unwrap().path()).unwrap();
        file.sync_all().unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    }
    rustix::fs::statfs(store).unwrap().f_type as i64 != MEMORY_FILE_SYSTEM
}

/// Files of a real disk, through io_uring and without, mapped and copied; a compressed log, a fork, and a reader beside
/// the writer.
#[test]
fn every_policy_gives_the_same_messages_from_files() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let options = |ring| {
        small()
            .slab_bytes_max(128 << 10)
            .ring(ring)
            .prefetch_memory_bytes(1 << 20)
    };
    let expected: Vec<u64> = (0..300).chain(420..1500).collect();
    {
        let store = options(Choice::Auto).open_copying(&path).unwrap();
        store
            .set_compression("events", Some(&Compression::lz4().with_batch_bytes(20_000)))
            .unwrap();
        filled(&store);
        store.set_compression("events", None).unwrap();
        store.fork("events", "fork").unwrap();
        let mut writer = store.writer("fork").unwrap();
        for offset in 1500..3000 {
            writer.append(&message(offset)).unwrap();
        }
        writer.commit(Durability::Disk).unwrap();
        drop(writer);
        store.close().unwrap();
    }
    let of_fork: Vec<u64> = expected.iter().copied().chain(1500..3000).collect();
    for ring in [Choice::Auto, Choice::Off] {
        for policy in POLICIES {
            let is_cold = forget_cached(&path);
            #[allow(unsafe_code, reason = "opening by mapping is what is tested")]
            // SAFETY: nobody else knows the directory.
            let mapped = unsafe { options(ring).prefetch(policy).open(&path) }.unwrap();
            for _ in 0..2 {
                assert_eq!(
                    read(&mapped.log("events").unwrap(), policy),
                    expected,
                    "{policy:?}, {ring:?}"
                );
                assert_eq!(
                    read(&mapped.log("fork").unwrap(), policy),
                    of_fork,
                    "{policy:?}, {ring:?}"
                );
            }
            let reader = options(ring).read_only(true).open_copying(&path).unwrap();
            assert_eq!(
                read(&reader.log("fork").unwrap(), policy),
                of_fork,
                "{policy:?}, {ring:?}"
            );
            for store in [&mapped, &reader] {
                let counters = store.counters();
                let ended =
                    counters.prefetch_hits + counters.prefetch_failures + counters.prefetch_wasted_slabs;
                assert_eq!(
                    counters.prefetch_slabs, ended,
                    "{policy:?}, {ring:?}: {counters:?}"
                );
                assert_eq!(counters.prefetch_memory_bytes, 0, "{policy:?}, {ring:?}");
            }
            let is_wanted = matches!(policy, Prefetch::Slabs(_) | Prefetch::Bytes(_));
            assert!(
                mapped.counters().prefetch_hits > 0 || !is_wanted || !is_cold,
                "{policy:?}, {ring:?}: nothing was read ahead"
            );
            mapped.close().unwrap();
        }
    }
}

/// A reader that is dropped in the middle gives its memory back, and what was deleted beside it is collected.
#[test]
fn a_reader_that_goes_leaves_nothing_and_holds_no_collection_back() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    #[allow(unsafe_code, reason = "opening by mapping is what is tested")]
    // SAFETY: nobody else knows the directory.
    let store = unsafe {
        small()
            .prefetch_memory_bytes(1 << 20)
            .protect_reclaimed(true)
            .open(&path)
    }
    .unwrap();
    let log = filled(&store);
    for turn in 0..10u64 {
        let mut cursor = log.cursor(turn * 20).unwrap().with_prefetch(Prefetch::Slabs(5));
        for _ in 0..50 {
            let read = cursor.next().unwrap().unwrap();
            assert!(read.value() == message(read.offset().get()));
        }
        store.delete("events", ..(turn * 20 + 10)).unwrap();
        store.collect().unwrap();
        while let Some(read) = cursor.next().unwrap() {
            assert!(read.value() == message(read.offset().get()), "turn {turn}");
        }
        drop(cursor);
        assert_eq!(store.counters().prefetch_memory_bytes, 0, "turn {turn}");
    }
    assert!(store.check_space().unwrap().faults.is_empty());
}

#[test]
fn a_read_ahead_that_fails_is_done_again_by_the_reader() {
    let disk = Arc::new(FaultyDisk::new(memory()));
    let store = small().disk(disk.clone()).open_copying(common::PATH).unwrap();
    filled(&store);
    store.close().unwrap();
    let store = small().disk(disk.clone()).open_copying(common::PATH).unwrap();
    let log = store.log("events").unwrap();
    let mut cursor = log
        .snapshot()
        .cursor(0u64)
        .unwrap()
        .with_prefetch(Prefetch::Slabs(3));
    assert!(cursor.next().unwrap().is_some());
    // The first slab is here, and three are ahead: the next read of the disk is one ahead of the reader.
    disk.fail_kind(OperationKind::Read, 0, Fault::Error(5));
    let mut count = 1;
    while cursor.next().unwrap().is_some() {
        count += 1;
    }
    assert_eq!(count, 1380);
    assert_eq!(disk.fired(), 1);
    assert!(store.counters().prefetch_failures > 0);
}

/// Flips a bit of a message somewhere in the middle of the store's slabs.
fn damage(store: &Path) {
    let mut files: Vec<PathBuf> = std::fs::read_dir(store.join("segments"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "slabs"))
        .collect();
    files.sort();
    let file = &files[files.len() / 2];
    let mut bytes = std::fs::read(file).unwrap();
    let is_message = |part: &[u8]| part[0] != 0 && part.iter().all(|byte| *byte == part[0]);
    let at = (20_000..bytes.len() - 64)
        .find(|at| is_message(&bytes[*at..*at + 64]))
        .unwrap();
    bytes[at + 32] ^= 4;
    std::fs::write(file, bytes).unwrap();
}

#[test]
fn damage_of_what_was_read_ahead_is_told_as_if_it_had_not_been() {
    let (_directory, path) = closed();
    damage(&path);
    let mut told = Vec::new();
    for policy in POLICIES {
        let is_cold = forget_cached(&path);
        let store = small().open_copying(&path).unwrap();
        let log = store.log("events").unwrap();
        let mut cursor = log.snapshot().cursor(0u64).unwrap().with_prefetch(policy);
        let mut count = 0;
        let error = loop {
            match cursor.next() {
                Ok(Some(read)) => assert!(read.value() == message(read.offset().get()), "{policy:?}"),
                Ok(None) => panic!("{policy:?}: damage was passed over"),
                Err(error) => break error,
            }
            count += 1;
        };
        assert!(matches!(error, Error::Damaged { .. }), "{policy:?}: {error}");
        let is_wanted = matches!(policy, Prefetch::Slabs(_) | Prefetch::Bytes(_));
        assert!(
            store.counters().prefetch_hits > 0 || !is_wanted || !is_cold,
            "{policy:?}: nothing was read ahead"
        );
        told.push((count, error.to_string()));
    }
    assert!(told.iter().all(|each| *each == told[0]), "{told:?}");
}

/// What stood in a slab when it was read ahead, and was superseded and taken out before the reader came there, is not shown.
#[test]
fn a_slab_that_was_replaced_after_it_was_read_ahead_is_not_shown() {
    let disk = memory();
    let open = || {
        small()
            .compact(false)
            .disk(disk.clone())
            .open_copying(common::PATH)
            .unwrap()
    };
    let store = open();
    store.set_keyed("table", Some(&Keyed::new())).unwrap();
    let mut writer = store.writer("table").unwrap();
    for number in 0..4000u64 {
        // Only what stands in the middle is superseded, so that the slabs around it stay.
        let key = if (1000..1500).contains(&number) {
            number % 7
        } else {
            number
        };
        let key = key.to_le_bytes();
        let message = NewMessage::new(&[7; 100]).key(&key);
        writer.append_message(&message).unwrap();
    }
    drop(writer);
    store.close().unwrap();
    // Nothing is open that would not be read ahead.
    let store = open();
    let log = store.log("table").unwrap();
    let next = |cursor: &mut Cursor| cursor.next().unwrap().map(|read| read.offset().get());
    let mut ahead = log.cursor(0u64).unwrap().with_prefetch(Prefetch::Slabs(5));
    assert_eq!(next(&mut ahead), Some(0));
    assert!(ahead.prefetch_state().slabs_ahead > 0, "nothing was read ahead");
    assert!(store.compact("table").unwrap().removed > 400);
    let mut plain = log.cursor(0u64).unwrap();
    let expected: Vec<u64> = std::iter::from_fn(|| next(&mut plain)).collect();
    let found: Vec<u64> = std::iter::from_fn(|| next(&mut ahead)).collect();
    // It goes on in the slab that it stands in, as that was.
    let behind =
        |offsets: &[u64]| -> Vec<u64> { offsets.iter().copied().filter(|offset| *offset > 900).collect() };
    assert_eq!(behind(&found), behind(&expected));
}

/// The first time around the page cache, the second time through it, and then it is there or not worth a place.
#[test]
fn what_is_wanted_again_is_left_to_the_page_cache_once() {
    let (_directory, path) = closed();
    // Not mapped, because the page cache does not forget what is; and with too little memory to keep copies of all of it.
    let little = small().tail_memory_bytes(1 << 20);
    let is_cold = forget_cached(&path);
    let store = little.clone().open_copying(&path).unwrap();
    let log = store.log("events").unwrap();
    let mut cursor = log.cursor(0u64).unwrap().with_prefetch(Prefetch::Automatic);
    for _ in 0..200 {
        cursor.next().unwrap().unwrap();
    }
    if !is_cold || cursor.prefetch_state().reason == PrefetchReason::CacheUnknown {
        return;
    }
    drop(cursor);
    store.close().unwrap();
    let store = little.open_copying(&path).unwrap();
    let log = store.log("events").unwrap();
    let grown = |policy| {
        let before = store.counters();
        read(&log, policy);
        let after = store.counters();
        (
            after.prefetch_hits - before.prefetch_hits > 0,
            after.prefetch_cache_bytes - before.prefetch_cache_bytes > 0,
        )
    };
    let (around, through, neither) = ((true, false), (false, true), (false, false));
    let (automatic, chosen) = (Prefetch::Automatic, Prefetch::Slabs(4));
    forget_cached(&path);
    assert_eq!([grown(chosen), grown(chosen)], [around; 2], "who chose how far");
    assert_eq!([grown(automatic), grown(automatic)], [around, through]);
    assert_eq!([grown(automatic), grown(chosen)], [neither; 2], "it is there");
    for _ in 0..3 {
        // Some were open, or began a scan, and have had no second time yet.
        forget_cached(&path);
        assert!(grown(automatic).0, "it was lost");
    }
    forget_cached(&path);
    assert_eq!(grown(automatic), around, "it was lost again and again");
    store.close().unwrap();
}
