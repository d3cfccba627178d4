//! Room for the next message: chunks that grow with their log, and what happens when their memory is used up.
//!
//! A log begins with a small chunk and gets a four times larger one each time it fills it, up to a full slab; so a
//! hundred thousand quiet logs cost little, and a busy one writes large slabs. When the memory of all tails is used up,
//! an appender first helps to write what waits, and then has other logs' chunks written, however small.

use std::sync::Arc;
use std::time::Duration;

use lanterman_format::weakened;

use crate::core::Core;
use crate::error::{Error, Result};
use crate::few::Few;
use crate::flush::Progress;
use crate::log::{LogState, Root, TailState};
use crate::options::WhenFull;
use crate::region::chunk::{Chunk, ChunkWriter};
use crate::source::COPIED_TAIL_BYTES_MAX;

/// How much larger the next chunk of a log is.
const GROWTH: u64 = 4;
/// A chunk of at least this size is written rather than kept waiting for memory to grow.
const CLOSE_BYTES_MIN: u64 = 64 << 10;
/// How long a thread waits for others to free memory before it looks again.
const WAIT_TURN: Duration = Duration::from_millis(20);
/// How long to wait for memory from the background thread, before helping it: it may be busy with something else.
const HELPER_TURN: Duration = Duration::from_millis(5);

/// Whether there is room now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    /// The active chunk takes what was asked for.
    Made,
    /// Memory is used up; ask again after [`Core::wait_for_memory`], with no gate held.
    NoMemory,
}

impl Core {
    /// Gives the log an active chunk that takes `bytes` of stored buffers in `entries` entries.
    pub(crate) fn make_room(
        &self,
        log: &Arc<LogState>,
        tail: &mut TailState,
        bytes: u64,
        entries: u64,
    ) -> Result<Room> {
        self.check_poison()?;
        let Some(writer) = tail.writer.as_mut() else {
            return self.first_chunk(log, tail, bytes, entries);
        };
        if writer.has_room(bytes, entries) {
            return Ok(Room::Made);
        }
        let used = writer.body_bytes().saturating_add(bytes);
        let wanted = self
            .pool
            .capacity_for(used, entries.saturating_add(writer.entry_count()));
        let mut full = self.full_slab_bytes(log);
        if writer.entry_count() > 0 && (wanted > full || writer.capacity() >= full) {
            // By how fast this one was filled: a log that was slow until now gets larger slabs at once.
            full = self.choose_slab_size(log, writer).max(full);
        }
        if writer.entry_count() > 0 && (wanted > full || writer.capacity() >= full) {
            self.close_chunk(log, tail);
            return self.first_chunk(log, tail, bytes, entries);
        }
        let larger = wanted
            .max(writer.capacity().saturating_mul(GROWTH))
            .min(full.max(wanted));
        if larger < full && larger.saturating_mul(GROWTH) >= full {
            // The next one is a full one: by then the helper thread has its pages made.
            self.background.ask_for_flush();
        }
        match self
            .pool
            .take(larger, writer.first_offset(), writer.chunk().opened_ms())
        {
            Some(mut bigger) => {
                writer.copy_into(&mut bigger)?;
                let chunk = Arc::clone(bigger.chunk());
                let outgrown = Arc::clone(writer.chunk());
                // The old chunk is read on by whoever holds it; new readers find the larger one in its place.
                log.change_root(|root| replace_last(root, chunk));
                tail.writer = Some(bigger);
                if !weakened!("outgrown-memory-counted") {
                    outgrown.retire();
                }
                Ok(Room::Made)
            }
            None if writer.capacity() >= CLOSE_BYTES_MIN && writer.entry_count() > 0 => {
                self.close_chunk(log, tail);
                self.first_chunk(log, tail, bytes, entries)
            }
            None => Ok(Room::NoMemory),
        }
    }

