//! What the collection costs: those who append and read beside it, and the device.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use lanterman::{Options, Store};

use super::edit::fill;
use crate::Outcome;
use crate::context::{Context, LOG, MESSAGE_BYTES, Random, open, payload, remove};
use crate::table::Sample;

/// The log of which parts are deleted all the time.
const SHRINKING: &str = "shrinking";
/// Appends before anything is measured: the first ones wait for memory that the system has to clear.
const WARM_APPENDS: u64 = 20_000;
/// Between two calls: 10,000 appends and as many reads a second.
const PACE: Duration = Duration::from_micros(50);

/// Latencies in nanoseconds.
struct Latencies {
    appends: Histogram<u64>,
    reads: Histogram<u64>,
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("the bounds are in order")
}

/// Waits until a call is due, and says when that was.
fn wait_for_turn(begin: Instant, number: u64) -> Duration {
    let due = PACE.saturating_mul(number as u32);
    while begin.elapsed() < due {
        std::thread::yield_now();
    }
    due
}

/// Appends and reads by turns at a fixed pace. The time of a call begins when it was due, so that those which wait
/// behind a slow one count as slow. One thread does both, so that the other core of a small machine is left to the
/// store: what is to be seen is who waits for whom, and not who gets a core.
fn append_and_read(store: &Store, messages: u64, stop: &AtomicBool) -> Outcome<Latencies> {
    let mut times = Latencies {
        appends: histogram(),
        reads: histogram(),
    };
    let mut writer = store.writer(LOG)?;
    let mut cursor = store.log("read")?.cursor(0u64)?;
    let mut random = Random::new(7);
    let message = payload(MESSAGE_BYTES);
    // Warm, so that nothing is waited for but the store.
    for offset in 0..messages {
        std::hint::black_box(
            cursor
                .get(offset)?
                .value()
                .iter()
                .fold(0u8, |sum, byte| sum ^ byte),
        );
    }
    for _ in 0..WARM_APPENDS {
        writer.append(&message)?;
    }
    let begin = Instant::now();
    let taken = |due: Duration| (begin.elapsed().saturating_sub(due).as_nanos() as u64).max(1);
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        let due = wait_for_turn(begin, number);
        writer.append(&message)?;
        times.appends.record(taken(due))?;
        let due = wait_for_turn(begin, number + 1);
        let message = cursor.get(random.next_u64() % messages)?;
        std::hint::black_box(message.value().iter().fold(0u8, |sum, byte| sum ^ byte));
        times.reads.record(taken(due))?;
        number += 2;
    }
    Ok(times)
}

/// A store in which one thread appends and reads while another one deletes.
fn under_load(context: &Context, collects: bool) -> Outcome<Latencies> {
    let path = context.path("collect");
    let messages: u64 = context.pick(1 << 20, 1 << 16);
    let store = open(&path, Options::new().collect(collects))?;
    fill(&store, SHRINKING, messages)?;
    fill(&store, "read", messages / 8)?;
    store.checkpoint()?;
    let stop = AtomicBool::new(false);
    let lasts: Duration = context.pick(Duration::from_secs(6), Duration::from_millis(1500));
    let latencies = std::thread::scope(|scope| -> Outcome<Latencies> {
        let loading = scope.spawn(|| append_and_read(&store, messages / 8, &stop));
        // A hundredth of the log at a time, in its middle: slabs go whole, and two are cut.
        let part = messages / 100;
        let begin = Instant::now();
        for number in 0..90 {
            let due = lasts * number / 90;
            std::thread::sleep(due.saturating_sub(begin.elapsed()));
            let first = u64::from(number) * part + part / 3;
            store.delete(SHRINKING, first..first + part / 2)?;
        }
        stop.store(true, Ordering::Relaxed);
        loading.join().map_err(|_| "the load panicked")?
    })?;
    store.close()?;
    remove(&path)?;
    Ok(latencies)
}

