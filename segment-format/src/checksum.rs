//! The one checksum of the format: CRC-32 (IEEE), continued from a seed.
//!
//! A seed that is itself a checksum makes the result the checksum of both parts joined: this is how a block's place
//! and time take part in every checksum of the block without being stored again.

use crc32fast::Hasher;

/// The CRC-32 of `bytes`, continued from `seed`; a seed of 0 begins afresh.
#[inline]
pub fn crc32(seed: u32, bytes: &[u8]) -> u32 {
    let mut hasher = Hasher::new_with_initial(seed);
    hasher.update(bytes);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_common_crc_32_and_a_seed_joins_two_parts() {
        // The check value of CRC-32/ISO-HDLC.
        assert_eq!(crc32(0, b"123456789"), 0xCBF4_3926);
        assert_eq!(crc32(crc32(0, b"1234"), b"56789"), 0xCBF4_3926);
    }
}
