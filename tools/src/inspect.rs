//! `lanterman inspect`: what a store, or one of its segments, is made of.

mod segment;
mod store;

use std::path::PathBuf;

use clap::Args;

use crate::output::Output;
use crate::problem::{Outcome, Problem};

/// Show what a store, or one of its segment files, is made of
///
/// Of a store: its id and format, both root slots, the newest checkpoint, the journal behind it, every segment with its
/// kind, generation, size and fill, every log with its tree and tail, and the processes that read it. Of a segment
/// file: its header, and every block with position, kind, version, log, offsets and bytes.
///
/// Nothing is written, and no message is shown. It may run beside a writer.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    lanterman inspect demo\n  \
    lanterman inspect demo --json | jq '.segments'\n  \
    lanterman inspect demo/segments/0000000000000001.journal\n\n\
    Words: used is what blocks take in a segment of slabs, live what something still refers to; garbage is the rest.\n\n\
    Exit codes:\n  \
    0  it was shown\n  \
    1  it was shown as far as damage allows; `lanterman verify` tells more\n  \
    2  there is no such store or file, or it could not be read")]
pub(crate) struct InspectCall {
    /// A store's directory, or a file of its segments
    #[arg(value_name = "STORE|SEGMENT-FILE")]
    path: PathBuf,
    /// Report as JSON; of a segment file one object a line, its header first
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(call: &InspectCall, output: &mut Output) -> Result<Outcome, Problem> {
    let found = call
        .path
        .metadata()
        .map_err(|error| Problem::io("look at", &call.path, error))?;
    if found.is_dir() {
        store::show(&call.path, call.json, output)
    } else {
        segment::show(&call.path, call.json, output)
    }
}
