//! Atomics, and what goes with them: those of the standard library, or loom's, which try every order of events.
//!
//! The modules whose correctness rests on an order of events take their atomics, locks, sleeps and epochs from here.
//! Under `--cfg loom` the models of `loom_models` drive the same modules on loom's; nothing else does, and nothing in a
//! built library.

#[cfg(all(loom, test))]
mod modelled;

#[cfg(not(all(loom, test)))]
mod chosen {
    use std::ops::Deref;
    use std::time::{Duration, Instant};

    pub(crate) use std::hint::spin_loop;
    #[cfg(not(lanterman_thread_sanitizer))]
    pub(crate) use std::sync::OnceLock;
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, compiler_fence, fence};
    pub(crate) use std::thread::yield_now;

    pub(crate) use crossbeam_epoch as epoch;
    pub(crate) use parking_lot::Mutex;

    pub(crate) use crate::sys::membarrier::{available as barrier_available, barrier};

    /// How often a waiting thread looks before it lets others run, and how often before it sleeps between looks.
    pub(crate) const SPINS: u32 = 100;
    pub(crate) const YIELDS: u32 = 200;

    /// A value that is set once, as the thread sanitizer can follow it: the standard library's is not built with it.
    #[cfg(lanterman_thread_sanitizer)]
    #[derive(Debug)]
    pub(crate) struct OnceLock<T> {
        value: std::sync::OnceLock<T>,
        is_set: AtomicBool,
        setting: Mutex<()>,
    }

    #[cfg(lanterman_thread_sanitizer)]
    impl<T> OnceLock<T> {
        pub(crate) const fn new() -> Self {
            OnceLock {
                value: std::sync::OnceLock::new(),
                is_set: AtomicBool::new(false),
                setting: parking_lot::const_mutex(()),
            }
        }

        pub(crate) fn get(&self) -> Option<&T> {
            if self.is_set.load(super::Ordering::Acquire) {
                self.value.get()
            } else {
                None
            }
        }

        pub(crate) fn set(&self, value: T) -> Result<(), T> {
            let _one_at_a_time = self.setting.lock();
            let outcome = self.value.set(value);
            self.is_set.store(true, super::Ordering::Release);
            outcome
        }

        pub(crate) fn get_or_init(&self, make: impl FnOnce() -> T) -> &T {
            let _one_at_a_time = self.setting.lock();
            let value = self.value.get_or_init(make);
            self.is_set.store(true, super::Ordering::Release);
            value
        }
    }

    #[cfg(lanterman_thread_sanitizer)]
    impl<T> Default for OnceLock<T> {
        fn default() -> Self {
            Self::new()
        }
    }

    /// A word on which threads sleep until it changes.
    #[derive(Debug, Default)]
    pub(crate) struct Word(AtomicU32);

    impl Word {
        pub(crate) const fn new(value: u32) -> Self {
            Word(AtomicU32::new(value))
        }

        /// Sleeps while the word holds `expected`. May return early for no reason: callers look again.
        pub(crate) fn wait(&self, expected: u32) {
            crate::sys::futex::wait(&self.0, expected);
        }

        /// The same, but for a moment only.
        pub(crate) fn pause(&self, expected: u32) {
            crate::sys::futex::wait_at_most(&self.0, expected, Duration::from_micros(100));
        }

        /// Wakes everybody who sleeps on the word.
        pub(crate) fn wake_all(&self) {
            crate::sys::futex::wake_all(&self.0);
        }
    }

    impl Deref for Word {
        type Target = AtomicU32;

        #[inline]
        fn deref(&self) -> &AtomicU32 {
            &self.0
        }
    }

    /// Measures how long something takes.
    #[derive(Debug)]
    pub(crate) struct Stopwatch(Instant);

    impl Stopwatch {
        pub(crate) fn start() -> Self {
            Stopwatch(Instant::now())
        }

        pub(crate) fn elapsed(&self) -> Duration {
            self.0.elapsed()
        }
    }
}

#[cfg(all(loom, test))]
use modelled as chosen;

pub(crate) use std::sync::atomic::Ordering;

pub(crate) use chosen::*;

/// The order that a place needs, or none at all while the deliberate defect of that place is on.
#[inline(always)]
pub(crate) const fn order(needed: Ordering, weakened: bool) -> Ordering {
    if weakened { Ordering::Relaxed } else { needed }
}
