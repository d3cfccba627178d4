//! A value with one owner who uses it often and pays next to nothing, and rare intruders who pay for both.
//!
//! The owner says «inside», looks whether an intruder wants in, and goes on: two plain stores and a load. An intruder
//! says that he wants in, has every running thread of the process pass a memory barrier (membarrier(2), private
//! expedited), and waits until the owner is outside. After the barrier either the owner's «inside» is visible to the
//! intruder or the intruder's wish to the owner: the argument of Dekker's algorithm, with the barrier's cost moved to
//! the rare side. Where the kernel has no such barrier both sides use a sequentially consistent fence.
//!
//! Invariants:
//! - there is at most one [`Owner`] of a value, and it cannot enter twice, since a guard borrows it mutably;
//! - there is at most one intruder inside, and he is inside only while the owner is not.
//!
//! An intruder pays for the barrier only while there is an owner: becoming the owner and wanting in are ordered by
//! fences, so either the new owner sees the wish or the intruder sees the owner. The owner's thread must not intrude
//! while it is inside: it would wait for itself.
#![allow(
    unsafe_code,
    reason = "hands out references into a cell; each block names what keeps the other side out"
)]

use std::cell::UnsafeCell;
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;

use lanterman_format::weakened;

use crate::atomics::{
    self, AtomicBool, Ordering, SPINS, Word, YIELDS, compiler_fence, fence, order, spin_loop, yield_now,
};

/// Nobody wants in, or nobody is about.
const FREE: u32 = 0;
/// Somebody does, or is; nobody sleeps until he leaves.
const TAKEN: u32 = 1;
/// The same, and somebody sleeps until he leaves.
const AWAITED: u32 = 2;

/// A value that one owner and rare intruders share.
///
/// Nothing of it is kept apart on cache lines: the owner has the line anyway, for his own word and the value, and an intruder
/// takes it from him by looking whether he is inside. Whoever has a gate among other things sees to it that nobody else writes
/// around it, as the state of a log does: the owners of two logs would write to one line otherwise.
#[derive(Debug)]
pub(crate) struct Gated<T> {
    /// The owner is inside.
    inside: AtomicBool,
    /// An intruder wants in, or is in; [`AWAITED`] when the owner sleeps.
    wanted: Word,
    /// Intruders exclude each other; [`AWAITED`] when another one sleeps.
    intruding: Word,
    owned: AtomicBool,
    /// Barriers of the kernel serve; decided once for the process.
    asymmetric: bool,
    value: UnsafeCell<T>,
}

/// What a log has behind its gate fits one line with it.
#[cfg(not(any(loom, lanterman_thread_sanitizer)))]
const _: () = assert!(size_of::<Gated<[u64; 5]>>() <= 64, "one cache line");

// SAFETY: the gate lets one thread at a time reach the value, as a mutex does; so sending the value must be allowed, and
// nothing more.
unsafe impl<T: Send> Sync for Gated<T> {}

/// A gate, and a count of the value that it stands in.
struct Held<T> {
    gate: NonNull<Gated<T>>,
    _holder: Arc<dyn Send + Sync>,
}

// SAFETY: it is used as a shared reference to the gate alone, which may be sent where the gate may be shared; the count of
// the holder may be sent by its type.
unsafe impl<T: Send> Send for Held<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Held<T> {}

impl<T> Held<T> {
    /// The gate that `of` finds in `holder`.
    fn new<H: Send + Sync + 'static>(holder: &Arc<H>, of: fn(&H) -> &Gated<T>) -> Self {
        Held {
            gate: NonNull::from(of(holder)),
            _holder: Arc::<H>::clone(holder),
        }
    }
}

impl<T> Deref for Held<T> {
    type Target = Gated<T>;

    #[inline]
    fn deref(&self) -> &Gated<T> {
        // SAFETY: `new` had a reference to it that lives as long as the holder, which is counted here and so neither moves
        // nor goes; nobody has it exclusively, since the holder is shared.
        unsafe { self.gate.as_ref() }
    }
}

impl<T> fmt::Debug for Held<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Held").finish_non_exhaustive()
    }
}

