//! All access to files, behind traits, so that tests can put other disks under the engine.
//!
//! A disk promises, and every implementation passes the same suite of tests:
//!
//! - **durable**: what a write with [`Sync::Data`] covered, and what was written before a [`DiskFile::sync_data`] of the
//!   same file returned without error, survives a power cut, in whole; so does the file's length as far as those bytes
//!   need it. A name (created, renamed, removed) survives once [`Disk::sync_directory`] of its directory has returned.
//!   Nothing else is promised to survive, and what does survive of it may be any part in any order;
//! - **process-safe**: whatever a call has written survives the death of the process as soon as the call returns;
//! - **whole or an error**: writes are never cut short silently; after an error any part of them may have happened;
//! - **a failed sync is final**: a later sync that succeeds says nothing about the bytes before the failure;
//! - **a full disk** is an error of kind [`io::ErrorKind::StorageFull`], raised by [`DiskFile::reserve`] and not later
//!   (copy-on-write file systems excepted).
//!
//! Paths are used as they are given; relative ones follow the working directory of the process, which may change.

mod bulk_read;
#[cfg(any(test, feature = "testing"))]
mod crash;
#[cfg(any(test, feature = "testing"))]
mod faulty;
#[cfg(any(test, feature = "testing"))]
mod late;
#[cfg(any(test, feature = "testing"))]
mod memory;
mod plain;
#[cfg(any(test, feature = "testing"))]
mod recording;
mod ring;
mod ring_at_need;
mod ring_reader;
mod system;
#[cfg(test)]
mod tests;
mod thread_reader;

use std::fmt::Debug;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use lanterman_format::weakened;

use crate::atomics::{Ordering, order};

pub use crate::sys::SharedBytes;
#[cfg(any(test, feature = "testing"))]
pub use crate::sys::calls::{Call, CallFault, CallPlan};
pub use crate::sys::file::{Choice, KernelFile, OpenMode, Sync};
pub use crate::sys::map::{Advice, MapGrant, Mapping};
pub use crate::sys::memory::AlignedBuffer;
pub use bulk_read::{BulkReader, ReadCompletion, ReadRequest};
#[cfg(any(test, feature = "testing"))]
pub use crash::{crash_choices, torn_choices};
#[cfg(any(test, feature = "testing"))]
pub use faulty::{Fault, FaultyDisk, OperationKind};
#[cfg(any(test, feature = "testing"))]
pub use memory::{Fate, MemoryDisk, Unit};
#[cfg(any(test, feature = "testing"))]
pub use recording::{FileId, Operation, RecordingDisk, Replay};
pub use system::{SystemDisk, SystemOptions};

/// What stands at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PathKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// Anything else: a link, a FIFO, a device.
    Other,
}

/// What is known of a path without opening it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathMetadata {
    /// What stands there. A link is not followed.
    pub kind: PathKind,
    /// The length of a file.
    pub bytes: u64,
}

/// How a disk works, for reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskDescription {
    /// Whether writes go around the page cache: as chosen, and until the first file is opened the hope of it.
    pub direct: bool,
    /// Whether bulk writes go through io_uring.
    pub ring: bool,
    /// What positions, lengths and memory must be aligned to for direct writes.
    pub alignment: u32,
    /// Which implementation this is.
    pub name: &'static str,
}

/// The end of one [`BulkWriter::submit`].
#[derive(Debug)]
pub struct Completion {
    /// The token given to `submit`.
    pub token: u64,
    /// Whether all bytes were written.
    pub result: io::Result<()>,
}

/// A file system as the engine sees it.
pub trait Disk: Send + std::marker::Sync + Debug {
    /// Makes a directory that only its owner may enter (0700). Its parent must exist.
    ///
    /// # Errors
    ///
    /// `AlreadyExists`, or what else the system answers.
    fn create_directory(&self, path: &Path) -> io::Result<()>;

    /// Opens a regular file; one that is created may be used by its owner alone (0600), whatever the umask.
    ///
    /// # Errors
    ///
    /// `AlreadyExists` and `NotFound`; a link, a FIFO and a file with several names are refused; and what else the
    /// system answers.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens, and makes if it is missing, a table of `words` 64-bit words that processes share.
    ///
    /// # Errors
    ///
    /// As [`Self::open`]; `InvalidInput` for no words or more than a million bytes of them.
    fn open_shared(&self, path: &Path, words: usize) -> io::Result<Arc<dyn SharedTable>>;

    /// Gives a file another name, atomically, and never over an existing one.
    ///
    /// # Errors
    ///
    /// `AlreadyExists`, `NotFound`, or what else the system answers.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a name. Open files and maps of it stay usable; the space comes back when the last is closed.
    ///
    /// # Errors
    ///
    /// `NotFound`, or what else the system answers.
    fn unlink(&self, path: &Path) -> io::Result<()>;

    /// Makes all changes of names in the directory durable.
    ///
    /// # Errors
    ///
    /// What the system answers; a failure is final.
    fn sync_directory(&self, path: &Path) -> io::Result<()>;

