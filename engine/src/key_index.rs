//! Making runs of keys: of slabs that have none, and of runs that have become many.
//!
//! A step makes one run, of the oldest slabs that no run tells of or of eight runs beside each other that are of one level, so
//! that a log of n slabs has O(log n) runs and each key is written O(log n) times. What is made is in the log's value at once
//! and on the disk with the next checkpoint; if that does not come, it is made again. Nothing of it is ever needed to be right.

use std::ops::Range;
use std::sync::Arc;

use crate::core::Core;
use crate::error::{Error, Result};
use crate::few::Few;
use crate::keyed::KeyPart;
use crate::keys::{KeyRun, KeyedPlace, MergedKeys, RunWriter};
use crate::log::{LogState, Root};

/// How many runs of one level become one of the next.
const RUNS_MERGED: usize = 8;
/// How many slabs one run is made of at most, whose keys are sorted in memory.
const SLABS_MAX: usize = 64;
/// Runs with more messages than this together are not joined: a step would take too long. From there on their number grows with
/// the log, by one for so many messages.
const ENTRIES_MAX: u64 = 16 << 20;
/// How often a long step asks whether something more urgent waits.
const ENTRIES_PER_LOOK: u64 = 1 << 14;

impl Core {
    /// Makes one run for each keyed log that needs one; says whether any was made.
    pub(crate) fn index_keys(&self) -> Result<bool> {
        let slabs = self.counters.slabs();
        let is_done = !self.compactor.has_keyed() || self.compactor.is_indexed(slabs);
        if self.options.read_only || is_done {
            return Ok(false);
        }
        let mut made = false;
        for log in self.catalog.awake() {
            if log.is_keyed() && !log.is_dropped() {
                made |= match self.index_keys_step(&log) {
                    // Slabs that are damaged are left out, so it is a run, or the log's tree: then nothing can be made.
                    Err(Error::Damaged(_)) => self.forget_runs(&log),
                    // On a full disk keys are put in order in memory. What gives back room asks for the runs again.
                    Err(Error::StorageFull { .. }) => {
                        self.compactor.set_indexed(Some(slabs));
                        return Ok(made);
                    }
                    made => made?,
                };
            }
        }
        if !made {
            self.compactor.set_indexed(Some(slabs));
        }
        Ok(made)
    }

    /// Makes runs until all slabs of a log have theirs.
    pub(crate) fn index_all_keys(&self, log: &Arc<LogState>) -> Result<()> {
        while self.index_keys_step(log)? {}
        Ok(())
    }

    fn index_keys_step(&self, log: &Arc<LogState>) -> Result<bool> {
        // What is written is in no tree for a while.
        let _busy = self.collector.hold();
        let _permit = self.permit()?;
        let root = log.root();
        if let Some(gap) = self.first_gap(log, &root)? {
            let (parts, offsets) = gap;
            let merged = self
                .merge_parts(log, root.tree_end, parts, None)
                .map_err(|error| self.key_error(log, error))?;
            let entries_max = offsets.end.saturating_sub(offsets.start);
            let run = self.write_run(log, merged, offsets.clone(), (entries_max, 0), &mut |_| true)?;
            return Ok(self.put_run(log, offsets, run));
        }
        let Some(runs) = self.runs_to_merge(log, &root)? else {
            return Ok(false);
        };
        self.merge_runs(log, &runs, &mut |_| true)?;
        Ok(true)
    }

    /// Writes runs that follow each other as one, without the messages of which `keep` says `false`.
    pub(crate) fn merge_runs(
        &self,
        log: &Arc<LogState>,
        runs: &[KeyRun],
        keep: &mut dyn FnMut(&KeyedPlace) -> bool,
    ) -> Result<()> {
        let (Some(first), Some(last)) = (runs.first(), runs.last()) else {
            return Ok(());
        };
        let offsets = first.offsets().start..last.offsets().end;
        let entries = runs.iter().map(KeyRun::entries).fold(0, u64::saturating_add);
        let highest = runs.iter().map(KeyRun::level).max().unwrap_or(0);
        let level = highest.saturating_add(u32::from(runs.len() > 1));
        let parts = runs.iter().cloned().map(KeyPart::Run).collect();
        let merged = self
            .merge_parts(log, last.offsets().end, parts, None)
            .map_err(|error| self.key_error(log, error))?;
        let run = self.write_run(log, merged, offsets.clone(), (entries, level), keep)?;
        self.put_run(log, offsets, run);
        Ok(())
    }

    /// The first slabs that no run tells of, and the offsets of which their run will speak. Slabs that are damaged stay
    /// without one, so that whoever looks for a key learns of it.
    fn first_gap(&self, log: &LogState, root: &Root) -> Result<Option<(Vec<KeyPart>, Range<u64>)>> {
        let in_tree = root.start..root.tree_end;
        let mut at = in_tree.start;
        let runs = root.keys.iter().filter_map(|run| run.within(&in_tree));
        let behind = in_tree.end..in_tree.end;
        let ends = runs.map(|run| run.offsets()).chain(std::iter::once(behind));
        for covered in ends {
            let mut first = at;
            at = covered.end;
            let parts = self.key_parts_of_tree(&root.tree, root.start, first..covered.start);
            let mut whole = Vec::new();
            for part in parts.map_err(|error| self.key_error(log, error))? {
                let KeyPart::Slab {
                    handle,
                    offsets,
                    skip,
                } = &part
                else {
                    continue;
                };
                let keys = self.slab_keys(handle, offsets.clone(), *skip);
                let is_damaged = match keys.map_err(|error| self.key_error(log, error)) {
                    Err(Error::Damaged(_)) => true,
                    keys => keys.map(|_| false)?,
                };
                if whole.len() >= SLABS_MAX || is_damaged && !whole.is_empty() {
                    return Ok(Some((whole, first..offsets.start)));
                }
                if is_damaged {
                    first = offsets.end;
                } else {
                    whole.push(part);
                }
            }
            if !whole.is_empty() {
                return Ok(Some((whole, first..covered.start)));
            }
        }
        Ok(None)
    }

