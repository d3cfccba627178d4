//! Tests of the pool: what it counts, what it gives out again, what it refuses.

use std::sync::Arc;

use lanterman_format::buffer::ValueType;

use super::pool::Pool;
use crate::region::chunk::ChunkWriter;

const SLAB: u64 = 1 << 20;

fn address(writer: &mut ChunkWriter) -> usize {
    writer.reserved(8).unwrap().as_ptr().addr()
}

#[test]
fn a_pool_gives_nothing_beyond_its_budget_and_everything_again_afterwards() {
    let pool = Pool::new(2 * SLAB, SLAB);
    let first = pool.take(SLAB, 0, 0).unwrap();
    let second = pool.take(SLAB, 0, 0).unwrap();
    assert!(pool.take(1, 0, 0).is_none());
    assert_eq!(pool.held_bytes(), (2 * SLAB, 0));
    drop(first);
    assert_eq!(pool.held_bytes(), (SLAB, 0));
    let third = pool.take(SLAB, 0, 0).unwrap();
    drop((second, third));
    assert_eq!(pool.held_bytes(), (0, 0));
}

#[test]
fn memory_of_a_retired_chunk_is_counted_for_readers_until_the_last_of_them_goes() {
    let pool = Pool::new(SLAB, SLAB);
    let chunk = pool.take(SLAB, 0, 0).unwrap().close();
    let reader = Arc::clone(&chunk);
    chunk.retire();
    chunk.retire();
    assert_eq!(pool.held_bytes(), (0, SLAB));
    let writer = pool.take(SLAB, 0, 0);
    assert!(writer.is_some(), "what only readers hold does not stop writers");
    drop(chunk);
    assert_eq!(pool.held_bytes(), (SLAB, SLAB));
    drop(reader);
    assert_eq!(pool.held_bytes(), (SLAB, 0));
}

#[test]
fn the_memory_that_came_back_last_is_given_out_first() {
    let pool = Pool::new(4 * SLAB, SLAB);
    let mut first = pool.take(SLAB, 0, 0).unwrap();
    let mut second = pool.take(SLAB, 0, 0).unwrap();
    let (first_at, second_at) = (address(&mut first), address(&mut second));
    drop(second);
    drop(first);
    assert_eq!(address(&mut pool.take(SLAB, 0, 0).unwrap()), first_at);
    let _held = pool.take(SLAB, 0, 0).unwrap();
    assert_eq!(address(&mut pool.take(SLAB, 0, 0).unwrap()), second_at);
}

#[test]
fn chunks_of_one_arena_never_share_a_byte() {
    let pool = Pool::new(4 << 20, SLAB);
    let mut writers: Vec<ChunkWriter> = (0..600).map(|_| pool.take(4096, 0, 0).unwrap()).collect();
    for (number, writer) in (0..=u32::MAX).zip(&mut writers) {
        while writer
            .append_plain(&number.to_le_bytes(), ValueType::BYTES)
            .is_ok()
        {}
    }
    for (number, writer) in (0..=u32::MAX).zip(&writers) {
        let chunk = writer.chunk();
        let position = chunk.position(writer.entry_count() - 1).unwrap();
        for at in [256, position] {
            assert_eq!(chunk.buffer_at(at).unwrap().value(), number.to_le_bytes());
        }
    }
}

#[test]
fn a_message_larger_than_a_slab_gets_memory_of_its_own_that_goes_back_at_once() {
    let pool = Pool::new(2 * SLAB, SLAB);
    let capacity = pool.capacity_for(8 << 20, 1);
    let mut large = pool.take(capacity, 0, 0).unwrap();
    assert!(
        large
            .append_plain(&vec![1; (8 << 20) - 8], ValueType::BYTES)
            .is_ok()
    );
    assert!(
        pool.take(SLAB, 0, 0).is_none(),
        "the budget is used up by the large one"
    );
    drop(large);
    assert_eq!(pool.held_bytes(), (0, 0));
}

