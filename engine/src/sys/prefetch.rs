//! A hint to the processor that bytes will be read soon.
#![allow(
    unsafe_code,
    reason = "the instruction is offered as a function on a raw pointer"
)]

/// Starts to bring the first of `bytes` into the cache; does nothing where the processor has no such hint.
#[inline]
pub(crate) fn prefetch(bytes: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: the pointer comes from a slice; and the hint reads nothing, cannot fault, and is part of every
        // processor of this architecture.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(bytes.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = bytes;
}
