//! The public face: opening and creating stores, and what a store offers.

use std::ops::RangeBounds;
use std::path::Path;
use std::sync::Arc;

use lanterman_format::Structure;
use lanterman_format::buffer::ValueType;
use lanterman_format::error::{Found, Rule};
use lanterman_format::ids::{Crc, Offset, Position, SegmentId, Sequence, Version};
use lanterman_format::name::LogName;
use lanterman_format::root_slot::RootSlot;
use lanterman_format::segment::SegmentKind;
use lanterman_format::weakened;

use crate::background::Background as Helper;
use crate::checkpoint::{CheckpointReceipt, CheckpointState};
use crate::core::{Core, CoreParts};
use crate::counters::CounterReadings;
use crate::create::{create_store, sync_name_of};
use crate::deletion::{DeletionPlan, DeletionReceipt, WantedRange};
use crate::disk::{Disk, DiskDescription, FileLock, PathKind};
use crate::error::{Damage, Error, Result};
use crate::flush::{Flusher, IN_FLIGHT_MAX};
use crate::journal::replay::Scan;
use crate::journal::{Journal, JournalEnd, JournalSizes};
use crate::lost::LostCommits;
use crate::options::{Background, Durability, Options};
use crate::pins::OldestPin;
use crate::reader_table::{ReaderSlot, ReaderTable, ReaderView};
use crate::readers::{open_table, register};
use crate::recover::{Chosen, choose_checkpoint, restored_catalog, wanted_of_catalog};
use crate::retention::Retention;
use crate::room::{find_room, give_room_back};
use crate::root_file::{FoundSlots, RootFile};
use crate::segment::{SegmentTable, SlabAllocator};
use crate::snapshot::{Log, Snapshot, StoreSnapshot};
use crate::source::StoreSource;
use crate::tail::pool::Pool;
use crate::transaction::{Transaction, TransactionReceipt};
use crate::writer::Writer;

/// Entries of a store's directory; anything else says that it is none.
const STORE_ENTRIES: [&str; 5] = ["lock", "readers", "root", "root.new", "segments"];

/// Closes the store when the last handle and the last writer are gone.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) core: Arc<Core>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Err(error) = self.core.close() {
            tracing::warn!(store = %self.core.path.display(), %error, "closing a store failed; nothing acknowledged is lost");
        }
    }
}

/// An open store. Cheap to clone; the last clone or writer to go closes it.
///
/// ```
/// # fn main() -> Result<(), lanterman::Error> {
/// # let directory = tempfile::tempdir().unwrap();
/// # let path = directory.path().join("data");
/// use lanterman::{Durability, Options};
///
/// let store = Options::new().open_copying(&path)?;
/// let mut orders = store.writer("orders")?;
/// orders.append(b"hello")?;
/// orders.commit(Durability::Disk)?;
///
/// let snapshot = store.snapshot("orders")?;
/// for message in snapshot.range(..)? {
///     assert_eq!(&message?.value()[..], b"hello");
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Store {
    handle: Arc<Handle>,
}

/// A log of a store, as [`Store::logs`] lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogInformation {
    /// Its name.
    pub name: String,
    /// First offset that it holds.
    pub start: Offset,
    /// Offset behind its newest message.
    pub end: Offset,
    /// Offset below which everything survives a killed process.
    pub committed_end: Offset,
    /// Offset below which everything survives a power cut.
    pub durable_end: Offset,
}

