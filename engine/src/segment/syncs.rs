//! Counting syncs.

use std::sync::atomic::{AtomicU64, Ordering};

/// How often segments and their names were synced.
#[derive(Debug, Default)]
pub(super) struct Syncs(AtomicU64);

impl Syncs {
    pub(super) fn count(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
