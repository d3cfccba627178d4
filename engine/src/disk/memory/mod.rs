//! A disk in memory that knows what a power cut would take.
//!
//! Files that are mapped are unnamed files of the kernel, so that maps and all else work as on a real disk; the others are
//! pages on the heap, which images share until one of them writes. Beside what programs see, the disk keeps the medium:
//! what was synced. What lies between is a list of units, each of which a power cut may take or leave;
//! [`MemoryDisk::crash_image`] makes the disk that is found afterwards, for any choice among them.
//!
//! The model is harsher than real file systems: an unsynced name, length or page may be lost whatever came after it,
//! a synced file does not save its name, a write with [`super::Sync::Data`] saves its own pages only, and of two unsynced
//! writes to a page the second may survive alone. It is milder in one thing: a punched range goes as a whole.
//!
//! What a failed sync lost ([`super::DiskFile::lose_unsynced`]) reads back as if it were there, until the page cache is
//! told to forget it ([`Advice::DontNeed`]). There are no direct reads.

mod contents;
mod state;
mod table;
#[cfg(test)]
mod tests;
mod unit;

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::sys::PAGE_BYTES;
use crate::sys::file::{OpenMode, Sync};
use crate::sys::map::{Advice, MapGrant, Mapping};

use super::plain::PlainWriter;
use super::{BulkWriter, Disk, DiskDescription, DiskFile, FileLock, PathKind, PathMetadata, SharedTable};
use contents::Contents;
use state::State;
use table::{MemoryTable, TableState};
pub use unit::{Fate, Unit};
use unit::{Node, PAGE};

/// Room for those who open a table later and ask for more words than the first did.
const TABLE_WORDS_MIN: usize = 1024;

/// A disk in memory; see the head of its module for what it models.
#[derive(Debug)]
pub struct MemoryDisk {
    state: Arc<Mutex<State>>,
}

impl Default for MemoryDisk {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryDisk {
    /// An empty disk without a limit. The directories `/` and, for relative paths, the empty one exist.
    #[must_use]
    pub fn new() -> Self {
        Self::with(State::new())
    }

    fn with(state: State) -> Self {
        Self {
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// Limits the bytes that files may occupy, in whole pages; nothing lifts the limit. What is occupied already stays.
    pub fn set_space(&self, bytes: Option<u64>) {
        self.state.lock().space = bytes;
    }

    /// The bytes that files occupy, in whole pages.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.state.lock().used
    }

    /// What is written and not durable, in the order in which it was done.
    #[must_use]
    pub fn unsynced(&self) -> Vec<Unit> {
        self.state.lock().unsynced.clone()
    }

    /// The disk as it is found after a power cut now, in which each unit of [`Self::unsynced`] meets the fate that
    /// `fate` gives for it, called in order with its number. This disk is not changed.
    ///
    /// # Errors
    ///
    /// What the kernel answers when memory is asked for.
    pub fn crash_image(&self, fate: impl FnMut(usize, &Unit) -> Fate) -> io::Result<Self> {
        Ok(Self::with(self.state.lock().after_power_cut(fate)))
    }

    /// A number that is the same for the same durable names, lengths and bytes: two images of it are one state.
    #[must_use]
    pub fn durable_digest(&self) -> u64 {
        self.state.lock().medium.digest()
    }

    /// The disk as another process finds it after this one was killed now: everything written is there, the rest of
    /// [`Self::unsynced`] can still be lost later, no lock is held. This disk is not changed.
    ///
    /// # Errors
    ///
    /// What the kernel answers when memory is asked for.
    pub fn kill_image(&self) -> io::Result<Self> {
        Ok(Self::with(self.state.lock().after_kill()?))
    }
}

impl Disk for MemoryDisk {
    fn create_directory(&self, path: &Path) -> io::Result<()> {
        self.state.lock().create_directory(path)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state.lock();
        let file = if mode == OpenMode::CreateNew {
            state.create_file(path)?
        } else {
            state.find(path)?
        };
        let contents = state.opened(file)?;
        let is_writable = mode != OpenMode::Read;
        Ok(Arc::new(MemoryFile {
            state: Arc::clone(&self.state),
            file,
            contents,
            is_writable,
        }))
    }

