//! Going through several runs and tables at once, key by key.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

use super::memory::MemoryCursor;
use super::run::RunCursor;
use super::{KeyContext, KeyError, KeyedPlace, MemoryKeys};

/// One run or table that is gone through.
#[derive(Debug)]
pub(crate) enum KeyStream {
    Run(RunCursor),
    Memory(MemoryCursor),
    /// Entries that are in order already.
    Places(std::vec::IntoIter<KeyedPlace>),
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
            KeyStream::Places(places) => Ok(places.next().map(|next| *place = next).is_some()),
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
    /// The next entry of each stream that has one; the greatest was given already if one was.
    heads: BinaryHeap<Head>,
    has_begun: bool,
}

impl MergedKeys {
    pub(crate) fn new(streams: Vec<KeyStream>) -> Self {
        MergedKeys {
            heads: BinaryHeap::with_capacity(streams.len()),
            streams,
            has_begun: false,
        }
    }

    /// Puts the next entry in the place of `place`; says whether there was one.
    ///
    /// # Errors
    /// As of reading pages and messages. Nothing more is to be expected behind an error.
    pub(crate) fn next(&mut self, context: KeyContext<'_>, place: &mut KeyedPlace) -> Result<bool, KeyError> {
        if let [only] = self.streams.as_mut_slice() {
            return only.next(context, place);
        }
        match std::mem::replace(&mut self.has_begun, true) {
            true => self.step_over_given(context)?,
            false => self.begin(context)?,
        }
        let Some(head) = self.heads.peek() else {
            return Ok(false);
        };
        place.clone_from(&head.place);
        Ok(true)
    }

    fn begin(&mut self, context: KeyContext<'_>) -> Result<(), KeyError> {
        for (stream, source) in self.streams.iter_mut().enumerate() {
            let mut place = KeyedPlace::default();
            if source.next(context, &mut place)? {
                self.heads.push(Head { place, stream });
            }
        }
        Ok(())
    }

    /// Puts the next entry of its stream in the place of the one that was given.
    fn step_over_given(&mut self, context: KeyContext<'_>) -> Result<(), KeyError> {
        let Some(mut given) = self.heads.peek_mut() else {
            return Ok(());
        };
        let Head { place, stream } = &mut *given;
        let has_more = match self.streams.get_mut(*stream) {
            Some(source) => source.next(context, place)?,
            None => false,
        };
        if !has_more {
            PeekMut::pop(given);
        }
        Ok(())
    }
}
