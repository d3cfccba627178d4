//! How fast a reader is and how long a read takes, and how far ahead that asks to read.
//!
//! By Little's law a reader that takes `rate` bytes a second never waits if `rate` times the time of a read is under way.
//! Both are measured, both change, so twice that is asked for. A rate is counted without the time that the reader waited, or
//! a reader that waits would seem slow enough to go on waiting.

use std::time::Duration;

/// Weight of what was known: three quarters.
const KEPT_QUARTERS: u64 = 3;

/// What was measured of one reader.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Pace {
    bytes_per_second: Option<u64>,
    read_nanos: Option<u64>,
}

fn blend(known: Option<u64>, new: u64) -> u64 {
    match known {
        Some(known) => known.saturating_mul(KEPT_QUARTERS).saturating_add(new) / (KEPT_QUARTERS + 1),
        None => new,
    }
}

impl Pace {
    /// The reader took `bytes` in `busy`, the time that it waited for reads left out.
    pub(crate) fn consumed(&mut self, bytes: u64, busy: Duration) {
        let nanos = u64::try_from(busy.as_nanos()).unwrap_or(u64::MAX).max(1);
        let rate = u128::from(bytes).saturating_mul(1_000_000_000) / u128::from(nanos);
        let rate = u64::try_from(rate).unwrap_or(u64::MAX);
        self.bytes_per_second = Some(blend(self.bytes_per_second, rate));
    }

    /// A read ended `after` it was begun. Where nobody waited for it, it may have ended long before it was `seen_late`.
    pub(crate) fn read(&mut self, after: Duration, seen_late: bool) {
        let nanos = u64::try_from(after.as_nanos()).unwrap_or(u64::MAX);
        match self.read_nanos {
            Some(known) if seen_late && nanos >= known => {}
            known => self.read_nanos = Some(blend(known, nanos)),
        }
    }

    /// How many bytes should be under way, as far as that is known.
    pub(crate) fn wanted(&self) -> Option<u64> {
        let (rate, nanos) = (self.bytes_per_second?, self.read_nanos?);
        let under_way = u128::from(rate).saturating_mul(u128::from(nanos)) / 1_000_000_000;
        Some(u64::try_from(under_way.saturating_mul(2)).unwrap_or(u64::MAX))
    }

    pub(crate) fn bytes_per_second(&self) -> Option<u64> {
        self.bytes_per_second
    }

    pub(crate) fn read_time(&self) -> Option<Duration> {
        self.read_nanos.map(Duration::from_nanos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fast_reader_asks_for_more_than_a_slow_one_and_nothing_known_asks_for_nothing() {
        let mut pace = Pace::default();
        assert_eq!(pace.wanted(), None);
        pace.consumed(1 << 20, Duration::from_micros(100));
        assert_eq!(pace.wanted(), None);
        pace.read(Duration::from_micros(500), false);
        // 10.5 GB/s for 0.5 ms, twice.
        assert_eq!(pace.wanted().map(|bytes| bytes >> 20), Some(10));
        for _ in 0..40 {
            pace.consumed(1 << 20, Duration::from_millis(100));
        }
        // 10 MB/s.
        assert!(pace.wanted().is_some_and(|bytes| bytes < 20_000), "{pace:?}");
    }

    #[test]
    fn a_read_that_was_seen_late_makes_no_read_seem_slow() {
        let mut pace = Pace::default();
        pace.consumed(1 << 20, Duration::from_secs(1));
        pace.read(Duration::from_micros(400), false);
        pace.read(Duration::from_secs(9), true);
        assert_eq!(pace.read_time(), Some(Duration::from_micros(400)));
        pace.read(Duration::from_micros(200), true);
        assert_eq!(pace.read_time(), Some(Duration::from_micros(350)));
    }

    #[test]
    fn times_beyond_all_measure_overflow_nothing() {
        let mut pace = Pace::default();
        pace.consumed(u64::MAX, Duration::ZERO);
        pace.read(Duration::MAX, false);
        assert_eq!(pace.wanted(), Some(u64::MAX));
        pace.consumed(0, Duration::MAX);
    }
}
