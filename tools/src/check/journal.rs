//! The journal behind the checkpoint, commit by commit, and what stands at its end.

use lanterman_format::block::BLOCK_HEADER_BYTES;
use lanterman_format::{
    BlockHeader, BlockKind, Change, Checkpoint, CommitView, Crc, FileKind, Found, RootSlot, SegmentId,
    StoreId, Version,
};

use super::{Checker, finding_in, missing};
use crate::check::report::{DamageKind, Finding, LogReport};
use crate::files::{FIRST_BLOCK, STEP, SegmentFile};
use crate::problem::Problem;

/// What stands at a place of the journal.
enum At {
    /// A whole commit.
    Whole(BlockHeader, Vec<u8>),
    /// Something else, for this reason; `Some` text if it looks like what was wanted.
    Not(String, Option<String>),
}

/// Where the journal goes on.
#[derive(Clone, Copy)]
pub(super) struct End {
    pub(super) segment: SegmentId,
    pub(super) position: u64,
    pub(super) version: Version,
    pub(super) header_crc: Crc,
}

impl Checker<'_> {
    pub(super) fn journal(
        &mut self,
        slot: &RootSlot,
        checkpoint: Option<&Checkpoint>,
    ) -> Result<(), Problem> {
        let mut end = End {
            segment: slot.journal_segment,
            position: slot.journal_position.get(),
            version: slot.version,
            header_crc: checkpoint.map_or(Crc::ZERO, |checkpoint| checkpoint.last_commit_crc),
        };
        self.report.journal.begin_segment = end.segment.get();
        self.report.journal.begin_position = end.position;
        if self.files.get(end.segment, FileKind::Journal).is_none() {
            let detail = "the journal behind the checkpoint begins in it".to_owned();
            self.report
                .find(missing(end.segment.get(), FileKind::Journal, detail));
        }
        loop {
            let wanted = Version::new(end.version.get().saturating_add(1));
            let (reason, resembles) = match self.next_commit(slot.store, &end, wanted)? {
                Ok((segment, position, header, bytes)) => {
                    self.commit(segment, &header, &bytes)?;
                    let stored = (bytes.len() as u64).next_multiple_of(STEP);
                    end = End {
                        segment,
                        position: position + stored,
                        version: header.identity.version,
                        header_crc: header.header_crc,
                    };
                    self.report.journal.versions += 1;
                    self.report.journal.bytes += stored;
                    self.report.version = end.version.get();
                    continue;
                }
                Err(why) => why,
            };
            match self.behind_the_end(slot.store, &end, wanted)? {
                Some(resume) => {
                    self.hole(&end, &resume, &reason);
                    end = resume;
                }
                None => {
                    self.torn_end(&end, wanted, resembles);
                    break;
                }
            }
        }
        self.report.journal.end_segment = end.segment.get();
        self.report.journal.end_position = end.position;
        self.doubtful_ends();
        Ok(())
    }

    /// The next commit with its place, or why there is none.
    #[allow(clippy::type_complexity, reason = "taken apart right at the call")]
    fn next_commit(
        &mut self,
        store: StoreId,
        end: &End,
        wanted: Version,
    ) -> Result<Result<(SegmentId, u64, BlockHeader, Vec<u8>), (String, Option<String>)>, Problem> {
        let mut why = ("nothing stands there".to_owned(), None);
        for (number, segment) in self.files.journals_from(end.segment).into_iter().enumerate() {
            let here = segment.id == end.segment;
            if !segment.is_sound() {
                continue;
            }
            let position = if here { end.position } else { FIRST_BLOCK };
            match commit_at(segment, store, position, Some((wanted, end.header_crc)))? {
                At::Whole(header, bytes) => return Ok(Ok((segment.id, position, header, bytes))),
                At::Not(reason, resembles) if number == 0 || resembles.is_some() => why = (reason, resembles),
                At::Not(..) => {}
            }
        }
        Ok(Err(why))
    }

    /// Takes up what a commit says, and checks that it fits what was there.
    fn commit(&mut self, segment: SegmentId, header: &BlockHeader, bytes: &[u8]) -> Result<(), Problem> {
        self.report.checked.commit_blocks += 1;
        self.report.checked.bytes += bytes.len() as u64;
        self.progress.advance(bytes.len() as u64);
        let position = header.identity.position.get();
        let Ok(view) = CommitView::parse(bytes, header) else {
            return Ok(());
        };
        let mut later = Vec::new();
        for change in view.changes().flatten() {
            match change {
                Change::CreateLog { log, name, .. } => {
                    self.report
                        .logs
                        .insert(log.get(), LogReport::new(log.get(), name));
                }
                change => later.push(change),
            }
        }
        for adoption in view.adoptions() {
            let (first, end) = (
                adoption.first_offset.get(),
                adoption.first_offset.get() + adoption.offset_count,
            );
            let id = adoption.log.get();
            self.lost_before(id, first, end);
            let is_behind_a_hole = !self.report.journal.holes.is_empty();
            match self.report.logs.get_mut(&id) {
                Some(log) if first <= log.tree_end.max(log.shared_end) || is_behind_a_hole => {
                    log.tree_end = end;
                    log.end = log.end.max(end);
                }
                None if is_behind_a_hole => {}
                _ => self.contradiction(segment, position, id, first..end),
            }
            self.slab(id, &adoption.slab, adoption.skip, first..end)?;
        }
        for frame in view.frames() {
            self.report.checked.frames += 1;
            let description = frame.description;
            let (first, end) = (
                description.first_offset.get(),
                description.first_offset.get() + description.offset_count,
            );
            let body = frame.body.unwrap_or_default();
            let buffers = lanterman_format::buffer::walk(body).try_fold(0u64, |count, step| {
                step.and_then(|(_, buffer)| buffer.validate().map(|()| count + buffer.count()))
            });
            self.lost_before(description.log.get(), first, end);
            match self.report.logs.get_mut(&description.log.get()) {
                None if !self.report.journal.holes.is_empty() => {}
                Some(log) if first <= log.end && buffers == Ok(description.offset_count) => {
                    self.report.checked.messages += description.offset_count;
                    log.end = log.end.max(end);
                    log.journal_bytes += body.len() as u64;
                }
                _ => self.contradiction(segment, position, description.log.get(), first..end),
            }
        }
        for change in later {
            if let Change::Replace {
                log,
                first,
                end,
                slab,
            } = &change
            {
                self.slab(log.get(), slab, 0, first.get()..end.get())?;
            }
            self.edit(segment, position, &change);
        }
        Ok(())
    }

    pub(super) fn contradiction(
        &mut self,
        segment: SegmentId,
        position: u64,
        log: u64,
        offsets: std::ops::Range<u64>,
    ) {
        let detail = format!("a commit of log {log} does not fit what is there of it");
        let Some(file) = self.files.get(segment, FileKind::Journal) else {
            return;
        };
        let finding = finding_in(DamageKind::Disagreement, file, position, detail);
        let log = self.report.name_of(log);
        self.report.find(Finding {
            log,
            offsets: Some(offsets),
            ..finding
        });
    }
}

