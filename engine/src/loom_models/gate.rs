//! The gate: its owner pays nothing, intruders wait. Each model is tried with barriers of the kernel and with fences.

use std::sync::Arc;

use loom::thread;

use super::{Watched, every_order};
use crate::region::gated::Gated;

fn every_order_at_both_gates(model: impl Fn(Arc<Gated<Watched>>) + Copy + Send + Sync + 'static) {
    every_order(move || model(Arc::new(Gated::new(Watched::new()))));
    every_order(move || model(Arc::new(Gated::with_fences(Watched::new()))));
}

#[test]
fn owner_and_intruder_are_never_inside_together() {
    every_order_at_both_gates(|gated| {
        let mut owner = gated.take_owner().unwrap();
        let other = Arc::clone(&gated);
        let intruder = thread::spawn(move || other.intrude().add_one());
        for _ in 0..2 {
            owner.enter().add_one();
        }
        intruder.join().unwrap();
        assert_eq!(gated.intrude().read(), 3);
    });
}

#[test]
fn two_intruders_are_never_inside_together() {
    every_order_at_both_gates(|gated| {
        let other = Arc::clone(&gated);
        let intruder = thread::spawn(move || other.intrude().add_one());
        gated.intrude().add_one();
        intruder.join().unwrap();
        assert_eq!(gated.intrude().read(), 2);
    });
}

#[test]
fn an_intruder_who_does_not_wait_gets_in_only_alone() {
    every_order_at_both_gates(|gated| {
        let mut owner = gated.take_owner().unwrap();
        let other = Arc::clone(&gated);
        let intruder = thread::spawn(move || other.try_intrude().map(|inside| inside.add_one()).is_some());
        owner.enter().add_one();
        let got_in = intruder.join().unwrap();
        assert_eq!(gated.intrude().read(), 1 + u32::from(got_in));
    });
}

#[test]
fn an_owner_who_follows_another_sees_what_that_one_did() {
    every_order_at_both_gates(|gated| {
        let mut first = gated.take_owner().unwrap();
        let other = Arc::clone(&gated);
        let second = thread::spawn(move || {
            other
                .take_owner()
                .map(|mut owner| owner.enter().add_one())
                .is_some()
        });
        first.enter().add_one();
        drop(first);
        let followed = second.join().unwrap();
        assert_eq!(gated.intrude().read(), 1 + u32::from(followed));
    });
}

/// The intruder may see no owner, and then saves himself the barrier.
#[test]
fn an_owner_who_comes_and_goes_beside_an_intruder_is_never_inside_with_him() {
    every_order_at_both_gates(|gated| {
        let other = Arc::clone(&gated);
        let owner = thread::spawn(move || {
            let mut owner = other.take_owner().unwrap();
            owner.enter().add_one();
        });
        gated.intrude().add_one();
        owner.join().unwrap();
        assert_eq!(gated.intrude().read(), 2);
    });
}

#[test]
fn whoever_intrudes_upon_several_is_alone_in_each() {
    every_order(|| {
        let gates: Vec<_> = (0..2).map(|_| Arc::new(Gated::new(Watched::new()))).collect();
        let mut owner = gates[1].take_owner().unwrap();
        let others = gates.clone();
        let intruder = thread::spawn(move || {
            for inside in Gated::intrude_all(others.iter()) {
                inside.add_one();
            }
        });
        owner.enter().add_one();
        intruder.join().unwrap();
        let numbers: Vec<_> = gates.iter().map(|gated| gated.intrude().read()).collect();
        assert_eq!(numbers, [1, 2]);
    });
}
