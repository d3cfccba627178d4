//! The disk of the operating system.

use std::collections::HashSet;
use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lanterman_format::weakened;
use parking_lot::Mutex;
use rustix::fs::FileType;

#[cfg(any(test, feature = "testing"))]
use crate::sys::calls::CallPlan;
use crate::sys::calls::Calls;
use crate::sys::file::{self, KernelFile, OpenMode, Sync};
use crate::sys::lock::{self, Extent};
use crate::sys::map::{Advice, MapGrant, Mapping};
use crate::sys::path::{self as names, Place};
use crate::sys::shared::SharedWords;
use crate::sys::{PAGE_BYTES, ring as kernel_ring};

use super::bulk_read::PlainReader;
use super::ring::RingWriter;
use super::ring_at_need::{RingUse, WriterAtNeed};
use super::ring_reader::RingReader;
use super::thread_reader::ReadThread;
use super::{
    BulkReader, BulkWriter, Choice, Disk, DiskDescription, DiskFile, FileLock, PathKind, PathMetadata,
    SharedTable, SlotLock,
};

/// How a [`SystemDisk`] does its work.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemOptions {
    /// Whether bulk writes go through io_uring.
    pub ring: Choice,
    /// Whether aligned writes go around the page cache.
    pub direct: Choice,
    /// The right to map files; without it [`DiskFile::map`] answers `Unsupported`.
    pub maps: Option<MapGrant>,
    /// Whether a page that is lost under a map is a signal, as the kernel has it, and not zeros and an error.
    pub unguarded: bool,
}

impl SystemOptions {
    /// The defaults with the right to map, for tests, which keep the contract of [`MapGrant`] by themselves.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub fn for_tests() -> Self {
        Self {
            maps: Some(MapGrant::for_tests()),
            ..Self::default()
        }
    }
}

/// The disk of the operating system, through system calls and io_uring.
#[derive(Debug)]
pub struct SystemDisk {
    options: SystemOptions,
    ring: Arc<RingUse>,
    calls: Calls,
    /// Reads ahead where there is no ring.
    read_thread: ReadThread,
    /// Cleared by the first file on which direct access was refused.
    direct: AtomicBool,
}

impl SystemDisk {
    /// A disk that works as the options say.
    ///
    /// # Errors
    ///
    /// The kernel's refusal of io_uring where it is required.
    pub fn new(options: SystemOptions) -> io::Result<Self> {
        Self::with(options, Calls::default())
    }

    /// A disk of which single system calls go wrong, beneath everything that is to cope with that.
    ///
    /// # Errors
    ///
    /// As [`Self::new`], planned refusals included.
    #[cfg(any(test, feature = "testing"))]
    pub fn with_calls(options: SystemOptions, plan: Arc<CallPlan>) -> io::Result<Self> {
        Self::with(options, Calls::planned(plan))
    }

    fn with(options: SystemOptions, calls: Calls) -> io::Result<Self> {
        let known = match options.ring {
            Choice::Off => Some(false),
            // Asked when something is first written in bulk, or read ahead.
            Choice::Auto => None,
            Choice::Required => Some(kernel_ring::probe(&calls).map(|()| true)?),
        };
        Ok(Self {
            options,
            ring: RingUse::new(known, calls.clone()),
            calls,
            read_thread: ReadThread::default(),
            direct: AtomicBool::new(options.direct != Choice::Off),
        })
    }
}

impl Disk for SystemDisk {
    fn create_directory(&self, path: &Path) -> io::Result<()> {
        names::create_directory(path)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let file = KernelFile::open(path, mode, self.options.direct)?.with_calls(&self.calls);
        if file.direct().is_none() {
            self.direct.store(false, Ordering::Relaxed);
        }
        Ok(Arc::new(SystemFile {
            file: Arc::new(file),
            maps: self.options.maps.map(|grant| match self.options.unguarded {
                true => grant.unguarded(),
                false => grant,
            }),
        }))
    }

