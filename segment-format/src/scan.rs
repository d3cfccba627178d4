//! Scanning a segment block by block, for tools, for recovery and for telling a torn end from damage.

use std::collections::BTreeMap;

use crate::BLOCK_ALIGNMENT;
use crate::block::{BlockHeader, BlockKind, aligned_block_bytes, decode_block_header};
use crate::commit::CommitView;
use crate::convert::{index, wide};
use crate::error::{Found, Rule, Structure};
use crate::ids::{Crc, Position, Version};
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

/// What a valid commit block behind the place where the journal cannot be read on says of itself and of those before it.
#[derive(Clone, Debug)]
pub struct Behind<P> {
    /// Where it stands, in the caller's terms.
    pub place: P,
    /// Its version.
    pub version: Version,
    /// The checksum of its header.
    pub header_crc: Crc,
    /// The checksum of its predecessor's header.
    pub previous_crc: Crc,
    /// The newest version that was known to be durable when it was made.
    pub durable_version: Version,
}

/// Where the journal goes on behind the missing version `wanted`, if that was durable: otherwise the end is torn. `behind`
/// are the valid commit blocks of later versions behind that place. Section 13 of SPEC.md, «stepping over damage».
pub fn resumes_at<P>(behind: &[Behind<P>], wanted: Version) -> Option<&Behind<P>> {
    let proofs = behind.iter().filter(|block| block.durable_version >= wanted);
    let mut first = proofs.min_by_key(|block| block.version)?;
    // The proof names its predecessor by its checksum, that one the next: as far back as they stand, these are the
    // journal, and not what an earlier end left behind.
    let known: BTreeMap<_, _> = behind
        .iter()
        .rev()
        .map(|block| ((block.version.get(), block.header_crc.get()), block))
        .collect();
    while let Some(before) = first
        .version
        .get()
        .checked_sub(1)
        .and_then(|version| known.get(&(version, first.previous_crc.get())))
    {
        first = before;
    }
    Some(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commit::{CommitCounts, CommitParameters, CommitWriter};
    use crate::error::FormatError;
    use crate::ids::ByteLength;
    use crate::segment::SegmentKind;
    use crate::testing::place;
    use crate::version::FormatVersion;

    fn header() -> SegmentHeader {
        let place = place();
        SegmentHeader {
            format: FormatVersion::CURRENT,
            kind: SegmentKind::Journal,
            store: place.store,
            segment: place.segment,
            generation: place.generation,
            segment_bytes: ByteLength::new(7 * 4096),
            first_version: Version::new(1),
            time_ms: 0,
        }
    }

    /// Versions 1 to 4 at 4 KiB each but the second, which takes two; each knows the one before to be durable, but the
    /// last one, which was in flight together with version 3.
    fn journal() -> Vec<u8> {
        let mut segment = vec![0; 7 * 4096];
        segment[..4096].fill(0x11);
        for (version, position, change_bytes, durable) in [
            (1, 4096, 0, 0),
            (2, 8192, 4096, 1),
            (3, 16_384, 0, 2),
            (4, 20_480, 0, 2),
        ] {
            let identity = header()
                .place(Position::new(position))
                .identity(Version::new(version));
            let counts = CommitCounts {
                change_bytes,
                ..CommitCounts::default()
            };
            let out = &mut segment[position as usize..];
            let mut writer = CommitWriter::new(out, counts, &identity).unwrap();
            if change_bytes > 0 {
                let settings = [0x7F; 4080];
                let change = crate::Change::SetSettings {
                    log: crate::LogId::new(1),
                    settings: &settings,
                };
                writer.change(&change).unwrap();
            }
            let durable_version = Version::new(durable);
            writer
                .finish(&CommitParameters {
                    durable_version,
                    time_ms: 0,
                    previous_crc: Crc::ZERO,
                    adoptions_durable: false,
                })
                .unwrap();
        }
        segment
    }

    fn seen(segment: &[u8]) -> Vec<(u64, Result<u64, Rule>)> {
        let blocks = scan(segment, &header()).map(|scanned| {
            let found = match scanned.found {
                Found::Valid(found) => Ok(found.identity.version.get()),
                Found::Empty => Err(Rule::Zero),
                Found::Invalid(FormatError { rule, .. }) => Err(rule),
            };
            (scanned.position.get() / 4096, found)
        });
        blocks.collect()
    }

    #[test]
    fn a_scan_goes_on_behind_damage_and_to_the_end() {
        let mut segment = journal();
        let whole = [
            (1, Ok(1)),
            (2, Ok(2)),
            (4, Ok(3)),
            (5, Ok(4)),
            (6, Err(Rule::Zero)),
        ];
        assert_eq!(seen(&segment), whole);
        segment[8192 + 20] ^= 1;
        let damaged = [
            (1, Ok(1)),
            (2, Err(Rule::Checksum)),
            (3, Err(Rule::Magic)),
            (4, Ok(3)),
            (5, Ok(4)),
        ];
        assert_eq!(seen(&segment)[..5], damaged);
        segment.truncate(16_384 + 70);
        assert_eq!(seen(&segment)[3..], [(4, Err(Rule::Truncated))]);
        assert_eq!(seen(&segment[..4096]), []);
    }

    #[test]
    fn a_hole_is_damage_only_if_a_later_block_knew_it_to_be_durable() {
        let proof = |damaged: usize, hole: u64| {
            let mut segment = journal();
            segment[damaged] ^= 1;
            let from = Position::new(damaged as u64 / 4096 * 4096 + 4096);
            proof_of_durability(&segment, &header(), from, Version::new(hole)).map(Position::get)
        };
        assert_eq!(proof(4096, 1), Some(8192));
        assert_eq!(proof(8192, 2), Some(16_384));
        // Version 4 was in flight together with version 3: it proves nothing.
        assert_eq!(proof(16_384, 3), None);
        assert_eq!(proof(20_480, 4), None);
    }
    #[test]
    fn the_journal_goes_on_at_the_earliest_block_that_a_proof_leads_to() {
        let block = |version: u64, header_crc: u32, previous_crc: u32, durable: u64| Behind {
            place: version,
            version: Version::new(version),
            header_crc: Crc::new(header_crc),
            previous_crc: Crc::new(previous_crc),
            durable_version: Version::new(durable),
        };
        let at = |behind: &[Behind<u64>]| {
            resumes_at(behind, Version::new(3)).map(|block| (block.place, block.header_crc.get()))
        };
        // Version 4 proves nothing, 6 does, and names 5, which names 4; another 5 is left from before.
        let journal = [
            block(4, 40, 30, 2),
            block(5, 51, 41, 2),
            block(5, 50, 40, 2),
            block(6, 60, 50, 5),
            block(7, 70, 60, 6),
        ];
        assert_eq!(at(&journal), Some((4, 40)));
        assert_eq!(at(&journal[1..]), Some((5, 50)));
        assert_eq!(at(&journal[..3]), None);
        assert_eq!(at(&[]), None);
    }
}
