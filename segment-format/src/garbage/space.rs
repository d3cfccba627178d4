//! The space of one segment: what is free, what is shared, and which gathered blocks are dead in part.
//!
//! Everything in it that is in no free range, not dead and not behind the checkpoint's used bytes is alive. Hence a free
//! range never covers what another entry speaks of.

use super::{Header, PageKind, RULES, append_page, check_filled, check_limit, entry_at, list_bytes};
use crate::block::{
    BLOCK_ALIGNMENT, BlockIdentity, BlockKind, GATHERED_ALIGNMENT, Place, Sealed, open_whole_block,
};
use crate::convert::{index, narrow, wide};
use crate::error::{FormatError, Found, Rule};
use crate::ids::{Position, SegmentId};
use crate::limits::{GATHERED_SLABS_MAX, SEGMENT_BYTES_MAX, SPACE_ENTRIES_MAX};
use crate::segment::SEGMENT_HEADER_BYTES;
use zerocopy::IntoBytes;
use zerocopy::little_endian::{U32, U64};

wire_struct! {
    struct RawShare is "Share", 16 bytes {
        0 position: U64,
        8 extra: U32,
        12 reserved: U32,
    }
}

wire_struct! {
    struct RawFreeRange is "FreeRange", 16 bytes {
        0 position: U64,
        8 bytes: U64,
    }
}

wire_struct! {
    struct RawGatheredDeaths is "GatheredDeaths", 16 bytes {
        0 position: U64,
        8 dead: U32,
        12 reserved: U32,
    }
}

/// All three lists have entries of this length, so that they are one list to whoever looks for a place in it.
const ENTRY_BYTES: usize = 16;
const _: () = assert!(size_of::<RawShare>() == ENTRY_BYTES);
const _: () = assert!(size_of::<RawFreeRange>() == ENTRY_BYTES);
const _: () = assert!(size_of::<RawGatheredDeaths>() == ENTRY_BYTES);

/// A block to which more than one structure refers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Share {
    /// Where it begins.
    pub position: Position,
    /// How many references there are beside the first one; at least 1.
    pub extra: u32,
}

/// Space that may be written again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FreeRange {
    /// Where it begins: a multiple of 4096.
    pub position: Position,
    /// Its length: a multiple of 4096.
    pub bytes: u64,
}

/// A gathered block of which some slabs are dead and others are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GatheredDeaths {
    /// Where it begins.
    pub position: Position,
    /// How many of its slabs are dead; at least 1.
    pub dead: u32,
}

/// The accounts of one segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpacePage {
    /// The segment.
    pub segment: SegmentId,
    /// Blocks with more than one reference, by rising position.
    pub shares: Vec<Share>,
    /// Space that may be written again, by rising position.
    pub free: Vec<FreeRange>,
    /// Gathered blocks that are dead in part, by rising position.
    pub gathered: Vec<GatheredDeaths>,
}

impl SpacePage {
    fn entry_count(&self) -> usize {
        let both = self.shares.len().saturating_add(self.free.len());
        both.saturating_add(self.gathered.len())
    }

    /// Length of the block without its padding.
    pub fn encoded_bytes(&self) -> usize {
        list_bytes(self.entry_count(), ENTRY_BYTES)
    }

    /// Appends the page's block to `out`, padded to 4 KiB.
    ///
    /// # Errors
    ///
    /// The rule that the page breaks; `out` is unchanged then.
    pub fn encode(&self, identity: &BlockIdentity, out: &mut Vec<u8>) -> Result<Sealed, FormatError> {
        self.check()?;
        let header = Header {
            page_kind: PageKind::Space.code(),
            number: self.segment.get(),
            counts: [
                narrow(self.shares.len(), RULES, 68)?,
                narrow(self.free.len(), RULES, 80)?,
                narrow(self.gathered.len(), RULES, 84)?,
            ],
        };
        append_page(header, self.encoded_bytes(), identity, out, |filler| {
            self.shares.iter().try_for_each(|share| {
                let raw = RawShare {
                    position: U64::new(share.position.get()),
                    extra: U32::new(share.extra),
                    reserved: U32::ZERO,
                };
                filler.push(raw.as_bytes())
            })?;
            self.free.iter().try_for_each(|range| {
                let raw = RawFreeRange {
                    position: U64::new(range.position.get()),
                    bytes: U64::new(range.bytes),
                };
                filler.push(raw.as_bytes())
            })?;
            self.gathered.iter().try_for_each(|deaths| {
                let raw = RawGatheredDeaths {
                    position: U64::new(deaths.position.get()),
                    dead: U32::new(deaths.dead),
                    reserved: U32::ZERO,
                };
                filler.push(raw.as_bytes())
            })
        })
    }

    /// Reads the page at `place`; `bytes` may run on behind it.
    pub fn decode(bytes: &[u8], place: &Place) -> Found<Self> {
        open_whole_block(bytes, place, BlockKind::Garbage, RULES).and_then(|(_, block)| decode_block(block))
    }

