//! Pinning and reclaiming: roots that are swapped under readers, chunks whose memory goes round, images, pins.

use std::sync::Arc;

use loom::thread;

use lanterman_format::block::BlockIdentity;
use lanterman_format::buffer::ValueType;
use lanterman_format::ids::{Generation, LogId, Position, SegmentId, StoreId, Version};

use super::every_order;
use crate::pins::PinTable;
use crate::region::chunk::{Chunk, ChunkWriter};
use crate::region::root::RootCell;
use crate::tail::pool::Pool;

/// The smallest class: a piece of it is all that the models' pool has in an arena.
const CHUNK_BYTES: u64 = 4096;

#[test]
fn a_root_is_destroyed_only_when_nobody_looks_at_it() {
    every_order(|| {
        let cell = Arc::new(RootCell::new(Box::new(0u64)));
        let shared = Arc::clone(&cell);
        let reader = thread::spawn(move || {
            let first = shared.with(|value| **value);
            assert!(shared.with(|value| **value) >= first);
        });
        cell.store(Box::new(1));
        cell.store(Box::new(2));
        reader.join().unwrap();
        assert_eq!(*cell.load(), 2);
    });
}

fn chunk_that_says(pool: &Arc<Pool>, offset: u64) -> ChunkWriter {
    let mut writer = pool.take(CHUNK_BYTES, offset, 0).unwrap();
    writer
        .append_plain(&offset.to_le_bytes(), ValueType::BYTES)
        .unwrap();
    writer
}

fn assert_says_its_offset(chunk: &Chunk) {
    let position = chunk.position(0).unwrap();
    let buffer = chunk.buffer_at(position).unwrap();
    assert_eq!(buffer.value()[..], chunk.first_offset().to_le_bytes());
}

/// A chunk as a root holds it. The count is one that loom follows, so that whoever lets go of it last sees what the
/// others did, as with the real one.
type Held = loom::sync::Arc<Arc<Chunk>>;

fn held_chunk_that_says(pool: &Arc<Pool>, offset: u64) -> Held {
    Held::new(Arc::clone(chunk_that_says(pool, offset).chunk()))
}

/// The memory of the first chunk serves the third.
#[test]
fn memory_is_written_again_only_when_nobody_holds_its_chunk() {
    every_order(|| {
        let pool = Pool::new(2 * CHUNK_BYTES, 1 << 20);
        let cell = Arc::new(RootCell::new(held_chunk_that_says(&pool, 10)));
        let shared = Arc::clone(&cell);
        let reader = thread::spawn(move || {
            let held = shared.load();
            assert_says_its_offset(&held);
            shared.with(|chunk| assert_says_its_offset(chunk));
            assert_says_its_offset(&held);
        });
        cell.load().retire();
        cell.store(held_chunk_that_says(&pool, 20));
        cell.load().retire();
        cell.store(held_chunk_that_says(&pool, 30));
        reader.join().unwrap();
        let (in_use, _) = pool.held_bytes();
        assert_eq!(in_use, CHUNK_BYTES, "one chunk is left that is not retired");
        drop(cell);
        assert_eq!(pool.held_bytes(), (0, 0));
    });
}

#[test]
fn two_who_want_the_last_memory_do_not_both_get_it() {
    every_order(|| {
        let pool = Pool::new(CHUNK_BYTES, 1 << 20);
        let other = Arc::clone(&pool);
        let second = thread::spawn(move || other.take(CHUNK_BYTES, 0, 0));
        let first = pool.take(CHUNK_BYTES, 0, 0);
        let second = second.join().unwrap();
        assert!(first.is_none() || second.is_none(), "the budget is one chunk");
        let held = u64::from(first.is_some()) + u64::from(second.is_some());
        assert_eq!(pool.held_bytes(), (held * CHUNK_BYTES, 0));
    });
}

#[test]
fn a_chunk_is_not_sealed_anew_while_its_image_is_written() {
    every_order(|| {
        let pool = Pool::new(CHUNK_BYTES, 1 << 20);
        let chunk = chunk_that_says(&pool, 10).close();
        let identity = |version| BlockIdentity {
            store: StoreId::from_bytes([7; 16]),
            segment: SegmentId::new(3),
            generation: Generation::new(1),
            position: Position::new(4096),
            version: Version::new(version),
        };
        let sealed = chunk.seal(LogId::new(1), 0, &identity(1)).unwrap();
        let image = chunk.image(&sealed);
        let disk = thread::spawn(move || {
            let before = (*image).as_ref().to_vec();
            thread::yield_now();
            assert!((*image).as_ref() == before, "the image changed under the disk");
        });
        let again = chunk.seal(LogId::new(1), 0, &identity(2));
        disk.join().unwrap();
        assert!(again.is_ok() || chunk.seal(LogId::new(1), 0, &identity(2)).is_ok());
    });
}

#[test]
fn a_version_is_held_until_its_last_holder_goes() {
    every_order(|| {
        let table = Arc::new(PinTable::default());
        let pin = table.pin(Version::new(3));
        let another = table.pin(Version::new(3));
        let other = thread::spawn(move || drop(another));
        let later = table.pin(Version::new(5));
        assert_eq!(table.oldest_version(), Some(Version::new(3)));
        drop(pin);
        other.join().unwrap();
        assert_eq!(table.oldest_version(), Some(Version::new(5)));
        drop(later);
        assert_eq!(table.oldest_version(), None);
    });
}