pub(super) fn disturbance(context: &mut Context) -> Outcome<Vec<Sample>> {
    let with_first = context.round % 2 == 1;
    let first = under_load(context, with_first)?;
    let second = under_load(context, !with_first)?;
    let (with, without) = match with_first {
        true => (first, second),
        false => (second, first),
    };
    let at = |times: &Histogram<u64>, part: f64| times.value_at_quantile(part) as f64 / 1e3;
    let name = "without collection";
    let mut samples = Vec::new();
    for (rows, with, without) in [
        (
            [
                "append beside deletions and collection, p50",
                "append beside deletions and collection, p99",
                "append beside deletions and collection, p99.9",
            ],
            with.appends,
            without.appends,
        ),
        (
            [
                "random read beside deletions and collection, p50",
                "random read beside deletions and collection, p99",
                "random read beside deletions and collection, p99.9",
            ],
            with.reads,
            without.reads,
        ),
    ] {
        for (row, part) in rows.into_iter().zip([0.5, 0.99, 0.999]) {
            let sample = Sample::cost(row, "us", at(&with, part), at(&without, part), name);
            samples.push(if part == 0.99 { sample.target(2.0) } else { sample });
        }
    }
    Ok(samples)
}

/// Bytes that this process has had written to the device.
fn written_bytes() -> Outcome<u64> {
    let told = std::fs::read_to_string("/proc/self/io")?;
    let line = told.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    Ok(line
        .ok_or("the system does not tell what was written")?
        .trim()
        .parse()?)
}

/// Messages of a log that a pattern deletes, in ranges.
type Pattern = fn(u64, &mut Random) -> Vec<std::ops::Range<u64>>;

const PATTERNS: [(&str, Pattern); 4] = [
    (
        "written to erase every 2nd message, for each byte deleted",
        |count, _| (0..count / 2).map(|number| number * 2..number * 2 + 1).collect(),
    ),
    (
        "written to erase every 100th message, for each byte deleted",
        |count, _| {
            (0..count / 100)
                .map(|number| number * 100..number * 100 + 1)
                .collect()
        },
    ),
    (
        "written to erase random ranges of 10,000 messages, for each byte deleted",
        |count, random| {
            let ranges = count / 40_000;
            let start = |number| number * 40_000 + random.next_u64() % 30_000;
            (0..ranges)
                .map(start)
                .map(|first| first..first + 10_000)
                .collect()
        },
    ),
    (
        "written to erase the first half, for each byte deleted",
        |count, _| std::iter::once(0..count / 2).collect(),
    ),
];

/// What is written so that nothing of deleted messages is on the disk any more.
pub(super) fn amplification(context: &mut Context) -> Outcome<Vec<Sample>> {
    let mut samples = Vec::new();
    for (row, pattern) in PATTERNS {
        let path = context.path("amplification");
        let count: u64 = context.pick(160_000, 80_000);
        let store = open(&path, Options::new().collect(false))?;
        fill(&store, LOG, count)?;
        store.checkpoint()?;
        let ranges = pattern(count, &mut Random::new(context.round as u64 + 1));
        let before = written_bytes()?;
        let mut deleted = 0;
        let mut last = None;
        for some in ranges.chunks(1000) {
            let receipt = store.transaction(|transaction| {
                some.iter()
                    .try_for_each(|range| transaction.delete(LOG, range.clone()))
            })?;
            deleted += receipt
                .deletions
                .iter()
                .map(|deletion| deletion.bytes)
                .sum::<u64>();
            last = receipt.deletions.into_iter().next_back();
        }
        store.wait_erased(&last.ok_or("nothing was deleted")?, Duration::from_secs(60))?;
        let written = written_bytes()? - before;
        samples.push(Sample::cost(
            row,
            "",
            written as f64 / deleted as f64,
            1.0,
            "the bytes deleted",
        ));
        check(&store, count, &ranges)?;
        store.close()?;
        remove(&path)?;
    }
    Ok(samples)
}

/// All parts of the space are the whole, and all other messages are there.
fn check(store: &Store, count: u64, ranges: &[std::ops::Range<u64>]) -> Outcome<()> {
    let space = store.check_space()?;
    if !space.faults.is_empty() || space.space.garbage > space.space.bytes / 10 {
        return Err(format!("{space:?}").into());
    }
    let deleted: u64 = ranges.iter().map(|range| range.end - range.start).sum();
    let summary = store.snapshot(LOG)?.summary()?;
    if summary.messages() != count - deleted {
        return Err(format!("{} messages of {count} without {deleted}", summary.messages()).into());
    }
    Ok(())
}
