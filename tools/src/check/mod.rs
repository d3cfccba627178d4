//! Walks everything that the newest checkpoint and the journal behind it refer to, and goes on behind damage.
//!
//! The walk sees only what the format promises; it shares no code with the engine but the decoders, so that a mistake
//! of the engine's own reading does not hide itself.

mod changes;
mod hole;
mod journal;
mod names;
pub(crate) mod report;
mod segments;
mod slab;
pub(crate) mod space;
mod tree;

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::Path;

use lanterman_format::block::{Place, decode_block_header};
use lanterman_format::catalog::{CatalogEntry, decode_page};
use lanterman_format::root_slot::{ROOT_SLOT_BYTES, choose};
use lanterman_format::settings::Settings;
use lanterman_format::{
    BlockHeader, Checkpoint, FileKind, FormatError, FormatVersion, Found, Reference, RootSlot, Structure,
};

use crate::check::report::{DamageKind, Finding, LogReport, Report};
use crate::files::{RootBytes, STEP, SegmentFile, StoreFiles, check_is_store};
use crate::problem::Problem;
use crate::progress::Progress;

/// How often a check begins anew when a running writer has made a checkpoint under it.
const ATTEMPTS: u32 = 5;

/// How much is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    /// Root, checkpoint, catalog, nodes and journal.
    Structure,
    /// Also every slab with all its messages.
    Everything,
}

/// Checks the store in `path`.
pub(crate) fn check(path: &Path, depth: Depth, progress: &mut Progress) -> Result<Report, Problem> {
    check_is_store(path)?;
    let mut attempt = 1;
    loop {
        let root = RootBytes::read(path)?;
        let newest = choose_slot(path, &root)?;
        let report = Checker::new(path, depth, newest.as_ref(), progress)?.run(&root)?;
        // Beside a running writer a checkpoint may have made room of what was being read, and a commit may have been
        // written after its place was looked at and before the places behind it were: a second look tells.
        let now = choose_slot(path, &RootBytes::read(path)?)?;
        let moved = now.map(|slot| slot.sequence) != newest.map(|slot| slot.sequence);
        let hole = !report.journal.holes.is_empty() && attempt == 1;
        if report.damage.is_empty() || !(moved || hole) || attempt >= ATTEMPTS {
            return Ok(report);
        }
        attempt += 1;
    }
}

fn choose_slot(path: &Path, root: &RootBytes) -> Result<Option<RootSlot>, Problem> {
    let [first, second] = &root.slots;
    choose(first, second).map_err(|rule| {
        let supported_major = u64::from(FormatVersion::CURRENT.major);
        lanterman::Error::NewerFormat {
            path: path.join("root"),
            found_major: rule.found,
            supported_major,
        }
        .into()
    })
}

/// One walk.
pub(crate) struct Checker<'a> {
    files: StoreFiles,
    slot: Option<RootSlot>,
    depth: Depth,
    progress: &'a mut Progress,
    report: Report,
    /// Places of tails that must stand in gathered blocks, and the log of each.
    tails: Vec<(Reference, u64)>,
    /// Blocks that were counted as live, and their bytes: several logs may share one, and several parts of a log.
    counted: BTreeMap<(u64, u64), u64>,
    /// Segments that the checkpoint lists and that are not there.
    absent: Vec<(u64, FileKind)>,
    /// Slabs and subtrees that were found whole: what is shared is read once.
    whole_slabs: HashMap<Reference, u64>,
    whole_subtrees: HashMap<Reference, tree::Subtree>,
    /// Logs of which nothing was seen behind a hole of the journal, and the number of the hole.
    doubts: BTreeMap<u64, usize>,
}

impl<'a> Checker<'a> {
    fn new(
        path: &Path,
        depth: Depth,
        slot: Option<&RootSlot>,
        progress: &'a mut Progress,
    ) -> Result<Self, Problem> {
        let files = StoreFiles::open(path, slot.map(|slot| &slot.store))?;
        Ok(Checker {
            files,
            slot: slot.copied(),
            depth,
            progress,
            report: Report::default(),
            tails: Vec::new(),
            counted: BTreeMap::new(),
            absent: Vec::new(),
            whole_slabs: HashMap::new(),
            whole_subtrees: HashMap::new(),
            doubts: BTreeMap::new(),
        })
    }

    fn run(mut self, root: &RootBytes) -> Result<Report, Problem> {
        self.root_slots(root);
        self.segment_headers();
        let Some(slot) = self.slot else {
            return Ok(self.report);
        };
        self.report.store_id = slot.store.to_string();
        self.report.format = format!("{}.{}", slot.format.major, slot.format.minor);
        self.report.root_sequence = slot.sequence.get();
        self.report.checkpoint_version = slot.version.get();
        self.report.version = slot.version.get();
        let checkpoint = if slot.checkpoint.is_empty() {
            None
        } else {
            self.checkpoint(&slot)?
        };
        if checkpoint.is_some() || slot.checkpoint.is_empty() {
            self.journal(&slot, checkpoint.as_ref())?;
        }
        if self.depth == Depth::Everything {
            self.gathered(slot.store)?;
        }
        self.absent_segments();
        self.space()?;
        Ok(self.report)
    }

