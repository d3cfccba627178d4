//! The words of a shared table, kept by a disk in memory.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::disk::{SharedTable, SlotLock};

/// The words and the slots that are held, by whomever.
#[derive(Debug)]
pub(super) struct TableState {
    words: Vec<AtomicU64>,
    held: Mutex<HashSet<u32>>,
}

impl TableState {
    pub(super) fn new(words: usize) -> Self {
        Self {
            words: (0..words).map(|_| AtomicU64::new(0)).collect(),
            held: Mutex::default(),
        }
    }

    /// The table as it is when all who used it are dead: the words stay, the locks are gone.
    pub(super) fn after_kill(&self) -> Self {
        let words = self
            .words
            .iter()
            .map(|word| AtomicU64::new(word.load(Ordering::Acquire)))
            .collect();
        Self {
            words,
            held: Mutex::default(),
        }
    }

    pub(super) fn words(&self) -> usize {
        self.words.len()
    }
}

/// One opening of the table.
#[derive(Debug)]
pub(super) struct MemoryTable {
    pub(super) state: Arc<TableState>,
    /// As many words as were asked for, perhaps fewer than the table has.
    pub(super) words: usize,
}

impl MemoryTable {
    fn word(&self, index: usize) -> Option<&AtomicU64> {
        self.state.words.get(index).filter(|_| index < self.words)
    }
}

impl SharedTable for MemoryTable {
    fn words(&self) -> usize {
        self.words
    }

    fn load(&self, index: usize) -> Option<u64> {
        Some(self.word(index)?.load(crate::disk::table_load_order()))
    }

    fn store(&self, index: usize, value: u64) -> bool {
        self.word(index)
            .map(|word| word.store(value, crate::disk::table_store_order()))
            .is_some()
    }

    fn compare_exchange(&self, index: usize, current: u64, new: u64) -> Option<Result<u64, u64>> {
        Some(
            self.word(index)?
                .compare_exchange(current, new, Ordering::SeqCst, Ordering::SeqCst),
        )
    }

    fn try_lock_slot(&self, slot: u32) -> io::Result<Option<Box<dyn SlotLock>>> {
        if !self.state.held.lock().insert(slot) {
            return Ok(None);
        }
        Ok(Some(Box::new(MemorySlot {
            state: Arc::clone(&self.state),
            slot,
        })))
    }

    fn slot_is_locked(&self, slot: u32) -> io::Result<bool> {
        Ok(self.state.held.lock().contains(&slot))
    }
}

#[derive(Debug)]
struct MemorySlot {
    state: Arc<TableState>,
    slot: u32,
}

impl SlotLock for MemorySlot {}

impl Drop for MemorySlot {
    fn drop(&mut self) {
        self.state.held.lock().remove(&self.slot);
    }
}
