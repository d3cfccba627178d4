//! Logs that nobody has asked for since the store was opened: each is an entry on a page of the catalog, which may not even be
//! read, and an id that is found by the name.
//!
//! So opening takes no longer for them, and they take no memory but a bit each. Only logs without settings, which nothing but
//! somebody's asking concerns, stay so; others are made at once.
//!
//! Invariant: nothing about a dormant log has changed since the store was opened. Whatever changes one has it made first, for good.

use std::collections::BTreeMap;
use std::sync::Arc;

use lanterman_format::Structure;
use lanterman_format::catalog::{CatalogEntryView, PackedPage, bit_of, page_of};
use lanterman_format::ids::LogId;
use lanterman_format::limits::CATALOG_PAGE_LOGS;
use lanterman_format::name::LogName;
use lanterman_format::reference::Reference;
use lanterman_format::settings::Settings;

use crate::error::{Error, Result};
use crate::listed::{Listed, disagreement};
use crate::log::{Committed, LogState, Persisted, Root, TailSlab};
use crate::slab::SlabHandle;
use crate::source::StoreSource;
use crate::tree::{Tree, TreeError};

/// The catalog as the newest checkpoint has it, and which of its logs are dormant.
#[derive(Debug)]
pub(crate) struct Dormant {
    pub(crate) listed: Listed,
    /// By the number of a page, a bit for each dormant log on it; none that has none.
    logs: BTreeMap<u64, u128>,
}

/// A page, and which of its logs are dormant.
#[derive(Debug)]
pub(crate) struct DormantPage {
    entries: Arc<PackedPage>,
    logs: u128,
}

impl DormantPage {
    /// The entries of its dormant logs.
    pub(crate) fn entries(&self) -> impl Iterator<Item = CatalogEntryView<'_>> {
        let entries = self.entries.entries();
        entries.filter(|entry| self.logs & bit_of(entry.log) != 0)
    }

    /// Its dormant logs, made to be looked at: they are dormant still.
    pub(crate) fn made(&self) -> impl Iterator<Item = Arc<LogState>> {
        self.entries()
            .filter_map(|entry| made(&entry))
            .map(|made| made.log)
    }
}

impl Dormant {
    /// All of them are.
    pub(crate) fn all(listed: Listed) -> Self {
        let pages = listed.pages.values();
        let logs = pages.map(|page| (page.told.page, page.told.logs)).collect();
        Dormant { listed, logs }
    }

    /// None is.
    pub(crate) fn none(listed: Listed) -> Self {
        Dormant {
            listed,
            logs: BTreeMap::new(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.logs.is_empty()
    }

    fn has(&self, log: LogId) -> bool {
        self.logs
            .get(&page_of(log))
            .is_some_and(|logs| logs & bit_of(log) != 0)
    }

    /// The dormant log of that name.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::Unreadable`] if the page that tells, or one of those that lead to it, cannot be read.
    pub(crate) fn find(&self, name: &str, source: &StoreSource) -> Result<Option<LogId>> {
        match &self.listed.names {
            Some(names) if !self.is_empty() => names.find(name, source, |log| self.has(log)),
            _ => Ok(None),
        }
    }

    /// Ids of all, rising.
    pub(crate) fn ids(&self) -> Vec<LogId> {
        let of_page = |(page, logs): (&u64, &u128)| {
            let (first, logs) = (page.saturating_mul(CATALOG_PAGE_LOGS), *logs);
            let all = (0..CATALOG_PAGE_LOGS).map(move |place| LogId::new(first.saturating_add(place)));
            all.filter(move |log| logs & bit_of(*log) != 0)
        };
        self.logs.iter().flat_map(of_page).collect()
    }

    /// The pages from that number on that have dormant logs, with their numbers, each read when it is asked for.
    pub(crate) fn pages_from(
        &self,
        number: u64,
        source: &StoreSource,
    ) -> impl Iterator<Item = (u64, Result<DormantPage>)> {
        self.logs.range(number..).map(|(number, logs)| {
            let page = self.page(*number, source);
            let page = page.map(|entries| DormantPage { entries, logs: *logs });
            (*number, page)
        })
    }

    fn page(&self, number: u64, source: &StoreSource) -> Result<Arc<PackedPage>> {
        let page = self.listed.page(number, source.segments())?;
        page.ok_or(Error::Internal {
            what: "a page with dormant logs is listed",
        })
    }

    /// Makes a dormant log, which is none from now on. By its name, if it was found by that.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::Unreadable`] if its page cannot be read, or has it by another name. It stays dormant.
    pub(crate) fn wake(
        &mut self,
        log: LogId,
        name: Option<&str>,
        source: &StoreSource,
    ) -> Result<Option<Committed>> {
        if !self.has(log) {
            return Ok(None);
        }
        let page = self.page(page_of(log), source)?;
        let entry = page.find(log);
        let entry = entry.filter(|entry| name.is_none_or(|name| name == entry.name));
        let Some(woken) = entry.and_then(|entry| made(&entry)) else {
            let place = self.listed.pages.get(page_of(log));
            let place = place.map_or(&Reference::EMPTY, |page| &page.reference);
            let (structure, id) = (Structure::CatalogPage, log.get());
            return Err(disagreement(source.segments(), place, structure, id, 0));
        };
        self.forget(log);
        self.listed.keep(page);
        Ok(Some(woken))
    }

    /// Takes out a log that is made otherwise.
    pub(crate) fn forget(&mut self, log: LogId) {
        if let Some(logs) = self.logs.get_mut(&page_of(log)) {
            *logs &= !bit_of(log);
            if *logs == 0 {
                self.logs.remove(&page_of(log));
            }
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
