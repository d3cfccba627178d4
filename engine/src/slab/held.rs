//! One set of bytes of a slab, and what is known of them.

use std::io;
use std::ops::Range;

use lanterman_format::SlabLayout;

use super::groups::GroupSet;
use super::{SlabBytes, SlabMemory, Verify};

/// One set of bytes of the slab, and what is known of them.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) bytes: SlabBytes,
    pub(super) prepared: GroupSet,
    pub(super) verified: GroupSet,
}

impl Held {
    pub(super) fn new(bytes: SlabBytes, layout: &SlabLayout) -> Self {
        let count = layout.group_count();
        let (prepared, verified) = match bytes.memory() {
            SlabMemory::Mapped => (GroupSet::empty(count), GroupSet::empty(count)),
            SlabMemory::Copied => (GroupSet::full(), GroupSet::empty(count)),
            // Never was on a disk: it can only be as good as the memory that the checksums were made from.
        };
        Self {
            bytes,
            prepared,
            verified,
        }
    }

    #[inline]
    pub(super) fn is_ready(&self, verify: Verify) -> bool {
        match verify {
            Verify::Once => self.verified.is_full(),
            Verify::Never => self.prepared.is_full(),
            Verify::Always => false,
        }
    }

    #[inline]
    pub(super) fn first_unready(&self, groups: Range<u32>, verify: Verify) -> Option<u32> {
        match verify {
            Verify::Once => self.verified.first_missing(groups),
            Verify::Never => self.prepared.first_missing(groups),
            Verify::Always => (!groups.is_empty()).then_some(groups.start),
        }
    }

    /// Brings `groups` into memory where they never were; the range and the error if that fails.
    pub(super) fn prepare(
        &self,
        layout: &SlabLayout,
        groups: Range<u32>,
    ) -> Result<(), (Range<usize>, io::Error)> {
        let Some(missing) = self.prepared.first_missing(groups.clone()) else {
            return Ok(());
        };
        let last = groups.end.saturating_sub(1);
        let range = layout.group_range(missing).start..layout.group_range(last).end;
        self.bytes
            .prepare(range.clone())
            .map_err(|error| (range, error))?;
        (missing..groups.end).for_each(|group| self.prepared.insert(group));
        Ok(())
    }
}
