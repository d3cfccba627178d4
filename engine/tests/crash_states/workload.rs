//! The runs whose crashes are tried. A new kind of work (forks, collection, compaction) is one more [`Workload`], and what it promises is a matter of its [`Oracle`].

use std::sync::Arc;
use std::time::Duration;

use lanterman::disk::{Disk, RecordingDisk};
use lanterman::{Background, Clock, Durability, Options, Randomness, Store};

use crate::check::open;
use crate::history::{History, Oracle};

/// A run that is recorded, and whose crashes are tried.
pub trait Workload: Sync {
    /// Its name, which also names it to `LANTERMAN_CRASH_STATE`.
    fn name(&self) -> &'static str;

    /// How its store is opened, at first and after each crash.
    fn options(&self) -> Options {
        small()
    }

    /// Works on the disk until it has done enough, and says what was acknowledged when.
    fn run(&self, disk: &Arc<RecordingDisk>) -> Box<dyn Oracle>;

    /// How many states there are for each of which the recovery is crashed too.
    fn states_per_recovery(&self) -> u64 {
        100
    }

    /// Bytes of slabs and of the catalog that opening may read beside the journal.
    fn unsealed_read_bytes(&self) -> u64 {
        64 << 10
    }
}

/// A clock that stands still: the same work writes the same bytes, so that a state can be made again.
#[derive(Debug)]
struct Still;

impl Clock for Still {
    fn wall_ms(&self) -> i64 {
        1_700_000_000_000
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
}

impl Randomness for Still {
    fn identity(&self) -> std::io::Result<[u8; 16]> {
        Ok(*b"crash states 1.0")
    }
}

/// Limits so small that growing, sealing, rolling and recycling happen within a few hundred changes.
pub fn small() -> Options {
    Options::new()
        .background(Background::Manual)
        .clock(Arc::new(Still))
        .randomness(Arc::new(Still))
        .slab_bytes_max(64 << 10)
        .tail_memory_bytes(1 << 20)
        .journal_bytes_max(64 << 10)
        .slab_segment_bytes(64 << 10, 128 << 10)
        .journal_segment_bytes(64 << 10, 64 << 10)
}

/// A store on the disk, and the notes of what happens in it.
fn begin(
    workload: &dyn Workload,
    disk: &Arc<RecordingDisk>,
    value_bytes: fn(u64) -> usize,
) -> (History, Store) {
    let history = History::new(Arc::clone(disk), value_bytes);
    let store = reopen(workload, disk);
    (history, store)
}

pub fn reopen(workload: &dyn Workload, disk: &Arc<RecordingDisk>) -> Store {
    let disk: Arc<dyn Disk> = Arc::<RecordingDisk>::clone(disk);
    open(&workload.options(), disk).unwrap()
}

/// The end of a workload, without a last checkpoint: what its store does when it is dropped belongs to nobody.
fn end(history: History, store: Store) -> Box<dyn Oracle> {
    std::mem::forget(store);
    Box::new(history)
}

fn log_name(number: u64) -> String {
    format!("log-{number}")
}

/// Level of the n-th commit: mostly durable, with some between that are not.
fn level(number: u64) -> Durability {
    if number % 3 == 1 {
        Durability::Process
    } else {
        Durability::Disk
    }
}

/// Appends to two logs, commits of both levels, and messages that nobody commits.
pub struct Append;

impl Workload for Append {
    fn name(&self) -> &'static str {
        "append"
    }

    /// Only a crash behind a recovery that gave an attempt up leaves blocks that must not be taken for the journal's.
    fn states_per_recovery(&self) -> u64 {
        20
    }

    fn run(&self, disk: &Arc<RecordingDisk>) -> Box<dyn Oracle> {
        let (history, store) = begin(self, disk, |offset| 8 + offset as usize * 37 % 700);
        for round in 0..120 {
            let mut writer = store.writer(&log_name(round % 2)).unwrap();
            history.append(&mut writer, 1 + round * 7 % 11);
            if round % 5 != 4 {
                history.commit(&mut writer, level(round));
            }
        }
        end(history, store)
    }
}

/// Commits of many logs that share a block.
pub struct Groups;

impl Workload for Groups {
    fn name(&self) -> &'static str {
        "groups"
    }

    fn run(&self, disk: &Arc<RecordingDisk>) -> Box<dyn Oracle> {
        let (history, store) = begin(self, disk, |offset| 8 + offset as usize * 53 % 300);
        for round in 0..110 {
            let mut logs = Vec::new();
            for number in 0..16 {
                if (number + round) % 4 == 0 {
                    continue;
                }
                let mut writer = store.writer(&log_name(number)).unwrap();
                history.append(&mut writer, 1 + (round + number) % 3);
                logs.push((log_name(number), writer.next_offset().get()));
            }
            let level = level(round);
            let version = store.commit_all(level).unwrap();
            for (log, end) in logs {
                history.acknowledge(&log, end, level, Some(version));
            }
            if round % 40 == 39 {
                store.checkpoint().unwrap();
            }
        }
        end(history, store)
    }
}

