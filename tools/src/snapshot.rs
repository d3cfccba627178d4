//! `lanterman snapshot`: named snapshots, made, listed and dropped.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use lanterman::{NamedSnapshot, Store};
use serde::Serialize;

use crate::cli::log_name;
use crate::editing::{Verb, close, confirm, open, open_for_planning};
use crate::output::Output;
use crate::problem::{Outcome, Problem};
use crate::text::Table;

const DROP: Verb = Verb {
    plan: "drop",
    done: "dropped",
};

/// Make, list and drop named snapshots
///
/// A named snapshot holds logs as they are when it is made, under a label. It is made at once whatever their size,
/// outlasts what is deleted in them and the logs themselves, and keeps the disk space that it needs for that.
/// `lanterman read --snapshot LABEL` reads it.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    lanterman snapshot create demo before-the-change\n  \
    lanterman snapshot list demo --json | jq -r '.snapshots[].label'\n  \
    lanterman snapshot drop demo before-the-change\n\n\
    Exit codes:\n  \
    0  it was done, durably\n  \
    1  the answer to the question was not yes, or the store is damaged\n  \
    2  no such store, log or snapshot, a label that is taken or cannot be one, or the store is open for writing elsewhere")]
pub(crate) struct SnapshotCall {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make named snapshots of logs, all as of one version
    Create(CreateCall),
    /// List the named snapshots of a store
    List(ListCall),
    /// Drop the named snapshots with a label; asks first where a person is at the terminal
    Drop(DropCall),
}

#[derive(Debug, Args)]
struct CreateCall {
    /// The store's directory
    store: PathBuf,
    /// The label, as long and of such characters as the name of a log
    label: OsString,
    /// Names of the logs; none: all logs
    #[arg(value_name = "LOG")]
    logs: Vec<OsString>,
    /// Report as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct ListCall {
    /// The store's directory
    store: PathBuf,
    /// Report as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct DropCall {
    /// The store's directory
    store: PathBuf,
    /// The label
    label: OsString,
    /// Show what would be dropped, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Report as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Row {
    label: String,
    log: String,
    start: u64,
    end: u64,
    /// The version that it holds.
    version: u64,
    time_ms: i64,
    /// Whether the store made it by itself.
    automatic: bool,
}

impl From<NamedSnapshot> for Row {
    fn from(found: NamedSnapshot) -> Self {
        Row {
            label: found.label,
            log: found.log,
            start: found.start.get(),
            end: found.end.get(),
            version: found.version.get(),
            time_ms: found.time_ms,
            automatic: found.automatic,
        }
    }
}

#[derive(Serialize)]
struct Listing {
    snapshots: Vec<Row>,
}

#[derive(Serialize)]
struct Dropped<'a> {
    label: &'a str,
    /// The version from which on they are gone; none for a plan.
    version: Option<u64>,
    dry_run: bool,
    snapshots: Vec<Row>,
}

pub(crate) fn run(call: &SnapshotCall, output: &mut Output) -> Result<Outcome, Problem> {
    match &call.action {
        Action::Create(call) => create(call, output),
        Action::List(call) => list(call, output),
        Action::Drop(call) => drop_label(call, output),
    }?;
    Ok(Outcome::Well)
}

fn create(call: &CreateCall, output: &mut Output) -> Result<(), Problem> {
    let label = log_name(&call.label)?;
    let logs: Vec<&str> = call
        .logs
        .iter()
        .map(|log| log_name(log))
        .collect::<Result<_, _>>()?;
    let store = open(&call.store)?;
    let made = store.create_snapshot(label, &logs)?;
    close(store);
    let snapshots = made.into_iter().map(Row::from).collect();
    tell(&Listing { snapshots }, call.json, output)
}

fn list(call: &ListCall, output: &mut Output) -> Result<(), Problem> {
    let store = open_for_planning(&call.store)?;
    let snapshots = store.named_snapshots().into_iter().map(Row::from).collect();
    tell(&Listing { snapshots }, call.json, output)
}

fn tell(listing: &Listing, json: bool, output: &mut Output) -> Result<(), Problem> {
    if json {
        return output.json(listing);
    }
    if listing.snapshots.is_empty() {
        return output.line("no named snapshots");
    }
    let mut table = Table::new(2, &["label", "log", "start", "end", "version", "time in ms"]);
    for row in &listing.snapshots {
        let label = match row.automatic {
            true => "(history)".to_owned(),
            false => row.label.clone(),
        };
        table.row(vec![
            label,
            row.log.clone(),
            row.start.to_string(),
            row.end.to_string(),
            row.version.to_string(),
            row.time_ms.to_string(),
        ]);
    }
    output.line(table)
}

fn drop_label(call: &DropCall, output: &mut Output) -> Result<(), Problem> {
    let label = log_name(&call.label)?;
    let (snapshots, version) = if call.dry_run {
        (labelled(&open_for_planning(&call.store)?, label)?, None)
    } else {
        let store = open(&call.store)?;
        let snapshots = labelled(&store, label)?;
        confirm(call.yes, DROP, &Labelled(label, &snapshots))?;
        let version = store.drop_snapshot(label)?;
        close(store);
        (snapshots, Some(version.get()))
    };
    if call.json {
        return output.json(&Dropped {
            label,
            version,
            dry_run: call.dry_run,
            snapshots,
        });
    }
    let what = Labelled(label, &snapshots);
    match version {
        Some(version) => output.line(format_args!("{} {what}; version {version}", DROP.done)),
        None => output.line(format_args!("would {} {what}; nothing was changed", DROP.plan)),
    }
}

/// The snapshots with a label, of which there must be one.
fn labelled(store: &Store, label: &str) -> Result<Vec<Row>, Problem> {
    let is_wanted = |found: &NamedSnapshot| !found.automatic && found.label == label;
    let found: Vec<Row> = store
        .named_snapshots()
        .into_iter()
        .filter(is_wanted)
        .map(Row::from)
        .collect();
    if found.is_empty() {
        return Err(Problem::Call(format!(
            "no named snapshot has the label {label:?}"
        )));
    }
    Ok(found)
}

/// Snapshots with their label, in words.
struct Labelled<'a>(&'a str, &'a [Row]);

impl fmt::Display for Labelled<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "the named snapshots {:?} of", self.0)?;
        for (number, row) in self.1.iter().enumerate() {
            let gap = if number == 0 { "" } else { "," };
            write!(
                formatter,
                "{gap} log {:?}, offsets {}..{}",
                row.log, row.start, row.end
            )?;
        }
        Ok(())
    }
}
