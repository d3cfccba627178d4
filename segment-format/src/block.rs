//! The header that every block begins with, and the identity that every checksum of a block covers.
//!
//! Invariants: a block decodes only in the store, segment, life of the file and position that it was written for; a
//! length is not known before the header's checksum has been compared.

use crate::checksum::crc32;
use crate::convert::{index, part, put, read, wide, write, zero};
use crate::error::{FormatError, Found, Rule, Structure};
use crate::ids::{Crc, Generation, Position, SegmentId, StoreId, Version};
use crate::limits::BLOCK_BYTES_MAX;
use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U32, U64};

/// Blocks begin at multiples of this.
pub const BLOCK_ALIGNMENT: usize = 4096;

/// Slabs in a gathered block begin at multiples of this.
pub const GATHERED_ALIGNMENT: usize = 64;

/// Length of a block's header.
pub const BLOCK_HEADER_BYTES: usize = 64;

const MAGIC: u32 = 0x424E_544C;
const LAYOUT: u8 = 1;
const CRC_AT: usize = 60;
const RULES: Structure = Structure::BlockHeader;

wire_struct! {
    struct RawBlockHeader is "BlockHeader", 64 bytes {
        0 magic: U32,
        4 kind: u8,
        5 layout: u8,
        6 flags: U16,
        8 block_bytes: U32,
        12 payload_crc: U32,
        16 segment: U64,
        24 position: U64,
        32 version: U64,
        40 generation: U32,
        44 reserved: [u8; 16],
        60 header_crc: U32,
    }
}

wire_struct! {
    struct RawIdentity is "Identity", 44 bytes {
        0 store_id: [u8; 16],
        16 segment: U64,
        24 generation: U32,
        28 position: U64,
        36 version: U64,
    }
}

/// What a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BlockKind {
    /// One commit.
    Commit,
    /// A slab.
    Slab,
    /// A tree node.
    Node,
    /// A checkpoint.
    Checkpoint,
    /// Small slabs gathered.
    Gathered,
    /// A page of the catalog.
    CatalogPage,
    /// A page of the garbage log; reserved.
    Garbage,
}

impl BlockKind {
    /// The number that stands for the kind on disk.
    pub const fn code(self) -> u8 {
        match self {
            Self::Commit => 1,
            Self::Slab => 2,
            Self::Node => 3,
            Self::Checkpoint => 4,
            Self::Gathered => 5,
            Self::CatalogPage => 6,
            Self::Garbage => 7,
        }
    }

    /// The kind that a number stands for.
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Commit),
            2 => Some(Self::Slab),
            3 => Some(Self::Node),
            4 => Some(Self::Checkpoint),
            5 => Some(Self::Gathered),
            6 => Some(Self::CatalogPage),
            7 => Some(Self::Garbage),
            _ => None,
        }
    }
}

/// Where and when a block is written: part of each of its checksums.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BlockIdentity {
    /// The store.
    pub store: StoreId,
    /// The segment.
    pub segment: SegmentId,
    /// The life of the segment's file.
    pub generation: Generation,
    /// The block's first byte in the segment.
    pub position: Position,
    /// The version in which the block was written.
    pub version: Version,
}

impl BlockIdentity {
    /// The seed of all checksums of the block.
    pub fn seed(&self) -> u32 {
        let raw = RawIdentity {
            store_id: *self.store.bytes(),
            segment: U64::new(self.segment.get()),
            generation: U32::new(if crate::weakened!("generation-unseeded") {
                0
            } else {
                self.generation.get()
            }),
            position: U64::new(if crate::weakened!("position-unseeded") {
                0
            } else {
                self.position.get()
            }),
            version: U64::new(self.version.get()),
        };
        crc32(0, raw.as_bytes())
    }
}

/// What a reader knows of a block before reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// The store.
    pub store: StoreId,
    /// The segment.
    pub segment: SegmentId,
    /// The life of the segment's file.
    pub generation: Generation,
    /// The block's first byte in the segment.
    pub position: Position,
}

impl Place {
    /// The identity of a block written here in `version`.
    pub const fn identity(&self, version: Version) -> BlockIdentity {
        let Self {
            store,
            segment,
            generation,
            position,
        } = *self;
        BlockIdentity {
            store,
            segment,
            generation,
            position,
            version,
        }
    }
}

/// A block's header, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BlockHeader {
    /// What the block is.
    pub kind: BlockKind,
    /// Its length without the padding up to the next block.
    pub block_bytes: u32,
    /// Checksum of the parts that the kind says.
    pub payload_crc: Crc,
    /// Where and when it was written.
    pub identity: BlockIdentity,
    /// Checksum of the header.
    pub header_crc: Crc,
}

