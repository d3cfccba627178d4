//! The root file: two slots that say where the newest checkpoint is.
//!
//! Both slots are written at each checkpoint, one after the other, each synced, before anything older is given up: so
//! one slot that rots or is torn loses nothing, and a crash between the two finds the older or the newer state whole.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lanterman_format::FormatVersion;
use lanterman_format::checkpoint::Checkpoint;
use lanterman_format::error::Found;
use lanterman_format::ids::{Sequence, StoreId};
use lanterman_format::reference::Reference;
use lanterman_format::root_slot::{ROOT_SLOT_BYTES, RootSlot};
use lanterman_format::weakened;

use crate::disk::{Disk, DiskFile, OpenMode, Sync, forget_cached, read_full_at, read_full_direct_at};
use crate::error::{Error, Result};
use crate::sys::memory::AlignedBuffer;

/// The slots as found in a root file, and the file.
#[derive(Debug)]
pub(crate) struct FoundSlots {
    pub(crate) slots: [Found<RootSlot>; 2],
    path: PathBuf,
    file: Arc<dyn DiskFile>,
}

impl FoundSlots {
    /// The newest valid slot.
    pub(crate) fn newest(&self) -> Option<&RootSlot> {
        let valid = |slot: &Found<RootSlot>| matches!(slot, Found::Valid(_));
        let mut newest: Option<&RootSlot> = None;
        for slot in self.slots.iter().filter(|slot| valid(slot)) {
            if let Found::Valid(slot) = slot
                && newest
                    .is_none_or(|known| (slot.sequence > known.sequence) != weakened!("older-root-preferred"))
            {
                newest = Some(slot);
            }
        }
        newest
    }

    /// The other slot, if it is valid, of the same store, and names another checkpoint than `newest`.
    pub(crate) fn older_than(&self, newest: &RootSlot) -> Option<&RootSlot> {
        self.slots.iter().find_map(|slot| match slot {
            Found::Valid(slot) if slot.store == newest.store && slot.checkpoint != newest.checkpoint => {
                Some(slot)
            }
            _ => None,
        })
    }
}

/// The open root file of a store.
#[derive(Debug)]
pub(crate) struct RootFile {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    store: StoreId,
    sequence: u64,
}

impl RootFile {
    /// Reads both slots of the root file in `directory`.
    pub(crate) fn read(disk: &Arc<dyn Disk>, directory: &Path) -> Result<FoundSlots> {
        Self::find_slots(disk, directory, OpenMode::Read)
    }

    /// As [`Self::read`], for whoever is to write: what is found is durable, and nothing that only the page cache has
    /// since a sync failed.
    pub(crate) fn read_settled(disk: &Arc<dyn Disk>, directory: &Path) -> Result<FoundSlots> {
        Self::find_slots(disk, directory, OpenMode::ReadWrite)
    }

    fn find_slots(disk: &Arc<dyn Disk>, directory: &Path, mode: OpenMode) -> Result<FoundSlots> {
        let path = directory.join("root");
        let file = disk
            .open(&path, mode)
            .map_err(|source| Error::io("open", &path, source))?;
        let settles = mode != OpenMode::Read && !weakened!("cache-believed");
        if settles {
            file.sync_data()
                .map_err(|source| Error::failed_sync(&path, source))?;
            forget_cached(file.as_ref()).map_err(|source| Error::io("drop the cache of", &path, source))?;
        }
        let mut buffer = AlignedBuffer::new(2 * ROOT_SLOT_BYTES)
            .map_err(|source| Error::io("allocate a buffer for", &path, source))?;
        // Both at once: each read of the device is waited for. What a file lacks that is shorter stays zeros.
        if settles {
            read_full_direct_at(file.as_ref(), 0, &mut buffer)
        } else {
            read_full_at(file.as_ref(), 0, &mut buffer)
        }
        .map_err(|source| Error::io("read", &path, source))?;
        let (pages, _) = buffer.as_chunks::<ROOT_SLOT_BYTES>();
        let [first, second, ..] = pages else {
            return Err(Error::Internal {
                what: "a root slot has its page",
            });
        };
        Ok(FoundSlots {
            slots: [RootSlot::decode(first, 0), RootSlot::decode(second, 1)],
            path,
            file,
        })
    }

