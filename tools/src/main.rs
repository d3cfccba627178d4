//! The `lanterman` tool: appends to, reads, inspects, verifies and repairs stores.
//!
//! One module a subcommand; what they print goes through [`output::Output`], and only `append`, `repair --apply`
//! and the edits of logs (`delete`, `retain`, `compact`, `fork`, `concat`, `snapshot`, `drop`) write to a store.

#![forbid(unsafe_code)]

mod amounts;
mod append;
mod check;
mod cli;
mod compress;
mod concat;
mod constrain;
mod delete;
mod drop_log;
mod editing;
mod files;
mod fork;
mod gc;
mod inspect;
mod keyed;
mod logs;
mod messages;
mod output;
mod problem;
mod progress;
mod read;
mod repair;
mod retain;
mod snapshot;
mod stats;
mod text;
mod verify;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Command};
use crate::output::Output;
use crate::problem::{Outcome, Problem};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => {
            // It repeats what was given, which may be a name that somebody else chose.
            let text = error.render().to_string();
            output::complain_usage(&text);
            return ExitCode::from(2);
        }
        Err(help) => {
            // A closed pipe behind `--help` is no failure.
            let _ignored = help.print();
            return ExitCode::SUCCESS;
        }
    };
    let mut output = Output::stdout();
    let outcome = run(cli, &mut output).and_then(|outcome| output.flush().map(|()| outcome));
    match outcome {
        Ok(outcome) => outcome.exit_code(),
        Err(Problem::PipeClosed) => ExitCode::SUCCESS,
        Err(problem) => {
            // What was written before the problem belongs to the answer.
            let _ignored = output.flush();
            output::complain(&problem);
            problem.exit_code()
        }
    }
}

fn run(cli: Cli, output: &mut Output) -> Result<Outcome, Problem> {
    match cli.command {
        Command::Append(call) => append::run(&call, output),
        Command::Read(call) => read::run(&call, output),
        Command::Logs(call) => logs::run(&call, output),
        Command::Stats(call) => stats::run(&call, output),
        Command::Constrain(call) => constrain::run(&call, output),
        Command::Constraints(call) => constrain::show(&call, output),
        Command::Check(call) => constrain::check(&call, output),
        Command::Keyed(call) => keyed::set(&call, output),
        Command::Get(call) => keyed::get(&call, output),
        Command::Compact(call) => keyed::compact(&call, output),
        Command::Compress(call) => compress::run(&call, output),
        Command::Delete(call) => delete::run(&call, output),
        Command::Retain(call) => retain::run(&call, output),
        Command::Fork(call) => fork::run(&call, output),
        Command::Concat(call) => concat::run(&call, output),
        Command::Snapshot(call) => snapshot::run(&call, output),
        Command::Drop(call) => drop_log::run(&call, output),
        Command::Gc(call) => gc::run(&call, output),
        Command::Inspect(call) => inspect::run(&call, output),
        Command::Verify(call) => verify::run(&call, output),
        Command::Repair(call) => repair::run(&call, output),
    }
}
