//! A file of the store: opening, writing, reserving, syncing.
//!
//! Each file has two descriptors, one that goes around the page cache and one that goes through it, because alignment
//! decides write by write which of them can be used, and reads and maps want the cache. The kernel keeps the two
//! coherent: a direct write drops the cached pages it covers.
//!
//! What a file system refuses (direct access, `RWF_DSYNC`) is remembered by the file and done the plain way from then
//! on; a failed sync is never repeated here and never taken for such a refusal.

use std::fmt;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use lanterman_format::weakened;
use rustix::fs::{self, AtFlags, FallocateFlags, Mode, OFlags, StatxFlags};
use rustix::io::{Errno, ReadWriteFlags};

use super::PAGE_BYTES;
use super::cached::cached_bytes;
use super::calls::{Call, Calls, cut};
use super::map::Advice;
use super::path::{Place, check_regular, restore_file_mode};

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// An existing file, for reading alone.
    Read,
    /// An existing file, for reading and writing.
    ReadWrite,
    /// A file that must not exist yet, for reading and writing.
    CreateNew,
}

/// What must be true of a write when it returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// The kernel has the bytes: a killed process does not lose them.
    No,
    /// The bytes are on the medium, with whatever is needed to find them: a power cut does not lose them.
    Data,
}

/// Whether a way of doing things is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// Where the system allows it.
    #[default]
    Auto,
    /// Never.
    Off,
    /// Always; an error where the system refuses it.
    Required,
}

/// An open file with its descriptors. Opaque outside the crate: other disks have no use for it.
pub struct KernelFile {
    buffered: OwnedFd,
    direct: Option<OwnedFd>,
    /// For direct reads of a file that is not to be written so: opened at the first of them.
    direct_for_reading: OnceLock<Option<OwnedFd>>,
    direct_refused: AtomicBool,
    dsync_refused: AtomicBool,
    calls: Calls,
}

/// A step of zeros, for file systems that cannot reserve blocks.
const ZEROS_BYTES: usize = 65_536;

impl KernelFile {
    /// Opens the file at `path`, never through a link, neither at its end nor at the directory that it stands in.
    ///
    /// # Errors
    ///
    /// What the kernel answers (`AlreadyExists`, `NotFound`), `NotADirectory` for a directory that is a link,
    /// `InvalidInput` for what is no regular file, or, when it is to be written, has other names: writing would change a
    /// file somewhere else. `Unsupported` when direct access is required and refused.
    pub(crate) fn open(path: &Path, mode: OpenMode, direct: Choice) -> io::Result<Self> {
        let access = if mode == OpenMode::Read {
            OFlags::RDONLY
        } else {
            OFlags::RDWR
        };
        let place = Place::of(path)?;
        if mode != OpenMode::CreateNew {
            place.check_regular()?;
            let buffered = place.open(access, Mode::empty())?;
            return Self::finish_open(&place, buffered, access, mode, direct);
        }
        let created = if weakened!("file-mode-by-umask") {
            Mode::from_raw_mode(0o666)
        } else {
            Mode::RUSR | Mode::WUSR
        };
        let buffered = place.open(access | OFlags::CREATE | OFlags::EXCL, created)?;
        let opened = restore_file_mode(buffered.as_fd())
            .and_then(|()| Self::finish_open(&place, buffered, access, mode, direct));
        if opened.is_err() {
            // What was just made is empty and unknown to anybody; the first error is the one that matters.
            place.unlink().ok();
        }
        opened
    }

