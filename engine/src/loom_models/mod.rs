//! Every order of events that the memory model allows, within bounds, for the places whose correctness rests on one.
//!
//! Run with `RUSTFLAGS="--cfg loom" cargo test -p lanterman --lib loom_models`; `LOOM_MAX_PREEMPTIONS` is the bound, three
//! where nothing is said. Each model drives the code of the store itself on the atomics, locks and sleeps of loom; what
//! stands in for what loom does not know is in `atomics::modelled`. `engine/weakenings_loom.txt` names the defects that
//! each of them must find.
//!
//! A [`Watched`] value is behind a cell of loom's, which notices two users at a time, and users who do not see what the
//! one before did.
#![allow(unsafe_code, reason = "loom's cells are reached through pointers")]

use loom::cell::UnsafeCell;

mod closing;
mod gate;
mod group_commit;
mod publishing;
mod readers;
mod reclaiming;
mod syncing;

/// Switches of threads that one execution may have where nothing is said, beside those where a thread waits.
const PREEMPTIONS: usize = 3;

/// Tries every order of events in `model`.
fn every_order(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(PREEMPTIONS);
    // Waiting is a loop of looks here, and each look is a branch.
    builder.max_branches = 20_000;
    builder.check(model);
}

/// A number that something else must protect.
#[derive(Debug)]
struct Watched(UnsafeCell<u32>);

// SAFETY: loom itself stops the test when two sides use the cell at the same time, which is what is tried.
unsafe impl Sync for Watched {}

impl Watched {
    fn new() -> Self {
        Watched(UnsafeCell::new(0))
    }

    fn add_one(&self) {
        // SAFETY: as above.
        self.0.with_mut(|number| unsafe { *number += 1 });
    }

    fn read(&self) -> u32 {
        // SAFETY: as above.
        self.0.with(|number| unsafe { *number })
    }
}
