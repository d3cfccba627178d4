//! `lanterman stats`: what a log, or a part of it, holds.

use std::ffi::OsString;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use clap::Args;
use lanterman::{Choice, LogSummary, Options, Snapshot};
use serde::Serialize;

use crate::amounts::parse_offset;
use crate::cli::log_name;
use crate::output::Output;
use crate::problem::{Outcome, Problem};
use crate::text::{Bar, Size, Table};

/// Parts of a span of time of which the rates are shown.
const RATE_PARTS: u64 = 12;
const PERCENTS: [u32; 4] = [50, 90, 99, 100];

/// Show what a log, or a part of it, holds
///
/// Counts, bytes, sizes and types of messages, and how many there were over time. All of it comes from the summaries that
/// the log's tree carries, so it takes as long for a log of any size. Counts and bytes of a range of offsets are exact; sizes
/// are told to a factor of two; what lies in a range of times is an estimate where a block lies only partly in it, and is
/// said to be one. Reads only, also beside a running writer.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    lanterman stats demo events\n  \
    lanterman stats demo events --from 1000 --to 2000\n  \
    lanterman stats demo events --since-ms 1700000000000 --json | jq .messages\n\n\
    Exit codes:\n  \
    0  the answer was shown\n  \
    1  the store is damaged\n  \
    2  no such store or log, or a range that is none")]
pub(crate) struct StatsCall {
    /// The store's directory
    store: PathBuf,
    /// Name of the log
    log: OsString,
    /// The first offset that counts
    #[arg(long, value_name = "OFFSET", value_parser = parse_offset, allow_hyphen_values = true)]
    from: Option<u64>,
    /// The first offset that counts no more
    #[arg(long, value_name = "OFFSET", value_parser = parse_offset, allow_hyphen_values = true)]
    to: Option<u64>,
    /// The first time that counts, in milliseconds since 1970
    #[arg(long, value_name = "MS", conflicts_with_all = ["from", "to"], allow_hyphen_values = true)]
    since_ms: Option<i64>,
    /// The last time that counts, in milliseconds since 1970
    #[arg(long, value_name = "MS", conflicts_with_all = ["from", "to"], allow_hyphen_values = true)]
    until_ms: Option<i64>,
    /// Of a keyed log: how many keys it has and what newer messages supersede; goes through all keys
    #[arg(long, conflicts_with_all = ["from", "to", "since_ms", "until_ms"])]
    keys: bool,
    /// Say too which values the store chose from what the log holds, and why
    #[arg(long)]
    explain: bool,
    /// Report as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct KeysReport {
    keys: u64,
    live_bytes: u64,
    superseded: u64,
    superseded_bytes: u64,
}

#[derive(Serialize)]
struct Report {
    log: String,
    version: u64,
    start: u64,
    end: u64,
    messages: u64,
    deleted: u64,
    /// Offsets with a part of a large value.
    parts: u64,
    value_bytes: u64,
    key_bytes: u64,
    /// An estimate, `null` where it is not known.
    distinct_keys: Option<u64>,
    exact: bool,
    time_min_ms: Option<i64>,
    time_max_ms: Option<i64>,
    types: Vec<String>,
    percentiles: Vec<Percentile>,
    sizes: Vec<SizeRow>,
    rates: Vec<RateRow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    keys: Option<KeysReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    choices: Option<Vec<ChoiceRow>>,
}

#[derive(Serialize)]
struct ChoiceRow {
    name: &'static str,
    value: u64,
    unit: &'static str,
    least: u64,
    most: u64,
    reason: String,
}

#[derive(Serialize)]
struct Percentile {
    percent: u32,
    value_bytes_max: u64,
}

#[derive(Serialize)]
struct SizeRow {
    value_bytes_max: u64,
    values: u64,
}

#[derive(Serialize)]
struct RateRow {
    first_ms: i64,
    last_ms: i64,
    messages: u64,
    value_bytes: u64,
}

