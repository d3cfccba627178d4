//! Scanning a segment block by block, for tools, for recovery and for telling a torn end from damage.

use crate::BLOCK_ALIGNMENT;
use crate::block::{BlockHeader, BlockKind, aligned_block_bytes, decode_block_header};
use crate::commit::CommitView;
use crate::convert::{index, wide};
use crate::error::{Found, Rule, Structure};
use crate::ids::{Position, Version};
use crate::segment::{SEGMENT_HEADER_BYTES, SegmentHeader};

/// What a scan met at one position.
#[derive(Clone, Copy, Debug)]
pub struct Scanned {
    /// The position in the segment.
    pub position: Position,
    /// What is there. A header that is sound but whose block does not fit into the bytes is `Invalid`.
    pub found: Found<BlockHeader>,
}

/// A scan over a segment.
#[derive(Clone, Copy, Debug)]
pub struct Scan<'a> {
    segment: &'a [u8],
    header: SegmentHeader,
    at: usize,
}

/// Scans a segment from its first block on. `segment` has the segment's bytes from position 0, as far as they are at
/// hand.
pub const fn scan<'a>(segment: &'a [u8], header: &SegmentHeader) -> Scan<'a> {
    Scan {
        segment,
        header: *header,
        at: SEGMENT_HEADER_BYTES,
    }
}

/// As [`scan`], from `position` on, rounded up to where a block may begin.
pub fn scan_from<'a>(segment: &'a [u8], header: &SegmentHeader, position: Position) -> Scan<'a> {
    let at = usize::try_from(position.get())
        .ok()
        .and_then(|at| at.checked_next_multiple_of(BLOCK_ALIGNMENT));
    Scan {
        segment,
        header: *header,
        at: at.unwrap_or(usize::MAX).max(SEGMENT_HEADER_BYTES),
    }
}

impl<'a> Scan<'a> {
    /// The bytes from `position` on: a block that was found there, and what follows it.
    pub fn bytes_from(&self, position: Position) -> &'a [u8] {
        usize::try_from(position.get())
            .ok()
            .and_then(|at| self.segment.get(at..))
            .unwrap_or_default()
    }
}

impl Iterator for Scan<'_> {
    type Item = Scanned;

    /// Goes on behind a sound block, and by 4 KiB where there is none: what stands inside of a sound block is content,
    /// which somebody may have chosen to look like a block.
    fn next(&mut self) -> Option<Scanned> {
        let bytes = self.segment.get(self.at..).filter(|bytes| !bytes.is_empty())?;
        let position = Position::new(wide(self.at));
        let found = decode_block_header(bytes, &self.header.place(position)).and_then(|header| {
            let (available, needed) = (wide(bytes.len()), u64::from(header.block_bytes));
            Structure::BlockHeader.require(needed <= available, Rule::Truncated, 8, needed, available)?;
            Ok(header)
        });
        let step = match &found {
            Found::Valid(header) => {
                usize::try_from(aligned_block_bytes(header.block_bytes)).unwrap_or(usize::MAX)
            }
            Found::Empty | Found::Invalid(_) => BLOCK_ALIGNMENT,
        };
        self.at = self.at.saturating_add(step);
        Some(Scanned { position, found })
    }
}

/// Looks, from `from` on, for a commit block that proves that version `hole` was durable: a whole one of this life of
/// the segment whose `durable_version` is `hole` or greater. Its position, if there is one: then an unreadable block of
/// that version is damage. If there is none in this and in any later journal segment, it is the torn end.
pub fn proof_of_durability(
    segment: &[u8],
    header: &SegmentHeader,
    from: Position,
    hole: Version,
) -> Option<Position> {
    let mut blocks = scan_from(segment, header, from);
    blocks.find_map(|scanned| {
        let found = scanned
            .found
            .valid()
            .filter(|found| found.kind == BlockKind::Commit)?;
        let start = usize::try_from(scanned.position.get()).ok()?;
        let block = segment.get(start..start.checked_add(index(found.block_bytes))?)?;
        let view = CommitView::parse(block, &found).ok()?;
        (view.durable_version() >= hole).then_some(scanned.position)
    })
}
