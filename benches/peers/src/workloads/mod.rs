//! What is measured, the same for all: each workload runs in a process of its own, and gives named figures.

mod append;
mod limits;
mod read;
mod reopen;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::engine::{Engine, Failure, Outcome};

pub(crate) use limits::limits;

/// A figure, or why there is none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Figure {
    Value(f64),
    Cannot(String),
}

/// What a workload gives, by name.
pub(crate) type Figures = BTreeMap<String, Figure>;

/// The workloads, in the order in which they run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Workload {
    AppendSmall,
    AppendSmallBatch,
    AppendMiddle,
    AppendMiddleBatch,
    AppendLarge,
    AppendLargeBatch,
    DurableOne,
    DurableSixteen,
    ManyLogs,
    Tail,
    /// Makes what the next three read; kept from round to round.
    Fill,
    Random,
    ScanWarm,
    ScanCold,
    FillAndClose,
    FillAndDie,
    Reopen,
    Sustained,
}

/// How much each workload does: bounds in bytes and in time, whichever is reached first.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Sizes {
    pub(crate) scale: f64,
    pub(crate) append_bytes: u64,
    pub(crate) append_time: Duration,
    pub(crate) durable_time: Duration,
    pub(crate) library_bytes: u64,
    pub(crate) random_reads: u64,
    pub(crate) tail_messages: u64,
    pub(crate) reopen_bytes: u64,
    pub(crate) sustained_bytes: u64,
    pub(crate) sustained_time: Duration,
}

impl Sizes {
    /// `scale` 1 is a full run.
    pub(crate) fn new(scale: f64, sustained_gigabytes: f64) -> Self {
        let bytes = |full: u64| ((full as f64 * scale) as u64).max(1 << 20);
        let count = |full: u64| ((full as f64 * scale) as u64).max(1_000);
        let time = |seconds: f64| Duration::from_secs_f64((seconds * scale).max(0.1));
        Sizes {
            scale,
            append_bytes: bytes(256 << 20),
            append_time: time(2.0),
            durable_time: time(1.5),
            library_bytes: bytes(512 << 20),
            random_reads: count(200_000),
            tail_messages: count(20_000),
            reopen_bytes: bytes(96 << 20),
            sustained_bytes: (sustained_gigabytes * 1e9) as u64,
            sustained_time: time(20.0),
        }
    }
}

/// What a process is started for.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) workload: Workload,
    pub(crate) directory: PathBuf,
    pub(crate) sizes: Sizes,
}

pub(crate) const SMALL: usize = 100;
pub(crate) const MIDDLE: usize = 1 << 10;
pub(crate) const LARGE: usize = 64 << 10;
/// Messages of a batch.
const BATCH: usize = 100;

/// Runs a workload with an engine.
pub(crate) fn run<E: Engine>(task: &Task) -> Outcome<Figures> {
    settle_machine(match task.workload {
        Workload::Sustained => 1 << 30,
        _ => task.sizes.append_bytes.max(task.sizes.library_bytes),
    })?;
    match task.workload {
        Workload::AppendSmall => append::plain::<E>(task, SMALL, 1),
        Workload::AppendSmallBatch => append::plain::<E>(task, SMALL, BATCH),
        Workload::AppendMiddle => append::plain::<E>(task, MIDDLE, 1),
        Workload::AppendMiddleBatch => append::plain::<E>(task, MIDDLE, BATCH),
        Workload::AppendLarge => append::plain::<E>(task, LARGE, 1),
        Workload::AppendLargeBatch => append::plain::<E>(task, LARGE, BATCH),
        Workload::DurableOne => append::durable::<E>(task, 1),
        Workload::DurableSixteen => append::durable::<E>(task, 16),
        Workload::ManyLogs => append::many_logs::<E>(task),
        Workload::Sustained => append::sustained::<E>(task),
        Workload::Fill => read::fill::<E>(task),
        Workload::Random => read::random::<E>(task),
        Workload::ScanWarm => read::scan::<E>(task, true),
        Workload::ScanCold => read::scan::<E>(task, false),
        Workload::Tail => read::tail::<E>(task),
        Workload::FillAndClose => reopen::fill::<E>(task, false),
        Workload::FillAndDie => reopen::fill::<E>(task, true),
        Workload::Reopen => reopen::reopen::<E>(task),
    }
}

/// Has the host give memory back and wakes the cores, so that the first to run does not pay for all: on a virtual machine
/// the first touch of a page that the host took back costs many times that of another.
fn settle_machine(bytes: u64) -> Outcome<()> {
    let bytes = usize::try_from(bytes)?.clamp(64 << 20, 1 << 30);
    drop(lanterman_benches::bare::huge_memory(bytes).map_err(Failure::Failed)?);
    let until = Instant::now() + Duration::from_millis(20);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while Instant::now() < until {
                    std::hint::spin_loop();
                }
            });
        }
    });
    Ok(())
}

/// Up to a minute in nanoseconds, to three digits.
fn histogram() -> Outcome<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 60_000_000_000, 3)?)
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).max(1)
}

/// Percentiles in microseconds.
fn percentiles(figures: &mut Figures, histogram: &Histogram<u64>) {
    let parts = [
        ("p50_us", 0.5),
        ("p99_us", 0.99),
        ("p99.9_us", 0.999),
        ("max_us", 1.0),
    ];
    for (name, part) in parts {
        put(figures, name, histogram.value_at_quantile(part) as f64 / 1e3);
    }
}

fn put(figures: &mut Figures, name: &str, value: f64) {
    figures.insert(name.to_owned(), Figure::Value(value));
}

/// A figure, or the reason why the engine has none; everything else that fails ends the process.
fn put_if_it_can(figures: &mut Figures, name: &str, outcome: Outcome<f64>) -> Outcome<()> {
    let figure = match outcome {
        Ok(value) => Figure::Value(value),
        Err(Failure::CannotDo(reason)) => Figure::Cannot(reason.to_owned()),
        Err(failure) => return Err(failure),
    };
    figures.insert(name.to_owned(), figure);
    Ok(())
}

/// Bytes that a directory takes on the disk, holes left out.
pub(crate) fn bytes_on_disk(directory: &std::path::Path) -> Outcome<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut bytes = 0;
    for path in files_in(directory)? {
        bytes += std::fs::metadata(path)?.blocks() * 512;
    }
    Ok(bytes)
}

/// All files under a directory.
pub(crate) fn files_in(directory: &std::path::Path) -> Outcome<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.extend(files_in(&entry.path())?);
        } else {
            found.push(entry.path());
        }
    }
    Ok(found)
}
