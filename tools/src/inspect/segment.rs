//! One segment file, block by block.

use std::path::Path;

use lanterman_format::catalog::decode_page;
use lanterman_format::{
    BlockHeader, BlockKind, Change, Checkpoint, CommitView, FileKind, Found, Place, RootSlot, SegmentHeader,
    SlabLayout, StoreId, gathered, node,
};
use serde::Serialize;

use crate::files::{FIRST_BLOCK, RootBytes, STEP, SegmentFile};
use crate::output::Output;
use crate::problem::{Outcome, Problem};
use crate::text::Size;

/// Slabs that stand in a gathered block begin at multiples of this.
const GATHERED_STEP: usize = 64;

#[derive(Serialize)]
struct HeaderRow {
    file: String,
    segment: u64,
    kind: &'static str,
    state: String,
    store_id: Option<String>,
    format: Option<String>,
    generation: Option<u32>,
    segment_bytes: Option<u64>,
    first_version: Option<u64>,
    file_bytes: u64,
}

/// A block, a part of one, or a stretch without any.
#[derive(Default, Serialize)]
struct Row {
    position: u64,
    bytes: u64,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    log: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offsets: Option<std::ops::Range<u64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    damage: Option<String>,
}

pub(super) fn show(path: &Path, json: bool, output: &mut Output) -> Result<Outcome, Problem> {
    let segment = SegmentFile::open(path, None)?;
    let segment = segment.ok_or_else(|| Problem::Call(format!("{} does not exist", path.display())))?;
    let header = segment.header.valid();
    // The header of a damaged segment may still be replaced by what the store beside it says.
    let store = header.map(|header| header.store).or_else(|| store_beside(path));
    let segment = match (header, &store) {
        (None, Some(store)) => SegmentFile::open(path, Some(store))?.unwrap_or(segment),
        _ => segment,
    };
    tell_header(&segment, header.as_ref(), json, output)?;
    let mut outcome = if segment.is_sound() || segment.kind == FileKind::Free {
        Outcome::Well
    } else {
        Outcome::Found
    };
    let Some(store) = store else { return Ok(outcome) };
    let mut position = FIRST_BLOCK;
    let mut nothing_since: Option<u64> = None;
    let mut bytes = Vec::new();
    while position < segment.bytes {
        let Found::Valid(block) = segment.block(store, position)? else {
            nothing_since.get_or_insert(position);
            position += STEP;
            continue;
        };
        if let Some(from) = nothing_since.take() {
            tell_row(&nothing(from, position), json, output)?;
        }
        segment.read(position, u64::from(block.block_bytes), &mut bytes)?;
        if let Some(place) = segment.place(store, position) {
            for row in rows(&block, &bytes, &place) {
                if row.damage.is_some() {
                    outcome = Outcome::Found;
                }
                tell_row(&row, json, output)?;
            }
        }
        position += u64::from(block.block_bytes).next_multiple_of(STEP);
    }
    if let Some(from) = nothing_since {
        tell_row(&nothing(from, segment.bytes), json, output)?;
    }
    Ok(outcome)
}

fn store_beside(path: &Path) -> Option<StoreId> {
    let root = RootBytes::read(path.parent()?.parent()?).ok()?;
    root.slots
        .iter()
        .find_map(|slot: &Found<RootSlot>| slot.valid())
        .map(|slot| slot.store)
}

fn nothing(from: u64, to: u64) -> Row {
    let detail = Some("no block of this life of the file".to_owned());
    Row {
        position: from,
        bytes: to - from,
        kind: "unused",
        detail,
        ..Row::default()
    }
}

