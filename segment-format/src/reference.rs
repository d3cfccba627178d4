//! References: how a structure names a block.

use crate::block::{BlockHeader, BlockKind, Place, Sealed};
use crate::error::{FormatError, Rule, Structure};
use crate::ids::{ByteLength, Crc, Generation, Position, SegmentId, StoreId, Version};
use crate::limits::BLOCK_BYTES_MAX;
use zerocopy::little_endian::{U16, U32, U64};

wire_struct! {
    struct RawReference is "Reference", 48 bytes {
        0 kind: u8,
        1 target: u8,
        2 reserved: U16,
        4 generation: U32,
        8 segment: U64,
        16 position: U64,
        24 bytes: U64,
        32 version: U64,
        40 header_crc: U32,
        44 reserved_44: U32,
    }
}

/// Where the referred block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReferenceKind {
    /// In a segment of this store.
    Local,
    /// Nowhere: there is no block, or it was deleted.
    Empty,
    /// In another storage.
    Remote,
    /// It was in a segment of this store and is known to be lost.
    Lost,
}

impl ReferenceKind {
    const fn code(self) -> u8 {
        match self {
            Self::Local => 1,
            Self::Empty => 2,
            Self::Remote => 3,
            Self::Lost => 4,
        }
    }

    const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Local),
            2 => Some(Self::Empty),
            3 => Some(Self::Remote),
            4 => Some(Self::Lost),
            _ => None,
        }
    }
}

/// How a structure names a block: where it is, which life of the file, which version, and the checksum of its header,
/// so that a block cannot be taken for another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Reference {
    /// Where the block is.
    pub kind: ReferenceKind,
    /// What kind of block it is; `None` if empty.
    pub target: Option<BlockKind>,
    /// Life of the segment file in which the block was written.
    pub generation: Generation,
    /// The block's segment.
    pub segment: SegmentId,
    /// The block's first byte.
    pub position: Position,
    /// The block's length without its padding.
    pub bytes: ByteLength,
    /// The version that the block's header carries.
    pub version: Version,
    /// The checksum of the block's header.
    pub header_crc: Crc,
}

impl Reference {
    /// Refers to nothing.
    pub const EMPTY: Self = Self {
        kind: ReferenceKind::Empty,
        target: None,
        generation: Generation::ZERO,
        segment: SegmentId::ZERO,
        position: Position::ZERO,
        bytes: ByteLength::ZERO,
        version: Version::ZERO,
        header_crc: Crc::ZERO,
    };

    /// Refers to a block of this store that was just encoded.
    pub fn local(target: BlockKind, identity: &crate::block::BlockIdentity, sealed: &Sealed) -> Self {
        Self {
            kind: ReferenceKind::Local,
            target: Some(target),
            generation: identity.generation,
            segment: identity.segment,
            position: identity.position,
            bytes: ByteLength::new(u64::from(sealed.block_bytes)),
            version: identity.version,
            header_crc: sealed.header_crc,
        }
    }

    /// Refers to a block of this store that was found.
    pub fn to_block(header: &BlockHeader) -> Self {
        let sealed = Sealed {
            block_bytes: header.block_bytes,
            header_crc: header.header_crc,
        };
        Self::local(header.kind, &header.identity, &sealed)
    }

    /// Whether it refers to nothing.
    pub const fn is_empty(&self) -> bool {
        matches!(self.kind, ReferenceKind::Empty)
    }

    /// Whether it refers to a block of this store.
    pub const fn is_local(&self) -> bool {
        matches!(self.kind, ReferenceKind::Local)
    }

    /// Where a reader looks for the block.
    pub const fn place(&self, store: StoreId) -> Place {
        Place {
            store,
            segment: self.segment,
            generation: self.generation,
            position: self.position,
        }
    }

    /// Whether the block that was found is the one referred to.
    ///
    /// # Errors
    ///
    /// [`Rule::Kind`] or [`Rule::Identity`] if it is another one.
    pub fn check(&self, header: &BlockHeader) -> Result<(), FormatError> {
        let found = Self::to_block(header);
        let rule = Structure::Reference;
        let code = |reference: &Self| reference.target.map_or(0, |target| u64::from(target.code()));
        rule.require(
            found.target == self.target,
            Rule::Kind,
            1,
            code(self),
            code(&found),
        )?;
        let pairs = [
            (
                4,
                u64::from(self.generation.get()),
                u64::from(found.generation.get()),
            ),
            (8, self.segment.get(), found.segment.get()),
            (16, self.position.get(), found.position.get()),
            (24, self.bytes.get(), found.bytes.get()),
            (32, self.version.get(), found.version.get()),
            (
                40,
                u64::from(self.header_crc.get()),
                u64::from(found.header_crc.get()),
            ),
        ];
        pairs.into_iter().try_for_each(|(at, expected, found)| {
            rule.require(expected == found, Rule::Identity, at, expected, found)
        })
    }

    pub(crate) fn to_raw(self) -> RawReference {
        RawReference {
            kind: self.kind.code(),
            target: self.target.map_or(0, BlockKind::code),
            reserved: U16::ZERO,
            generation: U32::new(self.generation.get()),
            segment: U64::new(self.segment.get()),
            position: U64::new(self.position.get()),
            bytes: U64::new(self.bytes.get()),
            version: U64::new(self.version.get()),
            header_crc: U32::new(self.header_crc.get()),
            reserved_44: U32::ZERO,
        }
    }

