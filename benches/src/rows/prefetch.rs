//! Reading ahead: in little memory, beside others, and where there is nothing to read ahead.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use lanterman::{Durability, Options, Prefetch};
use serde_json::{Value, json};

use super::read::{scan, touch};
use crate::Outcome;
use crate::bare;
use crate::child::{self, Told};
use crate::context::{self, Context, LOG, Library, MESSAGE_BYTES, Random, megabytes, payload, remove};
use crate::memory_group::MemoryGroup;
use crate::table::Sample;

/// Between two calls of who follows a log.
const PACE: Duration = Duration::from_micros(100);
/// How far behind the end it reads, in messages: 4 MiB, which the store has in memory. What it has not comes from the device,
/// where everybody waits for everybody whoever reads ahead.
const BEHIND: u64 = 4 << 10;
/// What somebody has read of another store, and the page cache therefore has.
const WARM_MESSAGES: u64 = 64 << 10;

/// What another thread does meanwhile.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Beside {
    /// Nothing that anybody waits for but the processor.
    Computing,
    /// Goes through cold data, again and again.
    Scan(Prefetch),
}

/// What a process that writes needs beside what it scans, however little data a quick run has.
const WRITER_BYTES: u64 = 256 << 20;

/// The group of a quarter of the library's memory, or of as much as is needed; says why there is none.
fn quarter(library: &Library, needed: u64) -> Option<(MemoryGroup, u64)> {
    let bytes = (library.messages * MESSAGE_BYTES as u64 / 4).max(needed);
    let group = MemoryGroup::new(bytes);
    if group.is_none() {
        eprintln!("\nno group of limited memory can be made here: the rows that need one are left out");
    }
    Some((group?, bytes))
}

/// One scan of a store that no cache has: how fast, in the process that asks.
pub(crate) fn scan_once(path: &Path, policy: Prefetch) -> Outcome<Value> {
    let store = context::open(path, Options::new().prefetch(policy))?;
    let start = Instant::now();
    let messages = scan(&store, touch)?;
    let time = start.elapsed();
    store.close()?;
    let rate = megabytes(messages * MESSAGE_BYTES as u64, time);
    Ok(json!({"messages": messages, "rate": rate}))
}

pub(super) fn in_little_memory(context: &mut Context) -> Outcome<Vec<Sample>> {
    let library = context.library()?;
    let files = bare::slab_files(&library.path)?;
    let quick = context.quick;
    let scanned = |group: Option<&MemoryGroup>, task| -> Outcome<f64> {
        bare::drop_caches(&files)?;
        let told = child::start_in(group, task, &library.path, quick)?;
        if told.number("messages")? == library.messages as f64 {
            told.number("rate")
        } else {
            Err("messages are missing".into())
        }
    };
    let mut samples = Vec::new();
    for (task, rate, memory) in [
        (
            child::SCAN_AHEAD,
            "scan cold in memory of a quarter of the data, prefetch automatic",
            "most memory of it, page cache included",
        ),
        (
            child::SCAN_PLAIN,
            "scan cold in memory of a quarter of the data, prefetch off",
            "most memory of it without prefetch",
        ),
    ] {
        let Some((group, bytes)) = quarter(&library, 0) else {
            return Ok(samples);
        };
        let limited = scanned(Some(&group), task)?;
        let free = scanned(None, task)?;
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let peak = mib(group.peak_bytes()?);
        samples.push(Sample::rate(
            rate,
            "MB/s",
            limited,
            free,
            "the same without a limit",
        ));
        samples.push(Sample::cost(
            memory,
            "MiB",
            peak,
            mib(bytes),
            "the memory that it may have",
        ));
    }
    Ok(samples)
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("the bounds are in order")
}

/// Appends and reads by turns, at a pace, somewhere in the last 4 MiB. The time of a call begins when it was due, so that
/// those count as slow which wait behind a slow one.
fn append_and_read(
    writer: &mut lanterman::Writer,
    cursor: &mut lanterman::Cursor,
    count: u64,
) -> Outcome<Histogram<u64>> {
    let mut times = histogram();
    let mut random = Random::new(11);
    let message = payload(MESSAGE_BYTES);
    let begin = Instant::now();
    for number in 0..count {
        let due = PACE.saturating_mul(number as u32);
        while begin.elapsed() < due {
            std::hint::spin_loop();
        }
        let end = writer.append(&message)?.get();
        let offset = end.saturating_sub(random.next_u64() % BEHIND);
        std::hint::black_box(touch(cursor.get(offset)?.value()));
        times.record((begin.elapsed() - due).as_nanos() as u64)?;
    }
    Ok(times)
}

