//! Lookups in a slab's index.
//!
//! The index was under the payload checksum when the layout was parsed, but a checksum is no proof against a hostile
//! file: each position is held against the body's bounds again, and each answer may be `None`.

use super::{IndexKind, RawRun, SLAB_BODY_POSITION, SlabLayout};
use crate::convert::{index, read};
use crate::error::Structure;
use core::ops::Range;
use zerocopy::little_endian::U32;

/// How many places in proportion are tried before bisection.
const GUESSES_MAX: u32 = 8;

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

    /// Where in the slab the search for an offset begins, for who has it brought into the cache before.
    #[inline]
    pub fn index_place(&self, relative_offset: u64) -> usize {
        let offset = relative_offset.min(self.offset_count);
        let (entry, entry_bytes) = match self.index_kind {
            IndexKind::Stride => return 0,
            IndexKind::Dense => (u32::try_from(offset).unwrap_or(u32::MAX), 4),
            IndexKind::Runs => (
                in_proportion(offset, 0..self.offset_count, 0..self.entry_count),
                8,
            ),
        };
        index(entry)
            .saturating_mul(entry_bytes)
            .saturating_add(index(self.trailer.index_position))
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

    /// The last run that begins at or before the offset.
    ///
    /// Runs are mostly about as long as each other. So a place in proportion comes close at once, and a few more come to the
    /// run, where bisection alone would touch a cache line a step. Where runs are not, bisection follows.
    fn find_run(&self, bytes: &[u8], relative_offset: u64) -> Option<EntryPlace> {
        if relative_offset >= self.offset_count {
            return None;
        }
        let (mut low, mut high) = (0, self.entry_count);
        let (mut low_offset, mut high_offset) = (0, self.offset_count);
        let mut guesses = GUESSES_MAX;
        while high.saturating_sub(low) > 1 {
            let middle = match guesses {
                0 => low.midpoint(high),
                _ => in_proportion(relative_offset, low_offset..high_offset, low..high),
            };
            guesses = guesses.saturating_sub(1);
            let offset = u64::from(self.run(bytes, middle)?.first_offset.get());
            if offset <= relative_offset {
                (low, low_offset) = (middle, offset);
            } else {
                (high, high_offset) = (middle, offset);
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

/// The entry at which an offset is to be expected: behind the first of `entries` and before their end.
fn in_proportion(offset: u64, offsets: Range<u64>, entries: Range<u32>) -> u32 {
    let count = u64::from(entries.end.saturating_sub(entries.start));
    let behind = offset.saturating_sub(offsets.start).checked_mul(count);
    let length = offsets.end.saturating_sub(offsets.start);
    let entry = behind.and_then(|behind| behind.checked_div(length));
    let entry = u32::try_from(entry.unwrap_or(count >> 1)).unwrap_or(u32::MAX);
    let last = entries.end.saturating_sub(1);
    let least = entries.start.saturating_add(1);
    entries.start.saturating_add(entry).clamp(least.min(last), last)
}
