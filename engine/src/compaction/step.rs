//! One step of a compaction: some slabs written anew without what goes, and the edits that put them in place.

use std::ops::Range;
use std::sync::Arc;

use lanterman_format::{Histogram32, Summary, ValueType, weakened};

use super::plan::PlannedSlab;
use super::values::GoingParts;
use super::{CompactionReceipt, Work};
use crate::core::Core;
use crate::edit::{Edit, unbuilt};
use crate::error::{Error, Result};
use crate::log::LogState;
use crate::replace::Replacement;
use crate::segment::MakingRoom;
use crate::slab::SlabBuilder;
use crate::tree::SlabEntry;

/// What is written anew in one step.
const STEP_BYTES: u64 = 8 << 20;

/// What slabs beside each other become.
struct Written {
    /// The slabs, by their numbers.
    slabs: Range<usize>,
    offsets: Range<u64>,
    entry: SlabEntry,
    histogram: Histogram32,
}

impl Written {
    /// Nothing is left of some offsets.
    fn nothing(slabs: Range<usize>, offsets: Range<u64>) -> Self {
        let count = offsets.end.saturating_sub(offsets.start);
        let summary = Summary {
            deleted: count,
            ..Summary::EMPTY
        };
        Written {
            slabs,
            offsets,
            entry: SlabEntry {
                offset_count: count,
                skip: 0,
                slab: None,
                summary,
                keys: lanterman_format::KeySketch::EMPTY,
            },
            histogram: Histogram32::default(),
        }
    }
}

impl Core {
    /// Writes some slabs anew and commits them.
    pub(super) fn compaction_step(&self, work: &mut Work) -> Result<CompactionReceipt> {
        let _busy = self.collector.hold();
        let _permit = self.permit()?;
        let _room = MakingRoom::begin();
        let mut receipt = CompactionReceipt::default();
        let mut groups = Vec::new();
        let (written, going) = loop {
            take_groups(work, &mut groups);
            let going = work.plan.going_with(&groups);
            match self.write_groups(work, &mut groups, &going)? {
                Some(written) => break (written, going),
                // One is damaged and stays as it is, and so do the values whose messages it has.
                None if groups.is_empty() && work.groups.is_empty() => return Ok(receipt),
                None => {}
            }
        };
        for group in &groups {
            for slab in work.plan.slabs.get(group.clone()).unwrap_or_default() {
                receipt.removed = receipt.removed.saturating_add(slab.superseded);
                receipt.removed_bytes = receipt.removed_bytes.saturating_add(slab.superseded_bytes);
                receipt.rewritten_bytes = receipt.rewritten_bytes.saturating_add(slab.kept_bytes());
            }
        }
        let mut edits = Vec::new();
        for one in &written {
            edits.push(replacement(work, one, edits.len()));
        }
        let beside = self.write_beside(work, &going, &mut edits, &mut receipt)?;
        let count = edits.len() as u64;
        if count == 0 {
            return Ok(receipt);
        }
        if !weakened!("replaced-before-durable") {
            self.segments.sync_slabs().map_err(|error| self.poison(error))?;
        }
        let (_, destroyed) = self.commit_edits(edits)?;
        put_in_plan(work, beside, &going);
        work.plan.edits = work.plan.edits.saturating_add(count);
        work.removed_any = true;
        receipt.steps = 1;
        let mut known = work.log.superseded.lock();
        known.superseded_bytes = known.superseded_bytes.saturating_sub(receipt.removed_bytes);
        known.in_tree_bytes = known.in_tree_bytes.saturating_sub(destroyed.bytes);
        drop(known);
        self.counters
            .compacted(receipt.removed_bytes, receipt.rewritten_bytes);
        Ok(receipt)
    }

