//! Promise: what a power cut left of the last block is cut off without a word; a hole with a block behind it that knew
//! the missing one durable is damage, and opening says so instead of shortening the log. Shown by cutting the last block
//! at every sector, and by destroying blocks in the middle.
#![allow(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests fail by panicking, and their numbers are small"
)]

mod common;

use std::path::Path;
use std::sync::Arc;

use common::{check_values, memory, open_on, small, value};
use lanterman::disk::{Disk, MemoryDisk, OpenMode, Sync};
use lanterman::{Durability, ErrorKind};

const JOURNAL: &str = "/store/segments/0000000000000001.journal";
const FIRST_BLOCK: u64 = 4096;

/// A store whose journal has `commits` blocks of one page, each durable.
fn store_with(commits: u64) -> Arc<MemoryDisk> {
    let disk = memory();
    let store = open_on(disk.clone());
    let mut writer = store.writer("events").unwrap();
    for number in 0..commits {
        writer.append(&value(number)).unwrap();
        writer.commit(Durability::Disk).unwrap();
    }
    Arc::new(disk.kill_image().unwrap())
}

fn overwrite(disk: &MemoryDisk, position: u64, bytes: &[u8]) {
    let file = disk.open(Path::new(JOURNAL), OpenMode::ReadWrite).unwrap();
    file.write_at(position, bytes, Sync::No).unwrap();
}

#[test]
fn a_last_block_cut_anywhere_is_the_end_of_the_log() {
    for cut in (0..4096).step_by(8).filter(|cut| cut % 512 == 0 || *cut < 600) {
        let disk = store_with(5);
        let last = FIRST_BLOCK + 4 * 4096;
        overwrite(&disk, last + cut, &vec![0; 4096 - cut as usize]);
        let store = open_on(disk);
        let end = check_values(&store, "events", 0);
        // Where the cut is behind the block's bytes, nothing is missing.
        assert!(end == 4 || end == 5, "cut at {cut}: {end} messages");
        assert!(
            cut >= 64 || end == 4,
            "a block without a header was taken for whole"
        );
        let mut writer = store.writer("events").unwrap();
        writer.append(&value(end)).unwrap();
        writer.commit(Durability::Disk).unwrap();
        assert_eq!(check_values(&store, "events", 0), end + 1);
    }
}

#[test]
fn a_hole_before_a_block_that_knew_it_durable_is_damage() {
    for hole in 0..3 {
        let disk = store_with(5);
        overwrite(&disk, FIRST_BLOCK + hole * 4096, &[0; 4096]);
        let error = small().disk(disk.clone()).open_copying(common::PATH).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::RestoreData, "hole {hole}: {error}");
        let text = error.to_string();
        assert!(
            text.contains("0000000000000001.journal")
                && text.contains(&format!("{}", FIRST_BLOCK + hole * 4096)),
            "{text}"
        );
    }
}

#[test]
fn blocks_of_an_earlier_life_behind_the_end_are_no_damage() {
    // The journal is cut at version three and goes on; the old versions four and five stand behind the new end.
    let disk = store_with(5);
    overwrite(&disk, FIRST_BLOCK + 3 * 4096, &[0; 8192]);
    let store = open_on(disk.clone());
    assert_eq!(check_values(&store, "events", 0), 3);
    let mut writer = store.writer("events").unwrap();
    writer.append(&value(3)).unwrap();
    writer.commit(Durability::Disk).unwrap();
    let again = open_on(Arc::new(disk.kill_image().unwrap()));
    assert_eq!(check_values(&again, "events", 0), 4);
}