    /// The names in a directory, in no order. Names that are not UTF-8 are left out: none of the store's is such.
    ///
    /// # Errors
    ///
    /// `NotFound`, or what else the system answers.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;

    /// What stands at a path, links not followed; nothing when there is nothing.
    ///
    /// # Errors
    ///
    /// What the system answers, other than that there is nothing.
    fn metadata(&self, path: &Path) -> io::Result<Option<PathMetadata>>;

    /// Whether anything stands at a path.
    ///
    /// # Errors
    ///
    /// As [`Self::metadata`].
    fn exists(&self, path: &Path) -> io::Result<bool> {
        Ok(self.metadata(path)?.is_some())
    }

    /// Takes the exclusive lock on the file at `path`, which is made if it is missing. Nothing when another opening, in
    /// this process or in another, holds it. The lock goes when the guard is dropped or the process dies.
    ///
    /// # Errors
    ///
    /// What the system answers.
    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn FileLock>>>;

    /// A writer that keeps up to `depth` pieces in flight.
    ///
    /// # Errors
    ///
    /// What the system answers, where io_uring is required; otherwise there is always a plain writer.
    fn bulk_writer(&self, depth: usize) -> io::Result<Box<dyn BulkWriter>>;

    /// A reader that keeps up to `depth` reads in flight. One that may not have a helper thread, and has no ring either,
    /// reads in the calls of whoever submits.
    ///
    /// # Errors
    ///
    /// What the system answers, where io_uring is required; otherwise there is always a plain reader.
    fn bulk_reader(&self, depth: usize, may_have_thread: bool) -> io::Result<Box<dyn BulkReader>> {
        let _ = may_have_thread;
        Ok(Box::new(bulk_read::PlainReader::new(depth)))
    }

    /// The bytes that can still be written on the file system of `path`.
    ///
    /// # Errors
    ///
    /// What the system answers.
    fn free_bytes(&self, path: &Path) -> io::Result<u64>;

    /// How this disk works.
    fn describe(&self) -> DiskDescription;
}

/// An open file. Closed when the last owner is gone; closing syncs nothing.
pub trait DiskFile: Send + std::marker::Sync + Debug {
    /// The length of the file.
    ///
    /// # Errors
    ///
    /// What the system answers.
    fn bytes(&self) -> io::Result<u64>;

    /// Reserves blocks for a range of the file, which becomes at least as long as the range's end. What is new reads as zeros;
    /// what the range holds already stays. A file never shrinks: an end before its own changes nothing of its length. Not
    /// durable before a sync.
    ///
    /// # Errors
    ///
    /// `StorageFull`: the file then has its old length, and no new block behind that. Blocks that were found for a part of the
    /// range before that length may be kept: who knows that nothing is there [punches](Self::punch) it.
    fn reserve(&self, range: Range<u64>) -> io::Result<()>;

    /// Reads into the front of `bytes` and says how many came: zero at the end of the file, fewer than asked for at any
    /// time. The caller loops.
    ///
    /// # Errors
    ///
    /// What the system answers.
    fn read_at(&self, position: u64, bytes: &mut [u8]) -> io::Result<usize>;

    /// As [`Self::read_at`], leaving the page cache alone where position, length and memory are aligned and the file
    /// system can, also where writes go through the cache. What is read around the cache is what the medium has: of bytes
    /// that a failed sync lost, the cache may have kept a copy that looks written.
    ///
    /// # Errors
    ///
    /// What the system answers.
    fn read_direct_at(&self, position: u64, bytes: &mut [u8]) -> io::Result<usize> {
        self.read_at(position, bytes)
    }

    /// Writes all of `bytes`, around the page cache where position, length and memory are aligned and the disk can.
    /// With [`Sync::Data`] these bytes are durable when it returns; other bytes of the file need not be.
    ///
    /// # Errors
    ///
    /// What the system answers; any part may have been written, and after a failed [`Sync::Data`] nothing may be taken
    /// for durable.
    fn write_at(&self, position: u64, bytes: &[u8], sync: Sync) -> io::Result<()>;

    /// Makes all that was written to the file durable, with its length.
    ///
    /// # Errors
    ///
    /// What the system answers; a failure is final.
    fn sync_data(&self) -> io::Result<()>;

    /// Maps the first `bytes` of the file for reading. The map keeps the file alive.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for no bytes or more than the file has, `Unsupported` on a disk without a [`MapGrant`].
    fn map(&self, bytes: u64) -> io::Result<Mapping>;

    /// Tells the system how a range will be read through the page cache. [`Advice::DontNeed`] drops what the cache has of
    /// the whole pages in it, unless it is still to be written, mapped, or being read in that moment: later reads show the
    /// medium.
    ///
    /// # Errors
    ///
    /// What the system answers; refused advice costs speed only.
    fn advise(&self, range: Range<u64>, advice: Advice) -> io::Result<()>;

    /// Gives the blocks of a range back; it then reads as zeros, in maps too, and the length stays. Not durable before a
    /// sync.
    ///
    /// # Errors
    ///
    /// `Unsupported` where the file system cannot, or what else the system answers.
    fn punch(&self, range: Range<u64>) -> io::Result<()>;