/// Reads close behind the end of a log beside another thread, and before that alone; in the process that asks.
pub(crate) fn follow(library: &Path, quick: bool, beside: Beside) -> Outcome<Value> {
    let path = library.with_extension("followed");
    let warm = library.with_extension("warm");
    let count = if quick { 5_000 } else { 20_000 };
    let warm_files = make_warm(&warm)?;
    let store = context::open(&path, Options::new())?;
    let mut writer = store.writer(LOG)?;
    let mut cursor = store.log(LOG)?.cursor(0u64)?;
    let message = payload(MESSAGE_BYTES);
    for _ in 0..BEHIND {
        writer.append(&message)?;
    }
    append_and_read(&mut writer, &mut cursor, count)?;
    let alone = append_and_read(&mut writer, &mut cursor, count)?;
    let cached_before = bare::cached_bytes(&warm_files)?;
    let stop = AtomicBool::new(false);
    let (together, scanned) = std::thread::scope(|scope| -> Outcome<_> {
        let other = scope.spawn(|| -> Outcome<u64> {
            match beside {
                Beside::Computing => compute(&stop),
                Beside::Scan(policy) => scan_until(&stop, library, policy),
            }
        });
        // What has to be pushed out needs some time to be.
        let together = append_and_read(&mut writer, &mut cursor, count)
            .and_then(|_| append_and_read(&mut writer, &mut cursor, count));
        stop.store(true, Ordering::Relaxed);
        let scanned = other.join().map_err(|_| "the other thread panicked")??;
        Ok((together?, scanned))
    })?;
    let cached_after = bare::cached_bytes(&warm_files)?;
    drop(writer);
    store.close()?;
    remove(&path)?;
    remove(&warm)?;
    let at = |times: &Histogram<u64>, part| times.value_at_quantile(part) as f64 / 1e3;
    Ok(json!({
        "alone_p50": at(&alone, 0.5), "alone_p99": at(&alone, 0.99), "alone_p999": at(&alone, 0.999),
        "beside_p50": at(&together, 0.5), "beside_p99": at(&together, 0.99), "beside_p999": at(&together, 0.999),
        "scanned": scanned, "cached_before": cached_before, "cached_after": cached_after,
    }))
}

/// Makes a store of so many messages and closes it.
fn fill(path: &Path, messages: u64) -> Outcome<()> {
    let store = context::open(path, Options::new())?;
    let mut writer = store.writer(LOG)?;
    let message = payload(MESSAGE_BYTES);
    for _ in 0..messages {
        writer.append(&message)?;
    }
    writer.commit(Durability::Disk)?;
    drop(writer);
    store.close()?;
    Ok(())
}

/// A store of which the page cache has all, because it was read through the map and closed; gives its files.
fn make_warm(path: &Path) -> Outcome<Vec<PathBuf>> {
    fill(path, WARM_MESSAGES)?;
    let store = context::open(path, Options::new().prefetch(Prefetch::Off))?;
    // Twice, so that it counts as used and not as merely passed.
    scan(&store, touch)?;
    scan(&store, touch)?;
    store.close()?;
    bare::slab_files(path)
}

fn compute(stop: &AtomicBool) -> Outcome<u64> {
    let mut random = Random::new(5);
    while !stop.load(Ordering::Relaxed) {
        std::hint::black_box(random.next_u64());
    }
    Ok(0)
}

fn scan_until(stop: &AtomicBool, path: &Path, policy: Prefetch) -> Outcome<u64> {
    let mut count = 0u64;
    while !stop.load(Ordering::Relaxed) {
        // Each time is the first: what is wanted twice is another matter.
        let store = context::open(path, Options::new().prefetch(policy))?;
        let mut cursor = store.snapshot(LOG)?.cursor(0u64)?;
        while let Some(message) = cursor.next()? {
            std::hint::black_box(touch(message.value()));
            count += 1;
            if count.is_multiple_of(1024) && stop.load(Ordering::Relaxed) {
                break;
            }
        }
        drop(cursor);
        store.close()?;
    }
    Ok(count)
}

