//! `lanterman delete`: a range of offsets of a log.

use std::ffi::OsString;
use std::ops::Bound;
use std::path::PathBuf;

use clap::Args;
use lanterman::Store;

use crate::amounts::{OffsetRange, parse_range};
use crate::cli::log_name;
use crate::editing::{Destruction, Verb, close, confirm, open, open_for_planning};
use crate::output::Output;
use crate::problem::{Outcome, Problem};

const VERB: Verb = Verb {
    plan: "delete",
    done: "deleted",
};

/// Delete a range of offsets of a log
///
/// The messages from offset FROM up to and not with TO are gone for every reader that comes later. Their offsets stay
/// taken; reading passes over them. Forks of the log keep what they have. What is deleted already stays so, and is no
/// error.
///
/// Where a person is at the terminal it asks first. Counts are exact but where a block of messages was cut in two: then
/// they say `about`, and `exact` is false in JSON.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    lanterman delete demo events 100..200\n  \
    lanterman delete demo events ..1000 --dry-run\n  \
    lanterman delete demo events 5000.. --yes --json\n\n\
    Exit codes:\n  \
    0  the messages are deleted, durably; or with --dry-run: the plan was shown\n  \
    1  the answer to the question was not yes, or the store is damaged\n  \
    2  no such store or log, no range that the log has, or the store is open for writing elsewhere")]
pub(crate) struct DeleteCall {
    /// The store's directory
    store: PathBuf,
    /// Name of the log
    log: OsString,
    /// The offsets; without FROM from the log's beginning, without TO to its end
    #[arg(value_name = "FROM..TO", value_parser = parse_range, allow_hyphen_values = true)]
    range: OffsetRange,
    /// Show what would be deleted, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Report as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(call: &DeleteCall, output: &mut Output) -> Result<Outcome, Problem> {
    let name = log_name(&call.log)?;
    let destruction = if call.dry_run {
        plan(call, &open_for_planning(&call.store)?, name)?
    } else {
        // Held from the plan to the end: what is shown is what goes.
        let store = open(&call.store)?;
        let plan = plan(call, &store, name)?;
        confirm(call.yes || plan.is_nothing(), VERB, &plan)?;
        let receipt = store.delete(name, bounds(call.range))?;
        close(store);
        receipt.into()
    };
    destruction.tell(VERB, call.json, output)?;
    Ok(Outcome::Well)
}

fn plan(call: &DeleteCall, store: &Store, name: &str) -> Result<Destruction, Problem> {
    Ok(store.plan_deletion(name, bounds(call.range))?.into())
}

fn bounds(range: OffsetRange) -> (Bound<u64>, Bound<u64>) {
    let end = range.end.map_or(Bound::Unbounded, Bound::Excluded);
    (Bound::Included(range.first), end)
}