    /// How many bytes of `range` the page cache has, in whole pages; nothing where that cannot be told.
    fn cached_bytes(&self, range: &Range<u64>) -> Option<u64> {
        let _ = range;
        None
    }

    /// Whether aligned writes go around the page cache.
    fn is_direct(&self) -> bool {
        false
    }

    /// The file for writers that hand it to the kernel; nothing for disks whose writes must go through
    /// [`Self::write_at`].
    fn kernel_file(&self) -> Option<&Arc<KernelFile>> {
        None
    }

    /// Forgets what is written and not yet synced, as the kernel does when writing it out has failed: it still reads
    /// back, and no later sync makes it durable. Disks without such knowledge do nothing.
    #[cfg(any(test, feature = "testing"))]
    fn lose_unsynced(&self) {}
}

/// Writes large pieces without waiting for each. Not synced: a [`DiskFile::sync_data`] follows when all have ended.
///
/// Dropping a writer waits for what is in flight.
pub trait BulkWriter: Send + Debug {
    /// Begins to write `range` of `bytes` at `position`. Never blocks for long on a writer with a ring; the plain one
    /// writes at once. The bytes are held until the completion has been reaped. Errors come with the completion.
    fn submit(
        &mut self,
        file: &Arc<dyn DiskFile>,
        position: u64,
        bytes: SharedBytes,
        range: Range<usize>,
        token: u64,
    );

    /// Appends the completions at hand, in any order; with `wait`, at least one as long as any is outstanding. Progress
    /// of long submissions is made here too.
    fn reap(&mut self, wait: bool, completions: &mut Vec<Completion>);

    /// The number of submissions whose completion has not been reaped.
    fn in_flight(&self) -> usize;
}

/// Holds the lock on a file until it is dropped.
pub trait FileLock: Send + std::marker::Sync + Debug {}

/// Holds the lock on one slot of a [`SharedTable`] until it is dropped.
pub trait SlotLock: Send + std::marker::Sync + Debug {}

/// What was told before a word is visible to whoever loads it.
pub(crate) fn table_load_order() -> Ordering {
    order(Ordering::Acquire, weakened!("reader-table-load-relaxed"))
}

/// The other half of [`table_load_order`].
pub(crate) fn table_store_order() -> Ordering {
    order(Ordering::Release, weakened!("reader-table-store-relaxed"))
}

/// Words that processes share, and locks with numbers that go with their holder. What a slot's lock guards, and which
/// words belong to it, is the engine's business. Nothing in the table is ever durable.
pub trait SharedTable: Send + std::marker::Sync + Debug {
    /// The number of words.
    fn words(&self) -> usize;

    /// The word at `index`, with acquire order; nothing outside the table.
    fn load(&self, index: usize) -> Option<u64>;

    /// Stores the word at `index`, with release order; `false` outside the table.
    fn store(&self, index: usize, value: u64) -> bool;

    /// Stores `new` where `current` stands, sequentially consistent; otherwise gives what was found. Nothing outside
    /// the table.
    fn compare_exchange(&self, index: usize, current: u64, new: u64) -> Option<Result<u64, u64>>;

    /// Takes the lock numbered `slot`; nothing when anybody holds it, this table included.
    ///
    /// # Errors
    ///
    /// What the system answers.
    fn try_lock_slot(&self, slot: u32) -> io::Result<Option<Box<dyn SlotLock>>>;

    /// Whether anybody holds the lock numbered `slot`, this table included.
    ///
    /// # Errors
    ///
    /// What the system answers.
    fn slot_is_locked(&self, slot: u32) -> io::Result<bool>;
}

/// Reads until `bytes` is full or the file ends, and says how many bytes came.
///
/// # Errors
///
/// What the system answers.
pub fn read_full_at(file: &dyn DiskFile, position: u64, bytes: &mut [u8]) -> io::Result<usize> {
    read_full(bytes, |done, rest| {
        file.read_at(position.saturating_add(done), rest)
    })
}

/// As [`read_full_at`], around the page cache where [`DiskFile::read_direct_at`] can.
///
/// # Errors
///
/// What the system answers.
pub fn read_full_direct_at(file: &dyn DiskFile, position: u64, bytes: &mut [u8]) -> io::Result<usize> {
    read_full(bytes, |done, rest| {
        file.read_direct_at(position.saturating_add(done), rest)
    })
}

/// Has the page cache forget a file, behind a [`DiskFile::sync_data`] that succeeded.
///
/// After a failed sync Linux takes the pages for clean, although the device never got them; they read back, and the next
/// sync has nothing to do for them. So what is clean goes, true or not.
///
/// # Errors
///
/// What the system answers.
pub fn forget_cached(file: &dyn DiskFile) -> io::Result<()> {
    file.advise(0..file.bytes()?, Advice::DontNeed)
}

fn read_full(
    bytes: &mut [u8],
    mut read: impl FnMut(u64, &mut [u8]) -> io::Result<usize>,
) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match read(done as u64, rest)? {
            0 => break,
            read => done += read,
        }
    }
    Ok(done)
}
