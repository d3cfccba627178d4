//! Chunk memory in size classes, under one budget.
//!
//! Memory is cut from arenas of 2 MiB. Those of full chunks ask for huge pages: direct writes from huge pages ran 1.6 to 2 times
//! as fast as from small ones (decision 1). Smaller chunks do not: the first byte of a huge page waits until all of it is
//! cleared, which took an appender 3 to 4 ms for each size that a log grows through (decision 18). What was used last is given
//! out first, since it is warm. A chunk for a message or a batch larger than a full slab has an arena of its own, of whole huge pages,
//! which is kept for the next of its size.
//!
//! Invariant: `in_use` is the memory of all chunks that are not retired; it exceeds the budget only by a message that is
//! larger than a full slab, by the newest messages that a fork or a splice copies, or during recovery.

use std::collections::HashMap;
use std::ptr::NonNull;
use std::sync::Arc;

use lanterman_format::key_sketch::KEY_SKETCH_BYTES_MAX;
use lanterman_format::weakened;

use crate::atomics::{AtomicBool, AtomicU32, AtomicU64, Mutex, Ordering};
use crate::region::chunk::ChunkWriter;
use crate::sys::memory::{OffHeap, Touch};

/// Smallest class.
const SMALLEST: u64 = 4 << 10;
/// Each class is so many times the one before.
const STEP: u64 = 4;
/// Memory is asked of the system in pieces of this size.
#[cfg(not(any(all(loom, test), lanterman_thread_sanitizer)))]
const ARENA_BYTES: u64 = 2 << 20;
/// Each entry of an index is an object that loom follows: one small chunk is enough. For the thread sanitizer each piece
/// is its own, see [`Pool::give_back`].
#[cfg(any(all(loom, test), lanterman_thread_sanitizer))]
const ARENA_BYTES: u64 = SMALLEST;
/// Full chunks that are kept ready while slabs are written.
const READY_PIECES: u64 = 4;
/// Bytes of a chunk for each entry of its index: messages whose stored form is smaller fill the index first.
#[cfg(not(all(loom, test)))]
const BYTES_PER_ENTRY: u64 = 24;
#[cfg(all(loom, test))]
const BYTES_PER_ENTRY: u64 = 1024;
/// What a slab takes beside buffers and index: head, histogram, a sketch of keys, roundings. The checksum table comes on top.
const FIXED_BYTES: u64 = 512 + KEY_SKETCH_BYTES_MAX as u64;

/// A piece of memory for one chunk.
#[derive(Debug)]
struct Piece {
    arena: Arc<Arena>,
    start: u64,
    capacity: u64,
    positions: Box<[AtomicU32]>,
}

impl Piece {
    fn new(arena: &Arc<Arena>, start: u64, capacity: u64) -> Self {
        let entries = usize::try_from(capacity / BYTES_PER_ENTRY).unwrap_or(0);
        Piece {
            arena: Arc::clone(arena),
            start,
            capacity,
            positions: (0..entries).map(|_| AtomicU32::new(0)).collect(),
        }
    }
}

/// Memory from which pieces are cut.
#[derive(Debug)]
struct Arena {
    memory: OffHeap,
    /// Bytes of all its pieces.
    cut_bytes: u64,
}

/// The capacities that pieces are kept of, rising, a full slab's last.
fn classes(slab_bytes_max: u64) -> impl Iterator<Item = u64> {
    std::iter::successors(Some(SMALLEST), move |class| {
        (*class < slab_bytes_max).then(|| class.saturating_mul(STEP).min(slab_bytes_max))
    })
}

/// The memory of all tails of a store.
#[derive(Debug)]
pub(crate) struct Pool {
    budget: u64,
    slab_bytes_max: u64,
    /// By class, those larger than a full slab behind all others.
    free: Mutex<Vec<Vec<Piece>>>,
    in_use: AtomicU64,
    retired: AtomicU64,
    unbounded: AtomicBool,
}

impl Pool {
    pub(crate) fn new(budget: u64, slab_bytes_max: u64) -> Arc<Self> {
        // One list a class, and one for what is larger than a full slab.
        let lists = classes(slab_bytes_max).count().saturating_add(1);
        Arc::new(Pool {
            budget,
            slab_bytes_max,
            free: Mutex::new(std::iter::repeat_with(Vec::new).take(lists).collect()),
            in_use: AtomicU64::new(0),
            retired: AtomicU64::new(0),
            unbounded: AtomicBool::new(false),
        })
    }

