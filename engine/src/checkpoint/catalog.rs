//! The catalog of a checkpoint: pages with logs that changed, and runs of names where logs are new.

use std::sync::Arc;

use lanterman_format::block::BlockKind;
use lanterman_format::catalog::{
    CATALOG_ENTRIES_POSITION, CatalogEntry, CatalogEntryView, CatalogIndex, NO_LOG, PackedPage, page_of,
};
use lanterman_format::ids::LogId;
use lanterman_format::reference::Reference;
use lanterman_format::weakened;

use super::BlockSink;
use crate::core::Core;
use crate::error::{Error, Result};
use crate::keys::{KeyRun, KeyStream, KeyedPlace, MergedKeys, RunCursor, RunWriter};
use crate::listed::{ChangedPages, Listed, ListedPages, NameRuns, NewListing, NewNames, name_error};
use crate::tree::NodeWrites;

impl Core {
    /// Writes the pages of the catalog that changed, and the names of logs that are new.
    pub(super) fn write_listing(
        &self,
        sink: &mut BlockSink<'_>,
        entries: Vec<CatalogEntry>,
        dropped: &[LogId],
    ) -> Result<NewListing> {
        let mut changed = ChangedPages::default();
        entries.into_iter().for_each(|entry| changed.put(entry));
        dropped.iter().for_each(|log| changed.remove(*log));
        let before = self.catalog.listed();
        let mut listing = NewListing::behind(&before);
        let mut new_names = NewNames::default();
        for number in changed.numbers() {
            let known = before.page(number, &self.segments)?;
            let entries = changed.entries_of(number, known.as_deref());
            if entries.is_empty() {
                listing.remove(number);
                continue;
            }
            let (reference, page) = write_page(sink, number, &entries)?;
            let was_there = before.pages.get(number);
            let is_new = |log| !was_there.is_some_and(|page| page.told.has(log));
            let new = entries
                .iter()
                .filter(|entry| is_new(entry.log) && !weakened!("new-names-untold"));
            new.for_each(|entry| new_names.add(entry));
            listing.put(reference, page);
        }
        let names = match &before.names {
            Some(names) => names.clone(),
            None => {
                new_names = self.names_of_all(&before, &listing)?;
                NameRuns::default()
            }
        };
        let (names, bytes) = self.write_names(&names, new_names, &listing.pages)?;
        listing.names = names;
        sink.bytes = sink.bytes.saturating_add(bytes);
        Ok(listing)
    }

    /// The names of a checkpoint that has `pages`: those of the one before it with the new ones. Slabs are written, if there are
    /// any, but not the nodes over them. Also gives how many bytes were written.
    fn write_names(&self, before: &NameRuns, new: NewNames, pages: &ListedPages) -> Result<(NameRuns, u64)> {
        let named = pages.values().map(|page| u64::from(page.told.named));
        let (mut runs, joined) = before.split(new.count(), named.fold(0, u64::saturating_add));
        if new.count() == 0 && joined.is_empty() {
            return Ok((before.clone(), 0));
        }
        let entries = joined.iter().map(KeyRun::entries);
        let entries = entries.fold(new.count(), u64::saturating_add);
        let level = joined.iter().map(|run| run.level().saturating_add(1)).max();
        let old = joined
            .into_iter()
            .map(|run| KeyStream::Run(RunCursor::new(run, None)));
        let mut merged = MergedKeys::new(old.chain([new.sorted()]).collect());
        let mut bytes = 0u64;
        let mut write = |builder, count| {
            let (entry, histogram) = self.write_built(builder, count)?;
            let slab = entry.slab.as_ref().map_or(0, |slab| slab.reference().bytes.get());
            bytes = bytes.saturating_add(slab);
            Ok((entry, histogram))
        };
        let nodes = self.source.as_ref();
        let mut writer = RunWriter::new(NO_LOG, 0, entries, self.now_ms(), nodes, &mut write);
        let mut place = KeyedPlace::default();
        let counts = |log: LogId| pages.get(page_of(log)).is_some_and(|page| page.told.has(log));
        while merged
            .next(self.key_context(), &mut place)
            .map_err(|error| name_error(&self.segments, error))?
        {
            if counts(LogId::new(place.offset)) {
                writer.push(&place)?;
            }
        }
        runs.extend(writer.finish(0, self.catalog.next_log(), level.unwrap_or(0))?);
        Ok((NameRuns::of(runs), bytes))
    }

    /// The names of all logs of a store whose checkpoint did not tell them.
    fn names_of_all(&self, before: &Listed, listing: &NewListing) -> Result<NewNames> {
        let mut names = NewNames::default();
        for page in listing.pages.values() {
            let number = page.told.page;
            let written = listing.written.binary_search_by_key(&number, |page| page.page());
            let entries = match written.ok().and_then(|place| listing.written.get(place)) {
                Some(written) => Some(Arc::clone(written)),
                None => before.page(number, &self.segments)?,
            };
            let entries = entries.iter().flat_map(|page| page.entries());
            entries.for_each(|entry| names.add(&entry));
        }
        Ok(names)
    }
}

fn write_page(
    sink: &mut BlockSink<'_>,
    number: u64,
    entries: &[CatalogEntryView<'_>],
) -> Result<(Reference, PackedPage)> {
    let mut bytes = CATALOG_ENTRIES_POSITION;
    for entry in entries {
        let more = entry.encoded_bytes().map_err(|_| Error::Internal {
            what: "a catalog entry has a size",
        })?;
        bytes = bytes.saturating_add(more as usize);
    }
    let mut packed = None;
    let reference = sink.block(BlockKind::CatalogPage, bytes, |identity, out| {
        let (sealed, page) = PackedPage::encode(number, entries, identity, out)?;
        packed = Some(page);
        Ok(sealed)
    })?;
    let packed = packed.ok_or(Error::Internal {
        what: "a page that was written was encoded",
    })?;
    Ok((reference, packed))
}

/// What a checkpoint tells of its catalog; nodes over pages of names are written for it.
pub(super) fn index_of(
    listing: &NewListing,
    nodes: &mut NodeWrites,
    sink: &mut BlockSink<'_>,
) -> Result<CatalogIndex> {
    let mut index = CatalogIndex {
        pages: listing.pages.values().map(|page| page.told).collect(),
        names: Vec::new(),
    };
    for run in listing.names.runs() {
        let tree = run.pages().write_dirty(nodes, &mut |_, parts| sink.node(parts))?;
        index.names.push(run.told(tree));
    }
    Ok(index)
}
