//! What a workload did and what was acknowledged to it: the oracle that says which stores a crash may leave.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use lanterman::disk::RecordingDisk;
use lanterman::{Durability, Store, Version, Writer};

/// How many messages each log of a store has, by name.
pub type Ends = BTreeMap<String, u64>;

/// Which messages a store may hold after it was opened and written again: messages from an offset on belong to a later
/// life, and those of an earlier one, which recovery cut off, must never come back in their place.
#[derive(Clone, Debug, Default)]
pub struct Lives {
    /// Where the life after the first begins, life by life; a log that is missing begins at 0.
    begins: Vec<Ends>,
}

impl Lives {
    /// The same with one life more, which begins where `ends` stand.
    pub fn and(&self, ends: &Ends) -> Self {
        let mut begins = self.begins.clone();
        begins.push(ends.clone());
        Self { begins }
    }

    /// The number of the life that is lived now.
    pub fn newest(&self) -> u64 {
        self.begins.len() as u64
    }

    fn of(&self, log: &str, offset: u64) -> u64 {
        let begun = |ends: &&Ends| ends.get(log).copied().unwrap_or(0) <= offset;
        let position = self.begins.iter().rposition(|ends| begun(&ends));
        position.map_or(0, |life| life as u64 + 1)
    }
}

/// What a crash may leave, and what it may not. Later kinds of work (deletion, forks, collection) bring oracles of their
/// own, or add to [`History`].
pub trait Oracle: Sync {
    /// Reads the whole store: every message must be the one that was appended at its offset. What is wrong whenever the
    /// crash was comes back as an error.
    fn look(&self, store: &Store, lives: &Lives) -> Result<Ends, String>;

    /// Whether a store that holds this keeps what was acknowledged when the disk had seen so many changes, at this level
    /// or a stronger one.
    fn judge(&self, found: &Ends, changes: usize, level: Durability) -> Result<(), String>;

    /// Writes new messages of the newest of `lives`, durably, as if nothing had been; gives what the store then holds.
    fn go_on(&self, store: &Store, found: &Ends, lives: &Lives) -> Result<Ends, String>;
}

/// An acknowledgement.
#[derive(Debug)]
struct Note {
    /// How many changes the disk had seen.
    changes: usize,
    level: Durability,
    log: String,
    end: u64,
}

#[derive(Debug, Default)]
struct Notes {
    acknowledged: Vec<Note>,
    /// Of each transaction, the ranges of its logs.
    transactions: Vec<BTreeMap<String, std::ops::Range<u64>>>,
    /// Logs with what was committed of them at the level of the process, and the version that has it.
    volatile: Vec<(Version, String, u64)>,
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
        let mut notes = self.notes.lock().unwrap();
        let changes = self.disk.operation_count();
        let mut note = |log: String, end, level| {
            notes.acknowledged.push(Note {
                changes,
                level,
                log,
                end,
            });
        };
        note(log.to_owned(), end, level);
        let Some(version) = version else { return };
        if level == Durability::Process {
            notes.volatile.push((version, log.to_owned(), end));
            return;
        }
        // Versions become durable in their order. A commit that found nothing to write names a version that others
        // wrote, which need not be durable.
        let written = notes.volatile.last().is_some_and(|(last, _, _)| version > *last);
        if written {
            for (_, log, end) in std::mem::take(&mut notes.volatile) {
                notes.acknowledged.push(Note {
                    changes,
                    level,
                    log,
                    end,
                });
            }
        }
    }

    pub fn create(&self, store: &Store, log: &str) {
        store.create_log(log).unwrap();
        self.acknowledge(log, 0, Durability::Disk, None);
    }

    /// Appends so many messages to each of the logs, all or nothing.
    pub fn transaction(&self, store: &Store, logs: &[(&str, u64)], level: Durability) {
        let ends: Ends = store
            .logs()
            .into_iter()
            .map(|log| (log.name, log.end.get()))
            .collect();
        let receipt = store
            .transaction(|transaction| {
                transaction.durability(level);
                for (log, count) in logs {
                    let end = ends.get(*log).copied().unwrap_or(0);
                    for offset in end..end + count {
                        transaction.append(log, &self.value(log, offset, 0))?;
                    }
                }
                Ok(())
            })
            .unwrap();
        let parts = receipt
            .offsets
            .iter()
            .map(|(log, range)| (log.clone(), range.clone()))
            .collect();
        for (log, range) in &receipt.offsets {
            self.acknowledge(log, range.end, level, Some(receipt.version));
        }
        self.notes.lock().unwrap().transactions.push(parts);
    }

    /// Everything that was committed is durable: a store that closed, or opened.
    pub fn all_durable(&self, store: &Store) {
        for log in store.logs() {
            self.acknowledge(&log.name, log.durable_end.get(), Durability::Disk, None);
        }
    }
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

