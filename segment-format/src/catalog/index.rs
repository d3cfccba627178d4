//! What a checkpoint tells of its pages of the catalog, so that they need not be read before one of their logs is asked for:
//! which logs are on each, and by which names logs are found.
//!
//! Names are told in runs, as the keys of keyed logs are: the keys are names, and the offsets numbers of logs. A run stays as it
//! was written; of a log that is gone since, no page has an entry, which is how its name is passed over.

use zerocopy::little_endian::{U32, U64, U128};

use super::{CatalogEntryView, page_of};
use crate::convert::{read, wide};
use crate::error::{FormatError, Rule, Structure};
use crate::ids::LogId;
use crate::limits::CATALOG_PAGE_LOGS;
use crate::settings::KeyRun;

const RULES: Structure = Structure::Checkpoint;
const FLAG_NEEDED: u32 = 1;

wire_struct! {
    struct RawPageEntry is "PageEntry", 32 bytes {
        0 page: U64,
        8 named: U32,
        12 flags: U32,
        16 logs: U128,
    }
}

/// What is told of a page of the catalog.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PageEntry {
    /// Its number.
    pub page: u64,
    /// A bit for each log of it, the lowest for the least id that it may have.
    pub logs: u128,
    /// How many of its logs are found by their names: all but named snapshots.
    pub named: u32,
    /// Whether it has a log with settings, or a named snapshot: something is to be done about these without anybody's asking.
    pub needed: bool,
}

/// The log that slabs of runs of names are of: no log has this id.
pub const NO_LOG: LogId = LogId::ZERO;

/// The bit of a log among those of its page.
pub const fn bit_of(log: LogId) -> u128 {
    1u128 << (log.get() % CATALOG_PAGE_LOGS)
}

impl PageEntry {
    /// What is to be told of a page with these logs.
    pub fn of<'a>(page: u64, entries: impl Iterator<Item = CatalogEntryView<'a>>) -> Self {
        let mut told = Self {
            page,
            ..Self::default()
        };
        for entry in entries {
            told.logs |= bit_of(entry.log);
            told.named = told.named.saturating_add(u32::from(!entry.is_snapshot()));
            told.needed |= entry.is_needed() && !crate::weakened!("needed-logs-untold");
        }
        told
    }

    /// Whether the page has the log.
    pub const fn has(&self, log: LogId) -> bool {
        page_of(log) == self.page && self.logs & bit_of(log) != 0
    }

    /// The greatest id of a log on it, or the greatest of all where that is none; 0 of a page without logs.
    fn last_log(&self) -> u64 {
        let last_place = u64::from(self.logs.checked_ilog2().unwrap_or(0));
        self.page
            .saturating_mul(CATALOG_PAGE_LOGS)
            .saturating_add(last_place)
    }

    pub(crate) fn to_raw(self) -> RawPageEntry {
        RawPageEntry {
            page: U64::new(self.page),
            named: U32::new(self.named),
            flags: U32::new(if self.needed { FLAG_NEEDED } else { 0 }),
            logs: U128::new(self.logs),
        }
    }

    fn of_raw(raw: &RawPageEntry, at: u64) -> Result<Self, FormatError> {
        let flags = raw.flags.get();
        RULES.require(
            flags & !FLAG_NEEDED == 0,
            Rule::Flags,
            at,
            u64::from(FLAG_NEEDED),
            u64::from(flags),
        )?;
        Ok(Self {
            page: raw.page.get(),
            logs: raw.logs.get(),
            named: raw.named.get(),
            needed: flags & FLAG_NEEDED != 0,
        })
    }
}

/// What a checkpoint tells of its pages of the catalog.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CatalogIndex {
    /// The pages, in the order of the references to them.
    pub pages: Vec<PageEntry>,
    /// Names, as keys, and the numbers of their logs. A name may stand in several runs, and in one that is no more there.
    pub names: Vec<KeyRun>,
}

impl CatalogIndex {
    /// Length of both lists.
    pub(crate) fn encoded_bytes(&self) -> usize {
        encoded_bytes(self.pages.len(), self.names.len())
    }

    /// The lists at `at` of a checkpoint's block.
    pub(crate) fn decode(block: &[u8], at: usize, pages: usize, names: usize) -> Result<Self, FormatError> {
        let names_at = encoded_bytes(pages, 0).saturating_add(at);
        let entry = |number: usize| {
            let at = encoded_bytes(number, 0).saturating_add(at);
            read(block, at, RULES).and_then(|raw| PageEntry::of_raw(&raw, wide(at)))
        };
        let run = |number: usize| {
            let at = encoded_bytes(0, number).saturating_add(names_at);
            read(block, at, RULES).and_then(|raw| KeyRun::of_raw(&raw, wide(at)))
        };
        Ok(Self {
            pages: (0..pages).map(entry).collect::<Result<_, _>>()?,
            names: (0..names).map(run).collect::<Result<_, _>>()?,
        })
    }

    /// The rules that hold before writing and after reading, for `references` to pages and the id that the next log gets.
    pub(crate) fn check(&self, at: u64, references: usize, next_log: LogId) -> Result<(), FormatError> {
        let (wanted, found) = (wide(references), wide(self.pages.len()));
        RULES.require(wanted == found, Rule::Count, 112, wanted, found)?;
        let mut least = 0;
        for entry in &self.pages {
            RULES.require(entry.page >= least, Rule::Order, at, least, entry.page)?;
            least = entry.page.saturating_add(1);
            let logs = entry.logs.count_ones();
            RULES.require(logs != 0, Rule::Zero, at, 1, 0)?;
            let (logs, named) = (u64::from(logs), u64::from(entry.named));
            RULES.require(named <= logs, Rule::Bounds, at, logs, named)?;
            let (last, next) = (entry.last_log(), next_log.get());
            RULES.require(last < next, Rule::Bounds, at, next, last)?;
        }
        self.names.iter().try_for_each(|run| {
            run.check(at)?;
            let next = next_log.get();
            RULES.require(run.end <= next, Rule::Bounds, at, next, run.end)
        })
    }
}

/// Length of the lists of so many pages and runs.
pub(crate) fn encoded_bytes(pages: usize, names: usize) -> usize {
    let pages = pages.saturating_mul(size_of::<RawPageEntry>());
    names
        .saturating_mul(size_of::<crate::settings::RawKeyRun>())
        .saturating_add(pages)
}
