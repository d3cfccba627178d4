//! How a store is opened.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, Randomness, SystemClock, SystemRandomness};
use crate::disk::{Choice, Disk, MapGrant, SystemDisk, SystemOptions};
use crate::error::{Error, Result};
use crate::formats::{Formats, ValueFormat};
use crate::prefetch::Prefetch;
use crate::slow_reader::{SlowReader, SlowReaderWatch};
use crate::store::Store;

pub use crate::slab::Verify;

/// What a commit promises when it returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Durability {
    /// The bytes are with the operating system or the device: a killed process does not lose them, a power cut may.
    Process,
    /// The bytes are on the device, its cache flushed: neither a killed process nor a power cut loses them.
    Disk,
}

/// What `append` does when the memory for tails is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhenFull {
    /// Wait until slabs were written and memory came back.
    #[default]
    Wait,
    /// Return [`Error::WouldBlock`].
    Refuse,
}

/// Who does the background work: writing slabs, checkpoints, asynchronous and automatic commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Background {
    /// One helper thread of the store.
    #[default]
    Thread,
    /// Nobody but the calls themselves and [`Store::step`]; for tests and for programs that own their threads.
    Manual,
}

/// Commits that the store makes by itself, in the background.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AutomaticCommit {
    /// Commit a log after so many bytes were appended to it.
    pub bytes: u64,
    /// Commit everything at least so often.
    pub interval: Duration,
    /// What these commits promise.
    pub durability: Durability,
}

/// Limits and choices with which a store is opened. The defaults suit most programs.
#[derive(Debug, Clone)]
pub struct Options {
    pub(crate) create: bool,
    pub(crate) read_only: bool,
    pub(crate) accept_lost_commits: bool,
    pub(crate) copying: bool,
    pub(crate) disk: Option<Arc<dyn Disk>>,
    pub(crate) ring: Choice,
    pub(crate) direct: Choice,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) randomness: Arc<dyn Randomness>,
    pub(crate) background: Background,
    pub(crate) verify: Verify,
    pub(crate) guard_maps: bool,
    pub(crate) when_full: WhenFull,
    pub(crate) collect: bool,
    pub(crate) collection_budget: CollectionBudget,
    pub(crate) compact: bool,
    pub(crate) compaction_budget: CollectionBudget,
    pub(crate) slow_readers: Option<SlowReaderWatch>,
    pub(crate) formats: Arc<Formats>,
    pub(crate) protect_reclaimed: bool,
    pub(crate) automatic_commit: Option<AutomaticCommit>,
    pub(crate) history: Option<History>,
    pub(crate) prefetch: Prefetch,
    pub(crate) prefetch_memory_bytes: u64,
    pub(crate) tail_memory_bytes: u64,
    pub(crate) index_memory_bytes: u64,
    pub(crate) slab_bytes_max: u64,
    pub(crate) message_bytes_max: u64,
    pub(crate) large_value_bytes: u64,
    pub(crate) journal_bytes_max: u64,
    pub(crate) slab_segment_bytes_first: u64,
    pub(crate) slab_segment_bytes_max: u64,
    pub(crate) journal_segment_bytes_first: u64,
    pub(crate) journal_segment_bytes_max: u64,
    pub(crate) reserve_bytes: Option<u64>,
}

/// The longest history that can be asked for.
const HISTORY_WINDOW_MAX: Duration = Duration::from_secs(100 * 366 * 24 * 60 * 60);

/// How much of the past of its logs a store keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct History {
    pub(crate) window: Duration,
    pub(crate) interval: Duration,
}

/// How much the collection in the background may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CollectionBudget {
    /// Bytes given back in a second, at most.
    bytes_per_second: u64,
    /// The share of the time that it may work: 1 to 100.
    time_percent: u32,
}

impl Default for CollectionBudget {
    fn default() -> Self {
        CollectionBudget {
            bytes_per_second: u64::MAX,
            time_percent: 50,
        }
    }
}

