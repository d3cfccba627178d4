//! An open slab: header, index and checksum table checked, groups checked as they are read.
//!
//! Invariants:
//! - nothing of a group is read before the group was prepared, and unless the policy is `Never`, verified;
//! - bytes that were lent stay as they are: when a map turns out to hold stale pages, a fresh copy is put beside the
//!   window, and never in its place.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use lanterman_format::slab::EntryPlace;
use lanterman_format::weakened;
use lanterman_format::{BufferView, FormatError, Reference, Rule, SlabLayout, StoreId, Structure};

use super::check::{check_kind, lost, parse};
use super::held::Held;
use super::piece::Uncompressed;
use super::{ReadContext, SlabBytes, SlabError, SlabMemory, SlabSource, SlabWalk, Verify};
use crate::atomics::OnceLock;
use crate::sys::guard;
use crate::sys::prefetch::prefetch;

/// Bytes of a buffer that say how long it is.
const BUFFER_HEADER_BYTES: u32 = 8;

/// What the processor fetches at once.
pub(super) const CACHE_LINE_BYTES: usize = 64;

/// How much of a message is fetched before it is looked at; the processor foresees by itself what follows.
const FETCHED_BYTES: usize = 1 << 10;

/// A slab that can be read.
#[derive(Debug)]
pub(crate) struct OpenSlab {
    reference: Reference,
    layout: SlabLayout,
    first: Held,
    /// Read past the map, once a group of the window was found stale.
    fresh: OnceLock<Box<Held>>,
    used: AtomicBool,
    /// What of it is uncompressed now, if it is compressed.
    pub(super) uncompressed: Uncompressed,
}

/// Bytes up to the body's end, to begin a walk in.
#[derive(Debug)]
pub(super) struct CheckedBody<'a> {
    pub(super) bytes: &'a [u8],
    /// Every group may be read.
    pub(super) is_all_ready: bool,
    /// They are of the copy that was read past the map.
    pub(super) is_fresh: bool,
}

impl OpenSlab {
    /// Opens the slab at `reference`: fetches its bytes and checks all but the groups.
    ///
    /// # Errors
    ///
    /// [`SlabError`] if the reference is none to a slab here, the bytes cannot be had, or they are damaged also when
    /// read past the map.
    pub(crate) fn open(reference: &Reference, source: &dyn SlabSource) -> Result<Self, SlabError> {
        check_kind(reference)?;
        let store = source.store_id();
        let bytes = source.open(reference)?;
        match parse(&bytes, reference, store) {
            Ok(layout) => Ok(Self::of(*reference, layout, bytes)),
            Err(error) if bytes.memory() != SlabMemory::Mapped => Err(error),
            Err(SlabError::Damaged(_)) => {
                // The map may hold a page from before the block was written. Only the disk can say.
                let fresh = source.reread(reference)?;
                let layout = parse(&fresh, reference, store)?;
                Ok(Self::of(*reference, layout, fresh))
            }
            Err(error) => Err(error),
        }
    }

    /// Opens the slab at `reference` over bytes of it that were read already, and checks all but the groups.
    ///
    /// # Errors
    ///
    /// As of [`open`](Self::open), but the bytes are not read again.
    pub(crate) fn of_bytes(
        reference: &Reference,
        bytes: SlabBytes,
        store: StoreId,
    ) -> Result<Self, SlabError> {
        check_kind(reference)?;
        let layout = parse(&bytes, reference, store)?;
        let opened = Self::of(*reference, layout, bytes);
        if weakened!("read-ahead-unchecked") {
            (0..opened.layout.group_count()).for_each(|group| opened.first.verified.insert(group));
        }
        Ok(opened)
    }

    fn of(reference: Reference, layout: SlabLayout, bytes: SlabBytes) -> Self {
        let first = Held::new(bytes, &layout);
        Self {
            reference,
            layout,
            first,
            fresh: OnceLock::new(),
            used: AtomicBool::new(false),
            uncompressed: Uncompressed::default(),
        }
    }

