//! What a log holds, from the summaries that slabs and tree nodes carry; no slab is read for it.

use std::ops::Range;

use lanterman_format::buffer;
use lanterman_format::summary::{Histogram64, Summary};

use crate::core::Core;
use crate::error::{Error, Result};
use crate::log::{LogState, Root};

/// Counts, bytes and times of a log; see [`crate::Snapshot::summary`].
#[derive(Debug, Clone, Copy)]
pub struct LogSummary {
    summary: Summary,
    histogram: Histogram64,
    is_exact: bool,
}

impl LogSummary {
    /// How many messages there are.
    #[must_use]
    pub fn messages(&self) -> u64 {
        self.summary.messages
    }

    /// How many offsets have no message any more.
    #[must_use]
    pub fn deleted(&self) -> u64 {
        self.summary.deleted
    }

    /// Bytes of all values.
    #[must_use]
    pub fn value_bytes(&self) -> u64 {
        self.summary.value_bytes
    }

    /// Bytes of all keys.
    #[must_use]
    pub fn key_bytes(&self) -> u64 {
        self.summary.key_bytes
    }

    /// Bounds of the times of its messages in milliseconds since 1970. A message without a time of its own counts with
    /// the time span of the slab that it is in, so the bounds may be wide.
    #[must_use]
    pub fn times_ms(&self) -> Option<(i64, i64)> {
        self.summary.times_ms()
    }

    /// A size in bytes that so many percent of the values do not exceed: the upper bound of a power-of-two bucket.
    #[must_use]
    pub fn value_bytes_percentile(&self, percent: u32) -> Option<u64> {
        self.histogram.percentile(percent)
    }

    /// Whether no slab was cut in two for this answer. The share of a slab of which a part is shown is an estimate; it is
    /// exact for numbers of messages unless some of the slab's were deleted before.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        self.is_exact
    }

    fn add(&mut self, body: &[u8]) -> Result<()> {
        for found in buffer::walk(body) {
            let (_, message) = found.map_err(|_| Error::Internal {
                what: "a published buffer parses",
            })?;
            self.summary.add_buffer(&message);
            self.histogram
                .add(u32::try_from(message.value().len()).unwrap_or(u32::MAX));
        }
        Ok(())
    }
}

impl Core {
    /// The summary of the messages of `root` below `end`.
    pub(crate) fn summarise(&self, log: &LogState, root: &Root, end: u64) -> Result<LogSummary> {
        let tree_end = root.tree_end.min(end);
        let from_tree = root
            .tree
            .summary(self.source.as_ref(), 0..tree_end.saturating_sub(root.start))
            .map_err(|error| self.tree_error(log, error))?;
        let mut sum = LogSummary {
            summary: from_tree.summary,
            histogram: from_tree.histogram,
            is_exact: from_tree.is_exact,
        };
        let behind = self.summarise_behind_tree(log, root, tree_end..end)?;
        sum.summary.merge(&behind.summary);
        sum.histogram.merge(&behind.histogram);
        sum.is_exact &= behind.is_exact;
        if let Some(tail) = root
            .tail
            .as_ref()
            .filter(|tail| root.chunks.is_empty() && tail.first >= tree_end)
        {
            let offsets = tail.first..tail.first.saturating_add(tail.count);
            let failed = |error| self.slab_error(log, Some(offsets.clone()), error);
            let opened = tail.slab.open(self.source.as_ref()).map_err(failed)?;
            sum.summary.merge(opened.layout().summary());
            sum.histogram.merge(&opened.histogram().map_err(failed)?.into());
            sum.is_exact &= tail.skip == 0 && opened.layout().offset_count() == tail.count;
        }
        Ok(sum)
    }

    /// What chunks and pending runs of `root` hold of `offsets`, none of which are in the tree.
    pub(crate) fn summarise_behind_tree(
        &self,
        log: &LogState,
        root: &Root,
        offsets: Range<u64>,
    ) -> Result<LogSummary> {
        let mut sum = LogSummary {
            summary: Summary::EMPTY,
            histogram: Histogram64::default(),
            is_exact: true,
        };
        for chunk in root.chunks.iter() {
            let until = chunk.end_offset().min(offsets.end);
            let mut from = chunk.first_offset().max(offsets.start);
            while from < until {
                if let Some(mask) = root.mask_at(from) {
                    let behind = mask.end.min(until);
                    sum.summary.deleted = sum.summary.deleted.saturating_add(behind.saturating_sub(from));
                    from = behind;
                    continue;
                }
                let part_end = root.next_mask(from).unwrap_or(u64::MAX).min(until);
                let entry = from.saturating_sub(chunk.first_offset());
                sum.add(chunk.entries_bytes(entry, part_end.saturating_sub(from))?)?;
                from = part_end;
            }
        }
        for pending in root.pending.iter() {
            let until = pending.end().min(offsets.end);
            let mut from = pending.first.max(offsets.start);
            while from < until {
                if let Some(mask) = root.mask_at(from) {
                    let behind = mask.end.min(until);
                    sum.summary.deleted = sum.summary.deleted.saturating_add(behind.saturating_sub(from));
                    from = behind;
                    continue;
                }
                let part_end = root.next_mask(from).unwrap_or(u64::MAX).min(until);
                let relative = from.saturating_sub(pending.first)..part_end.saturating_sub(pending.first);
                let part = pending
                    .tree
                    .summary(self.source.as_ref(), relative)
                    .map_err(|error| self.tree_error(log, error))?;
                sum.summary.merge(&part.summary);
                sum.histogram.merge(&part.histogram);
                sum.is_exact &= part.is_exact;
                from = part_end;
            }
        }
        Ok(sum)
    }
}
