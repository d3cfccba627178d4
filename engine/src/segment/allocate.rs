//! Where the next slab or node goes: a bump pointer in the newest segment of slabs.
//!
//! A segment is reserved whole when it is made, and the next is twice as large, so half of what a store takes could be room
//! that nobody uses. A close gives that back, but for a little; who goes on in such a segment has its blocks reserved again before
//! anything is written to them, in steps that double, so that a short visit costs nothing and a long one few calls.

use std::sync::Arc;

use lanterman_format::block::BlockIdentity;
use lanterman_format::ids::{Position, Version};
use lanterman_format::segment::SegmentKind;
use lanterman_format::weakened;

use super::{FIRST_BLOCK_POSITION, SegmentFile, SegmentTable, next_segment_bytes};
use crate::error::{Error, Result};

/// What stays reserved behind the end of a closed store: room for the checkpoint of who opens it again and appends a little.
pub(crate) const KEPT_BYTES: u64 = 1 << 20;

/// What is reserved at once where an earlier life gave the rest of a segment back, the first time.
const STEP_BYTES_FIRST: u64 = KEPT_BYTES;

/// Room for one block: where it goes, and what its checksums must cover.
#[derive(Debug, Clone)]
pub(crate) struct Allocated {
    pub(crate) segment: Arc<SegmentFile>,
    pub(crate) position: u64,
    pub(crate) bytes: u64,
}

impl Allocated {
    pub(crate) fn identity(&self, table: &SegmentTable, version: Version) -> BlockIdentity {
        BlockIdentity {
            store: table.store(),
            segment: self.segment.id,
            generation: self.segment.generation,
            position: Position::new(self.position),
            version,
        }
    }
}

/// Gives out room in segments of slabs, in order.
#[derive(Debug)]
pub(crate) struct SlabAllocator {
    active: Option<Arc<SegmentFile>>,
    position: u64,
    /// Up to where the blocks of the active segment are known to be reserved.
    reserved_end: u64,
    /// How far beyond that the next reservation goes.
    step_bytes: u64,
    bytes_first: u64,
    bytes_max: u64,
}

impl SlabAllocator {
    /// Goes on in `active` from `position` on, which must lie behind everything that is referred to.
    pub(crate) fn new(active: Option<(Arc<SegmentFile>, u64)>, bytes_first: u64, bytes_max: u64) -> Self {
        let (active, position) = match active {
            Some((segment, position)) => (Some(segment), position.next_multiple_of(FIRST_BLOCK_POSITION)),
            None => (None, 0),
        };
        SlabAllocator {
            active,
            position,
            reserved_end: position,
            step_bytes: STEP_BYTES_FIRST,
            bytes_first,
            bytes_max,
        }
    }

    /// Room for `bytes`, rounded up to whole pages; rolls to a new segment when the active one has too little left.
    ///
    /// # Errors
    /// [`crate::Error::StorageFull`] when a new segment finds no room; the allocator is as before then.
    pub(crate) fn allocate(
        &mut self,
        table: &SegmentTable,
        bytes: u64,
        version: Version,
        time_ms: i64,
    ) -> Result<Allocated> {
        let bytes = bytes.next_multiple_of(FIRST_BLOCK_POSITION);
        let segment = match self.room_in_active(table, bytes)? {
            Some(segment) => segment,
            None => {
                let previous = self.active.as_ref().map(|segment| segment.bytes);
                let size = next_segment_bytes(previous, self.bytes_first, self.bytes_max, bytes);
                let segment = table.create(SegmentKind::Slabs, size, bytes, version, time_ms)?;
                self.position = FIRST_BLOCK_POSITION;
                self.reserved_end = segment.bytes;
                self.active = Some(Arc::clone(&segment));
                segment
            }
        };
        let position = self.position;
        self.position = position.saturating_add(bytes);
        Ok(Allocated {
            segment,
            position,
            bytes,
        })
    }