/// The one who may enter cheaply.
#[derive(Debug)]
pub(crate) struct Owner<T> {
    gated: Held<T>,
}

/// The owner inside.
#[derive(Debug)]
pub(crate) struct Entered<'a, T> {
    gated: &'a Gated<T>,
    /// A guard that threads share lends the value to all of them, which a value must allow that a gate need not.
    lends: PhantomData<T>,
}

/// An intruder inside; may be sent to another thread.
#[derive(Debug)]
pub(crate) struct Intruder<T> {
    gated: Held<T>,
    /// As in [`Entered`].
    lends: PhantomData<T>,
}

impl<T> Gated<T> {
    pub(crate) fn new(value: T) -> Self {
        Gated {
            inside: AtomicBool::new(false),
            wanted: Word::new(FREE),
            intruding: Word::new(FREE),
            owned: AtomicBool::new(false),
            asymmetric: atomics::barrier_available(),
            value: UnsafeCell::new(value),
        }
    }

    /// A gate with fences on both sides, as where the kernel has no barrier.
    #[cfg(test)]
    pub(crate) fn with_fences(value: T) -> Self {
        Gated {
            asymmetric: false,
            ..Self::new(value)
        }
    }

    /// Becomes the owner, unless there is one.
    pub(crate) fn take_owner_in<H: Send + Sync + 'static>(
        holder: &Arc<H>,
        of: fn(&H) -> &Gated<T>,
    ) -> Option<Owner<T>> {
        let gated = Held::new(holder, of);
        // Acquire: what the owner before did is visible. The fence behind would do; it is said here too for the thread
        // sanitizer, which knows no fences.
        if gated.owned.swap(true, Ordering::Acquire) {
            return None;
        }
        if !weakened!("gate-owner-taken-unfenced") {
            // With the fence in `announce`: an intruder who saw no owner is seen by this one.
            fence(Ordering::SeqCst);
        }
        Some(Owner { gated })
    }

    #[inline]
    fn owner_fence(&self) {
        if weakened!("gate-owner-unfenced") {
            return;
        }
        if self.asymmetric {
            compiler_fence(Ordering::SeqCst);
        } else {
            fence(Ordering::SeqCst);
        }
    }

    /// Says that an intruder wants in. Afterwards an owner who is inside can be seen there, and one who comes sees the
    /// wish.
    fn announce(&self) {
        if self.wish_needs_barrier() {
            Self::barrier();
        }
    }

    /// Says that an intruder wants in; whether the kernel's barrier must follow before anything may be concluded.
    fn wish_needs_barrier(&self) -> bool {
        self.wanted.store(TAKEN, Ordering::Relaxed);
        if !weakened!("gate-wish-unfenced") {
            fence(Ordering::SeqCst);
        }
        // Acquire: what an owner did who is gone is visible to the intruder.
        let acquire = order(Ordering::Acquire, weakened!("gate-owner-looked-for-relaxed"));
        self.asymmetric && self.owned.load(acquire)
    }

    fn barrier() {
        if weakened!("gate-barrier-missing") {
            return;
        }
        // The kernel answers only want of memory here, which passes; without the barrier nothing may be concluded.
        while atomics::barrier().is_err() {
            yield_now();
        }
    }

    #[cold]
    fn wait_outside(&self) {
        let wanted = &self.wanted;
        loop {
            // Acquire: what an intruder did is visible when his wish is seen gone.
            match wanted.compare_exchange(TAKEN, AWAITED, Ordering::Acquire, Ordering::Acquire) {
                Err(FREE) => return,
                _ => wanted.wait(AWAITED),
            }
        }
    }

    /// Waits until no other intruder is about.
    ///
    /// Acquire, here and in `try_intrude`: what the intruder before did is visible. The fence with which every intruder
    /// says his wish would do; it is said here too for the thread sanitizer, which knows no fences.
    fn keep_intruders_out(&self) {
        if self
            .intruding
            .compare_exchange(FREE, TAKEN, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
        {
            return;
        }
        // Whoever has slept takes the word as awaited: he cannot know whether others sleep on.
        while self.intruding.swap(AWAITED, Ordering::Acquire) != FREE {
            self.intruding.wait(AWAITED);
        }
    }

    /// Waits for the other intruder, if any, and for the owner to be outside; then is inside.
    pub(crate) fn intrude_in<H: Send + Sync + 'static>(
        holder: &Arc<H>,
        of: fn(&H) -> &Gated<T>,
    ) -> Intruder<T> {
        let gated = Held::new(holder, of);
        gated.keep_intruders_out();
        gated.announce();
        gated.wait_for_owner();
        Intruder {
            gated,
            lends: PhantomData,
        }
    }

    /// The same for many values at once, at the price of one barrier. Everybody who takes several must take them in the
    /// same order.
    pub(crate) fn intrude_all_in<'a, H: Send + Sync + 'static>(
        holders: impl Iterator<Item = &'a Arc<H>>,
        of: fn(&H) -> &Gated<T>,
    ) -> Vec<Intruder<T>> {
        let all: Vec<Held<T>> = holders.map(|holder| Held::new(holder, of)).collect();
        let mut needs_barrier = false;
        for gated in &all {
            gated.keep_intruders_out();
            needs_barrier |= gated.wish_needs_barrier();
        }
        if needs_barrier {
            Self::barrier();
        }
        all.into_iter()
            .map(|gated| {
                gated.wait_for_owner();
                Intruder {
                    gated,
                    lends: PhantomData,
                }
            })
            .collect()
    }

    /// The same, but only if nobody is inside: never waits.
    pub(crate) fn try_intrude_in<H: Send + Sync + 'static>(
        holder: &Arc<H>,
        of: fn(&H) -> &Gated<T>,
    ) -> Option<Intruder<T>> {
        let gated = Held::new(holder, of);
        gated
            .intruding
            .compare_exchange(FREE, TAKEN, Ordering::Acquire, Ordering::Relaxed)
            .ok()?;
        gated.announce();
        let intruder = Intruder {
            gated,
            lends: PhantomData,
        };
        // Dropping the intruder withdraws the wish; he has not looked at the value.
        (!intruder.gated.owner_is_inside()).then_some(intruder)
    }

    fn owner_is_inside(&self) -> bool {
        // Acquire: what the owner did inside is visible when he is seen outside.
        let acquire = order(Ordering::Acquire, weakened!("gate-outside-seen-relaxed"));
        self.inside.load(acquire)
    }

    fn wait_for_owner(&self) {
        let mut turns = 0u32;
        while self.owner_is_inside() {
            turns = turns.saturating_add(1);
            if turns < SPINS {
                spin_loop();
            } else if turns < YIELDS {
                yield_now();
            } else {
                // An owner who is inside for long does not say when he leaves, which would cost him an atomic exchange.
                self.wanted.pause(TAKEN);
            }
        }
    }
}

