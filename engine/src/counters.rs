//! What the engine counts of itself.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of an open store; see [`crate::Store::counters`] for what is shown of them.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    versions: AtomicU64,
    slabs: AtomicU64,
    slab_bytes: AtomicU64,
    checkpoints: AtomicU64,
    journal_replay_bytes: AtomicU64,
    waits_for_memory: AtomicU64,
}

/// A reading of a store's counters, since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct CounterReadings {
    /// Commit blocks written.
    pub versions_written: u64,
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
    /// Bytes of memory held by tails, counting those kept for readers.
    pub tail_memory_bytes: u64,
    /// Bytes of segments mapped.
    pub mapped_bytes: u64,
}

impl Counters {
    pub(crate) fn slab_written(&self, bytes: u64) {
        self.slabs.fetch_add(1, Ordering::Relaxed);
        self.slab_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn committed(&self, replay_bytes: u64) {
        self.versions.fetch_add(1, Ordering::Relaxed);
        self.journal_replay_bytes.store(replay_bytes, Ordering::Relaxed);
    }

    pub(crate) fn checkpointed(&self, replay_bytes: u64) {
        self.checkpoints.fetch_add(1, Ordering::Relaxed);
        self.journal_replay_bytes.store(replay_bytes, Ordering::Relaxed);
    }

    pub(crate) fn waited_for_memory(&self) {
        self.waits_for_memory.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> CounterReadings {
        CounterReadings {
            versions_written: self.versions.load(Ordering::Relaxed),
            slabs_written: self.slabs.load(Ordering::Relaxed),
            slab_bytes_written: self.slab_bytes.load(Ordering::Relaxed),
            checkpoints: self.checkpoints.load(Ordering::Relaxed),
            journal_replay_bytes: self.journal_replay_bytes.load(Ordering::Relaxed),
            waits_for_memory: self.waits_for_memory.load(Ordering::Relaxed),
            tail_memory_bytes: 0,
            mapped_bytes: 0,
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
            tail_memory_bytes: in_use.saturating_add(retired),
            mapped_bytes: mapped.sum(),
            ..self.counters.read()
        }
    }
}
