//! Promise: a page of a store that comes back as it was earlier, or as another file had it earlier, gives the same answers or
//! an error that names a place; the one exception is the page of the journal's newest block, whose loss looks like a write
//! that never was. Shown on a store that the engine wrote, with images of it at moments of its life, among them some before
//! files were recycled.
#![allow(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "tests fail by panicking, and their numbers are small"
)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lanterman::disk::Disk;
use lanterman::{Durability, Error};
use lanterman_fuzz::crafted::PATH;
use lanterman_fuzz::crafted::reading::options;
use lanterman_fuzz::flat::FlatDisk;

type Files = Vec<(PathBuf, Vec<u8>)>;

const PAGE: usize = 4096;
const LOGS: [&str; 2] = ["events", "other"];
/// Messages of each log, a few to a commit.
const MESSAGES: u64 = 260;
const A_COMMIT: u64 = 13;

fn value(log: usize, number: u64) -> Vec<u8> {
    let mut value = format!("{log}/{number} ").into_bytes();
    value.resize(value.len() + (number as usize * 37) % 500, number as u8);
    value
}

/// The store at moments of its life; the last image is the newest.
fn images() -> Vec<Files> {
    let disk = Arc::new(FlatDisk::default());
    disk.create_directory(Path::new("/")).unwrap();
    let store = options(disk.clone()).create(true).open_copying(PATH).unwrap();
    let mut images = Vec::new();
    let mut writers = LOGS.map(|name| store.writer(name).unwrap());
    for number in 0..MESSAGES {
        for (log, writer) in writers.iter_mut().enumerate() {
            writer.append(&value(log, number)).unwrap();
            if (number + 1) % A_COMMIT == 0 {
                writer.commit(Durability::Disk).unwrap();
            }
        }
        if number % 52 == 51 {
            images.push(disk.files());
            if number + 52 < MESSAGES {
                store.checkpoint().unwrap();
                images.push(disk.files());
            }
        }
    }
    images.push(disk.files());
    images
}

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Same,
    Damaged,
    /// The newest commit is not there, everything before is.
    WithoutNewest,
}

fn read(disk: Arc<FlatDisk>) -> Outcome {
    let store = match options(disk).read_only(true).open_copying(PATH) {
        Ok(store) => store,
        Err(Error::Damaged(damage)) => {
            assert!(damage.path.starts_with(PATH), "{damage}");
            return Outcome::Damaged;
        }
        // A stale root may name a segment of the journal that is gone.
        Err(Error::Io { path, .. }) if path.starts_with(PATH) => return Outcome::Damaged,
        Err(error) => panic!("a stale page gives {error}"),
    };
    let mut outcome = Outcome::Same;
    for (number, name) in LOGS.iter().enumerate() {
        let log = match store.log(name) {
            Ok(log) => log,
            Err(Error::Damaged(_)) => return Outcome::Damaged,
            Err(error) => panic!("a stale page gives {error}"),
        };
        let end = log.end().get();
        // Behind a damaged part of the journal the library says that it cannot vouch for the end.
        let in_doubt = matches!(log.cursor(end).unwrap().next(), Err(Error::Damaged(_)));
        if in_doubt && outcome == Outcome::Same {
            outcome = Outcome::Damaged;
        } else if end != MESSAGES && !in_doubt {
            // The newest commit is one of the second log.
            assert!(
                number == 1 && end == MESSAGES - A_COMMIT,
                "log {name} ends at {end}"
            );
            outcome = Outcome::WithoutNewest;
        }
        let mut cursor = log.cursor(0u64).unwrap();
        let mut next = 0;
        while next < end {
            match cursor.next() {
                Ok(Some(message)) => {
                    assert!(
                        message.value() == value(number, next),
                        "wrong bytes at {next} of {name}"
                    );
                    next += 1;
                }
                Ok(None) => panic!("log {name} ends at {next} and not at {end}"),
                Err(Error::Damaged(damage)) => {
                    outcome = Outcome::Damaged;
                    next = damage.offsets.unwrap().end;
                    cursor.seek(next).unwrap();
                }
                Err(error) => panic!("a stale page gives {error}"),
            }
        }
    }
    outcome
}