    /// Lifts the budget: recovery takes what the journal needs, which is bounded by the journal.
    pub(crate) fn set_unbounded(&self, unbounded: bool) {
        self.unbounded.store(unbounded, Ordering::Release);
    }

    /// The capacity of a chunk that takes `body` bytes of buffers in `entries` entries.
    pub(crate) fn capacity_for(&self, body: u64, entries: u64) -> u64 {
        let groups = body / 4096 + 2;
        let needed = body
            .saturating_add(entries.saturating_mul(4))
            .saturating_add(groups * 4 + FIXED_BYTES);
        let wanted = needed
            .max(entries.saturating_mul(BYTES_PER_ENTRY))
            .saturating_add(groups * 4);
        self.capacity_class(wanted)
    }

    /// A chunk of at least `capacity` bytes whose first message has the offset `first_offset`; `None` when the budget is
    /// used up or the system has no memory.
    pub(crate) fn take(
        self: &Arc<Self>,
        capacity: u64,
        first_offset: u64,
        opened_ms: i64,
    ) -> Option<ChunkWriter> {
        let unbounded = self.unbounded.load(Ordering::Acquire);
        self.take_within(capacity, first_offset, opened_ms, unbounded)
    }

    /// The same beyond the budget, for what was promised already. `None` when the system has no memory.
    pub(crate) fn take_beyond(
        self: &Arc<Self>,
        capacity: u64,
        first_offset: u64,
        opened_ms: i64,
    ) -> Option<ChunkWriter> {
        self.take_within(capacity, first_offset, opened_ms, true)
    }

    fn take_within(
        self: &Arc<Self>,
        capacity: u64,
        first_offset: u64,
        opened_ms: i64,
        unbounded: bool,
    ) -> Option<ChunkWriter> {
        let capacity = self.capacity_class(capacity);
        let memory = self.memory_of(capacity);
        let in_use = if weakened!("memory-asked-then-counted") {
            let seen = self.in_use.load(Ordering::Acquire);
            self.in_use.fetch_add(memory, Ordering::AcqRel);
            seen
        } else {
            self.in_use.fetch_add(memory, Ordering::AcqRel)
        };
        if !self.allows(in_use, memory) && !unbounded {
            self.in_use.fetch_sub(memory, Ordering::AcqRel);
            return None;
        }
        let Some(piece) = self.piece(memory) else {
            self.in_use.fetch_sub(memory, Ordering::AcqRel);
            return None;
        };
        let lease = Lease {
            pool: Arc::clone(self),
            piece: Some(piece),
            capacity,
            memory,
            retired: AtomicBool::new(false),
        };
        Some(ChunkWriter::new(lease, first_offset, opened_ms))
    }

    /// Whether a chunk of `memory` bytes may be taken beside so much that is in use.
    fn allows(&self, in_use: u64, memory: u64) -> bool {
        let fits = in_use.saturating_add(memory) <= self.budget;
        // One message larger than a slab may exceed the budget, or it could never be appended.
        let large = memory > self.slab_bytes_max && in_use <= self.budget;
        fits || large
    }

    /// How many bytes chunks of these capacities take together, if that is more than there will ever be for them: then
    /// waiting for memory is in vain.
    pub(crate) fn beyond_budget(&self, capacities: impl IntoIterator<Item = u64>) -> Option<u64> {
        let mut is_allowed = true;
        let bytes = capacities.into_iter().fold(0_u64, |in_use, capacity| {
            let memory = self.memory_of(capacity);
            is_allowed &= self.allows(in_use, memory);
            in_use.saturating_add(memory)
        });
        (!is_allowed).then_some(bytes)
    }

    fn classes(&self) -> impl Iterator<Item = u64> {
        classes(self.slab_bytes_max)
    }

    fn capacity_class(&self, wanted: u64) -> u64 {
        let class = self.classes().find(|class| *class >= wanted);
        class.unwrap_or_else(|| wanted.next_multiple_of(SMALLEST))
    }

    /// What a chunk of a capacity takes: one larger than a full slab whole huge pages, unless that would double it.
    fn memory_of(&self, capacity: u64) -> u64 {
        match capacity > self.slab_bytes_max && capacity > ARENA_BYTES / 2 {
            true => capacity.next_multiple_of(ARENA_BYTES),
            false => capacity,
        }
    }