impl CollectionBudget {
    /// For how long to rest after `worked`, in which `bytes` were given back.
    pub(crate) fn rest(&self, worked: Duration, bytes: u64) -> Duration {
        let rests = 100_u32.saturating_sub(self.time_percent);
        let by_time = worked.saturating_mul(rests).checked_div(self.time_percent);
        let by_time = by_time.unwrap_or_default();
        let millis = bytes.saturating_mul(1000).checked_div(self.bytes_per_second);
        let by_bytes = Duration::from_millis(millis.unwrap_or(0)).saturating_sub(worked);
        by_time.max(by_bytes)
    }

    /// How many bytes to give back in one turn: a quarter of a second's.
    pub(crate) fn turn_bytes(&self, most: u64) -> u64 {
        (self.bytes_per_second / 4).clamp(1, most)
    }
}

impl Default for Options {
    fn default() -> Self {
        Options {
            create: true,
            read_only: false,
            accept_lost_commits: false,
            copying: false,
            disk: None,
            ring: Choice::Auto,
            direct: Choice::Auto,
            clock: Arc::new(SystemClock::new()),
            randomness: Arc::new(SystemRandomness),
            background: Background::default(),
            verify: Verify::default(),
            guard_maps: true,
            when_full: WhenFull::default(),
            collect: true,
            collection_budget: CollectionBudget::default(),
            compact: true,
            compaction_budget: CollectionBudget::default(),
            slow_readers: None,
            formats: Arc::default(),
            protect_reclaimed: false,
            automatic_commit: None,
            history: None,
            prefetch: Prefetch::default(),
            prefetch_memory_bytes: 16 << 20,
            tail_memory_bytes: 64 << 20,
            index_memory_bytes: 32 << 20,
            slab_bytes_max: 1 << 20,
            message_bytes_max: 64 << 20,
            large_value_bytes: 1 << 20,
            journal_bytes_max: 64 << 20,
            slab_segment_bytes_first: 256 << 10,
            slab_segment_bytes_max: 256 << 20,
            journal_segment_bytes_first: 256 << 10,
            journal_segment_bytes_max: 64 << 20,
            reserve_bytes: None,
        }
    }
}

impl Options {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether a store is created where there is none; default yes.
    #[must_use]
    pub fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// Opens for reading only, beside a writer in another process or alone; default no. Nothing is created.
    #[must_use]
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// Opens for writing also where commits that were durable stand in a damaged part of the journal and cannot be read;
    /// default no: opening then answers [`Error::Damaged`](crate::Error::Damaged). A store that is only read
    /// opens in any case.
    ///
    /// What can be read stays: lost offsets answer `Damaged`, the others are where they were. Only at the end of a log of
    /// which nothing follows behind the damage, nobody can tell whether messages are missing: their offsets are given to
    /// new messages. [`Store::lost_commits`](crate::Store::lost_commits) lists all this, at this opening alone. A
    /// backup should be had before.
    #[must_use]
    pub fn accept_lost_commits(mut self, accept: bool) -> Self {
        self.accept_lost_commits = accept;
        self
    }

    /// Whether io_uring is used for bulk writes: where the kernel allows it (default), never, or else not at all.
    #[must_use]
    pub fn ring(mut self, ring: Choice) -> Self {
        self.ring = ring;
        self
    }

    /// Whether writes go around the page cache: where the file system allows it (default), never, or else not at all.
    #[must_use]
    pub fn direct(mut self, direct: Choice) -> Self {
        self.direct = direct;
        self
    }

    /// The disk to work on, in place of the operating system's files. [`Options::ring`] and [`Options::direct`] are
    /// then the disk's own matter.
    #[must_use]
    pub fn disk(mut self, disk: Arc<dyn Disk>) -> Self {
        self.disk = Some(disk);
        self
    }

