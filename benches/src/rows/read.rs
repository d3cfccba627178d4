//! Reading: in order, warm and cold, and by offset.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use lanterman::{Cursor, Options, Prefetch, Store, Verify};

use crate::Outcome;
use crate::bare::{self, MappedSlabs};
use crate::context::{self, Context, LOG, Library, MESSAGE_BYTES, Random, megabytes};
use crate::table::Sample;

/// The least that a reader does with a message: look at eight bytes of it.
#[inline]
pub(super) fn touch(value: &[u8]) -> u64 {
    value
        .first_chunk::<8>()
        .map_or(0, |word| u64::from_le_bytes(*word))
}

/// Reads all of it, eight bytes at a time.
#[inline]
fn read_all(value: &[u8]) -> u64 {
    value
        .chunks_exact(8)
        .fold(0, |sum, word| sum.wrapping_add(touch(word)))
}

pub(super) fn scan(store: &Store, visit: impl Fn(&[u8]) -> u64) -> Outcome<u64> {
    let mut cursor = store.snapshot(LOG)?.cursor(0u64)?;
    let (mut sum, mut count) = (0u64, 0u64);
    while let Some(message) = cursor.next()? {
        sum = sum.wrapping_add(visit(message.value()));
        count += 1;
    }
    std::hint::black_box(sum);
    Ok(count)
}

fn scan_bare(slabs: &MappedSlabs, visit: impl Fn(&[u8]) -> u64) -> u64 {
    let (mut sum, mut count) = (0u64, 0u64);
    slabs.walk(|value| {
        sum = sum.wrapping_add(visit(value));
        count += 1;
    });
    std::hint::black_box(sum);
    count
}

fn checksum(value: &[u8]) -> u64 {
    u64::from(crc32fast::hash(value))
}

/// The slabs of the library, which must hold nearly all of it: the rest is a tail that only the store can read.
fn bare_slabs(library: &Library) -> Outcome<MappedSlabs> {
    let slabs = MappedSlabs::open(&library.path)?;
    let found = slabs.positions().len() as u64;
    if found < library.messages - library.messages / 50 {
        return Err(format!("{found} of {} messages are in slabs", library.messages).into());
    }
    Ok(slabs)
}

pub(super) fn scan_warm(context: &mut Context) -> Outcome<Vec<Sample>> {
    let library = context.library()?;
    let slabs = bare_slabs(&library)?;
    let found = slabs.positions().len() as u64;
    let store = context.open(&library.path)?;
    let start = Instant::now();
    scan(&store, touch)?;
    let first = start.elapsed();
    scan_bare(&slabs, touch);
    let compare = |visit: fn(&[u8]) -> u64| -> Outcome<(f64, f64)> {
        let turns = context.pick(3, 2);
        let mut ours = || {
            let read = scan(&store, visit)?;
            if read == library.messages {
                Ok(())
            } else {
                Err("messages are missing".into())
            }
        };
        let limit = || {
            scan_bare(&slabs, visit);
            Ok(())
        };
        let (ours, limit) = context.alternate(turns, &mut ours, limit)?;
        let rate =
            |messages: u64, time: Duration| (messages * turns as u64) as f64 / 1e6 / time.as_secs_f64();
        Ok((rate(library.messages, ours), rate(found, limit)))
    };
    let touched = compare(touch)?;
    let summed = compare(checksum)?;
    let always = context::open_again(&store, &library.path, Options::new().verify(Verify::Always))?;
    let start = Instant::now();
    scan(&always, touch)?;
    let verified = library.messages as f64 / 1e6 / start.elapsed().as_secs_f64();
    always.close()?;
    let first = library.messages as f64 / 1e6 / first.as_secs_f64();
    let walk = "walking the same slabs in a bare map";
    Ok(vec![
        Sample::rate(
            "scan warm, touching 8 B of each 1 KiB",
            "M/s",
            touched.0,
            touched.1,
            walk,
        )
        .target(0.9),
        Sample::rate(
            "scan warm, a checksum over each",
            "M/s",
            summed.0,
            summed.1,
            "the same with crc32fast over each",
        )
        .target(0.9),
        Sample::rate(
            "scan warm, first since opening (checks every group once)",
            "M/s",
            first,
            summed.1,
            "the same with crc32fast over each",
        ),
        Sample::rate(
            "scan warm, checking every group always",
            "M/s",
            verified,
            summed.1,
            "the same with crc32fast over each",
        ),
    ])
}

