//! Tree nodes: where the offsets of a subtree are.
//!
//! Invariant: all offsets are relative to the node, so that logs can share it.

use crate::block::{
    BLOCK_HEADER_BYTES, BlockIdentity, BlockKind, Filler, Place, Sealed, append_whole_block, open_whole_block,
};
use crate::convert::{index, narrow, part, read, wide};
use crate::error::{FormatError, Found, Rule, Structure};
use crate::key_sketch::{KEY_SKETCH_BYTES_MAX, KeySketch};
use crate::limits::{NODE_ENTRIES_MAX, NODE_LEVEL_MAX};
use crate::reference::{RawReference, Reference};
use crate::summary::{HISTOGRAM_BUCKETS, Histogram64, RawSummary, Summary};
use zerocopy::IntoBytes;
use zerocopy::little_endian::{U32, U64};

const RULES: Structure = Structure::Node;
const SUMMARY_AT: usize = 128;
const HISTOGRAM_AT: usize = 192;

/// Where the entries begin, from the block's beginning.
pub const NODE_ENTRIES_POSITION: usize = 448;

/// Length of an entry.
pub const NODE_ENTRY_BYTES: usize = 128;

const _: () = assert!(HISTOGRAM_AT + size_of::<[U64; HISTOGRAM_BUCKETS]>() == NODE_ENTRIES_POSITION);
/// Length of the length of an entry's sketch.
const LENGTH_BYTES: usize = 2;

const _: () = assert!(size_of::<RawNodeEntry>() == NODE_ENTRY_BYTES);
const _: () = assert!(KEY_SKETCH_BYTES_MAX < 1 << 16);

wire_struct! {
    struct RawNodeHeader is "NodeHeader", 64 bytes {
        0 level: u8,
        1 reserved_1: [u8; 3],
        4 entry_count: U32,
        8 offset_count: U64,
        16 key_sketches_bytes: U32,
        20 reserved: [u8; 44],
    }
}

wire_struct! {
    struct RawNodeEntry is "NodeEntry", 128 bytes {
        0 offset_end: U64,
        8 skip: U64,
        16 reference: RawReference,
        64 summary: RawSummary,
    }
}

/// A child of a node: a slab at level 0, a node of the next lower level otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeEntry {
    /// Where its offsets end, counted from the node's first.
    pub offset_end: u64,
    /// Offsets at the slab's front that do not belong to the tree; 0 above level 0.
    pub skip: u64,
    /// The child; empty if its offsets were deleted with their space.
    pub reference: Reference,
    /// What the child holds, as far as it belongs to the tree.
    pub summary: Summary,
    /// Its keys; empty though the summary has bytes of keys if nobody looked at them. Keys of what was cut off may be there.
    pub keys: KeySketch,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeParts {
    /// 0 if the entries are slabs.
    pub level: u8,
    /// The children in the order of their offsets.
    pub entries: Vec<NodeEntry>,
    /// What the subtree holds.
    pub summary: Summary,
    /// Lengths of the subtree's values.
    pub histogram: Histogram64,
}

impl NodeParts {
    /// Number of offsets of the subtree.
    pub fn offset_count(&self) -> u64 {
        self.entries.last().map_or(0, |entry| entry.offset_end)
    }

    /// Length of its block without the padding.
    pub fn encoded_bytes(&self) -> usize {
        entry_position(self.entries.len()).saturating_add(key_sketches_bytes(&self.entries))
    }

    const fn child_kind(level: u8) -> BlockKind {
        if level == 0 {
            BlockKind::Slab
        } else {
            BlockKind::Node
        }
    }

    /// The rules that hold before writing and after reading.
    fn check(&self) -> Result<(), FormatError> {
        let (limit, found) = (u64::from(NODE_LEVEL_MAX), u64::from(self.level));
        RULES.require(found <= limit, Rule::Limit, 64, limit, found)?;
        let (limit, found) = (u64::from(NODE_ENTRIES_MAX), wide(self.entries.len()));
        RULES.require(found <= limit, Rule::Limit, 68, limit, found)?;
        RULES.require(found != 0, Rule::Zero, 68, 1, 0)?;
        let mut end = 0;
        for (number, entry) in self.entries.iter().enumerate() {
            let at = wide(entry_position(number));
            RULES.require(entry.offset_end > end, Rule::Order, at, end, entry.offset_end)?;
            let count = entry.offset_end.saturating_sub(end);
            RULES.require(
                entry.skip.checked_add(count).is_some(),
                Rule::Bounds,
                at,
                u64::MAX,
                entry.skip,
            )?;
            RULES.require(self.level == 0 || entry.skip == 0, Rule::Count, at, 0, entry.skip)?;
            let wanted = Self::child_kind(self.level);
            let fits = entry.reference.target.is_none_or(|target| target == wanted);
            let found = entry
                .reference
                .target
                .map_or(0, |target| u64::from(target.code()));
            RULES.require(fits, Rule::Kind, at, u64::from(wanted.code()), found)?;
            end = entry.offset_end;
        }
        Ok(())
    }
}

