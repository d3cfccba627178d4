//! Deleting ranges of offsets: what a caller asks for, and the receipt.

use std::ops::{Bound, Range, RangeBounds};
use std::sync::Arc;

use lanterman_format::block::BlockKind;
use lanterman_format::ids::{Offset, Position, SegmentId, Version};
use lanterman_format::name::LogName;
use lanterman_format::reference::{Reference, ReferenceKind};

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
    /// Whether both are exact. They are estimates only where a slab that was cut in two cannot be read, or could not be
    /// when it was cut before.
    pub is_exact: bool,
    /// The places on the disk that held them, as far as they had come there: the slabs, and where all below a node of the
    /// log's tree went, that node in the place of its slabs. Forks and snapshots may hold them still.
    pub blocks: Vec<BlockPlace>,
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
            blocks: destroyed.blocks,
            version,
        }
    }
}

/// Where a block is on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct BlockPlace {
    /// The segment.
    pub segment: SegmentId,
    /// Where the block begins in it.
    pub position: Position,
    /// How long it is.
    pub bytes: u64,
    /// Whether it is a node of a tree, and stands for all that it leads to.
    pub is_node: bool,
}

impl BlockPlace {
    /// Where `reference` leads; nowhere on this disk if it is lost or remote.
    pub(crate) fn of(reference: &Reference) -> Option<Self> {
        (reference.kind == ReferenceKind::Local).then(|| BlockPlace {
            segment: reference.segment,
            position: reference.position,
            bytes: reference.bytes.get(),
            is_node: reference.target == Some(BlockKind::Node),
        })
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
    /// Whether both are exact; see [`DeletionReceipt::is_exact`].
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
