//! The memory of a log's newest messages, laid out as the slab that it becomes.
//!
//! `[0..256)` is kept for the slab's head, buffers follow, the trailer goes behind them when the chunk is sealed. The
//! places of the buffers are kept beside, one number a buffer.
//!
//! Invariants:
//! - one [`ChunkWriter`] writes a chunk, and only behind the published end; publishing is one release store of both the
//!   number of buffers and the end of the body;
//! - readers load it with acquire and touch nothing behind it, so every byte that is lent is frozen;
//! - head and trailer are written by [`Chunk::seal`] alone, after the writer is gone, and never while an image of the
//!   whole chunk is held by somebody else.
#![allow(
    unsafe_code,
    reason = "lends frozen parts of memory of which other parts are still written"
)]

use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;

use lanterman_format::block::BlockIdentity;
use lanterman_format::buffer::{self, BufferFields, BufferView, ValueType};
use lanterman_format::ids::{LogId, Offset};
use lanterman_format::reference::Reference;
use lanterman_format::slab::{self, GROUP_BYTES, SLAB_BODY_POSITION, SlabDescription};
use lanterman_format::summary::{HISTOGRAM_BUCKETS, Histogram32, Summary};
use lanterman_format::weakened;

use crate::atomics::{AtomicBool, AtomicU32, AtomicU64, Mutex, Ordering, order};
use crate::error::{Error, Result};
use crate::sys::SharedBytes;
use crate::tail::pool::Lease;

/// Where the body begins.
const BODY: u32 = 256;
const _: () = assert!(BODY as usize == SLAB_BODY_POSITION);
/// A position in the index.
const POSITION_BYTES: u64 = 4;
/// The histogram behind the index.
const HISTOGRAM_BYTES: u64 = HISTOGRAM_BUCKETS as u64 * 4;
/// Smallest stored buffer.
const HEADER_BYTES: usize = 8;

/// The chunk has no room for that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full;

/// How far a chunk is readable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Published {
    pub(crate) entries: u32,
    pub(crate) body_end: u32,
}

/// What sealing made.
#[derive(Debug, Clone)]
pub(crate) struct ChunkSealed {
    pub(crate) reference: Reference,
    /// Bytes to write: the slab, zeros up to a whole page.
    pub(crate) stored_bytes: u64,
    pub(crate) summary: Summary,
    pub(crate) histogram: Histogram32,
}

#[derive(Debug)]
#[repr(align(128))]
struct Line(AtomicU64);

/// A run of buffers of one log in memory.
#[derive(Debug)]
pub(crate) struct Chunk {
    /// First what readers look at.
    published: Line,
    memory: NonNull<u8>,
    capacity: u32,
    first_offset: u64,
    positions: Box<[AtomicU32]>,
    closed: AtomicBool,
    /// When the first message came, in milliseconds since 1970; bounds the times of messages that have none.
    opened_ms: i64,
    /// Held while head and trailer are written; counts the images that are out.
    images: Mutex<u32>,
    lease: Lease,
}

// SAFETY: the memory belongs to the lease, which lives as long as the chunk; who may touch which byte when is the
// invariants above, and none of them speaks of a thread.
unsafe impl Send for Chunk {}
// SAFETY: as above; shared access reads published, frozen bytes alone, or goes through `images`.
unsafe impl Sync for Chunk {}

impl Chunk {
    fn new(mut lease: Lease, first_offset: u64, opened_ms: i64) -> Self {
        Chunk {
            published: Line(AtomicU64::new(u64::from(BODY))),
            memory: lease.memory(),
            capacity: lease.capacity(),
            first_offset,
            positions: lease.take_positions(),
            closed: AtomicBool::new(false),
            opened_ms,
            images: Mutex::new(0),
            lease,
        }
    }

