//! Waiting on a word of memory, and waking all who wait: one system call for a whole group.

use std::sync::atomic::AtomicU32;

use rustix::thread::futex::{self, Flags};

/// Sleeps while `word` holds `expected`. May return early for no reason: callers look again.
pub(crate) fn wait(word: &AtomicU32, expected: u32) {
    // An error means that the word has changed already, or that a signal came: in both cases the caller looks again.
    let _look_again = futex::wait(word, Flags::PRIVATE, expected, None);
}

/// Wakes everybody who sleeps on `word`.
pub(crate) fn wake_all(word: &AtomicU32) {
    // The call fails only for an address that is not mapped, which a reference rules out.
    let _woken = futex::wake(word, Flags::PRIVATE, i32::MAX as u32);
}