fn entry_position(number: usize) -> usize {
    number
        .saturating_mul(NODE_ENTRY_BYTES)
        .saturating_add(NODE_ENTRIES_POSITION)
}

/// The most that a node with so many entries may take without its padding.
pub fn encoded_bytes_max(entry_count: usize) -> usize {
    let sketch = KEY_SKETCH_BYTES_MAX.saturating_add(LENGTH_BYTES);
    let sketches = entry_count.saturating_mul(sketch).next_multiple_of(8);
    entry_position(entry_count).saturating_add(sketches)
}

/// What stands behind the entries: the length of each one's sketch, the sketches, and zeros up to a multiple of 8; nothing if
/// no entry has one.
fn key_sketches_bytes(entries: &[NodeEntry]) -> usize {
    let bytes = entries.iter().map(|entry| entry.keys.bytes().len());
    match bytes.fold(0_usize, usize::saturating_add) {
        0 => 0,
        sum => entries
            .len()
            .saturating_mul(LENGTH_BYTES)
            .saturating_add(sum)
            .next_multiple_of(8),
    }
}

/// The sketches of `count` entries from the bytes behind them.
fn decode_key_sketches(bytes: &[u8], count: usize) -> Result<Vec<KeySketch>, FormatError> {
    if bytes.is_empty() {
        return Ok(vec![KeySketch::EMPTY; count]);
    }
    let lengths = part(bytes, 0, count.saturating_mul(LENGTH_BYTES), RULES)?;
    let mut at = lengths.len();
    let mut sketches = Vec::with_capacity(count);
    for length in lengths.as_chunks::<LENGTH_BYTES>().0 {
        let sketch = part(bytes, at, usize::from(u16::from_le_bytes(*length)), RULES)?;
        sketches.push(KeySketch::decode(sketch)?);
        at = at.saturating_add(sketch.len());
    }
    let (expected, found) = (wide(at.next_multiple_of(8)), wide(bytes.len()));
    RULES.require(expected == found, Rule::Count, 80, expected, found)?;
    // Bytes without a sketch have no form of their own.
    let is_needed = sketches.iter().any(|sketch| !sketch.is_empty());
    RULES.require(is_needed, Rule::Count, 80, 0, found)?;
    let is_padded = bytes.get(at..).unwrap_or_default().iter().all(|byte| *byte == 0);
    RULES.require(is_padded, Rule::Reserved, 80, 0, 1)?;
    Ok(sketches)
}

/// Appends a node's block to `out`, padded to 4 KiB.
///
/// # Errors
///
/// The rule that the node breaks; `out` is unchanged then.
pub fn encode(parts: &NodeParts, identity: &BlockIdentity, out: &mut Vec<u8>) -> Result<Sealed, FormatError> {
    parts.check()?;
    let key_sketches_bytes = key_sketches_bytes(&parts.entries);
    let payload_bytes = parts.encoded_bytes().saturating_sub(BLOCK_HEADER_BYTES);
    append_whole_block(
        identity,
        BlockKind::Node,
        narrow(payload_bytes, RULES, 8)?,
        out,
        |payload| {
            let header = RawNodeHeader {
                level: parts.level,
                reserved_1: [0; 3],
                entry_count: U32::new(narrow(parts.entries.len(), RULES, 68)?),
                offset_count: U64::new(parts.offset_count()),
                key_sketches_bytes: U32::new(narrow(key_sketches_bytes, RULES, 80)?),
                reserved: [0; 44],
            };
            let mut filler = Filler::new(payload, RULES);
            filler.push(header.as_bytes())?;
            filler.push(parts.summary.to_raw().as_bytes())?;
            filler.push(parts.histogram.to_raw().as_bytes())?;
            parts.entries.iter().try_for_each(|entry| {
                let raw = RawNodeEntry {
                    offset_end: U64::new(entry.offset_end),
                    skip: U64::new(entry.skip),
                    reference: entry.reference.to_raw(),
                    summary: entry.summary.to_raw(),
                };
                filler.push(raw.as_bytes())
            })?;
            fill_key_sketches(&mut filler, &parts.entries, key_sketches_bytes)
        },
    )
}

