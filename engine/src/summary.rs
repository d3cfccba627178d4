//! What a log holds, from the summaries that slabs and tree nodes carry; no slab is read for it.

use std::borrow::Cow;
use std::ops::{Range, RangeInclusive};

use lanterman_format::buffer::{self, ValueType};
use lanterman_format::summary::{HISTOGRAM_BUCKETS, Histogram64, Summary};

use crate::core::Core;
use crate::error::{Error, Result};
use crate::log::{LogState, Root};
use crate::region::chunk::Chunk;
use crate::tree::{KeyTally, RangeSummary, Tree};

/// Counts, bytes, sizes, types and times of a log or of a part of it; see [`crate::Snapshot::summary`],
/// [`summary_of`](crate::Snapshot::summary_of) and [`summary_between`](crate::Snapshot::summary_between).
#[derive(Debug, Clone, Copy)]
pub struct LogSummary {
    summary: Summary,
    histogram: Histogram64,
    is_exact: bool,
    distinct_keys: Option<u64>,
}

impl LogSummary {
    /// How many messages there are.
    #[must_use]
    pub fn messages(&self) -> u64 {
        self.summary.messages.saturating_sub(self.summary.parts)
    }

    /// How many offsets have a part of a large value in the place of a message; see
    /// [`Writer::append_large`](crate::Writer::append_large). Their bytes and sizes are those of values here.
    #[must_use]
    pub fn parts(&self) -> u64 {
        self.summary.parts
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

    /// About how many different keys there are, with a standard error of 3.25 %, and hardly any for a few; the empty key is not
    /// counted. `None` if it is not known, because some of the messages were written by a program that kept no account of keys.
    ///
    /// Keys of deleted messages may be counted: where less than half of a slab was cut off by a deletion or a splice, until
    /// its space is given back. A slab of which only a part lies in a range of times counts with all of its keys.
    #[must_use]
    pub fn distinct_keys(&self) -> Option<u64> {
        self.distinct_keys
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

    /// How many values have which size: for each size that occurs the greatest number of bytes that counts as it, which is
    /// a power of two less one, and how many values there are. They are counted in proportion where a part of a slab, or
    /// of a node of the log's tree, is asked for, and for deleted messages they may lag behind.
    pub fn value_sizes(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        let largest = (0..HISTOGRAM_BUCKETS).map(|bucket| {
            let values = u64::MAX.checked_shr(u64::BITS.saturating_sub(u32::try_from(bucket).unwrap_or(0)));
            values.unwrap_or(0)
        });
        largest
            .zip(self.histogram.buckets)
            .filter(|(_, count)| *count > 0)
    }

    /// Types of values with a number below 63. Of deleted messages they may still be there.
    pub fn value_types(&self) -> impl Iterator<Item = ValueType> + use<> {
        self.summary.types.iter()
    }

    /// Whether there are types with greater numbers.
    #[must_use]
    pub fn has_other_value_types(&self) -> bool {
        self.summary.types.has_others()
    }

    fn empty() -> Self {
        LogSummary {
            summary: Summary::EMPTY,
            histogram: Histogram64::default(),
            is_exact: true,
            distinct_keys: None,
        }
    }

    fn merge(&mut self, part: &RangeSummary) {
        self.summary.merge(&part.summary);
        self.histogram.merge(&part.histogram);
        self.is_exact &= part.is_exact;
    }

    /// The same with the number of keys that `add` puts together; it is asked where there are any.
    fn with_distinct_keys(mut self, add: impl FnOnce(&mut KeyTally) -> Result<()>) -> Result<Self> {
        let mut tally = KeyTally::new();
        if self.summary.key_bytes > 0 {
            add(&mut tally)?;
        }
        self.distinct_keys = tally.estimate();
        Ok(self)
    }

    fn add(&mut self, message: &buffer::BufferView<'_>) {
        self.summary.add_buffer(message);
        self.histogram
            .add(u32::try_from(message.value().len()).unwrap_or(u32::MAX));
    }
}

/// What stands behind a log's tree, piece by piece.
enum Part<'a> {
    /// Messages of a chunk, by their offsets in the log.
    InMemory(&'a Chunk, Range<u64>),
    /// A part of a tree that is not joined to the log's yet, by its own offsets.
    InTree(Cow<'a, Tree>, Range<u64>),
    Deleted(u64),
}

/// Cuts `offsets` at the masks of a root; of each part it is told whether it is deleted.
fn unmasked_parts(root: &Root, offsets: Range<u64>) -> impl Iterator<Item = (Range<u64>, bool)> + '_ {
    let mut from = offsets.start;
    std::iter::from_fn(move || {
        if from >= offsets.end {
            return None;
        }
        let mask = root.mask_at(from);
        let until = match mask {
            Some(mask) => mask.end,
            None => root.next_mask(from).unwrap_or(u64::MAX),
        };
        let part = from..until.min(offsets.end);
        from = part.end;
        Some((part, mask.is_some()))
    })
}

impl Core {
    /// The summary of the messages of `root` below `end`.
    pub(crate) fn summarise(&self, log: &LogState, root: &Root, end: u64) -> Result<LogSummary> {
        self.summarise_offsets(log, root, root.start..end)
    }

    /// The summary of `offsets`, none of which stand before the root's start.
    pub(crate) fn summarise_offsets(
        &self,
        log: &LogState,
        root: &Root,
        offsets: Range<u64>,
    ) -> Result<LogSummary> {
        let mut sum = LogSummary::empty();
        let in_tree = offsets.start.min(root.tree_end)..offsets.end.min(root.tree_end);
        let relative = in_tree.start.saturating_sub(root.start)..in_tree.end.saturating_sub(root.start);
        let from_tree = root
            .tree
            .summary(self.source.as_ref(), relative)
            .map_err(|error| self.tree_error(log, error))?;
        sum.merge(&from_tree);
        let behind = offsets.start.max(root.tree_end)..offsets.end;
        let behind = self.summarise_behind_tree(log, root, behind)?;
        sum.merge(&RangeSummary {
            summary: behind.summary,
            histogram: behind.histogram,
            is_exact: behind.is_exact,
        });
        Ok(sum)
    }

    /// The summary of the messages of `root` below `end` with times in `times_ms`.
    pub(crate) fn summarise_times(
        &self,
        log: &LogState,
        root: &Root,
        end: u64,
        times_ms: RangeInclusive<i64>,
    ) -> Result<LogSummary> {
        let failed = |error| self.tree_error(log, error);
        let source = self.source.as_ref();
        let mut sum = LogSummary::empty();
        let tree_end = end.min(root.tree_end).saturating_sub(root.start);
        let tree = root.tree.truncate_to(source, tree_end).map_err(failed)?;
        sum.merge(&tree.summary_between(source, &times_ms).map_err(failed)?);
        for part in self.parts_behind_tree(log, root, root.tree_end..end)? {
            match part {
                Part::Deleted(_) => {}
                Part::InTree(tree, offsets) => {
                    let tree = tree.slice(source, offsets).map_err(failed)?;
                    sum.merge(&tree.summary_between(source, &times_ms).map_err(failed)?);
                }
                Part::InMemory(chunk, offsets) => {
                    // When those without a time of their own were appended.
                    let opened_ms = chunk.opened_ms();
                    let span = opened_ms..=self.now_ms().max(opened_ms);
                    let is_apart = span.start() > times_ms.end() || times_ms.start() > span.end();
                    let is_within = times_ms.contains(span.start()) && times_ms.contains(span.end());
                    each_message(chunk, offsets, |message| {
                        sum.is_exact &= message.time_ms().is_some() || is_apart || is_within;
                        if times_ms.contains(&message.time_ms().unwrap_or(opened_ms)) {
                            sum.add(message);
                        }
                    })?;
                }
            }
        }
        Ok(sum)
    }

    /// The summary of `offsets` of `root`, none of which stand before its start, with the number of different keys.
    pub(crate) fn summarise_with_keys(
        &self,
        log: &LogState,
        root: &Root,
        offsets: Range<u64>,
    ) -> Result<LogSummary> {
        let sum = self.summarise_offsets(log, root, offsets.clone())?;
        let in_tree = offsets.start.min(root.tree_end)..offsets.end.min(root.tree_end);
        let relative = in_tree.start.saturating_sub(root.start)..in_tree.end.saturating_sub(root.start);
        let behind = offsets.start.max(root.tree_end)..offsets.end;
        sum.with_distinct_keys(|tally| {
            let source = self.source.as_ref();
            let failed = |error| self.tree_error(log, error);
            root.tree.add_keys(source, relative, tally).map_err(failed)?;
            for part in self.parts_behind_tree(log, root, behind)? {
                match part {
                    Part::Deleted(_) => {}
                    Part::InMemory(chunk, offsets) => add_keys_of(chunk, offsets, tally)?,
                    Part::InTree(tree, offsets) => tree.add_keys(source, offsets, tally).map_err(failed)?,
                }
            }
            Ok(())
        })
    }

    /// The same of the messages below `end` with times in `times_ms`.
    pub(crate) fn summarise_times_with_keys(
        &self,
        log: &LogState,
        root: &Root,
        end: u64,
        times_ms: RangeInclusive<i64>,
    ) -> Result<LogSummary> {
        let sum = self.summarise_times(log, root, end, times_ms.clone())?;
        sum.with_distinct_keys(|tally| {
            let source = self.source.as_ref();
            let failed = |error| self.tree_error(log, error);
            let add = |tree: &Tree, range: Range<u64>, tally: &mut KeyTally| {
                let tree = tree.slice(source, range).map_err(failed)?;
                tree.add_keys_between(source, &times_ms, tally).map_err(failed)
            };
            let tree_end = end.min(root.tree_end).saturating_sub(root.start);
            add(&root.tree, 0..tree_end, tally)?;
            for part in self.parts_behind_tree(log, root, root.tree_end..end)? {
                match part {
                    Part::Deleted(_) => {}
                    Part::InTree(tree, offsets) => add(&tree, offsets, tally)?,
                    Part::InMemory(chunk, offsets) => each_message(chunk, offsets, |message| {
                        let time_ms = message.time_ms().unwrap_or(chunk.opened_ms());
                        if let Some(key) = message.key().filter(|_| times_ms.contains(&time_ms)) {
                            tally.insert(key);
                        }
                    })?,
                }
            }
            Ok(())
        })
    }

    /// What chunks, pending runs and the tail slab of `root` hold of `offsets`, none of which are in the tree.
    pub(crate) fn summarise_behind_tree(
        &self,
        log: &LogState,
        root: &Root,
        offsets: Range<u64>,
    ) -> Result<LogSummary> {
        let mut sum = LogSummary::empty();
        for part in self.parts_behind_tree(log, root, offsets)? {
            match part {
                Part::Deleted(count) => sum.summary.add_deleted(count),
                Part::InMemory(chunk, offsets) => each_message(chunk, offsets, |message| sum.add(message))?,
                Part::InTree(tree, offsets) => {
                    let part = tree.summary(self.source.as_ref(), offsets);
                    sum.merge(&part.map_err(|error| self.tree_error(log, error))?);
                }
            }
        }
        Ok(sum)
    }

    /// The pieces of `root` that hold `offsets`, none of which are in the tree.
    fn parts_behind_tree<'a>(
        &self,
        log: &LogState,
        root: &'a Root,
        offsets: Range<u64>,
    ) -> Result<Vec<Part<'a>>> {
        let mut parts = Vec::new();
        let deleted = |part: &Range<u64>| Part::Deleted(part.end.saturating_sub(part.start));
        for chunk in root.chunks.iter() {
            let held = chunk.first_offset().max(offsets.start)..chunk.end_offset().min(offsets.end);
            parts.extend(
                unmasked_parts(root, held).map(|(part, is_deleted)| match is_deleted {
                    true => deleted(&part),
                    false => Part::InMemory(chunk, part),
                }),
            );
        }
        for pending in root.pending.iter() {
            let held = pending.first.max(offsets.start)..pending.end().min(offsets.end);
            parts.extend(unmasked_parts(root, held).map(|(part, is_deleted)| {
                let relative =
                    part.start.saturating_sub(pending.first)..part.end.saturating_sub(pending.first);
                match is_deleted {
                    true => deleted(&part),
                    false => Part::InTree(Cow::Borrowed(&pending.tree), relative),
                }
            }));
        }
        if let Some(tail) = root.tail.as_ref().filter(|_| root.chunks.is_empty()) {
            let held = tail.first.max(offsets.start)..tail.first.saturating_add(tail.count).min(offsets.end);
            if !held.is_empty() {
                // The slab has runs for what is masked.
                let (tree, until) = self.tail_as_tree(log, root, held.clone())?;
                parts.push(Part::InTree(
                    Cow::Owned(tree),
                    0..until.saturating_sub(held.start),
                ));
            }
        }
        Ok(parts)
    }
}

fn add_keys_of(chunk: &Chunk, offsets: Range<u64>, tally: &mut KeyTally) -> Result<()> {
    each_message(chunk, offsets, |message| {
        message.key().into_iter().for_each(|key| tally.insert(key));
    })
}

/// Calls `look` for each message of a chunk at `offsets`.
fn each_message(
    chunk: &Chunk,
    offsets: Range<u64>,
    mut look: impl FnMut(&buffer::BufferView<'_>),
) -> Result<()> {
    let entry = offsets.start.saturating_sub(chunk.first_offset());
    let body = chunk.entries_bytes(entry, offsets.end.saturating_sub(offsets.start))?;
    for found in buffer::walk(body) {
        let (_, message) = found.map_err(|_| Error::Internal {
            what: "a published buffer parses",
        })?;
        look(&message);
    }
    Ok(())
}
