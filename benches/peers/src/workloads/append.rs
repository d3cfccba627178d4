//! Writing: handed over, durable, over many logs, and for long.

use std::time::{Duration, Instant};

use lanterman_benches::data::{megabytes, payload};
use rustix::time::{ClockId, clock_gettime};

use super::{
    BATCH, Figures, MIDDLE, Task, bytes_on_disk, histogram, nanoseconds, percentiles, put, put_if_it_can,
};
use crate::engine::{Appender, Engine, Failure, LOG, Mode, Outcome};

/// Calls between two looks at the clock.
const CALLS_UNTIL_LOOK: u64 = 64;

/// Appends one by one, or in batches, and makes everything durable at the end.
pub(super) fn plain<E: Engine>(task: &Task, bytes: usize, batch: usize) -> Outcome<Figures> {
    let engine = E::open(&task.directory, Mode::Fast)?;
    let mut appender = engine.appender(LOG)?;
    let value = payload(bytes);
    let values: Vec<&[u8]> = (0..batch).map(|_| value.as_slice()).collect();
    let limit = (task.sizes.append_bytes / bytes as u64).max(batch as u64);
    let calls_until_look = CALLS_UNTIL_LOOK / batch.min(64) as u64;
    let start = Instant::now();
    let mut count = 0;
    while count < limit && start.elapsed() < task.sizes.append_time {
        for _ in 0..calls_until_look {
            if batch == 1 {
                appender.append(&value)?;
            } else {
                appender.append_batch(&values)?;
            }
        }
        count += calls_until_look * batch as u64;
    }
    let handed_over = start.elapsed();
    let mut figures = Figures::new();
    put(&mut figures, "rate", count as f64 / handed_over.as_secs_f64());
    let synced = appender
        .sync()
        .map(|()| count as f64 / start.elapsed().as_secs_f64());
    put_if_it_can(&mut figures, "durable_rate", synced)?;
    drop(appender);
    engine.close()?;
    let payload_bytes = (count * bytes as u64) as f64;
    put(
        &mut figures,
        "disk",
        bytes_on_disk(&task.directory)? as f64 / payload_bytes,
    );
    Ok(figures)
}

/// What a store that has lived for a while wrote before: enough for files to be in use a second time, where an engine does that.
const LIVED_BYTES: u64 = 256 << 20;
const LIVED_MESSAGE_BYTES: usize = 128 << 10;

/// Appends durably for a while, in larger messages, so that what is measured is not the first minute of a store.
fn live(task: &Task, appenders: &mut [impl Appender]) -> Outcome<()> {
    let value = payload(LIVED_MESSAGE_BYTES);
    let full = LIVED_BYTES as f64 * task.sizes.scale / LIVED_MESSAGE_BYTES as f64;
    let start = Instant::now();
    let mut done = 0.0;
    while done < full && start.elapsed() < 2 * task.sizes.durable_time {
        for appender in &mut *appenders {
            appender.append_durable(&value)?;
            done += 1.0;
        }
    }
    Ok(())
}

/// Durable appends of 1 KiB by several threads, each to a log of its own.
pub(super) fn durable<E: Engine>(task: &Task, threads: u64) -> Outcome<Figures> {
    let engine = E::open(&task.directory, Mode::Durable)?;
    let value = payload(MIDDLE);
    let mut appenders = (0..threads)
        .map(|log| engine.appender(log))
        .collect::<Outcome<Vec<_>>>()?;
    live(task, &mut appenders)?;
    let start = Instant::now();
    let time = task.sizes.durable_time;
    let all = std::thread::scope(|scope| {
        let threads: Vec<_> = appenders
            .into_iter()
            .map(|mut appender| {
                let value = &value;
                scope.spawn(move || -> Outcome<_> {
                    let mut seen = histogram()?;
                    while start.elapsed() < time {
                        let begin = Instant::now();
                        appender.append_durable(value)?;
                        seen.record(nanoseconds(begin.elapsed()))?;
                    }
                    Ok(seen)
                })
            })
            .collect();
        let mut all = histogram()?;
        for thread in threads {
            all.add(
                thread
                    .join()
                    .map_err(|_| Failure::because("a thread panicked"))??,
            )?;
        }
        Ok::<_, Failure>(all)
    })?;
    let took = start.elapsed();
    engine.close()?;
    let mut figures = Figures::new();
    put(&mut figures, "rate", all.len() as f64 / took.as_secs_f64());
    percentiles(&mut figures, &all);
    Ok(figures)
}

const LOGS: u64 = 1_000;
const LOGS_OF_A_COMMIT: u64 = 100;

/// A thousand logs; each commit puts a message of 100 B into a hundred of them, durably.
pub(super) fn many_logs<E: Engine>(task: &Task) -> Outcome<Figures> {
    let engine = E::open(&task.directory, Mode::ManyLogs)?;
    let value = payload(100);
    let parts = LOGS / LOGS_OF_A_COMMIT;
    let commit = |number: u64| {
        let first = number % parts * LOGS_OF_A_COMMIT;
        engine.append_to_logs(first..first + LOGS_OF_A_COMMIT, number / parts, &value)
    };
    // The first round makes the logs.
    (0..parts).try_for_each(commit)?;
    let start = Instant::now();
    let mut commits = 0;
    while start.elapsed() < task.sizes.durable_time {
        commit(parts + commits)?;
        commits += 1;
    }
    let took = start.elapsed();
    engine.close()?;
    let mut figures = Figures::new();
    put(
        &mut figures,
        "rate",
        (commits * LOGS_OF_A_COMMIT) as f64 / took.as_secs_f64(),
    );
    Ok(figures)
}

/// Time that the processors spent on this process, all threads together.
fn processor_time() -> Duration {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(
        u64::try_from(spent.tv_sec).unwrap_or_default(),
        u32::try_from(spent.tv_nsec).unwrap_or_default(),
    )
}

/// Appends 1 KiB in batches for long, with the disk in the loop, and syncs at the end.
pub(super) fn sustained<E: Engine>(task: &Task) -> Outcome<Figures> {
    let engine = E::open(&task.directory, Mode::Fast)?;
    let mut appender = engine.appender(LOG)?;
    let value = payload(MIDDLE);
    let values: Vec<&[u8]> = (0..BATCH).map(|_| value.as_slice()).collect();
    let mut longest = Duration::ZERO;
    let mut bytes = 0;
    let (start, spent_before) = (Instant::now(), processor_time());
    while bytes < task.sizes.sustained_bytes && start.elapsed() < task.sizes.sustained_time {
        let begin = Instant::now();
        appender.append_batch(&values)?;
        longest = longest.max(begin.elapsed());
        bytes += (BATCH * MIDDLE) as u64;
    }
    match appender.sync() {
        // Nothing to wait for, then.
        Ok(()) | Err(Failure::CannotDo(_)) => {}
        Err(failure) => return Err(failure),
    }
    let took = start.elapsed();
    let spent = processor_time().saturating_sub(spent_before);
    drop(appender);
    engine.close()?;
    let mut figures = Figures::new();
    put(&mut figures, "megabytes", megabytes(bytes, took));
    put(&mut figures, "cpu", spent.as_secs_f64() / (bytes as f64 / 1e9));
    put(&mut figures, "stall_ms", longest.as_secs_f64() * 1e3);
    Ok(figures)
}
