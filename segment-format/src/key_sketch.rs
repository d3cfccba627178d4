//! How many different keys there are, in a few hundred bytes: a HyperLogLog sketch.
//!
//! A key falls by its hash into one of 1,024 registers, and each register keeps the greatest number of leading zeros, plus
//! one, of the remaining bits of the hashes that fell into it (Flajolet, Fusy, Gandouet, Meunier, HyperLogLog, 2007, with a hash
//! of 64 bits as in Heule, Nunkesser, Hall, HyperLogLog in Practice, 2013). Registers of parts put together by their maxima are
//! those of the whole, so sketches merge upwards like summaries. The estimate is that of Ertl, New Cardinality Estimation
//! Algorithms for HyperLogLog Sketches, 2017, which needs no tables and is good for few keys and for many: the standard
//! error is 1.04 / sqrt(1024), 3.25 %.
//!
//! Invariant: a sketch has one stored form: that of the registers that are not zero while it is the shorter one, otherwise that of all.

use crate::convert::{index, rounded, wide};
use crate::error::{FormatError, Rule, Structure};
use crate::key_page::key_hash;
use core::fmt;
use std::sync::Arc;

const RULES: Structure = Structure::KeySketch;

/// Number of registers.
pub const KEY_SKETCH_REGISTERS: usize = 1 << INDEX_BITS;
const INDEX_BITS: u32 = 10;
/// Bits of a register: 31 stands for 31 and more, which is met with from some 2^40 keys on.
const VALUE_BITS: u32 = 5;
const VALUE_MAX: u8 = (1 << VALUE_BITS) - 1;
/// Registers that are packed together: eight of five bits are five bytes.
const PACKED_REGISTERS: usize = 8;
const PACKED_BYTES: usize = 5;
/// Bytes of an entry of the shorter form: a sketch takes at most so many for each key.
pub const KEY_SKETCH_ENTRY_BYTES: usize = 2;

/// The most bytes that a sketch takes.
pub const KEY_SKETCH_BYTES_MAX: usize = 640;
/// From so many registers that are not zero on all of them are stored.
const DENSE_FROM: usize = KEY_SKETCH_BYTES_MAX / KEY_SKETCH_ENTRY_BYTES;

const _: () = assert!(KEY_SKETCH_REGISTERS / PACKED_REGISTERS * PACKED_BYTES == KEY_SKETCH_BYTES_MAX);

/// The keys of a slab or a subtree, as a sketch in its stored form. Cloning counts an owner. One without bytes is that of no
/// keys, or of keys that nobody looked at; whoever has the bytes of the keys knows which.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct KeySketch(Option<Arc<[u8]>>);

impl fmt::Debug for KeySketch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "KeySketch({} bytes)", self.bytes().len())
    }
}

impl KeySketch {
    /// The sketch of no keys.
    pub const EMPTY: Self = Self(None);

    /// Reads the stored form, all of `bytes`.
    ///
    /// # Errors
    ///
    /// The rule that the bytes break.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let (limit, found) = (wide(KEY_SKETCH_BYTES_MAX), wide(bytes.len()));
        RULES.require(found <= limit, Rule::Limit, 0, limit, found)?;
        if bytes.len() == KEY_SKETCH_BYTES_MAX {
            let least = wide(DENSE_FROM);
            let set = wide(unpacked(bytes).filter(|(_, value)| *value != 0).count());
            RULES.require(set >= least, Rule::Count, 0, least, set)?;
        } else {
            check_entries(bytes)?;
        }
        Ok(Self((!bytes.is_empty()).then(|| Arc::from(bytes))))
    }

    /// The stored form; empty of no keys.
    pub fn bytes(&self) -> &[u8] {
        self.0.as_deref().unwrap_or_default()
    }

    /// Whether it tells of no key.
    pub const fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// The registers that are not zero, with their numbers.
    fn registers(&self) -> impl Iterator<Item = (usize, u8)> + '_ {
        let (dense, sparse) = match self.bytes() {
            bytes if bytes.len() == KEY_SKETCH_BYTES_MAX => (bytes, [].as_slice()),
            bytes => ([].as_slice(), bytes),
        };
        unpacked(dense).chain(entries(sparse))
    }
}

/// Number and value of each entry of the shorter form.
fn entries(bytes: &[u8]) -> impl Iterator<Item = (usize, u8)> + '_ {
    bytes.as_chunks::<KEY_SKETCH_ENTRY_BYTES>().0.iter().map(|entry| {
        let number = u32::from(u16::from_le_bytes(*entry)) >> VALUE_BITS;
        (index(number), entry[0] & VALUE_MAX)
    })
}

