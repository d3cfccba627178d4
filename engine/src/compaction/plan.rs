//! The look at all keys of a log, and what it says of each slab.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use lanterman_format::settings::KeyedSettings;
use lanterman_format::{ValueType, weakened};

use super::CompactionPlan;
use super::values::{PartOwner, PlannedPart};
use crate::core::Core;
use crate::error::{Error, Result};
use crate::keys::KeyedPlace;
use crate::log::{LogState, Root};
use crate::slab::SlabHandle;

/// A slab as a log shows it, and what of it is superseded.
#[derive(Debug)]
pub(super) struct PlannedSlab {
    pub(super) offsets: Range<u64>,
    /// Where it stands; nowhere once nothing of it is left.
    pub(super) handle: Option<Arc<SlabHandle>>,
    pub(super) skip: u64,
    pub(super) has_deleted: bool,
    /// Whether it may have messages whose values stand in parts.
    pub(super) has_large: bool,
    /// Whether it may have parts.
    pub(super) has_parts: bool,
    /// Whether it has messages with keys.
    pub(super) has_messages: bool,
    pub(super) newest_ms: i64,
    /// What stands in it, as far as messages tell of it.
    pub(super) bytes: u64,
    /// How many of its messages are superseded.
    pub(super) superseded: u64,
    /// What is given back with them, the parts of their values included, wherever they stand.
    pub(super) superseded_bytes: u64,
    /// What of that stands in the slab itself.
    pub(super) gone_bytes: u64,
    /// A bit for each offset; empty while none is superseded.
    pub(super) gone: Vec<u64>,
    /// By rising offsets, once the look is done.
    pub(super) parts: Vec<PlannedPart>,
}

impl PlannedSlab {
    fn relative(&self, offset: u64) -> (usize, u64) {
        let relative = offset.saturating_sub(self.offsets.start);
        (
            usize::try_from(relative >> 6).unwrap_or(usize::MAX),
            1 << (relative & 63),
        )
    }

    /// Notes that a message goes, and so many bytes of parts with it.
    fn remove(&mut self, place: &KeyedPlace, part_bytes: u64) {
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
            let bytes = place.stored_bytes.saturating_add(part_bytes);
            self.superseded_bytes = self.superseded_bytes.saturating_add(bytes);
            self.gone_bytes = self.gone_bytes.saturating_add(place.stored_bytes);
        }
    }

    pub(super) fn is_gone(&self, offset: u64) -> bool {
        let (word, bit) = self.relative(offset);
        self.gone.get(word).is_some_and(|word| word & bit != 0)
    }

    /// Nothing of it goes: it stays as it is for now.
    fn stays(&mut self) {
        self.gone = Vec::new();
        (self.superseded, self.superseded_bytes, self.gone_bytes) = (0, 0, 0);
    }

    /// What has to be written when what goes of it goes.
    pub(super) fn kept_bytes(&self) -> u64 {
        self.bytes.saturating_sub(self.gone_bytes)
    }

    /// How many bytes removing takes for each 1024 that are given back; fewer are better.
    fn cost(&self) -> u64 {
        self.kept_bytes()
            .saturating_mul(1024)
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
    /// Where the log's tree ended, and with it the slabs.
    pub(super) tree_end: u64,
    /// Everything that supersedes something stands before.
    pub(super) end: u64,
    pub(super) keys: u64,
    pub(super) live_bytes: u64,
    /// How many messages are superseded that are in no slab of the tree yet.
    pub(super) behind: u64,
    /// Their stored bytes.
    pub(super) behind_bytes: u64,
    /// For each superseded message whose value stands in parts the slabs, by their numbers, between which its parts are.
    pub(super) values: BTreeMap<u64, Range<usize>>,
}

impl Plan {
    /// The number of the slab that has an offset.
    pub(super) fn index_of(&self, offset: u64) -> Option<usize> {
        let behind = self.slabs.partition_point(|slab| slab.offsets.start <= offset);
        let index = behind.checked_sub(1)?;
        self.slabs.get(index)?.offsets.contains(&offset).then_some(index)
    }

