//! Keys in order of messages that have no run: of chunks, and of slabs that were written a moment ago.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use lanterman_format::{BufferView, Reference};
use parking_lot::Mutex;

use super::{ChunkKeys, KeyContext, KeyError, KeyedPlace};
use crate::error::Error;
use crate::region::chunk::Chunk;
use crate::slab::{Pieces, SlabError};

/// Entries of tables that are kept for slabs without a run, over all logs: 16 MiB.
const KEPT_ENTRIES_MAX: usize = 2 << 20;

/// Where the messages of a table are.
#[derive(Debug, Clone)]
pub(crate) enum Buffers {
    Chunk(Arc<Chunk>),
    Slab(Pieces),
}

impl Buffers {
    fn message(
        &self,
        (relative, position): (u32, u32),
        context: KeyContext<'_>,
    ) -> Result<BufferView<'_>, KeyError> {
        match self {
            Buffers::Chunk(chunk) => Ok(chunk.buffer_at(position)?),
            Buffers::Slab(pieces) => Ok(pieces.message(u64::from(relative), position, context.read)?),
        }
    }

    /// Fails if something of the slab was lost under its map, for who has looked at its messages.
    fn check(&self) -> Result<(), KeyError> {
        match self {
            Buffers::Slab(pieces) if pieces.slab().has_losses() => Ok(pieces.slab().check_whole()?),
            _ => Ok(()),
        }
    }
}

/// The messages of a chunk or a slab that have a key, by rising keys, the newest of each first.
#[derive(Debug)]
pub(crate) struct SortedKeys {
    /// The offset, counted from the first one, and the position of each.
    entries: Box<[(u32, u32)]>,
}

impl SortedKeys {
    /// Those of a whole slab.
    ///
    /// # Errors
    /// As of reading the slab.
    pub(crate) fn of_slab(pieces: &Pieces, context: KeyContext<'_>) -> Result<Self, SlabError> {
        let mut found = Vec::new();
        pieces.each(context.read, |relative, position, buffer| {
            if let Some(key) = buffer.key() {
                found.push((key, u32::try_from(relative).unwrap_or(u32::MAX), position));
            }
        })?;
        let sorted = Self::sorted(found);
        pieces.slab().check_whole()?;
        Ok(sorted)
    }

    /// Those of some of the messages of a chunk.
    ///
    /// # Errors
    /// None that is to be expected.
    pub(super) fn of_chunk(chunk: &Chunk, entries: Range<u64>) -> Result<Self, Error> {
        let mut found = Vec::new();
        for entry in entries {
            let Some(position) = chunk.position(entry) else {
                break;
            };
            if let Some(key) = chunk.buffer_at(position)?.key() {
                found.push((key, u32::try_from(entry).unwrap_or(u32::MAX), position));
            }
        }
        Ok(Self::sorted(found))
    }

    fn sorted(mut found: Vec<(&[u8], u32, u32)>) -> Self {
        found.sort_unstable_by(|one, other| one.0.cmp(other.0).then(other.1.cmp(&one.1)));
        let entries = found.into_iter().map(|(_, offset, position)| (offset, position));
        SortedKeys {
            entries: entries.collect(),
        }
    }
}

/// A table, and what it is of as a log shows it.
#[derive(Debug, Clone)]
pub(crate) struct MemoryKeys {
    keys: Arc<SortedKeys>,
    buffers: Buffers,
    /// The offsets of the log that are meant.
    offsets: Range<u64>,
    /// What turns an offset of the table into one of the log, modulo 2^64.
    shift: u64,
}

impl MemoryKeys {
    /// The messages `offsets` of a log, of which the table calls the first `skip`.
    pub(crate) fn new(keys: Arc<SortedKeys>, buffers: Buffers, offsets: Range<u64>, skip: u64) -> Self {
        MemoryKeys {
            keys,
            buffers,
            shift: offsets.start.wrapping_sub(skip),
            offsets,
        }
    }

