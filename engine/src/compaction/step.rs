//! One step of a compaction: some slabs written anew without what goes, and the edits that put them in place.

use std::ops::Range;
use std::sync::Arc;

use lanterman_format::{Histogram32, KeySketch, Summary, ValueType, weakened};

use super::CompactionReceipt;
use super::plan::{Plan, PlannedSlab};
use super::room::StepRoom;
use super::values::{BesideSlabs, GoingParts};
use crate::core::Core;
use crate::edit::{Edit, Rehearsal, unbuilt};
use crate::error::{Error, Result};
use crate::keys::{KeyRun, KeyedPlace};
use crate::log::LogState;
use crate::replace::Replacement;
use crate::segment::MakingRoom;
use crate::slab::{SlabBuilder, SlabHandle};
use crate::tree::SlabEntry;

/// What is written anew in one step.
const STEP_BYTES: u64 = 8 << 20;
/// How many groups of slabs a step takes at most: each is looked for in the tree that the ones before have made.
const STEP_GROUPS_MAX: usize = 256;

/// A plan that is carried out step by step.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) log: Arc<LogState>,
    pub(super) plan: Plan,
    /// Slabs beside each other that become one, the best last; what is done is taken off the end.
    pub(super) groups: Vec<Range<usize>>,
    pub(super) removed_any: bool,
    /// Something was left as it is because there was no room for it.
    pub(super) lacks_room: bool,
    /// Garbage was given back since the last step.
    pub(super) has_collected: bool,
}

impl Work {
    pub(super) fn new(log: &Arc<LogState>, plan: Plan, groups: Vec<Range<usize>>) -> Self {
        Work {
            log: Arc::clone(log),
            plan,
            groups,
            removed_any: false,
            lacks_room: false,
            has_collected: false,
        }
    }
}

/// What became of a step.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Stepped {
    pub(super) receipt: CompactionReceipt,
    /// The next group finds no room, unless what is free now is given back.
    pub(super) is_short: bool,
}

/// A step that is not committed yet.
struct Step {
    room: StepRoom,
    edits: Vec<Edit>,
    /// The log's value behind the edits.
    rehearsal: Rehearsal,
    /// The groups that are written.
    groups: Vec<Range<usize>>,
    /// What of values goes with them.
    going: GoingParts,
    /// The slabs that are still to be written because parts in them go.
    beside: Vec<BesideSlabs>,
    /// Where those stand that are.
    moved: Vec<(Range<usize>, Option<Arc<SlabHandle>>)>,
    receipt: CompactionReceipt,
}

impl Step {
    fn new(room: StepRoom) -> Self {
        Step {
            room,
            edits: Vec::new(),
            rehearsal: Rehearsal::default(),
            groups: Vec::new(),
            going: GoingParts::default(),
            beside: Vec::new(),
            moved: Vec::new(),
            receipt: CompactionReceipt::default(),
        }
    }

    /// What it writes, of what it has taken up so far.
    fn written_bytes(&self) -> u64 {
        let beside = self.beside.iter().map(|slabs| slabs.kept_bytes);
        beside.fold(self.receipt.rewritten_bytes, u64::saturating_add)
    }
}

/// What stays of slabs that stand beside each other, for one slab in their place that is not written yet.
struct Rewritten {
    offsets: Range<u64>,
    /// Nothing where nothing stays.
    builder: Option<Box<SlabBuilder>>,
}

/// What became of a group.
enum Added {
    ToStep,
    /// There is no room for it.
    NotForWantOfRoom,
    /// A slab of it cannot be read, and all of it stays as it is, and so do the values whose messages it has.
    NotForDamage,
}

impl Core {
    /// Writes some slabs anew and commits them, as many as there is room for beside the checkpoint that gives back what
    /// they take the place of.
    ///
    /// # Errors
    /// [`Error::StorageFull`] where the disk has less room than it said, with nothing changed.
    pub(super) fn compaction_step(&self, work: &mut Work) -> Result<Stepped> {
        let _busy = self.collector.hold();
        let _permit = self.permit()?;
        let _room = MakingRoom::begin();
        let mut step = Step::new(StepRoom::of(self, &work.log));
        let stepped = self.fill_step(work, &mut step).and_then(|is_short| {
            self.write_beside(work, &mut step)?;
            self.commit_step(work, &mut step)?;
            Ok(Stepped {
                receipt: step.receipt,
                is_short,
            })
        });
        if stepped.is_err() {
            // What was to be first is first again.
            work.groups.extend(step.groups.into_iter().rev());
        }
        stepped
    }

