//! Counts the instructions of the hot paths, which say what changed in the code whatever else the machine does.
//!
//! ```sh
//! cargo run --release -p lanterman-benches --no-default-features --features valgrind --bin lanterman-instructions
//! cargo run --release -p lanterman-benches --no-default-features --features valgrind --bin lanterman-instructions -- --write
//! ```
//!
//! Each path runs twice under `valgrind --tool=cachegrind`, with fewer and with more iterations; the difference is the
//! iterations alone, since everything before and after them is the same. The counts are compared with `benches/instructions.txt`, or
//! with `--write` take their place. Nothing of the kernel is counted.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program that prints what it counts"
)]

use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::{Parser, ValueEnum};
use lanterman::{Background, Durability, NewMessage, Options, Store};
use lanterman_benches::Outcome;
use lanterman_benches::data::{self, Random, payload};

/// Compares the instructions of the hot paths with those that were written down.
#[derive(Debug, Parser)]
#[command(version, about, long_about = None)]
struct Arguments {
    /// The table.
    #[arg(long, default_value = "benches/instructions.txt")]
    table: PathBuf,
    /// Writes what was counted into the table, with the tolerances that it has.
    #[arg(long)]
    write: bool,
    /// Runs one path by itself; used by the program under valgrind.
    #[arg(long, hide = true, requires_all = ["count", "directory"])]
    path: Option<HotPath>,
    #[arg(long, hide = true)]
    count: Option<u64>,
    #[arg(long, hide = true)]
    directory: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum HotPath {
    #[value(name = "append-100-B")]
    AppendSmall,
    #[value(name = "append-1-KiB")]
    AppendMiddle,
    #[value(name = "append-100-B-in-batches")]
    AppendBatch,
    #[value(name = "read-by-offset-1-KiB")]
    ReadByOffset,
    #[value(name = "scan-step-1-KiB")]
    ScanStep,
    #[value(name = "log-of-a-transaction")]
    TransactionLog,
}

/// A line of the table.
#[derive(Debug, Clone, PartialEq)]
struct Line {
    path: String,
    instructions: f64,
    tolerance_percent: f64,
}

const LOG: &str = "log";
/// Less than the memory of tails together with what is appended, so that nothing is written meanwhile.
const FEWER: u64 = 2_000;
const MORE: u64 = 22_000;
/// Messages that reads go round in.
const LIBRARY_MESSAGES: u64 = 8_000;
/// Messages of a batch.
const BATCH: u64 = 100;
/// Logs of the store with transactions, and of one of them.
const LOGS: usize = 1_000;
const LOGS_TOUCHED: usize = 100;
const TOLERANCE_PERCENT: f64 = 2.0;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match (arguments.path, arguments.count, &arguments.directory) {
        (Some(path), Some(count), Some(directory)) => run(path, count, directory).map(|()| true),
        _ => compare(&arguments),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("lanterman-instructions: {error}");
            ExitCode::from(2)
        }
    }
}

fn options() -> Options {
    Options::new().background(Background::Manual)
}

/// One path, under valgrind or not.
fn run(path: HotPath, count: u64, directory: &Path) -> Outcome<()> {
    match path {
        HotPath::AppendSmall => append(directory, &payload(100), count),
        HotPath::AppendMiddle => append(directory, &payload(1 << 10), count),
        HotPath::AppendBatch => append_batches(directory, &payload(100), count),
        HotPath::ReadByOffset => read_by_offset(directory, count),
        HotPath::ScanStep => scan(directory, count),
        HotPath::TransactionLog => transactions(directory, &payload(100), count),
    }
}

fn append(directory: &Path, value: &[u8], count: u64) -> Outcome<()> {
    let store = data::open(directory, options())?;
    let mut writer = store.writer(LOG)?;
    // The chunks of a log grow at first; that is not the path that matters.
    for _ in 0..4_000 {
        writer.append(&[1; 1024])?;
    }
    for _ in 0..count {
        writer.append(std::hint::black_box(value))?;
    }
    // Closing would write what was appended, and that is another path.
    std::mem::forget((writer, store));
    Ok(())
}

