//! The limits of the format, each with its reason.
//!
//! A decoder compares every length with its limit first and with the bytes that remain second.

/// Greatest id of a log: there is always a greater number for the next.
pub const LOG_ID_MAX: u64 = u64::MAX - 1;

/// Greatest length of a log's name: one byte could hold it, and people read names.
pub const NAME_BYTES_MAX: usize = 255;

/// Greatest length of a key. Keys are copied into indexes; what is longer belongs into the value.
pub const KEY_BYTES_MAX: u32 = 64 * 1024;

/// Greatest length of all headers of a message together, with their lengths. Key, headers and the fixed fields fit
/// into the 512 KiB that sixteen bits of `extension_words` can say.
pub const HEADERS_BYTES_MAX: u32 = 256 * 1024;

/// Greatest length of a value unless the store's options say otherwise.
pub const VALUE_BYTES_DEFAULT_MAX: u32 = 64 * 1024 * 1024;

/// Greatest length of a value in any store: half a block, so that one message always fits into one slab.
pub const VALUE_BYTES_MAX: u32 = 256 * 1024 * 1024;

/// Greatest number of parts of a large value: its message, which names them, is then at most 1 MiB long.
pub const VALUE_PARTS_MAX: u32 = 65_000;

/// Greatest length of the buffers of a compressed batch: reading one message takes memory for all of them, whatever a hostile
/// file says. Longer messages stay as they are.
pub const COMPRESSED_BATCH_BYTES_MAX: u32 = 16 * 1024 * 1024;

/// Greatest length of all buffers of a slab with compressed batches, uncompressed: some readers need all of them at once, and a
/// small file may claim to hold any number. Slabs are made of at most 64 MiB of memory.
pub const COMPRESSED_SLAB_BYTES_MAX: u32 = 64 * 1024 * 1024;

/// Greatest length of a block: positions within a block have thirty-two bits, with room for sums of two of them.
pub const BLOCK_BYTES_MAX: u32 = 512 * 1024 * 1024;

/// Greatest length of a segment: positions in it fit thirty-two bits, and giving back a file stays a short operation.
pub const SEGMENT_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;

/// Greatest length of a log's encoded settings: they are read whole at every opening.
pub const SETTINGS_BYTES_MAX: u32 = 64 * 1024;

/// Greatest number of entries in a tree node: 128 entries of 128 bytes are four pages and two cache-friendly steps.
pub const NODE_ENTRIES_MAX: u32 = 128;

/// Greatest level of a tree node: with a fan-out of two already 2^40 slabs; it bounds every descent.
pub const NODE_LEVEL_MAX: u8 = 40;

/// Number of log ids to a catalog page. A page is copied when one of its logs changed: small enough to be cheap, and
/// large enough that a hundred thousand logs need fewer than a thousand page references.
pub const CATALOG_PAGE_LOGS: u64 = 128;

/// Greatest number of slabs in a gathered block: what 512 MiB of the smallest slabs hold, rounded up to a power of two.
pub const GATHERED_SLABS_MAX: u32 = 1024 * 1024;

const _: () = {
    assert!(KEY_BYTES_MAX + HEADERS_BYTES_MAX + 64 <= 65_535 * 8);
    assert!(VALUE_BYTES_MAX < BLOCK_BYTES_MAX);
    assert!(COMPRESSED_BATCH_BYTES_MAX <= COMPRESSED_SLAB_BYTES_MAX);
    assert!(COMPRESSED_BATCH_BYTES_MAX <= VALUE_BYTES_MAX);
    assert!(BLOCK_BYTES_MAX <= u32::MAX / 4);
    assert!(VALUE_BYTES_DEFAULT_MAX <= VALUE_BYTES_MAX);
};
