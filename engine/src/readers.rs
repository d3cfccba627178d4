//! Processes that have the store open for reading: how they follow its writer, who stands in the table of readers.

use parking_lot::Mutex;

use crate::core::Core;
use crate::error::{Error, Result};
use crate::journal::replay::Scan;
use crate::reader_table::{ReaderSlot, ReaderTable, ReaderView};
use crate::recover::{LostPages, load_checkpoint, restore_logs};
use crate::root_file::RootFile;
use crate::store::newest_slot;
use lanterman_format::RootSlot;
use lanterman_format::ids::Sequence;

/// How often one call begins anew, while the writer makes checkpoint after checkpoint.
const JUMPS_MAX: u32 = 8;
/// What a store that is open for reading needs to follow its writer.
#[derive(Debug)]
pub(crate) struct Following {
    scan: Scan,
    sequence: Sequence,
    slot: Option<ReaderSlot>,
}

impl Core {
    /// Begins to follow the writer from where opening ended.
    pub(crate) fn follow_from(&self, scan: Scan, sequence: Sequence) -> Result<()> {
        let process = u64::from(std::process::id());
        let table = self.readers.as_ref();
        let slot = table.and_then(|table| table.enter(process, self.catalog.version()));
        *self.following.lock() = Some(Following { scan, sequence, slot });
        Ok(())
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
        let hinted = self.readers.as_ref().and_then(ReaderTable::told_version);
        // The hint is of use only where it is newer: a table that nobody writes says nothing.
        if hinted.is_some_and(|version| version <= before) {
            return Ok(false);
        }
        self.refresh_from(following)?;
        if let Some(slot) = &following.slot {
            slot.tell(self.catalog.version());
        }
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
        self.catalog.begin_anew();
        restore_logs(&self.segments, &self.catalog, &loaded)?;
        self.catalog.set_version(loaded.version);
        following.scan = scan;
        following.scan.do_not_look_for_holes();
        self.replay_unbounded(&mut following.scan)?;
        self.catalog.end_anew();
        Ok(())
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
        let path = self.path.join("readers");
        table.list().map_err(|source| Error::io("look at", &path, source))
    }
}

/// Where [`Core`] keeps what following needs.
pub(crate) type FollowingCell = Mutex<Option<Following>>;
