//! A slab's header in use: where everything is, with all bounds checked once.

use super::{
    FLAG_COMPRESSED, GROUP_BYTES, GROUP_SHIFT, IndexKind, RULES, RawSlabHeader, SLAB_BODY_POSITION, Trailer,
};
use crate::block::{BLOCK_HEADER_BYTES, BlockHeader, BlockKind, Place, check_payload, open_block};
use crate::checksum::crc32;
use crate::convert::{index, part, read, wide};
use crate::error::{FormatError, Found, Rule, Structure};
use crate::ids::{LogId, Offset};
use crate::key_sketch::{KEY_SKETCH_BYTES_MAX, KeySketch};
use crate::summary::{HISTOGRAM_BUCKETS, Histogram32, Summary};
use core::ops::Range;
use zerocopy::little_endian::U32;

/// Where everything is in a slab. It holds no bytes: those are handed over again with each question, and it answers
/// within their bounds whatever they say.
#[derive(Clone, Copy, Debug)]
pub struct SlabLayout {
    pub(super) index_kind: IndexKind,
    pub(super) stride: u32,
    pub(super) entry_count: u32,
    pub(super) body_end: u32,
    pub(super) offset_count: u64,
    pub(super) trailer: Trailer,
    seed: u32,
    header: BlockHeader,
    log: LogId,
    first_offset: Offset,
    summary: Summary,
    is_compressed: bool,
    key_sketch_bytes: u32,
}

impl SlabLayout {
    /// Reads head and trailer of the slab at `place`; `bytes` may run on behind it. The groups of the body are checked
    /// one by one with [`Self::verify_group`].
    pub fn parse(bytes: &[u8], place: &Place) -> Found<Self> {
        open_block(bytes, place, BlockKind::Slab, RULES)
            .and_then(|(header, slab)| Self::parse_slab(slab, header))
    }

    fn parse_slab(slab: &[u8], header: BlockHeader) -> Result<Self, FormatError> {
        let seed = header.identity.seed();
        let raw: RawSlabHeader = read(slab, BLOCK_HEADER_BYTES, RULES)?;
        let body_end = raw.body_end.get();
        let covered_head = part(slab, BLOCK_HEADER_BYTES, 192, RULES)?;
        let (limit, found) = (wide(slab.len()), u64::from(body_end));
        let covered_trailer =
            slab.get(index(body_end)..)
                .ok_or(RULES.breaks(Rule::Bounds, 96, limit, found))?;
        check_payload(&header, crc32(crc32(seed, covered_head), covered_trailer), RULES)?;
        let index_kind = check_fields(&raw)?;
        let trailer = check_trailer(&raw, index_kind, &header)?;
        Ok(Self {
            index_kind,
            stride: raw.stride.get(),
            entry_count: raw.entry_count.get(),
            body_end,
            offset_count: raw.offset_count.get(),
            trailer,
            seed,
            header,
            log: LogId::new(raw.log.get()),
            first_offset: Offset::new(raw.first_offset.get()),
            summary: Summary::from_raw(&raw.summary),
            is_compressed: raw.flags.get() & FLAG_COMPRESSED != 0,
            key_sketch_bytes: raw.key_sketch_bytes.get(),
        })
    }

    /// The block's header.
    pub const fn header(&self) -> &BlockHeader {
        &self.header
    }

    /// The log for which the slab was first written.
    pub const fn log(&self) -> LogId {
        self.log
    }

    /// Offset of its first message in that log.
    pub const fn first_offset(&self) -> Offset {
        self.first_offset
    }

    /// Number of offsets.
    #[inline]
    pub const fn offset_count(&self) -> u64 {
        self.offset_count
    }

    /// Number of buffers.
    #[inline]
    pub const fn entry_count(&self) -> u32 {
        self.entry_count
    }

    /// Whether some of its buffers are compressed batches.
    #[inline]
    pub const fn is_compressed(&self) -> bool {
        self.is_compressed
    }

    /// Kind of its index.
    pub const fn index_kind(&self) -> IndexKind {
        self.index_kind
    }

    /// Where the body ends, counted from the slab's beginning.
    #[inline]
    pub const fn body_end(&self) -> u32 {
        self.body_end
    }

    /// What the slab holds.
    pub const fn summary(&self) -> &Summary {
        &self.summary
    }

