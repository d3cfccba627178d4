//! What the machine gives to the plainest program.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use lanterman_benches::bare::{self, Filling};
use lanterman_benches::data::{megabytes, payload};

use super::{Figures, MIDDLE, SMALL, Sizes, put, settle_machine};
use crate::engine::{Failure, Outcome, touch};

/// Memory that copies go round in: far more than the caches of the processor hold.
const MEMORY_BYTES: usize = 256 << 20;
/// Room that durable writes go round in.
const SYNCED_BYTES: u64 = 32 << 20;
const PAGE_BYTES: usize = 4096;

/// Measures them all.
pub(crate) fn limits(directory: &Path, sizes: &Sizes) -> Outcome<Figures> {
    settle_machine(sizes.append_bytes)?;
    let mut figures = Figures::new();
    copying(&mut figures)?;
    let path = directory.join("bare");
    let bytes = sizes
        .append_bytes
        .max(SYNCED_BYTES)
        .next_multiple_of(bare::PIECE_BYTES as u64);
    device(&mut figures, &path, bytes).map_err(Failure::Failed)?;
    put(
        &mut figures,
        "dsync_rate",
        direct_syncs(&path, sizes.durable_time)?,
    );
    put(
        &mut figures,
        "fdatasync_rate",
        plain_syncs(&path, sizes.durable_time)?,
    );
    std::fs::remove_file(&path)?;
    Ok(figures)
}

fn copying(figures: &mut Figures) -> Outcome<()> {
    let mut memory = bare::huge_memory(MEMORY_BYTES).map_err(Failure::Failed)?;
    for (name, bytes) in [("copy_small_rate", SMALL), ("copy_middle_rate", MIDDLE)] {
        let record = payload(bytes);
        let count = MEMORY_BYTES as u64 / (8 + bytes.next_multiple_of(8)) as u64;
        let start = Instant::now();
        bare::copy_records(&mut memory, &record, count);
        put(figures, name, count as f64 / start.elapsed().as_secs_f64());
    }
    let start = Instant::now();
    std::hint::black_box(touch(&memory));
    put(
        figures,
        "memory_megabytes",
        megabytes(MEMORY_BYTES as u64, start.elapsed()),
    );
    Ok(())
}

/// Writes over blocks that were written before, as recycled files do, and reads them back around the page cache.
fn device(figures: &mut Figures, path: &Path, bytes: u64) -> lanterman_benches::Outcome<()> {
    bare::reserve(path, bytes)?;
    bare::ring_write(path, bytes, Filling::None)?;
    let start = Instant::now();
    bare::ring_write(path, bytes, Filling::None)?;
    put(
        figures,
        "device_write_megabytes",
        megabytes(bytes, start.elapsed()),
    );
    let start = Instant::now();
    bare::ring_read(&[path.to_path_buf()], |_| {})?;
    put(
        figures,
        "device_read_megabytes",
        megabytes(bytes, start.elapsed()),
    );
    Ok(())
}

/// Calls `write` with positions that go round, for a while; gives calls a second.
fn rate(time: Duration, mut write: impl FnMut(u64) -> Outcome<()>) -> Outcome<f64> {
    let start = Instant::now();
    let mut count = 0_u64;
    while start.elapsed() < time {
        write(count * PAGE_BYTES as u64 % SYNCED_BYTES)?;
        count += 1;
    }
    Ok(count as f64 / start.elapsed().as_secs_f64())
}

fn direct_syncs(path: &Path, time: Duration) -> Outcome<f64> {
    let file = bare::open_direct(path)?;
    let page = bare::huge_memory(PAGE_BYTES).map_err(Failure::Failed)?;
    rate(time, |position| {
        bare::durable_write(&file, position, &page).map_err(Failure::Failed)
    })
}

fn plain_syncs(path: &Path, time: Duration) -> Outcome<f64> {
    let file = File::options().write(true).open(path)?;
    let message = payload(MIDDLE);
    rate(time, |position| {
        file.write_all_at(&message, position)?;
        file.sync_data()?;
        Ok(())
    })
}