    /// Writes each group as one slab; `None` if one was damaged, which is taken out of the plan and of the groups.
    fn write_groups(
        &self,
        work: &mut Work,
        groups: &mut Vec<Range<usize>>,
        going: &GoingParts,
    ) -> Result<Option<Vec<Written>>> {
        let mut written = Vec::new();
        for (number, group) in groups.iter().enumerate() {
            match self.write_slabs(work, group.clone(), true, going)? {
                Some(one) => written.push(one),
                None => {
                    work.plan.leave(group.clone());
                    groups.remove(number);
                    return Ok(None);
                }
            }
        }
        Ok(Some(written))
    }

    /// Edits for the slabs from which parts alone go: those of nothing else end without being read, all beside each other
    /// at once; others are written anew. Of one that cannot be read the parts are deleted, and the rest stays as it is.
    fn write_beside(
        &self,
        work: &Work,
        going: &GoingParts,
        edits: &mut Vec<Edit>,
        receipt: &mut CompactionReceipt,
    ) -> Result<Vec<Written>> {
        let mut written: Vec<Written> = Vec::new();
        for index in &going.beside {
            let Some(slab) = work.plan.slabs.get(*index) else {
                continue;
            };
            let slabs = *index..index.saturating_add(1);
            if slab.is_all_going(going) {
                match written.last_mut() {
                    Some(last) if last.entry.slab.is_none() && last.slabs.end == *index => {
                        let offsets = last.offsets.start..slab.offsets.end;
                        *last = Written::nothing(last.slabs.start..slabs.end, offsets);
                    }
                    _ => written.push(Written::nothing(slabs, slab.offsets.clone())),
                }
                continue;
            }
            match self.write_slabs(work, slabs, false, going)? {
                Some(one) => {
                    let summary = &one.entry.summary;
                    let bytes = summary.value_bytes.saturating_add(summary.key_bytes);
                    receipt.rewritten_bytes = receipt.rewritten_bytes.saturating_add(bytes);
                    written.push(one);
                }
                None => {
                    let log = || Arc::clone(&work.log);
                    let ranges = slab.going_ranges(going).into_iter();
                    edits.extend(ranges.map(|offsets| Edit::Delete { log: log(), offsets }));
                }
            }
        }
        for one in &written {
            edits.push(replacement(work, one, edits.len()));
        }
        Ok(written)
    }

    /// One slab of what is left of some that stand beside each other; `None` if one of them is damaged, which stays as it is.
    /// Messages go only where `messages_go`.
    fn write_slabs(
        &self,
        work: &Work,
        numbers: Range<usize>,
        messages_go: bool,
        going: &GoingParts,
    ) -> Result<Option<Written>> {
        let slabs = work.plan.slabs.get(numbers.clone()).unwrap_or_default();
        let (Some(first), Some(last)) = (slabs.first(), slabs.last()) else {
            return Err(Error::Internal {
                what: "a group of a plan has slabs",
            });
        };
        let log = &work.log;
        let offsets = first.offsets.start..last.offsets.end;
        let mut builder: Option<SlabBuilder> = None;
        let mut at = offsets.start;
        let mut kept = 0_u64;
        for slab in slabs {
            let Some(handle) = &slab.handle else { continue };
            let failed = |error| self.slab_error(log, Some(slab.offsets.clone()), error);
            let opened = match handle.open(self.source.as_ref()).map_err(failed) {
                Err(Error::Damaged(_)) => return Ok(None),
                opened => opened?.share(),
            };
            let times = opened.layout().summary();
            let times_ms = times.time_min_ms..=times.time_max_ms;
            let builder = match &mut builder {
                Some(builder) => {
                    builder.widen_times(times_ms);
                    builder
                }
                none => none.insert(SlabBuilder::new(log.id, offsets.start, times_ms)),
            };
            // What stands between is deleted.
            builder.push_deleted(slab.offsets.start.saturating_sub(at));
            let goes = |offset: u64, value_type: ValueType| match value_type {
                ValueType::TOMBSTONES => true,
                ValueType::PART => going.has_part(slab, offset),
                _ => messages_go && slab.is_gone(offset),
            };
            let Some(kept_of_slab) = self.write_kept(log, slab, &opened, builder, goes)? else {
                return Ok(None);
            };
            kept = kept.saturating_add(kept_of_slab);
            at = slab.offsets.end;
        }
        let Some(mut builder) = builder.filter(|_| kept > 0) else {
            return Ok(Some(Written::nothing(numbers, offsets)));
        };
        builder.push_deleted(offsets.end.saturating_sub(at));
        let count = offsets.end.saturating_sub(offsets.start);
        let (entry, histogram) = self.write_built(builder.compressed(log.compression()), count)?;
        Ok(Some(Written {
            slabs: numbers,
            offsets,
            entry,
            histogram,
        }))
    }

