//! Where the next slab or node goes: a bump pointer in the newest segment of slabs.

use std::sync::Arc;

use lanterman_format::block::BlockIdentity;
use lanterman_format::ids::{Position, Version};
use lanterman_format::segment::SegmentKind;
use lanterman_format::weakened;

use super::sizes::bytes_for_waiting;
use super::{FIRST_BLOCK_POSITION, MakingRoom, SegmentFile, SegmentTable, next_segment_bytes};
use crate::error::{Error, Result};

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

    /// Room for `bytes`, rounded up to whole pages; rolls to a new segment when the active one has too little left, one that
    /// is large enough for all the bytes that are known to be `waiting`.
    ///
    /// # Errors
    /// [`Error::StorageFull`] when a new segment finds no room; the allocator is as before then.
    pub(crate) fn allocate(
        &mut self,
        table: &SegmentTable,
        bytes: u64,
        waiting: u64,
        version: Version,
        time_ms: i64,
    ) -> Result<Allocated> {
        let bytes = bytes.next_multiple_of(FIRST_BLOCK_POSITION);
        let fits = |segment: &Arc<SegmentFile>| self.position.saturating_add(bytes) <= segment.bytes;
        let segment = match self.active.as_ref().filter(|segment| fits(segment)) {
            Some(segment) => Arc::clone(segment),
            None => {
                let segment = self.roll(table, bytes, waiting, version, time_ms)?;
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

    /// A new segment for a block of `bytes` and, where there is room for that, for all that waits behind it.
    fn roll(
        &self,
        table: &SegmentTable,
        bytes: u64,
        waiting: u64,
        version: Version,
        time_ms: i64,
    ) -> Result<Arc<SegmentFile>> {
        let create = |size| table.create(SegmentKind::Slabs, size, bytes, version, time_ms);
        let previous = self.active.as_ref().map(|segment| segment.bytes);
        let grown = next_segment_bytes(previous, self.bytes_first, self.bytes_max, bytes);
        let hurried = bytes_for_waiting(waiting, self.bytes_max);
        // The reserve is not given up for more than need be.
        if hurried > grown && !MakingRoom::is_going_on() {
            match create(hurried) {
                Err(Error::StorageFull { .. }) if !weakened!("no-less-than-what-waits") => {}
                made => return made,
            }
        }
        create(grown)
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
    use std::path::Path;

    use lanterman_format::ids::StoreId;

    use super::*;
    use crate::disk::{Disk, MemoryDisk};

    const FIRST: u64 = 256 << 10;
    const MAX: u64 = 64 << 20;

    fn table(disk: &Arc<MemoryDisk>) -> SegmentTable {
        disk.create_directory(Path::new("store")).unwrap();
        disk.create_directory(Path::new("store/segments")).unwrap();
        let disk = Arc::clone(disk) as Arc<dyn Disk>;
        SegmentTable::new(disk, Path::new("store"), StoreId::from_bytes([7; 16]), true)
    }

    fn segment_bytes(table: &SegmentTable, waiting: u64) -> Result<u64> {
        let mut allocator = SlabAllocator::new(None, FIRST, MAX);
        let place = allocator.allocate(table, 4096, waiting, Version::new(1), 0)?;
        Ok(place.segment.bytes)
    }

    #[test]
    fn a_segment_has_room_for_twice_what_waits_within_the_limits() {
        let table = table(&Arc::new(MemoryDisk::new()));
        let bytes = |waiting| segment_bytes(&table, waiting).unwrap();
        assert_eq!(bytes(0), FIRST);
        assert_eq!(bytes(4096), FIRST);
        assert_eq!(bytes((1 << 20) + 1), (2 << 20) + 4096);
        assert_eq!(bytes(u64::MAX), MAX);
    }

    #[test]
    fn a_disk_without_room_for_what_waits_gets_a_segment_as_large_as_the_last_one_asks_for() {
        let disk = Arc::new(MemoryDisk::new());
        let table = table(&disk);
        disk.set_space(Some(1 << 20));
        assert_eq!(segment_bytes(&table, 8 << 20).unwrap(), FIRST);
        disk.set_space(Some(0));
        let full = segment_bytes(&table, 8 << 20);
        assert!(matches!(full, Err(Error::StorageFull { .. })), "{full:?}");
    }
}
