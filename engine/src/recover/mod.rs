//! From files to an open store: the newest checkpoint, then the journal from there.
//!
//! The work is bounded by the catalog and the journal: of the slabs themselves nothing is read but those that no sync came
//! before. Nothing is written; so opening works on a full disk too. A writer syncs each file before it reads it, and reads
//! what the device has: decision 5 says why the page cache cannot be believed after a failed sync.

mod checkpoint;

use std::collections::BTreeMap;
use std::sync::Arc;

use lanterman_format::Structure;
use lanterman_format::block::BlockHeader;
use lanterman_format::commit::{Change, CommitView, FrameDescription, SlabAdoption};
use lanterman_format::error::FormatError;
use lanterman_format::key_sketch::KeySketch;
use lanterman_format::reference::Reference;
use lanterman_format::segment::SegmentKind;
use lanterman_format::summary::{Histogram32, Summary};
use lanterman_format::weakened;

use crate::core::Core;
use crate::error::{Error, Result};
use crate::few::Few;
use crate::journal::replay::{SLABS_AHEAD_MAX, Scan, Step};
use crate::log::LogState;
use crate::memory::Room;
use crate::slab::SlabHandle;
use crate::tree::{SlabEntry, Tree};

pub(crate) use checkpoint::{
    Chosen, Make, ReadPages, choose_checkpoint, load_checkpoint, restore_logs, restored_catalog,
    wanted_of_catalog,
};

impl Core {
    /// Applies every version that the journal has from where `scan` stands; gives how many there were.
    pub(crate) fn replay(&self, scan: &mut Scan) -> Result<u64> {
        let mut versions = 0u64;
        loop {
            match scan.next()? {
                Step::Version(view, header, soon) => {
                    // What an adopted slab holds, it alone can tell; one after the other each would be waited for.
                    self.source.announce_ends(&soon);
                    self.replay_version(&view, &header)?;
                    versions = versions.saturating_add(1);
                }
                Step::Hole(hole) => self.step_over(hole),
                Step::End => return Ok(versions),
            }
        }
    }

    fn replay_version(&self, view: &CommitView<'_>, header: &BlockHeader) -> Result<()> {
        let version = header.identity.version;
        self.time.found(view.time_ms());
        let place = |rule| self.journal_damage(header, rule);
        for change in view.changes() {
            if let Change::CreateLog { log, name, settings } = change.map_err(place)? {
                self.replay_creation(log, name, settings, version, header)?;
            }
        }
        let mut changed: BTreeMap<u64, Arc<LogState>> = BTreeMap::new();
        // The first of them were announced together with other versions'.
        let mut unannounced = view.adoptions().skip(SLABS_AHEAD_MAX);
        for (number, adoption) in view.adoptions().enumerate() {
            if number % SLABS_AHEAD_MAX == 0 && number > 0 && view.adoptions_durable() {
                let soon = unannounced.by_ref().take(SLABS_AHEAD_MAX);
                let soon: Vec<_> = soon.map(|next| next.slab).collect();
                self.source.announce_ends(&soon);
            }
            let offsets = (adoption.first_offset.get(), adoption.offset_count);
            let Some(log) = self.replayed_ordinary_log(adoption.log, offsets, header)? else {
                self.note_adopted_slab(&adoption.slab);
                continue;
            };
            self.replay_adoption(&log, &adoption, header)?;
            log.close_end();
            changed.insert(log.id.get(), log);
        }
        for frame in view.frames() {
            let description = &frame.description;
            let offsets = (description.first_offset.get(), description.offset_count);
            let Some(log) = self.replayed_ordinary_log(description.log, offsets, header)? else {
                continue;
            };
            let body = frame.body.map_err(place)?;
            self.replay_frame(&log, description, body, header)?;
            log.close_end();
            changed.insert(log.id.get(), log);
        }
        for change in view.changes() {
            if weakened!("replay-without-edits") {
                continue;
            }
            for log in self.replay_edit(&change.map_err(place)?, version, header)? {
                changed.insert(log.id.get(), log);
            }
        }
        let ends: Vec<_> = changed
            .into_values()
            .map(|log| (Arc::clone(&log), log.end()))
            .collect();
        for (log, end) in &ends {
            log.set_journaled_end(*end);
        }
        self.catalog.advance(version, &ends);
        Ok(())
    }

