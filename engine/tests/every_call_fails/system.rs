//! The same over the disk of the system: errors and short results of single calls and of the ring's completions,
//! beneath the loops that continue and repeat them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lanterman::disk::{Call, CallFault, CallPlan, Choice, Disk, SystemDisk, SystemOptions};

use crate::cases::run_all;
use crate::is_deep;
use crate::workload::{Acknowledged, Scene, check_reopened, run};

const EPERM: i32 = 1;
const ENOMEM: i32 = 12;
const ECANCELED: i32 = 125;
const EFAULT: i32 = 14;
const EBUSY: i32 = 16;

/// What is tried at every call, once each. [`absorbed`] says which of them nobody may notice.
const FAULTS: [CallFault; 9] = [
    CallFault::Error(crate::EIO),
    CallFault::Error(crate::ENOSPC),
    CallFault::Error(crate::EINTR),
    CallFault::Error(crate::EAGAIN),
    CallFault::Error(EFAULT),
    CallFault::Error(ECANCELED),
    CallFault::Error(EBUSY),
    CallFault::AtMost(512),
    CallFault::AtMost(5000),
];

#[derive(Clone, Copy, Debug)]
struct Way {
    ring: Choice,
    direct: Choice,
}

const WAYS: [Way; 4] = [
    Way {
        ring: Choice::Required,
        direct: Choice::Auto,
    },
    Way {
        ring: Choice::Required,
        direct: Choice::Off,
    },
    Way {
        ring: Choice::Off,
        direct: Choice::Auto,
    },
    Way {
        ring: Choice::Off,
        direct: Choice::Off,
    },
];

impl Way {
    fn disk(self, plan: &Arc<CallPlan>) -> std::io::Result<Arc<SystemDisk>> {
        let options = SystemOptions {
            ring: self.ring,
            direct: self.direct,
            ..SystemOptions::for_tests()
        };
        SystemDisk::with_calls(options, Arc::clone(plan)).map(Arc::new)
    }
}

/// A directory for one run: in memory where there is such a file system, for there a sync costs nothing.
fn directory() -> tempfile::TempDir {
    let in_memory = Path::new("/dev/shm");
    tempfile::tempdir_in(in_memory)
        .or_else(|_| tempfile::tempdir())
        .unwrap()
}

/// Runs the workload; gives what it was told and where the store is.
fn work(way: Way, plan: &Arc<CallPlan>, directory: &Path) -> (Acknowledged, PathBuf) {
    let path = directory.join("store");
    let disk: Arc<dyn Disk> = match way.disk(plan) {
        Ok(disk) => disk,
        // The first call sets up a ring, to see whether it may: with the ring required that is an error of its own.
        Err(error) => {
            assert!(plan.fired() > 0, "{error}");
            return (Acknowledged::default(), path);
        }
    };
    let scene = Scene {
        disk,
        path: path.clone(),
        failed_syncs: &|| plan.failed_syncs(),
        divisor: 2,
        lies: false,
    };
    (run(&scene, 3), path)
}

/// The calls of the workload where nothing goes wrong; nothing where this machine has no ring.
fn calls(way: Way) -> Option<Vec<Call>> {
    if let Err(error) = way.disk(&Arc::default()) {
        eprintln!("skipped: {way:?}: {error}");
        return None;
    }
    let (directory, plan) = (directory(), Arc::new(CallPlan::new()));
    let (acknowledged, _) = work(way, &plan, directory.path());
    assert!(acknowledged.errors.is_empty(), "{:?}", acknowledged.errors);
    assert!(
        acknowledged.durable_commits > 10,
        "too little is acknowledged to show anything"
    );
    let calls = plan.calls();
    assert_eq!(calls.contains(&Call::RingWrite), way.ring != Choice::Off);
    Some(calls)
}

