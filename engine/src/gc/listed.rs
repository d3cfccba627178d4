//! What the newest checkpoint's catalog reaches, with what it tells of each log.

use lanterman_format::catalog::CatalogEntryView;
use lanterman_format::settings::Settings;
use lanterman_format::weakened;

use super::reached::Reached;
use crate::core::Core;
use crate::error::Result;
use crate::listed::{NameRuns, name_error};
use crate::tree::{TreeError, reach_from};

impl Core {
    /// Takes up the newest checkpoint's catalog, and what it tells of logs: of dormant ones nothing else tells.
    pub(super) fn reach_listed(&self, reached: &mut Reached) -> Result<()> {
        let listed = self.catalog.listed();
        for page in listed.pages.values() {
            reached.add(&page.reference);
            if weakened!("checkpoint-unreached") {
                continue;
            }
            let entries = listed.page(page.told.page, &self.segments)?;
            for entry in entries.iter().flat_map(|page| page.entries()) {
                self.reach_entry(&entry, reached)?;
            }
        }
        let names = listed.names.iter().filter(|_| !weakened!("names-unreached"));
        for tree in names.flat_map(NameRuns::trees) {
            let failed = |error: TreeError| name_error(&self.segments, error.into());
            tree.reach(self.source.as_ref(), reached).map_err(failed)?;
        }
        Ok(())
    }

    /// Takes up what the newest checkpoint tells of a log.
    fn reach_entry(&self, entry: &CatalogEntryView<'_>, live: &mut Reached) -> Result<()> {
        live.add(&entry.tail);
        // What settings say that cannot be read, the store refused when it was opened.
        let settings = Settings::decode(entry.settings).unwrap_or_default();
        let runs = settings
            .key_runs
            .iter()
            .filter(|_| !weakened!("key-runs-unreached"));
        let trees = std::iter::once(&entry.tree).chain(runs.map(|run| &run.tree));
        for tree in trees.filter(|tree| !tree.is_empty()) {
            let start = entry.start_offset.get();
            let failed = |error| crate::source::tree_error(&self.segments, entry.name, start, error);
            reach_from(tree, self.source.as_ref(), live).map_err(failed)?;
        }
        Ok(())
    }
}
