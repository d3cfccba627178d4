//! What a workload did and what was acknowledged to it: the oracle that says which stores a crash may leave.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use lanterman::disk::RecordingDisk;
use lanterman::{Durability, Retention, Store, Version, Writer};

use crate::edits::{AFTER, Edits, check_deleted, recovery_edits, recovery_log};

/// How many messages each log of a store has, by name, deleted ones among them.
pub type Ends = BTreeMap<String, u64>;

/// What a store holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    pub ends: Ends,
    /// How many edits of each log were done.
    pub edits: Ends,
}

fn at_most(found: &Ends, most: &Ends) -> Ends {
    let both = most.iter().filter_map(|(log, most)| {
        let found = found.get(log)?;
        Some((log.clone(), *found.min(most)))
    });
    both.collect()
}

impl Found {
    /// The part of it that `other` holds too.
    pub fn at_most(&self, other: &Found) -> Found {
        Found {
            ends: at_most(&self.ends, &other.ends),
            edits: at_most(&self.edits, &other.edits),
        }
    }

    /// Says which log has less than `promised`.
    pub fn check_has(&self, promised: &Found) -> Result<(), String> {
        let kinds = [
            ("messages", &self.ends, &promised.ends),
            ("edits", &self.edits, &promised.edits),
        ];
        for (kind, found, promised) in kinds {
            let less = |(log, wanted): &(&String, &u64)| found.get(*log).is_none_or(|found| found < *wanted);
            if let Some((log, wanted)) = promised.iter().find(less) {
                return Err(format!("{log} had {wanted} {kind}, and now {:?}", found.get(log)));
            }
        }
        Ok(())
    }
}

/// Which messages a store may hold after it was opened and written again: messages from an offset on belong to a later
/// life, and those of an earlier one, which recovery cut off, must never come back in their place.
#[derive(Clone, Debug, Default)]
pub struct Lives {
    /// Where the life after the first begins, life by life; a log that is missing begins at 0.
    begins: Vec<Found>,
}

impl Lives {
    /// The same with one life more, which begins with what was `found`.
    pub fn and(&self, found: &Found) -> Self {
        let mut begins = self.begins.clone();
        begins.push(found.clone());
        Self { begins }
    }

    /// What the lives after the first began with.
    pub fn begins(&self) -> &[Found] {
        &self.begins
    }

    /// The number of the life that is lived now.
    pub fn newest(&self) -> u64 {
        self.begins.len() as u64
    }

    /// The life that a message of a log is of.
    pub fn of(&self, log: &str, offset: u64) -> u64 {
        let begun = |begin: &&Found| begin.ends.get(log).copied().unwrap_or(0) <= offset;
        let position = self.begins.iter().rposition(|begin| begun(&begin));
        position.map_or(0, |life| life as u64 + 1)
    }
}

/// What a crash may leave, and what it may not. Later kinds of work (forks, collection) bring oracles of their own, or add
/// to [`History`].
pub trait Oracle: Sync {
    /// Reads the whole store: every message must be the one that was appended at its offset, and those and no others must
    /// be missing that the first so many edits deleted. What is wrong whenever the crash was comes back as an error.
    fn look(&self, store: &Store, lives: &Lives) -> Result<Found, String>;

    /// Whether a store that holds this keeps what was acknowledged when the disk had seen so many changes, at this level
    /// or a stronger one.
    fn judge(&self, found: &Found, changes: usize, level: Durability) -> Result<(), String>;

    /// Writes new messages of the newest of `lives`, durably, as if nothing had been; gives what the store then holds.
    fn go_on(&self, store: &Store, found: &Found, lives: &Lives) -> Result<Found, String>;
}

/// An acknowledgement.
#[derive(Debug)]
struct Note {
    /// How many changes the disk had seen.
    changes: usize,
    level: Durability,
    log: String,
    end: u64,
    /// How many edits of the log; 0 where messages alone were acknowledged.
    edits: u64,
}

