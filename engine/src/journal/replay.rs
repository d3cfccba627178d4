//! Reading the journal: block after block from a place, over segments, to its end; and telling a torn end from damage.
//!
//! The end is where no block of the version that must follow stands. It is torn, and everything behind it was never
//! acknowledged as durable, unless a whole block behind it says that the missing version was durable when it was
//! written: then the journal is damaged, and nothing is guessed.

use std::io::ErrorKind;
use std::sync::Arc;

use lanterman_format::block::{
    BLOCK_ALIGNMENT, BLOCK_HEADER_BYTES, BlockHeader, BlockKind, Place, decode_block_header,
};
use lanterman_format::commit::CommitView;
use lanterman_format::error::{FormatError, Found};
use lanterman_format::ids::{Position, SegmentId, Version};
use lanterman_format::segment::SegmentKind;
use lanterman_format::weakened;
use lanterman_format::{SlabLayout, Structure};

use super::JournalEnd;
use crate::error::{Error, Result};
use crate::segment::{FIRST_BLOCK_POSITION, SegmentFile, SegmentTable};
use crate::sys::memory::AlignedBuffer;

/// What is read at once; larger blocks make the window larger.
const WINDOW_BYTES: usize = 1 << 20;

/// Walks the journal from a place on.
#[derive(Debug)]
pub(crate) struct Scan {
    table: Arc<SegmentTable>,
    /// Journal segments that may follow, by number.
    segments: Vec<SegmentId>,
    end: JournalEnd,
    window: Window,
    replayed_bytes: u64,
    /// Whether the end is searched for holes. A reader that follows a writer meets an end after each version, and what
    /// comes behind it is still being written.
    looks_for_holes: bool,
}

#[derive(Debug)]
struct Window {
    buffer: AlignedBuffer,
    segment: Option<SegmentId>,
    start: u64,
    length: usize,
}

/// What the scan found next.
pub(crate) enum Step<'a> {
    /// The next version.
    Version(CommitView<'a>, BlockHeader),
    /// Nothing follows that was ever acknowledged as durable.
    End,
}

/// A whole block: segment, position, header and length.
type FoundBlock = (Arc<SegmentFile>, u64, BlockHeader, usize);

/// What stands at a place of the journal.
enum At {
    Whole(BlockHeader, usize),
    Not(FormatError),
}

impl Scan {
    /// Begins behind `end`; `segments` are the journal segments that exist, in order.
    pub(crate) fn new(table: Arc<SegmentTable>, segments: Vec<SegmentId>, end: JournalEnd) -> Result<Self> {
        let buffer = AlignedBuffer::new(WINDOW_BYTES)
            .map_err(|source| Error::io("allocate a buffer for", table.directory(), source))?;
        let window = Window {
            buffer,
            segment: None,
            start: 0,
            length: 0,
        };
        Ok(Scan {
            table,
            segments,
            end,
            window,
            replayed_bytes: 0,
            looks_for_holes: true,
        })
    }

    /// Where the journal ends, as far as it was read.
    pub(crate) fn end(&self) -> &JournalEnd {
        &self.end
    }

    /// Bytes of the blocks read.
    pub(crate) fn replayed_bytes(&self) -> u64 {
        self.replayed_bytes
    }

    /// Tells which journal segments there are now, and forgets what was read ahead.
    pub(crate) fn look_again(&mut self, segments: Vec<SegmentId>) {
        self.segments = segments;
        self.window.segment = None;
        self.looks_for_holes = false;
    }

    /// For a reader beside a writer: what comes behind the end is still being written.
    pub(crate) fn do_not_look_for_holes(&mut self) {
        self.looks_for_holes = false;
    }

