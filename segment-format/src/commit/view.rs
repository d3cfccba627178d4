//! Reading a commit block.

use super::change::Changes;
use super::{
    COMMIT_DIRECTORY_POSITION, CommitCounts, FLAG_ADOPTIONS_DURABLE, FrameDescription, RULES, RawAdoption,
    RawCommitHeader, RawFrame, SlabAdoption,
};
use crate::block::{BLOCK_HEADER_BYTES, BlockHeader, BlockKind, check_payload};
use crate::checksum::crc32;
use crate::convert::{index, part, read};
use crate::error::{FormatError, Rule, Structure};
use crate::ids::{Crc, LogId, Offset, Version};
use crate::reference::Reference;

/// A commit block whose directory is whole. Bodies are checked one by one, when they are looked at.
#[derive(Clone, Copy, Debug)]
pub struct CommitView<'a> {
    block: &'a [u8],
    seed: u32,
    version: Version,
    durable_version: Version,
    time_ms: i64,
    previous_crc: Crc,
    adoptions_durable: bool,
    frames: &'a [u8],
    adoptions: &'a [u8],
    changes: &'a [u8],
}

/// A frame as found.
#[derive(Clone, Copy, Debug)]
pub struct FrameView<'a> {
    /// Whose messages, and how many.
    pub description: FrameDescription,
    /// Where the body begins in the block.
    pub body_position: u32,
    /// The body: whole buffers; or why they cannot be believed.
    pub body: Result<&'a [u8], FormatError>,
}

impl<'a> CommitView<'a> {
    /// Reads the directory of the block that `header` was decoded from; `block` may run on behind it.
    ///
    /// # Errors
    ///
    /// The rule that the block breaks.
    pub fn parse(block: &'a [u8], header: &BlockHeader) -> Result<Self, FormatError> {
        let (expected, found) = (u64::from(BlockKind::Commit.code()), u64::from(header.kind.code()));
        RULES.require(expected == found, Rule::Kind, 4, expected, found)?;
        let block = part(block, 0, index(header.block_bytes), RULES)?;
        let raw: RawCommitHeader = read(block, BLOCK_HEADER_BYTES, RULES)?;
        // The length of what is covered stands in what is covered: it is bounded before it is used, and a wrong one
        // makes the checksum fail.
        let directory_bytes = index(raw.directory_bytes.get());
        let covered = part(
            block,
            BLOCK_HEADER_BYTES,
            directory_bytes.saturating_add(64),
            RULES,
        )?;
        let seed = header.identity.seed();
        check_payload(header, crc32(seed, covered), RULES)?;
        RULES.require(
            raw.flags.get() & !FLAG_ADOPTIONS_DURABLE == 0,
            Rule::Flags,
            100,
            u64::from(FLAG_ADOPTIONS_DURABLE),
            u64::from(raw.flags.get()),
        )?;
        RULES.require(raw.reserved == [0; 24], Rule::Reserved, 104, 0, 1)?;
        let directory = part(block, COMMIT_DIRECTORY_POSITION, directory_bytes, RULES)?;
        let (frames, adoptions, changes) = split_directory(directory, &raw)?;
        let view = Self {
            block,
            seed,
            version: header.identity.version,
            durable_version: Version::new(raw.durable_version.get()),
            time_ms: raw.time_ms.get(),
            previous_crc: Crc::new(raw.previous_crc.get()),
            adoptions_durable: raw.flags.get() & FLAG_ADOPTIONS_DURABLE != 0,
            frames,
            adoptions,
            changes,
        };
        view.check_durable()?;
        view.check_frames(header.block_bytes)?;
        view.adoptions_checked()
            .try_for_each(|adoption| adoption.map(|_| ()))?;
        view.changes().try_for_each(|change| change.map(|_| ()))?;
        Ok(view)
    }

    /// A version was not durable before it was written.
    fn check_durable(&self) -> Result<(), FormatError> {
        let (version, durable) = (self.version.get(), self.durable_version.get());
        RULES.require(durable < version, Rule::Order, 64, version, durable)
    }