/// Policies of reading ahead, and the rows of a cold scan with them.
const COLD: [(Prefetch, &str); 4] = [
    (Prefetch::Automatic, "scan cold, prefetch automatic"),
    (Prefetch::Bytes(4 << 20), "scan cold, prefetch of 4 MiB"),
    (Prefetch::Slabs(2), "scan cold, prefetch of 2 slabs"),
    (Prefetch::Off, "scan cold, prefetch off"),
];

/// A scan of what no cache has, by one policy.
fn scan_cold_once(library: &Library, files: &[PathBuf], policy: Prefetch) -> Outcome<Duration> {
    bare::drop_caches(files)?;
    let store = context::open(&library.path, Options::new().prefetch(policy))?;
    let start = Instant::now();
    let read = scan(&store, touch)?;
    let time = start.elapsed();
    store.close()?;
    if read == library.messages {
        Ok(time)
    } else {
        Err("messages are missing".into())
    }
}

fn read_bare_once(files: &[PathBuf], visit: fn(&[u8]) -> u64) -> Outcome<f64> {
    bare::drop_caches(files)?;
    let start = Instant::now();
    let read = bare::ring_read(files, |bytes| {
        std::hint::black_box(visit(bytes));
    })?;
    Ok(megabytes(read, start.elapsed()))
}

pub(super) fn scan_cold(context: &mut Context) -> Outcome<Vec<Sample>> {
    let library = context.library()?;
    let files = bare::slab_files(&library.path)?;
    let bytes = library.messages * MESSAGE_BYTES as u64;
    let mut samples = Vec::new();
    // The device has moods: the limit is measured on both sides of each policy.
    let mut before = read_bare_once(&files, |_| 0)?;
    for turn in 0..COLD.len() {
        let at = (turn + context.round) % COLD.len();
        let (policy, row) = COLD[at];
        let time = scan_cold_once(&library, &files, policy)?;
        let after = read_bare_once(&files, |_| 0)?;
        let limit = (before + after) / 2.0;
        let name = "1 MiB direct reads of the same files, 8 in flight";
        let sample = Sample::rate(row, "MB/s", megabytes(bytes, time), limit, name);
        let sample = match policy {
            Prefetch::Automatic => sample.target(0.95),
            _ => sample,
        };
        samples.push((at, sample));
        before = after;
    }
    samples.sort_by_key(|(at, _)| *at);
    let mut samples: Vec<Sample> = samples.into_iter().map(|(_, sample)| sample).collect();
    // A scan compares checksums, so this is what can be had by whoever looks at what comes.
    let before = read_bare_once(&files, checksum)?;
    let time = scan_cold_once(&library, &files, Prefetch::Automatic)?;
    let after = read_bare_once(&files, checksum)?;
    samples.push(Sample::rate(
        "the same scan, prefetch automatic, beside reads that are looked at",
        "MB/s",
        megabytes(bytes, time),
        (before + after) / 2.0,
        "the same reads with crc32fast over each as it comes",
    ));
    Ok(samples)
}

