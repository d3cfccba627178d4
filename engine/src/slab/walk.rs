//! Going through a slab message by message, without its index.
//!
//! The cost of a step is one header load and two compares: everything a step needs is in the walk itself, and
//! groups are checked some at a time, ahead of the place, so that the walk finds them in the cache.

use std::ops::Range;

use lanterman_format::BufferView;

use super::open::{CACHE_LINE_BYTES, broken_bounds};
use super::{OpenSlab, ReadContext, SlabError};
use crate::sys::prefetch::prefetch;

/// How many bytes are checked ahead at a time: large enough that the checksum runs at full speed and the kernel is
/// asked rarely, small enough to be still in the second cache level when the walk comes.
const AHEAD_BYTES: u32 = 64 << 10;

/// How many messages ahead of the walk the processor is asked to fetch.
const PREFETCH_MESSAGES: usize = 6;

/// How many lines of each, at most: with eight, who reads all of 1 KiB is a third faster than with one, and who looks at its first bytes
/// alone is as fast as a bare walk (decision 20).
const PREFETCH_LINES: usize = 8;

/// A place in a slab where a walk can be taken up again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WalkPlace {
    position: u32,
    ready_until: u32,
    relative_offset: u64,
    relative_end: u64,
    /// Whether `ready_until` speaks of the copy that was read past the map.
    is_fresh: bool,
}

impl WalkPlace {
    /// Whether nothing of the offsets asked for is left.
    pub(super) fn is_at_end(&self) -> bool {
        self.relative_offset >= self.relative_end
    }

    /// Where in the slab the next buffer begins.
    pub(crate) fn position(&self) -> u32 {
        self.position
    }

    /// Whether the bytes up to which groups are checked are those that the slab was opened with.
    #[inline]
    pub(crate) fn is_in_first(&self) -> bool {
        !self.is_fresh
    }

    /// The next buffer if all of it is in groups that were checked, in `bytes` that the place speaks of. Not to be asked at
    /// the end.
    #[inline]
    pub(crate) fn step<'a>(&mut self, bytes: &'a [u8]) -> Option<Walked<'a>> {
        let checked = bytes.get(self.position as usize..self.ready_until as usize)?;
        let buffer = BufferView::parse(checked).ok()?;
        let stored_bytes = buffer.stored_bytes();
        if stored_bytes as usize > checked.len() {
            return None;
        }
        // Mostly the next messages are as long as this one. The walk itself is a chain, each header says where the next one
        // is, which keeps the processor from running ahead by itself.
        let later = (stored_bytes as usize).saturating_mul(PREFETCH_MESSAGES);
        if let Some(later) = checked.get(later..) {
            let lines = (stored_bytes as usize / CACHE_LINE_BYTES).clamp(1, PREFETCH_LINES);
            later.chunks(CACHE_LINE_BYTES).take(lines).for_each(prefetch);
        }
        let walked = Walked {
            relative_offset: self.relative_offset,
            position: self.position,
            buffer,
        };
        self.position = self.position.saturating_add(stored_bytes);
        self.relative_offset = self.relative_offset.saturating_add(buffer.count());
        Some(walked)
    }
}

/// A walk through some offsets of a slab. After an error it is at its end.
#[derive(Debug)]
pub(crate) struct SlabWalk<'a> {
    slab: &'a OpenSlab,
    context: ReadContext<'a>,
    /// The slab's bytes up to its body's end.
    bytes: &'a [u8],
    place: WalkPlace,
}

/// A buffer met on a walk.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Walked<'a> {
    /// The offset of its first message, counted from the slab's first. It may lie before the walk's start, and the
    /// buffer may reach beyond the walk's end, if it stands for several messages.
    pub(crate) relative_offset: u64,
    /// Where it begins in the slab.
    pub(crate) position: u32,
    /// The buffer.
    pub(crate) buffer: BufferView<'a>,
}

impl<'a> SlabWalk<'a> {
    pub(super) fn new(
        slab: &'a OpenSlab,
        offsets: Range<u64>,
        context: ReadContext<'a>,
    ) -> Result<Self, SlabError> {
        slab.check_within(&offsets)?;
        let mut place = WalkPlace {
            position: 0,
            ready_until: 0,
            relative_offset: offsets.end,
            relative_end: offsets.end,
            is_fresh: false,
        };
        if offsets.start < offsets.end {
            let found = slab.find(offsets.start)?;
            place.position = found.position;
            place.relative_offset = found.first_offset;
        }
        Ok(Self::resume(slab, place, context))
    }