fn check_entries(bytes: &[u8]) -> Result<(), FormatError> {
    let found = wide(bytes.len());
    RULES.require(found.is_multiple_of(2), Rule::Alignment, 0, 2, found)?;
    let mut before = None;
    for (at, (number, value)) in (0..).step_by(KEY_SKETCH_ENTRY_BYTES).zip(entries(bytes)) {
        let (limit, found) = (wide(KEY_SKETCH_REGISTERS), wide(number));
        RULES.require(number < KEY_SKETCH_REGISTERS, Rule::Bounds, at, limit, found)?;
        RULES.require(value != 0, Rule::Zero, at, 1, 0)?;
        let least = before.map_or(0, |before: u64| before.saturating_add(1));
        RULES.require(found >= least, Rule::Order, at, least, found)?;
        before = Some(found);
    }
    Ok(())
}

/// Number and value of each register of the longer form.
fn unpacked(bytes: &[u8]) -> impl Iterator<Item = (usize, u8)> + '_ {
    let groups = bytes.as_chunks::<PACKED_BYTES>().0.iter();
    let values = groups.flat_map(|[a, b, c, d, e]| {
        let word = u64::from_le_bytes([*a, *b, *c, *d, *e, 0, 0, 0]);
        (0..PACKED_REGISTERS).map(move |number| low_byte(word >> shift(number)) & VALUE_MAX)
    });
    values.enumerate()
}

/// Where a register stands in its group, in bits.
fn shift(number: usize) -> u64 {
    wide(number).saturating_mul(u64::from(VALUE_BITS))
}

const fn low_byte(word: u64) -> u8 {
    word.to_le_bytes()[0]
}

/// A sketch that is being made.
#[derive(Clone)]
pub struct KeySketchBuilder {
    registers: Box<[u8; KEY_SKETCH_REGISTERS]>,
}

impl Default for KeySketchBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for KeySketchBuilder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "KeySketchBuilder(about {})", self.estimate())
    }
}

impl KeySketchBuilder {
    /// Of no keys.
    pub fn new() -> Self {
        Self {
            registers: Box::new([0; KEY_SKETCH_REGISTERS]),
        }
    }

    /// Adds a key. The empty key counts for none, so that a part without bytes of keys has no sketch.
    #[inline]
    pub fn insert(&mut self, key: &[u8]) {
        if !key.is_empty() {
            self.insert_hash(key_hash(key));
        }
    }

    /// Adds the key with that [`key_hash`].
    #[inline]
    pub fn insert_hash(&mut self, hash: u64) {
        let [number, value] = [hash >> (u64::BITS - INDEX_BITS), hash << INDEX_BITS];
        let value = value.leading_zeros().saturating_add(1).min(u32::from(VALUE_MAX));
        let number = usize::try_from(number).unwrap_or(0);
        self.raise(number, low_byte(u64::from(value)));
    }

    #[inline]
    fn raise(&mut self, number: usize, value: u8) {
        if let Some(register) = self.registers.get_mut(number) {
            *register = value.max(*register);
        }
    }

    /// Adds the keys of a sketch.
    pub fn merge(&mut self, sketch: &KeySketch) {
        for (number, value) in sketch.registers() {
            self.raise(number, value);
        }
    }

    /// About how many different keys were added. The standard error is 3.25 %; of a few keys hardly any.
    pub fn estimate(&self) -> u64 {
        let mut counts = [0_u32; 1 << VALUE_BITS];
        for value in self.registers.iter() {
            if let Some(count) = counts.get_mut(usize::from(*value)) {
                *count = count.saturating_add(1);
            }
        }
        estimate(&counts)
    }

    /// The sketch in its stored form.
    pub fn finish(&self) -> KeySketch {
        let numbered = || {
            (0_u16..)
                .zip(self.registers.iter())
                .filter(|(_, value)| **value != 0)
        };
        let set = numbered().count();
        if set == 0 {
            return KeySketch::EMPTY;
        }
        let bytes = if set < DENSE_FROM {
            let entry =
                |(number, value): (u16, &u8)| (number << VALUE_BITS | u16::from(*value)).to_le_bytes();
            numbered().flat_map(entry).collect()
        } else {
            self.registers
                .as_chunks::<PACKED_REGISTERS>()
                .0
                .iter()
                .flat_map(packed)
                .collect::<Vec<u8>>()
        };
        KeySketch(Some(Arc::from(bytes)))
    }
}

fn packed(registers: &[u8; PACKED_REGISTERS]) -> [u8; PACKED_BYTES] {
    let word = (0..).zip(registers).fold(0, |word, (number, value)| {
        word | u64::from(*value) << shift(number)
    });
    let [a, b, c, d, e, ..] = word.to_le_bytes();
    [a, b, c, d, e]
}

/// The estimate of Ertl's, for as many registers of each value as `counts` says.
fn estimate(counts: &[u32; 1 << VALUE_BITS]) -> u64 {
    let registers = counts.iter().map(|count| f64::from(*count)).sum::<f64>();
    let [zeros, middle @ .., full] = counts;
    let mut z = registers * tau(1.0 - f64::from(*full) / registers);
    for count in middle.iter().rev() {
        z = 0.5 * (z + f64::from(*count));
    }
    z += registers * sigma(f64::from(*zeros) / registers);
    rounded(registers * registers / (2.0 * core::f64::consts::LN_2 * z))
}

