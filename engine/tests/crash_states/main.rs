//! Promise: after a power cut at any moment, everything acknowledged as durable is there, in order and equal, what
//! follows is a prefix of what was appended, transactions are whole or absent, and what was deleted is gone, and nothing
//! else. After the death of the process alone,
//! so is everything acknowledged at all. That holds for a crash while an earlier one is recovered from, too.
//!
//! Shown by recording every change that a workload makes to the disk, with what was acknowledged when, and trying what a
//! crash leaves before and after each of the changes, for the choices of what was not yet synced: all of them up to ten
//! units; above, each unit alone lost or kept, each beginning, and samples; and the last unit torn at each sector. Each
//! state is opened within bounds, compared, written again, and opened once more.
//!
//! - `LANTERMAN_DEEP=1` tries all choices; otherwise they are drawn evenly up to a share at each moment.
//! - `LANTERMAN_CRASH_SEED=n` draws others.
//! - `LANTERMAN_CRASH_STATE='...'` tries one state alone, as a failure names it.
#![allow(
    unreachable_pub,
    clippy::cast_possible_truncation,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "tests fail by panicking, and their numbers are small"
)]

mod check;
#[path = "../common/stages.rs"]
mod common_stages;
mod edits;
mod history;
mod probe;
mod regressions;
mod sharing;
mod stages;
mod state;
mod trace;
mod workload;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use lanterman::disk::{MemoryDisk, RecordingDisk};

use trace::{Effort, Trace};
use workload::Workload;

/// The seed of ordinary runs: the same every time, so that what passed once passes again.
const SEED: u64 = 3;

/// Changes that a workload must make to the disk to be worth its name.
const CHANGES_MIN: usize = 200;

fn effort(workload: &dyn Workload, is_deep: bool) -> Effort {
    let seed = std::env::var("LANTERMAN_CRASH_SEED").map_or(SEED, |seed| seed.parse().unwrap());
    if is_deep {
        Effort {
            choices_max: usize::MAX,
            recoveries_one_in: workload.states_per_recovery(),
            recovery_choices_max: 8,
            seed,
        }
    } else {
        Effort {
            choices_max: 8,
            recoveries_one_in: workload.states_per_recovery(),
            recovery_choices_max: 2,
            seed,
        }
    }
}

/// Tries the crashes of a workload, of which at least so many must be distinct states, ordinarily and in a deep run.
fn every_crash_of(workload: &dyn Workload, states_min: usize, states_min_deep: usize) {
    let alone = std::env::var("LANTERMAN_CRASH_STATE").ok();
    let alone = alone.as_deref().map(|text| text.split_once(' ').unwrap());
    if alone.is_some_and(|(name, _)| name != workload.name()) {
        return;
    }
    let is_deep = std::env::var_os("LANTERMAN_DEEP").is_some_and(|deep| deep == "1");
    let disk = Arc::new(RecordingDisk::new(Arc::new(MemoryDisk::new())));
    let oracle = workload.run(&disk);
    let trace = Trace {
        workload,
        operations: disk.operations(),
        oracle: oracle.as_ref(),
        effort: effort(workload, is_deep),
    };
    let changes = trace.operations.len();
    assert!(changes >= CHANGES_MIN, "only {changes} changes");
    if let Some((_, crash)) = alone {
        trace.run_alone(crash);
        return;
    }
    let counts = trace.run();
    let count = |count: &std::sync::atomic::AtomicUsize| count.load(Ordering::Relaxed);
    println!(
        "{}: {changes} changes, {} power cuts, {} distinct states, {} kills, {} recoveries with {} states, seed {}",
        workload.name(),
        count(&counts.crashes),
        count(&counts.states),
        count(&counts.killed),
        count(&counts.recoveries),
        count(&counts.recovery_states),
        trace.effort.seed,
    );
    let wanted = if is_deep { states_min_deep } else { states_min };
    let states = count(&counts.states);
    assert!(states >= wanted, "{states} distinct states of {wanted}");
    assert!(count(&counts.recovery_states) > 0, "no recovery was crashed");
}

#[test]
fn no_crash_of_appends_and_commits_loses_what_was_acknowledged() {
    every_crash_of(&workload::Append, 700, 2_900);
}

#[test]
fn no_crash_of_groups_over_many_logs_loses_what_was_acknowledged() {
    every_crash_of(&workload::Groups, 1_500, 18_000);
}

#[test]
fn no_crash_of_threads_that_commit_together_loses_what_was_acknowledged() {
    every_crash_of(&workload::Threads, 900, 2_000);
}

#[test]
fn no_crash_leaves_a_part_of_a_transaction() {
    every_crash_of(&workload::Transactions, 1_300, 9_000);
}

#[test]
fn no_crash_while_segments_roll_and_live_again_loses_what_was_acknowledged() {
    every_crash_of(&workload::Rolling, 3_000, 43_000);
}

#[test]
fn no_crash_of_a_checkpoint_loses_what_was_acknowledged() {
    every_crash_of(&workload::Checkpoints, 1_400, 11_500);
}

#[test]
fn no_crash_while_logs_are_created_loses_one() {
    every_crash_of(&workload::Creation, 1_150, 4_800);
}

#[test]
fn no_crash_while_a_store_is_opened_or_closed_loses_what_was_acknowledged() {
    every_crash_of(&workload::Opening, 650, 4_500);
}

#[test]
fn no_crash_brings_deleted_messages_back_or_takes_others() {
    every_crash_of(&workload::Deletion, 1_000, 5_000);
}

#[test]
fn no_crash_mixes_what_logs_share_or_leaves_half_an_edit() {
    every_crash_of(&sharing::Sharing, 1_000, 5_000);
}

#[test]
fn no_crash_of_a_collection_takes_what_somebody_reaches() {
    every_crash_of(&sharing::Collection, 1_000, 5_000);
}

#[test]
fn no_crash_with_slabs_in_flight_loses_what_was_acknowledged() {
    every_crash_of(&workload::Slabs, 1_300, 12_000);
}

/// Otherwise the text of a state would name another one in the next run. Threads meet as they will: their states are
/// found again only by trying all.
#[test]
fn the_same_work_makes_the_same_changes() {
    // In a process of its own: memory of tails comes back when no reader of the process can be in it any more, and the tests
    // beside this one read too, so that a chunk may be closed earlier or later.
    let alone = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["the_same_work_alone", "--exact", "--ignored"])
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&alone.stdout);
    assert!(alone.status.success() && told.contains("1 passed"), "{told}");
}

#[test]
#[ignore = "the child process of its neighbour above"]
fn the_same_work_alone() {
    let workloads: [&dyn Workload; 11] = [
        &workload::Append,
        &workload::Groups,
        &workload::Transactions,
        &workload::Rolling,
        &workload::Checkpoints,
        &workload::Creation,
        &workload::Opening,
        &workload::Slabs,
        &workload::Deletion,
        &sharing::Sharing,
        &sharing::Collection,
    ];
    for workload in workloads {
        let record = || {
            let disk = Arc::new(RecordingDisk::new(Arc::new(MemoryDisk::new())));
            drop(workload.run(&disk));
            disk.operations()
        };
        let (first, second) = (record(), record());
        let differs = first.iter().zip(&second).position(|(one, other)| one != other);
        assert!(
            differs.is_none() && first.len() == second.len(),
            "{}: change {differs:?} of {} and {}",
            workload.name(),
            first.len(),
            second.len(),
        );
    }
}
