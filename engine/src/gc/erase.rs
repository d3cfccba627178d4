//! Making sure that deleted messages are in no file any more.
//!
//! A deletion is logical at first: the tree shows the rest of a slab and leaves the slab as it is. Erasing writes the slabs
//! of which a part was deleted anew without that part, moves the tails of other logs out of pages that they share with
//! dead ones, has everything superseded by a checkpoint and collected, and then removes what is left of the old bytes
//! outside of blocks: spare files, what the journal has before the checkpoint, and the room behind the ends of files that
//! are written for a second time.
//!
//! What a fork, a named snapshot, a held snapshot or another process still shows is not erased.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use lanterman_format::block::BLOCK_ALIGNMENT;
use lanterman_format::ids::Version;
use lanterman_format::weakened;

use super::collect::{Findings, HeldBack};
use super::reached::without;
use crate::core::Core;
use crate::deletion::DeletionReceipt;
use crate::disk::Sync;
use crate::edit::unbuilt;
use crate::error::{Error, Result};
use crate::log::{LogState, Root, TailSlab};
use crate::segment::{FIRST_BLOCK_POSITION, SegmentFile};
use crate::slab::{SlabBuilder, SlabHandle};
use crate::sys::memory::AlignedBuffer;
use crate::tree::{SlabEntry, Tree};

/// The longest pause before it is looked whether what held deleted messages back is gone.
const PAUSE_MAX: Duration = Duration::from_millis(50);
/// A gap between the slabs of a page that is larger than this may be a dead slab: head and trailer of one take more.
const GAP_BYTES_MAX: u64 = 256;

/// Offsets of a log around which slabs may be shown in part.
pub(super) type Cuts = BTreeMap<u64, (Arc<LogState>, Vec<Range<u64>>)>;

/// Some entries of a tree that follow each other and show parts of one slab, or nothing.
struct Group {
    first: u64,
    entries: Vec<SlabEntry>,
}

impl Group {
    fn offset_count(&self) -> u64 {
        self.entries
            .iter()
            .map(|entry| entry.offset_count)
            .fold(0, u64::saturating_add)
    }
}

/// The tail slab of a log, if it shares a page with dead ones.
fn tail_beside_dead(log: &LogState, findings: &Findings) -> Option<TailSlab> {
    let persisted = log.persisted.lock().tail.clone();
    let tail = log.root().tail.or(persisted)?;
    let reference = tail.slab.reference();
    let first = reference.position.get() - reference.position.get() % FIRST_BLOCK_POSITION;
    let end = reference.position.get().saturating_add(reference.bytes.get());
    let pages = first..end.next_multiple_of(FIRST_BLOCK_POSITION);
    let live = findings.kept.blocks(reference.segment.get(), &pages);
    let mut gaps = without(pages, &live).into_iter();
    gaps.any(|gap| gap.end.saturating_sub(gap.start) > GAP_BYTES_MAX)
        .then_some(tail)
}

impl Core {
    /// Notes that slabs at the ends of `offsets` may be shown only in part from now on.
    pub(crate) fn note_cut(&self, log: &Arc<LogState>, offsets: Range<u64>) {
        let mut cuts = self.collector.cuts.lock();
        let (_, ranges) = cuts
            .entry(log.id.get())
            .or_insert_with(|| (Arc::clone(log), Vec::new()));
        super::reached::unite(ranges, offsets);
    }

    /// Notes all logs of which something was deleted before the store was opened: who deleted it may not have come to
    /// erasing it.
    pub(super) fn note_found_cuts(&self) {
        let is_cut = |log: &LogState| {
            let root = log.root();
            let deleted = || Some(self.summarise(log, &root, root.end()).ok()?.deleted());
            root.start > 0 || deleted().is_some_and(|deleted| deleted > 0)
        };
        self.catalog.wake_if(is_cut);
        for log in self.catalog.everything().iter().filter(|log| is_cut(log)) {
            let root = log.root();
            self.note_cut(log, root.start..root.end());
        }
    }

