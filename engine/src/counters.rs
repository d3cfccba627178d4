//! What the engine counts of itself.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of an open store; see [`crate::Store::counters`] for what is shown of them. None of them is touched by an
/// append.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    commits: AtomicU64,
    groups: AtomicU64,
    group_sizes: [AtomicU64; GROUP_SIZES],
    versions: AtomicU64,
    durable_versions: AtomicU64,
    messages: AtomicU64,
    slabs: AtomicU64,
    slab_bytes: AtomicU64,
    checkpoints: AtomicU64,
    journal_replay_bytes: AtomicU64,
    waits_for_memory: AtomicU64,
    collected_bytes: AtomicU64,
    compaction_removed_bytes: AtomicU64,
    compaction_rewritten_bytes: AtomicU64,
    prefetch_slabs: AtomicU64,
    prefetch_bytes: AtomicU64,
    prefetch_hits: AtomicU64,
    prefetch_stalls: AtomicU64,
    prefetch_failures: AtomicU64,
    prefetch_wasted_slabs: AtomicU64,
    prefetch_wasted_bytes: AtomicU64,
    prefetch_cache_bytes: AtomicU64,
}

/// Sizes of groups that are told apart: powers of two, and more.
const GROUP_SIZES: usize = 8;

/// A reading of a store's counters, since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct CounterReadings {
    /// Commits that were asked for and were not done already: of logs, transactions and edits.
    pub commits: u64,
    /// Groups in which they were written; `commits / groups` share a write on the average.
    pub groups: u64,
    /// How many of the groups had at most 1, 2, 4, 8, 16, 32 and 64 commits, each counted at the least that it fits, and how
    /// many had more.
    pub group_sizes: [u64; GROUP_SIZES],
    /// Commit blocks written.
    pub versions_written: u64,
    /// Commit blocks that were made durable at once, each with one sync.
    pub durable_versions_written: u64,
    /// Messages appended: those that are committed, and those that nobody has committed yet.
    pub messages_appended: u64,
    /// Messages in commit blocks, and in slabs that these refer to.
    pub messages_committed: u64,
    /// Slabs written.
    pub slabs_written: u64,
    /// Bytes of these slabs on disk.
    pub slab_bytes_written: u64,
    /// Syncs of files and of names, those of durable commits among them.
    pub syncs: u64,
    /// Checkpoints made.
    pub checkpoints: u64,
    /// Bytes of journal that a recovery would read now.
    pub journal_replay_bytes: u64,
    /// Appends that had to wait for tail memory.
    pub waits_for_memory: u64,
    /// Bytes of garbage given back to the file system or to recycling.
    pub collected_bytes: u64,
    /// Stored bytes of superseded messages that compaction removed.
    pub compaction_removed_bytes: u64,
    /// Stored bytes that compaction wrote anew.
    pub compaction_rewritten_bytes: u64,
    /// Slabs whose read ahead of a reader was begun. Each becomes a hit, a failure or waste.
    pub prefetch_slabs: u64,
    /// Bytes of these reads.
    pub prefetch_bytes: u64,
    /// Slabs that a reader came to and that were read ahead, stalls included.
    pub prefetch_hits: u64,
    /// Hits that the reader came to before their read had ended, and waited for.
    pub prefetch_stalls: u64,
    /// Slabs that a reader came to and whose read ahead had failed; it read them itself.
    pub prefetch_failures: u64,
    /// Slabs that were read ahead and that the reader never came to.
    pub prefetch_wasted_slabs: u64,
    /// Stored bytes of these.
    pub prefetch_wasted_bytes: u64,
    /// Bytes that were not read ahead because they were wanted for the second time: the reader reads them through the
    /// page cache. Not among those above.
    pub prefetch_cache_bytes: u64,
    /// Bytes of memory that hold what was read ahead, with what readers and their messages still look at.
    pub prefetch_memory_bytes: u64,
    /// How often nodes of trees and open slabs had taken the memory that they may, and were let go of.
    pub index_trims: u64,
    /// Bytes of memory held by tails, counting those kept for readers.
    pub tail_memory_bytes: u64,
    /// Bytes of garbage that the newest look found and nobody holds, and that were not given back since.
    pub garbage_bytes: u64,
    /// Bytes of segments mapped.
    pub mapped_bytes: u64,
    /// Snapshots and cursors that are held.
    pub pins: u64,
}