    /// Takes groups until enough is written anew for them, or the next one finds no room; says whether that is so.
    fn fill_step(&self, work: &mut Work, step: &mut Step) -> Result<bool> {
        while step.written_bytes() < STEP_BYTES
            && step.groups.len() < STEP_GROUPS_MAX
            && let Some(group) = work.groups.pop()
        {
            match self.add_group(work, step, &group) {
                Ok(Added::ToStep) => step.groups.push(group),
                Ok(Added::NotForDamage) => work.plan.leave(group),
                Ok(Added::NotForWantOfRoom) => {
                    work.groups.push(group);
                    return Ok(true);
                }
                Err(error) => {
                    work.groups.push(group);
                    return Err(error);
                }
            }
        }
        Ok(false)
    }

    /// Writes a group as one slab, if that finds room together with the slabs beside it from which parts go with its messages.
    fn add_group(&self, work: &Work, step: &mut Step, group: &Range<usize>) -> Result<Added> {
        let mut going = step.going.clone();
        going.take(group, work.plan.going_with(group));
        let Some(rewritten) = self.rewrite_slabs(work, group, true, &going)? else {
            return Ok(Added::NotForDamage);
        };
        let beside = work.plan.beside(&going);
        if self.write_in_room(work, step, rewritten, &beside)?.is_none() {
            return Ok(Added::NotForWantOfRoom);
        }
        (step.going, step.beside) = (going, beside);
        for slab in work.plan.slabs.get(group.clone()).unwrap_or_default() {
            let receipt = &mut step.receipt;
            receipt.removed = receipt.removed.saturating_add(slab.superseded);
            receipt.removed_bytes = receipt.removed_bytes.saturating_add(slab.superseded_bytes);
            receipt.rewritten_bytes = receipt.rewritten_bytes.saturating_add(slab.kept_bytes());
        }
        Ok(Added::ToStep)
    }

    /// Edits for the slabs from which parts alone go: those of nothing else end without being read, others are written anew.
    /// Of one that cannot be read the parts are deleted, and the rest stays as it is.
    fn write_beside(&self, work: &Work, step: &mut Step) -> Result<()> {
        let beside = std::mem::take(&mut step.beside);
        for (number, one) in beside.iter().enumerate() {
            let rest = beside.get(number.saturating_add(1)..).unwrap_or_default();
            let rewritten = match one.is_all_going {
                true => Some(Rewritten {
                    offsets: one.offsets.clone(),
                    builder: None,
                }),
                false => self.rewrite_slabs(work, &one.slabs, false, &step.going)?,
            };
            let Some(rewritten) = rewritten else {
                self.delete_parts(work, step, &one.slabs)?;
                continue;
            };
            let Some(entry) = self.write_in_room(work, step, rewritten, rest)? else {
                return Err(self.no_room_to_compact());
            };
            let bytes = entry.summary.value_bytes.saturating_add(entry.summary.key_bytes);
            step.receipt.rewritten_bytes = step.receipt.rewritten_bytes.saturating_add(bytes);
            step.moved.push((one.slabs.clone(), entry.slab));
        }
        Ok(())
    }

    fn delete_parts(&self, work: &Work, step: &mut Step, slabs: &Range<usize>) -> Result<()> {
        for slab in work.plan.slabs.get(slabs.clone()).unwrap_or_default() {
            for offsets in slab.going_ranges(&step.going) {
                let edit = Edit::Delete {
                    log: Arc::clone(&work.log),
                    offsets,
                };
                self.rehearse(&mut step.rehearsal, [&edit])?;
                step.edits.push(edit);
            }
        }
        Ok(())
    }