/// The file and the pages of the newest block of the journal: the last pages of the last journal segment that hold anything
/// from the last block's header on.
fn newest_block(files: &Files) -> (usize, std::ops::Range<usize>) {
    let version = |page: &[u8]| u64::from_le_bytes(page[32..40].try_into().unwrap());
    let mut newest = (0, 0, 0..0);
    for (file, (path, bytes)) in files.iter().enumerate() {
        if path.extension().is_none_or(|kind| kind != "journal") {
            continue;
        }
        let id = u64::from_str_radix(path.file_stem().unwrap().to_str().unwrap(), 16).unwrap();
        for at in (PAGE..bytes.len()).step_by(PAGE) {
            let page = &bytes[at..];
            // A block of this life says the segment's number.
            let is_own = page[..4] == *b"LTNB" && page[16..24] == id.to_le_bytes();
            if is_own && version(page) > newest.1 {
                let length = u32::from_le_bytes(page[8..12].try_into().unwrap()) as usize;
                newest = (file, version(page), at..at + length.next_multiple_of(PAGE));
            }
        }
    }
    (newest.0, newest.2)
}

#[test]
fn a_page_from_an_earlier_moment_gives_an_error_or_the_same_answers() {
    let mut images = images();
    let newest = images.pop().unwrap();
    assert_eq!(read(Arc::new(FlatDisk::with(&newest))), Outcome::Same);
    let (newest_file, newest_pages) = newest_block(&newest);
    let disk = Arc::new(FlatDisk::with(&newest));
    let (mut states, mut damaged, mut without_newest) = (0, 0, 0);
    let mut seen = std::collections::HashSet::new();
    for image in &images {
        for (file, (path, bytes)) in newest.iter().enumerate() {
            for (_, old) in image {
                for at in (0..bytes.len().min(old.len())).step_by(PAGE) {
                    let (now, then) = (&bytes[at..at + PAGE], &old[at..old.len().min(at + PAGE)]);
                    if then.len() < PAGE || now == then || !seen.insert((file, at, then)) {
                        continue;
                    }
                    states += 1;
                    disk.poke(path, at, then);
                    let outcome = read(disk.clone());
                    disk.poke(path, at, now);
                    match outcome {
                        Outcome::Same => {}
                        Outcome::Damaged => damaged += 1,
                        Outcome::WithoutNewest => {
                            without_newest += 1;
                            assert!(
                                file == newest_file && newest_pages.contains(&at),
                                "{} page at {at}: the newest commit is gone without a word",
                                path.display()
                            );
                        }
                    }
                }
            }
        }
    }
    eprintln!("{states} stale pages: {damaged} damaged, {without_newest} without the newest commit");
    assert!(damaged > 20 && without_newest > 0, "the states look at nothing");
}

#[test]
fn a_stale_root_slot_changes_nothing_and_two_lead_to_the_same_or_to_an_error() {
    let mut images = images();
    let newest = images.pop().unwrap();
    let root = newest
        .iter()
        .position(|(path, _)| path.ends_with("root"))
        .unwrap();
    let mut longer_ways = 0;
    for image in &images {
        let old = &image.iter().find(|(path, _)| path.ends_with("root")).unwrap().1;
        if *old == newest[root].1 {
            continue;
        }
        for slots in [0..PAGE, PAGE..2 * PAGE, 0..2 * PAGE] {
            let mut files = newest.clone();
            files[root].1[slots.clone()].copy_from_slice(&old[slots.clone()]);
            let outcome = read(Arc::new(FlatDisk::with(&files)));
            if slots.len() == PAGE {
                assert_eq!(outcome, Outcome::Same, "slot at {}", slots.start);
            } else {
                assert_ne!(outcome, Outcome::WithoutNewest);
                longer_ways += usize::from(outcome == Outcome::Same);
            }
        }
    }
    eprintln!("{longer_ways} stale roots lead to the newest version by a longer way");
}
