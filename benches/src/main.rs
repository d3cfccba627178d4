//! Measures the rows of the design's table of targets, each beside the limit of the machine that it is compared with.
//!
//! A figure of one run says little on a busy machine, and a figure without its limit says nothing about the next
//! machine. So every row measures both, next to each other and in turns, several rounds of all rows are interleaved,
//! and what is shown are medians of the rounds' ratios with their spread.
//!
//! Needs: a file system that takes direct writes for figures that mean something, up to 12 GiB of room in `--directory`,
//! and a quiet machine. Cold reads need the right to drop caches, or a file system that honours `posix_fadvise`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a measuring program that stops at the first surprise, prints, and sleeps to let a store come to rest"
)]

mod child;
mod context;
mod memory_group;
mod rows;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use lanterman_benches::{Outcome, bare, machine};

use crate::context::Context;
use crate::table::Table;

/// Measures a store together with the machine's own limits, and prints one table of ratios.
#[derive(Debug, Parser)]
#[command(version, about, long_about = None)]
struct Arguments {
    /// Where the data is put; removed at the end.
    #[arg(long, default_value = "target/bench-data")]
    directory: PathBuf,
    /// Rounds; each measures every row once.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Three rounds over little data: to see that everything works, not to quote.
    #[arg(long)]
    quick: bool,
    /// Only groups of rows whose name contains this; may be given several times.
    #[arg(long, value_name = "ROW")]
    only: Vec<String>,
    /// Names the groups of rows and ends.
    #[arg(long)]
    list: bool,
    /// Writes everything that was measured as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// A measurement that needs a process of its own; used by the program itself.
    #[arg(long, hide = true)]
    child: Option<String>,
    /// The group of limited memory that such a process belongs to.
    #[arg(long, hide = true)]
    memory_group: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lanterman-bench: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments) -> Outcome<()> {
    if arguments.list {
        rows::ALL
            .iter()
            .for_each(|group| println!("{:<12} {}", group.name, group.about));
        return Ok(());
    }
    if let Some(group) = &arguments.memory_group {
        memory_group::enter(group)?;
    }
    if let Some(task) = &arguments.child {
        return child::run(task, &arguments.directory, arguments.quick);
    }
    let rounds = if arguments.quick {
        arguments.rounds.min(3)
    } else {
        arguments.rounds
    };
    let chosen: Vec<_> = rows::ALL
        .iter()
        .filter(|group| {
            arguments.only.is_empty()
                || arguments
                    .only
                    .iter()
                    .any(|part| group.name.contains(part.as_str()))
        })
        .collect();
    if chosen.is_empty() {
        return Err(format!(
            "no group of rows has {:?} in its name; --list names them",
            arguments.only
        )
        .into());
    }
    let mut context = Context::new(&arguments.directory, arguments.quick)?;
    let facts = machine::facts(context.directory(), arguments.quick)?;
    let mut table = Table::default();
    for round in 0..rounds {
        context.round = round;
        for group in &chosen {
            eprint!("\rround {} of {rounds}: {:<12}", round + 1, group.name);
            (group.measure)(&mut context)
                .and_then(|samples| table.add(round, samples))
                .map_err(|error| format!("{}: {error}", group.name))?;
        }
    }
    eprintln!();
    println!("{}", facts.markdown());
    println!("{}", table.markdown(rounds));
    if let Some(file) = &arguments.json {
        std::fs::write(file, serde_json::to_string_pretty(&table.json(&facts, rounds))?)?;
    }
    Ok(())
}