    pub(crate) fn journal_damage(&self, header: &BlockHeader, rule: FormatError) -> Error {
        match self.segments.get(header.identity.segment, SegmentKind::Journal) {
            Ok(segment) => segment.damaged(
                header.identity.position.get(),
                u64::from(header.block_bytes),
                rule,
            ),
            Err(error) => error,
        }
    }

    /// A slab takes the place of what the journal had of its messages.
    fn replay_adoption(
        &self,
        log: &Arc<LogState>,
        adoption: &SlabAdoption,
        header: &BlockHeader,
    ) -> Result<()> {
        let first = adoption.first_offset.get();
        let end = first.saturating_add(adoption.offset_count);
        self.note_adopted_slab(&adoption.slab);
        let root = log.root();
        if end <= root.start {
            // Deleted since, at the log's front.
            return Ok(());
        }
        if first > root.tree_end && !weakened!("adoption-before-run") {
            return self.replay_adoption_behind(log, adoption, header);
        }
        let source = self.source.as_ref();
        let failed = |error| self.tree_error(log, error);
        let kept = if first < root.tree_end {
            root.tree
                .truncate_to(source, first.saturating_sub(root.start))
                .map_err(failed)?
        } else {
            root.tree.clone()
        };
        // What stands before the log's start went with an edit.
        let hidden = root.start.saturating_sub(first);
        let begins = first.max(root.start);
        if kept.offset_end().saturating_add(root.start) != begins || adoption.offset_count == 0 {
            let rule = crate::rules::disagree(Structure::Commit, root.tree_end, first);
            return Err(self.journal_damage(header, rule));
        }
        let (entry, histogram) = self.adopted_entry(log, adoption, hidden, header)?;
        let tree = kept.push(source, entry, &histogram).map_err(failed)?;
        let mut tail = log.intrude();
        tail.writer = None;
        // Replay may have filled chunks with the same messages; they must not be written once more.
        self.incoming.forget(log);
        log.change_root(|root| {
            root.tree = tree;
            root.tree_end = end;
            root.chunks = Few::default();
            root.tail = None;
            root.pending = Few::default();
            // What was deleted of these messages is an entry of its own, or a run in the slab.
            root.masks = Few::default();
        });
        log.set_adopted_end(end);
        Ok(())
    }

    pub(crate) fn note_adopted_slab(&self, slab: &Reference) {
        if !slab.is_empty() {
            self.segments.note_used(slab);
        }
    }

    /// As [`Self::replay_adoption`], where what should stand in the tree before it stands in chunks, as before a splice
    /// whose source stood in slabs, or was lost.
    fn replay_adoption_behind(
        &self,
        log: &Arc<LogState>,
        adoption: &SlabAdoption,
        header: &BlockHeader,
    ) -> Result<()> {
        let first = adoption.first_offset.get();
        let end = first.saturating_add(adoption.offset_count);
        let mut tail = log.intrude();
        if adoption.offset_count == 0 || !self.bridge(log, &mut tail, first)? {
            let rule = crate::rules::disagree(Structure::Commit, log.end(), first);
            return Err(self.journal_damage(header, rule));
        }
        let known = log.end().saturating_sub(first);
        if known < adoption.offset_count {
            let (entry, histogram) = self.adopted_entry(log, adoption, known, header)?;
            let run = Tree::of(entry, &histogram).map_err(|error| self.tree_error(log, error))?;
            self.put_behind(log, &mut tail, run)?;
        }
        log.set_adopted_end(end);
        Ok(())
    }

    /// The entry that shows an adopted slab, but for the first `known` of the offsets that it brings.
    pub(crate) fn adopted_entry(
        &self,
        log: &LogState,
        adoption: &SlabAdoption,
        known: u64,
        header: &BlockHeader,
    ) -> Result<(SlabEntry, Histogram32)> {
        let offset_count = adoption.offset_count.saturating_sub(known);
        if adoption.slab.is_empty() {
            let summary = Summary {
                deleted: offset_count,
                ..Summary::EMPTY
            };
            let entry = SlabEntry {
                offset_count,
                skip: 0,
                slab: None,
                summary,
                keys: KeySketch::EMPTY,
            };
            return Ok((entry, Histogram32::default()));
        }
        let slab = Arc::new(SlabHandle::new(adoption.slab));
        let (entry, histogram) = self.look_at_adopted(log, adoption, slab, header)?;
        let shown = adoption.skip.saturating_add(known);
        // Counted, not taken from the slab: it may have been cut before it was adopted.
        let part = shown..shown.saturating_add(offset_count);
        Ok((entry.part(self.source.as_ref(), part), histogram))
    }

