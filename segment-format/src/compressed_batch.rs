//! Compressed batches: several buffers of a log, compressed together, as the value of one buffer that counts for them all.
//!
//! They stand in slabs alone, and the slab's header says that there are some. Reading one message of a batch costs
//! uncompressing the batch, so a batch is about as long as a few pages of messages; what shrinks by less than an eighth stays
//! as it is.
//!
//! Invariants: each buffer in a batch takes one offset, and is no batch and no run of deleted messages; what a batch says of its
//! length is compared with a limit before memory is taken, and its checksum with what came out before anything of it is used.

use crate::buffer::{BufferView, ValueType, walk};
use crate::checksum::crc32;
use crate::convert::{index, narrow, read, wide};
use crate::error::{FormatError, Rule, Structure};
use crate::limits::COMPRESSED_BATCH_BYTES_MAX;
use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U32};

const RULES: Structure = Structure::CompressedBatch;
const HEADER_BYTES: usize = size_of::<RawCompressedBatch>();

/// What a batch must save at least, as a part of its length: less is not worth the time of every reader.
const LEAST_SAVED_PART: usize = 8;

wire_struct! {
    struct RawCompressedBatch is "CompressedBatch", 16 bytes {
        0 codec: u8,
        1 reserved_1: u8,
        2 reserved_2: U16,
        4 body_bytes: U32,
        8 body_crc: U32,
        12 reserved_12: U32,
    }
}

/// How bytes are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    /// The LZ4 block format: little work on both sides.
    Lz4,
    /// One frame of Zstandard: smaller, at more work.
    Zstd,
}

impl Codec {
    /// Its number in files.
    pub const fn code(self) -> u8 {
        match self {
            Self::Lz4 => 1,
            Self::Zstd => 2,
        }
    }

    /// The codec of this number.
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Lz4),
            2 => Some(Self::Zstd),
            _ => None,
        }
    }

    /// Whether this program was built with it.
    pub const fn is_supported(self) -> bool {
        match self {
            Self::Lz4 => true,
            Self::Zstd => cfg!(feature = "zstd"),
        }
    }

    fn require_supported(self) -> Result<(), FormatError> {
        RULES.require(
            self.is_supported(),
            Rule::Unsupported,
            0,
            u64::from(Self::Lz4.code()),
            u64::from(self.code()),
        )
    }

    /// `body` compressed; `None` if the codec refuses. The level is of Zstandard's; others have none.
    #[cfg_attr(
        not(feature = "zstd"),
        allow(unused_variables, reason = "only Zstandard has levels")
    )]
    fn compress(self, body: &[u8], level: u8) -> Option<Vec<u8>> {
        match self {
            Self::Lz4 => Some(lz4_flex::block::compress(body)),
            #[cfg(feature = "zstd")]
            Self::Zstd => zstd::bulk::compress(body, i32::from(level)).ok(),
            #[cfg(not(feature = "zstd"))]
            Self::Zstd => None,
        }
    }

    /// Fills `body` with what `packed` was made of; the number of bytes, or `None` if it is damaged or longer.
    fn uncompress(self, packed: &[u8], body: &mut [u8]) -> Option<usize> {
        match self {
            Self::Lz4 => lz4_flex::block::decompress_into(packed, body).ok(),
            #[cfg(feature = "zstd")]
            Self::Zstd => zstd::bulk::decompress_to_buffer(packed, body).ok(),
            #[cfg(not(feature = "zstd"))]
            Self::Zstd => None,
        }
    }
}

/// The value of a buffer that holds the buffers of `body`; `None` where that would save less than an eighth of it.
///
/// # Errors
///
/// [`Rule::Limit`] if the body is longer than a batch may be, [`Rule::Unsupported`] if this program lacks the codec.
pub fn compress(codec: Codec, level: u8, body: &[u8]) -> Result<Option<Vec<u8>>, FormatError> {
    codec.require_supported()?;
    let (limit, found) = (u64::from(COMPRESSED_BATCH_BYTES_MAX), wide(body.len()));
    RULES.require(found <= limit, Rule::Limit, 4, limit, found)?;
    let Some(packed) = codec.compress(body, level) else {
        return Ok(None);
    };
    let most = body
        .len()
        .saturating_sub(body.len().wrapping_div(LEAST_SAVED_PART));
    if packed.len().saturating_add(HEADER_BYTES) > most {
        return Ok(None);
    }
    let header = RawCompressedBatch {
        codec: codec.code(),
        reserved_1: 0,
        reserved_2: U16::ZERO,
        body_bytes: U32::new(narrow(body.len(), RULES, 4)?),
        body_crc: U32::new(crc32(0, body)),
        reserved_12: U32::ZERO,
    };
    Ok(Some([header.as_bytes(), &packed].concat()))
}

