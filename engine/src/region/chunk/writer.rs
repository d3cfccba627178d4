//! Appending to a chunk: messages one by one, filled in place, or staged and published together.
#![allow(unsafe_code, reason = "writes behind the published end, where nobody else is")]

use std::ptr::NonNull;
use std::sync::Arc;

use lanterman_format::buffer::{self, BufferFields, ValueType};
use lanterman_format::weakened;

use super::sealing::{KEYS_BYTES, sealed_max};
use super::{BODY, Chunk, POSITION_BYTES};
use crate::atomics::{Ordering, order};
use crate::error::{Error, Result};
use crate::tail::pool::Lease;

/// Smallest stored buffer.
const HEADER_BYTES: usize = 8;

/// The chunk has no room for that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full;

/// The one who appends to a chunk.
#[derive(Debug)]
pub(crate) struct ChunkWriter {
    chunk: Arc<Chunk>,
    /// End of what is written, published or staged.
    position: u32,
    entries: u32,
    /// What body and index together may take, so that the trailer fits behind.
    limit: u64,
    /// What a message with a key takes of that once and for all, for the sketch of keys; 0 when it is taken.
    kept_for_keys: u64,
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
            kept_for_keys: KEYS_BYTES,
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

    /// Whether buffers of `bytes` in all, in `entries` entries, fit, whatever they have.
    pub(crate) fn has_room(&self, bytes: u64, entries: u64) -> bool {
        self.has_room_without_keys(bytes.saturating_add(self.kept_for_keys), entries)
    }

    /// The same of buffers without keys.
    #[inline]
    fn has_room_without_keys(&self, bytes: u64, entries: u64) -> bool {
        let count = u64::from(self.entries).saturating_add(entries);
        let body = u64::from(self.position).saturating_add(bytes);
        count <= self.chunk.positions.len() as u64
            && body.saturating_add(count.saturating_mul(POSITION_BYTES)) <= self.limit
    }

    /// Appends a value without key, time or headers, and publishes it; gives its offset.
    #[inline]
    pub(crate) fn append_plain(&mut self, value: &[u8], value_type: ValueType) -> Result<u64, Full> {
        let stored = self.write_plain(value, value_type)?;
        Ok(self.published_one(stored))
    }

