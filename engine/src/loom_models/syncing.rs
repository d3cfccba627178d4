//! Writing, syncing, and referring to what was written, by several threads.

use std::sync::Arc;

use loom::thread;

use super::every_order;
use crate::atomics::{AtomicU64, Mutex, Ordering};
use crate::segment::Written;

/// A file whose bytes are bits: those that have been written, and those that a power cut leaves.
#[derive(Debug)]
struct File {
    written: Written,
    cached: AtomicU64,
    durable: Mutex<u64>,
}

impl File {
    fn new() -> Arc<Self> {
        Arc::new(File {
            written: Written::new(),
            cached: AtomicU64::new(0),
            durable: Mutex::new(0),
        })
    }

    fn write(&self, bit: u64) {
        self.cached.fetch_add(bit, Ordering::AcqRel);
        self.written.note();
    }

    /// Takes what is cached at its beginning, and has it durable at its end.
    fn sync(&self) {
        let sync = || {
            let taken = self.cached.load(Ordering::Acquire);
            thread::yield_now();
            *self.durable.lock() |= taken;
            Ok(())
        };
        self.written.sync(sync).unwrap();
    }

    fn survives(&self, bit: u64) -> bool {
        *self.durable.lock() & bit != 0
    }
}

#[test]
fn whoever_syncs_beside_others_finds_his_own_write_durable() {
    every_order(|| {
        let file = File::new();
        let others: Vec<_> = [1, 2]
            .into_iter()
            .map(|bit| {
                let file = Arc::clone(&file);
                thread::spawn(move || {
                    file.write(bit);
                    file.sync();
                    assert!(file.survives(bit), "what the sync said");
                })
            })
            .collect();
        for other in others {
            other.join().unwrap();
        }
        assert_eq!(*file.durable.lock(), 3);
    });
}

#[test]
fn what_one_thread_wrote_is_durable_for_another_that_saw_its_end() {
    every_order(|| {
        let file = File::new();
        let landed = Arc::new(AtomicU64::new(0));
        let (writing, telling) = (Arc::clone(&file), Arc::clone(&landed));
        let writer = thread::spawn(move || {
            writing.write(1);
            telling.store(1, Ordering::Release);
            // As a checkpoint does beside commits.
            writing.sync();
        });
        if landed.load(Ordering::Acquire) == 1 {
            file.sync();
            assert!(file.survives(1));
        }
        writer.join().unwrap();
    });
}
