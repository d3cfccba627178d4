//! What one point measures, in a process of its own.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use lanterman::{Durability, Options, Store};
use lanterman_benches::bare::{self, MappedSlabs};
use lanterman_benches::data::{self, Random, payload};
use lanterman_benches::{Outcome, machine};
use serde::{Deserialize, Serialize};

/// What is measured against what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Task {
    Append,
    CommitSome,
    CommitAll,
    Threads,
    Processes,
    OpenWritten,
    OpenSmallSlabs,
    OpenByReference,
    OpenLogs,
    MemoryLogs,
    MemorySlabs,
    MemoryByReference,
    /// One of the processes that read.
    Reader,
}

/// One figure at one place of one line.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Point {
    pub(crate) line: String,
    pub(crate) x: f64,
    pub(crate) y: f64,
}

const LOG: &str = "log";
const LIBRARY_MESSAGE_BYTES: usize = 4 << 10;
/// The least that a slab may be limited to.
const SMALL_SLAB_BYTES: u64 = 64 << 10;
/// What is doubled by reference.
const DOUBLED_BYTES: u64 = 16 << 20;
const LOGS_TOUCHED: u64 = 100;
const SMALL_MESSAGE_BYTES: usize = 100;
/// Memory for tails where one transaction is over all logs.
const TAIL_BYTES: u64 = 1 << 30;
/// What may lead to messages in memory, where that is measured: less than the default, so that its bound is met.
const INDEX_BYTES: u64 = 4 << 20;
const RANDOM_READS: u64 = 10_000;

fn point(line: &str, x: u64, y: f64) -> Point {
    Point {
        line: line.to_owned(),
        x: x as f64,
        y,
    }
}

/// Makes the store that a task measures, if it needs one; closed cleanly.
pub(crate) fn prepare(task: Task, x: u64, path: &Path, quick: bool) -> Outcome<()> {
    match task {
        Task::Append | Task::Reader => Ok(()),
        Task::CommitSome | Task::CommitAll | Task::OpenLogs | Task::MemoryLogs => write_logs(path, x),
        Task::Threads | Task::Processes => {
            write(path, if quick { 64 << 20 } else { 256 << 20 }, Options::new())
        }
        Task::OpenWritten => write(path, x, Options::new()),
        Task::OpenSmallSlabs => write(path, x, Options::new().slab_bytes_max(SMALL_SLAB_BYTES)),
        Task::MemorySlabs => write(
            path,
            x * SMALL_SLAB_BYTES,
            Options::new().slab_bytes_max(SMALL_SLAB_BYTES),
        ),
        Task::OpenByReference => double(path, x, Options::new()),
        Task::MemoryByReference => double(
            path,
            x * SMALL_SLAB_BYTES,
            Options::new().slab_bytes_max(SMALL_SLAB_BYTES),
        ),
    }
}

/// Measures, in a process that did not prepare.
pub(crate) fn measure(task: Task, x: u64, path: &Path, quick: bool) -> Outcome<Vec<Point>> {
    match task {
        Task::Append => append(path, x, quick),
        Task::CommitSome => commits(path, x, x.min(LOGS_TOUCHED), "100 of the logs", quick),
        Task::CommitAll => commits(path, x, x, "all logs", quick),
        Task::Threads => threads(path, x),
        Task::Processes => processes(path, x),
        Task::OpenWritten => open(path, x, "written"),
        Task::OpenSmallSlabs => open(path, x, "written, small slabs"),
        Task::OpenByReference => open(path, x, "by reference"),
        Task::OpenLogs => open(path, x, "opening"),
        Task::MemoryLogs => memory(path, x, "logs, opened", |_| Ok(())),
        Task::MemorySlabs => memory(path, x, "slabs, all read", read_each_slab),
        Task::MemoryByReference => memory(path, x, "slabs by reference", read_at_random),
        Task::Reader => reader(path),
    }
}

fn write(path: &Path, bytes: u64, options: Options) -> Outcome<()> {
    let store = data::open(path, options)?;
    let mut writer = store.writer(LOG)?;
    let message = payload(LIBRARY_MESSAGE_BYTES);
    for _ in 0..bytes / message.len() as u64 {
        writer.append(&message)?;
    }
    writer.commit(Durability::Disk)?;
    drop(writer);
    store.checkpoint()?;
    Ok(store.close()?)
}

/// A log of so many bytes, of which only the first are written: it is put behind itself until it is long enough.
fn double(path: &Path, bytes: u64, options: Options) -> Outcome<()> {
    let mut length = bytes.min(DOUBLED_BYTES);
    write(path, length, options)?;
    let store = data::open(path, Options::new())?;
    while length < bytes {
        store.fork(LOG, "half")?;
        store.append_log(LOG, "half")?;
        store.drop_log("half")?;
        length *= 2;
    }
    store.checkpoint()?;
    Ok(store.close()?)
}

