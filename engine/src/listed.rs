//! What the pages of the newest checkpoint's catalog say, kept for the next checkpoint and for the collection.
//!
//! A page is written anew when one of its logs changed, with all the others on it; and what it refers to is not garbage.

use std::collections::BTreeMap;
use std::sync::Arc;

use lanterman_format::catalog::{CatalogEntry, CatalogEntryView, PackedPage, page_of};
use lanterman_format::ids::LogId;
use lanterman_format::weakened;

/// Pages by their numbers.
pub(crate) type ListedPages = BTreeMap<u64, Arc<PackedPage>>;

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

    /// The pages with all their entries, both in their order.
    pub(crate) fn pages<'a>(
        &'a self,
        kept: &'a ListedPages,
    ) -> impl Iterator<Item = (u64, Vec<CatalogEntryView<'a>>)> {
        let pages = self.pages.iter();
        pages.map(|(page, changes)| {
            let known = kept.get(page).into_iter().flat_map(|page| page.entries());
            let stays = known.filter(|entry| {
                !changes.contains_key(&entry.log.get()) && !weakened!("unchanged-logs-left-out")
            });
            let new = changes.values().flatten().map(CatalogEntry::view);
            let mut entries: Vec<_> = stays.chain(new).collect();
            // Two runs, which a stable sort merges.
            entries.sort_by_key(|entry| entry.log);
            (*page, entries)
        })
    }
}
