//! What the newest checkpoint says: its catalog, as far as it is needed at once, and the logs that are made of it at once.

use std::sync::Arc;

use lanterman_format::Structure;
use lanterman_format::catalog::{CatalogEntryView, PageEntry, page_of};
use lanterman_format::checkpoint::Checkpoint;
use lanterman_format::ids::{ByteLength, Crc, Version};
use lanterman_format::reference::Reference;
use lanterman_format::root_slot::RootSlot;
use lanterman_format::settings::Settings;

use crate::catalog::Catalog;
use crate::dormant::{self, Dormant};
use crate::error::{Damage, Error, Result};
use crate::keys::KeyRun;
use crate::listed::{Listed, NameRuns, disagreement, name_error, read_block, read_page};
use crate::log::Root;
use crate::options::Options;
use crate::root_file::FoundSlots;
use crate::segment::SegmentTable;
use crate::source::{StoreSource, tree_error};

/// What the newest checkpoint says.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) version: Version,
    pub(crate) next_log: u64,
    pub(crate) last_commit_crc: Crc,
    /// Its catalog, with the pages kept that were read.
    pub(crate) listed: Listed,
    /// Pages of the catalog that cannot be read, whose logs nobody knows. A writer has none: what it wrote would leave
    /// them out for good.
    pub(crate) lost_pages: Vec<Damage>,
}

/// Which pages of the catalog are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReadPages {
    /// All; one that is damaged is an error.
    All,
    /// All that can be: the logs of the others are read.
    AllButLost,
    /// Those with logs for which something is to be done before anybody asks for them, and the one that new logs come to, so that no
    /// checkpoint fails for it; one of these that is damaged is an error. All if the checkpoint does not tell which they are.
    Needed,
}

/// Reads the checkpoint that a root slot names, and pages of its catalog.
pub(crate) fn load_checkpoint(
    table: &Arc<SegmentTable>,
    slot: &RootSlot,
    read_pages: ReadPages,
) -> Result<Loaded> {
    table.raise_next(slot.next_segment.get());
    if slot.checkpoint.is_empty() {
        return Ok(Loaded {
            version: slot.version,
            next_log: 1,
            last_commit_crc: Crc::ZERO,
            listed: Listed::empty(),
            lost_pages: Vec::new(),
        });
    }
    let checkpoint = read_block(table, &slot.checkpoint, |bytes, place| {
        Checkpoint::decode(&bytes, place)
    })?;
    check_agreement(table, slot, &checkpoint)?;
    let (listed, lost_pages) = load_pages(table, &checkpoint, read_pages)?;
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
        listed,
        lost_pages,
    })
}

