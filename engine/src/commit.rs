//! From requests to one version: what a block holds, and what is true once it is written.
//!
//! Invariants:
//! - a block holds, of each of its logs, everything between what the journal knew and the end asked for;
//! - ends move only after the block is written; a block that found no room moves nothing and poisons nothing;
//! - the messages of a transaction become readable after their block is written, all of them inside one closed gate.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lanterman_format::commit::{Change, FrameDescription, SlabAdoption};
use lanterman_format::ids::{Offset, Version};
use lanterman_format::weakened;
use parking_lot::MutexGuard;

use crate::catalog::Cut;
use crate::constrained::Judged;
use crate::core::Core;
use crate::edit::{Changed, Edit, EditOutcome, Rehearsal};
use crate::error::{Error, Result};
use crate::journal::group::{GroupFuture, GroupWriter};
use crate::journal::{CommitContent, Journal};
use crate::log::{LogState, Root, TailState};
use crate::options::Durability;
use crate::region::chunk::Chunk;
use crate::region::gated::Intruder;
use crate::segment::MakingRoom;

/// What is this large is written as a slab and only referred to; less is copied into the journal.
pub(crate) const ADOPT_BYTES_MIN: u64 = 256 << 10;
/// Bytes of one block beyond which a group is written as several versions.
const BLOCK_BYTES_WANTED: u64 = 64 << 20;
/// How many journals' worth may wait for a checkpoint before commits wait for it.
const JOURNALS_BEHIND_MAX: u64 = 4;

/// The messages of a transaction in one log: staged behind the log's end, its gate held.
#[derive(Debug)]
pub(crate) struct StagedLog {
    pub(crate) log: Arc<LogState>,
    pub(crate) tail: Intruder<TailState>,
    /// Offset of the first staged message.
    pub(crate) first: u64,
    pub(crate) count: u64,
    /// What the staged messages changed in the memory of the log's rules.
    pub(crate) judged: Judged,
}

/// What somebody wants committed.
#[derive(Debug)]
pub(crate) enum Request {
    /// Everything of a log below an offset.
    Log {
        log: Arc<LogState>,
        end: u64,
        durability: Durability,
    },
    /// Staged messages and edits, all or nothing.
    Transaction {
        staged: Vec<StagedLog>,
        edits: Vec<Edit>,
        durability: Durability,
        /// Set to the version once it is written: a group may be written as several versions, of which one fails.
        written: Arc<AtomicU64>,
        /// What the edits destroyed, once they are applied.
        outcome: EditOutcome,
    },
}

impl Request {
    fn has_edits(&self) -> bool {
        matches!(self, Request::Transaction { edits, .. } if !edits.is_empty())
    }

    /// Whether it deletes something, which makes room.
    fn destroys(&self) -> bool {
        matches!(self, Request::Transaction { edits, .. } if edits.iter().any(Edit::destroys))
    }

    fn durability(&self) -> Durability {
        match self {
            Request::Log { durability, .. } | Request::Transaction { durability, .. } => *durability,
        }
    }

    /// What must never be done to a transaction: a version for each of its logs.
    fn split(requests: Vec<Self>) -> Vec<Self> {
        let mut parts = Vec::new();
        for request in requests {
            match request {
                Request::Transaction {
                    staged,
                    edits,
                    durability,
                    written,
                    outcome,
                } => {
                    let part = |staged, edits| Request::Transaction {
                        staged,
                        edits,
                        durability,
                        written: Arc::clone(&written),
                        outcome: Arc::clone(&outcome),
                    };
                    parts.extend(staged.into_iter().map(|staged| part(vec![staged], Vec::new())));
                    if !edits.is_empty() {
                        parts.push(part(Vec::new(), edits));
                    }
                }
                other @ Request::Log { .. } => parts.push(other),
            }
        }
        parts
    }

    fn bytes(&self) -> u64 {
        match self {
            Request::Log { .. } => ADOPT_BYTES_MIN,
            Request::Transaction { staged, .. } => staged.iter().map(StagedLog::bytes).sum(),
        }
    }
}

