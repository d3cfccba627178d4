//! Deleting ranges of offsets: what a caller asks for, and the receipt.

use std::ops::{Bound, Range, RangeBounds};
use std::sync::Arc;

use lanterman_format::ids::{Offset, Version};
use lanterman_format::name::LogName;

use crate::core::Core;
use crate::edit::{Destroyed, Edit};
use crate::error::{Error, Result};
use crate::log::LogState;

/// What a deletion destroyed. Nobody can read it any more but through snapshots, forks and cursors from before.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeletionReceipt {
    /// Name of the log.
    pub log: String,
    /// The offsets asked for; some may have been deleted before.
    pub offsets: Range<u64>,
    /// How many messages were destroyed.
    pub messages: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
    /// Whether the range cut no slab in two. The share of one that was cut is an estimate; of its messages only if some
    /// of them had been deleted before.
    pub is_exact: bool,
    /// The version from which on they are gone.
    pub version: Version,
}

impl DeletionReceipt {
    pub(crate) fn new(log: &str, offsets: Range<u64>, destroyed: Destroyed, version: Version) -> Self {
        DeletionReceipt {
            log: log.to_owned(),
            offsets,
            messages: destroyed.messages,
            bytes: destroyed.bytes,
            is_exact: destroyed.is_exact,
            version,
        }
    }
}

/// What a deletion or a retention would destroy, if it were done now.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeletionPlan {
    /// Name of the log.
    pub log: String,
    /// The offsets that would go; some may have gone before.
    pub offsets: Range<u64>,
    /// How many messages would be destroyed.
    pub messages: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
    /// Whether the range cut no slab in two. The share of one that was cut is an estimate; of its messages only if some
    /// of them had been deleted before.
    pub is_exact: bool,
}

impl DeletionPlan {
    pub(crate) fn new(log: &str, offsets: Range<u64>, destroyed: Destroyed) -> Self {
        DeletionPlan {
            log: log.to_owned(),
            offsets,
            messages: destroyed.messages,
            bytes: destroyed.bytes,
            is_exact: destroyed.is_exact,
        }
    }
}

/// A range of offsets as it was asked for; where it has no end, the log's end at the commit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WantedRange {
    first: u64,
    end: Option<u64>,
}

impl WantedRange {
    pub(crate) fn of(offsets: &impl RangeBounds<u64>) -> Self {
        let first = match offsets.start_bound() {
            Bound::Included(first) => *first,
            Bound::Excluded(before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match offsets.end_bound() {
            Bound::Included(last) => Some(last.saturating_add(1)),
            Bound::Excluded(end) => Some(*end),
            Bound::Unbounded => None,
        };
        WantedRange { first, end }
    }

    /// The offsets of `log` that are meant. Offsets before its start are deleted already, which is no error.
    ///
    /// # Errors
    /// [`Error::InvalidRange`] for a range that is reversed, or ends behind the log.
    pub(crate) fn within(self, log: &LogState) -> Result<Range<u64>> {
        let log_end = log.end();
        let end = self.end.unwrap_or(log_end);
        let refuse = |reason| {
            Err(Error::InvalidRange {
                name: log.name.as_str().to_owned(),
                first: Offset::new(self.first),
                end: Offset::new(end),
                start: log.first_offset(),
                log_end: Offset::new(log_end),
                reason,
            })
        };
        if self.first > end {
            return refuse("it ends before it begins");
        }
        if end > log_end {
            return refuse("it ends behind the last message");
        }
        Ok(self.first..end)
    }
}

impl Core {
    /// What deleting a range of one log would destroy.
    pub(crate) fn plan_deletion(&self, name: &str, range: WantedRange) -> Result<DeletionPlan> {
        LogName::parse(name)?;
        let log = self.find_log(name)?;
        let offsets = range.within(&log)?;
        let (_, destroyed) = self.without(&log, &self.root_to_edit(&log)?, offsets.clone())?;
        Ok(DeletionPlan::new(name, offsets, destroyed))
    }

    /// Deletes a range of offsets of one log, durably.
    pub(crate) fn delete(&self, name: &str, range: WantedRange) -> Result<DeletionReceipt> {
        self.check_writable("delete")?;
        LogName::parse(name)?;
        let log = self.find_log(name)?;
        let offsets = range.within(&log)?;
        if offsets.is_empty() {
            let version = self.catalog.version();
            return Ok(DeletionReceipt::new(name, offsets, Destroyed::default(), version));
        }
        let edit = Edit::Delete {
            log: Arc::clone(&log),
            offsets: offsets.clone(),
        };
        let (version, destroyed) = self.commit_edits(vec![edit])?;
        Ok(DeletionReceipt::new(name, offsets, destroyed, version))
    }
}
