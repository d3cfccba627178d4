//! The header of a segment: its first 4 KiB.
//!
//! Invariant: a segment's id and generation are new whenever its file is written again, so nothing that an earlier life
//! left behind decodes in the new one.

use crate::convert::{part, read};
use crate::error::{FormatError, Found, Rule, Structure};
use crate::ids::{ByteLength, Generation, Position, SegmentId, StoreId, Version};
use crate::limits::SEGMENT_BYTES_MAX;
use crate::root_slot::{check_page, check_reserved, check_version};
use crate::version::FormatVersion;
use crate::{BLOCK_ALIGNMENT, Place};
use zerocopy::IntoBytes;
use zerocopy::little_endian::{I64, U16, U32, U64};

/// Length of a segment's header; the first block follows it.
pub const SEGMENT_HEADER_BYTES: usize = 4096;

const MAGIC: [u8; 8] = *b"LNTNSEGM";
const RULES: Structure = Structure::SegmentHeader;

wire_struct! {
    struct RawSegmentHeader is "SegmentHeader", 4096 bytes {
        0 magic: [u8; 8],
        8 major: U16,
        10 minor: U16,
        12 kind: u8,
        13 reserved_13: [u8; 3],
        16 store_id: [u8; 16],
        32 segment: U64,
        40 generation: U32,
        44 alignment: U32,
        48 segment_bytes: U64,
        56 first_version: U64,
        64 time_ms: I64,
        72 reserved: [u8; 4020],
        4092 crc: U32,
    }
}

/// What a segment holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SegmentKind {
    /// Commit blocks.
    Journal,
    /// Slabs, nodes, catalog pages, checkpoints and gathered blocks.
    Slabs,
}

impl SegmentKind {
    /// The number that stands for the kind on disk.
    pub const fn code(self) -> u8 {
        match self {
            Self::Journal => 1,
            Self::Slabs => 2,
        }
    }

    /// The kind that a number stands for.
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Journal),
            2 => Some(Self::Slabs),
            _ => None,
        }
    }
}

/// The header of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Version of the format that the segment was written with.
    pub format: FormatVersion,
    /// What the segment holds.
    pub kind: SegmentKind,
    /// The store that it belongs to.
    pub store: StoreId,
    /// Its id.
    pub segment: SegmentId,
    /// Which life of the file this is, from 1.
    pub generation: Generation,
    /// Length of the file.
    pub segment_bytes: ByteLength,
    /// Journal: version of its first block. Slabs: newest version when it was begun.
    pub first_version: Version,
    /// When it was begun, for people.
    pub time_ms: i64,
}

impl SegmentHeader {
    /// Writes the header.
    pub fn encode(&self, out: &mut [u8; SEGMENT_HEADER_BYTES]) {
        let mut raw = RawSegmentHeader {
            magic: MAGIC,
            major: U16::new(self.format.major),
            minor: U16::new(self.format.minor),
            kind: self.kind.code(),
            reserved_13: [0; 3],
            store_id: *self.store.bytes(),
            segment: U64::new(self.segment.get()),
            generation: U32::new(self.generation.get()),
            alignment: U32::new(4096),
            segment_bytes: U64::new(self.segment_bytes.get()),
            first_version: U64::new(self.first_version.get()),
            time_ms: I64::new(self.time_ms),
            reserved: [0; 4020],
            crc: U32::ZERO,
        };
        raw.crc = U32::new(
            raw.as_bytes()
                .get(..4092)
                .map_or(0, |covered| crate::checksum::crc32(0, covered)),
        );
        out.copy_from_slice(raw.as_bytes());
    }

    /// Reads the header; with a store's id it must be a segment of that store.
    pub fn decode(bytes: &[u8], store: Option<&StoreId>) -> Found<Self> {
        let bytes = match part(bytes, 0, SEGMENT_HEADER_BYTES, RULES) {
            Ok(bytes) => bytes,
            Err(error) => return Found::Invalid(error),
        };
        if bytes.iter().all(|byte| *byte == 0) {
            return Found::Empty;
        }
        Found::Valid(()).and_then(|()| decode_written(bytes, store))
    }

    /// Whether the header fits the file in which it was found: a segment that was swapped with another one, or cut
    /// short, does not.
    ///
    /// # Errors
    ///
    /// [`Rule::Identity`], [`Rule::Kind`] or [`Rule::Truncated`].
    pub fn check_file(
        &self,
        segment: SegmentId,
        kind: SegmentKind,
        file_bytes: u64,
    ) -> Result<(), FormatError> {
        let same = self.segment == segment;
        RULES.require(same, Rule::Identity, 32, segment.get(), self.segment.get())?;
        let (expected, found) = (u64::from(kind.code()), u64::from(self.kind.code()));
        RULES.require(expected == found, Rule::Kind, 12, expected, found)?;
        let length = self.segment_bytes.get();
        RULES.require(file_bytes >= length, Rule::Truncated, 48, length, file_bytes)
    }

    /// Where a reader looks for a block of this segment.
    pub const fn place(&self, position: Position) -> Place {
        Place {
            store: self.store,
            segment: self.segment,
            generation: self.generation,
            position,
        }
    }
}

