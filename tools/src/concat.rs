//! `lanterman concat`: what a log has, behind the end of another one.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use crate::cli::log_name;
use crate::editing::{close, open};
use crate::output::Output;
use crate::problem::{Outcome, Problem};

/// Put everything that a log has behind the end of another one
///
/// At once, whatever the size: both share what is on disk. The messages get new offsets, in their order; offsets that are
/// deleted in SOURCE are deleted offsets of LOG too. SOURCE stays as it is, and what happens to it later does not change
/// LOG.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    lanterman concat demo all-of-2024 december\n  \
    lanterman concat demo all-of-2024 december --json\n\n\
    Exit codes:\n  \
    0  the messages are there, durably\n  \
    1  the store is damaged\n  \
    2  no such store or logs, both are the same, SOURCE has nothing, or the store is open for writing elsewhere")]
pub(crate) struct ConcatCall {
    /// The store's directory
    store: PathBuf,
    /// Name of the log that grows
    log: OsString,
    /// Name of the log whose messages it takes
    source: OsString,
    /// Report as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    log: &'a str,
    source: &'a str,
    first: u64,
    end: u64,
    version: u64,
}

pub(crate) fn run(call: &ConcatCall, output: &mut Output) -> Result<Outcome, Problem> {
    let (name, source) = (log_name(&call.log)?, log_name(&call.source)?);
    let store = open(&call.store)?;
    let receipt = store.concat(name, source)?;
    close(store);
    let report = Report {
        log: name,
        source,
        first: receipt.offsets.start,
        end: receipt.offsets.end,
        version: receipt.version.get(),
    };
    if call.json {
        output.json(&report)?;
    } else {
        output.line(format_args!(
            "log {name:?} has what log {source:?} has at offsets {}..{}; version {}",
            report.first, report.end, report.version
        ))?;
    }
    Ok(Outcome::Well)
}
