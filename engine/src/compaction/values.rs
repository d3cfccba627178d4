//! Large values under a compaction: whose parts are whose, and which go.
//!
//! Keys say nothing of parts; the message of a value names them. So a look at all keys reads the messages of values, never
//! a part, and notes of each part whether a message that stays names it. Parts go in the version in which their message
//! goes: a value is there whole or not at all, whatever fails between two steps, and nothing of it stays behind its message.
//!
//! Invariant: a part goes only if the message that goes names it and none that stays does. A splice may bring a message
//! without its parts to where others stand; what it names there is not deleted for it.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use lanterman_format::large_value::LargeValue;
use lanterman_format::{BufferView, ValueType, weakened};

use super::plan::{Plan, PlannedSlab};
use crate::core::Core;
use crate::error::Result;
use crate::keys::KeyedPlace;
use crate::log::{LogState, Root};
use crate::slab::SlabHandle;

/// Whose a part is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum PartOwner {
    /// A message that stays.
    Kept,
    /// The superseded message at this offset.
    Superseded(u64),
}

/// A part of a value, as its message tells of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct PlannedPart {
    pub(super) offset: u64,
    pub(super) bytes: u64,
    pub(super) owner: PartOwner,
}

/// Where the parts stand that a message names, with their lengths; nothing for a value of one piece.
pub(super) fn named_parts(message: &BufferView<'_>, offset: u64) -> Vec<(u64, u64)> {
    if message.value_type() != ValueType::BY_REFERENCE {
        return Vec::new();
    }
    // A list that breaks a rule names nothing: what it may have named stays.
    let Ok(value) = LargeValue::decode(message.value()) else {
        return Vec::new();
    };
    let parts = value.parts.iter().filter_map(|part| {
        let at = offset.checked_sub(part.offsets_before)?;
        Some((at, u64::from(part.bytes)))
    });
    parts.collect()
}

impl PlannedSlab {
    /// Whose the part at `offset` is.
    fn owner_of(&self, offset: u64) -> Option<PartOwner> {
        let found = self.parts.binary_search_by_key(&offset, |part| part.offset);
        self.parts.get(found.ok()?).map(|part| part.owner)
    }

    /// Counts the parts that were noted, each once; of two that name one the message that stays has it.
    fn settle_parts(&mut self) {
        self.parts.sort_unstable_by_key(|part| (part.offset, part.owner));
        self.parts.dedup_by_key(|part| part.offset);
        let mut gone_too = 0_u64;
        for part in &self.parts {
            self.bytes = self.bytes.saturating_add(part.bytes);
            if let PartOwner::Superseded(head) = part.owner
                && self.offsets.contains(&head)
            {
                gone_too = gone_too.saturating_add(part.bytes);
            }
        }
        self.gone_bytes = self.gone_bytes.saturating_add(gone_too);
    }
}

impl Plan {
    /// Notes whose the parts are that a message at `head` names; gives their bytes, as far as they are in the log.
    pub(super) fn add_parts(&mut self, head: u64, named: &[(u64, u64)], owner: PartOwner) -> u64 {
        let mut sum = 0_u64;
        let mut slabs: Option<Range<usize>> = None;
        for (offset, bytes) in named {
            if *offset >= self.tree_end {
                sum = sum.saturating_add(*bytes);
                continue;
            }
            let Some(index) = self.index_of(*offset) else {
                continue;
            };
            let Some(slab) = self.slabs.get_mut(index).filter(|slab| slab.has_parts) else {
                continue;
            };
            slab.parts.push(PlannedPart {
                offset: *offset,
                bytes: *bytes,
                owner,
            });
            sum = sum.saturating_add(*bytes);
            let behind = index.saturating_add(1);
            slabs = slabs.map_or(Some(index..behind), |known| Some(known.start..behind));
        }
        if let (Some(slabs), PartOwner::Superseded(_)) = (slabs, owner) {
            self.values.insert(head, slabs);
        }
        match weakened!("parts-uncounted") {
            true => 0,
            false => sum,
        }
    }

    pub(super) fn settle_parts(&mut self) {
        self.slabs.iter_mut().for_each(PlannedSlab::settle_parts);
    }