    /// How far it is readable now.
    #[inline]
    pub(crate) fn published(&self) -> Published {
        let acquire = order(Ordering::Acquire, weakened!("published-read-relaxed"));
        let word = self.published.0.load(acquire);
        unpack(word)
    }

    pub(crate) fn first_offset(&self) -> u64 {
        self.first_offset
    }

    /// Offset behind its newest published message.
    #[inline]
    pub(crate) fn end_offset(&self) -> u64 {
        self.first_offset
            .saturating_add(u64::from(self.published().entries))
    }

    /// When the first message came, in milliseconds since 1970.
    pub(crate) fn opened_ms(&self) -> i64 {
        self.opened_ms
    }

    pub(crate) fn capacity(&self) -> u64 {
        u64::from(self.capacity)
    }

    /// Whether nothing more will be appended.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Published bytes of the chunk; `None` if the range is not all published body.
    #[inline]
    fn bytes(&self, range: Range<u32>) -> Option<&[u8]> {
        let published = self.published();
        if range.start < BODY || range.start > range.end || range.end > published.body_end {
            return None;
        }
        // SAFETY: the check above keeps the sum below the published end, which the writer keeps within the capacity of
        // the memory.
        let start = unsafe { self.memory.add(range.start as usize) };
        let length = (range.end - range.start) as usize;
        // SAFETY: the bytes lie in the memory (above), were written before the release store that `published` acquired,
        // and nobody writes below the published end; the chunk keeps the memory for as long as it is borrowed.
        Some(unsafe { std::slice::from_raw_parts(start.as_ptr(), length) })
    }

    /// Where published buffer number `entry` begins.
    #[inline]
    pub(crate) fn position(&self, entry: u64) -> Option<u32> {
        let published = self.published();
        let index = usize::try_from(entry).ok()?;
        if entry >= u64::from(published.entries) {
            return None;
        }
        self.positions
            .get(index)
            .map(|position| position.load(Ordering::Relaxed))
    }

    /// The bytes of `count` published buffers from number `from` on.
    pub(crate) fn entries_bytes(&self, from: u64, count: u64) -> Result<&[u8]> {
        let missing = Error::Internal {
            what: "messages that are asked of a chunk are published there",
        };
        let end = from.saturating_add(count);
        let published = self.published();
        let start = if from == u64::from(published.entries) {
            Some(published.body_end)
        } else {
            self.position(from)
        };
        let stop = if end == u64::from(published.entries) {
            Some(published.body_end)
        } else {
            self.position(end)
        };
        match (start, stop) {
            (Some(start), Some(stop)) => self.bytes(start..stop).ok_or(missing),
            _ => Err(missing),
        }
    }

    /// Bytes of the messages at and behind `offset`.
    pub(crate) fn bytes_from(&self, offset: u64) -> u64 {
        let published = self.published();
        let from = offset.saturating_sub(self.first_offset);
        let start = self.position(from).unwrap_or(published.body_end);
        u64::from(published.body_end.saturating_sub(start))
    }

