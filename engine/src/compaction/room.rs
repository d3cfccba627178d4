//! Room for a compaction on a disk that is full, or nearly so.
//!
//! Writing slabs anew frees something only once a commit tells of them and a checkpoint has forgotten the old ones. A step
//! that takes all that is left would leave no room for either, and nothing could be freed any more. So a step ends while
//! there is room for both; what it has freed is given back, and serves the next one.

use std::ops::Range;
use std::sync::Arc;

use lanterman_format::weakened;

use super::CompactionReceipt;
use super::plan::PlannedSlab;
use super::step::{Stepped, Work};
use super::values::BesideSlabs;
use crate::core::Core;
use crate::error::{Error, Result};
use crate::log::{LogState, Root};
use crate::segment::small_segment_bytes;

/// What a commit and a checkpoint need beside what is counted: a segment of the journal, a page of the catalog, a header for
/// each new segment.
const ROOM_BYTES_MIN: u64 = 64 << 10;
/// What a checkpoint says of each segment of slabs.
const BYTES_PER_SEGMENT: u64 = 128;
/// What a commit says of each slab that takes the place of others.
const BYTES_PER_EDIT: u64 = 128;

/// What must find room behind a step.
#[derive(Debug)]
pub(super) struct StepRoom {
    log: Arc<LogState>,
    /// What the commit and the checkpoint write beside the log's trees.
    beside_trees: u64,
}

impl StepRoom {
    pub(super) fn of(core: &Core, log: &Arc<LogState>) -> Self {
        let segments = core.segments.known_slabs().len() as u64;
        let tails = core.catalog.with_memory();
        let tails = tails.iter().map(|log| unwritten_tail_bytes(log));
        // The commit has messages of this log that no commit had.
        let uncommitted = match log.journaled_end() < log.end() {
            true => unwritten_tail_bytes(log),
            false => 0,
        };
        StepRoom {
            log: Arc::clone(log),
            beside_trees: tails
                .fold(uncommitted, u64::saturating_add)
                .saturating_add(ROOM_BYTES_MIN)
                .saturating_add(segments.saturating_mul(BYTES_PER_SEGMENT)),
        }
    }
}

/// What a checkpoint writes of the chunks of a log.
fn unwritten_tail_bytes(log: &LogState) -> u64 {
    let root = log.root();
    if log.persisted.lock().end >= root.end() {
        return 0;
    }
    let waiting = root
        .chunks
        .iter()
        .filter(|chunk| chunk.end_offset() > root.tree_end);
    waiting
        .map(|chunk| u64::from(chunk.published().body_end))
        .fold(0, u64::saturating_add)
}

impl Work {
    /// Takes fewer slabs at once, since the next group finds no room. One that is too large alone stays as it is, and so
    /// do those that are not much smaller: finding that out for each would take long.
    fn take_fewer(&mut self) {
        let Some(group) = self.groups.pop() else { return };
        if group.len() > 1 {
            let middle = group.start.midpoint(group.end);
            // With values in parts those behind come first, as in the plan.
            self.groups.push(group.start..middle);
            self.groups.push(middle..group.end);
            return;
        }
        self.lacks_room = true;
        let small = self.kept_bytes(&group) / 2;
        self.plan.leave(group);
        for group in std::mem::take(&mut self.groups) {
            if self.kept_bytes(&group) > small {
                self.plan.leave(group);
            } else {
                self.groups.push(group);
            }
        }
    }

    /// What stays of a group, and of the slabs beside it that have parts of its values.
    fn kept_bytes(&self, group: &Range<usize>) -> u64 {
        let slabs = self.plan.slabs.get(group.clone()).unwrap_or_default();
        let beside = self.plan.beside(&self.plan.going_with(group));
        let kept = slabs.iter().map(PlannedSlab::kept_bytes);
        let kept = kept.chain(beside.iter().map(|slabs| slabs.kept_bytes));
        kept.fold(0, u64::saturating_add)
    }
}

impl Core {
    /// Whether a slab of so many bytes finds room in the place of some offsets, and then the slabs `beside` it, the commit and
    /// the checkpoint do. `root` is the log's value behind the edits so far.
    pub(super) fn has_room_for(
        &self,
        room: &StepRoom,
        root: &Root,
        edits: usize,
        (offsets, bytes): (&Range<u64>, u64),
        beside: &[BesideSlabs],
    ) -> Result<bool> {
        if weakened!("compaction-without-room") {
            return Ok(true);
        }
        let source = self.source.as_ref();
        let edits = edits.saturating_add(beside.len()).saturating_add(1) as u64;
        let relative = |offsets: &Range<u64>| {
            offsets.start.saturating_sub(root.start)..offsets.end.saturating_sub(root.start)
        };
        let offsets = std::iter::once(offsets).chain(beside.iter().map(|slabs| &slabs.offsets));
        let replaced: Vec<Range<u64>> = offsets.map(relative).collect();
        let nodes = root.tree.unwritten_bytes(source, &replaced);
        let nodes = nodes.map_err(|error| self.tree_error(&room.log, error))?;
        let mut needed = room
            .beside_trees
            .saturating_add(edits.saturating_mul(BYTES_PER_EDIT))
            .saturating_add(nodes);
        for run in root.keys.iter() {
            let nodes = run.pages().unwritten_bytes(source, &[]);
            needed = needed.saturating_add(nodes.map_err(|error| self.tree_error(&room.log, error))?);
        }
        let slabs = std::iter::once(bytes).chain(beside.iter().map(|slabs| slabs.kept_bytes));
        let slabs = slabs.filter(|bytes| *bytes > 0).map(small_segment_bytes);
        self.segments.has_room(slabs.fold(needed, u64::saturating_add))
    }

    /// One step; where it is short of room, what is garbage by now is given back, and if that was of no use, the next step
    /// takes fewer slabs.
    pub(super) fn step_in_room(&self, work: &mut Work) -> Result<CompactionReceipt> {
        let stepped = match self.compaction_step(work) {
            // What was written and is not committed is garbage, and given back before the next step.
            Err(Error::StorageFull { .. }) => {
                if std::mem::take(&mut work.has_collected) {
                    work.take_fewer();
                }
                Stepped {
                    is_short: true,
                    ..Stepped::default()
                }
            }
            stepped => stepped?,
        };
        if stepped.receipt.steps > 0 {
            work.has_collected = false;
        }
        if stepped.is_short {
            if std::mem::replace(&mut work.has_collected, true) {
                work.take_fewer();
            } else {
                self.give_back_now()?;
            }
        }
        Ok(stepped.receipt)
    }

    /// Takes what went out of the runs too; where there is no room for that, they go on telling of it, which is not wrong.
    pub(super) fn end_in_room(&self, work: &Work) -> Result<()> {
        // Where there was no room for runs, there may be now.
        self.compactor.set_indexed(None);
        match self.end_compaction(work) {
            Err(Error::StorageFull { .. }) => {}
            ended => return ended,
        }
        self.give_back_now()?;
        match self.end_compaction(work) {
            Err(Error::StorageFull { .. }) => Ok(()),
            ended => ended,
        }
    }

    /// The error of a compaction that can do nothing.
    pub(super) fn no_room_to_compact(&self) -> Error {
        Error::StorageFull {
            operation: "write slabs without superseded messages in",
            path: self.segments.directory().to_path_buf(),
        }
    }
}
