//! Time and randomness, passed in so that tests can set them.

use std::time::{Duration, Instant};

/// Wall clock and monotonic clock of a store.
///
/// The wall clock stamps commits and slabs; timers use the monotonic one, so that a clock that jumps delays nothing.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// Milliseconds since 1970-01-01 00:00 UTC.
    fn wall_ms(&self) -> i64;
    /// Time since some fixed moment; never goes back.
    fn monotonic(&self) -> Duration;
}

/// The clocks of the operating system.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// A clock whose monotonic time counts from now.
    #[must_use]
    pub fn new() -> Self {
        SystemClock {
            start: Instant::now(),
        }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn wall_ms(&self) -> i64 {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
        now.tv_sec
            .saturating_mul(1000)
            .saturating_add(now.tv_nsec / 1_000_000)
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }
}

/// Source of the random bytes from which a store's identity is made.
pub trait Randomness: Send + Sync + std::fmt::Debug {
    /// Sixteen bytes, not all zero.
    ///
    /// # Errors
    /// The system's error when it has no randomness to give.
    fn identity(&self) -> std::io::Result<[u8; 16]>;
}

/// Randomness of the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemRandomness;

impl Randomness for SystemRandomness {
    fn identity(&self) -> std::io::Result<[u8; 16]> {
        loop {
            let mut bytes = [0u8; 16];
            let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
            if filled == bytes.len() && bytes != [0; 16] {
                return Ok(bytes);
            }
        }
    }
}
