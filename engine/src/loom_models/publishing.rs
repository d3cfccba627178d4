//! Publishing and reading: messages in a chunk, transactions over several, roots that replace each other.

use std::sync::Arc;

use loom::thread;

use lanterman_format::buffer::ValueType;
use lanterman_format::ids::LogId;
use lanterman_format::name::LogName;

use super::every_order;
use crate::atomics::epoch;
use crate::few::Few;
use crate::log::{LogState, Root};
use crate::publication::Publication;
use crate::region::chunk::{Chunk, ChunkWriter};
use crate::tail::pool::Pool;

const VALUES: [&[u8]; 2] = [b"first", b"second and longer"];

fn pool() -> Arc<Pool> {
    Pool::new(1 << 20, 1 << 20)
}

fn append(writer: &mut ChunkWriter, number: usize) {
    writer.append_plain(VALUES[number], ValueType::BYTES).unwrap();
}

/// Reads everything that is published, which must be what was appended; says how much that is.
fn read_all(chunk: &Chunk) -> u32 {
    let published = chunk.published();
    let mut expected = 256;
    for entry in 0..published.entries {
        assert_eq!(chunk.position(u64::from(entry)), Some(expected));
        let buffer = chunk.buffer_at(expected).unwrap();
        assert_eq!(&buffer.value()[..], VALUES[entry as usize]);
        expected += buffer.stored_bytes();
    }
    assert_eq!(published.body_end, expected);
    published.entries
}

#[test]
fn a_reader_finds_every_published_message_at_its_place() {
    every_order(|| {
        let mut writer = pool().take(4096, 7, 0).unwrap();
        let chunk = Arc::clone(writer.chunk());
        let reader = thread::spawn(move || {
            let first = read_all(&chunk);
            assert!(read_all(&chunk) >= first);
        });
        append(&mut writer, 0);
        append(&mut writer, 1);
        reader.join().unwrap();
    });
}

#[test]
fn whoever_sees_a_transaction_in_one_log_sees_it_in_the_other() {
    every_order(|| {
        let pool = pool();
        let (mut left, mut right) = (pool.take(4096, 0, 0).unwrap(), pool.take(4096, 0, 0).unwrap());
        let (left_chunk, right_chunk) = (Arc::clone(left.chunk()), Arc::clone(right.chunk()));
        let publication = Arc::new(Publication::default());
        let seen = Arc::clone(&publication);
        let reader = thread::spawn(move || {
            let found = left_chunk.published().entries;
            // The reader finds no more in the other log, and so looks whether that is its end.
            if right_chunk.published().entries < found {
                seen.settle();
            }
            assert!(read_all(&right_chunk) >= found);
        });
        let window = publication.open();
        append(&mut left, 0);
        append(&mut right, 0);
        drop(window);
        reader.join().unwrap();
    });
}

fn log_with(chunk: &Arc<Chunk>) -> Arc<LogState> {
    let root = Root {
        chunks: Few::from(vec![Arc::clone(chunk)]),
        ..Root::empty()
    };
    let name = LogName::parse("log").unwrap();
    Arc::new(LogState::new(
        LogId::new(1),
        name,
        root,
        lanterman_format::settings::Settings::default(),
    ))
}

/// A chunk that is full is copied into a larger one, which takes its place in the root; so the reader finds the second
/// message in the one chunk, or the first in the other.
#[test]
fn a_reader_who_sees_a_roots_number_finds_that_root_and_all_its_messages() {
    every_order(|| {
        let pool = pool();
        let mut writer = pool.take(4096, 0, 0).unwrap();
        append(&mut writer, 0);
        let log = log_with(writer.chunk());
        let shared = Arc::clone(&log);
        let reader = thread::spawn(move || {
            for _ in 0..2 {
                let generation = shared.generation();
                let root = shared.root();
                assert!(root.generation >= generation, "the number came before its root");
                let read = read_all(root.chunks.last().unwrap());
                assert!(read >= 1);
            }
        });
        // Nothing is destroyed meanwhile, which would tell the reader more than he is told by the log.
        let guard = epoch::pin();
        let mut larger = pool.take(4096, 0, 0).unwrap();
        writer.copy_into(&mut larger).unwrap();
        let chunk = Arc::clone(larger.chunk());
        log.change_root(|root| root.chunks = Few::from(vec![chunk]));
        append(&mut larger, 1);
        reader.join().unwrap();
        drop(guard);
        assert_eq!(read_all(log.root().chunks.last().unwrap()), 2);
    });
}