/// Several threads that commit at the same time, each over logs of its own.
pub struct Threads;

impl Workload for Threads {
    fn name(&self) -> &'static str {
        "threads"
    }

    fn run(&self, disk: &Arc<RecordingDisk>) -> Box<dyn Oracle> {
        let (history, store) = begin(self, disk, |offset| 8 + offset as usize * 29 % 500);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (history, store) = (&history, &store);
                scope.spawn(move || {
                    for round in 0..60 {
                        let log = log_name(thread * 8 + round % 5);
                        let mut writer = store.writer(&log).unwrap();
                        history.append(&mut writer, 1 + round % 4);
                        let end = writer.next_offset().get();
                        let level = level(round);
                        writer.commit(level).unwrap();
                        history.acknowledge(&log, end, level, None);
                    }
                });
            }
        });
        end(history, store)
    }
}

/// Transactions over many logs, among them logs that the transaction creates.
pub struct Transactions;

impl Workload for Transactions {
    fn name(&self) -> &'static str {
        "transactions"
    }

    fn run(&self, disk: &Arc<RecordingDisk>) -> Box<dyn Oracle> {
        let (history, store) = begin(self, disk, |offset| 8 + offset as usize * 41 % 900);
        for round in 0..110u64 {
            let names: Vec<String> = (0..2 + round % 7)
                .map(|part| log_name((round + part * 3) % 14))
                .collect();
            let parts: Vec<(&str, u64)> = names
                .iter()
                .zip(0..)
                .map(|(name, part)| (name.as_str(), 1 + (round + part) % 3))
                .collect();
            history.transaction(&store, &parts, level(round));
            if round % 4 == 3 {
                let mut writer = store.writer("beside").unwrap();
                history.append(&mut writer, 3);
                history.commit(&mut writer, Durability::Disk);
            }
            if round % 37 == 36 {
                store.checkpoint().unwrap();
            }
        }
        end(history, store)
    }
}

/// Journal and slabs that fill segment after segment, checkpoints that free them, and files that live again.
pub struct Rolling;

impl Workload for Rolling {
    fn name(&self) -> &'static str {
        "rolling"
    }

    fn run(&self, disk: &Arc<RecordingDisk>) -> Box<dyn Oracle> {
        let (history, store) = begin(self, disk, |offset| 2_000 + offset as usize * 977 % 12_000);
        for round in 0..70 {
            let mut writer = store.writer(&log_name(round % 3)).unwrap();
            history.append(&mut writer, 1 + round % 3);
            history.commit(&mut writer, level(round));
            while store.step().unwrap() {}
        }
        end(history, store)
    }
}

/// Checkpoints: of many small tails in one block, of many pages of the catalog, and where a new segment begins within.
pub struct Checkpoints;

impl Workload for Checkpoints {
    fn name(&self) -> &'static str {
        "checkpoints"
    }

    fn run(&self, disk: &Arc<RecordingDisk>) -> Box<dyn Oracle> {
        let (history, store) = begin(self, disk, |offset| 8 + offset as usize * 211 % 1_500);
        for round in 0..24 {
            for part in 0..6 {
                let mut writer = store.writer(&log_name((round * 5 + part * 17) % 150)).unwrap();
                history.append(&mut writer, 1 + (round + part) % 5);
                history.commit(&mut writer, level(round + part));
            }
            store.checkpoint().unwrap();
        }
        end(history, store)
    }
}

/// Logs that are created, alone, by a first commit, and while others are written.
pub struct Creation;

impl Workload for Creation {
    fn name(&self) -> &'static str {
        "creation"
    }

    fn run(&self, disk: &Arc<RecordingDisk>) -> Box<dyn Oracle> {
        let (history, store) = begin(self, disk, |offset| 8 + offset as usize * 37 % 200);
        for round in 0..100 {
            history.create(&store, &format!("empty-{round}"));
            let mut writer = store.writer(&log_name(round)).unwrap();
            history.append(&mut writer, 1);
            history.commit(&mut writer, level(round));
            drop(writer);
            let mut writer = store.writer(&log_name(round / 2)).unwrap();
            history.append(&mut writer, 2);
            history.commit(&mut writer, level(round + 1));
            if round % 33 == 32 {
                store.checkpoint().unwrap();
            }
        }
        end(history, store)
    }
}

/// A store that is opened and closed again and again, with little between.
pub struct Opening;

impl Workload for Opening {
    fn name(&self) -> &'static str {
        "opening"
    }

    fn run(&self, disk: &Arc<RecordingDisk>) -> Box<dyn Oracle> {
        let (history, mut store) = begin(self, disk, |offset| 8 + offset as usize * 97 % 3_000);
        for round in 0..16 {
            history.all_durable(&store);
            for part in 0..round % 4 {
                let mut writer = store.writer(&log_name(part)).unwrap();
                history.append(&mut writer, 1 + (round + part) % 6);
                history.commit(&mut writer, level(round + part));
                history.append(&mut writer, part);
            }
            let ends: Vec<_> = store
                .logs()
                .into_iter()
                .map(|log| (log.name, log.end.get()))
                .collect();
            store.close().unwrap();
            for (log, end) in ends {
                history.acknowledge(&log, end, Durability::Disk, None);
            }
            store = reopen(self, disk);
        }
        end(history, store)
    }
}

