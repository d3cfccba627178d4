//! Several large reads in flight at once, through io_uring.
//!
//! The kernel writes into the memory of a read at any time until it reports the end of it. So the ring itself owns that
//! memory, and the file, from the moment a read is queued, and gives the memory back with the report. Dropping the ring waits
//! for all reports; should even that fail, the memory is leaked rather than freed under the kernel's hands.
#![allow(
    unsafe_code,
    reason = "The kernel writes memory after the call returns; no borrow can express that."
)]

use std::fmt;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use io_uring::{IoUring, opcode, types};

use super::calls::{Call, Calls, cut};
use super::file::KernelFile;
use super::memory::AlignedBuffer;
use super::ring::{enter, outcome};

/// The most reads in flight that a ring may be made for.
const DEPTH_MAX: usize = 256;

/// A read that the kernel may still be doing.
struct InFlight<P> {
    _file: Arc<KernelFile>,
    bytes: AlignedBuffer,
    is_direct: bool,
    /// The error that the completion is to bring, whatever the kernel says; plans are for tests alone.
    planned: Option<i32>,
    payload: P,
}

/// The end of a read.
pub(crate) struct EndedRead<P> {
    /// What the caller attached to it.
    pub(crate) payload: P,
    /// The memory that was given with it.
    pub(crate) bytes: AlignedBuffer,
    /// Whether it went around the page cache.
    pub(crate) is_direct: bool,
    /// The number of bytes that came, perhaps fewer than asked for.
    pub(crate) result: io::Result<usize>,
}

/// A read that could not be queued, with what was given for it.
pub(crate) struct RefusedRead<P> {
    pub(crate) payload: P,
    pub(crate) bytes: AlignedBuffer,
}

/// A ring for reads alone, with a value of the caller's attached to each.
pub(crate) struct ReadRing<P> {
    ring: IoUring,
    /// By the number under which the kernel knows the read.
    slots: Vec<Option<InFlight<P>>>,
    free: Vec<usize>,
    calls: Calls,
}

impl<P> ReadRing<P> {
    /// A ring for `depth` reads at once, at least one.
    ///
    /// # Errors
    ///
    /// The kernel's refusal.
    pub(crate) fn new(depth: usize, calls: Calls) -> io::Result<Self> {
        let depth = depth.clamp(1, DEPTH_MAX);
        let entries = u32::try_from(depth).map_err(|_| io::ErrorKind::InvalidInput)?;
        calls.begin(Call::RingSetup)?;
        let ring = IoUring::new(entries)?;
        Ok(Self {
            ring,
            slots: (0..depth).map(|_| None).collect(),
            free: (0..depth).rev().collect(),
            calls,
        })
    }

    /// Whether another read can be queued.
    pub(crate) fn has_room(&self) -> bool {
        !self.free.is_empty()
    }

    /// The number of reads queued or in the kernel.
    pub(crate) fn in_flight(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Queues a read of `length` bytes at `position` into the front of `bytes`; [`Self::submit`] hands it over.
    ///
    /// # Errors
    ///
    /// What was given, where there is no room or `bytes` is shorter than `length`.
    pub(crate) fn queue(
        &mut self,
        file: &Arc<KernelFile>,
        position: u64,
        mut bytes: AlignedBuffer,
        length: usize,
        payload: P,
    ) -> Result<(), Box<RefusedRead<P>>> {
        let room = self.free.last().copied();
        let (Some(number), Some(part)) = (room, bytes.get_mut(..length)) else {
            return Err(Box::new(RefusedRead { payload, bytes }));
        };
        let (descriptor, is_direct) = file.descriptor_for_reading(position, part);
        let begun = self.calls.begin(Call::RingRead);
        let asked = cut(part.len(), begun.unwrap_or(usize::MAX), is_direct);
        let asked = u32::try_from(asked).unwrap_or(u32::MAX);
        let entry = opcode::Read::new(types::Fd(descriptor.as_raw_fd()), part.as_mut_ptr(), asked)
            .offset(position)
            .build();
        // A read that is to fail must not be done all the same.
        let entry = begun.map_or_else(|_| opcode::Nop::new().build(), |_| entry);
        let entry = entry.user_data(number as u64);
        // SAFETY: the entry names `asked` bytes of `part`, which was bounded by the buffer above, and an open descriptor.
        // Both stay until the kernel reports the end: the slot below takes the buffer and a count of the file, nobody can
        // reach the buffer there, and it leaves the slot only in `take_in`, for this number, or is leaked. Moving the
        // buffer moves a handle; the pages that it owns stay where they are.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        if pushed.is_err() {
            return Err(Box::new(RefusedRead { payload, bytes }));
        }
        if let Some(slot) = self.slots.get_mut(number) {
            *slot = Some(InFlight {
                _file: Arc::clone(file),
                bytes,
                is_direct,
                planned: begun.err().map(rustix::io::Errno::raw_os_error),
                payload,
            });
        }
        self.free.pop();
        Ok(())
    }

