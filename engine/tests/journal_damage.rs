//! Promise: damage in the middle of the journal costs what stood there and nothing else. A store that is only read
//! opens, answers `Damaged` for the lost offsets and at ends that nobody can vouch for, and reads all the rest; one that
//! writes refuses, unless the loss is accepted, and then it is a part of the logs for good.
//!
//! Shown by destroying single blocks of journals whose content is known, and blocks at random under a mixed workload.
#![allow(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "tests fail by panicking, print their seeds, and their numbers are small"
)]

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::model::Random;
use common::{memory, small, value};
use lanterman::disk::{Disk, MemoryDisk, OpenMode, Sync, read_full_at};
use lanterman::{Background, Durability, Error, ErrorKind, Options, Store};
use lanterman_format::block::{BlockKind, decode_block_header};
use lanterman_format::ids::Position;
use lanterman_format::{Found, SegmentHeader};

/// A commit block of a journal: its file, its place and its length.
type Block = (PathBuf, u64, u64);

/// Every block in the journal files, by rising versions; older ones stand there too.
fn blocks(disk: &MemoryDisk) -> Vec<Block> {
    let directory = Path::new("/store/segments");
    let mut found = BTreeMap::new();
    for name in disk.list(directory).unwrap() {
        if !name.ends_with(".journal") {
            continue;
        }
        let path = directory.join(name);
        let file = disk.open(&path, OpenMode::Read).unwrap();
        let mut bytes = vec![0; file.bytes().unwrap() as usize];
        read_full_at(&*file, 0, &mut bytes).unwrap();
        let Found::Valid(header) = SegmentHeader::decode(bytes[..4096].try_into().unwrap(), None) else {
            continue;
        };
        for position in (4096..bytes.len()).step_by(4096) {
            let place = header.place(Position::new(position as u64));
            if let Found::Valid(block) = decode_block_header(&bytes[position..], &place)
                && block.kind == BlockKind::Commit
            {
                let version = block.identity.version.get();
                found.insert(
                    version,
                    (path.clone(), position as u64, u64::from(block.block_bytes)),
                );
            }
        }
    }
    found.into_values().collect()
}

/// Flips a bit in the middle of a block.
fn destroy(disk: &MemoryDisk, block: &Block) {
    let file = disk.open(&block.0, OpenMode::ReadWrite).unwrap();
    let at = block.1 + block.2 / 2;
    let mut byte = [0];
    read_full_at(&*file, at, &mut byte).unwrap();
    file.write_at(at, &[byte[0] ^ 0x10], Sync::No).unwrap();
}

/// Ten durable commits of one message to "events", with other logs beside: "early" in the first three alone, "late"
/// from the fifth on.
fn ten_commits() -> Arc<MemoryDisk> {
    let disk = memory();
    let store = common::open_on(disk.clone());
    for number in 0..10 {
        store
            .transaction(|transaction| {
                transaction.append("events", &value(number))?;
                if number < 3 {
                    transaction.append("early", &value(number))?;
                }
                if number >= 4 {
                    transaction.append("late", &value(number - 4))?;
                }
                Ok(())
            })
            .unwrap();
    }
    Arc::new(disk.kill_image().unwrap())
}

fn reading(disk: &Arc<MemoryDisk>) -> Store {
    let disk: Arc<dyn Disk> = Arc::<MemoryDisk>::clone(disk);
    small()
        .read_only(true)
        .disk(disk)
        .open_copying(common::PATH)
        .unwrap()
}

fn accepting(disk: &Arc<MemoryDisk>) -> Store {
    let disk: Arc<dyn Disk> = Arc::<MemoryDisk>::clone(disk);
    small()
        .accept_lost_commits(true)
        .disk(disk)
        .open_copying(common::PATH)
        .unwrap()
}

