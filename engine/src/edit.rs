//! Edits: what a version does to logs beside adding messages to their ends.
//!
//! An edit is written as a change in the commit block of its version and applied to the roots of its logs when the block is
//! written; replaying the journal applies it in the same way. It speaks of offsets alone, so that it means the same
//! whatever of the log stands in slabs and whatever still in memory.
//!
//! Invariants:
//! - whoever writes a version with edits holds [`Core::edits`](crate::core::Core), and a checkpoint holds it while it takes the logs' values: the trees of a
//!   checkpoint have the edits up to its version and none after;
//! - an edit is rehearsed before its block is written, so that what cannot be read fails it while nothing is changed;
//! - all offsets that an edit speaks of are in the journal with its version, or were before.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use lanterman_format::FormatError;
use lanterman_format::commit::Change;
use lanterman_format::ids::{Offset, Version};
use parking_lot::Mutex;

use crate::core::Core;
use crate::error::{Error, Result};
use crate::log::{LogState, Root};
use crate::region::chunk::Chunk;
use crate::slab::SlabBuilder;
use crate::tree::Tree;

/// One edit.
#[derive(Debug, Clone)]
pub(crate) enum Edit {
    /// The messages of a range of offsets are deleted.
    Delete { log: Arc<LogState>, offsets: Range<u64> },
    /// Everything before an offset is deleted.
    Retain { log: Arc<LogState>, start: u64 },
}

/// What edits destroyed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Destroyed {
    pub(crate) messages: u64,
    /// Bytes of keys and values.
    pub(crate) bytes: u64,
    /// Whether both are exact; in parts of slabs they are counted in proportion.
    pub(crate) is_exact: bool,
}

impl Default for Destroyed {
    fn default() -> Self {
        Destroyed {
            messages: 0,
            bytes: 0,
            is_exact: true,
        }
    }
}

impl Destroyed {
    pub(crate) fn add(&mut self, other: Destroyed) {
        self.messages = self.messages.saturating_add(other.messages);
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.is_exact &= other.is_exact;
    }
}

/// What became of the edits of one request, told by whoever wrote its group.
pub(crate) type EditOutcome = Arc<Mutex<Vec<Destroyed>>>;

impl Edit {
    /// The logs of which messages must be in the journal, each with the end of what must.
    pub(crate) fn reaches(&self) -> Vec<(&Arc<LogState>, u64)> {
        match self {
            Edit::Delete { log, offsets } => vec![(log, offsets.end)],
            Edit::Retain { log, start } => vec![(log, *start)],
        }
    }

    /// How it is written.
    pub(crate) fn change(&self) -> Change<'_> {
        match self {
            Edit::Delete { log, offsets } => Change::DeleteRange {
                log: log.id,
                first: Offset::new(offsets.start),
                end: Offset::new(offsets.end),
            },
            Edit::Retain { log, start } => Change::Retain {
                log: log.id,
                start: Offset::new(*start),
            },
        }
    }
}

/// A slab that cannot be made of messages that were in one.
pub(crate) fn unbuilt(_: FormatError) -> Error {
    Error::Internal {
        what: "messages of a slab make a slab without those that were deleted",
    }
}

