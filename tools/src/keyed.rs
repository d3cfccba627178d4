//! `lanterman keyed`, `lanterman get` and `lanterman compact`: logs as tables.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use lanterman::{Keyed, Options};
use serde::Serialize;

use crate::amounts::parse_age;
use crate::cli::log_name;
use crate::editing::{close, open, open_for_planning};
use crate::output::{Output, complain};
use crate::problem::{Outcome, Problem};
use crate::read::print_one;

/// Make a log keyed: every message has a key, and the newest of each key counts
///
/// The log must be empty, and is created if there is none. What newer messages supersede is removed in the background of programs
/// that have the store open, and by `lanterman compact`; offsets stay as they are. A message of the type nil is a delete marker:
/// it says that there is nothing of its key any more.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    lanterman keyed demo users\n  \
    lanterman keyed demo users --space-amplification 200 --marker-grace 7d\n  \
    lanterman append demo users users.tsv --key-delimiter '\\t'\n  \
    lanterman keyed demo users --off\n\n\
    Exit codes:\n  \
    0  the log is as asked for, durably\n  \
    1  the store is damaged\n  \
    2  the log has messages, the call was wrong, or the store is open for writing elsewhere")]
pub(crate) struct KeyedCall {
    /// The store's directory
    store: PathBuf,
    /// Name of the log
    log: OsString,
    /// Compact when all messages take more than so much of what the newest of each key take, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 150)]
    space_amplification: u32,
    /// Keep delete markers for so long, such as 12h or 7d
    #[arg(long, value_name = "AGE", value_parser = parse_age, default_value = "1d")]
    marker_grace: Duration,
    /// Make it an ordinary log again
    #[arg(long, conflicts_with_all = ["space_amplification", "marker_grace"])]
    off: bool,
    /// Report as JSON
    #[arg(long)]
    json: bool,
}

/// Print the newest message of a key
///
/// Prints its value and a newline. Reads no message but those that may have the key. A value that is kept in parts
/// (`append --whole --key`) is printed whole; --json gives its length, as value_bytes, in its place.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    lanterman get demo users --key alice\n  \
    lanterman get demo users --key alice --json\n  \
    lanterman get demo users --key-hex 00ff17\n\n\
    Exit codes:\n  \
    0  there is one, and it was printed\n  \
    1  there is none, or the store is damaged\n  \
    2  no such store or log, or the log is not keyed")]
pub(crate) struct GetCall {
    /// The store's directory
    store: PathBuf,
    /// Name of the log
    log: OsString,
    /// The key
    #[arg(long, value_name = "K", required_unless_present = "key_hex")]
    key: Option<OsString>,
    /// The key, as hexadecimal digits
    #[arg(long, value_name = "DIGITS", value_parser = parse_hex, conflicts_with = "key")]
    key_hex: Option<KeyBytes>,
    /// Look in the named snapshot with this label
    #[arg(long, value_name = "LABEL")]
    snapshot: Option<OsString>,
    /// Print one JSON object, as `read --json` does
    #[arg(long)]
    json: bool,
}

/// Remove the messages of a keyed log that newer ones supersede
///
/// Takes what stands in blocks already, and delete markers whose grace is over. It may be broken off at any time: what is done is
/// done. The space is given back by the collection, as `lanterman gc` does.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    lanterman compact demo users --dry-run\n  \
    lanterman compact demo users && lanterman gc demo\n\n\
    Exit codes:\n  \
    0  the log is compacted, durably; or with --dry-run: it was told what would go\n  \
    1  the store is damaged\n  \
    2  no such store or log, the log is not keyed, or the store is open for writing elsewhere")]
pub(crate) struct CompactCall {
    /// The store's directory
    store: PathBuf,
    /// Name of the log
    log: OsString,
    /// Only say what would be removed
    #[arg(long)]
    dry_run: bool,
    /// Report as JSON
    #[arg(long)]
    json: bool,
}

/// A key that was given as digits.
#[derive(Debug, Clone)]
pub(crate) struct KeyBytes(Vec<u8>);

fn parse_hex(given: &str) -> Result<KeyBytes, String> {
    let digits = given.as_bytes();
    let pair = |pair: &[u8]| {
        let text = std::str::from_utf8(pair).ok()?;
        u8::from_str_radix(text, 16)
            .ok()
            .filter(|_| !text.starts_with('+'))
    };
    let bytes: Option<Vec<u8>> = digits.chunks(2).map(pair).collect();
    match bytes.filter(|_| digits.len().is_multiple_of(2)) {
        Some(bytes) => Ok(KeyBytes(bytes)),
        None => Err("it must be an even number of hexadecimal digits".to_owned()),
    }
}