    /// What of values goes when a group is written anew.
    pub(super) fn going_with(&self, group: &Range<usize>) -> GoingParts {
        let mut going = GoingParts::default();
        let slabs = self.slabs.get(group.clone()).unwrap_or_default();
        let (Some(first), Some(last)) = (slabs.first(), slabs.last()) else {
            return going;
        };
        if self.values.is_empty() || weakened!("parts-outlive-their-message") {
            return going;
        }
        for (head, parts_in) in self.values.range(first.offsets.start..last.offsets.end) {
            if !self.is_gone(*head) {
                continue;
            }
            going.heads.insert(*head);
            let is_its = |index: &usize| {
                let slab = self.slabs.get(*index);
                slab.is_some_and(|slab| slab.has_part_of(*head))
            };
            let not_in_group = |index: &usize| !group.contains(index);
            going
                .beside
                .extend(parts_in.clone().filter(not_in_group).filter(is_its));
        }
        going
    }

    /// The slabs beside the groups with which parts go, by rising offsets.
    pub(super) fn beside(&self, going: &GoingParts) -> Vec<BesideSlabs> {
        let mut all: Vec<BesideSlabs> = Vec::new();
        for index in &going.beside {
            let Some(slab) = self.slabs.get(*index) else {
                continue;
            };
            let behind = index.saturating_add(1);
            let is_all_going = slab.is_all_going(going);
            match all.last_mut() {
                Some(last) if is_all_going && last.is_all_going && last.slabs.end == *index => {
                    last.slabs.end = behind;
                    last.offsets.end = slab.offsets.end;
                }
                _ => all.push(BesideSlabs {
                    slabs: *index..behind,
                    offsets: slab.offsets.clone(),
                    is_all_going,
                    kept_bytes: match is_all_going {
                        true => 0,
                        false => slab.kept_without(going),
                    },
                }),
            }
        }
        all
    }

    /// Notes where slabs stand now that lost parts alone: a later step may write them anew for their messages.
    pub(super) fn put(&mut self, moved: Vec<(Range<usize>, Option<Arc<SlabHandle>>)>, going: &GoingParts) {
        for (slabs, handle) in moved {
            for index in slabs {
                if let Some(slab) = self.slabs.get_mut(index) {
                    slab.handle.clone_from(&handle);
                    slab.skip = 0;
                }
                self.forget_parts(index, going);
            }
        }
    }

    /// Parts that went, where their slab is another one now or none any more.
    fn forget_parts(&mut self, index: usize, going: &GoingParts) {
        let Some(slab) = self.slabs.get_mut(index) else {
            return;
        };
        let is_left = |part: &PlannedPart| !going.has_owner(part.owner);
        let went = slab.parts.iter().filter(|part| !is_left(part));
        let bytes = went.map(|part| part.bytes).fold(0, u64::saturating_add);
        slab.bytes = slab.bytes.saturating_sub(bytes);
        slab.parts.retain(is_left);
    }
}

impl PlannedSlab {
    fn has_part_of(&self, head: u64) -> bool {
        let owner = PartOwner::Superseded(head);
        self.parts.iter().any(|part| part.owner == owner)
    }

    /// Whether the look found nothing in it but parts that go.
    fn is_all_going(&self, going: &GoingParts) -> bool {
        let count = self.offsets.end.saturating_sub(self.offsets.start);
        !self.has_messages
            && self.parts.len() as u64 == count
            && self.parts.iter().all(|part| going.has_owner(part.owner))
    }

    /// How long it is at most when its parts that go are gone. What stands in it is known, and what a slab has beside that is
    /// in its length; compressed, it is shorter than what stands in it.
    fn kept_without(&self, going: &GoingParts) -> u64 {
        let parts = self.parts.iter().filter(|part| going.has_owner(part.owner));
        let parts = parts.map(|part| part.bytes).fold(0, u64::saturating_add);
        let handle = self.handle.as_ref();
        let length = handle.map_or(0, |handle| handle.reference().bytes.get());
        self.bytes.max(length).saturating_sub(parts)
    }

