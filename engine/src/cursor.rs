//! Reading a log in order, or by offset.
//!
//! A cursor holds one piece of the log at a time, a chunk or an open slab, by a count of its own, and takes the next
//! one when it comes to its end. No lock is taken on the way, and nothing is held that would keep other logs' memory.

mod many;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lanterman_format::ids::Offset;
use lanterman_format::{ValueType, weakened};

use crate::core::Core;
use crate::error::{Error, Result};
use crate::found::{damaged, deleted, deleted_outside_the_tree, find_slab, part_of_value};
use crate::log::{LogState, Root};
use crate::message::{Keeper, Message};
use crate::pins::{Holder, Pin};
use crate::prefetch::{Prefetch, PrefetchState};
use crate::read_ahead::{Entered, ReadAhead};
use crate::region::chunk::Chunk;
use crate::slab::{OpenSlab, Opened, ReadContext, SlabError, SlabMemory, SlabWalk, WalkPlace, Walked};
use crate::sys::guard;

/// How long a waiting cursor looks at the tail's memory before it sleeps.
const SPIN_TURNS: u32 = 2_000;
/// Its longest sleep between two looks; commits wake it earlier.
const SLEEP_MAX: Duration = Duration::from_millis(1);

/// No message has this offset: the end of a log that had it would be no number any more.
const NOTHING_LENT: u64 = u64::MAX;

/// A place in a log: a number, or an [`Offset`] that a call gave.
pub trait ToOffset: sealed::Sealed {
    /// The number.
    fn to_offset(self) -> u64;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for u64 {}
    impl Sealed for super::Offset {}
}

impl ToOffset for u64 {
    fn to_offset(self) -> u64 {
        self
    }
}

impl ToOffset for Offset {
    fn to_offset(self) -> u64 {
        self.get()
    }
}

/// How far a cursor reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bound {
    /// To the log's end, whatever is appended.
    End,
    /// Only what would survive a power cut.
    Durable,
    /// To a fixed offset: the end of a snapshot.
    Fixed(u64),
}

/// The piece of the log in which the cursor is.
#[derive(Debug)]
enum Place {
    Nowhere,
    Chunk {
        chunk: Arc<Chunk>,
        position: u32,
        end: u64,
    },
    Slab {
        slab: Arc<OpenSlab>,
        place: WalkPlace,
        end: u64,
        /// What turns a message's number in the slab into its offset in the log, modulo 2^64.
        shift: u64,
        /// Some of its buffers are no messages.
        has_hidden: bool,
    },
}

/// What a log has at its offsets, one after the other; see [`Cursor::next_item`].
#[derive(Debug)]
#[non_exhaustive]
pub enum LogItem<'a> {
    /// A message.
    Message(Message<'a>),
    /// Offsets without a message: theirs are deleted, or they hold parts of a large value.
    Deleted(Range<u64>),
}

/// A reader of one log that lends its messages one at a time.
///
/// ```
/// # fn main() -> Result<(), lanterman::Error> {
/// # let directory = tempfile::tempdir().unwrap();
/// # let store = lanterman::Store::open_copying(directory.path().join("data"))?;
/// let mut writer = store.writer("events")?;
/// let mut cursor = store.log("events")?.cursor(0u64)?;
/// assert!(cursor.next()?.is_none());
/// writer.append(b"first")?;
/// assert_eq!(cursor.next()?.map(|message| message.value().to_vec()), Some(b"first".to_vec()));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Cursor {
    core: Arc<Core>,
    log: Arc<LogState>,
    root: Root,
    /// Keeps the root's slabs where they are; taken anew with each root.
    pin: Pin,
    bound: Bound,
    next: u64,
    place: Place,
    /// Offset of the message that was lent last and not asked about since, or [`NOTHING_LENT`].
    lent: u64,
    /// The slab of whose pieces the cursor reads one, if it is compressed.
    compressed: Option<Arc<OpenSlab>>,
    /// The slab that `get` lent last, where slabs are copies that nobody else need keep.
    passing: Option<Arc<OpenSlab>>,
    /// What comes behind the slab that the cursor is in.
    read_ahead: ReadAhead,
    /// How often trees had been let go of when the root was taken.
    trims: u64,
}