    /// Takes up a walk where [`place`](Self::place) left it. It must be the same open slab: another one, though of
    /// the same reference, has other bytes, which nobody has checked.
    #[inline]
    pub(crate) fn resume(slab: &'a OpenSlab, mut place: WalkPlace, context: ReadContext<'a>) -> Self {
        let body = slab.checked_body(context.verify);
        if body.is_all_ready {
            place.ready_until = slab.layout().body_end();
        } else if body.is_fresh != place.is_fresh {
            place.ready_until = 0;
        }
        place.is_fresh = body.is_fresh;
        Self {
            slab,
            context,
            bytes: body.bytes,
            place,
        }
    }

    /// Where the walk is.
    #[inline]
    pub(crate) fn place(&self) -> WalkPlace {
        self.place
    }

    /// The next buffer; `None` at the end of the offsets asked for.
    ///
    /// # Errors
    ///
    /// As of [`OpenSlab::message_at`]. The walk ends there.
    #[inline]
    pub(crate) fn step(&mut self) -> Result<Option<Walked<'a>>, SlabError> {
        if self.place.is_at_end() {
            return Ok(None);
        }
        match self.place.step(self.bytes) {
            Some(walked) => Ok(Some(walked)),
            None => self.step_checked(),
        }
    }

    /// A step into groups that were not checked yet, or into a buffer that breaks a rule.
    #[inline(never)]
    fn step_checked(&mut self) -> Result<Option<Walked<'a>>, SlabError> {
        let stepped = self.try_step_checked();
        if stepped.is_err() {
            self.place.relative_offset = self.place.relative_end;
        }
        stepped
    }

    fn try_step_checked(&mut self) -> Result<Option<Walked<'a>>, SlabError> {
        let WalkPlace {
            position,
            relative_offset,
            ..
        } = self.place;
        let body_end = self.slab.layout().body_end();
        if position >= body_end {
            // The offsets are promised by the header and the body has no more: both are under good checksums.
            let error = broken_bounds(position, u64::from(body_end), u64::from(position));
            return Err(self.slab.bad_buffer(position, error));
        }
        self.make_ready(position.saturating_add(1))?;
        let mut buffer = self.slab.parse_at(self.bytes, position)?;
        let end = position.saturating_add(buffer.stored_bytes());
        if end > self.place.ready_until {
            self.make_ready(end)?;
            buffer = self.slab.parse_at(self.bytes, position)?;
        }
        self.place.position = end;
        self.place.relative_offset = relative_offset.saturating_add(buffer.count());
        Ok(Some(Walked {
            relative_offset,
            position,
            buffer,
        }))
    }

    /// Checks groups until at least `until` may be read.
    fn make_ready(&mut self, until: u32) -> Result<(), SlabError> {
        let from = self.place.ready_until.max(self.place.position);
        if until <= from {
            return Ok(());
        }
        let body_end = self.slab.layout().body_end();
        let ahead = until.max(from.saturating_add(AHEAD_BYTES)).min(body_end);
        // If a group far ahead is bad, all before it are still to be read: then only what is needed is asked for.
        let groups = match self.slab.ready(from..ahead, self.context) {
            Ok(bytes) => Ok((bytes, ahead)),
            Err(_) if ahead > until => self
                .slab
                .ready(from..until, self.context)
                .map(|bytes| (bytes, until)),
            Err(error) => Err(error),
        };
        let (mut bytes, ready) = groups?;
        if bytes.as_ptr() != self.bytes.as_ptr() && self.place.position < from {
            // A copy read past the map took its place in the middle of a buffer, whose beginning was not checked there.
            bytes = self.slab.ready(self.place.position..ready, self.context)?;
        }
        self.bytes = bytes;
        self.place.is_fresh = self.slab.is_fresh(bytes);
        self.place.ready_until = self.slab.end_of_groups(from..ready);
        Ok(())
    }
}

impl<'a> Iterator for SlabWalk<'a> {
    type Item = Result<Walked<'a>, SlabError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.step().transpose()
    }
}