    /// Writes slabs that are shown in part anew, as far as deletions have cut them.
    pub(super) fn rewrite_cut_slabs(&self) -> Result<()> {
        let cuts = std::mem::take(&mut *self.collector.cuts.lock());
        // Slabs on their way that were sealed before a deletion are cut by it where they land.
        let landed = if weakened!("cut-before-landing") {
            Ok(())
        } else {
            self.flush_all()
        };
        let mut failed = landed.err();
        for (log, ranges) in cuts.into_values() {
            for range in ranges {
                if failed.is_none() && !log.is_dropped() {
                    failed = self.rewrite_around(&log, range.clone()).err();
                }
                if failed.is_some() {
                    self.note_cut(&log, range);
                }
            }
        }
        failed.map_or(Ok(()), Err)
    }

    fn rewrite_around(&self, log: &Arc<LogState>, range: Range<u64>) -> Result<()> {
        let mut at = range.start.saturating_sub(1);
        loop {
            let root = log.root();
            at = at.max(root.start);
            if at > range.end || at >= root.tree_end {
                return Ok(());
            }
            let (group, next) = self.group_at(log, &root, at)?;
            at = next;
            if let Some(group) = group {
                self.rewrite(log, &group)?;
            }
        }
    }

    /// The parts of the slab that is shown at `at`, or of the next one, if it is shown in part; and where to look next.
    fn group_at(&self, log: &LogState, root: &Root, at: u64) -> Result<(Option<Group>, u64)> {
        let source = self.source.as_ref();
        let mut group: Option<(Group, u64)> = None;
        let mut end = root.tree_end;
        for placed in root.tree.slabs_from(source, at.saturating_sub(root.start)) {
            let placed = placed.map_err(|error| self.tree_error(log, error))?;
            let first = placed.first_offset.saturating_add(root.start);
            let behind = placed.end_offset().saturating_add(root.start);
            match (&mut group, &placed.entry.slab) {
                (None, None) => {}
                (None, Some(_)) => {
                    let found = Group {
                        first,
                        entries: vec![placed.entry.clone()],
                    };
                    group = Some((found, behind));
                }
                (Some((found, _)), None) => found.entries.push(placed.entry.clone()),
                (Some((found, until)), Some(slab)) => {
                    let same = found.entries.first().and_then(|entry| entry.slab.as_ref());
                    if same.is_none_or(|same| same.reference() != slab.reference()) {
                        end = first;
                        break;
                    }
                    found.entries.push(placed.entry.clone());
                    *until = behind;
                }
            }
        }
        let Some((mut group, until)) = group else {
            return Ok((None, root.tree_end));
        };
        let before_run = group.entries.last().is_some_and(|entry| entry.slab.is_none());
        // Runs behind the last part belong to nobody.
        while group.entries.last().is_some_and(|entry| entry.slab.is_none()) {
            group.entries.pop();
        }
        let hidden_front = group.entries.first().is_some_and(|entry| entry.skip > 0);
        let is_cut =
            group.entries.len() > 1 || hidden_front || (before_run && self.hides_some(log, &group, until)?);
        Ok((is_cut.then_some(group), end.max(until)))
    }

    /// Whether a slab has offsets behind those of the one entry which shows it. Asked only where a deleted run follows.
    fn hides_some(&self, log: &LogState, group: &Group, until: u64) -> Result<bool> {
        let Some(entry) = group.entries.first() else {
            return Ok(false);
        };
        let Some(slab) = &entry.slab else { return Ok(false) };
        match slab.open(self.source.as_ref()) {
            Ok(opened) => Ok(opened.layout().offset_count() > entry.offset_count),
            Err(error) => match self.slab_error(log, Some(group.first..until), error) {
                // Nobody can say what is in it.
                Error::Damaged(_) => Ok(false),
                other => Err(other),
            },
        }
    }

