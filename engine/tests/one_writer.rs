//! Promise: a store has one writing process, a log one writer; a second is refused at once, and the lock is free as soon
//! as its holder is gone, however it went. Shown with handles, and with a process that is killed.
#![allow(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests fail by panicking, and their numbers are small"
)]

use std::io::BufRead;
use std::process::{Command, Stdio};

use lanterman::{Durability, Error, ErrorKind, Options, Store};

#[test]
fn a_second_writer_of_a_log_is_refused_until_the_first_is_dropped() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open_copying(directory.path().join("store")).unwrap();
    let writer = store.writer("events").unwrap();
    let error = store.writer("events").unwrap_err();
    assert!(matches!(error, Error::WriterOpen { .. }) && error.kind() == ErrorKind::Retry);
    let other = store.writer("other").unwrap();
    drop(writer);
    drop(store.writer("events").unwrap());
    drop(other);
}

#[test]
fn a_second_handle_for_writing_is_refused_and_one_for_reading_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = Store::open_copying(&path).unwrap();
    assert!(matches!(
        Store::open_copying(&path).unwrap_err(),
        Error::Locked { .. }
    ));
    let reader = Options::new().read_only(true).open_copying(&path).unwrap();
    assert!(matches!(
        reader.writer("events").unwrap_err(),
        Error::ReadOnly { .. }
    ));
    // The lock lasts as long as a writer, whatever became of the store's handle.
    let writer = store.writer("events").unwrap();
    drop(store);
    assert!(matches!(
        Store::open_copying(&path).unwrap_err(),
        Error::Locked { .. }
    ));
    drop(writer);
    drop(Store::open_copying(&path).unwrap());
}

#[test]
fn closing_frees_the_lock_while_readers_read_on() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = Store::open_copying(&path).unwrap();
    let mut writer = store.writer("events").unwrap();
    writer.append(b"kept").unwrap();
    let snapshot = store.snapshot("events").unwrap();
    drop(writer);
    store.clone().close().unwrap();
    assert_eq!(snapshot.get(0u64).unwrap().value(), &b"kept"[..]);
    assert!(store.writer("events").is_err());
    let again = Store::open_copying(&path).unwrap();
    assert_eq!(again.log("events").unwrap().end().get(), 1);
}

/// Runs in a process of its own: commits, says so, and waits to be killed.
#[test]
#[ignore = "the child of the test below"]
fn a_process_that_waits_to_be_killed() {
    let Ok(path) = std::env::var("LANTERMAN_TEST_STORE") else {
        return;
    };
    let store = Store::open_copying(path).unwrap();
    let mut writer = store.writer("events").unwrap();
    writer.append(b"acknowledged").unwrap();
    writer.commit(Durability::Process).unwrap();
    writer.append(b"not committed").unwrap();
    std::fs::write(std::env::var("LANTERMAN_TEST_READY").unwrap(), b"ready").unwrap();
    // Ends by itself when nobody is left to kill it.
    let mut line = String::new();
    let _ = std::io::stdin().lock().read_line(&mut line);
    std::process::abort();
}

#[test]
fn the_lock_of_a_killed_process_is_free_and_what_it_committed_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let (path, ready) = (directory.path().join("store"), directory.path().join("ready"));
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "a_process_that_waits_to_be_killed"])
        .env("LANTERMAN_TEST_STORE", &path)
        .env("LANTERMAN_TEST_READY", &ready)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    while !ready.exists() {
        assert!(
            child.try_wait().unwrap().is_none(),
            "the child ended before it was ready"
        );
        std::thread::yield_now();
    }
    assert!(matches!(
        Store::open_copying(&path).unwrap_err(),
        Error::Locked { .. }
    ));
    child.kill().unwrap();
    child.wait().unwrap();
    let store = Store::open_copying(&path).unwrap();
    let log = store.log("events").unwrap();
    assert_eq!(log.end().get(), 1);
    assert_eq!(
        log.cursor(0u64).unwrap().next().unwrap().unwrap().value(),
        b"acknowledged"
    );
}