    /// A chunk for a log that has none active, with the messages of its tail slab in it.
    fn first_chunk(
        &self,
        log: &Arc<LogState>,
        tail: &mut TailState,
        bytes: u64,
        entries: u64,
    ) -> Result<Room> {
        self.segments.check_reserve()?;
        let root = log.root();
        let stored = self.take_up_tail(log, &root)?;
        let body = stored.as_ref().map_or(0, |stored| stored.body.len() as u64);
        let kept = stored.as_ref().map_or(0, |stored| stored.count);
        let wanted = self
            .pool
            .capacity_for(body.saturating_add(bytes), kept.saturating_add(entries));
        let busy = root
            .chunks
            .last()
            .map_or(0, |chunk| chunk.capacity().min(self.full_slab_bytes(log)));
        let first = stored.as_ref().map_or_else(|| root.end(), |stored| stored.first);
        let now_ms = self.now_ms();
        // Messages without a time of their own keep the one that the tail slab says.
        let opened_ms = stored
            .as_ref()
            .map_or(now_ms, |stored| stored.opened_ms.min(now_ms));
        let taken = self.pool.take(wanted.max(busy), first, opened_ms);
        let Some(mut writer) = taken.or_else(|| self.pool.take(wanted, first, opened_ms)) else {
            return Ok(Room::NoMemory);
        };
        if let Some(stored) = stored {
            writer.append_stored(&stored.body, stored.count)?;
        }
        let chunk = Arc::clone(writer.chunk());
        log.change_root(|root| {
            root.tail = None;
            push_chunk(root, chunk);
        });
        tail.writer = Some(writer);
        Ok(Room::Made)
    }

    /// Ends the active chunk and gives it to the flusher.
    pub(crate) fn close_chunk(&self, log: &Arc<LogState>, tail: &mut TailState) {
        let Some(writer) = tail.writer.take() else { return };
        if writer.entry_count() == 0 {
            let first = writer.first_offset();
            drop(writer);
            log.change_root(|root| {
                let kept: Vec<_> = root
                    .chunks
                    .iter()
                    .filter(|chunk| chunk.first_offset() != first)
                    .cloned()
                    .collect();
                root.chunks = Few::from(kept);
            });
            return;
        }
        self.incoming.close(log, writer, self.now_ms());
        self.background.ask_for_flush();
    }

    /// Waits until memory may have come back, helping with what frees it. No gate may be held.
    ///
    /// # Errors
    /// [`Error::WouldBlock`] if the options say not to wait; [`Error::StorageFull`] when slabs find no room on disk.
    pub(crate) fn wait_for_memory(&self) -> Result<()> {
        self.counters.waited_for_memory();
        let refuse = self.options.when_full == WhenFull::Refuse;
        let seen = self.progress();
        if !refuse && self.is_helper_flushing() {
            self.background.ask_for_flush();
            self.wait_for_progress(seen, HELPER_TURN);
            if self.progress() != seen {
                return Ok(());
            }
        }
        let progress = self.flusher.lock().drive(self, !refuse)?;
        if refuse {
            if progress == Progress::Idle && self.progress() == seen {
                // The memory is with other logs: without this, no later call would find any either.
                self.relieve(false)?;
            }
            return Err(Error::WouldBlock {
                limit_bytes: self.options.tail_memory_bytes,
            });
        }
        if progress == Progress::Idle && self.progress() == seen && !self.relieve(true)? {
            self.wait_for_progress(seen, WAIT_TURN);
        }
        Ok(())
    }

    /// Whether the background thread has chunks to write, or is writing some. Then it is left to it: whoever seals slabs fills
    /// none meanwhile, and the device waits for both.
    fn is_helper_flushing(&self) -> bool {
        self.background.has_thread()
            && self
                .flusher
                .try_lock()
                .is_none_or(|flusher| flusher.has_work(self))
    }

    /// Has the chunks of other logs written, so that their memory comes back; says whether there were any. With `wait` it
    /// returns when one of them is.
    fn relieve(&self, wait: bool) -> Result<bool> {
        let mut closed = false;
        for log in self.catalog.with_memory() {
            let Some(mut tail) = log.try_intrude() else {
                continue;
            };
            if tail.reserved {
                continue;
            }
            if tail.writer.as_ref().is_some_and(|writer| !writer.has_staged()) {
                self.close_chunk(&log, &mut tail);
                closed = true;
            }
        }
        if closed {
            self.flusher.lock().drive(self, wait)?;
        }
        Ok(closed)
    }