    /// The clocks; default those of the system.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// The source of randomness; default that of the system.
    #[must_use]
    pub fn randomness(mut self, randomness: Arc<dyn Randomness>) -> Self {
        self.randomness = randomness;
        self
    }

    /// Who does the background work; default one thread of the store.
    #[must_use]
    pub fn background(mut self, background: Background) -> Self {
        self.background = background;
        self
    }

    /// When checksums of slabs are looked at; default before the first use. Bytes that are zeroed after that without a
    /// fault, as by a hole that another program punches, are seen by [`Verify::Always`] at the next read, and while a message
    /// is held by [`Message::verify`](crate::Message::verify) alone.
    #[must_use]
    pub fn verify(mut self, verify: Verify) -> Self {
        self.verify = verify;
        self
    }

    /// Whether a page of a mapped file that can no longer be read is an error ([`Error::Unreadable`]) in place of the
    /// death of the process by SIGBUS; default yes.
    ///
    /// The first store that maps something then installs a handler of SIGBUS for the whole process, which stays. It hands
    /// all signals but those of the store's own maps on to the handler that was there before. Handlers that are installed
    /// later must do the same for the store's. It does not help threads that block SIGBUS: the kernel then ends the
    /// process without asking anybody. What the bytes become is said at [`Message::check`](crate::Message::check).
    #[must_use]
    pub fn guard_maps(mut self, guard: bool) -> Self {
        self.guard_maps = guard;
        self
    }

    /// Whether the background gives back the space of what was deleted or superseded; otherwise only
    /// [`crate::Store::collect`] does. The default is yes.
    #[must_use]
    pub fn collect(mut self, collect: bool) -> Self {
        self.collect = collect;
        self
    }

    /// How many bytes a second the collection in the background gives back at most; default without a limit.
    /// [`crate::Store::collect`] is not bound by it.
    #[must_use]
    pub fn collect_bytes_per_second(mut self, bytes: u64) -> Self {
        self.collection_budget.bytes_per_second = bytes.max(1);
        self
    }

    /// The share of the time that the collection in the background may work, in percent from 1 to 100; default 50. The larger
    /// a store, the longer looking for garbage takes, and the rarer it is done.
    #[must_use]
    pub fn collect_time_percent(mut self, percent: u32) -> Self {
        self.collection_budget.time_percent = percent.clamp(1, 100);
        self
    }

    /// Whether the background compacts keyed logs that have come to their bound; otherwise only [`crate::Store::compact`]
    /// does. The default is yes.
    #[must_use]
    pub fn compact(mut self, compact: bool) -> Self {
        self.compact = compact;
        self
    }

    /// How many bytes a second, removed and written anew, the background compacts at most; default without a limit, but half
    /// of the time it rests.
    #[must_use]
    pub fn compact_bytes_per_second(mut self, bytes: u64) -> Self {
        self.compaction_budget.bytes_per_second = bytes.max(1);
        self
    }

    /// Whom to tell of readers that keep garbage from being given back, once they have held it for `age`: snapshots and
    /// cursors of this process, the oldest at a time, and other processes. Each is told of once, from the thread that
    /// collects, which holds no lock then. What the callback wants to do for long belongs elsewhere: garbage waits.
    #[must_use]
    pub fn on_slow_reader(
        mut self,
        age: Duration,
        tell: impl Fn(&SlowReader) + Send + Sync + 'static,
    ) -> Self {
        let tell = Arc::new(tell);
        self.slow_readers = Some(SlowReaderWatch { age, tell });
        self
    }

    /// Registers what values of a type are like: messages of the type are compared with it before they are appended
    /// ([`Error::InvalidValue`]), and [`Store::display_value`] shows them. May be called for several types; two formats of one
    /// type or name are refused when the store is opened.
    #[must_use]
    pub fn value_format(mut self, format: impl ValueFormat) -> Self {
        Arc::make_mut(&mut self.formats).register(Arc::new(format));
        self
    }

