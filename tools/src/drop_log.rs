//! `lanterman drop`: a log with all its messages.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use lanterman::Store;

use crate::cli::log_name;
use crate::editing::{Destruction, Verb, close, confirm, open, open_for_planning};
use crate::output::Output;
use crate::problem::{Outcome, Problem};

const VERB: Verb = Verb {
    plan: "drop",
    done: "dropped",
};

/// Drop a log with all its messages
///
/// The name is free at once. Forks of the log keep what they have, and so do logs that took its messages.
///
/// Where a person is at the terminal it asks first.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    lanterman drop demo experiment\n  \
    lanterman drop demo experiment --dry-run\n  \
    lanterman drop demo experiment --yes --json\n\n\
    Exit codes:\n  \
    0  the log is dropped, durably; or with --dry-run: the plan was shown\n  \
    1  the answer to the question was not yes, or the store is damaged\n  \
    2  no such store or log, or the store is open for writing elsewhere")]
pub(crate) struct DropCall {
    /// The store's directory
    store: PathBuf,
    /// Name of the log
    log: OsString,
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

pub(crate) fn run(call: &DropCall, output: &mut Output) -> Result<Outcome, Problem> {
    let name = log_name(&call.log)?;
    let destruction = if call.dry_run {
        plan(&open_for_planning(&call.store)?, name)?
    } else {
        let store = open(&call.store)?;
        confirm(call.yes, VERB, &plan(&store, name)?)?;
        let receipt = store.drop_log(name)?;
        close(store);
        receipt.into()
    };
    destruction.tell(VERB, call.json, output)?;
    Ok(Outcome::Well)
}

/// What the log holds; of one that cannot be read, which can be dropped all the same, the number of its offsets.
fn plan(store: &Store, name: &str) -> Result<Destruction, Problem> {
    let log = store.snapshot(name)?;
    let offsets = log.start().get()..log.end().get();
    Ok(match log.summary() {
        Ok(held) => {
            let bytes = held.value_bytes().saturating_add(held.key_bytes());
            Destruction::planned(name, offsets, held.messages(), bytes, held.is_exact())
        }
        Err(_) => {
            let count = offsets.end.saturating_sub(offsets.start);
            Destruction::planned(name, offsets, count, 0, false)
        }
    })
}
