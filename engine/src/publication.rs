//! The moment at which the messages of a transaction become visible in all its logs.
//!
//! A transaction publishes log after log. A reader who saw it in one log and then finds another log's end without it
//! looks here: while a window is open, or was opened since he began to look, he looks at that end again. So whoever has
//! seen a part of a transaction sees all of it. A reader who is not at an end never comes here.

use lanterman_format::weakened;

use crate::atomics::{AtomicU64, Ordering, SPINS, order, spin_loop, yield_now};

/// Odd while a window is open. Only the leader of a group opens one.
#[derive(Debug, Default)]
pub(crate) struct Publication {
    sequence: AtomicU64,
}

/// An open window; dropping it closes it.
#[derive(Debug)]
pub(crate) struct Window<'a> {
    publication: &'a Publication,
}

impl Publication {
    /// Opens the window, before the first log of a transaction is published.
    pub(crate) fn open(&self) -> Window<'_> {
        // AcqRel: nothing that is published inside may be seen before the odd number.
        if !weakened!("window-not-opened") {
            self.sequence.fetch_add(1, Ordering::AcqRel);
        }
        Window { publication: self }
    }

    /// Waits until no window is open; what any window before published is visible then.
    pub(crate) fn settle(&self) {
        let mut turns = 0u32;
        // Acquire: what was published inside is visible to whoever sees the window closed.
        let acquire = order(Ordering::Acquire, weakened!("window-seen-closed-relaxed"));
        while self.sequence.load(acquire) % 2 == 1 {
            turns = turns.saturating_add(1);
            if turns < SPINS {
                spin_loop();
            } else {
                yield_now();
            }
        }
    }
}

impl Drop for Window<'_> {
    fn drop(&mut self) {
        let release = order(Ordering::Release, weakened!("window-closed-relaxed"));
        let behind = if weakened!("window-not-opened") { 0 } else { 1 };
        self.publication.sequence.fetch_add(behind, release);
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn whoever_sees_one_half_of_a_transaction_sees_the_other_after_settling() {
        let publication = Publication::default();
        let (left, right) = (AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for number in 1..=20_000u64 {
                    let _window = publication.open();
                    left.store(number, Ordering::Release);
                    right.store(number, Ordering::Release);
                }
            });
            let reader = scope.spawn(|| {
                loop {
                    let seen = left.load(Ordering::Acquire);
                    publication.settle();
                    assert!(right.load(Ordering::Acquire) >= seen);
                    if seen == 20_000 {
                        break;
                    }
                }
            });
            writer.join().unwrap();
            reader.join().unwrap();
        });
    }
}