    /// The reference in use, from the reference as found; `at` is its position, for the error.
    pub(crate) fn from_raw(raw: &RawReference, at: u64) -> Result<Self, FormatError> {
        let rule = Structure::Reference;
        let kind = ReferenceKind::from_code(raw.kind).ok_or(rule.breaks(
            Rule::Kind,
            at,
            u64::from(ReferenceKind::Local.code()),
            u64::from(raw.kind),
        ))?;
        let reserved = u64::from(raw.reserved.get()) | u64::from(raw.reserved_44.get());
        rule.require(reserved == 0, Rule::Reserved, at, 0, reserved)?;
        let reference = Self {
            kind,
            target: BlockKind::from_code(raw.target),
            generation: Generation::new(raw.generation.get()),
            segment: SegmentId::new(raw.segment.get()),
            position: Position::new(raw.position.get()),
            bytes: ByteLength::new(raw.bytes.get()),
            version: Version::new(raw.version.get()),
            header_crc: Crc::new(raw.header_crc.get()),
        };
        if kind == ReferenceKind::Empty {
            let empty = reference == Self::EMPTY && raw.target == 0;
            rule.require(empty, Rule::Reserved, at, 0, u64::from(raw.target))?;
            return Ok(reference);
        }
        rule.require(
            reference.target.is_some(),
            Rule::Kind,
            at,
            1,
            u64::from(raw.target),
        )?;
        let (bytes, limit) = (reference.bytes.get(), u64::from(BLOCK_BYTES_MAX));
        rule.require((64..=limit).contains(&bytes), Rule::Limit, at, limit, bytes)?;
        let position = reference.position.get();
        // A crash leaves no such position; only another program does. The sum is what a reader will compute next.
        rule.require(position.is_multiple_of(64), Rule::Alignment, at, 64, position)?;
        rule.require(
            position.checked_add(bytes).is_some(),
            Rule::Bounds,
            at,
            u64::MAX,
            position,
        )?;
        Ok(reference)
    }

    /// As [`Self::from_raw`], and the reference is empty or names a block of the kind `target`.
    pub(crate) fn from_raw_to(raw: &RawReference, target: BlockKind, at: u64) -> Result<Self, FormatError> {
        let reference = Self::from_raw(raw, at)?;
        let fits = reference.target.is_none_or(|found| found == target);
        let (expected, found) = (u64::from(target.code()), u64::from(raw.target));
        Structure::Reference.require(fits, Rule::Kind, at, expected, found)?;
        Ok(reference)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{decode_block_header, encode_block_header};
    use crate::testing::{identity, place};
    use zerocopy::IntoBytes;

    fn reference() -> Reference {
        let sealed = Sealed {
            block_bytes: 5000,
            header_crc: Crc::new(0xFEDC),
        };
        Reference::local(BlockKind::Slab, &identity(), &sealed)
    }

    #[test]
    fn what_is_written_is_read() {
        let kinds = [ReferenceKind::Local, ReferenceKind::Remote, ReferenceKind::Lost];
        let all = kinds.map(|kind| Reference { kind, ..reference() });
        for reference in all.into_iter().chain([Reference::EMPTY]) {
            assert_eq!(Reference::from_raw(&reference.to_raw(), 0), Ok(reference));
        }
        assert!(Reference::EMPTY.is_empty() && reference().is_local());
    }

    #[test]
    fn bytes_that_break_a_rule_are_no_reference() {
        let with = |original: Reference, at: usize, value: &[u8]| {
            let mut raw = original.to_raw();
            raw.as_mut_bytes()[at..at + value.len()].copy_from_slice(value);
            Reference::from_raw(&raw, 0).unwrap_err().rule
        };
        assert_eq!(with(reference(), 0, &[0; 48]), Rule::Kind, "zeros");
        assert_eq!(with(reference(), 0, &[5]), Rule::Kind);
        assert_eq!(with(reference(), 1, &[0]), Rule::Kind);
        assert_eq!(with(reference(), 1, &[8]), Rule::Kind);
        assert_eq!(with(reference(), 2, &[1]), Rule::Reserved);
        assert_eq!(with(reference(), 44, &[1]), Rule::Reserved);
        assert_eq!(with(reference(), 16, &[1]), Rule::Alignment);
        assert_eq!(
            with(reference(), 16, &(u64::MAX - 63).to_le_bytes()),
            Rule::Bounds
        );
        assert_eq!(with(reference(), 24, &63_u64.to_le_bytes()), Rule::Limit);
        assert_eq!(with(reference(), 24, &u64::MAX.to_le_bytes()), Rule::Limit);
        for at in [1, 4, 8, 16, 24, 32, 40] {
            assert_eq!(
                with(Reference::EMPTY, at, &[1]),
                Rule::Reserved,
                "byte {at} of an empty reference"
            );
        }
    }

    #[test]
    fn only_the_block_that_was_meant_fits() {
        let mut out = vec![0; 64];
        let header_crc = encode_block_header(&identity(), BlockKind::Slab, 5000, 1, &mut out).unwrap();
        let header = decode_block_header(&out, &place()).valid().unwrap();
        let meant = Reference {
            header_crc,
            ..reference()
        };
        assert_eq!(meant.check(&header), Ok(()));
        assert_eq!(Reference::to_block(&header), meant);
        assert_eq!(meant.place(place().store), place());
        let others = [
            (
                Reference {
                    target: Some(BlockKind::Node),
                    ..meant
                },
                Rule::Kind,
            ),
            (
                Reference {
                    version: Version::new(76),
                    ..meant
                },
                Rule::Identity,
            ),
            (
                Reference {
                    bytes: ByteLength::new(4999),
                    ..meant
                },
                Rule::Identity,
            ),
            (
                Reference {
                    header_crc: Crc::new(1),
                    ..meant
                },
                Rule::Identity,
            ),
            (
                Reference {
                    generation: Generation::new(1),
                    ..meant
                },
                Rule::Identity,
            ),
        ];
        for (other, rule) in others {
            assert_eq!(other.check(&header).unwrap_err().rule, rule);
        }
    }
}
