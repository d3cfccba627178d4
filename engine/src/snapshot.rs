//! Logs and stores held still, and logs as they go on.

use std::ops::{Bound as RangeBound, RangeBounds, RangeInclusive};
use std::sync::Arc;

use lanterman_format::ValueType;
use lanterman_format::ids::{LogId, Offset, Version};

use crate::catalog::HeldCut;
use crate::choices::Choice;
use crate::compression::Compression;
use crate::constraints::Constraints;
use crate::core::Core;
use crate::cursor::{Bound, Cursor, ToOffset};
use crate::error::{Error, Result, Violation};
use crate::key_scan::{KeyEnd, KeyScan};
use crate::keyed::Keyed;
use crate::log::{LogState, Root};
use crate::message::KeptMessage;
use crate::pins::{Holder, Kept, Pin};
use crate::prefetch::{Prefetch, PrefetchState};
use crate::retention::Retention;
use crate::store::LogInformation;
use crate::summary::LogSummary;

/// A log, for reading. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Log {
    core: Arc<Core>,
    state: Arc<LogState>,
}

impl Log {
    pub(crate) fn new(core: Arc<Core>, state: Arc<LogState>) -> Self {
        Log { core, state }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.state.name.as_str()
    }

    /// First offset that it holds. Of a log that was dropped it is the end.
    #[must_use]
    pub fn start(&self) -> Offset {
        if self.state.is_dropped() {
            return self.end();
        }
        self.state.first_offset()
    }

    /// Offset behind its newest message.
    #[must_use]
    pub fn end(&self) -> Offset {
        Offset::new(self.state.end())
    }

    /// # Errors
    /// [`Error::UnknownLog`] once the log is dropped.
    fn check_not_dropped(&self) -> Result<()> {
        if self.state.is_dropped() {
            return Err(Error::UnknownLog {
                name: self.name().to_owned(),
            });
        }
        Ok(())
    }

    /// The retention that it has as a setting ([`crate::Store::set_retention`]); `None` keeps everything.
    #[must_use]
    pub fn retention(&self) -> Option<Retention> {
        Retention::of_setting(&self.state.settings().retention)
    }

    /// What it demands of the messages that are appended to it ([`crate::Store::set_constraints`]).
    ///
    /// # Errors
    /// [`Error::InvalidConstraints`] if a later program has set some that this one cannot read.
    pub fn constraints(&self) -> Result<Option<Constraints>> {
        let settings = self.state.settings();
        let told = settings.constraints.as_ref();
        told.map(|told| Constraints::stored(&told.document)).transpose()
    }

    /// What was chosen for the log from what came to it, and why: how large its slabs are to be. Chosen when a slab is full and
    /// at checkpoints; of a log to which nothing came in this process it is what would be chosen by its newest messages.
    #[must_use]
    pub fn choices(&self) -> Vec<Choice> {
        self.core.log_choices(&self.state, &self.state.root())
    }

    /// Whether it is keyed, and how ([`crate::Store::set_keyed`]).
    #[must_use]
    pub fn keyed(&self) -> Option<Keyed> {
        self.state.settings().keyed.as_ref().map(Keyed::of_setting)
    }

    /// Whether its slabs are compressed, and how ([`crate::Store::set_compression`]).
    #[must_use]
    pub fn compression(&self) -> Option<Compression> {
        self.state
            .settings()
            .compression
            .as_ref()
            .map(Compression::of_setting)
    }

    /// The newest message of a key, of a keyed log; `None` if there is none, or a delete marker is the newest.
    ///
    /// # Errors
    /// As [`Snapshot::get_key`].
    pub fn get_key(&self, key: &[u8]) -> Result<Option<KeptMessage>> {
        self.check_not_dropped()?;
        self.core.publication.settle();
        let (_pin, root) = self.core.pin_root_for_a_call(&self.state);
        // Asked behind the pin: what was not dropped then is held by it.
        self.check_not_dropped()?;
        let found = self.core.newest_of_key(&self.state, &root, root.end(), key)?;
        Ok(found.filter(|message| message.value_type() != ValueType::NIL))
    }

