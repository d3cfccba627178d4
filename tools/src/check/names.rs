//! The index of the catalog: what a checkpoint tells of its pages, and the names by which logs are found.

use std::collections::{BTreeMap, BTreeSet};

use lanterman_format::buffer::walk;
use lanterman_format::catalog::{CatalogIndex, NO_LOG, PageEntry};
use lanterman_format::key_page::KeyPageView;
use lanterman_format::slab::SLAB_BODY_POSITION;
use lanterman_format::{
    CatalogEntry, CatalogPage, FormatError, KeyRun, LogId, NodeParts, Reference, SlabLayout, node,
};

use super::{Checker, Depth, finding_at};
use crate::check::report::DamageKind;
use crate::problem::Problem;

/// The logs that pages of the catalog have under a name.
#[derive(Default)]
pub(super) struct Named {
    names: BTreeMap<u64, String>,
}

impl Named {
    pub(super) fn add(&mut self, entry: &CatalogEntry) {
        if !entry.view().is_snapshot() {
            let name = entry.name.as_str().to_owned();
            self.names.insert(entry.log.get(), name);
        }
    }
}

impl Checker<'_> {
    /// Compares a page with what the checkpoint tells of it.
    pub(super) fn told_page(&mut self, reference: &Reference, told: Option<&PageEntry>, page: &CatalogPage) {
        let found = PageEntry::of(page.page, page.entries.iter().map(CatalogEntry::view));
        if told.is_some_and(|told| *told != found) {
            let detail = format!("page {} has other logs than the checkpoint tells", found.page);
            self.report
                .find(finding_at(DamageKind::Disagreement, reference, detail));
        }
    }

    /// Each log is found by its name, and by no other.
    pub(super) fn names(
        &mut self,
        checkpoint: &Reference,
        index: Option<&CatalogIndex>,
        named: &Named,
    ) -> Result<(), Problem> {
        let mut disagreements = Vec::new();
        let mut seen = BTreeSet::new();
        for (log, name) in &named.names {
            if !seen.insert(name) {
                disagreements.push(format!("log {log} has the name {name:?}, and so has another one"));
            }
        }
        let Some(index) = index else {
            self.disagreements(checkpoint, disagreements);
            return Ok(());
        };
        let (before, messages) = (self.report.damage.len(), self.report.checked.messages);
        for run in &index.names {
            self.tree(NO_LOG.get(), &run.tree, 0..run.page_count)?;
        }
        // Pages are messages of no log.
        self.report.checked.messages = messages;
        // What is damaged was told; and slabs are looked into only where all are.
        if self.depth == Depth::Everything && self.report.damage.len() == before {
            let mut found = BTreeMap::new();
            for run in &index.names {
                match self.names_of_run(run)? {
                    Ok(names) => found.extend(names),
                    Err(rule) => disagreements.push(format!("a run of names cannot be read: {rule}")),
                }
            }
            let told = |log: u64| index.pages.iter().any(|page| page.has(LogId::new(log)));
            for (log, name) in &named.names {
                if found.get(log).is_none_or(|found| found != name.as_bytes()) {
                    disagreements.push(format!("log {log}, {name:?}, is not found by its name"));
                }
            }
            for log in found.keys().filter(|log| told(**log)) {
                if !named.names.contains_key(log) {
                    disagreements.push(format!("a name leads to log {log}, which has none"));
                }
            }
        }
        self.disagreements(checkpoint, disagreements);
        Ok(())
    }

    fn disagreements(&mut self, checkpoint: &Reference, details: Vec<String>) {
        for detail in details {
            self.report
                .find(finding_at(DamageKind::Disagreement, checkpoint, detail));
        }
    }

    /// The names that a whole run has, by log.
    fn names_of_run(&mut self, run: &KeyRun) -> Result<Result<BTreeMap<u64, Vec<u8>>, FormatError>, Problem> {
        let mut pages = Vec::new();
        self.values(&run.tree, &mut pages)?;
        let leaves = usize::try_from(run.leaf_count).unwrap_or(usize::MAX);
        let mut names = BTreeMap::new();
        for page in pages.iter().take(leaves) {
            let entries = match KeyPageView::leaf(page) {
                Ok(view) => view.entries(),
                Err(rule) => return Ok(Err(rule)),
            };
            for entry in entries {
                match entry {
                    Ok(entry) => {
                        let mut name = Vec::new();
                        entry.copy_key(&mut name);
                        names.insert(run.base.saturating_add(entry.place().offset), name);
                    }
                    Err(rule) => return Ok(Err(rule)),
                }
            }
        }
        Ok(Ok(names))
    }

    /// The values of a tree in which nothing was found, in order.
    fn values(&mut self, reference: &Reference, values: &mut Vec<Vec<u8>>) -> Result<(), Problem> {
        let Some(bytes) = self.referred(reference, DamageKind::Node, None, None)? else {
            return Ok(());
        };
        let parts: NodeParts = match self.try_decode(&bytes, reference, node::decode) {
            Ok(parts) => parts,
            Err(_) => return Ok(()),
        };
        for entry in &parts.entries {
            if parts.level > 0 {
                self.values(&entry.reference, values)?;
                continue;
            }
            let Some(bytes) = self.referred(&entry.reference, DamageKind::Slab, None, None)? else {
                continue;
            };
            let Ok(layout) = self.try_decode(&bytes, &entry.reference, SlabLayout::parse) else {
                continue;
            };
            let body = bytes.get(SLAB_BODY_POSITION..layout.body_end() as usize);
            let buffers = walk(body.unwrap_or_default()).map_while(Result::ok);
            values.extend(buffers.map(|(_, buffer)| buffer.value().to_vec()));
        }
        Ok(())
    }
}
