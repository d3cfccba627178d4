//! Every order of events that the memory model allows, within bounds, for the gate and for publishing.
//!
//! Run with `RUSTFLAGS="--cfg loom" cargo test --release -p lanterman --lib loom`. The gate is tried with its
//! fences: loom knows no barrier on all threads. A value behind the gate is a cell of loom's, which notices two users at
//! a time and users who do not see what the one before did.
#![allow(unsafe_code, reason = "loom's cells are reached through pointers")]

use std::sync::Arc;

use loom::cell::UnsafeCell;
use loom::thread;

use lanterman_format::buffer::ValueType;

use super::gated::Gated;
use crate::tail::pool::Pool;

fn add_one(value: &UnsafeCell<u32>) {
    // SAFETY: loom itself stops the test when somebody else uses the cell at the same time, which is what is tried here.
    value.with_mut(|number| unsafe { *number += 1 });
}

fn bounded(preemptions: usize) -> loom::model::Builder {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    // Waiting is a loop of looks here, and each look is a branch.
    builder.max_branches = 20_000;
    builder
}

#[test]
fn owner_and_intruder_are_never_inside_together() {
    bounded(3).check(|| {
        let gated = Arc::new(Gated::new(UnsafeCell::new(0u32)));
        let mut owner = gated.take_owner().unwrap();
        let other = Arc::clone(&gated);
        let intruder = thread::spawn(move || add_one(&other.intrude()));
        for _ in 0..2 {
            add_one(&owner.enter());
        }
        intruder.join().unwrap();
        // SAFETY: both users are done, and loom would notice if one were not.
        gated.intrude().with(|number| assert_eq!(unsafe { *number }, 3));
    });
}

#[test]
fn two_intruders_are_never_inside_together() {
    bounded(2).check(|| {
        let gated = Arc::new(Gated::new(UnsafeCell::new(0u32)));
        let other = Arc::clone(&gated);
        let intruder = thread::spawn(move || add_one(&other.intrude()));
        add_one(&gated.intrude());
        intruder.join().unwrap();
        // SAFETY: as above.
        gated.intrude().with(|number| assert_eq!(unsafe { *number }, 2));
    });
}

#[test]
fn an_intruder_who_does_not_wait_gets_in_only_alone() {
    bounded(3).check(|| {
        let gated = Arc::new(Gated::new(UnsafeCell::new(0u32)));
        let mut owner = gated.take_owner().unwrap();
        let other = Arc::clone(&gated);
        let intruder = thread::spawn(move || other.try_intrude().map(|inside| add_one(&inside)).is_some());
        add_one(&owner.enter());
        let got_in = intruder.join().unwrap();
        // SAFETY: as above.
        gated
            .intrude()
            .with(|number| assert_eq!(unsafe { *number }, 1 + u32::from(got_in)));
    });
}

#[test]
fn an_owner_who_follows_another_sees_what_that_one_did() {
    bounded(3).check(|| {
        let gated = Arc::new(Gated::new(UnsafeCell::new(0u32)));
        let mut first = gated.take_owner().unwrap();
        let other = Arc::clone(&gated);
        let second = thread::spawn(move || {
            other
                .take_owner()
                .map(|mut owner| add_one(&owner.enter()))
                .is_some()
        });
        add_one(&first.enter());
        drop(first);
        let followed = second.join().unwrap();
        // SAFETY: as above.
        gated
            .intrude()
            .with(|number| assert_eq!(unsafe { *number }, 1 + u32::from(followed)));
    });
}

#[test]
fn a_reader_finds_every_published_message_at_its_place() {
    bounded(3).check(|| {
        let pool = Pool::new(1 << 20, 1 << 20);
        let mut writer = pool.take(4096, 7, 0).unwrap();
        let chunk = Arc::clone(writer.chunk());
        let reader = thread::spawn(move || {
            for _ in 0..2 {
                let published = chunk.published();
                let mut expected = 256;
                for entry in 0..published.entries {
                    assert_eq!(chunk.position(u64::from(entry)), Some(expected));
                    expected += chunk.buffer_at(expected).unwrap().stored_bytes();
                }
                assert_eq!(published.body_end, expected);
            }
        });
        writer.append_plain(b"first", ValueType::BYTES).unwrap();
        writer
            .append_plain(b"second and longer", ValueType::BYTES)
            .unwrap();
        reader.join().unwrap();
    });
}