    /// The published buffer that begins at `position`.
    #[inline]
    pub(crate) fn buffer_at(&self, position: u32) -> Result<BufferView<'_>> {
        let rest = self
            .bytes(position..self.published().body_end)
            .unwrap_or_default();
        BufferView::parse(rest).map_err(|_| Error::Internal {
            what: "a published buffer parses",
        })
    }

    /// Upper bound of the bytes that the sealed chunk takes on disk.
    pub(crate) fn sealed_bytes_max(&self) -> u64 {
        let published = self.published();
        sealed_max(published.body_end, published.entries).next_multiple_of(4096)
    }

    /// Fills head and trailer for the place `identity`; may be done again for another place, once no image is out.
    pub(crate) fn seal(&self, log: LogId, time_ms: i64, identity: &BlockIdentity) -> Result<ChunkSealed> {
        let images = self.images.lock();
        if !self.is_closed() || (*images > 0 && !weakened!("sealed-under-its-image")) {
            return Err(Error::Internal {
                what: "a chunk is sealed after its writer and without an image",
            });
        }
        let published = self.published();
        let body = self.bytes(BODY..published.body_end).unwrap_or_default();
        let positions: Vec<u32> = self.positions_of(0..u64::from(published.entries));
        let (summary, histogram) = summarise(body, &positions, self.opened_ms, time_ms)?;
        let description = SlabDescription {
            log,
            first_offset: Offset::new(self.first_offset),
            offset_count: u64::from(published.entries),
            summary,
            histogram,
        };
        let end = published.body_end as usize;
        let trailer_length = (self.capacity as usize).saturating_sub(end);
        // SAFETY: the head is the first bytes of the memory, which is larger; `images` is locked and none is out, the
        // writer is gone, and readers stay between head and published end: nobody else touches these bytes.
        let head = unsafe { std::slice::from_raw_parts_mut(self.memory.as_ptr(), SLAB_BODY_POSITION) };
        // SAFETY: the published end is within the memory.
        let behind = unsafe { self.memory.add(end) };
        // SAFETY: from the published end to the capacity is memory of ours that only sealing touches, once the writer is
        // gone; `images` is locked.
        let trailer = unsafe { std::slice::from_raw_parts_mut(behind.as_ptr(), trailer_length) };
        let sealed =
            slab::seal(head, body, trailer, &positions, None, &description, identity).map_err(|_| {
                Error::Internal {
                    what: "a chunk has room for its trailer",
                }
            })?;
        let stored = u64::from(sealed.block_bytes).next_multiple_of(4096);
        let written = usize::try_from(sealed.block_bytes)
            .unwrap_or(usize::MAX)
            .saturating_sub(end);
        let padding = usize::try_from(stored).unwrap_or(usize::MAX).saturating_sub(end);
        if let Some(padding) = trailer.get_mut(written..padding) {
            padding.fill(0);
        }
        drop(images);
        let reference = Reference::local(lanterman_format::block::BlockKind::Slab, identity, &sealed);
        Ok(ChunkSealed {
            reference,
            stored_bytes: stored,
            summary,
            histogram,
        })
    }

    /// The sealed chunk as bytes that do not change while they are held; no bytes while it still has its writer.
    pub(crate) fn image(self: &Arc<Self>, sealed: &ChunkSealed) -> SharedBytes {
        let mut images = self.images.lock();
        *images = images.saturating_add(1);
        let wanted = if self.is_closed() { sealed.stored_bytes } else { 0 };
        let length = usize::try_from(wanted).unwrap_or(0).min(self.capacity as usize);
        Arc::new(Image {
            chunk: Arc::clone(self),
            length,
        })
    }

    /// Upper bound of the bytes of a slab made of `count` messages from number `from` on.
    pub(crate) fn copy_sealed_bytes_max(&self, from: u64, count: u64) -> Result<usize> {
        let body = self.entries_bytes(from, count)?.len();
        let end = u32::try_from(body.saturating_add(SLAB_BODY_POSITION)).unwrap_or(u32::MAX);
        let entries = u32::try_from(count).unwrap_or(u32::MAX);
        usize::try_from(sealed_max(end, entries)).map_err(|_| Error::Internal {
            what: "a slab fits in memory",
        })
    }

    /// Makes a slab of some published messages in other memory, while the writer goes on.
    pub(crate) fn seal_copy(
        &self,
        from: u64,
        count: u64,
        log: LogId,
        time_ms: i64,
        identity: &BlockIdentity,
        out: &mut [u8],
    ) -> Result<ChunkSealed> {
        let room = Error::Internal {
            what: "a copied slab has its room",
        };
        let body = self.entries_bytes(from, count)?;
        let start = self.position(from).unwrap_or(BODY);
        let rebased = |position: u32| position.saturating_sub(start).saturating_add(BODY);
        let positions: Vec<u32> = self
            .positions_of(from..from.saturating_add(count))
            .into_iter()
            .map(rebased)
            .collect();
        let (summary, histogram) = summarise(body, &positions, self.opened_ms, time_ms)?;
        let description = SlabDescription {
            log,
            first_offset: Offset::new(self.first_offset.saturating_add(from)),
            offset_count: count,
            summary,
            histogram,
        };
        let Some((head, rest)) = out.split_at_mut_checked(SLAB_BODY_POSITION) else {
            return Err(room);
        };
        let Some((copy, trailer)) = rest.split_at_mut_checked(body.len()) else {
            return Err(room);
        };
        copy.copy_from_slice(body);
        let sealed =
            slab::seal(head, copy, trailer, &positions, None, &description, identity).map_err(|_| {
                Error::Internal {
                    what: "a copied slab has its room",
                }
            })?;
        let reference = Reference::local(lanterman_format::block::BlockKind::Slab, identity, &sealed);
        let stored_bytes = u64::from(sealed.block_bytes);
        Ok(ChunkSealed {
            reference,
            stored_bytes,
            summary,
            histogram,
        })
    }

    fn positions_of(&self, entries: Range<u64>) -> Vec<u32> {
        entries.filter_map(|entry| self.position(entry)).collect()
    }

    /// Counts its memory no longer against the writers: it is on disk, and kept for readers alone.
    pub(crate) fn retire(&self) {
        self.lease.retire();
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        self.lease.give_back(std::mem::take(&mut self.positions));
    }
}

