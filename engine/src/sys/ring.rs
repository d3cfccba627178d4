//! Many large writes in flight at once, through io_uring.
//!
//! The kernel reads the bytes of a write at any time until it reports the end of it. So the ring itself holds, for every
//! write, the owner of the bytes and the file, and lets go of them only when the report has come. Dropping the ring waits
//! for all reports; should even that fail, the owners are leaked rather than freed under the kernel's hands.
#![allow(
    unsafe_code,
    reason = "The kernel reads memory after the call returns; no borrow can express that."
)]

use std::fmt;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use io_uring::{IoUring, Probe, opcode, types};

use super::calls::{Call, Calls, cut};
use super::file::KernelFile;
use super::{SharedBytes, length_within};

/// The most writes in flight that a ring may be made for.
const DEPTH_MAX: usize = 1024;

/// A write that the kernel may still be reading.
struct InFlight<P> {
    _file: Arc<KernelFile>,
    _bytes: SharedBytes,
    is_direct: bool,
    /// The error that the completion is to bring, whatever the kernel says.
    #[cfg(any(test, feature = "testing"))]
    planned: Option<i32>,
    payload: P,
}

impl<P> InFlight<P> {
    #[cfg(any(test, feature = "testing"))]
    fn planned(&self) -> Option<i32> {
        self.planned
    }

    #[cfg(not(any(test, feature = "testing")))]
    #[inline(always)]
    #[allow(
        clippy::unused_self,
        reason = "the same signature as with plans, which are not built here"
    )]
    const fn planned(&self) -> Option<i32> {
        None
    }
}

/// The end of a write.
pub(crate) struct Ended<P> {
    /// What the caller attached to it.
    pub(crate) payload: P,
    /// Whether it went around the page cache.
    pub(crate) is_direct: bool,
    /// The number of bytes that were written, perhaps fewer than asked for.
    pub(crate) result: io::Result<usize>,
}

/// A ring for writes alone, with a value of the caller's attached to each.
pub(crate) struct WriteRing<P> {
    ring: IoUring,
    /// By the number under which the kernel knows the write.
    slots: Vec<Option<InFlight<P>>>,
    free: Vec<usize>,
    /// The most bytes asked of the kernel at once: tests make it small, to see short writes.
    bytes_max: usize,
    calls: Calls,
}