pub(crate) fn run(call: &StatsCall, output: &mut Output) -> Result<Outcome, Problem> {
    let name = log_name(&call.log)?;
    let times_ms = times(call)?;
    if let (Some(from), Some(to)) = (call.from, call.to)
        && from > to
    {
        return Err(Problem::Call(format!(
            "the range ends at {to}, before it begins at {from}"
        )));
    }
    let store = Options::new().read_only(true).open_copying(&call.store)?;
    let snapshot = store.snapshot(name)?;
    let from = call.from.unwrap_or(0);
    let to = call.to.unwrap_or(snapshot.end().get());
    if from > to {
        return Err(Problem::Call(format!(
            "the log {name} ends at {to}, before {from}"
        )));
    }
    let summary = match &times_ms {
        Some(times_ms) => snapshot.summary_between(times_ms.clone())?,
        None => snapshot.summary_of(from..to)?,
    };
    let is_part = call.from.is_some() || call.to.is_some();
    let rates = match summary.times_ms().filter(|_| !is_part) {
        Some((first, last)) => {
            let wanted = times_ms.unwrap_or(i64::MIN..=i64::MAX);
            rates(&snapshot, first.max(*wanted.start()), last.min(*wanted.end()))?
        }
        None => Vec::new(),
    };
    let mut report = report(&snapshot, &summary, rates);
    if call.keys {
        let plan = store.plan_compaction(name)?;
        report.keys = Some(KeysReport {
            keys: plan.keys,
            live_bytes: plan.live_bytes,
            superseded: plan.superseded,
            superseded_bytes: plan.superseded_bytes,
        });
    }
    if call.explain {
        let chosen = store.log(name)?.choices().into_iter().chain(store.choices());
        report.choices = Some(chosen.map(choice_row).collect());
    }
    if call.json {
        output.json(&report)?;
    } else {
        show(&report, output)?;
    }
    Ok(Outcome::Well)
}

fn choice_row(choice: Choice) -> ChoiceRow {
    ChoiceRow {
        name: choice.name,
        value: choice.value,
        unit: choice.unit,
        least: choice.least,
        most: choice.most,
        reason: choice.reason,
    }
}

fn times(call: &StatsCall) -> Result<Option<RangeInclusive<i64>>, Problem> {
    if call.since_ms.is_none() && call.until_ms.is_none() {
        return Ok(None);
    }
    let times_ms = call.since_ms.unwrap_or(i64::MIN)..=call.until_ms.unwrap_or(i64::MAX);
    if times_ms.is_empty() {
        return Err(Problem::Call(format!(
            "the range of times ends at {}, before it begins at {}",
            times_ms.end(),
            times_ms.start()
        )));
    }
    Ok(Some(times_ms))
}

/// How much there is in each of some parts of a span of time.
fn rates(snapshot: &Snapshot, first_ms: i64, last_ms: i64) -> Result<Vec<RateRow>, Problem> {
    let span = last_ms.abs_diff(first_ms).saturating_add(1);
    let step = i64::try_from(span.div_ceil(RATE_PARTS))
        .unwrap_or(i64::MAX)
        .max(1);
    let mut rows = Vec::new();
    let mut at = first_ms;
    while at <= last_ms {
        let last = at.saturating_add(step - 1).min(last_ms);
        let part = snapshot.summary_between(at..=last)?;
        rows.push(RateRow {
            first_ms: at,
            last_ms: last,
            messages: part.messages(),
            value_bytes: part.value_bytes(),
        });
        let Some(next) = last.checked_add(1) else { break };
        at = next;
    }
    Ok(rows)
}

