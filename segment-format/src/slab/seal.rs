//! Sealing: head and trailer around a body that is in memory already.

use super::{
    FLAG_COMPRESSED, GROUP_BYTES, GROUP_SHIFT, IndexKind, RULES, RawRun, RawSlabHeader, SLAB_BODY_POSITION,
    Trailer,
};
use crate::block::{BLOCK_HEADER_BYTES, BlockIdentity, BlockKind, Filler, Sealed, encode_block_header};
use crate::checksum::crc32;
use crate::convert::{index, narrow, part, wide};
use crate::error::{FormatError, Rule};
use crate::ids::{LogId, Offset};
use crate::key_sketch::KeySketch;
use crate::limits::BLOCK_BYTES_MAX;
use crate::summary::{Histogram32, Summary};
use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U32, U64};

/// What a slab says about its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlabDescription {
    /// The log for which it was first written.
    pub log: LogId,
    /// Offset of its first message in that log.
    pub first_offset: Offset,
    /// Number of offsets.
    pub offset_count: u64,
    /// What it holds.
    pub summary: Summary,
    /// Lengths of its values.
    pub histogram: Histogram32,
    /// Some of its buffers are compressed batches.
    pub is_compressed: bool,
    /// Its keys; empty if none of its messages has one.
    pub keys: KeySketch,
}

/// The most that index, histogram, a sketch of keys of that length, checksum table and padding can take behind a body that
/// ends at `body_end`, whatever the kind of index. With it the slab ends at a multiple of 4 KiB. Saturates beyond the greatest block, which
/// [`seal`] refuses.
pub fn trailer_bytes(body_end: u32, entry_count: u32, key_sketch_bytes: u32) -> u32 {
    let kind = IndexKind::Runs;
    let end = Trailer::new(kind, body_end, entry_count, key_sketch_bytes)
        .map_or(BLOCK_BYTES_MAX, |trailer| trailer.block_bytes);
    end.checked_next_multiple_of(4096)
        .unwrap_or(end)
        .saturating_sub(body_end)
}

/// Makes a slab of a body: fills `head`, and `trailer`, which lies directly behind the body, with zeros behind the slab
/// up to the next multiple of 4 KiB or the end of `trailer`, whichever comes first.
///
/// `positions` has the position of each buffer, counted from the slab's beginning. `runs` has the first offset of each
/// buffer, counted from the slab's first; it is needed if and only if some buffer takes more than one offset.
///
/// # Errors
///
/// [`Rule::NoRoom`] if head or trailer are too short, [`Rule::Limit`] if the slab exceeds the greatest block, or the
/// rule that positions, runs or counts break. Nothing that was written counts then.
pub fn seal(
    head: &mut [u8],
    body: &[u8],
    trailer: &mut [u8],
    positions: &[u32],
    runs: Option<&[u32]>,
    description: &SlabDescription,
    identity: &BlockIdentity,
) -> Result<Sealed, FormatError> {
    let body_end = narrow(body.len().saturating_add(SLAB_BODY_POSITION), RULES, 96)?;
    let entry_count = narrow(positions.len(), RULES, 88)?;
    check_positions(positions, body_end)?;
    check_offsets(runs, entry_count, description)?;
    let (kind, stride) = choose_index(positions, runs.is_some(), body_end);
    let limit = u64::from(BLOCK_BYTES_MAX);
    let key_sketch_bytes = narrow(description.keys.bytes().len(), RULES, 192)?;
    let layout = Trailer::new(kind, body_end, entry_count, key_sketch_bytes).ok_or(RULES.breaks(
        Rule::Limit,
        8,
        limit,
        u64::from(body_end),
    ))?;
    let seed = identity.seed();
    fill_trailer(trailer, &layout, kind, positions, runs, description)?;
    fill_checksums(trailer, &layout, body, seed)?;

    let flags = if description.is_compressed {
        FLAG_COMPRESSED
    } else {
        0
    };
    let raw = RawSlabHeader {
        log: U64::new(description.log.get()),
        first_offset: U64::new(description.first_offset.get()),
        offset_count: U64::new(description.offset_count),
        entry_count: U32::new(entry_count),
        index_kind: kind.code(),
        group_shift: GROUP_SHIFT,
        flags: U16::new(flags),
        body_end: U32::new(body_end),
        index_position: U32::new(layout.index_position),
        index_bytes: U32::new(layout.index_bytes),
        stride: U32::new(stride),
        crc_table_position: U32::new(layout.crc_table_position),
        crc_table_count: U32::new(layout.crc_table_count),
        histogram_position: U32::new(layout.histogram_position),
        reserved_60: U32::ZERO,
        summary: description.summary.to_raw(),
        key_sketch_bytes: U32::new(key_sketch_bytes),
        reserved: [0; 60],
    };
    let trailer_end = index(layout.block_bytes.saturating_sub(body_end));
    let payload_crc = crc32(crc32(seed, raw.as_bytes()), part(trailer, 0, trailer_end, RULES)?);
    crate::convert::write(head, BLOCK_HEADER_BYTES, &raw, RULES)?;
    let header_crc = encode_block_header(identity, BlockKind::Slab, layout.block_bytes, payload_crc, head)?;
    Ok(Sealed {
        block_bytes: layout.block_bytes,
        header_crc,
    })
}