    fn class_index(&self, capacity: u64) -> Option<usize> {
        self.classes().position(|class| class == capacity)
    }

    fn piece(&self, capacity: u64) -> Option<Piece> {
        let Some(index) = self.class_index(capacity) else {
            return self.large_piece(capacity);
        };
        let mut free = self.free.lock();
        if let Some(piece) = free.get_mut(index)?.pop() {
            return Some(piece);
        }
        if let Some(piece) = self.split_larger(&mut free, index) {
            return Some(piece);
        }
        let mut fresh = self.cut(capacity, ARENA_BYTES.max(capacity), Touch::Later)?;
        let piece = fresh.pop();
        free.get_mut(index)?.append(&mut fresh);
        piece
    }

    /// A piece larger than a full slab.
    fn large_piece(&self, capacity: u64) -> Option<Piece> {
        let kept = {
            let mut free = self.free.lock();
            let large = free.get_mut(self.classes().count());
            large.and_then(|pieces| {
                let newest = pieces.iter().rposition(|piece| piece.capacity == capacity)?;
                Some(pieces.remove(newest))
            })
        };
        kept.or_else(|| self.cut(capacity, capacity, Touch::Later)?.pop())
    }

    /// Whether fewer full chunks are ready than an appender in a hurry may want, and the budget has room for more.
    pub(crate) fn is_short_of_full(&self) -> bool {
        let capacity = self.slab_bytes_max;
        let Some(index) = self.class_index(capacity) else {
            return false;
        };
        let (in_use, retired) = self.held_bytes();
        let wanted = in_use.saturating_add(capacity.saturating_mul(READY_PIECES)) <= self.budget
            && retired < self.budget;
        let ready = || self.free.lock().get(index).map_or(0, Vec::len) as u64;
        wanted && ready() < READY_PIECES
    }

    /// A piece out of the smallest larger one that is free: its pages are there, and those of fresh memory would first have
    /// to be cleared.
    fn split_larger(&self, free: &mut [Vec<Piece>], index: usize) -> Option<Piece> {
        if weakened!("larger-pieces-stay-whole") {
            return None;
        }
        let mut larger = index;
        let mut piece = loop {
            larger = larger.saturating_add(1);
            // A full slab may be no multiple of the class below.
            let part = self.classes().nth(larger.saturating_sub(1))?;
            if !self.classes().nth(larger)?.is_multiple_of(part) {
                return None;
            }
            if let Some(piece) = free.get_mut(larger)?.pop() {
                break piece;
            }
        };
        while larger > index {
            larger = larger.saturating_sub(1);
            let part = self.classes().nth(larger)?;
            let parts = piece.capacity.checked_div(part)?;
            let start = piece.start;
            let part_at = |number: u64| {
                let start = start.saturating_add(number.saturating_mul(part));
                Piece::new(&piece.arena, start, part)
            };
            free.get_mut(larger)?.extend((1..parts).rev().map(part_at));
            piece = part_at(0);
        }
        Some(piece)
    }

    /// Has a few full chunks ready whose pages are made, so that an appender in a hurry does not wait for the kernel
    /// to clear them. For the helper thread, while slabs are written.
    pub(crate) fn prepare(&self) {
        let capacity = self.slab_bytes_max;
        let Some(index) = self.class_index(capacity).filter(|_| self.is_short_of_full()) else {
            return;
        };
        let Some(mut fresh) = self.cut(capacity, ARENA_BYTES.max(capacity), Touch::Now) else {
            return;
        };
        let mut free = self.free.lock();
        if let Some(list) = free.get_mut(index) {
            list.append(&mut fresh);
        }
    }

    fn give_back(&self, piece: Piece) {
        // The thread sanitizer does not see the fence with which the last holder of a chunk takes over from the others,
        // and would call every second use of a piece a race: there each piece is used once. That the memory is nobody's
        // by then is shown by a model.
        if cfg!(lanterman_thread_sanitizer) {
            return;
        }
        let large = self.classes().count();
        let index = self.class_index(piece.capacity).unwrap_or(large);
        let mut free = self.free.lock();
        let Some(list) = free.get_mut(index) else { return };
        let is_too_much = || {
            let kept: u64 = list.iter().map(|piece| piece.capacity).sum();
            kept.saturating_add(piece.capacity) > self.budget / 2
        };
        if index == large && (is_too_much() || weakened!("large-pieces-go")) {
            // Unmapped with the lock released.
            drop(free);
            drop(piece);
            return;
        }
        list.push(piece);
    }

