//! A whole store for people and programs.

use std::path::Path;

use lanterman::Options;
use lanterman_format::{FileKind, Found};
use serde::Serialize;

use crate::check::report::{LogReport, Report};
use crate::check::{Depth, check};
use crate::files::{FIRST_BLOCK, RootBytes, StoreFiles};
use crate::output::Output;
use crate::problem::{Outcome, Problem};
use crate::progress::Progress;
use crate::text::{Size, Table};

#[derive(Serialize)]
struct SlotRow {
    slot: usize,
    state: &'static str,
    sequence: Option<u64>,
    version: Option<u64>,
    checkpoint_segment: Option<u64>,
    checkpoint_position: Option<u64>,
    time_ms: Option<i64>,
}

#[derive(Serialize)]
struct SegmentRow {
    file: String,
    segment: u64,
    kind: &'static str,
    generation: Option<u32>,
    bytes: u64,
    /// Bytes that blocks take, the header among them.
    used_bytes: Option<u64>,
    /// Bytes that something refers to.
    live_bytes: Option<u64>,
    garbage_bytes: Option<u64>,
    /// Bytes that are not written: behind the last block, and in holes.
    free_bytes: Option<u64>,
}

#[derive(Serialize)]
struct ReaderRow {
    slot: u32,
    process: u64,
    version: u64,
}

#[derive(Serialize)]
struct Answer {
    root_slots: Vec<SlotRow>,
    segments: Vec<SegmentRow>,
    readers: Vec<ReaderRow>,
    #[serde(flatten)]
    report: Report,
}

pub(super) fn show(path: &Path, json: bool, output: &mut Output) -> Result<Outcome, Problem> {
    let report = check(path, Depth::Structure, &mut Progress::new("inspecting", None))?;
    let root = RootBytes::read(path)?;
    let store = root
        .slots
        .iter()
        .find_map(|slot| slot.valid())
        .map(|slot| slot.store);
    let files = StoreFiles::open(path, store.as_ref())?;
    let answer = Answer {
        root_slots: slots(&root),
        segments: segments(&files, &report),
        readers: readers(path),
        report,
    };
    if json {
        output.json(&answer)?;
    } else {
        tell(&answer, output)?;
    }
    Ok(if answer.report.damage.is_empty() {
        Outcome::Well
    } else {
        Outcome::Found
    })
}

fn slots(root: &RootBytes) -> Vec<SlotRow> {
    let row = |(slot, found): (usize, &Found<lanterman_format::RootSlot>)| {
        let state = match found {
            Found::Valid(_) => "valid",
            Found::Empty => "empty",
            Found::Invalid(_) => "damaged",
        };
        let valid = found.valid();
        SlotRow {
            slot,
            state,
            sequence: valid.map(|valid| valid.sequence.get()),
            version: valid.map(|valid| valid.version.get()),
            checkpoint_segment: valid.map(|valid| valid.checkpoint.segment.get()),
            checkpoint_position: valid.map(|valid| valid.checkpoint.position.get()),
            time_ms: valid.map(|valid| valid.time_ms),
        }
    };
    root.slots.iter().enumerate().map(row).collect()
}

fn segments(files: &StoreFiles, report: &Report) -> Vec<SegmentRow> {
    let row = |segment: &crate::files::SegmentFile| {
        let id = segment.id.get();
        let is_slabs = segment.kind == FileKind::Slabs;
        let used = match segment.kind {
            FileKind::Slabs => Some(report.used_bytes.get(&id).copied().unwrap_or(FIRST_BLOCK)),
            FileKind::Journal if id == report.journal.end_segment => Some(report.journal.end_position),
            FileKind::Journal if id < report.journal.end_segment => Some(segment.bytes),
            FileKind::Journal | FileKind::Free => None,
        };
        let live = is_slabs.then(|| report.live_bytes.get(&id).copied().unwrap_or(0));
        let space = report.space_of.get(&id).filter(|_| is_slabs);
        SegmentRow {
            file: segment.name(),
            segment: id,
            kind: match segment.kind {
                FileKind::Journal => "journal",
                FileKind::Slabs => "slabs",
                FileKind::Free => "spare",
            },
            generation: segment.generation.map(|generation| generation.get()),
            bytes: segment.bytes,
            used_bytes: used,
            live_bytes: live,
            garbage_bytes: space.map(|space| space.garbage),
            free_bytes: space.map(|space| space.free),
        }
    };
    files.segments.values().map(row).collect()
}

/// Who reads the store now. A store that cannot be opened has no table to look into.
fn readers(path: &Path) -> Vec<ReaderRow> {
    let opened = Options::new().read_only(true).open_copying(path);
    let views = opened.and_then(|store| store.readers()).unwrap_or_default();
    let own = u64::from(std::process::id());
    let others = views.into_iter().filter(|view| view.process != own);
    others
        .map(|view| ReaderRow {
            slot: view.slot,
            process: view.process,
            version: view.version.get(),
        })
        .collect()
}