    /// Name, start, end and watermarks.
    #[must_use]
    pub fn information(&self) -> LogInformation {
        LogInformation {
            name: self.name().to_owned(),
            start: self.start(),
            end: self.end(),
            committed_end: Offset::new(self.state.journaled_end()),
            durable_end: Offset::new(self.state.durable_end()),
        }
    }

    /// The log's number, which no other log of the store ever has, also when its name is given to another one.
    #[must_use]
    pub fn id(&self) -> LogId {
        self.state.id
    }

    /// A cursor from `offset` on, which follows the log: what is appended later, it reads later.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] behind the end of the log; the end itself is allowed. From an offset that was deleted it begins
    /// at the first message behind. [`Error::UnknownLog`] if the log was dropped.
    pub fn cursor(&self, offset: impl ToOffset) -> Result<Cursor> {
        let offset = offset.to_offset();
        let pinned = self
            .core
            .pin_root(&self.state, Holder::Cursor(self.state.id), offset);
        // Asked behind the pin: what was not dropped then is held by it.
        self.check_not_dropped()?;
        Cursor::new(
            Arc::clone(&self.core),
            Arc::clone(&self.state),
            pinned,
            Bound::End,
            offset,
        )
    }

    /// A cursor that reads only what would survive a power cut.
    ///
    /// # Errors
    /// As [`cursor`](Self::cursor).
    pub fn durable_cursor(&self, offset: impl ToOffset) -> Result<Cursor> {
        let offset = offset.to_offset();
        let pinned = self
            .core
            .pin_root(&self.state, Holder::Cursor(self.state.id), offset);
        // Asked behind the pin: what was not dropped then is held by it.
        self.check_not_dropped()?;
        Cursor::new(
            Arc::clone(&self.core),
            Arc::clone(&self.state),
            pinned,
            Bound::Durable,
            offset,
        )
    }

    /// The log as it is now; without messages if it was dropped.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.core.publication.settle();
        let (pin, mut root) = self
            .core
            .pin_root(&self.state, Holder::Snapshot(self.state.id), u64::MAX);
        // Asked behind the pin: what was not dropped then is held by it.
        if self.state.is_dropped() {
            root = Root::empty_from(root.end());
        }
        let end = root.end();
        Snapshot {
            core: Arc::clone(&self.core),
            state: Arc::clone(&self.state),
            root,
            end,
            pin,
        }
    }
}

/// A log held still: `Send`, `'static`, readable for as long as it is held.
#[derive(Debug, Clone)]
pub struct Snapshot {
    core: Arc<Core>,
    state: Arc<LogState>,
    root: Root,
    end: u64,
    pin: Pin,
}

impl Snapshot {
    /// What a named snapshot holds.
    pub(crate) fn of_named(core: &Arc<Core>, state: Arc<LogState>) -> Self {
        let (pin, root) = core.pin_root(&state, Holder::Snapshot(state.id), u64::MAX);
        Snapshot {
            core: Arc::clone(core),
            end: root.end(),
            root,
            state,
            pin,
        }
    }

    /// The store and the log that it is of.
    pub(crate) fn owner(&self) -> (Arc<Core>, Arc<LogState>) {
        (Arc::clone(&self.core), Arc::clone(&self.state))
    }

    /// Name of the log.
    #[must_use]
    pub fn name(&self) -> &str {
        self.state.name.as_str()
    }

    /// The newest version when it was taken; of a named snapshot, when that was made.
    #[must_use]
    pub fn version(&self) -> Version {
        let told = self.state.named_snapshot();
        told.map_or_else(|| self.pin.version(), |told| told.version)
    }

    /// First offset.
    #[must_use]
    pub fn start(&self) -> Offset {
        Offset::new(self.root.start)
    }

    /// Offset behind the last message.
    #[must_use]
    pub fn end(&self) -> Offset {
        Offset::new(self.end)
    }