    /// The rules that hold before writing and after reading.
    fn check(&self) -> Result<(), FormatError> {
        check_limit(wide(self.entry_count()), SPACE_ENTRIES_MAX)?;
        RULES.require(self.segment != SegmentId::ZERO, Rule::Zero, 72, 1, 0)?;
        let free_at = self.shares.len();
        let gathered_at = free_at.saturating_add(self.free.len());
        self.check_free(free_at)?;
        let shares = self.shares.iter().map(|share| (share.position, share.extra));
        self.check_counts(shares, 0, (GATHERED_ALIGNMENT, u32::MAX))?;
        let gathered = self.gathered.iter().map(|deaths| (deaths.position, deaths.dead));
        self.check_counts(gathered, gathered_at, (BLOCK_ALIGNMENT, GATHERED_SLABS_MAX))
    }

    /// Free ranges are whole pages of the segment, behind its header, and none reaches into the next one: what is free
    /// twice would be written twice.
    fn check_free(&self, first: usize) -> Result<(), FormatError> {
        let mut least = wide(SEGMENT_HEADER_BYTES);
        for (number, range) in self.free.iter().enumerate() {
            let at = entry_at(number.saturating_add(first), ENTRY_BYTES);
            let (position, bytes) = (range.position.get(), range.bytes);
            let page = wide(BLOCK_ALIGNMENT);
            let odd = position.checked_rem(page) != Some(0) || bytes.checked_rem(page) != Some(0);
            RULES.require(!odd, Rule::Alignment, at, page, position | bytes)?;
            RULES.require(bytes != 0, Rule::Zero, at, page, 0)?;
            RULES.require(position >= least, Rule::Order, at, least, position)?;
            let end = position
                .checked_add(bytes)
                .filter(|end| *end <= SEGMENT_BYTES_MAX);
            least = end.ok_or(RULES.breaks(Rule::Bounds, at, SEGMENT_BYTES_MAX, position))?;
        }
        Ok(())
    }

    /// Blocks that are counted stand by rising positions, none of them in a free range.
    fn check_counts(
        &self,
        counted: impl Iterator<Item = (Position, u32)>,
        first: usize,
        (alignment, limit): (usize, u32),
    ) -> Result<(), FormatError> {
        let mut least = wide(SEGMENT_HEADER_BYTES);
        let mut free = self.free.iter().peekable();
        for (number, (position, count)) in counted.enumerate() {
            let at = entry_at(number.saturating_add(first), ENTRY_BYTES);
            let (position, alignment) = (position.get(), wide(alignment));
            let is_aligned = position.checked_rem(alignment) == Some(0);
            RULES.require(is_aligned, Rule::Alignment, at, alignment, position)?;
            RULES.require(position >= least, Rule::Order, at, least, position)?;
            let is_inside = position < SEGMENT_BYTES_MAX;
            RULES.require(is_inside, Rule::Bounds, at, SEGMENT_BYTES_MAX, position)?;
            RULES.require(count != 0, Rule::Zero, at, 1, 0)?;
            RULES.require(
                count <= limit,
                Rule::Limit,
                at,
                u64::from(limit),
                u64::from(count),
            )?;
            least = position.saturating_add(1);
            while free.next_if(|range| end_of(range) <= position).is_some() {}
            let covering = free.peek().filter(|range| range.position.get() <= position);
            RULES.require(covering.is_none(), Rule::Bounds, at, 0, position)?;
        }
        Ok(())
    }
}

fn end_of(range: &FreeRange) -> u64 {
    range.position.get().saturating_add(range.bytes)
}

pub(super) fn decode_block(block: &[u8]) -> Result<SpacePage, FormatError> {
    let header = Header::read(block, PageKind::Space.code(), SPACE_ENTRIES_MAX)?;
    // Limited, so that it is far from what an index holds.
    let [shares, free, gathered] = header.counts;
    let gathered_at = index(shares).saturating_add(index(free));
    let total = gathered_at.saturating_add(index(gathered));
    check_filled(block, total, ENTRY_BYTES)?;
    let page = SpacePage {
        segment: SegmentId::new(header.number),
        shares: super::read_list(block, 0, shares, decode_share)?,
        free: super::read_list(block, index(shares), free, decode_free)?,
        gathered: super::read_list(block, gathered_at, gathered, decode_gathered)?,
    };
    page.check()?;
    Ok(page)
}

fn decode_share(raw: &RawShare, at: u64) -> Result<Share, FormatError> {
    let reserved = u64::from(raw.reserved.get());
    RULES.require(reserved == 0, Rule::Reserved, at, 0, reserved)?;
    Ok(Share {
        position: Position::new(raw.position.get()),
        extra: raw.extra.get(),
    })
}

fn decode_free(raw: &RawFreeRange, _at: u64) -> Result<FreeRange, FormatError> {
    Ok(FreeRange {
        position: Position::new(raw.position.get()),
        bytes: raw.bytes.get(),
    })
}

fn decode_gathered(raw: &RawGatheredDeaths, at: u64) -> Result<GatheredDeaths, FormatError> {
    let reserved = u64::from(raw.reserved.get());
    RULES.require(reserved == 0, Rule::Reserved, at, 0, reserved)?;
    Ok(GatheredDeaths {
        position: Position::new(raw.position.get()),
        dead: raw.dead.get(),
    })
}