    /// The root file in which `found` stands, to go on behind `sequence`. To be written to only if it was
    /// [opened for that](Self::read_settled).
    pub(crate) fn behind(found: &FoundSlots, store: StoreId, sequence: Sequence) -> Self {
        RootFile {
            path: found.path.clone(),
            file: Arc::clone(&found.file),
            store,
            sequence: sequence.get(),
        }
    }

    /// Makes the root file of a new store: under another name first, so that a store is there whole or not at all.
    pub(crate) fn create(disk: &Arc<dyn Disk>, directory: &Path, first: &RootSlot) -> Result<Self> {
        let temporary = directory.join("root.new");
        let path = directory.join("root");
        if disk
            .exists(&temporary)
            .map_err(|source| Error::io("look for", &temporary, source))?
        {
            disk.unlink(&temporary)
                .map_err(|source| Error::io("remove", &temporary, source))?;
        }
        let file = disk
            .open(&temporary, OpenMode::CreateNew)
            .map_err(|source| Error::io("create", &temporary, source))?;
        file.reserve(0..2 * ROOT_SLOT_BYTES as u64)
            .map_err(|source| Error::io("reserve", &temporary, source))?;
        let mut root = RootFile {
            path: temporary.clone(),
            file,
            store: first.store,
            sequence: 0,
        };
        root.write_slot(first)?;
        root.write_slot(first)?;
        root.file
            .sync_data()
            .map_err(|source| Error::failed_sync(&temporary, source))?;
        disk.rename(&temporary, &path)
            .map_err(|source| Error::io("rename", &temporary, source))?;
        disk.sync_directory(directory)
            .map_err(|source| Error::failed_sync(directory, source))?;
        root.path = path;
        Ok(root)
    }

    /// Points both slots at a checkpoint, which must be durable; the last step makes it the newest.
    pub(crate) fn write(
        &mut self,
        reference: Reference,
        checkpoint: &Checkpoint,
        time_ms: i64,
    ) -> Result<()> {
        let slot = RootSlot {
            format: FormatVersion::CURRENT,
            store: self.store,
            sequence: Sequence::new(0),
            version: checkpoint.version,
            checkpoint: reference,
            journal_segment: checkpoint.journal_segment,
            journal_position: checkpoint.journal_position,
            next_segment: checkpoint.next_segment,
            time_ms,
        };
        self.write_slot(&slot)?;
        self.write_slot(&slot)?;
        if weakened!("root-slots-at-once") {
            return self
                .file
                .sync_data()
                .map_err(|source| Error::failed_sync(&self.path, source));
        }
        Ok(())
    }

    fn write_slot(&mut self, slot: &RootSlot) -> Result<()> {
        let sequence = self.sequence.saturating_add(1);
        let number = sequence % 2;
        let slot = RootSlot {
            sequence: Sequence::new(sequence),
            ..*slot
        };
        let mut buffer = AlignedBuffer::new(ROOT_SLOT_BYTES)
            .map_err(|source| Error::io("allocate a buffer for", &self.path, source))?;
        let number_short = u32::from(number == 1);
        let page = buffer.first_chunk_mut().ok_or(Error::Internal {
            what: "a root slot has its page",
        })?;
        slot.encode(number_short, page);
        let sync = if weakened!("root-slots-at-once") {
            Sync::No
        } else {
            Sync::Data
        };
        self.file
            .write_at(number * ROOT_SLOT_BYTES as u64, buffer.as_ref(), sync)
            .map_err(|source| Error::io("write", &self.path, source))?;
        self.sequence = sequence;
        Ok(())
    }

    pub(crate) fn sequence(&self) -> u64 {
        self.sequence
    }
}