/// A commit block whose directory is whole; its bodies may not be.
pub(super) fn readable_commit(
    segment: &SegmentFile,
    store: StoreId,
    position: u64,
) -> Result<Option<(BlockHeader, Vec<u8>)>, Problem> {
    let Found::Valid(header) = segment.block(store, position)? else {
        return Ok(None);
    };
    if header.kind != BlockKind::Commit {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    segment.read(position, u64::from(header.block_bytes), &mut bytes)?;
    Ok(CommitView::parse(&bytes, &header)
        .is_ok()
        .then_some((header, bytes)))
}

/// What stands at a place, compared with the version that must follow.
fn commit_at(
    segment: &SegmentFile,
    store: StoreId,
    position: u64,
    wanted: Option<(Version, Crc)>,
) -> Result<At, Problem> {
    let mut bytes = Vec::new();
    segment.read(position, BLOCK_HEADER_BYTES as u64, &mut bytes)?;
    let resembles = |rule: &str| {
        wanted
            .filter(|(wanted, _)| is_alike(&bytes, segment, position, *wanted))
            .map(|_| rule.to_owned())
    };
    let header = match segment.block(store, position)? {
        Found::Valid(header) => header,
        Found::Empty => return Ok(At::Not("nothing stands there".to_owned(), None)),
        Found::Invalid(rule) => {
            let rule = rule.to_string();
            let alike = resembles(&rule);
            return Ok(At::Not(rule, alike));
        }
    };
    let version = header.identity.version;
    if header.kind != BlockKind::Commit || wanted.is_some_and(|(wanted, _)| wanted != version) {
        return Ok(At::Not(
            format!("a block of version {version} stands there"),
            None,
        ));
    }
    segment.read(position, u64::from(header.block_bytes), &mut bytes)?;
    let broken = match CommitView::parse(&bytes, &header) {
        Err(rule) => Some(rule.to_string()),
        Ok(view) => {
            if wanted.is_some_and(|(_, chained)| view.previous_crc() != chained) {
                return Ok(At::Not(
                    "the commit there follows another one than the last".to_owned(),
                    None,
                ));
            }
            view.frames()
                .find_map(|frame| frame.body.err())
                .map(|rule| rule.to_string())
        }
    };
    Ok(match broken {
        Some(rule) => At::Not(rule.clone(), Some(rule)),
        None => At::Whole(header, bytes),
    })
}

/// Whether what stands there may once have been the block that was looked for: most of its fields say so. Blocks of an
/// earlier life of the file, which stand behind the end of every journal, name another segment, life and version.
fn is_alike(bytes: &[u8], segment: &SegmentFile, position: u64, wanted: Version) -> bool {
    let word = |at: usize| {
        bytes
            .get(at..at + 8)
            .and_then(|word| word.first_chunk::<8>())
            .map(|word| u64::from_le_bytes(*word))
    };
    let half = |at: usize| {
        bytes
            .get(at..at + 4)
            .and_then(|half| half.first_chunk::<4>())
            .map(|half| u32::from_le_bytes(*half))
    };
    let signs = [
        word(16) == Some(segment.id.get()),
        word(24) == Some(position),
        word(32) == Some(wanted.get()),
        half(40) == segment.generation.map(|generation| generation.get()),
    ];
    signs.iter().filter(|sign| **sign).count() >= 3
}
