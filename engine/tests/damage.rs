//! Promise: a flipped bit, a zeroed sector, a swapped, cut or grown file gives an error that names the place, or the same
//! answers; never a panic, never wrong bytes. Shown by damaging a small store that uses every structure, place by place.
#![allow(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests fail by panicking, and their numbers are small"
)]

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::{memory, small, value};
use lanterman::disk::{Disk, Fate, MemoryDisk, OpenMode, Sync};
use lanterman::{Durability, Error, Store};

const LOGS: [&str; 2] = ["events", "other"];
const MESSAGES: u64 = 330;

type Files = Vec<(PathBuf, Vec<u8>)>;

/// Slabs, nodes, gathered tails, a checkpoint, and a journal behind it.
fn files() -> Files {
    let disk = memory();
    let store = common::open_on(disk.clone());
    for name in LOGS {
        let mut writer = store.writer(name).unwrap();
        for number in 0..MESSAGES {
            writer.append(&value(number)).unwrap();
            if number == 300 {
                writer.commit(Durability::Disk).unwrap();
                while store.step().unwrap() {}
                store.checkpoint().unwrap();
            }
        }
        writer.commit(Durability::Disk).unwrap();
    }
    let image = disk.crash_image(|_, _| Fate::Lost).unwrap();
    let mut files = Vec::new();
    for directory in ["/store", "/store/segments"] {
        for name in image.list(Path::new(directory)).unwrap() {
            if !["segments", "lock", "readers"].contains(&name.as_str()) {
                let path = Path::new(directory).join(name);
                let file = image.open(&path, OpenMode::Read).unwrap();
                let mut bytes = vec![0; file.bytes().unwrap() as usize];
                lanterman::disk::read_full_at(&*file, 0, &mut bytes).unwrap();
                files.push((path, bytes));
            }
        }
    }
    files
}

fn disk_of(files: &Files) -> Arc<MemoryDisk> {
    let disk = memory();
    disk.create_directory(Path::new("/store")).unwrap();
    disk.create_directory(Path::new("/store/segments")).unwrap();
    for (path, bytes) in files {
        let file = disk.open(path, OpenMode::CreateNew).unwrap();
        // Zeros need not be written; most of a small store is room for more.
        file.reserve(0..bytes.len() as u64).unwrap();
        for (page, bytes) in bytes
            .chunks(4096)
            .enumerate()
            .filter(|(_, bytes)| bytes.iter().any(|byte| *byte != 0))
        {
            file.write_at(page as u64 * 4096, bytes, Sync::No).unwrap();
        }
    }
    disk
}

/// What a reader got from a damaged store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    SameAnswers,
    ErrorWithPlace,
    /// A log that ends early, without a word.
    Shorter,
}

fn read(disk: Arc<MemoryDisk>) -> Outcome {
    let store = match small().read_only(true).disk(disk).open_copying(common::PATH) {
        Ok(store) => store,
        Err(error) => return place_named(&error),
    };
    LOGS.iter()
        .map(|name| read_log(&store, name))
        .fold(Outcome::SameAnswers, |worst, found| match (worst, found) {
            (Outcome::Shorter, _) | (_, Outcome::Shorter) => Outcome::Shorter,
            (Outcome::SameAnswers, found) => found,
            (worst, _) => worst,
        })
}

fn place_named(error: &Error) -> Outcome {
    match error {
        Error::Damaged(damage) => assert!(
            damage.path.starts_with("/store"),
            "a place outside the store: {damage}"
        ),
        Error::Io { .. } | Error::NewerFormat { .. } | Error::NotAStore { .. } | Error::NoStore { .. } => {}
        other => panic!("damage gives {other}"),
    }
    Outcome::ErrorWithPlace
}

fn read_log(store: &Store, name: &str) -> Outcome {
    let log = match store.log(name) {
        Ok(log) => log,
        // The page of the catalog that may have it is damaged.
        Err(error @ Error::Damaged(_)) => return place_named(&error),
        Err(_) => return Outcome::Shorter,
    };
    let end = log.end().get();
    let mut cursor = log.cursor(0u64).unwrap();
    let mut outcome = Outcome::SameAnswers;
    let mut next = 0;
    while next < end {
        match cursor.next() {
            Ok(Some(message)) => {
                assert!(
                    message.offset().get() == next && message.value() == value(next),
                    "wrong bytes at {next}"
                );
                next += 1;
            }
            Ok(None) => panic!("the end came before the end"),
            Err(Error::Damaged(damage)) => {
                outcome = Outcome::ErrorWithPlace;
                let Some(lost) = damage.offsets.clone() else {
                    panic!("{damage} does not name the offsets that are lost")
                };
                assert!(lost.contains(&next), "{damage} does not name offset {next}");
                next = lost.end;
                cursor.seek(next).unwrap();
            }
            Err(error) => panic!("damage gives {error}"),
        }
    }
    if end < MESSAGES { Outcome::Shorter } else { outcome }
}

