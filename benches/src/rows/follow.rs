//! How soon another thread sees what is appended.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::Outcome;
use crate::context::{Context, LOG, MESSAGE_BYTES, payload, remove};
use crate::table::Sample;

/// Pause between two appends: long enough that the reader waits for each.
const PAUSE: Duration = Duration::from_micros(5);
/// So many messages of all, at the beginning, are not counted: the kernel may have put both threads on one core, and parts them
/// some tens of milliseconds later.
const UNCOUNTED_PART: u64 = 4;

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 1_000_000_000, 3).expect("the bounds are in order")
}

fn nanoseconds(since: Instant) -> u64 {
    since.elapsed().as_nanos() as u64
}

/// Counts what a message took, unless it is one of the first of `count`.
fn record(seen: &mut Histogram<u64>, number: u64, count: u64, nanoseconds: u64) -> Outcome<()> {
    if number >= count / UNCOUNTED_PART {
        seen.record(nanoseconds.max(1))?;
    }
    Ok(())
}

fn pause() {
    let start = Instant::now();
    while start.elapsed() < PAUSE {
        std::hint::spin_loop();
    }
}

fn through_the_store(context: &Context, count: u64) -> Outcome<Histogram<u64>> {
    let path = context.path("tail");
    let store = context.open(&path)?;
    let mut writer = store.writer(LOG)?;
    let mut cursor = store.log(LOG)?.cursor(0u64)?;
    let begin = Instant::now();
    let seen = std::thread::scope(|scope| -> Outcome<Histogram<u64>> {
        let reader = scope.spawn(move || -> Outcome<Histogram<u64>> {
            let mut seen = histogram();
            for number in 0..count {
                let sent = loop {
                    if let Some(message) = cursor.next()? {
                        let word = message.value().first_chunk();
                        break word.map_or(0, |word| u64::from_le_bytes(*word));
                    }
                    std::hint::spin_loop();
                };
                record(&mut seen, number, count, nanoseconds(begin).saturating_sub(sent))?;
            }
            Ok(seen)
        });
        let mut message = payload(MESSAGE_BYTES);
        for _ in 0..count {
            message[..8].copy_from_slice(&nanoseconds(begin).to_le_bytes());
            writer.append(&message)?;
            pause();
        }
        reader.join().map_err(|_| "the reader panicked")?
    })?;
    drop(writer);
    store.close()?;
    remove(&path)?;
    Ok(seen)
}

/// A ring of slots of shared memory: copy, one release store; one acquire load, read.
fn through_bare_memory(count: u64) -> Outcome<Histogram<u64>> {
    const SLOTS: usize = 1024;
    let memory: Vec<AtomicU8> = (0..SLOTS * MESSAGE_BYTES).map(|_| AtomicU8::new(0)).collect();
    let published = AtomicU64::new(0);
    let begin = Instant::now();
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| -> Outcome<Histogram<u64>> {
            let mut seen = histogram();
            for number in 0..count {
                while published.load(Ordering::Acquire) <= number {
                    std::hint::spin_loop();
                }
                let slot = (number as usize % SLOTS) * MESSAGE_BYTES;
                let mut word = [0u8; 8];
                for (to, from) in word.iter_mut().zip(&memory[slot..]) {
                    *to = from.load(Ordering::Relaxed);
                }
                let took = nanoseconds(begin).saturating_sub(u64::from_le_bytes(word));
                record(&mut seen, number, count, took)?;
            }
            Ok(seen)
        });
        let mut message = payload(MESSAGE_BYTES);
        for number in 0..count {
            message[..8].copy_from_slice(&nanoseconds(begin).to_le_bytes());
            let slot = (number as usize % SLOTS) * MESSAGE_BYTES;
            crate::bare::copy_shared(&memory[slot..slot + MESSAGE_BYTES], &message);
            published.store(number + 1, Ordering::Release);
            pause();
        }
        reader.join().map_err(|_| "the reader panicked")?
    })
}

pub(super) fn latency(context: &mut Context) -> Outcome<Vec<Sample>> {
    let count = context.pick(200_000, 10_000);
    let ours = through_the_store(context, count)?;
    let bare = through_bare_memory(count)?;
    let at = |histogram: &Histogram<u64>, part: f64| histogram.value_at_quantile(part) as f64 / 1e3;
    let name = "bare shared memory, copy and one release store";
    Ok(vec![
        Sample::cost(
            "append begun to seen by a tailing thread, 1 KiB, p50",
            "us",
            at(&ours, 0.5),
            at(&bare, 0.5),
            name,
        )
        .target(1.15),
        Sample::cost(
            "append begun to seen by a tailing thread, 1 KiB, p99",
            "us",
            at(&ours, 0.99),
            at(&bare, 0.99),
            name,
        ),
    ])
}
