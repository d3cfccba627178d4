//! What the pages of the newest checkpoint's catalog say, kept for the next checkpoint and for the collection.
//!
//! A page is written anew when one of its logs changed, with all the others on it; and what it refers to is not garbage. So
//! every log of the store is kept here once more, most of which nobody touches: what there is of them is as small as it can be.

use std::collections::BTreeMap;
use std::sync::Arc;

use lanterman_format::catalog::{CatalogEntry, page_of};
use lanterman_format::ids::{LogId, Offset, Version};
use lanterman_format::name::LogName;
use lanterman_format::reference::Reference;

use crate::slab::SlabHandle;

/// An entry of the catalog, without room for what it does not have.
#[derive(Debug)]
pub(crate) struct Listed {
    log: LogId,
    flags: u32,
    name: LogName,
    start_offset: Offset,
    end_offset: Offset,
    tree_end: Offset,
    created_version: Version,
    modified_version: Version,
    tree: Option<Box<Reference>>,
    /// The handle that the log has too.
    tail: Option<Arc<SlabHandle>>,
    settings: Box<[u8]>,
}

/// The entries of one page, by rising ids.
pub(crate) type ListedPage = Box<[Listed]>;

/// Entries by page.
pub(crate) type ListedPages = BTreeMap<u64, ListedPage>;

impl Listed {
    /// Keeps an entry; `tail` is its tail slab, if it has one and somebody has a handle of it.
    pub(crate) fn new(entry: CatalogEntry, tail: Option<Arc<SlabHandle>>) -> Self {
        let tail = tail.filter(|tail| *tail.reference() == entry.tail);
        let own = || (!entry.tail.is_empty()).then(|| Arc::new(SlabHandle::new(entry.tail)));
        Listed {
            log: entry.log,
            flags: entry.flags,
            name: entry.name,
            start_offset: entry.start_offset,
            end_offset: entry.end_offset,
            tree_end: entry.tree_end,
            created_version: entry.created_version,
            modified_version: entry.modified_version,
            tree: (!entry.tree.is_empty()).then(|| Box::new(entry.tree)),
            tail: tail.or_else(own),
            settings: entry.settings.into_boxed_slice(),
        }
    }

    /// The entry as it was.
    pub(crate) fn entry(&self) -> CatalogEntry {
        CatalogEntry {
            log: self.log,
            flags: self.flags,
            name: self.name.clone(),
            start_offset: self.start_offset,
            end_offset: self.end_offset,
            tree_end: self.tree_end,
            created_version: self.created_version,
            modified_version: self.modified_version,
            tree: self.tree.as_deref().copied().unwrap_or(Reference::EMPTY),
            tail: self
                .tail
                .as_ref()
                .map_or(Reference::EMPTY, |tail| *tail.reference()),
            settings: self.settings.to_vec(),
        }
    }
}

/// Keeps the entries of a page; `tail_of` tells the tail slab of a log.
fn listed(
    entries: impl IntoIterator<Item = CatalogEntry>,
    tail_of: &impl Fn(LogId) -> Option<Arc<SlabHandle>>,
) -> ListedPage {
    let entries = entries.into_iter();
    entries
        .map(|entry| {
            let tail = tail_of(entry.log);
            Listed::new(entry, tail)
        })
        .collect()
}

/// Keeps the pages of a checkpoint that was read; `tail_of` tells the tail slab of a log.
pub(crate) fn list(
    pages: BTreeMap<u64, Vec<CatalogEntry>>,
    tail_of: impl Fn(LogId) -> Option<Arc<SlabHandle>>,
) -> ListedPages {
    let pages = pages.into_iter();
    pages
        .map(|(page, entries)| (page, listed(entries, &tail_of)))
        .collect()
}

/// Pages that change: each begins with all that is kept of it.
#[derive(Debug, Default)]
pub(crate) struct ChangedPages {
    pages: BTreeMap<u64, BTreeMap<u64, CatalogEntry>>,
}

impl ChangedPages {
    fn page(&mut self, kept: &ListedPages, log: LogId) -> &mut BTreeMap<u64, CatalogEntry> {
        let page = page_of(log);
        self.pages.entry(page).or_insert_with(|| {
            let known = kept.get(&page).into_iter().flatten();
            known.map(|listed| (listed.log.get(), listed.entry())).collect()
        })
    }

    /// Puts an entry in the place of the one that is kept of its log, if any.
    pub(crate) fn put(&mut self, kept: &ListedPages, entry: CatalogEntry) {
        self.page(kept, entry.log).insert(entry.log.get(), entry);
    }

    /// Takes a log out of its page.
    pub(crate) fn remove(&mut self, kept: &ListedPages, log: LogId) {
        if kept.contains_key(&page_of(log)) || self.pages.contains_key(&page_of(log)) {
            self.page(kept, log).remove(&log.get());
        }
    }

    /// The pages with their entries, both in their order.
    pub(crate) fn pages(&self) -> impl Iterator<Item = (u64, Vec<&CatalogEntry>)> {
        let pages = self.pages.iter();
        pages.map(|(page, entries)| (*page, entries.values().collect()))
    }

    /// What is kept from now on; `tail_of` tells the tail slab of a log.
    pub(crate) fn keep(self, kept: &mut ListedPages, tail_of: impl Fn(LogId) -> Option<Arc<SlabHandle>>) {
        for (page, entries) in self.pages {
            kept.insert(page, listed(entries.into_values(), &tail_of));
        }
    }
}
