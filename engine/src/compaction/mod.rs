//! Compaction of keyed logs: removing messages that newer ones with the same key supersede.
//!
//! A look at all keys of a log in their order finds out, for each slab, how many of its bytes are superseded, exactly. From
//! that the slabs are chosen that give back most for what has to be written anew. Each step writes slabs without those
//! messages, and commits them as replacements ([`crate::replace`]): atomic, durable, offsets as they were. Readers go on from
//! the values they have; the old slabs go when nobody holds them.
//!
//! Invariants:
//! - the newest message of a key is never removed, unless it is a delete marker that nobody needs any more and the last of
//!   its key: what supersedes others is in the journal before they go, and a step is refused if the log was edited since the look;
//! - nothing of a plan outlives the process, and every step leaves a whole log: it may be broken off anywhere.

mod plan;
mod room;
mod step;
#[cfg(all(test, not(loom)))]
mod tests;
mod values;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use lanterman_format::settings::KeyedSettings;
use parking_lot::Mutex;

use crate::core::Core;
use crate::error::{Error, Result};
use crate::keys::{KeyRun, Superseded};
use crate::log::{LogState, Root};
use crate::segment::MakingRoom;
use step::Work;

/// How often a plan that the log has left behind is made anew.
const ATTEMPTS_MAX: u32 = 5;
/// How often the background looks for logs to compact at most.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How long the background leaves a log alone that it finds no room to compact.
const FULL_INTERVAL: Duration = Duration::from_secs(10);
/// A log is compacted until the superseded messages take this part of what they may.
const REST_PERCENT: u64 = 40;

/// What compacting a log would do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CompactionPlan {
    /// How many keys the log has, those of delete markers included.
    pub keys: u64,
    /// Stored bytes of the newest message of each key, the parts of its value included.
    pub live_bytes: u64,
    /// How many messages would be removed.
    pub superseded: u64,
    /// Their stored bytes, the parts of their values included.
    pub superseded_bytes: u64,
    /// How many slabs have some of them.
    pub slabs: u64,
}

/// What a compaction did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CompactionReceipt {
    /// How many messages were removed.
    pub removed: u64,
    /// Their stored bytes, the parts of their values included.
    pub removed_bytes: u64,
    /// Stored bytes that were written anew for it.
    pub rewritten_bytes: u64,
    /// How many steps, each a commit of its own, it took.
    pub steps: u64,
}

impl CompactionReceipt {
    fn add(&mut self, other: Self) {
        self.removed = self.removed.saturating_add(other.removed);
        self.removed_bytes = self.removed_bytes.saturating_add(other.removed_bytes);
        self.rewritten_bytes = self.rewritten_bytes.saturating_add(other.rewritten_bytes);
        self.steps = self.steps.saturating_add(other.steps);
    }
}

/// What the background is at.
#[derive(Debug, Default)]
pub(crate) struct Compactor {
    /// Held by whoever compacts.
    state: Mutex<CompactorState>,
    /// Whether any log is or was keyed: stores without such logs, however many they have, are not looked through.
    has_keyed: AtomicBool,
    /// One more than the slabs that had been written when all logs had their runs of keys; 0 if some may not have them.
    indexed_slabs: AtomicU64,
}

impl Compactor {
    /// Whether no slab has come since all logs had their runs of keys.
    pub(crate) fn is_indexed(&self, slabs: u64) -> bool {
        self.indexed_slabs.load(Ordering::Relaxed) == slabs.saturating_add(1)
    }

    /// Notes that all logs have their runs, where so many slabs were written, or with `None` that one has lost them.
    pub(crate) fn set_indexed(&self, slabs: Option<u64>) {
        let told = slabs.map_or(0, |slabs| slabs.saturating_add(1));
        self.indexed_slabs.store(told, Ordering::Relaxed);
    }

