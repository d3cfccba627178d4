//! What measurements write, and the store that they write it to.

use std::path::Path;
use std::time::Duration;

use lanterman::{Options, Store};

use crate::Outcome;

/// A store in `path`, mapped, as a program that wants speed opens it.
///
/// # Errors
///
/// What opening gives.
#[allow(
    unsafe_code,
    reason = "a program that wants speed gives the promise that maps ask for"
)]
pub fn open(path: &Path, options: Options) -> Outcome<Store> {
    // SAFETY: the directory was made by this program for this run, and nobody else writes to it.
    let store = unsafe { options.open(path)? };
    Ok(store)
}

/// Bytes that do not compress, the same in each run.
#[must_use]
pub fn payload(bytes: usize) -> Vec<u8> {
    let mut random = Random::new(0x1a57_e24a);
    let mut out = vec![0; bytes];
    for chunk in out.chunks_mut(8) {
        let word = random.next_u64().to_le_bytes();
        chunk.copy_from_slice(&word[..chunk.len()]);
    }
    out
}

/// A small generator (xorshift64*), so that runs repeat.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// Begins with a seed; zero is as good as one.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Random(seed | 1)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

/// Megabytes (10^6 bytes) a second.
#[must_use]
pub fn megabytes(bytes: u64, time: Duration) -> f64 {
    bytes as f64 / 1e6 / time.as_secs_f64()
}