pub(super) fn random(context: &mut Context) -> Outcome<Vec<Sample>> {
    let library = context.library()?;
    let slabs = bare_slabs(&library)?;
    let positions = slabs.positions();
    let store = context.open(&library.path)?;
    scan(&store, touch)?;
    let count = context.pick(1 << 20, 1 << 16);
    let mut random = Random::new(77 + context.round as u64);
    let offsets: Vec<u64> = (0..count)
        .map(|_| random.next_u64() % positions.len() as u64)
        .collect();
    let values: Vec<&[u8]> = offsets.iter().map(|offset| positions[*offset as usize]).collect();
    let snapshot = store.snapshot(LOG)?;
    let mut cursor: Cursor = snapshot.cursor(0u64)?;
    let mut compare = |visit: fn(&[u8]) -> u64| -> Outcome<(f64, f64)> {
        let ours = || {
            let mut sum = 0u64;
            for offset in &offsets {
                sum = sum.wrapping_add(visit(cursor.get(*offset)?.value()));
            }
            std::hint::black_box(sum);
            Ok(())
        };
        let limit = || {
            let sum = values
                .iter()
                .fold(0u64, |sum, value| sum.wrapping_add(visit(value)));
            std::hint::black_box(sum);
            Ok(())
        };
        let turns = 2;
        let (ours, limit) = context.alternate(turns, ours, limit)?;
        let each = |time: Duration| time.as_nanos() as f64 / (count * turns) as f64;
        Ok((each(ours), each(limit)))
    };
    let whole = compare(read_all)?;
    let touched = compare(touch)?;
    let start = Instant::now();
    for offset in offsets.iter().take(count / 4) {
        std::hint::black_box(read_all(snapshot.get(*offset)?.value()));
    }
    let kept = start.elapsed().as_nanos() as f64 / (count / 4) as f64;
    let many = |some: &[u64]| -> Outcome<()> {
        for message in snapshot.get_many(some)? {
            std::hint::black_box(read_all(message.value()));
        }
        Ok(())
    };
    let start = Instant::now();
    offsets.chunks(MANY).try_for_each(many)?;
    let together = start.elapsed().as_nanos() as f64 / count as f64;
    let bare = "the same bytes of a bare map at a known position";
    Ok(vec![
        Sample::cost(
            "random read by offset, warm, all of 1 KiB",
            "ns",
            whole.0,
            whole.1,
            bare,
        )
        .target(1.3),
        Sample::cost(
            "random read by offset, warm, 8 B of 1 KiB (reads overlap)",
            "ns",
            touched.0,
            touched.1,
            bare,
        ),
        Sample::cost(
            "random read as counted bytes (Snapshot::get)",
            "ns",
            kept,
            whole.1,
            bare,
        ),
        Sample::cost(
            "random reads as counted bytes, 256 together (Snapshot::get_many)",
            "ns",
            together,
            whole.1,
            bare,
        ),
    ])
}

/// How many messages are asked for in one call.
const MANY: usize = 256;

/// Reads of messages at random that no cache has, beside reads of single pages.
pub(super) fn random_cold(context: &mut Context) -> Outcome<Vec<Sample>> {
    let library = context.library()?;
    let files = bare::slab_files(&library.path)?;
    let count = context.pick(20_000, 2_000);
    let mut random = Random::new(99 + context.round as u64);
    let offsets: Vec<u64> = (0..count).map(|_| random.next_u64() % library.messages).collect();
    let lengths = files
        .iter()
        .map(|file| Ok(std::fs::metadata(file)?.len()))
        .collect::<Outcome<Vec<u64>>>()?;
    let pages: Vec<(usize, u64)> = (0..count)
        .map(|_| bare::page_at(&lengths, random.next_u64()))
        .collect();
    let ours = |many: usize| -> Outcome<f64> {
        bare::drop_caches(&files)?;
        let store = context::open(&library.path, Options::new())?;
        let snapshot = store.snapshot(LOG)?;
        let start = Instant::now();
        for some in offsets.chunks(many) {
            for message in snapshot.get_many(some)? {
                std::hint::black_box(read_all(message.value()));
            }
        }
        let rate = count as f64 / 1e3 / start.elapsed().as_secs_f64();
        drop(snapshot);
        store.close()?;
        Ok(rate)
    };
    let limit = |in_flight: usize| -> Outcome<f64> {
        let start = Instant::now();
        bare::ring_read_pages(&files, &pages, in_flight)?;
        Ok(count as f64 / 1e3 / start.elapsed().as_secs_f64())
    };
    Ok(vec![
        Sample::rate(
            "random reads, cold, one after the other",
            "K/s",
            ours(1)?,
            limit(1)?,
            "direct reads of 4 KiB, one after the other",
        ),
        Sample::rate(
            "random reads, cold, 256 together (Snapshot::get_many)",
            "K/s",
            ours(MANY)?,
            limit(32)?,
            "direct reads of 4 KiB, 32 in flight",
        ),
    ])
}
