//! Buffers: the stored form of messages.
//!
//! Invariants: a buffer begins at a multiple of 8 and takes a multiple of 8 bytes; a word of zeros is no buffer; a
//! plain message costs its value and 8 bytes, rounded up to 8.

mod encode;
mod extension;
mod value_type;

pub use encode::BufferFields;
pub use extension::Headers;
pub use value_type::ValueType;

use crate::convert::{index, wide};
use crate::error::{FormatError, Rule, Structure};
use crate::limits::VALUE_BYTES_MAX;
use extension::Extension;
use zerocopy::little_endian::{U16, U32};

/// Length of a buffer's header.
pub const BUFFER_HEADER_BYTES: usize = 8;

pub(crate) const RULES: Structure = Structure::Buffer;

wire_struct! {
    struct RawBuffer is "BufferHeader", 8 bytes {
        0 value_bytes: U32,
        4 extension_words: U16,
        6 flags: u8,
        7 value_type: u8,
    }
}

pub(crate) mod flags {
    pub(crate) const TIME: u8 = 1;
    pub(crate) const COUNT: u8 = 2;
    pub(crate) const EXTENDED_TYPE: u8 = 4;
    pub(crate) const KEY: u8 = 8;
    pub(crate) const HEADERS: u8 = 16;
    pub(crate) const ALL: u8 = TIME | COUNT | EXTENDED_TYPE | KEY | HEADERS;
}

/// The bytes that a message without any extension takes.
#[inline]
pub const fn plain_stored_bytes(value_bytes: u32) -> u32 {
    value_bytes.saturating_add(15) & !7
}

/// The header of a message without any extension, as a little-endian word. The type must be one of a byte's width: an
/// extended type would need an extension, and is written as [`ValueType::BYTES`].
#[inline]
pub fn plain_header_word(value_bytes: u32, value_type: ValueType) -> u64 {
    let code = value_type.code_byte().unwrap_or(ValueType::BYTES_CODE);
    let [a, b, c, d] = value_bytes.to_le_bytes();
    u64::from_le_bytes([a, b, c, d, 0, 0, 0, code])
}

/// A stored message, found whole within its bytes.
#[derive(Clone, Copy, Debug)]
pub struct BufferView<'a> {
    value: &'a [u8],
    extension: &'a [u8],
    flags: u8,
    value_type: u8,
}

impl<'a> BufferView<'a> {
    /// Reads the buffer that `bytes` begins with; more bytes may follow.
    ///
    /// Lengths are checked, and the fixed fields of an extension; [`Self::validate`] checks the rest.
    ///
    /// # Errors
    ///
    /// The rule that the bytes break.
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<Self, FormatError> {
        if let Some((header, rest)) = bytes.split_first_chunk::<BUFFER_HEADER_BYTES>() {
            let [a, b, c, d, words_low, words_high, flags, value_type] = *header;
            let value_bytes = u32::from_le_bytes([a, b, c, d]);
            let plain = u32::from_le_bytes([words_low, words_high, flags, 0]) == 0;
            if plain && value_type.wrapping_sub(1) < ValueType::EXTENDED_CODE - 1 {
                // The limit needs no comparison here: the bytes that remain are the sharper one.
                if let Some(value) = rest.get(..index(value_bytes)) {
                    return Ok(Self {
                        value,
                        extension: &[],
                        flags: 0,
                        value_type,
                    });
                }
            }
        }
        Self::parse_any(bytes)
    }

    #[cold]
    #[inline(never)]
    fn refuse(bytes: &[u8]) -> FormatError {
        if bytes.len() < BUFFER_HEADER_BYTES {
            return RULES.breaks(Rule::Truncated, 0, wide(BUFFER_HEADER_BYTES), wide(bytes.len()));
        }
        let [a, b, c, d, ..] = *bytes else {
            return RULES.breaks(Rule::Truncated, 0, 8, wide(bytes.len()));
        };
        let value_bytes = u32::from_le_bytes([a, b, c, d]);
        let rule = if value_bytes > VALUE_BYTES_MAX {
            Rule::Limit
        } else {
            Rule::Truncated
        };
        RULES.breaks(rule, 0, u64::from(value_bytes), wide(bytes.len()))
    }

    #[inline(never)]
    fn parse_any(bytes: &'a [u8]) -> Result<Self, FormatError> {
        let Some((header, rest)) = bytes.split_first_chunk::<BUFFER_HEADER_BYTES>() else {
            return Err(Self::refuse(bytes));
        };
        let [a, b, c, d, words_low, words_high, flags, value_type] = *header;
        RULES.require(value_type != 0, Rule::Zero, 7, 1, 0)?;
        RULES.require(
            flags & !flags::ALL == 0,
            Rule::Flags,
            6,
            u64::from(flags::ALL),
            u64::from(flags),
        )?;
        let extended = flags & flags::EXTENDED_TYPE != 0;
        let agrees = extended == (value_type == ValueType::EXTENDED_CODE);
        RULES.require(agrees, Rule::Flags, 6, u64::from(value_type), u64::from(flags))?;
        let value_bytes = u32::from_le_bytes([a, b, c, d]);
        RULES.require(
            value_bytes <= VALUE_BYTES_MAX,
            Rule::Limit,
            0,
            u64::from(VALUE_BYTES_MAX),
            u64::from(value_bytes),
        )?;
        let extension_bytes = index(u32::from(u16::from_le_bytes([words_low, words_high])).saturating_mul(8));
        let Some((extension, rest)) = rest.split_at_checked(extension_bytes) else {
            return Err(Self::refuse(bytes));
        };
        let value = rest
            .get(..index(value_bytes))
            .ok_or_else(|| Self::refuse(bytes))?;
        let view = Self {
            value,
            extension,
            flags,
            value_type,
        };
        view.check_fixed()?;
        Ok(view)
    }

