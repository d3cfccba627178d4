//! Open slabs that take memory, kept within a budget.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

use super::OpenSlab;

/// Keeps open slabs alive up to a number of bytes. Whoever was used since the hand last passed gets a second
/// chance, which needs no bookkeeping when a slab is read, unlike a list in order of use.
#[derive(Debug)]
pub(crate) struct KeptSlabs {
    bytes_max: usize,
    ring: Mutex<Ring>,
}

#[derive(Debug, Default)]
struct Ring {
    slabs: VecDeque<Arc<OpenSlab>>,
    bytes: usize,
}

impl KeptSlabs {
    /// Keeps at most `bytes_max` bytes of slabs.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            ring: Mutex::default(),
        }
    }

    /// Keeps `slab`, and lets go of others until the budget is met. A slab larger than the whole budget is not kept.
    pub(crate) fn keep(&self, slab: &Arc<OpenSlab>) {
        let bytes = slab.held_bytes();
        if bytes > self.bytes_max {
            return;
        }
        // Collected so that memory is freed after the lock is.
        let mut dropped = Vec::new();
        let mut ring = self.ring.lock();
        ring.slabs.push_back(Arc::clone(slab));
        ring.bytes = ring.bytes.saturating_add(bytes);
        let mut chances = ring.slabs.len();
        while ring.bytes > self.bytes_max {
            let Some(oldest) = ring.slabs.pop_front() else {
                break;
            };
            if chances > 0 && oldest.take_used() {
                chances -= 1;
                ring.slabs.push_back(oldest);
                continue;
            }
            ring.bytes = ring.bytes.saturating_sub(oldest.held_bytes());
            dropped.push(oldest);
        }
        drop(ring);
        drop(dropped);
    }

    /// How many bytes are kept now.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        self.ring.lock().bytes
    }
}
