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

use lanterman_fuzz::choices::Seeded;
use lanterman_fuzz::model;
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

#[test]
fn the_engine_answers_like_the_model_for_fixed_seeds() {
    let first = number("LANTERMAN_SEED", 0);
    for seed in first..first + number("LANTERMAN_SEEDS", 50) {
        let outcome = std::panic::catch_unwind(|| model::run(&input(seed)));
        if outcome.is_err() {
            eprintln!("seed {seed}");
            model::explain(&input(seed));
            panic!("seed {seed} fails");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn the_engine_answers_like_the_model_for_any_decisions(input in proptest::collection::vec(any::<u8>(), 0..800)) {
        model::drive(&input);
    }
}