/// As [`append`], a hundred messages at a time.
fn append_batches(directory: &Path, value: &[u8], count: u64) -> Outcome<()> {
    let store = data::open(directory, options())?;
    let mut writer = store.writer(LOG)?;
    for _ in 0..4_000 {
        writer.append(&[1; 1024])?;
    }
    for _ in 0..count / BATCH {
        writer.append_batch((0..BATCH).map(|_| NewMessage::new(std::hint::black_box(value))))?;
    }
    std::mem::forget((writer, store));
    Ok(())
}

/// Durable transactions that put a message into each of a hundred logs of a thousand; counted by logs.
fn transactions(directory: &Path, value: &[u8], count: u64) -> Outcome<()> {
    let store = data::open(directory, options())?;
    let names: Vec<String> = (0..LOGS).map(|log| format!("log {log}")).collect();
    let commit = |first: usize, value: &[u8]| {
        store.transaction(|transaction| {
            let logs = names.iter().cycle().skip(first % LOGS);
            logs.take(LOGS_TOUCHED)
                .try_for_each(|name| transaction.append(name, value))
        })
    };
    // Room for all that follows, so that no chunk grows meanwhile.
    for turn in 0..LOGS / LOGS_TOUCHED {
        commit(turn * LOGS_TOUCHED, &[1; 4096])?;
    }
    for turn in 0..usize::try_from(count)? / LOGS_TOUCHED {
        commit(turn * LOGS_TOUCHED, std::hint::black_box(value))?;
    }
    std::mem::forget(store);
    Ok(())
}

/// A store that was closed and opened again, with every group of its slabs checked once.
fn library(directory: &Path) -> Outcome<Store> {
    let store = data::open(directory, options())?;
    let mut writer = store.writer(LOG)?;
    let value = payload(1 << 10);
    for _ in 0..LIBRARY_MESSAGES {
        writer.append(&value)?;
    }
    writer.commit(Durability::Disk)?;
    drop(writer);
    store.close()?;
    let store = data::open(directory, options())?;
    let mut cursor = store.log(LOG)?.cursor(0_u64)?;
    while cursor.next()?.is_some() {}
    Ok(store)
}

fn read_by_offset(directory: &Path, count: u64) -> Outcome<()> {
    let store = library(directory)?;
    let mut cursor = store.log(LOG)?.cursor(0_u64)?;
    let mut random = Random::new(7);
    let mut bytes = 0;
    for _ in 0..count {
        bytes += cursor.get(random.next_u64() % LIBRARY_MESSAGES)?.value().len();
    }
    std::hint::black_box(bytes);
    Ok(())
}

fn scan(directory: &Path, count: u64) -> Outcome<()> {
    let store = library(directory)?;
    let mut cursor = store.log(LOG)?.cursor(0_u64)?;
    let mut bytes = 0;
    for _ in 0..count {
        match cursor.next()? {
            Some(message) => bytes += message.value().len(),
            None => cursor.seek(0_u64)?,
        }
    }
    std::hint::black_box(bytes);
    Ok(())
}

/// Counts all paths, and says whether none takes more instructions than the table allows.
fn compare(arguments: &Arguments) -> Outcome<bool> {
    let text = std::fs::read_to_string(&arguments.table).unwrap_or_default();
    let known = parse(&text)?;
    let mut counted = Vec::new();
    let mut kept = true;
    for path in HotPath::value_variants() {
        let name = name(*path)?;
        let found = instructions(&name)?;
        let line = known.iter().find(|line| line.path == name);
        match line {
            Some(line) => {
                let (allowed, verdict) = judge(line, found);
                kept &= allowed;
                println!(
                    "{name:<24} {found:>9.1} instructions, {:>9.1} written down: {verdict}",
                    line.instructions
                );
            }
            None => {
                kept = false;
                println!("{name:<24} {found:>9.1} instructions, none written down");
            }
        }
        counted.push(Line {
            path: name,
            instructions: found,
            tolerance_percent: line.map_or(TOLERANCE_PERCENT, |line| line.tolerance_percent),
        });
    }
    if arguments.write {
        std::fs::write(&arguments.table, table(&counted)?)?;
        return Ok(true);
    }
    Ok(kept)
}

