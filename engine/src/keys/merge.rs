//! Going through several runs and tables at once, key by key.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::memory::MemoryCursor;
use super::run::RunCursor;
use super::{KeyContext, KeyError, KeyedPlace, MemoryKeys};

/// One run or table that is gone through.
#[derive(Debug)]
pub(crate) enum KeyStream {
    Run(RunCursor),
    Memory(MemoryCursor),
}

impl KeyStream {
    /// A table from the first key on that is not less than `from`.
    pub(crate) fn of_memory(keys: MemoryKeys, from: Option<Vec<u8>>) -> Self {
        KeyStream::Memory(MemoryCursor::new(keys, from))
    }

    fn next(&mut self, context: KeyContext<'_>, place: &mut KeyedPlace) -> Result<bool, KeyError> {
        match self {
            KeyStream::Run(run) => Ok(run.next(context, place)?),
            KeyStream::Memory(memory) => memory.next(context, place),
        }
    }
}

/// The next entry of a stream.
#[derive(Debug)]
struct Head {
    place: KeyedPlace,
    stream: usize,
}

impl Ord for Head {
    /// The least key is the greatest head; of one key the newest message.
    fn cmp(&self, other: &Self) -> Ordering {
        let by_key = other.place.key.cmp(&self.place.key);
        by_key.then_with(|| self.place.offset.cmp(&other.place.offset))
    }
}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Head {}

/// The entries of all streams by rising keys, the newest of each key first.
#[derive(Debug)]
pub(crate) struct MergedKeys {
    streams: Vec<KeyStream>,
    heads: BinaryHeap<Head>,
    /// The stream whose entry was given last.
    behind: Option<usize>,
    has_begun: bool,
}

impl MergedKeys {
    pub(crate) fn new(streams: Vec<KeyStream>) -> Self {
        MergedKeys {
            heads: BinaryHeap::with_capacity(streams.len()),
            streams,
            behind: None,
            has_begun: false,
        }
    }

    /// Puts the next entry in the place of `place`; says whether there was one.
    ///
    /// # Errors
    /// As of reading pages and messages. Nothing more is to be expected behind an error.
    pub(crate) fn next(&mut self, context: KeyContext<'_>, place: &mut KeyedPlace) -> Result<bool, KeyError> {
        if !self.has_begun {
            self.has_begun = true;
            for stream in 0..self.streams.len() {
                self.refill(stream, KeyedPlace::default(), context)?;
            }
        }
        if let Some(stream) = self.behind.take() {
            self.refill(stream, std::mem::take(place), context)?;
        }
        let Some(head) = self.heads.pop() else {
            return Ok(false);
        };
        self.behind = Some(head.stream);
        *place = head.place;
        Ok(true)
    }

    fn refill(
        &mut self,
        stream: usize,
        mut place: KeyedPlace,
        context: KeyContext<'_>,
    ) -> Result<(), KeyError> {
        if let Some(source) = self.streams.get_mut(stream)
            && source.next(context, &mut place)?
        {
            self.heads.push(Head { place, stream });
        }
        Ok(())
    }
}
