//! Waiting on a word of memory, and waking all who wait: one system call for a whole group.

use std::sync::atomic::AtomicU32;
use std::time::Duration;

use rustix::thread::futex::{self, Flags, Timespec};

/// Sleeps while `word` holds `expected`. May return early for no reason: callers look again.
pub(crate) fn wait(word: &AtomicU32, expected: u32) {
    // An error means that the word has changed already, or that a signal came: in both cases the caller looks again.
    let _look_again = futex::wait(word, Flags::PRIVATE, expected, None);
}

/// The same, and wakes by itself after `longest`, which is less than a second.
pub(crate) fn wait_at_most(word: &AtomicU32, expected: u32, longest: Duration) {
    let timeout = Timespec {
        tv_sec: 0,
        tv_nsec: longest.subsec_nanos().into(),
    };
    // As in `wait`; a timeout is one more reason to look again.
    let _look_again = futex::wait(word, Flags::PRIVATE, expected, Some(&timeout));
}

/// Wakes everybody who sleeps on `word`.
pub(crate) fn wake_all(word: &AtomicU32) {
    // The call fails only for an address that is not mapped, which a reference rules out.
    let _woken = futex::wake(word, Flags::PRIVATE, i32::MAX as u32);
}