    /// Takes the memory of a log that is wholly in the newest checkpoint, if nobody is at its tail. Who calls it holds the
    /// lock of edits: an edit that has found no tail slab must not find one a moment later. Says whether the memory went.
    pub(crate) fn release(&self, log: &Arc<LogState>) -> bool {
        let Some(mut tail) = log.try_intrude() else {
            return false;
        };
        if tail.reserved || tail.writer.as_ref().is_some_and(ChunkWriter::has_staged) {
            return false;
        }
        let persisted = log.persisted.lock();
        if persisted.end != log.end() {
            return false;
        }
        let kept = persisted.tail.clone();
        let released = log.change_root(|root| {
            let covered = kept
                .as_ref()
                .map_or(root.tree_end, |tail| tail.first.saturating_add(tail.count));
            // What was deleted since the checkpoint is a mask that the tail slab does not know of.
            let is_newest = persisted.edits == root.edits || weakened!("released-behind-edit");
            // A closed chunk on its way into the tree lands there all the same. The next append would make a second chunk
            // of the tail slab, with the same messages, and that one does not know what is deleted of them in the tree.
            let is_landing = |chunk: &Arc<Chunk>| chunk.is_closed() && chunk.end_offset() > root.tree_end;
            let is_settled = !root.chunks.iter().any(is_landing) || weakened!("released-before-landing");
            let whole = covered == persisted.end
                && is_newest
                && is_settled
                && root.pending.is_empty()
                && kept.as_ref().is_none_or(|tail| tail.first == root.tree_end);
            if whole {
                root.chunks = Few::default();
                root.tail = kept;
                // A quiet log keeps no nodes either; they are read again when somebody comes.
                root.tree = root.tree.unloaded().unwrap_or_else(|| root.tree.clone());
            }
            whole
        });
        if released {
            tail.writer = None;
        }
        released
    }
}

/// The buffers of a tail slab, copied out to go on from.
struct StoredTail {
    body: Vec<u8>,
    first: u64,
    count: u64,
    /// None of its messages is older.
    opened_ms: i64,
}

impl Core {
    /// Has the system begin to read what appending to a log of which nothing is in memory takes: its tail slab, or what of it and of the
    /// tree it takes to put that there. A hint, which waits for nothing.
    pub(crate) fn announce_tail(&self, root: &Root) {
        let Some(tail) = &root.tail else { return };
        let slab = tail.slab.reference();
        if slab.bytes.get() <= COPIED_TAIL_BYTES_MAX {
            self.source.announce_beside(slab);
            return;
        }
        self.source.announce_ends(&[*slab]);
        if let Some(node) = root.tree.reference().filter(|node| !node.is_empty()) {
            self.source.announce_beside(&node);
        }
    }

    /// The messages of the tail slab, if appending is to go on behind them in memory. Else the slab becomes a part of the tree, and
    /// appending goes on behind it: if it is large enough for that; if it cannot be copied, so that reading it goes on to tell; if
    /// it has deleted messages in it, which a chunk cannot hold.
    fn take_up_tail(&self, log: &Arc<LogState>, root: &Root) -> Result<Option<StoredTail>> {
        let Some(tail) = &root.tail else {
            return Ok(None);
        };
        // In the tree it would stay as it is, and tails are not compressed.
        let is_to_grow = log.compression().is_some() || weakened!("large-tail-copied");
        if is_to_grow || tail.slab.reference().bytes.get() <= COPIED_TAIL_BYTES_MAX {
            match self.tail_body(log, tail) {
                Err(Error::Damaged(_)) | Ok(None) => {}
                stored => return stored,
            }
        }
        self.tail_into_tree(log)?;
        Ok(None)
    }

    /// `None` if some of its messages are deleted.
    fn tail_body(&self, log: &LogState, tail: &crate::log::TailSlab) -> Result<Option<StoredTail>> {
        let offsets = tail.first..tail.first.saturating_add(tail.count);
        let failed = |error| self.slab_error(log, Some(offsets.clone()), error);
        let context = self.read_context();
        let slab = self.source.open_tail(&tail.slab).map_err(failed)?;
        if slab.layout().summary().deleted > 0 {
            return Ok(None);
        }
        let shown = tail.skip..tail.skip.saturating_add(tail.count);
        let mut body = Vec::new();
        let mut buffers = slab.buffers(shown.clone(), context);
        while let Some(walked) = buffers.next().map_err(failed)? {
            if walked.relative_offset < shown.start {
                return Err(Error::Internal {
                    what: "a tail slab is shown from the beginning of a buffer",
                });
            }
            body.extend_from_slice(walked.bytes().map_err(failed)?);
        }
        // Asked after the last byte was copied: what was lost meanwhile must not be written anew, as if it were whole.
        slab.check_whole().map_err(failed)?;
        Ok(Some(StoredTail {
            body,
            first: tail.first,
            count: tail.count,
            opened_ms: slab.layout().summary().time_min_ms,
        }))
    }
}

fn push_chunk(root: &mut Root, chunk: Arc<Chunk>) {
    let mut chunks = root.chunks.to_vec();
    chunks.push(chunk);
    root.chunks = Few::from(chunks);
}

fn replace_last(root: &mut Root, chunk: Arc<Chunk>) {
    let mut chunks = root.chunks.to_vec();
    chunks.pop();
    chunks.push(chunk);
    root.chunks = Few::from(chunks);
}