    /// The bodies fill the block behind the directory, in the frames' order, without a gap.
    fn check_frames(&self, block_bytes: u32) -> Result<(), FormatError> {
        let directory_bytes = self
            .frames
            .len()
            .saturating_add(self.adoptions.len())
            .saturating_add(self.changes.len());
        let start = directory_bytes.saturating_add(COMMIT_DIRECTORY_POSITION);
        let mut expected = u64::try_from(start).unwrap_or(u64::MAX);
        for raw in raw_frames(self.frames) {
            let found = u64::from(raw.body_position.get());
            Structure::Frame.require(found == expected, Rule::Order, 32, expected, found)?;
            Structure::Frame.require(
                raw.flags.get() == 0,
                Rule::Flags,
                40,
                0,
                u64::from(raw.flags.get()),
            )?;
            let reserved = u64::from(raw.reserved.get());
            Structure::Frame.require(reserved == 0, Rule::Reserved, 44, 0, reserved)?;
            let body_bytes = u64::from(raw.body_bytes.get());
            describe(&raw).check(body_bytes)?;
            expected = expected.saturating_add(body_bytes);
        }
        let end = u64::from(block_bytes);
        RULES.require(expected == end, Rule::Count, 8, end, expected)
    }

    /// The block's version.
    pub const fn version(&self) -> Version {
        self.version
    }

    /// Highest version that was known to be durable when the block was made.
    pub const fn durable_version(&self) -> Version {
        self.durable_version
    }

    /// The commit's time.
    pub const fn time_ms(&self) -> i64 {
        self.time_ms
    }

    /// Header checksum of the previous version's block; zero in version 1.
    pub const fn previous_crc(&self) -> Crc {
        self.previous_crc
    }

    /// Whether the slabs that it adopts were durable before it was written, so that one which is not whole is damage
    /// and not a torn end.
    pub const fn adoptions_durable(&self) -> bool {
        self.adoptions_durable
    }

    /// Whether this block continues a journal whose newest block has the header checksum `previous`, zero before version
    /// 1. A block of the right version that does not is left over from an attempt that an earlier recovery gave up.
    pub fn continues(&self, previous: Crc) -> bool {
        self.previous_crc == previous
    }

    /// How much the block holds.
    pub fn counts(&self) -> CommitCounts {
        let number = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
        let directory = self
            .frames
            .len()
            .saturating_add(self.adoptions.len())
            .saturating_add(self.changes.len());
        let body_bytes = self
            .block
            .len()
            .saturating_sub(directory)
            .saturating_sub(COMMIT_DIRECTORY_POSITION);
        CommitCounts {
            frames: number(self.frames.len().wrapping_div(48)),
            adoptions: number(self.adoptions.len().wrapping_div(80)),
            change_bytes: number(self.changes.len()),
            body_bytes: u64::try_from(body_bytes).unwrap_or(u64::MAX),
        }
    }

    /// The frames, each with its body checked as it is reached.
    pub fn frames(&self) -> Frames<'a> {
        Frames {
            view: *self,
            number: 0,
        }
    }

    /// The adopted slabs, and runs of deleted offsets.
    pub fn adoptions(&self) -> Adoptions<'a> {
        Adoptions {
            bytes: self.adoptions,
        }
    }

    fn adoptions_checked(&self) -> impl Iterator<Item = Result<SlabAdoption, FormatError>> + use<'a> {
        self.adoptions.chunks_exact(80).map(decode_adoption)
    }

    /// The changes of the catalog and of logs.
    pub fn changes(&self) -> Changes<'a> {
        Changes::new(self.changes)
    }
}

type Directory<'a> = (&'a [u8], &'a [u8], &'a [u8]);

