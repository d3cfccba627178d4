//! A disk that writes down what is done to it, so that every moment of the work can be played again.
//!
//! Operations that change something are recorded in order, with their data, when they have succeeded; a lock around each
//! makes the order true. [`Replay`] does them again on a [`MemoryDisk`], of which crash images are taken between, and with
//! [`Replay::begin`] also within, the operations.

use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::sys::file::{OpenMode, Sync};
use crate::sys::map::{Advice, Mapping};

use super::late::LateWriter;
use super::memory::MemoryDisk;
use super::{BulkWriter, Disk, DiskDescription, DiskFile, FileLock, PathMetadata, SharedTable};

/// A file in a recording. It stays the same through renames and reopenings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId(u64);

/// A change made to the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Operation {
    /// A directory was made.
    CreateDirectory {
        /// Its path.
        path: PathBuf,
    },
    /// A file was opened, which makes it known under its number, or created.
    Open {
        /// Its path.
        path: PathBuf,
        /// How.
        mode: OpenMode,
        /// Its number.
        file: FileId,
    },
    /// A shared table was opened or made.
    OpenShared {
        /// Its path.
        path: PathBuf,
        /// Its words.
        words: usize,
    },
    /// A lock was taken, its file made if it was missing.
    Lock {
        /// Its path.
        path: PathBuf,
    },
    /// A file got another name.
    Rename {
        /// The old name.
        from: PathBuf,
        /// The new name.
        to: PathBuf,
    },
    /// A name was removed.
    Unlink {
        /// The name.
        path: PathBuf,
    },
    /// A directory was synced.
    SyncDirectory {
        /// Its path.
        path: PathBuf,
    },
    /// Bytes were written.
    Write {
        /// The file.
        file: FileId,
        /// Where.
        position: u64,
        /// What.
        bytes: Arc<[u8]>,
        /// Whether they were durable afterwards.
        sync: Sync,
    },
    /// Blocks were reserved.
    Reserve {
        /// The file.
        file: FileId,
        /// Which part of it.
        range: Range<u64>,
    },
    /// A file was synced.
    SyncData {
        /// The file.
        file: FileId,
    },
    /// A range was given back.
    Punch {
        /// The file.
        file: FileId,
        /// The range.
        range: Range<u64>,
    },
}

#[derive(Debug, Default)]
struct Record {
    operations: Vec<Operation>,
    names: HashMap<PathBuf, FileId>,
    next_file: u64,
}

impl Record {
    fn file_at(&mut self, path: &Path) -> FileId {
        if let Some(file) = self.names.get(path) {
            return *file;
        }
        let file = FileId(self.next_file);
        self.next_file += 1;
        self.names.insert(path.to_path_buf(), file);
        file
    }
}

type SharedRecord = Arc<Mutex<Record>>;

/// A disk over another one, which records all changes.
#[derive(Debug)]
pub struct RecordingDisk {
    inner: Arc<dyn Disk>,
    record: SharedRecord,
}

impl RecordingDisk {
    /// A disk that does what `inner` does and begins to record now.
    #[must_use]
    pub fn new(inner: Arc<dyn Disk>) -> Self {
        Self {
            inner,
            record: SharedRecord::default(),
        }
    }

    /// What was done so far.
    #[must_use]
    pub fn operations(&self) -> Vec<Operation> {
        self.record.lock().operations.clone()
    }

    /// How many operations were recorded so far.
    #[must_use]
    pub fn operation_count(&self) -> usize {
        self.record.lock().operations.len()
    }

    fn done<T>(
        &self,
        act: impl FnOnce(&dyn Disk) -> io::Result<T>,
        operation: impl FnOnce(&mut Record) -> Operation,
    ) -> io::Result<T> {
        let mut record = self.record.lock();
        let outcome = act(&*self.inner)?;
        let operation = operation(&mut record);
        record.operations.push(operation);
        Ok(outcome)
    }
}

impl Disk for RecordingDisk {
    fn create_directory(&self, path: &Path) -> io::Result<()> {
        self.done(
            |disk| disk.create_directory(path),
            |_| Operation::CreateDirectory {
                path: path.to_path_buf(),
            },
        )
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut record = self.record.lock();
        let inner = self.inner.open(path, mode)?;
        let file = record.file_at(path);
        record.operations.push(Operation::Open {
            path: path.to_path_buf(),
            mode,
            file,
        });
        Ok(Arc::new(RecordingFile {
            inner,
            file,
            record: Arc::clone(&self.record),
        }))
    }

    fn open_shared(&self, path: &Path, words: usize) -> io::Result<Arc<dyn SharedTable>> {
        self.done(
            |disk| disk.open_shared(path, words),
            |_| Operation::OpenShared {
                path: path.to_path_buf(),
                words,
            },
        )
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.done(
            |disk| disk.rename(from, to),
            |record| {
                if let Some(file) = record.names.remove(from) {
                    record.names.insert(to.to_path_buf(), file);
                }
                Operation::Rename {
                    from: from.to_path_buf(),
                    to: to.to_path_buf(),
                }
            },
        )
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.done(
            |disk| disk.unlink(path),
            |record| {
                record.names.remove(path);
                Operation::Unlink {
                    path: path.to_path_buf(),
                }
            },
        )
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.done(
            |disk| disk.sync_directory(path),
            |_| Operation::SyncDirectory {
                path: path.to_path_buf(),
            },
        )
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.inner.list(path)
    }

