//! Logs that nobody has asked for since the store was opened: each is an entry on a page of the catalog, of which nothing is made,
//! and an id that is found by the name.
//!
//! So opening takes a log little more than the reading and checking of its entry, and a log that is not asked for little more
//! memory than that. Only logs without settings, which nothing but somebody's asking concerns, stay so; others are made at once.
//!
//! Invariant: nothing about a dormant log has changed since the store was opened. Whatever changes one has it made first, for good.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use hashbrown::HashTable;
use lanterman_format::catalog::{CatalogEntryView, PackedPage, page_of};
use lanterman_format::ids::LogId;
use lanterman_format::limits::CATALOG_PAGE_LOGS;
use lanterman_format::name::LogName;
use lanterman_format::settings::Settings;

use crate::listed::ListedPages;
use crate::log::{Committed, LogState, Persisted, Root, TailSlab};
use crate::slab::SlabHandle;
use crate::tree::{Tree, TreeError};

/// A page of the catalog of which some logs are dormant.
#[derive(Debug)]
struct Page {
    entries: Arc<PackedPage>,
    /// A bit for each of its ids.
    dormant: u128,
}

impl Page {
    fn dormant_entries(&self) -> impl Iterator<Item = CatalogEntryView<'_>> {
        let entries = self.entries.entries();
        entries.filter(|entry| self.dormant & bit_of(entry.log) != 0)
    }
}

const _: () = assert!(
    CATALOG_PAGE_LOGS == u128::BITS as u64,
    "a bit for each id of a page"
);

/// A log by the hash of its name, which keeps the look at its entry for names that have the same.
#[derive(Debug, Clone, Copy)]
struct Named {
    hash: u64,
    log: LogId,
}

/// The dormant logs of an open store.
#[derive(Debug, Default)]
pub(crate) struct Dormant {
    pages: BTreeMap<u64, Page>,
    names: HashTable<Named>,
    hasher: RandomState,
}

/// The logs of a checkpoint as its pages are read: one look at each entry, while the page is in the processor's cache.
#[derive(Debug, Default)]
pub(crate) struct FoundLogs {
    hasher: RandomState,
    named: Vec<Named>,
    /// Logs for which something is to be done before they are asked for, by rising ids: those with settings.
    needed: Vec<LogId>,
}

impl FoundLogs {
    pub(crate) fn note(&mut self, entry: &CatalogEntryView<'_>) {
        if !entry.settings.is_empty() || entry.is_snapshot() {
            self.needed.push(entry.log);
        }
        if !entry.is_snapshot() {
            let hash = self.hasher.hash_one(entry.name);
            self.named.push(Named { hash, log: entry.log });
        }
    }

    /// How much was noted, to go back to.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.named.len(), self.needed.len())
    }

    /// Forgets what was noted since: of a page that could not be read to its end.
    pub(crate) fn go_back(&mut self, (named, needed): (usize, usize)) {
        self.named.truncate(named);
        self.needed.truncate(needed);
    }

    /// All that have a name as dormant logs; and those that are to be made. The error is a log whose name another one has too.
    pub(crate) fn sorted(self, listed: &ListedPages) -> Result<(Dormant, Vec<LogId>), LogId> {
        let mut all = Dormant {
            pages: BTreeMap::new(),
            names: HashTable::with_capacity(self.named.len()),
            hasher: self.hasher,
        };
        let is_on_one_page = |one: &Named, next: &Named| page_of(one.log) == page_of(next.log);
        for named in self.named.chunk_by(is_on_one_page) {
            let Some(number) = named.first().map(|first| page_of(first.log)) else {
                continue;
            };
            let Some(entries) = listed.get(&number) else {
                continue;
            };
            let page = Page {
                entries: Arc::clone(entries),
                dormant: named.iter().fold(0, |bits, named| bits | bit_of(named.log)),
            };
            all.pages.insert(number, page);
            named.iter().try_for_each(|named| all.add(*named))?;
        }
        Ok((all, self.needed))
    }
}

fn bit_of(log: LogId) -> u128 {
    1u128 << (log.get() % CATALOG_PAGE_LOGS)
}

fn name_in(pages: &BTreeMap<u64, Page>, log: LogId) -> Option<&str> {
    let page = pages.get(&page_of(log))?;
    page.entries.find(log).map(|entry| entry.name)
}

