//! Large values: values that are no one buffer, but parts that stand before their message in the same log.
//!
//! A message of the type [`ValueType::BY_REFERENCE`] has this structure as its value. Each part is the value of a buffer
//! of the type [`ValueType::PART`], which is no message: it has an offset, and readers pass over it.
//!
//! Invariants: parts are named in the order of their bytes, which is that of their offsets; they are named by how many
//! offsets they stand before the message, so that a log, or a part of one, can be taken up elsewhere.

use crate::buffer::ValueType;
use crate::checksum::crc32;
use crate::convert::{index, narrow, read, wide};
use crate::error::{FormatError, Rule, Structure};
use crate::ids::Crc;
use crate::limits::{VALUE_BYTES_MAX, VALUE_PARTS_MAX};
use zerocopy::IntoBytes;
use zerocopy::little_endian::{U32, U64};

const RULES: Structure = Structure::LargeValue;
const HEADER_BYTES: usize = size_of::<RawLargeValue>();
const PART_BYTES: usize = size_of::<RawValuePart>();

/// The parts stand in the same log, before the message.
const KIND_BEFORE: u32 = 1;

wire_struct! {
    struct RawLargeValue is "LargeValue", 32 bytes {
        0 kind: U32,
        4 part_count: U32,
        8 value_type: U64,
        16 value_bytes: U64,
        24 reserved_24: U64,
    }
}

wire_struct! {
    struct RawValuePart is "ValuePart", 16 bytes {
        0 offsets_before: U64,
        8 bytes: U32,
        12 crc: U32,
    }
}

/// A part of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValuePart {
    /// How many offsets it stands before the message.
    pub offsets_before: u64,
    /// How many bytes it has.
    pub bytes: u32,
    /// Their checksum.
    pub crc: Crc,
}

impl ValuePart {
    /// A part that has these bytes.
    #[must_use]
    pub fn of(bytes: &[u8], offsets_before: u64) -> Self {
        Self {
            offsets_before,
            bytes: u32::try_from(bytes.len()).unwrap_or(u32::MAX),
            crc: checksum(bytes),
        }
    }

    /// Compares it with the bytes that were found.
    ///
    /// # Errors
    ///
    /// [`Rule::Count`] or [`Rule::Checksum`] if they are others.
    pub fn check(&self, bytes: &[u8]) -> Result<(), FormatError> {
        let (expected, found) = (u64::from(self.bytes), wide(bytes.len()));
        RULES.require(expected == found, Rule::Count, 8, expected, found)?;
        let (expected, found) = (u64::from(self.crc.get()), u64::from(checksum(bytes).get()));
        let is_whole = expected == found || crate::weakened!("part-unchecked");
        RULES.require(is_whole, Rule::Checksum, 12, expected, found)
    }
}

fn checksum(bytes: &[u8]) -> Crc {
    Crc::new(crc32(0, bytes))
}

/// What the message of a large value says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LargeValue {
    /// What the value is.
    pub value_type: ValueType,
    /// Its parts, in order.
    pub parts: Vec<ValuePart>,
}

impl LargeValue {
    /// Length of the value; parts are few and short enough for every sum of them.
    #[must_use]
    pub fn value_bytes(&self) -> u64 {
        self.parts
            .iter()
            .fold(0, |sum: u64, part| sum.saturating_add(u64::from(part.bytes)))
    }

    fn check(&self) -> Result<(), FormatError> {
        let (limit, found) = (u64::from(VALUE_PARTS_MAX), wide(self.parts.len()));
        RULES.require(found <= limit, Rule::Limit, 4, limit, found)?;
        RULES.require(found != 0, Rule::Zero, 4, 1, 0)?;
        let known = self.value_type.is_valid();
        RULES.require(known, Rule::Kind, 8, 1, self.value_type.get())?;
        let mut before = u64::MAX;
        for (number, part) in self.parts.iter().enumerate() {
            let at = wide(number.saturating_mul(PART_BYTES).saturating_add(HEADER_BYTES));
            let found = part.offsets_before;
            RULES.require(found < before, Rule::Order, at, before, found)?;
            RULES.require(found != 0, Rule::Zero, at, 1, 0)?;
            let (limit, bytes) = (u64::from(VALUE_BYTES_MAX), u64::from(part.bytes));
            RULES.require(
                (1..=limit).contains(&bytes),
                Rule::Limit,
                at.saturating_add(8),
                limit,
                bytes,
            )?;
            before = found;
        }
        Ok(())
    }

    /// The value of its message.
    ///
    /// # Errors
    ///
    /// The rule that it breaks: no part or too many, or parts out of order.
    pub fn encode(&self) -> Result<Vec<u8>, FormatError> {
        self.check()?;
        let header = RawLargeValue {
            kind: U32::new(KIND_BEFORE),
            part_count: U32::new(narrow(self.parts.len(), RULES, 4)?),
            value_type: U64::new(self.value_type.get()),
            value_bytes: U64::new(self.value_bytes()),
            reserved_24: U64::ZERO,
        };
        let mut out = header.as_bytes().to_vec();
        for part in &self.parts {
            let raw = RawValuePart {
                offsets_before: U64::new(part.offsets_before),
                bytes: U32::new(part.bytes),
                crc: U32::new(part.crc.get()),
            };
            out.extend_from_slice(raw.as_bytes());
        }
        Ok(out)
    }

