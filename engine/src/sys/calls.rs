//! Faults of single system calls, for tests: beneath the loops that have to cope with them.
//!
//! Whoever makes calls asks [`Calls::begin`] before each. In ordinary builds [`Calls`] holds nothing, the answer is a
//! constant, and nothing is left of the question. With the feature `testing` a disk can be given a [`CallPlan`] of its
//! own, which counts its calls and says which of them fails, and which may move only so many bytes. The rest of what
//! a call does is done by the kernel: a write that is cut to 512 bytes really writes them, and only them.

#[cfg(any(test, feature = "testing"))]
use rustix::io::Errno;

/// A system call, or a write of a ring, as far as plans tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[cfg_attr(
    not(any(test, feature = "testing")),
    allow(unreachable_pub, reason = "public where plans are, and nameless elsewhere")
)]
pub enum Call {
    /// `fstat`, for the length of a file.
    Length,
    /// `pread`.
    Read,
    /// `pwrite`.
    Write,
    /// `pwritev2` with `RWF_DSYNC`.
    WriteSync,
    /// `fdatasync`.
    Sync,
    /// `fsync` of a directory.
    SyncDirectory,
    /// `fallocate` for blocks.
    Reserve,
    /// `fallocate` for holes.
    Punch,
    /// `fadvise`.
    Advise,
    /// `io_uring_setup`.
    RingSetup,
    /// `io_uring_enter`.
    RingEnter,
    /// A write through a ring: the fault is what its completion says.
    RingWrite,
    /// A read through a ring: the fault is what its completion says.
    RingRead,
}

/// How a call goes wrong.
#[cfg(any(test, feature = "testing"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallFault {
    /// It does nothing and gives this number.
    Error(i32),
    /// It moves at most so many bytes: in whole sectors of 512 where the call goes around the page cache.
    AtMost(usize),
}

#[cfg(any(test, feature = "testing"))]
#[derive(Debug, Default)]
struct Planned {
    calls: Vec<Call>,
    at: Vec<(u64, CallFault)>,
    /// Of a kind, by its number among them.
    nth: Vec<(Call, usize, CallFault)>,
    from: Option<(u64, CallFault)>,
    fired: u64,
    /// Syncs, and writes with one, that were answered with an error.
    failed_syncs: u64,
}

/// Which calls of one disk go wrong, by their numbers, counted from zero.
#[cfg(any(test, feature = "testing"))]
#[derive(Debug, Default)]
pub struct CallPlan {
    planned: parking_lot::Mutex<Planned>,
}

#[cfg(any(test, feature = "testing"))]
impl CallPlan {
    /// A plan in which nothing goes wrong.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The call with this number goes wrong.
    pub fn fail_at(&self, number: u64, fault: CallFault) {
        self.planned.lock().at.push((number, fault));
    }

    /// The call with this number among those of its kind goes wrong.
    pub fn fail_nth(&self, call: Call, number: usize, fault: CallFault) {
        self.planned.lock().nth.push((call, number, fault));
    }

    /// The call with this number goes wrong, and all that follow.
    pub fn fail_from(&self, number: u64, fault: CallFault) {
        self.planned.lock().from = Some((number, fault));
    }

    /// Nothing goes wrong from now on; the numbers go on.
    pub fn clear_faults(&self) {
        let mut planned = self.planned.lock();
        planned.at.clear();
        planned.nth.clear();
        planned.from = None;
    }

    /// The calls so far, by their numbers.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.planned.lock().calls.clone()
    }

    /// How many calls went wrong.
    #[must_use]
    pub fn fired(&self) -> u64 {
        self.planned.lock().fired
    }

    /// How many syncs were answered with an error; an interrupted one does not count, for it is begun anew.
    #[must_use]
    pub fn failed_syncs(&self) -> u64 {
        self.planned.lock().failed_syncs
    }

    fn next(&self, call: Call) -> rustix::io::Result<usize> {
        let mut planned = self.planned.lock();
        let number = planned.calls.len() as u64;
        let is_nth = |(of, nth, _): &&(Call, usize, CallFault)| {
            *of == call && planned.calls.iter().filter(|before| **before == call).count() == *nth
        };
        let nth = planned.nth.iter().find(is_nth).map(|(_, _, fault)| *fault);
        planned.calls.push(call);
        let from = planned.from.filter(|(from, _)| number >= *from);
        let at = planned.at.iter().find(|(at, _)| *at == number).copied();
        let Some(fault) = nth.or(at.or(from).map(|(_, fault)| fault)) else {
            return Ok(usize::MAX);
        };
        planned.fired += 1;
        match fault {
            CallFault::Error(error) => {
                let is_sync = matches!(call, Call::WriteSync | Call::Sync | Call::SyncDirectory);
                // A write that found the disk full never came to its sync.
                let is_full = call == Call::WriteSync && error == libc::ENOSPC;
                planned.failed_syncs += u64::from(is_sync && error != libc::EINTR && !is_full);
                Err(Errno::from_raw_os_error(error))
            }
            CallFault::AtMost(bytes) => Ok(bytes.max(1)),
        }
    }
}

/// What a maker of calls asks before each of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Calls {
    #[cfg(any(test, feature = "testing"))]
    plan: Option<std::sync::Arc<CallPlan>>,
}

impl Calls {
    /// Calls that go wrong as planned.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn planned(plan: std::sync::Arc<CallPlan>) -> Self {
        Self { plan: Some(plan) }
    }

    /// The most bytes that the call may move, or the error that it ends with before the kernel is asked.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn begin(&self, call: Call) -> rustix::io::Result<usize> {
        self.plan.as_ref().map_or(Ok(usize::MAX), |plan| plan.next(call))
    }

    /// Every call may move as many bytes as it likes.
    #[cfg(not(any(test, feature = "testing")))]
    #[inline(always)]
    #[allow(
        clippy::unused_self,
        clippy::unnecessary_wraps,
        reason = "the same signature as with plans, which are not built here"
    )]
    pub(crate) const fn begin(&self, _call: Call) -> rustix::io::Result<usize> {
        Ok(usize::MAX)
    }
}

/// The length to which a call on `bytes` is cut: whole sectors where the call is direct, for the kernel takes no others.
pub(crate) fn cut(bytes: usize, most: usize, is_direct: bool) -> usize {
    let most = if is_direct {
        most.checked_next_multiple_of(512).unwrap_or(usize::MAX)
    } else {
        most
    };
    bytes.min(most)
}