    /// The next version, or the end.
    ///
    /// # Errors
    /// [`Error::Damaged`] where something that was durable is missing.
    pub(crate) fn next(&mut self) -> Result<Step<'_>> {
        let wanted = Version::new(self.end.version.get().saturating_add(1));
        let mut rule = crate::rules::empty(Structure::Commit);
        let mut place = self.find(wanted, &mut rule)?;
        if place.is_none()
            && self.looks_for_holes
            && let Err(error) = self.check_hole(wanted, rule)
        {
            // A running writer may have filled the place before it wrote what stands behind it: what is there now
            // decides.
            self.window.segment = None;
            place = self.find(wanted, &mut rule)?;
            if place.is_none() {
                return Err(error);
            }
        }
        match place {
            Some((segment, position, header, length)) => self.take(segment, position, header, length),
            None => Ok(Step::End),
        }
    }

    /// Where the block of version `wanted` stands; if it is nowhere, `rule` says what stands where the journal ends.
    fn find(&mut self, wanted: Version, rule: &mut FormatError) -> Result<Option<FoundBlock>> {
        if let Some(segment) = self.end.segment.clone() {
            let position = self.end.position;
            match self.at(&segment, position, Some(wanted))? {
                At::Whole(header, length) => return Ok(Some((segment, position, header, length))),
                At::Not(found) => *rule = found,
            }
        }
        for segment in self.following()? {
            if let At::Whole(header, length) = self.at(&segment, FIRST_BLOCK_POSITION, Some(wanted))? {
                return Ok(Some((segment, FIRST_BLOCK_POSITION, header, length)));
            }
        }
        Ok(None)
    }

    fn following(&self) -> Result<Vec<Arc<SegmentFile>>> {
        let behind = |id: &&SegmentId| self.end.segment.as_ref().is_none_or(|segment| **id > segment.id);
        let mut found = Vec::new();
        for id in self.segments.iter().filter(behind) {
            match self.table.get(*id, SegmentKind::Journal) {
                Ok(segment) => found.push(segment),
                // Gone: the checkpoint of a running writer has retired it.
                Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {}
                Err(Error::Damaged(_)) if weakened!("journal-header-ends-it") => {}
                // A segment has its name only once its header is durable. One that cannot be read hides commits, and
                // nothing else need speak of them.
                Err(other) => return Err(other),
            }
        }
        Ok(found)
    }

    fn take(
        &mut self,
        segment: Arc<SegmentFile>,
        position: u64,
        header: BlockHeader,
        length: usize,
    ) -> Result<Step<'_>> {
        let stored = (length as u64).next_multiple_of(BLOCK_ALIGNMENT as u64);
        self.end = JournalEnd {
            segment: Some(segment),
            position: position.saturating_add(stored),
            version: header.identity.version,
            header_crc: header.header_crc,
        };
        self.replayed_bytes = self.replayed_bytes.saturating_add(stored);
        let bytes = self.window.at(position, length).ok_or(Error::Internal {
            what: "a block was read whole",
        })?;
        let view = CommitView::parse(bytes, &header).map_err(|_| Error::Internal {
            what: "a block that was checked parses again",
        })?;
        Ok(Step::Version(view, header))
    }

    /// A whole block at a place: header, directory and bodies; of version `wanted`, and the successor of the last, if
    /// that is asked for.
    fn at(&mut self, segment: &Arc<SegmentFile>, position: u64, wanted: Option<Version>) -> Result<At> {
        let place = Place {
            store: self.table.store(),
            segment: segment.id,
            generation: segment.generation,
            position: Position::new(position),
        };
        let Some(head) = self.window.read(segment, position, BLOCK_HEADER_BYTES)? else {
            return Ok(At::Not(crate::rules::empty(Structure::Commit)));
        };
        let header = match decode_block_header(head, &place) {
            Found::Valid(header) => header,
            Found::Empty => return Ok(At::Not(crate::rules::empty(Structure::Commit))),
            Found::Invalid(rule) => return Ok(At::Not(rule)),
        };
        let length = usize::try_from(header.block_bytes).unwrap_or(usize::MAX);
        if header.kind != BlockKind::Commit {
            return Ok(At::Not(crate::rules::misplaced(
                Structure::Commit,
                BlockKind::Commit as u64,
                header.kind as u64,
            )));
        }
        if let Some(wanted) = wanted.filter(|wanted| *wanted != header.identity.version) {
            return Ok(At::Not(crate::rules::misplaced(
                Structure::Commit,
                wanted.get(),
                header.identity.version.get(),
            )));
        }
        let chained = self.end.header_crc;
        let Some(block) = self.window.read(segment, position, length)? else {
            return Ok(At::Not(crate::rules::truncated(
                Structure::Commit,
                u64::from(header.block_bytes),
                0,
            )));
        };
        match CommitView::parse(block, &header) {
            Err(rule) => Ok(At::Not(rule)),
            Ok(view) => {
                if wanted.is_none() {
                    // Proof of what was durable: header and directory suffice.
                    return Ok(At::Whole(header, length));
                }
                let strange = view.previous_crc() != chained;
                let mut broken = view.frames().find_map(|frame| frame.body.err());
                if broken.is_none() && !strange && !view.adoptions_durable() {
                    broken = torn_slab(&self.table, &view)?;
                }
                match broken {
                    Some(rule) => Ok(At::Not(rule)),
                    // Left over from before the journal was cut here: it follows a version that is gone.
                    None if strange => Ok(At::Not(crate::rules::misplaced(
                        Structure::Commit,
                        u64::from(chained.get()),
                        u64::from(view.previous_crc().get()),
                    ))),
                    None => Ok(At::Whole(header, length)),
                }
            }
        }
    }

    /// Looks behind the end for a block that knows the missing version to have been durable.
    fn check_hole(&mut self, wanted: Version, rule: FormatError) -> Result<()> {
        if weakened!("damage-is-a-torn-end") {
            return Ok(());
        }
        let here = self.end.segment.clone();
        let mut places: Vec<(Arc<SegmentFile>, u64)> = Vec::new();
        if let Some(segment) = &here {
            places.push((Arc::clone(segment), self.end.position));
        }
        places.extend(
            self.following()?
                .into_iter()
                .map(|segment| (segment, FIRST_BLOCK_POSITION)),
        );
        for (segment, from) in places {
            let mut position = from;
            while position < segment.bytes {
                let mut step = BLOCK_ALIGNMENT as u64;
                if let At::Whole(header, length) = self.at(&segment, position, None)? {
                    step = (length as u64).next_multiple_of(BLOCK_ALIGNMENT as u64);
                    let durable = self.window.at(position, length).and_then(|bytes| {
                        CommitView::parse(bytes, &header)
                            .ok()
                            .map(|view| view.durable_version())
                    });
                    if header.identity.version > wanted && durable.is_some_and(|durable| durable >= wanted) {
                        return Err(self.hole(here.as_ref().unwrap_or(&segment), rule));
                    }
                }
                position = position.saturating_add(step);
            }
        }
        Ok(())
    }

    fn hole(&self, segment: &Arc<SegmentFile>, rule: FormatError) -> Error {
        segment.damaged(self.end.position, BLOCK_ALIGNMENT as u64, rule)
    }
}

