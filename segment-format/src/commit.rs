//! Commit blocks: one version of the store, whole or absent.
//!
//! Invariants: directory and bodies fill the block without gaps, so that every byte is under exactly one checksum; a
//! body has a checksum of its own, so that a damaged one leaves the rest of the version readable.

mod change;
mod view;
mod write;

pub use change::{Change, Changes};
pub use view::{Adoptions, CommitView, FrameView, Frames};
pub use write::{CommitFinished, CommitParameters, CommitWriter};

use crate::error::{FormatError, Rule, Structure};
use crate::ids::{LogId, Offset};
use crate::limits::BLOCK_BYTES_MAX;
use crate::reference::{RawReference, Reference};
use zerocopy::little_endian::{I64, U32, U64};

/// Flag of a commit header: the slabs that the block adopts were durable before it was written.
const FLAG_ADOPTIONS_DURABLE: u32 = 1;

/// Where the directory (frames, adoptions, changes) begins, from the block's beginning.
pub const COMMIT_DIRECTORY_POSITION: usize = 128;

pub(crate) const RULES: Structure = Structure::Commit;

wire_struct! {
    struct RawCommitHeader is "CommitHeader", 64 bytes {
        0 durable_version: U64,
        8 time_ms: I64,
        16 previous_crc: U32,
        20 frame_count: U32,
        24 adoption_count: U32,
        28 change_bytes: U32,
        32 directory_bytes: U32,
        36 flags: U32,
        40 reserved: [u8; 24],
    }
}

wire_struct! {
    struct RawFrame is "Frame", 48 bytes {
        0 log: U64,
        8 first_offset: U64,
        16 offset_count: U64,
        24 entry_count: U32,
        28 body_bytes: U32,
        32 body_position: U32,
        36 body_crc: U32,
        40 flags: U32,
        44 reserved: U32,
    }
}

wire_struct! {
    struct RawAdoption is "Adoption", 80 bytes {
        0 log: U64,
        8 first_offset: U64,
        16 offset_count: U64,
        24 skip: U64,
        32 slab: RawReference,
    }
}

wire_struct! {
    struct RawChange is "ChangeHeader", 8 bytes {
        0 kind: zerocopy::little_endian::U16,
        2 flags: zerocopy::little_endian::U16,
        4 bytes: U32,
    }
}

wire_struct! {
    struct RawCreateLog is "CreateLog", 16 bytes {
        0 log: U64,
        8 name_bytes: zerocopy::little_endian::U16,
        10 reserved: zerocopy::little_endian::U16,
        12 settings_bytes: U32,
    }
}

wire_struct! {
    struct RawDeleteRange is "DeleteRange", 24 bytes {
        0 log: U64,
        8 first: U64,
        16 end: U64,
    }
}

wire_struct! {
    struct RawRetain is "Retain", 16 bytes {
        0 log: U64,
        8 start: U64,
    }
}

wire_struct! {
    struct RawFork is "Fork", 32 bytes {
        0 log: U64,
        8 origin: U64,
        16 end: U64,
        24 name_bytes: zerocopy::little_endian::U16,
        26 flags: zerocopy::little_endian::U16,
        28 settings_bytes: U32,
    }
}

wire_struct! {
    struct RawSplice is "Splice", 40 bytes {
        0 log: U64,
        8 first: U64,
        16 source: U64,
        24 source_first: U64,
        32 source_end: U64,
    }
}

wire_struct! {
    struct RawReplace is "Replace", 72 bytes {
        0 log: U64,
        8 first: U64,
        16 end: U64,
        24 slab: RawReference,
    }
}

/// How much a commit block will hold; fixed before it is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommitCounts {
    /// Number of frames.
    pub frames: u32,
    /// Number of adopted slabs.
    pub adoptions: u32,
    /// Sum of [`Change::encoded_bytes`].
    pub change_bytes: u32,
    /// Sum of the bodies' lengths, each a multiple of 8.
    pub body_bytes: u64,
}

impl CommitCounts {
    /// Length of the directory: frames, adoptions and changes.
    fn directory_bytes(&self) -> u64 {
        let frames = u64::from(self.frames).saturating_mul(48);
        let adoptions = u64::from(self.adoptions).saturating_mul(80);
        frames
            .saturating_add(adoptions)
            .saturating_add(u64::from(self.change_bytes))
    }

    /// Length of the block without its padding.
    ///
    /// # Errors
    ///
    /// [`Rule::Limit`] if no block is that long, [`Rule::Alignment`] if a sum is no multiple of 8.
    pub fn block_bytes(&self) -> Result<u32, FormatError> {
        let odd = (u64::from(self.change_bytes) | self.body_bytes) & 7;
        RULES.require(odd == 0, Rule::Alignment, 28, 8, odd)?;
        let total = self
            .directory_bytes()
            .saturating_add(self.body_bytes)
            .saturating_add(128);
        let limit = u64::from(BLOCK_BYTES_MAX);
        let length = u32::try_from(total)
            .ok()
            .filter(|length| *length <= BLOCK_BYTES_MAX);
        length.ok_or(RULES.breaks(Rule::Limit, 8, limit, total))
    }
}

/// The messages that one commit adds to one log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameDescription {
    /// The log.
    pub log: LogId,
    /// Offset of the first message.
    pub first_offset: Offset,
    /// Number of offsets.
    pub offset_count: u64,
    /// Number of buffers.
    pub entry_count: u32,
}

impl FrameDescription {
    fn check(&self, body_bytes: u64) -> Result<(), FormatError> {
        let rules = Structure::Frame;
        let entries = u64::from(self.entry_count);
        rules.require(entries != 0, Rule::Zero, 24, 1, 0)?;
        rules.require(
            self.offset_count >= entries,
            Rule::Count,
            16,
            entries,
            self.offset_count,
        )?;
        let end = self.first_offset.checked_add(self.offset_count);
        rules.require(end.is_some(), Rule::Bounds, 8, u64::MAX, self.first_offset.get())?;
        rules.require(body_bytes.is_multiple_of(8), Rule::Alignment, 28, 8, body_bytes)?;
        // Each buffer has at least its header.
        let least = entries.saturating_mul(8);
        rules.require(body_bytes >= least, Rule::Count, 28, least, body_bytes)
    }
}

/// A slab that one commit puts into the tree of one log, whole or in part, or a run of deleted offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlabAdoption {
    /// The log.
    pub log: LogId,
    /// Offset of the first message that the log sees of it; what the log had from there on is replaced.
    pub first_offset: Offset,
    /// Number of offsets that the log sees of it.
    pub offset_count: u64,
    /// Number of offsets at the slab's front that the log does not see.
    pub skip: u64,
    /// The slab; empty if the offsets are deleted.
    pub slab: Reference,
}

impl SlabAdoption {
    fn check(&self) -> Result<(), FormatError> {
        let rules = Structure::Adoption;
        rules.require(self.offset_count != 0, Rule::Zero, 16, 1, 0)?;
        let end = self.first_offset.checked_add(self.offset_count);
        rules.require(end.is_some(), Rule::Bounds, 8, u64::MAX, self.first_offset.get())?;
        let behind = self.skip.checked_add(self.offset_count);
        rules.require(behind.is_some(), Rule::Bounds, 24, u64::MAX, self.skip)?;
        // A run of deleted offsets has no front that could be hidden.
        let fits = self.skip == 0 || !self.slab.is_empty();
        rules.require(fits, Rule::Reserved, 24, 0, self.skip)
    }
}

#[cfg(test)]
mod tests;
