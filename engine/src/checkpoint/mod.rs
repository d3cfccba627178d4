//! Checkpoints: the whole store as of one version, written so that recovery need not look behind it.
//!
//! The order, each step durable before the next: slabs, tails, nodes, catalog pages, names and the checkpoint block; one root
//! slot; the other root slot; then the journal before the version is retired. Writers go on all the while: the cut is a
//! persistent map, and what it refers to never changes.
//!
//! A tail slab is provisional. The log keeps its chunk, and the next checkpoint or seal supersedes the slab; a log that
//! nobody appended to since the last checkpoint gives its chunk back and lives from the slab.

mod catalog;

use std::collections::BTreeMap;
use std::sync::Arc;

use lanterman_format::block::{BlockIdentity, BlockKind, Sealed};
use lanterman_format::catalog::{CatalogEntry, CatalogIndex};
use lanterman_format::checkpoint::{Checkpoint, SegmentEntry};
use lanterman_format::error::FormatError;
use lanterman_format::gathered;
use lanterman_format::ids::{ByteLength, LogId, Offset, Position, SegmentId, Sequence, Version};
use lanterman_format::node::{self, NodeParts};
use lanterman_format::reference::Reference;
use lanterman_format::settings::Settings;
use lanterman_format::weakened;
use parking_lot::MutexGuard;

use crate::catalog::Cut;
use crate::core::Core;
use crate::disk::Sync;
use crate::edit::unbuilt;
use crate::error::{Error, Result};
use crate::fork::encoded;
use crate::listed::NewListing;
use crate::log::{LogState, Root, TailSlab};
use crate::region::chunk::Chunk;
use crate::root_file::RootFile;
use crate::segment::Allocated;
use crate::slab::{SlabBuilder, SlabHandle};
use crate::sys::memory::AlignedBuffer;
use crate::tree::NodeWrites;

/// A tail of at most this size shares a block with others; a larger one has a slab of its own on its own page.
const GATHERED_BYTES_MAX: usize = 64 << 10;
/// A block of gathered tails is written when it has grown to this size.
const GATHERING_BYTES_WANTED: usize = 1 << 20;
/// Slabs within a block of gathered tails begin at multiples of this.
const GATHERED_ALIGNMENT: usize = 64;

/// What one checkpoint leaves for the next.
#[derive(Debug)]
pub(crate) struct CheckpointState {
    pub(crate) root: RootFile,
    /// Version of the newest checkpoint.
    pub(crate) version: Version,
    /// Where it is, if this process wrote it: then both root slots name it.
    pub(crate) written: Option<Reference>,
    /// Where the journal goes on behind it.
    pub(crate) journal_segment: SegmentId,
    pub(crate) journal_position: u64,
}

/// What a checkpoint did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckpointReceipt {
    /// The version that it holds.
    pub version: Version,
    /// How many logs had changed since the one before.
    pub logs: u64,
    /// Bytes written for it.
    pub bytes: u64,
}

/// Writes blocks for one checkpoint and remembers how much.
struct BlockSink<'a> {
    core: &'a Core,
    version: Version,
    bytes: u64,
}