    /// Lengths of the values; empty if `bytes` is not the slab.
    pub fn histogram(&self, bytes: &[u8]) -> Histogram32 {
        let at = index(self.trailer.histogram_position);
        let raw: Result<[U32; HISTOGRAM_BUCKETS], FormatError> = read(bytes, at, RULES);
        raw.map(|raw| Histogram32::from_raw(&raw)).unwrap_or_default()
    }

    /// Its keys, as a sketch. The empty one of a slab whose summary has bytes of keys: nobody looked at them.
    ///
    /// # Errors
    ///
    /// The rule that the sketch breaks, which readers of messages do not look at; [`Rule::Truncated`] if `bytes` does not
    /// hold the whole slab.
    pub fn keys(&self, bytes: &[u8]) -> Result<KeySketch, FormatError> {
        let at = index(self.trailer.key_sketch_position);
        KeySketch::decode(part(bytes, at, index(self.key_sketch_bytes), RULES)?)
    }

    /// All that was said when the slab was sealed.
    pub fn description(&self, bytes: &[u8]) -> super::SlabDescription {
        super::SlabDescription {
            log: self.log,
            first_offset: self.first_offset,
            offset_count: self.offset_count,
            summary: self.summary,
            histogram: self.histogram(bytes),
            is_compressed: self.is_compressed,
            keys: self.keys(bytes).unwrap_or_default(),
        }
    }

    /// Number of groups.
    #[inline]
    pub const fn group_count(&self) -> u32 {
        self.trailer.crc_table_count
    }

    /// The bytes of a group, counted from the slab's beginning; empty behind the last group.
    pub fn group_range(&self, group: u32) -> Range<usize> {
        let body_end = index(self.body_end);
        let start = index(group).saturating_mul(GROUP_BYTES);
        let end = start.saturating_add(GROUP_BYTES).min(body_end);
        start.max(SLAB_BODY_POSITION).min(end)..end
    }

    /// The groups that a range of bytes touches, clipped to the groups there are.
    #[inline]
    pub fn groups_of(&self, range: Range<usize>) -> Range<u32> {
        let number = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        let end = number(range.end.div_ceil(GROUP_BYTES)).min(self.group_count());
        number(range.start.wrapping_div(GROUP_BYTES)).min(end)..end
    }

    /// Compares a group with its checksum.
    ///
    /// # Errors
    ///
    /// [`Rule::Checksum`] if the group is damaged, [`Rule::Bounds`] if there is no such group, [`Rule::Truncated`] if
    /// `bytes` does not hold the whole slab.
    pub fn verify_group(&self, bytes: &[u8], group: u32) -> Result<(), FormatError> {
        let rules = Structure::SlabGroup;
        let count = self.group_count();
        rules.require(
            group < count,
            Rule::Bounds,
            u64::from(group),
            u64::from(count),
            u64::from(group),
        )?;
        let range = self.group_range(group);
        let covered = part(bytes, range.start, range.len(), rules)?;
        let slot = index(self.trailer.crc_table_position).saturating_add(index(group).saturating_mul(4));
        let stored: U32 = read(bytes, slot, rules)?;
        let (expected, found) = (
            u64::from(crc32(self.seed ^ group, covered)),
            u64::from(stored.get()),
        );
        let holds = expected == found || crate::weakened!("group-unchecked");
        rules.require(holds, Rule::Checksum, wide(range.start), expected, found)
    }

    /// Compares all groups with their checksums.
    ///
    /// # Errors
    ///
    /// As [`Self::verify_group`], for the first group that fails.
    pub fn verify_all(&self, bytes: &[u8]) -> Result<(), FormatError> {
        (0..self.group_count()).try_for_each(|group| self.verify_group(bytes, group))
    }
}

/// Which bytes of a slab [`SlabLayout::parse`] will read beside its head, as far as the head alone can say. Nothing is
/// checked: it serves to bring pages in before they are touched, and what a wrong head says is within `bytes`.
pub fn trailer_hint(bytes: &[u8]) -> Range<usize> {
    let raw: Result<RawSlabHeader, FormatError> = read(bytes, BLOCK_HEADER_BYTES, RULES);
    let start = raw.map_or(bytes.len(), |raw| index(raw.body_end.get()));
    start.min(bytes.len())..bytes.len()
}