    /// The active segment, if it has reserved room for `bytes` more, or can have it.
    fn room_in_active(&mut self, table: &SegmentTable, bytes: u64) -> Result<Option<Arc<SegmentFile>>> {
        let end = self.position.saturating_add(bytes);
        let Some(segment) = self.active.as_ref().filter(|segment| end <= segment.bytes) else {
            return Ok(None);
        };
        if end > self.reserved_end && !weakened!("room-given-back-believed-reserved") {
            let step = self.reserved_end.saturating_add(self.step_bytes);
            let wanted = end.max(step).min(segment.bytes);
            match table.reserve_again(segment, self.reserved_end, end, wanted) {
                Ok(reserved_end) => self.reserved_end = reserved_end,
                // A new segment may find room where this one does not: that is where a full disk is dealt with.
                Err(Error::StorageFull { .. }) => return Ok(None),
                Err(error) => return Err(error),
            }
            self.step_bytes = self.step_bytes.saturating_mul(2);
        }
        Ok(Some(Arc::clone(segment)))
    }

    /// Gives the blocks of the active segment back that nothing was put into, but for the first `kept` bytes of them; names the
    /// segment if there were any. Where the file system cannot do that, they stay.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn give_back_rest(&mut self, kept: u64) -> Result<Option<Arc<SegmentFile>>> {
        let from = self.position.saturating_add(kept);
        let Some(segment) = self.active.as_ref().filter(|segment| from < segment.bytes) else {
            return Ok(None);
        };
        segment.give_back(from..segment.bytes)?;
        self.reserved_end = self.reserved_end.min(from);
        self.step_bytes = STEP_BYTES_FIRST;
        Ok(Some(Arc::clone(segment)))
    }

    /// Takes back what a block did not need of its room, if nothing was given out since.
    pub(crate) fn give_back(&mut self, place: &Allocated, needed: u64) {
        let active = self
            .active
            .as_ref()
            .is_some_and(|segment| segment.id == place.segment.id);
        if active && self.position == place.position.saturating_add(place.bytes) {
            self.position = place
                .position
                .saturating_add(needed.next_multiple_of(FIRST_BLOCK_POSITION));
        }
    }

    /// The segment being filled and the first free byte of it.
    pub(crate) fn active(&self) -> Option<(&Arc<SegmentFile>, u64)> {
        self.active.as_ref().map(|segment| (segment, self.position))
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::super::testing::table;
    use super::*;
    use crate::disk::{Disk, MemoryDisk, Sync};

    const SEGMENT_BYTES: u64 = 16 << 20;
    const BLOCK: &[u8] = &[0; 256 << 10];
    const BLOCK_BYTES: u64 = BLOCK.len() as u64;

    fn blocks_until_full(allocator: &mut SlabAllocator, table: &SegmentTable) -> u64 {
        let mut count = 0;
        loop {
            match allocator.allocate(table, BLOCK_BYTES, Version::new(1), 0) {
                // What was given out can be written, however full the disk is.
                Ok(place) => place.segment.write(place.position, BLOCK, Sync::No).unwrap(),
                Err(error) => {
                    assert!(matches!(error, Error::StorageFull { .. }), "{error}");
                    return count;
                }
            }
            count += 1;
        }
    }

    #[test]
    fn room_that_was_given_back_is_reserved_again_before_it_is_given_out() {
        let disk = Arc::new(MemoryDisk::new());
        let table = table(Arc::clone(&disk) as Arc<dyn Disk>);
        let mut allocator = SlabAllocator::new(None, SEGMENT_BYTES, SEGMENT_BYTES);
        let place = allocator
            .allocate(&table, BLOCK_BYTES, Version::new(1), 0)
            .unwrap();
        let whole = disk.used_bytes();
        allocator.give_back_rest(KEPT_BYTES).unwrap().unwrap();
        let kept = FIRST_BLOCK_POSITION + BLOCK_BYTES + KEPT_BYTES;
        assert_eq!(disk.used_bytes(), whole - SEGMENT_BYTES + kept);

        let next = place.position + place.bytes;
        let mut allocator = SlabAllocator::new(Some((place.segment, next)), SEGMENT_BYTES, SEGMENT_BYTES);
        disk.set_space(Some(disk.used_bytes() + 3 * BLOCK_BYTES + 4096));
        let blocks = KEPT_BYTES / BLOCK_BYTES + 3;
        assert_eq!(blocks_until_full(&mut allocator, &table), blocks);
        disk.set_space(Some(disk.used_bytes() + 2 * SEGMENT_BYTES));
        // All that the segment holds, and another segment.
        let all = (SEGMENT_BYTES - FIRST_BLOCK_POSITION) / BLOCK_BYTES;
        assert_eq!(blocks_until_full(&mut allocator, &table), all - 1 - blocks + all);
    }
}
