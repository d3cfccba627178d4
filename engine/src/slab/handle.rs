//! A slab as a tree sees it: a reference, opened when first read.

use std::ops::Deref;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Weak};

use lanterman_format::Reference;
use parking_lot::Mutex;

use crate::atomics::OnceLock;

use super::{OpenSlab, SlabError, SlabMemory, SlabSource};

/// A slab that trees share. What is mapped stays open with the handle, since it costs no memory of ours; what was
/// copied is only remembered weakly, and the source decides how long it
/// lives. So the memory that handles hold is bounded by their number, whatever is read through them.
///
/// A failed open is not remembered: the disk may come back.
#[derive(Debug)]
pub(crate) struct SlabHandle {
    reference: Reference,
    mapped: OnceLock<Arc<OpenSlab>>,
    /// Locked for a copy of the pointer only, never during I/O, and not at all once the slab is mapped.
    passing: Mutex<Weak<OpenSlab>>,
    cold_reads: AtomicU8,
}

/// An open slab for as long as it is looked at.
#[derive(Debug)]
pub(crate) enum Opened<'a> {
    /// Open for as long as the handle is there.
    Mapped(&'a Arc<OpenSlab>),
    /// Kept by this value and perhaps by the source.
    Passing(Arc<OpenSlab>),
}

impl SlabHandle {
    /// Nobody asks for more.
    const COLD_READS_MAX: u8 = 2;

    /// A handle that opens nothing yet.
    pub(crate) fn new(reference: Reference) -> Self {
        Self {
            reference,
            mapped: OnceLock::new(),
            passing: Mutex::new(Weak::new()),
            cold_reads: AtomicU8::new(0),
        }
    }

    /// How often a reader came to it in order when no cache had it, up to [`Self::COLD_READS_MAX`]. A hint: it is forgotten with
    /// the handle, and threads that count at once may count once.
    pub(crate) fn cold_reads(&self) -> u8 {
        self.cold_reads.load(Ordering::Relaxed)
    }

    /// Counts one more.
    pub(crate) fn count_cold_read(&self) {
        let reads = self.cold_reads().saturating_add(1).min(Self::COLD_READS_MAX);
        self.cold_reads.store(reads, Ordering::Relaxed);
    }

    /// Where the slab is.
    pub(crate) fn reference(&self) -> &Reference {
        &self.reference
    }

    /// The slab if it is open already; touches no disk.
    #[inline]
    pub(crate) fn opened(&self) -> Option<Opened<'_>> {
        if let Some(slab) = self.mapped.get() {
            return Some(Opened::Mapped(slab));
        }
        let slab = self.passing.lock().upgrade()?;
        slab.set_used();
        Some(Opened::Passing(slab))
    }

    /// The open slab. Several threads may open at once; each gets a good one, and the first is remembered.
    ///
    /// # Errors
    ///
    /// [`SlabError`] if the bytes cannot be had, or header, index or checksum table are damaged.
    #[inline]
    pub(crate) fn open(&self, source: &dyn SlabSource) -> Result<Opened<'_>, SlabError> {
        match self.opened() {
            Some(opened) => Ok(opened),
            None => self.open_now(source),
        }
    }

    #[cold]
    fn open_now(&self, source: &dyn SlabSource) -> Result<Opened<'_>, SlabError> {
        let slab = Arc::new(OpenSlab::open(&self.reference, source)?);
        if slab.memory() == SlabMemory::Mapped {
            source.holds(slab.own_bytes());
            return Ok(Opened::Mapped(self.mapped.get_or_init(|| slab)));
        }
        {
            let mut passing = self.passing.lock();
            if let Some(earlier) = passing.upgrade() {
                return Ok(Opened::Passing(earlier));
            }
            *passing = Arc::downgrade(&slab);
        }
        source.keep(&slab);
        Ok(Opened::Passing(slab))
    }
}

impl Opened<'_> {
    /// The slab as whoever holds it for longer would count it.
    pub(crate) fn counted(&self) -> &Arc<OpenSlab> {
        match self {
            Self::Mapped(slab) => slab,
            Self::Passing(slab) => slab,
        }
    }

    /// The slab by a count of its own, for who outlives the handle's borrow.
    pub(crate) fn share(&self) -> Arc<OpenSlab> {
        Arc::clone(self.counted())
    }
}

impl Deref for Opened<'_> {
    type Target = OpenSlab;

    #[inline]
    fn deref(&self) -> &OpenSlab {
        self.counted()
    }
}