    /// Segments that the checkpoint lists and that are not there. A collection removes segments of slabs to which nothing
    /// refers any more, and writes no checkpoint for it.
    fn absent_segments(&mut self) {
        for (segment, kind) in std::mem::take(&mut self.absent) {
            let mut blocks = self.counted.range((segment, 0)..=(segment, u64::MAX));
            if kind == FileKind::Slabs && blocks.next().is_none() {
                continue;
            }
            let detail = "the checkpoint lists a segment that is not there".to_owned();
            self.report.find(missing(segment, kind, detail));
        }
    }

    fn root_slots(&mut self, root: &RootBytes) {
        for (number, found) in root.slots.iter().enumerate() {
            self.report.checked.root_slots += 1;
            let detail = match found {
                Found::Valid(slot) if self.slot.is_some_and(|newest| newest.store != slot.store) => {
                    "the two slots belong to different stores".to_owned()
                }
                Found::Valid(_) => continue,
                Found::Empty => "the slot is empty".to_owned(),
                Found::Invalid(rule) => rule.to_string(),
            };
            let position = (number * ROOT_SLOT_BYTES) as u64;
            let mut finding = finding(DamageKind::RootSlot, "root".to_owned(), position, detail);
            if self.slot.is_none() {
                finding.detail.push_str(
                    "; no slot of the two is whole, so nothing says where the newest checkpoint is",
                );
            }
            self.report.find(finding);
        }
        if root.bytes.len() > ROOT_SLOT_BYTES * 2 {
            self.report
                .note("the root file is longer than it should be; nothing reads what is too much".to_owned());
        }
    }

    /// The checkpoint, its catalog, and all that the catalog refers to.
    fn checkpoint(&mut self, slot: &RootSlot) -> Result<Option<Checkpoint>, Problem> {
        let read = self.referred(&slot.checkpoint, DamageKind::Checkpoint, None, None)?;
        let Some(checkpoint) = read.and_then(|bytes| {
            self.decoded(
                &bytes,
                &slot.checkpoint,
                DamageKind::Checkpoint,
                Checkpoint::decode,
            )
        }) else {
            return Ok(None);
        };
        self.live(&slot.checkpoint);
        let agrees = checkpoint.version == slot.version
            && checkpoint.journal_segment == slot.journal_segment
            && checkpoint.journal_position == slot.journal_position;
        if !agrees {
            let detail =
                "root slot and checkpoint name different versions or places of the journal".to_owned();
            self.report
                .find(finding_at(DamageKind::Disagreement, &slot.checkpoint, detail));
        }
        for known in &checkpoint.segments {
            let used = self.report.used_bytes.entry(known.segment.get()).or_default();
            *used = (*used).max(known.used_bytes.get());
            if !known.free && self.files.get(known.segment, known.kind.into()).is_none() {
                self.absent.push((known.segment.get(), known.kind.into()));
            }
        }
        let mut named = names::Named::default();
        for (number, reference) in checkpoint.pages.iter().enumerate() {
            let read = self.referred(reference, DamageKind::CatalogPage, None, None)?;
            let page =
                read.and_then(|bytes| self.decoded(&bytes, reference, DamageKind::CatalogPage, decode_page));
            let Some(page) = page else { continue };
            self.live(reference);
            self.report.checked.catalog_pages += 1;
            let told = checkpoint
                .index
                .as_ref()
                .and_then(|index| index.pages.get(number));
            self.told_page(reference, told, &page);
            for entry in &page.entries {
                self.log(entry)?;
                named.add(entry);
            }
        }
        self.names(&slot.checkpoint, checkpoint.index.as_ref(), &named)?;
        Ok(Some(checkpoint))
    }

    fn log(&mut self, entry: &CatalogEntry) -> Result<(), Problem> {
        let (start, tree_end, end) = (
            entry.start_offset.get(),
            entry.tree_end.get(),
            entry.end_offset.get(),
        );
        let report = LogReport {
            start,
            end,
            tree_end,
            snapshot: snapshot_label(&entry.settings),
            checkpoint_end: end,
            tail_bytes: entry.tail.bytes.get(),
            ..LogReport::new(entry.log.get(), entry.name.as_str())
        };
        self.report.logs.insert(report.id, report);
        self.tree(entry.log.get(), &entry.tree, start..tree_end)?;
        // What is wrong with settings was told where they were read.
        for run in Settings::decode(&entry.settings).unwrap_or_default().key_runs {
            self.tree(entry.log.get(), &run.tree, 0..run.page_count)?;
        }
        if entry.tail.is_empty() {
            if tree_end != end {
                let finding = finding(
                    DamageKind::Disagreement,
                    "catalog".to_owned(),
                    0,
                    format!("the tree ends at offset {tree_end}, and nothing holds what follows"),
                );
                self.report.find(Finding {
                    log: Some(entry.name.as_str().to_owned()),
                    offsets: Some(tree_end..end),
                    ..finding
                });
            }
            return Ok(());
        }
        self.tails.push((entry.tail, entry.log.get()));
        self.slab(entry.log.get(), &entry.tail, 0, tree_end..end)
    }

