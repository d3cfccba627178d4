//! `lanterman fork`: a new log with what another one has.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use crate::amounts::parse_offset;
use crate::cli::log_name;
use crate::editing::{close, open};
use crate::output::Output;
use crate::problem::{Outcome, Problem};

/// Make a new log with everything that another one has
///
/// At once, whatever the log's size: both share what is on disk. The new log has the same messages at the same offsets,
/// can be appended to, and goes its own way: what is appended to one or deleted in one is not in the other.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    lanterman fork demo events experiment\n  \
    lanterman fork demo events before-the-bug --at 4711 --json\n  \
    lanterman fork demo events restored --snapshot monday\n\n\
    Exit codes:\n  \
    0  the new log is there, durably\n  \
    1  the store is damaged\n  \
    2  no such store, log or snapshot, a name that is taken or cannot be one, --at is no message of the log or was deleted, or the\n     \
    store is open for writing elsewhere")]
pub(crate) struct ForkCall {
    /// The store's directory
    store: PathBuf,
    /// Name of the log
    log: OsString,
    /// Name of the new log
    new: OsString,
    /// Take only what stands before this offset, which the new log's next message gets
    #[arg(long, value_name = "OFFSET", value_parser = parse_offset, allow_hyphen_values = true)]
    at: Option<u64>,
    /// Take what the named snapshot with this label holds of the log, also if the log is gone
    #[arg(long, value_name = "LABEL", conflicts_with = "at")]
    snapshot: Option<OsString>,
    /// Report as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report<'a> {
    log: &'a str,
    new: &'a str,
    first: u64,
    end: u64,
    version: u64,
}

pub(crate) fn run(call: &ForkCall, output: &mut Output) -> Result<Outcome, Problem> {
    let (name, new) = (log_name(&call.log)?, log_name(&call.new)?);
    let store = open(&call.store)?;
    match (&call.snapshot, call.at) {
        (Some(label), _) => store.named_snapshot(log_name(label)?, name)?.fork(new)?,
        (None, Some(offset)) => store.fork_at(name, new, offset)?,
        (None, None) => store.fork(name, new)?,
    }
    let fork = store.log(new)?;
    let report = Report {
        log: name,
        new,
        first: fork.start().get(),
        end: fork.end().get(),
        version: store.version().get(),
    };
    drop(fork);
    close(store);
    if call.json {
        output.json(&report)?;
    } else {
        output.line(format_args!(
            "log {new:?} has offsets {}..{} of log {name:?}; version {}",
            report.first, report.end, report.version
        ))?;
    }
    Ok(Outcome::Well)
}