impl Oracle for History {
    fn look(&self, store: &Store, lives: &Lives) -> Result<Ends, String> {
        let mut ends = Ends::new();
        for listed in store.logs() {
            let name = listed.name;
            let end = listed.end.get();
            let failed = |error: lanterman::Error| format!("reading {name}: {error}");
            let mut cursor = store
                .log(&name)
                .and_then(|log| log.cursor(0u64))
                .map_err(failed)?;
            for offset in 0..end {
                let message = cursor.next().map_err(failed)?;
                let message = message.ok_or_else(|| format!("{name} ends at {offset} and not at {end}"))?;
                let life = lives.of(&name, offset);
                let value = message.value();
                let rest = value.get(8..).unwrap_or_default();
                if message.offset().get() != offset
                    || value.get(..8) != Some(&head(&name, offset, life))
                    || value.len() != (self.value_bytes)(offset).max(8)
                    || rest != vec![fill(offset); rest.len()]
                {
                    return Err(format!("another message at {offset} of {name}, in life {life}"));
                }
            }
            if cursor.next().map_err(failed)?.is_some() {
                return Err(format!("a message of {name} behind its end"));
            }
            ends.insert(name, end);
        }
        Ok(ends)
    }

    fn judge(&self, found: &Ends, changes: usize, level: Durability) -> Result<(), String> {
        let notes = self.notes.lock().unwrap();
        let end_of = |log: &String| found.get(log).copied();
        for note in &notes.acknowledged {
            let promised = note.changes <= changes && note.level >= level;
            if promised && end_of(&note.log).is_none_or(|end| end < note.end) {
                return Err(format!(
                    "{} has {:?} of {} messages that were acknowledged at {:?} after {} changes",
                    note.log,
                    end_of(&note.log),
                    note.end,
                    note.level,
                    note.changes
                ));
            }
        }
        for parts in &notes.transactions {
            let has = |(log, range): (&String, &std::ops::Range<u64>)| end_of(log).unwrap_or(0) >= range.end;
            let present = parts.iter().filter(|part| has(*part)).count();
            let begun = parts
                .iter()
                .any(|(log, range)| (range.start + 1..range.end).contains(&end_of(log).unwrap_or(0)));
            if begun || (present != 0 && present != parts.len()) {
                return Err(format!("a part of a transaction: {parts:?}, found {found:?}"));
            }
        }
        Ok(())
    }

    fn go_on(&self, store: &Store, found: &Ends, lives: &Lives) -> Result<Ends, String> {
        let failed = |error: lanterman::Error| format!("going on: {error}");
        let life = lives.newest();
        let mut ends = found.clone();
        let after = "after";
        let log = found.keys().find(|name| *name != after);
        let log = log.map_or("first", |name| name.as_str());
        let mut writer = store.writer(log).map_err(failed)?;
        for _ in 0..2 {
            let end = ends.entry(log.to_owned()).or_insert(0);
            let offset = writer.append(&self.value(log, *end, life)).map_err(failed)?;
            if offset.get() != *end {
                return Err(format!("{log} goes on at {offset} and not at {end}"));
            }
            *end += 1;
        }
        writer.commit(Durability::Disk).map_err(failed)?;
        drop(writer);
        let (here, there) = (
            ends.get(log).copied().unwrap_or(0),
            ends.get(after).copied().unwrap_or(0),
        );
        store
            .transaction(|transaction| {
                transaction.append(log, &self.value(log, here, life))?;
                transaction.append(after, &self.value(after, there, life))
            })
            .map_err(failed)?;
        ends.insert(log.to_owned(), here + 1);
        ends.insert(after.to_owned(), there + 1);
        Ok(ends)
    }
}