impl StagedLog {
    /// Whether something stands before the staged messages that the journal does not have, if only that there is such a log.
    fn has_more_before(&self) -> bool {
        self.first > self.log.journaled_end() || !self.log.is_created()
    }

    fn bytes(&self) -> u64 {
        self.tail
            .writer
            .as_ref()
            .map_or(0, |writer| writer.staged_body().len() as u64)
    }
}

/// A run of messages in a chunk that goes into the block as a frame.
struct ChunkPart {
    log: Arc<LogState>,
    chunk: Arc<Chunk>,
    first: u64,
    count: u32,
}

/// One log's part of a block that is being put together.
#[derive(Default)]
struct Gathered {
    parts: Vec<ChunkPart>,
    adoptions: Vec<SlabAdoption>,
    /// Logs with their new ends and, where slabs were adopted, up to where.
    ends: Vec<(Arc<LogState>, u64, Option<u64>)>,
    staged: Vec<StagedLog>,
    /// In the order in which they take effect, each with where to tell what it destroyed.
    edits: Vec<(Edit, EditOutcome)>,
    written: Vec<Arc<AtomicU64>>,
}

impl GroupWriter<Request> for Core {
    fn write_group(&self, requests: Vec<Request>) -> Result<Version> {
        let _permit = self.permit()?;
        let asked = requests.len() as u64;
        let _room = requests.iter().any(Request::destroys).then(MakingRoom::begin);
        self.catch_up_checkpoint()?;
        // Before the journal, as a checkpoint does.
        let _edits = requests.iter().any(Request::has_edits).then(|| self.edits.lock());
        let mut journal = self.journal.lock();
        let mut version = journal.end().version;
        let mut batch = Vec::new();
        let mut bytes = 0u64;
        let splits = weakened!("transaction-split");
        let requests = if splits {
            Request::split(requests)
        } else {
            requests
        };
        for request in requests {
            let more = request.bytes();
            if !batch.is_empty() && (splits || bytes.saturating_add(more) > BLOCK_BYTES_WANTED) {
                version = self.write_version(&mut journal, std::mem::take(&mut batch))?;
                bytes = 0;
            }
            bytes = bytes.saturating_add(more);
            batch.push(request);
        }
        if !batch.is_empty() {
            version = self.write_version(&mut journal, batch)?;
        }
        let behind = journal.replay_bytes() > self.options.journal_bytes_max;
        drop(journal);
        self.counters.group_written(asked);
        self.committed();
        if behind {
            self.background.ask_for_checkpoint();
        }
        if self.segments.is_journal_wanted() {
            self.background.ask_for_journal();
        }
        Ok(version)
    }

    fn call_background(&self) {
        self.background.ask_for_commit();
    }
}

impl Core {
    /// Commits everything of `log` below `end`; returns at once when that is so already.
    pub(crate) fn commit_log(
        &self,
        log: &Arc<LogState>,
        end: u64,
        durability: Durability,
    ) -> Result<Version> {
        self.check_poison()?;
        let known = match durability {
            Durability::Process => log.journaled_end(),
            Durability::Disk => log.durable_end(),
        };
        if known >= end && log.is_created() {
            return Ok(self.catalog.version());
        }
        let outcome = self.groups.commit(
            Request::Log {
                log: Arc::clone(log),
                end,
                durability,
            },
            self,
        );
        let reached = match durability {
            Durability::Process => log.journaled_end(),
            Durability::Disk => log.durable_end(),
        };
        match outcome {
            // Another part of the group failed, not this one.
            Err(_) if reached >= end && log.is_created() => Ok(self.catalog.version()),
            outcome => outcome,
        }
    }

    /// The same without waiting.
    pub(crate) fn commit_log_later(
        &self,
        log: &Arc<LogState>,
        end: u64,
        durability: Durability,
    ) -> GroupFuture {
        self.groups.commit_later(
            Request::Log {
                log: Arc::clone(log),
                end,
                durability,
            },
            self,
        )
    }

