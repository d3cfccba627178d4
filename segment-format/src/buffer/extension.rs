//! The extension of a buffer: time, count, extended type, key and headers, in this order, those whose flag is set.

use super::{RULES, flags};
use crate::buffer::ValueType;
use crate::convert::{index, part, wide};
use crate::error::{FormatError, Rule};
use crate::limits::{HEADERS_BYTES_MAX, KEY_BYTES_MAX};

/// An extension with the flags that say what it holds. Whoever makes one has checked that the fields of fixed width fit.
#[derive(Clone, Copy)]
pub(super) struct Extension<'a> {
    flags: u8,
    bytes: &'a [u8],
}

impl<'a> Extension<'a> {
    #[inline]
    pub(super) const fn new(flags: u8, bytes: &'a [u8]) -> Self {
        Self { flags, bytes }
    }

    /// Bytes of the fields of fixed width: eight for each flag of the three.
    #[inline]
    pub(super) fn fixed_bytes(flags: u8) -> usize {
        let fixed = flags & (flags::TIME | flags::COUNT | flags::EXTENDED_TYPE);
        index(fixed.count_ones().saturating_mul(8))
    }

    /// The field of `flag`, which stands behind those of all lesser flags.
    #[inline]
    fn fixed(&self, flag: u8) -> Option<[u8; 8]> {
        if self.flags & flag == 0 {
            return None;
        }
        let before = Self::fixed_bytes(self.flags & flag.wrapping_sub(1));
        self.bytes
            .get(before..)
            .and_then(|rest| rest.first_chunk::<8>())
            .copied()
    }

    #[inline]
    pub(super) fn time_ms(&self) -> Option<i64> {
        self.fixed(flags::TIME).map(i64::from_le_bytes)
    }

    #[inline]
    pub(super) fn count(&self) -> Option<u64> {
        self.fixed(flags::COUNT).map(u64::from_le_bytes)
    }

    #[inline]
    pub(super) fn extended_type(&self) -> Option<u64> {
        self.fixed(flags::EXTENDED_TYPE).map(u64::from_le_bytes)
    }

    pub(super) fn key(&self) -> Result<Option<&'a [u8]>, FormatError> {
        if self.flags & flags::KEY == 0 {
            return Ok(None);
        }
        let at = Self::fixed_bytes(self.flags);
        let key_bytes = self.length(at)?;
        let limit = u64::from(KEY_BYTES_MAX);
        RULES.require(
            u64::from(key_bytes) <= limit,
            Rule::Limit,
            wide(at),
            limit,
            u64::from(key_bytes),
        )?;
        part(self.bytes, at.saturating_add(4), index(key_bytes), RULES).map(Some)
    }

    pub(super) fn headers(&self) -> Result<Headers<'a>, FormatError> {
        if self.flags & flags::HEADERS == 0 {
            return Ok(Headers::default());
        }
        let at = self.headers_at()?;
        let remaining = self.length(at)?;
        let bytes = self.bytes.get(at.saturating_add(4)..).unwrap_or_default();
        Ok(Headers { bytes, remaining })
    }

    fn headers_at(&self) -> Result<usize, FormatError> {
        let key_bytes = self.key()?.map_or(0, |key| key.len().saturating_add(4));
        Ok(Self::fixed_bytes(self.flags).saturating_add(key_bytes))
    }

    fn length(&self, at: usize) -> Result<u32, FormatError> {
        let bytes = part(self.bytes, at, 4, RULES)?;
        Ok(bytes.first_chunk::<4>().copied().map_or(0, u32::from_le_bytes))
    }

    pub(super) fn validate(&self) -> Result<(), FormatError> {
        if let Some(id) = self.extended_type() {
            // What fits the header's byte is written there: one type has one form.
            let needs_extension = ValueType::new(id).code_byte().is_none() && ValueType::new(id).is_valid();
            RULES.require(needs_extension, Rule::Kind, 8, 256, id)?;
        }
        let mut end = self.headers_at()?;
        if self.flags & flags::HEADERS != 0 {
            end = self.validate_headers(end)?;
        }
        let padding = self.bytes.get(end..).unwrap_or_default();
        RULES.require(
            padding.len() < 8,
            Rule::Bounds,
            4,
            wide(end),
            wide(self.bytes.len()),
        )?;
        RULES.require(
            padding.iter().all(|byte| *byte == 0),
            Rule::Reserved,
            wide(end),
            0,
            1,
        )
    }

    /// The headers' end.
    fn validate_headers(&self, at: usize) -> Result<usize, FormatError> {
        let mut headers = self.headers()?;
        let wanted = headers.remaining;
        let found = headers.by_ref().fold(0_u32, |count, _| count.saturating_add(1));
        RULES.require(
            found == wanted,
            Rule::Count,
            wide(at),
            u64::from(wanted),
            u64::from(found),
        )?;
        // Nothing is empty in vain: the flag says that there is at least one.
        RULES.require(wanted != 0, Rule::Zero, wide(at), 1, 0)?;
        let end = self.bytes.len().saturating_sub(headers.bytes.len());
        let (limit, length) = (u64::from(HEADERS_BYTES_MAX), wide(end.saturating_sub(at)));
        RULES.require(length <= limit, Rule::Limit, wide(at), limit, length)?;
        Ok(end)
    }
}

/// The headers of a message: name and value.
#[derive(Clone, Debug, Default)]
pub struct Headers<'a> {
    bytes: &'a [u8],
    remaining: u32,
}

impl<'a> Headers<'a> {
    fn take(&mut self) -> Option<(&'a [u8], &'a [u8])> {
        let (name_bytes, rest) = self.bytes.split_first_chunk::<4>()?;
        let (value_bytes, rest) = rest.split_first_chunk::<4>()?;
        let (name, rest) = rest.split_at_checked(index(u32::from_le_bytes(*name_bytes)))?;
        let (value, rest) = rest.split_at_checked(index(u32::from_le_bytes(*value_bytes)))?;
        self.bytes = rest;
        Some((name, value))
    }
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        self.remaining = self.remaining.checked_sub(1)?;
        let header = self.take();
        if header.is_none() {
            self.remaining = 0;
        }
        header
    }
}
