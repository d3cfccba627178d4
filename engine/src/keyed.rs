//! Keyed logs: the setting, and finding the messages of a key.
//!
//! What a log has is looked through from its end: chunks by hash, then slabs and runs of keys, the newest first. The first
//! place whose message is still there is the newest message of the key. Runs may have gaps, and tell of messages that were
//! deleted since; neither is wrong.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use lanterman_format::name::LogName;
use lanterman_format::settings::KeyedSettings;
use lanterman_format::weakened;

use crate::core::Core;
use crate::error::{Error, Result};
use crate::few::Few;
use crate::keys::{Buffers, KeyContext, KeyError, KeyRun, KeyStream, MemoryKeys, MergedKeys, RunCursor};
use crate::log::{LogState, Root};
use crate::region::chunk::Chunk;
use crate::slab::{Pieces, SlabHandle};
use crate::tree::Tree;

/// How a keyed log is compacted; see [`Store::set_keyed`](crate::Store::set_keyed).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Keyed {
    /// The bytes of all messages that are in slabs may be so much of the bytes of the newest of each key, in percent.
    pub space_amplification_percent: u32,
    /// For how long a delete marker is kept at least, so that readers learn of it.
    pub marker_grace: Duration,
}

impl Default for Keyed {
    fn default() -> Self {
        Keyed {
            space_amplification_percent: 150,
            // As long as Kafka keeps them (delete.retention.ms).
            marker_grace: Duration::from_secs(24 * 60 * 60),
        }
    }
}

impl Keyed {
    /// Twice as many bytes as needed at most half: 150 percent; markers are kept for a day.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many bytes messages may take of those that the newest of each key take, in percent: more than 100. The less, the
    /// more often what stays is written anew.
    #[must_use]
    pub fn space_amplification_percent(self, percent: u32) -> Self {
        Keyed {
            space_amplification_percent: percent,
            ..self
        }
    }

    /// For how long a delete marker is kept at least. Cursors of this process that have not come past one keep it longer, and
    /// so does every other process that has the store open.
    #[must_use]
    pub fn marker_grace(self, grace: Duration) -> Self {
        Keyed {
            marker_grace: grace,
            ..self
        }
    }

    pub(crate) fn of_setting(told: &KeyedSettings) -> Self {
        Keyed {
            space_amplification_percent: told.space_amplification_percent,
            marker_grace: Duration::from_millis(told.marker_grace_ms),
        }
    }

    fn as_setting(&self) -> Result<KeyedSettings> {
        if self.space_amplification_percent <= 100 {
            return Err(Error::InvalidOption {
                option: "space_amplification_percent",
                reason: "must be more than 100: some room is needed between two compactions",
            });
        }
        Ok(KeyedSettings {
            space_amplification_percent: self.space_amplification_percent,
            marker_grace_ms: u64::try_from(self.marker_grace.as_millis()).unwrap_or(u64::MAX),
        })
    }
}

/// Messages of a log that are looked through at once.
pub(crate) enum KeyPart {
    Run(KeyRun),
    Chunk(Arc<Chunk>, Range<u64>),
    Slab {
        handle: Arc<SlabHandle>,
        offsets: Range<u64>,
        skip: u64,
    },
}

impl Core {
    /// Makes a log keyed, or ends that.
    pub(crate) fn set_keyed(&self, name: &str, keyed: Option<&Keyed>) -> Result<()> {
        self.check_writable("make a log keyed")?;
        let name = LogName::parse(name)?;
        let told = keyed.map(Keyed::as_setting).transpose()?;
        let log = self.log_named(&name)?;
        if told.is_some() && !log.is_keyed() {
            self.demand_keys_of(&log)?;
        }
        let outcome = self.change_settings(&log, |settings| {
            settings.keyed = told;
            Ok(())
        });
        if outcome.is_err() {
            log.demand_as_set();
        }
        outcome
    }

    /// Has all appends to an empty log demand keys from now on.
    fn demand_keys_of(&self, log: &Arc<LogState>) -> Result<()> {
        if log.filling.load(std::sync::atomic::Ordering::Acquire) {
            return Err(Error::Reserved {
                name: log.name.as_str().to_owned(),
            });
        }
        let _gate = log.intrude();
        let root = log.root();
        if root.end() > root.start && !weakened!("keyed-with-messages") {
            return Err(Error::NotEmpty {
                name: log.name.as_str().to_owned(),
                operation: "become keyed",
            });
        }
        log.demand_keys();
        Ok(())
    }

    /// # Errors
    /// [`Error::NotKeyed`].
    pub(crate) fn check_keyed(&self, log: &LogState) -> Result<KeyedSettings> {
        log.settings().keyed.ok_or_else(|| Error::NotKeyed {
            name: log.name.as_str().to_owned(),
        })
    }

