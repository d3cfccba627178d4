//! Splices: the end of a log takes offsets of another one by reference.
//!
//! What of the source stands in its tree is taken as a part of that tree: no slab is read, and the work is in O(log n)
//! whatever the length. What stands in memory still is copied into chunks of the destination, as it is stored. Where the
//! destination has messages in memory itself, the run waits among the pending ones of its root until they are in the
//! tree; nothing need be written for it.
//!
//! A value that is replayed need not be in the same pieces as the one that was written: the source's messages may
//! stand in frames of the journal where they stood in slabs before. So adoptions of later slabs begin behind what was
//! taken by reference, and replay puts them behind whatever it has.

use std::ops::{Bound, Range, RangeBounds};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use lanterman_format::ids::{Offset, Version};
use lanterman_format::name::LogName;

use crate::commit::{ADOPT_BYTES_MIN, StagedLog};
use crate::constrained::Judged;
use crate::core::Core;
use crate::deletion::WantedRange;
use crate::edit::Edit;
use crate::error::{Error, Result};
use crate::few::Few;
use crate::log::{LogState, PendingRun, Root, TailState};
use crate::region::chunk::{Chunk, ChunkWriter};
use crate::tree::Tree;

/// What a splice did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SpliceReceipt {
    /// Name of the log that took the messages.
    pub log: String,
    /// The offsets that they got there, one for each offset of the source's range, deleted ones included.
    pub offsets: Range<u64>,
    /// The version from which on they are there.
    pub version: Version,
}

/// A part of a log's value.
pub(crate) enum Piece {
    /// Taken by reference.
    Shared(Tree),
    /// In memory, to be copied; `deleted` of it are masked.
    InMemory {
        chunk: Arc<Chunk>,
        offsets: Range<u64>,
        deleted: Vec<Range<u64>>,
    },
}

/// Pieces on their way to the end of a log.
#[derive(Default)]
pub(crate) struct Addition {
    shared: Vec<PendingRun>,
    copied: Vec<ChunkWriter>,
    masks: Vec<Range<u64>>,
    /// Whether the last piece is in memory, so that appending goes on in its chunk.
    ends_in_memory: bool,
    /// End of the last piece that is taken by reference.
    shared_end: Option<u64>,
    end: u64,
}

impl Core {
    /// The pieces of `root` that hold `offsets`, all of which it has.
    pub(crate) fn pieces(&self, log: &LogState, root: &Root, offsets: Range<u64>) -> Result<Vec<Piece>> {
        let failed = |error| self.tree_error(log, error);
        let source = self.source.as_ref();
        let mut pieces = Vec::new();
        let mut at = offsets.start;
        while at < offsets.end {
            let chunk = root.chunk_at(at).filter(|chunk| at < chunk.end_offset());
            let pending = root
                .pending
                .iter()
                .find(|pending| pending.first <= at && at < pending.end());
            let until = if at < root.tree_end {
                let until = root.tree_end.min(offsets.end);
                let part = at.saturating_sub(root.start)..until.saturating_sub(root.start);
                pieces.push(Piece::Shared(root.tree.slice(source, part).map_err(failed)?));
                until
            } else if let Some(chunk) = chunk {
                let until = chunk.end_offset().min(offsets.end);
                pieces.push(Piece::InMemory {
                    chunk: Arc::clone(chunk),
                    offsets: at..until,
                    deleted: masks_within(root, &(at..until)),
                });
                until
            } else if let Some(pending) = pending {
                let until = pending.end().min(offsets.end);
                let part = at.saturating_sub(pending.first)..until.saturating_sub(pending.first);
                let tree = pending.tree.slice(source, part).map_err(failed)?;
                pieces.push(Piece::Shared(self.unmasked(log, root, at..until, tree)?));
                until
            } else {
                let (tree, until) = self.tail_as_tree(log, root, at..offsets.end)?;
                pieces.push(Piece::Shared(self.unmasked(log, root, at..until, tree)?));
                until
            };
            if until <= at {
                return Err(Error::Internal {
                    what: "a log's pieces follow each other without a gap",
                });
            }
            at = until;
        }
        Ok(pieces)
    }

