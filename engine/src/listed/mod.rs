//! The catalog as the newest checkpoint has it: where its pages are, which logs are on each, and by which names they are found.
//!
//! A page is read when something on it is asked for, and kept if a log of it is made: it is written anew when one of its logs
//! changes, with all the others on it, and then nothing is to depend on a disk that reads.

mod names;
mod read;

use std::collections::BTreeMap;
use std::sync::Arc;

use lanterman_format::catalog::{CatalogEntry, CatalogEntryView, PackedPage, PageEntry, page_of};
use lanterman_format::ids::LogId;
use lanterman_format::reference::Reference;
use lanterman_format::weakened;

use crate::error::Result;
use crate::number_map::NumberMap;
use crate::segment::SegmentTable;

pub(crate) use names::{NameRuns, NewNames, name_error};
pub(crate) use read::{disagreement, read_block, read_page};

/// A page on the disk.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ListedPage {
    pub(crate) reference: Reference,
    pub(crate) told: PageEntry,
}

/// Pages by their numbers.
pub(crate) type ListedPages = NumberMap<ListedPage>;

/// The newest checkpoint's catalog; cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Listed {
    pub(crate) pages: ListedPages,
    /// What pages say of which logs were made.
    kept: NumberMap<Arc<PackedPage>>,
    /// Nothing if the checkpoint is one from before names were told.
    pub(crate) names: Option<NameRuns>,
}

impl Listed {
    /// The catalog of a store that has none.
    pub(crate) fn empty() -> Self {
        Listed {
            names: Some(NameRuns::default()),
            ..Listed::default()
        }
    }

    /// Adds a page.
    pub(crate) fn add(&mut self, reference: Reference, told: PageEntry) {
        self.pages.insert(told.page, ListedPage { reference, told });
    }

    /// What pages say that are kept, by rising numbers.
    pub(crate) fn kept(&self) -> impl Iterator<Item = &Arc<PackedPage>> {
        self.kept.values()
    }

    /// Keeps what a page says.
    pub(crate) fn keep(&mut self, page: Arc<PackedPage>) {
        self.kept.insert(page.page(), page);
    }

    /// What a page says, read if it is not kept; nothing if there is none of that number.
    ///
    /// # Errors
    /// As of reading it; [`Error::Damaged`](crate::Error::Damaged) also if it says something else than the checkpoint.
    pub(crate) fn page(&self, number: u64, table: &SegmentTable) -> Result<Option<Arc<PackedPage>>> {
        if let Some(kept) = self.kept.get(number) {
            return Ok(Some(Arc::clone(kept)));
        }
        let read = |page: &ListedPage| read_page(table, &page.reference, Some(&page.told));
        self.pages.get(number).map(read).transpose()
    }

    /// A checkpoint was made.
    pub(crate) fn renew(&mut self, listing: NewListing) {
        let gone = listing.emptied.into_iter();
        gone.for_each(|page| self.kept.remove(page));
        listing.written.into_iter().for_each(|page| self.keep(page));
        self.pages = listing.pages;
        self.names = Some(listing.names);
    }

    /// Lets go of what was loaded to find names.
    pub(crate) fn trim(&mut self) {
        self.names = self.names.as_ref().map(NameRuns::trimmed);
    }
}

/// The catalog of a checkpoint that is being made.
#[derive(Debug, Default)]
pub(crate) struct NewListing {
    pub(crate) pages: ListedPages,
    /// Pages that were written for it, by rising numbers.
    pub(crate) written: Vec<Arc<PackedPage>>,
    /// Pages that have no log any more.
    emptied: Vec<u64>,
    pub(crate) names: NameRuns,
}

impl NewListing {
    /// With the pages of the checkpoint before it.
    pub(crate) fn behind(before: &Listed) -> Self {
        NewListing {
            pages: before.pages.clone(),
            ..NewListing::default()
        }
    }

    /// Puts a page that was written in the place of the one before.
    pub(crate) fn put(&mut self, reference: Reference, page: PackedPage) {
        let told = page.told();
        self.pages.insert(told.page, ListedPage { reference, told });
        self.written.push(Arc::new(page));
    }

    /// Takes out a page that has no log any more.
    pub(crate) fn remove(&mut self, page: u64) {
        self.pages.remove(page);
        self.emptied.push(page);
    }
}

/// What changes of some pages: entries that are put there, and those that go.
#[derive(Debug, Default)]
pub(crate) struct ChangedPages {
    pages: BTreeMap<u64, BTreeMap<u64, Option<CatalogEntry>>>,
}

impl ChangedPages {
    /// Puts an entry in the place of the one that is kept of its log, if any.
    pub(crate) fn put(&mut self, entry: CatalogEntry) {
        let page = self.pages.entry(page_of(entry.log)).or_default();
        page.insert(entry.log.get(), Some(entry));
    }

    /// Takes a log out of its page.
    pub(crate) fn remove(&mut self, log: LogId) {
        let page = self.pages.entry(page_of(log)).or_default();
        page.insert(log.get(), None);
    }

    /// The numbers of the pages, rising.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = u64> {
        self.pages.keys().copied()
    }

    /// All entries that a page has from now on, in their order; `known` is what it said before.
    pub(crate) fn entries_of<'a>(
        &'a self,
        page: u64,
        known: Option<&'a PackedPage>,
    ) -> Vec<CatalogEntryView<'a>> {
        let changes = self.pages.get(&page);
        let is_changed = |log: LogId| changes.is_some_and(|changes| changes.contains_key(&log.get()));
        let known = known.into_iter().flat_map(PackedPage::entries);
        let stays = known.filter(|entry| !is_changed(entry.log) && !weakened!("unchanged-logs-left-out"));
        let new = changes.into_iter().flat_map(BTreeMap::values).flatten();
        let mut entries: Vec<_> = stays.chain(new.map(CatalogEntry::view)).collect();
        // Two runs, which a stable sort merges.
        entries.sort_by_key(|entry| entry.log);
        entries
    }
}
