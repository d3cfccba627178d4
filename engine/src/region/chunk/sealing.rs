//! Sealing a chunk: head and trailer around its body, in place or in a copy.
#![allow(
    unsafe_code,
    reason = "writes around the body that is lent, and lends the whole as an image"
)]

use std::ops::Range;
use std::sync::Arc;

use lanterman_format::block::BlockIdentity;
use lanterman_format::buffer::{self, BufferView};
use lanterman_format::ids::{LogId, Offset};
use lanterman_format::key_sketch::{
    KEY_SKETCH_BYTES_MAX, KEY_SKETCH_ENTRY_BYTES, KeySketch, KeySketchBuilder,
};
use lanterman_format::reference::Reference;
use lanterman_format::slab::{self, GROUP_BYTES, SLAB_BODY_POSITION, SlabDescription};
use lanterman_format::summary::{HISTOGRAM_BUCKETS, Histogram32, Summary};
use lanterman_format::weakened;

use super::{BODY, Chunk, POSITION_BYTES};
use crate::error::{Error, Result};
use crate::sys::SharedBytes;

/// The histogram behind the index.
const HISTOGRAM_BYTES: u64 = HISTOGRAM_BUCKETS as u64 * 4;

/// What sealing made.
#[derive(Debug, Clone)]
pub(crate) struct ChunkSealed {
    pub(crate) reference: Reference,
    /// Bytes to write: the slab, zeros up to a whole page.
    pub(crate) stored_bytes: u64,
    pub(crate) summary: Summary,
    pub(crate) histogram: Histogram32,
    pub(crate) keys: KeySketch,
}

impl Chunk {
    /// Upper bound of the bytes that the sealed chunk takes on disk.
    pub(crate) fn sealed_bytes_max(&self) -> u64 {
        let published = self.published();
        let keys = if self.has_keys() { KEYS_BYTES } else { 0 };
        sealed_max(published.body_end, published.entries)
            .saturating_add(keys)
            .next_multiple_of(4096)
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
        let (summary, histogram, keys) = summarise(body, &positions, self.opened_ms, time_ms)?;
        let description = SlabDescription {
            log,
            first_offset: Offset::new(self.first_offset),
            offset_count: u64::from(published.entries),
            summary,
            histogram,
            is_compressed: false,
            keys,
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
            keys: description.keys,
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
        let keys = self.keys_bytes_max(from, count);
        usize::try_from(sealed_max(end, entries).saturating_add(keys)).map_err(|_| Error::Internal {
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
        let (summary, histogram, keys) = summarise(body, &positions, self.opened_ms, time_ms)?;
        let description = SlabDescription {
            log,
            first_offset: Offset::new(self.first_offset.saturating_add(from)),
            offset_count: count,
            summary,
            histogram,
            is_compressed: false,
            keys,
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
            keys: description.keys,
        })
    }

    /// Upper bound of the bytes of the sketch of the keys of some messages. Looked at, because tails are many and mostly small.
    fn keys_bytes_max(&self, from: u64, count: u64) -> u64 {
        if !self.has_keys() {
            return 0;
        }
        let body = self.entries_bytes(from, count).unwrap_or_default();
        let keys = buffer::walk(body).filter(|found| {
            let message = found.as_ref().map(|(_, message)| message);
            message.is_ok_and(|message| message.key().is_some())
        });
        (keys.count() as u64)
            .saturating_mul(KEY_SKETCH_ENTRY_BYTES as u64)
            .next_multiple_of(8)
            .min(KEYS_BYTES)
    }

    fn positions_of(&self, entries: Range<u64>) -> Vec<u32> {
        entries.filter_map(|entry| self.position(entry)).collect()
    }
}

/// Bytes that a sketch of keys takes behind the histogram at most, rounded up.
pub(super) const KEYS_BYTES: u64 = (KEY_SKETCH_BYTES_MAX as u64).next_multiple_of(8);

/// Bytes that a slab of single messages without keys takes at most: body, index, histogram and checksum table, each rounded
/// up.
pub(super) fn sealed_max(body_end: u32, entries: u32) -> u64 {
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

/// Summary, histogram and keys of a body whose buffers begin at `positions`. The positions, and runs of equal lengths, make
/// the turns independent of each other: sealing is most of what the helper thread does.
fn summarise(
    body: &[u8],
    positions: &[u32],
    opened_ms: i64,
    sealed_ms: i64,
) -> Result<(Summary, Histogram32, KeySketch)> {
    let mut summary = Summary::default();
    let mut histogram = Histogram32::default();
    let mut keys: Option<KeySketchBuilder> = None;
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
            summary.types.insert(message.value_type());
        } else {
            summary.add_buffer(&message);
            if let Some(key) = message.key() {
                keys.get_or_insert_default().insert(key);
            }
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
    let keys = keys.map(|keys| keys.finish()).unwrap_or_default();
    Ok((summary, histogram, keys))
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
