//! Reading the journal: block after block from a place, over segments, to its end; and telling a torn end from damage.
//!
//! The end is where no block of the version that must follow stands. It is torn, and everything behind it was never
//! acknowledged as durable, unless a whole block behind it says that the missing version was durable when it was
//! written: then the journal is damaged, and nothing is guessed. Whoever may lose a part to keep the rest steps over such
//! a hole: reading goes on at the first block behind it that is proven to belong to the journal.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::ops::Range;
use std::sync::Arc;

use lanterman_format::block::{
    BLOCK_ALIGNMENT, BLOCK_HEADER_BYTES, BlockHeader, BlockKind, Place, decode_block_header,
};
use lanterman_format::commit::CommitView;
use lanterman_format::error::{FormatError, Found};
use lanterman_format::ids::{Position, SegmentId, Version};
use lanterman_format::reference::Reference;
use lanterman_format::scan::{Behind, resumes_at};
use lanterman_format::segment::SegmentKind;
use lanterman_format::weakened;
use lanterman_format::{SlabLayout, Structure};

use super::JournalEnd;
use super::ahead::LookedAhead;
use crate::error::{Error, Result};
use crate::segment::{FIRST_BLOCK_POSITION, SegmentFile, SegmentTable};
use crate::sys::memory::AlignedBuffer;

/// What is read at once; larger blocks make the window larger.
const WINDOW_BYTES: usize = 1 << 20;
/// How many adopted slabs are told of ahead of the version that is come to.
pub(crate) const SLABS_AHEAD_MAX: usize = 256;

/// Walks the journal from a place on.
#[derive(Debug)]
pub(crate) struct Scan {
    table: Arc<SegmentTable>,
    /// Journal segments that may follow, by number.
    segments: Vec<SegmentId>,
    end: JournalEnd,
    window: Window,
    replayed_bytes: u64,
    /// Whether the version that ends the journal was begun: its header stands there, and something of it is missing.
    end_was_begun: bool,
    /// Slabs that it adopts.
    slabs_begun: Vec<Reference>,
    /// Whether the end is searched for holes. A reader that follows a writer meets an end after each version, and what
    /// comes behind it is still being written.
    looks_for_holes: bool,
    /// Whether a hole is passed over, or an error.
    steps_over_holes: bool,
    ahead: LookedAhead,
    /// For a writer: segments whose page cache was dropped, so that what is found in them is durable.
    settled: Option<BTreeSet<u64>>,
}

/// A part of a segment in memory.
#[derive(Debug)]
pub(super) struct Window {
    buffer: AlignedBuffer,
    segment: Option<SegmentId>,
    start: u64,
    length: usize,
    reads_settled: bool,
}

/// What the scan found next.
pub(crate) enum Step<'a> {
    /// The next version; and slabs that it and those behind it adopt, which nobody was told of before.
    Version(CommitView<'a>, BlockHeader, Vec<Reference>),
    /// Versions that were durable are gone; what follows goes on behind them.
    Hole(Hole),
    /// Nothing follows that was ever acknowledged as durable.
    End,
}

/// A place of the journal where something durable is missing.
#[derive(Debug, Clone)]
pub(crate) struct Hole {
    pub(crate) segment: Arc<SegmentFile>,
    pub(crate) position: u64,
    /// Up to where reading goes on, or to the end of the segment.
    pub(crate) bytes: u64,
    /// The versions that are gone.
    pub(crate) versions: Range<u64>,
    /// What is wrong where the first of them should stand.
    pub(crate) rule: FormatError,
    /// Where reading goes on.
    resume: JournalEnd,
}

impl Hole {
    pub(crate) fn error(&self) -> Error {
        self.segment.damaged(self.position, self.bytes, self.rule)
    }
}

