//! Promise: whatever call to the disk fails, and however, there is no panic and no hang; whoever called gets an error that
//! says what and where, or does not notice; nothing is acknowledged after a failed sync until the store is opened again;
//! and nothing that was acknowledged is lost, altered, reordered or doubled, whether the store is opened again at once or
//! after a power cut.
//!
//! Shown by running a workload once to count its operations, and then once for every operation and every fault: over a
//! disk in memory that knows what a power cut takes (here), and over the disk of the system, whose single calls and
//! completions go wrong beneath the loops that are to cope with them (`system`). With `LANTERMAN_DEEP=1` also for
//! other seeds, for many pairs of faults, and with threads. What fails prints words for `LANTERMAN_REPLAY`.
#![allow(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "tests fail by panicking, say what they did, and their numbers are small"
)]

mod cases;
#[path = "../common/mod.rs"]
mod common;
mod system;
mod threads;
mod workload;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cases::run_all;
use common::{PATH, memory};
use lanterman::disk::{Disk, Fate, Fault, FaultyDisk, MemoryDisk, OperationKind};
use workload::{Dice, Scene, check_reopened, check_shortened, run};

const EINTR: i32 = 4;
const EIO: i32 = 5;
const EAGAIN: i32 = 11;
const ENOSPC: i32 = 28;

/// What is tried at every operation, once each.
const FAULTS: [Fault; 10] = [
    Fault::Error(EIO),
    Fault::Error(ENOSPC),
    Fault::Error(EINTR),
    Fault::Error(EAGAIN),
    Fault::ShortRead { bytes: 9 },
    Fault::Torn {
        bytes: 700,
        error: EIO,
    },
    Fault::Torn {
        bytes: 4096,
        error: ENOSPC,
    },
    Fault::SyncLost { error: EIO },
    Fault::SyncLost { error: ENOSPC },
    Fault::SyncLies,
];

/// A workload and what goes wrong in it.
#[derive(Clone)]
struct Case {
    seed: u64,
    /// Numbers of operations, with places in [`FAULTS`].
    faults: Vec<(u64, usize)>,
    /// Whether the first fault goes on for ever.
    lasts: bool,
}

impl Case {
    fn name(&self) -> String {
        let mut words = format!("{} {}", self.seed, u8::from(self.lasts));
        for (number, fault) in &self.faults {
            words += &format!(" {number} {fault}");
        }
        let faults: Vec<_> = self.faults.iter().map(|(_, fault)| FAULTS[*fault]).collect();
        format!("LANTERMAN_REPLAY=\"{words}\": {faults:?}")
    }

    fn has(&self, wanted: impl Fn(Fault) -> bool) -> bool {
        self.faults.iter().any(|(_, fault)| wanted(FAULTS[*fault]))
    }
}

fn is_deep() -> bool {
    std::env::var("LANTERMAN_DEEP").is_ok_and(|deep| deep == "1")
}

/// The operations of the workload where nothing fails.
fn kinds(seed: u64) -> Vec<OperationKind> {
    let faulty = Arc::new(FaultyDisk::new(memory()));
    let scene = Scene {
        disk: Arc::<FaultyDisk>::clone(&faulty),
        path: PathBuf::from(PATH),
        failed_syncs: &|| 0,
        divisor: 1,
        lies: false,
    };
    let acknowledged = run(&scene, seed);
    assert!(acknowledged.errors.is_empty(), "{:?}", acknowledged.errors);
    assert!(
        acknowledged.durable_commits > 20,
        "too little is acknowledged to show anything"
    );
    faulty.operation_kinds()
}

fn cut(memory: &MemoryDisk) -> Arc<dyn Disk> {
    Arc::new(memory.crash_image(|_, _| Fate::Lost).unwrap())
}

/// Runs one case; gives whether its faults struck.
fn strike(case: &Case) -> bool {
    let memory = memory();
    let faulty = Arc::new(FaultyDisk::new(Arc::<MemoryDisk>::clone(&memory)));
    for (place, (number, fault)) in case.faults.iter().enumerate() {
        if case.lasts && place == 0 {
            faulty.fail_from(*number, FAULTS[*fault]);
        } else {
            faulty.fail_at(*number, FAULTS[*fault]);
        }
    }
    let lies = case.has(|fault| fault == Fault::SyncLies);
    let counter = Arc::clone(&faulty);
    let acknowledged = run(
        &Scene {
            disk: Arc::<FaultyDisk>::clone(&faulty),
            path: PathBuf::from(PATH),
            failed_syncs: &|| counter.failed_syncs(),
            divisor: 1,
            lies: false,
        },
        case.seed,
    );
    let path = Path::new(PATH);
    faulty.clear_faults();
    // What a failed sync lost is lost to a killed process too: the operating system has given it up.
    let counts_committed = !case.has(|fault| matches!(fault, Fault::SyncLost { .. }));
    if lies {
        check_shortened(&cut(&memory), path, &acknowledged);
    } else {
        check_reopened(&cut(&memory), path, &acknowledged, false);
    }
    // At once, with the page cache as it is. What that store acknowledges must survive a power cut as well.
    let at_once: Arc<dyn Disk> = Arc::<MemoryDisk>::clone(&memory);
    let (store, after) = check_reopened(&at_once, path, &acknowledged, counts_committed);
    let image = cut(&memory);
    drop(store);
    if lies {
        check_shortened(&image, path, &after);
    } else {
        check_reopened(&image, path, &after, false);
    }
    faulty.fired() > 0
}

