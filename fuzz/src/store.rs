//! Opens a whole store whose files were changed by the input, and reads everything that it gives.
//!
//! What comes out must be what went in: an error is a right answer, other bytes never are, nor a panic.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use lanterman::disk::{Disk, MemoryDisk, OpenMode, Sync};
use lanterman::{Background, Durability, Options, Randomness, Result, Store};

use crate::choices::{Choices, Seeded};

const PATH: &str = "/store";
const LOGS: [&str; 3] = ["events", "large", "quiet"];

/// A store as files, and what it holds.
struct Golden {
    files: Vec<(PathBuf, Vec<u8>)>,
    logs: Vec<Vec<Vec<u8>>>,
}

/// The same identity in every run, so that an input means the same in every run.
#[derive(Debug)]
struct FixedRandomness;

impl Randomness for FixedRandomness {
    fn identity(&self) -> std::io::Result<[u8; 16]> {
        Ok([0x5A; 16])
    }
}

#[derive(Debug)]
struct FixedClock;

impl lanterman::Clock for FixedClock {
    fn wall_ms(&self) -> i64 {
        1_700_000_000_000
    }

    fn monotonic(&self) -> std::time::Duration {
        std::time::Duration::ZERO
    }
}

fn options(disk: Arc<MemoryDisk>) -> Options {
    Options::new()
        .disk(disk)
        .randomness(Arc::new(FixedRandomness))
        .clock(Arc::new(FixedClock))
        .background(Background::Manual)
        .slab_bytes_max(64 << 10)
        .tail_memory_bytes(1 << 20)
        .slab_segment_bytes(64 << 10, 512 << 10)
        .journal_segment_bytes(64 << 10, 128 << 10)
}

/// A small store with slabs, nodes, gathered tails, two checkpoints and a journal behind them.
fn golden() -> &'static Golden {
    static GOLDEN: OnceLock<Golden> = OnceLock::new();
    GOLDEN.get_or_init(|| {
        let disk = Arc::new(MemoryDisk::new());
        let store = options(disk.clone()).open_copying(PATH).expect("a new store");
        let mut logs = vec![Vec::new(); LOGS.len()];
        let mut seeded = Seeded::new(11);
        for round in 0..3 {
            for (number, name) in LOGS.iter().enumerate() {
                let mut writer = store.writer(name).expect("a writer");
                for _ in 0..[400, 4, 3][number] {
                    let bytes = seeded.below([60, 30_000, 20][number]) as usize;
                    let value = seeded.bytes(bytes);
                    writer.append(&value).expect("room");
                    logs[number].push(value);
                }
                writer.commit(Durability::Disk).expect("a commit");
            }
            if round < 2 {
                store.checkpoint().expect("a checkpoint");
            }
        }
        // As a power cut leaves it: the journal is not empty.
        let image = disk
            .crash_image(|_, _| lanterman::disk::Fate::Lost)
            .expect("memory for an image");
        Golden {
            files: files_of(&image),
            logs,
        }
    })
}

/// The files of the small store, unchanged: seeds for a corpus.
#[must_use]
pub fn golden_files() -> Vec<(PathBuf, Vec<u8>)> {
    golden().files.clone()
}

fn files_of(disk: &MemoryDisk) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for directory in [PATH.to_owned(), format!("{PATH}/segments")] {
        let mut names = disk.list(Path::new(&directory)).expect("a directory");
        names.sort();
        for name in names
            .iter()
            .filter(|name| !["segments", "lock", "readers"].contains(&name.as_str()))
        {
            let path = Path::new(&directory).join(name);
            let file = disk.open(&path, OpenMode::Read).expect("a file");
            let mut bytes = vec![0; file.bytes().expect("its length") as usize];
            lanterman::disk::read_full_at(&*file, 0, &mut bytes).expect("its bytes");
            files.push((path, bytes));
        }
    }
    files
}

/// Changes the files as the input says.
fn mutate(files: &mut [(PathBuf, Vec<u8>)], choices: &mut Choices<'_>) {
    while !choices.is_empty() {
        let act = choices.below(8);
        let target = choices.index(files.len());
        let other = choices.index(files.len());
        let position = choices.below(1 << 24) as usize;
        let bytes = &mut files[target].1;
        if bytes.is_empty() {
            continue;
        }
        let position = position % bytes.len();
        match act {
            0..=2 => bytes[position] ^= 1 << choices.below(8),
            3 => bytes[position] = choices.byte(),
            4 => bytes[position & !511..]
                .iter_mut()
                .take(512)
                .for_each(|byte| *byte = 0),
            5 => bytes.truncate(position),
            6 => bytes.resize(bytes.len() + choices.index(9000), choices.byte()),
            _ if target != other => {
                let from = files[other].1.clone();
                let start = position & !4095;
                files[target].1[start..]
                    .iter_mut()
                    .zip(from.iter().skip(start))
                    .take(4096)
                    .for_each(|(to, from)| *to = *from);
            }
            _ => bytes.rotate_left(position & !4095),
        }
    }
}

/// Opens the store with the changes that `input` asks for, and compares what it reads.
pub fn open_mutated(input: &[u8]) {
    let golden = golden();
    let mut files = golden.files.clone();
    mutate(&mut files, &mut Choices::new(input));
    let disk = Arc::new(MemoryDisk::new());
    for directory in [PATH, "/store/segments"] {
        disk.create_directory(Path::new(directory))
            .expect("a new directory");
    }
    for (path, bytes) in &files {
        let file = disk.open(path, OpenMode::CreateNew).expect("a new file");
        file.reserve(0..bytes.len() as u64).expect("room");
        file.write_at(0, bytes, Sync::No).expect("a write");
    }
    let opened = options(disk.clone()).read_only(true).open_copying(PATH);
    if let Ok(store) = opened {
        read_all(&store, golden);
    }
    if let Ok(store) = options(disk).open_copying(PATH) {
        read_all(&store, golden);
        // Whatever is damaged, trying to go on must not panic either.
        let _ = go_on(&store);
        read_all(&store, golden);
    }
}

fn go_on(store: &Store) -> Result<()> {
    let mut writer = store.writer("new")?;
    writer.append(b"after the damage")?;
    writer.commit(Durability::Disk)?;
    store.checkpoint()?;
    Ok(())
}

fn read_all(store: &Store, golden: &Golden) {
    for information in store.logs() {
        let Some(number) = LOGS.iter().position(|name| *name == information.name) else {
            assert!(
                information.name == "new",
                "a log that nobody made: {:?}",
                information.name
            );
            continue;
        };
        let wanted = &golden.logs[number];
        assert!(
            information.end.get() <= wanted.len() as u64,
            "more messages than were appended"
        );
        let Ok(log) = store.log(LOGS[number]) else {
            continue;
        };
        let mut next = log.start().get();
        while next < information.end.get() {
            let Ok(mut cursor) = log.cursor(next) else { break };
            loop {
                match cursor.next() {
                    Ok(Some(message)) => {
                        let offset = message.offset().get() as usize;
                        assert!(
                            message.offset().get() == next,
                            "offsets that do not follow each other"
                        );
                        assert!(
                            message.value() == wanted[offset],
                            "wrong bytes in log {number} at {offset}"
                        );
                        next += 1;
                    }
                    Ok(None) => {
                        next = u64::MAX;
                        break;
                    }
                    Err(_) => {
                        next += 1;
                        break;
                    }
                }
            }
        }
    }
}