    fn finish_open(
        place: &Place<'_>,
        buffered: OwnedFd,
        access: OFlags,
        mode: OpenMode,
        choice: Choice,
    ) -> io::Result<Self> {
        let found = fs::fstat(&buffered)?;
        check_regular(fs::FileType::from_raw_mode(found.st_mode))?;
        if mode != OpenMode::Read && found.st_nlink > 1 && !weakened!("hard-links-unchecked") {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the file has more than one name (hard links); writing would change the others too",
            ));
        }
        clear_nonblock(&buffered)?;
        let direct = if choice == Choice::Off {
            None
        } else {
            open_direct(place, access, &found)?
        };
        if direct.is_none() && choice == Choice::Required {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "the file system refuses direct access, and it was required",
            ));
        }
        Ok(Self::from_descriptors(buffered, direct))
    }

    /// A file from descriptors that are open already: both of one file, the second direct.
    pub(crate) fn from_descriptors(buffered: OwnedFd, direct: Option<OwnedFd>) -> Self {
        Self {
            buffered,
            direct,
            direct_for_reading: OnceLock::new(),
            direct_refused: AtomicBool::new(false),
            dsync_refused: AtomicBool::new(false),
            calls: Calls::default(),
        }
    }

    /// The same file, whose calls go wrong as planned.
    pub(crate) fn with_calls(mut self, calls: &Calls) -> Self {
        self.calls = calls.clone();
        self
    }

    /// A file that has no name and lives in memory, for simulated disks: it can be mapped like any other.
    ///
    /// # Errors
    ///
    /// What the kernel answers.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn in_memory() -> io::Result<Self> {
        let memory = fs::memfd_create(c"lanterman", fs::MemfdFlags::CLOEXEC)?;
        Ok(Self::from_descriptors(memory, None))
    }

    /// Makes the file at least `bytes` long without reserving anything. It never shrinks a file.
    ///
    /// # Errors
    ///
    /// What the kernel answers.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn lengthen(&self, bytes: u64) -> io::Result<()> {
        check_end(bytes, 0)?;
        if bytes > self.bytes()? {
            fs::ftruncate(&self.buffered, bytes)?;
        }
        Ok(())
    }

    /// The descriptor that goes through the page cache.
    pub(crate) fn buffered(&self) -> &OwnedFd {
        &self.buffered
    }

    /// The descriptor around the page cache, as long as nothing was refused on it.
    pub(crate) fn direct(&self) -> Option<&OwnedFd> {
        if self.direct_refused.load(Ordering::Relaxed) {
            None
        } else {
            self.direct.as_ref()
        }
    }

    /// Remembers that the file system refuses direct access after all.
    pub(crate) fn refuse_direct(&self) {
        self.direct_refused.store(true, Ordering::Relaxed);
    }

    /// The descriptor for `bytes` at `position`, and whether it is the direct one.
    pub(crate) fn descriptor_for(&self, position: u64, bytes: &[u8]) -> (&OwnedFd, bool) {
        match self.direct() {
            Some(direct) if is_aligned(position, bytes) => (direct, true),
            _ => (&self.buffered, false),
        }
    }

    /// The descriptor for reading into `bytes` from `position` on, around the page cache wherever that can be, and whether
    /// it is such a one.
    pub(crate) fn descriptor_for_reading(&self, position: u64, bytes: &[u8]) -> (&OwnedFd, bool) {
        match self.direct_for_reads() {
            Some(direct) if is_aligned(position, bytes) => (direct, true),
            _ => (&self.buffered, false),
        }
    }

    /// The descriptor around the page cache for reads, also where writing so was not chosen.
    fn direct_for_reads(&self) -> Option<&OwnedFd> {
        if self.direct_refused.load(Ordering::Relaxed) {
            return None;
        }
        self.direct.as_ref().or_else(|| {
            self.direct_for_reading
                .get_or_init(|| open_again_for_direct_reads(&self.buffered))
                .as_ref()
        })
    }

    /// Whether aligned reads leave the page cache alone.
    pub(crate) fn reads_directly(&self) -> bool {
        self.direct_for_reads().is_some()
    }

    /// How many bytes of `range` the page cache has, in whole pages; nothing where the system does not tell.
    pub(crate) fn cached_bytes(&self, range: &Range<u64>) -> Option<u64> {
        cached_bytes(self.buffered.as_fd(), range)
    }

    /// The length of the file.
    ///
    /// # Errors
    ///
    /// What the kernel answers.
    pub(crate) fn bytes(&self) -> io::Result<u64> {
        self.calls.begin(Call::Length)?;
        Ok(u64::try_from(fs::fstat(&self.buffered)?.st_size).unwrap_or(0))
    }

    /// Reads through the page cache; fewer bytes than asked for only near the end or by the kernel's mood.
    ///
    /// # Errors
    ///
    /// What the kernel answers.
    pub(crate) fn read_at(&self, position: u64, bytes: &mut [u8]) -> io::Result<usize> {
        check_end(position, bytes.len())?;
        read_retrying(&self.calls, &self.buffered, position, bytes, false)
    }

    /// Reads around the page cache where memory, position and length are aligned and the file system allows it, also
    /// where writing so was not chosen; otherwise through it.
    ///
    /// # Errors
    ///
    /// What the kernel answers.
    pub(crate) fn read_direct_at(&self, position: u64, bytes: &mut [u8]) -> io::Result<usize> {
        check_end(position, bytes.len())?;
        let (descriptor, is_direct) = self.descriptor_for_reading(position, bytes);
        match read_retrying(&self.calls, descriptor, position, bytes, is_direct) {
            Err(error) if is_direct && error.raw_os_error() == Some(libc::EINVAL) => {
                self.refuse_direct();
                read_retrying(&self.calls, &self.buffered, position, bytes, false)
            }
            other => other,
        }
    }

    /// Writes all of `bytes`, or gives an error and leaves open how much was written.
    ///
    /// # Errors
    ///
    /// What the kernel answers; `WriteZero` when it takes nothing.
    pub(crate) fn write_at(&self, position: u64, bytes: &[u8], sync: Sync) -> io::Result<()> {
        check_end(position, bytes.len())?;
        write_whole(position, bytes, |at, rest| self.write_once(at, rest, sync))?;
        // Pieces written before the refusal are covered too: this sync is for the whole file.
        if sync == Sync::Data && !bytes.is_empty() && self.dsync_refused.load(Ordering::Relaxed) {
            self.sync_data()?;
        }
        Ok(())
    }

    /// One write that the kernel took at least a part of; refusals of a way of writing lead to the next plainer way.
    fn write_once(&self, position: u64, bytes: &[u8], sync: Sync) -> io::Result<usize> {
        loop {
            let (descriptor, is_direct) = self.descriptor_for(position, bytes);
            let dsync = sync == Sync::Data && !self.dsync_refused.load(Ordering::Relaxed);
            let call = if dsync { Call::WriteSync } else { Call::Write };
            let answer = self.calls.begin(call).and_then(|most| {
                let part = bytes.get(..cut(bytes.len(), most, is_direct)).unwrap_or(bytes);
                if dsync {
                    let parts = [IoSlice::new(part)];
                    rustix::io::pwritev2(descriptor, &parts, position, ReadWriteFlags::DSYNC)
                } else {
                    rustix::io::pwrite(descriptor, part, position)
                }
            });
            match answer {
                Ok(written) => return Ok(written),
                Err(Errno::INTR) if !weakened!("interrupted-call-not-repeated") => {}
                Err(Errno::OPNOTSUPP | Errno::NOSYS) if dsync => {
                    self.dsync_refused.store(true, Ordering::Relaxed);
                }
                Err(Errno::INVAL) if is_direct => self.refuse_direct(),
                Err(Errno::INVAL) if dsync => self.dsync_refused.store(true, Ordering::Relaxed),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Reserves real blocks for `range` and makes the file at least as long as its end. It never shrinks a file.
    ///
    /// On file systems that cannot reserve, zeros are written behind the present end. Copy-on-write file systems reserve,
    /// yet may still run full when the blocks are written.
    ///
    /// # Errors
    ///
    /// `StorageFull` when the disk is full: the file then has its old length and keeps no block beyond it.
    pub(crate) fn reserve(&self, range: Range<u64>) -> io::Result<()> {
        check_end(range.end, 0)?;
        let length = range
            .end
            .checked_sub(range.start)
            .ok_or(io::ErrorKind::InvalidInput)?;
        let old_bytes = self.bytes()?;
        if length == 0 {
            return Ok(());
        }
        let answer = loop {
            let answer = self
                .calls
                .begin(Call::Reserve)
                .and_then(|_| fs::fallocate(&self.buffered, FallocateFlags::empty(), range.start, length));
            match answer {
                Err(Errno::INTR) => {}
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => break self.write_zeros(old_bytes, range.end),
                other => break other.map_err(io::Error::from),
            }
        };
        if answer.is_err() {
            // The kernel keeps what it got before the disk was full; without this the full disk would stay full.
            fs::ftruncate(&self.buffered, old_bytes).ok();
        }
        answer
    }

    fn write_zeros(&self, from: u64, to: u64) -> io::Result<()> {
        let zeros = vec![0; ZEROS_BYTES];
        let mut at = from;
        while at < to {
            let step = usize::try_from(to - at).unwrap_or(ZEROS_BYTES).min(ZEROS_BYTES);
            self.write_at(at, zeros.get(..step).unwrap_or(&zeros), Sync::No)?;
            at += step as u64;
        }
        Ok(())
    }

    /// Puts all that was written on the medium, with the length and whatever is needed to find it.
    ///
    /// # Errors
    ///
    /// What the kernel answers, once: a second call may succeed although the bytes are lost.
    pub(crate) fn sync_data(&self) -> io::Result<()> {
        sync_retrying(|| {
            self.calls.begin(Call::Sync)?;
            fs::fdatasync(&self.buffered)
        })
    }

    /// Gives the blocks of `range` back; it then reads as zeros. The length stays.
    ///
    /// # Errors
    ///
    /// What the kernel answers; `Unsupported` where the file system cannot.
    pub(crate) fn punch(&self, range: Range<u64>) -> io::Result<()> {
        check_end(range.end, 0)?;
        let length = range
            .end
            .checked_sub(range.start)
            .ok_or(io::ErrorKind::InvalidInput)?;
        if length == 0 {
            return Ok(());
        }
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        loop {
            let answer = self
                .calls
                .begin(Call::Punch)
                .and_then(|_| fs::fallocate(&self.buffered, flags, range.start, length));
            match answer {
                Err(Errno::INTR) => {}
                other => return other.map_err(io::Error::from),
            }
        }
    }

    /// Tells the kernel how `range` will be read through the page cache. [`Advice::Cold`] has no counterpart for files.
    ///
    /// # Errors
    ///
    /// What the kernel answers.
    pub(crate) fn advise(&self, range: Range<u64>, advice: Advice) -> io::Result<()> {
        let advice = match advice {
            Advice::Normal => fs::Advice::Normal,
            Advice::Random => fs::Advice::Random,
            Advice::Sequential => fs::Advice::Sequential,
            Advice::WillNeed => fs::Advice::WillNeed,
            Advice::DontNeed => fs::Advice::DontNeed,
            Advice::Cold => return Ok(()),
        };
        let length = range
            .end
            .checked_sub(range.start)
            .ok_or(io::ErrorKind::InvalidInput)?;
        match std::num::NonZeroU64::new(length) {
            // Without a length the kernel would take the advice for the rest of the file.
            None => Ok(()),
            length => {
                self.calls.begin(Call::Advise)?;
                Ok(fs::fadvise(&self.buffered, range.start, length, advice)?)
            }
        }
    }
}

impl fmt::Debug for KernelFile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("KernelFile")
            .field("buffered", &self.buffered)
            .field("direct", &self.direct())
            .finish_non_exhaustive()
    }
}