/// Name, kind, meaning and value.
type Listed = (&'static str, Kind, &'static str, u64);

/// Whether a number only rises while the store is open.
#[derive(Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
}

impl CounterReadings {
    fn prefetch_counters(&self) -> [Listed; 8] {
        use Kind::Counter;
        [
            (
                "prefetch_slabs_total",
                Counter,
                "Slabs whose read ahead was begun.",
                self.prefetch_slabs,
            ),
            (
                "prefetch_bytes_total",
                Counter,
                "Bytes of reads ahead.",
                self.prefetch_bytes,
            ),
            (
                "prefetch_hits_total",
                Counter,
                "Slabs that a reader found read ahead.",
                self.prefetch_hits,
            ),
            (
                "prefetch_stalls_total",
                Counter,
                "Hits that the reader had to wait for.",
                self.prefetch_stalls,
            ),
            (
                "prefetch_failures_total",
                Counter,
                "Slabs whose read ahead failed.",
                self.prefetch_failures,
            ),
            (
                "prefetch_wasted_slabs_total",
                Counter,
                "Slabs read ahead that no reader came to.",
                self.prefetch_wasted_slabs,
            ),
            (
                "prefetch_wasted_bytes_total",
                Counter,
                "Bytes of slabs read ahead that no reader came to.",
                self.prefetch_wasted_bytes,
            ),
            (
                "prefetch_cache_bytes_total",
                Counter,
                "Bytes wanted for the second time, left to the page cache.",
                self.prefetch_cache_bytes,
            ),
        ]
    }

    fn counters(&self) -> [Listed; 15] {
        use Kind::Counter;
        [
            ("commits_total", Counter, "Commits asked for.", self.commits),
            (
                "commit_groups_total",
                Counter,
                "Groups in which commits were written.",
                self.groups,
            ),
            (
                "versions_written_total",
                Counter,
                "Commit blocks written.",
                self.versions_written,
            ),
            (
                "durable_versions_written_total",
                Counter,
                "Commit blocks made durable at once.",
                self.durable_versions_written,
            ),
            (
                "messages_appended_total",
                Counter,
                "Messages appended.",
                self.messages_appended,
            ),
            (
                "messages_committed_total",
                Counter,
                "Messages committed.",
                self.messages_committed,
            ),
            (
                "slabs_written_total",
                Counter,
                "Slabs written.",
                self.slabs_written,
            ),
            (
                "slab_written_bytes_total",
                Counter,
                "Bytes of slabs written.",
                self.slab_bytes_written,
            ),
            ("syncs_total", Counter, "Syncs of files and of names.", self.syncs),
            (
                "checkpoints_total",
                Counter,
                "Checkpoints made.",
                self.checkpoints,
            ),
            (
                "memory_waits_total",
                Counter,
                "Appends that waited for tail memory.",
                self.waits_for_memory,
            ),
            (
                "collected_bytes_total",
                Counter,
                "Bytes of garbage given back.",
                self.collected_bytes,
            ),
            (
                "compaction_removed_bytes_total",
                Counter,
                "Bytes of superseded messages removed.",
                self.compaction_removed_bytes,
            ),
            (
                "compaction_rewritten_bytes_total",
                Counter,
                "Bytes written anew by compaction.",
                self.compaction_rewritten_bytes,
            ),
            (
                "index_trims_total",
                Counter,
                "How often nodes of trees and open slabs were let go of for their memory.",
                self.index_trims,
            ),
        ]
    }

    fn gauges(&self) -> [Listed; 6] {
        use Kind::Gauge;
        [
            (
                "journal_replay_bytes",
                Gauge,
                "Bytes of journal that a recovery would read.",
                self.journal_replay_bytes,
            ),
            (
                "tail_memory_bytes",
                Gauge,
                "Bytes of memory held by tails.",
                self.tail_memory_bytes,
            ),
            (
                "garbage_bytes",
                Gauge,
                "Bytes of garbage that wait to be given back.",
                self.garbage_bytes,
            ),
            (
                "mapped_bytes",
                Gauge,
                "Bytes of segments mapped.",
                self.mapped_bytes,
            ),
            (
                "prefetch_memory_bytes",
                Gauge,
                "Bytes of memory that hold what was read ahead.",
                self.prefetch_memory_bytes,
            ),
            ("pins", Gauge, "Snapshots and cursors held.", self.pins),
        ]
    }