impl BlockSink<'_> {
    fn allocate(&mut self, bytes: usize) -> Result<(Allocated, BlockIdentity)> {
        let time_ms = self.core.clock.wall_ms();
        let mut allocator = self.core.allocator.lock();
        let place = allocator.allocate(&self.core.segments, bytes as u64, self.version, time_ms)?;
        let identity = place.identity(&self.core.segments, self.version);
        Ok((place, identity))
    }

    fn write(&mut self, place: &Allocated, buffer: &AlignedBuffer) -> Result<()> {
        let length = usize::try_from(place.bytes).unwrap_or(usize::MAX);
        let bytes = buffer.as_ref().get(..length).ok_or(Error::Internal {
            what: "a block fills its room",
        })?;
        place.segment.write(place.position, bytes, Sync::No)?;
        self.bytes = self.bytes.saturating_add(place.bytes);
        Ok(())
    }

    /// Allocates room for `bytes`, lets `fill` make the block, writes it.
    fn block(
        &mut self,
        kind: BlockKind,
        bytes: usize,
        encode: impl FnOnce(&BlockIdentity, &mut Vec<u8>) -> Result<Sealed, FormatError>,
    ) -> Result<Reference> {
        let (place, identity) = self.allocate(bytes)?;
        let mut block = Vec::with_capacity(usize::try_from(place.bytes).unwrap_or(0));
        let sealed = encode(&identity, &mut block).map_err(|_| Error::Internal {
            what: "a block of a checkpoint encodes",
        })?;
        let mut buffer = self.buffer(&place)?;
        buffer
            .get_mut(..block.len())
            .ok_or(Error::Internal {
                what: "a block fits the room that its size asked for",
            })?
            .copy_from_slice(&block);
        self.write(&place, &buffer)?;
        Ok(Reference::local(kind, &identity, &sealed))
    }

    fn node(&mut self, parts: &NodeParts) -> Result<Reference> {
        let bytes = parts.encoded_bytes();
        self.block(BlockKind::Node, bytes, |identity, out| {
            node::encode(parts, identity, out)
        })
    }

    fn buffer(&self, place: &Allocated) -> Result<AlignedBuffer> {
        let length = usize::try_from(place.bytes).unwrap_or(usize::MAX);
        AlignedBuffer::new(length)
            .map_err(|source| Error::io("allocate a buffer for", self.core.segments.directory(), source))
    }
}

/// What the catalog tells of a log beside its messages: its settings, and where its keys below `tree_end` are in order.
fn settings_with_runs(
    log: &LogState,
    root: &Root,
    tree_end: u64,
    nodes: &mut NodeWrites,
    sink: &mut BlockSink<'_>,
) -> Result<Settings> {
    let mut settings = Settings::clone(&log.settings());
    for run in root
        .keys
        .iter()
        .filter_map(|run| run.within(&(root.start..tree_end)))
    {
        let pages = run.pages().write_dirty(nodes, &mut |_, parts| sink.node(parts))?;
        settings.key_runs.push(run.told(pages));
    }
    Ok(settings)
}

/// The tail of one log, waiting for its place in a block.
struct GatheredTail {
    log: u64,
    /// A slab whose identity is not yet known is sealed twice: once for its size, once in its place.
    state: Arc<LogState>,
    /// Held here: the log may let go of it meanwhile.
    chunk: Arc<Chunk>,
    first: u64,
    count: u64,
    bytes: usize,
    /// A tail of which something was deleted is put together anew.
    builder: Option<SlabBuilder>,
}

impl Core {
    /// Makes a checkpoint of the newest version, unless the last one holds it already.
    ///
    /// # Errors
    /// [`Error::StorageFull`] with the store as it was; what fails between writing and syncing poisons it.
    pub(crate) fn checkpoint(&self) -> Result<Option<CheckpointReceipt>> {
        self.checkpoint_if(false)
    }

    /// Makes a checkpoint also if the last one holds everything.
    pub(crate) fn write_checkpoint_anyway(&self) -> Result<()> {
        self.checkpoint_if(true).map(|_| ())
    }

    /// Whether the newest checkpoint was written by this process and has all edits.
    pub(crate) fn checkpoint_is_good(&self) -> bool {
        let state = self.checkpoint.lock();
        state.written.is_some() && self.last_edit() <= state.version
    }

    fn checkpoint_if(&self, always: bool) -> Result<Option<CheckpointReceipt>> {
        let _permit = self.permit()?;
        let mut state = self.checkpoint.lock();
        // What was closed before is written first, so that versions with edits wait for little.
        self.flush_all()?;
        let edits = self.edits.lock();
        let journal = self.journal.lock();
        let (cut, dirty) = self.catalog.cut_for_checkpoint();
        let end = journal.end().clone();
        let replayed = journal.replay_bytes();
        drop(journal);
        if dirty.is_empty() && cut.version == state.version && !always {
            return Ok(None);
        }
        // In order, so that the same work writes the same bytes; sorted here, where no commit waits for it.
        let dirty: BTreeMap<u64, Arc<LogState>> = dirty.into_iter().map(|log| (log.id.get(), log)).collect();
        let edits = (!weakened!("checkpoint-beside-edits")).then_some(edits);
        if weakened!("segment-reused-early") {
            self.journal_is_covered(end.segment.as_ref().map(|segment| segment.id), replayed)?;
        }
        match self.write_checkpoint(&mut state, &cut, &dirty, &end, edits) {
            Ok(receipt) => {
                // Still under the lock: two checkpoints that follow each other closely would both retire the same files.
                self.journal_is_covered(end.segment.as_ref().map(|segment| segment.id), replayed)
                    .map_err(|error| self.poison_if_sync_failed(error))?;
                drop(state);
                self.segments.keep_reserve(self.options.reserve_bytes_max());
                self.note_superseded(receipt.bytes);
                self.release_idle(&dirty);
                Ok(Some(receipt))
            }
            Err(error) => {
                self.catalog.still_dirty(dirty);
                Err(self.poison_if_sync_failed(error))
            }
        }
    }

