//! The memory of what is read ahead: one budget for all readers of a store.
//!
//! Large buffers are parts of huge pages: to a device, a read into small pages is a long list of small pieces (writes from them were half
//! as fast, decision 1). Where two buffers share a page, it counts until both are gone.
//!
//! Invariant: the bytes of all memory behind buffers that are lent, in flight or spare never exceed the budget. Memory counts until
//! it is freed, also where a user's message keeps it alive; whoever gets none reads without.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lanterman_format::weakened;
use parking_lot::Mutex;

use crate::sys::memory::{AlignedBuffer, HUGE_PAGE_BYTES};

/// The least buffer. Lengths are powers of two, so that those of one reader fit the next.
const BUFFER_BYTES_MIN: usize = 64 << 10;
/// Buffers of so many bytes and more come from huge pages; who wants less reads too little to have one cleared for it.
const HUGE_FROM_BYTES: usize = 512 << 10;

/// The memory of all readers.
#[derive(Debug)]
pub(crate) struct PrefetchMemory {
    bytes_max: u64,
    used: AtomicU64,
    spares: Mutex<Spares>,
}

#[derive(Debug, Default)]
struct Spares {
    loans: Vec<Loan>,
    /// How many readers may want them; without any, none are kept.
    users: u64,
}

/// Says, for as long as it lives, that spare buffers are worth keeping.
#[derive(Debug)]
pub(crate) struct MemoryUser {
    memory: Arc<PrefetchMemory>,
}

/// Bytes of the budget, for as long as it lives: those of a map that one buffer or several are parts of.
#[derive(Debug)]
struct Counted {
    memory: Arc<PrefetchMemory>,
    bytes: u64,
}

/// A buffer's part of the budget.
#[derive(Debug)]
pub(crate) struct Ticket(Arc<Counted>);

/// A buffer to read into, and its part of the budget, which must be dropped last: with the last of those that share memory, that
/// memory is gone.
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
        if let Some(spare) = self.spare(bytes) {
            return Some(spare);
        }
        if (HUGE_FROM_BYTES..HUGE_PAGE_BYTES).contains(&bytes)
            && let Some(counted) = self.reserve(HUGE_PAGE_BYTES as u64)
        {
            return self.divide(bytes, counted);
        }
        let counted = loop {
            if let Some(counted) = self.reserve(bytes as u64) {
                break counted;
            }
            // Spare buffers of other lengths make room, once nothing else needs what they are parts of.
            let spare = self.spares.lock().loans.pop()?;
            drop(spare);
        };
        let buffer = match bytes < HUGE_PAGE_BYTES {
            true => AlignedBuffer::new(bytes),
            false => AlignedBuffer::with_huge_pages(bytes),
        };
        Some(Loan {
            buffer: buffer.ok()?,
            ticket: Ticket(Arc::new(counted)),
        })
    }

    /// The smallest spare buffer of at least `bytes`.
    fn spare(&self, bytes: usize) -> Option<Loan> {
        let mut spares = self.spares.lock();
        let fits = spares.loans.iter().enumerate();
        let fits = fits.filter(|(_, loan)| loan.buffer.len() >= bytes);
        let (index, _) = fits.min_by_key(|(_, loan)| loan.buffer.len())?;
        Some(spares.loans.swap_remove(index))
    }

    /// A buffer of a new huge page, of which the rest is spare.
    fn divide(&self, bytes: usize, counted: Counted) -> Option<Loan> {
        let mut buffer = AlignedBuffer::with_huge_pages(HUGE_PAGE_BYTES).ok()?;
        let counted = Arc::new(counted);
        while let Some(rest) = buffer.split_off(bytes) {
            let buffer = std::mem::replace(&mut buffer, rest);
            self.give_back(Loan {
                buffer,
                ticket: Ticket(Arc::clone(&counted)),
            });
        }
        Some(Loan {
            buffer,
            ticket: Ticket(counted),
        })
    }

    fn reserve(self: &Arc<Self>, bytes: u64) -> Option<Counted> {
        let within = |used: u64| {
            let sum = used.checked_add(bytes)?;
            (sum <= self.bytes_max).then_some(sum)
        };
        let reserved = self
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, within);
        reserved.is_ok().then(|| Counted {
            memory: Arc::clone(self),
            bytes,
        })
    }

    fn give_back(&self, loan: Loan) {
        let mut spares = self.spares.lock();
        if spares.users > 0 {
            spares.loans.push(loan);
        } else {
            drop(spares);
            drop(loan);
        }
    }
}

impl Drop for MemoryUser {
    fn drop(&mut self) {
        let mut spares = self.memory.spares.lock();
        spares.users = spares.users.saturating_sub(1);
        if spares.users == 0 {
            let gone = std::mem::take(&mut spares.loans);
            drop(spares);
            drop(gone);
        }
    }
}

impl Ticket {
    /// Leaves the bytes counted for ever: for memory that is with a kernel that does not give it back.
    pub(crate) fn keep_counted(self) {
        std::mem::forget(self);
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if !weakened!("prefetch-uncounted") {
            self.memory.used.fetch_sub(self.bytes, Ordering::Relaxed);
        }
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
            let memory = Arc::clone(&loan.ticket.0.memory);
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
        // A longer one serves.
        let small = memory.take(1).unwrap();
        assert_eq!((small.buffer.len(), memory.used()), (512 << 10, 1 << 20));
        drop(Lent::new(again));
        // Spare ones of another length make room.
        drop(Lent::new(small));
        let whole = memory.take(1 << 20).unwrap();
        assert_eq!((whole.buffer.len(), memory.used()), (1 << 20, 1 << 20));
        drop(user);
        drop(whole);
        let kept = Lent::new(memory.take(512 << 10).unwrap());
        drop(another);
        assert_eq!(memory.used(), 512 << 10, "what is looked at stays");
        drop(kept);
        assert_eq!(memory.used(), 0);
    }

    #[test]
    fn a_huge_page_serves_two_buffers_and_counts_until_both_are_gone() {
        let memory = PrefetchMemory::new(5 << 20);
        let user = memory.user();
        let loans: Vec<Lent> = (0..5).map(|_| Lent::new(memory.take(1 << 20).unwrap())).collect();
        let addresses: Vec<usize> = loans.iter().map(|lent| lent.as_ref().as_ptr().addr()).collect();
        for (index, address) in addresses.iter().enumerate() {
            let is_apart = |other: &usize| other.abs_diff(*address) >= 1 << 20;
            assert!(addresses.iter().skip(index + 1).all(is_apart), "{addresses:?}");
        }
        assert_eq!(
            memory.used(),
            5 << 20,
            "the last is no part of a huge page, for which there is no room"
        );
        assert!(memory.take(1).is_none());
        drop(user);
        let mut loans = loans.into_iter();
        drop(loans.next());
        assert_eq!(memory.used(), 5 << 20);
        drop(loans.next());
        assert_eq!(memory.used(), 3 << 20);
        drop(loans);
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