/// What encoding a block yields: all that a reference to it needs beside its identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// The block's length without the padding.
    pub block_bytes: u32,
    /// Checksum of the block's header.
    pub header_crc: Crc,
}

/// The room that a block takes in its segment: its length rounded up to 4 KiB.
pub fn aligned_block_bytes(block_bytes: u32) -> u64 {
    u64::from(block_bytes).next_multiple_of(wide(BLOCK_ALIGNMENT))
}

/// Writes a block's header to the first 64 bytes of `out` and returns its checksum.
///
/// # Errors
///
/// [`Rule::NoRoom`] if `out` is shorter than the header, [`Rule::Limit`] if `block_bytes` exceeds the limit.
pub fn encode_block_header(
    identity: &BlockIdentity,
    kind: BlockKind,
    block_bytes: u32,
    payload_crc: u32,
    out: &mut [u8],
) -> Result<Crc, FormatError> {
    check_length(block_bytes)?;
    let mut raw = RawBlockHeader {
        magic: U32::new(MAGIC),
        kind: kind.code(),
        layout: LAYOUT,
        flags: U16::ZERO,
        block_bytes: U32::new(block_bytes),
        payload_crc: U32::new(payload_crc),
        segment: U64::new(identity.segment.get()),
        position: U64::new(identity.position.get()),
        version: U64::new(identity.version.get()),
        generation: U32::new(identity.generation.get()),
        reserved: [0; 16],
        header_crc: U32::ZERO,
    };
    let header_crc = crc32(identity.seed(), part(raw.as_bytes(), 0, CRC_AT, RULES)?);
    raw.header_crc = U32::new(header_crc);
    write(out, 0, &raw, RULES)?;
    Ok(Crc::new(header_crc))
}

fn check_length(block_bytes: u32) -> Result<(), FormatError> {
    let (least, most) = (wide(BLOCK_HEADER_BYTES), u64::from(BLOCK_BYTES_MAX));
    let found = u64::from(block_bytes);
    RULES.require(found <= most, Rule::Limit, 8, most, found)?;
    RULES.require(found >= least, Rule::Bounds, 8, least, found)
}

/// Reads the header of the block at `place`. `bytes` begins with the block and may end with its header.
pub fn decode_block_header(bytes: &[u8], place: &Place) -> Found<BlockHeader> {
    let bytes = match part(bytes, 0, BLOCK_HEADER_BYTES, RULES) {
        Ok(bytes) => bytes,
        Err(error) => return Found::Invalid(error),
    };
    if bytes.iter().all(|byte| *byte == 0) {
        return Found::Empty;
    }
    Found::Valid(()).and_then(|()| decode_written(bytes, place))
}

fn decode_written(bytes: &[u8], place: &Place) -> Result<BlockHeader, FormatError> {
    let raw: RawBlockHeader = read(bytes, 0, RULES)?;
    let covered = part(bytes, 0, CRC_AT, RULES)?;
    let identity = place.identity(Version::new(raw.version.get()));
    let computed = crc32(identity.seed(), covered);
    if computed != raw.header_crc.get() && !crate::weakened!("block-header-unchecked") {
        return Err(explain_checksum(&raw, covered, place, computed));
    }
    check_magic(&raw)?;
    check_place(&raw, place)?;
    let kind = BlockKind::from_code(raw.kind).ok_or(RULES.breaks(Rule::Kind, 4, 1, u64::from(raw.kind)))?;
    RULES.require(
        raw.layout == LAYOUT,
        Rule::Layout,
        5,
        u64::from(LAYOUT),
        u64::from(raw.layout),
    )?;
    RULES.require(
        raw.flags.get() == 0,
        Rule::Flags,
        6,
        0,
        u64::from(raw.flags.get()),
    )?;
    RULES.require(raw.reserved == [0; 16], Rule::Reserved, 44, 0, 1)?;
    check_length(raw.block_bytes.get())?;
    Ok(BlockHeader {
        kind,
        block_bytes: raw.block_bytes.get(),
        payload_crc: Crc::new(raw.payload_crc.get()),
        identity,
        header_crc: Crc::new(computed),
    })
}

fn check_magic(raw: &RawBlockHeader) -> Result<(), FormatError> {
    RULES.require(
        raw.magic.get() == MAGIC,
        Rule::Magic,
        0,
        u64::from(MAGIC),
        u64::from(raw.magic.get()),
    )
}

fn check_place(raw: &RawBlockHeader, place: &Place) -> Result<(), FormatError> {
    let generation = u64::from(place.generation.get());
    let pairs = [
        (16, place.segment.get(), raw.segment.get()),
        (24, place.position.get(), raw.position.get()),
        (40, generation, u64::from(raw.generation.get())),
    ];
    pairs.into_iter().try_for_each(|(at, expected, found)| {
        RULES.require(expected == found, Rule::Identity, at, expected, found)
    })
}

