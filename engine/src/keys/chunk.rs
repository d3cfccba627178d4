//! Keys of a chunk that is written still: by hash, for who looks for one, and in order, for who goes through all.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Weak};

use lanterman_format::key_page;
use parking_lot::Mutex;

use super::SortedKeys;
use crate::error::Error;
use crate::region::chunk::Chunk;

/// The keys of a chunk that may still grow.
#[derive(Debug, Default)]
pub(crate) struct ChunkKeys {
    table: Mutex<ChunkTable>,
    order: Mutex<ChunkOrder>,
}

#[derive(Debug, Default)]
struct ChunkTable {
    /// The newest message of a hash.
    newest: HashMap<u64, u32>,
    /// For each message the one before it with the same hash.
    before: Vec<u32>,
}

/// Its messages in the order of their keys, as far as scans have asked for them.
#[derive(Debug, Default)]
struct ChunkOrder {
    /// Whose positions they are: when a chunk is full, a larger one may take its place.
    chunk: Weak<Chunk>,
    /// One behind the other, each of more than twice as many messages as the next. So there are few to go through, and a
    /// message that scans find again and again is put in order O(log n) times.
    parts: Vec<OrderedPart>,
}

#[derive(Debug)]
struct OrderedPart {
    entries: Range<u64>,
    keys: Arc<SortedKeys>,
}

/// No message.
const NONE: u32 = u32::MAX;

impl ChunkKeys {
    /// Calls `found` with the offsets of a key's messages in the chunk, the newest first, until it says `false`. Tells
    /// whether it did.
    pub(crate) fn each_place(
        &self,
        chunk: &Chunk,
        key: &[u8],
        found: &mut dyn FnMut(u64) -> bool,
    ) -> Result<bool, Error> {
        let hash = key_page::key_hash(key);
        let mut table = self.table.lock();
        let published = chunk.published().entries;
        while let Ok(entry) = u32::try_from(table.before.len())
            && entry < published
        {
            let position = chunk.position(u64::from(entry)).unwrap_or_default();
            let before = match chunk.buffer_at(position)?.key() {
                Some(key) => table.newest.insert(key_page::key_hash(key), entry),
                None => None,
            };
            table.before.push(before.unwrap_or(NONE));
        }
        let mut next = table.newest.get(&hash).copied().unwrap_or(NONE);
        while next != NONE {
            // A snapshot may hold a chunk in whose place a larger one came, which the table goes on with.
            if next < published {
                let position = chunk.position(u64::from(next)).unwrap_or_default();
                let is_it = chunk.buffer_at(position)?.key() == Some(key);
                let offset = chunk.first_offset().saturating_add(u64::from(next));
                if is_it && !found(offset) {
                    return Ok(true);
                }
            }
            let index = usize::try_from(next).unwrap_or(usize::MAX);
            next = table.before.get(index).copied().unwrap_or(NONE);
        }
        Ok(false)
    }

    /// The first `count` messages of the chunk, and perhaps some behind, in tables of those that have a key.
    pub(crate) fn in_order(&self, chunk: &Arc<Chunk>, count: u64) -> Result<Vec<Arc<SortedKeys>>, Error> {
        let mut order = self.order.lock();
        if !std::ptr::eq(order.chunk.as_ptr(), Arc::as_ptr(chunk)) {
            *order = ChunkOrder {
                chunk: Arc::downgrade(chunk),
                parts: Vec::new(),
            };
        }
        let parts = &mut order.parts;
        let known = parts.last().map_or(0, |part| part.entries.end);
        if known < count {
            let mut first = known;
            while let Some(last) = parts.pop() {
                let length = last.entries.end.saturating_sub(last.entries.start);
                if length / 2 > count.saturating_sub(first) {
                    parts.push(last);
                    break;
                }
                first = last.entries.start;
            }
            let keys = Arc::new(SortedKeys::of_chunk(chunk, first..count)?);
            let entries = first..count;
            parts.push(OrderedPart { entries, keys });
        }
        Ok(parts.iter().map(|part| Arc::clone(&part.keys)).collect())
    }
}
