//! Summaries: what a slab or a subtree holds, merged upwards.

use crate::buffer::{BufferView, ValueType};
use crate::convert::wide;
use zerocopy::little_endian::{I64, U32, U64};

wire_struct! {
    struct RawSummary is "Summary", 64 bytes {
        0 messages: U64,
        8 deleted: U64,
        16 value_bytes: U64,
        24 key_bytes: U64,
        32 time_min_ms: I64,
        40 time_max_ms: I64,
        48 types: U64,
        56 parts: U64,
    }
}

/// A set of value types: exact for those below 63, and one element for all others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ValueTypes(u64);

impl ValueTypes {
    /// The empty set.
    pub const EMPTY: Self = Self(0);
    const OTHERS: u32 = 63;

    /// Adds a type.
    #[inline]
    pub fn insert(&mut self, value_type: ValueType) {
        let number = u32::try_from(value_type.get()).unwrap_or(Self::OTHERS);
        self.0 |= 1_u64.wrapping_shl(number.min(Self::OTHERS));
    }

    /// Adds the types of another set.
    #[inline]
    pub fn merge(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// Whether it has a type; of types above 62 it says whether it has any of them.
    pub fn contains(self, value_type: ValueType) -> bool {
        let mut alone = Self::EMPTY;
        alone.insert(value_type);
        self.0 & alone.0 != 0
    }

    /// Its types below 63.
    pub fn iter(self) -> impl Iterator<Item = ValueType> {
        (1..u64::from(Self::OTHERS))
            .map(ValueType::new)
            .filter(move |value_type| self.contains(*value_type))
    }

    /// Whether it has types above 62.
    pub fn has_others(self) -> bool {
        self.0 >> Self::OTHERS != 0
    }

    /// Whether it has none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// Number of buckets of a histogram.
pub const HISTOGRAM_BUCKETS: usize = 32;

/// What a slab or a subtree holds. Sums saturate: a summary informs, nothing depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Messages that are not deleted.
    pub messages: u64,
    /// Offsets whose messages are deleted.
    pub deleted: u64,
    /// Bytes of all values.
    pub value_bytes: u64,
    /// Bytes of all keys.
    pub key_bytes: u64,
    /// Least time of any message; greater than `time_max_ms` if no message has one.
    pub time_min_ms: i64,
    /// Greatest time of any message.
    pub time_max_ms: i64,
    /// Types of values. Where a part was deleted some may occur no more; and a summary that says nothing of types, of an
    /// earlier program, has none.
    pub types: ValueTypes,
    /// How many of the messages are none, but parts of large values.
    pub parts: u64,
}

impl Default for Summary {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl Summary {
    /// Of nothing.
    pub const EMPTY: Self = Self {
        messages: 0,
        deleted: 0,
        value_bytes: 0,
        key_bytes: 0,
        time_min_ms: i64::MAX,
        time_max_ms: i64::MIN,
        types: ValueTypes::EMPTY,
        parts: 0,
    };

    /// Adds what another summary counts.
    pub fn merge(&mut self, other: &Self) {
        self.messages = self.messages.saturating_add(other.messages);
        self.deleted = self.deleted.saturating_add(other.deleted);
        self.value_bytes = self.value_bytes.saturating_add(other.value_bytes);
        self.key_bytes = self.key_bytes.saturating_add(other.key_bytes);
        self.time_min_ms = self.time_min_ms.min(other.time_min_ms);
        self.time_max_ms = self.time_max_ms.max(other.time_max_ms);
        self.types.merge(other.types);
        self.parts = self.parts.saturating_add(other.parts);
    }

    /// Whether some of its offsets have no message.
    pub const fn has_hidden(&self) -> bool {
        self.deleted > 0 || self.parts > 0
    }

    /// Adds one message.
    #[inline]
    pub fn add_message(&mut self, value_bytes: u64, key_bytes: u64, time_ms: Option<i64>) {
        self.messages = self.messages.saturating_add(1);
        self.value_bytes = self.value_bytes.saturating_add(value_bytes);
        self.key_bytes = self.key_bytes.saturating_add(key_bytes);
        if let Some(time_ms) = time_ms {
            self.time_min_ms = self.time_min_ms.min(time_ms);
            self.time_max_ms = self.time_max_ms.max(time_ms);
        }
    }

    /// Adds a run of deleted messages.
    pub fn add_deleted(&mut self, count: u64) {
        self.deleted = self.deleted.saturating_add(count);
    }