    /// A journal too far ahead of its checkpoint makes commits wait, so that recovery stays bounded.
    fn catch_up_checkpoint(&self) -> Result<()> {
        let limit = self.options.journal_bytes_max.saturating_mul(JOURNALS_BEHIND_MAX);
        if self.journal.lock().replay_bytes() <= limit {
            return Ok(());
        }
        self.checkpoint().map(|_| ())
    }

    /// Writes, durably, a version of edits that are made of the version before, with none between the two; nothing if
    /// there are none.
    pub(crate) fn commit_of_cut(
        &self,
        make: impl FnOnce(&Cut) -> Result<Vec<Edit>>,
    ) -> Result<Option<Version>> {
        let _permit = self.permit()?;
        self.catch_up_checkpoint()?;
        let _edits = self.edits.lock();
        let mut journal = self.journal.lock();
        let edits = make(&self.catalog.cut())?;
        if edits.is_empty() {
            return Ok(None);
        }
        let outcome = EditOutcome::default();
        let request = Request::Transaction {
            staged: Vec::new(),
            edits,
            durability: Durability::Disk,
            written: Arc::default(),
            outcome: Arc::clone(&outcome),
        };
        let version = self.write_version(&mut journal, vec![request])?;
        let behind = journal.replay_bytes() > self.options.journal_bytes_max;
        drop(journal);
        self.committed();
        if behind {
            self.background.ask_for_checkpoint();
        }
        match outcome.lock().refused.take() {
            Some(refused) => Err(refused),
            None => Ok(Some(version)),
        }
    }

    fn write_version(
        &self,
        journal: &mut MutexGuard<'_, Journal>,
        requests: Vec<Request>,
    ) -> Result<Version> {
        let durability = requests
            .iter()
            .map(Request::durability)
            .max()
            .unwrap_or(Durability::Process);
        let mut gathered = Gathered::default();
        // In order, so that the same work writes the same bytes.
        let mut ends: BTreeMap<u64, (Arc<LogState>, u64)> = BTreeMap::new();
        let mut rehearsal = Rehearsal::default();
        for request in requests {
            match request {
                // What was dropped meanwhile has nothing left to commit.
                Request::Log { log, .. } if log.is_dropped() && !weakened!("dropped-log-committed") => {}
                Request::Log { log, end, .. } => {
                    let entry = ends.entry(log.id.get()).or_insert_with(|| (Arc::clone(&log), 0));
                    entry.1 = entry.1.max(end);
                }
                Request::Transaction {
                    staged,
                    edits,
                    written,
                    outcome,
                    ..
                } => {
                    match self.admit(&rehearsal, &staged, &edits) {
                        Ok(rehearsed) => rehearsal = rehearsed,
                        Err(error) => {
                            // The others of the group go on without it.
                            outcome.lock().refused = Some(error);
                            continue;
                        }
                    }
                    gathered.written.push(written);
                    for (log, end) in edits.iter().flat_map(Edit::reaches) {
                        // Up to the log's end, for an edit may end within a batch, which is found whole or not at all.
                        let end = end.max(log.end());
                        let entry = ends.entry(log.id.get()).or_insert_with(|| (Arc::clone(log), 0));
                        entry.1 = entry.1.max(end);
                    }
                    let edits = edits.into_iter().map(|edit| (edit, Arc::clone(&outcome)));
                    gathered.edits.extend(edits);
                    for part in staged.iter().filter(|part| part.has_more_before()) {
                        let entry = ends
                            .entry(part.log.id.get())
                            .or_insert_with(|| (Arc::clone(&part.log), 0));
                        entry.1 = entry.1.max(part.first);
                    }
                    gathered.staged.extend(staged);
                }
            }
        }
        for (log, end) in ends.into_values() {
            if end > log.journaled_end() || !log.is_created() {
                self.gather_log(&mut gathered, log, end)?;
            }
        }
        if weakened!("watermark-before-write") {
            for (log, end, _) in &gathered.ends {
                log.set_durable_end(*end);
            }
        }
        let version = self.write_block(journal, &gathered, durability)?;
        self.apply(journal, gathered, version, durability)?;
        Ok(version)
    }

