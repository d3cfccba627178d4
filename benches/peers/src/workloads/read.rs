//! Reading: all in order, at random, and close behind the writer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use lanterman_benches::data::{Random, megabytes, payload};

use super::{
    BATCH, Figures, MIDDLE, Task, bytes_on_disk, files_in, histogram, nanoseconds, percentiles, put,
};
use crate::engine::{Appender, Engine, Failure, LOG, Mode, Outcome, Reader, touch};

fn library_messages(task: &Task) -> u64 {
    (task.sizes.library_bytes / MIDDLE as u64).next_multiple_of(BATCH as u64)
}

/// Writes what the workloads of reading read: 1 KiB a message.
pub(super) fn fill<E: Engine>(task: &Task) -> Outcome<Figures> {
    let engine = E::open(&task.directory, Mode::Keep)?;
    let mut appender = engine.appender(LOG)?;
    let value = payload(MIDDLE);
    let values: Vec<&[u8]> = (0..BATCH).map(|_| value.as_slice()).collect();
    let messages = library_messages(task);
    for _ in 0..messages / BATCH as u64 {
        appender.append_batch(&values)?;
    }
    match appender.sync() {
        Ok(()) | Err(Failure::CannotDo(_)) => {}
        Err(failure) => return Err(failure),
    }
    drop(appender);
    engine.close()?;
    let payload_bytes = (messages * MIDDLE as u64) as f64;
    let mut figures = Figures::new();
    put(
        &mut figures,
        "disk",
        bytes_on_disk(&task.directory)? as f64 / payload_bytes,
    );
    Ok(figures)
}

/// Has the page cache have all files.
fn warm_up(task: &Task) -> Outcome<()> {
    for file in files_in(&task.directory)? {
        std::io::copy(&mut std::fs::File::open(file)?, &mut std::io::sink())?;
    }
    Ok(())
}

/// Reads everything in order. Warm: the files are in the page cache, and the engine has read them once, if it can read twice.
pub(super) fn scan<E: Engine>(task: &Task, warm: bool) -> Outcome<Figures> {
    if warm {
        warm_up(task)?;
    }
    let engine = E::open(&task.directory, Mode::Keep)?;
    if warm && E::READS_AGAIN {
        engine.scan()?;
    }
    let start = Instant::now();
    let found = engine.scan()?;
    let took = start.elapsed();
    let wanted = library_messages(task);
    if found != wanted {
        return Err(Failure::because(format!(
            "{found} messages of {wanted} are there"
        )));
    }
    engine.close()?;
    let mut figures = Figures::new();
    put(&mut figures, "megabytes", megabytes(found * MIDDLE as u64, took));
    Ok(figures)
}

/// Reads single messages at random, all of each, from caches that are warm as for the warm scan.
pub(super) fn random<E: Engine>(task: &Task) -> Outcome<Figures> {
    warm_up(task)?;
    let engine = E::open(&task.directory, Mode::Keep)?;
    if E::READS_AGAIN {
        engine.scan()?;
    }
    let mut reader = engine.reader()?;
    let mut random = Random::new(77);
    let messages = library_messages(task);
    let (mut sum, mut seen) = (0_u64, histogram()?);
    let start = Instant::now();
    let mut reads = 0;
    while reads < task.sizes.random_reads && start.elapsed() < task.sizes.append_time {
        let number = random.next_u64() % messages;
        let begin = Instant::now();
        reader.get(number, |value| sum = sum.wrapping_add(touch(value)))?;
        seen.record(nanoseconds(begin.elapsed()))?;
        reads += 1;
    }
    std::hint::black_box(sum);
    let mut figures = Figures::new();
    percentiles(&mut figures, &seen);
    put(&mut figures, "mean_us", seen.mean() / 1e3);
    drop(reader);
    engine.close()?;
    Ok(figures)
}

/// From one message to the next: 20,000 a second.
const INTERVAL: Duration = Duration::from_micros(50);
/// So many of them come before those that count, for half a second: the kernel may have put both threads on one core, whatever the engine,
/// and parts them some tens of milliseconds later.
const UNCOUNTED: u64 = 10_000;

/// One thread appends 1 KiB at a fixed rate, another follows; from when an append should have begun to when it is seen.
pub(super) fn tail<E: Engine>(task: &Task) -> Outcome<Figures> {
    let engine = E::open(&task.directory, Mode::Fast)?;
    let mut appender = engine.appender(LOG)?;
    let mut reader = engine.reader()?;
    let count = UNCOUNTED + task.sizes.tail_messages;
    let begin = Instant::now();
    let stop = AtomicBool::new(false);
    let seen = std::thread::scope(|scope| {
        let follower = scope.spawn(|| {
            let seen = follow(&mut reader, begin, count, &stop);
            stop.store(true, Ordering::Relaxed);
            seen
        });
        let mut message = payload(MIDDLE);
        let mut due = begin.elapsed();
        let mut outcome = Ok(());
        for _ in 0..count {
            due += INTERVAL;
            while begin.elapsed() < due {
                std::hint::spin_loop();
            }
            message[..8].copy_from_slice(&nanoseconds(due).to_le_bytes());
            outcome = appender.append(&message);
            if outcome.is_err() || stop.load(Ordering::Relaxed) {
                break;
            }
        }
        if outcome.is_err() {
            stop.store(true, Ordering::Relaxed);
        }
        let seen = follower
            .join()
            .map_err(|_| Failure::because("the reader panicked"))?;
        outcome.and(seen)
    })?;
    drop((appender, reader));
    engine.close()?;
    let mut figures = Figures::new();
    percentiles(&mut figures, &seen);
    Ok(figures)
}

fn follow(
    reader: &mut impl Reader,
    begin: Instant,
    count: u64,
    stop: &AtomicBool,
) -> Outcome<Histogram<u64>> {
    let (mut seen, mut number) = (histogram()?, 0);
    while number < count && !stop.load(Ordering::Relaxed) {
        let mut sent = 0;
        let found = reader.next(|value| {
            std::hint::black_box(touch(value));
            sent = value.first_chunk().map_or(0, |word| u64::from_le_bytes(*word));
        })?;
        if found {
            if number >= UNCOUNTED {
                seen.record(nanoseconds(begin.elapsed()).saturating_sub(sent).max(1))?;
            }
            number += 1;
        } else {
            std::hint::spin_loop();
        }
    }
    Ok(seen)
}
