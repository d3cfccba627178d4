//! The runs over what logs share, and over giving back what nobody reaches.

use std::sync::Arc;
use std::time::Duration;

use lanterman::Store;
use lanterman::disk::RecordingDisk;

use crate::common_stages::Stages;
use crate::history::Oracle;
use crate::workload::{Workload, reopen};

fn value_bytes(number: u64) -> usize {
    9 + number as usize * 977 % 2_900
}

/// A store, the notes of what is done to it, and the number of the next message.
struct Run {
    stages: Stages,
    store: Store,
    next: u64,
}

impl Run {
    fn begin(workload: &dyn Workload, disk: &Arc<RecordingDisk>) -> Self {
        let recording = Arc::clone(disk);
        Self {
            stages: Stages::new(move || recording.operation_count(), value_bytes),
            store: reopen(workload, disk),
            next: 0,
        }
    }

    /// Appends so many new messages to each of the logs.
    fn append(&mut self, logs: &[&str], count: u64) {
        let numbers = self.next..self.next + count;
        self.next = numbers.end;
        self.stages.append(&self.store, logs, numbers).unwrap();
    }

    /// What the store does when it is dropped belongs to nobody.
    fn end(self) -> Box<dyn Oracle> {
        std::mem::forget(self.store);
        Box::new(self.stages)
    }
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
        let mut run = Run::begin(self, disk);
        run.append(&["log-0", "log-1", "log-2"], 14);
        for round in 0..15u64 {
            let (name, other) = (log_name(round % 3), log_name((round + 1) % 3));
            let fork = format!("fork-{round}");
            run.append(&[&name, &other], 3 + round * 7 % 9);
            let end = run.stages.log(&name).len() as u64;
            match round % 4 {
                0 => run.stages.fork(&run.store, &name, &fork, None).unwrap(),
                1 => run
                    .stages
                    .fork(
                        &run.store,
                        &name,
                        &fork,
                        Some(run.stages.next_shown(&name, end / 2)),
                    )
                    .unwrap(),
                2 => {
                    run.stages
                        .create_snapshot(&run.store, &format!("label-{round}"), &[&name])
                        .unwrap();
                    run.stages
                        .fork_named(&run.store, &format!("label-{round}"), &name, &fork)
                        .unwrap();
                }
                _ => {
                    run.stages
                        .create_snapshot(&run.store, &format!("label-{round}"), &[])
                        .unwrap();
                    run.stages.fork(&run.store, &other, &fork, None).unwrap();
                }
            }
            run.append(&[&fork, &name], 2);
            let old = run.stages.next_shown(&name, 3);
            run.stages.delete(&run.store, &name, old..old + 2).unwrap();
            let forked = run.stages.next_shown(&fork, 1);
            if forked + 1 < run.stages.log(&fork).len() as u64 {
                run.stages.delete(&run.store, &fork, forked..forked + 1).unwrap();
            }
            if round % 3 == 1 {
                let end = run.stages.log(&fork).len() as u64;
                run.stages.splice(&run.store, &name, &fork, end / 3..end).unwrap();
                run.append(&[&name], 1);
            }
            if round % 5 == 4 {
                run.stages
                    .drop_log(&run.store, &format!("fork-{}", round - 1))
                    .unwrap();
            }
            if round % 6 == 5 {
                let labelled = (0..round - 1).rev().find(|round| round % 4 >= 2).unwrap();
                run.stages
                    .drop_snapshot(&run.store, &format!("label-{labelled}"))
                    .unwrap();
                run.stages
                    .retain(&run.store, &other, run.stages.next_shown(&other, end / 3) + 1)
                    .unwrap();
            }
            if round % 3 == 2 {
                while run.store.step().unwrap() {}
            }
            if round % 8 == 7 {
                run.store.checkpoint().unwrap();
            }
        }
        run.end()
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
        let mut run = Run::begin(self, disk);
        run.append(&["log-0", "log-1", "log-2"], 40);
        for round in 0..16u64 {
            let name = log_name(round % 3);
            run.append(&[&name], 20 + round * 7 % 30);
            while run.store.step().unwrap() {}
            let end = run.stages.log(&name).len() as u64;
            let first = run.stages.next_shown(&name, end / 4);
            let receipt = match round % 4 {
                // A message in the middle of a slab, a slab or two, and all but the ends.
                0 => run.stages.delete(&run.store, &name, first..first + 1).unwrap(),
                1 => run
                    .stages
                    .delete(&run.store, &name, first..(first + 30).min(end))
                    .unwrap(),
                2 => run.stages.delete(&run.store, &name, first..end - 2).unwrap(),
                _ => {
                    run.stages
                        .fork(&run.store, &name, &format!("fork-{round}"), None)
                        .unwrap();
                    run.stages
                        .delete(&run.store, &name, first..(first + 25).min(end))
                        .unwrap()
                }
            };
            match round % 5 {
                0 => drop(run.store.collect().unwrap()),
                1 | 3 => {
                    run.store.checkpoint().unwrap();
                    // The newest values no longer reach all that the checkpoint does.
                    run.append(&[&name], 40);
                    while run.store.step().unwrap() {}
                    for _ in 0..3 {
                        run.store.collect_step(24 << 10).unwrap();
                    }
                }
                2 => run.store.wait_erased(&receipt, Duration::from_secs(60)).unwrap(),
                _ => {}
            }
            if round % 8 == 7 {
                run.stages
                    .drop_log(&run.store, &format!("fork-{}", round - 4))
                    .unwrap();
                run.store.collect().unwrap();
            }
        }
        run.end()
    }
}
