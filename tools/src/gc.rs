//! `lanterman gc`: gives back the space of what nobody reaches, and erases what was deleted.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use crate::editing::{close, open};
use crate::output::Output;
use crate::problem::{Outcome, Problem};

/// Give back the space of what was deleted or superseded
///
/// Slabs of which a part was deleted are written anew without it, holes are punched, empty segments and spare files removed. When
/// nobody holds anything back, nothing of a deleted message is in any file afterwards.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    lanterman gc demo\n  \
    lanterman gc demo --json\n\n\
    Exit codes:\n  \
    0  everything that nobody holds was given back\n  \
    1  a part of the store that must be looked at is damaged\n  \
    2  no such store, or it is open for writing elsewhere")]
pub(crate) struct GcCall {
    /// The store's directory
    store: PathBuf,
    /// Report as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    punched_bytes: u64,
    segments_removed: u64,
    segment_bytes: u64,
    bytes: u64,
    live: u64,
    garbage: u64,
    free: u64,
    held: Vec<String>,
}

pub(crate) fn run(call: &GcCall, output: &mut Output) -> Result<Outcome, Problem> {
    let store = open(&call.store)?;
    let collected = store.collect()?;
    let space = store.space()?;
    close(store);
    let report = Report {
        punched_bytes: collected.punched_bytes,
        segments_removed: collected.segments,
        segment_bytes: collected.segment_bytes,
        bytes: space.bytes,
        live: space.live,
        garbage: space.garbage,
        free: space.free,
        held: collected.held.iter().map(ToString::to_string).collect(),
    };
    if call.json {
        output.json(&report)?;
        return Ok(Outcome::Well);
    }
    output.line(format_args!(
        "{} bytes given back in holes, {} segments of {} bytes removed",
        report.punched_bytes, report.segments_removed, report.segment_bytes
    ))?;
    output.line(format_args!(
        "segments of slabs have {} bytes: {} live, {} garbage, {} free",
        report.bytes, report.live, report.garbage, report.free
    ))?;
    for held in &report.held {
        output.line(format_args!("held back: {held}"))?;
    }
    Ok(Outcome::Well)
}
