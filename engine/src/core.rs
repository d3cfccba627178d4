//! The open store: what all handles share.
//!
//! Locks are taken in this order, and a thread that holds a later one takes no earlier one:
//! a log's gate; the checkpoint; the journal; the flusher; the allocator; a log's root; the catalog.
//! No lock is held while a user's code runs, but for the gates of a transaction.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use lanterman_format::ids::Version;

use crate::background::Background;
use crate::catalog::Catalog;
use crate::checkpoint::CheckpointState;
use crate::clock::Clock;
use crate::closing::{Closing, Permit};
use crate::commit::Request;
use crate::compaction::Compactor;
use crate::counters::Counters;
use crate::disk::FileLock;
use crate::error::{Error, Result};
use crate::flush::{Flusher, Incoming};
use crate::gc::{Collector, SlowReaders};
use crate::journal::Journal;
use crate::journal::group::GroupCommit;
use crate::keys::KeptKeys;
use crate::log::LogState;
use crate::lost::Holes;
use crate::named::HistoryTurn;
use crate::options::Options;
use crate::parts::SpareParts;
use crate::pins::PinTable;
use crate::prefetch::PrefetchMemory;
use crate::publication::Publication;
use crate::reader_table::ReaderTable;
use crate::readers::FollowingCell;
use crate::retention::StoreTime;
use crate::segment::{SegmentTable, SlabAllocator};
use crate::source::StoreSource;
use crate::tail::pool::Pool;
use lanterman_format::weakened;

/// A store that was written to has a checkpoint at least so often, so that quiet logs can give their memory back.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(10);

/// Everything that the handles of an open store share.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) path: PathBuf,
    pub(crate) options: Options,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) time: StoreTime,
    pub(crate) segments: Arc<SegmentTable>,
    pub(crate) source: Arc<StoreSource>,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) pool: Arc<Pool>,
    /// What the last transaction needed.
    pub(crate) spare_parts: SpareParts,
    pub(crate) journal: Mutex<Journal>,
    pub(crate) groups: GroupCommit<Request>,
    /// Held by whoever writes a version with edits, and by a checkpoint while it takes the values of logs. Taken before
    /// the journal's lock.
    pub(crate) edits: Mutex<()>,
    /// When the background applied the retentions of logs last.
    pub(crate) retained_at: Mutex<Duration>,
    /// The newest version that edited a log.
    last_edit: AtomicU64,
    pub(crate) collector: Collector,
    pub(crate) slow_readers: SlowReaders,
    /// Keys of messages that have no run yet.
    pub(crate) kept_keys: KeptKeys,
    pub(crate) compactor: Compactor,
    /// Held while named snapshots are made or dropped, so that a label is given once. Taken before everything else.
    pub(crate) snapshots: Mutex<()>,
    pub(crate) history: Mutex<HistoryTurn>,
    pub(crate) allocator: Mutex<SlabAllocator>,
    pub(crate) incoming: Incoming,
    pub(crate) flusher: Mutex<Flusher>,
    pub(crate) checkpoint: Mutex<CheckpointState>,
    /// Logs with messages that only the operating system has so far.
    pub(crate) volatile: Mutex<HashMap<u64, Arc<LogState>>>,
    pub(crate) publication: Publication,
    pub(crate) background: Background,
    pub(crate) pins: Arc<PinTable>,
    pub(crate) counters: Counters,
    /// What readers read ahead into.
    pub(crate) prefetch_memory: Arc<PrefetchMemory>,
    /// The table in which readers of other processes stand; absent where it cannot be opened.
    pub(crate) readers: Option<ReaderTable>,
    pub(crate) closing: Closing,
    /// Held by the one who closes.
    pub(crate) closer: Mutex<()>,
    pub(crate) lock: Mutex<Option<Box<dyn FileLock>>>,
    /// What a store that is open for reading needs to follow its writer.
    pub(crate) following: FollowingCell,
    /// What recovery stepped over.
    pub(crate) holes: Holes,
    poison: OnceLock<Error>,
    progress: Mutex<u64>,
    progressed: Condvar,
    automatic: Mutex<Duration>,
    /// When the newest checkpoint was made, on the monotonic clock.
    pub(crate) checkpointed_at: Mutex<Duration>,
}

/// The parts of a core that recovery or creation made.
#[derive(Debug)]
pub(crate) struct CoreParts {
    pub(crate) path: PathBuf,
    pub(crate) options: Options,
    pub(crate) segments: Arc<SegmentTable>,
    pub(crate) source: Arc<StoreSource>,
    pub(crate) catalog: Catalog,
    pub(crate) pool: Arc<Pool>,
    pub(crate) journal: Journal,
    pub(crate) allocator: SlabAllocator,
    pub(crate) flusher: Flusher,
    pub(crate) checkpoint: CheckpointState,
    pub(crate) readers: Option<ReaderTable>,
    pub(crate) lock: Option<Box<dyn FileLock>>,
}

