//! Promise: whatever is done to a store, in whatever order and with whatever crashes between, it answers like a plain
//! list of messages. Shown by driving both with the same decisions, from fixed seeds and from proptest.
#![allow(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a test's numbers are small, and it fails by panicking"
)]

use std::hash::{BuildHasher, Hasher, RandomState};

use lanterman_fuzz::choices::Seeded;
use lanterman_fuzz::model::{self, Summary};
use proptest::prelude::*;

fn input(seed: u64) -> Vec<u8> {
    let mut seeded = Seeded::new(seed);
    let bytes = 100 + seeded.below(1500) as usize;
    seeded.bytes(bytes)
}

/// Number of a variable of the environment, for longer runs by hand.
fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(otherwise)
}

/// Runs the seeds from one on; gives what they did together.
fn over_seeds(first: u64, count: u64) -> Summary {
    let mut together = Summary::default();
    for seed in first..first + count {
        let Ok(done) = std::panic::catch_unwind(|| model::run(&input(seed))) else {
            eprintln!("seed {seed}");
            model::explain(&input(seed));
            panic!("seed {seed} fails");
        };
        together.add(&done);
    }
    together
}

#[test]
fn the_engine_answers_like_the_model_for_fixed_seeds() {
    let done = over_seeds(number("LANTERMAN_SEED", 0), number("LANTERMAN_SEEDS", 50));
    eprintln!("{done:?}");
    // Of a few seeds by hand nothing can be asked.
    if number("LANTERMAN_SEEDS", 50) >= 50 {
        assert!(
            done.retained > 100
                && done.refused > 100
                && done.diverted > 100
                && done.compacted > 1000
                && done.keys_found > 1000,
            "the seeds look at too little: {done:?}"
        );
    }
}

#[test]
fn the_engine_answers_like_the_model_for_seeds_that_are_others_each_time() {
    // Printed, so that a failure can be followed.
    let chance = RandomState::new().build_hasher().finish() >> 1;
    let first = number("LANTERMAN_SEED", chance);
    eprintln!("LANTERMAN_SEED={first}");
    over_seeds(first, number("LANTERMAN_SEEDS", 50));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn the_engine_answers_like_the_model_for_any_decisions(input in proptest::collection::vec(any::<u8>(), 0..800)) {
        model::drive(&input);
    }
}
