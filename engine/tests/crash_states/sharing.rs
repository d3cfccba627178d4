//! The runs over what logs share, and over giving back what nobody reaches.

use std::sync::Arc;
use std::time::Duration;

use lanterman::disk::RecordingDisk;

use crate::common_stages::Stages;
use crate::history::Oracle;
use crate::workload::{Workload, reopen};

fn value_bytes(number: u64) -> usize {
    9 + number as usize * 977 % 2_900
}

fn stages_on(disk: &Arc<RecordingDisk>) -> Stages {
    let disk = Arc::clone(disk);
    Stages::new(move || disk.operation_count(), value_bytes)
}

fn log_name(number: u64) -> String {
    format!("log-{number}")
}

/// Forks, splices, drops and named snapshots, with appends and deletions between them on all sides.
pub struct Sharing;

impl Workload for Sharing {
    fn name(&self) -> &'static str {
        "sharing"
    }

    fn states_per_recovery(&self) -> u64 {
        400
    }

    fn run(&self, disk: &Arc<RecordingDisk>) -> Box<dyn Oracle> {
        let stages = stages_on(disk);
        let store = reopen(self, disk);
        let mut numbers = 0;
        let mut append = |logs: &[&str], count: u64| {
            stages.append(&store, logs, numbers..numbers + count).unwrap();
            numbers += count;
        };
        append(&["log-0", "log-1", "log-2"], 14);
        for round in 0..15u64 {
            let (name, other) = (log_name(round % 3), log_name((round + 1) % 3));
            let fork = format!("fork-{round}");
            append(&[&name, &other], 3 + round * 7 % 9);
            let end = stages.log(&name).len() as u64;
            match round % 4 {
                0 => stages.fork(&store, &name, &fork, None).unwrap(),
                1 => stages
                    .fork(&store, &name, &fork, Some(stages.next_shown(&name, end / 2)))
                    .unwrap(),
                2 => {
                    stages
                        .create_snapshot(&store, &format!("label-{round}"), &[&name])
                        .unwrap();
                    stages
                        .fork_named(&store, &format!("label-{round}"), &name, &fork)
                        .unwrap();
                }
                _ => {
                    stages
                        .create_snapshot(&store, &format!("label-{round}"), &[])
                        .unwrap();
                    stages.fork(&store, &other, &fork, None).unwrap();
                }
            }
            append(&[&fork, &name], 2);
            let old = stages.next_shown(&name, 3);
            stages.delete(&store, &name, old..old + 2).unwrap();
            let forked = stages.next_shown(&fork, 1);
            if forked + 1 < stages.log(&fork).len() as u64 {
                stages.delete(&store, &fork, forked..forked + 1).unwrap();
            }
            if round % 3 == 1 {
                let end = stages.log(&fork).len() as u64;
                stages.splice(&store, &name, &fork, end / 3..end).unwrap();
                append(&[&name], 1);
            }
            if round % 5 == 4 {
                stages.drop_log(&store, &format!("fork-{}", round - 1)).unwrap();
            }
            if round % 6 == 5 {
                let labelled = (0..round - 1).rev().find(|round| round % 4 >= 2).unwrap();
                stages
                    .drop_snapshot(&store, &format!("label-{labelled}"))
                    .unwrap();
                stages
                    .retain(&store, &other, stages.next_shown(&other, end / 3) + 1)
                    .unwrap();
            }
            if round % 3 == 2 {
                while store.step().unwrap() {}
            }
            if round % 8 == 7 {
                store.checkpoint().unwrap();
            }
        }
        std::mem::forget(store);
        Box::new(stages)
    }
}

/// Deletions of all sizes, and giving back what they leave: in steps, at once, and so that nothing of it is in any file.
pub struct Collection;

impl Workload for Collection {
    fn name(&self) -> &'static str {
        "collection"
    }

    fn states_per_recovery(&self) -> u64 {
        400
    }

    fn run(&self, disk: &Arc<RecordingDisk>) -> Box<dyn Oracle> {
        let stages = stages_on(disk);
        let store = reopen(self, disk);
        let mut numbers = 0;
        let mut append = |logs: &[&str], count: u64| {
            stages.append(&store, logs, numbers..numbers + count).unwrap();
            numbers += count;
        };
        append(&["log-0", "log-1", "log-2"], 40);
        for round in 0..16u64 {
            let name = log_name(round % 3);
            append(&[&name], 20 + round * 7 % 30);
            while store.step().unwrap() {}
            let end = stages.log(&name).len() as u64;
            let first = stages.next_shown(&name, end / 4);
            let receipt = match round % 4 {
                // A message in the middle of a slab, a slab or two, and all but the ends.
                0 => stages.delete(&store, &name, first..first + 1).unwrap(),
                1 => stages
                    .delete(&store, &name, first..(first + 30).min(end))
                    .unwrap(),
                2 => stages.delete(&store, &name, first..end - 2).unwrap(),
                _ => {
                    stages
                        .fork(&store, &name, &format!("fork-{round}"), None)
                        .unwrap();
                    stages
                        .delete(&store, &name, first..(first + 25).min(end))
                        .unwrap()
                }
            };
            match round % 5 {
                0 => drop(store.collect().unwrap()),
                1 | 3 => {
                    store.checkpoint().unwrap();
                    for _ in 0..3 {
                        store.collect_step(24 << 10).unwrap();
                    }
                }
                2 => store.wait_erased(&receipt, Duration::from_secs(60)).unwrap(),
                _ => {}
            }
            if round % 8 == 7 {
                stages.drop_log(&store, &format!("fork-{}", round - 4)).unwrap();
                store.collect().unwrap();
            }
        }
        std::mem::forget(store);
        Box::new(stages)
    }
}