impl Core {
    pub(crate) fn new(parts: CoreParts) -> Self {
        let clock = Arc::clone(&parts.options.clock);
        let now = clock.monotonic();
        Core {
            path: parts.path,
            time: StoreTime::new(clock.as_ref()),
            clock,
            segments: parts.segments,
            source: parts.source,
            catalog: Arc::new(parts.catalog),
            pool: parts.pool,
            spare_parts: SpareParts::default(),
            journal: Mutex::new(parts.journal),
            groups: GroupCommit::new(),
            edits: Mutex::new(()),
            retained_at: Mutex::new(Duration::ZERO),
            last_edit: AtomicU64::new(0),
            collector: Collector::default(),
            slow_readers: SlowReaders::default(),
            kept_keys: KeptKeys::default(),
            compactor: Compactor::default(),
            snapshots: Mutex::new(()),
            history: Mutex::default(),
            allocator: Mutex::new(parts.allocator),
            incoming: Incoming::default(),
            flusher: Mutex::new(parts.flusher),
            checkpoint: Mutex::new(parts.checkpoint),
            volatile: Mutex::new(HashMap::new()),
            publication: Publication::default(),
            background: Background::default(),
            pins: Arc::default(),
            counters: Counters::default(),
            prefetch_memory: PrefetchMemory::new(parts.options.prefetch_memory_bytes),
            readers: parts.readers,
            closing: Closing::default(),
            closer: Mutex::new(()),
            lock: Mutex::new(parts.lock),
            following: FollowingCell::default(),
            holes: Holes::default(),
            poison: OnceLock::new(),
            progress: Mutex::new(0),
            progressed: Condvar::new(),
            automatic: Mutex::new(now),
            checkpointed_at: Mutex::new(now),
            options: parts.options,
        }
    }

    /// Stops all acknowledgements for good; gives the error that callers get from now on.
    pub(crate) fn poison(&self, error: Error) -> Error {
        let first = self.poison.get_or_init(|| {
            tracing::error!(store = %self.path.display(), %error, "the store stops taking commits");
            error.clone().poisoning()
        });
        self.notify();
        first.clone()
    }

    /// Poisons the store if the error is a failed sync, wherever it happened: nothing is known of the device any more.
    pub(crate) fn poison_if_sync_failed(&self, error: Error) -> Error {
        if error.is_failed_sync() {
            self.poison(error)
        } else {
            error
        }
    }

    pub(crate) fn check_poison(&self) -> Result<()> {
        match self.poison.get() {
            Some(error) if !weakened!("poison-forgotten") => Err(error.clone()),
            _ if self.closing.is_closed() => Err(Error::Closed),
            _ => Ok(()),
        }
    }

    /// The right to change files; asked for before, and held while, anything of the store is written.
    ///
    /// # Errors
    /// What poisoned the store; [`Error::Closed`].
    pub(crate) fn permit(&self) -> Result<Permit<'_>> {
        self.check_poison()?;
        self.closing.permit().ok_or(Error::Closed)
    }

    pub(crate) fn check_writable(&self, operation: &'static str) -> Result<()> {
        if self.options.read_only {
            Err(Error::ReadOnly { operation })
        } else {
            self.check_poison()
        }
    }

    /// Notes a version that edits a log.
    pub(crate) fn note_edit(&self, version: Version) {
        self.last_edit.fetch_max(version.get(), Ordering::AcqRel);
    }

    /// The newest version that edited a log; 0 if none did since the newest checkpoint that was found.
    pub(crate) fn last_edit(&self) -> Version {
        Version::new(self.last_edit.load(Ordering::Acquire))
    }

    fn notify(&self) {
        *self.progress.lock() += 1;
        self.progressed.notify_all();
    }

    /// Tells those who wait that a version was written, and readers of other processes too.
    pub(crate) fn committed(&self) {
        if let Some(readers) = &self.readers {
            readers.tell_version(self.catalog.version());
        }
        self.notify();
    }

    /// Tells those who wait that memory for tails came back.
    pub(crate) fn memory_came_back(&self) {
        self.notify();
    }

    /// A number that changes whenever something happened that a waiting thread may wait for.
    pub(crate) fn progress(&self) -> u64 {
        *self.progress.lock()
    }

    /// Sleeps until the number is another than `seen`, or `limit` is over.
    pub(crate) fn wait_for_progress(&self, seen: u64, limit: Duration) {
        let mut progress = self.progress.lock();
        if *progress == seen {
            self.progressed.wait_for(&mut progress, limit);
        }
    }

    /// Whether the journal is long enough, or the last checkpoint old enough, for the next one.
    pub(crate) fn checkpoint_is_due(&self) -> bool {
        if self.options.read_only {
            return false;
        }
        let long = |journal: &Journal| journal.replay_bytes() > self.options.journal_bytes_max;
        if self.journal.try_lock().is_some_and(|journal| long(&journal)) {
            return true;
        }
        let age = self
            .clock
            .monotonic()
            .saturating_sub(*self.checkpointed_at.lock());
        age >= CHECKPOINT_INTERVAL && self.catalog.has_dirty()
    }

    /// How long the background may sleep.
    pub(crate) fn turn(&self) -> Duration {
        self.commit_pause()
            .min(self.history_pause())
            .min(self.collection_pause())
    }

    fn commit_pause(&self) -> Duration {
        match self.options.automatic_commit {
            Some(automatic) => {
                let since = self.clock.monotonic().saturating_sub(*self.automatic.lock());
                automatic
                    .interval
                    .saturating_sub(since)
                    .max(Duration::from_millis(1))
            }
            None => Duration::MAX,
        }
    }

    /// Commits every log when the interval of automatic commits is over.
    pub(crate) fn commit_by_time(&self) -> Result<()> {
        let Some(automatic) = self.options.automatic_commit else {
            return Ok(());
        };
        let now = self.clock.monotonic();
        {
            let mut last = self.automatic.lock();
            if now.saturating_sub(*last) < automatic.interval {
                return Ok(());
            }
            *last = now;
        }
        let behind = |log: &Arc<LogState>| log.journaled_end() < log.end() || log.durable_end() < log.end();
        for log in self.catalog.awake().into_iter().filter(behind) {
            // Nobody waits: a failure poisons the store, and the next call of the user tells him.
            drop(self.commit_log_later(&log, log.end(), automatic.durability));
        }
        self.groups.lead(self);
        Ok(())
    }
}
