//! Memory that is no file's: tails, images of slabs and commit blocks.
//!
//! Both kinds are anonymous maps, so that they begin on a page (direct writes need it), are zero at first, and go back
//! to the kernel when dropped instead of staying in an allocator.
#![allow(
    unsafe_code,
    reason = "Memory shared between a writer and readers of frozen bytes cannot be lent as one `&mut [u8]`."
)]

use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;

use lanterman_format::weakened;
use memmap2::{Advice, MmapMut, MmapOptions, MmapRaw};

use super::PAGE_BYTES;

/// What processors and kernels call a huge page almost everywhere; where theirs is larger, small ones serve.
pub(crate) const HUGE_PAGE_BYTES: usize = 2 << 20;

/// When the pages of fresh memory are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Touch {
    /// At the first access, one fault at a time.
    Later,
    /// Before the memory is handed out, so that no append meets a fault.
    Now,
}

/// Page-aligned, zeroed memory outside the heap, reached through raw pointers alone.
///
/// It makes no promise about who reads or writes which byte: that is the business of `region`, which lends only
/// frozen bytes as slices. The memory lives, at the same address, exactly as long as the value.
pub(crate) struct OffHeap {
    map: MmapRaw,
}

impl OffHeap {
    /// At least `bytes` of memory, rounded up to whole pages.
    ///
    /// # Errors
    ///
    /// What the kernel answers, mostly that there is no memory.
    pub(crate) fn new(bytes: usize, touch: Touch) -> io::Result<Self> {
        Ok(Self {
            map: MmapRaw::from(anonymous(bytes, touch)?),
        })
    }

    /// The same in huge pages where the system gives them, which is advice and not a demand.
    pub(crate) fn with_huge_pages(bytes: usize, touch: Touch) -> io::Result<Self> {
        let memory = Self::new(bytes, Touch::Later)?;
        // Refused where the kernel was built without; small pages serve as well, only slower.
        let _advised = memory.map.advise(Advice::HugePage);
        if touch == Touch::Now {
            memory.map.advise(Advice::PopulateWrite)?;
        }
        Ok(memory)
    }

    /// The number of bytes, a whole number of pages.
    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }

    /// The byte at `start`, which must be within; the first byte otherwise. Valid up to the end of the memory.
    pub(crate) fn pointer_at(&self, start: usize) -> NonNull<u8> {
        if start >= self.len() {
            return self.pointer();
        }
        // SAFETY: compared with the length above, so the sum stays within the allocation.
        unsafe { self.pointer().add(start) }
    }

    /// The first byte. Valid for reads and writes of [`Self::len`] bytes as long as `self` lives.
    pub(crate) fn pointer(&self) -> NonNull<u8> {
        // A map is never at address zero; the dangling pointer is there for the compiler, not for a case.
        NonNull::new(self.map.as_mut_ptr()).unwrap_or(NonNull::dangling())
    }
}

impl fmt::Debug for OffHeap {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("OffHeap")
            .field("bytes", &self.len())
            .finish()
    }
}

/// Send and Sync must hold for the region built upon this; they come from the fields and are stated here so that a
/// change of fields is noticed. They are sound because the value only owns the range and lends no reference into it.
const _: fn() = || {
    fn shared_between_threads<T: Send + Sync>() {}
    shared_between_threads::<OffHeap>();
    shared_between_threads::<AlignedBuffer>();
};

/// A buffer that begins on a page and is a whole number of pages long, as direct writes need it.
///
/// Invariant: of all buffers that share one memory, no two have a byte in common. `split_off` is the only way
/// to a second one.
pub struct AlignedBuffer {
    /// Freed with the last buffer that is a part of it.
    memory: Arc<OffHeap>,
    /// `start` and `bytes` more are within the memory.
    start: usize,
    bytes: usize,
}

impl AlignedBuffer {
    /// At least `bytes` of zeros, rounded up to whole pages.
    ///
    /// # Errors
    ///
    /// What the kernel answers, mostly that there is no memory.
    pub fn new(bytes: usize) -> io::Result<Self> {
        let memory = OffHeap::new(bytes, Touch::Later)?;
        let bytes = memory.len();
        Ok(Self {
            memory: Arc::new(memory),
            start: 0,
            bytes,
        })
    }

    /// The same, beginning where a huge page does and made of them where the system gives them: a device is told of each piece
    /// of memory that lies together, and a huge page is one piece where small ones are 512.
    pub(crate) fn with_huge_pages(bytes: usize) -> io::Result<Self> {
        let too_much = || io::Error::from(io::ErrorKind::OutOfMemory);
        let bytes = bytes
            .max(1)
            .checked_next_multiple_of(HUGE_PAGE_BYTES)
            .ok_or_else(too_much)?;
        // What lies before the first huge page is never touched, so it costs addresses and no memory.
        let mapped = bytes.checked_add(HUGE_PAGE_BYTES).ok_or_else(too_much)?;
        let memory = OffHeap::with_huge_pages(mapped, Touch::Later)?;
        let address = memory.pointer().addr().get();
        let start = address
            .checked_next_multiple_of(HUGE_PAGE_BYTES)
            .ok_or_else(too_much)?
            - address;
        Ok(Self {
            memory: Arc::new(memory),
            start,
            bytes,
        })
    }