    /// Whether a transaction can be done behind those before it; gives what they are together.
    fn admit(&self, before: &Rehearsal, staged: &[StagedLog], edits: &[Edit]) -> Result<Rehearsal> {
        let gone = staged.iter().find(|staged| staged.log.is_dropped());
        if let Some(gone) = gone.filter(|_| !weakened!("dropped-log-committed")) {
            return Err(Error::UnknownLog {
                name: gone.log.name.as_str().to_owned(),
            });
        }
        let mut rehearsal = before.clone();
        self.rehearse(&mut rehearsal, edits)?;
        Ok(rehearsal)
    }

    /// Finds where the messages `journaled_end..end` of a log are, and how they go into the block.
    fn gather_log(&self, gathered: &mut Gathered, log: Arc<LogState>, end: u64) -> Result<()> {
        let root = log.root();
        let mut offset = log.journaled_end();
        let mut adopted = None;
        while offset < end {
            let chunk = root.chunk_at(offset).filter(|chunk| offset < chunk.end_offset());
            let stop = chunk.map_or(root.tree_end, |chunk| chunk.end_offset()).min(end);
            let copied = match chunk {
                Some(chunk) => {
                    // A chunk that is not in the tree yet; its front may be hidden by now.
                    chunk.end_offset() > root.tree_end || chunk_bytes(chunk, offset, stop) < ADOPT_BYTES_MIN
                }
                None => false,
            };
            match chunk {
                Some(chunk) if copied => gathered.parts.push(ChunkPart {
                    log: Arc::clone(&log),
                    chunk: Arc::clone(chunk),
                    first: offset,
                    count: u32::try_from(stop.saturating_sub(offset)).unwrap_or(u32::MAX),
                }),
                _ => {
                    let until = adopted.unwrap_or_else(|| log.adopted_end());
                    adopted = Some(self.adopt(gathered, &log, &root, until, stop)?);
                }
            }
            if stop <= offset {
                return Err(Error::Internal {
                    what: "a log's pieces follow each other without a gap",
                });
            }
            offset = stop;
        }
        gathered.ends.push((log, end, adopted));
        Ok(())
    }

    /// Adds the slabs of the tree from `from` on that hold something below `stop`; a slab that reaches beyond is adopted
    /// in part, and once more when the rest is committed.
    fn adopt(
        &self,
        gathered: &mut Gathered,
        log: &Arc<LogState>,
        root: &Root,
        from: u64,
        stop: u64,
    ) -> Result<u64> {
        let mut whole_until = from;
        for placed in root
            .tree
            .slabs_from(self.source.as_ref(), from.saturating_sub(root.start))
        {
            let placed = placed.map_err(|error| self.tree_error(log, error))?;
            let first = placed.first_offset.saturating_add(root.start);
            let entry_end = placed.end_offset().saturating_add(root.start);
            if first >= stop {
                break;
            }
            gathered.adoptions.push(SlabAdoption {
                log: log.id,
                first_offset: Offset::new(first),
                offset_count: entry_end.min(stop).saturating_sub(first),
                skip: placed.entry.skip,
                slab: placed.entry.reference(),
            });
            if entry_end <= stop {
                whole_until = entry_end;
            }
        }
        Ok(whole_until)
    }