    /// Puts a slab with what a group shows in the group's place.
    fn rewrite(&self, log: &Arc<LogState>, group: &Group) -> Result<()> {
        let source = self.source.as_ref();
        let offsets = group.first..group.first.saturating_add(group.offset_count());
        let failed = |error| self.slab_error(log, Some(offsets.clone()), error);
        let mut builder: Option<SlabBuilder> = None;
        for entry in &group.entries {
            let Some(handle) = &entry.slab else {
                if let Some(builder) = &mut builder {
                    builder.push_deleted(entry.offset_count);
                }
                continue;
            };
            let opened = match handle.open(source).map_err(failed) {
                // What is damaged stays, and goes on to say so.
                Err(Error::Damaged(_)) => return Ok(()),
                opened => opened?,
            };
            let slab = opened.share();
            let times = slab.layout().summary();
            let builder = builder.get_or_insert_with(|| {
                // The slab is as old as it was.
                SlabBuilder::new(log.id, group.first, times.time_min_ms..=times.time_max_ms)
            });
            let shown = entry.skip..entry.skip.saturating_add(entry.offset_count);
            let context = self.read_context();
            let mut buffers = slab.buffers(shown.clone(), context);
            let mut at = shown.start;
            loop {
                let walked = match buffers.next().map_err(failed) {
                    Err(Error::Damaged(_)) => return Ok(()),
                    walked => walked?,
                };
                let Some(walked) = walked else { break };
                let behind = walked.relative_offset.saturating_add(walked.buffer.count());
                if walked.relative_offset < at || behind > shown.end {
                    // A run of which a part is shown.
                    builder.push_deleted(behind.min(shown.end).saturating_sub(at));
                } else {
                    let stored = walked.bytes().map_err(failed)?;
                    builder.push_stored(stored).map_err(unbuilt)?;
                }
                at = behind;
            }
            slab.check_whole().map_err(failed)?;
        }
        let Some(builder) = builder else { return Ok(()) };
        let builder = builder.compressed(log.compression());
        let (entry, histogram) = self.write_built(builder, group.offset_count())?;
        let tree = Tree::of(entry, &histogram).map_err(|error| self.tree_error(log, error))?;
        log.change_root(|root| -> Result<()> {
            if !self.still_has(log, root, group)? {
                // It was edited just now, and that edit has noted its own cut.
                return Ok(());
            }
            let relative = offsets.start.saturating_sub(root.start)..offsets.end.saturating_sub(root.start);
            root.tree = root
                .tree
                .replace(source, relative, &tree)
                .map_err(|error| self.tree_error(log, error))?;
            root.forget_landed(&offsets);
            Ok(())
        })?;
        self.catalog.mark_dirty(log);
        Ok(())
    }