impl Cursor {
    pub(crate) fn new(
        core: Arc<Core>,
        log: Arc<LogState>,
        (pin, root): (Pin, Root),
        bound: Bound,
        next: u64,
    ) -> Result<Self> {
        let cursor = Cursor {
            read_ahead: ReadAhead::new(core.options.prefetch),
            trims: core.source.index_memory().trims(),
            core,
            log,
            root,
            pin,
            bound,
            next,
            place: Place::Nowhere,
            lent: NOTHING_LENT,
            compressed: None,
            passing: None,
        };
        cursor.check(next)?;
        Ok(cursor)
    }

    fn check(&self, offset: u64) -> Result<()> {
        if offset > self.limit() {
            return Err(self.out_of_range(offset));
        }
        Ok(())
    }

    #[cold]
    fn deleted(&self, offset: u64, run: Range<u64>) -> Error {
        deleted(&self.log, offset, run)
    }

    #[cold]
    fn out_of_range(&self, offset: u64) -> Error {
        Error::OutOfRange {
            name: self.log.name.as_str().to_owned(),
            offset: Offset::new(offset),
            start: Offset::new(self.root.start),
            end: Offset::new(self.limit()),
        }
    }

    fn limit(&self) -> u64 {
        match self.bound {
            Bound::End if self.log.is_dropped() => self.root.end(),
            Bound::End => self.log.end(),
            Bound::Durable => self.log.durable_end(),
            Bound::Fixed(end) => end,
        }
    }

    /// Has the slabs that come read ahead by this policy, from the next one on; what was read ahead by another is let go.
    pub fn set_prefetch(&mut self, policy: Prefetch) {
        self.read_ahead.set_policy(policy);
    }

    /// The same for a cursor that is being made.
    #[must_use]
    pub fn with_prefetch(mut self, policy: Prefetch) -> Self {
        self.set_prefetch(policy);
        self
    }

    /// How far ahead its slabs are read now, and why.
    #[must_use]
    pub fn prefetch_state(&self) -> PrefetchState {
        self.read_ahead.state(&self.core)
    }

    /// Nothing from `offset` on will be wanted of it.
    pub(crate) fn stop_prefetch_at(&mut self, offset: u64) {
        self.read_ahead.stop_at(offset);
    }

    /// Offset of the message that [`next`](Self::next) gives.
    #[must_use]
    pub fn offset(&self) -> Offset {
        Offset::new(self.next)
    }

    /// Reads on from `offset`, or from the first message behind it where it was deleted.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] behind the log's end; the end itself is allowed. [`Error::Unreadable`] once if bytes of the message that was lent last were lost meanwhile.
    pub fn seek(&mut self, offset: impl ToOffset) -> Result<()> {
        let offset = offset.to_offset();
        self.check_lent()?;
        self.check(offset)?;
        self.next = offset;
        self.place = Place::Nowhere;
        Ok(())
    }

