//! A message as it is read.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use lanterman_format::buffer::{BufferView, Headers, ValueType};
use lanterman_format::ids::Offset;

use crate::region::chunk::{Chunk, ChunkBytes};
use crate::slab::OpenSlab;

/// Who keeps the bytes of a message.
#[derive(Debug, Clone)]
pub(crate) enum Keeper<'a> {
    Chunk(&'a Arc<Chunk>),
    Slab(&'a Arc<OpenSlab>),
}

/// A message of a log, borrowed from the place where it is stored.
#[derive(Clone)]
pub struct Message<'a> {
    offset: Offset,
    buffer: BufferView<'a>,
    keeper: Keeper<'a>,
}

impl<'a> Message<'a> {
    pub(crate) fn new(offset: u64, buffer: BufferView<'a>, keeper: Keeper<'a>) -> Self {
        Message {
            offset: Offset::new(offset),
            buffer,
            keeper,
        }
    }

    /// Its offset.
    #[must_use]
    pub fn offset(&self) -> Offset {
        self.offset
    }

    /// Its value; in a map or in memory it begins at a multiple of eight bytes.
    #[must_use]
    #[inline]
    pub fn value(&self) -> &'a [u8] {
        self.buffer.value()
    }

    /// What its value is.
    #[must_use]
    pub fn value_type(&self) -> ValueType {
        self.buffer.value_type()
    }

    /// Its key, if it has one.
    #[must_use]
    pub fn key(&self) -> Option<&'a [u8]> {
        self.buffer.key()
    }

    /// Its own time in milliseconds since 1970, if it has one.
    #[must_use]
    pub fn time_ms(&self) -> Option<i64> {
        self.buffer.time_ms()
    }

    /// Its headers: names and values, in the order in which they were given.
    #[must_use]
    pub fn headers(&self) -> Headers<'a> {
        self.buffer.headers()
    }

    /// The value, counted and not copied: it can be kept and sent, and keeps the slab or chunk that it is in.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        let value = self.value();
        let lent = match &self.keeper {
            Keeper::Chunk(chunk) => ChunkBytes::of(chunk, value).map(Bytes::from_owner),
            Keeper::Slab(slab) => slab.lend(value),
        };
        // The value is a part of its keeper; were it not, a copy is right all the same.
        lent.unwrap_or_else(|| Bytes::copy_from_slice(value))
    }
}

impl fmt::Debug for Message<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Message")
            .field("offset", &self.offset.get())
            .field("value_bytes", &self.value().len())
            .finish_non_exhaustive()
    }
}

/// A message that counts what holds it, and so can be kept and sent without a copy.
#[derive(Clone)]
pub struct KeptMessage {
    offset: Offset,
    value_type: ValueType,
    time_ms: Option<i64>,
    key: Option<Bytes>,
    value: Bytes,
}

impl KeptMessage {
    /// Its offset.
    #[must_use]
    pub fn offset(&self) -> Offset {
        self.offset
    }

    /// Its value.
    #[must_use]
    pub fn value(&self) -> &Bytes {
        &self.value
    }

    /// What its value is.
    #[must_use]
    pub fn value_type(&self) -> ValueType {
        self.value_type
    }

    /// Its key, if it has one.
    #[must_use]
    pub fn key(&self) -> Option<&Bytes> {
        self.key.as_ref()
    }

    /// Its own time in milliseconds since 1970, if it has one.
    #[must_use]
    pub fn time_ms(&self) -> Option<i64> {
        self.time_ms
    }
}

impl From<&Message<'_>> for KeptMessage {
    fn from(message: &Message<'_>) -> Self {
        KeptMessage {
            offset: message.offset(),
            value_type: message.value_type(),
            time_ms: message.time_ms(),
            key: message.key().map(Bytes::copy_from_slice),
            value: message.to_bytes(),
        }
    }
}

impl fmt::Debug for KeptMessage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("KeptMessage")
            .field("offset", &self.offset.get())
            .field("value_bytes", &self.value.len())
            .finish_non_exhaustive()
    }
}