    fn write_block(
        &self,
        journal: &mut MutexGuard<'_, Journal>,
        gathered: &Gathered,
        durability: Durability,
    ) -> Result<Version> {
        let mut content = CommitContent::default();
        let frames = gathered.parts.len().saturating_add(gathered.staged.len());
        content.frames.reserve_exact(frames);
        for (log, _, _) in &gathered.ends {
            if !log.is_created() {
                let name = log.name.as_str();
                content.changes.push(Change::CreateLog {
                    log: log.id,
                    name,
                    settings: &[],
                });
            }
        }
        if !weakened!("edit-unwritten") {
            content
                .changes
                .extend(gathered.edits.iter().map(|(edit, _)| edit.change()));
        }
        for part in &gathered.parts {
            let from = part.first.saturating_sub(part.chunk.first_offset());
            let description = FrameDescription {
                log: part.log.id,
                first_offset: Offset::new(part.first),
                offset_count: u64::from(part.count),
                entry_count: part.count,
            };
            content.frames.push((
                description,
                part.chunk.entries_bytes(from, u64::from(part.count))?,
            ));
        }
        for staged in gathered.staged.iter().filter(|staged| staged.count > 0) {
            let writer = staged.tail.writer.as_ref().ok_or(Error::Internal {
                what: "staged messages have a chunk",
            })?;
            let description = FrameDescription {
                log: staged.log.id,
                first_offset: Offset::new(staged.first),
                offset_count: staged.count,
                entry_count: u32::try_from(staged.count).unwrap_or(u32::MAX),
            };
            content.frames.push((description, writer.staged_body()));
        }
        content.adoptions.clone_from(&gathered.adoptions);
        if content.is_empty() {
            if durability == Durability::Disk {
                journal.sync().map_err(|error| self.poison(error))?;
            }
            return Ok(journal.end().version);
        }
        journal
            .append(&content, durability, self.now_ms())
            .map_err(|error| match error {
                // Nothing was written: the same commit may succeed when there is room.
                full @ (Error::StorageFull { .. } | Error::TooLarge { .. }) => full,
                other => self.poison(other),
            })
    }

    fn apply(
        &self,
        journal: &mut MutexGuard<'_, Journal>,
        gathered: Gathered,
        version: Version,
        durability: Durability,
    ) -> Result<()> {
        let mut changed = Changed::default();
        let durable = durability == Durability::Disk;
        for (log, end, adopted) in gathered.ends {
            // A checkpoint asks for the logs that changed.
            let is_edited_alone = adopted.is_none() && end <= log.journaled_end();
            if weakened!("edited-log-unchanged") && is_edited_alone && log.is_created() {
                continue;
            }
            log.set_created();
            if let Some(adopted) = adopted {
                log.set_adopted_end(adopted);
            }
            let end = end.max(log.journaled_end());
            changed.note(&log, end);
        }
        let mut staged = gathered.staged;
        let window = (!staged.is_empty()).then(|| self.publication.open());
        for staged in &mut staged {
            if let Some(writer) = staged.tail.writer.as_mut() {
                writer.publish_staged();
            }
            staged.judged.keep();
            changed.note(&staged.log, staged.first.saturating_add(staged.count));
        }
        drop(window);
        changed.settle();
        let mut messages = 0u64;
        for (log, end) in &changed.ends {
            messages = messages.saturating_add(end.saturating_sub(log.journaled_end()));
            log.set_journaled_end(*end);
            if durable {
                log.set_durable_end(*end);
            }
        }
        let mut volatile = self.volatile.lock();
        if durable {
            for (_, log) in volatile.drain() {
                log.set_durable_end(log.journaled_end());
            }
        } else {
            volatile.extend(
                changed
                    .ends
                    .iter()
                    .map(|(log, _)| (log.id.get(), Arc::clone(log))),
            );
        }
        drop(volatile);
        // Before the version is told: whoever sees it sees its edits.
        for (edit, outcome) in &gathered.edits {
            let gated = edit.gated();
            let held = staged
                .iter_mut()
                .find(|staged| gated.is_some_and(|log| Arc::ptr_eq(log, &staged.log)));
            let destroyed = self
                .apply_edit(edit, version, held.map(|staged| &mut *staged.tail), &mut changed)
                .map_err(|error| self.poison(error))?;
            outcome.lock().destroyed.push(destroyed);
        }
        if !gathered.edits.is_empty() {
            changed.settle();
        }
        if version > self.catalog.version() {
            self.catalog.advance(version, &changed.ends);
            self.counters.committed(messages, durable, journal.replay_bytes());
        }
        drop(staged);
        for written in gathered.written {
            written.store(version.get(), Ordering::Release);
        }
        Ok(())
    }
}

/// Bytes that the messages `from..to` take in a chunk.
fn chunk_bytes(chunk: &Chunk, from: u64, to: u64) -> u64 {
    let first = chunk.first_offset();
    chunk
        .entries_bytes(from.saturating_sub(first), to.saturating_sub(from))
        .map_or(0, |bytes| bytes.len() as u64)
}