    /// Room on the disk that only deletions, compactions and the collection may use, so that they work when the disk is full: a file of
    /// so many bytes, or of a sixteenth of the store where that is less; 0 for none. Checkpoints write the tails that are in memory, so
    /// the default is the memory for tails and 1 MiB. Once it is used, appends that need a new segment find the disk full
    /// until there is room for it again.
    #[must_use]
    pub fn reserve_bytes(mut self, bytes: u64) -> Self {
        self.reserve_bytes = Some(bytes);
        self
    }

    /// How large the reserve is in a large store.
    pub(crate) fn reserve_bytes_max(&self) -> u64 {
        self.reserve_bytes
            .unwrap_or_else(|| self.tail_memory_bytes.saturating_add(1 << 20))
    }

    /// Whether parts of segments are made inaccessible in this process once they are given back, so that a reader that
    /// goes wrong ends the process and does not read zeros. For tests; the default is no.
    #[must_use]
    pub fn protect_reclaimed(mut self, protect: bool) -> Self {
        self.protect_reclaimed = protect;
        self
    }

    /// What `append` does when the memory for tails is used up; default to wait.
    #[must_use]
    pub fn when_full(mut self, when_full: WhenFull) -> Self {
        self.when_full = when_full;
        self
    }

    /// Commits that the store makes by itself; default none.
    #[must_use]
    pub fn automatic_commit(mut self, automatic: AutomaticCommit) -> Self {
        self.automatic_commit = Some(automatic);
        self
    }

    /// Keeps the past of all logs: at most once an `interval` the store makes a point of each log that changed, and drops
    /// points when the `window` has passed; default none. [`Store::snapshot_at`](crate::Store::snapshot_at) gives them.
    /// A point shares what the log has and costs little; what is deleted from the log stays on the disk until the last
    /// point that holds it has gone.
    #[must_use]
    pub fn history(mut self, window: Duration, interval: Duration) -> Self {
        self.history = Some(History { window, interval });
        self
    }

    /// How far ahead of cursors and iterators slabs are read that no cache has; default [`Prefetch::Off`],
    /// so that what was read once is in the page cache. Each reader can have its own: [`Cursor::set_prefetch`](crate::Cursor::set_prefetch),
    /// [`Messages::prefetch`](crate::Messages::prefetch).
    #[must_use]
    pub fn prefetch(mut self, policy: Prefetch) -> Self {
        self.prefetch = policy;
        self
    }

    /// Memory for what is read ahead, in bytes, over all readers; default 16 MiB, 0 for none. It is taken as readers need it and
    /// goes back with the last one that reads ahead. A message that is kept ([`KeptMessage`](crate::KeptMessage)) may keep
    /// the slab that it is in, and this counts; nobody waits for memory: readers that find none read as they come.
    #[must_use]
    pub fn prefetch_memory_bytes(mut self, bytes: u64) -> Self {
        self.prefetch_memory_bytes = bytes;
        self
    }

    /// Memory for tails, in bytes, over all logs; default 64 MiB, at least 1 MiB.
    #[must_use]
    pub fn tail_memory_bytes(mut self, bytes: u64) -> Self {
        self.tail_memory_bytes = bytes;
        self
    }

    /// Memory for what leads to messages, in bytes, over all logs: nodes of their trees and slabs that are open, about 0.8 KiB for
    /// each slab that is read; default 32 MiB, at least 64 KiB. When it is used up all of it that the disk has too is let go
    /// of, and loaded again where it is needed, which a reader of more slabs than that feels. What
    /// leads to messages that were not committed stays, and a snapshot keeps what
    /// was loaded through its own [`get`](crate::Snapshot::get) until it is dropped.
    #[must_use]
    pub fn index_memory_bytes(mut self, bytes: u64) -> Self {
        self.index_memory_bytes = bytes;
        self
    }