/// What a transaction did: all of it is found, or nothing.
#[derive(Debug)]
struct Whole {
    appended: BTreeMap<String, Range<u64>>,
    /// Numbers of its edits, from 1, log by log.
    edits: Vec<(String, u64)>,
}

#[derive(Debug, Default)]
struct Notes {
    acknowledged: Vec<Note>,
    transactions: Vec<Whole>,
    /// Logs with what was committed of them at the level of the process, and the version that has it.
    volatile: Vec<(Version, String, u64, u64)>,
    edits: Edits,
}

/// Notes taken while a workload runs.
#[derive(Debug)]
pub struct History {
    disk: Arc<RecordingDisk>,
    value_bytes: fn(u64) -> usize,
    notes: Mutex<Notes>,
}

impl History {
    /// The length of the value at an offset is what `value_bytes` says.
    pub fn new(disk: Arc<RecordingDisk>, value_bytes: fn(u64) -> usize) -> Self {
        Self {
            disk,
            value_bytes,
            notes: Mutex::default(),
        }
    }

    fn value(&self, log: &str, offset: u64, life: u64) -> Vec<u8> {
        let mut value = head(log, offset, life).to_vec();
        value.resize((self.value_bytes)(offset).max(8), fill(offset));
        value
    }

    /// Appends the next messages of a log.
    pub fn append(&self, writer: &mut Writer, count: u64) {
        for _ in 0..count {
            let offset = writer.next_offset().get();
            let value = self.value(writer.name(), offset, 0);
            assert_eq!(writer.append(&value).unwrap().get(), offset);
        }
    }

    /// Commits, and notes what was acknowledged.
    pub fn commit(&self, writer: &mut Writer, level: Durability) {
        let end = writer.next_offset().get();
        let version = writer.commit(level).unwrap();
        self.acknowledge(writer.name(), end, level, Some(version));
    }

    /// Notes that everything of `log` below `end` was acknowledged; with a version that was written for it, everything
    /// in older versions too.
    pub fn acknowledge(&self, log: &str, end: u64, level: Durability, version: Option<Version>) {
        self.acknowledge_edits(log, end, 0, level, version);
    }

    /// The same with so many edits of the log.
    fn acknowledge_edits(
        &self,
        log: &str,
        end: u64,
        edits: u64,
        level: Durability,
        version: Option<Version>,
    ) {
        let mut notes = self.notes.lock().unwrap();
        let changes = self.disk.operation_count();
        notes.acknowledged.push(Note {
            changes,
            level,
            log: log.to_owned(),
            end,
            edits,
        });
        let Some(version) = version else { return };
        if level == Durability::Process {
            notes.volatile.push((version, log.to_owned(), end, edits));
            return;
        }
        // Versions become durable in their order. A commit that found nothing to write names a version that others
        // wrote, which need not be durable.
        let written = notes.volatile.last().is_some_and(|(last, ..)| version > *last);
        if written {
            for (_, log, end, edits) in std::mem::take(&mut notes.volatile) {
                notes.acknowledged.push(Note {
                    changes,
                    level,
                    log,
                    end,
                    edits,
                });
            }
        }
    }

    /// The first offset of a log from `from` on that no edit deletes yet.
    pub fn next_shown(&self, log: &str, from: u64) -> u64 {
        self.notes.lock().unwrap().edits.next_shown(log, from)
    }

    /// Deletes offsets of a log, durably.
    pub fn delete(&self, store: &Store, log: &str, offsets: Range<u64>) {
        let edits = self.notes.lock().unwrap().edits.add(log, offsets.clone());
        let receipt = store.delete(log, offsets.clone()).unwrap();
        let version = Some(receipt.version);
        self.acknowledge_edits(log, offsets.end, edits, Durability::Disk, version);
    }