    /// A slab in memory, made a moment ago of bytes that were checked: a piece of the compressed one at `reference`.
    pub(super) fn uncompressed(reference: Reference, layout: SlabLayout, bytes: SlabBytes) -> Self {
        let made = Self::of(reference, layout, bytes);
        (0..made.layout.group_count()).for_each(|group| made.first.verified.insert(group));
        made
    }

    /// What its header says.
    pub(crate) fn layout(&self) -> &SlabLayout {
        &self.layout
    }

    /// What kind of memory it was opened from.
    pub(crate) fn memory(&self) -> SlabMemory {
        self.first.bytes.memory()
    }

    /// The part of the slab that `part` is, counted, for who lends a message beyond the slab's borrow; `None` if
    /// `part` is not of this slab's bytes. Nothing is copied.
    pub(crate) fn lend(&self, part: &[u8]) -> Option<bytes::Bytes> {
        let fresh = self.fresh.get().and_then(|fresh| fresh.bytes.part(part));
        let owner = fresh.or_else(|| self.first.bytes.part(part))?;
        Some(bytes::Bytes::from_owner(owner))
    }

    /// How much memory the slab holds that is not mapped.
    pub(crate) fn held_bytes(&self) -> usize {
        let first = if self.memory() == SlabMemory::Mapped {
            0
        } else {
            self.first.bytes.len()
        };
        first.saturating_add(self.fresh.get().map_or(0, |fresh| fresh.bytes.len()))
    }

    /// How much memory it takes itself, whatever holds its bytes.
    pub(crate) fn own_bytes(&self) -> usize {
        // Two sets of groups, and the counts of the whole.
        let words = (self.layout.group_count() as usize)
            .div_ceil(64)
            .saturating_mul(2);
        let counts = 2 * size_of::<usize>();
        size_of::<Self>()
            .saturating_add(words.saturating_mul(8))
            .saturating_add(counts)
    }

    /// Notes that a reader came, for who decides what to keep.
    pub(crate) fn set_used(&self) {
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
    }

    /// Whether a reader came since this was last asked.
    pub(crate) fn take_used(&self) -> bool {
        self.used.swap(false, Ordering::Relaxed)
    }

    /// The buffer that holds the message at `relative_offset`, counted from the slab's first.
    ///
    /// # Errors
    ///
    /// [`SlabError::Outside`] if the slab has no such offset, [`SlabError::Damaged`] if its index leads nowhere.
    #[inline]
    pub(crate) fn find(&self, relative_offset: u64) -> Result<EntryPlace, SlabError> {
        let place = self.find_unasked(relative_offset)?;
        self.lost(&self.first, self.index())?;
        Ok(place)
    }

    /// The same for who asks afterwards whether the index was lost.
    #[inline]
    fn find_unasked(&self, relative_offset: u64) -> Result<EntryPlace, SlabError> {
        // The index was prepared and checked when the slab was opened.
        match self.layout.entry_of(self.first.bytes.as_slice(), relative_offset) {
            Some(place) => Ok(place),
            None => Err(self.not_found(relative_offset)),
        }
    }

    /// The bytes behind the body: index, histogram and checksums.
    #[inline]
    fn index(&self) -> Range<usize> {
        self.layout.body_end() as usize..self.first.bytes.len()
    }

    #[cold]
    fn not_found(&self, relative_offset: u64) -> SlabError {
        let offset_count = self.layout.offset_count();
        if relative_offset >= offset_count {
            return SlabError::Outside {
                reference: Box::new(self.reference),
                relative_offset,
                offset_count,
            };
        }
        if let Err(lost) = self.lost(&self.first, self.index()) {
            return lost;
        }
        // A good checksum over an index that lies: whoever wrote it wrote it wrong.
        let body_end = self.layout.body_end();
        let error = broken_bounds(body_end, u64::from(body_end), relative_offset);
        let end = self.first.bytes.len();
        SlabError::damaged(&self.reference, None, body_end as usize..end, error)
    }

    /// Fails if the slab does not have all of `offsets`, counted from its first.
    pub(super) fn check_within(&self, offsets: &Range<u64>) -> Result<(), SlabError> {
        let offset_count = self.layout.offset_count();
        if offsets.end <= offset_count {
            return Ok(());
        }
        Err(SlabError::Outside {
            reference: Box::new(self.reference),
            relative_offset: offsets.end,
            offset_count,
        })
    }

