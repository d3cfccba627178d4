//! A disk that fails when told to, over any other disk.
//!
//! Every operation has a number, counted from zero, and a fault can be planned for a number, for all from a number on, or
//! for the n-th operation of a kind. A test runs its work once to learn the count, then once for every number.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::sys::file::{OpenMode, Sync};
use crate::sys::map::{Advice, Mapping};

use super::plain::PlainWriter;
use super::{BulkWriter, Disk, DiskDescription, DiskFile, FileLock, PathMetadata, SharedTable};

/// What an operation is, for plans and reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OperationKind {
    /// [`Disk::create_directory`].
    CreateDirectory,
    /// [`Disk::open`].
    Open,
    /// [`Disk::open_shared`].
    OpenShared,
    /// [`Disk::rename`].
    Rename,
    /// [`Disk::unlink`].
    Unlink,
    /// [`Disk::sync_directory`].
    SyncDirectory,
    /// [`Disk::list`].
    List,
    /// [`Disk::metadata`].
    Metadata,
    /// [`Disk::lock`].
    Lock,
    /// [`Disk::bulk_writer`].
    BulkWriter,
    /// [`Disk::free_bytes`].
    FreeBytes,
    /// [`DiskFile::bytes`].
    Bytes,
    /// [`DiskFile::reserve`].
    Reserve,
    /// [`DiskFile::read_at`], direct or not.
    Read,
    /// [`DiskFile::write_at`] without a sync, bulk writes included.
    Write,
    /// [`DiskFile::write_at`] with one.
    WriteSync,
    /// [`DiskFile::sync_data`].
    SyncData,
    /// [`DiskFile::map`].
    Map,
    /// [`DiskFile::advise`].
    Advise,
    /// [`DiskFile::punch`].
    Punch,
}

/// How an operation fails. A fault that makes no sense for an operation fails it with the fault's error number, or leaves
/// it alone where the fault has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Nothing is done, and the error has this number.
    Error(i32),
    /// A write does its first bytes, then fails with this number: the rest was never written.
    Torn {
        /// How many bytes are written.
        bytes: usize,
        /// The number of the error.
        error: i32,
    },
    /// A read gives at most so many bytes.
    ShortRead {
        /// How many.
        bytes: usize,
    },
    /// A sync fails with this number, and what it was to make durable never will be, although later syncs succeed and
    /// the bytes still read back: what Linux does.
    SyncLost {
        /// The number of the error.
        error: i32,
    },
    /// A sync says that all is well and has done nothing: a medium that lies.
    SyncLies,
}