    /// Deletes everything of a log before an offset, durably.
    pub fn retain(&self, store: &Store, log: &str, from: u64) {
        let edits = self.notes.lock().unwrap().edits.add(log, 0..from);
        let receipt = store.retain(log, &Retention::new().from(from)).unwrap();
        let version = Some(receipt.version);
        self.acknowledge_edits(log, from, edits, Durability::Disk, version);
    }

    pub fn create(&self, store: &Store, log: &str) {
        store.create_log(log).unwrap();
        self.acknowledge(log, 0, Durability::Disk, None);
    }

    /// Appends so many messages to each of the logs, all or nothing.
    pub fn transaction(&self, store: &Store, logs: &[(&str, u64)], level: Durability) {
        self.transaction_with_deletions(store, logs, &[], level);
    }

    /// The same, and deletes offsets of logs as well.
    pub fn transaction_with_deletions(
        &self,
        store: &Store,
        logs: &[(&str, u64)],
        deletions: &[(&str, Range<u64>)],
        level: Durability,
    ) {
        let ends = ends_of(store);
        let mut notes = self.notes.lock().unwrap();
        let number = |(log, offsets): &(&str, Range<u64>)| {
            let number = notes.edits.add(log, offsets.clone());
            ((*log).to_owned(), number)
        };
        let edits: Vec<_> = deletions.iter().map(number).collect();
        drop(notes);
        let receipt = store
            .transaction(|transaction| {
                transaction.durability(level);
                for (log, offsets) in deletions {
                    transaction.delete(log, offsets.clone())?;
                }
                for (log, count) in logs {
                    let end = ends.get(*log).copied().unwrap_or(0);
                    for offset in end..end + count {
                        transaction.append(log, &self.value(log, offset, 0))?;
                    }
                }
                Ok(())
            })
            .unwrap();
        let version = Some(receipt.version);
        for (log, range) in &receipt.offsets {
            self.acknowledge(log, range.end, level, version);
        }
        for ((log, number), (_, offsets)) in edits.iter().zip(deletions) {
            self.acknowledge_edits(log, offsets.end, *number, level, version);
        }
        self.notes.lock().unwrap().transactions.push(Whole {
            appended: receipt.offsets.into_iter().collect(),
            edits,
        });
    }

    /// Everything that was committed is durable: a store that closed, or opened.
    pub fn all_durable(&self, store: &Store) {
        let edits = self.notes.lock().unwrap().edits.counts();
        for log in store.logs() {
            let edits = edits.get(&log.name).copied().unwrap_or(0);
            self.acknowledge_edits(&log.name, log.durable_end.get(), edits, Durability::Disk, None);
        }
    }
}

/// Where the logs of a store end now.
fn ends_of(store: &Store) -> Ends {
    let end = |log: lanterman::LogInformation| (log.name, log.end.get());
    store.logs().into_iter().map(end).collect()
}

