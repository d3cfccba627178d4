//! Deleting, forking and holding logs still: what a call costs, whatever the log's size.

use std::time::{Duration, Instant};

use lanterman::{Durability, Retention, Store};

use crate::Outcome;
use crate::bare;
use crate::context::{Context, MESSAGE_BYTES, payload, remove};
use crate::table::Sample;

/// Calls of which a round takes the median.
const TURNS: usize = 9;
/// The log whose size is no matter.
const LARGE: &str = "large";
/// What it is compared with: a log of a thousandth of its size.
const SMALL: &str = "small";
/// The logs that are made of them and dropped again.
const FORK: &str = "fork";

/// What durable edits are compared with.
const DEVICE: &str = "a durable write of 4 KiB";

/// Appends equal messages to a log.
pub(super) fn fill(store: &Store, log: &str, messages: u64) -> Outcome<()> {
    let mut writer = store.writer(log)?;
    let mut message = payload(MESSAGE_BYTES);
    for number in 0..messages {
        message[..8].copy_from_slice(&number.to_le_bytes());
        writer.append(&message)?;
    }
    writer.commit(Durability::Disk)?;
    Ok(())
}

/// The middle of several durations, in microseconds.
fn median_us(turns: usize, mut turn: impl FnMut() -> Outcome<Duration>) -> Outcome<f64> {
    let times: Outcome<Vec<_>> = (0..turns).map(|_| turn()).collect();
    let mut times = times?;
    times.sort_unstable();
    Ok(times[turns / 2].as_secs_f64() * 1e6)
}

fn timed<T>(call: impl FnOnce() -> lanterman::Result<T>) -> Outcome<Duration> {
    let start = Instant::now();
    call()?;
    Ok(start.elapsed())
}

/// The time of an edit of a fork of `log`, which nothing else is done to.
fn edit_of_fork(store: &Store, log: &str, edit: impl Fn(&Store) -> lanterman::Result<()>) -> Outcome<f64> {
    median_us(TURNS, || {
        store.fork(log, FORK)?;
        let time = timed(|| edit(store))?;
        store.drop_log(FORK)?;
        Ok(time)
    })
}

pub(super) fn calls(context: &mut Context) -> Outcome<Vec<Sample>> {
    let path = context.path("edit");
    let large_bytes: u64 = context.pick(10 << 30, 256 << 20);
    let (large, small) = (
        large_bytes / MESSAGE_BYTES as u64,
        large_bytes / 1000 / MESSAGE_BYTES as u64,
    );
    let tenth = large / 10;
    if context.round == 0 {
        let store = context.open(&path)?;
        fill(&store, LARGE, large)?;
        fill(&store, SMALL, small)?;
        store.checkpoint()?;
        store.close()?;
    }
    let store = context.open(&path)?;
    let block_path = context.path("edit-block");
    let block = bare::reserve(&block_path, 1 << 20)?;
    let page = bare::huge_memory(4096)?;
    let durable = median_us(TURNS, || {
        let start = Instant::now();
        bare::durable_write(&block, 0, &page)?;
        Ok(start.elapsed())
    })?;
    let mut samples = Vec::new();
    // Each in its own turn, so that the caches of one do not help the other more.
    for (rows, edit, edit_small) in [
        (
            [
                "delete 1 GiB in the middle of 10 GiB, durable",
                "the same deletion",
            ],
            Box::new(move |store: &Store| store.delete(FORK, tenth * 4 + 7..tenth * 5 + 7).map(drop))
                as Box<dyn Fn(&Store) -> lanterman::Result<()>>,
            Box::new(move |store: &Store| store.delete(FORK, small / 2..small / 2 + 1).map(drop))
                as Box<dyn Fn(&Store) -> lanterman::Result<()>>,
        ),
        (
            [
                "retain without the first of 10 GiB, durable",
                "the same retention",
            ],
            Box::new(move |store: &Store| store.retain(FORK, &Retention::new().from(tenth + 7)).map(drop)),
            Box::new(move |store: &Store| {
                store
                    .retain(FORK, &Retention::new().from(small / 10 + 7))
                    .map(drop)
            }),
        ),
    ] {
        let ours = edit_of_fork(&store, LARGE, edit)?;
        let of_small = edit_of_fork(&store, SMALL, edit_small)?;
        samples.push(Sample::cost(rows[0], "us", ours, of_small, "in a log of 10 MiB"));
        samples.push(Sample::cost(rows[1], "us", ours, durable, DEVICE));
    }
    samples.extend(forking(&store, durable)?);
    samples.extend(looking(&store, large_bytes)?);
    store.close()?;
    std::fs::remove_file(&block_path)?;
    Ok(samples)
}

