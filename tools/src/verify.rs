//! `lanterman verify`: every checksum of a store, and whether its structures fit each other.

use std::path::{Path, PathBuf};

use clap::Args;
use lanterman::Options;
use serde::Serialize;

use crate::check::report::{DamageKind, Finding, Report};
use crate::check::{Depth, check};
use crate::output::Output;
use crate::problem::{Outcome, Problem};
use crate::progress::Progress;
use crate::text::Size;

/// Check every checksum of a store, and that its structures fit each other
///
/// Reads both root slots, all segment headers, the checkpoint, the catalog, every tree node, every slab with all its
/// messages, and the journal behind the checkpoint; finds that every page of the segments of slabs is one of live, garbage
/// and free, and that no two blocks lie over each other; then lets the library open the store read-only and compares.
/// Damage is named by file, position, log and offsets, and the check goes on behind it. Nothing is written. It may run
/// beside a writer.
///
/// A journal that ends in a commit which was cut off is no damage: that commit was never acknowledged as durable. It is
/// told as a note.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    lanterman verify demo\n  \
    lanterman verify demo --json | jq '.damage[]'\n\n\
    Exit codes:\n  \
    0  no damage was found\n  \
    1  damage was found; `lanterman repair` tells what can be done\n  \
    2  the check could not be carried out: no store, a newer format, no permission")]
pub(crate) struct VerifyCall {
    /// The store's directory
    store: PathBuf,
    /// Report as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Answer<'a> {
    well: bool,
    #[serde(flatten)]
    report: &'a Report,
}

pub(crate) fn run(call: &VerifyCall, output: &mut Output) -> Result<Outcome, Problem> {
    let report = verify(&call.store)?;
    let well = report.damage.is_empty();
    if call.json {
        output.json(&Answer {
            well,
            report: &report,
        })?;
    } else {
        tell(&report, output)?;
    }
    Ok(if well { Outcome::Well } else { Outcome::Found })
}

/// Everything that can be found out about a store.
pub(crate) fn verify(path: &Path) -> Result<Report, Problem> {
    let mut progress = Progress::new("verifying", Some(stored_bytes(path)));
    let mut report = check(path, Depth::Everything, &mut progress)?;
    progress.finish();
    open_and_compare(path, &mut report)?;
    Ok(report)
}

/// Length of all segments, as a measure of the work.
fn stored_bytes(path: &Path) -> u64 {
    let entries = path.join("segments").read_dir().into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.metadata().ok())
        .map(|found| found.len())
        .sum()
}

/// Lets the library do what a program would do, and compares its answer with the walk over the files.
fn open_and_compare(path: &Path, report: &mut Report) -> Result<(), Problem> {
    let store = match Options::new().read_only(true).open_copying(path) {
        Ok(store) => store,
        Err(_) if !report.damage.is_empty() => return Ok(()),
        Err(lanterman::Error::Damaged(damage)) => {
            let name = |file: &Path| file.strip_prefix(path).unwrap_or(file).display().to_string();
            report.find(Finding {
                kind: DamageKind::Opening,
                file: name(&damage.path),
                segment: damage.segment.map(|segment| segment.get()),
                position: damage.position.get(),
                log: damage.log.clone(),
                offsets: damage.offsets.clone(),
                detail: damage.source.to_string(),
            });
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    // A running writer may have gone on meanwhile; then there is nothing to compare.
    if store.version().get() != report.version || !report.damage.is_empty() {
        return Ok(());
    }
    let logs: Vec<_> = report
        .logs
        .values()
        // Named snapshots have the names of their logs.
        .filter(|log| log.snapshot.is_none())
        .map(|log| (log.name.clone(), log.begins_later, log.start, log.end))
        .collect();
    for (name, begins_later, start, end) in logs {
        let is_same = store.log(&name).is_ok_and(|log| {
            let (known, known_end) = (log.start().get(), log.end().get());
            let begins = known == start || begins_later && (start..=end).contains(&known);
            begins && known_end == end
        });
        if !is_same {
            report.find(Finding {
                kind: DamageKind::Opening,
                file: "root".to_owned(),
                segment: None,
                position: 0,
                log: Some(name),
                offsets: Some(start..end),
                detail: "the library opens the log with other offsets".to_owned(),
            });
        }
    }
    Ok(())
}

/// The report for people.
pub(crate) fn tell(report: &Report, output: &mut Output) -> Result<(), Problem> {
    for finding in &report.damage {
        output.line(format_args!("damage: {finding}"))?;
    }
    for note in &report.notes {
        output.line(format_args!("note: {note}"))?;
    }
    let counts = &report.checked;
    output.line(format_args!(
        "checked {} messages in {} logs: {} slabs of {} groups, {} nodes, {} catalog pages, {} commits of {} frames, {} segment headers, {} read",
        counts.messages,
        report.logs.len(),
        counts.slabs,
        counts.slab_groups,
        counts.nodes,
        counts.catalog_pages,
        counts.commit_blocks,
        counts.frames,
        counts.segment_headers,
        Size(counts.bytes),
    ))?;
    if let Some(space) = &report.space {
        output.line(format_args!(
            "{} in {} segments of slabs: {} live, {} garbage, {} free",
            Size(space.bytes),
            space.segments,
            Size(space.live),
            Size(space.garbage),
            Size(space.free),
        ))?;
    }
    match report.damage.len() {
        0 => output.line("no damage found"),
        1 => output.line("1 place is damaged"),
        count => output.line(format_args!("{count} places are damaged")),
    }
}