/// Whether the engine must go on as if nothing had been: results cut short, interruptions, and what a ring says when it is
/// short of something.
fn absorbed(call: Call, fault: CallFault) -> bool {
    match fault {
        CallFault::AtMost(_) => true,
        CallFault::Error(crate::EINTR) => !matches!(call, Call::Length | Call::Advise | Call::RingSetup),
        CallFault::Error(crate::EAGAIN | ECANCELED) if call == Call::RingWrite => true,
        CallFault::Error(crate::EAGAIN | EBUSY) => call == Call::RingEnter,
        CallFault::Error(_) => false,
    }
}

fn fits(call: Call, fault: CallFault) -> bool {
    match fault {
        CallFault::AtMost(_) => matches!(call, Call::Read | Call::Write | Call::WriteSync | Call::RingWrite),
        // Only a ring says these.
        CallFault::Error(ECANCELED) => call == Call::RingWrite,
        CallFault::Error(EBUSY) => call == Call::RingEnter,
        CallFault::Error(_) => true,
    }
}

struct Case {
    way: Way,
    number: u64,
    call: Call,
    fault: CallFault,
}

impl Case {
    fn name(&self) -> String {
        format!(
            "{:?}, call {}, {:?}: {:?}",
            self.way, self.number, self.call, self.fault
        )
    }
}

fn strike(case: &Case) -> bool {
    let (directory, plan) = (directory(), Arc::new(CallPlan::new()));
    plan.fail_at(case.number, case.fault);
    let (acknowledged, path) = work(case.way, &plan, directory.path());
    let struck = plan.fired() > 0;
    // Which call has a number depends on when the ring is done with something.
    let call = plan.calls().get(case.number as usize).copied();
    if struck && call.is_some_and(|call| absorbed(call, case.fault)) {
        assert!(
            acknowledged.errors.is_empty(),
            "not absorbed: {:?}",
            acknowledged.errors
        );
        assert!(acknowledged.durable_commits > 10, "not absorbed");
    }
    plan.clear_faults();
    let disk: Arc<dyn Disk> = case.way.disk(&plan).unwrap();
    check_reopened(&disk, &path, &acknowledged, true);
    struck
}

/// Every call, with every fault in a deep run, otherwise with some of them in turn.
fn cases(way: Way, calls: &[Call]) -> Vec<Case> {
    let turns = if is_deep() { 1 } else { 4 };
    let mut found = Vec::new();
    for (number, call) in calls.iter().enumerate() {
        // What is rare is tried in full.
        let is_rare = matches!(call, Call::RingSetup | Call::RingWrite);
        for (place, fault) in FAULTS.into_iter().enumerate() {
            let is_its_turn = is_rare || (place + number).is_multiple_of(turns);
            if is_its_turn && fits(*call, fault) {
                found.push(Case {
                    way,
                    number: number as u64,
                    call: *call,
                    fault,
                });
            }
        }
    }
    found
}

#[test]
fn a_failing_call_of_the_system_costs_nothing_and_a_short_one_is_continued() {
    for way in WAYS {
        let Some(calls) = calls(way) else { continue };
        let all = cases(way, &calls);
        let struck = run_all(&all, Case::name, strike);
        eprintln!(
            "{way:?}: {} calls, {} runs, {struck} struck",
            calls.len(),
            all.len()
        );
        assert!(
            struck * 10 >= all.len() * 9,
            "only {struck} of {} struck",
            all.len()
        );
    }
}

#[test]
fn a_ring_that_is_refused_when_it_is_needed_gives_way_to_plain_writes() {
    let (auto, required) = (Choice::Auto, Choice::Required);
    let way = Way {
        ring: auto,
        ..WAYS[0]
    };
    if WAYS[0].disk(&Arc::default()).is_err() {
        return;
    }
    let Some(calls) = calls(way) else { return };
    let setups = calls.iter().filter(|call| **call == Call::RingSetup).count();
    assert!(
        setups > 2,
        "a look whether there may be a ring, and one for each opening that writes slabs"
    );
    for (number, error) in [EPERM, ENOMEM, EPERM].into_iter().enumerate() {
        let (directory, plan) = (directory(), Arc::new(CallPlan::new()));
        // By kind: how many other calls come before depends on when a ring is done with something.
        plan.fail_nth(Call::RingSetup, number, CallFault::Error(error));
        let (acknowledged, path) = work(way, &plan, directory.path());
        assert_eq!(plan.fired(), 1);
        assert!(acknowledged.errors.is_empty(), "{:?}", acknowledged.errors);
        let disk: Arc<dyn Disk> = way.disk(&plan).unwrap();
        check_reopened(&disk, &path, &acknowledged, true);
    }
    let plan = Arc::new(CallPlan::new());
    plan.fail_at(0, CallFault::Error(EPERM));
    let way = Way {
        ring: required,
        ..WAYS[0]
    };
    assert_eq!(way.disk(&plan).unwrap_err().raw_os_error(), Some(EPERM));
}