/// Forks and snapshots; `durable_us` is what a durable write takes.
fn forking(store: &Store, durable_us: f64) -> Outcome<Vec<Sample>> {
    let mut samples = Vec::new();
    let fork = |log: &'static str| {
        median_us(TURNS, || {
            let time = timed(|| store.fork(log, FORK))?;
            store.drop_log(FORK)?;
            Ok(time)
        })
    };
    let (ours, of_small) = (fork(LARGE)?, fork(SMALL)?);
    samples.push(Sample::cost(
        "fork of 10 GiB, durable",
        "us",
        ours,
        of_small,
        "a log of 10 MiB",
    ));
    samples.push(Sample::cost("the same fork", "us", ours, durable_us, DEVICE));
    let snapshot = |log: &str| {
        median_us(TURNS * 11, || {
            let start = Instant::now();
            let held = store.snapshot(log)?;
            let time = start.elapsed();
            drop(held);
            Ok(time)
        })
    };
    let (ours, of_small) = (snapshot(LARGE)?, snapshot(SMALL)?);
    samples.push(Sample::cost(
        "snapshot of 10 GiB",
        "us",
        ours,
        of_small,
        "a log of 10 MiB",
    ));
    Ok(samples)
}

/// Looking for garbage, which walks all nodes: a step that gives back nothing.
fn looking(store: &Store, bytes: u64) -> Outcome<Vec<Sample>> {
    // Gives back what the forks have left.
    store.collect()?;
    let look = median_us(TURNS, || timed(|| store.collect_step(0)))?;
    let gibibytes = bytes as f64 / f64::from(1 << 30);
    Ok(vec![Sample::cost(
        "looking for garbage, for each GiB of slabs",
        "us",
        look / gibibytes,
        1e6 / 1024.0,
        "1 s for each TiB",
    )])
}

/// From the end of the last pin on, until the file system has the bytes again.
pub(super) fn space_back(context: &mut Context) -> Outcome<Vec<Sample>> {
    const LIMIT: Duration = Duration::from_secs(60);
    let path = context.path("space-back");
    let bytes: u64 = context.pick(1 << 30, 64 << 20);
    let store = context.open(&path)?;
    fill(&store, LARGE, bytes / MESSAGE_BYTES as u64)?;
    store.checkpoint()?;
    let held = store.snapshot(LARGE)?;
    store.delete(LARGE, ..)?;
    // The background finds that everything is held.
    std::thread::sleep(Duration::from_millis(2500));
    let before = bytes_on_disk(&path)?;
    let start = Instant::now();
    drop(held);
    while before.saturating_sub(bytes_on_disk(&path)?) < bytes / 10 * 9 {
        if start.elapsed() > LIMIT {
            return Err("the space did not come back within a minute".into());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let seconds = start.elapsed().as_secs_f64();
    store.close()?;
    remove(&path)?;
    Ok(vec![
        Sample::cost("1 GiB back after its last pin is gone", "s", seconds, 1.0, "1 s").target(1.0),
    ])
}

fn bytes_on_disk(store: &std::path::Path) -> Outcome<u64> {
    use std::os::unix::fs::MetadataExt as _;
    let mut bytes = 0;
    for entry in std::fs::read_dir(store.join("segments"))? {
        // A segment may go while the directory is read.
        if let Ok(found) = entry?.metadata() {
            bytes += found.blocks() * 512;
        }
    }
    Ok(bytes)
}
