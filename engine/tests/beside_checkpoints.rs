//! Promise: an edit that comes while a checkpoint is made is in it whole or not at all, and is not forgotten by what the
//! checkpoint does at its end. A thread that makes a checkpoint is stopped in the middle of it, and another one edits.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Stopping, append, lives, memory, offsets, small};
use lanterman::disk::{Disk, MemoryDisk, OpenMode, PathKind, read_full_at};
use lanterman::{Error, Store};

/// How long it is waited for an edit which must not go on, to see whether it does.
const PATIENCE: Duration = Duration::from_millis(200);

fn open(disk: &Arc<MemoryDisk>, clock: &Arc<Stopping>) -> Store {
    let options = small().disk(disk.clone()).clock(clock.clone());
    options.open_copying(common::PATH).unwrap()
}

/// Makes a checkpoint in a thread of such a name, and has `beside` done where that stops.
fn stopped_checkpoint(store: &Store, clock: &Stopping, thread: &str, beside: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let stopped = std::thread::Builder::new().name(thread.to_owned());
        let checkpoint = || assert!(store.checkpoint().unwrap().is_some());
        stopped.spawn_scoped(scope, checkpoint).unwrap();
        clock.wait_until_stopped();
        let edit = scope.spawn(beside);
        let begin = Instant::now();
        while !edit.is_finished() && begin.elapsed() < PATIENCE {
            std::thread::yield_now();
        }
        clock.release();
    });
}

#[test]
fn a_deletion_at_the_end_of_a_checkpoint_is_known_to_what_is_made_of_the_log_later() {
    let disk = memory();
    let clock = Arc::new(Stopping::default());
    let store = open(&disk, &clock);
    append(&store, "events", 0..10);
    store.checkpoint().unwrap();
    append(&store, "other", 0..1);
    // The log is quiet: the second checkpoint takes its memory for the slab that the first one wrote.
    let delete = || assert_eq!(store.delete("events", 3..6).unwrap().messages, 3);
    stopped_checkpoint(&store, &clock, "stopped", delete);
    let left = [0, 1, 2, 6, 7, 8, 9];
    assert_eq!(offsets(&store, "events"), left);
    // Each of these takes what the log has as a part of its tree.
    store.create_log("spliced").unwrap();
    store.splice("spliced", "events", 1..10).unwrap();
    store.fork("events", "fork").unwrap();
    assert_eq!(offsets(&store, "fork"), left);
    let shifted: Vec<u64> = left.iter().skip(1).map(|offset| offset - 1).collect();
    assert_eq!(offsets(&store, "spliced"), shifted);
    store.checkpoint().unwrap();
    for (how, store) in lives(&disk, store) {
        assert_eq!(offsets(&store, "events"), left, "{how}");
        assert_eq!(offsets(&store, "fork"), left, "{how}");
        assert_eq!(offsets(&store, "spliced"), shifted, "{how}");
    }
}

#[test]
fn a_deletion_at_the_end_of_a_checkpoint_is_in_the_next_one() {
    let disk = memory();
    let clock = Arc::new(Stopping::default());
    let store = open(&disk, &clock);
    append(&store, "events", 0..10);
    store.checkpoint().unwrap();
    append(&store, "other", 0..1);
    let delete = || assert_eq!(store.delete("events", 3..6).unwrap().messages, 3);
    stopped_checkpoint(&store, &clock, "stopped", delete);
    store.checkpoint().unwrap();
    for (how, store) in lives(&disk, store) {
        assert_eq!(offsets(&store, "events"), [0, 1, 2, 6, 7, 8, 9], "{how}");
        assert_eq!(store.delete("events", 3..6).unwrap().messages, 0, "{how}");
    }
}

