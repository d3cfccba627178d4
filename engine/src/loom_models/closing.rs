//! Closing against writing and reading.

use std::sync::Arc;

use loom::thread;

use lanterman_format::buffer::ValueType;

use super::{Watched, every_order};
use crate::closing::Closing;
use crate::region::root::RootCell;
use crate::tail::pool::Pool;

/// Files of the store, one for each thread that writes.
struct Files {
    closing: Closing,
    files: [Watched; 2],
}

impl Files {
    fn new() -> Arc<Self> {
        Arc::new(Files {
            closing: Closing::default(),
            files: [Watched::new(), Watched::new()],
        })
    }

    fn write(&self, number: usize) -> bool {
        let permit = self.closing.permit();
        if permit.is_some() {
            self.files[number].add_one();
        }
        permit.is_some()
    }

    /// What the next process does once it has the lock.
    fn take_over(&self) -> u32 {
        self.files
            .iter()
            .map(|file| {
                file.add_one();
                file.read() - 1
            })
            .sum()
    }
}

#[test]
fn nobody_writes_once_the_store_is_closed() {
    every_order(|| {
        let store = Files::new();
        let writers: Vec<_> = (0..2)
            .map(|number| {
                let store = Arc::clone(&store);
                thread::spawn(move || store.write(number))
            })
            .collect();
        store.closing.close();
        let written = store.take_over();
        let acknowledged: u32 = writers
            .into_iter()
            .map(|writer| u32::from(writer.join().unwrap()))
            .sum();
        assert_eq!(
            written, acknowledged,
            "what was acknowledged is there for the next process"
        );
        assert!(store.closing.permit().is_none());
    });
}

#[test]
fn a_reader_reads_on_while_the_store_is_closed_and_its_memory_goes() {
    every_order(|| {
        let pool = Pool::new(1 << 20, 1 << 20);
        let mut writer = pool.take(4096, 0, 0).unwrap();
        let first = writer.append_plain(b"kept", ValueType::BYTES).unwrap();
        let chunk = Arc::clone(writer.chunk());
        let cell = Arc::new(RootCell::new(Some(Arc::clone(&chunk))));
        drop(chunk);
        let store = Files::new();
        let (shared, also_store) = (Arc::clone(&cell), Arc::clone(&store));
        let reader = thread::spawn(move || {
            let held = shared.load();
            let closed = also_store.closing.is_closed();
            if let Some(chunk) = &held {
                let position = chunk.position(first).unwrap();
                assert_eq!(&chunk.buffer_at(position).unwrap().value()[..], b"kept");
            } else {
                assert!(closed || also_store.closing.is_closed());
            }
        });
        let also_store = Arc::clone(&store);
        let committer = thread::spawn(move || also_store.write(0));
        drop(writer.close());
        store.closing.close();
        cell.store(None);
        pool.trim();
        let written = store.take_over();
        reader.join().unwrap();
        assert_eq!(written, u32::from(committer.join().unwrap()));
        drop(cell);
        assert_eq!(pool.held_bytes(), (0, 0));
    });
}