/// A gate that stands alone.
#[cfg(test)]
impl<T: Send + 'static> Gated<T> {
    pub(crate) fn take_owner(self: &Arc<Self>) -> Option<Owner<T>> {
        Self::take_owner_in(self, |gated| gated)
    }

    pub(crate) fn intrude(self: &Arc<Self>) -> Intruder<T> {
        Self::intrude_in(self, |gated| gated)
    }

    pub(crate) fn try_intrude(self: &Arc<Self>) -> Option<Intruder<T>> {
        Self::try_intrude_in(self, |gated| gated)
    }

    #[cfg(loom)]
    pub(crate) fn intrude_all<'a>(all: impl Iterator<Item = &'a Arc<Self>>) -> Vec<Intruder<T>> {
        Self::intrude_all_in(all, |gated| gated)
    }
}

impl<T> Owner<T> {
    /// Goes inside; waits only while an intruder is there.
    #[inline]
    pub(crate) fn enter(&mut self) -> Entered<'_, T> {
        let gated = &*self.gated;
        loop {
            gated.inside.store(true, Ordering::Relaxed);
            gated.owner_fence();
            // Acquire: what an intruder did is visible when his wish is seen gone.
            let acquire = order(Ordering::Acquire, weakened!("gate-entered-relaxed"));
            if gated.wanted.load(acquire) == FREE {
                return Entered {
                    gated,
                    lends: PhantomData,
                };
            }
            gated.inside.store(false, Ordering::Release);
            gated.wait_outside();
        }
    }
}