#[test]
fn memory_larger_than_a_slab_serves_the_next_of_its_size_and_no_more_is_kept_than_half_of_the_budget() {
    let pool = Pool::new(64 << 20, SLAB);
    let capacity = pool.capacity_for(8 << 20, 1);
    let take = |capacity| pool.take(capacity, 0, 0).unwrap();
    let mut large = take(capacity);
    let first_at = address(&mut large);
    drop(large);
    let mut another = take(pool.capacity_for(20 << 20, 1));
    assert_ne!(address(&mut another), first_at, "it would not fit");
    let mut again = take(capacity);
    assert_eq!(address(&mut again), first_at);
    let more: Vec<ChunkWriter> = (0..3).map(|_| take(capacity)).collect();
    drop((again, another, more));
    assert_eq!(pool.held_bytes(), (0, 0));
    let kept = pool.free_bytes();
    assert!(kept >= 2 * take(capacity).capacity(), "{kept}");
    assert!(kept <= 32 << 20, "{kept}");
    pool.trim();
    assert_eq!(pool.free_bytes(), 0);
}

#[test]
fn recovery_may_exceed_the_budget_and_writers_wait_until_it_is_kept_again() {
    let pool = Pool::new(SLAB, SLAB);
    pool.set_unbounded(true);
    let held: Vec<ChunkWriter> = (0..3).map(|_| pool.take(SLAB, 0, 0).unwrap()).collect();
    pool.set_unbounded(false);
    assert!(pool.take(4096, 0, 0).is_none());
    drop(held);
    assert!(pool.take(4096, 0, 0).is_some());
}

#[test]
fn trimming_frees_whole_arenas_and_leaves_what_is_used_alone() {
    let pool = Pool::new(8 * SLAB, SLAB);
    let mut kept = pool.take(64 << 10, 0, 0).unwrap();
    let others: Vec<ChunkWriter> = (0..40).map(|_| pool.take(64 << 10, 0, 0).unwrap()).collect();
    kept.append_plain(b"kept", ValueType::BYTES).unwrap();
    drop(others);
    let before = pool.free_bytes();
    pool.trim();
    assert_eq!(before, 2 * (2 << 20) - (64 << 10));
    assert_eq!(
        pool.free_bytes(),
        (2 << 20) - (64 << 10),
        "one arena is in use in part"
    );
    assert_eq!(kept.chunk().buffer_at(256).unwrap().value(), b"kept");
    drop(kept);
    pool.trim();
    assert_eq!(pool.free_bytes(), 0);
}

#[test]
fn a_chunk_of_the_capacity_asked_for_takes_what_it_was_asked_for() {
    let pool = Pool::new(64 << 20, SLAB);
    for (messages, bytes) in [
        (1u64, 1u64),
        (1, 4000),
        (170, 1),
        (100, 40),
        (1, 1 << 20),
        (3, 70_000),
        (40_000, 3),
    ] {
        let stored = messages * (8 + bytes.next_multiple_of(8));
        let capacity = pool.capacity_for(stored, messages);
        let mut writer = pool.take(capacity, 0, 0).unwrap();
        for _ in 0..messages {
            let value = vec![1; usize::try_from(bytes).unwrap()];
            assert!(
                writer.append_plain(&value, ValueType::BYTES).is_ok(),
                "{messages} of {bytes} bytes"
            );
        }
    }
}

#[test]
fn a_small_chunk_is_cut_out_of_a_free_large_one_before_the_system_is_asked_for_memory() {
    let pool = Pool::new(4 * SLAB, SLAB);
    let first = pool.take(SLAB, 0, 0).unwrap();
    let second = pool.take(SLAB, 0, 0).unwrap();
    drop((first, second));
    let bytes = pool.free_bytes();
    let small: Vec<ChunkWriter> = (0..40).map(|_| pool.take(4096, 0, 0).unwrap()).collect();
    let middle = pool.take(64 << 10, 0, 0).unwrap();
    assert_eq!(
        pool.free_bytes() + 40 * 4096 + (64 << 10),
        bytes,
        "all of it came from what was there"
    );
    pool.trim();
    drop((small, middle));
    assert_eq!(pool.free_bytes(), bytes, "nothing of it is lost");
    pool.trim();
    assert_eq!(
        pool.free_bytes(),
        0,
        "pieces of an arena go together, whatever their sizes"
    );
}

#[test]
fn a_full_slab_that_is_no_multiple_of_smaller_chunks_stays_whole() {
    let slab = 300 << 10;
    let pool = Pool::new(8 * slab, slab);
    drop(pool.take(slab, 0, 0).unwrap());
    let bytes = pool.free_bytes();
    drop(pool.take(4096, 0, 0).unwrap());
    assert!(pool.free_bytes() > bytes, "other memory was taken");
    pool.trim();
    assert_eq!(pool.free_bytes(), 0);
}