    /// The next message, or `None` at the end; more may come later. Deleted messages are passed over.
    ///
    /// # Errors
    /// [`Error::Damaged`] and [`Error::Unreadable`] with the offsets that cannot be read; [`seek`](Self::seek) behind them
    /// to go on. They may be those of the message before this one, if its bytes were lost while it was lent; who reads
    /// up to the end learns of each such message.
    #[allow(
        clippy::should_implement_trait,
        reason = "a lending reader cannot be an Iterator: messages borrow from it"
    )]
    #[inline]
    pub fn next(&mut self) -> Result<Option<Message<'_>>> {
        if !self.has_next()? {
            return Ok(None);
        }
        if guard::any_lost() {
            self.check_around()?;
        }
        let offset = self.next;
        let core = &self.core;
        let message = match &mut self.place {
            Place::Chunk { chunk, position, .. } => {
                let buffer = chunk.buffer_at(*position)?;
                *position = position.saturating_add(buffer.stored_bytes());
                self.next = offset.saturating_add(1);
                self.lent = offset;
                Message::new(offset, buffer, Keeper::Chunk(chunk))
            }
            Place::Slab { slab, place, .. } => {
                let stepped = match place.is_in_first() {
                    true => place.step(slab.first_bytes()),
                    false => None,
                };
                let walked = match stepped {
                    Some(walked) => walked,
                    None => match walk_on(slab, place, core.read_context()) {
                        Ok(walked) => walked,
                        Err(Some(error)) => {
                            // Nothing was lost when this call began, so the message before was whole when it was looked at.
                            self.lent = NOTHING_LENT;
                            return Err(damaged(core, &self.log, slab, offset, &self.root, error));
                        }
                        Err(None) => {
                            return Err(Error::Internal {
                                what: "a slab has the offsets that its entry shows",
                            });
                        }
                    },
                };
                self.next = offset.saturating_add(walked.buffer.count());
                self.lent = offset;
                Message::new(offset, walked.buffer, Keeper::Slab(slab))
            }
            Place::Nowhere => {
                return Err(Error::Internal {
                    what: "a cursor with a next message is somewhere",
                });
            }
        };
        Ok(Some(message))
    }

    /// The next message or the next run of deleted offsets, for who wants to see where messages were. `None` at the end.
    ///
    /// A run is as long as it can be, up to the next message or to the end; what is deleted later is a run of its own.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub fn next_item(&mut self) -> Result<Option<LogItem<'_>>> {
        let before = self.next;
        let found = self.has_next();
        // What went wrong behind a run is told by the call that comes to it.
        if self.next > before {
            return Ok(Some(LogItem::Deleted(before..self.next)));
        }
        if !found? {
            return Ok(None);
        }
        Ok(self.next()?.map(LogItem::Message))
    }

    /// The message at `offset`; the cursor reads on behind it.
    ///
    /// Takes no lock and allocates nothing where the log's tree is loaded and its slab open.
    ///
    /// # Errors
    /// [`Error::OutOfRange`], [`Error::Deleted`], [`Error::PartOfValue`], [`Error::Damaged`]; [`Error::Unreadable`], also for
    /// the message that was lent before.
    pub fn get(&mut self, offset: impl ToOffset) -> Result<Message<'_>> {
        self.stored(offset.to_offset(), false)
    }

    /// The bytes of the part of a large value at `offset`. What was lost under the map by now is told.
    pub(crate) fn part(&mut self, offset: u64) -> Result<Bytes> {
        let message = self.stored(offset, true)?;
        let bytes = message.to_bytes();
        message.check()?;
        Ok(bytes)
    }

    /// The message at `offset`, or the part of a value.
    #[inline]
    fn stored(&mut self, offset: u64, takes_parts: bool) -> Result<Message<'_>> {
        self.check_lent()?;
        // What a root shows was appended, so the log need not be asked.
        let is_shown = self.bound == Bound::End && offset < self.root.end();
        if !is_shown && offset >= self.limit() {
            if let Some(hole) = self.log.open_end().filter(|_| offset >= self.log.end()) {
                return Err(self.core.open_end_error(&self.log, hole));
            }
            return Err(self.out_of_range(offset));
        }
        if offset >= self.root.end() {
            self.take_newest_root();
        }
        if self.trims != self.core.source.index_memory().trims() {
            self.take_trimmed_root();
        }
        self.place = Place::Nowhere;
        self.next = offset.saturating_add(1);
        self.lent = NOTHING_LENT;
        if let Some(run) = deleted_outside_the_tree(&self.root, offset) {
            return Err(self.deleted(offset, run));
        }
        if let Some(chunk) = self.root.chunk_at(offset)
            && let Some(position) = chunk.position(offset.saturating_sub(chunk.first_offset()))
        {
            let buffer = chunk.buffer_at(position)?;
            if !takes_parts && chunk.has_parts() && buffer.is_hidden() {
                return Err(part_of_value(&self.log, offset));
            }
            return Ok(Message::new(offset, buffer, Keeper::Chunk(chunk)));
        }
        let found = find_slab(&self.core, &self.log, &self.root, offset)?;
        let relative = found.relative(offset);
        let opened = found
            .handle
            .open(self.core.source.as_ref())
            .map_err(|error| self.core.slab_error(&self.log, Some(offset..found.end), error))?;
        let (slab, relative) = match opened {
            Opened::Mapped(slab) if !slab.layout().is_compressed() => (slab, relative),
            Opened::Passing(slab) if !slab.layout().is_compressed() => {
                (&*self.passing.insert(slab), relative)
            }
            compressed => {
                let piece = compressed
                    .share()
                    .piece(relative..relative.saturating_add(1), self.core.read_context())
                    .map_err(|error| {
                        damaged(&self.core, &self.log, &compressed, offset, &self.root, error)
                    })?;
                let slab = &*self.passing.insert(piece.slab);
                (slab, relative.saturating_sub(piece.first))
            }
        };
        match slab.message(relative, self.core.read_context()) {
            Ok(buffer) if buffer.is_hidden() => match buffer.value_type() {
                ValueType::PART if takes_parts => Ok(Message::new(offset, buffer, Keeper::Slab(slab))),
                ValueType::PART => Err(part_of_value(&self.log, offset)),
                _ => Err(deleted(&self.log, offset, offset..offset.saturating_add(1))),
            },
            Ok(buffer) => {
                self.lent = offset;
                Ok(Message::new(offset, buffer, Keeper::Slab(slab)))
            }
            Err(error) => Err(damaged(&self.core, &self.log, slab, offset, &self.root, error)),
        }
    }

    /// The next message, waiting for one up to `limit`.
    ///
    /// A message appended in this process is seen within about a microsecond while the cursor looks for it, and within
    /// about a millisecond after it has looked in vain for a while.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub fn next_within(&mut self, limit: Duration) -> Result<Option<Message<'_>>> {
        let clock = Arc::clone(&self.core.clock);
        let start = clock.monotonic();
        let mut turns = 0u32;
        while !self.has_next()? {
            let waited = clock.monotonic().saturating_sub(start);
            let Some(left) = limit.checked_sub(waited).filter(|left| !left.is_zero()) else {
                return Ok(None);
            };
            turns = turns.saturating_add(1);
            if turns < SPIN_TURNS {
                std::hint::spin_loop();
            } else {
                let seen = self.core.progress();
                self.core.wait_for_progress(seen, left.min(SLEEP_MAX));
                if self.core.options.read_only {
                    self.core.refresh()?;
                }
            }
        }
        self.next()
    }

    /// Whether there is a next message; finds its piece.
    #[inline]
    fn has_next(&mut self) -> Result<bool> {
        loop {
            let (known, may_be_hidden) = match &self.place {
                Place::Chunk { end, chunk, .. } => (*end, chunk.has_parts()),
                Place::Slab { end, has_hidden, .. } => (*end, *has_hidden),
                Place::Nowhere => (0, false),
            };
            if self.next < known {
                if may_be_hidden && self.pass_hidden()? {
                    continue;
                }
                return Ok(true);
            }
            if !self.find_next()? {
                return Ok(false);
            }
        }
    }

    /// Steps over the next buffer if it is a run of deleted messages or a part of a large value.
    #[cold]
    fn pass_hidden(&mut self) -> Result<bool> {
        if let Place::Chunk { chunk, position, .. } = &mut self.place {
            let buffer = chunk.buffer_at(*position)?;
            let is_hidden = buffer.is_hidden();
            if is_hidden {
                *position = position.saturating_add(buffer.stored_bytes());
                self.next = self.next.saturating_add(1);
            }
            return Ok(is_hidden);
        }
        let Place::Slab {
            slab,
            place,
            shift,
            end,
            ..
        } = &mut self.place
        else {
            return Ok(false);
        };
        let mut walk = SlabWalk::resume(slab, *place, self.core.read_context());
        match walk.step() {
            Ok(Some(walked)) if walked.buffer.is_hidden() => {
                let behind = walked.relative_offset.wrapping_add(walked.buffer.count());
                self.next = behind.wrapping_add(*shift).min(*end);
                *place = walk.place();
                Ok(true)
            }
            // What is wrong is told when the message is read.
            _ => Ok(false),
        }
    }

    #[inline(never)]
    fn find_next(&mut self) -> Result<bool> {
        self.check_lent()?;
        if self.trims != self.core.source.index_memory().trims() {
            self.take_trimmed_root();
        }
        if let Bound::Fixed(end) = self.bound {
            return if self.locate(end)? {
                Ok(true)
            } else {
                self.at_the_end()
            };
        }
        // The chunk in which the cursor is may simply have grown.
        if let Place::Chunk { chunk, end, .. } = &mut self.place
            && self.bound == Bound::End
            && self.root.masks.is_empty()
        {
            let published = chunk.end_offset();
            if published > self.next {
                *end = published;
                return Ok(true);
            }
            let is_last = self
                .root
                .chunks
                .last()
                .is_some_and(|last| Arc::ptr_eq(last, chunk));
            let nothing_behind = self.root.end() <= published;
            if is_last && nothing_behind && self.log.generation() == self.root.generation {
                self.core.publication.settle();
                let published = chunk.end_offset();
                *end = published;
                if published > self.next {
                    return Ok(true);
                }
                return self.at_the_end();
            }
        }
        self.core.publication.settle();
        self.take_newest_root();
        let end = match self.bound {
            Bound::Durable => self.log.durable_end().min(self.root.end()),
            Bound::End | Bound::Fixed(_) => self.root.end(),
        };
        if self.locate(end)? {
            Ok(true)
        } else {
            self.at_the_end()
        }
    }

    /// Goes on from the newest root; of a log that was dropped it keeps the one that it has, which its pin holds.
    fn take_newest_root(&mut self) {
        let (pin, root) = self
            .core
            .pin_root(&self.log, Holder::Cursor(self.log.id), self.next);
        // Asked behind the pin: what was not dropped then is held by it.
        if !self.log.is_dropped() {
            (self.pin, self.root) = (pin, root);
        }
    }

    /// Goes over to a root whose tree holds less memory. Nothing may be lent.
    #[cold]
    fn take_trimmed_root(&mut self) {
        self.trims = self.core.source.index_memory().trims();
        match self.bound {
            Bound::Fixed(_) => self.root.tree = self.root.tree.trimmed(),
            Bound::End | Bound::Durable => self.take_newest_root(),
        }
    }

    /// No next message: unless nobody can tell whether this is the log's end.
    fn at_the_end(&self) -> Result<bool> {
        match self.log.open_end() {
            Some(hole) if self.next >= self.log.end() => Err(self.core.open_end_error(&self.log, hole)),
            _ => Ok(false),
        }
    }

    /// Fails if bytes of the message that was lent last were lost under the map since; the cursor then stands before it.
    #[inline]
    pub(crate) fn check_lent(&mut self) -> Result<()> {
        if guard::any_lost() {
            let offset = std::mem::replace(&mut self.lent, NOTHING_LENT);
            return self.check_lent_at(offset);
        }
        Ok(())
    }

    #[cold]
    fn check_lent_at(&mut self, offset: u64) -> Result<()> {
        if offset == NOTHING_LENT || weakened!("lent-unasked") || self.root.chunk_at(offset).is_some() {
            return Ok(());
        }
        // Nothing is lost of memory of our own, whatever befell the map of the same bytes.
        if let Place::Slab { slab, .. } = &self.place
            && slab.memory() == SlabMemory::Copied
        {
            return Ok(());
        }
        let found = find_slab(&self.core, &self.log, &self.root, offset)?;
        // A slab that passed is a copy, of which nothing can be lost.
        let Some(Opened::Mapped(slab)) = found.handle.opened() else {
            return Ok(());
        };
        // Of a compressed slab only copies are lent.
        if !slab.has_losses() || slab.layout().is_compressed() {
            return Ok(());
        }
        let relative = found.relative(offset);
        let context = self.core.read_context();
        let asked = slab
            .find(relative)
            .and_then(|place| slab.check_message_at(place.position, context));
        let Err(error) = asked else {
            return Ok(());
        };
        let error = damaged(&self.core, &self.log, slab, offset, &self.root, error);
        self.next = offset;
        self.place = Place::Nowhere;
        Err(error)
    }

    /// Asks, in a slab whose map has losses, about the message lent last and about the one that comes.
    #[cold]
    fn check_around(&mut self) -> Result<()> {
        let Place::Slab { slab, place, .. } = &self.place else {
            return Ok(());
        };
        if !slab.has_losses() {
            return Ok(());
        }
        let (slab, position) = (Arc::clone(slab), place.position());
        self.check_lent()?;
        slab.check_message_at(position, self.core.read_context())
            .map_err(|error| damaged(&self.core, &self.log, &slab, self.next, &self.root, error))
    }

    /// Finds the piece that holds the next message that is not deleted, and reads in it up to `limit`. `false` if there is
    /// none before `limit`.
    fn locate(&mut self, limit: u64) -> Result<bool> {
        while self.next < limit {
            let behind = match deleted_outside_the_tree(&self.root, self.next) {
                Some(run) => run.end,
                None => match self.locate_in_piece(limit) {
                    Ok(()) => return Ok(true),
                    Err(Error::Deleted { run, .. }) => run.end,
                    Err(other) => return Err(other),
                },
            };
            self.place = Place::Nowhere;
            self.next = behind.min(limit);
        }
        Ok(false)
    }

    /// The piece that holds the next message.
    fn locate_in_piece(&mut self, limit: u64) -> Result<()> {
        let next = self.next;
        if let Some(chunk) = self.root.chunk_at(next)
            && next < chunk.end_offset()
        {
            let entry = next.saturating_sub(chunk.first_offset());
            let position = chunk.position(entry).ok_or(Error::Internal {
                what: "a published message has a place",
            })?;
            let deleted = self.root.next_mask(next).unwrap_or(u64::MAX);
            let end = chunk.end_offset().min(limit).min(deleted);
            self.read_ahead.rest();
            self.compressed = None;
            self.place = Place::Chunk {
                chunk: Arc::clone(chunk),
                position,
                end,
            };
            return Ok(());
        }
        let found = find_slab(&self.core, &self.log, &self.root, next)?;
        let failed = |error| self.core.slab_error(&self.log, Some(next..found.end), error);
        let entered = Entered {
            root: &self.root,
            next,
            limit,
            found: &found,
        };
        let same = |whole: &Arc<OpenSlab>| whole.reference() == found.handle.reference();
        let slab = match self.compressed.take().filter(same) {
            Some(slab) => slab,
            None => match self.read_ahead.enter(&self.core, entered) {
                Some(slab) => slab,
                None => {
                    let opened = found.handle.open(self.core.source.as_ref());
                    opened.map_err(failed)?.share()
                }
            },
        };
        let shown = found.relative(next);
        // A run that waits for its place in the tree may have deleted messages that it does not know of.
        let mask = self.root.next_mask(next);
        let deleted = mask.filter(|_| !weakened!("run-unmasked")).unwrap_or(u64::MAX);
        let context = self.core.read_context();
        // What turns an offset of the whole slab into one of the log, modulo 2^64.
        let shift = found.first.wrapping_sub(found.skip);
        let end = found.end.min(limit).min(deleted);
        let piece = slab
            .piece(shown..end.wrapping_sub(shift), context)
            .map_err(|error| damaged(&self.core, &self.log, &slab, next, &self.root, error))?;
        let own = shown.saturating_sub(piece.first)..piece.end.saturating_sub(piece.first);
        let place = piece.slab.walk(own, context).map_err(failed)?.place();
        let has_hidden = piece.slab.layout().summary().has_hidden();
        self.compressed = Some(slab).filter(|slab| slab.layout().is_compressed());
        self.place = Place::Slab {
            slab: piece.slab,
            place,
            end: piece.end.wrapping_add(shift),
            shift: shift.wrapping_add(piece.first),
            has_hidden,
        };
        Ok(())
    }
}

/// The next buffer of a slab, checking what was not yet checked; `Err(None)` if there is none.
#[inline(never)]
fn walk_on<'a>(
    slab: &'a OpenSlab,
    place: &mut WalkPlace,
    context: ReadContext<'a>,
) -> std::result::Result<Walked<'a>, Option<SlabError>> {
    let mut walk = SlabWalk::resume(slab, *place, context);
    let walked = walk.step().map_err(Some)?.ok_or(None)?;
    *place = walk.place();
    Ok(walked)
}

impl Core {
    /// What reads need beside the place.
    #[inline]
    pub(crate) fn read_context(&self) -> ReadContext<'_> {
        ReadContext {
            source: self.source.as_ref(),
            verify: self.options.verify,
        }
    }
}
