//! How large segments are.

use super::FIRST_BLOCK_POSITION;

/// Size of the next segment of a kind: twice the newest one, within the options' limits, and large enough for `needed`.
pub(crate) fn next_segment_bytes(previous: Option<u64>, first: u64, max: u64, needed: u64) -> u64 {
    let doubled = previous
        .map_or(first, |bytes| bytes.saturating_mul(2))
        .clamp(first, max);
    doubled.max(bytes_for_block(needed))
}

/// How large a segment must be at least for a block of `needed` bytes.
pub(super) fn bytes_for_block(needed: u64) -> u64 {
    let wanted = needed.saturating_add(FIRST_BLOCK_POSITION);
    wanted.next_multiple_of(FIRST_BLOCK_POSITION)
}

/// How large a segment should be in which a block of `needed` bytes begins where room is short: with room for some more like it.
pub(crate) fn small_segment_bytes(needed: u64) -> u64 {
    bytes_for_block(needed.saturating_add(needed.max(32 << 10)))
}
