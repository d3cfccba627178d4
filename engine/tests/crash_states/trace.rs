//! From a recorded run to the states that a crash may leave, and their trial.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use lanterman::Durability;
use lanterman::disk::{Fate, MemoryDisk, OpenMode, Operation, Replay, Unit, crash_choices, torn_choices};

use crate::check::{Recovery, Trial};
use crate::history::{Found, Lives, Oracle};
use crate::state::{Crash, End, Moment};
use crate::workload::Workload;

/// Random subsets that are tried where there are too many for all.
const SAMPLES: usize = 64;

const SECTOR_BYTES: usize = 512;

/// How much is tried.
#[derive(Clone, Copy)]
pub struct Effort {
    /// Choices tried at a moment; all, kept and lost are among them always.
    pub choices_max: usize,
    /// One state in so many has its own recovery crashed.
    pub recoveries_one_in: u64,
    /// Choices tried at a moment of a recovery.
    pub recovery_choices_max: usize,
    pub seed: u64,
}

/// What was tried.
#[derive(Debug, Default)]
pub struct Counts {
    pub crashes: AtomicUsize,
    pub states: AtomicUsize,
    pub killed: AtomicUsize,
    pub recoveries: AtomicUsize,
    pub recovery_states: AtomicUsize,
}

/// A run as recorded, and what is asked of the states.
pub struct Trace<'a> {
    pub workload: &'a dyn Workload,
    pub operations: Vec<Operation>,
    pub oracle: &'a dyn Oracle,
    pub effort: Effort,
}

/// What is known of a state that was tried before.
type Known = Mutex<HashMap<u64, Found>>;

/// Walks through a run from `start` and stops at every moment of it, until `visit` says that it has seen enough.
pub fn walk(start: MemoryDisk, operations: &[Operation], mut visit: impl FnMut(Moment, &MemoryDisk) -> bool) {
    let mut replay = Replay::new(start);
    let moment = |changes, within| Moment { changes, within };
    if !visit(moment(0, false), replay.disk()) {
        return;
    }
    for (number, operation) in operations.iter().enumerate() {
        if replay.begin(operation).unwrap() && !visit(moment(number, true), replay.disk()) {
            return;
        }
        replay.apply(operation).unwrap();
        if !visit(moment(number + 1, false), replay.disk()) {
            return;
        }
    }
}

/// The choices among unsynced units, at most `limit` of them, drawn evenly but for the first ones: all kept, all lost, the
/// last two torn at once.
fn choices(units: &[Unit], limit: usize, seed: u64) -> Vec<Vec<Fate>> {
    let mut found = vec![vec![Fate::Kept; units.len()], vec![Fate::Lost; units.len()]];
    let mut others = crash_choices(units.len(), SAMPLES, seed);
    if let Some(Unit::Write { bytes, .. }) = units.last() {
        for torn in torn_choices(units.len(), bytes.len()) {
            let mut alone = vec![Fate::Lost; units.len()];
            alone[units.len() - 1] = torn[units.len() - 1];
            others.push(torn);
            others.push(alone);
        }
    }
    if let [.., Unit::Write { .. }, Unit::Write { .. }] = units {
        let mut torn = vec![Fate::Kept; units.len()];
        torn[units.len() - 2..].fill(Fate::Torn { bytes: SECTOR_BYTES });
        found.push(torn);
    }
    let left = limit.saturating_sub(found.len());
    if left == 0 {
        return found;
    }
    let step = others.len().div_ceil(left).max(1);
    found.extend(others.into_iter().skip(seed as usize % step).step_by(step));
    found
}

