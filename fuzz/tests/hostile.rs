//! Promise: a malformed store, whoever made it, gives a typed error or answers, soon and with little memory; never a panic, a
//! hang, or an error that calls the library itself wrong. Shown by doing everything that a program can do with each of well
//! over a thousand malformed stores, whose checksums fit.
#![allow(
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "tests fail by panicking"
)]

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use lanterman::Error;
use lanterman_fuzz::hostile::exercise::{exercise, first_error};
use lanterman_fuzz::hostile::{Case, cases};

/// No store of these is worth more of the processor's time, in all that is done with it together.
const PROCESSOR_MS_MAX: u64 = 2000;
/// Beside what the process takes anyway, and what the files are long.
const MEMORY_BYTES_MAX: u64 = 64 << 20;
/// A machine may be busy; a loop without end is longer.
const WATCHDOG: Duration = Duration::from_secs(60);

/// Time and memory are the process's, so tests that measure them run one at a time.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A number of the process's own status, in KiB.
fn status_kib(name: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Milliseconds of processor time of the process so far, in the kernel's clock ticks of ten.
fn processor_ms() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let behind_name = stat.rsplit(')').next().unwrap();
    let ticks = behind_name.split_whitespace().skip(11).take(2);
    ticks.map(|ticks| ticks.parse::<u64>().unwrap()).sum::<u64>() * 10
}

#[test]
fn there_are_many_cases_and_each_has_a_name_of_its_own() {
    let cases = cases();
    assert!(cases.len() >= 1000, "{} cases", cases.len());
    let mut names = HashSet::new();
    for case in &cases {
        assert!(names.insert(&case.name), "two cases are named {}", case.name);
    }
}

#[test]
fn every_malformed_store_gives_typed_errors_or_answers_soon_and_with_little_memory() {
    let _alone = alone();
    let only = std::env::var("LANTERMAN_CASE").ok();
    let mut all = cases();
    all.retain(|case| only.as_ref().is_none_or(|only| case.name.contains(only.as_str())));
    let (sender, done) = mpsc::channel();
    let worker = std::thread::spawn(move || {
        for case in all {
            sender.send((case.name.clone(), None)).unwrap();
            let outcome = judge(&case);
            sender.send((case.name, Some(outcome))).unwrap();
        }
    });
    let (mut read, mut written, mut count) = (0, 0, 0);
    let mut failures = Vec::new();
    let mut current = String::new();
    loop {
        match done.recv_timeout(WATCHDOG) {
            Ok((name, None)) => current = name,
            Ok((name, Some(Err(failure)))) => failures.push(format!("{name}: {failure}")),
            Ok((_, Some(Ok(outcome)))) => {
                count += 1;
                read += usize::from(outcome.read);
                written += usize::from(outcome.written);
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("{current}: no end within {WATCHDOG:?}"),
        }
    }
    worker.join().unwrap();
    eprintln!("{count} malformed stores: {read} opened for reading, {written} for writing");
    assert!(
        failures.is_empty(),
        "{} failures:\n{}",
        failures.len(),
        failures.join("\n")
    );
    // Were all refused at the door, what stands behind it would not be looked at.
    assert!(
        only.is_some() || read > count / 4 && read < count,
        "{read} of {count} opened"
    );
}

fn judge(case: &Case) -> Result<lanterman_fuzz::hostile::exercise::Outcome, String> {
    // Resets the mark of the most memory that was resident at a time; where that is refused, nothing is compared.
    let resets = std::fs::write("/proc/self/clear_refs", "5").is_ok();
    let (resident, began) = (status_kib("VmRSS:"), processor_ms());
    let outcome = catch_unwind(AssertUnwindSafe(|| exercise(case)));
    let outcome = outcome.map_err(|cause| {
        let text = cause.downcast_ref::<String>().cloned();
        text.or_else(|| cause.downcast_ref::<&str>().map(ToString::to_string))
            .unwrap_or_default()
    })?;
    let spent = processor_ms().saturating_sub(began);
    if spent > PROCESSOR_MS_MAX {
        return Err(format!("{spent} ms of processor time"));
    }
    if let (true, Some(before), Some(most)) = (resets, resident, status_kib("VmHWM:")) {
        let taken = most.saturating_sub(before) * 1024;
        let bound = MEMORY_BYTES_MAX.saturating_add(case.length().saturating_mul(2));
        if taken > bound {
            return Err(format!(
                "{taken} bytes of memory for files of {} bytes",
                case.length()
            ));
        }
    }
    Ok(outcome)
}

fn named(name: &str) -> Case {
    let found = cases().into_iter().find(|case| case.name == name);
    found.unwrap_or_else(|| panic!("no case is named {name}"))
}

#[test]
fn an_entry_that_shows_more_of_a_slab_than_there_is_names_the_slab() {
    let _alone = alone();
    exercise(&named("the first slab of a leaf is an adopted slab"));
    exercise(&named(
        "CatalogEntry at 96 of catalog page 0: end_offset is greatest",
    ));
}

#[test]
fn segment_numbers_that_are_used_up_are_damage_of_the_store() {
    let _alone = alone();
    exercise(&named("RootSlot at 0 of root slot 1: next_segment is greatest"));
    exercise(&named(
        "slabs segment stands there as ffffffffffffffff.slabs as well",
    ));
}

#[test]
fn a_node_longer_than_any_node_can_be_is_not_read_at_each_attempt() {
    let _alone = alone();
    let case = named("root of orders claims 63 MiB in a segment of 64 MiB");
    // Its length alone refuses it: to come to what the bytes hold, they would have to be read.
    let Some(Error::Damaged(damage)) = first_error(&case, "orders/ü") else {
        panic!("a root of 63 MiB was read");
    };
    assert!(damage.to_string().contains("66060288"), "{damage}");
    exercise(&case);
}
