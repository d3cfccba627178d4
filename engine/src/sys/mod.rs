//! The only system calls of the engine, and the only unsafe code beside `region`.
//!
//! What callers may rely on:
//!
//! - every error of the kernel comes back as an [`std::io::Error`] with its number, and a full disk has the kind
//!   [`std::io::ErrorKind::StorageFull`]; nothing here panics;
//! - interrupted calls are repeated and short writes continued, so that a write is whole or an error;
//! - a page of a map that can no longer be read becomes zeros and a note, and no signal (see `guard`);
//! - memory lent to the kernel is held by its owner until the kernel has given it back, also when a writer is
//!   dropped half way;
//! - files are opened without following a link at the end of the path or at their directory, closed on `exec`, and
//!   made with mode 0600.

mod bus_error;
pub(crate) mod cached;
pub(crate) mod calls;
pub(crate) mod file;
pub(crate) mod futex;
pub(crate) mod guard;
pub(crate) mod lock;
pub(crate) mod map;
pub(crate) mod membarrier;
pub(crate) mod memory;
pub(crate) mod path;
pub(crate) mod prefetch;
pub(crate) mod read_ring;
pub(crate) mod ring;
pub(crate) mod shared;
pub(crate) mod write_ring;

use std::io;
use std::ops::Range;

/// Every block, direct write and page-wise operation is aligned to this many bytes.
pub(crate) const PAGE_BYTES: usize = 4096;

/// Bytes that several owners share and nobody changes, as bulk writers take them.
pub type SharedBytes = std::sync::Arc<dyn AsRef<[u8]> + Send + Sync>;

/// The length of `range` when it lies within `limit` bytes.
pub(crate) fn length_within(range: &Range<usize>, limit: usize) -> io::Result<usize> {
    if range.start > range.end || range.end > limit {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!(
                "the range {}..{} is not within {limit} bytes",
                range.start, range.end
            ),
        ));
    }
    Ok(range.end - range.start)
}