/// Whether a fault means something for an operation; others would repeat what a plain error shows.
fn fits(fault: Fault, kind: OperationKind) -> bool {
    use OperationKind::{Read, SyncData, SyncDirectory, Write, WriteSync};
    match fault {
        Fault::Torn { .. } => matches!(kind, Write | WriteSync),
        Fault::ShortRead { .. } => kind == Read,
        Fault::SyncLost { .. } | Fault::SyncLies => matches!(kind, WriteSync | SyncData | SyncDirectory),
        _ => true,
    }
}

#[test]
fn a_fault_at_any_operation_costs_nothing_that_was_acknowledged() {
    for seed in if is_deep() { 1..6 } else { 1..2 } {
        let kinds = kinds(seed);
        let mut all = Vec::new();
        for (number, kind) in kinds.iter().enumerate() {
            let fitting = (0..FAULTS.len()).filter(|fault| fits(FAULTS[*fault], *kind));
            all.extend(fitting.map(|fault| Case {
                seed,
                faults: vec![(number as u64, fault)],
                lasts: false,
            }));
        }
        let struck = run_all(&all, Case::name, strike);
        eprintln!("seed {seed}: {} operations, {struck} faults", kinds.len());
        assert!(kinds.len() >= 300, "only {} operations", kinds.len());
        assert_eq!(struck, all.len(), "faults that never struck");
        assert!(struck >= 1_800, "only {struck} faults struck");
    }
}

#[test]
fn a_disk_that_is_gone_from_any_operation_on_costs_nothing_that_was_acknowledged() {
    let count = kinds(1).len() as u64;
    let step = if is_deep() { 1 } else { 2 };
    let all: Vec<_> = (0..count)
        .step_by(step)
        .flat_map(|number| {
            [0, 1].map(|fault| Case {
                seed: 1,
                faults: vec![(number, fault)],
                lasts: true,
            })
        })
        .collect();
    let struck = run_all(&all, Case::name, strike);
    eprintln!("gone: {struck} cases");
    assert_eq!(struck, all.len(), "every one of them strikes");
}

#[test]
fn two_faults_cost_nothing_that_was_acknowledged() {
    let kinds = kinds(2);
    let wanted = if is_deep() { 20_000 } else { 300 };
    let mut dice = Dice::new(0x5EED);
    let mut pick = || {
        let number = dice.below(kinds.len() as u64);
        let fitting: Vec<_> = (0..FAULTS.len())
            .filter(|fault| fits(FAULTS[*fault], kinds[number as usize]) && FAULTS[*fault] != Fault::SyncLies)
            .collect();
        (number, fitting[dice.below(fitting.len() as u64) as usize])
    };
    let all: Vec<_> = (0..wanted)
        .map(|_| Case {
            seed: 2,
            faults: vec![pick(), pick()],
            lasts: false,
        })
        .collect();
    let struck = run_all(&all, Case::name, strike);
    eprintln!("pairs: {struck} of {wanted} struck");
    assert!(struck * 10 > wanted * 9, "only {struck} of {wanted} struck");
}

/// Does nothing but under `LANTERMAN_REPLAY`: seed, whether the first fault lasts, and operations with their faults.
#[test]
fn one_case_alone() {
    let Ok(words) = std::env::var("LANTERMAN_REPLAY") else {
        return;
    };
    let numbers: Vec<u64> = words
        .split_whitespace()
        .map(|word| word.parse().unwrap())
        .collect();
    let case = Case {
        seed: numbers[0],
        faults: numbers[2..]
            .chunks(2)
            .map(|pair| (pair[0], pair[1] as usize))
            .collect(),
        lasts: numbers[1] == 1,
    };
    for (number, _) in &case.faults {
        eprintln!("operation {number}: {:?}", kinds(case.seed).get(*number as usize));
    }
    assert!(strike(&case), "the fault never struck");
}