/// Whether this process may use io_uring for writing.
///
/// # Errors
///
/// The kernel's refusal (`EPERM`, `ENOSYS`, `ENOMEM`), or `Unsupported` for a kernel without plain writes.
pub(crate) fn probe(calls: &Calls) -> io::Result<()> {
    calls.begin(Call::RingSetup)?;
    let ring = IoUring::new(2)?;
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe)?;
    if probe.is_supported(opcode::Write::CODE) {
        Ok(())
    } else {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Hands what is queued to the kernel, and waits until `wanted` calls have ended.
///
/// # Errors
///
/// What the kernel answers, other than to be asked again later.
pub(super) fn enter(ring: &IoUring, calls: &Calls, wanted: usize) -> io::Result<()> {
    loop {
        let begun = calls.begin(Call::RingEnter).map_err(io::Error::from);
        match begun.and_then(|_| ring.submit_and_wait(wanted)) {
            Ok(_) => return Ok(()),
            Err(error) => match error.raw_os_error() {
                Some(libc::EINTR) => {}
                // The kernel is short of something for the moment: what has ended must be taken in first, and what
                // is queued goes with the next call.
                Some(libc::EAGAIN | libc::EBUSY) => return Ok(()),
                _ => return Err(error),
            },
        }
    }
}

/// What a report says: a number of bytes, or an error; that of the plan, if there is one, in place of the kernel's.
pub(super) fn outcome(reported: i32, planned: Option<i32>) -> io::Result<usize> {
    match planned {
        Some(error) => Err(io::Error::from_raw_os_error(error)),
        None => {
            usize::try_from(reported).map_err(|_| io::Error::from_raw_os_error(reported.saturating_neg()))
        }
    }
}

impl<P> WriteRing<P> {
    /// A ring for `depth` writes at once, at least one.
    ///
    /// # Errors
    ///
    /// The kernel's refusal.
    pub(crate) fn new(depth: usize, calls: Calls) -> io::Result<Self> {
        let depth = depth.clamp(1, DEPTH_MAX);
        let entries = u32::try_from(depth).map_err(|_| io::ErrorKind::InvalidInput)?;
        calls.begin(Call::RingSetup)?;
        let ring = IoUring::new(entries)?;
        let slots = (0..depth).map(|_| None).collect();
        Ok(Self {
            ring,
            slots,
            free: (0..depth).rev().collect(),
            bytes_max: usize::MAX,
            calls,
        })
    }

    /// Asks the kernel for no more than so many bytes at once, so that longer writes come back short.
    #[cfg(test)]
    pub(crate) fn limit(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
    }

    /// Whether another write can be queued.
    pub(crate) fn has_room(&self) -> bool {
        !self.free.is_empty()
    }

    /// The number of writes queued or in the kernel.
    pub(crate) fn in_flight(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Queues a write of `range` of the bytes; [`Self::submit`] hands it over.
    ///
    /// # Errors
    ///
    /// `WouldBlock` without room, `InvalidInput` for a range outside; the payload is then gone.
    pub(crate) fn queue(
        &mut self,
        file: &Arc<KernelFile>,
        position: u64,
        bytes: &SharedBytes,
        range: Range<usize>,
        payload: P,
    ) -> io::Result<()> {
        let all: &[u8] = (**bytes).as_ref();
        let length = length_within(&range, all.len())?.min(self.bytes_max);
        let part = all
            .get(range.start..range.start + length)
            .ok_or(io::ErrorKind::InvalidInput)?;
        let (descriptor, is_direct) = file.descriptor_for(position, part);
        let begun = self.calls.begin(Call::RingWrite);
        let length = cut(part.len(), begun.unwrap_or(usize::MAX), is_direct);
        let length = u32::try_from(length).map_err(|_| io::ErrorKind::InvalidInput)?;
        let number = self.free.last().copied().ok_or(io::ErrorKind::WouldBlock)?;
        let slot = self.slots.get_mut(number).ok_or(io::ErrorKind::WouldBlock)?;
        let entry = opcode::Write::new(types::Fd(descriptor.as_raw_fd()), part.as_ptr(), length)
            .offset(position)
            .build();
        // A write that is to fail must not be done all the same.
        let entry = begun.map_or_else(|_| opcode::Nop::new().build(), |_| entry);
        let entry = entry.user_data(number as u64);
        // SAFETY: the entry names `length` bytes of `part` and an open descriptor. Both stay until the kernel reports the
        // end: `slot` below holds clones of the owners and is emptied only in `collect`, for this number, or leaked.
        // The bytes neither move nor change meanwhile: they came from a shared borrow of a value inside an `Arc`, and
        // no exclusive borrow of it can exist while the clone does.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        pushed.map_err(|_| io::ErrorKind::WouldBlock)?;
        *slot = Some(InFlight {
            _file: Arc::clone(file),
            _bytes: Arc::clone(bytes),
            is_direct,
            #[cfg(any(test, feature = "testing"))]
            planned: begun.err().map(rustix::io::Errno::raw_os_error),
            payload,
        });
        self.free.pop();
        Ok(())
    }

    /// Hands queued writes to the kernel.
    ///
    /// # Errors
    ///
    /// What the kernel answers, other than to be asked again later.
    pub(crate) fn submit(&self) -> io::Result<()> {
        enter(&self.ring, &self.calls, 0)
    }

    /// Whether writes were queued that the kernel has not taken yet, because it was short of something.
    pub(crate) fn has_queued(&mut self) -> bool {
        !self.ring.submission().is_empty()
    }

    /// Takes in what has ended, waiting for one write to end when `wait` is set and any is in flight.
    ///
    /// # Errors
    ///
    /// What the kernel answers; writes may still be in flight then.
    pub(crate) fn collect(&mut self, wait: bool, ended: &mut Vec<Ended<P>>) -> io::Result<()> {
        let before = ended.len();
        self.take_in(ended);
        if wait && ended.len() == before && self.in_flight() > 0 {
            enter(&self.ring, &self.calls, 1)?;
            self.take_in(ended);
        }
        Ok(())
    }

    fn take_in(&mut self, ended: &mut Vec<Ended<P>>) {
        for report in self.ring.completion() {
            let number = usize::try_from(report.user_data()).unwrap_or(usize::MAX);
            let Some(done) = self.slots.get_mut(number).and_then(Option::take) else {
                continue;
            };
            self.free.push(number);
            let result = outcome(report.result(), done.planned());
            ended.push(Ended {
                payload: done.payload,
                is_direct: done.is_direct,
                result,
            });
        }
    }
}

impl<P> Drop for WriteRing<P> {
    fn drop(&mut self) {
        let mut ended = Vec::new();
        while self.in_flight() > 0 {
            if self.collect(true, &mut ended).is_err() {
                // Nothing tells when the kernel is done with these bytes: they must never be freed.
                std::mem::forget(std::mem::take(&mut self.slots));
                return;
            }
            ended.clear();
        }
    }
}

impl<P> fmt::Debug for WriteRing<P> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("WriteRing")
            .field("depth", &self.slots.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::super::file::{Choice, OpenMode};
    use super::super::memory::AlignedBuffer;
    use super::*;

    /// Bytes that look, when they are freed, whether the file has them already.
    struct Witness {
        bytes: AlignedBuffer,
        file: Arc<KernelFile>,
        were_written: Arc<AtomicBool>,
    }

    impl AsRef<[u8]> for Witness {
        fn as_ref(&self) -> &[u8] {
            &self.bytes
        }
    }

    impl Drop for Witness {
        fn drop(&mut self) {
            let mut found = vec![0; self.bytes.len()];
            let read = self.file.read_at(0, &mut found).unwrap_or(0);
            self.were_written.store(
                read == found.len() && found[..] == self.bytes[..],
                Ordering::Relaxed,
            );
        }
    }

    #[test]
    fn a_ring_that_is_dropped_with_writes_in_flight_frees_their_bytes_only_when_the_kernel_is_done() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let file = Arc::new(KernelFile::open(&path, OpenMode::CreateNew, Choice::Auto).unwrap());
        let mut bytes = AlignedBuffer::new(16 << 20).unwrap();
        bytes.fill(7);
        let were_written = Arc::new(AtomicBool::new(false));
        let Ok(mut ring) = WriteRing::new(4, Calls::default()) else {
            return;
        };
        let witness: SharedBytes = Arc::new(Witness {
            bytes,
            file: Arc::clone(&file),
            were_written: Arc::clone(&were_written),
        });
        for quarter in 0..4 {
            let start = quarter * (4 << 20);
            ring.queue(&file, start as u64, &witness, start..start + (4 << 20), ())
                .unwrap();
        }
        assert!(!ring.has_room());
        assert!(ring.queue(&file, 0, &witness, 0..1, ()).is_err());
        drop(witness);
        ring.submit().unwrap();
        drop(ring);
        assert!(were_written.load(Ordering::Relaxed));
    }
}