    fn open_shared(&self, path: &Path, words: usize) -> io::Result<Arc<dyn SharedTable>> {
        let words = SharedWords::new(Arc::new(open_or_create(path)?), words, !self.options.unguarded)?;
        Ok(Arc::new(SystemTable {
            shared: Arc::new(TableState {
                words,
                held: Mutex::new(HashSet::new()),
            }),
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        Place::of(from)?.rename(&Place::of(to)?)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        Place::of(path)?.unlink()
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        file::sync_directory(path, &self.calls)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        names::list(path)
    }

    fn metadata(&self, path: &Path) -> io::Result<Option<PathMetadata>> {
        Ok(names::look(path)?.map(|(found, bytes)| PathMetadata {
            kind: match found {
                FileType::RegularFile => PathKind::File,
                FileType::Directory => PathKind::Directory,
                _ => PathKind::Other,
            },
            bytes,
        }))
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn FileLock>>> {
        let file = open_or_create(path)?;
        if weakened!("lock-not-taken") || lock::try_lock(file.buffered().as_fd(), Extent::Whole)? {
            Ok(Some(Box::new(SystemLock { file })))
        } else {
            Ok(None)
        }
    }

    fn bulk_writer(&self, depth: usize) -> io::Result<Box<dyn BulkWriter>> {
        if self.options.ring == Choice::Required {
            return Ok(Box::new(RingWriter::new(depth, self.calls.clone())?));
        }
        Ok(Box::new(WriterAtNeed::new(depth, &self.ring)))
    }

    fn bulk_reader(&self, depth: usize, may_have_thread: bool) -> io::Result<Box<dyn BulkReader>> {
        if self.ring.is_possible() {
            match RingReader::new(depth, self.calls.clone()) {
                Ok(reader) => return Ok(Box::new(reader)),
                Err(error) if self.options.ring == Choice::Required => return Err(error),
                Err(_) => {}
            }
        }
        // Where no thread can be had either, there is always the plain way.
        if may_have_thread && let Ok(reader) = self.read_thread.reader(depth) {
            return Ok(Box::new(reader));
        }
        Ok(Box::new(PlainReader::new(depth)))
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        file::free_bytes(path)
    }

    fn describe(&self) -> DiskDescription {
        DiskDescription {
            direct: self.direct.load(Ordering::Relaxed),
            ring: self.ring.is_possible(),
            alignment: u32::try_from(PAGE_BYTES).unwrap_or(u32::MAX),
            name: "system",
        }
    }
}

/// Opens a small file that is used through the page cache alone, making it if it is missing.
fn open_or_create(path: &Path) -> io::Result<KernelFile> {
    loop {
        match KernelFile::open(path, OpenMode::ReadWrite, Choice::Off) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        match KernelFile::open(path, OpenMode::CreateNew, Choice::Off) {
            // Another process made it between the two calls.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => return other,
        }
    }
}

/// The descriptor is the lock: the kernel frees it when the last copy is closed, also when the process dies.
#[derive(Debug)]
struct SystemLock {
    file: KernelFile,
}

impl FileLock for SystemLock {}

impl Drop for SystemLock {
    fn drop(&mut self) {
        // A child that another thread is starting has a copy until it runs its program, and would keep the lock for so
        // long. What the system refuses here, closing does.
        let _closed_anyway = lock::unlock(self.file.buffered().as_fd(), Extent::Whole);
    }
}

#[derive(Debug)]
struct SystemFile {
    file: Arc<KernelFile>,
    maps: Option<MapGrant>,
}

impl DiskFile for SystemFile {
    fn bytes(&self) -> io::Result<u64> {
        self.file.bytes()
    }

    fn reserve(&self, range: Range<u64>) -> io::Result<()> {
        self.file.reserve(range)
    }

    fn read_at(&self, position: u64, bytes: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(position, bytes)
    }

    fn read_direct_at(&self, position: u64, bytes: &mut [u8]) -> io::Result<usize> {
        self.file.read_direct_at(position, bytes)
    }

    fn write_at(&self, position: u64, bytes: &[u8], sync: Sync) -> io::Result<()> {
        self.file.write_at(position, bytes, sync)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn map(&self, bytes: u64) -> io::Result<Mapping> {
        let grant = self.maps.ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::Unsupported,
                "the disk was opened without the right to map files",
            )
        })?;
        Mapping::new(Arc::clone(&self.file), bytes, grant)
    }

    fn advise(&self, range: Range<u64>, advice: Advice) -> io::Result<()> {
        self.file.advise(range, advice)
    }

    fn punch(&self, range: Range<u64>) -> io::Result<()> {
        self.file.punch(range)
    }

    fn cached_bytes(&self, range: &Range<u64>) -> Option<u64> {
        self.file.cached_bytes(range)
    }

    fn is_direct(&self) -> bool {
        self.file.direct().is_some()
    }

    fn kernel_file(&self) -> Option<&Arc<KernelFile>> {
        Some(&self.file)
    }
}

#[derive(Debug)]
struct SystemTable {
    shared: Arc<TableState>,
}

#[derive(Debug)]
struct TableState {
    words: SharedWords,
    /// The kernel's locks do not conflict within one opening, so what this one holds is kept here.
    held: Mutex<HashSet<u32>>,
}

impl SharedTable for SystemTable {
    fn words(&self) -> usize {
        self.shared.words.words()
    }

    fn load(&self, index: usize) -> Option<u64> {
        Some(self.shared.words.word(index)?.load(super::table_load_order()))
    }

    fn store(&self, index: usize, value: u64) -> bool {
        self.shared
            .words
            .word(index)
            .map(|word| word.store(value, super::table_store_order()))
            .is_some()
    }

    fn compare_exchange(&self, index: usize, current: u64, new: u64) -> Option<Result<u64, u64>> {
        let word = self.shared.words.word(index)?;
        Some(word.compare_exchange(current, new, Ordering::SeqCst, Ordering::SeqCst))
    }

    fn try_lock_slot(&self, slot: u32) -> io::Result<Option<Box<dyn SlotLock>>> {
        let mut held = self.shared.held.lock();
        if held.contains(&slot) || !lock::try_lock(self.shared.words.descriptor(), Extent::Byte(slot.into()))?
        {
            return Ok(None);
        }
        held.insert(slot);
        Ok(Some(Box::new(SystemSlot {
            table: Arc::clone(&self.shared),
            slot,
        })))
    }

    fn slot_is_locked(&self, slot: u32) -> io::Result<bool> {
        let held = self.shared.held.lock();
        if weakened!("dead-readers-count") {
            return Ok(self
                .load(slot as usize * 2 + 8)
                .is_some_and(|process| process != 0));
        }
        Ok(held.contains(&slot)
            || lock::is_locked_elsewhere(self.shared.words.descriptor(), Extent::Byte(slot.into()))?)
    }
}

#[derive(Debug)]
struct SystemSlot {
    table: Arc<TableState>,
    slot: u32,
}

impl SlotLock for SystemSlot {}

impl Drop for SystemSlot {
    fn drop(&mut self) {
        let mut held = self.table.held.lock();
        // If the kernel refuses, the slot stays taken for others, which costs a slot and nothing else.
        if lock::unlock(self.table.words.descriptor(), Extent::Byte(self.slot.into())).is_ok() {
            held.remove(&self.slot);
        }
    }
}