    /// The whole of an adopted slab, as it says of itself. One that was durable and cannot be read is damage of its own offsets: reading
    /// them answers so, and the store opens all the same.
    fn look_at_adopted(
        &self,
        log: &LogState,
        adoption: &SlabAdoption,
        slab: Arc<SlabHandle>,
        header: &BlockHeader,
    ) -> Result<(SlabEntry, Histogram32)> {
        let first = adoption.first_offset.get();
        let offsets = first..first.saturating_add(adoption.offset_count);
        let opened = match slab.open(self.source.as_ref()) {
            Ok(opened) => opened,
            Err(error) => match self.slab_error(log, Some(offsets), error) {
                damaged @ Error::Damaged(_) => {
                    tracing::error!(error = %damaged, "a slab that the journal adopts cannot be read");
                    let summary = Summary {
                        messages: adoption.offset_count,
                        ..Summary::EMPTY
                    };
                    let entry = SlabEntry {
                        offset_count: adoption.skip.saturating_add(adoption.offset_count),
                        skip: 0,
                        slab: Some(slab),
                        summary,
                        keys: KeySketch::EMPTY,
                    };
                    return Ok((entry, Histogram32::default()));
                }
                other => return Err(other),
            },
        };
        let layout = opened.layout();
        let shown = adoption.skip.checked_add(adoption.offset_count);
        if shown.is_none_or(|shown| shown > layout.offset_count()) {
            let rule =
                crate::rules::disagree(Structure::Commit, layout.offset_count(), adoption.offset_count);
            return Err(self.journal_damage(header, rule));
        }
        let told = opened.histogram().and_then(|histogram| {
            let keys = opened.keys()?;
            Ok((histogram, keys))
        });
        let (histogram, keys) = told.map_err(|error| {
            let offsets = first..first.saturating_add(adoption.offset_count);
            self.slab_error(log, Some(offsets), error)
        })?;
        let entry = SlabEntry {
            offset_count: layout.offset_count(),
            skip: 0,
            summary: *layout.summary(),
            keys,
            slab: Some(Arc::clone(&slab)),
        };
        Ok((entry, histogram))
    }

    /// Appends what the log does not have yet of a frame.
    fn replay_frame(
        &self,
        log: &Arc<LogState>,
        frame: &FrameDescription,
        body: &[u8],
        header: &BlockHeader,
    ) -> Result<()> {
        let first = frame.first_offset.get();
        let end = first.saturating_add(frame.offset_count);
        let have = log.end();
        if end <= have {
            return Ok(());
        }
        let mut tail = log.intrude();
        let is_bridged = first <= have || self.bridge(log, &mut tail, first)?;
        let have = log.end();
        if !is_bridged || u64::from(frame.entry_count) != frame.offset_count {
            return Err(self.journal_damage(header, crate::rules::disagree(Structure::Commit, have, first)));
        }
        let mut rest = body;
        for _ in first..have {
            let view = lanterman_format::buffer::BufferView::parse(rest)
                .map_err(|rule| self.journal_damage(header, rule))?;
            let stored = usize::try_from(view.stored_bytes()).unwrap_or(usize::MAX);
            rest = rest.get(stored..).unwrap_or_default();
        }
        let count = end.saturating_sub(have);
        if self.make_room(log, &mut tail, rest.len() as u64, count)? == Room::NoMemory {
            return Err(Error::Internal {
                what: "replay takes memory without bound",
            });
        }
        let writer = tail.writer.as_mut().ok_or(Error::Internal {
            what: "room has a chunk",
        })?;
        writer.append_stored(rest, count).map_err(|_| {
            self.journal_damage(
                header,
                crate::rules::disagree(Structure::Commit, u64::from(frame.entry_count), count),
            )
        })
    }
}
