//! Processes that have the store open for reading: how they follow its writer, who stands in the table of readers.

use std::io;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::core::Core;
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::journal::replay::Scan;
use crate::reader_table::{READERS_WORDS, ReaderSlot, ReaderTable, ReaderView};
use crate::recover::{Make, ReadPages, load_checkpoint, restore_logs};
use crate::root_file::RootFile;
use crate::store::newest_slot;
use lanterman_format::RootSlot;
use lanterman_format::ids::{Sequence, Version};

/// How often one call begins anew, while the writer makes checkpoint after checkpoint.
const JUMPS_MAX: u32 = 8;
/// What a store that is open for reading needs to follow its writer.
#[derive(Debug)]
pub(crate) struct Following {
    scan: Scan,
    sequence: Sequence,
    slot: Option<ReaderSlot>,
    /// The version of the checkpoint that it stands on, and from which pin on nobody in this process needs an older one.
    base: (Version, u64),
}

impl Core {
    /// Begins to follow the writer from where opening ended.
    pub(crate) fn follow_from(
        &self,
        scan: Scan,
        sequence: Sequence,
        base: Version,
        slot: Option<ReaderSlot>,
    ) {
        // Until now the writer was told that everything is needed.
        if let Some(slot) = &slot {
            slot.tell(base);
        }
        *self.following.lock() = Some(Following {
            scan,
            sequence,
            slot,
            base: (base, 0),
        });
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
            self.tell_base(following);
            return Ok(false);
        }
        let outcome = self.refresh_from(following);
        self.tell_base(following);
        outcome?;
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

    /// Tells the writer what is not needed any more: once nobody here reads from an older checkpoint.
    fn tell_base(&self, following: &Following) {
        let (base, first_pin) = following.base;
        if let Some(slot) = &following.slot
            && !self.pins.any_before(first_pin)
        {
            slot.tell(base);
        }
    }

    /// Begins anew at a checkpoint; logs keep their states, and whoever holds them goes on.
    fn jump(&self, following: &mut Following, slot: &RootSlot) -> Result<()> {
        following.sequence = slot.sequence;
        self.segments.forget_journals();
        let loaded = load_checkpoint(&self.segments, slot, ReadPages::All)?;
        let listing = self.segments.list(false)?;
        let scan = self.scan_from(slot, loaded.last_commit_crc, listing.journals)?;
        self.catalog.begin_anew();
        restore_logs(&self.segments, &self.catalog, &loaded.listed, Make::All)?;
        self.catalog.set_version(loaded.version);
        // Pins from before may need what only the older checkpoint has.
        following.base = (slot.version, self.pins.next());
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

/// The table of readers. A reader that cannot reach it would lose what it reads to the writer's collection; but on a file
/// system that nobody can write to there is no writer.
///
/// # Errors
/// The system's refusal, to a reader.
pub(crate) fn open_table(disk: &Arc<dyn Disk>, store: &Path, read_only: bool) -> Result<Option<ReaderTable>> {
    let path = store.join("readers");
    match disk.open_shared(&path, READERS_WORDS) {
        Ok(table) => Ok(Some(ReaderTable::new(table))),
        Err(source) if read_only && !has_no_writer(&source) => {
            Err(Error::io("enter the table of readers", &path, source))
        }
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "the table of readers cannot be opened; a writer gives nothing back");
            Ok(None)
        }
    }
}

/// Whether nobody can write to a store where opening the table fails so: the file system is for reading only, or has no such
/// tables.
fn has_no_writer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::Unsupported
    )
}

/// Takes a place in the table, which holds everything back until it is told what is needed.
///
/// # Errors
/// All places are taken.
pub(crate) fn register(table: Option<&ReaderTable>, store: &Path) -> Result<Option<ReaderSlot>> {
    let Some(table) = table else { return Ok(None) };
    let process = u64::from(std::process::id());
    match table.enter(process, Version::new(0)) {
        Some(slot) => Ok(Some(slot)),
        None => {
            let full = io::Error::other("all places are taken: close another reader first");
            Err(Error::io(
                "enter the table of readers",
                &store.join("readers"),
                full,
            ))
        }
    }
}

/// Where [`Core`] keeps what following needs.
pub(crate) type FollowingCell = Mutex<Option<Following>>;