/// Puts the entries of a directory on the medium.
///
/// # Errors
///
/// What the kernel answers.
pub(crate) fn sync_directory(path: &Path, calls: &Calls) -> io::Result<()> {
    // The parent of a relative name is nothing, which the kernel calls by a point.
    let path = if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = loop {
        match fs::open(path, flags, Mode::empty()) {
            Err(Errno::INTR) => {}
            other => break other?,
        }
    };
    sync_retrying(|| {
        calls.begin(Call::SyncDirectory)?;
        fs::fsync(&directory)
    })
}

/// The bytes that a user without privileges can still write on the file system of `path`.
///
/// # Errors
///
/// What the kernel answers.
pub(crate) fn free_bytes(path: &Path) -> io::Result<u64> {
    let found = fs::statvfs(path)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

/// The direct descriptor of the file already opened, or nothing where the file system refuses.
fn open_direct(place: &Place<'_>, access: OFlags, opened: &fs::Stat) -> io::Result<Option<OwnedFd>> {
    let direct = match place.open(access | OFlags::DIRECT, Mode::empty()) {
        Ok(direct) => direct,
        // Too many open files is a matter for the caller, not a property of the file system.
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM)
            ) =>
        {
            return Err(error);
        }
        Err(_) => return Ok(None),
    };
    let found = fs::fstat(&direct)?;
    // The name was looked up twice: between the two, somebody may have put another file there.
    if (found.st_dev, found.st_ino) != (opened.st_dev, opened.st_ino) {
        return Ok(None);
    }
    if let Ok(details) = fs::statx(&direct, c"", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN)
        && details.stx_mask & StatxFlags::DIOALIGN.bits() != 0
    {
        let fits = |alignment: u32| (1..=PAGE_BYTES).contains(&(alignment as usize));
        if !fits(details.stx_dio_mem_align) || !fits(details.stx_dio_offset_align) {
            return Ok(None);
        }
    }
    clear_nonblock(&direct)?;
    Ok(Some(direct))
}