impl Dormant {
    /// Has a log found by its name, unless another one has it: then the error is the log.
    fn add(&mut self, named: Named) -> Result<(), LogId> {
        let has_name = |known: &Named| {
            known.hash == named.hash && name_in(&self.pages, known.log) == name_in(&self.pages, named.log)
        };
        if self.names.find(named.hash, has_name).is_some() {
            return Err(named.log);
        }
        self.names.insert_unique(named.hash, named, |known| known.hash);
        Ok(())
    }

    /// The dormant log of that name.
    pub(crate) fn find(&self, name: &str) -> Option<LogId> {
        let hash = self.hasher.hash_one(name);
        let has_name = |known: &Named| known.hash == hash && name_in(&self.pages, known.log) == Some(name);
        self.names.find(hash, has_name).map(|named| named.log)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The entries of dormant logs, by rising ids.
    pub(crate) fn entries(&self) -> impl Iterator<Item = CatalogEntryView<'_>> {
        self.pages.values().flat_map(Page::dormant_entries)
    }

    /// Their ids, in no order.
    pub(crate) fn ids(&self) -> Vec<LogId> {
        self.names.iter().map(|named| named.log).collect()
    }

    /// Some of them from that id on, made to be looked at: they are dormant still.
    pub(crate) fn made_from(&self, from: LogId, count: usize) -> Vec<Arc<LogState>> {
        let pages = self.pages.range(page_of(from)..).map(|(_, page)| page);
        let entries = pages.flat_map(Page::dormant_entries);
        let made = entries
            .filter(|entry| entry.log >= from)
            .filter_map(|entry| made(&entry));
        made.take(count).map(|woken| woken.log).collect()
    }

    /// Makes a dormant log, which is none from now on.
    pub(crate) fn wake(&mut self, log: LogId) -> Option<Committed> {
        let page = self.pages.get(&page_of(log))?;
        let entry = page.entries.find(log)?;
        if page.dormant & bit_of(log) == 0 {
            return None;
        }
        let woken = made(&entry)?;
        self.forget(log);
        Some(woken)
    }

    /// Takes out a log that is made otherwise.
    pub(crate) fn forget(&mut self, log: LogId) {
        let Some(name) = name_in(&self.pages, log) else {
            return;
        };
        if let Ok(known) = self
            .names
            .find_entry(self.hasher.hash_one(name), |known| known.log == log)
        {
            known.remove();
        }
        if let Some(page) = self.pages.get_mut(&page_of(log)) {
            page.dormant &= !bit_of(log);
            if page.dormant == 0 {
                self.pages.remove(&page_of(log));
            }
        }
        if self.names.is_empty() {
            self.names = HashTable::new();
        }
    }

    /// A page was written anew: with the same entries of dormant logs, and others that may have changed.
    pub(crate) fn renew(&mut self, entries: &Arc<PackedPage>) {
        if let Some(page) = self.pages.get_mut(&entries.page()) {
            page.entries = Arc::clone(entries);
        }
    }
}

/// What an entry tells of its log's messages.
///
/// # Errors
/// [`TreeError::Rule`] if the tree's reference does not fit its offsets.
pub(crate) fn root_of(entry: &CatalogEntryView<'_>) -> Result<Root, TreeError> {
    let (start, tree_end, end) = (
        entry.start_offset.get(),
        entry.tree_end.get(),
        entry.end_offset.get(),
    );
    let tail = (!entry.tail.is_empty()).then(|| TailSlab {
        slab: Arc::new(SlabHandle::new(entry.tail)),
        first: tree_end,
        count: end.saturating_sub(tree_end),
        skip: 0,
    });
    Ok(Root {
        tree: Tree::from_reference(entry.tree, tree_end.saturating_sub(start), None)?,
        tree_end,
        tail,
        ..Root::empty_from(start)
    })
}

/// The log of a dormant entry. What makes none was refused when the page was read.
fn made(entry: &CatalogEntryView<'_>) -> Option<Committed> {
    log_of(entry, root_of(entry).ok()?, Settings::default())
}

/// The log of an entry, with this root; nothing if the name is none, as no name of a page that was checked is.
pub(crate) fn log_of(entry: &CatalogEntryView<'_>, root: Root, settings: Settings) -> Option<Committed> {
    let name = LogName::parse(entry.name).ok()?;
    let (end, edits, tail) = (root.end(), root.edits, root.tail.clone());
    let log = LogState::new(entry.log, name, root, settings);
    log.set_created();
    *log.persisted.lock() = Persisted { end, edits, tail };
    Some(Committed {
        log: Arc::new(log),
        end,
        created: entry.created_version,
        modified: entry.modified_version,
    })
}