    /// How many offsets it has, deleted ones behind its start included.
    #[must_use]
    pub fn message_count(&self) -> u64 {
        self.end.saturating_sub(self.root.start)
    }

    /// Counts, bytes and times of its messages, from what slabs and tree nodes carry: O(log n), no slab is read.
    ///
    /// # Errors
    /// [`Error::Damaged`] if a node of the log's tree cannot be read.
    pub fn summary(&self) -> Result<LogSummary> {
        let offsets = self.root.start..self.end;
        self.core.summarise_with_keys(&self.state, &self.root, offsets)
    }

    /// The same of a range of offsets, of which some may be deleted. Exact: where the range cuts a slab in two, the smaller
    /// part is counted in it, and its keys are, so at most two slabs are read, in part; the rest is O(log n).
    ///
    /// # Errors
    /// As [`summary`](Self::summary); [`Error::OutOfRange`] if the range ends behind the end.
    pub fn summary_of(&self, offsets: impl RangeBounds<u64>) -> Result<LogSummary> {
        let (from, until) = self.bounds(&offsets);
        self.check_until(until)?;
        let offsets = from.clamp(self.root.start, until.max(self.root.start))..until;
        self.core.summarise_with_keys(&self.state, &self.root, offsets)
    }

    /// The same of the messages whose times, in milliseconds since 1970, are in a range.
    ///
    /// A message without a time of its own has the time span of its slab: from when its first message was appended to when
    /// it was written. No slab is read: of one whose span is only partly in the range that part is taken of its counts,
    /// and [`LogSummary::is_exact`] says so. In O(log n), if times rise with offsets; otherwise more slabs are cut.
    ///
    /// # Errors
    /// As [`summary`](Self::summary).
    pub fn summary_between(&self, times_ms: RangeInclusive<i64>) -> Result<LogSummary> {
        self.core
            .summarise_times_with_keys(&self.state, &self.root, self.end, times_ms)
    }

    /// Judges its messages by `constraints` as if they came now, in order; rules about rates are left out. Calls `tell` for
    /// each rule that one breaks, until it says `false`.
    ///
    /// # Errors
    /// [`Error::InvalidConstraints`], [`Error::Damaged`], [`Error::Unreadable`].
    pub fn check_constraints(
        &self,
        constraints: &Constraints,
        tell: impl FnMut(Violation) -> bool,
    ) -> Result<()> {
        self.core
            .review(&self.state, &self.root, self.end, constraints, tell)
    }

    /// A range of offsets as numbers.
    fn bounds(&self, offsets: &impl RangeBounds<u64>) -> (u64, u64) {
        let from = match offsets.start_bound() {
            RangeBound::Included(from) => *from,
            RangeBound::Excluded(from) => from.saturating_add(1),
            RangeBound::Unbounded => self.root.start,
        };
        let until = match offsets.end_bound() {
            RangeBound::Included(until) => until.saturating_add(1),
            RangeBound::Excluded(until) => *until,
            RangeBound::Unbounded => self.end,
        };
        (from, until)
    }

    fn check_until(&self, until: u64) -> Result<()> {
        if until > self.end {
            return Err(Error::OutOfRange {
                name: self.name().to_owned(),
                offset: Offset::new(until),
                start: self.start(),
                end: self.end(),
            });
        }
        Ok(())
    }

    /// Makes the log `new` with what the snapshot holds; see [`Store::fork`](crate::Store::fork).
    ///
    /// In O(1) too, unless messages of the log were deleted since, or it was dropped: then a checkpoint is made on the way.
    ///
    /// # Errors
    /// [`Error::LogExists`], [`Error::InvalidName`]; what a commit and a checkpoint may meet.
    pub fn fork(&self, new: &str) -> Result<()> {
        self.core.fork_held(&self.state, &self.root, self.end, new)
    }