    fn open_shared(&self, path: &Path, words: usize) -> io::Result<Arc<dyn SharedTable>> {
        if words == 0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut state = self.state.lock();
        let file = match state.find(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => state.create_file(path)?,
            other => other?,
        };
        state.reserve(file, 0..words as u64 * 8)?;
        let inode = state.inode(file)?;
        let table = match &inode.table {
            // Growing would part those who have it open from those who come.
            Some(table) if table.words() < words => return Err(io::ErrorKind::InvalidInput.into()),
            Some(table) => Arc::clone(table),
            None => Arc::new(TableState::new(words.max(TABLE_WORDS_MIN))),
        };
        inode.table = Some(Arc::clone(&table));
        Ok(Arc::new(MemoryTable { state: table, words }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.state.lock().rename(from, to)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.state.lock().unlink(path)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.state.lock().sync_directory(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let state = self.state.lock();
        match state.names.get(path) {
            Some(Node::Directory) => {}
            Some(Node::File(_)) => return Err(io::ErrorKind::NotADirectory.into()),
            None => return Err(io::ErrorKind::NotFound.into()),
        }
        let names = state.names.keys().filter(|name| name.parent() == Some(path));
        Ok(names
            .filter_map(|name| Some(name.file_name()?.to_str()?.to_owned()))
            .collect())
    }

    fn metadata(&self, path: &Path) -> io::Result<Option<PathMetadata>> {
        let mut state = self.state.lock();
        match state.names.get(path).copied() {
            None => Ok(None),
            Some(Node::Directory) => Ok(Some(PathMetadata {
                kind: PathKind::Directory,
                bytes: 0,
            })),
            Some(Node::File(file)) => {
                let bytes = state.inode(file)?.contents.bytes()?;
                Ok(Some(PathMetadata {
                    kind: PathKind::File,
                    bytes,
                }))
            }
        }
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn FileLock>>> {
        let mut state = self.state.lock();
        let file = match state.find(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => state.create_file(path)?,
            other => other?,
        };
        if !state.locked.insert(file) {
            return Ok(None);
        }
        Ok(Some(Box::new(MemoryLock {
            state: Arc::clone(&self.state),
            file,
        })))
    }

    fn bulk_writer(&self, _depth: usize) -> io::Result<Box<dyn BulkWriter>> {
        Ok(Box::new(PlainWriter::default()))
    }

    fn free_bytes(&self, _path: &Path) -> io::Result<u64> {
        let state = self.state.lock();
        let free = state
            .space
            .map_or(u64::MAX, |space| space.saturating_sub(state.used));
        Ok(free / PAGE * PAGE)
    }

    fn describe(&self) -> DiskDescription {
        let alignment = u32::try_from(PAGE_BYTES).unwrap_or(u32::MAX);
        DiskDescription {
            direct: false,
            ring: false,
            alignment,
            name: "memory",
        }
    }
}

#[derive(Debug)]
struct MemoryLock {
    state: Arc<Mutex<State>>,
    file: u64,
}

impl FileLock for MemoryLock {}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        self.state.lock().locked.remove(&self.file);
    }
}

#[derive(Debug)]
struct MemoryFile {
    state: Arc<Mutex<State>>,
    file: u64,
    contents: Arc<Contents>,
    is_writable: bool,
}

impl MemoryFile {
    fn check_writable(&self) -> io::Result<()> {
        if self.is_writable {
            Ok(())
        } else {
            Err(io::Error::from_raw_os_error(libc::EBADF))
        }
    }
}

impl DiskFile for MemoryFile {
    fn bytes(&self) -> io::Result<u64> {
        self.contents.bytes()
    }

    fn reserve(&self, range: Range<u64>) -> io::Result<()> {
        self.check_writable()?;
        self.state.lock().reserve(self.file, range)
    }

    fn read_at(&self, position: u64, bytes: &mut [u8]) -> io::Result<usize> {
        self.contents.read_at(position, bytes)
    }

    fn write_at(&self, position: u64, bytes: &[u8], sync: Sync) -> io::Result<()> {
        self.check_writable()?;
        self.state.lock().write(self.file, position, bytes, sync)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.state.lock().sync_data(self.file);
        Ok(())
    }

    fn map(&self, bytes: u64) -> io::Result<Mapping> {
        Mapping::new(self.contents.kernel_file()?, bytes, MapGrant::for_tests())
    }

    fn advise(&self, range: Range<u64>, advice: Advice) -> io::Result<()> {
        if advice == Advice::DontNeed {
            self.state.lock().forget_cached(self.file, &range)?;
        }
        self.contents.advise(range, advice)
    }

    fn punch(&self, range: Range<u64>) -> io::Result<()> {
        self.check_writable()?;
        self.state.lock().punch(self.file, range)
    }

    fn lose_unsynced(&self) {
        self.state.lock().lose_unsynced(self.file);
    }
}

impl Drop for MemoryFile {
    fn drop(&mut self) {
        self.state.lock().closed(self.file);
    }
}
