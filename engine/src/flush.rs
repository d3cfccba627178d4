//! Closed chunks become slabs: sealed, written, and pushed on their logs' trees, in order.
//!
//! Invariants:
//! - jobs land in the order in which their chunks were closed, so a log's tree grows without gaps;
//! - a chunk stays readable in its log's root until the tree covers it, and for a while longer;
//! - a full disk leaves the job queued: the next call tries again, nothing is lost meanwhile.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use lanterman_format::block::{BLOCK_ALIGNMENT, BlockIdentity};
use lanterman_format::ids::{LogId, Version};
use lanterman_format::weakened;
use parking_lot::Mutex;

use crate::core::Core;
use crate::disk::{AlignedBuffer, BulkWriter, Completion, SharedBytes};
use crate::edit::unbuilt;
use crate::error::{Error, Result};
use crate::few::Few;
use crate::log::LogState;
use crate::region::chunk::{Chunk, ChunkSealed, ChunkWriter};
use crate::segment::Allocated;
use crate::slab::{SlabBuilder, SlabHandle};
use crate::tree::{SlabEntry, Tree};

/// Slabs in flight at once, of 1 MiB each: with 16, sustained appends are 8 % faster than with eight (decision 17).
pub(crate) const IN_FLIGHT_MAX: usize = 16;

#[derive(Debug)]
enum JobState {
    Queued,
    InFlight { token: u64 },
    Written,
}

#[derive(Debug)]
struct Job {
    log: Arc<LogState>,
    chunk: Arc<Chunk>,
    closed_ms: i64,
    state: JobState,
    place: Option<(Allocated, ChunkSealed)>,
    /// Deleted offsets that the slab has as runs.
    runs: Few<Range<u64>>,
}

/// Bytes of the newest chunks that are kept for readers though no cursor needs them now, when memory is short of chunks.
const RECENT_BYTES_LEAST: u64 = 4 << 20;

/// A chunk that is on disk as well and kept for those who read close behind the writer.
#[derive(Debug)]
struct Recent {
    log: Arc<LogState>,
    first: u64,
    bytes: u64,
}

/// A chunk that nobody appends to any more.
#[derive(Debug)]
struct Closed {
    log: Arc<LogState>,
    chunk: Arc<Chunk>,
    /// None of its messages was appended later.
    closed_ms: i64,
}

/// Chunks that wait to be written, without the lock under which they are written.
#[derive(Debug, Default)]
pub(crate) struct Incoming {
    queue: Mutex<VecDeque<Closed>>,
}

impl Incoming {
    /// Closes a chunk that its log has and queues it. Both under the lock of the queue: whoever sees that it is closed
    /// finds it here, or in the tree of its log.
    pub(crate) fn close(&self, log: &Arc<LogState>, writer: ChunkWriter, now_ms: i64) {
        let mut queue = self.queue.lock();
        let chunk = writer.close();
        queue.push_back(Closed {
            log: Arc::clone(log),
            closed_ms: now_ms.max(chunk.opened_ms()),
            chunk,
        });
    }

    /// Forgets the chunks of a log whose messages stand in slabs already, as replay finds out.
    pub(crate) fn forget(&self, log: &Arc<LogState>) {
        self.queue
            .lock()
            .retain(|waiting| !Arc::ptr_eq(&waiting.log, log));
    }

    /// Forgets everything, in a store that is only read.
    pub(crate) fn clear(&self) {
        self.queue.lock().clear();
    }

    fn is_empty(&self) -> bool {
        self.queue.lock().is_empty()
    }
}

/// Writes chunks; whoever locks it drives it.
#[derive(Debug)]
pub(crate) struct Flusher {
    bulk: Box<dyn BulkWriter>,
    jobs: VecDeque<Job>,
    next_token: u64,
    recent: VecDeque<Recent>,
    recent_bytes: u64,
    recent_bytes_max: u64,
}

/// What a step of the flusher found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Nothing waits.
    Idle,
    /// Something was submitted or landed, or is in flight.
    Working,
}

impl Flusher {
    pub(crate) fn new(bulk: Box<dyn BulkWriter>, recent_bytes_max: u64) -> Self {
        Flusher {
            bulk,
            jobs: VecDeque::new(),
            next_token: 0,
            recent: VecDeque::new(),
            recent_bytes: 0,
            recent_bytes_max,
        }
    }

