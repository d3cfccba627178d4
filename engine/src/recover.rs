//! From files to an open store: the newest checkpoint, then the journal from there.
//!
//! The work is bounded by the catalog and the journal: of the slabs themselves nothing is read but those that no sync came
//! before. Nothing is written; so opening works on a full disk too. A writer syncs each file before it reads it, and reads
//! what the device has: decision 5 says why the page cache cannot be believed after a failed sync.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use lanterman_format::Structure;
use lanterman_format::block::{BlockHeader, Place};
use lanterman_format::catalog::{CATALOG_FLAG_SNAPSHOT, CatalogEntry, decode_page, page_of};
use lanterman_format::checkpoint::Checkpoint;
use lanterman_format::commit::{Change, CommitView, FrameDescription, SlabAdoption};
use lanterman_format::error::{FormatError, Found};
use lanterman_format::ids::{ByteLength, Crc, Version};
use lanterman_format::key_sketch::KeySketch;
use lanterman_format::name::LogName;
use lanterman_format::reference::Reference;
use lanterman_format::root_slot::RootSlot;
use lanterman_format::segment::SegmentKind;
use lanterman_format::settings::Settings;
use lanterman_format::summary::{Histogram32, Summary};
use lanterman_format::weakened;

use crate::catalog::Catalog;
use crate::core::Core;
use crate::error::{Damage, Error, Result};
use crate::few::Few;
use crate::journal::replay::{SLABS_AHEAD_MAX, Scan, Step};
use crate::keys::KeyRun;
use crate::log::{LogState, Persisted, Root, TailSlab};
use crate::memory::Room;
use crate::root_file::FoundSlots;
use crate::segment::SegmentTable;
use crate::slab::SlabHandle;
use crate::source::tree_error;
use crate::tree::{SlabEntry, Tree};

/// A checkpoint writes its nodes, its pages of the catalog and its own block one behind the other, mostly in so many bytes; all
/// are needed to open the store and its writers.
const WRITTEN_BEFORE_BYTES: u64 = 64 << 10;

/// What the newest checkpoint says.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) version: Version,
    pub(crate) next_log: u64,
    pub(crate) last_commit_crc: Crc,
    pub(crate) pages: BTreeMap<u64, Reference>,
    pub(crate) entries: BTreeMap<u64, Vec<CatalogEntry>>,
    /// Pages of the catalog that cannot be read, whose logs nobody knows. A writer has none: what it wrote would leave
    /// them out for good.
    pub(crate) lost_pages: Vec<Damage>,
}

/// What becomes of a store whose catalog has a damaged page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LostPages {
    /// The logs of the other pages are read.
    Allowed,
    /// It is refused.
    Refused,
}

/// Reads the checkpoint that a root slot names, and its catalog.
pub(crate) fn load_checkpoint(
    table: &Arc<SegmentTable>,
    slot: &RootSlot,
    lost_pages: LostPages,
) -> Result<Loaded> {
    table.raise_next(slot.next_segment.get());
    if slot.checkpoint.is_empty() {
        return Ok(Loaded {
            version: slot.version,
            next_log: 1,
            last_commit_crc: Crc::ZERO,
            pages: BTreeMap::new(),
            entries: BTreeMap::new(),
            lost_pages: Vec::new(),
        });
    }
    let checkpoint = read_block(table, &slot.checkpoint, Checkpoint::decode)?;
    check_agreement(table, slot, &checkpoint)?;
    let mut pages: BTreeMap<u64, Reference> = BTreeMap::new();
    let mut entries: BTreeMap<u64, Vec<CatalogEntry>> = BTreeMap::new();
    let mut lost = Vec::new();
    let mut names: HashSet<LogName> = HashSet::new();
    for reference in &checkpoint.pages {
        let page = match read_block(table, reference, decode_page) {
            Ok(page) => page,
            Err(Error::Damaged(damage)) if lost_pages == LostPages::Allowed => {
                tracing::error!(%damage, "a page of the catalog cannot be read; its logs are unknown");
                lost.push(*damage);
                continue;
            }
            Err(error) => return Err(error),
        };
        // Two pages of one number, or one name for two logs, would let the later one hide the earlier.
        let rises = pages.last_key_value().is_none_or(|(last, _)| *last < page.page);
        let known = page
            .entries
            .iter()
            .find(|entry| !is_snapshot(entry) && !names.insert(entry.name.clone()));
        if !rises || known.is_some() {
            let log = known.map_or(page.page, |entry| entry.log.get());
            return Err(disagreement(table, reference, Structure::CatalogPage, 0, log));
        }
        pages.insert(page.page, *reference);
        entries.insert(page.page, page.entries);
    }
    let end = slot
        .checkpoint
        .position
        .get()
        .saturating_add(slot.checkpoint.bytes.get());
    for segment in &checkpoint.segments {
        let mut known = *segment;
        if known.segment == slot.checkpoint.segment {
            known.used_bytes = known.used_bytes.max(ByteLength::new(end));
        }
        table.know_slabs(known);
    }
    // Where the checkpoint's own block opened a new segment, its list was written before that segment was there.
    table.note_used(&slot.checkpoint);
    Ok(Loaded {
        version: checkpoint.version,
        next_log: checkpoint.next_log.get(),
        last_commit_crc: checkpoint.last_commit_crc,
        pages,
        entries,
        lost_pages: lost,
    })
}