impl Fault {
    fn error(self) -> Option<io::Error> {
        match self {
            Self::Error(error) | Self::Torn { error, .. } | Self::SyncLost { error } => {
                Some(io::Error::from_raw_os_error(error))
            }
            Self::ShortRead { .. } | Self::SyncLies => None,
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum When {
    At(u64),
    From(u64),
    /// How many of the kind are left before the one that fails.
    Kind(OperationKind, u64),
}

#[derive(Debug, Default)]
struct Plan {
    operations: Vec<OperationKind>,
    faults: Vec<(When, Fault)>,
    fired: u64,
    failed_syncs: u64,
}

impl Plan {
    /// Counts an operation and gives the fault that it meets.
    fn next(&mut self, kind: OperationKind) -> Option<Fault> {
        let number = self.operations.len() as u64;
        self.operations.push(kind);
        let mut found = None;
        for (when, fault) in &mut self.faults {
            let hits = match when {
                When::At(at) => *at == number,
                When::From(from) => *from <= number,
                When::Kind(wanted, _) if *wanted != kind => false,
                When::Kind(_, left) => {
                    let hits = *left == 0;
                    // Once hit, the count wraps to a number that is never reached.
                    *left = left.wrapping_sub(1);
                    hits
                }
            };
            if hits && found.is_none() {
                found = Some(*fault);
            }
        }
        self.fired += u64::from(found.is_some());
        let error = found
            .and_then(Fault::error)
            .and_then(|error| error.raw_os_error());
        self.failed_syncs += match kind {
            OperationKind::SyncData | OperationKind::SyncDirectory => u64::from(error.is_some()),
            // A full disk is met before anything is written.
            OperationKind::WriteSync => u64::from(error.is_some_and(|error| error != libc::ENOSPC)),
            _ => 0,
        };
        found
    }
}

type SharedPlan = Arc<Mutex<Plan>>;

/// Fails the operation, or says which fault the caller has to act out.
fn begin(plan: &SharedPlan, kind: OperationKind) -> io::Result<Option<Fault>> {
    let fault = plan.lock().next(kind);
    let is_played = match fault {
        Some(Fault::Torn { .. }) => matches!(kind, OperationKind::Write | OperationKind::WriteSync),
        Some(Fault::SyncLost { .. } | Fault::SyncLies) => {
            matches!(
                kind,
                OperationKind::WriteSync | OperationKind::SyncData | OperationKind::SyncDirectory
            )
        }
        Some(Fault::ShortRead { .. }) => kind == OperationKind::Read,
        Some(Fault::Error(_)) | None => false,
    };
    match fault.and_then(Fault::error) {
        Some(error) if !is_played => Err(error),
        _ => Ok(fault.filter(|_| is_played)),
    }
}

/// A disk over another one, whose operations fail by plan.
#[derive(Debug)]
pub struct FaultyDisk {
    inner: Arc<dyn Disk>,
    plan: SharedPlan,
}

impl FaultyDisk {
    /// A disk that does what `inner` does until a fault is planned.
    #[must_use]
    pub fn new(inner: Arc<dyn Disk>) -> Self {
        Self {
            inner,
            plan: SharedPlan::default(),
        }
    }

    /// Plans a fault for the operation with this number.
    pub fn fail_at(&self, number: u64, fault: Fault) {
        self.plan.lock().faults.push((When::At(number), fault));
    }

    /// Plans a fault for the operation with this number and all that follow: with [`Fault::Error`] the disk is gone.
    pub fn fail_from(&self, number: u64, fault: Fault) {
        self.plan.lock().faults.push((When::From(number), fault));
    }

    /// Plans a fault for an operation of a kind, `skip` of which are left in peace first.
    pub fn fail_kind(&self, kind: OperationKind, skip: u64, fault: Fault) {
        self.plan.lock().faults.push((When::Kind(kind, skip), fault));
    }

    /// Forgets all planned faults; the numbers go on.
    pub fn clear_faults(&self) {
        self.plan.lock().faults.clear();
    }

    /// How many operations were begun: the number that the next one gets.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.plan.lock().operations.len() as u64
    }

    /// The kinds of all operations so far, by their numbers.
    #[must_use]
    pub fn operation_kinds(&self) -> Vec<OperationKind> {
        self.plan.lock().operations.clone()
    }

    /// How many syncs, and writes with one, ended with an error, but for writes that found the disk full. After one of
    /// them nothing may be acknowledged until the store is opened again.
    #[must_use]
    pub fn failed_syncs(&self) -> u64 {
        self.plan.lock().failed_syncs
    }

    /// How many operations met a fault. A test whose fault never struck has tested nothing.
    #[must_use]
    pub fn fired(&self) -> u64 {
        self.plan.lock().fired
    }
}

impl Disk for FaultyDisk {
    fn create_directory(&self, path: &Path) -> io::Result<()> {
        begin(&self.plan, OperationKind::CreateDirectory)?;
        self.inner.create_directory(path)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        begin(&self.plan, OperationKind::Open)?;
        let inner = self.inner.open(path, mode)?;
        Ok(Arc::new(FaultyFile {
            inner,
            plan: Arc::clone(&self.plan),
        }))
    }

    fn open_shared(&self, path: &Path, words: usize) -> io::Result<Arc<dyn SharedTable>> {
        begin(&self.plan, OperationKind::OpenShared)?;
        self.inner.open_shared(path, words)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        begin(&self.plan, OperationKind::Rename)?;
        self.inner.rename(from, to)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        begin(&self.plan, OperationKind::Unlink)?;
        self.inner.unlink(path)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        match begin(&self.plan, OperationKind::SyncDirectory)? {
            Some(Fault::SyncLies) => Ok(()),
            Some(Fault::SyncLost { error }) => Err(io::Error::from_raw_os_error(error)),
            _ => self.inner.sync_directory(path),
        }
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        begin(&self.plan, OperationKind::List)?;
        self.inner.list(path)
    }

    fn metadata(&self, path: &Path) -> io::Result<Option<PathMetadata>> {
        begin(&self.plan, OperationKind::Metadata)?;
        self.inner.metadata(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn FileLock>>> {
        begin(&self.plan, OperationKind::Lock)?;
        self.inner.lock(path)
    }

    fn bulk_writer(&self, _depth: usize) -> io::Result<Box<dyn BulkWriter>> {
        begin(&self.plan, OperationKind::BulkWriter)?;
        // Bulk writes must come through the files of this disk to meet their faults.
        Ok(Box::new(PlainWriter::default()))
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        begin(&self.plan, OperationKind::FreeBytes)?;
        self.inner.free_bytes(path)
    }

    fn describe(&self) -> DiskDescription {
        DiskDescription {
            ring: false,
            name: "faulty",
            ..self.inner.describe()
        }
    }
}

#[derive(Debug)]
struct FaultyFile {
    inner: Arc<dyn DiskFile>,
    plan: SharedPlan,
}

impl FaultyFile {
    /// As much of a buffer as a planned short read leaves, at least one byte, for none would mean the end of the file.
    fn begin_read<'a>(&self, bytes: &'a mut [u8]) -> io::Result<&'a mut [u8]> {
        let fault = begin(&self.plan, OperationKind::Read)?;
        let limit = match fault {
            Some(Fault::ShortRead { bytes: limit }) => limit.max(1).min(bytes.len()),
            _ => bytes.len(),
        };
        Ok(bytes.split_at_mut(limit).0)
    }
}

impl DiskFile for FaultyFile {
    fn bytes(&self) -> io::Result<u64> {
        begin(&self.plan, OperationKind::Bytes)?;
        self.inner.bytes()
    }

    fn reserve(&self, range: Range<u64>) -> io::Result<()> {
        begin(&self.plan, OperationKind::Reserve)?;
        self.inner.reserve(range)
    }

    fn read_at(&self, position: u64, bytes: &mut [u8]) -> io::Result<usize> {
        self.inner.read_at(position, self.begin_read(bytes)?)
    }

    fn read_direct_at(&self, position: u64, bytes: &mut [u8]) -> io::Result<usize> {
        self.inner.read_direct_at(position, self.begin_read(bytes)?)
    }

    fn write_at(&self, position: u64, bytes: &[u8], sync: Sync) -> io::Result<()> {
        let kind = if sync == Sync::Data {
            OperationKind::WriteSync
        } else {
            OperationKind::Write
        };
        match begin(&self.plan, kind)? {
            Some(Fault::Torn { bytes: limit, error }) => {
                self.inner
                    .write_at(position, bytes.get(..limit).unwrap_or(bytes), Sync::No)?;
                Err(io::Error::from_raw_os_error(error))
            }
            Some(Fault::SyncLies) => self.inner.write_at(position, bytes, Sync::No),
            Some(Fault::SyncLost { error }) => {
                self.inner.write_at(position, bytes, Sync::No)?;
                self.inner.lose_unsynced();
                Err(io::Error::from_raw_os_error(error))
            }
            _ => self.inner.write_at(position, bytes, sync),
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        match begin(&self.plan, OperationKind::SyncData)? {
            Some(Fault::SyncLies) => Ok(()),
            Some(Fault::SyncLost { error }) => {
                self.inner.lose_unsynced();
                Err(io::Error::from_raw_os_error(error))
            }
            _ => self.inner.sync_data(),
        }
    }

    fn map(&self, bytes: u64) -> io::Result<Mapping> {
        begin(&self.plan, OperationKind::Map)?;
        self.inner.map(bytes)
    }

    fn advise(&self, range: Range<u64>, advice: Advice) -> io::Result<()> {
        begin(&self.plan, OperationKind::Advise)?;
        self.inner.advise(range, advice)
    }

    fn punch(&self, range: Range<u64>) -> io::Result<()> {
        begin(&self.plan, OperationKind::Punch)?;
        self.inner.punch(range)
    }

    fn is_direct(&self) -> bool {
        self.inner.is_direct()
    }

    fn lose_unsynced(&self) {
        self.inner.lose_unsynced();
    }
}