    /// Adds a buffer: a message, a batch of them, or a run of deleted ones.
    pub fn add_buffer(&mut self, buffer: &BufferView<'_>) {
        if buffer.value_type() == ValueType::TOMBSTONES {
            return self.add_deleted(buffer.count());
        }
        let key_bytes = buffer.key().map_or(0, |key| wide(key.len()));
        self.add_message(wide(buffer.value().len()), key_bytes, buffer.time_ms());
        self.messages = self.messages.saturating_add(buffer.count().saturating_sub(1));
        self.types.insert(buffer.value_type());
        if buffer.value_type() == ValueType::PART {
            self.parts = self.parts.saturating_add(1);
        }
    }

    /// Least and greatest time, if any message has one.
    pub fn times_ms(&self) -> Option<(i64, i64)> {
        (self.time_min_ms <= self.time_max_ms).then_some((self.time_min_ms, self.time_max_ms))
    }

    pub(crate) fn to_raw(self) -> RawSummary {
        RawSummary {
            messages: U64::new(self.messages),
            deleted: U64::new(self.deleted),
            value_bytes: U64::new(self.value_bytes),
            key_bytes: U64::new(self.key_bytes),
            time_min_ms: I64::new(self.time_min_ms),
            time_max_ms: I64::new(self.time_max_ms),
            types: U64::new(self.types.0),
            parts: U64::new(self.parts),
        }
    }