/// A header that does not fit its place is refused in any case; this only finds the words. A block that is whole in
/// the place that it names itself is a stale or misplaced one, which is no damage of the disk.
fn explain_checksum(raw: &RawBlockHeader, covered: &[u8], place: &Place, computed: u32) -> FormatError {
    let own = BlockIdentity {
        store: place.store,
        segment: SegmentId::new(raw.segment.get()),
        generation: Generation::new(raw.generation.get()),
        position: Position::new(raw.position.get()),
        version: Version::new(raw.version.get()),
    };
    let whole = crc32(own.seed(), covered) == raw.header_crc.get();
    let error = RULES.breaks(
        Rule::Checksum,
        wide(CRC_AT),
        u64::from(computed),
        u64::from(raw.header_crc.get()),
    );
    let misplaced = if whole {
        check_place(raw, place).err()
    } else {
        None
    };
    check_magic(raw).err().or(misplaced).unwrap_or(error)
}

/// The header of the block at `place`, which must be of the kind `kind`, and the block's bytes without its padding.
pub(crate) fn open_block<'a>(
    bytes: &'a [u8],
    place: &Place,
    kind: BlockKind,
    rules: Structure,
) -> Found<(BlockHeader, &'a [u8])> {
    decode_block_header(bytes, place).and_then(|header| {
        let (expected, found) = (u64::from(kind.code()), u64::from(header.kind.code()));
        rules.require(expected == found, Rule::Kind, 4, expected, found)?;
        Ok((header, part(bytes, 0, index(header.block_bytes), rules)?))
    })
}

/// As [`open_block`], for blocks whose payload checksum covers everything behind the header.
pub(crate) fn open_whole_block<'a>(
    bytes: &'a [u8],
    place: &Place,
    kind: BlockKind,
    rules: Structure,
) -> Found<(BlockHeader, &'a [u8])> {
    open_block(bytes, place, kind, rules).and_then(|(header, block)| {
        let covered = block.get(BLOCK_HEADER_BYTES..).unwrap_or_default();
        let computed = crc32(header.identity.seed(), covered);
        check_payload(&header, computed, rules)?;
        Ok((header, block))
    })
}

pub(crate) fn check_payload(
    header: &BlockHeader,
    computed: u32,
    rules: Structure,
) -> Result<(), FormatError> {
    let (expected, found) = (u64::from(computed), u64::from(header.payload_crc.get()));
    let holds = expected == found || crate::weakened!("payload-unchecked");
    rules.require(holds, Rule::Checksum, 12, expected, found)
}

/// Appends a block to `out`: a header, then what `payload` writes, whose checksum covers all of it, then zeros up to
/// the next multiple of 4 KiB from the block's beginning.
pub(crate) fn append_whole_block(
    identity: &BlockIdentity,
    kind: BlockKind,
    payload_bytes: u32,
    out: &mut Vec<u8>,
    payload: impl FnOnce(&mut [u8]) -> Result<(), FormatError>,
) -> Result<Sealed, FormatError> {
    let block_bytes = payload_bytes.saturating_add(64);
    check_length(block_bytes)?;
    let start = out.len();
    let room = index(block_bytes).next_multiple_of(BLOCK_ALIGNMENT);
    out.resize(start.saturating_add(room), 0);
    let block = out.get_mut(start..).unwrap_or_default();
    let sealed = fill_block(identity, kind, block_bytes, block, payload);
    if sealed.is_err() {
        out.truncate(start);
    }
    sealed
}

fn fill_block(
    identity: &BlockIdentity,
    kind: BlockKind,
    block_bytes: u32,
    block: &mut [u8],
    payload: impl FnOnce(&mut [u8]) -> Result<(), FormatError>,
) -> Result<Sealed, FormatError> {
    let available = wide(block.len());
    let no_room = RULES.breaks(Rule::NoRoom, 0, u64::from(block_bytes), available);
    let target = block
        .get_mut(BLOCK_HEADER_BYTES..index(block_bytes))
        .ok_or(no_room)?;
    payload(target)?;
    let payload_crc = crc32(identity.seed(), target);
    let header_crc = encode_block_header(identity, kind, block_bytes, payload_crc, block)?;
    Ok(Sealed {
        block_bytes,
        header_crc,
    })
}

/// Zeros behind a block, up to the next multiple of 4 KiB or the end of `out`, whichever comes first.
pub(crate) fn zero_padding(out: &mut [u8], block_bytes: u32, rules: Structure) -> Result<(), FormatError> {
    let end = index(block_bytes)
        .next_multiple_of(BLOCK_ALIGNMENT)
        .min(out.len());
    zero(out, index(block_bytes), end, rules)
}

