//! Large values: appended from a reader and read in parts, so that neither side holds one whole in memory.
//!
//! A value over the limit goes into the log in parts, which have offsets of their own and are no messages; the message
//! comes behind them and names them. So nobody sees a value that is not whole, and whatever cuts, shares, counts or moves
//! messages does the same to parts.

use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use lanterman_format::buffer::{BufferFields, ValueType};
use lanterman_format::ids::{Offset, Position};
use lanterman_format::large_value::{LargeValue, ValuePart};
use lanterman_format::limits::VALUE_PARTS_MAX;
use lanterman_format::{FormatError, weakened};

use crate::core::Core;
use crate::cursor::{Cursor, ToOffset};
use crate::deletion::WantedRange;
use crate::error::{Damage, Error, Result};
use crate::log::LogState;
use crate::message::KeptMessage;
use crate::snapshot::{Log, Snapshot};
use crate::writer::{NewMessage, Rules, Writer, check_fields, check_key};

impl Writer {
    /// Appends a message whose value is what `source` gives, to its end; what else it has comes from `message`, whose own
    /// value must be empty. Gives its offset.
    ///
    /// A value of at most [`Options::large_value_bytes`](crate::Options::large_value_bytes) becomes an ordinary message. A
    /// longer one goes into the log in parts as it is read: each takes an offset before the message's, is no message, and
    /// is passed over by whoever reads. The message is then of the type [`ValueType::BY_REFERENCE`];
    /// [`Snapshot::read_value`] gives its value back, and what it is. Memory for two parts is taken, whatever the length.
    ///
    /// Formats do not look at a value in parts. Constraints know its type and length; a rule that must see a value itself
    /// refuses it, also where it would divert. A value that is not to be in the log after all costs a deletion. If the
    /// process is killed on the way, parts stay without a message, until the next writer of the log is opened: it deletes
    /// those at the log's end, and looks for them behind up to 256 messages that others appended since.
    ///
    /// In a keyed log the parts of a value go together with its message, once a newer one supersedes it.
    ///
    /// # Errors
    /// [`Error::ValueSource`] if `source` fails; [`Error::TooLarge`] for more parts than a message can name, which are 65,000
    /// quarters of a slab; [`Error::KeyRequired`], before anything is read of a value above the limit but its beginning;
    /// otherwise as [`append`](Self::append).
    pub fn append_large(&mut self, message: &NewMessage<'_>, source: impl Read) -> Result<Offset> {
        if !message.fields.value.is_empty() {
            return Err(Error::InvalidValue {
                value_type: message.fields.value_type,
                format: "large value".to_owned(),
                reason: "the value comes from the source, so the message itself must have none".to_owned(),
            });
        }
        let options = &self.core().options;
        let limit = options.large_value_bytes.min(options.message_bytes_max);
        let mut source = source;
        let mut first = Vec::new();
        self.fill(&mut source, limit.saturating_add(1), &mut first)?;
        if first.len() as u64 <= limit {
            let fields = BufferFields {
                value: &first,
                ..message.fields
            };
            return self.append_message(&NewMessage { fields });
        }
        // What can be refused by the message alone is, before there are parts.
        check_fields(&message.fields, 0)?;
        check_key(self.log_state(), &message.fields)?;
        let mut parts = Parts::default();
        let appended = self
            .append_parts(io::Cursor::new(first).chain(source), &mut parts)
            .and_then(|()| self.append_head(message, &parts));
        if appended.is_err() && !weakened!("parts-left-behind") {
            self.take_back(&parts);
        }
        appended
    }

    fn append_parts(&mut self, mut source: impl Read, parts: &mut Parts) -> Result<()> {
        // Four of them fill a slab, with what stands around them.
        let part_bytes = (self.core().options.slab_bytes_max / 4).saturating_sub(4096);
        let mut part = Vec::new();
        loop {
            part.clear();
            self.fill(&mut source, part_bytes, &mut part)?;
            if part.is_empty() {
                return Ok(());
            }
            if parts.each.len() >= VALUE_PARTS_MAX as usize {
                return Err(Error::TooLarge {
                    part: "value",
                    bytes: part_bytes.saturating_mul(u64::from(VALUE_PARTS_MAX).saturating_add(1)),
                    limit_bytes: part_bytes.saturating_mul(u64::from(VALUE_PARTS_MAX)),
                });
            }
            let fields = BufferFields::plain(ValueType::PART, &part);
            let offset = self.append_by(None, &fields, Rules::None)?;
            // How far before the message it stands is known once that has its offset.
            parts.each.push((offset.get(), ValuePart::of(&part, 0)));
        }
    }

