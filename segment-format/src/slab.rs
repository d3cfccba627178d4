//! Slabs: immutable runs of buffers of one log, with an index, a histogram, a summary and a checksum for each 4 KiB.
//!
//! Invariants: body, index, histogram, sketch of keys and checksum table follow one another without gaps; header, index,
//! histogram, sketch and table are under the block's payload checksum, the body under those of its groups, so that a reader of one message
//! checks one group and not the slab. Nothing in a slab depends on where it lies but its identity.

mod index;
mod layout;
mod seal;

pub use index::EntryPlace;
pub use layout::{SlabLayout, trailer_hint};
pub use seal::{SlabDescription, seal, trailer_bytes};

use crate::error::Structure;
use crate::summary::RawSummary;
use zerocopy::little_endian::{U16, U32, U64};

/// Where the body begins, from the slab's beginning.
pub const SLAB_BODY_POSITION: usize = 256;

/// Length of a group: the part of the body that one checksum covers. Four KiB is what a page fault brings, and what
/// CRC-32 is fast on.
pub const GROUP_BYTES: usize = 4096;

pub(crate) const GROUP_SHIFT: u8 = 12;
pub(crate) const HISTOGRAM_BYTES: u32 = 128;
pub(crate) const RULES: Structure = Structure::Slab;

const _: () = assert!(GROUP_BYTES == 1 << GROUP_SHIFT);

wire_struct! {
    struct RawSlabHeader is "SlabHeader", 192 bytes {
        0 log: U64,
        8 first_offset: U64,
        16 offset_count: U64,
        24 entry_count: U32,
        28 index_kind: u8,
        29 group_shift: u8,
        30 flags: U16,
        32 body_end: U32,
        36 index_position: U32,
        40 index_bytes: U32,
        44 stride: U32,
        48 crc_table_position: U32,
        52 crc_table_count: U32,
        56 histogram_position: U32,
        60 reserved_60: U32,
        64 summary: RawSummary,
        128 key_sketch_bytes: U32,
        132 reserved: [u8; 60],
    }
}

wire_struct! {
    struct RawRun is "Run", 8 bytes {
        0 position: U32,
        4 first_offset: U32,
    }
}

/// Flag of a slab of which some buffers are compressed batches.
pub(crate) const FLAG_COMPRESSED: u16 = 1;

/// How the index says where an entry begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IndexKind {
    /// All entries take the same number of bytes and one offset: no index is needed.
    Stride,
    /// All entries take one offset: a position for each.
    Dense,
    /// Some entry takes more than one offset: position and first offset for each.
    Runs,
}

impl IndexKind {
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Stride => 1,
            Self::Dense => 2,
            Self::Runs => 3,
        }
    }

    pub(crate) const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Stride),
            2 => Some(Self::Dense),
            3 => Some(Self::Runs),
            _ => None,
        }
    }

    /// Length of the index.
    pub(crate) fn index_bytes(self, entry_count: u32) -> u64 {
        let entry_bytes = match self {
            Self::Stride => 0,
            Self::Dense => 4,
            Self::Runs => 8,
        };
        u64::from(entry_count).saturating_mul(entry_bytes)
    }
}

/// Where the parts behind the body lie, counted from the slab's beginning. The parts follow one another; the histogram
/// and the table begin at multiples of 8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trailer {
    pub(crate) index_position: u32,
    pub(crate) index_bytes: u32,
    pub(crate) histogram_position: u32,
    pub(crate) key_sketch_position: u32,
    pub(crate) crc_table_position: u32,
    pub(crate) crc_table_count: u32,
    pub(crate) block_bytes: u32,
}

impl Trailer {
    /// The trailer behind a body of that end; `None` if the slab exceeds the greatest block.
    pub(crate) fn new(
        kind: IndexKind,
        body_end: u32,
        entry_count: u32,
        key_sketch_bytes: u32,
    ) -> Option<Self> {
        let index_bytes = u32::try_from(kind.index_bytes(entry_count)).ok()?;
        let histogram_position = body_end.checked_add(index_bytes)?.checked_next_multiple_of(8)?;
        let key_sketch_position = histogram_position.checked_add(HISTOGRAM_BYTES)?;
        let crc_table_position = key_sketch_position
            .checked_add(key_sketch_bytes)?
            .checked_next_multiple_of(8)?;
        let crc_table_count = group_count(body_end);
        let block_bytes = crc_table_position.checked_add(crc_table_count.checked_mul(4)?)?;
        (block_bytes <= crate::limits::BLOCK_BYTES_MAX).then_some(Self {
            index_position: body_end,
            index_bytes,
            histogram_position,
            key_sketch_position,
            crc_table_position,
            crc_table_count,
            block_bytes,
        })
    }
}

/// Number of groups of a body that ends there.
pub(crate) const fn group_count(body_end: u32) -> u32 {
    body_end.div_ceil(4096)
}

#[cfg(test)]
mod tests;