    /// Submits what may be submitted, takes what is done, lands what is in order.
    ///
    /// With `wait` it returns only after a completion, if anything is in flight.
    ///
    /// # Errors
    /// [`Error::StorageFull`] when no room is found, with the job still queued; a failed write poisons the store.
    pub(crate) fn drive(&mut self, core: &Core, wait: bool) -> Result<Progress> {
        self.jobs
            .extend(core.incoming.queue.lock().drain(..).map(|closed| Job {
                log: closed.log,
                chunk: closed.chunk,
                closed_ms: closed.closed_ms,
                state: JobState::Queued,
                place: None,
                runs: Few::default(),
            }));
        // What is in flight of a log that was dropped lands as nothing.
        self.jobs
            .retain(|job| !(job.log.is_dropped() && matches!(job.state, JobState::Queued)));
        if self.jobs.is_empty() {
            return Ok(Progress::Idle);
        }
        let _permit = core.permit()?;
        let submitted = self.submit(core);
        if self.bulk.in_flight() > 0 {
            self.reap(core, wait || submitted.is_err())?;
        }
        self.land(core)?;
        submitted?;
        Ok(match self.has_work(core) {
            true => Progress::Working,
            false => Progress::Idle,
        })
    }

    /// Whether chunks wait to be written or are being written.
    pub(crate) fn has_work(&self, core: &Core) -> bool {
        !self.jobs.is_empty() || !core.incoming.is_empty()
    }

    fn submit(&mut self, core: &Core) -> Result<()> {
        core.check_poison()?;
        for job in &mut self.jobs {
            if self.bulk.in_flight() >= IN_FLIGHT_MAX {
                break;
            }
            if !matches!(job.state, JobState::Queued) {
                continue;
            }
            let root = job.log.root();
            let offsets = job.chunk.first_offset().max(root.start)..job.chunk.end_offset();
            if root.has_deleted(&offsets) {
                // Nothing of it is to be seen any more.
                job.state = JobState::Written;
                continue;
            }
            let version = Version::new(core.catalog.version().get().saturating_add(1));
            let time_ms = core.now_ms();
            let whole = job.chunk.first_offset()..offsets.end;
            let mut builder = core.masked_part(&job.log, &root, &job.chunk, whole, job.closed_ms)?;
            if weakened!("masks-forgotten-at-sealing") && builder.take().is_some() {
                job.runs = root.masks.clone();
            }
            let has_runs = builder.is_some();
            let compression = job.log.compression();
            if compression.is_some() {
                let whole = match builder {
                    Some(builder) => builder,
                    None => whole_chunk(job.log.id, &job.chunk, job.closed_ms)?,
                };
                builder = Some(whole.compressed(compression));
            }
            let bytes = match &mut builder {
                Some(builder) => builder.end().map_err(unbuilt)? as u64,
                None => job.chunk.sealed_bytes_max(),
            };
            let place = core
                .allocator
                .lock()
                .allocate(&core.segments, bytes, version, time_ms)
                .map_err(|error| core.poison_if_sync_failed(error))?;
            let identity = place.identity(&core.segments, version);
            let (sealed, image) = match &builder {
                Some(builder) => {
                    if has_runs {
                        job.runs = root.masks;
                    }
                    core.build_slab(builder, &place, &identity)?
                }
                None => {
                    let sealed = job.chunk.seal(job.log.id, job.closed_ms, &identity)?;
                    let image = job.chunk.image(&sealed);
                    (sealed, image)
                }
            };
            core.allocator.lock().give_back(&place, sealed.stored_bytes);
            let token = self.next_token;
            self.next_token = token.wrapping_add(1);
            let length = usize::try_from(sealed.stored_bytes).unwrap_or(usize::MAX);
            if weakened!("slab-noted-before-written") {
                place.segment.note_written();
            }
            self.bulk
                .submit(&place.segment.file, place.position, image, 0..length, token);
            job.state = JobState::InFlight { token };
            job.place = Some((place, sealed));
        }
        Ok(())
    }