impl Store {
    /// Opens the store in `path`, or creates it, with the default options. Reads borrow from maps of its files.
    ///
    /// # Safety
    /// As [`Options::open`]: no other program truncates or rewrites these files while they are mapped. What happens if one
    /// does all the same is said there too.
    ///
    /// # Errors
    /// As [`Options::open`].
    #[allow(
        unsafe_code,
        reason = "the one public door to mapped files; its contract is the caller's promise"
    )]
    pub unsafe fn open(path: impl AsRef<Path>) -> Result<Self> {
        // SAFETY: the caller makes the same promise to this function.
        unsafe { Options::new().open(path) }
    }

    /// Opens the store in `path`, or creates it, with the default options. No segment is mapped: reads copy.
    ///
    /// # Errors
    /// As [`Options::open`].
    pub fn open_copying(path: impl AsRef<Path>) -> Result<Self> {
        Options::new().open_copying(path)
    }

    pub(crate) fn open_with(path: &Path, options: Options, disk: Arc<dyn Disk>) -> Result<Self> {
        options.check()?;
        let lock = prepare_directory(&disk, path, &options)?;
        let core = if options.read_only {
            open_beside_a_writer(path, &options, &disk)?
        } else {
            let slots = RootFile::read_settled(&disk, path)?;
            newest_slot(path, &slots)?;
            let accepts_holes = options.accept_lost_commits;
            {
                let table = open_table(&disk, path, false)?;
                open_core(
                    path,
                    options,
                    &disk,
                    (table, &mut None),
                    lock,
                    &slots,
                    accepts_holes,
                )?
            }
        };
        let core = Arc::new(core);
        if !core.options.read_only && core.options.background == Background::Thread {
            Helper::start(&core).map_err(|source| Error::io("start a thread for", path, source))?;
        }
        Ok(Store {
            handle: Arc::new(Handle { core }),
        })
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.handle.core
    }

    /// The store's directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.core().path
    }

    /// The appender of the log `name`, which is created if there is none. A log that nothing was ever committed to is
    /// forgotten with the process.
    ///
    /// # Errors
    /// [`Error::InvalidName`], [`Error::WriterOpen`], [`Error::ReadOnly`], [`Error::Damaged`] if the newest part of the
    /// log cannot be read.
    pub fn writer(&self, name: &str) -> Result<Writer> {
        let core = self.core();
        core.check_writable("open a writer")?;
        let name = LogName::parse(name)?;
        let (log, owner) = core.take_writer(&name)?;
        core.touch_right_edge(&log)?;
        core.delete_abandoned_parts(&log);
        Ok(Writer::new(Arc::clone(&self.handle), log, owner))
    }

    /// Creates the log `name` and commits that to the disk.
    ///
    /// # Errors
    /// [`Error::LogExists`], [`Error::InvalidName`], and what a commit may meet.
    pub fn create_log(&self, name: &str) -> Result<()> {
        let core = self.core();
        core.check_writable("create a log")?;
        let name = LogName::parse(name)?;
        let log = core.log_named(&name)?;
        if log.is_created() {
            return Err(Error::LogExists {
                name: name.as_str().to_owned(),
            });
        }
        core.commit_log(&log, 0, Durability::Disk).map(|_| ())
    }

    /// The log `name`, for reading.
    ///
    /// # Errors
    /// [`Error::UnknownLog`], [`Error::InvalidName`]; [`Error::Damaged`] if no log of that name is known and the part of
    /// the catalog or of the journal that may have it cannot be read.
    pub fn log(&self, name: &str) -> Result<Log> {
        LogName::parse(name)?;
        let state = self.core().find_log(name)?;
        Ok(Log::new(Arc::clone(self.core()), state))
    }

    /// Damage that was found and gone around: pages of the catalog, whose logs [`logs`](Self::logs) does not list, and, in a store that is open for
    /// reading, parts of the journal, of which [`lost_commits`](Self::lost_commits) tells more. Mostly nothing. A store that is open for writing
    /// reads most pages when one of their logs is asked for, or all are listed, and knows only then.
    #[must_use]
    pub fn damage(&self) -> Vec<Damage> {
        self.core().damage()
    }

    /// All logs, by name; but for those that [`damage`](Self::damage) hides.
    #[must_use]
    pub fn logs(&self) -> Vec<LogInformation> {
        let mut logs = Vec::new();
        self.core().catalog.look_at_all(|log| {
            logs.push(Log::new(Arc::clone(self.core()), Arc::clone(log)).information());
        });
        logs.sort_by(|left, right| left.name.cmp(&right.name));
        logs
    }

    /// The log `name` as it is now: everything appended so far, readable for as long as the snapshot is held.
    ///
    /// # Errors
    /// As [`log`](Self::log).
    pub fn snapshot(&self, name: &str) -> Result<Snapshot> {
        Ok(self.log(name)?.snapshot())
    }

    /// All logs as of the newest committed version: what one transaction wrote is in it whole or not at all.
    #[must_use]
    pub fn snapshot_all(&self) -> StoreSnapshot {
        StoreSnapshot::new(Arc::clone(self.core()))
    }

    /// Collects what `work` does to any logs, and commits all of it as one version, or nothing.
    ///
    /// Logs whose writers are open can take part. While the commit is written, appends to the logs concerned wait.
    ///
    /// ```
    /// # fn main() -> Result<(), lanterman::Error> {
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let store = lanterman::Store::open_copying(directory.path().join("data"))?;
    /// let receipt = store.transaction(|transaction| {
    ///     transaction.append("orders", b"order 7")?;
    ///     transaction.append("audit", b"order 7 was placed")
    /// })?;
    /// assert_eq!(receipt.offsets["orders"], 0..1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The error that `work` returns; what a commit may meet; [`Error::Reserved`] while a message of one of the logs is
    /// being filled in place; [`Error::TooLarge`] if its logs, each of which needs at least 4 KiB of memory for its tail, need more than
    /// [`Options::tail_memory_bytes`].
    pub fn transaction(
        &self,
        work: impl FnOnce(&mut Transaction) -> Result<()>,
    ) -> Result<TransactionReceipt> {
        self.core().transaction(work)
    }

    /// Deletes the messages of a range of offsets of the log `name`, durably. Their offsets stay taken: reading one
    /// answers [`Error::Deleted`], and iteration passes over them. Snapshots, cursors and forks from before go on.
    ///
    /// The work is in O(log n), however many messages the range has. Deleting what is deleted, or nothing, is allowed.
    ///
    /// # Errors
    /// [`Error::UnknownLog`], [`Error::InvalidName`]; [`Error::InvalidRange`] if the range is reversed or ends behind the
    /// log; [`Error::Reserved`]; what a commit may meet; [`Error::Damaged`] if a node of the log's tree on the way cannot
    /// be read.
    pub fn delete(&self, name: &str, offsets: impl RangeBounds<u64>) -> Result<DeletionReceipt> {
        self.core().delete(name, WantedRange::of(&offsets))
    }

    /// What [`delete`](Self::delete) would destroy; nothing is written.
    ///
    /// # Errors
    /// As `delete`.
    pub fn plan_deletion(&self, name: &str, offsets: impl RangeBounds<u64>) -> Result<DeletionPlan> {
        self.core().plan_deletion(name, WantedRange::of(&offsets))
    }

    /// Deletes what `retention` does not keep of the log `name`, once, durably: whole slabs from the front, and, with
    /// [`Retention::from`], up to an offset. The log begins later then; offsets before answer [`Error::Deleted`].
    ///
    /// # Errors
    /// As [`delete`](Self::delete); [`Error::InvalidOption`] for a retention that would keep nothing, or has no limit;
    /// [`Error::InvalidRange`] for an offset behind the log.
    pub fn retain(&self, name: &str, retention: &Retention) -> Result<DeletionReceipt> {
        self.core().retain(name, retention)
    }

    /// What [`retain`](Self::retain) would destroy; nothing is written.
    ///
    /// # Errors
    /// As `retain`.
    pub fn plan_retention(&self, name: &str, retention: &Retention) -> Result<DeletionPlan> {
        self.core().plan_retention(name, retention)
    }

    /// Makes everything appended so far to any log last as `durability` says.
    ///
    /// # Errors
    /// As [`Writer::commit`].
    pub fn commit_all(&self, durability: Durability) -> Result<Version> {
        self.core().check_writable("commit")?;
        self.core().commit_everything(durability)
    }

    /// Writes a checkpoint now, so that opening need not read the journal; `None` if the last one holds everything.
    ///
    /// # Errors
    /// [`Error::StorageFull`] with nothing lost; a failed write or sync poisons the store.
    pub fn checkpoint(&self) -> Result<Option<CheckpointReceipt>> {
        self.core().check_writable("write a checkpoint")?;
        self.core().checkpoint()
    }

    /// One turn of background work, done by this thread; says whether anything was left to do. For stores opened with
    /// [`Background::Manual`].
    ///
    /// # Errors
    /// What the work met.
    pub fn step(&self) -> Result<bool> {
        self.core().step()
    }

    /// A store opened read-only takes up what its writer has committed since; says whether there was anything.
    ///
    /// # Errors
    /// What reading the journal or a new checkpoint met.
    pub fn refresh(&self) -> Result<bool> {
        self.core().refresh()
    }

    /// Commits that were durable and were found to stand in a damaged part of the journal when this store was opened,
    /// and what they held as far as it can be inferred. Empty for a sound store, and for one whose loss was accepted at
    /// an earlier opening ([`Options::accept_lost_commits`]).
    #[must_use]
    pub fn lost_commits(&self) -> Vec<LostCommits> {
        self.core().lost_commits()
    }

    /// The oldest version that a snapshot or a cursor of this process holds, which one, and for how long.
    #[must_use]
    pub fn oldest_pin(&self) -> Option<OldestPin> {
        let core = self.core();
        core.pins.oldest(core.clock.monotonic())
    }

    /// The newest version.
    #[must_use]
    pub fn version(&self) -> Version {
        self.core().catalog.version()
    }

    /// What the store has done since it was opened.
    #[must_use]
    pub fn counters(&self) -> CounterReadings {
        self.core().read_counters()
    }

    /// A value for people: as the registered format of its type shows it ([`Options::value_format`]), text as it is, and anything
    /// else as hexadecimal digits.
    #[must_use]
    pub fn display_value(&self, value_type: ValueType, value: &[u8]) -> String {
        self.core().options.formats.display(value_type, value)
    }

    /// A value in one line for lists: as the registered format of its type tells it, or its beginning, as
    /// [`display_value`](Self::display_value) shows it.
    #[must_use]
    pub fn summarise_value(&self, value_type: ValueType, value: &[u8]) -> String {
        self.core().options.formats.summarise(value_type, value)
    }

    /// How its files are written: around the page cache or through it, with io_uring or without.
    #[must_use]
    pub fn describe(&self) -> DiskDescription {
        self.core().segments.disk().describe()
    }

    /// The processes that have the store open for reading.
    ///
    /// # Errors
    /// The system's refusal to say who holds a lock.
    pub fn readers(&self) -> Result<Vec<ReaderView>> {
        self.core().list_readers()
    }

    /// Commits everything, writes a checkpoint and lets go of the lock. Later calls answer [`Error::Closed`]; snapshots
    /// and cursors read on.
    ///
    /// # Errors
    /// What the last commit and checkpoint met; the store is closed all the same.
    pub fn close(self) -> Result<()> {
        self.core().close()
    }
}

