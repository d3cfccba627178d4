//! Where an offset of a log is, and what to say of one that cannot be read.

use std::ops::Range;
use std::sync::Arc;

use lanterman_format::BufferView;
use lanterman_format::ids::Offset;

use crate::core::Core;
use crate::error::{Error, Result};
use crate::log::{LogState, Root};
use crate::message::{Keeper, Message};
use crate::region::chunk::Chunk;
use crate::slab::{OpenSlab, SlabError, SlabHandle};
use crate::sys::guard;

/// The deleted offsets around `offset`, where neither tree nor slab has to say so.
pub(crate) fn deleted_outside_the_tree(root: &Root, offset: u64) -> Option<Range<u64>> {
    if offset < root.start {
        return Some(0..root.start);
    }
    root.mask_at(offset).cloned()
}

pub(crate) fn deleted(log: &LogState, offset: u64, run: Range<u64>) -> Error {
    Error::Deleted {
        name: log.name.as_str().to_owned(),
        offset: Offset::new(offset),
        run,
    }
}

#[cold]
pub(crate) fn part_of_value(log: &LogState, offset: u64) -> Error {
    Error::PartOfValue {
        name: log.name.as_str().to_owned(),
        offset: Offset::new(offset),
    }
}

/// A slab that holds an offset, and which offsets of the log it shows.
pub(crate) struct FoundSlab<'a> {
    pub(crate) handle: &'a Arc<SlabHandle>,
    pub(crate) first: u64,
    pub(crate) end: u64,
    pub(crate) skip: u64,
}

impl FoundSlab<'_> {
    /// Where in the slab `offset` of the log is, which it shows, counted from the slab's first.
    #[inline]
    pub(crate) fn relative(&self, offset: u64) -> u64 {
        offset.saturating_sub(self.first).saturating_add(self.skip)
    }
}

/// The slab of a root that holds `offset`, which no chunk holds. [`Error::Deleted`] where the tree has a deleted run.
#[inline]
pub(crate) fn find_slab<'a>(
    core: &Core,
    log: &LogState,
    root: &'a Root,
    offset: u64,
) -> Result<FoundSlab<'a>> {
    match in_loaded_tree(root, offset) {
        Some(found) => Ok(found),
        None => find_slab_anywhere(core, log, root, offset),
    }
}

/// The slab if it is in the tree, not deleted, and nothing needs to be loaded to find it.
#[inline]
fn in_loaded_tree(root: &Root, offset: u64) -> Option<FoundSlab<'_>> {
    if offset >= root.tree_end {
        return None;
    }
    let placed = root.tree.find_loaded(offset.saturating_sub(root.start))?;
    let first = placed.first_offset.saturating_add(root.start);
    Some(FoundSlab {
        handle: placed.entry.slab.as_ref()?,
        first,
        end: first.saturating_add(placed.entry.offset_count),
        skip: placed.entry.skip,
    })
}

#[inline(never)]
fn find_slab_anywhere<'a>(core: &Core, log: &LogState, root: &'a Root, offset: u64) -> Result<FoundSlab<'a>> {
    core.trim_index_if_used_up();
    let waiting = || {
        root.pending
            .iter()
            .find(|pending| pending.first <= offset && offset < pending.end())
            .map(|pending| (&pending.tree, pending.first))
    };
    let in_tree = (offset < root.tree_end).then_some((&root.tree, root.start));
    if let Some((tree, base)) = in_tree.or_else(waiting) {
        let found = tree
            .find(core.source.as_ref(), offset.saturating_sub(base))
            .map_err(|error| core.tree_error(log, error))?;
        let placed = found.ok_or(Error::Internal {
            what: "the tree covers what its end says",
        })?;
        let first = placed.first_offset.saturating_add(base);
        let end = first.saturating_add(placed.entry.offset_count);
        let handle = placed
            .entry
            .slab
            .as_ref()
            .ok_or_else(|| deleted(log, offset, first..end))?;
        return Ok(FoundSlab {
            handle,
            first,
            end,
            skip: placed.entry.skip,
        });
    }
    match &root.tail {
        Some(tail) => Ok(FoundSlab {
            handle: &tail.slab,
            first: tail.first,
            end: tail.first.saturating_add(tail.count),
            skip: tail.skip,
        }),
        None => Err(Error::Internal {
            what: "a log's pieces follow each other without a gap",
        }),
    }
}

/// A message by the piece that it stands in, held by a count of its own: found in one step and looked at in a later one, so that
/// many can be on their way from memory at once.
#[derive(Debug)]
pub(crate) struct Located {
    offset: u64,
    piece: LocatedIn,
}

#[derive(Debug)]
enum LocatedIn {
    Chunk(Arc<Chunk>),
    /// The slab, and the offset counted from its first.
    Slab(Arc<OpenSlab>, u64),
    /// What is said of it when it is looked at, and no sooner.
    Unreadable(Error),
}