fn fill_key_sketches(
    filler: &mut Filler<'_>,
    entries: &[NodeEntry],
    bytes: usize,
) -> Result<(), FormatError> {
    if bytes == 0 {
        return Ok(());
    }
    for entry in entries {
        let length = entry.keys.bytes().len();
        // Far below the limit of 16 bits, as the assertion on it says.
        filler.push(&u16::try_from(length).unwrap_or(u16::MAX).to_le_bytes())?;
    }
    entries
        .iter()
        .try_for_each(|entry| filler.push(entry.keys.bytes()))?;
    filler.pad_to_8()
}

/// Reads the node at `place`; `bytes` may run on behind it.
pub fn decode(bytes: &[u8], place: &Place) -> Found<NodeParts> {
    open_whole_block(bytes, place, BlockKind::Node, RULES).and_then(|(_, block)| decode_block(block))
}

fn decode_block(block: &[u8]) -> Result<NodeParts, FormatError> {
    let header: RawNodeHeader = read(block, BLOCK_HEADER_BYTES, RULES)?;
    let clean = header.reserved_1 == [0; 3] && header.reserved == [0; 44];
    RULES.require(clean, Rule::Reserved, 65, 0, 1)?;
    let summary: RawSummary = read(block, SUMMARY_AT, RULES)?;
    let histogram: [U64; HISTOGRAM_BUCKETS] = read(block, HISTOGRAM_AT, RULES)?;
    // Limit and remaining bytes before anything is allocated.
    let (limit, count) = (u64::from(NODE_ENTRIES_MAX), header.entry_count.get());
    RULES.require(
        u64::from(count) <= limit,
        Rule::Limit,
        68,
        limit,
        u64::from(count),
    )?;
    let (count, sketches_bytes) = (index(count), index(header.key_sketches_bytes.get()));
    let entries_end = entry_position(count);
    let (needed, found) = (
        wide(entries_end.saturating_add(sketches_bytes)),
        wide(block.len()),
    );
    RULES.require(needed == found, Rule::Count, 68, needed, found)?;
    let keys = decode_key_sketches(part(block, entries_end, sketches_bytes, RULES)?, count)?;
    let entries = (0..count)
        .zip(keys)
        .map(|(number, keys)| decode_entry(block, number, keys));
    let parts = NodeParts {
        level: header.level,
        entries: entries.collect::<Result<_, _>>()?,
        summary: Summary::from_raw(&summary),
        histogram: Histogram64::from_raw(&histogram),
    };
    parts.check()?;
    let (expected, found) = (parts.offset_count(), header.offset_count.get());
    RULES.require(expected == found, Rule::Count, 72, expected, found)?;
    Ok(parts)
}

