//! Writing a commit block in place: each body is copied once, to where it stays.

use super::{
    COMMIT_DIRECTORY_POSITION, Change, CommitCounts, FLAG_ADOPTIONS_DURABLE, FrameDescription, RULES,
    RawAdoption, RawCommitHeader, RawFrame, SlabAdoption,
};
use crate::block::{BLOCK_HEADER_BYTES, BlockIdentity, BlockKind, Filler, encode_block_header, zero_padding};
use crate::checksum::crc32;
use crate::convert::{index, narrow, part, put, wide, write};
use crate::error::{FormatError, Rule, Structure};
use crate::ids::{Crc, Version};
use zerocopy::IntoBytes;
use zerocopy::little_endian::{I64, U32, U64};

/// What is known only when the block is finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitParameters {
    /// Highest version that is known to be durable.
    pub durable_version: Version,
    /// The commit's time, for people and for retention by time.
    pub time_ms: i64,
    /// [`CommitFinished::header_crc`] of the previous version; zero before version 1.
    pub previous_crc: Crc,
    /// Whether the slabs that it adopts are durable already.
    pub adoptions_durable: bool,
}

/// What a finished block yields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitFinished {
    /// The block's length without its padding.
    pub block_bytes: u32,
    /// Checksum of its header.
    pub header_crc: Crc,
}

/// Writes a commit block. Frames, adoptions and changes may come in any order among one another.
#[derive(Debug)]
pub struct CommitWriter<'a> {
    out: &'a mut [u8],
    identity: BlockIdentity,
    seed: u32,
    counts: CommitCounts,
    block_bytes: u32,
    frames: u32,
    adoptions: u32,
    change_bytes: u32,
    body_position: u32,
}

impl<'a> CommitWriter<'a> {
    /// Begins a block at the beginning of `out`.
    ///
    /// # Errors
    ///
    /// As [`CommitCounts::block_bytes`], and [`Rule::NoRoom`] if `out` is shorter than the block.
    pub fn new(
        out: &'a mut [u8],
        counts: CommitCounts,
        identity: &BlockIdentity,
    ) -> Result<Self, FormatError> {
        let block_bytes = counts.block_bytes()?;
        let available = wide(out.len());
        let fits = available >= u64::from(block_bytes);
        RULES.require(fits, Rule::NoRoom, 0, u64::from(block_bytes), available)?;
        let body_bytes = u32::try_from(counts.body_bytes).unwrap_or(u32::MAX);
        Ok(Self {
            out,
            identity: *identity,
            seed: identity.seed(),
            counts,
            block_bytes,
            frames: 0,
            adoptions: 0,
            change_bytes: 0,
            body_position: block_bytes.saturating_sub(body_bytes),
        })
    }

    /// Adds what the commit appends to one log: `body` is whole buffers.
    ///
    /// # Errors
    ///
    /// [`Rule::NoRoom`] if it is more than was counted, or the rule that the description breaks.
    pub fn frame(&mut self, description: &FrameDescription, body: &[u8]) -> Result<(), FormatError> {
        description.check(wide(body.len()))?;
        let number = self.frames;
        RULES.require(
            number < self.counts.frames,
            Rule::NoRoom,
            20,
            u64::from(self.counts.frames),
            u64::from(number),
        )?;
        let body_bytes = narrow(body.len(), Structure::Frame, 28)?;
        let body_end = self.body_position.saturating_add(body_bytes);
        let fits = body_end <= self.block_bytes;
        RULES.require(
            fits,
            Rule::NoRoom,
            8,
            u64::from(self.block_bytes),
            u64::from(body_end),
        )?;
        put(self.out, index(self.body_position), body, RULES)?;
        let raw = RawFrame {
            log: U64::new(description.log.get()),
            first_offset: U64::new(description.first_offset.get()),
            offset_count: U64::new(description.offset_count),
            entry_count: U32::new(description.entry_count),
            body_bytes: U32::new(body_bytes),
            body_position: U32::new(self.body_position),
            body_crc: U32::new(crc32(self.seed ^ number, body)),
            flags: U32::ZERO,
            reserved: U32::ZERO,
        };
        write(self.out, frame_position(number), &raw, RULES)?;
        self.frames = number.saturating_add(1);
        self.body_position = body_end;
        Ok(())
    }