/// Bytes that a slab of single messages takes at most: body, index, histogram and checksum table, each rounded up.
fn sealed_max(body_end: u32, entries: u32) -> u64 {
    let groups = u64::from(body_end).div_ceil(GROUP_BYTES as u64);
    u64::from(body_end)
        .next_multiple_of(8)
        .saturating_add(
            u64::from(entries)
                .saturating_mul(POSITION_BYTES)
                .next_multiple_of(8),
        )
        .saturating_add(HISTOGRAM_BYTES)
        .saturating_add(groups.saturating_mul(4).next_multiple_of(8))
}

fn unpack(word: u64) -> Published {
    let entries = u32::try_from(word >> 32).unwrap_or(u32::MAX);
    let body_end = u32::try_from(word & u64::from(u32::MAX)).unwrap_or(u32::MAX);
    Published { entries, body_end }
}

/// Summary and histogram of a body whose buffers begin at `positions`. The positions, and runs of equal lengths, make
/// the turns independent of each other: sealing is most of what the helper thread does.
fn summarise(
    body: &[u8],
    positions: &[u32],
    opened_ms: i64,
    sealed_ms: i64,
) -> Result<(Summary, Histogram32)> {
    let mut summary = Summary::default();
    let mut histogram = Histogram32::default();
    let (mut length, mut run) = (0u32, 0u32);
    for position in positions {
        let at = position.saturating_sub(BODY) as usize;
        let message = BufferView::parse(body.get(at..).unwrap_or_default()).map_err(|_| Error::Internal {
            what: "a chunk holds whole buffers",
        })?;
        let value_bytes = u32::try_from(message.value().len()).unwrap_or(u32::MAX);
        if message.is_plain() {
            summary.messages = summary.messages.saturating_add(1);
            summary.value_bytes = summary.value_bytes.saturating_add(u64::from(value_bytes));
        } else {
            summary.add_buffer(&message);
        }
        if value_bytes != length {
            histogram.add_run(length, run);
            (length, run) = (value_bytes, 0);
        }
        run = run.saturating_add(1);
    }
    histogram.add_run(length, run);
    // Messages without a time of their own were appended between the two.
    summary.time_min_ms = summary.time_min_ms.min(opened_ms.min(sealed_ms));
    summary.time_max_ms = summary.time_max_ms.max(sealed_ms);
    Ok((summary, histogram))
}

