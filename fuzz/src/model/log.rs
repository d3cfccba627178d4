//! The model: what every log must hold, as plain vectors and sets of offsets.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use lanterman::{Compression, Keyed, Retention, ValueType};

use super::expected::Expected;
use super::judging::Recall;
use super::rules::{Rule, SETS};

/// A log of the model.
#[derive(Debug, Default, Clone)]
pub(super) struct ModelLog {
    pub(super) messages: Vec<Expected>,
    /// Offsets below this survive a killed process.
    pub(super) committed: u64,
    /// Offsets below this survive a power cut.
    pub(super) durable: u64,
    /// The log itself is known to survive, empty or not.
    pub(super) is_created: bool,
    /// What was appended in one piece and is found whole or not at all.
    pub(super) batches: Vec<Range<u64>>,
    /// What was deleted, in order; each edit deletes something that those before it have left.
    pub(super) edits: Vec<ModelEdit>,
    pub(super) settings: ModelSettings,
    /// Settings that may be found after a reopening in place of the others.
    pub(super) may_be_set: Option<ModelSettings>,
    pub(super) recall: Recall,
    /// A compaction failed when it may have removed something.
    pub(super) may_be_compacted: bool,
    /// The same of what a retention does that is set.
    pub(super) may_be_retained: bool,
}

/// What is set of a log.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct ModelSettings {
    pub(super) keyed: Option<Keyed>,
    pub(super) compression: Option<Compression>,
    pub(super) retention: Option<Retention>,
    /// The number of the set of rules.
    pub(super) rules: Option<usize>,
}

/// Offsets that were deleted together, by a caller or by a compaction.
#[derive(Debug, Clone)]
pub(super) struct ModelEdit {
    /// Disjoint, in order.
    pub(super) offsets: Vec<Range<u64>>,
    /// The log ends here at least where the edit is done.
    pub(super) needs_end: u64,
    /// It survives a killed process.
    pub(super) is_committed: bool,
    /// It survives a power cut.
    pub(super) is_durable: bool,
}

impl ModelEdit {
    fn contains(&self, offset: u64) -> bool {
        let behind = self.offsets.partition_point(|range| range.start <= offset);
        behind > 0 && self.offsets[behind - 1].contains(&offset)
    }
}

impl ModelLog {
    pub(super) fn end(&self) -> u64 {
        self.messages.len() as u64
    }

    pub(super) fn at(&self, offset: u64) -> &Expected {
        &self.messages[offset as usize]
    }

    pub(super) fn append(&mut self, message: Expected) -> u64 {
        self.messages.push(message);
        self.end() - 1
    }

    pub(super) fn is_keyed(&self) -> bool {
        self.settings.keyed.is_some()
    }

