//! Promise: on real file systems, nothing acknowledged is lost when the power goes, and a full disk is an error that passes.
//! Shown on small ext4 and XFS file systems in image files: the power is cut under writers by the file system's own
//! shutdown call, and the disk is filled up a hundred times. Skipped with a message where they cannot be mounted.
//!
//! `LANTERMAN_DEEP=1` cuts the power 500 times a file system in place of 5.
#![allow(
    clippy::cast_possible_truncation,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "tests stop at the first surprise, and say what they did"
)]

#[path = "common/loop_disk.rs"]
mod loop_disk;
#[path = "common/processes.rs"]
mod processes;
#[path = "common/witness.rs"]
mod witness;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lanterman::disk::Choice;
use lanterman::{Durability, Error, ErrorKind, Options, Store, Writer};
use loop_disk::{FileSystem, LoopDisk};
use processes::{is_deep, skip, within};
use witness::{Random, Witness, Work, quick};

/// Longer than any step takes, on any machine.
const PATIENCE: Duration = Duration::from_secs(180);

/// The four ways of writing in turn: through the page cache or around it, with io_uring or without.
fn options(run: u64) -> Options {
    let choice = |bit: u64| if run & bit == 0 { Choice::Auto } else { Choice::Off };
    quick().ring(choice(1)).direct(choice(2))
}

fn mounted(kind: FileSystem, mebibytes: u64) -> Option<LoopDisk> {
    LoopDisk::new(kind, mebibytes)
        .inspect_err(|why| skip(&format!("{kind:?}"), why))
        .ok()
}

/// Writers at work until the power goes, at a moment that may come before they begin.
///
/// What is acknowledged once the cut has begun does not count: a machine without power acknowledges nothing. It does not
/// follow either: while a file system shuts down, the kernel answers some writes with success that it then does not keep,
/// to any program (seen with 4 KiB `pwritev2` calls of a script, on ext4 and on XFS).
fn write_until_cut(disk: &LoopDisk, run: u64, after: Duration, seed: u64) -> Vec<witness::Ack> {
    let (switch, stop) = (disk.switch(), AtomicBool::new(false));
    let has_power = AtomicBool::new(true);
    let acks = Mutex::new(Vec::new());
    let path = disk.path().join("store");
    std::thread::scope(|scope| {
        let cutting = scope.spawn(|| {
            std::thread::park_timeout(after);
            has_power.store(false, Ordering::SeqCst);
            switch.cut();
            stop.store(true, Ordering::Relaxed);
        });
        // An error may come from the very cut, so it says nothing; a store that opens has to go on until the cut.
        let store = options(run).open_copying(&path);
        if let Ok(store) = store {
            let work = Work {
                run,
                level: Durability::Disk,
                seed: seed ^ run.wrapping_mul(0x9e37_79b9_7f4a_7c15),
                stop: &stop,
                tell: &|ack| {
                    if has_power.load(Ordering::SeqCst) {
                        acks.lock().unwrap().push(ack);
                    }
                },
            };
            let errors = work.go_on(&store);
            let strange = |error: &&Error| matches!(error, Error::Damaged(_) | Error::Internal { .. });
            assert!(
                !errors.iter().any(|error| strange(&error)),
                "run {run}: {errors:?}"
            );
        }
        cutting.join().unwrap();
    });
    acks.into_inner().unwrap()
}

fn cut_the_power(kind: FileSystem, cuts: u64) {
    let Some(mut disk) = mounted(kind, 320) else {
        return;
    };
    let seed = 0x5eed_0ff0;
    let mut random = Random(seed);
    let mut witness = Witness::default();
    let (mut acks, mut early) = (0, 0);
    for run in 1..=cuts {
        let after = match run % 3 {
            0 => Duration::from_micros(random.below(30_000)),
            _ => Duration::from_millis(30 + random.below(250)),
        };
        let context = format!("{kind:?}, run {run}, cut after {after:?}, seed {seed:#x}");
        let path = disk.path().join("store");
        if run % 20 == 0 {
            std::fs::remove_dir_all(&path).unwrap();
            witness.forget();
        }
        let told = within(PATIENCE, &context, || write_until_cut(&disk, run, after, seed));
        acks += told.len();
        early += u64::from(told.is_empty());
        for ack in &told {
            witness.hear(ack);
        }
        disk.restart();
        within(PATIENCE, &context, || {
            let store = options(run + 1).open_copying(&path);
            let store = store.unwrap_or_else(|error| panic!("{context}: {error}"));
            if let Err(wrong) = witness.check(&store) {
                panic!("{context}: {wrong}");
            }
            if run % 2 == 0 {
                store.close().unwrap();
            }
        });
    }
    assert!(acks > 20, "{kind:?}: only {acks} commits were acknowledged");
    eprintln!(
        "{kind:?}: {cuts} power cuts, {early} of them before the first commit, {acks} commits acknowledged, {} messages \
         read back, 0 lost",
        witness.messages_seen
    );
}

#[test]
fn nothing_acknowledged_is_lost_when_the_power_of_an_ext4_disk_is_cut() {
    cut_the_power(FileSystem::Ext4, if is_deep() { 500 } else { 5 });
}

#[test]
fn nothing_acknowledged_is_lost_when_the_power_of_an_xfs_disk_is_cut() {
    cut_the_power(FileSystem::Xfs, if is_deep() { 500 } else { 5 });
}

/// The way in which room is made on a full disk.
#[derive(Clone, Copy, Debug)]
enum Room {
    /// A file that has nothing to do with the store is removed.
    Ballast,
    /// Another store, which filled the disk, is removed.
    OtherStore,
    /// The store itself deletes its oldest messages and gives back what they took.
    Deletion,
}