    fn write_checkpoint(
        &self,
        state: &mut CheckpointState,
        cut: &Cut,
        dirty: &BTreeMap<u64, Arc<LogState>>,
        end: &crate::journal::JournalEnd,
        edits: Option<MutexGuard<'_, ()>>,
    ) -> Result<CheckpointReceipt> {
        let mut sink = BlockSink {
            core: self,
            version: cut.version,
            bytes: 0,
        };
        let tails = self.write_tails(&mut sink, cut, dirty)?;
        let mut nodes = NodeWrites::default();
        let mut entries = Vec::with_capacity(dirty.len());
        let mut dropped = Vec::new();
        let mut edit_counts = BTreeMap::new();
        for log in dirty.values() {
            let Some(committed) = cut.logs.get(log.id.get()) else {
                dropped.push(log.id);
                continue;
            };
            let tail = tails.get(&log.id.get());
            let tree_end = tail.map_or(committed.end, |tail| tail.first);
            let root = log.root();
            edit_counts.insert(log.id.get(), root.edits);
            let tree = root
                .tree
                .truncate_to(self.source.as_ref(), tree_end.saturating_sub(root.start))
                .map_err(|error| self.tree_error(log, error))?;
            let reference = tree.write_dirty(&mut nodes, &mut |_, parts| sink.node(parts))?;
            let settings = settings_with_runs(log, &root, tree_end, &mut nodes, &mut sink)?;
            entries.push(CatalogEntry {
                log: log.id,
                flags: u32::from(log.named_snapshot().is_some()),
                name: log.name.clone(),
                start_offset: Offset::new(root.start),
                end_offset: Offset::new(committed.end),
                tree_end: Offset::new(tree_end),
                created_version: committed.created,
                modified_version: committed.modified,
                tree: reference,
                tail: tail.map_or(Reference::EMPTY, |tail| *tail.slab.reference()),
                settings: encoded(&settings)?.to_vec(),
            });
        }
        drop(edits);
        let listing = self.write_listing(&mut sink, entries, &dropped)?;
        let index = catalog::index_of(&listing, &mut nodes, &mut sink)?;
        let checkpoint = self.describe(cut, end, &listing, index);
        let bytes = checkpoint.encoded_bytes();
        let reference = sink.block(BlockKind::Checkpoint, bytes, |identity, out| {
            checkpoint.encode(identity, out)
        })?;
        if !weakened!("root-before-data") {
            self.segments.sync_slabs().map_err(|error| self.poison(error))?;
        }
        state
            .root
            .write(reference, &checkpoint, self.clock.wall_ms())
            .map_err(|error| self.poison(error))?;
        nodes.remember();
        state.version = cut.version;
        state.written = Some(reference);
        state.journal_segment = checkpoint.journal_segment;
        state.journal_position = checkpoint.journal_position.get();
        self.catalog.renew_listed(listing);
        self.apply_tails(dirty, &tails, &edit_counts, cut);
        if let Some(readers) = &self.readers {
            readers.tell_root(Sequence::new(state.root.sequence()));
        }
        Ok(CheckpointReceipt {
            version: cut.version,
            logs: dirty.len() as u64,
            bytes: sink.bytes,
        })
    }