    pub(super) fn rules(&self) -> &'static [Rule] {
        self.settings.rules.map_or(&[], |set| SETS[set])
    }

    /// Deletes offsets; gives how many messages that destroys. What destroys none is no edit: nobody can see it.
    pub(super) fn delete(&mut self, offsets: Range<u64>, is_committed: bool, is_durable: bool) -> u64 {
        let destroyed = self.shown().filter(|offset| offsets.contains(offset)).count();
        if destroyed > 0 {
            self.edit(ModelEdit {
                needs_end: offsets.end,
                offsets: vec![offsets],
                is_committed,
                is_durable,
            });
        }
        destroyed as u64
    }

    pub(super) fn edit(&mut self, edit: ModelEdit) {
        self.recall.forget_what_is_unsure();
        self.edits.push(edit);
    }

    /// Whether one of the first so many edits deleted an offset.
    pub(super) fn is_deleted_by(&self, edits: usize, offset: u64) -> bool {
        let edits = &self.edits[..edits.min(self.edits.len())];
        edits.iter().any(|edit| edit.contains(offset))
    }

    pub(super) fn is_deleted(&self, offset: u64) -> bool {
        self.is_deleted_by(self.edits.len(), offset)
    }

    /// Offsets of the messages that can be read.
    pub(super) fn shown(&self) -> impl Iterator<Item = u64> + '_ {
        (0..self.end()).filter(|offset| !self.is_deleted(*offset))
    }

    /// The newest message of each key before `end`, also where it is a delete marker.
    pub(super) fn table(&self, end: u64) -> BTreeMap<&[u8], u64> {
        let shown = self.shown().take_while(|offset| *offset < end);
        shown
            .filter_map(|offset| Some((self.at(offset).key.as_deref()?, offset)))
            .collect()
    }

    /// How many edits were done in a log with the offsets `held` that shows `found`, and what a compaction has removed beside
    /// them.
    pub(super) fn edits_done(
        &self,
        found: &BTreeSet<u64>,
        held: &Range<u64>,
        may_go: &dyn Fn(u64) -> bool,
    ) -> Option<(usize, Option<ModelEdit>)> {
        (0..=self.edits.len()).rev().find_map(|done| {
            let is_there = self.edits[..done].iter().all(|edit| edit.needs_end <= held.end);
            let removed = self.compacted(done, held.clone(), found, may_go).ok()?;
            let is_explained = removed.is_none() || self.may_be_compacted;
            (is_there && is_explained).then_some((done, removed))
        })
    }

    /// What a compaction has removed from a log of which so many edits were done, and which shows `found` of the offsets
    /// `held`; the error says what no compaction may do.
    ///
    /// Of each key the newest message stays. Only a delete marker that `may_go` may be removed, and only with all that is older.
    pub(super) fn compacted(
        &self,
        done: usize,
        held: Range<u64>,
        found: &BTreeSet<u64>,
        may_go: &dyn Fn(u64) -> bool,
    ) -> Result<Option<ModelEdit>, String> {
        let before: BTreeSet<u64> = held.filter(|offset| !self.is_deleted_by(done, *offset)).collect();
        if let Some(back) = found.difference(&before).next() {
            return Err(format!("{back} came back"));
        }
        let removed: Vec<u64> = before.difference(found).copied().collect();
        if removed.is_empty() {
            return Ok(None);
        }
        let mut newest = BTreeMap::new();
        for offset in &before {
            newest.insert(self.at(*offset).key.as_deref(), *offset);
        }
        let mut without = BTreeMap::new();
        let mut needs_end = 0;
        for offset in &removed {
            let key = self.at(*offset).key.as_deref();
            let newest = newest[&key];
            needs_end = needs_end.max(newest + 1);
            if key.is_none() {
                return Err(format!("{offset} is gone, which has no key"));
            }
            if !found.contains(&newest) {
                without.insert(key, newest);
            }
        }
        for (key, marker) in &without {
            if self.at(*marker).value_type != ValueType::NIL || !may_go(*marker) {
                return Err(format!("{marker} is gone, the newest of its key"));
            }
            if let Some(left) = found
                .iter()
                .find(|offset| self.at(**offset).key.as_deref() == *key)
            {
                return Err(format!(
                    "the marker {marker} is gone before {left}, which it supersedes"
                ));
            }
        }
        Ok(Some(ModelEdit {
            offsets: removed
                .chunk_by(|one, next| one + 1 == *next)
                .map(|run| run[0]..run[0] + run.len() as u64)
                .collect(),
            needs_end,
            is_committed: true,
            is_durable: true,
        }))
    }

    /// Takes up what a compaction has removed; gives how many messages those are.
    pub(super) fn compact(&mut self, edit: ModelEdit) -> u64 {
        let removed = edit.offsets.iter().map(|range| range.end - range.start).sum();
        // It is in a version that is durable, and so are those before.
        self.edits_are_durable();
        self.committed = self.committed.max(edit.needs_end);
        self.durable = self.durable.max(edit.needs_end);
        self.is_created = true;
        self.edit(edit);
        removed
    }

    /// Takes up that a retention has removed what is before `start`; gives how many messages those are.
    pub(super) fn retain(&mut self, start: u64) -> u64 {
        let removed = self.delete(0..start, true, true);
        if removed > 0 {
            self.edits_are_durable();
            self.committed = self.committed.max(start);
            self.durable = self.durable.max(start);
            self.is_created = true;
        }
        removed
    }

    /// Nothing takes back what was edited up to now.
    pub(super) fn edits_are_durable(&mut self) {
        for edit in &mut self.edits {
            edit.is_committed = true;
            edit.is_durable = true;
        }
    }

    /// After a reopening: what was found is what there is, and all of it is durable.
    pub(super) fn cut(&mut self, end: u64, edits: usize) {
        self.messages.truncate(end as usize);
        self.edits.truncate(edits);
        self.edits_are_durable();
        self.committed = end;
        self.durable = end;
        self.is_created |= end > 0;
        self.batches.retain(|batch| batch.end <= end);
        self.recall = Recall::default();
        self.may_be_compacted = false;
        self.may_be_retained = false;
    }
}

/// The parts of one transaction, by the number of the log.
pub(super) type Parts = BTreeMap<usize, Range<u64>>;

/// A transaction: what it appended, and the numbers of its edits, from 1, log by log.
#[derive(Debug, Clone, Default)]
pub(super) struct Whole {
    pub(super) parts: Parts,
    pub(super) edits: Vec<(usize, usize)>,
}

/// Whether a transaction is found whole (`Some(true)`), not at all (`Some(false)`) or in parts, given the logs' ends and
/// how many edits of each were done.
pub(super) fn wholeness(
    transaction: &Whole,
    end_of: impl Fn(usize) -> u64,
    edits_of: impl Fn(usize) -> usize,
) -> Option<bool> {
    let (mut parts, edits) = (transaction.parts.iter(), &transaction.edits);
    let has_edit = |(log, number): &(usize, usize)| edits_of(*log) >= *number;
    let whole = parts.clone().all(|(log, offsets)| end_of(*log) >= offsets.end) && edits.iter().all(has_edit);
    let absent = parts.all(|(log, offsets)| end_of(*log) <= offsets.start) && !edits.iter().any(has_edit);
    if whole || absent { Some(whole) } else { None }
}