/// The fields that do not depend on one another.
fn check_fields(raw: &RawSlabHeader) -> Result<IndexKind, FormatError> {
    let kind = IndexKind::from_code(raw.index_kind).ok_or(RULES.breaks(
        Rule::Kind,
        92,
        1,
        u64::from(raw.index_kind),
    ))?;
    let shift = u64::from(raw.group_shift);
    RULES.require(
        raw.group_shift == GROUP_SHIFT,
        Rule::Layout,
        93,
        u64::from(GROUP_SHIFT),
        shift,
    )?;
    let (known, flags) = (u64::from(FLAG_COMPRESSED), u64::from(raw.flags.get()));
    RULES.require(flags & !known == 0, Rule::Flags, 94, known, flags)?;
    let reserved = u64::from(raw.reserved_60.get());
    let clean = reserved == 0 && raw.reserved == [0; 60] && raw.summary.is_clean();
    RULES.require(clean, Rule::Reserved, 124, 0, reserved)?;
    let (entries, offsets) = (u64::from(raw.entry_count.get()), raw.offset_count.get());
    RULES.require(entries != 0, Rule::Zero, 88, 1, 0)?;
    let counts_fit = if kind == IndexKind::Runs {
        offsets >= entries
    } else {
        offsets == entries
    };
    RULES.require(counts_fit, Rule::Count, 80, entries, offsets)?;
    let first = raw.first_offset.get();
    RULES.require(
        first.checked_add(offsets).is_some(),
        Rule::Bounds,
        72,
        u64::MAX,
        first,
    )?;
    let body_end = u64::from(raw.body_end.get());
    RULES.require(body_end.is_multiple_of(8), Rule::Alignment, 96, 8, body_end)?;
    // Each entry has at least its header of 8 bytes; in u64 the sum cannot overflow.
    let least = entries.saturating_mul(8).saturating_add(wide(SLAB_BODY_POSITION));
    RULES.require(body_end >= least, Rule::Count, 96, least, body_end)?;
    check_stride(raw, kind)?;
    Ok(kind)
}

/// A stride divides the body into the entries; without one the field is zero.
fn check_stride(raw: &RawSlabHeader, kind: IndexKind) -> Result<(), FormatError> {
    let stride = u64::from(raw.stride.get());
    if kind != IndexKind::Stride {
        return RULES.require(stride == 0, Rule::Reserved, 108, 0, stride);
    }
    RULES.require(stride.is_multiple_of(8), Rule::Alignment, 108, 8, stride)?;
    let end = stride
        .saturating_mul(u64::from(raw.entry_count.get()))
        .saturating_add(wide(SLAB_BODY_POSITION));
    let body_end = u64::from(raw.body_end.get());
    RULES.require(end == body_end, Rule::Count, 108, body_end, end)
}

/// The parts behind the body lie where the counts say, and end with the block.
fn check_trailer(raw: &RawSlabHeader, kind: IndexKind, header: &BlockHeader) -> Result<Trailer, FormatError> {
    let limit = u64::from(crate::limits::BLOCK_BYTES_MAX);
    let (most, sketch) = (wide(KEY_SKETCH_BYTES_MAX), raw.key_sketch_bytes.get());
    RULES.require(
        u64::from(sketch) <= most,
        Rule::Limit,
        192,
        most,
        u64::from(sketch),
    )?;
    let trailer = Trailer::new(kind, raw.body_end.get(), raw.entry_count.get(), sketch)
        .ok_or(RULES.breaks(Rule::Limit, 88, limit, u64::from(raw.entry_count.get())))?;
    let pairs = [
        (100, trailer.index_position, raw.index_position.get()),
        (104, trailer.index_bytes, raw.index_bytes.get()),
        (120, trailer.histogram_position, raw.histogram_position.get()),
        (112, trailer.crc_table_position, raw.crc_table_position.get()),
        (116, trailer.crc_table_count, raw.crc_table_count.get()),
        (8, trailer.block_bytes, header.block_bytes),
    ];
    pairs.into_iter().try_for_each(|(at, expected, found)| {
        RULES.require(
            expected == found,
            Rule::Bounds,
            at,
            u64::from(expected),
            u64::from(found),
        )
    })?;
    Ok(trailer)
}