    /// Writes what stays of some slabs, and takes up the edit that puts it in their place; gives what shows it, or nothing if
    /// it finds no room beside what must come behind it.
    fn write_in_room(
        &self,
        work: &Work,
        step: &mut Step,
        rewritten: Rewritten,
        beside: &[BesideSlabs],
    ) -> Result<Option<SlabEntry>> {
        let Rewritten { offsets, mut builder } = rewritten;
        let bytes = match &mut builder {
            Some(builder) => builder.end().map_err(unbuilt)? as u64,
            None => 0,
        };
        let root = step.rehearsal.root(&work.log)?;
        if !self.has_room_for(&step.room, &root, step.edits.len(), (&offsets, bytes), beside)? {
            return Ok(None);
        }
        let count = offsets.end.saturating_sub(offsets.start);
        let (entry, histogram) = match builder {
            None => (nothing_left(count), Histogram32::default()),
            Some(builder) => match self.write_built(*builder, count) {
                Err(Error::StorageFull { .. }) => return Ok(None),
                written => written?,
            },
        };
        let edit = Edit::Replace(Replacement {
            log: Arc::clone(&work.log),
            offsets,
            entry: entry.clone(),
            histogram,
            edits: Some(work.plan.edits.saturating_add(step.edits.len() as u64)),
            superseded_by: work.plan.end,
        });
        self.rehearse(&mut step.rehearsal, [&edit])?;
        step.edits.push(edit);
        Ok(Some(entry))
    }

    fn commit_step(&self, work: &mut Work, step: &mut Step) -> Result<()> {
        let count = step.edits.len() as u64;
        if count == 0 {
            return Ok(());
        }
        if !weakened!("replaced-before-durable") {
            self.segments.sync_slabs().map_err(|error| self.poison(error))?;
        }
        let (_, destroyed) = self.commit_edits(std::mem::take(&mut step.edits))?;
        work.plan.put(std::mem::take(&mut step.moved), &step.going);
        work.plan.edits = work.plan.edits.saturating_add(count);
        work.removed_any = true;
        step.receipt.steps = 1;
        let receipt = &step.receipt;
        let mut known = work.log.superseded().lock();
        known.superseded_bytes = known.superseded_bytes.saturating_sub(receipt.removed_bytes);
        known.in_tree_bytes = known.in_tree_bytes.saturating_sub(destroyed.bytes);
        drop(known);
        self.counters
            .compacted(receipt.removed_bytes, receipt.rewritten_bytes);
        Ok(())
    }

    /// What is left of some slabs that stand beside each other, put together as one; `None` if one of them is damaged.
    /// Messages go only where `messages_go`.
    fn rewrite_slabs(
        &self,
        work: &Work,
        numbers: &Range<usize>,
        messages_go: bool,
        going: &GoingParts,
    ) -> Result<Option<Rewritten>> {
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
            let Some(kept_of_slab) = self.add_kept(log, slab, &opened, builder, goes)? else {
                return Ok(None);
            };
            kept = kept.saturating_add(kept_of_slab);
            at = slab.offsets.end;
        }
        let builder = builder.filter(|_| kept > 0).map(|mut builder| {
            builder.push_deleted(offsets.end.saturating_sub(at));
            Box::new(builder.compressed(log.compression()))
        });
        Ok(Some(Rewritten { offsets, builder }))
    }

    /// Adds to a builder what of a slab stays; says how many buffers, or `None` if it is damaged.
    fn add_kept(
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

    /// Takes what went out of the runs too.
    pub(super) fn end_compaction(&self, work: &Work) -> Result<()> {
        if !work.removed_any {
            return Ok(());
        }
        let has_gone = |run: &KeyRun| {
            let offsets = run.offsets();
            let slabs = work.plan.slabs.iter();
            let mut within =
                slabs.filter(|slab| slab.offsets.start < offsets.end && offsets.start < slab.offsets.end);
            within.any(|slab| slab.superseded > 0)
        };
        for run in work.log.root().keys.iter().filter(|run| has_gone(run)) {
            let _busy = self.collector.hold();
            let _permit = self.permit()?;
            let mut keep = |place: &KeyedPlace| !work.plan.is_gone(place.offset);
            self.merge_runs(&work.log, std::slice::from_ref(run), &mut keep)?;
        }
        Ok(())
    }
}

/// The entry of offsets of which nothing is left.
fn nothing_left(offset_count: u64) -> SlabEntry {
    SlabEntry {
        offset_count,
        skip: 0,
        slab: None,
        summary: Summary {
            deleted: offset_count,
            ..Summary::EMPTY
        },
        keys: KeySketch::EMPTY,
    }
}
