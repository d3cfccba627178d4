//! One value, swapped whole, loaded without a lock.
//!
//! Contract: a value handed to [`RootCell::store`] is never changed in place; whoever loads gets a clone taken under an
//! epoch guard that ends with the call, so nothing that a user can hold for long holds back reclamation.
#![allow(
    unsafe_code,
    reason = "dereferences epoch-protected pointers; each block names what protects it"
)]

use lanterman_format::weakened;

use crate::atomics::epoch::{self, Atomic, Owned};
use crate::atomics::{Ordering, order};

/// Replaced values are destroyed a few at a time, some turns after they were replaced. This does many turns at once, for who
/// wants back what they hold; those that somebody looks at meanwhile stay.
pub(crate) fn destroy_replaced() {
    for _ in 0..DESTROYING_TURNS {
        epoch::pin().flush();
    }
}

/// Three turns end the grace of the newest; what waits beside it goes eight at a time.
const DESTROYING_TURNS: usize = 16;

/// An atomic reference to an immutable value.
#[derive(Debug)]
pub(crate) struct RootCell<T: Send + Sync + 'static> {
    pointer: Atomic<T>,
}

impl<T: Send + Sync + 'static> RootCell<T> {
    pub(crate) fn new(value: T) -> Self {
        RootCell {
            pointer: Atomic::new(value),
        }
    }

    /// Looks at the newest value; `look` must be short, since it runs under an epoch guard.
    pub(crate) fn with<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        let guard = epoch::pin();
        let acquire = order(Ordering::Acquire, weakened!("root-load-relaxed"));
        let shared = self.pointer.load(acquire, &guard);
        // SAFETY: the pointer is never null (set in `new`, replaced only by `store`), the value was released by the
        // store that this load acquired, and a replaced value is destroyed only after `guard` is gone.
        let value = unsafe { shared.deref() };
        look(value)
    }

    /// Makes `value` the newest one; the old one is destroyed when no guard can reach it any more.
    pub(crate) fn store(&self, value: T) {
        let guard = epoch::pin();
        let release = order(Ordering::AcqRel, weakened!("root-swap-relaxed"));
        if weakened!("root-retired-before-swap") {
            let old = self.pointer.load(Ordering::Acquire, &guard);
            // SAFETY: none. Others may still load the value: this is the defect that a test must find.
            unsafe { guard.defer_destroy(old) };
            drop(guard);
            self.pointer.swap(Owned::new(value), release, &epoch::pin());
            return;
        }
        let old = self.pointer.swap(Owned::new(value), release, &guard);
        if weakened!("root-destroyed-at-once") {
            // SAFETY: none. Others may still look at the value: this is the defect that a test must find.
            drop(unsafe { old.into_owned() });
            return;
        }
        // SAFETY: `old` was unlinked by the swap above, so nobody can load it anew, and it is retired only here.
        unsafe { guard.defer_destroy(old) };
        // What a root holds is memory and maps: hand it to the collector now, not after sixty-four more.
        guard.flush();
    }
}

impl<T: Clone + Send + Sync + 'static> RootCell<T> {
    /// A clone of the newest value.
    pub(crate) fn load(&self) -> T {
        self.with(T::clone)
    }
}

impl<T: Send + Sync + 'static> Drop for RootCell<T> {
    fn drop(&mut self) {
        let pointer = std::mem::take(&mut self.pointer);
        // SAFETY: `&mut self` proves that no other reference to the cell exists, so no load can be under way, and the
        // pointer is not null.
        let owned = unsafe { pointer.into_owned() };
        drop(owned);
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn a_loaded_value_outlives_the_ones_that_follow() {
        let cell = RootCell::new(Arc::new(0u64));
        let first = cell.load();
        for number in 1..100 {
            cell.store(Arc::new(number));
        }
        assert_eq!((*first, *cell.load()), (0, 99));
    }

    #[test]
    fn loads_beside_stores_see_whole_values() {
        let cell = Arc::new(RootCell::new((0u64, 0u64)));
        std::thread::scope(|scope| {
            let reader = Arc::clone(&cell);
            let reader = scope.spawn(move || {
                for _ in 0..20_000 {
                    let (left, right) = reader.load();
                    assert_eq!(left, right);
                }
            });
            for number in 1..5_000 {
                cell.store((number, number));
            }
            reader.join().unwrap();
        });
    }
}
