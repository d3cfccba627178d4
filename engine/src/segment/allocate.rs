//! Where the next slab or node goes: a bump pointer in the newest segment of slabs.

use std::sync::Arc;

use lanterman_format::block::BlockIdentity;
use lanterman_format::ids::{Position, Version};
use lanterman_format::segment::SegmentKind;

use super::{FIRST_BLOCK_POSITION, SegmentFile, SegmentTable, next_segment_bytes};
use crate::error::Result;

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
        let fits = |segment: &Arc<SegmentFile>| self.position.saturating_add(bytes) <= segment.bytes;
        let segment = match self.active.as_ref().filter(|segment| fits(segment)) {
            Some(segment) => Arc::clone(segment),
            None => {
                let previous = self.active.as_ref().map(|segment| segment.bytes);
                let size = next_segment_bytes(previous, self.bytes_first, self.bytes_max, bytes);
                let segment = table.create(SegmentKind::Slabs, size, bytes, version, time_ms)?;
                self.position = FIRST_BLOCK_POSITION;
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
