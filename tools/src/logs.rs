//! `lanterman logs`: what logs a store has.

use std::path::PathBuf;

use clap::Args;
use lanterman::Options;
use serde::Serialize;

use crate::output::Output;
use crate::problem::{Outcome, Problem};
use crate::text::Table;

/// List the logs of a store
///
/// Shows each log's first offset, the offset behind its newest message, and how far it would survive a killed process
/// (committed) and a power cut (durable). Of messages that stand in the journal alone a reader does not know whether
/// they are durable, and says that they are not. Reads only, also beside a running writer.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    lanterman logs demo\n  \
    lanterman logs demo --json | jq -r '.logs[].name'\n\n\
    Exit codes:\n  \
    0  the logs were listed\n  \
    1  the store is damaged\n  \
    2  there is no such store, or it could not be read")]
pub(crate) struct LogsCall {
    /// The store's directory
    store: PathBuf,
    /// Report as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    version: u64,
    logs: Vec<LogRow>,
    /// What hides further logs.
    damage: Vec<String>,
}

#[derive(Serialize)]
struct LogRow {
    name: String,
    start: u64,
    end: u64,
    committed_end: u64,
    durable_end: u64,
}

pub(crate) fn run(call: &LogsCall, output: &mut Output) -> Result<Outcome, Problem> {
    let store = Options::new().read_only(true).open_copying(&call.store)?;
    let logs = store.logs().into_iter().map(|log| LogRow {
        name: log.name,
        start: log.start.get(),
        end: log.end.get(),
        committed_end: log.committed_end.get(),
        durable_end: log.durable_end.get(),
    });
    let report = Report {
        version: store.version().get(),
        logs: logs.collect(),
        damage: store.damage().iter().map(ToString::to_string).collect(),
    };
    let outcome = if report.damage.is_empty() {
        Outcome::Well
    } else {
        Outcome::Found
    };
    if call.json {
        output.json(&report)?;
        return Ok(outcome);
    }
    for damage in &report.damage {
        output.line(format_args!("damage: {damage}; its logs are not listed"))?;
    }
    if report.logs.is_empty() {
        output.line("no logs")?;
        return Ok(outcome);
    }
    let mut table = Table::new(1, &["log", "start", "end", "committed", "durable"]);
    for log in &report.logs {
        let numbers = [log.start, log.end, log.committed_end, log.durable_end];
        table.row(
            std::iter::once(log.name.clone())
                .chain(numbers.map(|number| number.to_string()))
                .collect(),
        );
    }
    output.line(table)?;
    Ok(outcome)
}