fn decode_written(bytes: &[u8], store: Option<&StoreId>) -> Result<SegmentHeader, FormatError> {
    let raw: RawSegmentHeader = read(bytes, 0, RULES)?;
    check_page(RULES, bytes, &MAGIC)?;
    let format = FormatVersion {
        major: raw.major.get(),
        minor: raw.minor.get(),
    };
    check_version(RULES, format)?;
    check_reserved(RULES, format, &raw.reserved_13, 13)?;
    check_reserved(RULES, format, &raw.reserved, 72)?;
    let found_store = StoreId::from_bytes(raw.store_id);
    RULES.require(
        store.is_none_or(|expected| *expected == found_store),
        Rule::Identity,
        16,
        0,
        0,
    )?;
    let kind =
        SegmentKind::from_code(raw.kind).ok_or(RULES.breaks(Rule::Kind, 12, 1, u64::from(raw.kind)))?;
    RULES.require(raw.segment.get() != 0, Rule::Zero, 32, 1, 0)?;
    RULES.require(raw.generation.get() != 0, Rule::Zero, 40, 1, 0)?;
    let alignment = u64::from(raw.alignment.get());
    RULES.require(alignment == 4096, Rule::Alignment, 44, 4096, alignment)?;
    let length = raw.segment_bytes.get();
    RULES.require(
        length <= SEGMENT_BYTES_MAX,
        Rule::Limit,
        48,
        SEGMENT_BYTES_MAX,
        length,
    )?;
    let header_bytes = crate::convert::wide(SEGMENT_HEADER_BYTES);
    RULES.require(length >= header_bytes, Rule::Bounds, 48, header_bytes, length)?;
    let step = crate::convert::wide(BLOCK_ALIGNMENT);
    RULES.require(length.is_multiple_of(step), Rule::Alignment, 48, step, length)?;
    Ok(SegmentHeader {
        format,
        kind,
        store: found_store,
        segment: SegmentId::new(raw.segment.get()),
        generation: Generation::new(raw.generation.get()),
        segment_bytes: ByteLength::new(length),
        first_version: Version::new(raw.first_version.get()),
        time_ms: raw.time_ms.get(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{STORE, assert_flips_and_truncations_are_refused};

    fn header(kind: SegmentKind) -> SegmentHeader {
        SegmentHeader {
            format: FormatVersion::CURRENT,
            kind,
            store: STORE,
            segment: SegmentId::new(3),
            generation: Generation::new(2),
            segment_bytes: ByteLength::new(1 << 20),
            first_version: Version::new(70),
            time_ms: 5,
        }
    }

    fn encoded(header: &SegmentHeader) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut out = [0xEE; SEGMENT_HEADER_BYTES];
        header.encode(&mut out);
        out
    }

    #[test]
    fn what_is_written_is_read() {
        for kind in [SegmentKind::Journal, SegmentKind::Slabs] {
            let found = SegmentHeader::decode(&encoded(&header(kind)), Some(&STORE));
            assert_eq!(found, Found::Valid(header(kind)));
        }
    }

    #[test]
    fn a_flipped_bit_or_a_cut_end_is_refused() {
        let bytes = encoded(&header(SegmentKind::Slabs));
        assert_flips_and_truncations_are_refused(&bytes, |bytes| SegmentHeader::decode(bytes, None));
    }

    #[test]
    fn a_segment_of_another_store_is_refused_if_the_store_is_known() {
        let bytes = encoded(&header(SegmentKind::Slabs));
        let other = StoreId::from_bytes([9; 16]);
        assert!(SegmentHeader::decode(&bytes, None).is_valid());
        let found = SegmentHeader::decode(&bytes, Some(&other));
        assert!(matches!(
            found,
            Found::Invalid(FormatError {
                rule: Rule::Identity,
                ..
            })
        ));
    }

    #[test]
    fn a_segment_that_was_swapped_or_cut_short_does_not_fit_its_file() {
        let header = header(SegmentKind::Journal);
        let check = |segment, kind, bytes| {
            header
                .check_file(SegmentId::new(segment), kind, bytes)
                .map_err(|error| error.rule)
        };
        assert_eq!(check(3, SegmentKind::Journal, 1 << 20), Ok(()));
        assert_eq!(
            check(3, SegmentKind::Journal, 1 << 21),
            Ok(()),
            "a file that grew loses nothing"
        );
        assert_eq!(check(4, SegmentKind::Journal, 1 << 20), Err(Rule::Identity));
        assert_eq!(check(3, SegmentKind::Slabs, 1 << 20), Err(Rule::Kind));
        assert_eq!(
            check(3, SegmentKind::Journal, (1 << 20) - 1),
            Err(Rule::Truncated)
        );
    }

    #[test]
    fn rules_behind_a_fitting_checksum_are_checked() {
        let with = |at: usize, value: &[u8]| {
            let mut bytes = encoded(&header(SegmentKind::Slabs));
            bytes[at..at + value.len()].copy_from_slice(value);
            let crc = crate::checksum::crc32(0, &bytes[..4092]);
            bytes[4092..].copy_from_slice(&crc.to_le_bytes());
            match SegmentHeader::decode(&bytes, Some(&STORE)) {
                Found::Invalid(error) => error.rule,
                other => panic!("accepted: {other:?}"),
            }
        };
        assert_eq!(with(0, b"X"), Rule::Magic);
        assert_eq!(with(8, &[2]), Rule::NewerVersion);
        assert_eq!(with(8, &[0]), Rule::Kind);
        assert_eq!(with(12, &[3]), Rule::Kind);
        assert_eq!(with(13, &[1]), Rule::Reserved);
        assert_eq!(with(32, &[0; 8]), Rule::Zero);
        assert_eq!(with(40, &[0; 4]), Rule::Zero);
        assert_eq!(with(44, &[1]), Rule::Alignment);
        assert_eq!(with(48, &u64::MAX.to_le_bytes()), Rule::Limit);
        assert_eq!(with(48, &0_u64.to_le_bytes()), Rule::Bounds);
        assert_eq!(with(48, &5000_u64.to_le_bytes()), Rule::Alignment);
        assert_eq!(with(72, &[1]), Rule::Reserved);
    }
}
