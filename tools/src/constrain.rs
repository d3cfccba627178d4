//! `lanterman constrain` and `lanterman constraints`: what a log demands of the messages that come into it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::Args;
use lanterman::{Constraints, Options};
use serde::Serialize;

use crate::cli::log_name;
use crate::editing::{close, open};
use crate::output::Output;
use crate::problem::{Outcome, Problem};

/// A document that is larger than this is none: a log keeps 60 KiB.
const DOCUMENT_BYTES_MAX: u64 = 1 << 20;

/// Set what a log demands of messages that are appended to it
///
/// The file holds rules in JSON: {"rules": [{"name": "small", "require": {"value_bytes": {"max": 1000}}}]}. A rule requires
/// value_bytes, key_bytes, key, value_types, headers, rate, rising, unique_key, json_schema or cel, and says with on_violation
/// whether a message that breaks it is refused ("refuse", as without it), taken with a warning ("warn") or put into another log
/// ({"divert": "LOG"}). The new rules take the place of those before. What is in the log already is not judged: `lanterman
/// check` does that.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    lanterman constrain demo events rules.json\n  \
    lanterman constrain demo events rules.json --dry-run\n  \
    lanterman constrain demo events --clear\n\n\
    Exit codes:\n  \
    0  the rules are set, durably; or with --dry-run: they can be\n  \
    1  the store is damaged\n  \
    2  no such store, log or file, rules that cannot be understood, or the store is open for writing elsewhere")]
pub(crate) struct ConstrainCall {
    /// The store's directory
    store: PathBuf,
    /// Name of the log
    log: OsString,
    /// The rules
    #[arg(required_unless_present = "clear", conflicts_with = "clear")]
    file: Option<PathBuf>,
    /// Take all rules away
    #[arg(long)]
    clear: bool,
    /// Only say whether the rules could be set
    #[arg(long)]
    dry_run: bool,
    /// Report as JSON
    #[arg(long)]
    json: bool,
}

/// Show what a log demands of messages that are appended to it
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    lanterman constraints demo events\n  \
    lanterman constraints demo events --json > rules.json\n\n\
    Exit codes:\n  \
    0  the rules were shown, or there are none\n  \
    1  the store is damaged\n  \
    2  no such store or log")]
pub(crate) struct ConstraintsCall {
    /// The store's directory
    store: PathBuf,
    /// Name of the log
    log: OsString,
    /// Show the document that was set, or null
    #[arg(long)]
    json: bool,
}

/// List the messages of a log that its rules would not let in today
///
/// The messages are judged in order, as if they came now; rules about rates are left out. With --rules the rules of a file are
/// used in place of those of the log, to see what they would say before they are set. Reads every message.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    lanterman check demo events\n  \
    lanterman check demo events --rules rules.json --count 10 --json\n\n\
    Exit codes:\n  \
    0  every message meets the rules, or there are none\n  \
    1  some do not, or the store is damaged\n  \
    2  no such store, log or file, or rules that cannot be understood")]
pub(crate) struct CheckCall {
    /// The store's directory
    store: PathBuf,
    /// Name of the log
    log: OsString,
    /// The rules of this file, in place of those of the log
    #[arg(long, value_name = "FILE")]
    rules: Option<PathBuf>,
    /// End after so many findings
    #[arg(long, value_name = "N", default_value_t = u64::MAX, hide_default_value = true)]
    count: u64,
    /// Report as JSON, one object a line
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct SetReport<'a> {
    log: &'a str,
    rules: Vec<&'a str>,
    set: bool,
}

#[derive(Serialize)]
struct Finding {
    offset: u64,
    rule: String,
    place: String,
    expected: String,
    found: String,
}

fn read_rules(path: &Path) -> Result<Constraints, Problem> {
    let failed = |source| Problem::io("read", path, source);
    let bytes = std::fs::metadata(path).map_err(failed)?.len();
    if bytes > DOCUMENT_BYTES_MAX {
        return Err(Problem::Call(format!(
            "{}: {bytes} bytes are more than rules can have",
            path.display()
        )));
    }
    let text = std::fs::read_to_string(path).map_err(failed)?;
    Ok(Constraints::from_json(&text)?)
}