fn log_name(number: u64) -> String {
    format!("log {number}")
}

fn write_logs(path: &Path, count: u64) -> Outcome<()> {
    let store = data::open(path, Options::new())?;
    let message = payload(SMALL_MESSAGE_BYTES);
    for begin in (0..count).step_by(1_000) {
        store.transaction(|transaction| {
            (begin..count.min(begin + 1_000))
                .try_for_each(|number| transaction.append(&log_name(number), &message))
        })?;
    }
    store.checkpoint()?;
    Ok(store.close()?)
}

fn append(path: &Path, size: u64, quick: bool) -> Outcome<Vec<Point>> {
    let (volume, most) = if quick {
        (96 << 20, 1_000_000)
    } else {
        (512 << 20, 8_000_000)
    };
    let count = (volume / size).clamp(4, most);
    let message = payload(usize::try_from(size)?);
    let store = data::open(path, Options::new())?;
    let mut writer = store.writer(LOG)?;
    let start = Instant::now();
    for _ in 0..count {
        writer.append(&message)?;
    }
    writer.commit(Durability::Disk)?;
    let ours = start.elapsed();
    drop(writer);
    store.close()?;
    std::fs::remove_dir_all(path)?;
    let mut memory = bare::huge_memory(64 << 20)?;
    let start = Instant::now();
    bare::copy_records(&mut memory, &message, count);
    let copying = start.elapsed();
    let bytes = (count * size).max(32 << 20);
    let start = Instant::now();
    bare::ring_write(path, bytes, bare::Filling::None)?;
    let device = start.elapsed();
    std::fs::remove_file(path)?;
    Ok(vec![
        point("Lanterman", size, count as f64 / ours.as_secs_f64()),
        point("bare copying", size, count as f64 / copying.as_secs_f64()),
        point("bare device", size, (bytes / size) as f64 / device.as_secs_f64()),
    ])
}

fn commits(path: &Path, logs: u64, touched: u64, line: &str, quick: bool) -> Outcome<Vec<Point>> {
    let time = Duration::from_millis(if quick { 150 } else { 1_000 });
    let message = payload(SMALL_MESSAGE_BYTES);
    // Each log of a transaction has a chunk of at least 4 KiB in the memory of tails.
    let options = Options::new().tail_memory_bytes(TAIL_BYTES);
    let store = data::open(path, options)?;
    // A stride without a factor in common with the number of logs, which is a power of ten: no log comes twice.
    let stride = 7_919;
    let commit = |first: u64| -> Outcome<()> {
        store.transaction(|transaction| {
            (first..first + touched)
                .try_for_each(|turn| transaction.append(&log_name(turn * stride % logs), &message))
        })?;
        Ok(())
    };
    let start = Instant::now();
    (0..logs / touched).try_for_each(|turn| commit(turn * touched))?;
    let met = logs as f64 / start.elapsed().as_secs_f64();
    let mut random = Random::new(11);
    let ours = repeat(time, &mut || commit(random.next_u64() % logs))?;
    store.close()?;
    let bytes = (touched * SMALL_MESSAGE_BYTES as u64).next_multiple_of(4096);
    let buffer = bare::huge_memory(usize::try_from(bytes)?)?;
    let file = bare::reserve(&path.with_extension("bare"), bytes)?;
    bare::durable_write(&file, 0, &buffer)?;
    let limit = repeat(time, &mut || bare::durable_write(&file, 0, &buffer))?;
    std::fs::remove_file(path.with_extension("bare"))?;
    let mut points = vec![
        point(line, logs, touched as f64 * ours),
        point(&format!("bare: {line}"), logs, touched as f64 * limit),
    ];
    if touched < logs {
        points.push(point("each for the first time", logs, met));
    }
    Ok(points)
}

/// Times a second, for as long as `time`, and at least twice.
fn repeat(time: Duration, work: &mut impl FnMut() -> Outcome<()>) -> Outcome<f64> {
    let start = Instant::now();
    let mut turns = 0;
    while turns < 2 || start.elapsed() < time {
        work()?;
        turns += 1;
    }
    Ok(f64::from(turns) / start.elapsed().as_secs_f64())
}

fn read_all(value: &[u8]) -> u64 {
    let words = value.as_chunks::<8>().0;
    words
        .iter()
        .fold(0, |sum: u64, word| sum.wrapping_add(u64::from_le_bytes(*word)))
}

fn scan(store: &Store) -> Outcome<u64> {
    let mut cursor = store.snapshot(LOG)?.cursor(0_u64)?;
    let (mut sum, mut count) = (0_u64, 0);
    while let Some(message) = cursor.next()? {
        sum = sum.wrapping_add(read_all(message.value()));
        count += 1;
    }
    std::hint::black_box(sum);
    Ok(count)
}

