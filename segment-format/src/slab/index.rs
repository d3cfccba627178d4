//! Lookups in a slab's index.
//!
//! The index was under the payload checksum when the layout was parsed, but a checksum is no proof against a hostile
//! file: each position is held against the body's bounds again, and each answer may be `None`.

use super::{IndexKind, RawRun, SLAB_BODY_POSITION, SlabLayout};
use crate::convert::{index, read};
use crate::error::Structure;
use zerocopy::little_endian::U32;

/// An entry of a slab.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryPlace {
    /// Number of the entry in the slab.
    pub entry: u32,
    /// Its first byte, counted from the slab's beginning.
    pub position: u32,
    /// Its first offset, counted from the slab's first.
    pub first_offset: u64,
}

impl SlabLayout {
    /// Where the buffer begins that holds the offset `relative_offset`, counted from the slab's first. The position is
    /// a multiple of 8 within the body. `None` if the slab has no such offset.
    #[inline]
    pub fn position_of(&self, bytes: &[u8], relative_offset: u64) -> Option<u32> {
        if self.index_kind == IndexKind::Runs {
            return self.find_run(bytes, relative_offset).map(|place| place.position);
        }
        let entry = u32::try_from(relative_offset).ok()?;
        self.entry_position(bytes, entry)
    }

    /// Where the entry with this number begins.
    #[inline]
    pub fn entry_position(&self, bytes: &[u8], entry: u32) -> Option<u32> {
        if entry >= self.entry_count {
            return None;
        }
        if self.index_kind == IndexKind::Stride {
            // `parse` has compared stride * entries + 256 with the body's end, so nothing wraps.
            return Some(entry.wrapping_mul(self.stride).wrapping_add(256));
        }
        self.listed_position(bytes, entry)
    }

    fn listed_position(&self, bytes: &[u8], entry: u32) -> Option<u32> {
        let entry_bytes = if self.index_kind == IndexKind::Dense { 4 } else { 8 };
        let at = index(entry)
            .checked_mul(entry_bytes)?
            .checked_add(index(self.trailer.index_position))?;
        let position: U32 = read(bytes, at, Structure::Slab).ok()?;
        self.checked_position(position.get())
    }

    fn checked_position(&self, position: u32) -> Option<u32> {
        let inside = index(position) >= SLAB_BODY_POSITION && position < self.body_end && position & 7 == 0;
        inside.then_some(position)
    }

    /// The entry that holds the offset `relative_offset`, counted from the slab's first.
    pub fn entry_of(&self, bytes: &[u8], relative_offset: u64) -> Option<EntryPlace> {
        if self.index_kind == IndexKind::Runs {
            return self.find_run(bytes, relative_offset);
        }
        let entry = u32::try_from(relative_offset).ok()?;
        let position = self.entry_position(bytes, entry)?;
        Some(EntryPlace {
            entry,
            position,
            first_offset: relative_offset,
        })
    }

    /// The first offset of an entry, counted from the slab's first.
    pub fn entry_first_offset(&self, bytes: &[u8], entry: u32) -> Option<u64> {
        if entry >= self.entry_count {
            return None;
        }
        match self.index_kind {
            IndexKind::Stride | IndexKind::Dense => Some(u64::from(entry)),
            IndexKind::Runs => self
                .run(bytes, entry)
                .map(|run| u64::from(run.first_offset.get())),
        }
    }

    fn run(&self, bytes: &[u8], entry: u32) -> Option<RawRun> {
        let at = index(entry)
            .checked_mul(8)?
            .checked_add(index(self.trailer.index_position))?;
        read(bytes, at, Structure::Slab).ok()
    }

    /// Bisection over the runs: the last one that begins at or before the offset.
    fn find_run(&self, bytes: &[u8], relative_offset: u64) -> Option<EntryPlace> {
        if relative_offset >= self.offset_count {
            return None;
        }
        let (mut low, mut high) = (0, self.entry_count);
        while high.saturating_sub(low) > 1 {
            let middle = low.midpoint(high);
            if u64::from(self.run(bytes, middle)?.first_offset.get()) <= relative_offset {
                low = middle;
            } else {
                high = middle;
            }
        }
        let run = self.run(bytes, low)?;
        let first_offset = u64::from(run.first_offset.get());
        let position = self.checked_position(run.position.get())?;
        (first_offset <= relative_offset).then_some(EntryPlace {
            entry: low,
            position,
            first_offset,
        })
    }
}
