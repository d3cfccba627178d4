//! What stands behind the place where the journal cannot be read on: nothing, or proof that something durable is missing.

use std::collections::BTreeMap;

use lanterman_format::scan::{Behind, resumes_at};
use lanterman_format::{CommitView, FileKind, SegmentId, StoreId, Version};

use super::journal::{End, readable_commit};
use super::{Checker, finding_in, missing};
use crate::check::report::{DamageKind, Finding, Hole, LogReport, LostMessages};
use crate::files::{FIRST_BLOCK, STEP};
use crate::problem::Problem;

impl Checker<'_> {
    /// Where the journal goes on behind a hole; `None` where nothing proves that there is one. Tells a torn end from
    /// damage as recovery does: damage is where a whole commit knows the missing version to have been durable.
    pub(super) fn behind_the_end(
        &self,
        store: StoreId,
        end: &End,
        wanted: Version,
    ) -> Result<Option<End>, Problem> {
        let behind = self.commits_behind(store, end, wanted)?;
        Ok(resumes_at(&behind, wanted).map(|first| {
            let (segment, position) = first.place;
            End {
                segment,
                position,
                version: Version::new(first.version.get().saturating_sub(1)),
                header_crc: first.previous_crc,
            }
        }))
    }

    fn commits_behind(
        &self,
        store: StoreId,
        end: &End,
        wanted: Version,
    ) -> Result<Vec<Behind<(SegmentId, u64)>>, Problem> {
        let mut found = Vec::new();
        for segment in self.files.journals_from(end.segment) {
            if !segment.is_sound() && segment.generation.is_none() {
                continue;
            }
            let mut position = if segment.id == end.segment {
                end.position
            } else {
                FIRST_BLOCK
            };
            while position < segment.bytes {
                let mut step = STEP;
                if let Some((header, bytes)) = readable_commit(segment, store, position)? {
                    step = u64::from(header.block_bytes).next_multiple_of(STEP);
                    if header.identity.version > wanted
                        && let Ok(view) = CommitView::parse(&bytes, &header)
                    {
                        found.push(Behind {
                            place: (segment.id, position),
                            version: header.identity.version,
                            header_crc: header.header_crc,
                            previous_crc: view.previous_crc(),
                            durable_version: view.durable_version(),
                        });
                    }
                }
                position += step;
            }
        }
        Ok(found)
    }

    /// Notes the hole; from here on the end of every log is in doubt.
    pub(super) fn hole(&mut self, end: &End, resume: &End, reason: &str) {
        let hole = Hole {
            segment: end.segment,
            position: end.position,
            first: Version::new(end.version.get().saturating_add(1)),
            last: resume.version,
            reason: reason.to_owned(),
            lost: Vec::new(),
        };
        self.report.journal.holes.push(hole);
        let number = self.report.journal.holes.len() - 1;
        // Nothing is ever added to a named snapshot.
        let growing = |(_, log): &(&u64, &LogReport)| log.snapshot.is_none();
        for (log, _) in self.report.logs.iter().filter(growing) {
            self.doubts.entry(*log).or_insert(number);
        }
    }

    /// Notes what a log lost before offsets that a commit behind a hole brings.
    pub(super) fn lost_before(&mut self, id: u64, first: u64, end: u64) {
        let (log, number, lost) = match self.report.logs.get_mut(&id) {
            Some(log) => {
                let Some(number) = self.doubts.remove(&id) else {
                    return;
                };
                let lost = log.end..first;
                if lost.is_empty() {
                    return;
                }
                log.end = first;
                (log.name.clone(), number, lost)
            }
            // Its creation is lost, and its name with it.
            None => {
                let Some(number) = self.report.journal.holes.len().checked_sub(1) else {
                    return;
                };
                (format!("number {id}, whose name is lost"), number, first..end)
            }
        };
        let hole = self.report.journal.holes.get_mut(number);
        hole.into_iter().for_each(|hole| {
            hole.lost.push(LostMessages {
                log: log.clone(),
                first: lost.start,
                end: Some(lost.end),
            });
        });
    }

    /// At the true end: ends that nothing vouches for, and a finding for each log that a hole concerns.
    pub(super) fn doubtful_ends(&mut self) {
        for (id, number) in std::mem::take(&mut self.doubts) {
            let (Some(log), Some(hole)) = (
                self.report.logs.get(&id),
                self.report.journal.holes.get_mut(number),
            ) else {
                continue;
            };
            hole.lost.push(LostMessages {
                log: log.name.clone(),
                first: log.end,
                end: None,
            });
        }
        let findings: Vec<Finding> = self
            .report
            .journal
            .holes
            .iter()
            .flat_map(|hole| self.findings_of(hole))
            .collect();
        self.report.damage.extend(findings);
    }

    fn findings_of(&self, hole: &Hole) -> Vec<Finding> {
        let detail = format!(
            "versions {} to {} were durable and are not whole: {}",
            hole.first, hole.last, hole.reason
        );
        let finding = match self.files.get(hole.segment, FileKind::Journal) {
            Some(file) => finding_in(DamageKind::Journal, file, hole.position, detail),
            None => missing(hole.segment.get(), FileKind::Journal, detail),
        };
        let mut logs: BTreeMap<&str, Vec<Finding>> = BTreeMap::new();
        for lost in &hole.lost {
            let mut own = Finding {
                log: Some(lost.log.clone()),
                offsets: lost.end.map(|end| lost.first..end),
                ..finding.clone()
            };
            if lost.end.is_none() {
                own.detail = format!(
                    "{}; messages from offset {} on may be lost",
                    own.detail, lost.first
                );
            }
            logs.entry(lost.log.as_str()).or_default().push(own);
        }
        if logs.is_empty() {
            return vec![finding];
        }
        logs.into_values().flatten().collect()
    }

    /// What looks like the missing commit and is not whole, with nothing behind it that knew it durable.
    pub(super) fn torn_end(&mut self, end: &End, wanted: Version, resembles: Option<String>) {
        let Some(resembles) = resembles else { return };
        let (segment, position) = (end.segment.get(), end.position);
        self.report.note(format!(
            "the journal ends at {segment:016x}.journal, position {position}, where version {wanted} is not whole \
             ({resembles}): a commit that was cut off before anybody was told that it is durable, or damage to the \
             very last commit; the two cannot be told apart"
        ));
    }
}
