//! The table of readers: slots, words of holders that come, go and are killed, what the writer tells.

use std::io;
use std::sync::Arc;

use loom::sync::atomic::{AtomicBool, AtomicU64};
use loom::thread;

use lanterman_format::ids::Version;

use super::{Watched, every_order};
use crate::atomics::Ordering;
use crate::disk::{SharedTable, SlotLock, table_load_order, table_store_order};
use crate::reader_table::{ReaderTable, ReaderView};

/// Words and locks as the kernel shares them, for two slots.
#[derive(Debug)]
struct Table {
    words: Vec<AtomicU64>,
    held: Arc<[AtomicBool; 2]>,
}

#[derive(Debug)]
struct Slot {
    held: Arc<[AtomicBool; 2]>,
    slot: usize,
}

impl SlotLock for Slot {}

impl Drop for Slot {
    fn drop(&mut self) {
        self.held[self.slot].store(false, Ordering::Release);
    }
}

impl SharedTable for Table {
    fn words(&self) -> usize {
        self.words.len()
    }

    fn load(&self, index: usize) -> Option<u64> {
        Some(self.words.get(index)?.load(table_load_order()))
    }

    fn store(&self, index: usize, value: u64) -> bool {
        self.words
            .get(index)
            .map(|word| word.store(value, table_store_order()))
            .is_some()
    }

    fn compare_exchange(&self, index: usize, current: u64, new: u64) -> Option<Result<u64, u64>> {
        let word = self.words.get(index)?;
        Some(word.compare_exchange(current, new, Ordering::SeqCst, Ordering::SeqCst))
    }

    fn try_lock_slot(&self, slot: u32) -> io::Result<Option<Box<dyn SlotLock>>> {
        let slot = slot as usize;
        if self.held[slot].swap(true, Ordering::AcqRel) {
            return Ok(None);
        }
        let held = Arc::clone(&self.held);
        Ok(Some(Box::new(Slot { held, slot })))
    }

    fn slot_is_locked(&self, slot: u32) -> io::Result<bool> {
        Ok(self.held[slot as usize].load(Ordering::Acquire))
    }
}

const KILLED: (u64, u64) = (7, 70);

/// A table in whose first slot a process stood that was killed.
fn table() -> ReaderTable {
    let words = (0..12).map(|_| AtomicU64::new(0)).collect();
    let held = Arc::new([AtomicBool::new(false), AtomicBool::new(false)]);
    let table = Table { words, held };
    table.store(8, KILLED.0);
    table.store(9, KILLED.1);
    ReaderTable::new(Arc::new(table))
}

fn pair(view: &ReaderView) -> (u64, u64) {
    (view.process, view.version.get())
}

#[test]
fn what_is_listed_together_was_told_together() {
    every_order(|| {
        let table = table();
        let other = table.clone();
        let reader = thread::spawn(move || {
            let slot = other.enter(9, Version::new(90)).unwrap();
            slot.tell(Version::new(91));
            slot
        });
        for view in table.list().unwrap() {
            assert!(
                [KILLED, (9, 90), (9, 91), (0, 0)].contains(&pair(&view)),
                "{view:?} is of two holders"
            );
        }
        let slot = reader.join().unwrap();
        let listed: Vec<_> = table.list().unwrap().iter().map(pair).collect();
        assert_eq!(listed, [(9, 91)]);
        drop(slot);
        assert_eq!(table.list().unwrap(), []);
    });
}

#[test]
fn a_slot_that_changes_hands_is_never_listed_with_the_words_of_both() {
    every_order(|| {
        let table = table();
        let other = table.clone();
        let readers = thread::spawn(move || {
            drop(other.enter(9, Version::new(90)).unwrap());
            drop(other.enter(5, Version::new(50)).unwrap());
        });
        for view in table.list().unwrap() {
            assert!(
                [KILLED, (9, 90), (5, 50), (0, 0)].contains(&pair(&view)),
                "{view:?} is of two holders"
            );
        }
        readers.join().unwrap();
    });
}

#[test]
fn two_who_come_at_once_get_slots_of_their_own() {
    every_order(|| {
        let table = table();
        let other = table.clone();
        let first = thread::spawn(move || other.enter(9, Version::new(90)).unwrap());
        let second = table.enter(5, Version::new(50)).unwrap();
        let first = first.join().unwrap();
        let mut listed: Vec<_> = table.list().unwrap().iter().map(pair).collect();
        listed.sort_unstable();
        assert_eq!(listed, [(5, 50), (9, 90)]);
        assert!(table.enter(3, Version::new(30)).is_none(), "there are two slots");
        drop((first, second));
    });
}

#[test]
fn whoever_sees_a_version_sees_what_was_written_before_it_was_told() {
    every_order(|| {
        let table = table();
        let journal = Arc::new(Watched::new());
        let (other, written) = (table.clone(), Arc::clone(&journal));
        let writer = thread::spawn(move || {
            written.add_one();
            other.tell_version(Version::new(5));
        });
        if let Some(version) = table.told_version() {
            assert_eq!((version, journal.read()), (Version::new(5), 1));
        }
        writer.join().unwrap();
    });
}
