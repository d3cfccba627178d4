//! Who needs which bytes of the segments of slabs: every page of them is one of live, garbage and free.

use std::ops::Range;

use lanterman_format::FileKind;
use serde::Serialize;

use super::{Checker, finding_in};
use crate::check::report::DamageKind;
use crate::files::{FIRST_BLOCK, SegmentFile};
use crate::problem::Problem;

/// What pages of segments of slabs are used for, in bytes. The three parts are all of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct SpaceReport {
    pub(crate) segments: u64,
    pub(crate) bytes: u64,
    /// Headers, and pages in which something lies that is referred to.
    pub(crate) live: u64,
    /// Pages that were written and to which nothing refers: what the next collection gives back, and what snapshots and
    /// cursors of the process that has the store open may hold.
    pub(crate) garbage: u64,
    /// Pages behind the last block, and holes.
    pub(crate) free: u64,
    /// The holes among them.
    pub(crate) holes: u64,
}

impl SpaceReport {
    pub(crate) fn add(&mut self, other: &SpaceReport) {
        self.segments += other.segments;
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.live = self.live.saturating_add(other.live);
        self.garbage = self.garbage.saturating_add(other.garbage);
        self.free = self.free.saturating_add(other.free);
        self.holes = self.holes.saturating_add(other.holes);
    }
}

impl Checker<'_> {
    /// Counts the pages of all segments of slabs, and looks for blocks that lie over each other. Where damage hides what
    /// is referred to, that would count as garbage, so nothing is counted then.
    pub(super) fn space(&mut self) -> Result<(), Problem> {
        if !self.report.damage.is_empty() {
            return Ok(());
        }
        let mut findings = Vec::new();
        for segment in self.files.segments.values() {
            if segment.kind != FileKind::Slabs {
                continue;
            }
            let id = segment.id.get();
            let blocks = self.counted.range((id, 0)..=(id, u64::MAX));
            let blocks: Vec<Range<u64>> = blocks
                .map(|((_, at), bytes)| *at..at.saturating_add(*bytes))
                .collect();
            for pair in blocks.windows(2) {
                if let [first, second] = pair
                    && first.end > second.start
                {
                    let detail = format!(
                        "it lies over the one at {}, which is referred to as well",
                        first.start
                    );
                    findings.push(finding_in(
                        DamageKind::Disagreement,
                        segment,
                        second.start,
                        detail,
                    ));
                }
            }
            let used = self.report.used_bytes.get(&id).copied().unwrap_or(FIRST_BLOCK);
            let counted = count(segment, &blocks, used)?;
            self.report.space.get_or_insert_default().add(&counted);
            self.report.space_of.insert(id, counted);
        }
        for finding in findings {
            self.report.find(finding);
        }
        Ok(())
    }
}

/// The pages of one segment. `blocks` rise.
fn count(segment: &SegmentFile, blocks: &[Range<u64>], used: u64) -> Result<SpaceReport, Problem> {
    let bytes = segment.bytes;
    let header = 0..FIRST_BLOCK.min(bytes);
    let mut live = Vec::from([header]);
    for block in blocks {
        let pages = page_of(block.start)..block.end.checked_next_multiple_of(FIRST_BLOCK).unwrap_or(bytes);
        let pages = pages.start.min(bytes)..pages.end.min(bytes);
        match live.last_mut() {
            Some(last) if last.end >= pages.start => last.end = last.end.max(pages.end),
            _ => live.push(pages),
        }
    }
    let behind = used
        .checked_next_multiple_of(FIRST_BLOCK)
        .unwrap_or(bytes)
        .min(bytes);
    let mut given_back = Vec::new();
    for hole in segment.holes(behind)? {
        // Where a hole ends within a page, the page is written.
        let hole = hole.start.next_multiple_of(FIRST_BLOCK)..page_of(hole.end);
        given_back.extend(outside(hole, &live));
    }
    let holes = given_back.iter().map(length).sum();
    let unwritten: u64 = outside(behind..bytes, &live).iter().map(length).sum();
    let live: u64 = live.iter().map(length).sum();
    let free = unwritten.saturating_add(holes);
    Ok(SpaceReport {
        segments: 1,
        bytes,
        live,
        garbage: bytes.saturating_sub(live).saturating_sub(free),
        free,
        holes,
    })
}

fn page_of(position: u64) -> u64 {
    position - position % FIRST_BLOCK
}

fn length(range: &Range<u64>) -> u64 {
    range.end.saturating_sub(range.start)
}

/// What of `range` lies in none of `taken`, which rise and are disjoint.
fn outside(range: Range<u64>, taken: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut left = Vec::new();
    let mut at = range.start;
    for taken in taken
        .iter()
        .filter(|taken| taken.end > range.start && taken.start < range.end)
    {
        left.push(at..taken.start);
        at = at.max(taken.end);
    }
    left.push(at..range.end);
    left.retain(|part| part.start < part.end);
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::single_range_in_vec_init, reason = "lists of ranges, one long")]
    fn what_lies_in_no_block_is_found() {
        let taken = [0..4, 8..10];
        assert_eq!(outside(0..12, &taken), [4..8, 10..12]);
        assert_eq!(outside(5..7, &taken), [5..7]);
        assert_eq!(outside(2..9, &taken), [4..8]);
        assert_eq!(outside(8..10, &taken), []);
        assert_eq!(outside(10..20, &taken), [10..20]);
    }
}