    /// Where buffer number `entry` is.
    ///
    /// # Errors
    ///
    /// As of [`find`](Self::find).
    pub(super) fn entry(&self, entry: u32) -> Result<EntryPlace, SlabError> {
        let bytes = self.first.bytes.as_slice();
        let first_offset = self.layout.entry_first_offset(bytes, entry);
        let position = self.layout.entry_position(bytes, entry);
        let place = first_offset
            .zip(position)
            .map(|(first_offset, position)| EntryPlace {
                entry,
                position,
                first_offset,
            });
        self.lost(&self.first, self.index())?;
        place.ok_or_else(|| self.not_found(first_offset.unwrap_or(u64::MAX)))
    }

    /// Where buffer number `entry` begins, or `None` if there are fewer.
    #[cfg(test)]
    pub(crate) fn position_of_entry(&self, entry: u32) -> Option<u32> {
        self.layout.entry_position(self.first.bytes.as_slice(), entry)
    }

    /// The buffer that begins at `position`, checked as the policy says.
    ///
    /// # Errors
    ///
    /// [`SlabError::Damaged`] with the group that does not verify, [`SlabError::Read`] if the bytes cannot be had.
    #[inline]
    pub(crate) fn message_at(
        &self,
        position: u32,
        context: ReadContext<'_>,
    ) -> Result<BufferView<'_>, SlabError> {
        if self.first.is_ready(context.verify) {
            return self.parse_at(self.first.bytes.as_slice(), position);
        }
        self.message_checked(position, context)
    }

    /// The message at `relative_offset`: `find` and `message_at` in one.
    ///
    /// # Errors
    ///
    /// As of [`find`](Self::find) and [`message_at`](Self::message_at).
    #[inline]
    pub(crate) fn message(
        &self,
        relative_offset: u64,
        context: ReadContext<'_>,
    ) -> Result<BufferView<'_>, SlabError> {
        let found = self.find_unasked(relative_offset)?;
        let buffer = self.message_at(found.position, context)?;
        if guard::any_lost() {
            self.ask(buffer)?;
        }
        Ok(buffer)
    }

    /// Has the processor fetch where the search for a message begins. A hint, which touches nothing.
    #[inline]
    pub(crate) fn foresee_index(&self, relative_offset: u64) {
        let at = self.layout.index_place(relative_offset);
        prefetch(self.first.bytes.as_slice().get(at..).unwrap_or_default());
    }

    /// Has a message fetched, by the processor or, where it is not in memory, by the system. A hint, which waits for nothing.
    pub(crate) fn announce(&self, relative_offset: u64) {
        let Ok(found) = self.find_unasked(relative_offset) else {
            return;
        };
        let bytes = self.first.bytes.as_slice();
        let behind = self.layout.entry_position(bytes, found.entry.saturating_add(1));
        let end = behind.unwrap_or(self.layout.body_end()).max(found.position);
        let groups = self.groups_of(found.position..end);
        if self.first.prepared.first_missing(groups.clone()).is_some() {
            self.first.bytes.announce(self.range_of(groups));
            return;
        }
        let message = bytes
            .get(found.position as usize..end as usize)
            .unwrap_or_default();
        for line in message
            .chunks(CACHE_LINE_BYTES)
            .take(FETCHED_BYTES / CACHE_LINE_BYTES)
        {
            prefetch(line);
        }
    }

    /// Fails if the index, which led to it, or the buffer itself was lost under the map.
    #[cold]
    fn ask(&self, buffer: BufferView<'_>) -> Result<(), SlabError> {
        self.lost(&self.first, self.index())?;
        self.check_buffer(buffer)
    }

    /// Fails if the buffer that stands at `position` was lost, in part at least.
    pub(crate) fn check_message_at(&self, position: u32, context: ReadContext<'_>) -> Result<(), SlabError> {
        let buffer = self.message_checked(position, context)?;
        self.check_buffer(buffer)
    }

    /// Fails if bytes of the buffer, which this slab lent, were lost under its map.
    pub(crate) fn check_buffer(&self, buffer: BufferView<'_>) -> Result<(), SlabError> {
        let (held, range) = self.place_of(buffer);
        self.lost(held, range)
    }

    /// Compares the checksums of the groups that the buffer is in, now. Fails if they do not verify, or were lost.
    pub(crate) fn verify_buffer(&self, buffer: BufferView<'_>) -> Result<(), SlabError> {
        let (held, range) = self.place_of(buffer);
        if weakened!("verifies-nothing") {
            return self.lost(held, range);
        }
        self.check(held, self.layout.groups_of(range), Verify::Always)
    }

    /// Where a buffer that this slab lent stands: in which bytes, and where in them.
    fn place_of<'a>(&'a self, buffer: BufferView<'_>) -> (&'a Held, Range<usize>) {
        let value = buffer.value();
        let fresh = self.fresh.get().map(|fresh| &**fresh);
        let held_at = |held: &'a Held| Some((held, held.bytes.position_of(value)?));
        let (held, at) = fresh
            .and_then(held_at)
            .or_else(|| held_at(&self.first))
            .unwrap_or((&self.first, 0));
        let before = (buffer.stored_bytes() as usize).saturating_sub(value.len().next_multiple_of(8));
        (held, at.saturating_sub(before)..at.saturating_add(value.len()))
    }

    /// Where its reference points.
    pub(crate) fn reference(&self) -> &Reference {
        &self.reference
    }

    /// The file that it is mapped from, for messages to people.
    pub(crate) fn path(&self) -> Option<std::path::PathBuf> {
        self.first.bytes.path()
    }

    /// Whether anything was lost in the map that the slab is in.
    #[inline]
    pub(crate) fn has_losses(&self) -> bool {
        self.first.bytes.has_losses()
    }

    /// Fails if any byte of the slab was lost, for who has looked at all of it.
    pub(crate) fn check_whole(&self) -> Result<(), SlabError> {
        self.lost(&self.first, 0..self.first.bytes.len())
    }

    #[inline]
    fn lost(&self, held: &Held, range: Range<usize>) -> Result<(), SlabError> {
        lost(&held.bytes, &self.reference, range)
    }

    /// Goes through the messages at `offsets`, counted from the slab's first.
    ///
    /// # Errors
    ///
    /// [`SlabError::Outside`] if the slab does not have them all.
    pub(crate) fn walk<'a>(
        &'a self,
        offsets: Range<u64>,
        context: ReadContext<'a>,
    ) -> Result<SlabWalk<'a>, SlabError> {
        SlabWalk::new(self, offsets, context)
    }

    /// Brings the messages at `offsets` into memory at once, and checks what is not known to be good of them. A hint: what is
    /// damaged is an error here, and again where it is read.
    ///
    /// # Errors
    ///
    /// As of [`message_at`](Self::message_at).
    pub(crate) fn bring_in(&self, offsets: Range<u64>, context: ReadContext<'_>) -> Result<(), SlabError> {
        if offsets.is_empty() {
            return Ok(());
        }
        let start = self.find(offsets.start)?.position;
        let end = match offsets.end < self.layout.offset_count() {
            true => self.find(offsets.end)?.position,
            false => self.layout.body_end(),
        };
        self.make_ready(self.groups_of(start..end.max(start)), context)
            .map(|_| ())
    }

    /// Checks the groups `groups`, whatever is remembered of them.
    ///
    /// # Errors
    ///
    /// As of [`message_at`](Self::message_at), for the first bad group.
    #[cfg(test)]
    pub(crate) fn verify_groups(&self, groups: Range<u32>, source: &dyn SlabSource) -> Result<(), SlabError> {
        let context = ReadContext {
            source,
            verify: Verify::Always,
        };
        self.make_ready(groups, context).map(|_| ())
    }

    /// The bytes up to the body's end, once the groups of `range` may be read in them.
    #[inline]
    pub(super) fn ready(&self, range: Range<u32>, context: ReadContext<'_>) -> Result<&[u8], SlabError> {
        if self.first.is_ready(context.verify) && !guard::any_lost() {
            return Ok(self.body(&self.first));
        }
        self.make_ready(self.groups_of(range), context)
    }

    /// The bytes to begin a walk in, and what is known of them.
    #[inline]
    pub(super) fn checked_body(&self, verify: Verify) -> CheckedBody<'_> {
        if self.first.is_ready(verify) {
            return CheckedBody {
                bytes: self.body(&self.first),
                is_all_ready: true,
                is_fresh: false,
            };
        }
        let held = self.current();
        CheckedBody {
            bytes: self.body(held),
            is_all_ready: held.is_ready(verify),
            is_fresh: !std::ptr::eq(held, &self.first),
        }
    }

    /// The bytes that it was opened with, of which no more may be read than a [place](super::WalkPlace) says.
    #[inline]
    pub(crate) fn first_bytes(&self) -> &[u8] {
        self.first.bytes.as_slice()
    }

    /// Whether `bytes`, as answered by [`ready`](Self::ready), are of the copy that was read past the map.
    pub(super) fn is_fresh(&self, bytes: &[u8]) -> bool {
        self.fresh
            .get()
            .is_some_and(|fresh| fresh.bytes.as_slice().as_ptr() == bytes.as_ptr())
    }

    fn groups_of(&self, range: Range<u32>) -> Range<u32> {
        self.layout.groups_of(range.start as usize..range.end as usize)
    }

    /// Where the last group ends that `range` touches.
    pub(super) fn end_of_groups(&self, range: Range<u32>) -> u32 {
        let last = self.groups_of(range).end.saturating_sub(1);
        u32::try_from(self.layout.group_range(last).end).unwrap_or(0)
    }

    /// Parses the buffer at `position` of `bytes`, which may be the slab's bytes or those up to its body's end.
    #[inline]
    pub(super) fn parse_at<'a>(&self, bytes: &'a [u8], position: u32) -> Result<BufferView<'a>, SlabError> {
        // An index inside good checksums may still lie, so the body's bounds are checked here.
        let buffer = bytes
            .get(position as usize..self.layout.body_end() as usize)
            .unwrap_or_default();
        BufferView::parse(buffer).map_err(|error| self.bad_buffer(position, error))
    }

    /// Damage of a buffer in groups that verify: whoever wrote it wrote it wrong.
    #[cold]
    pub(super) fn bad_buffer(&self, position: u32, error: FormatError) -> SlabError {
        let at = position as usize;
        let range = at..at.saturating_add(BUFFER_HEADER_BYTES as usize);
        match self.lost(self.current(), range.clone()) {
            Err(lost) => lost,
            Ok(()) => SlabError::damaged(&self.reference, None, range, error),
        }
    }

    fn current(&self) -> &Held {
        self.fresh.get().map_or(&self.first, |fresh| fresh)
    }

    #[inline]
    fn body<'a>(&self, held: &'a Held) -> &'a [u8] {
        held.bytes
            .as_slice()
            .get(..self.layout.body_end() as usize)
            .unwrap_or_default()
    }

    #[inline(never)]
    fn message_checked(&self, position: u32, context: ReadContext<'_>) -> Result<BufferView<'_>, SlabError> {
        let head_end = position.saturating_add(BUFFER_HEADER_BYTES);
        let head_groups = self.groups_of(position..head_end);
        let bytes = self.make_ready(head_groups.clone(), context)?;
        // Only the header is good so far; it says which groups the rest is in.
        let end = position.saturating_add(self.parse_at(bytes, position)?.stored_bytes());
        let groups = self.groups_of(position..end);
        let rest = self.make_ready(head_groups.end.min(groups.end)..groups.end, context)?;
        if rest.as_ptr() == bytes.as_ptr() {
            return self.parse_at(rest, position);
        }
        // The rest is in a copy read past the map, of which the header's group is not known to be good.
        let bytes = self.make_ready(groups, context)?;
        self.parse_at(bytes, position)
    }

    /// Prepares and checks what of `groups` is not known to be good.
    fn make_ready(&self, groups: Range<u32>, context: ReadContext<'_>) -> Result<&[u8], SlabError> {
        let held = self.current();
        if let Some(missing) = held.first_unready(groups.clone(), context.verify)
            && let Err(stale) = self.check(held, missing..groups.end, context.verify)
        {
            return self.check_fresh(groups, context.source, stale);
        }
        if guard::any_lost() {
            self.lost(held, self.range_of(groups))?;
        }
        Ok(self.body(held))
    }

    fn range_of(&self, groups: Range<u32>) -> Range<usize> {
        if groups.is_empty() {
            return 0..0;
        }
        let last = groups.end.saturating_sub(1);
        self.layout.group_range(groups.start).start..self.layout.group_range(last).end
    }

    fn check(&self, held: &Held, groups: Range<u32>, verify: Verify) -> Result<(), SlabError> {
        held.prepare(&self.layout, groups.clone())
            .map_err(|(range, error)| SlabError::read(&self.reference, range, error))?;
        if verify == Verify::Never {
            return Ok(());
        }
        let bytes = held.bytes.as_slice();
        for group in groups {
            if verify == Verify::Once
                && held
                    .verified
                    .first_missing(group..group.saturating_add(1))
                    .is_none()
            {
                continue;
            }
            let verified = self.layout.verify_group(bytes, group);
            let range = self.layout.group_range(group);
            // Asked before the checksum's answer is believed: zeros that we laid are no damage of the file.
            self.lost(held, range.clone())?;
            if verified.is_err() {
                self.lost(held, self.index())?;
            }
            verified.map_err(|error| SlabError::damaged(&self.reference, Some(group), range, error))?;
            held.verified.insert(group);
        }
        Ok(())
    }

    /// Answers for `groups` from a copy read past the map, after the window failed with `stale`.
    #[cold]
    fn check_fresh(
        &self,
        groups: Range<u32>,
        source: &dyn SlabSource,
        stale: SlabError,
    ) -> Result<&[u8], SlabError> {
        let is_doubtful = matches!(stale, SlabError::Damaged(_)) && self.memory() == SlabMemory::Mapped;
        if !is_doubtful || self.fresh.get().is_some() {
            return Err(stale);
        }
        let bytes = source.reread(&self.reference)?;
        // The header too must still be that of this slab: the place may have been given to another meanwhile.
        parse(&bytes, &self.reference, source.store_id())?;
        let fresh = Held::new(bytes, &self.layout);
        self.check(&fresh, groups.clone(), Verify::Once)?;
        let fresh = self.fresh.get_or_init(|| Box::new(fresh));
        // Another thread's copy may have come first, and it may have read other groups only.
        self.check(fresh, groups, Verify::Once)?;
        Ok(self.body(fresh))
    }
}

