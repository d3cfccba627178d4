//! Encoding of buffers.

use super::{BUFFER_HEADER_BYTES, RULES, RawBuffer, ValueType, flags};
use crate::block::Filler;
use crate::convert::{index, narrow, round_up_to_8, wide};
use crate::error::{FormatError, Rule};
use crate::limits::{HEADERS_BYTES_MAX, KEY_BYTES_MAX, VALUE_BYTES_MAX};
use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U32};

/// All that a message can have.
#[derive(Clone, Copy, Debug)]
pub struct BufferFields<'a> {
    /// Type of the value.
    pub value_type: ValueType,
    /// The message's time.
    pub time_ms: Option<i64>,
    /// Number of offsets that the buffer takes, mostly 1.
    pub count: u64,
    /// The key; an empty key differs from none.
    pub key: Option<&'a [u8]>,
    /// Names and values.
    pub headers: &'a [(&'a [u8], &'a [u8])],
    /// The value.
    pub value: &'a [u8],
}

impl<'a> BufferFields<'a> {
    /// A message that has only a value.
    pub const fn plain(value_type: ValueType, value: &'a [u8]) -> Self {
        Self {
            value_type,
            time_ms: None,
            count: 1,
            key: None,
            headers: &[],
            value,
        }
    }

    /// Whether it is one message with nothing beside a value whose type fits the buffer's header, and no part of a value.
    #[inline]
    pub fn is_plain(&self) -> bool {
        self.flags() == 0 && self.value_type != ValueType::PART
    }

    /// The bytes that the stored message takes.
    ///
    /// # Errors
    ///
    /// [`Rule::Limit`] if a part is too long, [`Rule::Zero`] if the count is 0, [`Rule::Kind`] if the type is none.
    pub fn encoded_bytes(&self) -> Result<u32, FormatError> {
        let value_bytes = self.value_bytes()?;
        let extension_bytes = self.extension_bytes()?;
        let header_bytes = narrow(BUFFER_HEADER_BYTES, RULES, 0)?;
        Ok(round_up_to_8(value_bytes)
            .saturating_add(extension_bytes)
            .saturating_add(header_bytes))
    }

    /// Writes the message to the beginning of `out`, padding included, and returns its length.
    ///
    /// # Errors
    ///
    /// As [`Self::encoded_bytes`], and [`Rule::NoRoom`] if `out` is shorter; then nothing that was written counts.
    pub fn encode(&self, out: &mut [u8]) -> Result<u32, FormatError> {
        let stored_bytes = self.encoded_bytes()?;
        let extension_words = self.extension_bytes()?.wrapping_shr(3);
        let words = u16::try_from(extension_words)
            .map_err(|_| RULES.breaks(Rule::Limit, 4, u64::from(u16::MAX), u64::from(extension_words)))?;
        let header = RawBuffer {
            value_bytes: U32::new(self.value_bytes()?),
            extension_words: U16::new(words),
            flags: self.flags(),
            value_type: self.value_type.code_byte().unwrap_or(ValueType::EXTENDED_CODE),
        };
        let available = wide(out.len());
        let no_room = RULES.breaks(Rule::NoRoom, 0, u64::from(stored_bytes), available);
        let mut filler = Filler::new(out.get_mut(..index(stored_bytes)).ok_or(no_room)?, RULES);
        filler.push(header.as_bytes())?;
        self.fill_extension(&mut filler)?;
        filler.pad_to_8()?;
        filler.push(self.value)?;
        filler.pad_to_8()?;
        Ok(stored_bytes)
    }

    fn fill_extension(&self, filler: &mut Filler<'_>) -> Result<(), FormatError> {
        if let Some(time_ms) = self.time_ms {
            filler.push(&time_ms.to_le_bytes())?;
        }
        if self.count != 1 {
            filler.push(&self.count.to_le_bytes())?;
        }
        if self.value_type.code_byte().is_none() {
            filler.push(&self.value_type.get().to_le_bytes())?;
        }
        if let Some(key) = self.key {
            filler.push(&narrow(key.len(), RULES, 8)?.to_le_bytes())?;
            filler.push(key)?;
        }
        if !self.headers.is_empty() {
            filler.push(&narrow(self.headers.len(), RULES, 8)?.to_le_bytes())?;
        }
        self.headers.iter().try_for_each(|(name, value)| {
            filler.push(&narrow(name.len(), RULES, 8)?.to_le_bytes())?;
            filler.push(&narrow(value.len(), RULES, 8)?.to_le_bytes())?;
            filler.push(name)?;
            filler.push(value)
        })
    }

    fn flags(&self) -> u8 {
        let choices = [
            (self.time_ms.is_some(), flags::TIME),
            (self.count != 1, flags::COUNT),
            (self.value_type.code_byte().is_none(), flags::EXTENDED_TYPE),
            (self.key.is_some(), flags::KEY),
            (!self.headers.is_empty(), flags::HEADERS),
        ];
        choices
            .into_iter()
            .fold(0, |all, (present, flag)| if present { all | flag } else { all })
    }

    fn value_bytes(&self) -> Result<u32, FormatError> {
        let (limit, length) = (u64::from(VALUE_BYTES_MAX), wide(self.value.len()));
        RULES.require(length <= limit, Rule::Limit, 0, limit, length)?;
        RULES.require(self.count != 0, Rule::Zero, 8, 1, 0)?;
        RULES.require(
            self.value_type.is_valid(),
            Rule::Kind,
            7,
            1,
            self.value_type.get(),
        )?;
        narrow(self.value.len(), RULES, 0)
    }

    /// Length of the extension with its padding. The limits keep it below what sixteen bits of words can say.
    fn extension_bytes(&self) -> Result<u32, FormatError> {
        let fixed_flags = self.flags() & (flags::TIME | flags::COUNT | flags::EXTENDED_TYPE);
        let mut bytes = wide(index(fixed_flags.count_ones().saturating_mul(8)));
        if let Some(key) = self.key {
            let (limit, length) = (u64::from(KEY_BYTES_MAX), wide(key.len()));
            RULES.require(length <= limit, Rule::Limit, 8, limit, length)?;
            bytes = bytes.saturating_add(length).saturating_add(4);
        }
        if !self.headers.is_empty() {
            let length = self.headers.iter().fold(4_u64, |sum, (name, value)| {
                sum.saturating_add(8)
                    .saturating_add(wide(name.len()))
                    .saturating_add(wide(value.len()))
            });
            let limit = u64::from(HEADERS_BYTES_MAX);
            RULES.require(length <= limit, Rule::Limit, 8, limit, length)?;
            bytes = bytes.saturating_add(length);
        }
        let narrow_bytes = u32::try_from(bytes).map_err(|_| RULES.breaks(Rule::Limit, 8, 0, bytes))?;
        Ok(round_up_to_8(narrow_bytes))
    }
}