fn decode_entry(block: &[u8], number: usize, keys: KeySketch) -> Result<NodeEntry, FormatError> {
    let at = entry_position(number);
    let raw: RawNodeEntry = read(block, at, RULES)?;
    Ok(NodeEntry {
        offset_end: raw.offset_end.get(),
        skip: raw.skip.get(),
        reference: Reference::from_raw(&raw.reference, wide(at).saturating_add(16))?,
        summary: Summary::from_raw(&raw.summary),
        keys,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Crc;
    use crate::key_sketch::KeySketchBuilder;
    use crate::testing::{assert_block_is_guarded, bless, identity, place};

    fn parts(level: u8, count: u64) -> NodeParts {
        let sealed = Sealed {
            block_bytes: 4100,
            header_crc: Crc::new(3),
        };
        let mut summary = Summary::EMPTY;
        summary.add_message(10, 2, Some(4));
        let entries = (1..=count).map(|number| NodeEntry {
            offset_end: number * 100,
            skip: if level == 0 { number } else { 0 },
            reference: if number == 2 {
                Reference::EMPTY
            } else {
                Reference::local(NodeParts::child_kind(level), &identity(), &sealed)
            },
            summary,
            keys: KeySketch::EMPTY,
        });
        let mut histogram = Histogram64::default();
        histogram.add(10);
        NodeParts {
            level,
            entries: entries.collect(),
            summary,
            histogram,
        }
    }

    fn encoded(parts: &NodeParts) -> Vec<u8> {
        let mut out = vec![1, 2, 3];
        let sealed = encode(parts, &identity(), &mut out).unwrap();
        let mut block = out.split_off(3);
        assert_eq!(out, [1, 2, 3]);
        assert!(block.len().is_multiple_of(4096));
        assert!(block[sealed.block_bytes as usize..].iter().all(|byte| *byte == 0));
        block.truncate(sealed.block_bytes as usize);
        assert_eq!(block.len(), parts.encoded_bytes());
        block
    }

    #[test]
    fn what_is_written_is_read() {
        for (level, count) in [(0, 1), (0, 128), (1, 3), (40, 2)] {
            let parts = parts(level, count);
            assert_eq!(decode(&encoded(&parts), &place()), Found::Valid(parts));
        }
    }

    fn with_keys(level: u8, numbers: &[u64]) -> NodeParts {
        let mut parts = parts(level, numbers.len() as u64);
        for (entry, number) in parts.entries.iter_mut().zip(numbers) {
            let mut builder = KeySketchBuilder::new();
            (0..*number).for_each(|key| builder.insert(&key.to_le_bytes()));
            entry.keys = builder.finish();
        }
        parts
    }

    #[test]
    fn keys_of_children_are_written_and_read_and_cost_nothing_without() {
        for (level, numbers) in [
            (0, vec![0, 1, 5000]),
            (1, vec![7]),
            (2, vec![100_000; 128]),
            (0, vec![0, 0]),
        ] {
            let parts = with_keys(level, &numbers);
            assert_eq!(decode(&encoded(&parts), &place()), Found::Valid(parts));
        }
        let dense = encoded(&with_keys(0, &[100_000; 128]));
        assert_eq!(dense.len(), encoded_bytes_max(128));
        assert_eq!(encoded(&parts(0, 3)).len(), entry_position(3));
    }

    #[test]
    fn a_node_decodes_only_whole_and_in_its_own_place() {
        assert_block_is_guarded(&encoded(&parts(0, 3)), decode);
        assert_block_is_guarded(&encoded(&with_keys(0, &[3, 0, 1000])), decode);
    }

    #[test]
    fn what_breaks_a_rule_is_not_written() {
        let refused = |parts: NodeParts| {
            let mut out = Vec::new();
            let error = encode(&parts, &identity(), &mut out).unwrap_err();
            assert!(out.is_empty());
            error.rule
        };
        assert_eq!(refused(parts(0, 0)), Rule::Zero);
        assert_eq!(refused(parts(0, 129)), Rule::Limit);
        assert_eq!(refused(parts(41, 1)), Rule::Limit);
        assert_eq!(
            refused(NodeParts {
                level: 1,
                ..parts(0, 1)
            }),
            Rule::Count,
            "a node is never shown in part"
        );
        assert_eq!(
            refused(NodeParts {
                level: 0,
                ..parts(1, 1)
            }),
            Rule::Kind
        );
        let mut falling = parts(0, 2);
        falling.entries[1].offset_end = 100;
        assert_eq!(refused(falling), Rule::Order);
        let mut overflowing = parts(0, 1);
        overflowing.entries[0].skip = u64::MAX;
        assert_eq!(refused(overflowing), Rule::Bounds);
    }

    #[test]
    fn hostile_nodes_are_refused_behind_a_fitting_checksum() {
        let broken = |parts: &NodeParts, at: usize, bytes: &[u8]| {
            let mut block = encoded(parts);
            block[at..at + bytes.len()].copy_from_slice(bytes);
            let length = block.len();
            bless(&mut block, &[(64, length)]);
            match decode(&block, &place()) {
                Found::Invalid(error) => error.rule,
                other => panic!("accepted: {other:?}"),
            }
        };
        let with = |at: usize, bytes: &[u8]| broken(&parts(0, 3), at, bytes);
        assert_eq!(with(64, &[41]), Rule::Limit);
        assert_eq!(with(65, &[1]), Rule::Reserved);
        assert_eq!(with(68, &u32::MAX.to_le_bytes()), Rule::Limit);
        assert_eq!(with(68, &[2]), Rule::Count);
        assert_eq!(with(72, &[0]), Rule::Count);
        assert_eq!(with(84, &[1]), Rule::Reserved);
        assert_eq!(with(80, &[1]), Rule::Count);
        // Three lengths (4, 0, 2), three entries of two bytes each, four zeros.
        let keyed = with_keys(0, &[2, 0, 1]);
        let with = |at: usize, bytes: &[u8]| broken(&keyed, at, bytes);
        assert_eq!(with(80, &[0]), Rule::Count);
        assert_eq!(with(832, &[2]), Rule::Reserved);
        assert_eq!(with(832, &[0xFF, 0xFF]), Rule::Truncated);
        assert_eq!(with(832, &[3]), Rule::Alignment);
        assert_eq!(with(832, &[0; 6]), Rule::Count);
        assert_eq!(with(838, &[0]), Rule::Zero);
        let with = |at: usize, bytes: &[u8]| broken(&parts(0, 3), at, bytes);
        assert_eq!(with(448, &[0; 8]), Rule::Order);
        assert_eq!(with(448 + 16, &[0]), Rule::Kind);
        assert_eq!(with(448 + 17, &[3]), Rule::Kind);
    }
}