    /// Largest size of a full slab in bytes; default 1 MiB, a power of two from 64 KiB to 64 MiB. Slabs of logs to which little
    /// comes are smaller, see [`Log::choices`](crate::Log::choices).
    #[must_use]
    pub fn slab_bytes_max(mut self, bytes: u64) -> Self {
        self.slab_bytes_max = bytes;
        self
    }

    /// Largest value of a message in bytes; default 64 MiB, at most 256 MiB.
    #[must_use]
    pub fn message_bytes_max(mut self, bytes: u64) -> Self {
        self.message_bytes_max = bytes;
        self
    }

    /// Above so many bytes [`Writer::append_large`](crate::Writer::append_large) keeps a value in parts; default 1 MiB, at
    /// most what one message may have.
    #[must_use]
    pub fn large_value_bytes(mut self, bytes: u64) -> Self {
        self.large_value_bytes = bytes;
        self
    }

    /// Journal bytes after which a checkpoint begins; bounds the work of recovery. Default 64 MiB.
    #[must_use]
    pub fn journal_bytes_max(mut self, bytes: u64) -> Self {
        self.journal_bytes_max = bytes;
        self
    }

    /// Sizes of the first and of the largest segment of slabs in bytes; default 256 KiB and 256 MiB.
    #[must_use]
    pub fn slab_segment_bytes(mut self, first: u64, max: u64) -> Self {
        self.slab_segment_bytes_first = first;
        self.slab_segment_bytes_max = max;
        self
    }

    /// Sizes of the first and of the largest segment of the journal in bytes; default 256 KiB and 64 MiB.
    #[must_use]
    pub fn journal_segment_bytes(mut self, first: u64, max: u64) -> Self {
        self.journal_segment_bytes_first = first;
        self.journal_segment_bytes_max = max;
        self
    }