    /// Cuts off what is behind the first `bytes`, a whole number of pages, as a buffer of its own; nothing where that would leave
    /// one of them empty. The memory is freed when both are gone.
    pub(crate) fn split_off(&mut self, bytes: usize) -> Option<Self> {
        if bytes == 0 || !bytes.is_multiple_of(PAGE_BYTES) || bytes >= self.bytes {
            return None;
        }
        let rest = Self {
            memory: Arc::clone(&self.memory),
            start: if weakened!("buffers-overlap") {
                self.start
            } else {
                self.start + bytes
            },
            bytes: self.bytes - bytes,
        };
        self.bytes = bytes;
        Some(rest)
    }

    /// Sees to it that there are at least `bytes`. A buffer that is too small is replaced by a bigger one of zeros:
    /// what it held is gone. One that is big enough keeps its contents.
    ///
    /// # Errors
    ///
    /// What the kernel answers, mostly that there is no memory; the buffer is then as it was.
    pub fn ensure(&mut self, bytes: usize) -> io::Result<()> {
        if bytes > self.bytes {
            // Doubling keeps the number of replacements logarithmic for a caller that grows step by step.
            let wanted = bytes.max(self.bytes.saturating_mul(2));
            *self = Self::new(wanted).or_else(|_| Self::new(bytes))?;
        }
        Ok(())
    }
}

impl Deref for AlignedBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let first = self.memory.pointer_at(self.start);
        // SAFETY: `start` is below the memory's length and `bytes` more are within it: `new` and `with_huge_pages` made it so,
        // and `split_off` only divides. The memory is initialised (zeros), lives as long as `self`, and by the invariant nobody
        // else has these bytes, so they change through `self` alone, which is borrowed.
        unsafe { std::slice::from_raw_parts(first.as_ptr(), self.bytes) }
    }
}

impl DerefMut for AlignedBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        let first = self.memory.pointer_at(self.start);
        // SAFETY: as above, and `self` is borrowed alone.
        unsafe { std::slice::from_raw_parts_mut(first.as_ptr(), self.bytes) }
    }
}

impl AsRef<[u8]> for AlignedBuffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for AlignedBuffer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("AlignedBuffer")
            .field("bytes", &self.bytes)
            .finish()
    }
}

fn anonymous(bytes: usize, touch: Touch) -> io::Result<MmapMut> {
    let rounded = bytes
        .max(1)
        .checked_next_multiple_of(PAGE_BYTES)
        .filter(|&rounded| isize::try_from(rounded).is_ok())
        .ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?;
    let mut map = MmapOptions::new().len(rounded).map_anon()?;
    if touch == Touch::Now && map.advise(Advice::PopulateWrite).is_err() {
        // Kernels before 5.14 do not know the advice: one store a page has the same effect.
        for page in map.chunks_mut(PAGE_BYTES) {
            if let Some(first) = page.first_mut() {
                std::hint::black_box(&mut *first);
                *first = 0;
            }
        }
    }
    Ok(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn off_heap_memory_is_aligned_zeroed_and_writable_from_another_thread() {
        for touch in [Touch::Now, Touch::Later] {
            let memory = OffHeap::new(5000, touch).unwrap();
            assert_eq!(memory.len(), 8192);
            assert_eq!(memory.pointer().as_ptr() as usize % PAGE_BYTES, 0);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let last = memory.pointer().as_ptr().wrapping_add(8191);
                    // SAFETY: 8191 is below the length checked above, and nobody else touches the memory meanwhile.
                    assert_eq!(unsafe { last.read() }, 0);
                    // SAFETY: as above.
                    unsafe { last.write(7) };
                });
            });
            // SAFETY: within the length; the other thread has ended.
            assert_eq!(unsafe { memory.pointer().as_ptr().wrapping_add(8191).read() }, 7);
        }
    }

    #[test]
    fn an_aligned_buffer_keeps_its_bytes_until_it_must_grow() {
        let mut buffer = AlignedBuffer::new(0).unwrap();
        assert_eq!(buffer.len(), PAGE_BYTES);
        buffer.fill(9);
        buffer.ensure(4096).unwrap();
        assert!(buffer.iter().all(|&byte| byte == 9));
        buffer.ensure(4097).unwrap();
        assert_eq!(buffer.len(), 8192);
        assert!(buffer.iter().all(|&byte| byte == 0));
        assert_eq!(buffer.as_ptr() as usize % PAGE_BYTES, 0);
    }

    #[test]
    fn parts_of_a_buffer_are_buffers_of_their_own_and_keep_their_memory_alive() {
        let mut first = AlignedBuffer::with_huge_pages(1).unwrap();
        assert_eq!(first.len(), HUGE_PAGE_BYTES);
        assert_eq!(first.as_ptr() as usize % HUGE_PAGE_BYTES, 0);
        for impossible in [0, 100, HUGE_PAGE_BYTES, HUGE_PAGE_BYTES + PAGE_BYTES] {
            assert!(first.split_off(impossible).is_none());
        }
        let mut last = first.split_off(3 * PAGE_BYTES).unwrap();
        first.fill(1);
        last.fill(2);
        assert_eq!(
            (first.len(), last.len()),
            (3 * PAGE_BYTES, HUGE_PAGE_BYTES - 3 * PAGE_BYTES)
        );
        assert!(first.iter().all(|&byte| byte == 1));
        drop(first);
        let end = last.split_off(PAGE_BYTES).unwrap();
        drop(last);
        assert!(end.iter().all(|&byte| byte == 2));
    }

    #[test]
    fn memory_beyond_the_address_space_is_refused_with_an_error() {
        assert!(OffHeap::new(usize::MAX, Touch::Later).is_err());
        assert!(AlignedBuffer::new(usize::MAX - 5000).is_err());
        assert!(AlignedBuffer::with_huge_pages(usize::MAX - 5000).is_err());
    }
}