/// The first bytes of a message say which it is.
fn head(log: &str, offset: u64, life: u64) -> [u8; 8] {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in log.bytes().chain(offset.to_le_bytes()).chain(life.to_le_bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash.to_le_bytes()
}

fn fill(offset: u64) -> u8 {
    offset as u8 | 1
}

impl History {
    /// Reads a log with a cursor: every message is the one that was appended there. Gives the offsets.
    fn shown(&self, store: &Store, name: &str, end: u64, lives: &Lives) -> Result<Vec<u64>, String> {
        let failed = |error: lanterman::Error| format!("reading {name}: {error}");
        let mut cursor = store.log(name).and_then(|log| log.cursor(0u64)).map_err(failed)?;
        let mut shown = Vec::new();
        while let Some(message) = cursor.next().map_err(failed)? {
            let offset = message.offset().get();
            if offset >= end || shown.last().is_some_and(|last| *last >= offset) {
                return Err(format!(
                    "{offset} of {name} comes behind {:?} of {end}",
                    shown.last()
                ));
            }
            let life = lives.of(name, offset);
            let value = message.value();
            let rest = value.get(8..).unwrap_or_default();
            if value.get(..8) != Some(&head(name, offset, life))
                || value.len() != (self.value_bytes)(offset).max(8)
                || rest != vec![fill(offset); rest.len()]
            {
                return Err(format!("another message at {offset} of {name}, in life {life}"));
            }
            shown.push(offset);
        }
        Ok(shown)
    }
}

impl Oracle for History {
    fn look(&self, store: &Store, lives: &Lives) -> Result<Found, String> {
        let edits = self.notes.lock().unwrap().edits.of(lives);
        let mut found = Found::default();
        for (name, end) in ends_of(store) {
            let shown = self.shown(store, &name, end, lives)?;
            let done = edits.done(&name, &shown, end)?;
            if done > 0 {
                check_deleted(store, &name, &shown, end)?;
                found.edits.insert(name.clone(), done);
            }
            found.ends.insert(name, end);
        }
        Ok(found)
    }

    fn judge(&self, found: &Found, changes: usize, level: Durability) -> Result<(), String> {
        let notes = self.notes.lock().unwrap();
        let end_of = |log: &String| found.ends.get(log).copied();
        let edits_of = |log: &String| found.edits.get(log).copied().unwrap_or(0);
        for note in &notes.acknowledged {
            let promised = note.changes <= changes && note.level >= level;
            let lacks =
                end_of(&note.log).is_none_or(|end| end < note.end) || edits_of(&note.log) < note.edits;
            if promised && lacks {
                return Err(format!(
                    "{} has {:?} of {} messages and {} of {} edits that were acknowledged at {:?} after {} changes",
                    note.log,
                    end_of(&note.log),
                    note.end,
                    edits_of(&note.log),
                    note.edits,
                    note.level,
                    note.changes
                ));
            }
        }
        for whole in &notes.transactions {
            let parts = &whole.appended;
            let has = |(log, range): (&String, &Range<u64>)| end_of(log).unwrap_or(0) >= range.end;
            let appended = parts.iter().filter(|part| has(*part)).count();
            let is_done = |(log, number): &&(String, u64)| edits_of(log) >= *number;
            let edited = whole.edits.iter().filter(is_done).count();
            let begun = parts
                .iter()
                .any(|(log, range)| (range.start + 1..range.end).contains(&end_of(log).unwrap_or(0)));
            let (present, all) = (appended + edited, parts.len() + whole.edits.len());
            if begun || (present != 0 && present != all) {
                return Err(format!("a part of a transaction: {whole:?}, found {found:?}"));
            }
        }
        Ok(())
    }

    fn go_on(&self, store: &Store, found: &Found, lives: &Lives) -> Result<Found, String> {
        let failed = |error: lanterman::Error| format!("going on: {error}");
        let life = lives.newest();
        let mut went_on = found.clone();
        let log = recovery_log(&found.ends);
        let [(_, first), (_, second)] = recovery_edits(&found.ends);
        let mut end = found.ends.get(log).copied().unwrap_or(0);
        let mut writer = store.writer(log).map_err(failed)?;
        for _ in 0..2 {
            let offset = writer.append(&self.value(log, end, life)).map_err(failed)?;
            if offset.get() != end {
                return Err(format!("{log} goes on at {offset} and not at {end}"));
            }
            end += 1;
        }
        writer.commit(Durability::Disk).map_err(failed)?;
        drop(writer);
        store.delete(log, first).map_err(failed)?;
        let there = found.ends.get(AFTER).copied().unwrap_or(0);
        store
            .transaction(|transaction| {
                transaction.append(log, &self.value(log, end, life))?;
                transaction.delete(log, second)?;
                transaction.append(AFTER, &self.value(AFTER, there, life))
            })
            .map_err(failed)?;
        went_on.ends.insert(log.to_owned(), end + 1);
        went_on.ends.insert(AFTER.to_owned(), there + 1);
        *went_on.edits.entry(log.to_owned()).or_insert(0) += 2;
        Ok(went_on)
    }
}
