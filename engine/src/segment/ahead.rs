//! The next segment of the journal, made before it is needed.
//!
//! A durable write into blocks that were only reserved makes the file system note, in its own journal, that they hold
//! something now: it takes half as long again as one over blocks that were written before (decision 17). A journal that has
//! gone round is written over its retired segments; until then, zeros are written once over each new one, in the
//! background and a piece at a time, while the one before is being filled. So a commit that begins a segment finds it ready
//! as well.
//!
//! Zeros are what a reservation reads as, so nothing depends on how far that came: a file that is found half written is a
//! spare like any other.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lanterman_format::ids::Generation;
use lanterman_format::segment::SegmentKind;
use lanterman_format::weakened;
use parking_lot::Mutex;

use super::{SegmentTable, Spare, SpareFor};
use crate::disk::{DiskFile, OpenMode, Sync};
use crate::error::{Error, Result};
use crate::sys::memory::AlignedBuffer;

/// What one call writes: little enough that slabs and commits beside it hardly wait for it.
const PIECE_BYTES: usize = 1 << 20;

/// What is to be made, and what is being made.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// How large the next segment of the journal will be; 0 while none is wanted.
    wanted: AtomicU64,
    unfinished: Mutex<Option<Unfinished>>,
}

/// A file over which zeros are being written.
#[derive(Debug)]
struct Unfinished {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    zeros: AlignedBuffer,
    bytes: u64,
    written: u64,
}

impl SegmentTable {
    /// Notes that the journal will soon need a segment of `bytes`.
    pub(crate) fn want_journal(&self, bytes: u64) {
        self.ahead.wanted.store(bytes, Ordering::Release);
    }

    /// Whether a segment is wanted and not begun.
    pub(crate) fn is_journal_wanted(&self) -> bool {
        self.ahead.wanted.load(Ordering::Acquire) != 0
    }

    /// Whether a segment is wanted, begun or not.
    pub(crate) fn is_journal_unready(&self) -> bool {
        self.is_journal_wanted() || self.ahead.unfinished.lock().is_some()
    }

    /// Does a piece of the work for the segment that is wanted; says whether more of it is left. A full disk is no error:
    /// the segment is then made when it is needed, if it can be.
    ///
    /// # Errors
    /// The system's; the segment is given up.
    pub(crate) fn prepare_journal(&self) -> Result<bool> {
        let mut unfinished = self.ahead.unfinished.lock();
        let begun = match unfinished.take() {
            Some(begun) => Some(begun),
            None => self.begin_next()?,
        };
        let Some(mut next) = begun else { return Ok(false) };
        match self.continue_next(&mut next) {
            Ok(true) => {
                *unfinished = Some(next);
                Ok(true)
            }
            Ok(false) => {
                self.spares.lock().push(Spare {
                    path: next.path,
                    bytes: next.bytes,
                    generation: Some(Generation::new(0)),
                    serves: SpareFor::Journal,
                });
                Ok(false)
            }
            Err(error) => {
                if let Err(left) = self.disk.unlink(&next.path) {
                    tracing::warn!(path = %next.path.display(), error = %left, "a file that was given up could not be removed");
                }
                match error {
                    Error::StorageFull { .. } => Ok(false),
                    error => Err(error),
                }
            }
        }
    }

    /// Reserves what is wanted, unless something that serves lies ready.
    fn begin_next(&self) -> Result<Option<Unfinished>> {
        let bytes = self.ahead.wanted.swap(0, Ordering::AcqRel);
        if bytes == 0 || self.has_spare(SegmentKind::Journal, bytes) {
            return Ok(None);
        }
        let (path, bytes) = match self.reserve_room(self.take_segment_number()?, bytes, bytes) {
            Err(Error::StorageFull { .. }) => return Ok(None),
            reserved => reserved?,
        };
        let file = self.disk.open(&path, OpenMode::ReadWrite);
        let piece = usize::try_from(bytes).map_or(PIECE_BYTES, |bytes| bytes.min(PIECE_BYTES));
        Ok(Some(Unfinished {
            file: file.map_err(|source| Error::io("open", &path, source))?,
            zeros: AlignedBuffer::new(piece)
                .map_err(|source| Error::io("allocate zeros for", &path, source))?,
            path,
            bytes,
            written: 0,
        }))
    }

    /// Writes a piece, and syncs behind the last one; says whether there are more.
    fn continue_next(&self, next: &mut Unfinished) -> Result<bool> {
        let left = next.bytes.saturating_sub(next.written);
        let zeros = next.zeros.as_ref();
        let piece = usize::try_from(left).map_or(zeros, |left| zeros.get(..left).unwrap_or(zeros));
        if !weakened!("next-journal-only-reserved") {
            next.file
                .write_at(next.written, piece, Sync::No)
                .map_err(|source| Error::io("write", &next.path, source))?;
        }
        next.written = next.written.saturating_add(piece.len() as u64);
        if next.written < next.bytes {
            return Ok(true);
        }
        self.syncs.count();
        next.file
            .sync_data()
            .map_err(|source| Error::failed_sync(&next.path, source))?;
        Ok(false)
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use lanterman_format::ids::Version;

    use super::super::testing::table;
    use super::*;
    use crate::disk::{Disk, MemoryDisk, Operation, RecordingDisk};

    const BYTES: u64 = (2 << 20) + 4096;

    fn prepare(table: &SegmentTable) {
        table.want_journal(BYTES);
        while table.prepare_journal().unwrap() {}
    }

    #[test]
    fn zeros_are_written_once_over_the_whole_of_the_next_segment_and_synced() {
        let disk = Arc::new(RecordingDisk::new(Arc::new(MemoryDisk::new())));
        let table = table(Arc::clone(&disk) as Arc<dyn Disk>);
        prepare(&table);
        let mut covered = 0;
        let mut is_synced = false;
        for operation in disk.operations() {
            match operation {
                Operation::Write { position, bytes, .. } => {
                    assert_eq!(position, covered);
                    assert!(bytes.iter().all(|byte| *byte == 0));
                    covered += bytes.len() as u64;
                    is_synced = false;
                }
                Operation::SyncData { .. } => is_synced = true,
                _ => {}
            }
        }
        assert_eq!((covered, is_synced), (BYTES, true));
        let before = disk.operation_count();
        prepare(&table);
        assert_eq!(disk.operation_count(), before, "one lies ready already");
    }

    #[test]
    fn what_was_made_for_the_journal_serves_the_journal_alone() {
        let table = table(Arc::new(MemoryDisk::new()));
        prepare(&table);
        table.find_reserve(BYTES);
        let create = |kind| {
            let segment = table.create(kind, BYTES, 4096, Version::new(1), 0).unwrap();
            (segment.id.get(), segment.bytes)
        };
        create(SegmentKind::Slabs);
        assert!(table.has_spare(SegmentKind::Journal, BYTES));
        assert_eq!(create(SegmentKind::Journal).1, BYTES);
        assert!(!table.has_spare(SegmentKind::Journal, BYTES));
    }
}
