//! Reading ahead: how far, in which memory, and how a reader's pace tells it.
//!
//! What is read ahead goes around the page cache into memory of the store's own, so that a scan of cold data pushes nothing
//! out that others use; and what the cache has is left to it. [`crate::read_ahead`] does the reading.

mod memory;
mod pace;

use std::time::Duration;

pub(crate) use memory::{Lent, Loan, MemoryUser, PrefetchMemory, Ticket};
pub(crate) use pace::Pace;

/// How far ahead of a reader that goes through a log in order its slabs are read.
///
/// Reading ahead is for data that is in no cache: slabs of which the page cache has (almost) all pages are never read, whatever
/// the policy is, nor is what the store has in memory. What is read ahead is stored bytes, as they are on the disk, in memory
/// that [`Options::prefetch_memory_bytes`](crate::Options::prefetch_memory_bytes) bounds for all readers together; where it is
/// used up, readers go on without, as with [`Prefetch::Off`]. A read ahead that fails fails nothing: the reader reads what it
/// wants itself, when it comes there, and what that says counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Prefetch {
    /// The default. The reader reads for itself, some 64 KiB at a time, through the page cache: what it has passed is there for
    /// whoever comes next, at random or in order.
    #[default]
    Off,
    /// So many slabs, from the first one that it comes to.
    Slabs(u32),
    /// Slabs of so many stored bytes, from the first one that it comes to.
    Bytes(u64),
    /// For who reads much, in order, and once: as far as the reader's own speed and the time that a read takes demand, at most
    /// 8 MiB and half of the memory there is for it. Begins when a reader comes from the end of one slab to the beginning of
    /// the next, so who looks here and there pays nothing. What a reader of the store wants for the second time is not read
    /// ahead but through the page cache, so that it is found there the third time; if it is not, it is read around it ever
    /// after. Where the system does not tell what the page cache has (Linux before 6.5, simulated disks), nothing is read
    /// ahead.
    Automatic,
}

/// Why a reader's [`PrefetchState`] is what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum PrefetchReason {
    /// Its policy is off, or no memory may be used.
    Off,
    /// It has not come from one slab to the next one in order yet.
    #[default]
    NotInOrder,
    /// The page cache has what comes next.
    Cached,
    /// The system does not say what the page cache has.
    CacheUnknown,
    /// The policy says how far.
    Chosen,
    /// The automatic policy is working its way up: twice as far with each slab.
    Rising,
    /// What comes was read around the page cache once, and is left to it this time.
    Again,
    /// As far as the reader's rate and the time of a read demand.
    ByRate,
    /// They demand more than the automatic policy may have.
    AtBound,
    /// The memory for all readers is used up.
    OutOfMemory,
}

/// How far ahead a reader's slabs are read, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PrefetchState {
    /// Its policy.
    pub policy: Prefetch,
    /// Why so far.
    pub reason: PrefetchReason,
    /// How many stored bytes ahead of the reader's slab are looked at; 0 where nothing is read ahead.
    pub target_bytes: u64,
    /// Slabs that were read or are being read, and that the reader has not come to.
    pub slabs_ahead: u64,
    /// Bytes that it takes in a second while it need not wait, as far as that is known.
    pub reader_bytes_per_second: Option<u64>,
    /// How long a read takes, as far as that is known.
    pub read_time: Option<Duration>,
}