impl Core {
    /// Loads what a slab at the end of the log's tree will need, so that damage there is told to who opens a writer
    /// and not found in the background.
    fn touch_right_edge(&self, log: &Arc<crate::log::LogState>) -> Result<()> {
        let root = log.root();
        match root.tree.offset_end().checked_sub(1) {
            Some(last) => root
                .tree
                .find(self.source.as_ref(), last)
                .map(|_| ())
                .map_err(|error| self.tree_error(log, error)),
            None => Ok(()),
        }
    }

    pub(crate) fn commit_everything(&self, durability: Durability) -> Result<Version> {
        let futures: Vec<_> = self
            .catalog
            .awake()
            .into_iter()
            .filter(|log| log.durable_end() < log.end())
            .map(|log| self.commit_log_later(&log, log.end(), durability))
            .collect();
        for future in futures {
            // Whoever waits may lead: the background need not be there.
            while !future.is_done() {
                if !self.groups.lead(self) {
                    std::thread::yield_now();
                }
            }
            future.wait()?;
        }
        Ok(self.catalog.version())
    }

    /// Commits, makes a checkpoint, lets go of the lock; once.
    pub(crate) fn close(&self) -> Result<()> {
        let _one_closer = self.closer.lock();
        if self.closing.is_closed() {
            return Ok(());
        }
        self.background.stop();
        let outcome = if self.options.read_only {
            Ok(())
        } else {
            self.finish()
        };
        self.closing.close();
        // What the kernel still has to write would be written into the files of whoever takes the lock next.
        self.flusher.lock().settle();
        *self.lock.lock() = None;
        outcome
    }

