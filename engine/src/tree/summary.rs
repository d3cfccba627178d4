//! What a range of offsets holds, from the summaries of nodes and entries, without reading a slab.

use std::ops::Range;

use lanterman_format::{Histogram64, KeySketch, Summary};

use super::node::{Children, Node};
use super::{NodeSource, SlabEntry, Tree, TreeError};

/// A summary of a range of offsets.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RangeSummary {
    /// The counts. Times are bounds: none of the range lies outside them.
    pub(crate) summary: Summary,
    /// Sizes of messages. In proportion where the range covers only a part of a node.
    pub(crate) histogram: Histogram64,
    /// Whether every count is exact. A range that cuts an entry in two has the part counted in the slab, and only where that
    /// cannot be read is it an estimate in proportion.
    pub(crate) is_exact: bool,
}

impl Tree {
    /// What the offsets of `range` hold, as far as the tree has them.
    ///
    /// # Errors
    ///
    /// Errors of loading the nodes along the two ends of the range.
    pub(crate) fn summary(
        &self,
        source: &dyn NodeSource,
        range: Range<u64>,
    ) -> Result<RangeSummary, TreeError> {
        let mut sum = RangeSummary {
            is_exact: true,
            ..RangeSummary::default()
        };
        let range = range.start..range.end.min(self.offset_count);
        if let Some(root) = &self.root
            && !range.is_empty()
        {
            sum.add_node(root.node(source, self.expected())?, 0, source, range)?;
        }
        Ok(sum)
    }
}

impl RangeSummary {
    /// Adds what `range`, counted from the node's first offset and not empty, holds of the node, whose offsets begin at
    /// `first_offset` of the tree.
    fn add_node(
        &mut self,
        node: &Node,
        first_offset: u64,
        source: &dyn NodeSource,
        range: Range<u64>,
    ) -> Result<(), TreeError> {
        if range.start == 0 && range.end >= node.offset_count() {
            self.summary.merge(node.summary());
            self.histogram.merge(node.histogram());
            return Ok(());
        }
        // Messages that were counted at this node, and whose sizes are not known any better than the node's.
        let mut counted = 0_u64;
        let first = node.child_at(range.start).index;
        for (index, end) in node.ends().iter().enumerate().skip(first) {
            let start = node.start_of(index);
            if start >= range.end {
                break;
            }
            let part =
                range.start.max(start).saturating_sub(start)..range.end.min(*end).saturating_sub(start);
            let part_count = part.end.saturating_sub(part.start);
            let whole_count = end.saturating_sub(start);
            let summary = match node.children() {
                Children::Slabs(entries) => entries.get(index).map(|entry| {
                    let (summary, _, is_exact) = entry.summary_of(source, part);
                    self.is_exact &= is_exact;
                    summary
                }),
                Children::Nodes(links) => match links.get(index) {
                    Some(link) if part_count < whole_count => {
                        let first_offset = first_offset.saturating_add(start);
                        let child = link
                            .branch
                            .node(source, link.expected(node.level(), first_offset))?;
                        self.add_node(child, first_offset, source, part)?;
                        None
                    }
                    link => link.map(|link| link.summary),
                },
            };
            if let Some(summary) = summary {
                counted = counted.saturating_add(summary.messages);
                self.summary.merge(&summary);
            }
        }
        self.histogram.merge(&scaled_histogram(
            node.histogram(),
            counted,
            node.summary().messages,
        ));
        Ok(())
    }
}

impl SlabEntry {
    /// The entry with the part `part` of the offsets that it shows, which is not empty.
    pub(crate) fn part(&self, source: &dyn NodeSource, part: Range<u64>) -> Self {
        let (summary, keys, _) = self.summary_of(source, part.clone());
        let skip = if self.slab.is_some() { part.start } else { 0 };
        Self {
            offset_count: part.end.saturating_sub(part.start),
            skip: self.skip.saturating_add(skip),
            slab: self.slab.clone(),
            summary,
            keys,
        }
    }

    /// What the part `part` of the offsets that the entry shows holds, its keys, and whether the counts are exact. Of the part
    /// and the rest the smaller one is counted in the slab. Times stay: they are bounds; so do the keys if it is the rest.
    fn summary_of(&self, source: &dyn NodeSource, part: Range<u64>) -> (Summary, KeySketch, bool) {
        let whole = self.offset_count;
        let count = part.end.saturating_sub(part.start);
        let Some(slab) = self.slab.as_deref().filter(|_| count < whole) else {
            let scaled = scaled_summary(&self.summary, count, whole);
            return (scaled, self.keys.clone(), true);
        };
        let counted = |range: Range<u64>| {
            let in_slab = self.skip.saturating_add(range.start)..self.skip.saturating_add(range.end);
            source.count(slab, in_slab)
        };
        let exact = match count <= whole / 2 {
            true => counted(part).map(|(part, keys)| (with_times_of(part, &self.summary), keys)),
            false => counted(0..part.start)
                .zip(counted(part.end..whole))
                .map(|((before, _), (behind, _))| without(&without(&self.summary, &before), &behind))
                .map(|rest| (rest, self.keys.clone())),
        };
        match exact {
            Some((exact, keys)) => (exact, keys, true),
            None => {
                let scaled = scaled_summary(&self.summary, count, whole);
                (scaled, self.keys.clone(), false)
            }
        }
    }
}

fn with_times_of(counts: Summary, times: &Summary) -> Summary {
    Summary {
        time_min_ms: times.time_min_ms,
        time_max_ms: times.time_max_ms,
        ..counts
    }
}

/// What is left of a summary without a part of it.
fn without(whole: &Summary, part: &Summary) -> Summary {
    Summary {
        messages: whole.messages.saturating_sub(part.messages),
        deleted: whole.deleted.saturating_sub(part.deleted),
        value_bytes: whole.value_bytes.saturating_sub(part.value_bytes),
        key_bytes: whole.key_bytes.saturating_sub(part.key_bytes),
        parts: whole.parts.saturating_sub(part.parts),
        ..*whole
    }
}

/// The part `part` of `whole` of a summary. Times stay: they are bounds.
pub(super) fn scaled_summary(summary: &Summary, part: u64, whole: u64) -> Summary {
    if part >= whole {
        return *summary;
    }
    Summary {
        messages: scaled(summary.messages, part, whole),
        deleted: scaled(summary.deleted, part, whole),
        value_bytes: scaled(summary.value_bytes, part, whole),
        key_bytes: scaled(summary.key_bytes, part, whole),
        parts: scaled(summary.parts, part, whole),
        ..*summary
    }
}

/// The part `part` of `whole` of a histogram.
pub(super) fn scaled_histogram(histogram: &Histogram64, part: u64, whole: u64) -> Histogram64 {
    if part >= whole {
        return *histogram;
    }
    Histogram64 {
        buckets: histogram.buckets.map(|count| scaled(count, part, whole)),
    }
}

/// `count * part / whole`, to the nearest, for `part < whole`. The product is formed in 128 bits, where it fits.
fn scaled(count: u64, part: u64, whole: u64) -> u64 {
    let (product, whole) = (u128::from(count) * u128::from(part), u128::from(whole));
    let quotient = product
        .checked_add(whole / 2)
        .and_then(|sum| sum.checked_div(whole));
    quotient
        .and_then(|quotient| u64::try_from(quotient).ok())
        .unwrap_or(count)
}