    /// Writes what of the dirty logs is not in their trees as tail slabs.
    fn write_tails(
        &self,
        sink: &mut BlockSink<'_>,
        cut: &Cut,
        dirty: &BTreeMap<u64, Arc<LogState>>,
    ) -> Result<BTreeMap<u64, TailSlab>> {
        let mut tails = BTreeMap::new();
        let mut gathering: Vec<GatheredTail> = Vec::new();
        let mut gathering_bytes = 0usize;
        for log in dirty.values() {
            let Some(committed) = cut.logs.get(log.id.get()) else {
                continue;
            };
            self.fit_slab(log, committed.end);
            // Closed chunks go into the tree first, so that at most one chunk is left.
            let root = log.root();
            let closed = root
                .chunks
                .iter()
                .rfind(|chunk| chunk.is_closed() && chunk.first_offset() < committed.end);
            if let Some(chunk) = closed {
                self.flush_log(log, chunk.end_offset())?;
            }
            let root = log.root();
            if root.tree_end >= committed.end {
                continue;
            }
            let whole = |tail: &&TailSlab| tail.first.saturating_add(tail.count) >= committed.end;
            if let Some(tail) = root.tail.as_ref().filter(whole) {
                tails.insert(log.id.get(), tail.clone());
                continue;
            }
            let first = root.tree_end;
            let count = committed.end.saturating_sub(first);
            let chunk = root.chunk_at(first).ok_or(Error::Internal {
                what: "a tail is in a chunk",
            })?;
            let from = first.saturating_sub(chunk.first_offset());
            let mut builder = self.masked_part(log, &root, chunk, first..committed.end, self.now_ms())?;
            if weakened!("masks-forgotten-in-tail") {
                builder = None;
            }
            let bytes = match &mut builder {
                Some(builder) => builder.end().map_err(unbuilt)?,
                None => chunk.copy_sealed_bytes_max(from, count)?,
            };
            let chunk = Arc::clone(chunk);
            let tail = GatheredTail {
                log: log.id.get(),
                state: Arc::clone(log),
                chunk,
                first,
                count,
                bytes,
                builder,
            };
            if bytes > GATHERED_BYTES_MAX {
                self.write_gathered(sink, vec![tail], &mut tails)?;
                continue;
            }
            gathering_bytes = gathering_bytes.saturating_add(bytes);
            gathering.push(tail);
            if gathering_bytes >= GATHERING_BYTES_WANTED {
                self.write_gathered(sink, std::mem::take(&mut gathering), &mut tails)?;
                gathering_bytes = 0;
            }
        }
        if !gathering.is_empty() {
            self.write_gathered(sink, gathering, &mut tails)?;
        }
        Ok(tails)
    }

    /// One block of tails: a header, then a whole slab for each.
    fn write_gathered(
        &self,
        sink: &mut BlockSink<'_>,
        gathering: Vec<GatheredTail>,
        tails: &mut BTreeMap<u64, TailSlab>,
    ) -> Result<()> {
        let head = gathered::GATHERED_BODY_POSITION;
        let room: usize = gathering
            .iter()
            .map(|tail| tail.bytes.next_multiple_of(GATHERED_ALIGNMENT))
            .sum();
        let (place, identity) = sink.allocate(head.saturating_add(room))?;
        let mut buffer = sink.buffer(&place)?;
        let mut at = head;
        let count = u32::try_from(gathering.len()).unwrap_or(u32::MAX);
        for tail in gathering {
            let position = Position::new(place.position.saturating_add(at as u64));
            let own = BlockIdentity { position, ..identity };
            let from = tail.first.saturating_sub(tail.chunk.first_offset());
            let out = buffer
                .as_mut()
                .get_mut(at..at.saturating_add(tail.bytes))
                .ok_or(Error::Internal {
                    what: "gathered tails fit their block",
                })?;
            let reference = match &tail.builder {
                Some(builder) => builder.finish(&own, out).map_err(unbuilt)?.reference,
                None => {
                    let now_ms = self.now_ms();
                    tail.chunk
                        .seal_copy(from, tail.count, tail.state.id, now_ms, &own, out)?
                        .reference
                }
            };
            let slab = Arc::new(SlabHandle::new(reference));
            tails.insert(
                tail.log,
                TailSlab {
                    slab,
                    first: tail.first,
                    count: tail.count,
                    skip: 0,
                },
            );
            at = at.saturating_add(tail.bytes.next_multiple_of(GATHERED_ALIGNMENT));
        }
        let total = u32::try_from(at).unwrap_or(u32::MAX);
        gathered::encode_header(count, total, &identity, buffer.as_mut()).map_err(|_| Error::Internal {
            what: "a header of gathered tails encodes",
        })?;
        sink.write(&place, &buffer)
    }