    fn reap(&mut self, core: &Core, wait: bool) -> Result<()> {
        let mut completions: Vec<Completion> = Vec::new();
        self.bulk.reap(wait, &mut completions);
        let mut failed = None;
        // All of them, whatever one of them says: a completion is told once.
        for completion in completions {
            let found = self
                .jobs
                .iter_mut()
                .find(|job| matches!(job.state, JobState::InFlight { token } if token == completion.token));
            let Some(job) = found else { continue };
            match completion.result {
                Ok(()) => {
                    // Now, not when it was submitted: a sync between the two covered nothing of it.
                    if let Some((place, _)) = &job.place
                        && !weakened!("slab-noted-before-written")
                    {
                        place.segment.note_written();
                    }
                    job.state = JobState::Written;
                }
                Err(source) => {
                    let path = job
                        .place
                        .as_ref()
                        .map_or(core.segments.directory(), |(place, _)| &place.segment.path);
                    let error = Error::io("write", path, source);
                    // Room that was reserved and is refused all the same, as copy-on-write file systems do: the
                    // job goes to another place later. Anything else leaves the device in doubt.
                    let full = matches!(error, Error::StorageFull { .. });
                    job.state = JobState::Queued;
                    job.place = None;
                    failed = Some(if full { error } else { core.poison(error) });
                }
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Where slabs are being written that no tree has yet: segment, position, bytes.
    pub(crate) fn places(&self) -> impl Iterator<Item = (u64, u64, u64)> + '_ {
        self.jobs.iter().filter_map(|job| {
            let (place, _) = job.place.as_ref()?;
            Some((place.segment.id.get(), place.position, place.bytes))
        })
    }

    /// Waits until nothing is in flight, whatever comes of it. For a store that is closed: its jobs are given up.
    pub(crate) fn settle(&mut self) {
        while self.bulk.in_flight() > 0 {
            self.bulk.reap(true, &mut Vec::new());
        }
    }

    fn land(&mut self, core: &Core) -> Result<()> {
        while self
            .jobs
            .front()
            .is_some_and(|job| matches!(job.state, JobState::Written))
        {
            let Some(job) = self.jobs.pop_front() else { break };
            let Some((place, sealed)) = job.place else {
                core.land_deleted(&job.log, &job.chunk)
                    .map_err(|error| core.poison(error))?;
                job.chunk.retire();
                core.memory_came_back();
                continue;
            };
            if job.log.is_dropped() {
                job.chunk.retire();
                core.memory_came_back();
                continue;
            }
            let entry = SlabEntry {
                offset_count: u64::from(job.chunk.published().entries),
                skip: 0,
                slab: Some(Arc::new(SlabHandle::new(sealed.reference))),
                summary: sealed.summary,
                keys: sealed.keys,
            };
            let end = job.chunk.end_offset();
            let first = job.chunk.first_offset();
            job.log
                .change_root(|root| -> Result<()> {
                    if first > root.tree_end {
                        return Err(Error::Internal {
                            what: "a chunk lands where its log's tree ends",
                        });
                    }
                    // Messages at its front that were deleted meanwhile stay hidden, and count no more.
                    let hidden = root.tree_end.saturating_sub(first);
                    if hidden < entry.offset_count {
                        let source = core.source.as_ref();
                        let mut shown = entry.part(source, hidden..entry.offset_count);
                        if weakened!("hidden-front-counted") {
                            shown.summary = sealed.summary;
                        }
                        let pushed = root.tree.push(source, shown, &sealed.histogram);
                        root.tree = pushed.map_err(|error| core.tree_error(&job.log, error))?;
                        root.tree_end = end;
                    }
                    core.masks_into_tree(&job.log, root, &job.runs)?;
                    core.absorb_pending(&job.log, root)?;
                    // A tail slab of the same messages, from a checkpoint, has had its day.
                    root.tail = root.tail.take().filter(|tail| tail.first >= end);
                    Ok(())
                })
                .map_err(|error| core.poison(error))?;
            job.chunk.retire();
            core.counters.slab_written(place.bytes);
            self.keep_recent(Recent {
                log: job.log,
                first: job.chunk.first_offset(),
                // What it takes of memory; on the disk it may be compressed.
                bytes: place.bytes.max(u64::from(job.chunk.published().body_end)),
            });
            core.memory_came_back();
        }
        Ok(())
    }

    /// Keeps a landed chunk in memory, at the cost of the oldest ones beyond the bound.
    fn keep_recent(&mut self, recent: Recent) {
        self.recent_bytes = self.recent_bytes.saturating_add(recent.bytes);
        self.recent.push_back(recent);
        self.trim_recent(self.recent_bytes_max);
    }

    /// Lets go of the oldest landed chunks, but for the newest of all, as long as every cursor of their logs is behind
    /// them: their memory is warm, and new memory would have to be cleared first.
    pub(crate) fn let_go_of_read(&mut self, core: &Core) {
        while self.recent_bytes > RECENT_BYTES_LEAST {
            let is_read = self.recent.front().is_some_and(|oldest| {
                let next = oldest
                    .log
                    .root()
                    .chunks
                    .get(1)
                    .map_or(u64::MAX, |chunk| chunk.first_offset());
                core.pins.slowest_cursor(oldest.log.id) >= next
            });
            if !is_read {
                break;
            }
            self.trim_recent(self.recent_bytes.saturating_sub(1));
        }
    }

    /// Lets go of landed chunks until at most `bytes_max` are kept.
    pub(crate) fn trim_recent(&mut self, bytes_max: u64) {
        while self.recent_bytes > bytes_max {
            let Some(oldest) = self.recent.pop_front() else {
                break;
            };
            self.recent_bytes = self.recent_bytes.saturating_sub(oldest.bytes);
            oldest.log.change_root(|root| {
                let gone = |chunk: &Arc<Chunk>| {
                    chunk.first_offset() <= oldest.first
                        && chunk.end_offset() <= root.tree_end
                        && chunk.is_closed()
                };
                let kept: Vec<_> = root.chunks.iter().filter(|chunk| !gone(chunk)).cloned().collect();
                root.chunks = Few::from(kept);
            });
        }
    }
}

/// All messages of a closed chunk, to be put together anew.
fn whole_chunk(log: LogId, chunk: &Chunk, closed_ms: i64) -> Result<SlabBuilder> {
    let opened_ms = chunk.opened_ms();
    let times_ms = opened_ms..=closed_ms.max(opened_ms);
    let mut builder = SlabBuilder::new(log, chunk.first_offset(), times_ms);
    let stored = chunk.entries_bytes(0, u64::from(chunk.published().entries))?;
    builder.push_stored(stored).map_err(unbuilt)?;
    Ok(builder)
}

impl Core {
    /// A slab put together anew, in memory of its own.
    fn build_slab(
        &self,
        builder: &SlabBuilder,
        place: &Allocated,
        identity: &BlockIdentity,
    ) -> Result<(ChunkSealed, SharedBytes)> {
        let length = usize::try_from(place.bytes).unwrap_or(usize::MAX);
        let mut buffer = AlignedBuffer::new(length)
            .map_err(|source| Error::io("allocate a buffer for", self.segments.directory(), source))?;
        let built = builder.finish(identity, buffer.as_mut()).map_err(unbuilt)?;
        let sealed = ChunkSealed {
            reference: built.reference,
            stored_bytes: built.stored_bytes.next_multiple_of(BLOCK_ALIGNMENT as u64),
            summary: built.summary,
            histogram: built.histogram,
            keys: built.keys,
        };
        Ok((sealed, Arc::new(buffer)))
    }

    /// A chunk of which everything was deleted lands without a slab.
    fn land_deleted(&self, log: &LogState, chunk: &Chunk) -> Result<()> {
        let end = chunk.end_offset();
        log.change_root(|root| {
            if let Some(count) = end.checked_sub(root.tree_end).filter(|count| *count > 0) {
                let joined = root.tree.join(self.source.as_ref(), &Tree::deleted(count));
                root.tree = joined.map_err(|error| self.tree_error(log, error))?;
                let deleted = root.tree_end..end;
                root.tree_end = end;
                root.take_masks(end);
                root.forget_landed(&deleted);
            }
            self.absorb_pending(log, root)
        })
    }

    /// Drives the flusher until the tree of `log` covers everything below `end`.
    pub(crate) fn flush_log(&self, log: &LogState, end: u64) -> Result<()> {
        while log.root().tree_end < end && !log.is_dropped() {
            let progress = self.flusher.lock().drive(self, true)?;
            if progress == Progress::Idle && log.root().tree_end < end && !log.is_dropped() {
                return Err(Error::Internal {
                    what: "a closed chunk is in the flusher's queue",
                });
            }
        }
        Ok(())
    }

    /// Drives the flusher until nothing waits.
    pub(crate) fn flush_all(&self) -> Result<()> {
        while self.flusher.lock().drive(self, true)? == Progress::Working {}
        Ok(())
    }
}