/// Whether an entry of the catalog is a named snapshot, which bears the name of its log.
fn is_snapshot(entry: &CatalogEntry) -> bool {
    entry.flags & CATALOG_FLAG_SNAPSHOT != 0
}

/// The checkpoint that a store is opened from.
pub(crate) struct Chosen<'a> {
    pub(crate) slot: &'a RootSlot,
    pub(crate) loaded: Loaded,
    /// What is wrong with the newer one, if this is the older.
    pub(crate) instead_of: Option<Error>,
}

/// The newest checkpoint; or the older one, if the newest is damaged and the slots name two. They do so only when a crash
/// came between the writing of the two, and then the journal of the older one is still there: it leads to the same
/// versions by a longer way.
pub(crate) fn choose_checkpoint<'a>(
    table: &Arc<SegmentTable>,
    slots: &'a FoundSlots,
    newest: &'a RootSlot,
    read_only: bool,
) -> Result<Chosen<'a>> {
    let lost_pages = if read_only {
        LostPages::Allowed
    } else {
        LostPages::Refused
    };
    let older = slots.older_than(newest);
    let first_try = match older {
        Some(_) => LostPages::Refused,
        None => lost_pages,
    };
    let error = match load_checkpoint(table, newest, first_try) {
        Err(error @ Error::Damaged(_)) => error,
        loaded => {
            return Ok(Chosen {
                slot: newest,
                loaded: loaded?,
                instead_of: None,
            });
        }
    };
    let Some(slot) = older else { return Err(error) };
    tracing::error!(%error, "the newest checkpoint cannot be read; the one before it is tried");
    match load_checkpoint(table, slot, lost_pages) {
        Ok(loaded) => Ok(Chosen {
            slot,
            loaded,
            instead_of: Some(error),
        }),
        Err(_) => Err(error),
    }
}

/// A root slot and its checkpoint say the same of the version and of the journal's place; that of a checkpoint that is
/// whole and says otherwise was not written by this slot.
fn check_agreement(table: &SegmentTable, slot: &RootSlot, checkpoint: &Checkpoint) -> Result<()> {
    let pairs = [
        (slot.version.get(), checkpoint.version.get()),
        (slot.journal_segment.get(), checkpoint.journal_segment.get()),
        (slot.journal_position.get(), checkpoint.journal_position.get()),
    ];
    match pairs.into_iter().find(|(wanted, found)| wanted != found) {
        Some((wanted, found)) => {
            let structure = Structure::Checkpoint;
            Err(disagreement(table, &slot.checkpoint, structure, wanted, found))
        }
        None => Ok(()),
    }
}

/// Damage of a block that is whole and contradicts another one.
fn disagreement(
    table: &SegmentTable,
    reference: &Reference,
    structure: Structure,
    expected: u64,
    found: u64,
) -> Error {
    Error::Damaged(Box::new(Damage {
        path: table.path_of(reference.segment, SegmentKind::Slabs),
        segment: Some(reference.segment),
        position: reference.position,
        bytes: reference.bytes.get(),
        log: None,
        offsets: None,
        source: crate::rules::disagree(structure, expected, found),
    }))
}

