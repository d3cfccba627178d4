//! The options of a store that is driven, and its clock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lanterman::{Background, Clock, Options, Verify, WhenFull};

use crate::choices::Choices;

/// A day in November 2023.
const BEGIN_MS: u64 = 1_700_000_000_000;

/// A clock that goes a little with each look at it, so that nobody waits in vain, and as far as it is told.
#[derive(Debug, Default)]
pub(super) struct ModelClock {
    passed_ms: AtomicU64,
}

impl ModelClock {
    pub(super) fn advance_ms(&self, by_ms: u64) {
        self.passed_ms.fetch_add(by_ms, Ordering::Relaxed);
    }

    pub(super) fn now_ms(&self) -> i64 {
        (BEGIN_MS + self.passed_ms.load(Ordering::Relaxed)) as i64
    }
}

impl Clock for ModelClock {
    fn wall_ms(&self) -> i64 {
        self.now_ms()
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.passed_ms.fetch_add(1, Ordering::Relaxed))
    }
}

/// Options with limits so small that everything happens in small stores too.
pub(super) fn small_options(choices: &mut Choices<'_>) -> Options {
    let what = choices.byte();
    let when_full = if what & 1 == 0 {
        WhenFull::Wait
    } else {
        WhenFull::Refuse
    };
    let verify = match what >> 1 & 3 {
        0 | 1 => Verify::Once,
        2 => Verify::Always,
        _ => Verify::Never,
    };
    Options::new()
        .background(Background::Manual)
        .when_full(when_full)
        .verify(verify)
        .compact(what & 8 == 0)
        .slab_bytes_max(64 << 10)
        // Snapshots hold memory: where appends wait for it, there must be enough for all that are held.
        .tail_memory_bytes(if when_full == WhenFull::Wait {
            16 << 20
        } else {
            1 << 20
        })
        .message_bytes_max(400 << 10)
        .journal_bytes_max(64 << 10)
        .slab_segment_bytes(64 << 10, 512 << 10)
        .journal_segment_bytes(64 << 10, 128 << 10)
}
