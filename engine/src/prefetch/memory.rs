//! The memory of what is read ahead: one budget for all readers of a store.
//!
//! Invariant: the bytes of all buffers that are lent, in flight or spare never exceed the budget. A buffer counts until it is
//! freed, also one that a user's message keeps alive; whoever gets none reads without.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::sys::memory::AlignedBuffer;

/// The least buffer. Lengths are powers of two, so that those of one reader fit the next.
const BUFFER_BYTES_MIN: usize = 64 << 10;

/// The memory of all readers.
#[derive(Debug)]
pub(crate) struct PrefetchMemory {
    bytes_max: u64,
    used: AtomicU64,
    spares: Mutex<Spares>,
}

#[derive(Debug, Default)]
struct Spares {
    buffers: Vec<AlignedBuffer>,
    /// How many readers may want them; without any, none are kept.
    users: u64,
}

/// Says, for as long as it lives, that spare buffers are worth keeping.
#[derive(Debug)]
pub(crate) struct MemoryUser {
    memory: Arc<PrefetchMemory>,
}

/// Bytes of the budget, for as long as it lives.
#[derive(Debug)]
pub(crate) struct Ticket {
    memory: Arc<PrefetchMemory>,
    bytes: u64,
}

/// A buffer to read into, and its part of the budget.
#[derive(Debug)]
pub(crate) struct Loan {
    pub(crate) buffer: AlignedBuffer,
    pub(crate) ticket: Ticket,
}

/// What was read, for as long as somebody looks at it.
#[derive(Debug)]
pub(crate) struct Lent {
    /// Both are there until it is dropped.
    loan: Option<Loan>,
}

impl PrefetchMemory {
    /// Memory of at most so many bytes.
    pub(crate) fn new(bytes_max: u64) -> Arc<Self> {
        Arc::new(PrefetchMemory {
            bytes_max,
            used: AtomicU64::new(0),
            spares: Mutex::default(),
        })
    }

    /// How many bytes there may be.
    pub(crate) fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    /// How many bytes are in use or spare.
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Says that a reader will want buffers again and again.
    pub(crate) fn user(self: &Arc<Self>) -> MemoryUser {
        let mut spares = self.spares.lock();
        spares.users = spares.users.saturating_add(1);
        drop(spares);
        MemoryUser {
            memory: Arc::clone(self),
        }
    }

    /// A buffer of at least `bytes`; nothing where the budget or the system has none.
    pub(crate) fn take(self: &Arc<Self>, bytes: usize) -> Option<Loan> {
        let bytes = bytes.max(BUFFER_BYTES_MIN).checked_next_power_of_two()?;
        let ticket = |bytes: u64| Ticket {
            memory: Arc::clone(self),
            bytes,
        };
        let spare = {
            let mut spares = self.spares.lock();
            let fits = spares.buffers.iter().position(|spare| spare.len() == bytes);
            fits.map(|index| spares.buffers.swap_remove(index))
        };
        if let Some(buffer) = spare {
            // It was counted while it was spare.
            let ticket = ticket(bytes as u64);
            return Some(Loan { buffer, ticket });
        }
        while !self.reserve(bytes as u64) {
            // Spare buffers of other lengths make room.
            let spare = self.spares.lock().buffers.pop()?;
            let freed = spare.len() as u64;
            // Freed before it is counted as free: whoever finds the room takes memory at once.
            drop(spare);
            self.used.fetch_sub(freed, Ordering::Relaxed);
        }
        let ticket = ticket(bytes as u64);
        let buffer = AlignedBuffer::new(bytes).ok()?;
        Some(Loan { buffer, ticket })
    }

    fn reserve(&self, bytes: u64) -> bool {
        let within = |used: u64| {
            let sum = used.checked_add(bytes)?;
            (sum <= self.bytes_max).then_some(sum)
        };
        let reserved = self
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, within);
        reserved.is_ok()
    }

    fn give_back(&self, loan: Loan) {
        let Loan { buffer, ticket } = loan;
        let mut spares = self.spares.lock();
        if spares.users > 0 {
            spares.buffers.push(buffer);
            drop(spares);
            // Spare ones count too.
            ticket.keep_counted();
        } else {
            drop(spares);
            drop(buffer);
            drop(ticket);
        }
    }
}

impl Drop for MemoryUser {
    fn drop(&mut self) {
        let mut spares = self.memory.spares.lock();
        spares.users = spares.users.saturating_sub(1);
        if spares.users > 0 {
            return;
        }
        let gone = std::mem::take(&mut spares.buffers);
        drop(spares);
        let bytes: u64 = gone.iter().map(|buffer| buffer.len() as u64).sum();
        drop(gone);
        self.memory.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Ticket {
    /// Leaves the bytes counted: for memory that stays, as a spare, or for ever with a kernel that does not give it back.
    pub(crate) fn keep_counted(mut self) {
        self.bytes = 0;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.memory.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Lent {
    pub(crate) fn new(loan: Loan) -> Self {
        Lent { loan: Some(loan) }
    }
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        self.loan.as_ref().map_or(&[], |loan| &loan.buffer)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(loan) = self.loan.take() {
            let memory = Arc::clone(&loan.ticket.memory);
            memory.give_back(loan);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_spare_as_long_as_a_reader_may_want_them_and_never_exceed_the_budget() {
        let memory = PrefetchMemory::new(1 << 20);
        let user = memory.user();
        let another = memory.user();
        let first = Lent::new(memory.take(300_000).unwrap());
        assert_eq!((first.as_ref().len(), memory.used()), (512 << 10, 512 << 10));
        let second = memory.take(512 << 10).unwrap();
        assert!(memory.take(1).is_none(), "the budget is used up");
        drop(Lent::new(second));
        drop(first);
        assert_eq!(memory.used(), 1 << 20, "spare buffers count");
        let again = memory.take(400_000).unwrap();
        assert_eq!(memory.used(), 1 << 20);
        // A spare one of another length makes room.
        let small = memory.take(1).unwrap();
        assert_eq!(memory.used(), (512 << 10) + (64 << 10));
        drop(user);
        drop(Lent::new(again));
        drop(small);
        assert_eq!(memory.used(), 512 << 10);
        let kept = Lent::new(memory.take(512 << 10).unwrap());
        drop(another);
        assert_eq!(memory.used(), 512 << 10, "what is looked at stays");
        drop(kept);
        assert_eq!(memory.used(), 0);
    }

    #[test]
    fn a_buffer_larger_than_the_budget_is_none() {
        let memory = PrefetchMemory::new(1 << 20);
        assert!(memory.take((1 << 20) + 1).is_none());
        assert!(memory.take(usize::MAX).is_none());
        assert!(PrefetchMemory::new(0).take(1).is_none());
        assert_eq!(memory.used(), 0);
    }
}