/// A sealed chunk, lent whole.
struct Image {
    chunk: Arc<Chunk>,
    length: usize,
}

impl AsRef<[u8]> for Image {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the length was bounded by the capacity of the memory when the image was made, and is zero unless the
        // writer was gone by then; so only sealing could still write, and it refuses while this image is counted, under
        // the lock that counted it. Memory of the pool is never uninitialised: the kernel hands it out as zeros.
        unsafe { std::slice::from_raw_parts(self.chunk.memory.as_ptr(), self.length) }
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let mut images = self.chunk.images.lock();
        *images = images.saturating_sub(1);
    }
}

/// A part of a chunk that is counted, for `bytes::Bytes`.
#[derive(Debug)]
pub(crate) struct ChunkBytes {
    chunk: Arc<Chunk>,
    range: Range<u32>,
}

impl ChunkBytes {
    /// `part` must be bytes that the chunk lent; nothing if it is not.
    pub(crate) fn of(chunk: &Arc<Chunk>, part: &[u8]) -> Option<Self> {
        let start = part.as_ptr().addr().checked_sub(chunk.memory.as_ptr().addr())?;
        let end = start.checked_add(part.len())?;
        let range = u32::try_from(start).ok()?..u32::try_from(end).ok()?;
        chunk.bytes(range.clone())?;
        Some(ChunkBytes {
            chunk: Arc::clone(chunk),
            range,
        })
    }
}

impl AsRef<[u8]> for ChunkBytes {
    fn as_ref(&self) -> &[u8] {
        self.chunk.bytes(self.range.clone()).unwrap_or_default()
    }
}

/// The one who appends to a chunk.
#[derive(Debug)]
pub(crate) struct ChunkWriter {
    chunk: Arc<Chunk>,
    /// End of what is written, published or staged.
    position: u32,
    entries: u32,
    /// What body and index together may take, so that the trailer fits behind.
    limit: u64,
}

impl ChunkWriter {
    pub(crate) fn new(lease: Lease, first_offset: u64, opened_ms: i64) -> Self {
        let chunk = Chunk::new(lease, first_offset, opened_ms);
        // All that sealing puts behind a full body but the index, and what rounding the index may add.
        let fixed = sealed_max(chunk.capacity, 0)
            .saturating_sub(chunk.capacity())
            .saturating_add(8);
        let limit = chunk.capacity().saturating_sub(fixed);
        ChunkWriter {
            chunk: Arc::new(chunk),
            position: BODY,
            entries: 0,
            limit,
        }
    }

    pub(crate) fn chunk(&self) -> &Arc<Chunk> {
        &self.chunk
    }

    pub(crate) fn capacity(&self) -> u64 {
        self.chunk.capacity()
    }

    pub(crate) fn first_offset(&self) -> u64 {
        self.chunk.first_offset
    }

    /// Offset of the next message, staged ones counted.
    pub(crate) fn next_offset(&self) -> u64 {
        self.chunk.first_offset.saturating_add(u64::from(self.entries))
    }

    pub(crate) fn entry_count(&self) -> u64 {
        u64::from(self.entries)
    }

    /// Bytes of all its buffers.
    pub(crate) fn body_bytes(&self) -> u64 {
        u64::from(self.position.saturating_sub(BODY))
    }

    pub(crate) fn bytes_from(&self, offset: u64) -> u64 {
        self.chunk.bytes_from(offset)
    }

    /// Whether buffers of `bytes` in all, in `entries` entries, fit.
    #[inline]
    pub(crate) fn has_room(&self, bytes: u64, entries: u64) -> bool {
        let count = u64::from(self.entries).saturating_add(entries);
        let body = u64::from(self.position).saturating_add(bytes);
        count <= self.chunk.positions.len() as u64
            && body.saturating_add(count.saturating_mul(POSITION_BYTES)) <= self.limit
    }

