//! How long an append takes at a fixed rate of messages, alone and beside what else a store does.
//!
//! ```sh
//! cargo run --release -p lanterman-benches --no-default-features --bin lanterman-load
//! ```
//!
//! Every append has a time at which it should begin, whatever became of the one before it, and its latency counts from then:
//! a stall counts for all the messages that it delays (the opposite is known as coordinated omission). A rate that cannot be kept shows as
//! latency that grows for as long as the run lasts, and the rate that was reached says so. Messages are 1 KiB at the
//! two lower rates and 100 B at a million a second. Prints a table and writes it with a chart into `docs/benchmarks`.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::indexing_slicing,
    reason = "a measuring program, which prints"
)]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use hdrhistogram::Histogram;
use lanterman::{Durability, Options, Store, Writer};
use lanterman_benches::chart::{Axis, LineChart, Scale, Series};
use lanterman_benches::spread::{Spread, short};
use lanterman_benches::{Outcome, data, machine};

/// Measures the latency of appends under load.
#[derive(Debug, Parser)]
#[command(version, about, long_about = None)]
struct Arguments {
    /// Where the data is put; what a run makes there is removed at the end.
    #[arg(long, default_value = "target/load-data")]
    directory: PathBuf,
    /// Where the table and the chart are put.
    #[arg(long, default_value = "docs/benchmarks")]
    output: PathBuf,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Rounds; each measures everything once.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Only appends beside what contains this.
    #[arg(long, value_name = "BESIDE", default_value = "")]
    only: String,
    /// Only at this many messages a second.
    #[arg(long)]
    rate: Option<u32>,
}

/// What else goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Beside {
    Nothing,
    /// Another thread makes everything durable, again and again.
    DurableCommits,
    /// Another thread deletes what is older than the newest messages, and the store gives their space back.
    Collection,
    /// Another thread follows the log.
    Reader,
}

const ALL: [(Beside, &str); 4] = [
    (Beside::Nothing, "alone"),
    (Beside::DurableCommits, "durable commits"),
    (Beside::Collection, "collection"),
    (Beside::Reader, "a reader that follows"),
];

/// Messages a second, and their bytes.
const RATES: [(u32, usize); 3] = [(10_000, 1024), (100_000, 1024), (1_000_000, 100)];
const LOG: &str = "log";
const QUANTILES: [(f64, &str); 5] = [
    (0.5, "p50"),
    (0.99, "p99"),
    (0.999, "p99.9"),
    (0.9999, "p99.99"),
    (1.0, "max"),
];
/// Messages that are kept when older ones are deleted.
const KEPT_MESSAGES: u64 = 50_000;
const BETWEEN_DELETIONS: Duration = Duration::from_millis(50);

/// Of one rate beside one thing: quantiles in microseconds, in the order of [`QUANTILES`], and the rate that was reached.
#[derive(Debug, Clone)]
struct Seen {
    quantiles: Vec<f64>,
    rate: f64,
}

/// A line of the table, over all rounds.
struct Line {
    rate: u32,
    bytes: usize,
    beside: Beside,
    name: &'static str,
    rounds: Vec<Seen>,
}

fn main() -> ExitCode {
    match measure_all(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lanterman-load: {error}");
            ExitCode::from(2)
        }
    }
}

fn measure_all(arguments: &Arguments) -> Outcome<()> {
    let own = arguments.directory.join(format!("run-{}", std::process::id()));
    std::fs::create_dir_all(&own)?;
    let facts = machine::facts(&own, false)?;
    let mut lines: Vec<Line> = RATES
        .iter()
        .filter(|(rate, _)| arguments.rate.is_none_or(|only| only == *rate))
        .flat_map(|(rate, bytes)| {
            let chosen = ALL.iter().filter(|(_, name)| name.contains(&arguments.only));
            chosen.map(|(beside, name)| Line {
                rate: *rate,
                bytes: *bytes,
                beside: *beside,
                name,
                rounds: Vec::new(),
            })
        })
        .collect();
    if lines.is_empty() {
        return Err("nothing is chosen: --only is part of «alone», «durable commits», «collection» or «a reader that follows», --rate 10000, 100000 or 1000000".into());
    }
    for round in 0..arguments.rounds.max(1) {
        let length = lines.len();
        for turn in 0..length {
            let number = (turn + round) % length;
            let line = &mut lines[number];
            eprint!(
                "\rround {} of {}: {}/s beside {:<24}",
                round + 1,
                arguments.rounds,
                line.rate,
                line.name
            );
            let time = Duration::from_secs_f64(arguments.seconds);
            let path = own.join("store");
            line.rounds
                .push(measure(&path, line.rate, line.bytes, line.beside, time)?);
            std::fs::remove_dir_all(&path)?;
        }
    }
    eprintln!();
    std::fs::remove_dir_all(&own)?;
    let head = format!("{}; {}", facts.date(), facts.short());
    let text = table(&lines, &head, arguments.rounds, arguments.seconds)?;
    println!("{text}");
    std::fs::create_dir_all(&arguments.output)?;
    std::fs::write(
        arguments.output.join("load.md"),
        format!("# Latency under load\n\n{text}"),
    )?;
    let is_measured = |rate| lines.iter().any(|line| line.rate == rate);
    for (rate, _) in RATES.into_iter().filter(|(rate, _)| is_measured(*rate)) {
        let file = arguments.output.join(format!("load-{rate}.svg"));
        std::fs::write(file, chart(&lines, rate, &head).svg())?;
    }
    Ok(())
}

