//! The look at all keys of a log, and what it says of each slab.

use std::ops::Range;
use std::sync::Arc;

use lanterman_format::settings::KeyedSettings;
use lanterman_format::{ValueType, weakened};

use super::CompactionPlan;
use crate::core::Core;
use crate::error::Result;
use crate::keys::KeyedPlace;
use crate::log::{LogState, Root};
use crate::slab::SlabHandle;

/// A slab as a log shows it, and what of it is superseded.
#[derive(Debug)]
pub(super) struct PlannedSlab {
    pub(super) offsets: Range<u64>,
    pub(super) handle: Arc<SlabHandle>,
    pub(super) skip: u64,
    pub(super) has_deleted: bool,
    pub(super) newest_ms: i64,
    pub(super) bytes: u64,
    pub(super) superseded: u64,
    pub(super) superseded_bytes: u64,
    /// A bit for each offset; empty while none is superseded.
    pub(super) gone: Vec<u64>,
}

impl PlannedSlab {
    fn relative(&self, offset: u64) -> (usize, u64) {
        let relative = offset.saturating_sub(self.offsets.start);
        (
            usize::try_from(relative >> 6).unwrap_or(usize::MAX),
            1 << (relative & 63),
        )
    }

    fn remove(&mut self, place: &KeyedPlace) {
        if self.gone.is_empty() {
            let count = self.offsets.end.saturating_sub(self.offsets.start);
            self.gone = vec![0; usize::try_from(count.div_ceil(64)).unwrap_or(0)];
        }
        let (word, bit) = self.relative(place.offset);
        if let Some(word) = self.gone.get_mut(word)
            && *word & bit == 0
        {
            *word |= bit;
            self.superseded = self.superseded.saturating_add(1);
            self.superseded_bytes = self.superseded_bytes.saturating_add(place.stored_bytes);
        }
    }

    pub(super) fn is_gone(&self, offset: u64) -> bool {
        let (word, bit) = self.relative(offset);
        self.gone.get(word).is_some_and(|word| word & bit != 0)
    }

    /// Nothing of it goes: it stays as it is for now.
    fn stays(&mut self) {
        self.gone = Vec::new();
        (self.superseded, self.superseded_bytes) = (0, 0);
    }

    /// How many bytes removing takes for each 1024 that are given back; fewer are better.
    fn cost(&self) -> u64 {
        let kept = self.bytes.saturating_sub(self.superseded_bytes);
        kept.saturating_mul(1024)
            .checked_div(self.superseded_bytes)
            .unwrap_or(u64::MAX)
    }
}

/// What a look at all keys found.
#[derive(Debug)]
pub(super) struct Plan {
    /// By rising offsets.
    pub(super) slabs: Vec<PlannedSlab>,
    /// How many edits the log had had.
    pub(super) edits: u64,
    /// Everything that supersedes something stands before.
    pub(super) end: u64,
    pub(super) keys: u64,
    pub(super) live_bytes: u64,
    /// How many messages are superseded that are in no slab of the tree yet.
    pub(super) behind: u64,
    /// Their stored bytes.
    pub(super) behind_bytes: u64,
}

impl Plan {
    fn slab_of(&mut self, offset: u64) -> Option<&mut PlannedSlab> {
        let behind = self.slabs.partition_point(|slab| slab.offsets.start <= offset);
        let slab = self.slabs.get_mut(behind.checked_sub(1)?)?;
        slab.offsets.contains(&offset).then_some(slab)
    }

    pub(super) fn is_gone(&self, offset: u64) -> bool {
        let behind = self.slabs.partition_point(|slab| slab.offsets.start <= offset);
        let slab = behind.checked_sub(1).and_then(|index| self.slabs.get(index));
        slab.is_some_and(|slab| slab.offsets.contains(&offset) && slab.is_gone(offset))
    }

    pub(super) fn superseded_bytes(&self) -> u64 {
        let bytes = self.slabs.iter().map(|slab| slab.superseded_bytes);
        bytes.fold(0, u64::saturating_add)
    }

    pub(super) fn summary(&self) -> CompactionPlan {
        let with_some = || self.slabs.iter().filter(|slab| slab.superseded > 0);
        CompactionPlan {
            keys: self.keys,
            live_bytes: self.live_bytes,
            superseded: with_some()
                .map(|slab| slab.superseded)
                .fold(self.behind, u64::saturating_add),
            superseded_bytes: self.superseded_bytes().saturating_add(self.behind_bytes),
            slabs: with_some().count() as u64,
        }
    }

