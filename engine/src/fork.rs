//! Forks: a new log with the value that another one has, in O(1) and writable.
//!
//! Both share tree, slabs and tail slab by reference; messages that stand in memory still are copied into a chunk of the
//! fork's own. What the fork is made of is taken when its version is written, and again when that version is replayed:
//! the change in the journal names the origin and an offset, and what stands there in that version is the same.
//!
//! Invariants:
//! - a fork has no name before its version is written; the name is reserved meanwhile;
//! - a fork of a value that its origin no longer has cannot be told by a change: it is brought into a checkpoint first
//!   and gets its name when that is durable.

use std::ops::Range;
use std::sync::Arc;

use lanterman_format::ids::Offset;
use lanterman_format::name::LogName;
use lanterman_format::settings::Settings;
use lanterman_format::weakened;

use crate::catalog::Reserved;
use crate::core::Core;
use crate::edit::Edit;
use crate::error::{Error, Result};
use crate::few::Few;
use crate::found::find_slab;
use crate::log::{LogState, Root};

impl Core {
    /// Finds out whether a fork can be made; loads the nodes that it will need.
    pub(crate) fn rehearse_fork(
        &self,
        origin: &LogState,
        root: &Root,
        end: u64,
        edits: Option<u64>,
    ) -> Result<()> {
        if edits.is_some_and(|edits| edits != root.edits) && !weakened!("fork-of-another-value") {
            // The log that is wanted is one without the edits since: nobody has it under this name any more.
            return Err(Error::UnknownLog {
                name: origin.name.as_str().to_owned(),
            });
        }
        if end < root.start {
            return Err(Error::Deleted {
                name: origin.name.as_str().to_owned(),
                offset: Offset::new(end),
                run: 0..root.start,
            });
        }
        self.pieces(origin, root, root.start..end.min(root.end()))
            .map(|_| ())
    }

    /// The fork takes its value and its name.
    pub(crate) fn apply_fork(&self, origin: &LogState, end: u64, fork: &Arc<LogState>) -> Result<()> {
        let root = origin.root();
        self.take_value(origin, &root, end, fork)?;
        fork.set_adopted_end(origin.adopted_end().min(end));
        if let Some(hole) = origin.open_end().filter(|_| end >= origin.end()) {
            fork.leave_end_open(u32::try_from(hole.saturating_add(1)).unwrap_or(u32::MAX));
        }
        fork.set_created();
        self.catalog.reveal(fork);
        Ok(())
    }

    /// Gives a log that nobody knows yet the value of `root` below `end`.
    fn take_value(&self, origin: &LogState, root: &Root, end: u64, fork: &Arc<LogState>) -> Result<()> {
        let end = end.min(root.end());
        // A tail slab is shared as it is, if it is shown as it is.
        let tail_slab = root
            .tail
            .clone()
            .filter(|_| root.chunks.is_empty() && root.masks.is_empty() && end == root.end());
        let in_tree = tail_slab.as_ref().map_or(end, |tail| tail.first);
        let pieces = self.pieces(origin, root, root.start..in_tree)?;
        let addition = self.copy_pieces(pieces, root.start)?;
        let mut tail = fork.intrude();
        fork.change_root(|root_of_fork| {
            let generation = root_of_fork.generation;
            *root_of_fork = Root {
                generation,
                ..Root::empty_from(root.start)
            };
        });
        self.put_pieces(fork, &mut tail, addition)?;
        let keys = root
            .keys
            .iter()
            .filter_map(|run| run.within(&(root.start..in_tree)));
        let keys: Few<_> = keys.collect();
        fork.change_root(|root_of_fork| {
            root_of_fork.tail = tail_slab;
            root_of_fork.keys = keys;
        });
        fork.set_journaled_end(end);
        fork.set_durable_end(end);
        Ok(())
    }

    /// Makes a log of the value of `origin` below `offset`, or of all of it.
    pub(crate) fn fork(&self, origin: &str, new: &str, offset: Option<u64>) -> Result<()> {
        self.check_writable("fork a log")?;
        let new = LogName::parse(new)?;
        LogName::parse(origin)?;
        let origin = self.find_log(origin)?;
        let end = match offset {
            Some(offset) => self.fork_place(&origin, offset)?,
            None => origin.end(),
        };
        let reserved = self.reserve(&new)?;
        self.fork_newest(&origin, end, &reserved, None)
    }