    fn metadata(&self, path: &Path) -> io::Result<Option<PathMetadata>> {
        self.inner.metadata(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn FileLock>>> {
        self.done(
            |disk| disk.lock(path),
            |_| Operation::Lock {
                path: path.to_path_buf(),
            },
        )
    }

    fn bulk_writer(&self, _depth: usize) -> io::Result<Box<dyn BulkWriter>> {
        // Bulk writes must come through the files of this disk to be recorded.
        Ok(Box::new(LateWriter::default()))
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.inner.free_bytes(path)
    }

    fn describe(&self) -> DiskDescription {
        DiskDescription {
            ring: false,
            name: "recording",
            ..self.inner.describe()
        }
    }
}

#[derive(Debug)]
struct RecordingFile {
    inner: Arc<dyn DiskFile>,
    file: FileId,
    record: SharedRecord,
}

impl RecordingFile {
    fn done(
        &self,
        act: impl FnOnce(&dyn DiskFile) -> io::Result<()>,
        operation: Operation,
    ) -> io::Result<()> {
        let mut record = self.record.lock();
        act(&*self.inner)?;
        record.operations.push(operation);
        Ok(())
    }
}

impl DiskFile for RecordingFile {
    fn bytes(&self) -> io::Result<u64> {
        self.inner.bytes()
    }

    fn reserve(&self, range: Range<u64>) -> io::Result<()> {
        self.done(
            |file| file.reserve(range.clone()),
            Operation::Reserve {
                file: self.file,
                range: range.clone(),
            },
        )
    }

    fn read_at(&self, position: u64, bytes: &mut [u8]) -> io::Result<usize> {
        self.inner.read_at(position, bytes)
    }

    fn read_direct_at(&self, position: u64, bytes: &mut [u8]) -> io::Result<usize> {
        self.inner.read_direct_at(position, bytes)
    }

    fn write_at(&self, position: u64, bytes: &[u8], sync: Sync) -> io::Result<()> {
        let operation = Operation::Write {
            file: self.file,
            position,
            bytes: bytes.into(),
            sync,
        };
        self.done(|file| file.write_at(position, bytes, sync), operation)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.done(|file| file.sync_data(), Operation::SyncData { file: self.file })
    }

    fn map(&self, bytes: u64) -> io::Result<Mapping> {
        self.inner.map(bytes)
    }

    fn advise(&self, range: Range<u64>, advice: Advice) -> io::Result<()> {
        self.inner.advise(range, advice)
    }

    fn punch(&self, range: Range<u64>) -> io::Result<()> {
        self.done(
            |file| file.punch(range.clone()),
            Operation::Punch {
                file: self.file,
                range: range.clone(),
            },
        )
    }

    fn is_direct(&self) -> bool {
        self.inner.is_direct()
    }

    fn lose_unsynced(&self) {
        self.inner.lose_unsynced();
    }
}

/// Plays a recording on a disk in memory, which must be as the recorded one was at the start.
#[derive(Debug)]
pub struct Replay {
    disk: MemoryDisk,
    files: HashMap<FileId, Arc<dyn DiskFile>>,
}

impl Replay {
    /// Begins with `disk`.
    #[must_use]
    pub fn new(disk: MemoryDisk) -> Self {
        Self {
            disk,
            files: HashMap::new(),
        }
    }

    /// The disk as it stands, for crash images.
    #[must_use]
    pub fn disk(&self) -> &MemoryDisk {
        &self.disk
    }

    /// Does the next operation.
    ///
    /// # Errors
    ///
    /// What the disk answers; `NotFound` for a file that was opened before the recording began.
    pub fn apply(&mut self, operation: &Operation) -> io::Result<()> {
        match operation {
            Operation::CreateDirectory { path } => self.disk.create_directory(path),
            Operation::Open { path, mode, file } => {
                // A handle for writing stays: the same file may be opened for reading beside it.
                let mode = if *mode == OpenMode::Read {
                    OpenMode::ReadWrite
                } else {
                    *mode
                };
                let opened = self.disk.open(path, mode)?;
                self.files.insert(*file, opened);
                Ok(())
            }
            Operation::OpenShared { path, words } => self.disk.open_shared(path, *words).map(drop),
            Operation::Lock { path } => self.disk.lock(path).map(drop),
            Operation::Rename { from, to } => self.disk.rename(from, to),
            Operation::Unlink { path } => self.disk.unlink(path),
            Operation::SyncDirectory { path } => self.disk.sync_directory(path),
            Operation::Write {
                file,
                position,
                bytes,
                sync,
            } => self.file(*file)?.write_at(*position, bytes, *sync),
            Operation::Reserve { file, range } => self.file(*file)?.reserve(range.clone()),
            Operation::SyncData { file } => self.file(*file)?.sync_data(),
            Operation::Punch { file, range } => self.file(*file)?.punch(range.clone()),
        }
    }

    /// Does as much of the next operation as a crash within it could have done: a durable write is written and not yet
    /// durable. Follow with [`Self::apply`] of the same operation to go on. `false` when there is no such moment.
    ///
    /// # Errors
    ///
    /// As [`Self::apply`].
    pub fn begin(&mut self, operation: &Operation) -> io::Result<bool> {
        if let Operation::Write {
            file,
            position,
            bytes,
            sync: Sync::Data,
        } = operation
        {
            self.file(*file)?.write_at(*position, bytes, Sync::No)?;
            return Ok(true);
        }
        Ok(false)
    }

    fn file(&self, file: FileId) -> io::Result<&Arc<dyn DiskFile>> {
        self.files
            .get(&file)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}