    /// The readings in the text format of Prometheus, version 0.0.4: each with its help and type, named `lanterman_…`.
    ///
    /// ```
    /// # fn main() -> Result<(), lanterman::Error> {
    /// # let directory = tempfile::tempdir().unwrap();
    /// let store = lanterman::Store::open_copying(directory.path().join("data"))?;
    /// let text = store.counters().to_prometheus();
    /// assert!(text.contains("# TYPE lanterman_commits_total counter\nlanterman_commits_total 0\n"));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn to_prometheus(&self) -> String {
        let mut text = String::new();
        let all = self.counters().into_iter().chain(self.prefetch_counters());
        for (name, kind, help, value) in all.chain(self.gauges()) {
            let kind = match kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
            };
            // A string takes whatever is written to it.
            let _never_fails = write!(
                text,
                "# HELP lanterman_{name} {help}\n# TYPE lanterman_{name} {kind}\nlanterman_{name} {value}\n"
            );
        }
        self.write_group_sizes(&mut text);
        text
    }

    /// The sizes of groups as a histogram.
    fn write_group_sizes(&self, text: &mut String) {
        let name = "lanterman_commit_group_commits";
        let mut lines = format!("# HELP {name} Commits of a group.\n# TYPE {name} histogram\n");
        let mut upto = 0u64;
        for (exponent, count) in self.group_sizes.iter().enumerate() {
            upto = upto.saturating_add(*count);
            let bound = match exponent.saturating_add(1) < GROUP_SIZES {
                true => (1u64 << exponent).to_string(),
                false => "+Inf".to_owned(),
            };
            let _never_fails = writeln!(lines, "{name}_bucket{{le=\"{bound}\"}} {upto}");
        }
        let _never_fails = writeln!(lines, "{name}_sum {}\n{name}_count {}", self.commits, self.groups);
        text.push_str(&lines);
    }
}

/// Where a group of so many commits counts: the exponent of the power of two that is not less.
fn group_size(commits: u64) -> usize {
    let exponent = commits
        .max(1)
        .checked_next_power_of_two()
        .map_or(u64::BITS, u64::ilog2);
    usize::try_from(exponent).map_or(GROUP_SIZES, |exponent| {
        exponent.min(GROUP_SIZES.saturating_sub(1))
    })
}