impl<T> Drop for Owner<T> {
    fn drop(&mut self) {
        let release = order(Ordering::Release, weakened!("gate-owner-gone-relaxed"));
        self.gated.owned.store(false, release);
    }
}

impl<T> Deref for Entered<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: a guard exists only between `enter` and its drop, in which `inside` keeps intruders out, and there is
        // one owner, borrowed mutably by the guard.
        unsafe { &*self.gated.value.get() }
    }
}

impl<T> DerefMut for Entered<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`; `&mut self` makes this the only reference through the guard.
        unsafe { &mut *self.gated.value.get() }
    }
}

impl<T> Drop for Entered<'_, T> {
    #[inline]
    fn drop(&mut self) {
        let release = order(Ordering::Release, weakened!("gate-left-relaxed"));
        self.gated.inside.store(false, release);
    }
}

impl<T> Deref for Intruder<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: `intruding` admits one intruder, and `wait_for_owner` returned with the owner outside; he stays there
        // while `wanted` is set, which is until this guard is dropped.
        unsafe { &*self.gated.value.get() }
    }
}

impl<T> DerefMut for Intruder<T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`; `&mut self` makes this the only reference through the guard.
        unsafe { &mut *self.gated.value.get() }
    }
}

impl<T> Drop for Intruder<T> {
    fn drop(&mut self) {
        let release = order(Ordering::Release, weakened!("gate-wish-withdrawn-relaxed"));
        if self.gated.wanted.swap(FREE, release) == AWAITED && !weakened!("gate-owner-not-woken") {
            self.gated.wanted.wake_all();
        }
        let release = order(Ordering::Release, weakened!("gate-intruders-left-relaxed"));
        if self.gated.intruding.swap(FREE, release) == AWAITED && !weakened!("gate-intruder-not-woken") {
            self.gated.intruding.wake_all();
        }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_owner_at_a_time() {
        let gated = Arc::new(Gated::new(0u32));
        let owner = gated.take_owner();
        assert!(owner.is_some());
        assert!(gated.take_owner().is_none());
        drop(owner);
        assert!(gated.take_owner().is_some());
    }

    #[test]
    fn an_owner_who_never_comes_keeps_nobody_out() {
        let gated = Arc::new(Gated::new(1u32));
        let _owner = gated.take_owner();
        *gated.intrude() += 1;
        assert_eq!(*gated.intrude(), 2);
        let inside = gated.intrude();
        assert!(gated.try_intrude().is_none());
        drop(inside);
    }

    fn count_from_both_sides(gated: Gated<(u64, u64)>) {
        let gated = Arc::new(gated);
        std::thread::scope(|scope| {
            let mut owner = gated.take_owner().unwrap();
            let mut threads = vec![scope.spawn(move || {
                for _ in 0..200_000 {
                    let mut pair = owner.enter();
                    pair.0 += 1;
                    pair.1 += 1;
                }
            })];
            for _ in 0..2 {
                let gated = Arc::clone(&gated);
                threads.push(scope.spawn(move || {
                    for _ in 0..2_000 {
                        let mut pair = gated.intrude();
                        assert_eq!(pair.0, pair.1, "somebody was inside at the same time");
                        pair.0 += 1;
                        std::hint::spin_loop();
                        pair.1 += 1;
                    }
                }));
            }
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        });
        assert_eq!(*gated.intrude(), (204_000, 204_000));
    }

    #[test]
    fn owner_and_intruders_never_meet_with_barriers_of_the_kernel() {
        count_from_both_sides(Gated::new((0, 0)));
    }

    #[test]
    fn owner_and_intruders_never_meet_with_fences() {
        count_from_both_sides(Gated::with_fences((0, 0)));
    }
}