    /// Type and length of a large value, from the beginning of its message's value.
    ///
    /// # Errors
    ///
    /// The rule that the bytes break; those of the parts are not looked at.
    pub fn decode_head(bytes: &[u8]) -> Result<(ValueType, u64), FormatError> {
        let header: RawLargeValue = read(bytes, 0, RULES)?;
        let value_type = ValueType::new(header.value_type.get());
        RULES.require(value_type.is_valid(), Rule::Kind, 8, 1, value_type.get())?;
        Ok((value_type, header.value_bytes.get()))
    }

    /// Reads the value of a message of the type [`ValueType::BY_REFERENCE`].
    ///
    /// # Errors
    ///
    /// The rule that the bytes break.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let header: RawLargeValue = read(bytes, 0, RULES)?;
        let kind = header.kind.get();
        RULES.require(
            kind == KIND_BEFORE,
            Rule::Kind,
            0,
            u64::from(KIND_BEFORE),
            u64::from(kind),
        )?;
        let reserved = header.reserved_24.get();
        RULES.require(reserved == 0, Rule::Reserved, 24, 0, reserved)?;
        // Limit and remaining bytes before anything is allocated.
        let (limit, count) = (VALUE_PARTS_MAX, header.part_count.get());
        RULES.require(count <= limit, Rule::Limit, 4, u64::from(limit), u64::from(count))?;
        let needed = index(count)
            .saturating_mul(PART_BYTES)
            .saturating_add(HEADER_BYTES);
        RULES.require(
            needed == bytes.len(),
            Rule::Count,
            4,
            wide(needed),
            wide(bytes.len()),
        )?;
        let parts = (0..index(count)).map(|number| {
            let at = number.saturating_mul(PART_BYTES).saturating_add(HEADER_BYTES);
            let raw: RawValuePart = read(bytes, at, RULES)?;
            Ok(ValuePart {
                offsets_before: raw.offsets_before.get(),
                bytes: raw.bytes.get(),
                crc: Crc::new(raw.crc.get()),
            })
        });
        let value = Self {
            value_type: ValueType::new(header.value_type.get()),
            parts: parts.collect::<Result<_, _>>()?,
        };
        value.check()?;
        let (expected, found) = (value.value_bytes(), header.value_bytes.get());
        RULES.require(expected == found, Rule::Count, 16, expected, found)?;
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value() -> LargeValue {
        LargeValue {
            value_type: ValueType::new(70_001),
            parts: vec![ValuePart::of(b"abc", 9), ValuePart::of(b"defg", 2)],
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let encoded = value().encode().unwrap();
        assert_eq!(encoded.len(), 64);
        assert_eq!(LargeValue::decode(&encoded), Ok(value()));
        assert_eq!(LargeValue::decode_head(&encoded), Ok((ValueType::new(70_001), 7)));
        let part = value().parts[0];
        assert_eq!(part.check(b"abc"), Ok(()));
        assert_eq!(part.check(b"abd").unwrap_err().rule, Rule::Checksum);
        assert_eq!(part.check(b"abcd").unwrap_err().rule, Rule::Count);
    }

    #[test]
    fn what_breaks_a_rule_is_not_written() {
        let part = ValuePart::of(b"abc", 9);
        let refused = |parts: Vec<ValuePart>| LargeValue { parts, ..value() }.encode().unwrap_err().rule;
        assert_eq!(refused(vec![]), Rule::Zero);
        assert_eq!(refused(vec![part, part]), Rule::Order);
        assert_eq!(refused(vec![ValuePart::of(b"abc", 0)]), Rule::Zero);
        assert_eq!(refused(vec![ValuePart::of(b"", 1)]), Rule::Limit);
        let untyped = LargeValue {
            value_type: ValueType::new(0),
            ..value()
        };
        assert_eq!(untyped.encode().unwrap_err().rule, Rule::Kind);
    }

    #[test]
    fn hostile_bytes_are_no_large_value() {
        let with = |at: usize, bytes: &[u8]| {
            let mut encoded = value().encode().unwrap();
            encoded[at..at + bytes.len()].copy_from_slice(bytes);
            LargeValue::decode(&encoded).unwrap_err().rule
        };
        assert_eq!(with(0, &[0]), Rule::Kind);
        assert_eq!(with(4, &[1]), Rule::Count);
        assert_eq!(with(4, &u32::MAX.to_le_bytes()), Rule::Limit);
        assert_eq!(with(8, &0_u64.to_le_bytes()), Rule::Kind);
        assert_eq!(with(16, &[8]), Rule::Count);
        assert_eq!(with(24, &[1]), Rule::Reserved);
        assert_eq!(with(32, &[2]), Rule::Order);
        assert_eq!(with(40, &u32::MAX.to_le_bytes()), Rule::Limit);
        let encoded = value().encode().unwrap();
        for length in 0..encoded.len() {
            assert!(LargeValue::decode(&encoded[..length]).is_err());
        }
    }
}