    pub(crate) fn key_context(&self) -> KeyContext<'_> {
        KeyContext {
            nodes: self.source.as_ref(),
            read: self.read_context(),
        }
    }

    /// The public error for keys of a log that cannot be told.
    pub(crate) fn key_error(&self, log: &LogState, error: KeyError) -> Error {
        match error {
            KeyError::Store(error) => error,
            // Pages have numbers of their own, which are none of the log's offsets.
            KeyError::Tree(error) => {
                let name = format!("{} (its keys)", log.name.as_str());
                crate::source::tree_error(&self.segments, &name, 0, error)
            }
        }
    }

    /// Looks for messages of a key in a root below `end`, the newest first, until `accept` says `true`, for the offset of one
    /// that may be there.
    pub(crate) fn find_key(
        &self,
        log: &Arc<LogState>,
        root: &Root,
        end: u64,
        key: &[u8],
        accept: &mut dyn FnMut(u64) -> Result<bool>,
    ) -> Result<()> {
        self.check_keyed(log)?;
        let mut failed = None;
        let shown = root.start..end;
        let mut found = |offset: u64| {
            if !shown.contains(&offset) {
                return true;
            }
            match accept(offset) {
                Ok(accepted) => !accepted,
                Err(error) => {
                    failed = Some(error);
                    false
                }
            }
        };
        let looked = self.look_for_key(log, root, &shown, key, &mut found);
        let looked = match looked.map_err(|error| self.key_error(log, error)) {
            Err(Error::Damaged(_)) if !root.keys.is_empty() => {
                // The messages say the same as their runs, only more slowly.
                self.forget_runs(log);
                let bare = Root {
                    keys: Few::default(),
                    ..root.clone()
                };
                let looked = self.look_for_key(log, &bare, &shown, key, &mut found);
                looked.map_err(|error| self.key_error(log, error))
            }
            looked => looked,
        };
        match failed {
            Some(error) => Err(error),
            None => looked,
        }
    }

    /// Lets go of a log's runs of keys, one of which is damaged: the background makes them anew. Says whether there were any;
    /// if not, something else is damaged, and there is nothing to do anew.
    pub(crate) fn forget_runs(&self, log: &Arc<LogState>) -> bool {
        let had_runs = log.change_root(|root| {
            let had_runs = !root.keys.is_empty();
            root.keys = Few::default();
            had_runs
        });
        if !had_runs {
            return false;
        }
        tracing::warn!(
            log = log.name.as_str(),
            "keys in order are damaged, and are put in order anew"
        );
        self.compactor.set_indexed(None);
        if !self.options.read_only {
            self.catalog.mark_dirty(log);
        }
        true
    }

    fn look_for_key(
        &self,
        log: &LogState,
        root: &Root,
        shown: &Range<u64>,
        key: &[u8],
        found: &mut dyn FnMut(u64) -> bool,
    ) -> Result<(), KeyError> {
        let context = self.key_context();
        for part in self.key_parts_behind_tree(root, shown.end)?.iter().rev() {
            if self.look_in_part(log, root, part, key, found)? {
                return Ok(());
            }
        }
        let mut at = root.tree_end.min(shown.end);
        for run in root.keys.iter().rev() {
            let offsets = run.offsets();
            if offsets.start >= at {
                continue;
            }
            if offsets.end <= root.start {
                break;
            }
            if self.look_in_gap(log, root, offsets.end.max(root.start)..at, key, found)? {
                return Ok(());
            }
            if run.each_place(key, context, found)? {
                return Ok(());
            }
            at = offsets.start;
        }
        self.look_in_gap(log, root, root.start..at, key, found)?;
        Ok(())
    }

    /// Looks in slabs that no run tells of.
    fn look_in_gap(
        &self,
        log: &LogState,
        root: &Root,
        gap: Range<u64>,
        key: &[u8],
        found: &mut dyn FnMut(u64) -> bool,
    ) -> Result<bool, KeyError> {
        if gap.is_empty() {
            return Ok(false);
        }
        for part in self.key_parts_of_tree(&root.tree, root.start, gap)?.iter().rev() {
            if self.look_in_part(log, root, part, key, found)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn look_in_part(
        &self,
        log: &LogState,
        root: &Root,
        part: &KeyPart,
        key: &[u8],
        found: &mut dyn FnMut(u64) -> bool,
    ) -> Result<bool, KeyError> {
        let context = self.key_context();
        match part {
            KeyPart::Run(run) => Ok(run.each_place(key, context, found)?),
            KeyPart::Chunk(chunk, offsets) => {
                let keys = self.kept_keys.of_chunk(log.id.get(), chunk, root.tree_end);
                let mut within = |offset| !offsets.contains(&offset) || found(offset);
                Ok(keys.each_place(chunk, key, &mut within)?)
            }
            KeyPart::Slab {
                handle,
                offsets,
                skip,
            } => self
                .slab_keys(handle, offsets.clone(), *skip)?
                .each_place(key, context, found),
        }
    }

    /// The table of a slab that no run tells of.
    pub(crate) fn slab_keys(
        &self,
        handle: &SlabHandle,
        offsets: Range<u64>,
        skip: u64,
    ) -> Result<MemoryKeys, KeyError> {
        let slab = handle.open(self.source.as_ref())?.share();
        let pieces = Pieces::of(&slab, self.read_context())?;
        let keys = self.kept_keys.of_slab(&pieces, self.key_context())?;
        Ok(MemoryKeys::new(keys, Buffers::Slab(pieces), offsets, skip))
    }

    /// What of a root below `end` is not in its tree, in order.
    fn key_parts_behind_tree(&self, root: &Root, end: u64) -> Result<Vec<KeyPart>, KeyError> {
        let mut parts = Vec::new();
        if root.tree_end >= end {
            return Ok(parts);
        }
        let behind = root.tree_end..end;
        let mut waiting = root.pending.iter().peekable();
        for chunk in root.chunks.iter() {
            while let Some(run) = waiting.next_if(|run| run.first < chunk.first_offset()) {
                parts.extend(self.key_parts_of_tree(&run.tree, run.first, run.first..run.end().min(end))?);
            }
            let offsets = chunk.first_offset().max(behind.start)..chunk.end_offset().min(end);
            if !offsets.is_empty() {
                parts.push(KeyPart::Chunk(Arc::clone(chunk), offsets));
            }
        }
        for run in waiting {
            parts.extend(self.key_parts_of_tree(&run.tree, run.first, run.first..run.end().min(end))?);
        }
        if let Some(tail) = root.tail.as_ref().filter(|_| root.chunks.is_empty()) {
            parts.push(KeyPart::Slab {
                handle: Arc::clone(&tail.slab),
                offsets: tail.first..tail.first.saturating_add(tail.count).min(end),
                skip: tail.skip,
            });
        }
        Ok(parts)
    }

    /// The slabs of a tree, whose first offset is `base`, that have something of `offsets`, in order.
    pub(crate) fn key_parts_of_tree(
        &self,
        tree: &Tree,
        base: u64,
        offsets: Range<u64>,
    ) -> Result<Vec<KeyPart>, KeyError> {
        let mut parts = Vec::new();
        if offsets.is_empty() {
            return Ok(parts);
        }
        for placed in tree.slabs_from(self.source.as_ref(), offsets.start.saturating_sub(base)) {
            let placed = placed?;
            let first = placed.first_offset.saturating_add(base);
            if first >= offsets.end {
                break;
            }
            let end = placed.end_offset().saturating_add(base).min(offsets.end);
            let from = first.max(offsets.start);
            if let Some(handle) = &placed.entry.slab {
                parts.push(KeyPart::Slab {
                    handle: Arc::clone(handle),
                    offsets: from..end,
                    skip: placed.entry.skip.saturating_add(from.saturating_sub(first)),
                });
            }
        }
        Ok(parts)
    }

    /// All entries of a root below `end`, from the first key on that is not less than `from`.
    pub(crate) fn merged_keys(
        &self,
        log: &LogState,
        root: &Root,
        end: u64,
        from: Option<Vec<u8>>,
    ) -> Result<MergedKeys> {
        self.check_keyed(log)?;
        let parts = self.all_key_parts(root, end);
        let parts = parts.map_err(|error| self.key_error(log, error))?;
        self.merge_parts(log, root.tree_end, parts, from)
            .map_err(|error| self.key_error(log, error))
    }

    fn all_key_parts(&self, root: &Root, end: u64) -> Result<Vec<KeyPart>, KeyError> {
        let mut parts = Vec::new();
        let in_tree = root.start..root.tree_end.min(end);
        let mut at = in_tree.start;
        for run in root.keys.iter().filter_map(|run| run.within(&in_tree)) {
            let offsets = run.offsets();
            parts.extend(self.key_parts_of_tree(&root.tree, root.start, at..offsets.start)?);
            at = offsets.end;
            parts.push(KeyPart::Run(run));
        }
        parts.extend(self.key_parts_of_tree(&root.tree, root.start, at..in_tree.end)?);
        parts.extend(self.key_parts_behind_tree(root, end)?);
        Ok(parts)
    }

    /// Goes through all parts of a log at once, whose tree ends at `tree_end`.
    pub(crate) fn merge_parts(
        &self,
        log: &LogState,
        tree_end: u64,
        parts: Vec<KeyPart>,
        from: Option<Vec<u8>>,
    ) -> Result<MergedKeys, KeyError> {
        let mut streams = Vec::with_capacity(parts.len());
        let of_memory = |keys| KeyStream::of_memory(keys, from.clone());
        for part in parts {
            match part {
                KeyPart::Run(run) => streams.push(KeyStream::Run(RunCursor::new(run, from.clone()))),
                KeyPart::Chunk(chunk, offsets) => {
                    let count = offsets.end.saturating_sub(chunk.first_offset());
                    let skip = offsets.start.saturating_sub(chunk.first_offset());
                    let known = self.kept_keys.of_chunk(log.id.get(), &chunk, tree_end);
                    for keys in known.in_order(&chunk, count)? {
                        let buffers = Buffers::Chunk(Arc::clone(&chunk));
                        let keys = MemoryKeys::new(keys, buffers, offsets.clone(), skip);
                        streams.push(of_memory(keys));
                    }
                }
                KeyPart::Slab {
                    handle,
                    offsets,
                    skip,
                } => streams.push(of_memory(self.slab_keys(&handle, offsets, skip)?)),
            }
        }
        Ok(MergedKeys::new(streams))
    }
}