    /// Reads so many bytes, or to the end of the source.
    fn fill(&self, source: impl Read, bytes: u64, into: &mut Vec<u8>) -> Result<()> {
        let read = source.take(bytes).read_to_end(into);
        read.map(|_| ()).map_err(|error| Error::ValueSource {
            name: self.name().to_owned(),
            source: Arc::new(error),
        })
    }

    /// Appends the message behind its parts.
    fn append_head(&mut self, message: &NewMessage<'_>, parts: &Parts) -> Result<Offset> {
        loop {
            let expected = self.next_offset();
            let value = LargeValue {
                value_type: message.fields.value_type,
                parts: parts.before(expected.get()),
            };
            let encoded = value.encode().map_err(|error| Error::InvalidValue {
                value_type: message.fields.value_type,
                format: "large value".to_owned(),
                reason: error.to_string(),
            })?;
            let fields = BufferFields {
                value: &encoded,
                value_type: ValueType::BY_REFERENCE,
                ..message.fields
            };
            match self.append_by(Some(expected), &fields, Rules::WithoutDiverting) {
                // A transaction came between.
                Err(Error::OffsetMismatch { .. }) => {}
                appended => return appended,
            }
        }
    }

    /// Deletes parts whose message does not come. That this may fail too changes nothing of what is told.
    fn take_back(&mut self, parts: &Parts) {
        for offsets in parts.runs() {
            let range = WantedRange::of(&offsets);
            if let Err(error) = self.core().delete(self.name(), range) {
                tracing::warn!(%error, "parts of a value that was not appended stay in the log");
            }
        }
    }
}

/// The parts appended so far, with their offsets.
#[derive(Debug, Default)]
struct Parts {
    each: Vec<(u64, ValuePart)>,
}

impl Parts {
    fn before(&self, head: u64) -> Vec<ValuePart> {
        let placed = self.each.iter().map(|(offset, part)| ValuePart {
            offsets_before: head.saturating_sub(*offset),
            ..*part
        });
        placed.collect()
    }

    /// Their offsets, as few ranges.
    fn runs(&self) -> Vec<Range<u64>> {
        let mut runs: Vec<Range<u64>> = Vec::new();
        for (offset, _) in &self.each {
            match runs.last_mut() {
                Some(run) if run.end == *offset => run.end = offset.saturating_add(1),
                _ => runs.push(*offset..offset.saturating_add(1)),
            }
        }
        runs
    }
}

impl Snapshot {
    /// The value of the message at `offset`, to be read in parts, or from any place of it: of one that
    /// [`Writer::append_large`] took in parts, or of any other.
    ///
    /// # Errors
    /// As [`get`](Self::get); [`Error::ValueCut`] if some of its parts are deleted.
    pub fn read_value(&self, offset: impl ToOffset) -> Result<ValueReader> {
        let offset = offset.to_offset();
        let mut cursor = self.cursor(self.start())?;
        let message = KeptMessage::from(&cursor.get(offset)?);
        ValueReader::new(self, cursor, message)
    }
}

impl Log {
    /// The value of the message at `offset`; see [`Snapshot::read_value`].
    ///
    /// # Errors
    /// As [`Snapshot::read_value`].
    pub fn read_value(&self, offset: impl ToOffset) -> Result<ValueReader> {
        self.snapshot().read_value(offset)
    }
}

/// A part of the value that is read.
#[derive(Debug)]
struct Piece {
    /// Where it begins in the value.
    start: u64,
    offset: u64,
    part: ValuePart,
}

/// A value, read part by part; see [`Snapshot::read_value`]. It holds the version of the log that it is of.
///
/// As [`Read`] and [`Seek`] it copies; [`next_part`](Self::next_part) does not.
#[derive(Debug)]
pub struct ValueReader {
    core: Arc<Core>,
    log: Arc<LogState>,
    cursor: Cursor,
    offset: u64,
    value_type: ValueType,
    value_bytes: u64,
    /// None of a value of one piece.
    pieces: Vec<Piece>,
    /// What is left of the part that is read.
    current: Bytes,
    position: u64,
    /// The value, if it is of one piece.
    whole: Bytes,
}

