//! What lies in a range of times, from the summaries of nodes and entries, without reading a slab.
//!
//! Times of messages need not rise with their offsets, but mostly do: then the range cuts two entries and their ancestors,
//! and all others are in it or not as a whole.

use std::ops::RangeInclusive;

use lanterman_format::Summary;

use super::node::{Children, Node};
use super::summary::{scaled_histogram, scaled_summary};
use super::{NodeSource, RangeSummary, Tree, TreeError};

/// How much of a span of times lies in a range.
pub(super) enum Overlap {
    None,
    /// So many of so many milliseconds.
    Part(u64, u64),
    Whole,
}

fn milliseconds(first: i64, last: i64) -> u64 {
    last.abs_diff(first).saturating_add(1)
}

pub(super) fn overlap(summary: &Summary, times_ms: &RangeInclusive<i64>) -> Overlap {
    let Some((least, greatest)) = summary.times_ms() else {
        return Overlap::None;
    };
    let (first, last) = (least.max(*times_ms.start()), greatest.min(*times_ms.end()));
    if first > last {
        Overlap::None
    } else if (first, last) == (least, greatest) {
        Overlap::Whole
    } else {
        Overlap::Part(milliseconds(first, last), milliseconds(least, greatest))
    }
}

impl Tree {
    /// What entries with times in `times_ms` hold. An entry of which only a part of the time span lies in it counts in
    /// proportion, and the answer is no longer exact.
    ///
    /// # Errors
    ///
    /// Errors of loading the nodes that are cut.
    pub(crate) fn summary_between(
        &self,
        source: &dyn NodeSource,
        times_ms: &RangeInclusive<i64>,
    ) -> Result<RangeSummary, TreeError> {
        let mut sum = RangeSummary {
            is_exact: true,
            ..RangeSummary::default()
        };
        if let Some(root) = &self.root {
            sum.add_node_between(root.node(source, self.expected())?, 0, source, times_ms)?;
        }
        Ok(sum)
    }
}

impl RangeSummary {
    fn add_node_between(
        &mut self,
        node: &Node,
        first_offset: u64,
        source: &dyn NodeSource,
        times_ms: &RangeInclusive<i64>,
    ) -> Result<(), TreeError> {
        match overlap(node.summary(), times_ms) {
            Overlap::None => return Ok(()),
            Overlap::Whole => {
                self.summary.merge(node.summary());
                self.histogram.merge(node.histogram());
                return Ok(());
            }
            Overlap::Part(..) => {}
        }
        // Messages that were counted at this node, and whose sizes are not known any better than the node's.
        let mut counted = 0_u64;
        let mut add = |sum: &mut Self, summary: &Summary| {
            counted = counted.saturating_add(summary.messages);
            sum.summary.merge(summary);
        };
        match node.children() {
            Children::Slabs(entries) => {
                for entry in entries {
                    match overlap(&entry.summary, times_ms) {
                        Overlap::None => {}
                        Overlap::Whole => add(self, &entry.summary),
                        Overlap::Part(part, whole) => {
                            self.is_exact = false;
                            add(self, &scaled_summary(&entry.summary, part, whole));
                        }
                    }
                }
            }
            Children::Nodes(links) => {
                for (index, link) in links.iter().enumerate() {
                    match overlap(&link.summary, times_ms) {
                        Overlap::None => {}
                        Overlap::Whole => add(self, &link.summary),
                        Overlap::Part(..) => {
                            let first_offset = first_offset.saturating_add(node.start_of(index));
                            let expected = link.expected(node.level(), first_offset);
                            let child = link.branch.node(source, expected)?;
                            self.add_node_between(child, first_offset, source, times_ms)?;
                        }
                    }
                }
            }
        }
        let whole = node.summary().messages;
        self.histogram
            .merge(&scaled_histogram(node.histogram(), counted, whole));
        Ok(())
    }
}