    fn still_has(&self, log: &LogState, root: &Root, group: &Group) -> Result<bool> {
        let Some(relative) = group.first.checked_sub(root.start) else {
            return Ok(false);
        };
        let mut placed = root.tree.slabs_from(self.source.as_ref(), relative);
        for entry in &group.entries {
            let Some(found) = placed.next() else {
                return Ok(false);
            };
            let found = found.map_err(|error| self.tree_error(log, error))?.entry;
            let same = found.reference() == entry.reference()
                && found.skip == entry.skip
                && found.offset_count == entry.offset_count;
            if !same {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Writes a slab of `offset_count` offsets; gives the entry that shows all of it.
    pub(crate) fn write_built(
        &self,
        mut builder: SlabBuilder,
        offset_count: u64,
    ) -> Result<(SlabEntry, lanterman_format::Histogram32)> {
        let bytes = builder.end().map_err(unbuilt)?;
        let version = Version::new(self.catalog.version().get().saturating_add(1));
        let place = self
            .allocator
            .lock()
            .allocate(&self.segments, bytes as u64, version, self.now_ms())
            .map_err(|error| self.poison_if_sync_failed(error))?;
        let mut buffer = AlignedBuffer::new(bytes.next_multiple_of(BLOCK_ALIGNMENT))
            .map_err(|source| Error::io("allocate a buffer for", self.segments.directory(), source))?;
        let identity = place.identity(&self.segments, version);
        let built = builder
            .finish(&identity, buffer.get_mut(..bytes).unwrap_or_default())
            .map_err(unbuilt)?;
        let length = usize::try_from(place.bytes).unwrap_or(usize::MAX);
        let image = buffer.as_ref().get(..length).ok_or(Error::Internal {
            what: "a slab fills its room",
        })?;
        place.segment.write(place.position, image, Sync::No)?;
        let entry = SlabEntry {
            offset_count,
            skip: 0,
            slab: Some(Arc::new(SlabHandle::new(built.reference))),
            summary: built.summary,
            keys: built.keys,
        };
        Ok((entry, built.histogram))
    }

    /// Has the tails of quiet logs written anew that share a page with dead ones; says whether there were any.
    pub(super) fn move_neighbours(&self, findings: &Findings) -> Result<bool> {
        let mut moved = false;
        self.catalog
            .wake_if(|log| tail_beside_dead(log, findings).is_some());
        for log in self.catalog.everything() {
            let Some(tail) = tail_beside_dead(&log, findings) else {
                continue;
            };
            if log.root().tail.is_some() {
                let offsets = tail.first..tail.first.saturating_add(tail.count);
                self.settle_tail(&log)?;
                let root = log.root();
                let (group, _) = self.group_at(&log, &root, offsets.start)?;
                let relative = offsets.start.saturating_sub(root.start);
                let placed = root.tree.find(self.source.as_ref(), relative);
                let entry = placed
                    .map_err(|error| self.tree_error(&log, error))?
                    .map(|placed| placed.entry.clone());
                let whole = entry.map(|entry| Group {
                    first: offsets.start,
                    entries: vec![entry],
                });
                if let Some(group) = group.or(whole) {
                    self.rewrite(&log, &group)?;
                }
            }
            self.catalog.mark_dirty(&log);
            moved = true;
        }
        Ok(moved)
    }

    /// Removes bytes of earlier lives: spare files, what the journal has before the newest checkpoint and behind its end,
    /// and what lies behind the newest slab.
    pub(super) fn scrub(&self) -> Result<()> {
        self.segments.remove_spares()?;
        let checkpoint = {
            let state = self.checkpoint.lock();
            (state.journal_segment, state.journal_position)
        };
        let journal = self.journal.lock();
        if let Some(segment) = &journal.end().segment {
            if segment.id == checkpoint.0 {
                self.blank(segment, FIRST_BLOCK_POSITION..checkpoint.1)?;
            }
            self.blank(segment, journal.end().position..segment.bytes)?;
        }
        drop(journal);
        if let Some(segment) = self.allocator.lock().give_back_rest(0)? {
            segment.note_written();
        }
        self.segments.sync_slabs().map_err(|error| self.poison(error))
    }

    /// Zeros a range of a file, for which blocks are reserved afterwards as before.
    fn blank(&self, segment: &SegmentFile, range: Range<u64>) -> Result<()> {
        let failed = |source| Error::io("blank a part of", &segment.path, source);
        if range.is_empty() {
            return Ok(());
        }
        match segment.file.punch(range.clone()) {
            Ok(()) => {
                segment.file.reserve(range).map_err(failed)?;
                segment.note_written();
                segment.sync().map_err(|error| self.poison_if_sync_failed(error))
            }
            Err(source) if source.kind() == io::ErrorKind::Unsupported => Ok(()),
            Err(source) => Err(failed(source)),
        }
    }

    /// Waits until what a deletion destroyed is in no file any more, doing what is needed for it.
    pub(crate) fn wait_erased(&self, receipt: &DeletionReceipt, limit: Duration) -> Result<()> {
        let begin = self.clock.monotonic();
        loop {
            let collected = self.collect()?;
            if self.collector.erased() >= receipt.version {
                return Ok(());
            }
            let waited = self.clock.monotonic().saturating_sub(begin);
            let Some(left) = limit.checked_sub(waited).filter(|left| !left.is_zero()) else {
                return Err(Error::StillHeld {
                    name: receipt.log.clone(),
                    held: described(&collected.held),
                });
            };
            let seen = self.progress();
            self.wait_for_progress(seen, left.min(PAUSE_MAX));
        }
    }
}

/// What people are told of who holds garbage back.
fn described(held: &[HeldBack]) -> String {
    let parts: Vec<String> = held.iter().map(ToString::to_string).collect();
    if parts.is_empty() {
        "the file system, which cannot punch holes".to_owned()
    } else {
        parts.join(", ")
    }
}