    /// Writes a value without key, time or headers behind the others; gives the bytes that it takes.
    #[inline]
    fn write_plain(&mut self, value: &[u8], value_type: ValueType) -> Result<u32, Full> {
        let stored = HEADER_BYTES + value.len().next_multiple_of(8);
        if !self.has_room_without_keys(stored as u64, 1) {
            return Err(Full);
        }
        // Both casts keep their value: room was found, and the limit is below 4 GiB.
        let length = u32::try_from(value.len()).map_err(|_| Full)?;
        let word = buffer::plain_header_word(length, value_type);
        // SAFETY: the look at the room keeps position + stored within the limit, which is within the memory.
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
        Ok(buffer::plain_stored_bytes(length))
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

    /// Notes what comes next, before it is published. There is room for it.
    #[inline]
    fn note_kind(&mut self, value_type: ValueType, has_key: bool) {
        if value_type == ValueType::PART && !weakened!("parts-shown") {
            self.chunk.has_parts.store(true, Ordering::Relaxed);
        }
        if has_key && self.kept_for_keys > 0 {
            self.chunk.has_keys.store(true, Ordering::Relaxed);
            let kept = std::mem::take(&mut self.kept_for_keys);
            if !weakened!("keys-without-room") {
                self.limit = self.limit.saturating_sub(kept);
            }
        }
    }

    #[inline]
    fn publish(&self) {
        let word = (u64::from(self.entries) << 32) | u64::from(self.position);
        let release = order(Ordering::Release, weakened!("published-relaxed"));
        self.chunk.published.0.store(word, release);
    }

    /// The `length` bytes behind what is written, which nobody else can reach; `None` without room.
    fn spare(&mut self, length: usize, entries: u64, may_have_keys: bool) -> Option<&mut [u8]> {
        let kept = if may_have_keys { self.kept_for_keys } else { 0 };
        if !self.has_room_without_keys((length as u64).saturating_add(kept), entries) {
            return None;
        }
        // SAFETY: the look at the room keeps the range within the memory.
        let at = unsafe { self.chunk.memory.add(self.position as usize) };
        // SAFETY: the range is within the memory and behind the published end; this writer, borrowed mutably, is the
        // only one who touches it.
        Some(unsafe { std::slice::from_raw_parts_mut(at.as_ptr(), length) })
    }

    /// Appends a message with whatever it has, and publishes it.
    pub(crate) fn append_fields(&mut self, fields: &BufferFields<'_>) -> Result<u64, Full> {
        let stored = self.write_fields(fields)?;
        Ok(self.published_one(stored))
    }

    /// Puts a message behind the others without publishing it.
    pub(crate) fn stage_fields(&mut self, fields: &BufferFields<'_>) -> Result<(), Full> {
        let stored = match fields.is_plain() {
            true => self.write_plain(fields.value, fields.value_type)?,
            false => self.write_fields(fields)?,
        };
        self.note(stored);
        Ok(())
    }

    /// Writes a message behind the others; gives the bytes that it takes.
    fn write_fields(&mut self, fields: &BufferFields<'_>) -> Result<u32, Full> {
        // A chunk finds its buffers by number, which only counts messages when each buffer is one.
        if fields.count != 1 {
            return Err(Full);
        }
        let stored = fields.encoded_bytes().map_err(|_| Full)?;
        let has_key = fields.key.is_some();
        let room = self.spare(stored as usize, 1, has_key).ok_or(Full)?;
        fields.encode(room).map_err(|_| Full)?;
        self.note_kind(fields.value_type, has_key);
        Ok(stored)
    }

    /// Room for the value of a plain message; filled again at each call, published by [`Self::publish_reserved`].
    pub(crate) fn reserved(&mut self, value_bytes: usize) -> Option<&mut [u8]> {
        let stored = HEADER_BYTES.checked_add(value_bytes.checked_next_multiple_of(8)?)?;
        let end = HEADER_BYTES.checked_add(value_bytes)?;
        self.spare(stored, 1, false)?.get_mut(HEADER_BYTES..end)
    }

    /// Publishes what was filled in place.
    pub(crate) fn publish_reserved(
        &mut self,
        value_bytes: usize,
        value_type: ValueType,
    ) -> Result<u64, Full> {
        let stored = HEADER_BYTES.saturating_add(value_bytes.next_multiple_of(8));
        let length = u32::try_from(value_bytes).map_err(|_| Full)?;
        let room = self.spare(stored, 1, false).ok_or(Full)?;
        let end = HEADER_BYTES.saturating_add(value_bytes);
        room.get_mut(end..).ok_or(Full)?.fill(0);
        let word = buffer::plain_header_word(length, value_type).to_le_bytes();
        room.get_mut(..HEADER_BYTES).ok_or(Full)?.copy_from_slice(&word);
        Ok(self.published_one(u32::try_from(stored).map_err(|_| Full)?))
    }

    /// Puts `count` stored buffers behind the others without publishing them.
    pub(crate) fn stage_stored(&mut self, body: &[u8], count: u64) -> Result<()> {
        let broken = || Error::Internal {
            what: "stored buffers are whole and fit their room",
        };
        self.spare(body.len(), count, true)
            .ok_or_else(broken)?
            .copy_from_slice(body);
        let before = (self.position, self.entries);
        let mut are_single = true;
        for found in buffer::walk(body) {
            match found {
                Ok((_, message)) if message.count() == 1 => {
                    self.note_kind(message.value_type(), message.key().is_some());
                    self.note(message.stored_bytes());
                }
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
            return Err(broken());
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