    /// A cursor that lends the messages from `offset` on, without copying and without counting each.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] behind the end; the end itself is allowed.
    pub fn cursor(&self, offset: impl ToOffset) -> Result<Cursor> {
        let offset = offset.to_offset();
        let bound = Bound::Fixed(self.end);
        Cursor::new(
            Arc::clone(&self.core),
            Arc::clone(&self.state),
            (self.pin.clone(), self.root.clone()),
            bound,
            offset,
        )
    }

    /// The message at `offset`; its value is counted and not copied. [`KeptMessage::check`] says afterwards whether what was
    /// looked at was whole.
    ///
    /// # Errors
    /// [`Error::OutOfRange`], [`Error::Deleted`], [`Error::Damaged`], [`Error::Unreadable`].
    pub fn get(&self, offset: impl ToOffset) -> Result<KeptMessage> {
        let offset = offset.to_offset();
        Ok(KeptMessage::from(&self.cursor(self.root.start)?.get(offset)?))
    }

    /// The messages at `offsets`, in the order asked for. They come side by side from memory and from the disk, so this is faster than
    /// asking for one after the other; many at once mean that all of them are held at once.
    ///
    /// # Errors
    /// As [`get`](Self::get), for the first that fails.
    pub fn get_many(&self, offsets: &[u64]) -> Result<Vec<KeptMessage>> {
        self.cursor(self.root.start)?.get_many(offsets)
    }

    /// The newest message of a key, of a keyed log; `None` if there is none, or a delete marker is the newest.
    ///
    /// A value that [`Writer::append_large`](crate::Writer::append_large) took in parts is read by
    /// [`read_value`](Self::read_value), at the offset of the message.
    ///
    /// Where the keys of older messages are told in order (which the background sees to), one page of a filter is looked at
    /// for each run of them, and a few pages more for the one that has the key.
    ///
    /// # Errors
    /// [`Error::NotKeyed`], [`Error::Damaged`], [`Error::Unreadable`].
    pub fn get_key(&self, key: &[u8]) -> Result<Option<KeptMessage>> {
        let found = self.core.newest_of_key(&self.state, &self.root, self.end, key)?;
        Ok(found.filter(|message| message.value_type() != ValueType::NIL))
    }

    /// The newest message of each key in a range of keys, in the order of the keys, which is that of their bytes; without
    /// keys of which a delete marker is the newest. Of a keyed log.
    ///
    /// # Errors
    /// [`Error::NotKeyed`]; what goes wrong on the way comes out of the iterator.
    pub fn scan_keys<'k>(&self, keys: impl RangeBounds<&'k [u8]>) -> Result<KeyScan> {
        let from = match keys.start_bound() {
            RangeBound::Included(key) => key.to_vec(),
            // The least key that is greater.
            RangeBound::Excluded(key) => [key, [0].as_slice()].concat(),
            RangeBound::Unbounded => Vec::new(),
        };
        let until = match keys.end_bound() {
            RangeBound::Included(key) => KeyEnd::Before([key, [0].as_slice()].concat()),
            RangeBound::Excluded(key) => KeyEnd::Before(key.to_vec()),
            RangeBound::Unbounded => KeyEnd::Nowhere,
        };
        self.scan(from, until)
    }

    /// The same for all keys that begin with `prefix`; of the empty one, all.
    ///
    /// # Errors
    /// As [`scan_keys`](Self::scan_keys).
    pub fn scan_prefix(&self, prefix: &[u8]) -> Result<KeyScan> {
        self.scan(prefix.to_vec(), KeyEnd::Prefix(prefix.to_vec()))
    }

    fn scan(&self, from: Vec<u8>, until: KeyEnd) -> Result<KeyScan> {
        let merged = self
            .core
            .merged_keys(&self.state, &self.root, self.end, Some(from))?;
        Ok(KeyScan::new(
            Arc::clone(&self.core),
            Arc::clone(&self.state),
            (self.root.clone(), self.pin.clone()),
            merged,
            until,
        ))
    }

    /// Iterates over a range of offsets; values are counted and not copied. [`cursor`](Self::cursor) is cheaper where
    /// one message at a time is enough.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] if the range ends behind the end. Deleted messages are passed over.
    pub fn range(&self, offsets: impl RangeBounds<u64>) -> Result<Messages> {
        let (from, until) = self.bounds(&offsets);
        self.check_until(until)?;
        let mut cursor = self.cursor(from)?;
        cursor.stop_prefetch_at(until);
        Ok(Messages {
            cursor,
            until,
            failed: false,
        })
    }
}