    /// Appends a value without key, time or headers, and publishes it; gives its offset.
    #[inline]
    pub(crate) fn append_plain(&mut self, value: &[u8], value_type: ValueType) -> Result<u64, Full> {
        let stored = HEADER_BYTES + value.len().next_multiple_of(8);
        if !self.has_room(stored as u64, 1) {
            return Err(Full);
        }
        // Both casts keep their value: room was found, and the limit is below 4 GiB.
        let length = u32::try_from(value.len()).map_err(|_| Full)?;
        let word = buffer::plain_header_word(length, value_type);
        // SAFETY: `has_room` keeps position + stored within the limit, which is within the memory.
        let at = unsafe { self.chunk.memory.add(self.position as usize) };
        if stored > HEADER_BYTES {
            // SAFETY: the last word of the buffer, inside the room found above.
            let last = unsafe { at.add(stored - HEADER_BYTES) };
            // SAFETY: inside the room, aligned since positions are multiples of 8 from an aligned start; behind the
            // published end, where nobody but this writer is. Zeroed first: the value covers all but the padding.
            unsafe { last.cast::<u64>().write(0) };
            // SAFETY: inside the room found above.
            let body = unsafe { at.add(HEADER_BYTES) };
            // SAFETY: the value's bytes fit in the room, the target is behind the published end and so not borrowed by
            // anybody, least of all by `value`.
            unsafe { body.copy_from_nonoverlapping(NonNull::from(value).cast(), value.len()) };
        }
        // SAFETY: inside the room, aligned, behind the published end.
        unsafe { at.cast::<u64>().write(word.to_le()) };
        Ok(self.published_one(buffer::plain_stored_bytes(length)))
    }

    /// Notes one more buffer of `stored` bytes and publishes everything; gives its offset.
    #[inline]
    fn published_one(&mut self, stored: u32) -> u64 {
        let offset = self.next_offset();
        if weakened!("published-before-noted") {
            let (entries, position) = (self.entries + 1, self.position + stored);
            let word = (u64::from(entries) << 32) | u64::from(position);
            self.chunk.published.0.store(word, Ordering::Release);
        }
        self.note(stored);
        self.publish();
        offset
    }

    #[inline]
    fn note(&mut self, stored: u32) {
        if let Some(position) = self.chunk.positions.get(self.entries as usize) {
            position.store(self.position, Ordering::Relaxed);
        }
        self.entries += 1;
        self.position += stored;
    }

    #[inline]
    fn publish(&self) {
        let word = (u64::from(self.entries) << 32) | u64::from(self.position);
        let release = order(Ordering::Release, weakened!("published-relaxed"));
        self.chunk.published.0.store(word, release);
    }

    /// The `length` bytes behind what is written, which nobody else can reach; `None` without room.
    fn spare(&mut self, length: usize, entries: u64) -> Option<&mut [u8]> {
        if !self.has_room(length as u64, entries) {
            return None;
        }
        // SAFETY: `has_room` keeps the range within the memory.
        let at = unsafe { self.chunk.memory.add(self.position as usize) };
        // SAFETY: the range is within the memory and behind the published end; this writer, borrowed mutably, is the
        // only one who touches it.
        Some(unsafe { std::slice::from_raw_parts_mut(at.as_ptr(), length) })
    }

    /// Appends a message with whatever it has, and publishes it.
    pub(crate) fn append_fields(&mut self, fields: &BufferFields<'_>) -> Result<u64, Full> {
        // A chunk finds its buffers by number, which only counts messages when each buffer is one.
        if fields.count != 1 {
            return Err(Full);
        }
        let stored = fields.encoded_bytes().map_err(|_| Full)?;
        let room = self.spare(stored as usize, 1).ok_or(Full)?;
        fields.encode(room).map_err(|_| Full)?;
        Ok(self.published_one(stored))
    }