/// Reads and decodes one block of a checkpoint; what does not decode is damage that names the place.
fn read_block<T>(
    table: &SegmentTable,
    reference: &Reference,
    decode: impl FnOnce(&[u8], &Place) -> Found<T>,
) -> Result<T> {
    let bytes_wanted = reference.bytes.get();
    let position = reference.position.get();
    let near = position.saturating_sub(WRITTEN_BEFORE_BYTES)..position.saturating_add(bytes_wanted);
    let segment = table.get_to_read(reference.segment, SegmentKind::Slabs, near)?;
    let fits = position
        .checked_add(bytes_wanted)
        .is_some_and(|end| end <= segment.bytes);
    if !fits || segment.generation != reference.generation {
        let rule = crate::rules::truncated(
            Structure::Checkpoint,
            bytes_wanted,
            segment.bytes.saturating_sub(position),
        );
        return Err(segment.damaged(position, bytes_wanted, rule));
    }
    // The segment's true length bounds the allocation.
    let mut bytes = vec![0u8; usize::try_from(bytes_wanted).unwrap_or(0)];
    segment.read_exact(position, &mut bytes)?;
    let place = Place {
        store: table.store(),
        segment: reference.segment,
        generation: reference.generation,
        position: reference.position,
    };
    let rule = match lanterman_format::block::decode_block_header(&bytes, &place) {
        Found::Valid(header) if header.header_crc != reference.header_crc => crate::rules::misplaced(
            Structure::Checkpoint,
            u64::from(reference.header_crc.get()),
            u64::from(header.header_crc.get()),
        ),
        _ => match decode(&bytes, &place) {
            Found::Valid(value) => return Ok(value),
            Found::Empty => crate::rules::empty(Structure::Checkpoint),
            Found::Invalid(rule) => rule,
        },
    };
    Err(segment.damaged(position, bytes_wanted, rule))
}

/// Makes the logs of a checkpoint.
pub(crate) fn restore_logs(table: &SegmentTable, catalog: &Catalog, loaded: &Loaded) -> Result<()> {
    for entry in loaded.entries.values().flatten() {
        let mut root = root_of(table, loaded, entry)?;
        let end = root.end();
        let settings = Settings::decode(&entry.settings).ok();
        let settings = settings.filter(|settings| settings.snapshot.is_some() == is_snapshot(entry));
        let mut settings = settings.ok_or_else(|| {
            let page = loaded.pages.get(&page_of(entry.log)).unwrap_or(&Reference::EMPTY);
            disagreement(
                table,
                page,
                Structure::CatalogPage,
                u64::from(entry.flags),
                entry.log.get(),
            )
        })?;
        let runs = std::mem::take(&mut settings.key_runs);
        root.keys = runs
            .iter()
            .map(KeyRun::stored)
            .collect::<Result<_, _>>()
            .map_err(|error| tree_error(table, entry.name.as_str(), root.start, error))?;
        if let Some(known) = catalog.by_id(entry.log.get()) {
            // A reader that jumps to a newer checkpoint: whoever holds the log goes on with the same one.
            catalog.found_again(entry.log);
            known.replace_root(root);
            known.set_settings(settings);
            catalog.restore(known, end, entry.created_version, entry.modified_version);
            continue;
        }
        let log = LogState::new(entry.log, entry.name.clone(), root, settings);
        log.set_created();
        let Root { tail, edits, .. } = log.root();
        *log.persisted.lock() = Persisted { end, edits, tail };
        catalog.restore(Arc::new(log), end, entry.created_version, entry.modified_version);
    }
    Ok(())
}

fn root_of(table: &SegmentTable, loaded: &Loaded, entry: &CatalogEntry) -> Result<Root> {
    let (start, tree_end, end) = (
        entry.start_offset.get(),
        entry.tree_end.get(),
        entry.end_offset.get(),
    );
    // Tree and tail together hold the log to its end; what neither holds would be missing without a word.
    if entry.tail.is_empty() != (tree_end == end) || start > tree_end {
        let page = loaded.pages.get(&page_of(entry.log)).unwrap_or(&Reference::EMPTY);
        return Err(disagreement(table, page, Structure::CatalogPage, end, tree_end));
    }
    let tree = Tree::from_reference(entry.tree, tree_end.saturating_sub(start), None)
        .map_err(|error| tree_error(table, entry.name.as_str(), start, error))?;
    let tail = (!entry.tail.is_empty()).then(|| TailSlab {
        slab: Arc::new(SlabHandle::new(entry.tail)),
        first: tree_end,
        count: end.saturating_sub(tree_end),
        skip: 0,
    });
    Ok(Root {
        start,
        tree,
        tree_end,
        chunks: Few::default(),
        tail,
        pending: Few::default(),
        masks: Few::default(),
        keys: Few::default(),
        edits: 0,
        generation: 0,
    })
}

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