fn report(snapshot: &Snapshot, summary: &LogSummary, rates: Vec<RateRow>) -> Report {
    let mut types: Vec<String> = summary
        .value_types()
        .map(|value_type| value_type.to_string())
        .collect();
    if summary.has_other_value_types() {
        types.push("others".to_owned());
    }
    let percentiles = PERCENTS.iter().filter_map(|percent| {
        Some(Percentile {
            percent: *percent,
            value_bytes_max: summary.value_bytes_percentile(*percent)?,
        })
    });
    let sizes = summary.value_sizes().map(|(value_bytes_max, values)| SizeRow {
        value_bytes_max,
        values,
    });
    let times = summary.times_ms();
    Report {
        log: snapshot.name().to_owned(),
        version: snapshot.version().get(),
        start: snapshot.start().get(),
        end: snapshot.end().get(),
        messages: summary.messages(),
        deleted: summary.deleted(),
        parts: summary.parts(),
        value_bytes: summary.value_bytes(),
        key_bytes: summary.key_bytes(),
        distinct_keys: summary.distinct_keys(),
        exact: summary.is_exact(),
        time_min_ms: times.map(|(first, _)| first),
        time_max_ms: times.map(|(_, last)| last),
        types,
        percentiles: percentiles.collect(),
        sizes: sizes.collect(),
        rates,
        keys: None,
        choices: None,
    }
}

fn show(report: &Report, output: &mut Output) -> Result<(), Problem> {
    let about = if report.exact { "" } else { "about " };
    output.line(format_args!(
        "log {}, offsets {} to {}, at version {}",
        report.log, report.start, report.end, report.version
    ))?;
    output.line(format_args!("messages  {about}{}", report.messages))?;
    output.line(format_args!("deleted   {about}{}", report.deleted))?;
    if report.parts > 0 {
        output.line(format_args!("parts     {about}{} of large values", report.parts))?;
    }
    output.line(format_args!("values    {about}{}", Size(report.value_bytes)))?;
    let distinct = match report.distinct_keys {
        _ if report.key_bytes == 0 => String::new(),
        Some(distinct) => format!(", about {distinct} different ones"),
        None => ", how many different ones is not known".to_owned(),
    };
    output.line(format_args!(
        "keys      {about}{}{distinct}",
        Size(report.key_bytes)
    ))?;
    if let Some(keys) = &report.keys {
        output.line(format_args!(
            "table     {} keys, their newest messages {}; {} superseded messages, {}",
            keys.keys,
            Size(keys.live_bytes),
            keys.superseded,
            Size(keys.superseded_bytes)
        ))?;
    }
    if !report.types.is_empty() {
        output.line(format_args!("types     {}", report.types.join(", ")))?;
    }
    if let (Some(first), Some(last)) = (report.time_min_ms, report.time_max_ms) {
        output.line(format_args!("times     {first} to {last} ms since 1970"))?;
    }
    if !report.sizes.is_empty() {
        let percentiles = report.percentiles.iter().map(|percentile| {
            let Percentile {
                percent,
                value_bytes_max,
            } = percentile;
            format!("p{percent} {value_bytes_max}")
        });
        let percentiles: Vec<String> = percentiles.collect();
        output.line(format_args!("sizes     at most: {}", percentiles.join(", ")))?;
        let most = report.sizes.iter().map(|row| row.values).max().unwrap_or(0);
        let mut table = Table::new(0, &["bytes up to", "values", ""]);
        for row in &report.sizes {
            let bar = Bar(row.values, most).to_string();
            table.row(vec![row.value_bytes_max.to_string(), row.values.to_string(), bar]);
        }
        output.line(table)?;
    }
    if !report.rates.is_empty() {
        let most = report.rates.iter().map(|row| row.messages).max().unwrap_or(0);
        let mut table = Table::new(0, &["from ms", "messages", "value bytes", ""]);
        for row in &report.rates {
            let bar = Bar(row.messages, most).to_string();
            table.row(vec![
                row.first_ms.to_string(),
                row.messages.to_string(),
                row.value_bytes.to_string(),
                bar,
            ]);
        }
        output.line(table)?;
    }
    report
        .choices
        .iter()
        .flatten()
        .try_for_each(|choice| explain(choice, output))
}

fn explain(choice: &ChoiceRow, output: &mut Output) -> Result<(), Problem> {
    let ChoiceRow {
        name,
        value,
        unit,
        least,
        most,
        reason,
    } = choice;
    output.line(format_args!(
        "{name}  {value} {unit}, chosen from {least} to {most}: {reason}"
    ))
}
