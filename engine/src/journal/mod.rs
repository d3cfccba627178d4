//! The journal: one block a version, written at the end of the newest journal segment.
//!
//! Invariants:
//! - versions are consecutive, and one block is in flight at a time, so that a hole with a block behind it that knew it
//!   durable is damage and not a torn end;
//! - a block is durable before `durable` says so; what only the operating system has is listed in `unsynced`;
//! - a failed write leaves version and position as they were: the next block goes to the same place.

mod ahead;
pub(crate) mod group;
pub(crate) mod replay;

use std::sync::Arc;

use lanterman_format::block::{BLOCK_ALIGNMENT, BlockIdentity};
use lanterman_format::commit::{
    Change, CommitCounts, CommitParameters, CommitWriter, FrameDescription, SlabAdoption,
};
use lanterman_format::ids::{Crc, Position, SegmentId, Version};
use lanterman_format::segment::SegmentKind;
use lanterman_format::weakened;

use crate::disk::Sync;
use crate::error::{Error, Result};
use crate::options::Durability;
use crate::segment::{FIRST_BLOCK_POSITION, SegmentFile, SegmentTable, next_segment_bytes};
use crate::sys::memory::AlignedBuffer;

/// When a store is closed, a segment that has more room than this is ended: the next opening would read all of it, to see that nothing
/// stands behind the journal's end. It is what one such read takes.
const ROOM_READ_BYTES_MAX: u64 = 1 << 20;

/// The buffer of a block is given back when it grew beyond this and the next block needs less.
const BUFFER_BYTES_KEPT: usize = 4 << 20;

/// Where the journal stands: the place of the next block and what came before it.
#[derive(Debug, Clone)]
pub(crate) struct JournalEnd {
    pub(crate) segment: Option<Arc<SegmentFile>>,
    pub(crate) position: u64,
    pub(crate) version: Version,
    pub(crate) header_crc: Crc,
}

/// Limits of the journal's segments in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct JournalSizes {
    pub(crate) first: u64,
    pub(crate) max: u64,
}

/// What one block is to hold.
#[derive(Debug, Default)]
pub(crate) struct CommitContent<'a> {
    pub(crate) frames: Vec<(FrameDescription, &'a [u8])>,
    pub(crate) adoptions: Vec<SlabAdoption>,
    pub(crate) changes: Vec<Change<'a>>,
}

impl CommitContent<'_> {
    pub(crate) fn is_empty(&self) -> bool {
        self.frames.is_empty() && self.adoptions.is_empty() && self.changes.is_empty()
    }

    fn counts(&self) -> Result<CommitCounts> {
        let count = |length: usize| {
            u32::try_from(length).map_err(|_| Error::TooLarge {
                part: "commit's list of parts",
                bytes: length as u64,
                limit_bytes: u64::from(u32::MAX),
            })
        };
        let mut change_bytes = 0u32;
        for change in &self.changes {
            change_bytes = change_bytes.saturating_add(change.encoded_bytes());
        }
        let body_bytes = self
            .frames
            .iter()
            .map(|(_, body)| (body.len() as u64).next_multiple_of(8))
            .sum();
        Ok(CommitCounts {
            frames: count(self.frames.len())?,
            adoptions: count(self.adoptions.len())?,
            change_bytes,
            body_bytes,
        })
    }
}

/// The writing end of the journal. Whoever leads a group has it to himself.
#[derive(Debug)]
pub(crate) struct Journal {
    table: Arc<SegmentTable>,
    sizes: JournalSizes,
    end: JournalEnd,
    durable: Version,
    /// Segments with blocks that no sync has covered yet.
    unsynced: Vec<Arc<SegmentFile>>,
    /// Slabs were adopted whose segment may not be synced yet.
    adoptions_unsynced: bool,
    buffer: AlignedBuffer,
    /// Bytes written since the place from which a recovery would begin.
    replay_bytes: u64,
    /// The segment behind which the next one is being made ready.
    followed: Option<SegmentId>,
    /// Whether the segment may have been ended before it was full: the next one need not be larger.
    ended_early: bool,
}

