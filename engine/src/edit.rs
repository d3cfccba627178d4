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

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use lanterman_format::FormatError;
use lanterman_format::commit::Change;
use lanterman_format::ids::{Offset, Version};
use lanterman_format::settings::Settings;
use lanterman_format::weakened;
use parking_lot::Mutex;

use crate::core::Core;
use crate::deletion::BlockPlace;
use crate::error::{Error, Result};
use crate::log::{LogState, Root, TailState};
use crate::region::chunk::Chunk;
use crate::replace::Replacement;
use crate::slab::SlabBuilder;
use crate::tree::{RangeSummary, Tree};

/// One edit.
#[derive(Debug, Clone)]
pub(crate) enum Edit {
    /// The messages of a range of offsets are deleted.
    Delete { log: Arc<LogState>, offsets: Range<u64> },
    /// Everything before an offset is deleted.
    Retain { log: Arc<LogState>, start: u64 },
    /// A new log begins with what another has below `end`.
    Fork {
        origin: Arc<LogState>,
        end: u64,
        fork: Arc<LogState>,
        /// Its settings, encoded.
        settings: Arc<[u8]>,
        /// The fork is of the value that the origin had after so many edits, and of no other.
        edits: Option<u64>,
    },
    /// The end of a log takes offsets of another one; whoever asks for it holds the gate of the log.
    Splice {
        log: Arc<LogState>,
        first: u64,
        source: Arc<LogState>,
        offsets: Range<u64>,
    },
    /// Messages that stand in slabs stand in another one from now on, without the superseded ones among them.
    Replace(Replacement),
    /// A log ends.
    Drop { log: Arc<LogState> },
    /// A log has other settings.
    SetSettings {
        log: Arc<LogState>,
        settings: Settings,
        encoded: Arc<[u8]>,
    },
}

/// What edits destroyed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Destroyed {
    pub(crate) messages: u64,
    /// Bytes of keys and values.
    pub(crate) bytes: u64,
    /// Whether both are exact; where a slab that was cut cannot be read they are counted in proportion.
    pub(crate) is_exact: bool,
    /// The blocks on the disk that held it.
    pub(crate) blocks: Vec<BlockPlace>,
}

impl Default for Destroyed {
    fn default() -> Self {
        Destroyed {
            messages: 0,
            bytes: 0,
            is_exact: true,
            blocks: Vec::new(),
        }
    }
}

impl Destroyed {
    pub(crate) fn add(&mut self, other: Destroyed) {
        self.messages = self.messages.saturating_add(other.messages);
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.is_exact &= other.is_exact;
        self.blocks.extend(other.blocks);
    }
}

/// What became of the edits of one request, told by whoever wrote its group.
#[derive(Debug, Default)]
pub(crate) struct EditResults {
    /// What each destroyed.
    pub(crate) destroyed: Vec<Destroyed>,
    /// Why none of them was done, and nothing of the request.
    pub(crate) refused: Option<Error>,
}

/// The same, shared by both.
pub(crate) type EditOutcome = Arc<Mutex<EditResults>>;

/// The logs that a version changed, with their ends in it.
#[derive(Debug, Default)]
pub(crate) struct Changed {
    pub(crate) ends: Vec<(Arc<LogState>, u64)>,
}

impl Changed {
    /// Notes that a log has `end` now, or more if it has.
    pub(crate) fn note(&mut self, log: &Arc<LogState>, end: u64) {
        self.ends.push((Arc::clone(log), end));
    }

    /// Leaves of what was noted of a log the largest end. Called before the ends are used: a look for each that is noted
    /// would take the square of their number.
    pub(crate) fn settle(&mut self) {
        // Almost in order: staged logs come by their ids, and so do those gathered from requests.
        self.ends.sort_by_key(|(log, _)| log.id);
        self.ends.dedup_by(|(log, end), (known, largest)| {
            let is_same = log.id == known.id;
            if is_same && !weakened!("first-end-noted-kept") {
                *largest = (*end).max(*largest);
            }
            is_same
        });
    }
}

/// Edits done on copies, before anything is written.
#[derive(Debug, Default, Clone)]
pub(crate) struct Rehearsal {
    /// Roots that edits before have changed.
    roots: BTreeMap<u64, Root>,
    /// Logs that edits before have ended.
    dropped: BTreeSet<u64>,
}