fn split_directory<'a>(directory: &'a [u8], raw: &RawCommitHeader) -> Result<Directory<'a>, FormatError> {
    let counts = CommitCounts {
        frames: raw.frame_count.get(),
        adoptions: raw.adoption_count.get(),
        change_bytes: raw.change_bytes.get(),
        body_bytes: 0,
    };
    let (needed, found) = (counts.directory_bytes(), u64::from(raw.directory_bytes.get()));
    RULES.require(needed == found, Rule::Count, 96, needed, found)?;
    let change_bytes = u64::from(counts.change_bytes);
    RULES.require(
        change_bytes.is_multiple_of(8),
        Rule::Alignment,
        92,
        8,
        change_bytes,
    )?;
    // The sum fits the directory, so each part does.
    let frame_bytes = index(counts.frames).saturating_mul(48);
    let adoption_bytes = index(counts.adoptions).saturating_mul(80);
    let frames = part(directory, 0, frame_bytes, RULES)?;
    let adoptions = part(directory, frame_bytes, adoption_bytes, RULES)?;
    let changes = directory
        .get(frame_bytes.saturating_add(adoption_bytes)..)
        .unwrap_or_default();
    Ok((frames, adoptions, changes))
}

fn raw_frames(bytes: &[u8]) -> impl Iterator<Item = RawFrame> {
    bytes
        .chunks_exact(48)
        .filter_map(|frame| read(frame, 0, Structure::Frame).ok())
}

fn describe(raw: &RawFrame) -> FrameDescription {
    FrameDescription {
        log: LogId::new(raw.log.get()),
        first_offset: Offset::new(raw.first_offset.get()),
        offset_count: raw.offset_count.get(),
        entry_count: raw.entry_count.get(),
    }
}

fn decode_adoption(bytes: &[u8]) -> Result<SlabAdoption, FormatError> {
    let raw: RawAdoption = read(bytes, 0, Structure::Adoption)?;
    let adoption = SlabAdoption {
        log: LogId::new(raw.log.get()),
        first_offset: Offset::new(raw.first_offset.get()),
        offset_count: raw.offset_count.get(),
        skip: raw.skip.get(),
        slab: Reference::from_raw_to(&raw.slab, BlockKind::Slab, 32)?,
    };
    adoption.check()?;
    Ok(adoption)
}

/// The frames of a commit block.
#[derive(Clone, Debug)]
pub struct Frames<'a> {
    view: CommitView<'a>,
    number: u32,
}

impl<'a> Iterator for Frames<'a> {
    type Item = FrameView<'a>;

    fn next(&mut self) -> Option<FrameView<'a>> {
        let number = self.number;
        let at = index(number).saturating_mul(48);
        let raw: RawFrame = read(self.view.frames, at, Structure::Frame).ok()?;
        self.number = number.saturating_add(1);
        let body_position = raw.body_position.get();
        Some(FrameView {
            description: describe(&raw),
            body_position,
            body: self.body(&raw, number),
        })
    }
}

impl<'a> Frames<'a> {
    fn body(&self, raw: &RawFrame, number: u32) -> Result<&'a [u8], FormatError> {
        let (at, length) = (raw.body_position.get(), raw.body_bytes.get());
        let body = part(self.view.block, index(at), index(length), Structure::Frame)?;
        let (computed, stored) = (crc32(self.view.seed ^ number, body), raw.body_crc.get());
        let (expected, found) = (u64::from(computed), u64::from(stored));
        let holds = expected == found || crate::weakened!("frame-unchecked");
        Structure::Frame.require(holds, Rule::Checksum, u64::from(at), expected, found)?;
        Ok(body)
    }
}

/// The adopted slabs of a commit block.
#[derive(Clone, Debug)]
pub struct Adoptions<'a> {
    bytes: &'a [u8],
}

impl Iterator for Adoptions<'_> {
    type Item = SlabAdoption;

    fn next(&mut self) -> Option<SlabAdoption> {
        let (adoption, rest) = self.bytes.split_at_checked(80)?;
        self.bytes = rest;
        // `CommitView::parse` has decoded every one of them already.
        decode_adoption(adoption).ok()
    }
}