    pub(crate) fn from_raw(raw: &RawSummary) -> Self {
        Self {
            messages: raw.messages.get(),
            deleted: raw.deleted.get(),
            value_bytes: raw.value_bytes.get(),
            key_bytes: raw.key_bytes.get(),
            time_min_ms: raw.time_min_ms.get(),
            time_max_ms: raw.time_max_ms.get(),
            types: ValueTypes(raw.types.get() & !1),
            parts: raw.parts.get(),
        }
    }
}

impl RawSummary {
    /// Whether what is reserved is zero: there is no value type 0.
    pub(crate) fn is_clean(&self) -> bool {
        self.types.get() & 1 == 0
    }
}

/// Bucket of a length: the number of its significant bits.
fn bucket_of(value_bytes: u32) -> usize {
    let bits = u32::BITS.saturating_sub(value_bytes.leading_zeros());
    crate::convert::index(bits).min(HISTOGRAM_BUCKETS.saturating_sub(1))
}

/// The greatest length that falls into a bucket.
fn bucket_max(bucket: usize) -> u64 {
    let bits = u32::try_from(bucket).unwrap_or(u32::MAX);
    1_u64
        .checked_shl(bits)
        .map_or(u64::MAX, |limit| limit.saturating_sub(1))
}

macro_rules! histogram {
    ($(#[$meta:meta])* $name:ident, $count:ty, $raw:ty) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name {
            /// Number of values in each bucket; a value of n significant bits in its length falls into bucket n.
            pub buckets: [$count; HISTOGRAM_BUCKETS],
        }

        impl $name {
            /// Counts one value.
            #[inline]
            pub fn add(&mut self, value_bytes: u32) {
                if let Some(bucket) = self.buckets.get_mut(bucket_of(value_bytes)) {
                    *bucket = bucket.saturating_add(1);
                }
            }

            /// Counts a value that came `count` times.
            #[inline]
            pub fn add_run(&mut self, value_bytes: u32, count: $count) {
                if let Some(bucket) = self.buckets.get_mut(bucket_of(value_bytes)) {
                    *bucket = bucket.saturating_add(count);
                }
            }

            /// Adds what another histogram counts.
            pub fn merge(&mut self, other: &Self) {
                for (bucket, count) in self.buckets.iter_mut().zip(other.buckets) {
                    *bucket = bucket.saturating_add(count);
                }
            }

            /// Number of values.
            pub fn total(&self) -> u64 {
                self.buckets.iter().fold(0, |sum: u64, count| sum.saturating_add(u64::from(*count)))
            }

            /// A length that at least `percent` of all values do not exceed, exact to a factor of two; `None` if there
            /// is no value.
            pub fn percentile(&self, percent: u32) -> Option<u64> {
                let total = u128::from(self.total());
                let wanted = total.saturating_mul(u128::from(percent.min(100))).div_ceil(100).max(1);
                let mut seen = 0_u128;
                let reached = self.buckets.iter().position(|count| {
                    seen = seen.saturating_add(u128::from(*count));
                    seen >= wanted
                });
                reached.map(bucket_max)
            }

            pub(crate) fn to_raw(self) -> [$raw; HISTOGRAM_BUCKETS] {
                self.buckets.map(<$raw>::new)
            }

            pub(crate) fn from_raw(raw: &[$raw; HISTOGRAM_BUCKETS]) -> Self {
                Self { buckets: raw.map(<$raw>::get) }
            }
        }
    };
}

histogram! {
    /// Histogram of value lengths of a slab.
    Histogram32, u32, U32
}
histogram! {
    /// Histogram of value lengths of a subtree.
    Histogram64, u64, U64
}

impl From<Histogram32> for Histogram64 {
    fn from(narrow: Histogram32) -> Self {
        Self {
            buckets: narrow.buckets.map(u64::from),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::BufferFields;

    #[test]
    fn a_set_of_types_has_what_was_put_in_and_one_place_for_great_numbers() {
        let mut set = ValueTypes::EMPTY;
        assert!(set.is_empty() && !set.has_others());
        for number in [1, 6, 62] {
            set.insert(ValueType::new(number));
        }
        assert_eq!(set.iter().map(ValueType::get).collect::<Vec<_>>(), [1, 6, 62]);
        assert!(!set.has_others() && !set.contains(ValueType::new(63)));
        let mut others = ValueTypes::EMPTY;
        others.insert(ValueType::new(1 << 40));
        set.merge(others);
        assert!(set.has_others() && set.contains(ValueType::new(255)));
        let mut summary = Summary::EMPTY;
        summary.types = set;
        assert_eq!(Summary::from_raw(&summary.to_raw()), summary);
    }

    #[test]
    fn merging_parts_gives_what_adding_all_gives() {
        let times = [Some(5), None, Some(-7)];
        let mut all = Summary::EMPTY;
        let mut merged = Summary::EMPTY;
        for (number, time_ms) in (1..).zip(times) {
            let mut part = Summary::EMPTY;
            part.add_message(number, number * 2, time_ms);
            part.add_deleted(number * 3);
            merged.merge(&part);
            all.add_message(number, number * 2, time_ms);
            all.add_deleted(number * 3);
        }
        assert_eq!(merged, all);
        assert_eq!(
            (all.messages, all.deleted, all.value_bytes, all.key_bytes),
            (3, 18, 6, 12)
        );
        assert_eq!((all.times_ms(), Summary::EMPTY.times_ms()), (Some((-7, 5)), None));
        assert_eq!(Summary::from_raw(&all.to_raw()), all);
    }

    #[test]
    fn a_run_of_deleted_messages_counts_as_deleted_and_a_batch_as_its_messages() {
        let mut summary = Summary::EMPTY;
        for value_type in [ValueType::TOMBSTONES, ValueType::BATCH] {
            let fields = BufferFields {
                count: 9,
                ..BufferFields::plain(value_type, b"abc")
            };
            let mut bytes = [0; 64];
            fields.encode(&mut bytes).unwrap();
            summary.add_buffer(&BufferView::parse(&bytes).unwrap());
        }
        assert_eq!(
            (summary.deleted, summary.messages, summary.value_bytes),
            (9, 9, 3)
        );
    }

    #[test]
    fn a_length_falls_into_the_bucket_of_its_significant_bits() {
        let buckets = [
            (0, 0),
            (1, 1),
            (2, 2),
            (3, 2),
            (4, 3),
            (1 << 28, 29),
            (u32::MAX, 31),
        ];
        assert!(
            buckets
                .iter()
                .all(|(length, bucket)| bucket_of(*length) == *bucket)
        );
    }

    #[test]
    fn a_percentile_bounds_its_share_of_the_values() {
        let mut histogram = Histogram32::default();
        assert_eq!(histogram.percentile(50), None);
        (0..90).for_each(|_| histogram.add(100));
        (0..10).for_each(|_| histogram.add(5000));
        let percentiles = [0, 90, 91, 100, 1000].map(|percent| histogram.percentile(percent));
        assert_eq!(
            percentiles,
            [Some(127), Some(127), Some(8191), Some(8191), Some(8191)]
        );
        let mut wide = Histogram64::from(histogram);
        wide.merge(&Histogram64::from(histogram));
        assert_eq!((wide.total(), wide.percentile(50)), (200, Some(127)));
    }
}
