//! Many reads or writes in flight at once, through io_uring.
//!
//! The kernel reads or writes the memory of a call at any time until it reports the end of it. So the ring itself holds, for
//! every call, the owner of the memory and the file, and lets go of them only when the report has come. Dropping the ring
//! waits for all reports; should even that fail, the owners are leaked rather than freed under the kernel's hands.
//!
//! What is written is memory that several share ([`super::write_ring`]); what is read into belongs to the ring meanwhile, and
//! comes back with the report ([`super::read_ring`]).
#![allow(
    unsafe_code,
    reason = "The kernel uses memory after the call returns; no borrow can express that."
)]

use std::fmt;
use std::io;
use std::sync::Arc;

use io_uring::{IoUring, Probe, opcode, squeue};

use super::calls::{Call, Calls};
use super::file::KernelFile;

/// The most calls in flight that a ring may be made for.
const DEPTH_MAX: usize = 1024;

/// A call that the kernel may still be doing.
pub(super) struct InFlight<M, P> {
    /// Keeps the descriptor open.
    pub(super) _file: Arc<KernelFile>,
    /// Keeps the bytes where the kernel was told that they are.
    pub(super) memory: M,
    pub(super) is_direct: bool,
    /// The error that the completion is to bring, whatever the kernel says; plans are for tests alone.
    pub(super) planned: Option<i32>,
    pub(super) payload: P,
}

/// The end of a call.
pub(crate) struct Ended<M, P> {
    /// What the caller attached to it.
    pub(crate) payload: P,
    /// The memory that was given with it.
    pub(crate) memory: M,
    /// Whether it went around the page cache.
    pub(crate) is_direct: bool,
    /// The number of bytes that were read or written, perhaps fewer than asked for.
    pub(crate) result: io::Result<usize>,
}

/// A ring with memory and a value of the caller's attached to each call.
pub(crate) struct Ring<M, P> {
    ring: IoUring,
    /// By the number under which the kernel knows the call.
    slots: Vec<Option<InFlight<M, P>>>,
    free: Vec<usize>,
    /// The most bytes asked of the kernel at once: tests make it small, to see short calls.
    pub(super) bytes_max: usize,
    pub(super) calls: Calls,
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
fn enter(ring: &IoUring, calls: &Calls, wanted: usize) -> io::Result<()> {
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
fn outcome(reported: i32, planned: Option<i32>) -> io::Result<usize> {
    match planned {
        Some(error) => Err(io::Error::from_raw_os_error(error)),
        None => {
            usize::try_from(reported).map_err(|_| io::Error::from_raw_os_error(reported.saturating_neg()))
        }
    }
}

impl<M, P> Ring<M, P> {
    /// A ring for `depth` calls at once, at least one.
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
            bytes_max: usize::MAX,
            calls,
        })
    }

    /// Asks the kernel for no more than so many bytes at once, so that longer calls come back short.
    #[cfg(test)]
    pub(crate) fn limit(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
    }

    /// Whether another call can be queued.
    pub(crate) fn has_room(&self) -> bool {
        !self.free.is_empty()
    }

    /// The number of calls queued or in the kernel.
    pub(crate) fn in_flight(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Queues `entry`, or nothing in its place if it is planned to fail, and holds what belongs to it until its end.
    ///
    /// # Errors
    ///
    /// What was to be held, where there is no room.
    ///
    /// # Safety
    ///
    /// All memory that `entry` names must stay valid for what the entry does with it, and be neither moved nor touched by
    /// others in a way that contradicts it, for as long as `in_flight.memory` is held; its descriptor must stay open for as
    /// long as `in_flight._file` is.
    pub(super) unsafe fn push(
        &mut self,
        entry: squeue::Entry,
        in_flight: InFlight<M, P>,
    ) -> Result<(), InFlight<M, P>> {
        let Some(number) = self.free.last().copied() else {
            return Err(in_flight);
        };
        let Some(slot) = self.slots.get_mut(number) else {
            return Err(in_flight);
        };
        // A call that is to fail must not be done all the same.
        let entry = match in_flight.planned {
            Some(_) => opcode::Nop::new().build(),
            None => entry,
        };
        let entry = entry.user_data(number as u64);
        // SAFETY: the caller answers for the entry for as long as `in_flight` is held. The slot holds it until the kernel has
        // reported the end of this number: it is emptied only in `take_in`, or leaked.
        if unsafe { self.ring.submission().push(&entry) }.is_err() {
            return Err(in_flight);
        }
        *slot = Some(in_flight);
        self.free.pop();
        Ok(())
    }

    /// Hands what is queued to the kernel.
    ///
    /// # Errors
    ///
    /// What the kernel answers, other than to be asked again later.
    pub(crate) fn submit(&self) -> io::Result<()> {
        enter(&self.ring, &self.calls, 0)
    }

    /// Whether calls were queued that the kernel has not taken yet, because it was short of something.
    pub(crate) fn has_queued(&mut self) -> bool {
        !self.ring.submission().is_empty()
    }

    /// Takes in what has ended, waiting for one call to end when `wait` is set and any is in flight.
    ///
    /// # Errors
    ///
    /// What the kernel answers; calls may still be in flight then.
    pub(crate) fn collect(&mut self, wait: bool, ended: &mut Vec<Ended<M, P>>) -> io::Result<()> {
        let before = ended.len();
        self.take_in(ended);
        if wait && ended.len() == before && self.in_flight() > 0 {
            enter(&self.ring, &self.calls, 1)?;
            self.take_in(ended);
        }
        Ok(())
    }

    fn take_in(&mut self, ended: &mut Vec<Ended<M, P>>) {
        for report in self.ring.completion() {
            let number = usize::try_from(report.user_data()).unwrap_or(usize::MAX);
            let Some(done) = self.slots.get_mut(number).and_then(Option::take) else {
                continue;
            };
            self.free.push(number);
            let result = outcome(report.result(), done.planned);
            ended.push(Ended {
                payload: done.payload,
                memory: done.memory,
                is_direct: done.is_direct,
                result,
            });
        }
    }
}

impl<M, P> Drop for Ring<M, P> {
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

impl<M, P> fmt::Debug for Ring<M, P> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Ring")
            .field("depth", &self.slots.len())
            .finish_non_exhaustive()
    }
}
