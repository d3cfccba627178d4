//! The version of the format, and which versions this crate reads and writes.

use core::fmt;

/// Version of the format, as root slots and segment headers carry it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FormatVersion {
    /// Counts changes that an older reader would misunderstand.
    pub major: u16,
    /// Counts changes that an older reader may ignore.
    pub minor: u16,
}

impl FormatVersion {
    /// The version that this crate writes.
    pub const CURRENT: Self = Self { major: 1, minor: 0 };

    /// Whether this crate can read what carries this version.
    pub const fn is_readable(self) -> bool {
        self.major == Self::CURRENT.major
    }

    /// Whether this crate may write into a store of this version: never into one of a newer minor version, because it
    /// would not keep what the newer one added.
    pub fn is_writable(self) -> bool {
        self.is_readable() && self <= Self::CURRENT
    }
}

impl fmt::Display for FormatVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.major, self.minor)
    }
}
