//! Headers of segments, and the blocks that gather tails.

use lanterman_format::{BlockKind, FileKind, Found, Rule, StoreId, gathered};

use super::{Checker, finding_in};
use crate::check::report::{DamageKind, Finding, ProvenSegment};
use crate::files::{FIRST_BLOCK, STEP, SegmentFile};
use crate::problem::Problem;

/// What the first block proves of a segment whose header is lost. A header that is whole is not replaced, whatever it
/// says: then the file is the wrong one, or was cut short.
fn proven(segment: &SegmentFile, store: StoreId) -> Option<ProvenSegment> {
    let is_newer = matches!(&segment.header, Found::Invalid(error) if error.rule == Rule::NewerVersion);
    if segment.header.is_valid() || is_newer {
        return None;
    }
    let (kind, generation) = (segment.segment_kind()?, segment.generation?);
    let first = segment.block(store, FIRST_BLOCK).ok()?.valid()?;
    Some(ProvenSegment {
        segment: segment.id,
        kind,
        generation,
        first_version: first.identity.version,
    })
}

impl Checker<'_> {
    pub(super) fn segment_headers(&mut self) {
        for segment in self.files.segments.values() {
            if segment.kind == FileKind::Free {
                // One of zeros was never a segment: it keeps room for making room.
                if matches!(segment.header, Found::Invalid(_)) {
                    let name = segment.name();
                    self.report.note(format!("the header of the spare {name} is not whole; nothing reads it, and it is written anew when the file is used"));
                }
                continue;
            }
            self.report.checked.segment_headers += 1;
            let detail = match (&segment.header, &segment.misfit) {
                (Found::Valid(header), None) => {
                    if segment.bytes > header.segment_bytes.get() {
                        let name = segment.name();
                        self.report.note(format!(
                            "{name} is longer than its header says; nothing reads what is too much"
                        ));
                    }
                    continue;
                }
                (Found::Valid(_), Some(rule)) | (Found::Invalid(rule), _) => rule.to_string(),
                (Found::Empty, _) => "it is all zeros".to_owned(),
            };
            self.report
                .find(finding_in(DamageKind::SegmentHeader, segment, 0, detail));
            self.report
                .proven
                .extend(self.slot.and_then(|slot| proven(segment, slot.store)));
        }
        for name in &self.files.foreign {
            self.report.notes.push(format!(
                "segments holds {name:?}, which is no file of a store; it is left alone"
            ));
        }
    }

    /// Looks at the headers of the blocks that gather tails. A tail is found without them, so damage to one hides no
    /// message; but it is damage.
    pub(super) fn gathered(&mut self, store: StoreId) -> Result<(), Problem> {
        let mut bytes = Vec::new();
        let mut found: Vec<(u64, u64, u64)> = Vec::new();
        for segment in self
            .files
            .segments
            .values()
            .filter(|segment| segment.kind == FileKind::Slabs)
        {
            let id = segment.id.get();
            if !self.tails.iter().any(|(tail, _)| tail.segment.get() == id) {
                continue;
            }
            let used = self
                .report
                .used_bytes
                .get(&id)
                .copied()
                .unwrap_or(0)
                .min(segment.bytes);
            let mut position = FIRST_BLOCK;
            while position < used {
                let mut step = STEP;
                if let (Found::Valid(header), Some(place)) =
                    (segment.block(store, position)?, segment.place(store, position))
                {
                    let length = u64::from(header.block_bytes);
                    step = length.next_multiple_of(STEP);
                    if header.kind == BlockKind::Gathered {
                        segment.read(position, length, &mut bytes)?;
                        if gathered::decode(&bytes, &place).is_valid() {
                            self.report.checked.gathered_blocks += 1;
                            found.push((id, position, position + length));
                        }
                    }
                }
                position += step;
            }
        }
        for (tail, log) in std::mem::take(&mut self.tails) {
            let (id, at) = (tail.segment.get(), tail.position.get());
            let inside = found
                .iter()
                .any(|(segment, start, end)| *segment == id && (*start..*end).contains(&at));
            let Some(segment) = self.files.get(tail.segment, FileKind::Slabs) else {
                continue;
            };
            if !inside {
                let detail =
                    "the header of the block that gathers this log's tail is not whole; the tail has its own"
                        .to_owned();
                let finding = finding_in(DamageKind::Gathered, segment, at, detail);
                let log = self.report.name_of(log);
                self.report.find(Finding { log, ..finding });
            }
        }
        Ok(())
    }
}