    fn finish(&self) -> Result<()> {
        self.check_poison()?;
        self.commit_everything(Durability::Disk)?;
        self.flush_all()?;
        let ended = self.journal.lock().end_segment();
        // The checkpoint says where the journal goes on.
        if self.checkpoint()?.is_none() && ended && self.checkpoint_is_good() {
            self.write_checkpoint_anyway()?;
        }
        give_room_back(self);
        Ok(())
    }
}

/// Finds out what `path` is; makes a store there if there is nothing; takes the writer's lock.
fn prepare_directory(
    disk: &Arc<dyn Disk>,
    path: &Path,
    options: &Options,
) -> Result<Option<Box<dyn FileLock>>> {
    let found = disk
        .metadata(path)
        .map_err(|source| Error::io("look at", path, source))?;
    let may_create = options.create && !options.read_only;
    let names = match found.map(|found| found.kind) {
        None if may_create => {
            disk.create_directory(path)
                .map_err(|source| Error::io("create", path, source))?;
            Vec::new()
        }
        None => {
            return Err(Error::NoStore {
                path: path.to_path_buf(),
            });
        }
        Some(PathKind::Directory) => disk
            .list(path)
            .map_err(|source| Error::io("list", path, source))?,
        Some(_) => {
            return Err(Error::NotAStore {
                path: path.to_path_buf(),
                found: "it is no directory; if it is a link to one, name that directory".to_owned(),
            });
        }
    };
    let is_store = names.iter().any(|name| name == "root");
    if !is_store {
        if let Some(foreign) = names.iter().find(|name| !STORE_ENTRIES.contains(&name.as_str())) {
            return Err(Error::NotAStore {
                path: path.to_path_buf(),
                found: format!("it holds {foreign:?}"),
            });
        }
        if !may_create {
            return Err(Error::NoStore {
                path: path.to_path_buf(),
            });
        }
    }
    let segments = path.join("segments");
    let kind = disk
        .metadata(&segments)
        .map_err(|source| Error::io("look at", &segments, source))?;
    // Also where there is no store yet: creating one in a directory that a link leads to would touch what lies there.
    let is_directory = kind.map(|kind| kind.kind == PathKind::Directory);
    if !is_directory.unwrap_or(!is_store) {
        return Err(Error::NotAStore {
            path: path.to_path_buf(),
            found: "its entry \"segments\" is not a directory".to_owned(),
        });
    }
    if options.read_only {
        return Ok(None);
    }
    let lock_path = path.join("lock");
    let lock = disk
        .lock(&lock_path)
        .map_err(|source| Error::io("lock", &lock_path, source))?;
    let lock = lock.ok_or_else(|| Error::Locked {
        path: path.to_path_buf(),
    })?;
    // Somebody may have created the store between the listing and the lock.
    let root = path.join("root");
    if !disk
        .exists(&root)
        .map_err(|source| Error::io("look for", &root, source))?
    {
        if !weakened!("store-name-unsynced") {
            sync_name_of(disk, path, found.is_some())?;
        }
        create_store(disk, path, options)?;
    }
    Ok(Some(lock))
}

