//! Opening again, after an end in good order and after none.

use std::time::Instant;

use lanterman_benches::data::payload;
use rustix::process::{Signal, getpid, kill_process};

use super::{BATCH, Figures, MIDDLE, Task, put};
use crate::engine::{Appender, Engine, Failure, LOG, Mode, Outcome};

/// Batches that nobody syncs before the process is killed.
const UNSYNCED_BATCHES: u64 = 10;

fn synced_batches(task: &Task) -> u64 {
    task.sizes.reopen_bytes / (BATCH * MIDDLE) as u64
}

/// Appends and syncs, appends a little more, and ends: in good order, or by a signal that nobody can catch.
pub(super) fn fill<E: Engine>(task: &Task, die: bool) -> Outcome<Figures> {
    let engine = E::open(&task.directory, Mode::Keep)?;
    let mut appender = engine.appender(LOG)?;
    let value = payload(MIDDLE);
    let values: Vec<&[u8]> = (0..BATCH).map(|_| value.as_slice()).collect();
    for _ in 0..synced_batches(task) {
        appender.append_batch(&values)?;
    }
    match appender.sync() {
        Ok(()) | Err(Failure::CannotDo(_)) => {}
        Err(failure) => return Err(failure),
    }
    for _ in 0..UNSYNCED_BATCHES {
        appender.append_batch(&values)?;
    }
    if die {
        kill_process(getpid(), Signal::KILL)?;
    }
    drop(appender);
    engine.close()?;
    Ok(Figures::new())
}

/// Time until a log can be appended to, and whether what was synced is there.
pub(super) fn reopen<E: Engine>(task: &Task) -> Outcome<Figures> {
    let start = Instant::now();
    let engine = E::open(&task.directory, Mode::Keep)?;
    let appender = engine.appender(LOG)?;
    let took = start.elapsed();
    drop(appender);
    let (found, synced) = (engine.scan()?, synced_batches(task) * BATCH as u64);
    if found < synced {
        return Err(Failure::because(format!(
            "{found} of {synced} synced messages are there"
        )));
    }
    engine.close()?;
    let mut figures = Figures::new();
    put(&mut figures, "ms", took.as_secs_f64() * 1e3);
    Ok(figures)
}