fn tell(answer: &Answer, output: &mut Output) -> Result<(), Problem> {
    let report = &answer.report;
    output.line(format_args!(
        "store {}, format {}, version {}",
        report.store_id, report.format, report.version
    ))?;
    let optional = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    let mut table = Table::new(
        2,
        &[
            "root slot",
            "state",
            "sequence",
            "version",
            "checkpoint segment",
            "position",
        ],
    );
    for slot in &answer.root_slots {
        let numbers = [
            slot.sequence,
            slot.version,
            slot.checkpoint_segment,
            slot.checkpoint_position,
        ];
        let mut cells = vec![slot.slot.to_string(), slot.state.to_owned()];
        cells.extend(numbers.map(optional));
        table.row(cells);
    }
    output.line(format_args!("\n{table}"))?;
    let journal = &report.journal;
    output.line(format_args!(
        "\ncheckpoint at version {}; journal behind it: {} commits, {}, from {:016x} position {} to {:016x} position {}",
        report.checkpoint_version,
        journal.versions,
        Size(journal.bytes),
        journal.begin_segment,
        journal.begin_position,
        journal.end_segment,
        journal.end_position,
    ))?;
    tell_segments(&answer.segments, output)?;
    tell_space(answer, output)?;
    tell_logs(report, output)?;
    match answer.readers.is_empty() {
        true => output.line("\nno process reads it")?,
        false => output.line("")?,
    }
    for reader in &answer.readers {
        output.line(format_args!(
            "process {} reads version {} (slot {})",
            reader.process, reader.version, reader.slot
        ))?;
    }
    for finding in &report.damage {
        output.line(format_args!("damage: {finding}"))?;
    }
    report
        .notes
        .iter()
        .try_for_each(|note| output.line(format_args!("note: {note}")))
}

fn tell_segments(segments: &[SegmentRow], output: &mut Output) -> Result<(), Problem> {
    let size = |bytes: Option<u64>| bytes.map_or_else(|| "-".to_owned(), |bytes| Size(bytes).to_string());
    let mut table = Table::new(
        2,
        &[
            "segment",
            "kind",
            "generation",
            "size",
            "used",
            "live",
            "garbage",
            "free",
            "fill",
        ],
    );
    for segment in segments {
        let fill = segment
            .used_bytes
            .map(|used| used.saturating_mul(100) / segment.bytes.max(1));
        table.row(vec![
            format!("{:016x}", segment.segment),
            segment.kind.to_owned(),
            segment
                .generation
                .map_or_else(|| "-".to_owned(), |generation| generation.to_string()),
            Size(segment.bytes).to_string(),
            size(segment.used_bytes),
            size(segment.live_bytes),
            size(segment.garbage_bytes),
            size(segment.free_bytes),
            fill.map_or_else(|| "-".to_owned(), |fill| format!("{fill} %")),
        ]);
    }
    output.line(format_args!("\n{table}"))
}

/// The sums, and what keeps something from being given back that an observer from outside can see.
fn tell_space(answer: &Answer, output: &mut Output) -> Result<(), Problem> {
    let Some(space) = &answer.report.space else {
        return output.line("\nwhat of the segments is garbage cannot be told beside damage");
    };
    output.line(format_args!(
        "\n{} in {} segments of slabs: {} live, {} garbage, {} free, {} of that given back in holes",
        Size(space.bytes),
        space.segments,
        Size(space.live),
        Size(space.garbage),
        Size(space.free),
        Size(space.holes),
    ))?;
    let snapshots = answer.report.logs.values().filter(|log| log.snapshot.is_some());
    let snapshots = snapshots.count();
    if snapshots > 0 {
        output.line(format_args!(
            "named snapshots and history hold what {snapshots} logs had"
        ))?;
    }
    let version = answer.report.checkpoint_version;
    for reader in answer.readers.iter().filter(|reader| reader.version < version) {
        output.line(format_args!(
            "held back: all garbage, by process {}, which stands at version {} and not {version}",
            reader.process, reader.version
        ))?;
    }
    Ok(())
}

fn tell_logs(report: &Report, output: &mut Output) -> Result<(), Problem> {
    if report.logs.is_empty() {
        return output.line("\nno logs");
    }
    let head = [
        "log",
        "start",
        "end",
        "in the tree",
        "levels",
        "slabs",
        "slab bytes",
        "tail",
        "in the journal",
    ];
    let mut table = Table::new(1, &head);
    for log in report.logs.values() {
        table.row(vec![
            shown_name(log),
            log.start.to_string(),
            log.end.to_string(),
            log.tree_end.to_string(),
            log.tree_levels.to_string(),
            log.slabs.to_string(),
            Size(log.slab_bytes).to_string(),
            Size(log.tail_bytes).to_string(),
            Size(log.journal_bytes).to_string(),
        ]);
    }
    output.line(format_args!("\n{table}"))
}

/// The log's name, and for a named snapshot its label.
fn shown_name(log: &LogReport) -> String {
    match log.snapshot.as_deref() {
        None => log.name.clone(),
        Some("") => format!("{} (history)", log.name),
        Some(label) => format!("{} (snapshot {label:?})", log.name),
    }
}
