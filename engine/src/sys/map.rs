//! Files seen as memory, for reading.
//!
//! A byte in a map may change under the reader when somebody writes to the file, which cannot be seen from here. So the
//! right to make maps is a value, [`MapGrant`], which only unsafe code makes: whoever makes it answers for every map made
//! under it. A page that the file has lost, or that the device cannot read, is another matter: its bytes become zeros and
//! are noted as lost ([`Mapping::is_lost`]), unless the grant is an [unguarded](MapGrant::unguarded) one; then the touch
//! kills the process.
#![allow(
    unsafe_code,
    reason = "A map is raw memory until somebody answers for the file behind it."
)]

use std::fmt;
use std::io;
use std::ops::{Deref, Range};
use std::os::fd::AsRawFd;
use std::sync::Arc;

use lanterman_format::weakened;
use memmap2::{Advice as MemoryAdvice, MmapOptions, MmapRaw, UncheckedAdvice};

use super::file::KernelFile;
use super::guard::{self, RangeGuard};
use super::{PAGE_BYTES, length_within};

/// How a range will be read, told to the kernel so that it does not guess.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Advice {
    /// The kernel's own judgement.
    Normal,
    /// Here and there: no reading ahead.
    Random,
    /// From front to back: read far ahead, drop early.
    Sequential,
    /// Soon: begin reading now.
    WillNeed,
    /// Not again: the pages may go at once. The contents of the file are untouched.
    DontNeed,
    /// Not soon: the first to go when memory is short.
    Cold,
}

/// The right to map files, and to lend their bytes as slices.
///
/// Its existence is the promise, made in unsafe code, that no file of the store is cut short or rewritten by others,
/// and that the store itself writes no byte that is lent from a map.
#[derive(Clone, Copy, Debug)]
pub struct MapGrant {
    guarded: bool,
}

impl MapGrant {
    /// Grants the right to map.
    ///
    /// # Safety
    ///
    /// As long as a map made under this grant lives, nobody truncates the file behind it, and no byte of it changes
    /// while a slice over that byte is held, neither by this program nor by another.
    #[allow(dead_code, reason = "Only the unsafe way of opening a store grants maps.")]
    pub(crate) const unsafe fn new() -> Self {
        Self { guarded: true }
    }

    /// The same right for maps of which a lost page is a signal, as the kernel has it.
    #[must_use]
    pub const fn unguarded(self) -> Self {
        Self { guarded: false }
    }

    /// The grant of simulated disks and of tests of the disks, whose files are reachable by nobody else and are
    /// written only where no slice is held.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) const fn for_tests() -> Self {
        // SAFETY: the caller is a test or a disk that lives in memory; both keep the contract by construction.
        unsafe { Self::new() }
    }
}

/// A read-only, shared map of the first bytes of a file.
///
/// Slices borrowed from it must only be taken over bytes that will never change again; [`Self::slice`] makes one that
/// covers no more than what is asked for, which is why it is to be preferred to `Deref` over a segment that is still
/// being written behind the published end.
pub struct Mapping {
    /// Declared first: it is gone before the map is.
    guard: Option<RangeGuard>,
    map: MmapRaw,
    /// Keeps the descriptor for [`Mapping::populate`] on kernels that cannot populate by advice.
    file: Arc<KernelFile>,
}