#[derive(Serialize)]
struct SetReport<'a> {
    log: &'a str,
    keyed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    space_amplification_percent: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    marker_grace_ms: Option<u128>,
}

/// Makes a log keyed.
pub(crate) fn set(call: &KeyedCall, output: &mut Output) -> Result<Outcome, Problem> {
    let name = log_name(&call.log)?;
    let keyed = Keyed::new()
        .space_amplification_percent(call.space_amplification)
        .marker_grace(call.marker_grace);
    let keyed = (!call.off).then_some(keyed);
    let store = open(&call.store)?;
    store.set_keyed(name, keyed.as_ref())?;
    close(store);
    if call.json {
        output.json(&SetReport {
            log: name,
            keyed: keyed.is_some(),
            space_amplification_percent: keyed.map(|keyed| keyed.space_amplification_percent),
            marker_grace_ms: keyed.map(|keyed| keyed.marker_grace.as_millis()),
        })?;
        return Ok(Outcome::Well);
    }
    match keyed {
        Some(_) => output.line(format_args!("log {name:?} is keyed"))?,
        None => output.line(format_args!("log {name:?} is an ordinary log"))?,
    }
    Ok(Outcome::Well)
}

/// Prints the newest message of a key.
pub(crate) fn get(call: &GetCall, output: &mut Output) -> Result<Outcome, Problem> {
    let name = log_name(&call.log)?;
    let key = match (&call.key, &call.key_hex) {
        (Some(key), _) => key.as_encoded_bytes(),
        (None, Some(KeyBytes(key))) => key.as_slice(),
        (None, None) => &[],
    };
    let store = Options::new().read_only(true).open_copying(&call.store)?;
    let snapshot = match &call.snapshot {
        Some(label) => store.named_snapshot(log_name(label)?, name)?,
        None => store.snapshot(name)?,
    };
    let Some(found) = snapshot.get_key(key)? else {
        complain(&format_args!("log {name:?} has nothing of this key"));
        return Ok(Outcome::Found);
    };
    print_one(snapshot, found.offset(), call.json, output)?;
    Ok(Outcome::Well)
}

#[derive(Serialize)]
struct PlanReport<'a> {
    log: &'a str,
    keys: u64,
    live_bytes: u64,
    superseded: u64,
    superseded_bytes: u64,
    slabs: u64,
}

#[derive(Serialize)]
struct CompactReport<'a> {
    log: &'a str,
    removed: u64,
    removed_bytes: u64,
    rewritten_bytes: u64,
    steps: u64,
}

/// Compacts a log, or tells what that would do.
pub(crate) fn compact(call: &CompactCall, output: &mut Output) -> Result<Outcome, Problem> {
    let name = log_name(&call.log)?;
    if call.dry_run {
        let store = open_for_planning(&call.store)?;
        let plan = store.plan_compaction(name)?;
        if call.json {
            output.json(&PlanReport {
                log: name,
                keys: plan.keys,
                live_bytes: plan.live_bytes,
                superseded: plan.superseded,
                superseded_bytes: plan.superseded_bytes,
                slabs: plan.slabs,
            })?;
            return Ok(Outcome::Well);
        }
        output.line(format_args!(
            "would remove {} messages ({} bytes) of log {name:?}, from {} blocks; {} keys stay ({} bytes)",
            plan.superseded, plan.superseded_bytes, plan.slabs, plan.keys, plan.live_bytes
        ))?;
        return Ok(Outcome::Well);
    }
    let store = open(&call.store)?;
    let receipt = store.compact(name)?;
    close(store);
    if call.json {
        output.json(&CompactReport {
            log: name,
            removed: receipt.removed,
            removed_bytes: receipt.removed_bytes,
            rewritten_bytes: receipt.rewritten_bytes,
            steps: receipt.steps,
        })?;
        return Ok(Outcome::Well);
    }
    output.line(format_args!(
        "removed {} messages ({} bytes) of log {name:?}, wrote {} bytes anew",
        receipt.removed, receipt.removed_bytes, receipt.rewritten_bytes
    ))?;
    Ok(Outcome::Well)
}
