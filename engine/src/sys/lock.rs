//! Kernel locks on files: they go with the descriptor, so a killed process never leaves one behind.
//!
//! Open-file-description locks are used throughout: they conflict between two openings within one process too, and
//! closing an unrelated descriptor of the same file does not drop them, as it would drop the older kind. A child that
//! was forked shares the description and with it the lock; descriptors are closed on `exec`.
#![allow(
    unsafe_code,
    reason = "No safe wrapper for open-file-description locks is at hand."
)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// What a lock covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// The whole file, whatever its length becomes.
    Whole,
    /// One byte.
    Byte(u64),
}

/// Takes the lock, exclusively and without waiting; `false` when another opening holds it.
///
/// # Errors
///
/// What the kernel answers, as on file systems without such locks.
pub(crate) fn try_lock(file: BorrowedFd<'_>, extent: Extent) -> io::Result<bool> {
    let mut request = describe(libc::F_WRLCK, extent)?;
    match call(file, libc::F_OFD_SETLK, &mut request) {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Gives the lock back.
///
/// # Errors
///
/// What the kernel answers.
pub(crate) fn unlock(file: BorrowedFd<'_>, extent: Extent) -> io::Result<()> {
    let mut request = describe(libc::F_UNLCK, extent)?;
    call(file, libc::F_OFD_SETLK, &mut request)
}

/// Whether an opening other than this one holds the lock.
///
/// # Errors
///
/// What the kernel answers.
pub(crate) fn is_locked_elsewhere(file: BorrowedFd<'_>, extent: Extent) -> io::Result<bool> {
    let mut request = describe(libc::F_WRLCK, extent)?;
    call(file, libc::F_OFD_GETLK, &mut request)?;
    Ok(i32::from(request.l_type) != libc::F_UNLCK)
}

fn describe(kind: i32, extent: Extent) -> io::Result<libc::flock> {
    let out_of_range = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let (start, length) = match extent {
        // A length of zero means up to the end, wherever that will be.
        Extent::Whole => (0, 0),
        Extent::Byte(position) => (libc::off_t::try_from(position).map_err(out_of_range)?, 1),
    };
    Ok(libc::flock {
        l_type: libc::c_short::try_from(kind).map_err(out_of_range)?,
        l_whence: libc::c_short::try_from(libc::SEEK_SET).map_err(out_of_range)?,
        l_start: start,
        l_len: length,
        // The kernel insists on zero here for this kind of lock.
        l_pid: 0,
    })
}

fn call(file: BorrowedFd<'_>, command: i32, request: &mut libc::flock) -> io::Result<()> {
    loop {
        // SAFETY: the descriptor is open for as long as it is borrowed, and `request` is a whole `flock`, exclusively
        // borrowed, which is what these commands read and write.
        let answer = unsafe { libc::fcntl(file.as_raw_fd(), command, std::ptr::from_mut(request)) };
        if answer != -1 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_lock_that_was_given_back_is_free_though_a_copy_of_its_descriptor_is_open() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let file = std::fs::File::create(&path).unwrap();
        let copy = file.try_clone().unwrap();
        let other = std::fs::File::options().write(true).open(&path).unwrap();
        assert!(try_lock(file.as_fd(), Extent::Whole).unwrap());
        assert!(!try_lock(other.as_fd(), Extent::Whole).unwrap());
        unlock(file.as_fd(), Extent::Whole).unwrap();
        drop(file);
        assert!(try_lock(other.as_fd(), Extent::Whole).unwrap());
        drop(copy);
    }
}
