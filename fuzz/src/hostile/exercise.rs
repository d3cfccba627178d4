//! Everything that a program does with a store, done with one that may be anything. Answers may be errors; what is not
//! allowed is to panic, to go on without end, and an error that says that the library itself is wrong.

use std::sync::Arc;

use lanterman::disk::{Disk, MemoryDisk, OpenMode, Sync};
use lanterman::{Durability, Error, Options, Result, Store};

use super::Case;
use crate::crafted::PATH;
use crate::crafted::reading::options;
use crate::flat::FlatDisk;

/// How many messages of a log are read: a log may claim as many as 64 bits can count.
const MESSAGES_MAX: u64 = 500;
/// How many errors a reader goes around in one log.
const ERRORS_MAX: u64 = 50;

/// How a case ended, for those who count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// It opened for reading.
    pub read: bool,
    /// It opened for writing.
    pub written: bool,
}

/// Opens a malformed store in every way and does everything with it. Gives what opened, by copying.
///
/// # Panics
/// If the library does, or calls itself wrong.
pub fn exercise(case: &Case) -> Outcome {
    let flat = || {
        let disk = FlatDisk::default();
        for (path, bytes, length) in &case.files {
            disk.put(path, bytes, *length);
        }
        disk.put(
            std::path::Path::new("/store/segments/stranger"),
            b"not the store's",
            15,
        );
        Arc::new(disk)
    };
    let read = look(options(flat()).read_only(true).open_copying(PATH));
    let disk = flat();
    let written = go_on(options(disk.clone()).open_copying(PATH));
    look(options(disk).read_only(true).open_copying(PATH));
    // Maps need real files, as long as they claim to be.
    if case.length() <= 1 << 30 {
        look(open_mapped(options(in_memory(case)).read_only(true)));
        let disk = in_memory(case);
        go_on(open_mapped(options(disk.clone())));
        look(open_mapped(options(disk).read_only(true)));
    }
    Outcome { read, written }
}

/// The error that keeps the first message of `log` from a reader of a malformed store, if one does.
///
/// # Panics
/// If the library calls itself wrong.
#[must_use]
pub fn first_error(case: &Case, log: &str) -> Option<Error> {
    let read = || {
        let store = options(in_memory(case)).read_only(true).open_copying(PATH)?;
        let log = store.log(log)?;
        log.cursor(log.start())?.next().map(|_| ())
    };
    read().inspect_err(accept).err()
}

fn in_memory(case: &Case) -> Arc<MemoryDisk> {
    let disk = Arc::new(MemoryDisk::new());
    for directory in [PATH, "/store/segments"] {
        disk.create_directory(std::path::Path::new(directory))
            .expect("a new directory");
    }
    for (path, bytes, length) in &case.files {
        let file = disk.open(path, OpenMode::CreateNew).expect("a new file");
        file.reserve(0..*length).expect("room");
        file.write_at(0, bytes, Sync::No).expect("a write");
    }
    disk
}

#[allow(
    unsafe_code,
    reason = "the door to mapped files; the disk is in memory and nobody else's"
)]
fn open_mapped(options: Options) -> Result<Store> {
    // SAFETY: the files are in memory, no other program can reach them, and nobody here truncates them.
    unsafe { options.open(PATH) }
}

/// An error must be one that a caller can do something about.
fn accept(error: &Error) {
    let is_ours = match error {
        Error::Internal { .. } => true,
        Error::Poisoned { cause } => matches!(**cause, Error::Internal { .. }),
        _ => false,
    };
    assert!(!is_ours, "the library calls itself wrong: {error}");
}

fn accepted<T>(result: Result<T>) -> Option<T> {
    result.inspect_err(accept).ok()
}

fn look(opened: Result<Store>) -> bool {
    let Some(store) = accepted(opened) else {
        return false;
    };
    read_all(&store);
    accepted(store.refresh());
    accepted(store.close());
    true
}

fn read_all(store: &Store) {
    assert!(
        store.logs().len() < 1000 && store.damage().len() < 1000,
        "logs out of nothing"
    );
    for known in store.logs() {
        let Some(log) = accepted(store.log(&known.name)) else {
            continue;
        };
        let (start, end) = (log.start().get(), log.end().get());
        assert!(start <= end, "a log that ends before it begins");
        let Some(mut cursor) = accepted(log.cursor(start)) else {
            continue;
        };
        let (mut read, mut errors) = (0, 0);
        while read < MESSAGES_MAX && errors < ERRORS_MAX {
            match cursor.next() {
                Ok(Some(message)) => {
                    let headers: usize = message
                        .headers()
                        .map(|(name, value)| name.len() + value.len())
                        .sum();
                    let all = message.value().len() + message.key().map_or(0, <[u8]>::len) + headers;
                    assert!(all < 128 << 20, "a message out of nothing");
                    read += 1;
                }
                Ok(None) => break,
                Err(error) => {
                    accept(&error);
                    errors += 1;
                    let next = match &error {
                        Error::Damaged(damage) => damage.offsets.as_ref().map(|lost| lost.end),
                        _ => None,
                    };
                    let next = next.unwrap_or(0).max(cursor.offset().get().saturating_add(1));
                    if next >= end || cursor.seek(next).is_err() {
                        break;
                    }
                }
            }
        }
        for offset in [
            start,
            start + (end - start) / 2,
            end.saturating_sub(1),
            end,
            u64::MAX,
        ] {
            accepted(cursor.get(offset).map(|_| ()));
        }
        accepted(log.snapshot().summary());
    }
    let all = store.snapshot_all();
    for name in all.names() {
        if let Some(snapshot) = accepted(all.log(&name)) {
            accepted(snapshot.get(snapshot.start()).map(|_| ()));
        }
    }
}

fn go_on(opened: Result<Store>) -> bool {
    let Some(store) = accepted(opened) else {
        return false;
    };
    read_all(&store);
    for name in ["orders/ü", "large", "empty", "audit", "quiet", "later", "new"] {
        let Some(mut writer) = accepted(store.writer(name)) else {
            continue;
        };
        let appended = accepted(writer.append(b"after all that"));
        if appended.is_some() {
            accepted(writer.commit(Durability::Disk));
        }
    }
    let transaction = store.transaction(|transaction| {
        transaction.append("audit", b"one")?;
        transaction.append("newer", b"two")
    });
    accepted(transaction);
    accepted(store.checkpoint());
    while accepted(store.step()) == Some(true) {}
    read_all(&store);
    accepted(store.close());
    true
}