    pub(crate) fn has_keyed(&self) -> bool {
        self.has_keyed.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
struct CompactorState {
    work: Option<Work>,
    looked_at: Duration,
    rests_until: Duration,
}

impl Core {
    /// Notes a log if it is keyed.
    pub(crate) fn note_keyed(&self, log: &LogState) {
        if log.is_keyed() {
            self.compactor.has_keyed.store(true, Ordering::Relaxed);
        }
    }

    /// What a compaction of the log `name` would do.
    pub(crate) fn plan_compaction(&self, name: &str) -> Result<CompactionPlan> {
        let log = self.find_log(name)?;
        let keyed = self.check_keyed(&log)?;
        Ok(self.look_at_keys(&log, &keyed)?.0.summary())
    }

    /// Removes everything that is superseded and in slabs.
    pub(crate) fn compact(&self, name: &str) -> Result<CompactionReceipt> {
        self.check_writable("compact")?;
        let log = self.find_log(name)?;
        let keyed = self.check_keyed(&log)?;
        // What the background is at is begun anew afterwards.
        let mut state = self.compactor.state.lock();
        state.work = None;
        self.seal_newest(&log)?;
        let mut receipt = CompactionReceipt::default();
        let mut lacks_room = false;
        for _ in 0..ATTEMPTS_MAX {
            let Some(mut work) = self.begin_compaction(&log, &keyed, 0)? else {
                return Ok(receipt);
            };
            let removed = receipt.removed;
            match self.carry_out(&mut work, &mut receipt) {
                // A plan holds for one value. Markers whose messages went just now may go with the next one.
                Ok(()) | Err(Error::Changed { .. }) => {}
                Err(error) => return Err(error),
            }
            lacks_room = work.lacks_room;
            if lacks_room && receipt.removed == removed {
                break;
            }
        }
        match lacks_room {
            true => Err(self.no_room_to_compact()),
            false => Ok(receipt),
        }
    }

    /// Has what of a log is in memory written as slabs, unless somebody fills a message just now.
    fn seal_newest(&self, log: &Arc<LogState>) -> Result<()> {
        if let Some(mut tail) = log.try_intrude()
            && !tail.reserved
            && tail.writer.as_ref().is_some_and(|writer| !writer.has_staged())
        {
            self.close_chunk(log, &mut tail);
        }
        // Nothing is given back before it is written, since a checkpoint has it.
        let _room = MakingRoom::begin();
        self.flush_all()?;
        match self.settle_tail(log) {
            Err(Error::Reserved { .. }) => Ok(()),
            settled => settled,
        }
    }

    fn carry_out(&self, work: &mut Work, receipt: &mut CompactionReceipt) -> Result<()> {
        while !work.groups.is_empty() {
            receipt.add(self.step_in_room(work)?);
        }
        self.end_in_room(work)
    }

    /// Finds out what to do until superseded messages take no more than `rest_percent` of what the newest take.
    fn begin_compaction(
        &self,
        log: &Arc<LogState>,
        keyed: &KeyedSettings,
        rest_percent: u64,
    ) -> Result<Option<Work>> {
        let (mut plan, root) = self.look_at_keys(log, keyed)?;
        let superseded_bytes = plan.superseded_bytes();
        *log.superseded().lock() = Superseded {
            looked_until: root.end(),
            live_bytes: plan.live_bytes.max(1),
            live_messages: plan.keys,
            superseded_bytes,
            in_tree_bytes: self.in_tree(log, &root)?.1,
        };
        let rest = plan.live_bytes.saturating_mul(rest_percent) / 100;
        if superseded_bytes <= rest {
            return Ok(None);
        }
        let groups = plan.choose(rest, self.options.slab_bytes_max / 2);
        plan.keep_to(&groups);
        Ok((!groups.is_empty()).then(|| Work::new(log, plan, groups)))
    }

    /// Compacts logs that have come to their bound, a step at a time; says whether anything was done.
    pub(crate) fn compact_if_due(&self) -> Result<bool> {
        if !self.options.compact || self.options.read_only || !self.compactor.has_keyed() {
            return Ok(false);
        }
        let Some(mut state) = self.compactor.state.try_lock() else {
            return Ok(false);
        };
        let now = self.clock.monotonic();
        if now < state.rests_until {
            return Ok(false);
        }
        if state.work.is_none() {
            if now.saturating_sub(state.looked_at) < LOOK_INTERVAL {
                return Ok(false);
            }
            state.looked_at = now;
            state.work = self.find_compaction()?;
        }
        let Some(mut work) = state.work.take() else {
            return Ok(false);
        };
        let stepped = match work.groups.is_empty() {
            true => self.end_in_room(&work).map(|()| None),
            false => self.step_in_room(&mut work).map(Some),
        };
        let receipt = match stepped {
            Ok(receipt) => receipt,
            // The log was edited or dropped; the next look begins anew.
            Err(Error::Changed { .. } | Error::UnknownLog { .. }) => return Ok(true),
            Err(error) => {
                if let Error::StorageFull { .. } = error {
                    state.rests_until = now.saturating_add(FULL_INTERVAL);
                }
                return Err(error);
            }
        };
        if let Some(receipt) = receipt {
            let end = self.clock.monotonic();
            let bytes = receipt.rewritten_bytes.saturating_add(receipt.removed_bytes);
            let rest = self
                .options
                .compaction_budget
                .rest(end.saturating_sub(now), bytes);
            state.rests_until = end.saturating_add(rest);
            state.work = Some(work);
        } else if work.lacks_room {
            state.rests_until = now.saturating_add(FULL_INTERVAL);
        }
        Ok(true)
    }

    /// The first log of which too much may be superseded, and is.
    fn find_compaction(&self) -> Result<Option<Work>> {
        for log in self.catalog.awake() {
            let Some(keyed) = log.settings().keyed else {
                continue;
            };
            let percent = u64::from(keyed.space_amplification_percent).saturating_sub(100);
            if log.is_dropped() || !self.may_be_due(&log, percent)? {
                continue;
            }
            // Below the bound, so that there is room until the next time.
            let rest = percent.saturating_mul(REST_PERCENT) / 100;
            match self.begin_compaction(&log, &keyed, rest) {
                Ok(Some(work)) => return Ok(Some(work)),
                Ok(None) => {}
                Err(error @ Error::Damaged(_)) => {
                    tracing::warn!(log = log.name.as_str(), %error, "a log is not compacted any more");
                    // Nobody can say what its messages supersede.
                    log.superseded().lock().live_bytes = u64::MAX;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// How many messages and parts a log has in its tree, and the bytes of their keys and values.
    fn in_tree(&self, log: &LogState, root: &Root) -> Result<(u64, u64)> {
        let offsets = 0..root.tree_end.saturating_sub(root.start);
        let summary = root.tree.summary(self.source.as_ref(), offsets);
        let summary = summary.map_err(|error| self.tree_error(log, error))?.summary;
        let bytes = summary.value_bytes.saturating_add(summary.key_bytes);
        Ok((summary.messages, bytes))
    }

    /// Whether superseded messages may take more than `percent` of what the newest take, by what is known without a look.
    fn may_be_due(&self, log: &LogState, percent: u64) -> Result<bool> {
        let root = log.root();
        let (messages, bytes) = self.in_tree(log, &root)?;
        if messages == 0 {
            return Ok(false);
        }
        let known = *log.superseded().lock();
        if known.live_bytes == u64::MAX {
            return Ok(false);
        }
        if known.live_bytes == 0 {
            // Never looked at. The largest run knows what of it is superseded; all else may supersede something of it.
            let largest = root.keys.iter().max_by_key(|run| run.entries());
            let (of_run, superseded) = largest.map_or((0, 0), KeyRun::bytes);
            let live = of_run.saturating_sub(superseded).min(bytes);
            let may_be = bytes.saturating_sub(live);
            return Ok(may_be.saturating_mul(100) > percent.saturating_mul(live.saturating_sub(may_be)));
        }
        // A message supersedes one other at most, and that is about as large as all of them, or as itself.
        let appended = root.end().saturating_sub(known.looked_until);
        let appended_bytes = bytes.saturating_sub(known.in_tree_bytes);
        let mean = known.live_bytes.checked_div(known.live_messages).unwrap_or(0);
        let mean = mean.max(bytes.checked_div(messages).unwrap_or(0));
        let may_be = known
            .superseded_bytes
            .saturating_add(appended.saturating_mul(mean).max(appended_bytes));
        Ok(may_be.saturating_mul(100) > percent.saturating_mul(known.live_bytes))
    }

    /// What is asked for now and then in work that takes long: to stop, or to lead commits that wait.
    pub(crate) fn attend(&self) -> Result<()> {
        if self.closing.is_closed() {
            return Err(Error::Closed);
        }
        self.groups.lead(self);
        Ok(())
    }
}