#[test]
fn calls_that_are_all_cut_short_still_write_and_read_everything() {
    for way in WAYS {
        if way.disk(&Arc::default()).is_err() {
            continue;
        }
        let (directory, plan) = (directory(), Arc::new(CallPlan::new()));
        plan.fail_from(1, CallFault::AtMost(4096));
        let (acknowledged, path) = work(way, &plan, directory.path());
        assert!(
            acknowledged.errors.is_empty(),
            "{way:?}: {:?}",
            acknowledged.errors
        );
        assert!(plan.fired() > 100, "{way:?}");
        plan.clear_faults();
        let disk: Arc<dyn Disk> = way.disk(&plan).unwrap();
        check_reopened(&disk, &path, &acknowledged, true);
    }
}

/// Runs the workload with one fault at each call of a kind, as far as `most`; gives what each run was told.
fn at_each(way: Way, wanted: Call, fault: CallFault, most: usize) -> Vec<Acknowledged> {
    let Some(calls) = calls(way) else {
        return Vec::new();
    };
    let numbers = (0..).zip(calls).filter(|(_, call)| *call == wanted);
    let numbers: Vec<u64> = numbers.map(|(number, _)| number).take(most).collect();
    assert!(!numbers.is_empty(), "no {wanted:?}");
    let run = |number| {
        let (directory, plan) = (directory(), Arc::new(CallPlan::new()));
        plan.fail_at(number, fault);
        let (acknowledged, path) = work(way, &plan, directory.path());
        let disk: Arc<dyn Disk> = way.disk(&Arc::default()).unwrap();
        check_reopened(&disk, &path, &acknowledged, true);
        // Which call has a number depends on when the ring is done with something.
        (plan.calls().get(number as usize) == Some(&wanted)).then_some(acknowledged)
    };
    let told: Vec<_> = numbers.into_iter().filter_map(run).collect();
    assert!(!told.is_empty(), "no {wanted:?} met the fault");
    told
}

#[test]
fn a_call_that_is_interrupted_or_told_to_come_again_is_repeated_and_nobody_notices() {
    let (eintr, eagain) = (CallFault::Error(crate::EINTR), CallFault::Error(crate::EAGAIN));
    for (way, call, fault) in [
        (WAYS[3], Call::Read, eintr),
        (WAYS[2], Call::Write, eintr),
        (WAYS[2], Call::WriteSync, eintr),
        (WAYS[3], Call::Sync, eintr),
        (WAYS[3], Call::SyncDirectory, eintr),
        (WAYS[3], Call::Reserve, eintr),
        (WAYS[0], Call::RingWrite, eintr),
        (WAYS[0], Call::RingWrite, eagain),
        (WAYS[0], Call::RingEnter, eintr),
        (WAYS[0], Call::RingEnter, eagain),
    ] {
        for told in at_each(way, call, fault, 3) {
            assert!(
                told.errors.is_empty(),
                "{call:?} with {fault:?}: {:?}",
                told.errors
            );
        }
    }
}

#[test]
fn a_completion_with_an_error_is_told_to_somebody() {
    for error in [crate::EIO, EFAULT, crate::ENOSPC] {
        for told in at_each(WAYS[1], Call::RingWrite, CallFault::Error(error), 6) {
            assert!(!told.errors.is_empty(), "nobody was told of error {error}");
        }
    }
}
