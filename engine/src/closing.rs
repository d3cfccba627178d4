//! Closing a store beside threads that still write: who may change files, and until when.
//!
//! Whoever is about to change a file of the store holds a [`Permit`] meanwhile. Closing ends the giving of permits and
//! waits for those that are out; only then may the writer's lock be let go of, for the next process to take. Without that a
//! commit that had looked whether the store was open, and slept, would write into the journal of another process.
//!
//! Invariants:
//! - no permit is out when [`Closing::close`] has returned, and none is given afterwards;
//! - what was done under a permit is visible to whoever closed.

use lanterman_format::weakened;

use crate::atomics::{Ordering, Word, order};

/// Set in the word once no more permits are given; the bits below count those that are out.
const CLOSED: u32 = 1 << 31;

/// Counts those who change files, and ends that.
#[derive(Debug, Default)]
pub(crate) struct Closing {
    word: Word,
}

/// The right to change files of the store.
#[derive(Debug)]
pub(crate) struct Permit<'a> {
    closing: &'a Closing,
}

impl Closing {
    /// A permit, unless the store is closed.
    pub(crate) fn permit(&self) -> Option<Permit<'_>> {
        if weakened!("permit-asked-then-counted") && self.is_closed() {
            return None;
        }
        // Counted and asked in one step: a permit that closing did not count was never given.
        let before = self.word.fetch_add(1, Ordering::AcqRel);
        let permit = Permit { closing: self };
        let given = before & CLOSED == 0 || weakened!("permit-asked-then-counted");
        // Dropping the permit takes the count back.
        given.then_some(permit)
    }

    /// Whether no more permits are given.
    pub(crate) fn is_closed(&self) -> bool {
        self.word.load(Ordering::Acquire) & CLOSED != 0
    }

    /// Ends the giving of permits and waits until none is out. The caller must hold none.
    pub(crate) fn close(&self) {
        // Acquire, here and below: what was done under the last permit is visible to whoever closes.
        let acquire = order(Ordering::AcqRel, weakened!("permits-awaited-relaxed"));
        let mut word = self.word.fetch_or(CLOSED, acquire) | CLOSED;
        while word != CLOSED && !weakened!("permits-not-awaited") {
            self.word.wait(word);
            word = self
                .word
                .load(order(Ordering::Acquire, weakened!("permits-awaited-relaxed")));
        }
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let release = order(Ordering::Release, weakened!("permit-returned-relaxed"));
        let before = self.closing.word.fetch_sub(1, release);
        if before == CLOSED | 1 && !weakened!("closer-not-woken") {
            self.closing.word.wake_all();
        }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn closing_waits_for_the_permits_that_are_out_and_gives_no_more() {
        let closing = Closing::default();
        let permit = closing.permit().unwrap();
        std::thread::scope(|scope| {
            let closer = scope.spawn(|| closing.close());
            while !closing.is_closed() {
                std::thread::yield_now();
            }
            assert!(closing.permit().is_none());
            assert!(!closer.is_finished(), "a permit is out");
            drop(permit);
            closer.join().unwrap();
        });
        assert!(closing.permit().is_none());
    }
}
