//! Bytes for references: windows of mapped segments, or copies where nothing is to be mapped.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use lanterman_format::Structure;
use lanterman_format::ids::{Position, StoreId};
use lanterman_format::reference::Reference;
use lanterman_format::segment::SegmentKind;
use lanterman_format::slab::SLAB_BODY_POSITION;
use zerocopy::IntoBytes;

use crate::core::Core;
use crate::disk::Advice;
use crate::error::{Damage, Error, Unreadable};
use crate::index_memory::IndexMemory;
use crate::log::LogState;
use crate::options::Options;
use crate::segment::{SegmentFile, SegmentTable};
use crate::slab::{
    KeptSlabs, OpenSlab, SharedMemory, SlabBytes, SlabDamage, SlabError, SlabHandle, SlabSource,
};
use crate::sys::PAGE_BYTES;
use crate::sys::memory::AlignedBuffer;
use crate::tree::TreeError;

/// Behind the messages of a slab of 1 MiB there are 1 KiB of checksums, a histogram, and four bytes a message where their lengths
/// differ.
const END_BYTES: usize = 16 << 10;

/// Copies of so many bytes at most are of the heap, and not of maps of their own.
const HEAP_COPY_BYTES_MAX: usize = 64 << 10;

/// A tail slab of more bytes is worth a place in the tree: who appends behind it has it stay as it is. Up to so many it is copied out, and
/// read for that by a call, and not through a map.
pub(crate) const COPIED_TAIL_BYTES_MAX: u64 = 64 << 10;

/// A checkpoint puts the tails of many quiet logs one behind the other, and so their nodes. Who needs one from the device has so much
/// around it read along: a multiple of a page, and a power of two.
const BESIDE_BYTES: u64 = 128 << 10;

/// Gives the bytes of slabs and nodes over the table of segments.
#[derive(Debug)]
pub(crate) struct StoreSource {
    segments: Arc<SegmentTable>,
    /// Nothing is mapped; every slab is read into memory of its own.
    copying: bool,
    kept: KeptSlabs,
    index: IndexMemory,
}

/// An aligned buffer that nobody writes to any more.
struct Frozen(AlignedBuffer);

impl AsRef<[u8]> for Frozen {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// The same of the heap, which is cheaper to come by where it is little; in words, so that values are aligned.
struct FrozenWords(Vec<u64>);

impl AsRef<[u8]> for FrozenWords {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl StoreSource {
    pub(crate) fn new(segments: Arc<SegmentTable>, options: &Options) -> Self {
        let kept_bytes_max = usize::try_from(options.tail_memory_bytes / 2).unwrap_or(usize::MAX);
        StoreSource {
            segments,
            copying: options.copying,
            kept: KeptSlabs::new(kept_bytes_max),
            index: IndexMemory::new(options.index_memory_bytes),
        }
    }

    /// The segments that it gives bytes of.
    pub(crate) fn segments(&self) -> &SegmentTable {
        &self.segments
    }

    /// What trees take of memory.
    #[inline]
    pub(crate) fn index_memory(&self) -> &IndexMemory {
        &self.index
    }

    /// The segment that `reference` points into, in the life that it speaks of.
    ///
    /// # Errors
    /// [`SlabError::Missing`] if there is none, or it ends before what the reference speaks of; [`SlabError::Read`].
    pub(crate) fn segment(&self, reference: &Reference) -> Result<Arc<SegmentFile>, SlabError> {
        let missing = || SlabError::Missing {
            reference: Box::new(*reference),
        };
        let found = self.segments.get(reference.segment, SegmentKind::Slabs);
        let segment = found.map_err(|error| match error {
            Error::Io { source, .. } if source.kind() != io::ErrorKind::NotFound => {
                SlabError::read(reference, 0..length(reference), again(&source))
            }
            // A system may say so of opening or reading too, and what cannot be read now is not damaged.
            Error::StorageFull { .. } => {
                let again = io::Error::from(io::ErrorKind::StorageFull);
                SlabError::read(reference, 0..length(reference), again)
            }
            _ => missing(),
        })?;
        let end = reference.position.get().checked_add(reference.bytes.get());
        if segment.generation != reference.generation || end.is_none_or(|end| end > segment.bytes) {
            return Err(missing());
        }
        Ok(segment)
    }

    /// Has the system begin to read what opening the slab at `reference` takes: its header, and the end, where index and checksums
    /// mostly are. A hint, which waits for nothing; what is wrong is told when the slab is opened.
    pub(crate) fn announce(&self, reference: &Reference) {
        if self.copying {
            return;
        }
        if let Ok(bytes) = self.open(reference) {
            bytes.announce(0..SLAB_BODY_POSITION);
            bytes.announce(bytes.len().saturating_sub(END_BYTES)..bytes.len());
        }
    }