    /// Room for the value of a plain message; filled again at each call, published by [`Self::publish_reserved`].
    pub(crate) fn reserved(&mut self, value_bytes: usize) -> Option<&mut [u8]> {
        let stored = HEADER_BYTES.checked_add(value_bytes.checked_next_multiple_of(8)?)?;
        let end = HEADER_BYTES.checked_add(value_bytes)?;
        self.spare(stored, 1)?.get_mut(HEADER_BYTES..end)
    }

    /// Publishes what was filled in place.
    pub(crate) fn publish_reserved(
        &mut self,
        value_bytes: usize,
        value_type: ValueType,
    ) -> Result<u64, Full> {
        let stored = HEADER_BYTES.saturating_add(value_bytes.next_multiple_of(8));
        let length = u32::try_from(value_bytes).map_err(|_| Full)?;
        let room = self.spare(stored, 1).ok_or(Full)?;
        let end = HEADER_BYTES.saturating_add(value_bytes);
        room.get_mut(end..).ok_or(Full)?.fill(0);
        let word = buffer::plain_header_word(length, value_type).to_le_bytes();
        room.get_mut(..HEADER_BYTES).ok_or(Full)?.copy_from_slice(&word);
        Ok(self.published_one(u32::try_from(stored).map_err(|_| Full)?))
    }

    /// Puts `count` stored buffers behind the others without publishing them.
    pub(crate) fn stage_stored(&mut self, body: &[u8], count: u64) -> Result<()> {
        let broken = Error::Internal {
            what: "stored buffers are whole and fit their room",
        };
        self.spare(body.len(), count)
            .ok_or_else(|| broken.clone())?
            .copy_from_slice(body);
        let before = (self.position, self.entries);
        let mut are_single = true;
        for found in buffer::walk(body) {
            match found {
                Ok((_, message)) if message.count() == 1 => self.note(message.stored_bytes()),
                _ => {
                    are_single = false;
                    break;
                }
            }
        }
        let noted = u64::from(self.entries.saturating_sub(before.1));
        if !are_single || noted != count {
            // Nothing of it was published: what was noted is forgotten.
            (self.position, self.entries) = before;
            return Err(broken);
        }
        Ok(())
    }

    /// Appends `count` stored buffers and publishes them all at once.
    pub(crate) fn append_stored(&mut self, body: &[u8], count: u64) -> Result<()> {
        self.stage_stored(body, count)?;
        self.publish();
        Ok(())
    }

    /// Whether something is staged.
    pub(crate) fn has_staged(&self) -> bool {
        self.entries != self.chunk.published().entries
    }

    /// The bytes that are staged.
    pub(crate) fn staged_body(&self) -> &[u8] {
        let published = self.chunk.published().body_end;
        let length = self.position.saturating_sub(published) as usize;
        // SAFETY: the published end is within the memory.
        let at = unsafe { self.chunk.memory.add(published as usize) };
        // SAFETY: from the published end to the writer's position is within the memory, was written by staging, and
        // changes only through this writer, which is borrowed.
        unsafe { std::slice::from_raw_parts(at.as_ptr(), length) }
    }

    /// Publishes what is staged.
    pub(crate) fn publish_staged(&mut self) {
        self.publish();
    }

    /// Takes back what is staged.
    pub(crate) fn roll_back_staged(&mut self) {
        let published = self.chunk.published();
        self.position = published.body_end;
        self.entries = published.entries;
    }

    /// Copies everything published into an empty, larger chunk.
    pub(crate) fn copy_into(&self, bigger: &mut ChunkWriter) -> Result<()> {
        let published = self.chunk.published();
        let body = self.chunk.bytes(BODY..published.body_end).unwrap_or_default();
        bigger.append_stored(body, u64::from(published.entries))
    }

    /// Ends the chunk: nothing more is appended.
    pub(crate) fn close(self) -> Arc<Chunk> {
        self.chunk.closed.store(true, Ordering::Release);
        self.chunk
    }
}