/// Takes the non-blocking mode off again: through it io_uring would answer `EAGAIN` instead of waiting for the disk.
fn clear_nonblock(file: &OwnedFd) -> io::Result<()> {
    let flags = fs::fcntl_getfl(file)?;
    Ok(fs::fcntl_setfl(file, flags - OFlags::NONBLOCK)?)
}

fn is_aligned(position: u64, bytes: &[u8]) -> bool {
    !bytes.is_empty()
        && position.is_multiple_of(PAGE_BYTES as u64)
        && bytes.len().is_multiple_of(PAGE_BYTES)
        && bytes.as_ptr().addr().is_multiple_of(PAGE_BYTES)
}

/// Refuses what the kernel would refuse with the same `EINVAL` that stands for a refusal of direct access.
fn check_end(position: u64, bytes: usize) -> io::Result<()> {
    position
        .checked_add(bytes as u64)
        .filter(|&end| i64::try_from(end).is_ok())
        .map(drop)
        .ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                "a position beyond what a file can have",
            )
        })
}

/// Writes piece after piece until nothing is left.
fn write_whole(
    position: u64,
    bytes: &[u8],
    mut write_once: impl FnMut(u64, &[u8]) -> io::Result<usize>,
) -> io::Result<()> {
    let (mut at, mut rest) = (position, bytes);
    while !rest.is_empty() {
        let written = write_once(at, rest)?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        if weakened!("short-write-is-whole") {
            break;
        }
        at += written as u64;
        rest = rest.get(written..).unwrap_or(&[]);
    }
    Ok(())
}

