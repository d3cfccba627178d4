//! By which names logs are found: runs of names in order, as keyed logs have runs of keys, with the ids of logs for offsets.
//!
//! A checkpoint puts the names of its new logs into a run of their own, joined with those before it that are not much larger, so
//! that there are few (in the number of logs a logarithm) and each name is written again as often at most. A run is not changed
//! when a log goes: an id counts as long as a page of the catalog has it. What joining finds that does not count is left out.

use lanterman_format::catalog::CatalogEntryView;
use lanterman_format::ids::LogId;

use crate::error::{Error, Result};
use crate::keys::{KeyContext, KeyError, KeyRun, KeyStream, KeyedPlace};
use crate::segment::SegmentTable;
use crate::slab::{ReadContext, Verify};
use crate::source::{StoreSource, tree_error};
use crate::tree::{Tree, TreeError};

/// A run is joined with what comes behind it if it has at most so many times as many names.
const JOINED_RATIO: u64 = 4;

/// Names of logs that are gone may be as many as those of all that are there, and so many more, before all is written anew.
const STALE_MAX: u64 = 1024;

/// The names of all listed logs, the oldest run first; cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct NameRuns {
    runs: Vec<KeyRun>,
}

impl NameRuns {
    /// The runs that a checkpoint has.
    ///
    /// # Errors
    /// [`TreeError::Rule`] if what is told of one cannot be.
    pub(crate) fn stored(told: &[lanterman_format::KeyRun]) -> Result<Self, TreeError> {
        let runs = told.iter().map(KeyRun::stored).collect::<Result<_, _>>()?;
        Ok(NameRuns { runs })
    }

    pub(crate) fn runs(&self) -> &[KeyRun] {
        &self.runs
    }

    /// The first log of which `counts` says so among those that have or had that name, the newest first.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::Unreadable`] if a page of a run cannot be read.
    pub(crate) fn find(
        &self,
        name: &str,
        source: &StoreSource,
        mut counts: impl FnMut(LogId) -> bool,
    ) -> Result<Option<LogId>> {
        let read = ReadContext {
            source,
            verify: Verify::Once,
        };
        let context = KeyContext { nodes: source, read };
        let mut found = None;
        for run in self.runs.iter().rev() {
            let mut look = |id| {
                found = Some(LogId::new(id)).filter(|log| counts(*log));
                found.is_none()
            };
            run.each_place(name.as_bytes(), context, &mut look)
                .map_err(|error| name_error(source.segments(), error.into()))?;
            if found.is_some() {
                break;
            }
        }
        Ok(found)
    }

    /// The same without what was loaded of them.
    pub(super) fn trimmed(&self) -> Self {
        NameRuns {
            runs: self.runs.iter().map(KeyRun::trimmed).collect(),
        }
    }

    /// The trees over the pages of the runs.
    pub(crate) fn trees(&self) -> impl Iterator<Item = &Tree> {
        self.runs.iter().map(KeyRun::pages)
    }

    /// The runs that stay, and those that are joined with so many new names, where so many logs have a name.
    pub(crate) fn split(&self, new: u64, named: u64) -> (Vec<KeyRun>, Vec<KeyRun>) {
        let all = self.runs.iter().map(KeyRun::entries);
        let stale_max = named.saturating_mul(2).saturating_add(STALE_MAX);
        let is_stale = all.fold(0, u64::saturating_add) > stale_max;
        let mut entries = new;
        let (mut stay, mut joined) = (self.runs.clone(), Vec::new());
        while let Some(run) =
            stay.pop_if(|run| is_stale || run.entries() <= entries.saturating_mul(JOINED_RATIO))
        {
            entries = entries.saturating_add(run.entries());
            joined.push(run);
        }
        (stay, joined)
    }

    /// Some runs, the oldest first.
    pub(crate) fn of(runs: Vec<KeyRun>) -> Self {
        NameRuns { runs }
    }
}

/// The names that a checkpoint adds.
#[derive(Debug, Default)]
pub(crate) struct NewNames {
    places: Vec<KeyedPlace>,
}

impl NewNames {
    /// Adds the name of an entry, unless it is that of a named snapshot, which is found otherwise.
    pub(crate) fn add(&mut self, entry: &CatalogEntryView<'_>) {
        if !entry.is_snapshot() {
            self.places.push(KeyedPlace {
                key: entry.name.as_bytes().to_vec(),
                offset: entry.log.get(),
                ..KeyedPlace::default()
            });
        }
    }

    /// How many.
    pub(crate) fn count(&self) -> u64 {
        self.places.len() as u64
    }

    /// The names in order.
    pub(crate) fn sorted(mut self) -> KeyStream {
        self.places.sort_unstable_by(|one, next| one.key.cmp(&next.key));
        KeyStream::Places(self.places.into_iter())
    }
}

/// The public error for names that cannot be told.
pub(crate) fn name_error(segments: &SegmentTable, error: KeyError) -> Error {
    match error {
        KeyError::Store(error) => error,
        KeyError::Tree(error) => tree_error(segments, "(the names of all logs)", 0, error),
    }
}
