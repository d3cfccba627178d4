//! Replacing slabs of a log by one without the messages that are superseded: one edit of a compaction.
//!
//! A replacement is made of a value of the log, written, and only then committed; it is refused if the log was edited
//! meanwhile, since what superseded a message may have been deleted. Replayed, it finds its messages in the tree, or in
//! memory still where the journal has them as frames: there it deletes what its slab does not have.

use std::ops::Range;
use std::sync::Arc;

use lanterman_format::block::BlockHeader;
use lanterman_format::commit::SlabAdoption;
use lanterman_format::ids::Offset;
use lanterman_format::reference::Reference;
use lanterman_format::{Histogram32, ValueType, weakened};

use crate::core::Core;
use crate::edit::{Destroyed, Edit};
use crate::error::{Error, Result};
use crate::log::{LogState, Root};
use crate::tree::{SlabEntry, Tree};

/// The slab in which messages of a log stand from now on.
#[derive(Debug, Clone)]
pub(crate) struct Replacement {
    pub(crate) log: Arc<LogState>,
    pub(crate) offsets: Range<u64>,
    /// What shows all of it; no slab where nothing is left.
    pub(crate) entry: SlabEntry,
    pub(crate) histogram: Histogram32,
    /// It was made of the value that the log had after so many edits, and holds for no other.
    pub(crate) edits: Option<u64>,
    /// The messages that supersede others stand before this offset.
    pub(crate) superseded_by: u64,
}

impl Core {
    /// The root with the slab of a replacement in the place of its offsets.
    pub(crate) fn replaced(&self, replacement: &Replacement, root: &Root) -> Result<(Root, Destroyed)> {
        let Replacement { log, offsets, .. } = replacement;
        if replacement.edits.is_some_and(|edits| edits != root.edits) && !weakened!("replaced-behind-edit") {
            return Err(Error::Changed {
                name: log.name.as_str().to_owned(),
            });
        }
        if offsets.start < root.start || offsets.end > root.tree_end {
            return self.without_superseded(replacement, root);
        }
        let source = self.source.as_ref();
        let failed = |error| self.tree_error(log, error);
        let relative = offsets.start.saturating_sub(root.start)..offsets.end.saturating_sub(root.start);
        let before = root.tree.summary(source, relative.clone()).map_err(failed)?;
        let count = offsets.end.saturating_sub(offsets.start);
        let tree = match &replacement.entry.slab {
            Some(_) => Tree::of(replacement.entry.clone(), &replacement.histogram).map_err(failed)?,
            None => Tree::deleted(count),
        };
        let mut edited = root.clone();
        edited.tree = root.tree.replace(source, relative, &tree).map_err(failed)?;
        edited.forget_landed(offsets);
        let (held, kept) = (&before.summary, &replacement.entry.summary);
        let bytes =
            |summary: &lanterman_format::Summary| summary.value_bytes.saturating_add(summary.key_bytes);
        let destroyed = Destroyed {
            messages: held.messages.saturating_sub(kept.messages),
            bytes: bytes(held).saturating_sub(bytes(kept)),
            is_exact: before.is_exact,
            blocks: Vec::new(),
        };
        Ok((edited, destroyed))
    }

    /// The root without what the slab of a replacement does not have, where its offsets are not all in the tree.
    fn without_superseded(&self, replacement: &Replacement, root: &Root) -> Result<(Root, Destroyed)> {
        let Replacement { log, offsets, .. } = replacement;
        let mut edited = root.clone();
        let mut destroyed = Destroyed::default();
        let mut gone = Vec::new();
        match &replacement.entry.slab {
            None => gone.push(offsets.clone()),
            Some(handle) => {
                let failed = |error| self.slab_error(log, Some(offsets.clone()), error);
                let slab = handle.open(self.source.as_ref()).map_err(failed)?.share();
                let count = slab.layout().offset_count();
                let mut walk = slab.walk(0..count, self.read_context()).map_err(failed)?;
                while let Some(walked) = walk.step().map_err(failed)? {
                    if walked.buffer.value_type() == ValueType::TOMBSTONES {
                        let first = offsets.start.saturating_add(walked.relative_offset);
                        gone.push(first..first.saturating_add(walked.buffer.count()));
                    }
                }
                slab.check_whole().map_err(failed)?;
            }
        }
        for range in gone {
            let range = range.start.max(edited.start)..range.end.min(offsets.end).min(edited.end());
            if range.is_empty() {
                continue;
            }
            let (next, more) = self.without(log, &edited, range)?;
            edited = next;
            destroyed.add(more);
        }
        Ok((edited, destroyed))
    }

    /// The replacement that the journal tells of.
    pub(crate) fn replayed_replacement(
        &self,
        log: Arc<LogState>,
        offsets: Range<u64>,
        slab: &Reference,
        header: &BlockHeader,
    ) -> Result<Edit> {
        let adoption = SlabAdoption {
            log: log.id,
            first_offset: Offset::new(offsets.start),
            offset_count: offsets.end.saturating_sub(offsets.start),
            skip: 0,
            slab: *slab,
        };
        let (entry, histogram) = self.adopted_entry(&log, &adoption, 0, header)?;
        Ok(Edit::Replace(Replacement {
            log,
            superseded_by: offsets.end,
            offsets,
            entry,
            histogram,
            edits: None,
        }))
    }
}