fn read_retrying(
    calls: &Calls,
    file: impl AsFd,
    position: u64,
    bytes: &mut [u8],
    is_direct: bool,
) -> io::Result<usize> {
    loop {
        let answer = calls.begin(Call::Read).and_then(|most| {
            let part = bytes.split_at_mut(cut(bytes.len(), most, is_direct)).0;
            rustix::io::pread(file.as_fd(), part, position)
        });
        match answer {
            Err(Errno::INTR) if !weakened!("interrupted-call-not-repeated") => {}
            other => return Ok(other?),
        }
    }
}

/// A second, direct descriptor of an open file, for reading; nothing where the system refuses one.
fn open_again_for_direct_reads(file: &OwnedFd) -> Option<OwnedFd> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    fs::open(
        path,
        OFlags::RDONLY | OFlags::DIRECT | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .ok()
}

/// Repeats a sync only when it was interrupted before it began; any other failure is final.
fn sync_retrying(mut sync: impl FnMut() -> rustix::io::Result<()>) -> io::Result<()> {
    loop {
        match sync() {
            Err(Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file_in(directory: &tempfile::TempDir) -> KernelFile {
        KernelFile::open(&directory.path().join("file"), OpenMode::CreateNew, Choice::Auto).unwrap()
    }

    #[test]
    fn short_writes_are_continued_and_a_write_of_nothing_is_an_error() {
        let bytes: Vec<u8> = (0..200).collect();
        let mut arrived = Vec::new();
        write_whole(1000, &bytes, |at, rest| {
            assert_eq!(at, 1000 + arrived.len() as u64);
            let taken = rest.len().min(7);
            arrived.extend_from_slice(&rest[..taken]);
            Ok(taken)
        })
        .unwrap();
        assert_eq!(arrived, bytes);
        let error = write_whole(0, &bytes, |_, _| Ok(0)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WriteZero);
        let mut calls = 0;
        let error = write_whole(0, &bytes, |_, _| {
            calls += 1;
            if calls == 1 {
                Ok(100)
            } else {
                Err(io::Error::from_raw_os_error(libc::ENOSPC))
            }
        });
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn a_refusal_of_direct_or_synced_writes_leads_to_the_plain_way_with_the_same_outcome() {
        let directory = tempfile::tempdir().unwrap();
        let file = file_in(&directory);
        let page = super::super::memory::AlignedBuffer::new(PAGE_BYTES).unwrap();
        for position in 0..4 {
            file.write_at(position * 4096, &page, Sync::Data).unwrap();
            file.write_at(
                position * 4096 + 1,
                &[u8::try_from(position).unwrap(); 9],
                Sync::Data,
            )
            .unwrap();
            if position == 1 {
                file.refuse_direct();
                assert!(file.direct().is_none());
            }
            if position == 2 {
                file.dsync_refused.store(true, Ordering::Relaxed);
            }
        }
        let mut back = [9; 12];
        file.read_at(3 * 4096, &mut back).unwrap();
        assert_eq!(back, [0, 3, 3, 3, 3, 3, 3, 3, 3, 3, 0, 0]);
        assert_eq!(file.bytes().unwrap(), 4 * 4096);
    }

    #[test]
    fn a_file_system_without_reservations_gets_zeros_behind_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let file = file_in(&directory);
        file.write_at(0, b"kept", Sync::No).unwrap();
        file.write_zeros(4, 200_000).unwrap();
        let mut back = vec![1; 200_000];
        assert_eq!(file.read_at(0, &mut back).unwrap(), 200_000);
        assert_eq!(&back[..4], b"kept");
        assert!(back[4..].iter().all(|&byte| byte == 0));
    }

    /// A descriptor left in that mode would make io_uring give up where it should wait.
    #[test]
    fn no_descriptor_stays_in_the_non_blocking_mode() {
        let directory = tempfile::tempdir().unwrap();
        let file = file_in(&directory);
        for descriptor in [Some(file.buffered()), file.direct()].into_iter().flatten() {
            assert!(!fs::fcntl_getfl(descriptor).unwrap().contains(OFlags::NONBLOCK));
        }
        assert_eq!(file.direct().is_some(), open_is_direct(&file));
    }

    fn open_is_direct(file: &KernelFile) -> bool {
        file.direct()
            .is_some_and(|direct| fs::fcntl_getfl(direct).unwrap().contains(OFlags::DIRECT))
    }

    #[test]
    fn only_aligned_memory_at_aligned_positions_goes_around_the_page_cache() {
        let page = super::super::memory::AlignedBuffer::new(2 * PAGE_BYTES).unwrap();
        assert!(is_aligned(8192, &page));
        assert!(!is_aligned(8193, &page));
        assert!(!is_aligned(8192, &page[1..]));
        assert!(!is_aligned(8192, &page[..100]));
        assert!(!is_aligned(8192, &page[512..4608]));
        assert!(!is_aligned(0, &[]));
    }
}
