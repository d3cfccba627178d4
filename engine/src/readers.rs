//! The table of readers: processes that have the store open for reading, and what they and the writer tell each other.
//!
//! Words 0 to 7 belong to the writer. Each reader has a slot: its lock, which the kernel frees when the process is gone,
//! and two words, its process number and the version that it reads. Nothing here is durable, and nothing of it is
//! needed for correctness: a reader that cannot reach the table looks at the files instead.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::core::Core;
use crate::disk::{SharedTable, SlotLock};
use crate::error::{Error, Result};
use crate::journal::replay::Scan;
use crate::recover::{LostPages, load_checkpoint, restore_logs};
use crate::root_file::RootFile;
use crate::store::newest_slot;
use lanterman_format::RootSlot;
use lanterman_format::ids::{Sequence, Version};

/// The newest version that the writer has written.
pub(crate) const PUBLISHED_VERSION: usize = 0;
/// The sequence number of the newest root slot.
pub(crate) const ROOT_SEQUENCE: usize = 1;
/// Where the slots begin.
const FIRST_SLOT_WORD: usize = 8;
const SLOT_WORDS: usize = 2;
/// How often one call begins anew, while the writer makes checkpoint after checkpoint.
const JUMPS_MAX: u32 = 8;
/// Readers at a time; more read unseen.
const SLOTS: u32 = 124;
/// Size of the table: one page.
pub(crate) const READERS_WORDS: usize = 512;

/// A process that reads the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReaderView {
    /// Number of its slot.
    pub slot: u32,
    /// Its process number.
    pub process: u64,
    /// The version that it reads.
    pub version: Version,
}

/// What a store that is open for reading needs to follow its writer.
#[derive(Debug)]
pub(crate) struct Following {
    scan: Scan,
    sequence: Sequence,
    slot: Option<(u32, Box<dyn SlotLock>)>,
}

fn word_of(slot: u32) -> usize {
    FIRST_SLOT_WORD.saturating_add((slot as usize).saturating_mul(SLOT_WORDS))
}

fn take_slot(table: &Arc<dyn SharedTable>) -> Option<(u32, Box<dyn SlotLock>)> {
    for slot in 0..SLOTS {
        if let Ok(Some(lock)) = table.try_lock_slot(slot) {
            table.store(word_of(slot), u64::from(std::process::id()));
            return Some((slot, lock));
        }
    }
    None
}

impl Core {
    /// Begins to follow the writer from where opening ended.
    pub(crate) fn follow_from(&self, scan: Scan, sequence: Sequence) -> Result<()> {
        let slot = self.readers.as_ref().and_then(take_slot);
        *self.following.lock() = Some(Following { scan, sequence, slot });
        self.tell_version();
        Ok(())
    }

    fn tell_version(&self) {
        let following = self.following.lock();
        if let (Some(table), Some(following)) = (&self.readers, following.as_ref())
            && let Some((slot, _)) = &following.slot
        {
            table.store(word_of(*slot).saturating_add(1), self.catalog.version().get());
        }
    }

    /// Takes up what the writer has committed since; says whether there was anything.
    ///
    /// The writer makes checkpoints and recycles the journal meanwhile. So after the journal the root file is read
    /// again, and if it names a newer checkpoint, reading begins anew from there.
    pub(crate) fn refresh(&self) -> Result<bool> {
        let mut guard = self.following.lock();
        let Some(following) = guard.as_mut() else {
            return Ok(false);
        };
        let before = self.catalog.version();
        let hinted = self
            .readers
            .as_ref()
            .and_then(|table| table.load(PUBLISHED_VERSION));
        // The hint is of use only where it is newer: a table that nobody writes says nothing.
        if hinted.is_some_and(|version| version != 0 && version <= before.get()) {
            return Ok(false);
        }
        let outcome = self.refresh_from(following);
        drop(guard);
        outcome?;
        self.tell_version();
        Ok(self.catalog.version() > before)
    }

    fn refresh_from(&self, following: &mut Following) -> Result<()> {
        let listing = self.segments.list(false)?;
        following.scan.look_again(listing.journals);
        let mut replayed = self.replay_unbounded(&mut following.scan);
        for _ in 0..JUMPS_MAX {
            let slots = RootFile::read(self.segments.disk(), &self.path)?;
            let slot = newest_slot(&self.path, &slots)?;
            if slot.sequence == following.sequence {
                break;
            }
            // A newer checkpoint: what it holds need not be kept in memory, and the journal before it may be gone,
            // which would also explain an error.
            replayed = self.jump(following, slot);
        }
        replayed
    }

    /// Begins anew at a checkpoint; logs keep their states, and whoever holds them goes on.
    fn jump(&self, following: &mut Following, slot: &RootSlot) -> Result<()> {
        following.sequence = slot.sequence;
        self.segments.forget_journals();
        let loaded = load_checkpoint(&self.segments, slot, LostPages::Refused)?;
        let listing = self.segments.list(false)?;
        let scan = self.scan_from(slot, loaded.last_commit_crc, listing.journals)?;
        restore_logs(&self.segments, &self.catalog, &loaded)?;
        self.catalog.set_version(loaded.version);
        following.scan = scan;
        following.scan.do_not_look_for_holes();
        self.replay_unbounded(&mut following.scan)
    }

    fn replay_unbounded(&self, scan: &mut Scan) -> Result<()> {
        self.pool.set_unbounded(true);
        let outcome = self.replay(scan);
        self.pool.set_unbounded(false);
        // Nobody writes slabs here; the chunks stay in their logs' roots.
        self.incoming.clear();
        outcome.map(|_| ())
    }

    /// The processes that stand in the table now.
    pub(crate) fn list_readers(&self) -> Result<Vec<ReaderView>> {
        let Some(table) = &self.readers else {
            return Ok(Vec::new());
        };
        let mut found = Vec::new();
        for slot in 0..SLOTS {
            let path = self.path.join("readers");
            let held = table
                .slot_is_locked(slot)
                .map_err(|source| Error::io("look at", &path, source))?;
            if held {
                let word = word_of(slot);
                found.push(ReaderView {
                    slot,
                    process: table.load(word).unwrap_or(0),
                    version: Version::new(table.load(word.saturating_add(1)).unwrap_or(0)),
                });
            }
        }
        Ok(found)
    }
}

/// Where [`Core`] keeps what following needs.
pub(crate) type FollowingCell = Mutex<Option<Following>>;