pub(crate) fn newest_slot<'a>(path: &Path, slots: &'a FoundSlots) -> Result<&'a RootSlot> {
    let root = path.join("root");
    let invalid = |(number, slot): (usize, &Found<RootSlot>)| match slot {
        Found::Invalid(rule) => Some((number, *rule)),
        Found::Empty | Found::Valid(_) => None,
    };
    let mut all = slots.slots.iter().enumerate().filter_map(invalid);
    if let Some((_, rule)) = all.clone().find(|(_, rule)| rule.rule == Rule::NewerVersion) {
        return Err(Error::NewerFormat {
            path: root,
            found_major: rule.found,
            supported_major: u64::from(lanterman_format::FormatVersion::CURRENT.major),
        });
    }
    slots.newest().ok_or_else(|| {
        let (number, source) = all
            .next()
            .unwrap_or((0, crate::rules::empty(Structure::RootSlot)));
        Error::Damaged(Box::new(Damage {
            path: root,
            segment: None,
            position: Position::new(number as u64 * 4096),
            bytes: 4096,
            log: None,
            offsets: None,
            source,
        }))
    })
}

/// How often opening for reading begins anew.
const READING_ATTEMPTS: u32 = 8;

/// Opens for reading while a writer may go on. What looks like damage need not be any: a commit may have been written
/// between the looks at its place and behind it, and a checkpoint may have taken over slabs that the journal behind the
/// last one never named, or have given away the journal that was being read. So whoever finds damage looks again: once
/// in any case, and as long as the root has moved on.
fn open_beside_a_writer(path: &Path, options: &Options, disk: &Arc<dyn Disk>) -> Result<Core> {
    let mut attempt = 1;
    // Before anything is read: from here on the writer gives nothing back.
    let table = open_table(disk, path, true)?;
    let mut registration = register(table.as_ref(), path)?;
    loop {
        let slots = RootFile::read(disk, path)?;
        let slot = newest_slot(path, &slots)?;
        let error = match open_core(
            path,
            options.clone(),
            disk,
            (table.clone(), &mut registration),
            None,
            &slots,
            false,
        ) {
            Err(error @ (Error::Damaged(_) | Error::Unreadable(_) | Error::Io { .. })) => error,
            outcome => return outcome,
        };
        let now = RootFile::read(disk, path)?;
        let moved = newest_slot(path, &now)?.sequence != slot.sequence;
        if attempt >= READING_ATTEMPTS || !(moved || attempt == 1) {
            // It stays. If it is a hole in the journal, all the rest can be read.
            return match open_core(
                path,
                options.clone(),
                disk,
                (table.clone(), &mut registration),
                None,
                &slots,
                true,
            ) {
                Err(Error::Damaged(_) | Error::Unreadable(_) | Error::Io { .. }) => Err(error),
                outcome => outcome,
            };
        }
        attempt += 1;
    }
}

