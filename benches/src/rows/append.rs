//! Appending without waiting for the disk, and bulk with one commit at the end.

use std::path::Path;
use std::time::{Duration, Instant};

use lanterman::{Durability, NewMessage, Writer};

use crate::Outcome;
use crate::bare::{self, Filling};
use crate::context::{Context, LOG, MESSAGE_BYTES, megabytes, payload, remove};
use crate::table::Sample;

const SMALL_BYTES: usize = 100;
/// What fits in the memory of tails at its default of 64 MiB, with room left.
const BURST_BYTES: u64 = 40 << 20;
const BURST: u64 = BURST_BYTES / (SMALL_BYTES as u64 + 12);

fn append_many(writer: &mut Writer, message: &[u8], count: u64) -> Outcome<Duration> {
    let start = Instant::now();
    for _ in 0..count {
        writer.append(std::hint::black_box(message))?;
    }
    Ok(start.elapsed())
}

/// Million operations a second.
fn millions(count: u64, time: Duration) -> f64 {
    count as f64 / 1e6 / time.as_secs_f64()
}

/// How long the bare copy of `count` records takes, in memory that was touched before.
fn copy_time(record: &[u8], count: u64) -> Outcome<Duration> {
    let mut memory = bare::huge_memory(BURST_BYTES as usize)?;
    let start = Instant::now();
    bare::copy_records(&mut memory, record, count);
    Ok(start.elapsed())
}

pub(super) fn small(context: &mut Context) -> Outcome<Vec<Sample>> {
    let message = payload(SMALL_BYTES);
    let path = context.path("append-100");
    let store = context.open(&path)?;
    let mut writer = store.writer(LOG)?;
    // The first burst meets memory that nobody has touched; the second one does not.
    let first = append_many(&mut writer, &message, BURST)?;
    writer.commit(Durability::Disk)?;
    std::thread::sleep(Duration::from_millis(300));
    let second = append_many(&mut writer, &message, BURST)?;
    writer.commit(Durability::Disk)?;
    let count = context.sustained_bytes() / SMALL_BYTES as u64;
    let sustained = append_many(&mut writer, &message, count)?;
    let start = Instant::now();
    for _ in 0..count / 100 {
        writer.append_batch((0..100).map(|_| NewMessage::new(&message)))?;
    }
    let batches = start.elapsed();
    drop(writer);
    store.close()?;
    remove(&path)?;
    let copied = millions(BURST, copy_time(&message, BURST)?);
    let copy = "copying the same records into touched memory";
    let stored = (SMALL_BYTES + 12) as u64;
    let file = context.written_before()?;
    let total = context.sustained_bytes();
    let device = millions(total / stored, bare_time(&file, total, Filling::None)?);
    Ok(vec![
        // The design's target is 15 million a second; the ratio to reach follows from it for each machine.
        Sample::rate(
            "append 100 B, first 40 MiB of a new store",
            "M/s",
            millions(BURST, first),
            copied,
            copy,
        ),
        Sample::rate(
            "append 100 B, while tail memory lasts",
            "M/s",
            millions(BURST, second),
            15.0,
            "15 M/s, the target",
        )
        .target(1.0),
        Sample::rate(
            "append 100 B, the same beside a copy",
            "M/s",
            millions(BURST, second),
            copied,
            copy,
        ),
        Sample::rate(
            "append 100 B, sustained",
            "M/s",
            millions(count, sustained),
            device,
            "the device, written before",
        )
        .target(0.9),
        Sample::rate(
            "append 100 B in batches of 100, sustained",
            "M/s",
            millions(count, batches),
            device,
            "the device, written before",
        ),
    ])
}

/// How long bare direct writes take.
fn bare_time(file: &Path, total: u64, filling: Filling<'_>) -> Outcome<Duration> {
    let start = Instant::now();
    bare::ring_write(file, total, filling)?;
    Ok(start.elapsed())
}

pub(super) fn sustained(context: &mut Context) -> Outcome<Vec<Sample>> {
    let message = payload(MESSAGE_BYTES);
    let total = context.sustained_bytes();
    let count = total / MESSAGE_BYTES as u64;
    let path = context.path("append-1k");
    let file = context.written_before()?;
    let store = context.open(&path)?;
    let mut writer = store.writer(LOG)?;
    let (mut appended, mut durable) = (Duration::ZERO, Duration::ZERO);
    let start = Instant::now();
    append_many(&mut writer, &message, count)?;
    appended += start.elapsed();
    writer.commit(Durability::Disk)?;
    durable += start.elapsed();
    drop(writer);
    store.close()?;
    remove(&path)?;
    let filled = bare_time(&file, total, Filling::Records(&message))?;
    let device = bare_time(&file, total, Filling::None)?;
    let fresh = context.path("fresh.data");
    let unwritten = |filling| -> Outcome<Duration> {
        drop(bare::reserve(&fresh, total)?);
        let time = bare_time(&fresh, total, filling)?;
        std::fs::remove_file(&fresh)?;
        Ok(time)
    };
    let filled_unwritten = unwritten(Filling::Records(&message))?;
    let unwritten = unwritten(Filling::None)?;
    Ok(vec![
        Sample::rate(
            "append 1 KiB, sustained, no sync",
            "MB/s",
            megabytes(total, appended),
            megabytes(total, filled),
            "records and checksums into 1 MiB direct writes, 8 in flight, file written before",
        )
        .target(0.9),
        Sample::rate(
            "sustained, beside a file that was only reserved",
            "MB/s",
            megabytes(total, appended),
            megabytes(total, filled_unwritten),
            "the same writes, file reserved and not written before",
        ),
        Sample::rate(
            "append 1 KiB in bulk, durable at the end",
            "MB/s",
            megabytes(total, durable),
            megabytes(total, device),
            "the device, file written before",
        )
        .target(0.9),
        Sample::rate(
            "bulk, beside a file that was only reserved",
            "MB/s",
            megabytes(total, durable),
            megabytes(total, unwritten),
            "the device, file reserved and not written before",
        ),
    ])
}
