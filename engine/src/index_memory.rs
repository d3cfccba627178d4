//! The memory that trees take: nodes that were loaded or made, and slabs that are open. It grows with every slab that
//! somebody reads or writes, so all of it that the disk has too is let go of once it comes to its bound, and loaded again
//! where it is needed.
//!
//! What is counted is what came since the last time. Snapshots and cursors hold the trees that they have: a cursor goes over to
//! trees without that memory at its next step out of a slab, a snapshot keeps what was loaded through itself.

use lanterman_format::weakened;

use crate::atomics::{AtomicU64, Ordering};
use crate::core::Core;
use crate::error::{Error, Result};
use crate::region::root::destroy_replaced;

/// Counts what trees take into memory.
#[derive(Debug)]
pub(crate) struct IndexMemory {
    bytes_max: u64,
    /// Taken since the last time that all was let go of.
    bytes: AtomicU64,
    trims: AtomicU64,
}

impl IndexMemory {
    pub(crate) fn new(bytes_max: u64) -> Self {
        IndexMemory {
            bytes_max,
            bytes: AtomicU64::new(0),
            trims: AtomicU64::new(0),
        }
    }

    /// Trees have taken so many bytes more.
    pub(crate) fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Whether they have taken all that they may.
    pub(crate) fn is_used_up(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) >= self.bytes_max && !weakened!("index-memory-unbounded")
    }

    /// How often all was let go of; another number tells who holds a tree that there is a smaller one.
    #[inline]
    pub(crate) fn trims(&self) -> u64 {
        self.trims.load(Ordering::Acquire)
    }

    /// Whether this call is the one, of those that come at the same time, that is to let go of all.
    fn begin_trim(&self) -> bool {
        self.is_used_up() && self.bytes.swap(0, Ordering::Relaxed) >= self.bytes_max
    }
}

impl Core {
    /// Lets go of nodes and open slabs of all logs if they have taken all the memory that they may.
    pub(crate) fn trim_index_if_used_up(&self) {
        let memory = self.source.index_memory();
        if !memory.begin_trim() {
            return;
        }
        for log in self.catalog.everything() {
            log.trim_tree();
        }
        self.catalog.trim_names();
        destroy_replaced();
        // Behind the roots: who sees the number finds trees that were trimmed.
        memory.trims.fetch_add(1, Ordering::Release);
    }

    /// The same where what is nowhere on the disk yet is written first, so that it can be let go of as well.
    ///
    /// # Errors
    /// As of a checkpoint.
    pub(crate) fn bound_index_memory(&self) -> Result<()> {
        if self.source.index_memory().is_used_up() {
            if !self.options.read_only && self.catalog.has_dirty() {
                match self.checkpoint() {
                    // What is not on the disk stays, and room is made by others.
                    Ok(_) | Err(Error::StorageFull { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            self.trim_index_if_used_up();
        }
        Ok(())
    }
}