impl Journal {
    /// Goes on at `end`. Everything up to it is durable: a writer's scan reads what the medium has.
    pub(crate) fn new(
        table: Arc<SegmentTable>,
        sizes: JournalSizes,
        end: JournalEnd,
        replay_bytes: u64,
    ) -> Result<Self> {
        let buffer = AlignedBuffer::new(BLOCK_ALIGNMENT)
            .map_err(|source| Error::io("allocate a buffer for", table.directory(), source))?;
        let is_at_end = |segment: &Arc<SegmentFile>| end.position >= segment.bytes;
        Ok(Journal {
            table,
            sizes,
            ended_early: end.segment.as_ref().is_some_and(is_at_end),
            durable: end.version,
            end,
            unsynced: Vec::new(),
            adoptions_unsynced: false,
            buffer,
            replay_bytes,
            followed: None,
        })
    }

    pub(crate) fn end(&self) -> &JournalEnd {
        &self.end
    }

    pub(crate) fn replay_bytes(&self) -> u64 {
        self.replay_bytes
    }

    /// Has the next block begin a segment, if the one in use has so much room that reading it would be felt; says whether it does.
    pub(crate) fn end_segment(&mut self) -> bool {
        let Some(segment) = &self.end.segment else {
            return false;
        };
        let room = segment.bytes.saturating_sub(self.end.position);
        let ends = room > ROOM_READ_BYTES_MAX && !weakened!("journal-room-left");
        if ends {
            self.end.position = segment.bytes;
            self.ended_early = true;
        }
        ends
    }

    /// Tells that a checkpoint covers the first `covered` bytes of what a recovery would read; gives what is left.
    pub(crate) fn checkpointed(&mut self, covered: u64) -> u64 {
        self.replay_bytes = self.replay_bytes.saturating_sub(covered);
        self.replay_bytes
    }

    /// Writes one block and gives its version; at [`Durability::Disk`] it and all before it are durable on return.
    ///
    /// # Errors
    /// [`Error::StorageFull`] when a new segment finds no room, with nothing changed; other errors leave it unknown what
    /// the disk has and must poison the store.
    pub(crate) fn append(
        &mut self,
        content: &CommitContent<'_>,
        durability: Durability,
        time_ms: i64,
    ) -> Result<Version> {
        let counts = content.counts()?;
        let block_bytes = counts.block_bytes().map_err(|_| Error::TooLarge {
            part: "commit",
            bytes: counts.body_bytes,
            limit_bytes: u64::from(lanterman_format::limits::BLOCK_BYTES_MAX),
        })?;
        let stored = (u64::from(block_bytes)).next_multiple_of(BLOCK_ALIGNMENT as u64);
        let version = Version::new(self.end.version.get().saturating_add(1));
        let (segment, position) = self.room(stored, version, time_ms)?;
        let synced = durability == Durability::Disk;
        if !content.adoptions.is_empty() {
            self.adoptions_unsynced = true;
        }
        if synced && self.adoptions_unsynced && !weakened!("block-before-slab") {
            // Data before what refers to it: an acknowledged adoption must find its slab.
            self.table.sync_slabs()?;
            self.adoptions_unsynced = false;
        }
        let identity = BlockIdentity {
            store: self.table.store(),
            segment: segment.id,
            generation: segment.generation,
            position: Position::new(position),
            version,
        };
        let header_crc = self.build(content, counts, &identity, stored, time_ms)?;
        self.write(&segment, position, stored, synced)?;
        self.end = JournalEnd {
            segment: Some(segment),
            position: position.saturating_add(stored),
            version,
            header_crc,
        };
        self.ended_early = false;
        self.replay_bytes = self.replay_bytes.saturating_add(stored);
        if synced {
            self.durable = version;
        }
        self.look_ahead();
        Ok(version)
    }

    /// Asks, once for each segment, for the next one when half of it is full.
    fn look_ahead(&mut self) {
        let Some(segment) = &self.end.segment else { return };
        if self.end.position > segment.bytes / 2 && self.followed != Some(segment.id) {
            self.followed = Some(segment.id);
            let bytes = next_segment_bytes(Some(segment.bytes), self.sizes.first, self.sizes.max, 0);
            self.table.want_journal(bytes);
        }
    }