    /// The offsets of its parts that go, as few ranges.
    pub(super) fn going_ranges(&self, going: &GoingParts) -> Vec<Range<u64>> {
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for part in self.parts.iter().filter(|part| going.has_owner(part.owner)) {
            let behind = part.offset.saturating_add(1);
            match ranges.last_mut() {
                Some(range) if range.end == part.offset => range.end = behind,
                _ => ranges.push(part.offset..behind),
            }
        }
        ranges
    }
}

/// Slabs of a log that lose parts of values, and no message.
#[derive(Debug)]
pub(super) struct BesideSlabs {
    /// By their numbers: one, or some that end unread.
    pub(super) slabs: Range<usize>,
    pub(super) offsets: Range<u64>,
    /// Whether nothing of them stays.
    pub(super) is_all_going: bool,
    /// What is to be written for what stays, at most and as far as it is known unread.
    pub(super) kept_bytes: u64,
}

/// The values that go in one step.
#[derive(Debug, Default, Clone)]
pub(super) struct GoingParts {
    /// Offsets of their messages.
    heads: BTreeSet<u64>,
    /// The slabs with parts of them, by their numbers, that are written anew for nothing else.
    beside: BTreeSet<usize>,
}

impl GoingParts {
    /// Takes up what goes with one group more, which stands before all that were taken up, so that none of its parts stands
    /// in what is written already.
    pub(super) fn take(&mut self, group: &Range<usize>, with_group: GoingParts) {
        debug_assert!(with_group.beside.iter().all(|index| *index < group.start));
        self.heads.extend(with_group.heads);
        self.beside.extend(with_group.beside);
        self.beside.retain(|index| !group.contains(index));
    }

    fn has_owner(&self, owner: PartOwner) -> bool {
        match owner {
            PartOwner::Kept => weakened!("parts-of-the-newest-go"),
            PartOwner::Superseded(head) => self.heads.contains(&head),
        }
    }

    /// Whether the part at `offset` goes.
    pub(super) fn has_part(&self, slab: &PlannedSlab, offset: u64) -> bool {
        slab.owner_of(offset).is_some_and(|owner| self.has_owner(owner))
    }
}

impl Core {
    /// What the message of a place names, if the message is still in the log; `None` if it is not.
    pub(super) fn look_at_place(
        &self,
        log: &LogState,
        root: &Root,
        plan: &Plan,
        place: &KeyedPlace,
    ) -> Result<Option<Vec<(u64, u64)>>> {
        let offset = place.offset;
        if weakened!("superseded-by-deleted") {
            return Ok(Some(Vec::new()));
        }
        if root.mask_at(offset).is_some() {
            return Ok(None);
        }
        if offset >= root.tree_end {
            // What is told of it comes from the message itself.
            return match place.is_large {
                true => self.look_at_located(log, root, offset),
                false => Ok(Some(Vec::new())),
            };
        }
        let slab = plan.index_of(offset).and_then(|index| plan.slabs.get(index));
        let Some(slab) = slab else { return Ok(None) };
        let (false, Some(handle)) = (!slab.has_deleted && !slab.has_large, &slab.handle) else {
            return Ok(Some(Vec::new()));
        };
        let failed = |error| self.slab_error(log, Some(slab.offsets.clone()), error);
        let opened = handle.open(self.source.as_ref()).map_err(failed)?;
        if opened.layout().is_compressed() && slab.has_large {
            return self.look_at_located(log, root, offset);
        }
        let relative = offset
            .saturating_sub(slab.offsets.start)
            .saturating_add(slab.skip);
        let message = opened.message(relative, self.read_context()).map_err(failed)?;
        // Of a compressed batch no message is deleted.
        let is_there = message.value_type() != ValueType::TOMBSTONES;
        Ok(is_there.then(|| named_parts(&message, offset)))
    }

    fn look_at_located(&self, log: &LogState, root: &Root, offset: u64) -> Result<Option<Vec<(u64, u64)>>> {
        let Some(located) = self.locate(log, root, offset)? else {
            return Ok(None);
        };
        let buffer = located.buffer(self, log, root)?;
        let named = (!buffer.is_hidden()).then(|| named_parts(&buffer, offset));
        located.check(self, log, root)?;
        Ok(named)
    }
}