fn load_pages(
    table: &SegmentTable,
    checkpoint: &Checkpoint,
    read_pages: ReadPages,
) -> Result<(Listed, Vec<Damage>)> {
    let mut listed = Listed::default();
    let mut lost = Vec::new();
    let mut least = 0;
    let told = checkpoint.index.as_ref().map(|index| index.pages.as_slice());
    for (number, reference) in checkpoint.pages.iter().enumerate() {
        let told = told.and_then(|told| told.get(number));
        let is_wanted = |told: &&PageEntry| told.needed || told.page == page_of(checkpoint.next_log);
        if let (ReadPages::Needed, Some(told)) = (read_pages, told.filter(|told| !is_wanted(told))) {
            listed.add(*reference, *told);
            continue;
        }
        let page = match read_page(table, reference, told) {
            Ok(page) => page,
            Err(Error::Damaged(damage)) if read_pages == ReadPages::AllButLost => {
                tracing::error!(%damage, "a page of the catalog cannot be read; its logs are unknown");
                lost.push(*damage);
                continue;
            }
            Err(error) => return Err(error),
        };
        // Two pages of one number would let the later one hide the earlier.
        if page.page() < least {
            let structure = Structure::CatalogPage;
            return Err(disagreement(table, reference, structure, least, page.page()));
        }
        least = page.page().saturating_add(1);
        listed.add(*reference, told.copied().unwrap_or_else(|| page.told()));
        listed.keep(page);
    }
    if let Some(index) = &checkpoint.index {
        let names = NameRuns::stored(&index.names);
        listed.names = Some(names.map_err(|error| name_error(table, error.into()))?);
    }
    Ok((listed, lost))
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
    read_pages: ReadPages,
) -> Result<Chosen<'a>> {
    let older = slots.older_than(newest);
    // Of two checkpoints the newer one is to be whole.
    let first_try = match older {
        Some(_) => ReadPages::All,
        None => read_pages,
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
    match load_checkpoint(table, slot, read_pages) {
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

/// Which logs of a checkpoint are made at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Make {
    All,
    /// Those of which something is to be done before anybody asks for them; the catalog has the others as dormant ones.
    Needed,
}

/// What of the catalog is read, and made, when a store is opened.
pub(crate) fn wanted_of_catalog(options: &Options) -> (ReadPages, Make) {
    // A reader jumps to newer checkpoints, and a history makes points of all logs.
    match (options.read_only, options.history.is_some()) {
        (true, _) => (ReadPages::AllButLost, Make::All),
        (false, true) => (ReadPages::All, Make::All),
        (false, false) => (ReadPages::Needed, Make::Needed),
    }
}

/// The catalog of a checkpoint, with those of its logs made that are to be made at once.
///
/// # Errors
/// As of [`restore_logs`].
pub(crate) fn restored_catalog(
    loaded: &Loaded,
    make: Make,
    read_only: bool,
    source: &Arc<StoreSource>,
) -> Result<Catalog> {
    let listed = match read_only {
        // No page is written anew here, and nothing is collected.
        true => Listed::default(),
        false => loaded.listed.clone(),
    };
    // Without names that lead to logs all are made.
    let make = match loaded.listed.names {
        Some(_) => make,
        None => Make::All,
    };
    let dormant = match make {
        Make::All => Dormant::none(listed),
        Make::Needed => Dormant::all(listed),
    };
    let (version, lost_pages) = (loaded.version, loaded.lost_pages.clone());
    let catalog = Catalog::new(version, loaded.next_log, lost_pages, dormant, Arc::clone(source));
    restore_logs(source.segments(), &catalog, &loaded.listed, make)?;
    Ok(catalog)
}

/// Makes logs of a checkpoint.
///
/// # Errors
/// [`Error::Damaged`] for an entry that contradicts itself, or one whose name another log has.
pub(crate) fn restore_logs(
    table: &SegmentTable,
    catalog: &Catalog,
    listed: &Listed,
    make: Make,
) -> Result<()> {
    for page in listed.kept() {
        if let Some(last) = page.last() {
            catalog.raise_next_log(last.get().saturating_add(1));
        }
        let made = page.entries();
        made.filter(|entry| make == Make::All || entry.is_needed())
            .try_for_each(|entry| restore_log(table, catalog, listed, &entry))?;
    }
    Ok(())
}

fn restore_log(
    table: &SegmentTable,
    catalog: &Catalog,
    listed: &Listed,
    entry: &CatalogEntryView<'_>,
) -> Result<()> {
    let failed = |error| tree_error(table, entry.name, entry.start_offset.get(), error);
    let disagrees = |expected, found| {
        let page = listed.pages.get(page_of(entry.log));
        let page = page.map_or(&Reference::EMPTY, |page| &page.reference);
        disagreement(table, page, Structure::CatalogPage, expected, found)
    };
    let settings = Settings::decode(entry.settings).ok();
    let settings = settings.filter(|settings| settings.snapshot.is_some() == entry.is_snapshot());
    let mut settings = settings.ok_or_else(|| disagrees(u64::from(entry.flags), entry.log.get()))?;
    // One name for two logs would let the later one hide the earlier.
    if !entry.is_snapshot() && catalog.has_other(entry.name, entry.log) {
        return Err(disagrees(0, entry.log.get()));
    }
    let runs = std::mem::take(&mut settings.key_runs);
    let runs = runs.iter().map(KeyRun::stored).collect::<Result<_, _>>();
    let root = Root {
        keys: runs.map_err(failed)?,
        ..dormant::root_of(entry).map_err(failed)?
    };
    catalog.restore_entry(entry, root, settings);
    Ok(())
}