/// The offsets that can be read, each with the right value; the ranges that are damaged; whether the end is in doubt.
fn look(store: &Store, log: &str) -> (Vec<u64>, Vec<std::ops::Range<u64>>, bool) {
    let log = store.log(log).unwrap();
    let end = log.end().get();
    let mut cursor = log.cursor(0u64).unwrap();
    let (mut read, mut damaged) = (Vec::new(), Vec::new());
    loop {
        match cursor.next() {
            Ok(Some(message)) => {
                let offset = message.offset().get();
                assert!(message.value() == value(offset), "another value at {offset}");
                read.push(offset);
            }
            Ok(None) => return (read, damaged, false),
            Err(Error::Damaged(damage)) => {
                assert!(damage.path.starts_with("/store/segments"), "{damage}");
                let Some(offsets) = damage.offsets.clone() else {
                    assert_eq!(cursor.offset().get(), end, "{damage}");
                    return (read, damaged, true);
                };
                cursor.seek(offsets.end).unwrap();
                damaged.push(offsets);
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// The one range of the one offset.
fn alone(offset: u64) -> Vec<std::ops::Range<u64>> {
    std::iter::once(offset..offset + 1).collect()
}

#[test]
fn a_reader_loses_the_destroyed_version_and_nothing_else() {
    // Where the first one is lost, all three logs lose their names: the next test.
    for lost in 1..9 {
        let disk = ten_commits();
        destroy(&disk, &blocks(&disk)[lost as usize]);
        let store = reading(&disk);
        let (read, damaged, in_doubt) = look(&store, "events");
        assert_eq!(damaged, alone(lost));
        assert_eq!(read, (0..10).filter(|offset| *offset != lost).collect::<Vec<_>>());
        assert!(!in_doubt, "a message behind the hole vouches for the end");
        // Nothing of it follows: its end is in doubt, whether it was in the hole (2) or not.
        let (read, damaged, in_doubt) = look(&store, "early");
        let expected: Vec<_> = (0..3).filter(|offset| *offset != lost).collect();
        assert_eq!((read, in_doubt), (expected, lost >= 2), "lost {lost}");
        assert_eq!(damaged.len(), usize::from(lost == 1), "lost {lost}");
        let commits = store.lost_commits();
        assert_eq!(commits.len(), 1);
        // The n-th of the ten commits is the n-th version.
        assert_eq!(commits[0].versions.start().get(), lost + 1, "{commits:?}");
        let mut cursor = store.log("events").unwrap().cursor(0u64).unwrap();
        assert_eq!(cursor.get(9u64).unwrap().offset().get(), 9);
    }
}

#[test]
fn logs_created_in_the_hole_lose_their_name_and_their_number_is_not_used_again() {
    let disk = ten_commits();
    destroy(&disk, &blocks(&disk)[4]);
    let store = reading(&disk);
    assert_eq!(store.log("late").unwrap_err().kind(), ErrorKind::RestoreData);
    let held = store.snapshot_all();
    assert_eq!(held.log("late").unwrap_err().kind(), ErrorKind::RestoreData);
    assert_eq!(store.damage().len(), 1);
    let commits = store.lost_commits();
    let nameless: Vec<_> = commits[0]
        .messages
        .iter()
        .filter(|lost| lost.log.is_none())
        .collect();
    assert_eq!(nameless.len(), 5, "{commits:?}");
    drop(store);
    let store = accepting(&disk);
    let mut again = store.writer("late").unwrap();
    again.append(&value(0)).unwrap();
    again.commit(Durability::Disk).unwrap();
    let numbers: Vec<_> = store.lost_commits()[0]
        .messages
        .iter()
        .map(|lost| lost.number)
        .collect();
    drop((again, store));
    let store = common::open_on(disk);
    assert!(store.lost_commits().is_empty());
    assert_eq!(look(&store, "late").0, [0]);
    assert_eq!(
        numbers.len(),
        5 + 2,
        "and the lost message of one log, and the doubt about another"
    );
}

#[test]
fn a_writer_refuses_until_the_loss_is_accepted_and_goes_on_behind_it() {
    let disk = ten_commits();
    destroy(&disk, &blocks(&disk)[6]);
    for _ in 0..2 {
        let error = small().disk(disk.clone()).open_copying(common::PATH).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::RestoreData, "{error}");
    }
    let store = accepting(&disk);
    let mut writer = store.writer("events").unwrap();
    assert_eq!(writer.append(&value(10)).unwrap().get(), 10);
    writer.commit(Durability::Disk).unwrap();
    assert_eq!(look(&store, "events").1, alone(6));
    // In doubt no longer: the end is where it is.
    assert_eq!(look(&store, "early"), (vec![0, 1, 2], Vec::new(), false));
    assert_eq!(store.lost_commits().len(), 1);
    drop((writer, store));
    // The loss is a part of the log now, and no damage of the journal.
    for _ in 0..2 {
        let store = common::open_on(disk.clone());
        let (read, damaged, in_doubt) = look(&store, "events");
        assert_eq!((read.len(), damaged, in_doubt), (10, alone(6), false));
        assert!(store.lost_commits().is_empty());
        store.checkpoint().unwrap();
    }
}

#[test]
fn a_power_cut_while_a_loss_is_accepted_changes_nothing_of_what_is_lost() {
    let disk = ten_commits();
    destroy(&disk, &blocks(&disk)[6]);
    let store = accepting(&disk);
    drop(store);
    let again = Arc::new(disk.kill_image().unwrap());
    assert_eq!(look(&common::open_on(again), "events").1, alone(6));
}

const LOGS: [&str; 3] = ["a", "b", "c"];

/// Slabs and journal blocks large enough that some commits adopt slabs.
fn larger(disk: &Arc<MemoryDisk>) -> Options {
    let disk: Arc<dyn Disk> = Arc::<MemoryDisk>::clone(disk);
    Options::new()
        .background(Background::Manual)
        .slab_bytes_max(512 << 10)
        .tail_memory_bytes(4 << 20)
        .journal_bytes_max(8 << 20)
        .disk(disk)
}

/// Messages, small and many, commits of both levels, slabs that are adopted, checkpoints; every log goes on at the end.
fn mixed(random: &mut Random, disk: &Arc<MemoryDisk>) -> [u64; 3] {
    let store = larger(disk).open_copying(common::PATH).unwrap();
    let mut ends = [0; 3];
    for _ in 0..30 {
        let log = random.below(3) as usize;
        let mut writer = store.writer(LOGS[log]).unwrap();
        let count = if random.below(4) == 0 {
            2000
        } else {
            1 + random.below(40)
        };
        for _ in 0..count {
            writer.append(&value(ends[log])).unwrap();
            ends[log] += 1;
        }
        writer.commit(Durability::Disk).unwrap();
        if random.below(12) == 0 {
            store.checkpoint().unwrap();
        }
        if random.below(3) == 0 {
            while store.step().unwrap() {}
        }
    }
    for (log, name) in LOGS.iter().enumerate() {
        let mut writer = store.writer(name).unwrap();
        writer.append(&value(ends[log])).unwrap();
        ends[log] += 1;
        writer.commit(Durability::Disk).unwrap();
    }
    // One more, so that the last ones are known to be durable.
    let mut writer = store.writer(LOGS[0]).unwrap();
    writer.append(&value(ends[0])).unwrap();
    ends[0] += 1;
    writer.commit(Durability::Disk).unwrap();
    std::mem::forget(store);
    ends
}

#[test]
fn blocks_destroyed_at_random_cost_their_own_messages_alone() {
    let seeds = std::env::var("LANTERMAN_SEED").map_or(1..31, |seed| {
        let seed: u64 = seed.parse().unwrap();
        seed..seed + 1
    });
    let mut damaged_runs = 0;
    for seed in seeds {
        println!("LANTERMAN_SEED={seed}");
        let mut random = Random::from_seed(seed);
        let disk = memory();
        let ends = mixed(&mut random, &disk);
        let disk = Arc::new(disk.kill_image().unwrap());
        let blocks = blocks(&disk);
        for _ in 0..=random.below(3) {
            // Not the last four: with nothing behind that knew them durable, they would be a torn end.
            let victim = random.below(blocks.len() as u64 - 4) as usize;
            destroy(&disk, &blocks[victim]);
        }
        let read = LOGS.map(|log| {
            let store = larger(&disk).read_only(true).open_copying(common::PATH).unwrap();
            store.log(log).ok().map(|_| look(&store, log))
        });
        let store = larger(&disk)
            .accept_lost_commits(true)
            .open_copying(common::PATH)
            .unwrap();
        for (log, name) in LOGS.iter().enumerate() {
            // A log whose creation was destroyed is gone; the others reach their end.
            let Some((found, damaged, in_doubt)) = &read[log] else {
                continue;
            };
            assert!(!in_doubt, "log {name}");
            assert_eq!(
                found.len() as u64 + damaged.iter().map(|range| range.end - range.start).sum::<u64>(),
                ends[log],
                "log {name}"
            );
            damaged_runs += damaged.len();
            assert_eq!(&look(&store, name).0, found, "log {name}, when accepted");
            let mut writer = store.writer(name).unwrap();
            assert_eq!(writer.append(&value(ends[log])).unwrap().get(), ends[log]);
            writer.commit(Durability::Disk).unwrap();
        }
        while store.step().unwrap() {}
        drop(store);
        let store = larger(&disk).open_copying(common::PATH).unwrap();
        for (log, name) in LOGS.iter().enumerate() {
            let Some((found, damaged, _)) = &read[log] else {
                continue;
            };
            let (now, still, in_doubt) = look(&store, name);
            assert_eq!(now.len(), found.len() + 1, "log {name}, reopened");
            assert_eq!((&still, in_doubt), (damaged, false), "log {name}, reopened");
        }
    }
    assert!(damaged_runs > 10, "only {damaged_runs} damaged runs");
}

/// Flips a bit in the first place of any file of slabs that holds these bytes.
fn flip_in_slabs(disk: &MemoryDisk, wanted: &[u8]) {
    let directory = Path::new("/store/segments");
    for name in disk.list(directory).unwrap() {
        if !name.ends_with(".slabs") {
            continue;
        }
        let file = disk.open(&directory.join(name), OpenMode::ReadWrite).unwrap();
        let mut bytes = vec![0; file.bytes().unwrap() as usize];
        read_full_at(&*file, 0, &mut bytes).unwrap();
        if let Some(at) = bytes.windows(wanted.len()).position(|found| found == wanted) {
            file.write_at(at as u64, &[bytes[at] ^ 1], Sync::No).unwrap();
            return;
        }
    }
    panic!("the bytes are in no slab");
}

#[test]
fn a_log_whose_newest_slab_is_damaged_takes_new_messages() {
    for journaled in [false, true] {
        let disk = memory();
        let store = common::open_on(disk.clone());
        let mut writer = store.writer("events").unwrap();
        for number in 0..5 {
            writer.append(&value(number)).unwrap();
        }
        writer.commit(Durability::Disk).unwrap();
        store.checkpoint().unwrap();
        if journaled {
            // Replay has to put this behind the damaged slab.
            writer.append(&value(5)).unwrap();
            writer.commit(Durability::Disk).unwrap();
        }
        let disk = Arc::new(disk.kill_image().unwrap());
        flip_in_slabs(&disk, &value(3));
        let first = 5 + u64::from(journaled);
        for round in 0..2 {
            let store = common::open_on(disk.clone());
            let mut writer = store.writer("events").unwrap();
            let next = first + round;
            assert_eq!(writer.append(&value(next)).unwrap().get(), next);
            writer.commit(Durability::Disk).unwrap();
            let (read, damaged, in_doubt) = look(&store, "events");
            let lost: u64 = damaged.iter().map(|range| range.end - range.start).sum();
            assert_eq!(read.len() as u64 + lost, next + 1);
            assert!(lost > 0 && damaged.iter().all(|range| range.end <= 5) && !in_doubt);
            store.checkpoint().unwrap();
        }
    }
}