/// A batch as found: its header is known to be good.
#[derive(Clone, Copy, Debug)]
pub struct CompressedBatch<'a> {
    codec: Codec,
    body_bytes: u32,
    body_crc: u32,
    count: u64,
    packed: &'a [u8],
}

impl<'a> CompressedBatch<'a> {
    /// Reads the header of the batch that a buffer holds.
    ///
    /// # Errors
    ///
    /// The rule that it breaks; [`Rule::Unsupported`] for a codec that this program lacks.
    pub fn parse(buffer: &BufferView<'a>) -> Result<Self, FormatError> {
        let found = buffer.value_type();
        let wanted = ValueType::COMPRESSED_BATCH;
        RULES.require(found == wanted, Rule::Kind, 0, wanted.get(), found.get())?;
        let value = buffer.value();
        let raw: RawCompressedBatch = read(value, 0, RULES)?;
        let codec =
            Codec::from_code(raw.codec).ok_or(RULES.breaks(Rule::Kind, 0, 1, u64::from(raw.codec)))?;
        let reserved =
            u64::from(raw.reserved_1) | u64::from(raw.reserved_2.get()) | u64::from(raw.reserved_12.get());
        RULES.require(reserved == 0, Rule::Reserved, 1, 0, reserved)?;
        let (bytes, limit) = (raw.body_bytes.get(), u64::from(COMPRESSED_BATCH_BYTES_MAX));
        RULES.require(u64::from(bytes) <= limit, Rule::Limit, 4, limit, u64::from(bytes))?;
        RULES.require(bytes.is_multiple_of(8), Rule::Alignment, 4, 8, u64::from(bytes))?;
        // Each buffer has its header at least.
        let most = u64::from(bytes).wrapping_shr(3);
        let count = buffer.count();
        RULES.require(count <= most, Rule::Count, 4, most, count)?;
        codec.require_supported()?;
        Ok(Self {
            codec,
            body_bytes: bytes,
            body_crc: raw.body_crc.get(),
            count,
            packed: value.get(HEADER_BYTES..).unwrap_or_default(),
        })
    }

    /// Length of its buffers, uncompressed.
    pub const fn body_bytes(&self) -> u32 {
        self.body_bytes
    }

    /// How it is compressed.
    pub const fn codec(&self) -> Codec {
        self.codec
    }

    /// Puts its buffers into `body`, which must be as long as [`Self::body_bytes`] says, and checks them: checksum, number,
    /// and that each takes one offset. Calls `each` with the position of every buffer, counted from the beginning of `body`.
    ///
    /// # Errors
    ///
    /// The rule that it breaks; then nothing in `body` counts.
    pub fn uncompress(&self, body: &mut [u8], mut each: impl FnMut(u32)) -> Result<(), FormatError> {
        let (expected, room) = (u64::from(self.body_bytes), wide(body.len()));
        RULES.require(room == expected, Rule::NoRoom, 4, expected, room)?;
        let found = self.codec.uncompress(self.packed, body);
        let length = found.map_or(0, wide);
        RULES.require(length == expected, Rule::Count, 4, expected, length)?;
        let (expected, found) = (u64::from(self.body_crc), u64::from(crc32(0, body)));
        let is_whole = expected == found || crate::weakened!("batch-unchecked");
        RULES.require(is_whole, Rule::Checksum, 8, expected, found)?;
        let mut count = 0_u64;
        for step in walk(body) {
            let (position, buffer) = step?;
            let refused = [ValueType::TOMBSTONES, ValueType::COMPRESSED_BATCH];
            let value_type = buffer.value_type();
            let at = u64::from(position);
            RULES.require(
                !refused.contains(&value_type),
                Rule::Kind,
                at,
                1,
                value_type.get(),
            )?;
            RULES.require(buffer.count() == 1, Rule::Count, at, 1, buffer.count())?;
            each(position);
            count = count.saturating_add(1);
        }
        RULES.require(count == self.count, Rule::Count, 4, self.count, count)
    }

    /// Its buffers, checked as [`Self::uncompress`] does.
    ///
    /// # Errors
    ///
    /// As [`Self::uncompress`].
    pub fn to_body(&self) -> Result<Vec<u8>, FormatError> {
        // The length was compared with its limit.
        let mut body = vec![0; index(self.body_bytes)];
        self.uncompress(&mut body, |_| {})?;
        Ok(body)
    }
}

#[cfg(test)]
mod tests;
