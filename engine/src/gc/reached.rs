//! The places in segments that something reaches.

use std::collections::BTreeMap;
use std::ops::Range;

use lanterman_format::reference::Reference;

use super::range_set::RangeSet;
use crate::segment::FIRST_BLOCK_POSITION;
use crate::tree::Reach;

/// Bits of the position within a page.
const PAGE_BITS: u32 = FIRST_BLOCK_POSITION.trailing_zeros();

/// Whole pages of segments in which something lies that is reached.
#[derive(Debug, Default, Clone)]
pub(crate) struct Pages {
    segments: BTreeMap<u64, RangeSet>,
}

impl Pages {
    fn add(&mut self, segment: u64, range: &Range<u64>) {
        let first = range.start - range.start % FIRST_BLOCK_POSITION;
        let last = range.end.checked_next_multiple_of(FIRST_BLOCK_POSITION);
        let pages = self.segments.entry(segment).or_default();
        pages.add(first..last.unwrap_or(u64::MAX));
    }

    /// Those of one segment: rising, disjoint ranges of bytes.
    pub(crate) fn of(&self, segment: u64) -> Vec<Range<u64>> {
        let pages = self.segments.get(&segment);
        pages.into_iter().flat_map(RangeSet::ranges).collect()
    }

    /// How many bytes of one segment they are.
    pub(crate) fn bytes(&self, segment: u64) -> u64 {
        let pages = self.segments.get(&segment).into_iter();
        pages.flat_map(RangeSet::ranges).map(|range| length(&range)).sum()
    }
}

/// How exactly it is kept what is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Detail {
    /// Pages, which decide on what is given back: little memory, however many logs there are.
    Pages,
    /// Every block: an entry for each slab and each tail.
    Blocks,
}

/// The end of each block by its start, for one segment.
type Blocks = BTreeMap<u64, u64>;

/// What something reaches, and which nodes were gone through.
#[derive(Debug)]
pub(crate) struct Reached {
    pages: Pages,
    /// By segment, the positions of nodes; those that begin on neighbouring pages are neighbours.
    nodes: BTreeMap<u64, RangeSet>,
    /// By segment, if they are asked for.
    blocks: Option<BTreeMap<u64, Blocks>>,
    /// The first two blocks that lie over each other.
    overlap: Option<(u64, u64)>,
}

impl Reached {
    pub(crate) fn new(detail: Detail) -> Self {
        Reached {
            pages: Pages::default(),
            nodes: BTreeMap::new(),
            blocks: (detail == Detail::Blocks).then(BTreeMap::new),
            overlap: None,
        }
    }

    /// Takes up a block.
    pub(crate) fn add(&mut self, reference: &Reference) {
        if !reference.is_empty() {
            self.add_bytes(
                reference.segment.get(),
                reference.position.get(),
                reference.bytes.get(),
            );
        }
    }

    /// Takes up some bytes of a segment.
    pub(crate) fn add_bytes(&mut self, segment: u64, position: u64, bytes: u64) {
        let end = position.saturating_add(bytes);
        self.pages.add(segment, &(position..end));
        if let Some(segments) = &mut self.blocks
            && add_block(segments.entry(segment).or_default(), position, end)
        {
            self.overlap.get_or_insert((segment, position));
        }
    }

    /// The pages of all that was taken up.
    pub(crate) fn pages(&self) -> &Pages {
        &self.pages
    }

    /// A place where two blocks lie over each other: its segment and position. None is found without [`Detail::Blocks`].
    pub(crate) fn overlap(&self) -> Option<(u64, u64)> {
        self.overlap
    }

    /// The parts of blocks that lie in a range of a segment: rising, disjoint. The head of a block of gathered tails, and
    /// the padding between them, count as parts of the slabs that they stand before. None without [`Detail::Blocks`].
    pub(crate) fn blocks(&self, segment: u64, range: &Range<u64>) -> Vec<Range<u64>> {
        let mut parts = Vec::new();
        for (start, end) in self.blocks_of(segment).into_iter().flatten() {
            unite(
                &mut parts,
                (*start).max(range.start)..(*end).min(range.end).max((*start).max(range.start)),
            );
        }
        parts
    }

    /// The end of the last block of a segment; zero without [`Detail::Blocks`].
    pub(crate) fn end(&self, segment: u64) -> u64 {
        let blocks = self.blocks_of(segment);
        blocks
            .and_then(|blocks| blocks.values().max().copied())
            .unwrap_or(0)
    }

    /// The segments in which something lies.
    pub(crate) fn segments(&self) -> impl Iterator<Item = u64> + '_ {
        self.pages.segments.keys().copied()
    }

    fn blocks_of(&self, segment: u64) -> Option<&Blocks> {
        self.blocks.as_ref()?.get(&segment)
    }
}