/// Deletions of what stands in slabs, in memory and in both, retention, and transactions that delete and append, while
/// chunks are sealed, checkpoints made and segments rolled.
pub struct Deletion;

impl Deletion {
    /// Deletes something of a log that ends at `end`; mostly what the rounds before have left.
    fn delete(history: &History, store: &Store, log: u64, round: u64, end: u64) {
        let name = log_name(log);
        let name = name.as_str();
        let other = log_name((log + 1) % 3);
        let newest = end - 1;
        // So that each deletes something: whoever looks counts them by what is missing.
        let shown = |from| history.next_shown(name, from);
        match round % 7 {
            // In memory; more of the same message's neighbours; the end itself.
            0 => history.delete(store, name, newest - 3..newest),
            1 => history.delete(store, name, newest..end),
            // What stands in slabs by now, or in the tail that a checkpoint wrote.
            2 => {
                let first = shown(end - end / 3);
                history.delete(store, name, first..(first + 7).min(end));
            }
            // Both, whole slabs among them.
            3 => history.delete(store, name, end / 2 + end / 3..end - 2),
            4 => {
                let old = shown(end / 4 + 2);
                let deletions = [(name, newest - 1..end), (name, old..old + 3)];
                let level = level(round / 7);
                history.transaction_with_deletions(store, &[(&other, 2), (name, 1)], &deletions, level);
            }
            5 => history.retain(store, name, shown(end / 4) + 1),
            _ => {
                let old = history.next_shown(&other, 0);
                let deletions = [(name, newest - 2..end), (other.as_str(), old..old + 1)];
                history.transaction_with_deletions(store, &[("done", 1)], &deletions, level(round / 7 + 1));
            }
        }
    }
}

impl Workload for Deletion {
    fn name(&self) -> &'static str {
        "deletion"
    }

    fn run(&self, disk: &Arc<RecordingDisk>) -> Box<dyn Oracle> {
        let (history, store) = begin(self, disk, |offset| 8 + offset as usize * 977 % 2_900);
        for log in 0..3 {
            let mut writer = store.writer(&log_name(log)).unwrap();
            history.append(&mut writer, 12);
            history.commit(&mut writer, Durability::Disk);
        }
        for round in 0..70 {
            let log = round % 3;
            let mut writer = store.writer(&log_name(log)).unwrap();
            history.append(&mut writer, 5 + round * 7 % 11);
            if round % 5 != 4 {
                history.commit(&mut writer, level(round));
            }
            let end = writer.next_offset().get();
            drop(writer);
            Self::delete(&history, &store, log, round, end);
            if round % 3 == 2 {
                while store.step().unwrap() {}
            }
            if round % 16 == 9 {
                store.checkpoint().unwrap();
                // Nothing but a deletion between two checkpoints: that alone makes a log a changed one.
                let old = history.next_shown(&log_name(log), 0);
                history.delete(&store, &log_name(log), old..old + 2);
                store.checkpoint().unwrap();
            }
        }
        end(history, store)
    }
}

/// Messages so large that they are slabs by themselves, which blocks only adopt; and slabs that were written before
/// their messages were committed.
pub struct Slabs;

impl Workload for Slabs {
    fn name(&self) -> &'static str {
        "slabs"
    }

    fn options(&self) -> Options {
        small()
            .slab_segment_bytes(512 << 10, 1 << 20)
            .tail_memory_bytes(4 << 20)
    }

    fn run(&self, disk: &Arc<RecordingDisk>) -> Box<dyn Oracle> {
        let (history, store) = begin(self, disk, |offset| if offset % 9 == 1 { 264_000 } else { 3_000 });
        for round in 0..40 {
            let mut writer = store.writer(&log_name(round % 2)).unwrap();
            history.append(&mut writer, 2);
            history.commit(&mut writer, level(round));
            if round % 4 == 3 {
                let mut writer = store.writer("small").unwrap();
                history.append(&mut writer, 1);
                history.commit(&mut writer, Durability::Disk);
            }
            if round % 16 == 15 {
                store.checkpoint().unwrap();
            }
        }
        // A commit that refers to a slab while another one is on its way, and then one that refers to that.
        for turn in 0..4 {
            let mut first = store.writer(&log_name(turn % 2)).unwrap();
            let mut second = store.writer(&log_name(1 - turn % 2)).unwrap();
            history.append(&mut first, 11);
            history.append(&mut second, 11);
            store.step().unwrap();
            store.step().unwrap();
            history.commit(&mut first, Durability::Disk);
            while store.step().unwrap() {}
            history.commit(&mut second, Durability::Disk);
        }
        end(history, store)
    }

    fn unsealed_read_bytes(&self) -> u64 {
        // A slab that is not known to be durable is read to see whether it is whole.
        32 << 20
    }
}