    /// Reserves the name of a log that is about to be made.
    fn reserve(&self, name: &LogName) -> Result<Reserved<'_>> {
        self.catalog.reserve(name)?.ok_or_else(|| Error::LogExists {
            name: name.as_str().to_owned(),
        })
    }

    /// Compares the place of a fork with the log: it must be a message that is there, the beginning, or the end.
    fn fork_place(&self, origin: &LogState, offset: u64) -> Result<u64> {
        let root = origin.root();
        if offset > root.end() {
            return Err(Error::OutOfRange {
                name: origin.name.as_str().to_owned(),
                offset: Offset::new(offset),
                start: Offset::new(root.start),
                end: Offset::new(root.end()),
            });
        }
        if offset == root.start || offset == root.end() {
            return Ok(offset);
        }
        self.check_not_deleted(origin, &root, offset)?;
        Ok(offset)
    }

    /// # Errors
    /// [`Error::Deleted`] if the message at `offset` is.
    fn check_not_deleted(&self, log: &LogState, root: &Root, offset: u64) -> Result<()> {
        let deleted = |run: Range<u64>| Error::Deleted {
            name: log.name.as_str().to_owned(),
            offset: Offset::new(offset),
            run,
        };
        if offset < root.start {
            return Err(deleted(0..root.start));
        }
        if let Some(mask) = root.mask_at(offset) {
            return Err(deleted(mask.clone()));
        }
        if root
            .chunk_at(offset)
            .is_some_and(|chunk| offset < chunk.end_offset() && offset >= root.tree_end)
        {
            return Ok(());
        }
        let found = find_slab(self, log, root, offset)?;
        let relative = offset.saturating_sub(found.first).saturating_add(found.skip);
        let slab = found
            .handle
            .open(self.source.as_ref())
            .map_err(|error| self.slab_error(log, Some(offset..found.end), error))?
            .share();
        if slab.layout().summary().deleted == 0 {
            return Ok(());
        }
        match slab.message(relative, self.read_context()) {
            Ok(buffer) if buffer.value_type() == lanterman_format::ValueType::TOMBSTONES => {
                Err(deleted(offset..offset.saturating_add(1)))
            }
            Ok(_) => Ok(()),
            Err(error) => Err(self.slab_error(log, Some(offset..found.end), error)),
        }
    }

    /// The edit that makes a log of the newest value of `origin` below `end`.
    pub(crate) fn fork_edit(
        &self,
        origin: &Arc<LogState>,
        end: u64,
        name: LogName,
        settings: Settings,
        edits: Option<u64>,
    ) -> Result<Edit> {
        let encoded = encoded(&settings)?;
        let id = self.catalog.new_log()?;
        Ok(Edit::Fork {
            origin: Arc::clone(origin),
            end,
            fork: Arc::new(LogState::new(id, name, Root::empty(), settings)),
            settings: encoded,
            edits,
        })
    }

    fn fork_newest(
        &self,
        origin: &Arc<LogState>,
        end: u64,
        reserved: &Reserved<'_>,
        edits: Option<u64>,
    ) -> Result<()> {
        self.write_newest_large(origin, end)?;
        self.wait_for_room(origin, end)?;
        let settings = settings_of_fork(origin);
        let edit = self.fork_edit(origin, end, reserved.name().clone(), settings, edits)?;
        if weakened!("fork-named-early")
            && let Edit::Fork { fork, .. } = &edit
        {
            self.catalog.reveal(fork);
        }
        self.commit_edits(vec![edit]).map(|_| ())
    }

    /// Makes a log of a value that a snapshot holds.
    pub(crate) fn fork_held(&self, origin: &Arc<LogState>, root: &Root, end: u64, new: &str) -> Result<()> {
        self.check_writable("fork a log")?;
        let reserved = self.reserve(&LogName::parse(new)?)?;
        match self.fork_newest(origin, end, &reserved, Some(root.edits)) {
            Err(Error::UnknownLog { .. }) => self.fork_by_checkpoint(origin, root, end, &reserved),
            outcome => outcome,
        }
    }

    /// Makes a log of a value that its origin no longer has: by way of a checkpoint, since no change could tell it.
    fn fork_by_checkpoint(
        &self,
        origin: &Arc<LogState>,
        root: &Root,
        end: u64,
        reserved: &Reserved<'_>,
    ) -> Result<()> {
        let name = reserved.name().clone();
        let id = self.catalog.new_log()?;
        let fork = Arc::new(LogState::new(id, name, Root::empty(), settings_of_fork(origin)));
        self.take_value(origin, root, end, &fork)?;
        self.catalog.insert_nameless(&fork, end);
        if let Err(error) = self.checkpoint() {
            fork.set_dropped();
            self.catalog.forget(&fork);
            return Err(error);
        }
        fork.set_created();
        self.catalog.reveal(&fork);
        // A version of its own, so that readers of other processes learn of it.
        let start = fork.first_offset().get();
        self.commit_edits(vec![Edit::Retain { log: fork, start }])
            .map(|_| ())
    }
}

/// What a fork takes over of its origin's settings: all but that it is a named snapshot.
fn settings_of_fork(origin: &LogState) -> Settings {
    let mut settings = Settings::clone(&origin.settings());
    settings.snapshot = None;
    settings
}

/// The encoded form of settings.
pub(crate) fn encoded(settings: &Settings) -> Result<Arc<[u8]>> {
    let encoded = settings.encode().map_err(|_| Error::Internal {
        what: "settings encode",
    })?;
    Ok(Arc::from(encoded))
}