/// The messages of a range of a snapshot; see [`Snapshot::range`]. It ends behind the first error, which may speak of the
/// message before, if its bytes were lost after it was given ([`Error::Unreadable`]).
#[derive(Debug)]
pub struct Messages {
    cursor: Cursor,
    until: u64,
    failed: bool,
}

impl Messages {
    /// Has the slabs that come read ahead by this policy.
    #[must_use]
    pub fn prefetch(mut self, policy: Prefetch) -> Self {
        self.cursor.set_prefetch(policy);
        self
    }

    /// How far ahead its slabs are read now, and why.
    #[must_use]
    pub fn prefetch_state(&self) -> PrefetchState {
        self.cursor.prefetch_state()
    }
}

impl Iterator for Messages {
    type Item = Result<KeptMessage>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        if self.cursor.offset().get() >= self.until {
            // The last message is asked about too, once its bytes were looked at.
            let lost = self.cursor.check_lent().err();
            self.failed = lost.is_some();
            return lost.map(Err);
        }
        let until = self.until;
        match self.cursor.next() {
            Ok(message) => message
                .filter(|message| message.offset().get() < until)
                .map(|message| Ok(KeptMessage::from(&message))),
            Err(error) => {
                self.failed = true;
                Some(Err(error))
            }
        }
    }
}

/// All logs of a store in one version.
#[derive(Debug, Clone)]
pub struct StoreSnapshot {
    core: Arc<Core>,
    cut: Arc<HeldCut>,
    pin: Pin,
}

impl Core {
    /// The newest version of all logs, kept from the collector for as long as the pin lives.
    pub(crate) fn pin_cut(&self) -> (Pin, Arc<HeldCut>) {
        self.pins
            .pin_with(Holder::StoreSnapshot, self.clock.monotonic(), u64::MAX, || {
                let cut = self.catalog.hold_cut();
                (cut.version, Kept::Cut(Arc::clone(&cut)), cut)
            })
    }
}

impl StoreSnapshot {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        let (pin, cut) = core.pin_cut();
        StoreSnapshot { core, cut, pin }
    }

    /// The version.
    #[must_use]
    pub fn version(&self) -> Version {
        self.pin.version()
    }

    /// Names of the logs, in order.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let mut names = self.core.catalog.names_in(&self.cut);
        names.sort_unstable();
        names
    }

    /// One log of the version.
    ///
    /// # Errors
    /// [`Error::UnknownLog`] if the version has no log of that name, [`Error::Damaged`] as [`Store::log`](crate::Store::log).
    pub fn log(&self, name: &str) -> Result<Snapshot> {
        let newest = self.core.find_log(name);
        let logs = self.cut.logs();
        let known = |state: &Arc<LogState>| logs.get(state.id.get());
        let committed = newest
            .as_ref()
            .ok()
            .and_then(known)
            // Dropped since, and perhaps made anew.
            .or_else(|| {
                let mut named = logs.values().filter(|entry| entry.is_named());
                named.find(|entry| entry.log.name.as_str() == name)
            });
        let Some(committed) = committed else {
            return Err(newest.err().unwrap_or_else(|| Error::UnknownLog {
                name: name.to_owned(),
            }));
        };
        let state = Arc::clone(&committed.log);
        Ok(Snapshot {
            core: Arc::clone(&self.core),
            root: state.root_at(self.cut.version),
            end: committed.end,
            state,
            pin: self.pin.clone(),
        })
    }
}