/// Sets the rules of a log.
pub(crate) fn run(call: &ConstrainCall, output: &mut Output) -> Result<Outcome, Problem> {
    let name = log_name(&call.log)?;
    let constraints = call.file.as_deref().map(read_rules).transpose()?;
    if call.dry_run {
        let store = Options::new().read_only(true).open_copying(&call.store)?;
        store.log(name)?;
    } else {
        let store = open(&call.store)?;
        store.set_constraints(name, constraints.as_ref())?;
        close(store);
    }
    let rules: Vec<&str> = constraints.iter().flat_map(Constraints::names).collect();
    if call.json {
        let report = SetReport {
            log: name,
            rules,
            set: !call.dry_run,
        };
        output.json(&report)?;
        return Ok(Outcome::Well);
    }
    let verb = if call.dry_run { "would get" } else { "has" };
    match rules.len() {
        0 => output.line(format_args!("log {name:?} {verb} no rules"))?,
        count => output.line(format_args!(
            "log {name:?} {verb} {count} rules: {}",
            rules.join(", ")
        ))?,
    }
    Ok(Outcome::Well)
}

/// Shows the rules of a log.
pub(crate) fn show(call: &ConstraintsCall, output: &mut Output) -> Result<Outcome, Problem> {
    let name = log_name(&call.log)?;
    let store = Options::new().read_only(true).open_copying(&call.store)?;
    let constraints = store.log(name)?.constraints()?;
    let document: serde_json::Value = match &constraints {
        Some(constraints) => serde_json::from_str(&constraints.to_json()?).unwrap_or_default(),
        None => serde_json::Value::Null,
    };
    if call.json {
        output.json(&document)?;
        return Ok(Outcome::Well);
    }
    let rules = document.get("rules").and_then(serde_json::Value::as_array);
    let Some(rules) = rules else {
        output.line("no rules")?;
        return Ok(Outcome::Well);
    };
    for rule in rules {
        let part = |name: &str| rule.get(name).map(ToString::to_string);
        let name = rule.get("name").and_then(serde_json::Value::as_str);
        let then = part("on_violation").unwrap_or_else(|| "\"refuse\"".to_owned());
        output.line(format_args!(
            "{}: {}, or {then}",
            name.unwrap_or_default(),
            part("require").unwrap_or_default()
        ))?;
    }
    Ok(Outcome::Well)
}

/// Judges the messages that a log has.
pub(crate) fn check(call: &CheckCall, output: &mut Output) -> Result<Outcome, Problem> {
    let name = log_name(&call.log)?;
    let from_file = call.rules.as_deref().map(read_rules).transpose()?;
    let store = Options::new().read_only(true).open_copying(&call.store)?;
    let constraints = match from_file {
        Some(constraints) => Some(constraints),
        None => store.log(name)?.constraints()?,
    };
    let snapshot = store.snapshot(name)?;
    let mut findings = 0u64;
    let mut failed = None;
    if let Some(constraints) = &constraints
        && call.count > 0
    {
        snapshot.check_constraints(constraints, |violation| {
            let finding = Finding {
                offset: violation.offset.get(),
                rule: violation.rule,
                place: violation.place,
                expected: violation.expected,
                found: violation.found,
            };
            findings += 1;
            failed = tell(&finding, call.json, output).err();
            failed.is_none() && findings < call.count
        })?;
    }
    if let Some(failed) = failed {
        return Err(failed);
    }
    if !call.json {
        let messages = snapshot.summary()?.messages();
        output.line(match (constraints.is_some(), findings) {
            (false, _) => "the log has no rules".to_owned(),
            (true, 0) => format!("all {messages} messages meet the rules"),
            (true, count) => format!("{count} findings"),
        })?;
    }
    Ok(if findings == 0 {
        Outcome::Well
    } else {
        Outcome::Found
    })
}

fn tell(finding: &Finding, json: bool, output: &mut Output) -> Result<(), Problem> {
    if json {
        return output.json(finding);
    }
    output.line(format_args!(
        "offset {}: rule {:?}: {}: expected {}, found {}",
        finding.offset, finding.rule, finding.place, finding.expected, finding.found
    ))
}
