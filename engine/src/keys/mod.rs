//! Which messages have which keys: the machinery of keyed logs.
//!
//! A range of offsets that is in slabs has a [`KeyRun`], sooner or later: its keys in order, in pages in slabs of their own,
//! found through a tree as messages are. What has none yet is read, and its keys are sorted in memory ([`SortedKeys`]);
//! a chunk that is still written has tables that grow with it ([`ChunkKeys`]). [`MergedKeys`] goes through all of them at once.
//!
//! Runs and tables tell where messages of a key stand or stood; whether one is still there is for the log's value to say.

mod chunk;
mod memory;
mod merge;
mod run;
mod write;

use lanterman_format::{BufferView, ValueType};

use crate::error::Error;
use crate::slab::{ReadContext, SlabError};
use crate::tree::{NodeSource, TreeError};

pub(crate) use chunk::ChunkKeys;
pub(crate) use memory::{Buffers, KeptKeys, MemoryKeys, SortedKeys};
pub(crate) use merge::{KeyStream, MergedKeys};
pub(crate) use run::{KeyRun, RunCursor};
pub(crate) use write::RunWriter;

/// Where bytes come from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeyContext<'a> {
    pub(crate) nodes: &'a dyn NodeSource,
    pub(crate) read: ReadContext<'a>,
}

/// Why keys cannot be told.
#[derive(Debug)]
pub(crate) enum KeyError {
    /// Pages, or messages that have no run, cannot be read.
    Tree(TreeError),
    /// What the store says of itself.
    Store(Error),
}

impl From<TreeError> for KeyError {
    fn from(error: TreeError) -> Self {
        KeyError::Tree(error)
    }
}

impl From<SlabError> for KeyError {
    fn from(error: SlabError) -> Self {
        KeyError::Tree(TreeError::Fetch(error))
    }
}

impl From<Error> for KeyError {
    fn from(error: Error) -> Self {
        KeyError::Store(error)
    }
}

/// What the last look at a whole keyed log found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Superseded {
    /// How many messages the log had had.
    pub(crate) looked_until: u64,
    /// Stored bytes of the newest message of each key; 0 before the first look.
    pub(crate) live_bytes: u64,
    /// How many these were.
    pub(crate) live_messages: u64,
    /// Stored bytes of the others that are left.
    pub(crate) superseded_bytes: u64,
    /// Bytes of all keys and values in the log's tree, those of what was removed since taken off.
    pub(crate) in_tree_bytes: u64,
}

/// A message of a keyed log, by what is told of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct KeyedPlace {
    pub(crate) key: Vec<u8>,
    pub(crate) offset: u64,
    /// Bytes that its buffer takes in a slab.
    pub(crate) stored_bytes: u64,
    pub(crate) is_marker: bool,
    /// Whether its value stands in parts; said only of messages that have no run yet.
    pub(crate) is_large: bool,
}

impl Clone for KeyedPlace {
    fn clone(&self) -> Self {
        let mut cloned = KeyedPlace::default();
        cloned.clone_from(self);
        cloned
    }

    /// Keeps the memory of the key.
    fn clone_from(&mut self, other: &Self) {
        self.key.clear();
        self.key.extend_from_slice(&other.key);
        self.offset = other.offset;
        self.stored_bytes = other.stored_bytes;
        self.is_marker = other.is_marker;
        self.is_large = other.is_large;
    }
}

impl KeyedPlace {
    /// Takes up what a message with a key says.
    fn set(&mut self, key: &[u8], offset: u64, message: &BufferView<'_>) {
        self.key.clear();
        self.key.extend_from_slice(key);
        self.offset = offset;
        self.stored_bytes = u64::from(message.stored_bytes());
        self.is_marker = is_marker(message);
        self.is_large = message.value_type() == ValueType::BY_REFERENCE;
    }
}

/// Whether a message says that there is none of its key.
pub(crate) fn is_marker(message: &BufferView<'_>) -> bool {
    message.value_type() == ValueType::NIL
}