/// The rule that a slab breaks which the version adopts and which no sync came before: such a slab is a part of the
/// version, and the version is whole only with it.
fn torn_slab(table: &SegmentTable, view: &CommitView<'_>) -> Result<Option<FormatError>> {
    for adoption in view.adoptions() {
        let slab = adoption.slab;
        let missing = crate::rules::truncated(Structure::Slab, slab.bytes.get(), 0);
        let segment = match table.get(slab.segment, SegmentKind::Slabs) {
            Ok(segment) => segment,
            Err(Error::Damaged(_) | Error::Io { .. }) => return Ok(Some(missing)),
            Err(other) => return Err(other),
        };
        let end = slab.position.get().checked_add(slab.bytes.get());
        if segment.generation != slab.generation || end.is_none_or(|end| end > segment.bytes) {
            return Ok(Some(missing));
        }
        // The segment's length bounds the allocation.
        let mut bytes = vec![0u8; usize::try_from(slab.bytes.get()).unwrap_or(0)];
        segment.read_exact(slab.position.get(), &mut bytes)?;
        let parsed = SlabLayout::parse(&bytes, &slab.place(table.store())).into_result(Structure::Slab);
        let whole = parsed.and_then(|layout| {
            slab.check(layout.header())?;
            layout.verify_all(&bytes)
        });
        if let Err(rule) = whole {
            return Ok(Some(rule));
        }
    }
    Ok(None)
}

impl Window {
    /// Bytes that were read already.
    fn at(&self, position: u64, length: usize) -> Option<&[u8]> {
        let from = usize::try_from(position.checked_sub(self.start)?).ok()?;
        self.buffer
            .get(..self.length)?
            .get(from..from.checked_add(length)?)
    }

    /// `length` bytes of the segment, read if need be; `None` where it ends before.
    fn read(&mut self, segment: &Arc<SegmentFile>, position: u64, length: usize) -> Result<Option<&[u8]>> {
        let end = position.checked_add(length as u64);
        if end.is_none_or(|end| end > segment.bytes) {
            return Ok(None);
        }
        let known = self.segment == Some(segment.id) && self.at(position, length).is_some();
        if !known {
            let left = usize::try_from(segment.bytes.saturating_sub(position)).unwrap_or(usize::MAX);
            let wanted = length.max(WINDOW_BYTES).min(left);
            // The segment's length bounds the allocation, which the header of the block alone must not do.
            self.buffer
                .ensure(wanted)
                .map_err(|source| Error::io("allocate a buffer for", &segment.path, source))?;
            self.segment = None;
            let Some(target) = self.buffer.get_mut(..wanted) else {
                return Ok(None);
            };
            segment.read_exact(position, target)?;
            self.segment = Some(segment.id);
            self.start = position;
            self.length = wanted;
        }
        Ok(self.at(position, length))
    }
}
