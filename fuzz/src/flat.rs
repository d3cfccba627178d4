//! A disk of plain bytes: nothing but files in memory, for tests that open a store hundreds of thousands of times.
//!
//! It knows nothing of power cuts. Files may claim to be longer than the bytes they hold; the rest reads as zeros, as that
//! of a sparse file. It counts what was read, so that a test can tell work that no file of that size is worth.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

use lanterman::disk::{
    Advice, BulkWriter, Completion, Disk, DiskDescription, DiskFile, FileLock, Mapping, OpenMode, PathKind,
    PathMetadata, SharedBytes, SharedTable, Sync,
};

/// What a test may place in a directory beside files.
#[derive(Debug, Clone)]
enum Node {
    Directory,
    File(Arc<Content>),
}

#[derive(Debug, Default)]
struct Content {
    /// The bytes at the front, and the length that the file claims.
    bytes: RwLock<(Vec<u8>, u64)>,
}

impl Content {
    fn read(&self) -> RwLockReadGuard<'_, (Vec<u8>, u64)> {
        self.bytes.read().expect("no test panics while it holds a file")
    }

    fn write(&self) -> RwLockWriteGuard<'_, (Vec<u8>, u64)> {
        self.bytes.write().expect("no test panics while it holds a file")
    }
}

#[derive(Debug, Default)]
struct Names {
    nodes: BTreeMap<PathBuf, Node>,
    locked: BTreeSet<PathBuf>,
}

/// The disk.
#[derive(Debug, Default)]
pub struct FlatDisk {
    names: Arc<Mutex<Names>>,
    read_bytes: Arc<AtomicU64>,
}

impl FlatDisk {
    /// A disk with these files, and the directories that they are in.
    #[must_use]
    pub fn with(files: &[(PathBuf, Vec<u8>)]) -> Self {
        let disk = FlatDisk::default();
        for (path, bytes) in files {
            disk.put(path, bytes, bytes.len() as u64);
        }
        disk
    }

    /// Places a file whose length is `length`, with `bytes` at its front.
    pub fn put(&self, path: &Path, bytes: &[u8], length: u64) {
        let mut names = self.names();
        for directory in path.ancestors().skip(1) {
            names.nodes.insert(directory.to_path_buf(), Node::Directory);
        }
        let content = Content::default();
        *content.write() = (bytes.to_vec(), length.max(bytes.len() as u64));
        names
            .nodes
            .insert(path.to_path_buf(), Node::File(Arc::new(content)));
    }

    /// Overwrites bytes of a file.
    pub fn poke(&self, path: &Path, position: usize, bytes: &[u8]) {
        let content = self.content(path).expect("a file to change");
        let mut held = content.write();
        held.0[position..position + bytes.len()].copy_from_slice(bytes);
    }