    /// The part `offsets` of a root's tail slab, as a tree; and how far it goes.
    pub(crate) fn tail_as_tree(
        &self,
        log: &LogState,
        root: &Root,
        offsets: Range<u64>,
    ) -> Result<(Tree, u64)> {
        let tail = root.tail.as_ref().ok_or(Error::Internal {
            what: "a log's pieces follow each other without a gap",
        })?;
        let end = tail.first.saturating_add(tail.count);
        let (entry, histogram) = self.tail_entry(log, tail.clone())?;
        let until = end.min(offsets.end);
        let part = offsets.start.saturating_sub(tail.first)..until.saturating_sub(tail.first);
        let tree = Tree::of(entry, &histogram)
            .and_then(|tree| tree.slice(self.source.as_ref(), part))
            .map_err(|error| self.tree_error(log, error))?;
        Ok((tree, until))
    }

    /// A tree of `offsets` without what of them is deleted and not known to it yet.
    fn unmasked(&self, log: &LogState, root: &Root, offsets: Range<u64>, tree: Tree) -> Result<Tree> {
        masks_within(root, &offsets)
            .into_iter()
            .try_fold(tree, |tree, mask| {
                let part = mask.start.saturating_sub(offsets.start)..mask.end.saturating_sub(offsets.start);
                Ok(tree.delete(self.source.as_ref(), part)?.0)
            })
            .map_err(|error| self.tree_error(log, error))
    }

    /// Copies what is to be copied, for a log that goes on at `first`. Takes memory beyond the budget: whoever asks has
    /// waited for some before.
    pub(crate) fn copy_pieces(&self, pieces: Vec<Piece>, first: u64) -> Result<Addition> {
        let mut addition = Addition {
            end: first,
            ..Addition::default()
        };
        for piece in pieces {
            match piece {
                Piece::Shared(tree) => {
                    let first = addition.end;
                    addition.end = first.saturating_add(tree.offset_end());
                    addition.shared_end = Some(addition.end);
                    addition.ends_in_memory = false;
                    addition.shared.push(PendingRun { first, tree });
                }
                Piece::InMemory {
                    chunk,
                    offsets,
                    deleted,
                } => {
                    let at = addition.end;
                    let shifted = |offset: u64| offset.saturating_sub(offsets.start).saturating_add(at);
                    let masks = deleted.iter().map(|mask| shifted(mask.start)..shifted(mask.end));
                    addition.masks.extend(masks);
                    self.copy_chunk(&mut addition, &chunk, offsets.clone())?;
                    addition.end = shifted(offsets.end);
                    addition.ends_in_memory = true;
                }
            }
        }
        Ok(addition)
    }

    fn copy_chunk(&self, addition: &mut Addition, chunk: &Chunk, offsets: Range<u64>) -> Result<()> {
        let count = offsets.end.saturating_sub(offsets.start);
        let from = offsets.start.saturating_sub(chunk.first_offset());
        let body = chunk.entries_bytes(from, count)?;
        let bytes = body.len() as u64;
        let goes_on = |writer: &&mut ChunkWriter| addition.ends_in_memory && writer.has_room(bytes, count);
        if let Some(writer) = addition.copied.last_mut().filter(goes_on) {
            return writer.append_stored(body, count);
        }
        let capacity = self.pool.capacity_for(bytes, count);
        let taken = self.pool.take_beyond(capacity, addition.end, chunk.opened_ms());
        let mut writer = taken.ok_or_else(|| {
            let source = std::io::Error::from(std::io::ErrorKind::OutOfMemory);
            Error::io("find memory for the newest messages of", &self.path, source)
        })?;
        writer.append_stored(body, count)?;
        addition.copied.push(writer);
        Ok(())
    }

    /// Puts the pieces behind everything that the log has, all of them at once. Its gate is held and no chunk is active.
    pub(crate) fn put_pieces(
        &self,
        log: &Arc<LogState>,
        tail: &mut TailState,
        addition: Addition,
    ) -> Result<()> {
        let Addition {
            shared,
            mut copied,
            masks,
            ends_in_memory,
            ..
        } = addition;
        let active = if ends_in_memory { copied.pop() } else { None };
        log.change_root(|root| {
            let waiting = root.pending.iter().cloned().chain(shared);
            root.pending = waiting.collect();
            let new = copied.iter().chain(active.as_ref()).map(ChunkWriter::chunk);
            root.chunks = root.chunks.iter().chain(new).cloned().collect();
            masks.into_iter().for_each(|mask| root.add_mask(mask));
            self.absorb_pending(log, root)
        })?;
        // Behind the change of the root: a chunk lands where its log's tree ends.
        for writer in copied {
            self.incoming.close(log, writer, self.now_ms());
            self.background.ask_for_flush();
        }
        tail.writer = active;
        Ok(())
    }

