//! Lanterman beside every other log that a Rust program can embed, over the same workloads, with the limits of the machine.
//!
//! ```sh
//! cd benches/peers
//! cargo run --release                                   # all engines; a C++ compiler and libclang for RocksDB
//! cargo run --release -- --quick                        # two minutes: to see that everything works
//! cargo run --release --no-default-features --features walrus,okaywal,raft-engine,commitlog,heed,fjall,redb   # without RocksDB
//! ```
//!
//! RocksDB says that its checksums are slow unless built for a processor with SSE 4.2: `RUSTFLAGS="-Ctarget-cpu=x86-64-v2"` gives it that.
//!
//! Writes `peers.md`, `peers.json` and `peers.svg` into `docs/benchmarks`, and with `--readme README.md` the part of that file
//! between `<!-- peers:begin -->` and `<!-- peers:end -->`. Needs a quiet machine, about 40 GB of room, and the right to drop caches
//! (without it, cold scans are colder for those who read around the page cache).
//!
//! Every measurement is a process of its own with a directory of its own. Before it measures, it touches and gives back as much memory as it will use,
//! and has all cores busy for a moment. The order of the engines is another one each round. Nothing is compared but figures of one run.

mod campaign;
mod engine;
mod engines;
mod report;
mod rows;
mod workloads;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use lanterman_benches::machine;

use crate::campaign::{LIMITS, Plan};
use crate::engine::{Failure, Outcome};
use crate::report::Report;
use crate::workloads::{Figures, Sizes, Task, Workload};

/// Compares Lanterman with its peers.
#[derive(Debug, Parser)]
#[command(version, about, long_about = None)]
struct Arguments {
    /// Where the data is put; what a run makes there is removed at the end.
    #[arg(long, default_value = "target/peers-data")]
    directory: PathBuf,
    /// Rounds; each measures everything once.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// One round over a sixteenth of the data: to see that everything works, not to quote.
    #[arg(long)]
    quick: bool,
    /// How much of a full run's data and time each measurement takes.
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// Gigabytes (10^9 bytes) of the sustained workload; it ends after 20 seconds (times the scale) in any case.
    #[arg(long = "sustained-gb", default_value_t = 10.0)]
    sustained_gigabytes: f64,
    /// Only these workloads; what they need is run with them.
    #[arg(long, value_enum, value_name = "WORKLOAD")]
    only: Vec<Workload>,
    /// Only these engines; Lanterman is always one.
    #[arg(long, value_name = "NAME")]
    engine: Vec<String>,
    /// Where the table and the chart are put.
    #[arg(long, default_value = "../../docs/benchmarks")]
    output: PathBuf,
    /// A file with marks between which the table is put.
    #[arg(long, value_name = "FILE")]
    readme: Option<PathBuf>,
    /// One measurement, by the program itself.
    #[arg(long, hide = true, value_name = "ENGINE")]
    child: Option<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match &arguments.child {
        Some(name) => child(&arguments, name),
        None => compare(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("lanterman-peers: {failure}");
            ExitCode::from(2)
        }
    }
}

/// Does one measurement and prints its figures as one line.
fn child(arguments: &Arguments, name: &str) -> Outcome<()> {
    let sizes = Sizes::new(arguments.scale, arguments.sustained_gigabytes);
    let figures = if name == LIMITS {
        workloads::limits(&arguments.directory, &sizes)?
    } else {
        let entry = engines::ALL.iter().find(|entry| entry.name == name);
        let entry = entry.ok_or_else(|| Failure::because(format!("no such engine: {name}")))?;
        let workload = arguments.only.first();
        let task = Task {
            workload: *workload.ok_or_else(|| Failure::because("which workload?"))?,
            directory: arguments.directory.clone(),
            sizes,
        };
        match (entry.run)(&task) {
            Err(Failure::CannotDo(reason)) => campaign::cannot(reason),
            other => other?,
        }
    };
    println!("{}", serde_json::to_string::<Figures>(&figures)?);
    Ok(())
}

/// All workloads, in the order in which they run; [`Workload::Fill`] stands before what reads.
const ORDER: [Workload; 16] = [
    Workload::AppendSmall,
    Workload::AppendSmallBatch,
    Workload::AppendMiddle,
    Workload::AppendMiddleBatch,
    Workload::AppendLarge,
    Workload::AppendLargeBatch,
    Workload::DurableOne,
    Workload::DurableSixteen,
    Workload::ManyLogs,
    Workload::Tail,
    Workload::Fill,
    Workload::Random,
    Workload::ScanWarm,
    Workload::ScanCold,
    Workload::Reopen,
    Workload::Sustained,
];

fn plan(arguments: &Arguments, directory: PathBuf) -> Plan {
    let reads = [Workload::Random, Workload::ScanWarm, Workload::ScanCold];
    let needs_library = arguments.only.iter().any(|workload| reads.contains(workload));
    let chosen = |workload: &Workload| {
        arguments.only.is_empty()
            || arguments.only.contains(workload)
            || (*workload == Workload::Fill && needs_library)
    };
    let named =
        |name: &str| arguments.engine.is_empty() || arguments.engine.iter().any(|other| other == name);
    Plan {
        directory,
        rounds: if arguments.quick {
            1
        } else {
            arguments.rounds.max(1)
        },
        scale: if arguments.quick {
            1.0 / 16.0
        } else {
            arguments.scale
        },
        sustained_gigabytes: arguments.sustained_gigabytes,
        workloads: ORDER.into_iter().filter(chosen).collect(),
        engines: engines::ALL
            .iter()
            .enumerate()
            .filter(|(number, entry)| *number == 0 || named(entry.name))
            .map(|(_, entry)| entry)
            .collect(),
    }
}

fn compare(arguments: &Arguments) -> Outcome<()> {
    std::fs::create_dir_all(&arguments.directory)?;
    let own = std::path::absolute(&arguments.directory)?.join(format!("run-{}", std::process::id()));
    std::fs::create_dir(&own)?;
    let plan = plan(arguments, own.clone());
    let facts = machine::facts(&own, plan.is_trial()).map_err(Failure::Failed)?;
    let results = campaign::run(&plan);
    std::fs::remove_dir_all(&own)?;
    let report = Report::new(&facts, &plan, &results?);
    std::fs::create_dir_all(&arguments.output)?;
    std::fs::write(arguments.output.join("peers.md"), report.markdown("peers.svg"))?;
    let json = serde_json::to_string_pretty(&report.json())?;
    std::fs::write(arguments.output.join("peers.json"), json + "\n")?;
    std::fs::write(arguments.output.join("peers.svg"), report.chart())?;
    if let Some(readme) = &arguments.readme {
        put_between_marks(readme, &report.summary("docs/benchmarks/peers.svg"))?;
    }
    println!("{}", report.summary("peers.svg"));
    Ok(())
}

/// Replaces what stands between the marks of a file.
fn put_between_marks(file: &Path, text: &str) -> Outcome<()> {
    const BEGIN: &str = "<!-- peers:begin -->\n";
    const END: &str = "<!-- peers:end -->";
    let old = std::fs::read_to_string(file)?;
    let parts = old
        .split_once(BEGIN)
        .and_then(|(head, rest)| rest.split_once(END).map(|(_, foot)| (head, foot)));
    let (head, foot) = parts.ok_or_else(|| Failure::because(format!("{} has no marks", file.display())))?;
    std::fs::write(file, format!("{head}{BEGIN}{text}{END}{foot}"))?;
    Ok(())
}
