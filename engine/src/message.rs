//! A message as it is read.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::{fmt, io};

use bytes::Bytes;
use lanterman_format::buffer::{BufferView, Headers, ValueType};
use lanterman_format::ids::{Offset, Position};
use lanterman_format::name::segment_file_name;
use lanterman_format::segment::SegmentKind;

use crate::error::{Damage, Error, Result, Unreadable};
use crate::region::chunk::{Chunk, ChunkBytes};
use crate::slab::{OpenSlab, SlabError};
use crate::sys::guard;

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

    /// Whether what was read of this message is what was written, as far as the system has told: to be called *after* its
    /// bytes were looked at.
    ///
    /// A message is lent straight from a mapped file. When the device fails or another program cuts the file short, the
    /// bytes that are lost become zeros, and this says so. [`Cursor::next`](crate::Cursor::next) and the iterators ask it
    /// themselves of the message before, so it is needed only where a message must not be acted upon before it is known to
    /// be whole, and for single reads. It costs a load as long as nothing was lost. It does not see bytes that were zeroed without
    /// a fault: a hole punched into the file, or the rest of the page within which it was cut; [`verify`](Self::verify)
    /// does. Stores opened by copying lend bytes of their own, which are never lost.
    ///
    /// # Errors
    /// [`Error::Unreadable`] if bytes of the message were lost; the log is not named.
    pub fn check(&self) -> Result<()> {
        if !guard::any_lost() {
            return Ok(());
        }
        match &self.keeper {
            Keeper::Chunk(_) => Ok(()),
            Keeper::Slab(slab) => slab
                .check_buffer(self.buffer)
                .map_err(|error| failed(slab, self.offset, error)),
        }
    }

    /// Compares the checksums over this message once more, and asks as [`check`](Self::check) does: after its bytes were
    /// looked at, it says that they were what was written. Costs a checksum over the groups of 4 KiB that it is in.
    ///
    /// # Errors
    /// [`Error::Unreadable`], and [`Error::Damaged`] if the bytes are others now.
    pub fn verify(&self) -> Result<()> {
        match &self.keeper {
            Keeper::Chunk(_) => Ok(()),
            Keeper::Slab(slab) => slab
                .verify_buffer(self.buffer)
                .map_err(|error| failed(slab, self.offset, error)),
        }
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

/// The public error for a message whose bytes are not what they were. A message does not know its log's name.
#[cold]
fn failed(slab: &OpenSlab, offset: Offset, error: SlabError) -> Error {
    let reference = slab.reference();
    let named = || PathBuf::from(segment_file_name(reference.segment, SegmentKind::Slabs));
    let path = slab.path().unwrap_or_else(named);
    let at =
        |range: &Range<usize>| Position::new(reference.position.get().saturating_add(range.start as u64));
    let offsets = Some(offset.get()..offset.get().saturating_add(1));
    match error {
        SlabError::Damaged(damage) => Error::Damaged(Box::new(Damage {
            path,
            segment: Some(reference.segment),
            position: at(&damage.range),
            bytes: damage.range.len() as u64,
            log: None,
            offsets,
            source: damage.error,
        })),
        SlabError::Read { range, error, .. } => Error::Unreadable(Box::new(Unreadable {
            path,
            segment: Some(reference.segment),
            position: at(&range),
            bytes: range.len() as u64,
            log: None,
            offsets,
            source: Arc::new(error),
        })),
        _ => Error::Internal {
            what: "a message that was lent is in its slab",
        },
    }
}

/// Whether `bytes`, lent by any store of this process, are still what was lent, as far as the system has told: for
/// [`Bytes`] that were kept, to be called *after* they were looked at. See [`Message::check`]. Bytes of other origin pass.
///
/// # Errors
/// [`Error::Unreadable`] if some of them were lost while they were mapped; they are zeros then.
pub fn check_bytes(bytes: &[u8]) -> Result<()> {
    match guard::place_of_loss(bytes) {
        None => Ok(()),
        Some(loss) => Err(Error::Unreadable(Box::new(Unreadable {
            path: loss.path(),
            segment: None,
            position: Position::new(loss.position),
            bytes: bytes.len() as u64,
            log: None,
            offsets: None,
            source: Arc::new(io::Error::other("they were lost while they were mapped")),
        }))),
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
    /// The key is a copy. It was lost before it was copied.
    is_key_lost: bool,
}

impl KeptMessage {
    /// As [`Message::check`]: whether its bytes are what was written, to be called after they were looked at.
    ///
    /// # Errors
    /// [`Error::Unreadable`] if bytes of the message were lost; neither log nor segment is named.
    pub fn check(&self) -> Result<()> {
        let offset = self.offset.get();
        let of_this_message = |error| match error {
            Error::Unreadable(mut lost) => {
                lost.offsets = Some(offset..offset.saturating_add(1));
                Error::Unreadable(lost)
            }
            other => other,
        };
        check_bytes(&self.value).map_err(of_this_message)?;
        if self.is_key_lost {
            return Err(Error::Unreadable(Box::new(Unreadable {
                path: PathBuf::new(),
                segment: None,
                position: Position::new(0),
                bytes: self.key.as_ref().map_or(0, |key| key.len() as u64),
                log: None,
                offsets: Some(offset..offset.saturating_add(1)),
                source: Arc::new(io::Error::other("its key was lost before it was copied")),
            })));
        }
        Ok(())
    }

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
        let key = message.key().map(Bytes::copy_from_slice);
        let fields = (message.value_type(), message.time_ms());
        KeptMessage {
            offset: message.offset(),
            value_type: fields.0,
            time_ms: fields.1,
            value: message.to_bytes(),
            is_key_lost: key.is_some() && message.check().is_err(),
            key,
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