impl Rehearsal {
    /// Takes up the value of a log behind one more edit that deleted something.
    fn take(&mut self, log: &LogState, edited: Root) {
        // Counted as where it is applied: a fork in the same version must not take it for the value before.
        let edits = if weakened!("rehearsal-uncounted") {
            edited.edits
        } else {
            edited.edits.saturating_add(1)
        };
        self.roots.insert(log.id.get(), Root { edits, ..edited });
    }

    /// The value of a log behind the edits so far.
    pub(crate) fn root(&self, log: &LogState) -> Result<Root> {
        if log.is_dropped() || self.dropped.contains(&log.id.get()) {
            return Err(Error::UnknownLog {
                name: log.name.as_str().to_owned(),
            });
        }
        let edited = self.roots.get(&log.id.get());
        Ok(edited.cloned().unwrap_or_else(|| log.root()))
    }
}

impl Edit {
    /// The logs of which messages must be in the journal, each with the end of what must.
    pub(crate) fn reaches(&self) -> Vec<(&Arc<LogState>, u64)> {
        match self {
            Edit::Delete { log, offsets } => vec![(log, offsets.end)],
            Edit::Retain { log, start } => vec![(log, *start)],
            Edit::Fork { .. } if weakened!("fork-uncommitted") => Vec::new(),
            Edit::Fork { origin, end, .. } => vec![(origin, *end)],
            Edit::Splice {
                log,
                first,
                source,
                offsets,
            } => vec![(log, *first), (source, offsets.end)],
            Edit::Replace(replacement) => vec![(&replacement.log, replacement.superseded_by)],
            Edit::Drop { log } | Edit::SetSettings { log, .. } => vec![(log, 0)],
        }
    }

    /// Whether something is reached by fewer than before.
    pub(crate) fn destroys(&self) -> bool {
        matches!(
            self,
            Edit::Delete { .. } | Edit::Retain { .. } | Edit::Replace(_) | Edit::Drop { .. }
        )
    }