impl Core {
    /// Where the message at `offset` of a root stands; `None` where it is deleted, as far as the tree says.
    ///
    /// # Errors
    /// As of opening a slab.
    pub(crate) fn locate(&self, log: &LogState, root: &Root, offset: u64) -> Result<Option<Located>> {
        if deleted_outside_the_tree(root, offset).is_some() {
            return Ok(None);
        }
        let chunk = root.chunk_at(offset);
        if let Some(chunk) = chunk.filter(|chunk| offset < chunk.end_offset()) {
            let piece = LocatedIn::Chunk(Arc::clone(chunk));
            return Ok(Some(Located { offset, piece }));
        }
        let found = match find_slab(self, log, root, offset) {
            Err(Error::Deleted { .. }) => return Ok(None),
            found => found?,
        };
        let relative = found.relative(offset);
        let opened = found
            .handle
            .open(self.source.as_ref())
            .map_err(|error| self.slab_error(log, Some(offset..found.end), error))?;
        let slab = opened.share();
        let piece = match slab.layout().is_compressed() {
            false => LocatedIn::Slab(slab, relative),
            true => match slab.piece(relative..relative.saturating_add(1), self.read_context()) {
                Ok(piece) => LocatedIn::Slab(piece.slab, relative.saturating_sub(piece.first)),
                Err(error) => LocatedIn::Unreadable(damaged(self, log, &slab, offset, root, error)),
            },
        };
        Ok(Some(Located { offset, piece }))
    }
}

impl Located {
    /// Has the processor fetch what leads to the message.
    #[inline]
    pub(crate) fn foresee_index(&self) {
        if let LocatedIn::Slab(slab, relative) = &self.piece {
            slab.foresee_index(*relative);
        }
    }

    /// Has the message fetched, from memory or from the disk.
    pub(crate) fn announce(&self) {
        if let LocatedIn::Slab(slab, relative) = &self.piece {
            slab.announce(*relative);
        }
    }

    /// The message; `None` if it is deleted, or a part of a value.
    ///
    /// # Errors
    /// As of reading it.
    pub(crate) fn message(&self, core: &Core, log: &LogState, root: &Root) -> Result<Option<Message<'_>>> {
        let (buffer, keeper) = self.stored(core, log, root)?;
        Ok((!buffer.is_hidden()).then(|| Message::new(self.offset, buffer, keeper)))
    }

    /// What stands there, whatever it is.
    ///
    /// # Errors
    /// As of reading it.
    pub(crate) fn buffer(&self, core: &Core, log: &LogState, root: &Root) -> Result<BufferView<'_>> {
        self.stored(core, log, root).map(|(buffer, _)| buffer)
    }

    #[inline]
    fn stored(&self, core: &Core, log: &LogState, root: &Root) -> Result<(BufferView<'_>, Keeper<'_>)> {
        match &self.piece {
            LocatedIn::Chunk(chunk) => {
                let position = chunk.position(self.offset.saturating_sub(chunk.first_offset()));
                let buffer = chunk.buffer_at(position.ok_or(Error::Internal {
                    what: "a chunk has the offsets below its end",
                })?)?;
                Ok((buffer, Keeper::Chunk(chunk)))
            }
            LocatedIn::Unreadable(error) => Err(error.clone()),
            LocatedIn::Slab(slab, relative) => match slab.message(*relative, core.read_context()) {
                Ok(buffer) => Ok((buffer, Keeper::Slab(slab))),
                Err(error) => Err(damaged(core, log, slab, self.offset, root, error)),
            },
        }
    }

    /// Fails if bytes of the message, which was looked at, were lost meanwhile.
    pub(crate) fn check(&self, core: &Core, log: &LogState, root: &Root) -> Result<()> {
        match &self.piece {
            LocatedIn::Slab(slab, _) if guard::any_lost() && slab.has_losses() => {
                // Asks for its bytes once more.
                self.message(core, log, root).map(|_| ())
            }
            _ => Ok(()),
        }
    }
}

/// The public error for a slab that cannot be read at `offset`, with the offsets that are lost with it.
pub(crate) fn damaged(
    core: &Core,
    log: &LogState,
    slab: &OpenSlab,
    offset: u64,
    root: &Root,
    error: SlabError,
) -> Error {
    let lost = match (&error, find_slab(core, log, root, offset)) {
        (SlabError::Damaged(damage), Ok(found)) => lost_offsets(slab, &found, offset, &damage.range),
        (SlabError::Read { range, .. }, Ok(found)) => lost_offsets(slab, &found, offset, range),
        _ => offset..offset.saturating_add(1),
    };
    core.slab_error(log, Some(lost), error)
}

/// The offsets from `offset` on whose bytes touch the damaged range.
fn lost_offsets(slab: &OpenSlab, found: &FoundSlab<'_>, offset: u64, range: &Range<usize>) -> Range<u64> {
    let layout = slab.layout();
    let mut end = offset.saturating_add(1);
    while end < found.end {
        let shown = found.relative(end);
        let position = slab.find(shown).map(|found| found.position as usize);
        match position {
            Ok(position) if position < range.end.min(layout.body_end() as usize) => {
                end = end.saturating_add(1)
            }
            _ => break,
        }
    }
    offset..end
}
