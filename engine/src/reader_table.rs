//! The words of the table of readers, and in which order they are told and looked at.
//!
//! Words 0 to 7 belong to the writer. Each reader has a slot: its lock, which the kernel frees when the process is gone,
//! and two words, its process number and the version that it reads. Nothing here is durable, and nothing of it is
//! needed for correctness: a reader that cannot reach the table looks at the files instead.
//!
//! Invariants:
//! - a slot has one holder at a time;
//! - a process and a version that are listed together were told together by one holder, though a holder that was killed
//!   leaves its words behind;
//! - whoever sees a version told by the writer sees the files as they were when it was told, or newer.

use std::sync::Arc;

use lanterman_format::ids::{Sequence, Version};
use lanterman_format::weakened;

use crate::disk::{SharedTable, SlotLock};

/// The newest version that the writer has written.
const PUBLISHED_VERSION: usize = 0;
/// The sequence number of the newest root slot.
const ROOT_SEQUENCE: usize = 1;
/// Where the slots begin.
const FIRST_SLOT_WORD: usize = 8;
const SLOT_WORDS: usize = 2;
/// Readers at a time; more read unseen.
#[cfg(not(all(loom, test)))]
const SLOTS: u32 = 124;
#[cfg(all(loom, test))]
const SLOTS: u32 = 2;
/// Size of the table: one page.
pub(crate) const READERS_WORDS: usize = 512;
/// How often one slot is looked at while its holders come and go.
#[cfg(not(all(loom, test)))]
const LOOKS_MAX: u32 = 8;
#[cfg(all(loom, test))]
const LOOKS_MAX: u32 = 1;

/// A process that reads the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReaderView {
    /// Number of its slot.
    pub slot: u32,
    /// Its process number; 0 while it comes or goes.
    pub process: u64,
    /// The version of the checkpoint that it stands on: nothing that is newer is given back; 0 while it comes or goes.
    pub version: Version,
}

/// The table, as the writer and readers use it.
#[derive(Debug, Clone)]
pub(crate) struct ReaderTable {
    table: Arc<dyn SharedTable>,
}

/// A reader's place in the table, until it is dropped or the process is gone.
#[derive(Debug)]
pub(crate) struct ReaderSlot {
    table: Arc<dyn SharedTable>,
    slot: u32,
    /// Let go of last, behind what `drop` tells.
    _lock: Box<dyn SlotLock>,
}

fn process_word(slot: u32) -> usize {
    FIRST_SLOT_WORD.saturating_add((slot as usize).saturating_mul(SLOT_WORDS))
}

fn version_word(slot: u32) -> usize {
    process_word(slot).saturating_add(1)
}

impl ReaderTable {
    pub(crate) fn new(table: Arc<dyn SharedTable>) -> Self {
        ReaderTable { table }
    }

    /// Tells readers the newest version, after it was written.
    pub(crate) fn tell_version(&self, version: Version) {
        self.table.store(PUBLISHED_VERSION, version.get());
    }

    /// Tells readers the newest root slot, after it was written.
    pub(crate) fn tell_root(&self, sequence: Sequence) {
        self.table.store(ROOT_SEQUENCE, sequence.get());
    }

    /// The newest version that the writer told; `None` where it never did.
    pub(crate) fn told_version(&self) -> Option<Version> {
        let version = self.table.load(PUBLISHED_VERSION)?;
        (version != 0).then_some(Version::new(version))
    }

    /// Takes a slot for `process`, which reads `version`; `None` when all are taken.
    pub(crate) fn enter(&self, process: u64, version: Version) -> Option<ReaderSlot> {
        let taken = |slot| {
            self.table
                .try_lock_slot(slot)
                .ok()
                .flatten()
                .map(|lock| (slot, lock))
        };
        let (slot, lock) = (0..SLOTS).find_map(taken)?;
        // The holder before may have been killed. Its words go first, and the process is told last, so that nobody
        // takes the words of two holders for one.
        if !weakened!("reader-words-left") {
            self.table.store(process_word(slot), 0);
        }
        if weakened!("reader-process-first") {
            self.table.store(process_word(slot), process);
        }
        self.table.store(version_word(slot), version.get());
        self.table.store(process_word(slot), process);
        Some(ReaderSlot {
            table: Arc::clone(&self.table),
            slot,
            _lock: lock,
        })
    }

    /// The processes that stand in the table now.
    ///
    /// # Errors
    /// The system's refusal to say who holds a lock.
    pub(crate) fn list(&self) -> std::io::Result<Vec<ReaderView>> {
        let mut found = Vec::new();
        for slot in 0..SLOTS {
            if self.table.slot_is_locked(slot)? {
                found.push(self.look(slot));
            }
        }
        Ok(found)
    }

    fn look(&self, slot: u32) -> ReaderView {
        let word = |index| self.table.load(index).unwrap_or(0);
        for _ in 0..LOOKS_MAX {
            let process = word(process_word(slot));
            let version = word(version_word(slot));
            let same = word(process_word(slot)) == process || weakened!("reader-looked-at-once");
            if same && process != 0 {
                return ReaderView {
                    slot,
                    process,
                    version: Version::new(version),
                };
            }
        }
        ReaderView {
            slot,
            process: 0,
            version: Version::new(0),
        }
    }
}

impl ReaderSlot {
    /// Tells which version is read now.
    pub(crate) fn tell(&self, version: Version) {
        self.table.store(version_word(self.slot), version.get());
    }
}

impl Drop for ReaderSlot {
    fn drop(&mut self) {
        self.table.store(process_word(self.slot), 0);
    }
}