fn open_core(
    path: &Path,
    options: Options,
    disk: &Arc<dyn Disk>,
    (readers, registration): (Option<ReaderTable>, &mut Option<ReaderSlot>),
    lock: Option<Box<dyn FileLock>>,
    slots: &FoundSlots,
    steps_over_holes: bool,
) -> Result<Core> {
    let newest = newest_slot(path, slots)?;
    let table = Arc::new(SegmentTable::new(
        Arc::clone(disk),
        path,
        newest.store,
        !options.read_only,
    ));
    let listing = table.list(!options.read_only)?;
    let (read_pages, make) = wanted_of_catalog(&options);
    let Chosen {
        slot,
        loaded,
        instead_of,
    } = choose_checkpoint(&table, slots, newest, read_pages)?;
    let source = Arc::new(StoreSource::new(Arc::clone(&table), &options));
    let catalog = restored_catalog(&loaded, make, options.read_only, &source)?;
    let last_commit_crc = loaded.last_commit_crc;
    let begin = journal_end(&table, slot, last_commit_crc)?;
    let sizes = JournalSizes {
        first: options.journal_segment_bytes_first,
        max: options.journal_segment_bytes_max,
    };
    let journal = Journal::new(Arc::clone(&table), sizes, begin, 0)?;
    let bulk = disk
        .bulk_writer(IN_FLIGHT_MAX)
        .map_err(|source| Error::io("set up writing for", path, source))?;
    let core = Core::new(CoreParts {
        path: path.to_path_buf(),
        pool: Pool::new(options.tail_memory_bytes, options.slab_bytes_max),
        flusher: Flusher::new(bulk, options.tail_memory_bytes / 4),
        checkpoint: checkpoint_state(slots, newest, slot),
        segments: Arc::clone(&table),
        source,
        catalog,
        journal,
        allocator: SlabAllocator::new(
            None,
            options.slab_segment_bytes_first,
            options.slab_segment_bytes_max,
        ),
        readers,
        lock,
        options,
    });
    let mut scan = core.scan_from(slot, last_commit_crc, listing.journals.clone())?;
    if steps_over_holes {
        scan.step_over_holes();
    }
    if !core.options.read_only {
        scan.read_what_is_durable();
    }
    core.pool.set_unbounded(true);
    core.replay(&mut scan)?;
    core.pool.set_unbounded(false);
    core.counters.replayable(scan.replayed_bytes());
    if let Some(error) = instead_of
        && core.catalog.version() < newest.version
    {
        // The older checkpoint serves only if the journal leads from it to what the newer one held.
        return Err(error);
    }
    if core.options.read_only {
        core.follow_from(scan, newest.sequence, slot.version, registration.take());
        return Ok(core);
    }
    core.begin_writing(scan, &listing, slot, sizes)?;
    core.settle_losses()?;
    Ok(core)
}

