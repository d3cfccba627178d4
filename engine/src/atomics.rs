//! Atomics, and what goes with them: those of the standard library, or loom's, which try every order of events.
//!
//! The modules whose correctness rests on an order of events take their atomics from here. Under `--cfg loom` the tests
//! of those modules run on loom's; nothing else does, and nothing in a built library.

#[cfg(not(all(loom, test)))]
mod chosen {
    use std::time::Duration;

    pub(crate) use std::hint::spin_loop;
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, compiler_fence, fence};
    pub(crate) use std::thread::yield_now;

    pub(crate) use crate::sys::futex::{wait, wake_all};
    pub(crate) use crate::sys::membarrier::{available as barrier_available, barrier};

    /// How often a waiting thread looks before it lets others run, and how often before it sleeps between looks.
    pub(crate) const SPINS: u32 = 100;
    pub(crate) const YIELDS: u32 = 200;

    /// Sleeps for a moment, or until `word` no longer holds `expected`, if that is told.
    pub(crate) fn pause(word: &AtomicU32, expected: u32) {
        crate::sys::futex::wait_at_most(word, expected, Duration::from_micros(100));
    }
}

#[cfg(all(loom, test))]
mod chosen {
    use std::io;

    pub(crate) use loom::hint::spin_loop;
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
    pub(crate) use loom::thread::yield_now;

    pub(crate) const SPINS: u32 = 0;
    pub(crate) const YIELDS: u32 = u32::MAX;

    /// A sleeper may always wake for no reason, so letting others run is a wait.
    pub(crate) fn wait(_word: &AtomicU32, _expected: u32) {
        yield_now();
    }

    pub(crate) fn pause(_word: &AtomicU32, _expected: u32) {
        yield_now();
    }

    pub(crate) fn wake_all(_word: &AtomicU32) {}

    /// Loom knows no barrier on all threads: what it tries are the fences.
    pub(crate) fn barrier_available() -> bool {
        false
    }

    pub(crate) fn barrier() -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn compiler_fence(_order: Ordering) {}
}

pub(crate) use chosen::*;