    /// Writes one run, as far as its messages are in the log's tree.
    fn write_run(
        &self,
        log: &LogState,
        mut merged: MergedKeys,
        offsets: Range<u64>,
        (entries_max, level): (u64, u32),
        keep: &mut dyn FnMut(&KeyedPlace) -> bool,
    ) -> Result<Option<KeyRun>> {
        let mut write = |builder, pages| self.write_built(builder, pages);
        let nodes = self.source.as_ref();
        let mut writer = RunWriter::new(
            log.id,
            offsets.start,
            entries_max,
            self.now_ms(),
            nodes,
            &mut write,
        );
        let mut place = KeyedPlace::default();
        let mut looked = 0_u64;
        while merged
            .next(self.key_context(), &mut place)
            .map_err(|error| self.key_error(log, error))?
        {
            looked = looked.wrapping_add(1);
            if looked.is_multiple_of(ENTRIES_PER_LOOK) {
                self.attend()?;
            }
            if keep(&place) {
                writer.push(&place)?;
            }
        }
        writer.finish(offsets.start, offsets.end, level)
    }

    /// Puts a run in the place of those that lie in `offsets`. If there is none, because no message is left, a run right
    /// beside them speaks of these offsets too; says whether now one does. One that stands apart must not, since a slab between
    /// them may be damaged.
    fn put_run(&self, log: &Arc<LogState>, offsets: Range<u64>, run: Option<KeyRun>) -> bool {
        let is_told = log.change_root(|root| {
            let is_other = |known: &&KeyRun| {
                known.offsets().end <= offsets.start || known.offsets().start >= offsets.end
            };
            let mut keys: Vec<KeyRun> = root.keys.iter().filter(is_other).cloned().collect();
            let at = keys.partition_point(|known| known.offsets().start < offsets.start);
            let mut others = keys.iter();
            let beside = others.position(|known| {
                known.offsets().end == offsets.start || known.offsets().start == offsets.end
            });
            let known = beside.and_then(|index| keys.get_mut(index));
            let is_told = match (run, known) {
                (Some(run), _) => {
                    keys.insert(at, run);
                    true
                }
                (None, Some(known)) => {
                    *known = known.covering(&offsets);
                    true
                }
                (None, None) => false,
            };
            root.keys = Few::from(keys);
            is_told
        });
        self.catalog.mark_dirty(log);
        is_told
    }

    /// Runs beside each other that are enough of one level, with what lower ones stand between them.
    fn runs_to_merge(&self, log: &LogState, root: &Root) -> Result<Option<Vec<KeyRun>>> {
        let highest = root.keys.iter().map(KeyRun::level).max().unwrap_or(0);
        for level in 0..=highest {
            let is_low = |run: &KeyRun| run.level() <= level;
            for group in root.keys.chunk_by(|one, next| is_low(one) == is_low(next)) {
                let of_level = group.iter().filter(|run| run.level() == level).count();
                let entries = group.iter().map(KeyRun::entries).fold(0, u64::saturating_add);
                if of_level >= RUNS_MERGED && entries <= ENTRIES_MAX && self.is_unbroken(log, root, group)? {
                    return Ok(Some(group.to_vec()));
                }
            }
        }
        Ok(None)
    }

    /// Whether no slab stands between runs.
    fn is_unbroken(&self, log: &LogState, root: &Root, runs: &[KeyRun]) -> Result<bool> {
        for (run, next) in runs.iter().zip(runs.iter().skip(1)) {
            let between = run.offsets().end.max(root.start)..next.offsets().start;
            let parts = self.key_parts_of_tree(&root.tree, root.start, between);
            if !parts.map_err(|error| self.key_error(log, error))?.is_empty() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

    use std::sync::Arc;

    use crate::disk::MemoryDisk;
    use crate::{Background, Keyed, NewMessage, Options};

    #[test]
    fn a_run_speaks_of_emptied_offsets_right_beside_it_and_of_none_behind_a_slab_that_may_be_damaged() {
        let store = Options::new()
            .background(Background::Manual)
            .disk(Arc::new(MemoryDisk::new()))
            .open_copying("/store")
            .unwrap();
        store.set_keyed("table", Some(&Keyed::new())).unwrap();
        let mut writer = store.writer("table").unwrap();
        for key in [b"a", b"b", b"c"] {
            writer
                .append_message(&NewMessage::new(b"value").key(key))
                .unwrap();
        }
        drop(writer);
        store.compact("table").unwrap();
        let core = store.core();
        let log = core.find_log("table").unwrap();
        let told = || {
            let root = log.root();
            root.keys.first().map(|run| run.offsets())
        };
        assert_eq!(told(), Some(0..3));
        assert!(!core.put_run(&log, 6..9, None), "3 to 6 stand between");
        assert_eq!(told(), Some(0..3));
        assert!(core.put_run(&log, 3..6, None));
        assert_eq!(told(), Some(0..6));
    }
}