    /// Forgets what is superseded in slabs that no group has: they stay as they are, and their messages are found by the next
    /// look, or by who deletes what supersedes them.
    pub(super) fn keep_to(&mut self, groups: &[Range<usize>]) {
        for (index, slab) in self.slabs.iter_mut().enumerate() {
            let is_chosen = groups.iter().any(|group| group.contains(&index));
            if !is_chosen && !weakened!("unchosen-slabs-forgotten") {
                slab.stays();
            }
        }
    }

    /// The same of slabs that could not be written anew.
    pub(super) fn leave(&mut self, group: Range<usize>) {
        let slabs = self.slabs.get_mut(group).unwrap_or_default();
        slabs.iter_mut().for_each(PlannedSlab::stays);
    }

    /// The slabs to write anew until at most `rest_bytes` are superseded, those first that cost least; as groups of
    /// neighbours of about `group_bytes`, the cheapest last.
    pub(super) fn choose(&self, rest_bytes: u64, group_bytes: u64) -> Vec<Range<usize>> {
        let mut by_cost: Vec<usize> = (0..self.slabs.len()).collect();
        let cost = |index: usize| self.slabs.get(index).map_or(u64::MAX, PlannedSlab::cost);
        by_cost.sort_by_key(|index| cost(*index));
        let mut chosen = vec![false; self.slabs.len()];
        let mut left = self.superseded_bytes();
        for index in by_cost {
            let freed = self.slabs.get(index).map_or(0, |slab| slab.superseded_bytes);
            if left <= rest_bytes || freed == 0 {
                break;
            }
            left = left.saturating_sub(freed);
            if let Some(chosen) = chosen.get_mut(index) {
                *chosen = true;
            }
        }
        let mut groups: Vec<Range<usize>> = Vec::new();
        let mut kept_in_group = 0_u64;
        for (index, slab) in self.slabs.iter().enumerate() {
            let kept = slab.bytes.saturating_sub(slab.superseded_bytes);
            if chosen.get(index) != Some(&true) {
                continue;
            }
            match groups.last_mut() {
                Some(group) if group.end == index && kept_in_group.saturating_add(kept) <= group_bytes => {
                    group.end = index.saturating_add(1);
                    kept_in_group = kept_in_group.saturating_add(kept);
                }
                _ => {
                    groups.push(index..index.saturating_add(1));
                    kept_in_group = kept;
                }
            }
        }
        groups.sort_by_key(|group| std::cmp::Reverse(cost(group.start)));
        groups
    }
}

/// The messages of one key that were seen so far, from the newest on.
#[derive(Debug, Default)]
struct OfKey {
    key: Option<Vec<u8>>,
    /// The newest that is there, if that was found out.
    newest: Option<KeyedPlace>,
    has_older: bool,
}

impl Core {
    /// Looks at all keys of a log: what of it is superseded.
    pub(super) fn look_at_keys(&self, log: &Arc<LogState>, keyed: &KeyedSettings) -> Result<(Plan, Root)> {
        if !self.options.read_only {
            self.index_all_keys(log)?;
        }
        let root = log.root();
        // What supersedes others must be in the journal with the version that removes them.
        let end = root.end();
        let mut plan = Plan {
            slabs: self.planned_slabs(log, &root)?,
            edits: root.edits,
            end,
            keys: 0,
            live_bytes: 0,
            behind: 0,
            behind_bytes: 0,
        };
        let mut merged = self.merged_keys(log, &root, end, None)?;
        let mut place = KeyedPlace::default();
        let mut of_key = OfKey::default();
        let mut looked = 0_u64;
        while merged
            .next(self.key_context(), &mut place)
            .map_err(|error| self.key_error(log, error))?
        {
            looked = looked.wrapping_add(1);
            if looked.is_multiple_of(1 << 14) {
                self.attend()?;
            }
            if of_key.key.as_ref() != Some(&place.key) {
                self.end_key(log, keyed, &mut plan, &mut of_key);
                let key = of_key.key.get_or_insert_with(Vec::new);
                key.clear();
                key.extend_from_slice(&place.key);
            }
            if !self.is_there(log, &root, &mut plan, place.offset)? {
                continue;
            }
            if let Some(slab) = plan.slab_of(place.offset) {
                slab.bytes = slab.bytes.saturating_add(place.stored_bytes);
            }
            match &of_key.newest {
                None => of_key.newest = Some(place.clone()),
                Some(_) => {
                    of_key.has_older = true;
                    match plan.slab_of(place.offset) {
                        Some(slab) => slab.remove(&place),
                        None => {
                            plan.behind = plan.behind.saturating_add(1);
                            plan.behind_bytes = plan.behind_bytes.saturating_add(place.stored_bytes);
                        }
                    }
                }
            }
        }
        self.end_key(log, keyed, &mut plan, &mut of_key);
        Ok((plan, root))
    }