/// Copies of structures one after the other.
pub(crate) struct Filler<'a> {
    out: &'a mut [u8],
    at: usize,
    rules: Structure,
}

impl<'a> Filler<'a> {
    pub(crate) fn new(out: &'a mut [u8], rules: Structure) -> Self {
        Self { out, at: 0, rules }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<(), FormatError> {
        put(self.out, self.at, bytes, self.rules)?;
        self.at = self.at.saturating_add(bytes.len());
        Ok(())
    }

    /// Leaves bytes as they are.
    pub(crate) fn skip(&mut self, bytes: usize) {
        self.at = self.at.saturating_add(bytes);
    }

    pub(crate) fn pad_to_8(&mut self) -> Result<(), FormatError> {
        let end = self.at.next_multiple_of(8);
        zero(self.out, self.at, end, self.rules)?;
        self.at = end;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_block_is_guarded, bless, identity, other_places, place};

    fn header() -> Vec<u8> {
        let mut out = vec![0; 64];
        encode_block_header(&identity(), BlockKind::Node, 4000, 0x1234, &mut out).unwrap();
        out
    }

    #[test]
    fn what_is_written_is_read() {
        let out = header();
        let found = decode_block_header(&out, &place()).valid().unwrap();
        assert_eq!(
            (found.kind, found.block_bytes, found.payload_crc),
            (BlockKind::Node, 4000, Crc::new(0x1234))
        );
        assert_eq!(found.identity, identity());
    }

    #[test]
    fn a_header_decodes_only_whole_and_in_its_own_place() {
        assert_block_is_guarded(&header(), decode_block_header);
    }

    #[test]
    fn a_stale_or_misplaced_block_is_told_from_a_damaged_one() {
        let rule = |bytes: &[u8], place: &Place| match decode_block_header(bytes, place) {
            Found::Invalid(error) => error.rule,
            other => panic!("{other:?}"),
        };
        let out = header();
        let rules: Vec<Rule> = other_places().iter().map(|place| rule(&out, place)).collect();
        // The header does not carry the store's id, so another store's block cannot be told from a damaged one.
        assert_eq!(
            rules,
            [Rule::Checksum, Rule::Identity, Rule::Identity, Rule::Identity]
        );
        let mut damaged = out.clone();
        damaged[9] ^= 1;
        assert_eq!(rule(&damaged, &place()), Rule::Checksum);
        assert_eq!(rule(&[0x55; 64], &place()), Rule::Magic);
    }

    #[test]
    fn rules_behind_a_fitting_checksum_are_checked() {
        let with = |at: usize, bytes: &[u8]| {
            let mut out = header();
            out[at..at + bytes.len()].copy_from_slice(bytes);
            bless(&mut out, &[]);
            match decode_block_header(&out, &place()) {
                Found::Invalid(error) => error.rule,
                other => panic!("accepted: {other:?}"),
            }
        };
        assert_eq!(with(0, b"X"), Rule::Magic);
        assert_eq!(with(4, &[0]), Rule::Kind);
        assert_eq!(with(4, &[8]), Rule::Kind);
        assert_eq!(with(5, &[2]), Rule::Layout);
        assert_eq!(with(6, &[1]), Rule::Flags);
        assert_eq!(with(8, &63_u32.to_le_bytes()), Rule::Bounds);
        assert_eq!(with(8, &u32::MAX.to_le_bytes()), Rule::Limit);
        assert_eq!(with(16, &[9]), Rule::Identity);
        assert_eq!(with(24, &[9]), Rule::Identity);
        assert_eq!(with(40, &[9]), Rule::Identity);
        assert_eq!(with(44, &[1]), Rule::Reserved);
        assert_eq!(with(59, &[1]), Rule::Reserved);
    }

    #[test]
    fn kinds_survive_their_codes() {
        let kinds: Vec<BlockKind> = (0..=255).filter_map(BlockKind::from_code).collect();
        assert_eq!(kinds.len(), 7);
        assert!(
            kinds
                .iter()
                .all(|kind| BlockKind::from_code(kind.code()) == Some(*kind))
        );
    }

    #[test]
    fn what_cannot_be_encoded_leaves_the_output_as_it_was() {
        let mut out = vec![1, 2, 3];
        let refused = append_whole_block(&identity(), BlockKind::Node, u32::MAX, &mut out, |_| Ok(()));
        assert_eq!(refused.unwrap_err().rule, Rule::Limit);
        let error = RULES.breaks(Rule::Count, 0, 0, 0);
        let refused = append_whole_block(&identity(), BlockKind::Node, 100, &mut out, |_| Err(error));
        assert_eq!((refused, out), (Err(error), vec![1, 2, 3]));
    }
}
