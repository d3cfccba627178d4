//! A memory barrier on all running threads of the process at once, paid for by the one who rarely needs it.
//!
//! With it the hot side of an asymmetric lock needs a compiler fence only. Where the kernel refuses it, both sides must
//! use real fences: ask [`available`] once, before the first of either side runs, and keep to the answer.

use std::io;
use std::sync::OnceLock;

use rustix::thread::{MembarrierCommand, membarrier};

/// Registers the process for expedited barriers, once, and says whether they can be had.
pub(crate) fn available() -> bool {
    static REGISTERED: OnceLock<bool> = OnceLock::new();
    *REGISTERED.get_or_init(register)
}

fn register() -> bool {
    membarrier(MembarrierCommand::RegisterPrivateExpedited).is_ok()
        && membarrier(MembarrierCommand::PrivateExpedited).is_ok()
}

/// Returns when every thread of the process has passed a full memory barrier since the call began.
///
/// # Errors
///
/// Where [`available`] says no, or when the kernel is out of memory: no barrier has then taken place, and nothing may be
/// concluded.
pub(crate) fn barrier() -> io::Result<()> {
    if !available() {
        return Err(io::ErrorKind::Unsupported.into());
    }
    match membarrier(MembarrierCommand::PrivateExpedited) {
        // A child that was forked has a memory map of its own, whose registration may not have come along.
        Err(rustix::io::Errno::PERM) if register() => Ok(()),
        other => Ok(other?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_barrier_succeeds_exactly_where_it_is_available() {
        assert_eq!(barrier().is_ok(), available());
    }
}
