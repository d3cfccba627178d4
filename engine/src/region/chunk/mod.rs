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

use lanterman_format::buffer::BufferView;
use lanterman_format::slab::SLAB_BODY_POSITION;
use lanterman_format::weakened;

use crate::atomics::{AtomicBool, AtomicU32, AtomicU64, Mutex, Ordering, order};
use crate::error::{Error, Result};
use crate::tail::pool::Lease;

mod sealing;
mod writer;

pub(crate) use sealing::ChunkSealed;
pub(crate) use writer::{ChunkWriter, Full};

/// Where the body begins.
const BODY: u32 = 256;
const _: () = assert!(BODY as usize == SLAB_BODY_POSITION);
/// A position in the index.
const POSITION_BYTES: u64 = 4;

/// How far a chunk is readable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Published {
    pub(crate) entries: u32,
    pub(crate) body_end: u32,
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
    /// Some of its buffers are parts of large values. Set before the first of them is published.
    has_parts: AtomicBool,
    /// Some of its buffers may have keys. Set before the first of them is published.
    has_keys: AtomicBool,
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
            has_parts: AtomicBool::new(false),
            has_keys: AtomicBool::new(false),
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

    /// Whether a published buffer may be a part of a large value, which is no message.
    #[inline]
    pub(crate) fn has_parts(&self) -> bool {
        // Publishing comes after it, and whoever asks has looked at what is published.
        self.has_parts.load(Ordering::Relaxed)
    }

    /// Whether a published buffer may have a key.
    fn has_keys(&self) -> bool {
        self.has_keys.load(Ordering::Relaxed)
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

    /// Counts its memory no longer against the writers: it is on disk, outgrown or dropped, and kept for readers alone.
    pub(crate) fn retire(&self) {
        self.lease.retire();
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        self.lease.give_back(std::mem::take(&mut self.positions));
    }
}

fn unpack(word: u64) -> Published {
    let entries = u32::try_from(word >> 32).unwrap_or(u32::MAX);
    let body_end = u32::try_from(word & u64::from(u32::MAX)).unwrap_or(u32::MAX);
    Published { entries, body_end }
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