    /// As [`Self::announce`] for many, also where they are copied; where one slab ends and the next begins it is one read.
    pub(crate) fn announce_ends(&self, slabs: &[Reference]) {
        let mut pending: Option<(Arc<SegmentFile>, Range<u64>)> = None;
        for slab in slabs.iter().filter(|slab| !slab.is_empty()) {
            let Ok(segment) = self.segment(slab) else { continue };
            let start = slab.position.get();
            let end = start.saturating_add(slab.bytes.get());
            let head = start..end.min(start.saturating_add(SLAB_BODY_POSITION as u64));
            match &mut pending {
                Some((file, range)) if Arc::ptr_eq(file, &segment) && follows(range, &head) => {
                    range.end = head.end;
                }
                other => advise(other.replace((Arc::clone(&segment), head))),
            }
            let tail = end.saturating_sub(END_BYTES as u64).max(start)..end;
            advise(pending.replace((segment, tail)));
        }
        advise(pending);
    }

    /// A tail slab, to be copied out. A small one that nobody has open is read by a call of its own, and not opened for others:
    /// who copies it out puts what he makes of it in its place.
    ///
    /// # Errors
    /// As of opening it.
    pub(crate) fn open_tail(&self, tail: &SlabHandle) -> Result<Arc<OpenSlab>, SlabError> {
        let reference = tail.reference();
        if reference.bytes.get() > COPIED_TAIL_BYTES_MAX {
            return Ok(tail.open(self)?.share());
        }
        if let Some(opened) = tail.opened() {
            return Ok(opened.share());
        }
        let bytes = self.copy(reference)?;
        Ok(Arc::new(OpenSlab::of_bytes(reference, bytes, self.store_id())?))
    }

    /// Has the system read what lies around a small block with it, if that is not in memory. A hint.
    pub(crate) fn announce_beside(&self, reference: &Reference) {
        let Ok(segment) = self.segment(reference) else {
            return;
        };
        let position = reference.position.get();
        let block = position..position.saturating_add(reference.bytes.get());
        let page = PAGE_BYTES as u64;
        let pages = block.start - block.start % page..block.end.next_multiple_of(page);
        if segment.file.cached_bytes(&pages) != Some(pages.end - pages.start) {
            let start = block.start - block.start % BESIDE_BYTES;
            let end = start.saturating_add(BESIDE_BYTES).max(block.end);
            advise(Some((Arc::clone(&segment), start..end.min(segment.bytes))));
        }
    }

    fn copy(&self, reference: &Reference) -> Result<SlabBytes, SlabError> {
        let segment = self.segment(reference)?;
        let bytes = length(reference);
        let refused = |error| SlabError::read(reference, 0..bytes, error);
        let read = |wanted: &mut [u8]| {
            let read = segment.read_exact(reference.position.get(), wanted);
            read.map_err(|error| match error {
                Error::Io { source, .. } => refused(again(&source)),
                other => refused(io::Error::new(io::ErrorKind::UnexpectedEof, other.to_string())),
            })
        };
        // The segment's length bounds the allocation: the range was compared with it above.
        let memory: SharedMemory = if bytes <= HEAP_COPY_BYTES_MAX {
            let mut words = vec![0u64; bytes.div_ceil(size_of::<u64>())];
            read(words.as_mut_bytes().get_mut(..bytes).unwrap_or_default())?;
            Arc::new(FrozenWords(words))
        } else {
            let mut buffer = AlignedBuffer::new(bytes.next_multiple_of(PAGE_BYTES)).map_err(refused)?;
            read(buffer.as_mut().get_mut(..bytes).unwrap_or_default())?;
            Arc::new(Frozen(buffer))
        };
        SlabBytes::copied(memory, 0..bytes).ok_or_else(|| SlabError::Missing {
            reference: Box::new(*reference),
        })
    }
}

/// Whether `next` begins in the page in which `range` ends, or behind it.
fn follows(range: &Range<u64>, next: &Range<u64>) -> bool {
    next.start >= range.end && next.start.saturating_sub(range.end) < PAGE_BYTES as u64
}

/// A hint; refused, it costs speed only.
fn advise(wanted: Option<(Arc<SegmentFile>, Range<u64>)>) {
    if let Some((segment, range)) = wanted {
        let _advised = segment.file.advise(range, Advice::WillNeed);
    }
}

/// The same error once more, with the system's number where it has one.
fn again(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(number) => io::Error::from_raw_os_error(number),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}

fn length(reference: &Reference) -> usize {
    usize::try_from(reference.bytes.get()).unwrap_or(usize::MAX)
}

impl SlabSource for StoreSource {
    fn store_id(&self) -> StoreId {
        self.segments.store()
    }