    /// Finds out whether a splice can be done; loads the nodes that it will need.
    pub(crate) fn rehearse_splice(
        &self,
        log: &LogState,
        destination: &Root,
        source: &LogState,
        root: &Root,
        offsets: Range<u64>,
    ) -> Result<()> {
        let offsets = offsets.start..offsets.end.min(root.end());
        let mut trial = destination.tree.clone();
        for piece in self.pieces_from_start(source, root, offsets)? {
            if let Piece::Shared(tree) = piece {
                trial = trial
                    .join(self.source.as_ref(), &tree)
                    .map_err(|error| self.tree_error(log, error))?;
            }
        }
        Ok(())
    }

    /// As [`Self::pieces`]; offsets before the root's start are a deleted run.
    fn pieces_from_start(&self, log: &LogState, root: &Root, offsets: Range<u64>) -> Result<Vec<Piece>> {
        let start = root.start.clamp(offsets.start, offsets.end.max(offsets.start));
        let hidden = start.saturating_sub(offsets.start);
        let mut pieces = Vec::new();
        if hidden > 0 {
            pieces.push(Piece::Shared(Tree::deleted(hidden)));
        }
        pieces.extend(self.pieces(log, root, start..offsets.end)?);
        Ok(pieces)
    }

    /// The log takes the offsets; `tail` is its own.
    pub(crate) fn apply_splice(
        &self,
        log: &Arc<LogState>,
        tail: &mut TailState,
        first: u64,
        source: &Arc<LogState>,
        offsets: Range<u64>,
    ) -> Result<()> {
        let end = first.saturating_add(offsets.end.saturating_sub(offsets.start));
        let root = source.root();
        let held = offsets.start..offsets.end.min(root.end().max(offsets.start));
        let mut pieces = self.pieces_from_start(source, &root, held.clone())?;
        if held.end < offsets.end {
            // Only behind a hole in the journal: what the source lost, this log does not have either.
            let missing = offsets.end.saturating_sub(held.end);
            let hole = source.open_end().unwrap_or_default();
            let lost = self.lost_run(source, hole, missing)?.ok_or(Error::Internal {
                what: "a source has the offsets that a splice takes",
            })?;
            pieces.push(Piece::Shared(lost));
        }
        let addition = self.copy_pieces(pieces, first)?;
        let shared_end = addition.shared_end;
        self.close_chunk(log, tail);
        self.tail_into_tree(log)?;
        self.put_pieces(log, tail, addition)?;
        log.set_journaled_end(end);
        log.set_durable_end(end);
        if let Some(shared_end) = shared_end {
            log.set_adopted_end(shared_end);
        }
        Ok(())
    }

    /// Puts `range` of the log `source` behind the end of the log `name`, by reference and durably.
    pub(crate) fn splice(
        &self,
        name: &str,
        source: &str,
        range: &impl RangeBounds<u64>,
    ) -> Result<SpliceReceipt> {
        self.check_writable("splice")?;
        let name = LogName::parse(name)?;
        LogName::parse(source)?;
        if name.as_str() == source {
            return Err(Error::SpliceIntoItself {
                name: source.to_owned(),
            });
        }
        let from = self.find_log(source)?;
        let log = self.find_log(name.as_str())?;
        if log.is_constrained() {
            return Err(Error::Constrained {
                name: name.as_str().to_owned(),
            });
        }
        if log.is_keyed() && !from.is_keyed() {
            return Err(crate::writer::key_required(&log));
        }
        let mut offsets = WantedRange::of(range).within(&from)?;
        if range.start_bound() == Bound::Unbounded {
            // The whole of a log is what it has: not what retention took at its front.
            offsets.start = from.first_offset().get().min(offsets.end);
        }
        if offsets.is_empty() {
            return Err(Error::InvalidRange {
                name: source.to_owned(),
                first: Offset::new(offsets.start),
                end: Offset::new(offsets.end),
                start: from.first_offset(),
                log_end: Offset::new(from.end()),
                reason: "it is empty",
            });
        }
        self.splice_into(&log, &from, offsets)
    }