/// Whether the count is within the tolerance, and what to say of it.
fn judge(line: &Line, found: f64) -> (bool, &'static str) {
    let change_percent = (found / line.instructions - 1.0) * 100.0;
    if change_percent > line.tolerance_percent {
        (
            false,
            "more than the tolerance; if it is meant, take it over with --write",
        )
    } else if change_percent < -line.tolerance_percent {
        (
            true,
            "less; take it over with --write, so that it is not lost again",
        )
    } else {
        (true, "as before")
    }
}

fn name(path: HotPath) -> Outcome<String> {
    let value = path.to_possible_value().ok_or("a path without a name")?;
    Ok(value.get_name().to_owned())
}

/// Instructions of one iteration.
fn instructions(path: &str) -> Outcome<f64> {
    let difference = count(path, MORE)?.checked_sub(count(path, FEWER)?);
    let difference = difference.ok_or("more iterations took fewer instructions")?;
    Ok(difference as f64 / (MORE - FEWER) as f64)
}

/// Instructions of a whole run of so many iterations, in a directory of its own.
fn count(path: &str, iterations: u64) -> Outcome<u64> {
    let directory = std::env::current_dir()?.join(format!("target/instructions-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    let mut command = Command::new("valgrind");
    command
        .args([
            "--tool=cachegrind",
            "--cache-sim=no",
            "--cachegrind-out-file=/dev/null",
        ])
        .arg(std::env::current_exe()?)
        .args(["--path", path, "--count", &iterations.to_string(), "--directory"])
        .arg(directory.join("store"));
    let output = command.output();
    std::fs::remove_dir_all(&directory)?;
    let output = output?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("{path} under valgrind: {}, {said}", output.status).into());
    }
    total(&said).ok_or_else(|| format!("valgrind told no count: {said}").into())
}

/// The count in what cachegrind prints.
fn total(said: &str) -> Option<u64> {
    let line = said.lines().find(|line| line.contains("refs:"))?;
    let digits: String = line
        .rsplit(':')
        .next()?
        .chars()
        .filter(char::is_ascii_digit)
        .collect();
    digits.parse().ok()
}

/// Lines of a path, a count and a tolerance in per cent; `#` begins a remark.
fn parse(text: &str) -> Outcome<Vec<Line>> {
    let lines = text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    lines
        .map(|line| parse_line(line).ok_or_else(|| wrong(line)))
        .collect()
}

fn parse_line(line: &str) -> Option<Line> {
    let mut words = line.split_whitespace();
    Some(Line {
        path: words.next()?.to_owned(),
        instructions: words.next()?.parse().ok()?,
        tolerance_percent: words.next()?.parse().ok()?,
    })
}

fn wrong(line: &str) -> Box<dyn Error + Send + Sync> {
    format!("a line must have a path, a count and a tolerance in per cent: {line:?}").into()
}

fn table(lines: &[Line]) -> Outcome<String> {
    let mut out = String::from(
        "# Instructions of one operation, and how many per cent more are let pass. Counted and compared by the program\n\
         # lanterman-instructions, which says at its head how; `./check --deep` runs it.\n",
    );
    for line in lines {
        writeln!(
            out,
            "{:<24} {:>9.1} {:>4}",
            line.path, line.instructions, line.tolerance_percent
        )?;
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::{Line, judge, parse, table, total};

    fn line(instructions: f64) -> Line {
        Line {
            path: "append".to_owned(),
            instructions,
            tolerance_percent: 5.0,
        }
    }

    #[test]
    fn only_more_than_the_tolerance_is_refused() {
        assert!(judge(&line(100.0), 104.9).0);
        assert!(!judge(&line(100.0), 105.1).0);
        assert!(judge(&line(100.0), 50.0).0);
    }

    #[test]
    fn a_table_that_was_written_is_read_as_it_was() {
        let lines = [line(123.4), line(9.5)];
        assert_eq!(parse(&table(&lines).unwrap()).unwrap(), lines);
        assert!(parse("append many").is_err());
    }

    #[test]
    fn the_count_is_found_in_what_cachegrind_prints() {
        let said = "==7== Cachegrind\n==7== \n==7== I   refs:      1,234,567\n";
        assert_eq!(total(said), Some(1_234_567));
        assert_eq!(total("==7== nothing"), None);
    }
}