impl Reach for Reached {
    fn node(&mut self, reference: &Reference) -> bool {
        self.add(reference);
        // Nodes begin on pages: turned like this, those on neighbouring pages have neighbouring numbers, and no two positions
        // have the same, whatever a reference says.
        let number = reference.position.get().rotate_right(PAGE_BITS);
        let known = self.nodes.entry(reference.segment.get()).or_default();
        if known.contains(number) {
            return false;
        }
        known.add(number..number.saturating_add(1));
        true
    }

    fn slab(&mut self, reference: &Reference) {
        self.add(reference);
    }
}

/// Takes up a block; says whether it lies over another one.
fn add_block(blocks: &mut Blocks, position: u64, end: u64) -> bool {
    let before = blocks.range(..position).next_back().map(|(_, end)| *end);
    let behind = blocks
        .range(position.saturating_add(1)..)
        .next()
        .map(|(start, _)| *start);
    let same = blocks.get(&position).copied();
    let kept = same.map_or(end, |same| same.max(end));
    blocks.insert(position, kept);
    before.is_some_and(|before| before > position)
        || behind.is_some_and(|behind| behind < end)
        || same.is_some_and(|same| same != end)
}

/// Length of a range of bytes.
pub(crate) fn length(range: &Range<u64>) -> u64 {
    range.end.saturating_sub(range.start)
}

/// What of `whole` none of `taken`, which are rising and disjoint, covers.
pub(crate) fn without(whole: Range<u64>, taken: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut left = Vec::new();
    let mut at = whole.start;
    for range in taken {
        if range.start > at {
            left.push(at..range.start.min(whole.end));
        }
        at = at.max(range.end);
        if at >= whole.end {
            break;
        }
    }
    if at < whole.end {
        left.push(at..whole.end);
    }
    left.retain(|range| !range.is_empty());
    left
}

/// Adds a range to some that are rising and disjoint, and keeps them so.
pub(crate) fn unite(ranges: &mut Vec<Range<u64>>, more: Range<u64>) {
    if more.is_empty() {
        return;
    }
    let touches = |range: &Range<u64>| range.start <= more.end && more.start <= range.end;
    let joined = ranges
        .iter()
        .filter(|range| touches(range))
        .fold(more.clone(), |joined, range| {
            joined.start.min(range.start)..joined.end.max(range.end)
        });
    ranges.retain(|range| !touches(range));
    let at = ranges.partition_point(|range| range.start < joined.start);
    ranges.insert(at, joined);
}

#[cfg(test)]
mod tests {
    use lanterman_format::ReferenceKind;
    use lanterman_format::ids::{ByteLength, Position, SegmentId};

    use super::*;

    const fn one(start: u64, end: u64) -> Range<u64> {
        start..end
    }

    #[test]
    fn what_is_left_between_taken_ranges_is_found() {
        let taken = [10..20, 30..40];
        assert_eq!(without(0..50, &taken), [0..10, 20..30, 40..50]);
        assert_eq!(without(12..35, &taken), [one(20, 30)]);
        assert_eq!(without(10..20, &taken), []);
        assert_eq!(without(5..8, &[]), [one(5, 8)]);
    }

    #[test]
    fn ranges_that_touch_become_one() {
        let mut ranges = vec![0..10, 20..30];
        unite(&mut ranges, 40..50);
        unite(&mut ranges, 10..20);
        unite(&mut ranges, 45..60);
        unite(&mut ranges, 7..7);
        assert_eq!(ranges, [0..30, 40..60]);
    }

    #[test]
    fn blocks_that_lie_over_each_other_are_told_and_the_same_block_twice_is_not() {
        let mut reached = Reached::new(Detail::Blocks);
        reached.add_bytes(1, 4096, 100);
        reached.add_bytes(1, 4096, 100);
        reached.add_bytes(1, 8192, 5000);
        assert_eq!(reached.overlap(), None);
        assert_eq!(reached.pages().of(1), [one(4096, 16384)]);
        reached.add_bytes(1, 12288, 64);
        assert_eq!(reached.overlap(), Some((1, 12288)));
    }

    #[test]
    fn each_node_is_gone_through_once_wherever_it_lies() {
        let mut reached = Reached::new(Detail::Pages);
        let mut node = |position| {
            reached.node(&Reference {
                kind: ReferenceKind::Local,
                segment: SegmentId::new(1),
                position: Position::new(position),
                bytes: ByteLength::new(5000),
                ..Reference::EMPTY
            })
        };
        // The third lies within the second, which no sound store has: it is another node nevertheless.
        let positions = [12_288, 4096, 8192, 8193, 20_480, u64::MAX - 8192];
        for position in positions {
            assert!(node(position), "{position}");
        }
        for position in positions {
            assert!(!node(position), "{position}");
        }
    }
}
