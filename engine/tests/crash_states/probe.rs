//! A disk that counts what is read, and that can be cut off, so that a store ends without a last word.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use lanterman::disk::{
    Advice, BulkWriter, Disk, DiskDescription, DiskFile, FileLock, Mapping, OpenMode, PathMetadata,
    SharedTable, Sync,
};

#[derive(Debug, Default)]
struct Shared {
    read_bytes: AtomicU64,
    cut_off: AtomicBool,
}

impl Shared {
    fn check(&self) -> io::Result<()> {
        if self.cut_off.load(Ordering::Relaxed) {
            Err(io::Error::other("the process is dead"))
        } else {
            Ok(())
        }
    }
}

/// See the head of the module.
#[derive(Debug)]
pub struct Probe {
    inner: Arc<dyn Disk>,
    shared: Arc<Shared>,
}

impl Probe {
    pub fn new(inner: Arc<dyn Disk>) -> Self {
        Self {
            inner,
            shared: Arc::default(),
        }
    }

    /// Bytes read from files so far.
    pub fn read_bytes(&self) -> u64 {
        self.shared.read_bytes.load(Ordering::Relaxed)
    }

    /// From now on nothing is done any more: a store that is dropped now is as one whose process died.
    pub fn cut_off(&self) {
        self.shared.cut_off.store(true, Ordering::Relaxed);
    }
}

impl Disk for Probe {
    fn create_directory(&self, path: &Path) -> io::Result<()> {
        self.shared.check()?;
        self.inner.create_directory(path)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        self.shared.check()?;
        let inner = self.inner.open(path, mode)?;
        Ok(Arc::new(ProbeFile {
            inner,
            shared: Arc::clone(&self.shared),
        }))
    }

    fn open_shared(&self, path: &Path, words: usize) -> io::Result<Arc<dyn SharedTable>> {
        self.shared.check()?;
        self.inner.open_shared(path, words)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.shared.check()?;
        self.inner.rename(from, to)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.shared.check()?;
        self.inner.unlink(path)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.shared.check()?;
        self.inner.sync_directory(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.inner.list(path)
    }

    fn metadata(&self, path: &Path) -> io::Result<Option<PathMetadata>> {
        self.inner.metadata(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn FileLock>>> {
        self.shared.check()?;
        self.inner.lock(path)
    }

    fn bulk_writer(&self, depth: usize) -> io::Result<Box<dyn BulkWriter>> {
        // The disks in memory write through the files they are given, which are this disk's.
        self.inner.bulk_writer(depth)
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.inner.free_bytes(path)
    }

    fn describe(&self) -> DiskDescription {
        self.inner.describe()
    }
}

#[derive(Debug)]
struct ProbeFile {
    inner: Arc<dyn DiskFile>,
    shared: Arc<Shared>,
}

impl DiskFile for ProbeFile {
    fn bytes(&self) -> io::Result<u64> {
        self.inner.bytes()
    }

    fn reserve(&self, range: Range<u64>) -> io::Result<()> {
        self.shared.check()?;
        self.inner.reserve(range)
    }

    fn read_at(&self, position: u64, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read_at(position, bytes)?;
        self.shared.read_bytes.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }

    fn write_at(&self, position: u64, bytes: &[u8], sync: Sync) -> io::Result<()> {
        self.shared.check()?;
        self.inner.write_at(position, bytes, sync)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.shared.check()?;
        self.inner.sync_data()
    }

    fn map(&self, bytes: u64) -> io::Result<Mapping> {
        self.inner.map(bytes)
    }

    fn advise(&self, range: Range<u64>, advice: Advice) -> io::Result<()> {
        self.inner.advise(range, advice)
    }

    fn punch(&self, range: Range<u64>) -> io::Result<()> {
        self.shared.check()?;
        self.inner.punch(range)
    }
}