/// Runs the same on so many threads; gives what they counted, a second, all together.
fn together(count: u64, work: impl Fn() -> Outcome<u64> + Sync) -> Outcome<f64> {
    let start = Instant::now();
    let total = std::thread::scope(|scope| -> Outcome<u64> {
        let threads: Vec<_> = (0..count).map(|_| scope.spawn(&work)).collect();
        let mut total = 0;
        for thread in threads {
            total += thread.join().map_err(|_| "a reader panicked")??;
        }
        Ok(total)
    })?;
    Ok(total as f64 / start.elapsed().as_secs_f64())
}

fn bare_scan(path: &Path, count: u64) -> Outcome<f64> {
    let slabs = MappedSlabs::open(path)?;
    let walk = || {
        let (mut sum, mut count) = (0_u64, 0);
        slabs.walk(|value| {
            sum = sum.wrapping_add(read_all(value));
            count += 1;
        });
        std::hint::black_box(sum);
        Ok(count)
    };
    walk()?;
    together(count, walk)
}

fn threads(path: &Path, count: u64) -> Outcome<Vec<Point>> {
    let store = data::open(path, Options::new())?;
    scan(&store)?;
    let ours = together(count, || scan(&store))?;
    store.close()?;
    Ok(vec![
        point("Lanterman", count, ours),
        point("bare map", count, bare_scan(path, count)?),
    ])
}

/// Readers beside a process that has the store open for writing.
fn processes(path: &Path, count: u64) -> Outcome<Vec<Point>> {
    let store = data::open(path, Options::new())?;
    let mut readers = Vec::new();
    for _ in 0..count {
        readers.push(start_reader(path)?);
    }
    let start = Instant::now();
    for (child, _) in &mut readers {
        // Read whole by the child: its input ends here.
        drop(child.stdin.take());
    }
    let mut total = 0;
    for (_, output) in &mut readers {
        let mut line = String::new();
        output.read_line(&mut line)?;
        total += line.trim().parse::<u64>()?;
    }
    let ours = total as f64 / start.elapsed().as_secs_f64();
    for (child, _) in &mut readers {
        child.wait()?;
    }
    store.close()?;
    Ok(vec![
        point("Lanterman", count, ours),
        point("bare map, threads", count, bare_scan(path, count)?),
    ])
}

type Reader = (Child, BufReader<std::process::ChildStdout>);

fn start_reader(path: &Path) -> Outcome<Reader> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["--task", "reader", "--at", "1", "--directory"])
        .arg(path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut output = BufReader::new(child.stdout.take().ok_or("a reader without output")?);
    let mut line = String::new();
    output.read_line(&mut line)?;
    if line.trim() == "ready" {
        Ok((child, output))
    } else {
        Err(format!("a reader said {line:?}").into())
    }
}

fn reader(path: &Path) -> Outcome<Vec<Point>> {
    let store = data::open(path, Options::new().read_only(true))?;
    scan(&store)?;
    let mut output = std::io::stdout();
    writeln!(output, "ready")?;
    output.flush()?;
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    let count = scan(&store)?;
    writeln!(output, "{count}")?;
    Ok(Vec::new())
}

fn open(path: &Path, x: u64, line: &str) -> Outcome<Vec<Point>> {
    let start = Instant::now();
    let store = data::open(path, Options::new())?;
    let milliseconds = start.elapsed().as_secs_f64() * 1e3;
    store.close()?;
    Ok(vec![point(line, x, milliseconds)])
}

fn memory(path: &Path, x: u64, line: &str, work: fn(&Store) -> Outcome<()>) -> Outcome<Vec<Point>> {
    let store = data::open(path, Options::new().index_memory_bytes(INDEX_BYTES))?;
    work(&store)?;
    let mib = |key| -> Outcome<f64> { Ok(machine::own_status_bytes(key)? as f64 / f64::from(1 << 20)) };
    let points = vec![
        point(&format!("{line}: all"), x, mib("VmRSS:")?),
        point(&format!("{line}: own"), x, mib("RssAnon:")?),
    ];
    store.close()?;
    Ok(points)
}

fn read_each_slab(store: &Store) -> Outcome<()> {
    let end = store.log(LOG)?.end().get();
    let step = usize::try_from(SMALL_SLAB_BYTES)? / LIBRARY_MESSAGE_BYTES;
    read(store, (0..end).step_by(step))
}

fn read_at_random(store: &Store) -> Outcome<()> {
    let end = store.log(LOG)?.end().get();
    let mut random = Random::new(5);
    read(store, (0..RANDOM_READS).map(|_| random.next_u64() % end))
}

fn read(store: &Store, offsets: impl Iterator<Item = u64>) -> Outcome<()> {
    let mut cursor = store.log(LOG)?.cursor(0_u64)?;
    let mut sum = 0;
    for offset in offsets {
        sum += cursor.get(offset)?.value().len();
    }
    std::hint::black_box(sum);
    Ok(())
}