/// One measurement in a store of its own.
fn measure(path: &Path, rate: u32, bytes: usize, beside: Beside, time: Duration) -> Outcome<Seen> {
    let store = data::open(path, Options::new())?;
    let mut writer = store.writer(LOG)?;
    let stop = AtomicBool::new(false);
    let end = AtomicU64::new(0);
    let seen = std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            let outcome = do_beside(&store, beside, &stop, &end);
            if outcome.is_err() {
                stop.store(true, Ordering::Relaxed);
            }
            outcome
        });
        let seen = append(&mut writer, rate, bytes, time, (&stop, &end));
        stop.store(true, Ordering::Relaxed);
        other.join().map_err(|_| "the other thread panicked")??;
        seen
    })?;
    drop(writer);
    store.close()?;
    Ok(seen)
}

/// Appends at the rate; each latency counts from when its append should have begun.
fn append(
    writer: &mut Writer,
    rate: u32,
    bytes: usize,
    time: Duration,
    (stop, end): (&AtomicBool, &AtomicU64),
) -> Outcome<Seen> {
    let value = data::payload(bytes);
    let interval = Duration::from_secs(1) / rate;
    let mut histogram = Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 3)?;
    let start = Instant::now();
    let mut due = Duration::ZERO;
    while due < time && !stop.load(Ordering::Relaxed) {
        while start.elapsed() < due {
            std::hint::spin_loop();
        }
        let offset = writer.append(&value)?;
        let late = start.elapsed().saturating_sub(due);
        histogram.record(u64::try_from(late.as_nanos())?.max(1))?;
        end.store(offset.get(), Ordering::Relaxed);
        due += interval;
    }
    let quantiles = QUANTILES.iter();
    Ok(Seen {
        rate: histogram.len() as f64 / start.elapsed().as_secs_f64(),
        quantiles: quantiles
            .map(|(part, _)| histogram.value_at_quantile(*part) as f64 / 1e3)
            .collect(),
    })
}

fn do_beside(store: &Store, beside: Beside, stop: &AtomicBool, end: &AtomicU64) -> Outcome<()> {
    let mut cursor = store.log(LOG)?.cursor(0_u64)?;
    let mut bytes = 0;
    while !stop.load(Ordering::Relaxed) {
        match beside {
            Beside::Nothing => std::thread::park_timeout(Duration::from_millis(10)),
            Beside::DurableCommits => {
                store.commit_all(Durability::Disk)?;
            }
            Beside::Collection => {
                std::thread::park_timeout(BETWEEN_DELETIONS);
                let oldest = end.load(Ordering::Relaxed).saturating_sub(KEPT_MESSAGES);
                if oldest > 0 {
                    store.delete(LOG, 0..oldest)?;
                }
            }
            Beside::Reader => match cursor.next_within(Duration::from_millis(1))? {
                Some(message) => bytes += message.value().len(),
                None => continue,
            },
        }
    }
    std::hint::black_box(bytes);
    Ok(())
}

impl Line {
    fn quantile(&self, number: usize) -> Spread {
        Spread::of(self.rounds.iter().map(|seen| seen.quantiles[number]))
    }
}

fn table(lines: &[Line], head: &str, rounds: usize, seconds: f64) -> Outcome<String> {
    let mut out = format!(
        "{head}. Medians of {rounds} rounds of {seconds} s each, in microseconds, with least and greatest; counted from when an append should \
         have begun.\n\n| messages a second | bytes | beside | reached |"
    );
    QUANTILES
        .iter()
        .for_each(|(_, name)| out += &format!(" {name} |"));
    out += "\n|---:|---:|---|---:|---:|---:|---:|---:|---:|\n";
    for line in lines {
        let reached = Spread::of(line.rounds.iter().map(|seen| seen.rate)).median;
        write!(
            out,
            "| {} | {} | {} | {reached:.0} |",
            line.rate, line.bytes, line.name
        )?;
        for number in 0..QUANTILES.len() {
            let spread = line.quantile(number);
            write!(
                out,
                " {} ({} to {}) |",
                short(spread.median),
                short(spread.least),
                short(spread.greatest)
            )?;
        }
        out += "\n";
    }
    Ok(out)
}

/// Latency over quantiles, a line for what goes on beside; quantiles by how few messages are beyond them.
fn chart(lines: &[Line], rate: u32, head: &str) -> LineChart {
    let place = |number: usize| (number + 1) as f64;
    let series = lines.iter().filter(|line| line.rate == rate).map(|line| Series {
        name: line.name.to_owned(),
        points: (0..QUANTILES.len())
            .map(|number| (place(number), line.quantile(number).median))
            .collect(),
    });
    LineChart {
        title: format!("Appending at {rate} messages a second"),
        notes: vec![
            head.to_owned(),
            "Medians of the rounds; counted from when an append should have begun.".to_owned(),
        ],
        x: Axis {
            label: "quantile".to_owned(),
            scale: Scale::Linear,
            names: QUANTILES
                .iter()
                .enumerate()
                .map(|(number, (_, name))| (place(number), (*name).to_owned()))
                .collect(),
        },
        y: Axis {
            label: "microseconds".to_owned(),
            scale: Scale::Logarithmic,
            names: Vec::new(),
        },
        series: series.collect(),
    }
}