    /// Opens the store in `path` with these options; segments are mapped and reads copy nothing.
    ///
    /// # Safety
    /// While the store, or anything read from it, lives, no other program may truncate or rewrite the files of the
    /// store: borrowed messages point into maps of them. The store's own processes keep to this; its lock keeps a
    /// second writer out. See [`Options::open_copying`] for the safe way.
    ///
    /// If it happens all the same, or the device fails, the harm is limited, unless [`Options::guard_maps`] is off: bytes
    /// that can no longer be read become zeros, and the calls that meet them answer [`Error::Unreadable`]. Bytes that are
    /// borrowed already change under the borrow; [`Message::check`](crate::Message::check) and
    /// [`check_bytes`](crate::check_bytes) tell, asked after the look. Bytes that others rewrite, zeros of a punched hole and
    /// of the rest of a page within which a file was cut are seen by checksums alone: before bytes are lent, as
    /// [`Options::verify`] says, and after the look by [`Message::verify`](crate::Message::verify).
    ///
    /// # Errors
    /// [`Error::NoStore`], [`Error::NotAStore`], [`Error::NewerFormat`], [`Error::Locked`], [`Error::Damaged`],
    /// [`Error::InvalidOption`], or the system's refusal.
    #[allow(
        unsafe_code,
        reason = "the one public door to mapped files; its contract is the caller's promise"
    )]
    pub unsafe fn open(mut self, path: impl AsRef<Path>) -> Result<Store> {
        self.copying = false;
        // SAFETY: the caller promises what the grant is about.
        let grant = unsafe { MapGrant::new() };
        let disk = self.make_disk(Some(grant))?;
        Store::open_with(path.as_ref(), self, disk)
    }

    /// Opens the store in `path` with these options; reads copy out of the files, and no message is ever lent from a map.
    /// (The one page of the table of readers is mapped, as in every store; see [`Options::guard_maps`].)
    ///
    /// # Errors
    /// As [`Options::open`].
    pub fn open_copying(mut self, path: impl AsRef<Path>) -> Result<Store> {
        self.copying = true;
        let disk = self.make_disk(None)?;
        Store::open_with(path.as_ref(), self, disk)
    }

    fn make_disk(&self, maps: Option<MapGrant>) -> Result<Arc<dyn Disk>> {
        if let Some(disk) = &self.disk {
            return Ok(Arc::clone(disk));
        }
        let options = SystemOptions {
            ring: self.ring,
            direct: self.direct,
            maps,
            unguarded: !self.guard_maps,
        };
        match SystemDisk::new(options) {
            Ok(disk) => Ok(Arc::new(disk)),
            Err(source) => Err(Error::io("set up io_uring for", Path::new("the store"), source)),
        }
    }

    pub(crate) fn check(&self) -> Result<()> {
        let rule = |holds: bool, option: &'static str, reason: &'static str| {
            if holds {
                Ok(())
            } else {
                Err(Error::InvalidOption { option, reason })
            }
        };
        let segment = |first: u64, max: u64| {
            first >= 64 << 10 && first <= max && max <= lanterman_format::limits::SEGMENT_BYTES_MAX
        };
        if let Some(reason) = self.formats.problem() {
            return rule(false, "value_format", reason);
        }
        rule(
            self.tail_memory_bytes >= 1 << 20,
            "tail_memory_bytes",
            "must be at least 1 MiB",
        )?;
        rule(
            self.index_memory_bytes >= 64 << 10,
            "index_memory_bytes",
            "must be at least 64 KiB",
        )?;
        rule(
            self.slab_bytes_max.is_power_of_two() && (64 << 10..=64 << 20).contains(&self.slab_bytes_max),
            "slab_bytes_max",
            "must be a power of two from 64 KiB to 64 MiB",
        )?;
        rule(
            self.tail_memory_bytes >= self.slab_bytes_max.saturating_mul(2),
            "tail_memory_bytes",
            "must hold at least two full slabs",
        )?;
        rule(
            (1..=u64::from(lanterman_format::limits::VALUE_BYTES_MAX)).contains(&self.message_bytes_max),
            "message_bytes_max",
            "must be from 1 byte to 256 MiB",
        )?;
        rule(
            (1..=u64::from(lanterman_format::limits::VALUE_BYTES_MAX)).contains(&self.large_value_bytes),
            "large_value_bytes",
            "must be from 1 byte to 256 MiB",
        )?;
        let history = self.history.as_ref();
        rule(
            history.is_none_or(|history| {
                !history.interval.is_zero()
                    && history.interval <= history.window
                    && history.window <= HISTORY_WINDOW_MAX
            }),
            "history",
            "must have an interval above zero and a window of at least that and at most a hundred years",
        )?;
        rule(
            self.journal_bytes_max >= 64 << 10,
            "journal_bytes_max",
            "must be at least 64 KiB",
        )?;
        rule(
            segment(self.slab_segment_bytes_first, self.slab_segment_bytes_max),
            "slab_segment_bytes",
            "must rise, from 64 KiB to 4 GiB",
        )?;
        rule(
            segment(self.journal_segment_bytes_first, self.journal_segment_bytes_max),
            "journal_segment_bytes",
            "must rise, from 64 KiB to 4 GiB",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_larger_than_the_format_can_describe_are_refused_before_anything_is_written() {
        let largest = lanterman_format::limits::SEGMENT_BYTES_MAX;
        assert!(
            Options::new()
                .slab_segment_bytes(1 << 20, largest)
                .check()
                .is_ok()
        );
        let larger = Options::new().slab_segment_bytes(1 << 20, largest + 1).check();
        assert!(matches!(
            larger,
            Err(Error::InvalidOption {
                option: "slab_segment_bytes",
                ..
            })
        ));
        let larger = Options::new().journal_segment_bytes(1 << 20, largest + 1).check();
        assert!(matches!(
            larger,
            Err(Error::InvalidOption {
                option: "journal_segment_bytes",
                ..
            })
        ));
    }
}
