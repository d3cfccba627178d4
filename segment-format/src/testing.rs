//! What the tests of all structures share: an identity, and hostile hands.

use crate::block::{BlockIdentity, Place};
use crate::error::Found;
use crate::ids::{Generation, Position, SegmentId, StoreId, Version};
use core::fmt::Debug;

pub(crate) const STORE: StoreId = StoreId::from_bytes(*b"a store of tests");

pub(crate) fn place() -> Place {
    Place {
        store: STORE,
        segment: SegmentId::new(3),
        generation: Generation::new(2),
        position: Position::new(8192),
    }
}

pub(crate) fn identity() -> BlockIdentity {
    place().identity(Version::new(77))
}

/// Places that differ in one respect each.
pub(crate) fn other_places() -> Vec<Place> {
    let own = place();
    vec![
        Place {
            store: StoreId::from_bytes(*b"another store ok"),
            ..own
        },
        Place {
            segment: SegmentId::new(4),
            ..own
        },
        Place {
            generation: Generation::new(3),
            ..own
        },
        Place {
            position: Position::new(12288),
            ..own
        },
    ]
}

/// A block that decodes in its own place does so in no other one, with no bit flipped, at no shorter length, and not at
/// all if it is zero.
pub(crate) fn assert_block_is_guarded<T: Debug>(block: &[u8], decode: impl Fn(&[u8], &Place) -> Found<T>) {
    let own = place();
    let found = decode(block, &own);
    assert!(found.is_valid(), "the block as written must decode: {found:?}");
    for other in other_places() {
        assert!(
            matches!(decode(block, &other), Found::Invalid(_)),
            "decodes at {other:?}"
        );
    }
    assert_flips_and_truncations_are_refused(block, |bytes| decode(bytes, &own));
}

pub(crate) fn assert_flips_and_truncations_are_refused<T: Debug>(
    whole: &[u8],
    decode: impl Fn(&[u8]) -> Found<T>,
) {
    let mut bytes = whole.to_vec();
    for bit in 0..bytes.len() * 8 {
        bytes[bit / 8] ^= 1 << (bit % 8);
        let found = decode(&bytes);
        assert!(matches!(found, Found::Invalid(_)), "bit {bit} flipped: {found:?}");
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
    for length in 0..whole.len() {
        assert!(
            !decode(&whole[..length]).is_valid(),
            "valid with {length} of {} bytes",
            whole.len()
        );
    }
    let zeros = vec![0; whole.len()];
    assert!(decode(&zeros).is_empty(), "zeros must be found empty");
    for word in [0xFF_u8, 0x01, 0x80] {
        let filled = vec![word; whole.len()];
        assert!(
            matches!(decode(&filled), Found::Invalid(_)),
            "filled with {word:#x}"
        );
    }
}

/// Makes a block's checksums fit its bytes again, as a hostile writer would: the rules behind the checksums are what is
/// tested then.
pub(crate) fn bless(block: &mut [u8], payload: &[(usize, usize)]) {
    let place = place();
    let version = Version::new(u64::from_le_bytes(block[32..40].try_into().unwrap()));
    let seed = place.identity(version).seed();
    let payload_crc = payload.iter().fold(seed, |crc, (from, to)| {
        crate::checksum::crc32(crc, &block[*from..*to])
    });
    block[12..16].copy_from_slice(&payload_crc.to_le_bytes());
    let header_crc = crate::checksum::crc32(seed, &block[..60]);
    block[60..64].copy_from_slice(&header_crc.to_le_bytes());
}