pub(super) fn beside_a_scan(context: &mut Context) -> Outcome<Vec<Sample>> {
    /// A task, and the rows of its three quantiles and of the page cache.
    const TASKS: [(&str, [&str; 4]); 3] = [
        (
            child::FOLLOW_AHEAD,
            [
                "append and read of the last 4 MiB beside a cold scan with prefetch, p50",
                "the same, p99",
                "the same, p99.9",
                "page cache of another's data that is left then",
            ],
        ),
        (
            child::FOLLOW_PLAIN,
            [
                "beside a cold scan without prefetch, p50",
                "without prefetch, p99",
                "without prefetch, p99.9",
                "page cache of another's data that is left without prefetch",
            ],
        ),
        (
            child::FOLLOW_COMPUTING,
            [
                "beside a thread that only computes, p50",
                "that only computes, p99",
                "that only computes, p99.9",
                "page cache of another's data that is left beside it",
            ],
        ),
    ];
    let library = context.library()?;
    let files = bare::slab_files(&library.path)?;
    let mut samples = Vec::new();
    for (task, rows) in TASKS {
        let Some((group, _)) = quarter(&library, WRITER_BYTES) else {
            return Ok(samples);
        };
        bare::drop_caches(&files)?;
        let told: Told = child::start_in(Some(&group), task, &library.path, context.quick)?;
        for (row, quantile) in rows.into_iter().zip(["p50", "p99", "p999"]) {
            let beside = told.number(&format!("beside_{quantile}"))?;
            let alone = told.number(&format!("alone_{quantile}"))?;
            samples.push(Sample::cost(row, "us", beside, alone, "the same alone"));
        }
        let mib = |name| -> Outcome<f64> { Ok(told.number(name)? / f64::from(1 << 20)) };
        let (after, before) = (mib("cached_after")?, mib("cached_before")?);
        samples.push(Sample::rate(
            rows[3],
            "MiB",
            after,
            before,
            "what there was before",
        ));
    }
    Ok(samples)
}

/// A store of 1 MiB, opened and scanned.
fn small(path: &Path, policy: Prefetch) -> Outcome<()> {
    let store = context::open(path, Options::new().prefetch(policy))?;
    scan(&store, touch)?;
    store.close()?;
    Ok(())
}

pub(super) fn where_nothing_is_cold(context: &mut Context) -> Outcome<Vec<Sample>> {
    let library = context.library()?;
    let options = |policy| Options::new().prefetch(policy);
    let ahead = context::open(&library.path, options(Prefetch::Automatic))?;
    scan(&ahead, touch)?;
    let warm = |store: &lanterman::Store, policy| -> Outcome<()> {
        let mut messages = store.snapshot(LOG)?.cursor(0u64)?.with_prefetch(policy);
        while let Some(message) = messages.next()? {
            std::hint::black_box(touch(message.value()));
        }
        Ok(())
    };
    // Through the map, so that the page cache has all of it; the second time over it is slower than all later ones.
    warm(&ahead, Prefetch::Off)?;
    warm(&ahead, Prefetch::Off)?;
    let turns = context.pick(4, 2);
    let (with, without) = context.alternate(
        turns,
        || warm(&ahead, Prefetch::Automatic),
        || warm(&ahead, Prefetch::Off),
    )?;
    ahead.close()?;
    let path = context.path("small");
    fill(&path, 1024)?;
    let turns_small = context.pick(100, 10);
    let (small_with, small_without) = context.alternate(
        turns_small,
        || small(&path, Prefetch::Automatic),
        || small(&path, Prefetch::Off),
    )?;
    remove(&path)?;
    let each = |time: Duration, turns: usize| time.as_secs_f64() * 1e3 / turns as f64;
    let off = "the same with prefetch off";
    Ok(vec![
        Sample::cost(
            "scan warm, prefetch automatic",
            "ms",
            each(with, turns),
            each(without, turns),
            off,
        ),
        Sample::cost(
            "opening, scanning and closing a store of 1 MiB, prefetch automatic",
            "ms",
            each(small_with, turns_small),
            each(small_without, turns_small),
            off,
        ),
    ])
}