    /// Gives memory that no chunk uses back to the system, as far as whole arenas are free.
    pub(crate) fn trim(&self) {
        let mut freed = Vec::new();
        let mut free = self.free.lock();
        let mut free_bytes: HashMap<usize, u64> = HashMap::new();
        for piece in free.iter().flatten() {
            let bytes = free_bytes.entry(Arc::as_ptr(&piece.arena).addr()).or_insert(0);
            *bytes = bytes.saturating_add(piece.capacity);
        }
        // An arena goes when the last of its pieces goes; pieces whose neighbours are in use are kept.
        let whole = |piece: &mut Piece| {
            free_bytes.get(&Arc::as_ptr(&piece.arena).addr()) == Some(&piece.arena.cut_bytes)
        };
        for list in free.iter_mut() {
            freed.extend(list.extract_if(.., whole));
        }
        drop(free);
        // Unmapped here, with the lock released.
        drop(freed);
    }

    /// Bytes kept for chunks to come.
    pub(crate) fn free_bytes(&self) -> u64 {
        self.free
            .lock()
            .iter()
            .flatten()
            .map(|piece| piece.capacity)
            .sum()
    }

    /// Whether so much is kept for chunks to come that it is time to give it back, though the store is busy.
    pub(crate) fn has_much_free(&self) -> bool {
        self.free_bytes() > self.budget / 2
    }

    /// Bytes that chunks hold: those that writers need, and those kept for readers alone.
    pub(crate) fn held_bytes(&self) -> (u64, u64) {
        (
            self.in_use.load(Ordering::Acquire),
            self.retired.load(Ordering::Acquire),
        )
    }

    /// New memory, cut into pieces of one size.
    fn cut(&self, capacity: u64, arena_bytes: u64, touch: Touch) -> Option<Vec<Piece>> {
        let bytes = usize::try_from(arena_bytes).ok()?;
        let memory = match capacity >= self.slab_bytes_max {
            true => OffHeap::with_huge_pages(bytes, touch),
            false => OffHeap::new(bytes, touch),
        };
        let count = arena_bytes.checked_div(capacity)?;
        let arena = Arc::new(Arena {
            memory: memory.ok()?,
            cut_bytes: count.saturating_mul(capacity),
        });
        let piece = |number: u64| Piece::new(&arena, number.saturating_mul(capacity), capacity);
        Some((0..count).rev().map(piece).collect())
    }
}

/// The right of one chunk to its memory.
#[derive(Debug)]
pub(crate) struct Lease {
    pool: Arc<Pool>,
    piece: Option<Piece>,
    /// What the chunk may use.
    capacity: u64,
    /// What it counts as.
    memory: u64,
    retired: AtomicBool,
}

impl Lease {
    /// The first byte; valid for `capacity` bytes for as long as the lease lives.
    pub(crate) fn memory(&self) -> NonNull<u8> {
        self.piece.as_ref().map_or(NonNull::dangling(), |piece| {
            piece
                .arena
                .memory
                .pointer_at(usize::try_from(piece.start).unwrap_or(0))
        })
    }

    pub(crate) fn capacity(&self) -> u32 {
        u32::try_from(self.capacity).unwrap_or(0)
    }

    /// The memory for the places of buffers; given back at the end.
    pub(crate) fn take_positions(&mut self) -> Box<[AtomicU32]> {
        self.piece
            .as_mut()
            .map(|piece| std::mem::take(&mut piece.positions))
            .unwrap_or_default()
    }

    /// Stops counting against the writers' budget.
    pub(crate) fn retire(&self) {
        if !self.retired.swap(true, Ordering::AcqRel) {
            self.pool.in_use.fetch_sub(self.memory, Ordering::AcqRel);
            self.pool.retired.fetch_add(self.memory, Ordering::AcqRel);
        }
    }

    /// Ends the lease.
    pub(crate) fn give_back(&mut self, positions: Box<[AtomicU32]>) {
        let Some(mut piece) = self.piece.take() else {
            return;
        };
        piece.positions = positions;
        let counter = if self.retired.load(Ordering::Acquire) {
            &self.pool.retired
        } else {
            &self.pool.in_use
        };
        counter.fetch_sub(self.memory, Ordering::AcqRel);
        self.pool.give_back(piece);
    }
}
