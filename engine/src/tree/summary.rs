//! What a range of offsets holds, from the summaries of nodes and entries, without reading a slab.

use std::ops::Range;

use lanterman_format::{Histogram64, Summary};

use super::node::{Children, Node};
use super::{NodeSource, Tree, TreeError};

/// A summary of a range of offsets.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RangeSummary {
    /// The counts. Times are bounds: none of the range lies outside them.
    pub(crate) summary: Summary,
    /// Sizes of messages. In proportion where the range covers only a part of a node.
    pub(crate) histogram: Histogram64,
    /// Whether the range cut no entry in two, so that no count was made by proportion here.
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
                Children::Slabs(entries) => entries.get(index).map(|entry| entry.summary),
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
                self.is_exact &= part_count == whole_count;
                let summary = scaled_summary(&summary, part_count, whole_count);
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