impl Counters {
    pub(crate) fn slab_written(&self, bytes: u64) {
        self.slabs.fetch_add(1, Ordering::Relaxed);
        self.slab_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn group_written(&self, commits: u64) {
        self.groups.fetch_add(1, Ordering::Relaxed);
        self.commits.fetch_add(commits, Ordering::Relaxed);
        if let Some(count) = self.group_sizes.get(group_size(commits)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn replayable(&self, replay_bytes: u64) {
        self.journal_replay_bytes.store(replay_bytes, Ordering::Relaxed);
    }

    pub(crate) fn committed(&self, messages: u64, is_durable: bool, replay_bytes: u64) {
        self.versions.fetch_add(1, Ordering::Relaxed);
        self.durable_versions
            .fetch_add(u64::from(is_durable), Ordering::Relaxed);
        self.messages.fetch_add(messages, Ordering::Relaxed);
        self.replayable(replay_bytes);
    }

    pub(crate) fn checkpointed(&self, replay_bytes: u64) {
        self.checkpoints.fetch_add(1, Ordering::Relaxed);
        self.replayable(replay_bytes);
    }

    pub(crate) fn waited_for_memory(&self) {
        self.waits_for_memory.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn collected(&self, bytes: u64) {
        self.collected_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// How many checkpoints were made.
    pub(crate) fn checkpoint_count(&self) -> u64 {
        self.checkpoints.load(Ordering::Relaxed)
    }

    /// How many slabs were written.
    pub(crate) fn slabs(&self) -> u64 {
        self.slabs.load(Ordering::Relaxed)
    }

    pub(crate) fn compacted(&self, removed: u64, rewritten: u64) {
        self.compaction_removed_bytes
            .fetch_add(removed, Ordering::Relaxed);
        self.compaction_rewritten_bytes
            .fetch_add(rewritten, Ordering::Relaxed);
    }

    pub(crate) fn prefetch_begun(&self, slabs: u64, bytes: u64) {
        self.prefetch_slabs.fetch_add(slabs, Ordering::Relaxed);
        self.prefetch_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn prefetch_hit(&self, stalled: bool) {
        self.prefetch_hits.fetch_add(1, Ordering::Relaxed);
        self.prefetch_stalls
            .fetch_add(u64::from(stalled), Ordering::Relaxed);
    }

    pub(crate) fn prefetch_failed(&self) {
        self.prefetch_failures.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn prefetch_wasted(&self, bytes: u64) {
        self.prefetch_wasted_slabs.fetch_add(1, Ordering::Relaxed);
        self.prefetch_wasted_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn prefetch_left_to_cache(&self, bytes: u64) {
        self.prefetch_cache_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> CounterReadings {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CounterReadings {
            commits: load(&self.commits),
            groups: load(&self.groups),
            group_sizes: self.group_sizes.each_ref().map(load),
            versions_written: load(&self.versions),
            durable_versions_written: load(&self.durable_versions),
            messages_appended: 0,
            syncs: 0,
            messages_committed: load(&self.messages),
            slabs_written: load(&self.slabs),
            slab_bytes_written: load(&self.slab_bytes),
            checkpoints: load(&self.checkpoints),
            journal_replay_bytes: load(&self.journal_replay_bytes),
            waits_for_memory: load(&self.waits_for_memory),
            collected_bytes: load(&self.collected_bytes),
            compaction_removed_bytes: load(&self.compaction_removed_bytes),
            compaction_rewritten_bytes: load(&self.compaction_rewritten_bytes),
            prefetch_slabs: load(&self.prefetch_slabs),
            prefetch_bytes: load(&self.prefetch_bytes),
            prefetch_hits: load(&self.prefetch_hits),
            prefetch_stalls: load(&self.prefetch_stalls),
            prefetch_failures: load(&self.prefetch_failures),
            prefetch_wasted_slabs: load(&self.prefetch_wasted_slabs),
            prefetch_wasted_bytes: load(&self.prefetch_wasted_bytes),
            prefetch_cache_bytes: load(&self.prefetch_cache_bytes),
            prefetch_memory_bytes: 0,
            index_trims: 0,
            tail_memory_bytes: 0,
            garbage_bytes: 0,
            mapped_bytes: 0,
            pins: 0,
        }
    }
}

impl crate::core::Core {
    /// Counters and gauges of this store.
    pub(crate) fn read_counters(&self) -> CounterReadings {
        let (in_use, retired) = self.pool.held_bytes();
        let mapped = self
            .segments
            .opened()
            .into_iter()
            .filter(|segment| segment.is_mapped())
            .map(|segment| segment.bytes);
        let uncommitted = self.catalog.awake().into_iter().map(|log| {
            // Asked in this order: what is committed meanwhile was appended before.
            let committed = log.journaled_end();
            log.end().saturating_sub(committed)
        });
        let counted = self.counters.read();
        CounterReadings {
            messages_appended: uncommitted.fold(counted.messages_committed, u64::saturating_add),
            // A checkpoint syncs both root slots.
            syncs: counted
                .checkpoints
                .saturating_mul(2)
                .saturating_add(self.segments.sync_count()),
            garbage_bytes: self.waiting_garbage_bytes(),
            prefetch_memory_bytes: self.prefetch_memory.used(),
            index_trims: self.source.index_memory().trims(),
            tail_memory_bytes: in_use.saturating_add(retired),
            mapped_bytes: mapped.sum(),
            pins: self.pins.count(),
            ..counted
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_counts_at_the_least_size_that_it_fits() {
        let counters = Counters::default();
        for commits in [0, 1, 2, 3, 4, 5, 8, 64, 65, u64::MAX] {
            counters.group_written(commits);
        }
        assert_eq!(counters.read().group_sizes, [2, 1, 2, 2, 0, 0, 1, 2]);
    }
}