    /// All files with their bytes, as many as they claim to be long.
    #[must_use]
    pub fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let names = self.names();
        let files = names.nodes.iter().filter_map(|(path, node)| match node {
            Node::File(content) => {
                let (mut bytes, length) = content.read().clone();
                bytes.resize(length as usize, 0);
                Some((path.clone(), bytes))
            }
            Node::Directory => None,
        });
        files.collect()
    }

    /// How many bytes were read so far.
    #[must_use]
    pub fn read_bytes(&self) -> u64 {
        self.read_bytes.load(Ordering::Relaxed)
    }

    fn names(&self) -> MutexGuard<'_, Names> {
        self.names
            .lock()
            .expect("no test panics while it holds the names")
    }

    fn content(&self, path: &Path) -> io::Result<Arc<Content>> {
        match self.names().nodes.get(path) {
            Some(Node::File(content)) => Ok(Arc::clone(content)),
            Some(Node::Directory) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

impl Disk for FlatDisk {
    fn create_directory(&self, path: &Path) -> io::Result<()> {
        let mut names = self.names();
        if names.nodes.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        names.nodes.insert(path.to_path_buf(), Node::Directory);
        Ok(())
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        if mode == OpenMode::CreateNew {
            if self.content(path).is_ok() {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            self.put(path, &[], 0);
        }
        Ok(Arc::new(FlatFile {
            content: self.content(path)?,
            read_bytes: Arc::clone(&self.read_bytes),
        }))
    }

    fn open_shared(&self, _path: &Path, _words: usize) -> io::Result<Arc<dyn SharedTable>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut names = self.names();
        if names.nodes.contains_key(to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let node = names.nodes.remove(from).ok_or(io::ErrorKind::NotFound)?;
        names.nodes.insert(to.to_path_buf(), node);
        Ok(())
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        let removed = self.names().nodes.remove(path);
        removed.map(|_| ()).ok_or(io::ErrorKind::NotFound.into())
    }

    fn sync_directory(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let names = self.names();
        let inside = names.nodes.keys().filter(|name| name.parent() == Some(path));
        Ok(inside
            .filter_map(|name| Some(name.file_name()?.to_str()?.to_owned()))
            .collect())
    }

    fn metadata(&self, path: &Path) -> io::Result<Option<PathMetadata>> {
        let (kind, bytes) = match self.names().nodes.get(path) {
            None => return Ok(None),
            Some(Node::Directory) => (PathKind::Directory, 0),
            Some(Node::File(content)) => (PathKind::File, content.read().1),
        };
        Ok(Some(PathMetadata { kind, bytes }))
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn FileLock>>> {
        if !self.names().locked.insert(path.to_path_buf()) {
            return Ok(None);
        }
        Ok(Some(Box::new(FlatLock {
            names: Arc::clone(&self.names),
            path: path.to_path_buf(),
        })))
    }

    fn bulk_writer(&self, _depth: usize) -> io::Result<Box<dyn BulkWriter>> {
        Ok(Box::new(FlatWriter::default()))
    }

    fn free_bytes(&self, _path: &Path) -> io::Result<u64> {
        Ok(u64::MAX)
    }

    fn describe(&self) -> DiskDescription {
        DiskDescription {
            direct: false,
            ring: false,
            alignment: 4096,
            name: "flat",
        }
    }
}

#[derive(Debug)]
struct FlatFile {
    content: Arc<Content>,
    read_bytes: Arc<AtomicU64>,
}

impl DiskFile for FlatFile {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.content.read().1)
    }

    fn reserve(&self, range: Range<u64>) -> io::Result<()> {
        let mut held = self.content.write();
        held.1 = held.1.max(range.end);
        Ok(())
    }

    fn read_at(&self, position: u64, bytes: &mut [u8]) -> io::Result<usize> {
        let held = self.content.read();
        let wanted = held.1.saturating_sub(position).min(bytes.len() as u64) as usize;
        let from = position.min(held.0.len() as u64) as usize;
        let present = held.0.len().saturating_sub(from).min(wanted);
        bytes[..present].copy_from_slice(&held.0[from..from + present]);
        bytes[present..wanted].fill(0);
        self.read_bytes.fetch_add(wanted as u64, Ordering::Relaxed);
        Ok(wanted)
    }

    fn write_at(&self, position: u64, bytes: &[u8], _sync: Sync) -> io::Result<()> {
        let mut held = self.content.write();
        let position = position as usize;
        let end = position + bytes.len();
        if held.0.len() < end {
            held.0.resize(end, 0);
        }
        held.0[position..end].copy_from_slice(bytes);
        held.1 = held.1.max(end as u64);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn map(&self, _bytes: u64) -> io::Result<Mapping> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn advise(&self, _range: Range<u64>, _advice: Advice) -> io::Result<()> {
        Ok(())
    }

    fn punch(&self, _range: Range<u64>) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[derive(Debug)]
struct FlatLock {
    names: Arc<Mutex<Names>>,
    path: PathBuf,
}

impl FileLock for FlatLock {}

impl Drop for FlatLock {
    fn drop(&mut self) {
        if let Ok(mut names) = self.names.lock() {
            names.locked.remove(&self.path);
        }
    }
}

#[derive(Debug, Default)]
struct FlatWriter {
    finished: Vec<Completion>,
}

impl BulkWriter for FlatWriter {
    fn submit(
        &mut self,
        file: &Arc<dyn DiskFile>,
        position: u64,
        bytes: SharedBytes,
        range: Range<usize>,
        token: u64,
    ) {
        let result = file.write_at(position, &(*bytes).as_ref()[range], Sync::No);
        self.finished.push(Completion { token, result });
    }

    fn reap(&mut self, _wait: bool, completions: &mut Vec<Completion>) {
        completions.append(&mut self.finished);
    }

    fn in_flight(&self) -> usize {
        self.finished.len()
    }
}
