//! Newtypes for every number with a meaning.
//!
//! There is no `Deref` and no `From<u64>`: a number becomes an offset or a position only where somebody says so.

use core::fmt;

macro_rules! number {
    ($(#[$meta:meta])* $name:ident($inner:ty)) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name($inner);

        impl $name {
            /// Zero.
            pub const ZERO: Self = Self(0);

            /// Gives a number its meaning.
            #[inline]
            pub const fn new(number: $inner) -> Self {
                Self(number)
            }

            /// The bare number.
            #[inline]
            pub const fn get(self) -> $inner {
                self.0
            }

            /// This number plus `count`; `None` if that does not fit.
            #[inline]
            pub const fn checked_add(self, count: $inner) -> Option<Self> {
                match self.0.checked_add(count) {
                    Some(sum) => Some(Self(sum)),
                    None => None,
                }
            }

            /// This number minus `count`; `None` if that would be less than zero.
            #[inline]
            pub const fn checked_sub(self, count: $inner) -> Option<Self> {
                match self.0.checked_sub(count) {
                    Some(difference) => Some(Self(difference)),
                    None => None,
                }
            }

            /// How far this number lies behind `earlier`; `None` if it lies before it.
            #[inline]
            pub const fn distance_from(self, earlier: Self) -> Option<$inner> {
                self.0.checked_sub(earlier.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, formatter)
            }
        }
    };
}

number! {
    /// Number of a message in its log: dense from 0, never reused, never renumbered.
    Offset(u64)
}
number! {
    /// Number of a byte in a segment, or in a file.
    Position(u64)
}
number! {
    /// Number of a segment: rising, never reused within a store.
    SegmentId(u64)
}
number! {
    /// Number of a commit of the store, rising by one.
    Version(u64)
}
number! {
    /// Number of a log: rising, never reused within a store.
    LogId(u64)
}
number! {
    /// Sequence number of a root slot: the greater one is the newer one.
    Sequence(u64)
}
number! {
    /// A length in bytes.
    ByteLength(u64)
}
number! {
    /// Which life of a segment file this is: every reuse of the file counts it up.
    Generation(u32)
}

/// A stored CRC-32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Crc(u32);

impl Crc {
    /// Zero: where a checksum is not known.
    pub const ZERO: Self = Self(0);

    /// A checksum as stored.
    #[inline]
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The bare number.
    #[inline]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Crc {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:08x}", self.0)
    }
}

/// Sixteen random bytes drawn when a store is created: they keep the blocks of two stores apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreId([u8; 16]);

impl StoreId {
    /// A store's id from its bytes.
    #[inline]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes as they stand on disk.
    #[inline]
    pub const fn bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl From<Offset> for u64 {
    fn from(offset: Offset) -> Self {
        offset.get()
    }
}

impl fmt::Display for StoreId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_added_and_subtracted_only_if_they_fit() {
        let last = Offset::new(u64::MAX);
        assert_eq!((last.checked_add(0), last.checked_add(1)), (Some(last), None));
        assert_eq!(
            (Offset::new(1).checked_sub(1), Offset::ZERO.checked_sub(1)),
            (Some(Offset::ZERO), None)
        );
        assert_eq!(Offset::new(7).distance_from(Offset::new(3)), Some(4));
        assert_eq!(Offset::new(3).distance_from(Offset::new(7)), None);
    }

    #[test]
    fn people_can_read_them() {
        assert_eq!(format!("{} {}", Offset::new(7), Crc::new(0xAB)), "7 000000ab");
        assert_eq!(StoreId::from_bytes([0x0F; 16]).to_string(), "0f".repeat(16));
    }
}