    /// The bytes of a block that something refers to, if its segment has them.
    fn referred(
        &mut self,
        reference: &Reference,
        kind: DamageKind,
        log: Option<u64>,
        offsets: Option<Range<u64>>,
    ) -> Result<Option<Vec<u8>>, Problem> {
        let name = log.and_then(|log| self.report.name_of(log));
        let found = |mut finding: Finding| {
            finding.log = name.clone();
            finding.offsets = offsets.clone();
            finding
        };
        let Some(segment) = self.files.get(reference.segment, FileKind::Slabs) else {
            let detail = format!("the {} at position {} is in it", kind.words(), reference.position);
            self.report
                .find(found(missing(reference.segment.get(), FileKind::Slabs, detail)));
            return Ok(None);
        };
        if segment
            .generation
            .is_some_and(|generation| generation != reference.generation)
        {
            let detail = "the segment is in another life than the reference".to_owned();
            self.report.find(found(finding_at(kind, reference, detail)));
            return Ok(None);
        }
        let mut bytes = Vec::new();
        segment.read(reference.position.get(), reference.bytes.get(), &mut bytes)?;
        self.report.checked.bytes += bytes.len() as u64;
        self.progress.advance(bytes.len() as u64);
        if (bytes.len() as u64) < reference.bytes.get() {
            let detail = format!(
                "the file ends {} bytes before it does",
                reference.bytes.get() - bytes.len() as u64
            );
            self.report.find(found(finding_at(kind, reference, detail)));
            return Ok(None);
        }
        Ok(Some(bytes))
    }

    /// The structure that a reference names, decoded.
    fn decoded<T>(
        &mut self,
        bytes: &[u8],
        reference: &Reference,
        kind: DamageKind,
        decode: impl FnOnce(&[u8], &Place) -> Found<T>,
    ) -> Option<T> {
        match self.try_decode(bytes, reference, decode) {
            Ok(value) => Some(value),
            Err(rule) => {
                self.report.find(finding_at(kind, reference, rule.to_string()));
                None
            }
        }
    }

    fn try_decode<T>(
        &self,
        bytes: &[u8],
        reference: &Reference,
        decode: impl FnOnce(&[u8], &Place) -> Found<T>,
    ) -> Result<T, FormatError> {
        let store = self.slot.map(|slot| slot.store).unwrap_or_default();
        let place = reference.place(store);
        let header: BlockHeader = decode_block_header(bytes, &place).into_result(Structure::BlockHeader)?;
        reference.check(&header)?;
        decode(bytes, &place).into_result(Structure::BlockHeader)
    }

    /// Counts a block that is referred to, once.
    fn live(&mut self, reference: &Reference) {
        let segment = reference.segment.get();
        let place = (segment, reference.position.get());
        if self.counted.insert(place, reference.bytes.get()).is_some() {
            return;
        }
        // What a reference says is under a checksum, and may still be anything.
        let end = reference.position.get().saturating_add(reference.bytes.get());
        let live = self.report.live_bytes.entry(segment).or_default();
        *live = live.saturating_add(reference.bytes.get());
        let used = self.report.used_bytes.entry(segment).or_default();
        *used = (*used).max(end.checked_next_multiple_of(STEP).unwrap_or(end));
    }
}

/// The label that the settings of a named snapshot have.
fn snapshot_label(settings: &[u8]) -> Option<String> {
    let settings = Settings::decode(settings).ok()?;
    Some(settings.snapshot?.label)
}

/// A finding without a segment, a log or offsets.
fn finding(kind: DamageKind, file: String, position: u64, detail: String) -> Finding {
    Finding {
        kind,
        file,
        segment: None,
        position,
        log: None,
        offsets: None,
        detail,
    }
}

/// A finding about the block that a reference names.
fn finding_at(kind: DamageKind, reference: &Reference, detail: String) -> Finding {
    let name = lanterman_format::name::segment_file_name(reference.segment, FileKind::Slabs);
    let segment = Some(reference.segment.get());
    Finding {
        segment,
        ..finding(kind, format!("segments/{name}"), reference.position.get(), detail)
    }
}

/// A finding about a place of a segment.
fn finding_in(kind: DamageKind, segment: &SegmentFile, position: u64, detail: String) -> Finding {
    Finding {
        segment: Some(segment.id.get()),
        ..finding(kind, segment.name(), position, detail)
    }
}

fn missing(segment: u64, kind: FileKind, detail: String) -> Finding {
    let name = lanterman_format::name::segment_file_name(lanterman_format::SegmentId::new(segment), kind);
    let found = finding(DamageKind::SegmentMissing, format!("segments/{name}"), 0, detail);
    Finding {
        segment: Some(segment),
        ..found
    }
}
