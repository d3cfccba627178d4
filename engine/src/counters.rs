//! What the engine counts of itself.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of an open store; see [`crate::Store::counters`] for what is shown of them. None of them is touched by an
/// append.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    commits: AtomicU64,
    groups: AtomicU64,
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
}

/// A reading of a store's counters, since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct CounterReadings {
    /// Commits that were asked for and were not done already: of logs, transactions and edits.
    pub commits: u64,
    /// Groups in which they were written; `commits / groups` share a write on the average.
    pub groups: u64,
    /// Commit blocks written.
    pub versions_written: u64,
    /// Commit blocks that were made durable at once, each with one sync.
    pub durable_versions_written: u64,
    /// Messages in commit blocks, and in slabs that these refer to.
    pub messages_committed: u64,
    /// Slabs written.
    pub slabs_written: u64,
    /// Bytes of these slabs on disk.
    pub slab_bytes_written: u64,
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
    /// Bytes of memory that hold what was read ahead, with what readers and their messages still look at.
    pub prefetch_memory_bytes: u64,
    /// Bytes of memory held by tails, counting those kept for readers.
    pub tail_memory_bytes: u64,
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
    fn prefetch_counters(&self) -> [Listed; 7] {
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
        ]
    }

    fn counters(&self) -> [Listed; 12] {
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
        ]
    }

    fn gauges(&self) -> [Listed; 5] {
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
        text
    }
}

impl Counters {
    pub(crate) fn slab_written(&self, bytes: u64) {
        self.slabs.fetch_add(1, Ordering::Relaxed);
        self.slab_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn group_written(&self, commits: u64) {
        self.groups.fetch_add(1, Ordering::Relaxed);
        self.commits.fetch_add(commits, Ordering::Relaxed);
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

    pub(crate) fn read(&self) -> CounterReadings {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CounterReadings {
            commits: load(&self.commits),
            groups: load(&self.groups),
            versions_written: load(&self.versions),
            durable_versions_written: load(&self.durable_versions),
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
            prefetch_memory_bytes: 0,
            tail_memory_bytes: 0,
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
        CounterReadings {
            prefetch_memory_bytes: self.prefetch_memory.used(),
            tail_memory_bytes: in_use.saturating_add(retired),
            mapped_bytes: mapped.sum(),
            pins: self.pins.count(),
            ..self.counters.read()
        }
    }
}