    /// Hands queued reads to the kernel.
    ///
    /// # Errors
    ///
    /// What the kernel answers, other than to be asked again later.
    pub(crate) fn submit(&self) -> io::Result<()> {
        enter(&self.ring, &self.calls, 0)
    }

    /// Takes in what has ended, waiting for one read to end when `wait` is set and any is in flight.
    ///
    /// # Errors
    ///
    /// What the kernel answers; reads may still be in flight then.
    pub(crate) fn collect(&mut self, wait: bool, ended: &mut Vec<EndedRead<P>>) -> io::Result<()> {
        let before = ended.len();
        self.take_in(ended);
        if wait && ended.len() == before && self.in_flight() > 0 {
            enter(&self.ring, &self.calls, 1)?;
            self.take_in(ended);
        } else if !self.ring.submission().is_empty() {
            // The kernel was short of something when they were handed over.
            enter(&self.ring, &self.calls, 0)?;
        }
        Ok(())
    }

    fn take_in(&mut self, ended: &mut Vec<EndedRead<P>>) {
        for report in self.ring.completion() {
            let number = usize::try_from(report.user_data()).unwrap_or(usize::MAX);
            let Some(done) = self.slots.get_mut(number).and_then(Option::take) else {
                continue;
            };
            self.free.push(number);
            let result = outcome(report.result(), done.planned);
            ended.push(EndedRead {
                payload: done.payload,
                bytes: done.bytes,
                is_direct: done.is_direct,
                result,
            });
        }
    }
}

impl<P> Drop for ReadRing<P> {
    fn drop(&mut self) {
        let mut ended = Vec::new();
        while self.in_flight() > 0 {
            if self.collect(true, &mut ended).is_err() {
                // Nothing tells when the kernel is done with this memory: it must never be freed.
                std::mem::forget(std::mem::take(&mut self.slots));
                return;
            }
            ended.clear();
        }
    }
}

impl<P> fmt::Debug for ReadRing<P> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ReadRing")
            .field("depth", &self.slots.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::file::{Choice, OpenMode};
    use super::*;

    #[test]
    fn reads_in_flight_come_back_with_their_memory_and_a_dropped_ring_waits_for_them() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let content: Vec<u8> = (0..1_u32 << 20).flat_map(u32::to_le_bytes).collect();
        std::fs::write(&path, &content).unwrap();
        let file = Arc::new(KernelFile::open(&path, OpenMode::Read, Choice::Auto).unwrap());
        let Ok(mut ring) = ReadRing::new(4, Calls::default()) else {
            return;
        };
        for quarter in 0..4_usize {
            let bytes = AlignedBuffer::new(1 << 20).unwrap();
            let position = (quarter << 20) as u64;
            assert!(ring.queue(&file, position, bytes, 1 << 20, quarter).is_ok());
        }
        assert!(!ring.has_room());
        let another = AlignedBuffer::new(4096).unwrap();
        assert!(ring.queue(&file, 0, another, 4096, 9).is_err());
        ring.submit().unwrap();
        let mut ended = Vec::new();
        while ring.in_flight() > 0 {
            ring.collect(true, &mut ended).unwrap();
        }
        for end in &ended {
            let start = end.payload << 20;
            assert_eq!(end.result.as_ref().ok(), Some(&(1 << 20)));
            assert!(end.bytes[..] == content[start..start + (1 << 20)]);
        }
        assert_eq!(ended.len(), 4);
        let bytes = ended.pop().unwrap().bytes;
        assert!(ring.queue(&file, 0, bytes, 1 << 20, 0).is_ok());
        ring.submit().unwrap();
        drop(ring);
    }

    #[test]
    fn a_read_longer_than_its_memory_is_refused_and_the_memory_given_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, [1; 9000]).unwrap();
        let file = Arc::new(KernelFile::open(&path, OpenMode::Read, Choice::Auto).unwrap());
        let Ok(mut ring) = ReadRing::new(1, Calls::default()) else {
            return;
        };
        let bytes = AlignedBuffer::new(4096).unwrap();
        let refused = ring.queue(&file, 0, bytes, 4097, ()).err().unwrap();
        assert_eq!((refused.bytes.len(), ring.in_flight()), (4096, 0));
    }
}