/// A rule about bounds that a slab breaks under good checksums.
#[cold]
pub(super) fn broken_bounds(at: u32, expected: u64, found: u64) -> FormatError {
    FormatError {
        structure: Structure::Slab,
        rule: Rule::Bounds,
        at: u64::from(at),
        expected,
        found,
    }
}

impl OpenSlab {
    /// How large its messages are.
    ///
    /// # Errors
    ///
    /// [`SlabError::Read`] if they were lost under the map.
    pub(crate) fn histogram(&self) -> Result<lanterman_format::Histogram32, SlabError> {
        let held = self.current();
        let histogram = self.layout.histogram(held.bytes.as_slice());
        self.lost(held, self.index())?;
        Ok(histogram)
    }

    /// Its keys, as a sketch; the empty one, with bytes of keys in its summary, if it says nothing of them.
    ///
    /// # Errors
    ///
    /// [`SlabError::Read`] if they were lost under the map. A sketch that breaks a rule is none: no message is in doubt
    /// because of it.
    pub(crate) fn keys(&self) -> Result<lanterman_format::KeySketch, SlabError> {
        let held = self.current();
        let keys = self.layout.keys(held.bytes.as_slice()).unwrap_or_default();
        self.lost(held, self.index())?;
        Ok(keys)
    }

    /// The stored bytes of the buffer at `position`, header included, checked as the policy says.
    ///
    /// # Errors
    ///
    /// As of [`message_at`](Self::message_at).
    pub(crate) fn stored_at(
        &self,
        position: u32,
        bytes: u32,
        context: ReadContext<'_>,
    ) -> Result<&[u8], SlabError> {
        let end = position.saturating_add(bytes);
        let body = self.ready(position..end, context)?;
        Ok(body.get(position as usize..end as usize).unwrap_or_default())
    }
}