    /// Room for a block: in the active segment, or at the head of a new one.
    fn room(&self, stored: u64, version: Version, time_ms: i64) -> Result<(Arc<SegmentFile>, u64)> {
        if let Some(segment) = &self.end.segment
            && self.end.position.saturating_add(stored) <= segment.bytes
        {
            return Ok((Arc::clone(segment), self.end.position));
        }
        let previous = self.end.segment.as_ref().map(|segment| segment.bytes);
        let previous = match self.ended_early {
            true => previous.map(|bytes| bytes / 2),
            false => previous,
        };
        let bytes = next_segment_bytes(previous, self.sizes.first, self.sizes.max, stored);
        let segment = self
            .table
            .create(SegmentKind::Journal, bytes, stored, version, time_ms)?;
        Ok((segment, FIRST_BLOCK_POSITION))
    }

    fn build(
        &mut self,
        content: &CommitContent<'_>,
        counts: CommitCounts,
        identity: &BlockIdentity,
        stored: u64,
        time_ms: i64,
    ) -> Result<Crc> {
        let stored = usize::try_from(stored).map_err(|_| Error::Internal {
            what: "a block fits in memory",
        })?;
        let shrink = self.buffer.len() > BUFFER_BYTES_KEPT && stored <= BUFFER_BYTES_KEPT;
        if self.buffer.len() < stored || shrink {
            self.buffer = AlignedBuffer::new(stored.next_power_of_two())
                .map_err(|source| Error::io("allocate a buffer for", self.table.directory(), source))?;
        }
        let parameters = CommitParameters {
            durable_version: self.durable,
            time_ms,
            previous_crc: self.end.header_crc,
            adoptions_durable: !self.adoptions_unsynced,
        };
        let broken = |_| Error::Internal {
            what: "a commit block encodes",
        };
        let buffer = self.buffer.as_mut().get_mut(..stored).ok_or(Error::Internal {
            what: "a block has its buffer",
        })?;
        let mut writer = CommitWriter::new(buffer, counts, identity).map_err(broken)?;
        for (description, body) in &content.frames {
            writer.frame(description, body).map_err(broken)?;
        }
        for adoption in &content.adoptions {
            writer.adoption(adoption).map_err(broken)?;
        }
        for change in &content.changes {
            writer.change(change).map_err(broken)?;
        }
        let finished = writer.finish(&parameters).map_err(broken)?;
        let used = usize::try_from(finished.block_bytes).unwrap_or(stored);
        if let Some(padding) = buffer.get_mut(used..) {
            padding.fill(0);
        }
        Ok(finished.header_crc)
    }

    fn write(&mut self, segment: &Arc<SegmentFile>, position: u64, stored: u64, synced: bool) -> Result<()> {
        let stored = usize::try_from(stored).unwrap_or(usize::MAX);
        let bytes = self.buffer.as_ref().get(..stored).ok_or(Error::Internal {
            what: "a block has its buffer",
        })?;
        if synced && self.unsynced.is_empty() {
            // One write that is durable when it returns; it vouches for its own bytes alone, which is why nothing
            // unsynced may stand before it.
            return segment.write(position, bytes, Sync::Data);
        }
        if !synced && weakened!("process-commit-unwritten") {
            return Ok(());
        }
        segment.write(position, bytes, Sync::No)?;
        if !self.unsynced.iter().any(|known| known.id == segment.id) {
            self.unsynced.push(Arc::clone(segment));
        }
        if synced { self.sync_segments() } else { Ok(()) }
    }

    fn sync_segments(&mut self) -> Result<()> {
        for segment in &self.unsynced {
            segment.sync()?;
        }
        self.unsynced.clear();
        Ok(())
    }

    /// Makes every version so far durable.
    pub(crate) fn sync(&mut self) -> Result<()> {
        if self.adoptions_unsynced {
            self.table.sync_slabs()?;
            self.adoptions_unsynced = false;
        }
        self.sync_segments()?;
        self.durable = self.end.version;
        Ok(())
    }
}
