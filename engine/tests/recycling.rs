//! Promise: a store that lives writes its journal over blocks that were written before, in segments of full size.
//!
//! Shown by what lies ready for reuse after the journal has grown and gone round several times.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::path::Path;

use lanterman::{Background, Durability, Options, Store};

const SEGMENT_BYTES_MAX: u64 = 256 << 10;

fn open(path: &Path) -> Store {
    let options = Options::new()
        .background(Background::Manual)
        // The reserve is a spare too, of another length.
        .reserve_bytes(0)
        .journal_segment_bytes(64 << 10, SEGMENT_BYTES_MAX);
    options.open_copying(path).unwrap()
}

/// The lengths of the segment files of that kind, least first.
fn lengths(store: &Path, extension: &str) -> Vec<u64> {
    let mut lengths = Vec::new();
    for entry in std::fs::read_dir(store.join("segments")).unwrap() {
        let entry = entry.unwrap();
        if entry.path().extension().is_some_and(|found| found == extension) {
            lengths.push(entry.metadata().unwrap().len());
        }
    }
    lengths.sort_unstable();
    lengths
}

#[test]
fn segments_of_full_size_are_kept_for_reuse_and_the_small_ones_of_the_first_minutes_are_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = open(&path);
    let mut writer = store.writer("log").unwrap();
    for _ in 0..12 {
        for _ in 0..12 {
            writer.append(&[7; 40 << 10]).unwrap();
            writer.commit(Durability::Process).unwrap();
        }
        store.checkpoint().unwrap();
    }
    let spares = lengths(&path, "free");
    assert!(
        !spares.is_empty(),
        "the journal has gone round, so something lies ready"
    );
    assert!(
        spares.iter().all(|bytes| *bytes == SEGMENT_BYTES_MAX),
        "spares of {spares:?} bytes"
    );
}

#[test]
fn the_next_segment_of_the_journal_lies_ready_before_the_one_in_use_is_full() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = open(&path);
    let mut writer = store.writer("log").unwrap();
    let mut commit = || {
        writer.append(&[7; 3000]).unwrap();
        writer.commit(Durability::Disk).unwrap();
        while store.step().unwrap() {}
    };
    // Half of the first segment is seven blocks of 4 KiB behind its header.
    (0..12).for_each(|_| commit());
    assert_eq!(lengths(&path, "journal"), [64 << 10]);
    assert_eq!(lengths(&path, "free"), [128 << 10]);
    (0..6).for_each(|_| commit());
    assert_eq!(lengths(&path, "journal"), [64 << 10, 128 << 10]);
    assert!(lengths(&path, "free").is_empty(), "the second is what lay ready");
}
