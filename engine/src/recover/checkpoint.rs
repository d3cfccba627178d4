//! What the newest checkpoint says: its catalog, page by page, and the logs that are made of it at once.

use std::collections::BTreeMap;
use std::sync::Arc;

use lanterman_format::Structure;
use lanterman_format::block::Place;
use lanterman_format::catalog::{CatalogEntryView, PackedPage, page_of};
use lanterman_format::checkpoint::Checkpoint;
use lanterman_format::error::Found;
use lanterman_format::ids::{ByteLength, Crc, LogId, Version};
use lanterman_format::reference::Reference;
use lanterman_format::root_slot::RootSlot;
use lanterman_format::segment::SegmentKind;
use lanterman_format::settings::Settings;

use crate::catalog::Catalog;
use crate::dormant::{self, Dormant, FoundLogs};
use crate::error::{Damage, Error, Result};
use crate::keys::KeyRun;
use crate::listed::ListedPages;
use crate::log::Root;
use crate::root_file::FoundSlots;
use crate::segment::SegmentTable;
use crate::source::tree_error;
use crate::tree::Tree;

/// A checkpoint writes its nodes, its pages of the catalog and its own block one behind the other, mostly in so many bytes; all
/// are needed to open the store and its writers.
const WRITTEN_BEFORE_BYTES: u64 = 64 << 10;

/// What the newest checkpoint says.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) version: Version,
    pub(crate) next_log: u64,
    pub(crate) last_commit_crc: Crc,
    /// Where the pages of the catalog are, by their numbers.
    pub(crate) pages: BTreeMap<u64, Reference>,
    /// What they say.
    pub(crate) entries: ListedPages,
    /// Their logs that need not be made.
    pub(crate) dormant: Dormant,
    /// The others, by rising ids.
    pub(crate) needed: Vec<LogId>,
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
            dormant: Dormant::default(),
            needed: Vec::new(),
            lost_pages: Vec::new(),
        });
    }
    let checkpoint = read_block(table, &slot.checkpoint, |bytes, place| {
        Checkpoint::decode(&bytes, place)
    })?;
    check_agreement(table, slot, &checkpoint)?;
    let Pages {
        places,
        entries,
        dormant,
        needed,
        lost,
    } = load_pages(table, &checkpoint.pages, lost_pages)?;
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
        pages: places,
        entries,
        dormant,
        needed,
        lost_pages: lost,
    })
}

/// The pages of a catalog.
struct Pages {
    places: BTreeMap<u64, Reference>,
    entries: ListedPages,
    dormant: Dormant,
    needed: Vec<LogId>,
    lost: Vec<Damage>,
}

fn load_pages(table: &SegmentTable, references: &[Reference], lost_pages: LostPages) -> Result<Pages> {
    let mut places: BTreeMap<u64, Reference> = BTreeMap::new();
    let mut entries = ListedPages::new();
    let mut lost = Vec::new();
    let mut found = FoundLogs::default();
    for reference in references {
        let before = found.counts();
        let mut broken = None;
        let read = read_block(table, reference, |bytes, place| {
            PackedPage::decode(bytes, place, |entry| {
                found.note(entry);
                if let Err(error) = check_pieces(table, reference, entry) {
                    broken.get_or_insert(error);
                }
            })
        });
        let page = match read {
            Ok(page) => page,
            Err(Error::Damaged(damage)) if lost_pages == LostPages::Allowed => {
                tracing::error!(%damage, "a page of the catalog cannot be read; its logs are unknown");
                lost.push(*damage);
                found.go_back(before);
                continue;
            }
            Err(error) => return Err(error),
        };
        // Two pages of one number would let the later one hide the earlier.
        let rises = places
            .last_key_value()
            .is_none_or(|(last, _)| *last < page.page());
        if !rises {
            return Err(disagreement(
                table,
                reference,
                Structure::CatalogPage,
                0,
                page.page(),
            ));
        }
        broken.map_or(Ok(()), Err)?;
        places.insert(page.page(), *reference);
        entries.insert(page.page(), Arc::new(page));
    }
    // As would one name for two logs.
    let (dormant, needed) = found.sorted(&entries).map_err(|log| {
        let page = places.get(&page_of(log)).unwrap_or(&Reference::EMPTY);
        disagreement(table, page, Structure::CatalogPage, 0, log.get())
    })?;
    Ok(Pages {
        places,
        entries,
        dormant,
        needed,
        lost,
    })
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
    decode: impl FnOnce(Vec<u8>, &Place) -> Found<T>,
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
        _ => match decode(bytes, &place) {
            Found::Valid(value) => return Ok(value),
            Found::Empty => crate::rules::empty(Structure::Checkpoint),
            Found::Invalid(rule) => rule,
        },
    };
    Err(segment.damaged(position, bytes_wanted, rule))
}

/// Which logs of a checkpoint are made at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Make {
    All,
    /// Those of which something is to be done before anybody asks for them; the catalog has the others as dormant ones.
    Needed,
}

/// Makes logs of a checkpoint.
pub(crate) fn restore_logs(
    table: &SegmentTable,
    catalog: &Catalog,
    loaded: &Loaded,
    make: Make,
) -> Result<()> {
    let last = loaded.entries.values().filter_map(|page| page.last());
    last.for_each(|log| catalog.raise_next_log(log.get().saturating_add(1)));
    let restore = |entry| restore_log(table, catalog, loaded, &entry);
    match make {
        Make::All => loaded
            .entries
            .values()
            .flat_map(|page| page.entries())
            .try_for_each(restore),
        Make::Needed => {
            let entry_of = |log: &LogId| loaded.entries.get(&page_of(*log))?.find(*log);
            loaded.needed.iter().filter_map(entry_of).try_for_each(restore)
        }
    }
}

fn restore_log(
    table: &SegmentTable,
    catalog: &Catalog,
    loaded: &Loaded,
    entry: &CatalogEntryView<'_>,
) -> Result<()> {
    let failed = |error| tree_error(table, entry.name, entry.start_offset.get(), error);
    let settings = Settings::decode(entry.settings).ok();
    let settings = settings.filter(|settings| settings.snapshot.is_some() == entry.is_snapshot());
    let mut settings = settings.ok_or_else(|| {
        let page = loaded.pages.get(&page_of(entry.log)).unwrap_or(&Reference::EMPTY);
        let (flags, log) = (u64::from(entry.flags), entry.log.get());
        disagreement(table, page, Structure::CatalogPage, flags, log)
    })?;
    let runs = std::mem::take(&mut settings.key_runs);
    let runs = runs.iter().map(KeyRun::stored).collect::<Result<_, _>>();
    let root = Root {
        keys: runs.map_err(failed)?,
        ..dormant::root_of(entry).map_err(failed)?
    };
    catalog.restore_entry(entry, root, settings);
    Ok(())
}

/// Whether tree and tail together hold the log to its end: what neither holds would be missing without a word.
fn check_pieces(table: &SegmentTable, page: &Reference, entry: &CatalogEntryView<'_>) -> Result<()> {
    let (end, tree_end) = (entry.end_offset.get(), entry.tree_end.get());
    if entry.tail.is_empty() != (tree_end == end) || entry.start_offset > entry.tree_end {
        return Err(disagreement(table, page, Structure::CatalogPage, end, tree_end));
    }
    let failed = |error| tree_error(table, entry.name, entry.start_offset.get(), error);
    let offsets = tree_end.saturating_sub(entry.start_offset.get());
    Tree::check_reference(&entry.tree, offsets).map_err(failed)
}