    /// The fields of fixed width lie within the extension, and the count is none that would hide the message.
    fn check_fixed(&self) -> Result<(), FormatError> {
        let needed = Extension::fixed_bytes(self.flags);
        let found = self.extension.len();
        RULES.require(needed <= found, Rule::Bounds, 4, wide(needed), wide(found))?;
        // Without a flag there is nothing to say, and a second form of the same message must not exist.
        RULES.require(self.flags != 0 || found == 0, Rule::Flags, 6, 0, wide(found))?;
        RULES.require(self.count() != 0, Rule::Zero, 8, 1, 0)
    }

    /// The value.
    #[inline]
    pub const fn value(&self) -> &'a [u8] {
        self.value
    }

    /// Whether readers pass over it: a run of deleted messages, or a part of a large value.
    #[inline]
    pub fn is_hidden(&self) -> bool {
        [ValueType::TOMBSTONES, ValueType::PART].contains(&self.value_type())
    }

    /// Whether it is one message, not deleted, with nothing beside its value.
    #[inline]
    pub fn is_plain(&self) -> bool {
        self.flags == 0
            && u64::from(self.value_type) != ValueType::TOMBSTONES.get()
            && u64::from(self.value_type) != ValueType::PART.get()
    }

    /// The type of the value.
    #[inline]
    pub fn value_type(&self) -> ValueType {
        match self.extension().extended_type() {
            Some(id) => ValueType::new(id),
            None => ValueType::new(u64::from(self.value_type)),
        }
    }

    /// The message's time.
    #[inline]
    pub fn time_ms(&self) -> Option<i64> {
        self.extension().time_ms()
    }

    /// Number of offsets that the buffer takes.
    #[inline]
    pub fn count(&self) -> u64 {
        if self.flags & flags::COUNT == 0 {
            return 1;
        }
        self.extension().count().unwrap_or(1)
    }

    /// The key; `None` if there is none, or if [`Self::validate`] would refuse the buffer.
    #[inline]
    pub fn key(&self) -> Option<&'a [u8]> {
        if self.flags & flags::KEY == 0 {
            return None;
        }
        self.extension().key().ok().flatten()
    }

    /// The headers, name and value; none if [`Self::validate`] would refuse the buffer.
    pub fn headers(&self) -> Headers<'a> {
        self.extension().headers().unwrap_or_default()
    }

    /// The bytes that the buffer takes.
    #[inline]
    pub fn stored_bytes(&self) -> u32 {
        // Both lengths were read from 32 and 16 bits and lie below 2^29, so nothing wraps and nothing is cut off.
        let length = self.extension.len().wrapping_add(self.value.len());
        u32::try_from(length).unwrap_or(u32::MAX).wrapping_add(15) & !7
    }

    /// Checks all of the extension.
    ///
    /// # Errors
    ///
    /// The rule that the extension breaks.
    pub fn validate(&self) -> Result<(), FormatError> {
        let limit = wide(index(VALUE_BYTES_MAX));
        RULES.require(
            wide(self.value.len()) <= limit,
            Rule::Limit,
            0,
            limit,
            wide(self.value.len()),
        )?;
        self.extension().validate()
    }

    #[inline]
    const fn extension(&self) -> Extension<'a> {
        Extension::new(self.flags, self.extension)
    }
}

/// The buffers of a body, one after the other.
#[derive(Clone, Debug)]
pub struct Walk<'a> {
    body: &'a [u8],
    at: u32,
    failed: bool,
}

/// Walks over the buffers of a body. Positions count from the body's beginning. The walk ends with the body, or behind
/// the first error.
pub const fn walk(body: &[u8]) -> Walk<'_> {
    Walk {
        body,
        at: 0,
        failed: false,
    }
}

impl<'a> Walk<'a> {
    /// Position of the next buffer.
    pub const fn position(&self) -> u32 {
        self.at
    }

    #[inline]
    fn step(&mut self, rest: &'a [u8]) -> Result<(u32, BufferView<'a>), FormatError> {
        let position = self.at;
        let placed = |error: FormatError| FormatError {
            at: error.at.saturating_add(u64::from(position)),
            ..error
        };
        let view = BufferView::parse(rest).map_err(placed)?;
        let stored_bytes = view.stored_bytes();
        // The padding belongs to the buffer: where it is cut off, the next buffer's position would lie outside.
        if index(stored_bytes) > rest.len() {
            return Err(placed(RULES.breaks(
                Rule::Truncated,
                0,
                u64::from(stored_bytes),
                wide(rest.len()),
            )));
        }
        self.at = position.saturating_add(stored_bytes);
        Ok((position, view))
    }
}

impl<'a> Iterator for Walk<'a> {
    type Item = Result<(u32, BufferView<'a>), FormatError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let rest = self
            .body
            .get(index(self.at)..)
            .filter(|rest| !rest.is_empty() && !self.failed)?;
        let step = self.step(rest);
        self.failed = step.is_err();
        Some(step)
    }
}

#[cfg(test)]
mod tests;