impl Mapping {
    /// Maps the first `bytes` of the file.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for no bytes or more than the file has (a touch behind the end would kill the process), otherwise
    /// what the kernel answers.
    pub(crate) fn new(file: Arc<KernelFile>, bytes: u64, grant: MapGrant) -> io::Result<Self> {
        let length = usize::try_from(bytes).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        if length == 0 || bytes > file.bytes()? {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("a map of {bytes} bytes over a file of {}", file.bytes()?),
            ));
        }
        let map = MmapOptions::new()
            .len(length)
            .map_raw_read_only(file.buffered())?;
        let guard = if grant.guarded {
            Some(RangeGuard::new(
                map.as_ptr().addr(),
                length,
                Arc::clone(&file),
                false,
            )?)
        } else {
            None
        };
        Ok(Self { guard, map, file })
    }

    /// Whether any byte of the map was lost while it was mapped.
    #[inline]
    pub(crate) fn has_losses(&self) -> bool {
        self.guard.as_ref().is_some_and(RangeGuard::has_losses)
    }

    /// Whether bytes of `range` were lost while they were mapped, and read as zeros since. To be asked *after* the bytes
    /// were looked at.
    pub(crate) fn is_lost(&self, range: Range<usize>) -> bool {
        self.guard
            .as_ref()
            .is_some_and(|guard| guard.is_lost(range.start, range.end))
    }

    /// Where the file is now, for messages to people, if the system shows it.
    pub(crate) fn path(&self) -> Option<std::path::PathBuf> {
        let path = guard::path_of(self.file.buffered().as_raw_fd());
        (!path.as_os_str().is_empty()).then_some(path)
    }

    /// Why bytes of `range` were lost, as far as the file can still tell.
    pub(crate) fn why_lost(&self, range: &Range<usize>) -> io::Error {
        match self.file.bytes() {
            Ok(bytes) if bytes < range.end as u64 => io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("another program cut the file short, to {bytes} bytes"),
            ),
            Ok(_) => self.reread(range).err().unwrap_or_else(|| {
                io::Error::other("it was lost while it was mapped, and can be read again now")
            }),
            Err(error) => error,
        }
    }

    fn reread(&self, range: &Range<usize>) -> io::Result<()> {
        let mut page = range.start - range.start % PAGE_BYTES;
        while page < range.end {
            self.file.read_at(page as u64, &mut [0])?;
            page += PAGE_BYTES;
        }
        Ok(())
    }

    /// The bytes of `range`, or nothing when it is not within the map.
    #[inline]
    pub fn slice(&self, range: Range<usize>) -> Option<&[u8]> {
        let length = length_within(&range, self.map.len()).ok()?;
        let first = self.map.as_ptr().wrapping_add(range.start);
        // SAFETY: `first` and the `length` bytes behind it are within the map by the check above, the map lives as long
        // as the borrow, is readable, and `MapGrant` says that these bytes neither vanish nor change while they are
        // lent. (`protect_none` makes them unreadable, never writable: a touch then ends the process, as it is meant to.)
        Some(unsafe { std::slice::from_raw_parts(first, length) })
    }

    /// Brings the pages of `range` in, so that reading them raises no signal: what a bare touch would turn into the
    /// death of the process (a failed read, a file cut short) comes back as an error. Kernels before 5.14 lack the call:
    /// there the range is read through the file instead, which reports the same errors and leaves the pages cached.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a range outside; what the device answers; `UnexpectedEof` where the file has no such page; and
    /// what was the reason for bytes that were lost earlier.
    pub fn populate(&self, range: Range<usize>) -> io::Result<()> {
        let length = length_within(&range, self.map.len())?;
        if length == 0 || weakened!("populate-skipped") {
            return Ok(());
        }
        if self.is_lost(range.clone()) {
            // What lies there now is zeros of ours, which could be brought in without any error.
            return Err(self.why_lost(&range));
        }
        loop {
            match self
                .map
                .advise_range(MemoryAdvice::PopulateRead, range.start, length)
            {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                    return self.populate_by_reading(range);
                }
                Err(error) if error.raw_os_error() == Some(libc::EFAULT) => {
                    return Err(self.why_absent(&range, error));
                }
                other => return other,
            }
        }
    }

    /// What the file says where the kernel only says that there is no such page.
    fn why_absent(&self, range: &Range<usize>, error: io::Error) -> io::Error {
        match self.file.bytes() {
            Ok(bytes) if bytes < range.end as u64 => self.why_lost(range),
            _ => self.reread(range).err().unwrap_or(error),
        }
    }

    fn populate_by_reading(&self, range: Range<usize>) -> io::Result<()> {
        let mut page = range.start - range.start % PAGE_BYTES;
        let mut byte = [0];
        while page < range.end {
            let position = page as u64;
            if self.file.read_at(position, &mut byte)? == 0 {
                return Err(self.why_lost(&range));
            }
            page += PAGE_BYTES;
        }
        Ok(())
    }

    /// Tells the kernel how `range` will be read.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a range outside, otherwise what the kernel answers. Advice that is refused costs speed only.
    pub fn advise(&self, range: Range<usize>, advice: Advice) -> io::Result<()> {
        let length = length_within(&range, self.map.len())?;
        let known = match advice {
            Advice::Normal => MemoryAdvice::Normal,
            Advice::Random => MemoryAdvice::Random,
            Advice::Sequential => MemoryAdvice::Sequential,
            Advice::WillNeed => MemoryAdvice::WillNeed,
            Advice::Cold => return self.advise_cold(range.start, length),
            Advice::DontNeed => {
                // SAFETY: the map is shared and read-only: dropped pages come back from the file with the same bytes,
                // so nothing that is lent changes. The range was checked against the map above.
                return unsafe {
                    self.map
                        .unchecked_advise_range(UncheckedAdvice::DontNeed, range.start, length)
                };
            }
        };
        self.map.advise_range(known, range.start, length)
    }

    fn advise_cold(&self, start: usize, length: usize) -> io::Result<()> {
        // The kernel asks for whole pages; the first is rounded down and lies within the map.
        let skew = start % PAGE_BYTES;
        let first = self.map.as_mut_ptr().wrapping_add(start - skew);
        // SAFETY: the range lies within the map (checked by the caller of this function), and the advice changes only
        // the order in which pages are reclaimed, never their contents.
        let answer =
            unsafe { rustix::mm::madvise(first.cast(), length + skew, rustix::mm::Advice::LinuxCold) };
        Ok(answer?)
    }

    /// Makes the pages of `range` unreadable, so that a stale read ends the process instead of passing by luck. The range
    /// is widened to whole pages.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a range outside, otherwise what the kernel answers.
    pub fn protect_none(&self, range: Range<usize>) -> io::Result<()> {
        let length = length_within(&range, self.map.len())?;
        let skew = range.start % PAGE_BYTES;
        let first = self.map.as_mut_ptr().wrapping_add(range.start - skew);
        // SAFETY: the range is within this map by the check above, so no other memory is touched. Lent slices become
        // unreadable, which ends the process at a touch and never shows other bytes.
        let answer =
            unsafe { rustix::mm::mprotect(first.cast(), length + skew, rustix::mm::MprotectFlags::empty()) };
        Ok(answer?)
    }
}

