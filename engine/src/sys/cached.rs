//! How much of a file the page cache has.
#![allow(
    unsafe_code,
    reason = "neither the library of C nor rustix has the call, so it is made by its number"
)]

use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use super::PAGE_BYTES;

/// The number of `cachestat`, which is the same on all architectures that Rust's standard library knows on Linux.
const CACHESTAT: libc::c_long = 451;

/// `struct cachestat_range`.
#[repr(C)]
struct CacheRange {
    start: u64,
    bytes: u64,
}

/// `struct cachestat`: numbers of pages.
#[repr(C)]
#[derive(Default)]
struct CacheState {
    cached: u64,
    dirty: u64,
    in_write_back: u64,
    evicted: u64,
    recently_evicted: u64,
}

/// Set once the kernel has said that it does not know the call (before Linux 6.5), or that it is forbidden.
static UNKNOWN: AtomicBool = AtomicBool::new(false);

/// How many bytes of `range`, in whole pages, the page cache has of the file; nothing where the system does not tell. No
/// page is touched or brought in.
pub(crate) fn cached_bytes(file: BorrowedFd<'_>, range: &Range<u64>) -> Option<u64> {
    let bytes = range.end.checked_sub(range.start).filter(|bytes| *bytes > 0)?;
    if UNKNOWN.load(Ordering::Relaxed) {
        return None;
    }
    let wanted = CacheRange {
        start: range.start,
        bytes,
    };
    let mut found = CacheState::default();
    // SAFETY: the descriptor is open for as long as it is borrowed; both structures are laid out as the kernel has them and
    // live until the call returns, which reads the first, writes the second, and keeps neither.
    let answer = unsafe {
        libc::syscall(
            CACHESTAT,
            libc::c_long::from(file.as_raw_fd()),
            &raw const wanted,
            &raw mut found,
            0 as libc::c_long,
        )
    };
    if answer == 0 {
        return Some(found.cached.saturating_mul(PAGE_BYTES as u64));
    }
    let error = io::Error::last_os_error().raw_os_error();
    if error == Some(libc::ENOSYS) {
        UNKNOWN.store(true, Ordering::Relaxed);
    }
    None
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn what_was_just_written_through_the_cache_is_cached_and_a_hole_is_not() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7; 64 << 10]).unwrap();
        rustix::fs::ftruncate(&file, 1 << 20).unwrap();
        let Some(cached) = cached_bytes(file.as_fd(), &(0..64 << 10)) else {
            return;
        };
        assert_eq!(cached, 64 << 10);
        assert_eq!(cached_bytes(file.as_fd(), &(512 << 10..1 << 20)), Some(0));
        assert_eq!(cached_bytes(file.as_fd(), &(0..0)), None);
    }
}