/// A valid commit behind the end, and where it stands.
type BehindEnd = Behind<(Arc<SegmentFile>, u64)>;

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
            reads_settled: false,
        };
        Ok(Scan {
            table,
            segments,
            end,
            window,
            replayed_bytes: 0,
            end_was_begun: false,
            slabs_begun: Vec::new(),
            looks_for_holes: true,
            steps_over_holes: false,
            ahead: LookedAhead::default(),
            settled: None,
        })
    }

    /// Bytes of the blocks read.
    pub(crate) fn replayed_bytes(&self) -> u64 {
        self.replayed_bytes
    }

    /// Where the journal goes on. A version that was begun and is not whole is never written over, nor are the slabs that
    /// it adopts: a write of the same bytes that is cut short itself could make it whole after all, when it was taken
    /// for absent already.
    pub(crate) fn place_to_go_on(&self) -> (JournalEnd, &[Reference]) {
        let mut end = self.end.clone();
        if self.end_was_begun
            && !weakened!("torn-end-overwritten")
            && let Some(segment) = &end.segment
        {
            end.position = segment.bytes;
        }
        (end, &self.slabs_begun)
    }

    /// The end has moved on.
    fn forget_begun(&mut self) {
        self.end_was_begun = false;
        self.slabs_begun.clear();
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

    /// For a writer: reads what is durable, after making so what can be. What a failed sync left in the page cache alone
    /// does not count as written, nor do slabs that no sync came before.
    pub(crate) fn read_what_is_durable(&mut self) {
        self.settled = Some(BTreeSet::new());
        self.window.reads_settled = true;
    }

    fn settle(&mut self, segment: &SegmentFile) -> Result<()> {
        settle_once(self.settled.as_mut(), segment)
    }

    /// Makes a hole a [`Step::Hole`] instead of an error.
    pub(crate) fn step_over_holes(&mut self) {
        self.steps_over_holes = true;
    }

    /// The next version, or the end.
    ///
    /// # Errors
    /// [`Error::Damaged`] where something that was durable is missing, unless holes are stepped over.
    pub(crate) fn next(&mut self) -> Result<Step<'_>> {
        let wanted = Version::new(self.end.version.get().saturating_add(1));
        let mut rule = crate::rules::empty(Structure::Commit);
        let mut place = self.find(wanted, &mut rule)?;
        if place.is_none()
            && self.looks_for_holes
            && let Some(hole) = self.find_hole(wanted, rule)?
        {
            // A running writer may have filled the place before it wrote what stands behind it: what is there now
            // decides.
            self.window.segment = None;
            place = self.find(wanted, &mut rule)?;
            if place.is_none() && self.steps_over_holes {
                self.end = hole.resume.clone();
                self.forget_begun();
                return Ok(Step::Hole(hole));
            }
            if place.is_none() {
                return Err(hole.error());
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
        let place = self.place(&segment, position);
        self.end = JournalEnd {
            segment: Some(segment),
            position: position.saturating_add(stored),
            version: header.identity.version,
            header_crc: header.header_crc,
        };
        self.replayed_bytes = self.replayed_bytes.saturating_add(stored);
        self.forget_begun();
        let soon = self.ahead.look(&self.window, place, SLABS_AHEAD_MAX);
        let bytes = self.window.at(position, length).ok_or(Error::Internal {
            what: "a block was read whole",
        })?;
        let view = CommitView::parse(bytes, &header).map_err(|_| Error::Internal {
            what: "a block that was checked parses again",
        })?;
        Ok(Step::Version(view, header, soon))
    }

    fn place(&self, segment: &SegmentFile, position: u64) -> Place {
        Place {
            store: self.table.store(),
            segment: segment.id,
            generation: segment.generation,
            position: Position::new(position),
        }
    }

    /// A whole block at a place: header, directory and bodies; of version `wanted`, and the successor of the last, if
    /// that is asked for.
    fn at(&mut self, segment: &Arc<SegmentFile>, position: u64, wanted: Option<Version>) -> Result<At> {
        self.settle(segment)?;
        let place = self.place(segment, position);
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
        self.end_was_begun |= wanted.is_some();
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
                let strange = view.previous_crc() != chained && !weakened!("chain-unchecked");
                let mut broken = view.frames().find_map(|frame| frame.body.err());
                if broken.is_none() && !strange && !view.adoptions_durable() {
                    broken = torn_slab(&self.table, &view, self.settled.as_mut())?;
                    if broken.is_some() {
                        self.slabs_begun.extend(adopted_slabs(&view));
                    }
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
    fn find_hole(&mut self, wanted: Version, rule: FormatError) -> Result<Option<Hole>> {
        if weakened!("damage-is-a-torn-end") {
            return Ok(None);
        }
        let behind = self.blocks_behind(wanted)?;
        let Some(first) = resumes_at(&behind, wanted) else {
            return Ok(None);
        };
        let (resumed, resumed_at) = &first.place;
        let segment = self.end.segment.as_ref().unwrap_or(resumed);
        let position = self.end.position;
        let until = if segment.id == resumed.id {
            *resumed_at
        } else {
            segment.bytes
        };
        Ok(Some(Hole {
            position,
            bytes: until.saturating_sub(position).max(BLOCK_ALIGNMENT as u64),
            segment: Arc::clone(segment),
            versions: wanted.get()..first.version.get(),
            rule,
            resume: JournalEnd {
                segment: Some(Arc::clone(resumed)),
                position: *resumed_at,
                version: Version::new(first.version.get().saturating_sub(1)),
                header_crc: first.previous_crc,
            },
        }))
    }

    /// Everything behind the end that looks like a commit of a version after `wanted`.
    fn blocks_behind(&mut self, wanted: Version) -> Result<Vec<BehindEnd>> {
        let mut places: Vec<(Arc<SegmentFile>, u64)> = Vec::new();
        if let Some(segment) = &self.end.segment {
            places.push((Arc::clone(segment), self.end.position));
        }
        places.extend(
            self.following()?
                .into_iter()
                .map(|segment| (segment, FIRST_BLOCK_POSITION)),
        );
        let mut found = Vec::new();
        for (segment, from) in places {
            let mut position = from;
            while position < segment.bytes {
                let mut step = BLOCK_ALIGNMENT as u64;
                if let At::Whole(header, length) = self.at(&segment, position, None)? {
                    step = (length as u64).next_multiple_of(BLOCK_ALIGNMENT as u64);
                    let view = self
                        .window
                        .at(position, length)
                        .and_then(|bytes| CommitView::parse(bytes, &header).ok());
                    if let Some(view) = view.filter(|_| header.identity.version > wanted) {
                        found.push(Behind {
                            place: (Arc::clone(&segment), position),
                            version: header.identity.version,
                            header_crc: header.header_crc,
                            previous_crc: view.previous_crc(),
                            durable_version: view.durable_version(),
                        });
                    }
                }
                position = position.saturating_add(step);
            }
        }
        Ok(found)
    }
}

/// Settles a segment that is not yet in the set, if there is one.
fn settle_once(settled: Option<&mut BTreeSet<u64>>, segment: &SegmentFile) -> Result<()> {
    match settled.is_some_and(|settled| settled.insert(segment.id.get())) {
        true => segment.settle(),
        false => Ok(()),
    }
}

/// The slabs that a version adopts. A run of deleted offsets has none.
pub(super) fn adopted_slabs(view: &CommitView<'_>) -> impl Iterator<Item = Reference> {
    let slabs = view.adoptions().map(|adoption| adoption.slab);
    slabs.filter(|slab| !slab.is_empty())
}

/// The rule that a slab breaks which the version adopts and which no sync came before: such a slab is a part of the
/// version, and the version is whole only with it.
fn torn_slab(
    table: &SegmentTable,
    view: &CommitView<'_>,
    mut settled: Option<&mut BTreeSet<u64>>,
) -> Result<Option<FormatError>> {
    if weakened!("adopted-slab-unread") {
        return Ok(None);
    }
    for slab in adopted_slabs(view) {
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
        settle_once(settled.as_deref_mut(), &segment)?;
        // The segment's length bounds the allocation. Whole pages, so that they can be read around the page cache.
        let length = usize::try_from(slab.bytes.get()).unwrap_or(0);
        let left = usize::try_from(segment.bytes.saturating_sub(slab.position.get())).unwrap_or(usize::MAX);
        let stored = length.next_multiple_of(BLOCK_ALIGNMENT).min(left);
        let mut buffer = AlignedBuffer::new(stored)
            .map_err(|source| Error::io("allocate a buffer for", &segment.path, source))?;
        let page_aligned = buffer.get_mut(..stored).unwrap_or_default();
        segment.read_settled(slab.position.get(), page_aligned)?;
        let bytes = buffer.get(..length).unwrap_or_default();
        let parsed = SlabLayout::parse(bytes, &slab.place(table.store())).into_result(Structure::Slab);
        let whole = parsed.and_then(|layout| {
            slab.check(layout.header())?;
            layout.verify_all(bytes)
        });
        if let Err(rule) = whole {
            return Ok(Some(rule));
        }
    }
    Ok(None)
}

impl Window {
    /// Bytes that were read already.
    pub(super) fn at(&self, position: u64, length: usize) -> Option<&[u8]> {
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
            // Whole pages, so that they can be read around the page cache.
            let wanted = length
                .next_multiple_of(BLOCK_ALIGNMENT)
                .max(WINDOW_BYTES)
                .min(left);
            // The segment's length bounds the allocation, which the header of the block alone must not do.
            self.buffer
                .ensure(wanted)
                .map_err(|source| Error::io("allocate a buffer for", &segment.path, source))?;
            self.segment = None;
            let Some(target) = self.buffer.get_mut(..wanted) else {
                return Ok(None);
            };
            if self.reads_settled {
                segment.read_settled(position, target)?;
            } else {
                segment.read_exact(position, target)?;
            }
            self.segment = Some(segment.id);
            self.start = position;
            self.length = wanted;
        }
        Ok(self.at(position, length))
    }
}