    /// Adds a slab or a run of deleted offsets to one log.
    ///
    /// # Errors
    ///
    /// [`Rule::NoRoom`] if it is more than was counted, or the rule that the adoption breaks.
    pub fn adoption(&mut self, adoption: &SlabAdoption) -> Result<(), FormatError> {
        adoption.check()?;
        let (number, limit) = (self.adoptions, self.counts.adoptions);
        RULES.require(
            number < limit,
            Rule::NoRoom,
            24,
            u64::from(limit),
            u64::from(number),
        )?;
        let raw = RawAdoption {
            log: U64::new(adoption.log.get()),
            first_offset: U64::new(adoption.first_offset.get()),
            offset_count: U64::new(adoption.offset_count),
            skip: U64::new(adoption.skip),
            slab: adoption.slab.to_raw(),
        };
        write(
            self.out,
            adoption_position(self.counts.frames, number),
            &raw,
            RULES,
        )?;
        self.adoptions = number.saturating_add(1);
        Ok(())
    }

    /// Adds a change of the catalog or of a log.
    ///
    /// # Errors
    ///
    /// [`Rule::NoRoom`] if it is more than was counted, or the rule that the change breaks.
    pub fn change(&mut self, change: &Change<'_>) -> Result<(), FormatError> {
        let end = self.change_bytes.saturating_add(change.encoded_bytes());
        let limit = self.counts.change_bytes;
        RULES.require(end <= limit, Rule::NoRoom, 28, u64::from(limit), u64::from(end))?;
        let changes_at = adoption_position(self.counts.frames, self.counts.adoptions);
        let (at, end_at) = (
            changes_at.saturating_add(index(self.change_bytes)),
            changes_at.saturating_add(index(end)),
        );
        let no_room = RULES.breaks(Rule::NoRoom, wide(at), wide(end_at), wide(self.out.len()));
        let target = self.out.get_mut(at..end_at).ok_or(no_room)?;
        change.encode(&mut Filler::new(target, Structure::Change))?;
        self.change_bytes = end;
        Ok(())
    }

    /// Finishes the block, with zeros behind it as far as `out` and its padding go.
    ///
    /// # Errors
    ///
    /// [`Rule::Count`] if less was added than was counted.
    pub fn finish(self, parameters: &CommitParameters) -> Result<CommitFinished, FormatError> {
        let Self {
            out,
            identity,
            counts,
            block_bytes,
            ..
        } = self;
        let pairs = [
            (20, counts.frames, self.frames),
            (24, counts.adoptions, self.adoptions),
            (28, counts.change_bytes, self.change_bytes),
            (8, block_bytes, self.body_position),
        ];
        pairs.into_iter().try_for_each(|(at, expected, found)| {
            RULES.require(
                expected == found,
                Rule::Count,
                at,
                u64::from(expected),
                u64::from(found),
            )
        })?;
        let directory_bytes = u32::try_from(counts.directory_bytes()).unwrap_or(u32::MAX);
        let raw = RawCommitHeader {
            durable_version: U64::new(parameters.durable_version.get()),
            time_ms: I64::new(parameters.time_ms),
            previous_crc: U32::new(parameters.previous_crc.get()),
            frame_count: U32::new(counts.frames),
            adoption_count: U32::new(counts.adoptions),
            change_bytes: U32::new(counts.change_bytes),
            directory_bytes: U32::new(directory_bytes),
            flags: U32::new(u32::from(parameters.adoptions_durable) * FLAG_ADOPTIONS_DURABLE),
            reserved: [0; 24],
        };
        put(out, BLOCK_HEADER_BYTES, raw.as_bytes(), RULES)?;
        let covered = part(
            out,
            BLOCK_HEADER_BYTES,
            index(directory_bytes).saturating_add(64),
            RULES,
        )?;
        let payload_crc = crc32(self.seed, covered);
        let header_crc = encode_block_header(&identity, BlockKind::Commit, block_bytes, payload_crc, out)?;
        zero_padding(out, block_bytes, RULES)?;
        Ok(CommitFinished {
            block_bytes,
            header_crc,
        })
    }
}

fn frame_position(number: u32) -> usize {
    index(number)
        .saturating_mul(48)
        .saturating_add(COMMIT_DIRECTORY_POSITION)
}

fn adoption_position(frames: u32, number: u32) -> usize {
    index(number)
        .saturating_mul(80)
        .saturating_add(frame_position(frames))
}