    /// The number of the first entry whose key is not less than `key`.
    fn lower_bound(&self, key: &[u8], context: KeyContext<'_>) -> Result<usize, KeyError> {
        let (mut low, mut high) = (0, self.keys.entries.len());
        while low < high {
            let middle = low.midpoint(high);
            let Some(place) = self.keys.entries.get(middle) else {
                break;
            };
            if self.buffers.message(*place, context)?.key().unwrap_or_default() < key {
                low = middle.saturating_add(1);
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    /// Calls `found` with the offsets of a key's messages, the newest first, until it says `false`. Tells whether it did.
    pub(crate) fn each_place(
        &self,
        key: &[u8],
        context: KeyContext<'_>,
        found: &mut dyn FnMut(u64) -> bool,
    ) -> Result<bool, KeyError> {
        let first = self.lower_bound(key, context)?;
        for place in self.keys.entries.get(first..).unwrap_or_default() {
            if self.buffers.message(*place, context)?.key() != Some(key) {
                break;
            }
            let offset = u64::from(place.0).wrapping_add(self.shift);
            if self.offsets.contains(&offset) && !found(offset) {
                return Ok(true);
            }
        }
        self.buffers.check()?;
        Ok(false)
    }
}

/// Goes through a table.
#[derive(Debug)]
pub(crate) struct MemoryCursor {
    keys: MemoryKeys,
    next: usize,
    from: Option<Vec<u8>>,
}

impl MemoryCursor {
    pub(super) fn new(keys: MemoryKeys, from: Option<Vec<u8>>) -> Self {
        MemoryCursor { keys, next: 0, from }
    }

    /// Puts the next entry into `place`; says whether there was one.
    pub(super) fn next(&mut self, context: KeyContext<'_>, place: &mut KeyedPlace) -> Result<bool, KeyError> {
        if let Some(from) = self.from.take() {
            self.next = self.keys.lower_bound(&from, context)?;
        }
        while let Some(found) = self.keys.keys.entries.get(self.next) {
            self.next = self.next.saturating_add(1);
            let offset = u64::from(found.0).wrapping_add(self.keys.shift);
            if self.keys.offsets.contains(&offset) {
                let message = self.keys.buffers.message(*found, context)?;
                place.set(message.key().unwrap_or_default(), offset, &message);
                self.keys.buffers.check()?;
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Tables that are kept for a while.
#[derive(Debug, Default)]
pub(crate) struct KeptKeys {
    slabs: Mutex<SlabTables>,
    /// By log and first offset.
    chunks: Mutex<BTreeMap<(u64, u64), Arc<ChunkKeys>>>,
}

#[derive(Debug, Default)]
struct SlabTables {
    /// The newest last.
    order: VecDeque<Reference>,
    tables: HashMap<Reference, Arc<SortedKeys>>,
    entries: usize,
}

impl KeptKeys {
    /// The table of a slab.
    ///
    /// # Errors
    /// As of reading it.
    pub(crate) fn of_slab(
        &self,
        pieces: &Pieces,
        context: KeyContext<'_>,
    ) -> Result<Arc<SortedKeys>, SlabError> {
        let name = *pieces.slab().reference();
        if let Some(known) = self.slabs.lock().tables.get(&name) {
            return Ok(Arc::clone(known));
        }
        let made = Arc::new(SortedKeys::of_slab(pieces, context)?);
        let mut slabs = self.slabs.lock();
        if slabs.tables.insert(name, Arc::clone(&made)).is_none() {
            slabs.order.push_back(name);
            slabs.entries = slabs.entries.saturating_add(made.entries.len());
        }
        while slabs.entries > KEPT_ENTRIES_MAX
            && let Some(oldest) = slabs.order.pop_front()
        {
            if let Some(gone) = slabs.tables.remove(&oldest) {
                slabs.entries = slabs.entries.saturating_sub(gone.entries.len());
            }
        }
        Ok(made)
    }

    /// Forgets the tables of the chunks of a log that is no more.
    pub(crate) fn forget_log(&self, log: u64) {
        self.chunks.lock().retain(|(known, _), _| *known != log);
    }

    /// The table of a log's chunk. Those of chunks that end before `tree_end` are forgotten.
    pub(crate) fn of_chunk(&self, log: u64, chunk: &Chunk, tree_end: u64) -> Arc<ChunkKeys> {
        let mut chunks = self.chunks.lock();
        let first = chunk.first_offset();
        if let Some(known) = chunks.get(&(log, first)) {
            return Arc::clone(known);
        }
        let before: Vec<_> = chunks
            .range((log, 0)..(log, tree_end))
            .map(|(name, _)| *name)
            .collect();
        for name in before {
            chunks.remove(&name);
        }
        let made = Arc::<ChunkKeys>::default();
        chunks.insert((log, first), Arc::clone(&made));
        made
    }
}