    /// Adds to a builder what of a slab stays; says how many buffers, or `None` if it is damaged.
    fn write_kept(
        &self,
        log: &LogState,
        slab: &PlannedSlab,
        opened: &Arc<crate::slab::OpenSlab>,
        builder: &mut SlabBuilder,
        goes: impl Fn(u64, ValueType) -> bool,
    ) -> Result<Option<u64>> {
        let failed = |error| self.slab_error(log, Some(slab.offsets.clone()), error);
        let shown_end = slab
            .skip
            .saturating_add(slab.offsets.end.saturating_sub(slab.offsets.start));
        let mut buffers = opened.buffers(slab.skip..shown_end, self.read_context());
        let mut at = slab.offsets.start;
        let mut kept = 0_u64;
        loop {
            let walked = match buffers.next().map_err(failed) {
                Err(Error::Damaged(_)) => return Ok(None),
                walked => walked?,
            };
            let Some(walked) = walked else { break };
            let behind = walked
                .relative_offset
                .saturating_add(walked.buffer.count())
                .min(shown_end);
            let offset_behind = slab
                .offsets
                .start
                .saturating_add(behind.saturating_sub(slab.skip));
            if goes(at, walked.buffer.value_type()) {
                builder.push_deleted(offset_behind.saturating_sub(at));
            } else {
                let stored = walked.bytes().map_err(failed)?;
                builder.push_stored(stored).map_err(unbuilt)?;
                kept = kept.saturating_add(1);
            }
            at = offset_behind;
        }
        opened.check_whole().map_err(failed)?;
        Ok(Some(kept))
    }
}

/// Takes groups until enough is to be written anew for them.
fn take_groups(work: &mut Work, groups: &mut Vec<Range<usize>>) {
    let kept = |group: &Range<usize>| {
        let slabs = work.plan.slabs.get(group.clone()).unwrap_or_default();
        let kept = slabs.iter().map(PlannedSlab::kept_bytes);
        kept.fold(0, u64::saturating_add)
    };
    let mut bytes = groups.iter().map(kept).fold(0, u64::saturating_add);
    while bytes < STEP_BYTES
        && let Some(group) = work.groups.pop()
    {
        bytes = bytes.saturating_add(kept(&group));
        for index in work.plan.going_with(std::slice::from_ref(&group)).beside {
            let slab = work.plan.slabs.get(index);
            bytes = bytes.saturating_add(slab.map_or(0, |slab| slab.bytes));
        }
        groups.push(group);
    }
}

fn replacement(work: &Work, written: &Written, edits_before: usize) -> Edit {
    Edit::Replace(Replacement {
        log: Arc::clone(&work.log),
        offsets: written.offsets.clone(),
        entry: written.entry.clone(),
        histogram: written.histogram,
        edits: Some(work.plan.edits.saturating_add(edits_before as u64)),
        superseded_by: work.plan.end,
    })
}

/// Notes where slabs stand now that lost parts alone: a later step may write them anew for their messages.
fn put_in_plan(work: &mut Work, beside: Vec<Written>, going: &GoingParts) {
    for one in beside {
        for index in one.slabs.clone() {
            if let Some(slab) = work.plan.slabs.get_mut(index) {
                slab.handle = one.entry.slab.clone();
                slab.skip = 0;
            }
            work.plan.forget_parts(index, going);
        }
    }
}