    fn open(&self, reference: &Reference) -> Result<SlabBytes, SlabError> {
        if self.copying {
            return self.copy(reference);
        }
        let missing = || SlabError::Missing {
            reference: Box::new(*reference),
        };
        let segment = self.segment(reference)?;
        let map = segment.map().map_err(|error| {
            let error = io::Error::other(error.to_string());
            SlabError::read(reference, 0..length(reference), error)
        })?;
        let start = usize::try_from(reference.position.get()).map_err(|_| missing())?;
        let end = start.checked_add(length(reference)).ok_or_else(missing)?;
        SlabBytes::window(map, start..end, Some(segment.window(start..end))).ok_or_else(missing)
    }

    fn reread(&self, reference: &Reference) -> Result<SlabBytes, SlabError> {
        self.copy(reference)
    }

    fn keep(&self, slab: &Arc<OpenSlab>) {
        self.kept.keep(slab);
    }

    fn holds(&self, bytes: usize) {
        self.index.add(bytes);
    }
}

impl Core {
    /// The public error for what went wrong in a slab of `log`.
    pub(crate) fn slab_error(&self, log: &LogState, offsets: Option<Range<u64>>, error: SlabError) -> Error {
        slab_error(&self.segments, Some(log.name.as_str()), offsets, error)
    }

    /// The public error for what went wrong in the tree of `log`.
    pub(crate) fn tree_error(&self, log: &LogState, error: TreeError) -> Error {
        tree_error(&self.segments, log.name.as_str(), log.first_offset().get(), error)
    }
}

pub(crate) fn slab_error(
    segments: &SegmentTable,
    log: Option<&str>,
    offsets: Option<Range<u64>>,
    error: SlabError,
) -> Error {
    let name = log.map(str::to_owned);
    let damage = |reference: &Reference, at: u64, bytes: u64, source| {
        Error::Damaged(Box::new(Damage {
            path: segments.path_of(reference.segment, SegmentKind::Slabs),
            segment: Some(reference.segment),
            position: Position::new(reference.position.get().saturating_add(at)),
            bytes,
            log: name.clone(),
            offsets: offsets.clone(),
            source,
        }))
    };
    match error {
        SlabError::Damaged(found) => {
            let SlabDamage {
                reference,
                range,
                error,
                ..
            } = *found;
            damage(&reference, range.start as u64, range.len() as u64, error)
        }
        SlabError::Read {
            reference,
            range,
            error,
        } => Error::Unreadable(Box::new(Unreadable {
            path: segments.path_of(reference.segment, SegmentKind::Slabs),
            segment: Some(reference.segment),
            position: Position::new(reference.position.get().saturating_add(range.start as u64)),
            bytes: range.len() as u64,
            log: name,
            offsets,
            source: Arc::new(error),
        })),
        SlabError::Lost { reference } => Error::Damaged(Box::new(Damage {
            // What is lost stood in the journal, which has been given away since.
            path: segments.path_of(reference.segment, SegmentKind::Journal),
            segment: Some(reference.segment),
            position: reference.position,
            bytes: reference.bytes.get(),
            log: name,
            offsets,
            source: crate::rules::lost(Structure::Commit),
        })),
        SlabError::Missing { reference } | SlabError::NotHere { reference } => {
            let rule = crate::rules::truncated(Structure::Slab, reference.bytes.get(), 0);
            damage(&reference, 0, reference.bytes.get(), rule)
        }
        SlabError::Outside {
            reference,
            relative_offset,
            offset_count,
        } => {
            let rule = crate::rules::disagree(Structure::Slab, relative_offset, offset_count);
            damage(&reference, 0, reference.bytes.get(), rule)
        }
    }
}

/// The public error for what went wrong in the tree of the log `name`, whose first offset is `start`.
pub(crate) fn tree_error(segments: &SegmentTable, name: &str, start: u64, error: TreeError) -> Error {
    node_error(segments, name, start, None, error)
}

fn node_error(
    segments: &SegmentTable,
    name: &str,
    start: u64,
    offsets: Option<Range<u64>>,
    error: TreeError,
) -> Error {
    let damage = |reference: &Reference, source| {
        Error::Damaged(Box::new(Damage {
            path: segments.path_of(reference.segment, SegmentKind::Slabs),
            segment: Some(reference.segment),
            position: reference.position,
            bytes: reference.bytes.get(),
            log: Some(name.to_owned()),
            offsets: offsets.clone(),
            source,
        }))
    };
    match error {
        // Trees count from their own first offset.
        TreeError::Within { offsets, error } => {
            let of_log = start.saturating_add(offsets.start)..start.saturating_add(offsets.end);
            node_error(segments, name, start, Some(of_log), *error)
        }
        TreeError::Fetch(error) => slab_error(segments, Some(name), offsets, error),
        TreeError::Damaged { reference, error } => damage(&reference, error),
        TreeError::Rule {
            reference,
            expected,
            found,
            ..
        } => damage(
            &reference,
            crate::rules::disagree(Structure::Node, expected, found),
        ),
        TreeError::NoOffsets | TreeError::Full => Error::Internal {
            what: "a log's tree takes another slab",
        },
    }
}