/// Where the journal goes on behind a checkpoint.
fn journal_end(table: &Arc<SegmentTable>, slot: &RootSlot, header_crc: Crc) -> Result<JournalEnd> {
    let segment = Some(table.get(slot.journal_segment, SegmentKind::Journal)?);
    Ok(JournalEnd {
        segment,
        position: slot.journal_position.get(),
        version: slot.version,
        header_crc,
    })
}

impl Core {
    /// Reads the journal from where a checkpoint ends.
    pub(crate) fn scan_from(&self, slot: &RootSlot, last: Crc, journals: Vec<SegmentId>) -> Result<Scan> {
        let begin = journal_end(&self.segments, slot, last)?;
        Scan::new(Arc::clone(&self.segments), journals, begin)
    }
}

fn checkpoint_state(slots: &FoundSlots, newest: &RootSlot, slot: &RootSlot) -> CheckpointState {
    // Of two slots that differ the one that is not used is written first: one good slot is there at any time.
    let spared = if slot.sequence == newest.sequence {
        newest.sequence
    } else {
        Sequence::new(newest.sequence.get().saturating_add(1))
    };
    CheckpointState {
        root: RootFile::behind(slots, slot.store, spared),
        written: None,
        journal_segment: slot.journal_segment,
        journal_position: slot.journal_position.get(),
        version: slot.version,
    }
}

impl Core {
    /// After replay: the journal goes on where it ends, slabs go behind what is referred to, and what the last process
    /// left with the operating system is made durable before anybody is told that it is there.
    fn begin_writing(
        &self,
        scan: Scan,
        listing: &crate::segment::Listing,
        slot: &RootSlot,
        sizes: JournalSizes,
    ) -> Result<()> {
        let (end, slabs_begun) = scan.place_to_go_on();
        for slab in slabs_begun {
            self.segments.raise_next(slab.segment.get().saturating_add(1));
            self.segments.note_used(slab);
        }
        *self.allocator.lock() = find_room(self, listing)?;
        let replayed = scan.replayed_bytes();
        let journal = Journal::new(Arc::clone(&self.segments), sizes, end.clone(), replayed)?;
        // What was read is durable; so must the names be: a process that was killed may have renamed and not synced.
        if !weakened!("found-names-unsynced") {
            self.segments.sync_names()?;
            self.segments
                .disk()
                .sync_directory(&self.path)
                .map_err(|source| Error::failed_sync(&self.path, source))?;
        }
        *self.journal.lock() = journal;
        for log in self.catalog.awake() {
            log.set_durable_end(log.journaled_end());
            self.note_keyed(&log);
        }
        // Journal segments that no recovery needs: left by a crash between a checkpoint and their retirement, or
        // prepared and never used.
        let newest = if weakened!("retired-before-read") {
            Some(slot.journal_segment)
        } else {
            end.segment.as_ref().map(|segment| segment.id)
        };
        let unused: Vec<_> = listing
            .journals
            .iter()
            .copied()
            .filter(|id| *id < slot.journal_segment || newest.is_some_and(|newest| *id > newest))
            .collect();
        for id in &unused {
            self.segments.open_to_retire(*id);
        }
        self.segments.retire(&unused)?;
        if let Some(readers) = &self.readers {
            readers.tell_version(self.catalog.version());
            readers.tell_root(slot.sequence);
        }
        Ok(())
    }
}