    fn describe(
        &self,
        cut: &Cut,
        end: &crate::journal::JournalEnd,
        listing: &NewListing,
        index: CatalogIndex,
    ) -> Checkpoint {
        let active = self
            .allocator
            .lock()
            .active()
            .map(|(segment, position)| (segment.id, position));
        // The checkpoint's own block is still to come: recovery knows its place from the root slot.
        let used = |known: &SegmentEntry| match active {
            Some((id, position)) if id == known.segment => ByteLength::new(position),
            _ => known.used_bytes,
        };
        Checkpoint {
            version: cut.version,
            journal_segment: end
                .segment
                .as_ref()
                .map_or(SegmentId::new(0), |segment| segment.id),
            journal_position: Position::new(end.position),
            next_log: LogId::new(self.catalog.next_log()),
            next_segment: self.segments.next(),
            last_commit_crc: end.header_crc,
            garbage: Reference::EMPTY,
            segments: self
                .segments
                .known_slabs()
                .into_iter()
                .map(|known| SegmentEntry {
                    used_bytes: used(&known),
                    ..known
                })
                .collect(),
            pages: listing.pages.values().map(|page| page.reference).collect(),
            index: Some(index),
        }
    }

    /// Remembers the tail slabs, so that quiet logs can live from them.
    fn apply_tails(
        &self,
        dirty: &BTreeMap<u64, Arc<LogState>>,
        tails: &BTreeMap<u64, TailSlab>,
        edit_counts: &BTreeMap<u64, u64>,
        cut: &Cut,
    ) {
        for (id, log) in dirty {
            let mut persisted = log.persisted.lock();
            persisted.edits = edit_counts.get(id).copied().unwrap_or_default();
            persisted.end = cut.logs.get(*id).map_or(0, |committed| committed.end);
            persisted.tail = tails.get(id).cloned();
            drop(persisted);
            let tree_end = tails.get(id).map_or_else(
                || cut.logs.get(*id).map_or(0, |entry| entry.end),
                |tail| tail.first,
            );
            self.note_adopted(log, tree_end);
        }
    }

    /// Slabs of the tree below `tree_end` are in the checkpoint: the journal need not adopt them any more, but for one
    /// that the checkpoint holds only in part.
    fn note_adopted(&self, log: &LogState, tree_end: u64) {
        let root = log.root();
        let last = tree_end.saturating_sub(root.start).saturating_sub(1);
        if let Ok(Some(placed)) = root.tree.find(self.source.as_ref(), last) {
            let first = placed.first_offset.saturating_add(root.start);
            let whole = first.saturating_add(placed.entry.offset_count) == tree_end;
            log.set_adopted_end(if whole { tree_end } else { first });
        }
    }

    /// Journal segments before `keep_from` are of no use any more; nor is what stands before the checkpoint in it.
    fn journal_is_covered(&self, keep_from: Option<SegmentId>, replayed: u64) -> Result<()> {
        // First of all: the checkpoint is made, whether or not its predecessors' files can be put away now.
        let remaining = self.journal.lock().checkpointed(replayed);
        self.counters.checkpointed(remaining);
        *self.checkpointed_at.lock() = self.clock.monotonic();
        let covered = |segment: &SegmentId| keep_from.is_some_and(|keep_from| *segment < keep_from);
        let old: Vec<SegmentId> = self
            .segments
            .opened_journals()
            .into_iter()
            .filter(covered)
            .collect();
        self.segments.retire(&old)
    }

    /// Logs that nobody appended to since the last checkpoint give their memory back.
    fn release_idle(&self, dirty: &BTreeMap<u64, Arc<LogState>>) {
        let edits = self.edits.lock();
        let mut released = false;
        for log in self.catalog.with_memory() {
            if !dirty.contains_key(&log.id.get()) {
                released |= self.release(&log);
            }
        }
        drop(edits);
        // Memory that a busy store will ask for again is kept until it rests, within bounds: the system clears what it hands out.
        if !self.background.has_thread() || self.pool.has_much_free() {
            self.pool.trim();
        }
        if released {
            // What their roots held comes back a little later; the helper thread trims when it rests.
            self.background.ask_for_flush();
        }
    }
}