/// Positions begin with the body, rise, are multiples of 8 and stay within the body.
fn check_positions(positions: &[u32], body_end: u32) -> Result<(), FormatError> {
    let first = positions.first().copied().map_or(0, u64::from);
    RULES.require(
        first == wide(SLAB_BODY_POSITION),
        Rule::Order,
        100,
        wide(SLAB_BODY_POSITION),
        first,
    )?;
    let rising = positions
        .iter()
        .zip(positions.iter().skip(1))
        .all(|(one, next)| one < next);
    RULES.require(rising, Rule::Order, 100, 0, 0)?;
    let bits = positions.iter().fold(body_end, |bits, position| bits | position) & 7;
    RULES.require(bits == 0, Rule::Alignment, 100, 8, u64::from(bits))?;
    let last = positions.last().copied().unwrap_or(u32::MAX);
    RULES.require(
        last < body_end,
        Rule::Bounds,
        100,
        u64::from(body_end),
        u64::from(last),
    )
}

/// Each entry has its own first offset, and all of them lie within the slab's offsets.
fn check_offsets(
    runs: Option<&[u32]>,
    entry_count: u32,
    description: &SlabDescription,
) -> Result<(), FormatError> {
    let count = description.offset_count;
    let end = description.first_offset.checked_add(count);
    RULES.require(
        end.is_some(),
        Rule::Bounds,
        72,
        u64::MAX,
        description.first_offset.get(),
    )?;
    let entries = u64::from(entry_count);
    let Some(runs) = runs else {
        return RULES.require(count == entries, Rule::Count, 80, entries, count);
    };
    RULES.require(
        wide(runs.len()) == entries,
        Rule::Count,
        88,
        entries,
        wide(runs.len()),
    )?;
    let first = runs.first().copied().map_or(u64::MAX, u64::from);
    RULES.require(first == 0, Rule::Order, 100, 0, first)?;
    let rising = runs.iter().zip(runs.iter().skip(1)).all(|(one, next)| one < next);
    RULES.require(rising, Rule::Order, 100, 0, 0)?;
    let last = runs.last().copied().map_or(u64::MAX, u64::from);
    RULES.require(last < count, Rule::Bounds, 80, count, last)
}

/// The cheapest index, and the stride if it is that.
fn choose_index(positions: &[u32], has_runs: bool, body_end: u32) -> (IndexKind, u32) {
    if has_runs {
        return (IndexKind::Runs, 0);
    }
    let start = positions.first().copied().unwrap_or_default();
    let stride = positions
        .get(1)
        .copied()
        .unwrap_or(body_end)
        .saturating_sub(start);
    let ends = positions.iter().skip(1).chain(core::iter::once(&body_end));
    let even = positions
        .iter()
        .zip(ends)
        .all(|(one, next)| next.wrapping_sub(*one) == stride);
    if even {
        (IndexKind::Stride, stride)
    } else {
        (IndexKind::Dense, 0)
    }
}

/// Index, histogram, sketch of keys and zeros.
fn fill_trailer(
    trailer: &mut [u8],
    layout: &Trailer,
    kind: IndexKind,
    positions: &[u32],
    runs: Option<&[u32]>,
    description: &SlabDescription,
) -> Result<(), FormatError> {
    let needed = index(layout.block_bytes.saturating_sub(layout.index_position));
    let padding = index(layout.block_bytes)
        .next_multiple_of(4096)
        .saturating_sub(index(layout.block_bytes));
    let available = trailer.len();
    let no_room = RULES.breaks(
        Rule::NoRoom,
        u64::from(layout.index_position),
        wide(needed),
        wide(available),
    );
    let padded = needed.saturating_add(padding).min(available);
    trailer.get_mut(needed..padded).ok_or(no_room)?.fill(0);
    fill_index(trailer.get_mut(..needed).ok_or(no_room)?, kind, positions, runs);
    let mut filler = Filler::new(trailer, RULES);
    filler.skip(index(layout.index_bytes));
    filler.pad_to_8()?;
    filler.push(description.histogram.to_raw().as_bytes())?;
    filler.push(description.keys.bytes())?;
    filler.pad_to_8()
}

/// Entries are written where they belong; a trailer that were too short would lose the rest, but its length was
/// compared with what the index needs.
fn fill_index(target: &mut [u8], kind: IndexKind, positions: &[u32], runs: Option<&[u32]>) {
    match kind {
        IndexKind::Stride => {}
        IndexKind::Dense => {
            for (slot, position) in target.chunks_exact_mut(4).zip(positions) {
                slot.copy_from_slice(&position.to_le_bytes());
            }
        }
        IndexKind::Runs => {
            let runs = runs.unwrap_or_default();
            for (slot, (position, first_offset)) in target.chunks_exact_mut(8).zip(positions.iter().zip(runs))
            {
                let run = RawRun {
                    position: U32::new(*position),
                    first_offset: U32::new(*first_offset),
                };
                slot.copy_from_slice(run.as_bytes());
            }
        }
    }
}

/// One checksum for each group. The first group lacks the slab's head.
fn fill_checksums(trailer: &mut [u8], layout: &Trailer, body: &[u8], seed: u32) -> Result<(), FormatError> {
    let at = index(layout.crc_table_position.saturating_sub(layout.index_position));
    let length = index(layout.crc_table_count).saturating_mul(4);
    let no_room = RULES.breaks(
        Rule::NoRoom,
        u64::from(layout.crc_table_position),
        wide(length),
        wide(trailer.len()),
    );
    let table = trailer.get_mut(at..at.saturating_add(length)).ok_or(no_room)?;
    let first_bytes = GROUP_BYTES.saturating_sub(SLAB_BODY_POSITION).min(body.len());
    let (first, rest) = body.split_at_checked(first_bytes).unwrap_or_default();
    let groups = core::iter::once(first).chain(rest.chunks(GROUP_BYTES));
    for ((slot, group), number) in table.chunks_exact_mut(4).zip(groups).zip(0_u32..) {
        slot.copy_from_slice(&crc32(seed ^ number, group).to_le_bytes());
    }
    Ok(())
}