fn tell_header(
    segment: &SegmentFile,
    header: Option<&SegmentHeader>,
    json: bool,
    output: &mut Output,
) -> Result<(), Problem> {
    let state = match (&segment.header, &segment.misfit) {
        (Found::Valid(_), None) => "valid".to_owned(),
        (Found::Valid(_), Some(rule)) | (Found::Invalid(rule), _) => rule.to_string(),
        (Found::Empty, _) => "all zeros".to_owned(),
    };
    let row = HeaderRow {
        file: segment.path.display().to_string(),
        segment: segment.id.get(),
        kind: match segment.kind {
            FileKind::Journal => "journal",
            FileKind::Slabs => "slabs",
            FileKind::Free => "spare",
        },
        state,
        store_id: header.map(|header| header.store.to_string()),
        format: header.map(|header| format!("{}.{}", header.format.major, header.format.minor)),
        generation: segment.generation.map(|generation| generation.get()),
        segment_bytes: header.map(|header| header.segment_bytes.get()),
        first_version: header.map(|header| header.first_version.get()),
        file_bytes: segment.bytes,
    };
    if json {
        return output.json(&row);
    }
    output.line(format_args!(
        "segment {:016x}, {}, {}, generation {}, store {}, header {}",
        row.segment,
        row.kind,
        Size(row.file_bytes),
        row.generation
            .map_or_else(|| "unknown".to_owned(), |generation| generation.to_string()),
        row.store_id.as_deref().unwrap_or("unknown"),
        row.state,
    ))
}

fn tell_row(row: &Row, json: bool, output: &mut Output) -> Result<(), Problem> {
    if json {
        return output.json(row);
    }
    let mut line = format!("{:>12}  {:>10}  {:<12}", row.position, Size(row.bytes), row.kind);
    if let Some(version) = row.version {
        line.push_str(&format!("  version {version}"));
    }
    if let Some(log) = row.log {
        line.push_str(&format!("  log {log}"));
    }
    if let Some(offsets) = &row.offsets {
        line.push_str(&format!("  offsets {}..{}", offsets.start, offsets.end));
    }
    if let Some(detail) = &row.detail {
        line.push_str(&format!("  {detail}"));
    }
    if let Some(damage) = &row.damage {
        line.push_str(&format!("  DAMAGED: {damage}"));
    }
    output.line(line)
}

/// A block, and what is in it.
fn rows(block: &BlockHeader, bytes: &[u8], place: &Place) -> Vec<Row> {
    let row = Row {
        position: place.position.get(),
        bytes: u64::from(block.block_bytes),
        version: Some(block.identity.version.get()),
        ..Row::default()
    };
    match block.kind {
        BlockKind::Commit => commit_rows(block, bytes, row),
        BlockKind::Slab => vec![slab_row(bytes, place, row)],
        BlockKind::Gathered => gathered_rows(bytes, place, row),
        BlockKind::Node => vec![told(row, "node", node::decode(bytes, place), |parts| {
            format!(
                "level {}, {} entries, {} offsets",
                parts.level,
                parts.entries.len(),
                parts.offset_count()
            )
        })],
        BlockKind::CatalogPage => vec![told(row, "catalog page", decode_page(bytes, place), |page| {
            format!("page {}, {} logs", page.page, page.entries.len())
        })],
        BlockKind::Checkpoint => vec![told(
            row,
            "checkpoint",
            Checkpoint::decode(bytes, place),
            |checkpoint| {
                let names = match &checkpoint.index {
                    Some(index) => format!("{} runs of names", index.names.len()),
                    None => "no index of names".to_owned(),
                };
                format!(
                    "{} catalog pages, {names}, {} segments; the journal goes on in {:016x} at {}",
                    checkpoint.pages.len(),
                    checkpoint.segments.len(),
                    checkpoint.journal_segment.get(),
                    checkpoint.journal_position
                )
            },
        )],
        BlockKind::Garbage => vec![Row {
            kind: "garbage page",
            ..row
        }],
    }
}

fn told<T>(row: Row, kind: &'static str, found: Found<T>, tell: impl FnOnce(&T) -> String) -> Row {
    match found {
        Found::Valid(value) => Row {
            kind,
            detail: Some(tell(&value)),
            ..row
        },
        Found::Invalid(rule) => Row {
            kind,
            damage: Some(rule.to_string()),
            ..row
        },
        Found::Empty => Row {
            kind,
            damage: Some("it is all zeros".to_owned()),
            ..row
        },
    }
}