impl Deref for Mapping {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.slice(0..self.map.len()).unwrap_or(&[])
    }
}

/// Some bytes of a map, found once: to come to them again takes two loads, and no look at the map.
#[derive(Clone)]
pub(crate) struct MappedPart {
    map: Arc<Mapping>,
    first: *const u8,
    bytes: usize,
}

// SAFETY: the pointer is to bytes that are only read, through shared borrows, and the map that they are in is counted here;
// maps may be used and dropped by any thread.
unsafe impl Send for MappedPart {}
// SAFETY: the same; nothing in it changes.
unsafe impl Sync for MappedPart {}

impl MappedPart {
    /// The bytes of `range`, or nothing when it is not within the map.
    pub(crate) fn new(map: Arc<Mapping>, range: Range<usize>) -> Option<Self> {
        let part = map.slice(range)?;
        let (first, bytes) = (part.as_ptr(), part.len());
        Some(Self { map, first, bytes })
    }

    /// The map.
    pub(crate) fn map(&self) -> &Arc<Mapping> {
        &self.map
    }

    /// The bytes.
    #[inline]
    pub(crate) fn as_slice(&self) -> &[u8] {
        // SAFETY: the map lent just these bytes when this was made, stays where it is, and is counted for at least as long as
        // the borrow; that they do not change while they are lent is what `MapGrant` says.
        unsafe { std::slice::from_raw_parts(self.first, self.bytes) }
    }
}

impl AsRef<[u8]> for Mapping {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Mapping {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Mapping")
            .field("bytes", &self.map.len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::super::file::{Choice, OpenMode, Sync};
    use super::*;

    #[test]
    fn populating_by_reading_reports_what_populating_by_advice_reports() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let file = Arc::new(KernelFile::open(&path, OpenMode::CreateNew, Choice::Off).unwrap());
        file.write_at(0, &[1; 20_000], Sync::No).unwrap();
        let map = Mapping::new(file, 20_000, MapGrant::for_tests()).unwrap();
        map.populate_by_reading(0..20_000).unwrap();
        map.populate_by_reading(19_999..20_000).unwrap();
        assert_eq!(map[..], [1; 20_000]);
        std::process::Command::new("truncate")
            .args(["-s", "8192"])
            .arg(&path)
            .status()
            .unwrap();
        for populate in [Mapping::populate, Mapping::populate_by_reading] {
            populate(&map, 4096..8192).unwrap();
            assert_eq!(
                populate(&map, 4096..8193).unwrap_err().kind(),
                io::ErrorKind::UnexpectedEof
            );
        }
    }
}