    /// All messages of a key were seen.
    fn end_key(&self, log: &LogState, keyed: &KeyedSettings, plan: &mut Plan, of_key: &mut OfKey) {
        let has_older = std::mem::take(&mut of_key.has_older);
        let Some(newest) = of_key.newest.take() else {
            return;
        };
        plan.keys = plan.keys.saturating_add(1);
        let is_needed = !newest.is_marker || has_older;
        if !is_needed && self.marker_may_go(log, keyed, plan, newest.offset) {
            if let Some(slab) = plan.slab_of(newest.offset) {
                slab.remove(&newest);
            }
            return;
        }
        plan.live_bytes = plan.live_bytes.saturating_add(newest.stored_bytes);
    }

    /// Whether a delete marker is old enough, and every cursor has come past it.
    fn marker_may_go(&self, log: &LogState, keyed: &KeyedSettings, plan: &mut Plan, offset: u64) -> bool {
        let grace_ms = i64::try_from(keyed.marker_grace_ms).unwrap_or(i64::MAX);
        let now_ms = self.now_ms();
        let is_old = plan
            .slab_of(offset)
            .is_some_and(|slab| now_ms.saturating_sub(slab.newest_ms) >= grace_ms);
        is_old
            && (weakened!("marker-gone-before-reader") || self.pins.slowest_cursor(log.id) > offset)
            && !self.others_read()
    }

    /// Whether other processes may have the store open.
    fn others_read(&self) -> bool {
        let listed = self.readers.as_ref().map(|table| table.list());
        !listed.is_some_and(|listed| listed.is_ok_and(|readers| readers.is_empty()))
    }

    /// Whether the message at `offset`, of which a run or a table tells, is still in the log.
    fn is_there(&self, log: &LogState, root: &Root, plan: &mut Plan, offset: u64) -> Result<bool> {
        if weakened!("superseded-by-deleted") {
            return Ok(true);
        }
        if root.mask_at(offset).is_some() {
            return Ok(false);
        }
        if offset >= root.tree_end {
            return Ok(true);
        }
        let Some(slab) = plan.slab_of(offset) else {
            return Ok(false);
        };
        if !slab.has_deleted {
            return Ok(true);
        }
        let failed = |error| self.slab_error(log, Some(slab.offsets.clone()), error);
        let opened = slab.handle.open(self.source.as_ref()).map_err(failed)?;
        let relative = offset
            .saturating_sub(slab.offsets.start)
            .saturating_add(slab.skip);
        let message = opened.message(relative, self.read_context()).map_err(failed)?;
        // Of a compressed batch no message is deleted.
        Ok(message.value_type() != ValueType::TOMBSTONES)
    }

    fn planned_slabs(&self, log: &LogState, root: &Root) -> Result<Vec<PlannedSlab>> {
        let mut slabs = Vec::new();
        for placed in root.tree.slabs_from(self.source.as_ref(), 0) {
            let placed = placed.map_err(|error| self.tree_error(log, error))?;
            let first = placed.first_offset.saturating_add(root.start);
            if let Some(handle) = &placed.entry.slab {
                slabs.push(PlannedSlab {
                    offsets: first..placed.end_offset().saturating_add(root.start),
                    handle: Arc::clone(handle),
                    skip: placed.entry.skip,
                    has_deleted: placed.entry.summary.deleted > 0,
                    newest_ms: placed.entry.summary.time_max_ms,
                    bytes: 0,
                    superseded: 0,
                    superseded_bytes: 0,
                    gone: Vec::new(),
                });
            }
        }
        Ok(slabs)
    }
}