fn slab_row(bytes: &[u8], place: &Place, row: Row) -> Row {
    match SlabLayout::parse(bytes, place) {
        Found::Valid(layout) => {
            let first = layout.first_offset().get();
            let detail = format!(
                "{} {} in {} groups, {} of values, index {:?}",
                layout.entry_count(),
                if layout.is_compressed() {
                    "batches and buffers"
                } else {
                    "buffers"
                },
                layout.group_count(),
                Size(layout.summary().value_bytes),
                layout.index_kind()
            );
            Row {
                kind: "slab",
                log: Some(layout.log().get()),
                offsets: Some(first..first.saturating_add(layout.offset_count())),
                detail: Some(detail.to_lowercase().replace("kib", "KiB").replace("mib", "MiB")),
                damage: layout.verify_all(bytes).err().map(|rule| rule.to_string()),
                ..row
            }
        }
        Found::Invalid(rule) => Row {
            kind: "slab",
            damage: Some(rule.to_string()),
            ..row
        },
        Found::Empty => Row {
            kind: "slab",
            damage: Some("it is all zeros".to_owned()),
            ..row
        },
    }
}

/// The container, then each slab in it.
fn gathered_rows(bytes: &[u8], place: &Place, row: Row) -> Vec<Row> {
    let mut at = gathered::GATHERED_BODY_POSITION;
    let container = told(row, "gathered", gathered::decode(bytes, place), |found| {
        format!("{} tails", found.slab_count)
    });
    let mut rows = vec![container];
    while let Some(rest) = bytes.get(at..).filter(|rest| rest.len() >= 64) {
        let position = lanterman_format::Position::new(place.position.get().saturating_add(at as u64));
        let own = Place { position, ..*place };
        let Found::Valid(header) = lanterman_format::block::decode_block_header(rest, &own) else {
            at += GATHERED_STEP;
            continue;
        };
        let row = Row {
            position: position.get(),
            bytes: u64::from(header.block_bytes),
            version: Some(header.identity.version.get()),
            ..Row::default()
        };
        rows.push(slab_row(rest, &own, row));
        at = at
            .saturating_add(header.block_bytes as usize)
            .next_multiple_of(GATHERED_STEP);
    }
    rows
}

/// The commit, then each frame, adoption and change in it.
fn commit_rows(block: &BlockHeader, bytes: &[u8], row: Row) -> Vec<Row> {
    let start = row.position;
    let view = match CommitView::parse(bytes, block) {
        Ok(view) => view,
        Err(rule) => {
            return vec![Row {
                kind: "commit",
                damage: Some(rule.to_string()),
                ..row
            }];
        }
    };
    let detail = format!(
        "durable up to version {} when written, time {} ms",
        view.durable_version(),
        view.time_ms()
    );
    let mut rows = vec![Row {
        kind: "commit",
        detail: Some(detail),
        ..row
    }];
    for frame in view.frames() {
        let (first, count) = (
            frame.description.first_offset.get(),
            frame.description.offset_count,
        );
        rows.push(Row {
            position: start.saturating_add(u64::from(frame.body_position)),
            bytes: frame.body.map_or(0, |body| body.len() as u64),
            kind: "  frame",
            log: Some(frame.description.log.get()),
            offsets: Some(first..first.saturating_add(count)),
            damage: frame.body.err().map(|rule| rule.to_string()),
            ..Row::default()
        });
    }
    for adoption in view.adoptions() {
        let first = adoption.first_offset.get();
        let slab = adoption.slab;
        let detail = format!("slab at {:016x} position {}", slab.segment.get(), slab.position);
        rows.push(Row {
            position: start,
            bytes: slab.bytes.get(),
            kind: "  adoption",
            log: Some(adoption.log.get()),
            offsets: Some(first..first.saturating_add(adoption.offset_count)),
            detail: Some(detail),
            ..Row::default()
        });
    }
    for change in view.changes().flatten() {
        let (kind, log, detail) = match change {
            Change::CreateLog { log, name, .. } => ("  new log", Some(log.get()), Some(format!("{name:?}"))),
            Change::DropLog { log } => ("  drop log", Some(log.get()), None),
            Change::SetSettings { log, .. } => ("  settings", Some(log.get()), None),
            _ => (
                "  change",
                None,
                Some("of a kind that this version does not know".to_owned()),
            ),
        };
        rows.push(Row {
            position: start,
            kind,
            log,
            detail,
            ..Row::default()
        });
    }
    rows
}
