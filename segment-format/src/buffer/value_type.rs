//! Types of values.

use core::fmt;

/// What a value is. Numbers up to 254 fit the buffer's header; greater ones travel in the extension. Unknown types are
/// kept and handed on: bytes are bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ValueType(u64);

impl ValueType {
    /// Bytes of which nothing is known.
    pub const BYTES: Self = Self(1);
    /// Text in UTF-8.
    pub const UTF8: Self = Self(2);
    /// No value, which differs from an empty one.
    pub const NIL: Self = Self(3);
    /// A log within a message.
    pub const NESTED_LOG: Self = Self(4);
    /// Several messages kept as they came.
    pub const BATCH: Self = Self(5);
    /// JSON.
    pub const JSON: Self = Self(6);
    /// CBOR.
    pub const CBOR: Self = Self(7);
    /// MessagePack.
    pub const MESSAGE_PACK: Self = Self(8);
    /// A run of deleted messages.
    pub const TOMBSTONES: Self = Self(9);
    /// A reference to where the value is.
    pub const BY_REFERENCE: Self = Self(10);
    /// A page of a key run, which no log has as a message.
    pub const KEY_PAGE: Self = Self(11);
    /// Bytes of a large value, which are no message; a message by reference behind it names them.
    pub const PART: Self = Self(12);
    /// Several buffers of a log, compressed together; in slabs alone, and no message.
    pub const COMPRESSED_BATCH: Self = Self(13);

    pub(crate) const BYTES_CODE: u8 = 1;
    pub(crate) const EXTENDED_CODE: u8 = 255;

    /// The type of this number; 0 and 255 are no types, and are refused when a message is encoded.
    #[inline]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The type's number.
    #[inline]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Whether a value may have this type.
    #[inline]
    pub const fn is_valid(self) -> bool {
        self.0 != 0 && self.0 != 255
    }

    /// The number in the buffer's header; `None` for a type that needs the extension.
    #[inline]
    pub(crate) fn code_byte(self) -> Option<u8> {
        u8::try_from(self.0)
            .ok()
            .filter(|code| *code != 0 && *code != Self::EXTENDED_CODE)
    }

    const fn words(self) -> Option<&'static str> {
        Some(match self {
            Self::BYTES => "bytes",
            Self::UTF8 => "utf8",
            Self::NIL => "nil",
            Self::NESTED_LOG => "nested log",
            Self::BATCH => "batch",
            Self::JSON => "json",
            Self::CBOR => "cbor",
            Self::MESSAGE_PACK => "messagepack",
            Self::TOMBSTONES => "tombstones",
            Self::BY_REFERENCE => "by reference",
            Self::KEY_PAGE => "key page",
            Self::PART => "part",
            Self::COMPRESSED_BATCH => "compressed batch",
            _ => return None,
        })
    }
}

impl fmt::Display for ValueType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.words() {
            Some(words) => formatter.write_str(words),
            None => write!(formatter, "type {}", self.0),
        }
    }
}