    fn splice_into(
        &self,
        log: &Arc<LogState>,
        source: &Arc<LogState>,
        offsets: Range<u64>,
    ) -> Result<SpliceReceipt> {
        self.write_newest_large(source, offsets.end)?;
        self.wait_for_room(source, offsets.end)?;
        let staged = self.hold_end(log)?;
        let first = staged.first;
        let count = offsets.end.saturating_sub(offsets.start);
        let end = first.checked_add(count).ok_or(Error::TooLarge {
            part: "log",
            bytes: count,
            limit_bytes: u64::MAX,
        })?;
        let edit = Edit::Splice {
            log: Arc::clone(log),
            first,
            source: Arc::clone(source),
            offsets,
        };
        let (version, _) = self.commit_edits_holding(vec![staged], vec![edit])?;
        Ok(SpliceReceipt {
            log: log.name.as_str().to_owned(),
            offsets: first..end,
            version,
        })
    }

    /// Holds the gate of a log, so that nothing comes behind what it has now.
    fn hold_end(&self, log: &Arc<LogState>) -> Result<StagedLog> {
        let reserved = || Error::Reserved {
            name: log.name.as_str().to_owned(),
        };
        // Whoever fills a message is inside the gate, and must not wait for himself.
        if log.filling.load(Ordering::Acquire) {
            return Err(reserved());
        }
        let tail = log.intrude();
        if tail.reserved {
            return Err(reserved());
        }
        // Whoever edits the log meanwhile would wait for the gate, to do the same.
        self.tail_into_tree(log)?;
        Ok(StagedLog {
            log: Arc::clone(log),
            first: log.end(),
            count: 0,
            judged: Judged::default(),
            tail,
        })
    }

    /// Has the newest messages of a log written as a slab, if they are large enough to be one: what of them is still in
    /// memory would be copied.
    pub(crate) fn write_newest_large(&self, log: &Arc<LogState>, end: u64) -> Result<()> {
        let root = log.root();
        let in_memory: u64 = root
            .chunks
            .iter()
            .map(|chunk| chunk.bytes_from(root.tree_end.max(chunk.first_offset())))
            .sum();
        if in_memory < ADOPT_BYTES_MIN || end <= root.tree_end || log.is_dropped() {
            return Ok(());
        }
        if let Some(mut tail) = log.try_intrude()
            && !tail.reserved
            && tail.writer.as_ref().is_some_and(|writer| !writer.has_staged())
        {
            self.close_chunk(log, &mut tail);
        }
        let closed = |chunk: &&Arc<Chunk>| chunk.is_closed() && chunk.first_offset() < end;
        match log.root().chunks.iter().rfind(closed) {
            Some(chunk) => self.flush_log(log, chunk.end_offset()),
            None => Ok(()),
        }
    }

    /// Waits until the memory of tails has room for what of a log below `end` would be copied. No gate may be held.
    pub(crate) fn wait_for_room(&self, log: &LogState, end: u64) -> Result<()> {
        loop {
            let root = log.root();
            let mut bytes = 0u64;
            let mut count = 0u64;
            for chunk in root
                .chunks
                .iter()
                .filter(|chunk| chunk.end_offset() > root.tree_end)
            {
                let from = root.tree_end.max(chunk.first_offset());
                bytes = bytes.saturating_add(chunk.bytes_from(from));
                count = count.saturating_add(chunk.end_offset().min(end).saturating_sub(from));
            }
            let capacity = self.pool.capacity_for(bytes, count);
            if count == 0 || self.pool.take(capacity, 0, 0).is_some() {
                return Ok(());
            }
            self.wait_for_memory()?;
        }
    }

    /// Cuts runs that wait behind the tree at its end, which has moved into them or beyond.
    pub(crate) fn cut_pending(&self, log: &LogState, root: &mut Root) -> Result<()> {
        let mut kept = Vec::with_capacity(root.pending.len());
        for pending in root
            .pending
            .iter()
            .filter(|pending| pending.end() > root.tree_end)
        {
            let first = pending.first.max(root.tree_end);
            let hidden = first.saturating_sub(pending.first);
            let part = hidden..pending.tree.offset_end();
            let tree = pending
                .tree
                .slice(self.source.as_ref(), part)
                .map_err(|error| self.tree_error(log, error))?;
            kept.push(PendingRun { first, tree });
        }
        root.pending = Few::from(kept);
        Ok(())
    }
}

/// The deleted offsets of `offsets` that the tree does not know of.
fn masks_within(root: &Root, offsets: &Range<u64>) -> Vec<Range<u64>> {
    let clipped = |mask: &Range<u64>| mask.start.max(offsets.start)..mask.end.min(offsets.end);
    root.masks
        .iter()
        .map(clipped)
        .filter(|mask| mask.start < mask.end)
        .collect()
}