impl Core {
    /// Does the edits on copies of the roots: what fails, fails here. Loads the nodes that the edits will need.
    pub(crate) fn rehearse<'a>(&self, edits: impl IntoIterator<Item = &'a Edit>) -> Result<()> {
        let mut roots: BTreeMap<u64, Root> = BTreeMap::new();
        for edit in edits {
            match edit {
                Edit::Delete { log, offsets } => {
                    self.settle_tail(log)?;
                    let root = roots.entry(log.id.get()).or_insert_with(|| log.root());
                    *root = self.without(log, root, offsets.clone())?.0;
                }
                Edit::Retain { log, start } => {
                    self.settle_tail(log)?;
                    let root = roots.entry(log.id.get()).or_insert_with(|| log.root());
                    *root = self.from_start(log, root, *start)?.0;
                }
            }
        }
        Ok(())
    }

    /// Applies an edit whose block was written, or which the journal has.
    pub(crate) fn apply_edit(&self, edit: &Edit, version: Version) -> Result<Destroyed> {
        self.note_edit(version);
        match edit {
            Edit::Delete { log, offsets } => {
                self.edit_root(log, version, |root| self.without(log, root, offsets.clone()))
            }
            Edit::Retain { log, start } => {
                self.edit_root(log, version, |root| self.from_start(log, root, *start))
            }
        }
    }

    /// Swaps a log's root for an edited one, and keeps the old one for whoever holds an older version of the store.
    fn edit_root(
        &self,
        log: &LogState,
        version: Version,
        edit: impl FnOnce(&Root) -> Result<(Root, Destroyed)>,
    ) -> Result<Destroyed> {
        let newest = self.catalog.version();
        let oldest = self.pins.oldest().map_or(newest, |pin| pin.version.min(newest));
        log.keep_root_before(version, oldest);
        log.change_root(|root| {
            let (edited, destroyed) = edit(root)?;
            let generation = root.generation;
            *root = Root { generation, ..edited };
            Ok(destroyed)
        })
    }

    /// The newest messages of a quiet log stand in a slab beside its tree: they become a part of the tree, where they
    /// can be edited.
    fn settle_tail(&self, log: &Arc<LogState>) -> Result<()> {
        // Never waits for the gate: who holds it may wait for the group that is being written here. Once he has staged
        // messages, they stand in a chunk, and so does what was in the slab.
        while log.root().tail.is_some() {
            if log.filling.load(Ordering::Acquire) {
                return Err(Error::Reserved {
                    name: log.name.as_str().to_owned(),
                });
            }
            match log.tail.try_intrude() {
                Some(_gate) => self.tail_into_tree(log)?,
                None => std::thread::yield_now(),
            }
        }
        Ok(())
    }

    /// The root without the messages of `offsets`, as far as it has them.
    pub(crate) fn without(
        &self,
        log: &LogState,
        root: &Root,
        offsets: Range<u64>,
    ) -> Result<(Root, Destroyed)> {
        let range = offsets.start.max(root.start)..offsets.end.min(root.end());
        if range.is_empty() {
            return Ok((root.clone(), Destroyed::default()));
        }
        if range.start == root.start {
            return self.from_start(log, root, range.end);
        }
        let mut edited = root.clone();
        let mut destroyed = Destroyed::default();
        let in_tree = range.start..range.end.min(root.tree_end);
        if !in_tree.is_empty() {
            let relative = in_tree.start.saturating_sub(root.start)..in_tree.end.saturating_sub(root.start);
            let (tree, held) = root
                .tree
                .delete(self.source.as_ref(), relative)
                .map_err(|error| self.tree_error(log, error))?;
            edited.tree = tree;
            edited.forget_landed(&in_tree);
            destroyed.add(Destroyed {
                messages: held.summary.messages,
                bytes: held.summary.value_bytes.saturating_add(held.summary.key_bytes),
                is_exact: held.is_exact,
            });
        }
        let behind = range.start.max(root.tree_end)..range.end;
        if !behind.is_empty() {
            destroyed.add(self.held_in_memory(root, behind.clone())?);
            edited.add_mask(behind);
        }
        Ok((edited, destroyed))
    }

    /// The root without what stands before `start`; deleted offsets at the new beginning go as well.
    pub(crate) fn from_start(&self, log: &LogState, root: &Root, start: u64) -> Result<(Root, Destroyed)> {
        let mut edited = root.clone();
        let mut destroyed = Destroyed::default();
        let mut start = start.min(root.end());
        let source = self.source.as_ref();
        let failed = |error| self.tree_error(log, error);
        while start > edited.start {
            let in_tree = start.min(edited.tree_end).saturating_sub(edited.start);
            let held = edited.tree.summary(source, 0..in_tree).map_err(failed)?;
            destroyed.add(Destroyed {
                messages: held.summary.messages,
                bytes: held.summary.value_bytes.saturating_add(held.summary.key_bytes),
                is_exact: held.is_exact,
            });
            if start > edited.tree_end {
                destroyed.add(self.held_in_memory(&edited, edited.tree_end..start)?);
                edited.tree = Tree::EMPTY;
                edited.tree_end = start;
            } else {
                let count = edited.tree.offset_end();
                edited.tree = edited.tree.slice(source, in_tree..count).map_err(failed)?;
            }
            edited.take_masks(start);
            edited.start = start;
            let first = edited.tree.find(source, 0).map_err(failed)?;
            let deleted = first.filter(|placed| placed.entry.slab.is_none());
            start = match (deleted, edited.mask_at(start)) {
                (Some(placed), _) => start.saturating_add(placed.entry.offset_count),
                (None, Some(mask)) => mask.end,
                (None, None) => start,
            };
        }
        let gone = |chunk: &&Arc<Chunk>| {
            chunk.is_closed() && chunk.end_offset() <= edited.start && chunk.end_offset() < root.end()
        };
        if edited.chunks.iter().any(|chunk| gone(&chunk)) {
            edited.chunks = edited
                .chunks
                .iter()
                .filter(|chunk| !gone(chunk))
                .cloned()
                .collect();
        }
        Ok((edited, destroyed))
    }

    /// What the chunks of a root have of `offsets`, all of them behind its tree.
    fn held_in_memory(&self, root: &Root, offsets: Range<u64>) -> Result<Destroyed> {
        let mut held = Destroyed::default();
        let mut at = offsets.start;
        while at < offsets.end {
            if let Some(mask) = root.mask_at(at) {
                at = mask.end;
                continue;
            }
            let until = root.next_mask(at).unwrap_or(u64::MAX).min(offsets.end);
            let part = self.summarise_behind_tree(root, at..until)?;
            held.add(Destroyed {
                messages: part.messages(),
                bytes: part.value_bytes().saturating_add(part.key_bytes()),
                is_exact: true,
            });
            at = until;
        }
        Ok(held)
    }

    /// The messages `offsets` of a chunk and runs in the place of those that are deleted, if any is.
    pub(crate) fn masked_part(
        &self,
        log: &LogState,
        root: &Root,
        chunk: &Chunk,
        offsets: Range<u64>,
    ) -> Result<Option<SlabBuilder>> {
        let is_masked = |mask: &Range<u64>| mask.start < offsets.end && offsets.start < mask.end;
        if offsets.start >= root.start && !root.masks.iter().any(is_masked) {
            return Ok(None);
        }
        let opened_ms = chunk.opened_ms();
        let mut builder = SlabBuilder::new(log.id, offsets.start, opened_ms..=self.now_ms().max(opened_ms));
        let mut at = offsets.start;
        while at < offsets.end {
            let deleted = match root.start > at {
                true => Some(root.start),
                false => root.mask_at(at).map(|mask| mask.end),
            };
            let until = match deleted {
                Some(end) => {
                    let until = end.min(offsets.end);
                    builder.push_deleted(until.saturating_sub(at));
                    until
                }
                None => {
                    let until = root.next_mask(at).unwrap_or(u64::MAX).min(offsets.end);
                    let entry = at.saturating_sub(chunk.first_offset());
                    let stored = chunk.entries_bytes(entry, until.saturating_sub(at))?;
                    builder.push_stored(stored).map_err(unbuilt)?;
                    until
                }
            };
            at = until;
        }
        Ok(Some(builder))
    }

    /// Deletes from the tree what is masked and stands there now; but for `runs`, which the slabs have themselves.
    pub(crate) fn masks_into_tree(&self, log: &LogState, root: &mut Root, runs: &[Range<u64>]) -> Result<()> {
        for mask in root.take_masks(root.tree_end) {
            root.forget_landed(&mask);
            let is_there = |run: &Range<u64>| run.start <= mask.start && mask.end <= run.end;
            if runs.iter().any(is_there) {
                continue;
            }
            let relative = mask.start.saturating_sub(root.start)..mask.end.saturating_sub(root.start);
            let (tree, _) = root
                .tree
                .delete(self.source.as_ref(), relative)
                .map_err(|error| self.tree_error(log, error))?;
            root.tree = tree;
        }
        Ok(())
    }
}