#[test]
fn a_chunk_that_is_closed_at_the_end_of_a_checkpoint_stays_the_only_one_with_its_messages() {
    let disk = memory();
    let clock = Arc::new(Stopping::default());
    let store = open(&disk, &clock);
    append(&store, "events", 0..200);
    store.checkpoint().unwrap();
    append(&store, "other", 0..1);
    // What finds no room in the chunk closes it, and then it is not appended: the log ends where the checkpoint has it.
    let close_chunk = || {
        let mut writer = store.writer("events").unwrap();
        drop(writer.reserve(40_000).unwrap());
    };
    stopped_checkpoint(&store, &clock, "stopped", close_chunk);
    append(&store, "events", 200..210);
    assert_eq!(store.delete("events", 50..60).unwrap().messages, 10);
    let left: Vec<u64> = (0..50).chain(60..210).collect();
    assert_eq!(offsets(&store, "events"), left, "before the slab is written");
    store.checkpoint().unwrap();
    assert_eq!(offsets(&store, "events"), left, "behind it");
    let deleted = store.snapshot("events").unwrap().get(55);
    assert!(matches!(deleted, Err(Error::Deleted { .. })), "{deleted:?}");
    for (how, store) in lives(&disk, store) {
        assert_eq!(offsets(&store, "events"), left, "{how}");
    }
}

#[test]
fn messages_deleted_at_the_front_of_a_slab_while_it_is_written_are_not_counted() {
    let disk = memory();
    let clock = Arc::new(Stopping::default());
    let store = open(&disk, &clock);
    // More than a chunk: the checkpoint begins with writing the first one.
    append(&store, "events", 0..600);
    let delete = || assert_eq!(store.delete("events", 0..5).unwrap().messages, 5);
    stopped_checkpoint(&store, &clock, "stopped", delete);
    let check = |store: &Store, how: &str| {
        assert_eq!(offsets(store, "events"), (5..600).collect::<Vec<_>>(), "{how}");
        let summary = store.snapshot("events").unwrap().summary().unwrap();
        assert_eq!((summary.messages(), summary.deleted()), (595, 0), "{how}");
        let bytes: u64 = (5..600).map(|number| common::value(number).len() as u64).sum();
        assert_eq!(summary.value_bytes(), bytes, "{how}");
        assert!(summary.is_exact(), "{how}");
    };
    check(&store, "open");
    for (how, store) in lives(&disk, store) {
        check(&store, how);
    }
}

/// Whether some file of the store has these bytes.
fn is_in_some_file(disk: &MemoryDisk, directory: &Path, wanted: &[u8]) -> bool {
    disk.list(directory).unwrap().iter().any(|name| {
        let path = directory.join(name);
        if disk.metadata(&path).unwrap().unwrap().kind == PathKind::Directory {
            return is_in_some_file(disk, &path, wanted);
        }
        let file = disk.open(&path, OpenMode::Read).unwrap();
        let mut bytes = vec![0; usize::try_from(file.bytes().unwrap()).unwrap()];
        read_full_at(&*file, 0, &mut bytes).unwrap();
        bytes.windows(wanted.len()).any(|window| window == wanted)
    })
}

#[test]
fn what_is_deleted_of_a_slab_while_it_is_written_is_erased_too() {
    let disk = memory();
    let clock = Arc::new(Stopping::default());
    let store = open(&disk, &clock);
    append(&store, "events", 0..600);
    let deleted = common::value(7);
    assert!(is_in_some_file(&disk, Path::new(common::PATH), &deleted));
    let erase = || {
        let receipt = store.delete("events", 5..9).unwrap();
        store.wait_erased(&receipt, Duration::from_secs(60)).unwrap();
    };
    stopped_checkpoint(&store, &clock, "stopped", erase);
    assert!(!is_in_some_file(&disk, Path::new(common::PATH), &deleted));
    assert!(is_in_some_file(&disk, Path::new(common::PATH), &common::value(9)));
    assert_eq!(offsets(&store, "events").len(), 596);
}

#[test]
fn a_fork_beside_a_checkpoint_has_what_was_deleted_behind_it() {
    let disk = memory();
    let clock = Arc::new(Stopping::default());
    let store = open(&disk, &clock);
    // More than a chunk, so that the beginning stands in the tree.
    append(&store, "events", 0..600);
    store.fork("events", "warming up").unwrap();
    let fork_and_delete = || {
        store.fork("events", "fork").unwrap();
        assert_eq!(store.delete("events", 3..6).unwrap().messages, 3);
    };
    stopped_checkpoint(&store, &clock, "stopped early", fork_and_delete);
    for (how, store) in lives(&disk, store) {
        assert_eq!(offsets(&store, "fork"), (0..600).collect::<Vec<_>>(), "{how}");
        assert_eq!(offsets(&store, "events").len(), 597, "{how}");
    }
}