impl Trace<'_> {
    fn trial<'a>(&'a self, lives: &'a Lives, options: &'a lanterman::Options, choice: u64) -> Trial<'a> {
        Trial {
            options,
            oracle: self.oracle,
            lives,
            unsealed_read_bytes: self.workload.unsealed_read_bytes(),
            choice: mixed(choice),
        }
    }

    /// Tries the states of the whole run, on all cores; panics at the first that fails.
    pub fn run(&self) -> Counts {
        let counts = Counts::default();
        let known = Known::default();
        let failed = AtomicBool::new(false);
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            for worker in 0..workers {
                let (counts, known, failed) = (&counts, &known, &failed);
                scope.spawn(move || {
                    walk(MemoryDisk::new(), &self.operations, |moment, disk| {
                        let share = moment.changes % workers == worker;
                        if share && let Err(error) = self.try_moment(moment, disk, known, counts) {
                            failed.store(true, Ordering::Relaxed);
                            panic!("{error}");
                        }
                        !failed.load(Ordering::Relaxed)
                    });
                });
            }
        });
        counts
    }

    fn try_moment(
        &self,
        moment: Moment,
        disk: &MemoryDisk,
        known: &Known,
        counts: &Counts,
    ) -> Result<(), String> {
        let seed = self.effort.seed.wrapping_add(moment.changes as u64);
        let units = disk.unsynced();
        for fates in choices(&units, self.effort.choices_max, seed) {
            let crash = Crash {
                moment,
                end: End::PowerCut(fates),
            };
            counts.crashes.fetch_add(1, Ordering::Relaxed);
            self.try_power_cut(&crash, disk, known, counts)
                .map_err(|error| self.report(&crash.to_string(), &error))?;
        }
        let before = moment.changes.checked_sub(1);
        let operation = before.and_then(|before| self.operations.get(before));
        if !moment.within && operation.is_some_and(is_visible) {
            let crash = Crash {
                moment,
                end: End::Killed,
            };
            counts.killed.fetch_add(1, Ordering::Relaxed);
            self.try_kill(&crash, disk, seed, counts)
                .map_err(|error| self.report(&crash.to_string(), &error))?;
        }
        Ok(())
    }

    fn try_power_cut(
        &self,
        crash: &Crash,
        disk: &MemoryDisk,
        known: &Known,
        counts: &Counts,
    ) -> Result<(), String> {
        let image = crash.image(disk);
        let digest = image.durable_digest();
        let judge = |found: &Found| self.oracle.judge(found, crash.moment.changes, Durability::Disk);
        let tried_before = known.lock().unwrap().get(&digest).cloned();
        if let Some(found) = tried_before {
            // The same bytes answer the same; what was acknowledged by now may be more.
            return judge(&found);
        }
        let options = self.workload.options();
        let lives = Lives::default();
        let trial = self.trial(&lives, &options, digest);
        let copy = image.kill_image().unwrap();
        let found = trial.run(copy, judge)?;
        if let Entry::Vacant(entry) = known.lock().unwrap().entry(digest) {
            entry.insert(found);
            counts.states.fetch_add(1, Ordering::Relaxed);
            if mixed(digest) >> 8 & 0xFFFF_FFFF < (1 << 32) / self.effort.recoveries_one_in {
                self.crash_recovery(crash, &image, counts)?;
            }
        }
        Ok(())
    }

    fn try_kill(&self, crash: &Crash, disk: &MemoryDisk, seed: u64, counts: &Counts) -> Result<(), String> {
        let options = self.workload.options();
        let lives = Lives::default();
        let image = crash.image(disk);
        let judge = |found: &Found| {
            self.oracle
                .judge(found, crash.moment.changes, Durability::Process)
        };
        self.trial(&lives, &options, seed)
            .run(image.kill_image().unwrap(), judge)?;
        // What a kill leaves unsynced, only the recovery behind it can make durable; of names there is little to try.
        let before = crash.moment.changes.checked_sub(1);
        let operation = before.and_then(|before| self.operations.get(before));
        let is_name = operation.is_some_and(|operation| matches!(operation, Operation::Rename { .. }));
        let one_in = self
            .effort
            .recoveries_one_in
            .div_ceil(if is_name { 20 } else { 2 });
        if mixed(seed).is_multiple_of(one_in) {
            self.crash_recovery(crash, &image, counts)?;
        }
        Ok(())
    }

    /// Crashes what a state does when it is opened and written again.
    fn crash_recovery(&self, first: &Crash, image: &MemoryDisk, counts: &Counts) -> Result<(), String> {
        let options = self.workload.options();
        let lives = Lives::default();
        let recovery = self.trial(&lives, &options, 0).record(image)?;
        counts.recoveries.fetch_add(1, Ordering::Relaxed);
        let mut outcome = Ok(());
        let known = Known::default();
        let limit = self.effort.recovery_choices_max;
        walk(
            image.kill_image().unwrap(),
            &recovery.operations,
            |moment, disk| {
                let seed = self.effort.seed.wrapping_add(moment.changes as u64);
                for fates in choices(&disk.unsynced(), limit, seed) {
                    let second = Crash {
                        moment,
                        end: End::PowerCut(fates),
                    };
                    outcome = self
                        .try_second(first, &second, &recovery, disk, &known, counts)
                        .map_err(|error| self.report(&format!("{first} {second}"), &error));
                    if outcome.is_err() {
                        return false;
                    }
                }
                true
            },
        );
        outcome
    }

    fn try_second(
        &self,
        first: &Crash,
        second: &Crash,
        recovery: &Recovery,
        disk: &MemoryDisk,
        known: &Known,
        counts: &Counts,
    ) -> Result<(), String> {
        let image = second.image(disk);
        let digest = image.durable_digest();
        let judge = |found: &Found| self.judge_second(first, second, recovery, found);
        let tried_before = known.lock().unwrap().get(&digest).cloned();
        if let Some(found) = tried_before {
            return judge(&found);
        }
        let options = self.workload.options();
        let lives = Lives::default().and(&recovery.found);
        let found = self.trial(&lives, &options, digest).run(image, judge)?;
        known.lock().unwrap().insert(digest, found);
        counts.recovery_states.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn judge_second(
        &self,
        first: &Crash,
        second: &Crash,
        recovery: &Recovery,
        found: &Found,
    ) -> Result<(), String> {
        // Of the workload's own messages; those behind them are of the recovery.
        self.oracle.judge(
            &found.at_most(&recovery.found),
            first.moment.changes,
            Durability::Disk,
        )?;
        let changes = second.moment.changes;
        let is_power_cut = first.end != End::Killed;
        let promised = if changes >= recovery.done {
            &recovery.went_on
        } else if is_power_cut || changes >= recovery.opened {
            // What a power cut left is durable; what a kill left is so once the store has opened.
            &recovery.found
        } else {
            return Ok(());
        };
        let lost = |error| format!("of what the recovery had: {error}");
        found.check_has(promised).map_err(lost)
    }

    /// Tries one state alone, as its text names it: a crash, or two of them, the second within the recovery of the first.
    pub fn run_alone(&self, text: &str) {
        let crashes: Vec<Crash> = text
            .split_whitespace()
            .map(|crash| crash.parse().unwrap())
            .collect();
        let [first, rest @ ..] = crashes.as_slice() else {
            panic!("{text:?} names no crash");
        };
        let known = Known::default();
        let counts = Counts::default();
        let mut outcome = Err("the trace has no such moment".to_owned());
        walk(MemoryDisk::new(), &self.operations, |moment, disk| {
            if moment != first.moment {
                return true;
            }
            outcome = match (rest, &first.end) {
                ([], End::Killed) => self.try_kill(first, disk, self.effort.seed, &counts),
                ([], End::PowerCut(_)) => self.try_power_cut(first, disk, &known, &counts),
                ([second, ..], _) => self.run_second_alone(first, second, disk, &counts),
            };
            false
        });
        if let Err(error) = outcome {
            panic!("{}", self.report(text, &error));
        }
    }

    fn run_second_alone(
        &self,
        first: &Crash,
        second: &Crash,
        disk: &MemoryDisk,
        counts: &Counts,
    ) -> Result<(), String> {
        let options = self.workload.options();
        let lives = Lives::default();
        let image = first.image(disk);
        let recovery = self.trial(&lives, &options, 0).record(&image)?;
        let mut outcome = Err("the recovery has no such moment".to_owned());
        walk(image, &recovery.operations, |moment, disk| {
            if moment != second.moment {
                return true;
            }
            outcome = self.try_second(first, second, &recovery, disk, &Known::default(), counts);
            false
        });
        outcome
    }

    fn report(&self, crash: &str, error: &str) -> String {
        if error.contains("LANTERMAN_CRASH_STATE") {
            return error.to_owned();
        }
        let first = crash
            .split([':', '+'])
            .next()
            .and_then(|changes| changes.parse::<usize>().ok());
        let operation = first.and_then(|changes| self.operations.get(changes));
        format!(
            "{error}\n  next operation: {}\n  seed {}\n  alone: LANTERMAN_CRASH_STATE='{} {crash}'",
            operation.map_or_else(|| "none".to_owned(), short),
            self.effort.seed,
            self.workload.name(),
        )
    }
}

/// An operation without the bytes that it writes.
pub fn short(operation: &Operation) -> String {
    match operation {
        Operation::Write {
            file,
            position,
            bytes,
            sync,
        } => format!("Write {file:?} at {position}, {} bytes, {sync:?}", bytes.len()),
        other => format!("{other:?}"),
    }
}

/// Whether a process that is killed now leaves another store than before the operation.
fn is_visible(operation: &Operation) -> bool {
    !matches!(
        operation,
        Operation::SyncData { .. }
            | Operation::SyncDirectory { .. }
            | Operation::OpenShared { .. }
            | Operation::Lock { .. }
            | Operation::Open {
                mode: OpenMode::Read | OpenMode::ReadWrite,
                ..
            }
    )
}

/// Spreads the bits of a number.
fn mixed(number: u64) -> u64 {
    let mixed = (number ^ (number >> 31)).wrapping_mul(0x7FB5_D329_728E_A185);
    mixed ^ (mixed >> 29)
}