    fn slab_of(&mut self, offset: u64) -> Option<&mut PlannedSlab> {
        let index = self.index_of(offset)?;
        self.slabs.get_mut(index)
    }

    pub(super) fn is_gone(&self, offset: u64) -> bool {
        let slab = self.index_of(offset).and_then(|index| self.slabs.get(index));
        slab.is_some_and(|slab| slab.is_gone(offset))
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
    /// neighbours of about `group_bytes`, the cheapest last; with values in parts those behind last, since parts stand before
    /// their messages: so none stands in what an earlier step has joined.
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
            let kept = slab.kept_bytes();
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
        if self.values.is_empty() {
            groups.sort_by_key(|group| std::cmp::Reverse(cost(group.start)));
        }
        groups
    }
}

impl Plan {
    /// Notes one more message of a key, and the parts that it names.
    fn add(&mut self, place: &KeyedPlace, named: &[(u64, u64)], of_key: &mut OfKey) {
        let in_slab = self.slab_of(place.offset).map(|slab| {
            slab.bytes = slab.bytes.saturating_add(place.stored_bytes);
            slab.has_messages = true;
        });
        if of_key.newest.is_none() {
            let part_bytes = self.add_parts(place.offset, named, PartOwner::Kept);
            let newest = of_key.newest.insert(place.clone());
            newest.stored_bytes = newest.stored_bytes.saturating_add(part_bytes);
            return;
        }
        of_key.has_older = true;
        if in_slab.is_some() {
            let part_bytes = self.add_parts(place.offset, named, PartOwner::Superseded(place.offset));
            if let Some(slab) = self.slab_of(place.offset) {
                slab.remove(place, part_bytes);
            }
            return;
        }
        // It stays for now, and so do its parts.
        let part_bytes = self.add_parts(place.offset, named, PartOwner::Kept);
        let bytes = place.stored_bytes.saturating_add(part_bytes);
        self.behind = self.behind.saturating_add(1);
        self.behind_bytes = self.behind_bytes.saturating_add(bytes);
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
            match self.index_all_keys(log) {
                // What has no run is put in order in memory.
                Err(Error::StorageFull { .. }) if !weakened!("runs-before-room") => {}
                indexed => indexed?,
            }
        }
        let root = log.root();
        // What supersedes others must be in the journal with the version that removes them.
        let end = root.end();
        let mut plan = Plan {
            slabs: self.planned_slabs(log, &root)?,
            edits: root.edits,
            tree_end: root.tree_end,
            end,
            keys: 0,
            live_bytes: 0,
            behind: 0,
            behind_bytes: 0,
            values: BTreeMap::new(),
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
            if let Some(named) = self.look_at_place(log, &root, &plan, &place)? {
                plan.add(&place, &named, &mut of_key);
            }
        }
        self.end_key(log, keyed, &mut plan, &mut of_key);
        plan.settle_parts();
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
                slab.remove(&newest, 0);
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

    fn planned_slabs(&self, log: &LogState, root: &Root) -> Result<Vec<PlannedSlab>> {
        let mut slabs = Vec::new();
        for placed in root.tree.slabs_from(self.source.as_ref(), 0) {
            let placed = placed.map_err(|error| self.tree_error(log, error))?;
            let first = placed.first_offset.saturating_add(root.start);
            let types = placed.entry.summary.types;
            if let Some(handle) = &placed.entry.slab {
                slabs.push(PlannedSlab {
                    offsets: first..placed.end_offset().saturating_add(root.start),
                    handle: Some(Arc::clone(handle)),
                    skip: placed.entry.skip,
                    has_deleted: placed.entry.summary.deleted > 0,
                    has_large: types.contains(ValueType::BY_REFERENCE),
                    has_parts: types.contains(ValueType::PART),
                    has_messages: false,
                    newest_ms: placed.entry.summary.time_max_ms,
                    bytes: 0,
                    superseded: 0,
                    superseded_bytes: 0,
                    gone_bytes: 0,
                    gone: Vec::new(),
                    parts: Vec::new(),
                });
            }
        }
        Ok(slabs)
    }
}