impl Room {
    /// Fills the disk up to where nothing can be had any more.
    fn take(self, disk: &LoopDisk) {
        match self {
            Room::Ballast => disk.fill_with("ballast", 0),
            Room::Deletion => {}
            Room::OtherStore => {
                let store = small().open_copying(disk.path().join("other")).unwrap();
                let mut writer = store.writer("filling").unwrap();
                let error = append_until_full(&mut writer, 300);
                assert!(matches!(error, Error::StorageFull { .. }), "{error}");
            }
        }
    }

    /// Makes room again; gives where the log begins afterwards.
    fn make(self, disk: &LoopDisk, store: &Store) -> u64 {
        let log = store.log("events").unwrap();
        let (start, end) = (log.start().get(), log.end().get());
        match self {
            Room::Deletion => {
                let from = start + (end - start) / 2;
                store.delete("events", start..from).unwrap();
                store.collect().unwrap();
                return from;
            }
            Room::Ballast => std::fs::remove_file(disk.path().join("ballast")).unwrap(),
            Room::OtherStore => std::fs::remove_dir_all(disk.path().join("other")).unwrap(),
        }
        start
    }
}

/// Segments so small that what is left on a full disk is soon too little for another.
fn small() -> Options {
    quick()
        .slab_segment_bytes(64 << 10, 128 << 10)
        .journal_segment_bytes(64 << 10, 64 << 10)
        .journal_bytes_max(128 << 10)
}

fn value(offset: u64) -> Vec<u8> {
    witness::message("events", offset, 1)
        .into_iter()
        .take(3000)
        .collect()
}

/// Appends and commits until either says that the disk is full.
fn append_until_full(writer: &mut Writer, commit_every: u64) -> Error {
    loop {
        let next = writer.next_offset().get();
        if let Err(error) = writer.append(&value(next)) {
            return error;
        }
        if next.is_multiple_of(commit_every)
            && let Err(error) = writer.commit(Durability::Disk)
        {
            return error;
        }
    }
}

/// Reads everything, and finds that it is right.
fn check(store: &Store, from: u64) -> u64 {
    let snapshot = store.snapshot("events").unwrap();
    let mut next = from;
    for message in snapshot.range(from..).unwrap() {
        let message = message.unwrap();
        assert!(
            message.offset().get() == next && message.value()[..] == value(next)[..],
            "another message at {next}"
        );
        next += 1;
    }
    assert_eq!(next, snapshot.end().get());
    next
}

fn fill_a_hundred_times(kind: FileSystem) {
    let Some(disk) = mounted(kind, 60) else { return };
    let path = disk.path().join("store");
    // SAFETY: nobody but this test knows the files, and it leaves them to the store.
    #[allow(unsafe_code, reason = "maps are what would turn a full disk into a signal")]
    let store = unsafe { small().open(&path) }.unwrap();
    let mut writer = store.writer("events").unwrap();
    let (mut start, mut acknowledged) = (0, 0);
    for cycle in 0..100 {
        let context = format!("{kind:?}, cycle {cycle}");
        let room = match cycle % 10 {
            9 => Room::Deletion,
            even if even % 2 == 0 => Room::Ballast,
            _ => Room::OtherStore,
        };
        within(PATIENCE, &context, || {
            // Cycles are short where little is free. What the store itself takes grows from cycle to cycle.
            match room {
                // The store is what fills the disk: a reserve takes a store of some size.
                Room::Deletion => std::fs::remove_file(disk.path().join("weight")).unwrap(),
                Room::Ballast | Room::OtherStore => disk.fill_with("weight", 6 << 20),
            }
            room.take(&disk);
            let error = append_until_full(&mut writer, 8);
            assert!(matches!(error, Error::StorageFull { .. }), "{context}: {error}");
            assert_eq!(error.kind(), ErrorKind::FreeSpace);
            assert!(writer.durable_end().get() >= acknowledged, "{context}");
            // Reading goes on: in this process, with all that it has appended, and in others.
            let newest = writer.next_offset().get();
            assert_eq!(
                check(&store, start.max(newest.saturating_sub(2000))),
                newest,
                "{context}"
            );
            let durable = writer.durable_end().get();
            let beside = Options::new().read_only(true).open_copying(&path).unwrap();
            assert!(
                check(&beside, start.max(durable.saturating_sub(500))) >= durable,
                "{context}"
            );
            drop(beside);
            start = room.make(&disk, &store);
            // The same store and the same writer go on.
            go_on(&mut writer, &context);
            acknowledged = writer.next_offset().get();
            assert_eq!(writer.durable_end().get(), acknowledged, "{context}");
        });
    }
    assert_eq!(check(&store, start), acknowledged);
    drop((writer, store));
    let store = small().open_copying(&path).unwrap();
    assert_eq!(check(&store, start), acknowledged);
    eprintln!("{kind:?}: 100 cycles, {acknowledged} messages, 0 lost");
}

/// With room again, everything that waits is committed, and something new too.
fn go_on(writer: &mut Writer, context: &str) {
    for _ in 0..10 {
        let next = writer.next_offset().get();
        writer
            .append(&value(next))
            .unwrap_or_else(|error| panic!("{context}: {error}"));
        writer
            .commit(Durability::Disk)
            .unwrap_or_else(|error| panic!("{context}: {error}"));
    }
}

#[test]
fn a_full_ext4_disk_is_an_error_a_hundred_times_and_nothing_is_lost() {
    fill_a_hundred_times(FileSystem::Ext4);
}

#[test]
fn a_full_xfs_disk_is_an_error_a_hundred_times_and_nothing_is_lost() {
    fill_a_hundred_times(FileSystem::Xfs);
}