/// Where the newest blocks of the journal are, whose damage is the same as a torn end; and other copies of the root.
fn is_undecidable(path: &Path, position: usize, files: &Files) -> bool {
    let is_journal = path.extension().is_some_and(|extension| extension == "journal");
    if !is_journal {
        return false;
    }
    // The last written page of the newest journal holds the last block, and nothing behind it can vouch for it.
    let bytes = &files.iter().find(|(found, _)| found == path).unwrap().1;
    let last = bytes
        .chunks(4096)
        .rposition(|page| page.iter().any(|byte| *byte != 0))
        .unwrap_or(0);
    let mut start = last;
    while start > 1 && bytes[start * 4096..start * 4096 + 4] != bytes[4096..4100] {
        start -= 1;
    }
    position >= start * 4096
}

#[test]
fn the_undamaged_store_gives_the_right_answers() {
    assert_eq!(read(disk_of(&files())), Outcome::SameAnswers);
}

#[test]
fn a_flipped_bit_gives_an_error_with_its_place_or_the_same_answers() {
    let files = files();
    let disk = disk_of(&files);
    let mut errors = 0;
    let mut tried = 0u64;
    for (path, bytes) in &files {
        let file = disk.open(path, OpenMode::ReadWrite).unwrap();
        // Every byte of what is small, and of the rest a byte in a prime number, so that all kinds of places are met.
        for (position, byte) in bytes.iter().enumerate() {
            let page = &bytes[position & !4095..(position & !4095) + 4096];
            let is_used = page.iter().any(|byte| *byte != 0);
            if !is_used || !(position % 97 == 0 || (position % 4096 < 320 && position % 7 == 0)) {
                continue;
            }
            tried += 1;
            let bit = 1 << (position % 8);
            file.write_at(position as u64, &[byte ^ bit], Sync::No).unwrap();
            match read(Arc::clone(&disk)) {
                Outcome::ErrorWithPlace => errors += 1,
                Outcome::SameAnswers => {}
                Outcome::Shorter => assert!(
                    is_undecidable(path, position, &files),
                    "{}: byte {position} flipped, and a log is shorter without a word",
                    path.display()
                ),
            }
            file.write_at(position as u64, &[*byte], Sync::No).unwrap();
        }
    }
    assert!(errors > 200, "{errors} errors in {tried} flips");
}

#[test]
fn zeroed_sectors_and_swapped_pages_give_errors_or_the_same_answers() {
    let files = files();
    let mut errors = 0;
    for (number, (path, bytes)) in files.iter().enumerate() {
        for sector in (0..bytes.len() / 512).filter(|sector| {
            bytes[sector * 512..(sector + 1) * 512]
                .iter()
                .any(|byte| *byte != 0)
        }) {
            let mut damaged = files.clone();
            if sector % 2 == 0 {
                damaged[number].1[sector * 512..(sector + 1) * 512].fill(0);
            } else {
                // A page that was written to the wrong place of the same file.
                let page = sector / 8 * 4096;
                let other = (page + 8192) % bytes.len();
                let moved = bytes[page..page + 4096].to_vec();
                damaged[number].1[other..other + 4096].copy_from_slice(&moved);
            }
            match read(disk_of(&damaged)) {
                Outcome::ErrorWithPlace => errors += 1,
                Outcome::SameAnswers => {}
                Outcome::Shorter => assert!(
                    path.extension().is_some_and(|extension| extension == "journal"),
                    "{}: sector {sector}",
                    path.display()
                ),
            }
        }
    }
    assert!(errors > 20, "only {errors} errors");
}

#[test]
fn files_cut_short_grown_missing_or_swapped_give_errors_or_the_same_answers() {
    let files = files();
    for number in 0..files.len() {
        for cut in [0, 1, 511, 4095, 4096, 5000, 12_288, usize::MAX] {
            let mut damaged = files.clone();
            let bytes = &mut damaged[number].1;
            bytes.truncate(cut.min(bytes.len().saturating_sub(1)));
            let disk = disk_of(&damaged);
            let outcome = read(disk.clone());
            let is_root = files[number].0.ends_with("root");
            assert!(
                outcome != Outcome::Shorter || !is_root,
                "a cut root file shortens a log"
            );
            // Opening for writing may refuse, and never panics.
            drop(small().disk(disk).open_copying(common::PATH));
        }
        let mut grown = files.clone();
        grown[number].1.extend_from_slice(&[0xEE; 9000]);
        assert_ne!(read(disk_of(&grown)), Outcome::Shorter);
        let mut missing = files.clone();
        missing.remove(number);
        let _ = read(disk_of(&missing));
        for other in 0..number {
            let mut swapped = files.clone();
            let bytes = swapped[number].1.clone();
            swapped[number].1 = std::mem::replace(&mut swapped[other].1, bytes);
            let _ = read(disk_of(&swapped));
        }
    }
}