impl ValueReader {
    fn new(snapshot: &Snapshot, cursor: Cursor, message: KeptMessage) -> Result<Self> {
        let (core, log) = snapshot.owner();
        let mut reader = ValueReader {
            core,
            log,
            cursor,
            offset: message.offset().get(),
            value_type: message.value_type(),
            value_bytes: message.value().len() as u64,
            pieces: Vec::new(),
            current: message.value().clone(),
            position: 0,
            whole: message.value().clone(),
        };
        if reader.value_type != ValueType::BY_REFERENCE {
            return Ok(reader);
        }
        let decoded = LargeValue::decode(message.value());
        message.check()?;
        let value = decoded.map_err(|error| reader.damaged(reader.offset, reader.value_bytes, error))?;
        let mut start = 0u64;
        for part in &value.parts {
            let Some(offset) = reader.offset.checked_sub(part.offsets_before) else {
                return Err(reader.cut(0));
            };
            reader.pieces.push(Piece {
                start,
                offset,
                part: *part,
            });
            start = start.saturating_add(u64::from(part.bytes));
        }
        reader.value_type = value.value_type;
        reader.value_bytes = start;
        reader.current = Bytes::new();
        reader.whole = Bytes::new();
        // What is deleted is told before anything is read: mostly it is what stands at the front.
        if let Some(offset) = reader.pieces.first().map(|piece| piece.offset) {
            reader.part_at(offset)?;
        }
        Ok(reader)
    }

    /// Length of the value.
    #[must_use]
    pub fn value_bytes(&self) -> u64 {
        self.value_bytes
    }

    /// What the value is.
    #[must_use]
    pub fn value_type(&self) -> ValueType {
        self.value_type
    }

    /// The first of the offsets that the value takes, which is that of its first part; the last is its message's. To
    /// delete the value is to delete them all; between them may be messages that came meanwhile.
    #[must_use]
    pub fn first_offset(&self) -> Offset {
        Offset::new(self.pieces.first().map_or(self.offset, |piece| piece.offset))
    }

    /// The next bytes of the value, counted and not copied: what is left of a part. `None` at the value's end.
    ///
    /// # Errors
    /// [`Error::ValueCut`], [`Error::Damaged`], [`Error::Unreadable`].
    pub fn next_part(&mut self) -> Result<Option<Bytes>> {
        if self.current.is_empty() && !self.load()? {
            return Ok(None);
        }
        let bytes = std::mem::take(&mut self.current);
        self.position = self.position.saturating_add(bytes.len() as u64);
        Ok(Some(bytes))
    }

    /// Takes the bytes at the position; `false` at the end.
    fn load(&mut self) -> Result<bool> {
        if self.position >= self.value_bytes {
            return Ok(false);
        }
        if self.pieces.is_empty() {
            let at = usize::try_from(self.position).unwrap_or(usize::MAX);
            self.current = self.whole.slice(at.min(self.whole.len())..);
            return Ok(true);
        }
        let behind = self.pieces.partition_point(|piece| piece.start <= self.position);
        let Some(piece) = behind.checked_sub(1).and_then(|index| self.pieces.get(index)) else {
            return Ok(false);
        };
        let (start, offset, part) = (piece.start, piece.offset, piece.part);
        let bytes = self.part_at(offset)?;
        part.check(&bytes)
            .map_err(|error| self.damaged(offset, u64::from(part.bytes), error))?;
        let within = usize::try_from(self.position.saturating_sub(start)).unwrap_or(usize::MAX);
        self.current = bytes.slice(within.min(bytes.len())..);
        Ok(true)
    }

    fn part_at(&mut self, offset: u64) -> Result<Bytes> {
        match self.cursor.part(offset) {
            Ok(bytes) => Ok(bytes),
            Err(Error::Deleted { .. }) => Err(self.cut(offset)),
            Err(error) => Err(error),
        }
    }

    #[cold]
    fn cut(&self, missing: u64) -> Error {
        Error::ValueCut {
            name: self.log.name.as_str().to_owned(),
            offset: Offset::new(self.offset),
            missing: Offset::new(missing),
        }
    }

    #[cold]
    fn damaged(&self, offset: u64, bytes: u64, source: FormatError) -> Error {
        Error::Damaged(Box::new(Damage {
            path: self.core.path.clone(),
            segment: None,
            position: Position::new(source.at),
            bytes,
            log: Some(self.log.name.as_str().to_owned()),
            offsets: Some(offset..offset.saturating_add(1)),
            source,
        }))
    }
}

impl Read for ValueReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() || (self.current.is_empty() && !self.load().map_err(io::Error::other)?) {
            return Ok(0);
        }
        let bytes = out.len().min(self.current.len());
        if let Some(room) = out.get_mut(..bytes) {
            room.copy_from_slice(&self.current.split_to(bytes));
        }
        self.position = self.position.saturating_add(bytes as u64);
        Ok(bytes)
    }
}

impl Seek for ValueReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let wanted = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::End(distance) => self.value_bytes.checked_add_signed(distance),
            SeekFrom::Current(distance) => self.position.checked_add_signed(distance),
        };
        let before = || {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                "that is before the value's beginning",
            )
        };
        self.position = wanted.ok_or_else(before)?;
        self.current = Bytes::new();
        Ok(self.position)
    }
}
