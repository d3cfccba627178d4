//! The places in segments that something reaches.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;

use lanterman_format::reference::Reference;

use crate::segment::FIRST_BLOCK_POSITION;
use crate::tree::Reach;

/// Blocks by segment, and nodes that were gone through.
#[derive(Debug, Default, Clone)]
pub(crate) struct Reached {
    segments: BTreeMap<u64, BTreeMap<u64, u64>>,
    nodes: HashSet<(u64, u64)>,
    /// The first two blocks that lie over each other.
    overlap: Option<(u64, u64)>,
}

impl Reached {
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
        let blocks = self.segments.entry(segment).or_default();
        let before = blocks.range(..position).next_back().map(|(_, end)| *end);
        let behind = blocks
            .range(position.saturating_add(1)..)
            .next()
            .map(|(start, _)| *start);
        let same = blocks.get(&position).copied();
        let overlaps = before.is_some_and(|before| before > position)
            || behind.is_some_and(|behind| behind < end)
            || same.is_some_and(|same| same != end);
        if overlaps {
            self.overlap.get_or_insert((segment, position));
        }
        let kept = same.map_or(end, |same| same.max(end));
        blocks.insert(position, kept);
    }

    /// A place where two blocks lie over each other: its segment and position.
    pub(crate) fn overlap(&self) -> Option<(u64, u64)> {
        self.overlap
    }

    /// Whole pages of a segment in which something lies that is reached: rising, disjoint.
    pub(crate) fn pages(&self, segment: u64) -> Vec<Range<u64>> {
        let mut pages: Vec<Range<u64>> = Vec::new();
        for (start, end) in self.segments.get(&segment).into_iter().flatten() {
            let first = start - start % FIRST_BLOCK_POSITION;
            let last = end.next_multiple_of(FIRST_BLOCK_POSITION);
            match pages.last_mut() {
                Some(before) if before.end >= first => before.end = before.end.max(last),
                _ => pages.push(first..last),
            }
        }
        pages
    }

    /// The parts of blocks that lie in a range of a segment: rising, disjoint. The head of a block of gathered tails, and
    /// the padding between them, count as parts of the slabs that they stand before.
    pub(crate) fn blocks(&self, segment: u64, range: &Range<u64>) -> Vec<Range<u64>> {
        let mut parts = Vec::new();
        for (start, end) in self.segments.get(&segment).into_iter().flatten() {
            unite(
                &mut parts,
                (*start).max(range.start)..(*end).min(range.end).max((*start).max(range.start)),
            );
        }
        parts
    }

    /// Bytes of pages in which something lies that is reached.
    pub(crate) fn page_bytes(&self, segment: u64) -> u64 {
        self.pages(segment).iter().map(length).sum()
    }

    /// The end of the last block of a segment.
    pub(crate) fn end(&self, segment: u64) -> u64 {
        let blocks = self.segments.get(&segment);
        blocks
            .and_then(|blocks| blocks.values().max().copied())
            .unwrap_or(0)
    }

    /// The segments in which something lies.
    pub(crate) fn segments(&self) -> impl Iterator<Item = u64> + '_ {
        self.segments.keys().copied()
    }
}

impl Reach for Reached {
    fn node(&mut self, reference: &Reference) -> bool {
        self.add(reference);
        self.nodes
            .insert((reference.segment.get(), reference.position.get()))
    }

    fn slab(&mut self, reference: &Reference) {
        self.add(reference);
    }
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
        let mut reached = Reached::default();
        reached.add_bytes(1, 4096, 100);
        reached.add_bytes(1, 4096, 100);
        reached.add_bytes(1, 8192, 5000);
        assert_eq!(reached.overlap(), None);
        assert_eq!(reached.pages(1), [one(4096, 16384)]);
        reached.add_bytes(1, 12288, 64);
        assert_eq!(reached.overlap(), Some((1, 12288)));
    }
}