    /// The log whose gate is held while the edit waits and is done.
    pub(crate) fn gated(&self) -> Option<&Arc<LogState>> {
        match self {
            Edit::Splice { log, .. } => Some(log),
            _ => None,
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
            Edit::Fork {
                origin,
                end,
                fork,
                settings,
                ..
            } => Change::Fork {
                log: fork.id,
                origin: origin.id,
                end: Offset::new(*end),
                snapshot: fork.named_snapshot().is_some(),
                name: fork.name.as_str(),
                settings,
            },
            Edit::Splice {
                log,
                first,
                source,
                offsets,
            } => Change::Splice {
                log: log.id,
                first: Offset::new(*first),
                source: source.id,
                source_first: Offset::new(offsets.start),
                source_end: Offset::new(offsets.end),
            },
            Edit::Replace(replacement) => Change::Replace {
                log: replacement.log.id,
                first: Offset::new(replacement.offsets.start),
                end: Offset::new(replacement.offsets.end),
                slab: replacement.entry.reference(),
            },
            Edit::Drop { log } => Change::DropLog { log: log.id },
            Edit::SetSettings { log, encoded, .. } => Change::SetSettings {
                log: log.id,
                settings: encoded,
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
    pub(crate) fn rehearse<'a>(
        &self,
        rehearsal: &mut Rehearsal,
        edits: impl IntoIterator<Item = &'a Edit>,
    ) -> Result<()> {
        edits
            .into_iter()
            .try_for_each(|edit| self.rehearse_one(rehearsal, edit))
    }

    fn rehearse_one(&self, rehearsal: &mut Rehearsal, edit: &Edit) -> Result<()> {
        match edit {
            Edit::Delete { log, offsets } => {
                self.settle_tail(log)?;
                let edited = self.without(log, &rehearsal.root(log)?, offsets.clone())?.0;
                rehearsal.take(log, edited);
            }
            Edit::Retain { log, start } => {
                self.settle_tail(log)?;
                let edited = self.beginning_at(log, &rehearsal.root(log)?, *start)?.0;
                rehearsal.take(log, edited);
            }
            Edit::Fork {
                origin, end, edits, ..
            } => self.rehearse_fork(origin, &rehearsal.root(origin)?, *end, *edits)?,
            Edit::Splice {
                log, source, offsets, ..
            } => {
                let destination = rehearsal.root(log)?;
                self.rehearse_splice(
                    log,
                    &destination,
                    source,
                    &rehearsal.root(source)?,
                    offsets.clone(),
                )?;
            }
            Edit::Replace(replacement) => {
                // What goes of a tail slab must be an entry of the tree: the slab is taken to have all that is masked.
                if !weakened!("tail-unsettled-for-replacing") {
                    self.settle_tail(&replacement.log)?;
                }
                let root = rehearsal.root(&replacement.log)?;
                let edited = self.replaced(replacement, &root)?.0;
                rehearsal.take(&replacement.log, edited);
            }
            Edit::Drop { log } => {
                rehearsal.root(log)?;
                rehearsal.dropped.insert(log.id.get());
            }
            Edit::SetSettings { log, .. } => {
                rehearsal.root(log)?;
            }
        }
        Ok(())
    }

    /// Applies an edit whose block was written, or which the journal has. `tail` is that of the log which the edit is
    /// [`gated`](Edit::gated) by.
    pub(crate) fn apply_edit(
        &self,
        edit: &Edit,
        version: Version,
        tail: Option<&mut TailState>,
        changed: &mut Changed,
    ) -> Result<Destroyed> {
        if edit.destroys() {
            self.note_edit(version);
        }
        match edit {
            Edit::Delete { log, offsets } => {
                if !weakened!("edited-log-unchanged") {
                    changed.note(log, log.journaled_end());
                }
                let destroyed =
                    self.edit_root(log, version, |root| self.without(log, root, offsets.clone()))?;
                // Behind the edit: whoever takes note of a cut finds it.
                self.note_cut(log, offsets.clone());
                Ok(destroyed)
            }
            Edit::Retain { log, start } => {
                if !weakened!("edited-log-unchanged") {
                    changed.note(log, log.journaled_end());
                }
                let destroyed = self.edit_root(log, version, |root| self.beginning_at(log, root, *start))?;
                self.note_cut(log, start.saturating_sub(1)..*start);
                Ok(destroyed)
            }
            Edit::Fork {
                origin, end, fork, ..
            } => {
                self.apply_fork(origin, *end, fork)?;
                changed.note(fork, fork.end());
                Ok(Destroyed::default())
            }
            Edit::Splice {
                log,
                first,
                source,
                offsets,
            } => {
                let tail = tail.ok_or(Error::Internal {
                    what: "a splice holds the gate of its log",
                })?;
                self.apply_splice(log, tail, *first, source, offsets.clone())?;
                // It came with slabs and without their runs of keys.
                self.compactor.set_indexed(None);
                changed.note(log, log.journaled_end());
                Ok(Destroyed::default())
            }
            Edit::Replace(replacement) => {
                let log = &replacement.log;
                changed.note(log, log.journaled_end());
                self.edit_root(log, version, |root| self.replaced(replacement, root))
            }
            Edit::Drop { log } => {
                self.apply_drop(log);
                changed.note(log, log.journaled_end());
                Ok(Destroyed::default())
            }
            Edit::SetSettings { log, settings, .. } => {
                log.set_settings(settings.clone());
                self.note_keyed(log);
                changed.note(log, log.journaled_end());
                Ok(Destroyed::default())
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
        log.keep_root_before(version, newest, |versions| self.pins.holds_cut(versions));
        log.change_root(|root| {
            let (edited, destroyed) = edit(root)?;
            let (generation, edits) = (root.generation, root.edits.saturating_add(1));
            *root = Root {
                generation,
                edits,
                ..edited
            };
            Ok(destroyed)
        })
    }

    /// The newest messages of a quiet log stand in a slab beside its tree: they become a part of the tree, where they
    /// can be edited.
    pub(crate) fn settle_tail(&self, log: &Arc<LogState>) -> Result<()> {
        // Never waits for the gate: who holds it may wait for the group that is being written here. Once he has staged
        // messages, they stand in a chunk, and so does what was in the slab.
        while log.root().tail.is_some() {
            if log.filling.load(Ordering::Acquire) {
                return Err(Error::Reserved {
                    name: log.name.as_str().to_owned(),
                });
            }
            match log.try_intrude() {
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
            return self.beginning_at(log, root, range.end);
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
            destroyed.add(self.destroyed_in_tree(log, root, in_tree, &held)?);
        }
        let behind = range.start.max(root.tree_end)..range.end;
        if !behind.is_empty() {
            destroyed.add(self.held_in_memory(log, root, behind.clone())?);
            edited.add_mask(behind);
        }
        Ok((edited, destroyed))
    }

    /// The root without what stands before `start`; deleted offsets at the new beginning go as well.
    pub(crate) fn beginning_at(&self, log: &LogState, root: &Root, start: u64) -> Result<(Root, Destroyed)> {
        let mut edited = root.clone();
        let mut destroyed = Destroyed::default();
        let mut start = start.min(root.end());
        let source = self.source.as_ref();
        let failed = |error| self.tree_error(log, error);
        while start > edited.start {
            let in_tree = start.min(edited.tree_end).saturating_sub(edited.start);
            let held = edited.tree.summary(source, 0..in_tree).map_err(failed)?;
            let offsets = edited.start..start.min(edited.tree_end);
            destroyed.add(self.destroyed_in_tree(log, &edited, offsets, &held)?);
            if start > edited.tree_end {
                destroyed.add(self.held_in_memory(log, &edited, edited.tree_end..start)?);
                edited.tree = Tree::EMPTY;
                edited.tree_end = start;
                self.cut_pending(log, &mut edited)?;
            } else {
                let count = edited.tree.offset_end();
                edited.tree = edited.tree.slice(source, in_tree..count).map_err(failed)?;
            }
            edited.take_masks(start);
            edited.start = start;
            if !edited.pending.is_empty() {
                self.absorb_pending(log, &mut edited)?;
            }
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

    /// What the tree of a root has of `offsets`, all of them in it, where its summary says what that holds.
    fn destroyed_in_tree(
        &self,
        log: &LogState,
        root: &Root,
        offsets: Range<u64>,
        held: &RangeSummary,
    ) -> Result<Destroyed> {
        let relative = offsets.start.saturating_sub(root.start)..offsets.end.saturating_sub(root.start);
        let blocks = root
            .tree
            .blocks(self.source.as_ref(), relative)
            .map_err(|error| self.tree_error(log, error))?;
        Ok(Destroyed {
            messages: held.summary.messages,
            bytes: held.summary.value_bytes.saturating_add(held.summary.key_bytes),
            is_exact: held.is_exact,
            blocks: blocks.iter().filter_map(BlockPlace::of).collect(),
        })
    }

    /// What the chunks of a root have of `offsets`, all of them behind its tree.
    fn held_in_memory(&self, log: &LogState, root: &Root, offsets: Range<u64>) -> Result<Destroyed> {
        let mut held = Destroyed::default();
        let mut at = offsets.start;
        while at < offsets.end {
            if let Some(mask) = root.mask_at(at) {
                at = mask.end;
                continue;
            }
            let until = root.next_mask(at).unwrap_or(u64::MAX).min(offsets.end);
            let part = self.summarise_behind_tree(log, root, at..until)?;
            held.add(Destroyed {
                messages: part.messages(),
                bytes: part.value_bytes().saturating_add(part.key_bytes()),
                is_exact: part.is_exact(),
                blocks: Vec::new(),
            });
            at = until;
        }
        Ok(held)
    }

    /// The messages `offsets` of a chunk and runs in the place of those that are deleted, if any is. None was appended after
    /// `last_ms`.
    pub(crate) fn masked_part(
        &self,
        log: &LogState,
        root: &Root,
        chunk: &Chunk,
        offsets: Range<u64>,
        last_ms: i64,
    ) -> Result<Option<SlabBuilder>> {
        let is_masked = |mask: &Range<u64>| mask.start < offsets.end && offsets.start < mask.end;
        if offsets.start >= root.start && !root.masks.iter().any(is_masked) {
            return Ok(None);
        }
        let opened_ms = chunk.opened_ms();
        let mut builder = SlabBuilder::new(log.id, offsets.start, opened_ms..=last_ms.max(opened_ms));
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
