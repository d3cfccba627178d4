//! Gathered blocks: small slabs packed together, so that many quiet logs cost little at a checkpoint.
//!
//! Each slab in it is a whole slab block with a header and an identity of its own, at a multiple of 64 bytes; a
//! reference names the slab directly. The container only keeps the space together.

use crate::block::{
    BLOCK_HEADER_BYTES, BlockHeader, BlockIdentity, BlockKind, GATHERED_ALIGNMENT, Place, Sealed,
    check_payload, encode_block_header, open_block, zero_padding,
};
use crate::checksum::crc32;
use crate::convert::{part, read, write};
use crate::error::{FormatError, Found, Rule, Structure};
use crate::limits::GATHERED_SLABS_MAX;
use zerocopy::IntoBytes;
use zerocopy::little_endian::U32;

/// Where the first slab begins, from the block's beginning.
pub const GATHERED_BODY_POSITION: usize = 128;

const RULES: Structure = Structure::Gathered;
const _: () = assert!(GATHERED_BODY_POSITION.is_multiple_of(GATHERED_ALIGNMENT));

wire_struct! {
    struct RawGathered is "GatheredHeader", 64 bytes {
        0 slab_count: U32,
        4 reserved: [u8; 60],
    }
}

/// A gathered block's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gathered {
    /// The block's header.
    pub header: BlockHeader,
    /// Number of slabs in it.
    pub slab_count: u32,
}

/// Where the slab behind a slab that ends at `end` begins, both counted from the gathered block's beginning.
pub const fn next_slab_position(end: usize) -> usize {
    end.saturating_add(GATHERED_ALIGNMENT - 1) & !(GATHERED_ALIGNMENT - 1)
}

/// Writes the header of a gathered block of `block_bytes` to `out`, which holds the slabs already, and zeros behind the
/// block.
///
/// # Errors
///
/// [`Rule::NoRoom`] if `out` is shorter than the block, [`Rule::Limit`] if the block or the number of slabs is too large.
pub fn encode_header(
    slab_count: u32,
    block_bytes: u32,
    identity: &BlockIdentity,
    out: &mut [u8],
) -> Result<Sealed, FormatError> {
    check_count(slab_count)?;
    let raw = RawGathered {
        slab_count: U32::new(slab_count),
        reserved: [0; 60],
    };
    zero_padding(out, block_bytes, RULES)?;
    write(out, BLOCK_HEADER_BYTES, &raw, RULES)?;
    let payload_crc = crc32(identity.seed(), raw.as_bytes());
    let header_crc = encode_block_header(identity, BlockKind::Gathered, block_bytes, payload_crc, out)?;
    Ok(Sealed {
        block_bytes,
        header_crc,
    })
}

/// Reads the header of a gathered block. The slabs are read one by one, each at its own position.
pub fn decode(bytes: &[u8], place: &Place) -> Found<Gathered> {
    open_block(bytes, place, BlockKind::Gathered, RULES).and_then(|(header, block)| {
        let covered = part(block, BLOCK_HEADER_BYTES, 64, RULES)?;
        check_payload(&header, crc32(header.identity.seed(), covered), RULES)?;
        let raw: RawGathered = read(block, BLOCK_HEADER_BYTES, RULES)?;
        RULES.require(raw.reserved == [0; 60], Rule::Reserved, 68, 0, 1)?;
        check_count(raw.slab_count.get())?;
        Ok(Gathered {
            header,
            slab_count: raw.slab_count.get(),
        })
    })
}

fn check_count(slab_count: u32) -> Result<(), FormatError> {
    let (limit, found) = (u64::from(GATHERED_SLABS_MAX), u64::from(slab_count));
    RULES.require(found <= limit, Rule::Limit, 64, limit, found)?;
    RULES.require(found >= 1, Rule::Zero, 64, 1, found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_block_is_guarded, identity, place};

    #[test]
    fn a_header_is_read_as_written_and_guards_itself() {
        let mut block = vec![0xEE; 4096];
        encode_header(3, 1000, &identity(), &mut block).unwrap();
        assert!(block[1000..].iter().all(|byte| *byte == 0));
        let found = decode(&block, &place()).valid().unwrap();
        assert_eq!((found.slab_count, found.header.block_bytes), (3, 1000));
        // What stands behind the header is under the checksums of the slabs.
        encode_header(1, 128, &identity(), &mut block).unwrap();
        assert_block_is_guarded(&block[..128], decode);
    }

    #[test]
    fn too_many_slabs_or_none_are_refused() {
        let mut block = vec![0; 4096];
        let mut rule = |count, bytes| {
            encode_header(count, bytes, &identity(), &mut block)
                .unwrap_err()
                .rule
        };
        assert_eq!(rule(0, 128), Rule::Zero);
        assert_eq!(rule(u32::MAX, 128), Rule::Limit);
        assert_eq!(rule(1, 8192), Rule::NoRoom);
    }

    #[test]
    fn slabs_begin_at_multiples_of_64() {
        assert_eq!([128, 129, 192].map(next_slab_position), [128, 192, 192]);
    }
}