/// What registers without a key weigh: `x + x^2 + 2 x^4 + 4 x^8 + ...`; nothing is without bound if all are.
fn sigma(mut x: f64) -> f64 {
    if x >= 1.0 {
        return f64::INFINITY;
    }
    let (mut weight, mut sum) = (1.0, x);
    loop {
        x *= x;
        let before = sum;
        sum += x * weight;
        weight += weight;
        if sum <= before {
            return sum;
        }
    }
}

/// What registers with the greatest value weigh.
fn tau(mut x: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return 0.0;
    }
    let (mut weight, mut sum) = (1.0, 1.0 - x);
    loop {
        x = x.sqrt();
        let before = sum;
        weight *= 0.5;
        sum -= (1.0 - x) * (1.0 - x) * weight;
        if sum >= before {
            return sum / 3.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(keys: core::ops::Range<u64>) -> KeySketchBuilder {
        let mut builder = KeySketchBuilder::new();
        keys.for_each(|key| builder.insert(&key.to_le_bytes()));
        builder
    }

    fn refused(bytes: &[u8]) -> Rule {
        KeySketch::decode(bytes).unwrap_err().rule
    }

    #[test]
    fn the_estimate_of_any_number_of_keys_is_within_three_standard_errors() {
        for (number, first) in [1_u64, 2, 10, 100, 319, 1000, 5000, 30_000, 200_000]
            .into_iter()
            .zip((0..).step_by(1 << 30))
        {
            let found = of(first..first + number).estimate();
            // Few keys hardly ever meet in a register.
            let allowed = (number * 98 / 1000).max(number.min(2) / 2);
            assert!(found.abs_diff(number) <= allowed, "{found} for {number} keys");
        }
        assert_eq!(of(0..0).estimate(), 0);
    }

    #[test]
    fn the_standard_error_over_many_sketches_is_the_one_that_is_stated() {
        for number in [500_u64, 4000, 20_000] {
            let trials = 100;
            let squares = (0..trials).map(|trial| {
                let first = trial << 32;
                let found = of(first..first + number).estimate();
                let error = (found as f64 - number as f64) / number as f64;
                error * error
            });
            let error = (squares.sum::<f64>() / trials as f64).sqrt();
            // 100 trials tell the standard error itself to a seventh or so.
            assert!(error < 0.0325 * 1.25, "{error} of {number} keys");
        }
    }

    #[test]
    fn sketches_of_parts_put_together_are_the_sketch_of_the_whole() {
        for (cut, end) in [(3, 5), (200, 500), (5000, 9000)] {
            let mut merged = KeySketchBuilder::new();
            merged.merge(&of(0..cut).finish());
            merged.merge(&of(cut / 2..end).finish());
            assert_eq!(merged.finish(), of(0..end).finish());
        }
    }

    #[test]
    fn what_is_stored_is_read_in_either_form_and_has_one_form_alone() {
        let mut forms = [0, 0];
        for keys in [0, 1, 100, 300, 350, 370, 380, 400, 1000, 100_000] {
            let sketch = of(0..keys).finish();
            assert_eq!(KeySketch::decode(sketch.bytes()), Ok(sketch.clone()));
            let set = sketch.registers().filter(|(_, value)| *value != 0).count();
            assert_eq!(sketch.bytes().len(), (2 * set).min(KEY_SKETCH_BYTES_MAX));
            forms[usize::from(set >= DENSE_FROM)] += 1;
        }
        assert!(forms.iter().all(|count| *count > 2), "{forms:?}");
    }

    #[test]
    fn the_empty_key_counts_for_none() {
        let mut builder = KeySketchBuilder::new();
        builder.insert(b"");
        assert!(builder.finish().is_empty());
    }

    #[test]
    fn a_sketch_that_breaks_a_rule_is_refused() {
        assert_eq!(refused(&[1]), Rule::Alignment);
        assert_eq!(refused(&[32, 0]), Rule::Zero);
        assert_eq!(refused(&[33, 0x80]), Rule::Bounds);
        assert_eq!(refused(&[65, 0, 33, 0]), Rule::Order);
        assert_eq!(refused(&[33, 0, 34, 0]), Rule::Order);
        assert_eq!(refused(&[0; KEY_SKETCH_BYTES_MAX]), Rule::Count);
        assert_eq!(refused(&[0; KEY_SKETCH_BYTES_MAX + 2]), Rule::Limit);
    }

    #[test]
    fn hostile_registers_give_an_estimate_and_no_more() {
        let full = KeySketch::decode(&[0xFF; KEY_SKETCH_BYTES_MAX]).unwrap();
        let mut builder = KeySketchBuilder::new();
        builder.merge(&full);
        assert_eq!(builder.estimate(), u64::MAX);
        builder.insert_hash(u64::MAX);
        assert_eq!(builder.finish(), full);
    }
}
