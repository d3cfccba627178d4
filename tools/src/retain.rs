//! `lanterman retain`: the newest part of a log is kept.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use lanterman::{Retention, Store};

use crate::amounts::{parse_age, parse_message_count, parse_offset, parse_size};
use crate::cli::log_name;
use crate::editing::{Destruction, Verb, close, confirm, open, open_for_planning};
use crate::output::Output;
use crate::problem::{Outcome, Problem};

const VERB: Verb = Verb {
    plan: "delete",
    done: "deleted",
};

/// Keep the newest part of a log, and delete what is older
///
/// What a limit names is always kept. With --max-age, --max-bytes and --max-messages older messages go by whole blocks,
/// so that up to a block more than asked for stays, and so do the newest messages that are in no block yet; --from is
/// exact. Of several limits the one counts that keeps the least. The log begins later then; the offsets of what is
/// kept stay.
///
/// Where a person is at the terminal it asks first.
#[derive(Debug, Args)]
#[command(
    group(clap::ArgGroup::new("limit").required(true).multiple(true)),
    after_long_help = "Examples:\n  \
    lanterman retain demo events --max-age 7d\n  \
    lanterman retain demo events --max-bytes 2GiB --dry-run\n  \
    lanterman retain demo events --max-messages 1000000 --yes\n  \
    lanterman retain demo events --from 5000 --json\n\n\
    Exit codes:\n  \
    0  what is older is deleted, durably, or there was nothing older; or with --dry-run: the plan was shown\n  \
    1  the answer to the question was not yes, or the store is damaged\n  \
    2  no such store or log, no limit, or one that makes no sense, or the store is open for writing elsewhere"
)]
pub(crate) struct RetainCall {
    /// The store's directory
    store: PathBuf,
    /// Name of the log
    log: OsString,
    /// Keep everything younger: 90s, 15m, 36h, 7d, 2w
    #[arg(long, value_name = "AGE", group = "limit", value_parser = parse_age, allow_hyphen_values = true)]
    max_age: Option<Duration>,
    /// Keep the newest so many bytes of keys and values: 1000, 64KiB, 500MB, 2GiB
    #[arg(long, value_name = "SIZE", group = "limit", value_parser = parse_size, allow_hyphen_values = true)]
    max_bytes: Option<u64>,
    /// Keep the newest so many messages
    #[arg(long, value_name = "N", group = "limit", value_parser = parse_message_count, allow_hyphen_values = true)]
    max_messages: Option<u64>,
    /// Keep everything from this offset on, and nothing before
    #[arg(long, value_name = "OFFSET", group = "limit", value_parser = parse_offset, allow_hyphen_values = true)]
    from: Option<u64>,
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

pub(crate) fn run(call: &RetainCall, output: &mut Output) -> Result<Outcome, Problem> {
    let name = log_name(&call.log)?;
    let retention = retention(call);
    let destruction = if call.dry_run {
        plan(&open_for_planning(&call.store)?, name, &retention)?
    } else {
        let store = open(&call.store)?;
        let plan = plan(&store, name, &retention)?;
        confirm(call.yes || plan.is_nothing(), VERB, &plan)?;
        let receipt = store.retain(name, &retention)?;
        close(store);
        receipt.into()
    };
    destruction.tell(VERB, call.json, output)?;
    Ok(Outcome::Well)
}

fn plan(store: &Store, name: &str, retention: &Retention) -> Result<Destruction, Problem> {
    Ok(store.plan_retention(name, retention)?.into())
}

fn retention(call: &RetainCall) -> Retention {
    let mut retention = Retention::new();
    retention.max_age = call.max_age;
    retention.max_bytes = call.max_bytes;
    retention.max_messages = call.max_messages;
    retention.from = call.from;
    retention
}
