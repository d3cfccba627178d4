//! Conversions between the widths of numbers, and slices by position: the only places where they may be done.

use crate::error::{FormatError, Rule, Structure};
use zerocopy::{FromBytes, Immutable, IntoBytes};

const _: () = assert!(
    usize::BITS >= 32 && usize::BITS <= 64,
    "positions in a block must fit an index"
);

/// A block position as an index.
#[inline]
pub const fn index(number: u32) -> usize {
    // Lossless by the assertion above; `try_from` is not const.
    let [a, b, c, d] = number.to_le_bytes();
    let mut wide = [0; size_of::<usize>()];
    let [first, second, third, fourth, ..] = &mut wide;
    (*first, *second, *third, *fourth) = (a, b, c, d);
    usize::from_le_bytes(wide)
}

/// A length in memory as a number of 64 bits.
#[inline]
pub fn wide(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

/// `number` rounded up to a multiple of 8; saturates at the greatest multiple.
#[inline]
pub const fn round_up_to_8(number: u32) -> u32 {
    number.saturating_add(7) & !7
}

/// A number that is not negative as the nearest whole one; the greatest for what is beyond it, and 0 for what is none.
pub fn rounded(number: f64) -> u64 {
    const MANTISSA_BITS: u32 = f64::MANTISSA_DIGITS - 1;
    if number.is_nan() || number <= 0.0 {
        return 0;
    }
    let bits = (number + 0.5).to_bits();
    let mantissa = bits & ((1 << MANTISSA_BITS) - 1) | 1 << MANTISSA_BITS;
    // The exponent of 1 is stored as 1023; a sum of a half and more is at least a half, whose exponent is one less.
    match u32::try_from(bits >> MANTISSA_BITS).map(|exponent| exponent.checked_sub(1023)) {
        Ok(Some(exponent)) if exponent < MANTISSA_BITS => mantissa >> MANTISSA_BITS.saturating_sub(exponent),
        Ok(Some(exponent)) if exponent < u64::BITS => mantissa << exponent.saturating_sub(MANTISSA_BITS),
        Ok(None) => 0,
        _ => u64::MAX,
    }
}

/// A length in memory as a length on disk.
pub(crate) fn narrow(number: usize, structure: Structure, at: u64) -> Result<u32, FormatError> {
    let limit = u64::from(crate::limits::BLOCK_BYTES_MAX);
    u32::try_from(number).map_err(|_| structure.breaks(Rule::Limit, at, limit, wide(number)))
}

/// The bytes `at .. at + length` of `bytes`.
pub(crate) fn part(
    bytes: &[u8],
    at: usize,
    length: usize,
    structure: Structure,
) -> Result<&[u8], FormatError> {
    let end = at.checked_add(length);
    end.and_then(|end| bytes.get(at..end))
        .ok_or_else(|| too_short(bytes.len(), at, length, structure))
}

/// Copies `source` to `out[at ..]`.
pub(crate) fn put(out: &mut [u8], at: usize, source: &[u8], structure: Structure) -> Result<(), FormatError> {
    let available = out.len();
    let target = at.checked_add(source.len()).and_then(|end| out.get_mut(at..end));
    match target {
        Some(target) => {
            target.copy_from_slice(source);
            Ok(())
        }
        None => Err(no_room(available, at, source.len(), structure)),
    }
}

/// Writes zeros over `out[from .. to]`.
pub(crate) fn zero(out: &mut [u8], from: usize, to: usize, structure: Structure) -> Result<(), FormatError> {
    let available = out.len();
    match out.get_mut(from..to) {
        Some(target) => {
            target.fill(0);
            Ok(())
        }
        None => Err(no_room(available, from, to.saturating_sub(from), structure)),
    }
}

/// A copy of the structure at `bytes[at ..]`.
pub(crate) fn read<T: FromBytes + Immutable>(
    bytes: &[u8],
    at: usize,
    structure: Structure,
) -> Result<T, FormatError> {
    let source = part(bytes, at, size_of::<T>(), structure)?;
    T::read_from_bytes(source).map_err(|_| too_short(bytes.len(), at, size_of::<T>(), structure))
}

/// Writes a structure to `out[at ..]`.
pub(crate) fn write<T: IntoBytes + Immutable>(
    out: &mut [u8],
    at: usize,
    value: &T,
    structure: Structure,
) -> Result<(), FormatError> {
    put(out, at, value.as_bytes(), structure)
}

fn too_short(available: usize, at: usize, length: usize, structure: Structure) -> FormatError {
    structure.breaks(
        Rule::Truncated,
        wide(at),
        wide(at.saturating_add(length)),
        wide(available),
    )
}

fn no_room(available: usize, at: usize, length: usize, structure: Structure) -> FormatError {
    structure.breaks(
        Rule::NoRoom,
        wide(at),
        wide(at.saturating_add(length)),
        wide(available),
    )
}
