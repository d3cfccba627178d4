//! The table of segments: which files the store has, their headers, maps and lives.
//!
//! Invariants:
//! - a file under its final name has a whole, synced header, and its directory entry is durable: headers are written
//!   under a `.free` name, synced, renamed, and the directory synced;
//! - blocks are reserved before anybody writes to them, so a full disk is an error of creating a segment, or of going on in
//!   one whose rest an earlier life gave back;
//! - a segment never shrinks, and it is renamed or unlinked only when nothing refers to it.

mod ahead;
mod allocate;
mod reserve;
mod sizes;
mod spares;
mod syncs;
#[cfg(test)]
#[cfg(not(loom))]
mod testing;
mod windows;
mod written;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use lanterman_format::checkpoint::SegmentEntry;
use lanterman_format::error::FormatError;
use lanterman_format::ids::{ByteLength, Generation, Position, SegmentId, StoreId, Version};
use lanterman_format::name::{FileKind, parse_segment_file_name, segment_file_name};
use lanterman_format::reference::Reference;
use lanterman_format::segment::{SEGMENT_HEADER_BYTES, SegmentHeader, SegmentKind};
use lanterman_format::weakened;
use lanterman_format::{FormatVersion, Structure};
use parking_lot::{Mutex, RwLock};

use crate::atomics::OnceLock;
use crate::disk::{Advice, Disk, DiskFile, OpenMode, Sync, forget_cached};
use crate::error::{Damage, Error, Result};
use crate::sys::map::Mapping;
use crate::sys::memory::AlignedBuffer;

use ahead::Ahead;
pub(crate) use allocate::{Allocated, KEPT_BYTES, SlabAllocator};
pub(crate) use reserve::MakingRoom;
use reserve::Reserve;
pub(crate) use sizes::{next_segment_bytes, small_segment_bytes};
use spares::{Spare, SpareFor};
use syncs::Syncs;
pub(crate) use windows::Window;
use windows::Windows;
pub(crate) use written::Written;

/// Spare files kept for reuse; more are unlinked. Two journals' worth lets a checkpoint and a roll meet.
const SPARE_FILES_MAX: usize = 3;

/// Bytes before the first block of a segment.
pub(crate) const FIRST_BLOCK_POSITION: u64 = SEGMENT_HEADER_BYTES as u64;

/// An open segment file.
#[derive(Debug)]
pub(crate) struct SegmentFile {
    pub(crate) id: SegmentId,
    pub(crate) generation: Generation,
    pub(crate) kind: SegmentKind,
    pub(crate) bytes: u64,
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<dyn DiskFile>,
    map: OnceLock<Arc<Mapping>>,
    /// What a commit that adopts slabs, and a checkpoint, sync first.
    written: Written,
    /// Parts of the map that somebody looks at.
    windows: Arc<Windows>,
    syncs: Arc<Syncs>,
}

impl SegmentFile {
    /// The read-only map of the whole segment, made at the first call.
    pub(crate) fn map(&self) -> Result<Arc<Mapping>> {
        if let Some(map) = self.map.get() {
            return Ok(Arc::clone(map));
        }
        let map = self
            .file
            .map(self.bytes)
            .map_err(|source| Error::io("map", &self.path, source))?;
        Ok(Arc::clone(self.map.get_or_init(|| Arc::new(map))))
    }

    /// Makes a part of the map, if there is one, inaccessible: a read of what was given back then ends the process.
    pub(crate) fn protect(&self, range: &Range<u64>) -> std::io::Result<()> {
        let Some(map) = self.map.get() else { return Ok(()) };
        let place = |position: u64| usize::try_from(position).unwrap_or(usize::MAX);
        map.protect_none(place(range.start)..place(range.end))
    }

    pub(crate) fn is_mapped(&self) -> bool {
        self.map.get().is_some()
    }

    /// Reads exactly `buffer.len()` bytes; a file that ends before is damage, named as such.
    pub(crate) fn read_exact(&self, position: u64, buffer: &mut [u8]) -> Result<()> {
        self.read_all(position, buffer, |at, rest| self.file.read_at(at, rest))
    }

    /// As [`Self::read_exact`], around the page cache where that is possible: behind [`Self::settle`] it gives what is
    /// durable.
    pub(crate) fn read_settled(&self, position: u64, buffer: &mut [u8]) -> Result<()> {
        self.read_all(position, buffer, |at, rest| self.file.read_direct_at(at, rest))
    }

    /// Writes out what an earlier process left in the page cache, and drops what only pretends to have been written: from
    /// here on, what is read is durable, or the error says that it is not.
    pub(crate) fn settle(&self) -> Result<()> {
        if weakened!("cache-believed") {
            return Ok(());
        }
        if !weakened!("journal-end-unsynced") {
            self.file
                .sync_data()
                .map_err(|source| Error::failed_sync(&self.path, source))?;
        }
        forget_cached(self.file.as_ref()).map_err(|source| Error::io("drop the cache of", &self.path, source))
    }

    fn read_all(
        &self,
        position: u64,
        buffer: &mut [u8],
        mut read: impl FnMut(u64, &mut [u8]) -> std::io::Result<usize>,
    ) -> Result<()> {
        let mut done = 0usize;
        while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let from = position.saturating_add(done as u64);
            let wanted = rest.len();
            let got = read(from, rest).map_err(|source| Error::io("read", &self.path, source))?;
            if got == 0 {
                return Err(self.damaged(
                    from,
                    wanted as u64,
                    crate::rules::truncated(Structure::SegmentHeader, wanted as u64, 0),
                ));
            }
            let got = if weakened!("short-read-is-whole") {
                wanted
            } else {
                got
            };
            done = done.saturating_add(got);
        }
        Ok(())
    }

    /// Writes whole, aligned bytes and remembers, once they are written, that they need a sync unless `sync` gives it.
    pub(crate) fn write(&self, position: u64, bytes: &[u8], sync: Sync) -> Result<()> {
        let sync = if weakened!("durable-write-is-plain") {
            Sync::No
        } else {
            sync
        };
        if sync == Sync::Data {
            self.syncs.count();
        }
        self.file
            .write_at(position, bytes, sync)
            .map_err(|source| Error::io("write", &self.path, source))?;
        if sync == Sync::No {
            self.note_written();
        }
        Ok(())
    }

    /// Reserves blocks again for a part of the file that nothing is in.
    ///
    /// # Errors
    /// [`Error::StorageFull`]: the part then has no more blocks than before.
    fn reserve(&self, range: Range<u64>) -> Result<()> {
        self.file.reserve(range.clone()).map_err(|source| {
            // The kernel keeps what it got before the disk was full.
            if let Err(error) = self.give_back(range) {
                tracing::warn!(%error, "room that was not enough could not be given back");
            }
            Error::io("reserve a part of", &self.path, source)
        })
    }

    /// Gives the blocks of a part of the file back, which then reads as zeros; they stay where the file system cannot.
    fn give_back(&self, range: Range<u64>) -> Result<()> {
        match self.file.punch(range) {
            Err(source) if source.kind() != std::io::ErrorKind::Unsupported => {
                Err(Error::io("give back a part of", &self.path, source))
            }
            _ => Ok(()),
        }
    }

    /// Notes that a write of somebody else to the file has ended, without a sync.
    pub(crate) fn note_written(&self) {
        self.written.note();
    }

    /// Makes everything durable whose writing has ended, if anything is not.
    pub(crate) fn sync(&self) -> Result<()> {
        if weakened!("sync-is-nothing") {
            return Ok(());
        }
        let sync = || {
            self.syncs.count();
            let outcome = self.file.sync_data();
            match outcome {
                Err(_) if weakened!("failed-sync-retried") => self.file.sync_data(),
                outcome => outcome,
            }
        };
        self.written
            .sync(sync)
            .map_err(|source| Error::failed_sync(&self.path, source))
    }

    /// An error that names a damaged place of this segment.
    pub(crate) fn damaged(&self, position: u64, bytes: u64, source: FormatError) -> Error {
        Error::Damaged(Box::new(Damage {
            path: self.path.clone(),
            segment: Some(self.id),
            position: Position::new(position),
            bytes,
            log: None,
            offsets: None,
            source,
        }))
    }
}

/// What the listing of the directory found.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    pub(crate) journals: Vec<SegmentId>,
    pub(crate) slabs: Vec<SegmentId>,
    /// Names that no segment has; they are left alone and reported.
    pub(crate) foreign: Vec<String>,
}

/// All segments of a store.
#[derive(Debug)]
pub(crate) struct SegmentTable {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    store: StoreId,
    /// Whether files are opened for writing too.
    writable: bool,
    open: RwLock<BTreeMap<u64, Arc<SegmentFile>>>,
    /// Segments of slabs in use, opened or not.
    slabs: Mutex<BTreeMap<u64, SegmentEntry>>,
    spares: Mutex<Vec<Spare>>,
    reserve: Mutex<Reserve>,
    /// Whether the reserve was used and there is none since, without the lock that is held while files are made.
    reserve_used_up: AtomicBool,
    ahead: Ahead,
    next: AtomicU64,
    syncs: Arc<Syncs>,
}

impl SegmentTable {
    pub(crate) fn new(disk: Arc<dyn Disk>, store_directory: &Path, store: StoreId, writable: bool) -> Self {
        SegmentTable {
            disk,
            directory: store_directory.join("segments"),
            store,
            writable,
            open: RwLock::new(BTreeMap::new()),
            slabs: Mutex::new(BTreeMap::new()),
            spares: Mutex::new(Vec::new()),
            reserve: Mutex::default(),
            reserve_used_up: AtomicBool::new(false),
            ahead: Ahead::default(),
            next: AtomicU64::new(1),
            syncs: Arc::default(),
        }
    }

    /// How often segments and their names were synced since the store was opened.
    pub(crate) fn sync_count(&self) -> u64 {
        self.syncs.get()
    }

    pub(crate) fn store(&self) -> StoreId {
        self.store
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(crate) fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// The lowest segment number that was never used.
    pub(crate) fn next(&self) -> SegmentId {
        SegmentId::new(self.next.load(Ordering::Acquire))
    }

    /// Makes sure that numbers below `next` are not given out.
    pub(crate) fn raise_next(&self, next: u64) {
        self.next.fetch_max(next, Ordering::AcqRel);
    }

    /// Lists the directory; spares are remembered if the table belongs to a writer.
    pub(crate) fn list(&self, writer: bool) -> Result<Listing> {
        let names = self
            .disk
            .list(&self.directory)
            .map_err(|source| Error::io("list", &self.directory, source))?;
        let mut listing = Listing::default();
        let mut spares = Vec::new();
        for name in names {
            let Some((id, kind)) = parse_segment_file_name(&name) else {
                listing.foreign.push(name);
                continue;
            };
            self.raise_next(id.get().saturating_add(1));
            match kind {
                FileKind::Journal => listing.journals.push(id),
                FileKind::Slabs => listing.slabs.push(id),
                FileKind::Free if writer => spares.extend(self.look_at_spare(&name)),
                FileKind::Free => {}
            }
        }
        listing.journals.sort_unstable();
        listing.slabs.sort_unstable();
        *self.spares.lock() = spares;
        Ok(listing)
    }

    /// The segment of that number and life, opened at the first call.
    ///
    /// # Errors
    /// Damage when the file is missing, shorter than its header says, or of another life.
    pub(crate) fn get(&self, id: SegmentId, kind: SegmentKind) -> Result<Arc<SegmentFile>> {
        self.get_to_read(id, kind, 0..0)
    }

    /// As [`Self::get`], for who reads `soon` next: should the file have to be opened, the device is asked for these bytes
    /// together with the header, and not after it. A hint.
    pub(crate) fn get_to_read(
        &self,
        id: SegmentId,
        kind: SegmentKind,
        soon: Range<u64>,
    ) -> Result<Arc<SegmentFile>> {
        if let Some(open) = self.open.read().get(&id.get()) {
            return Ok(Arc::clone(open));
        }
        let opened = Arc::new(self.open_file(id, kind, soon)?);
        let mut table = self.open.write();
        Ok(Arc::clone(table.entry(id.get()).or_insert(opened)))
    }

    /// Reads a segment's header afresh; the answer says whether the file is still in the life that was asked for.
    fn open_file(&self, id: SegmentId, kind: SegmentKind, soon: Range<u64>) -> Result<SegmentFile> {
        let path = self.directory.join(segment_file_name(id, kind));
        let file = self
            .disk
            .open(
                &path,
                if self.writable {
                    OpenMode::ReadWrite
                } else {
                    OpenMode::Read
                },
            )
            .map_err(|source| Error::io("open", &path, source))?;
        let length = file
            .bytes()
            .map_err(|source| Error::io("read the length of", &path, source))?;
        if !soon.is_empty() {
            // Refused, it costs speed only.
            let _advised = file.advise(soon, Advice::WillNeed);
        }
        let mut segment = SegmentFile {
            id,
            generation: Generation::new(0),
            kind,
            bytes: length,
            path,
            file,
            map: OnceLock::new(),
            written: Written::new(),
            windows: Arc::default(),
            syncs: Arc::clone(&self.syncs),
        };
        let mut header = [0u8; SEGMENT_HEADER_BYTES];
        segment.read_exact(0, &mut header)?;
        let found = match SegmentHeader::decode(&header, Some(&self.store)) {
            lanterman_format::error::Found::Valid(found) => found,
            lanterman_format::error::Found::Empty => {
                return Err(segment.damaged(
                    0,
                    FIRST_BLOCK_POSITION,
                    crate::rules::empty(Structure::SegmentHeader),
                ));
            }
            lanterman_format::error::Found::Invalid(rule) => {
                return Err(segment.damaged(0, FIRST_BLOCK_POSITION, rule));
            }
        };
        if found.segment != id || found.kind != kind {
            let rule = crate::rules::misplaced(Structure::SegmentHeader, id.get(), found.segment.get());
            return Err(segment.damaged(0, FIRST_BLOCK_POSITION, rule));
        }
        let bytes = found.segment_bytes.get();
        if bytes > length {
            let rule = crate::rules::truncated(Structure::SegmentHeader, bytes, length);
            return Err(segment.damaged(length, bytes.saturating_sub(length), rule));
        }
        segment.generation = found.generation;
        segment.bytes = bytes;
        Ok(segment)
    }

    /// Every segment opened so far.
    pub(crate) fn opened(&self) -> Vec<Arc<SegmentFile>> {
        self.open.read().values().cloned().collect()
    }

    /// Makes a new segment of at least `bytes`, out of a spare if one fits; on a full disk, if [room is being
    /// made](MakingRoom), one that holds a block of `block_bytes` and as little else as need be.
    ///
    /// # Errors
    /// [`Error::StorageFull`] when its blocks cannot be reserved; nothing is left behind then.
    pub(crate) fn create(
        &self,
        kind: SegmentKind,
        bytes: u64,
        block_bytes: u64,
        first_version: Version,
        time_ms: i64,
    ) -> Result<Arc<SegmentFile>> {
        let id = self.take_segment_number()?;
        let spare = self.take_spare(kind, bytes);
        let (temporary, generation, bytes) = match spare {
            Some(mut spare) => {
                let last_life = self.generation_of(&mut spare);
                let next_life = Generation::new(last_life.get().wrapping_add(1).max(1));
                (spare.path, next_life, spare.bytes)
            }
            None => {
                let (path, bytes) = self.reserve_room(id, bytes, block_bytes)?;
                (path, Generation::new(1), bytes)
            }
        };
        let header = SegmentHeader {
            format: FormatVersion::CURRENT,
            kind,
            store: self.store,
            segment: id,
            generation,
            segment_bytes: ByteLength::new(bytes),
            first_version,
            time_ms,
        };
        let path = self.directory.join(segment_file_name(id, kind));
        let file = self.bring_to_life(&temporary, &path, &header)?;
        let segment = Arc::new(SegmentFile {
            id,
            generation,
            kind,
            bytes,
            path,
            file,
            map: OnceLock::new(),
            written: Written::new(),
            windows: Arc::default(),
            syncs: Arc::clone(&self.syncs),
        });
        self.open.write().insert(id.get(), Arc::clone(&segment));
        if kind == SegmentKind::Slabs {
            self.know_slabs(SegmentEntry {
                segment: id,
                generation,
                kind,
                segment_bytes: ByteLength::new(bytes),
                used_bytes: ByteLength::new(bytes),
                live_bytes: ByteLength::ZERO,
                free: false,
            });
        }
        Ok(segment)
    }

    /// A number for a new segment.
    fn take_segment_number(&self) -> Result<SegmentId> {
        let taken = self.take_number(&self.next, Structure::SegmentHeader);
        taken.map(SegmentId::new)
    }

    /// The next number for what `structure` numbers. Numbers that some file has used up are damage: no store lives to count so far.
    pub(crate) fn take_number(&self, next: &AtomicU64, structure: Structure) -> Result<u64> {
        let following = |number: u64| number.checked_add(1);
        let taken = next.fetch_update(Ordering::AcqRel, Ordering::Acquire, following);
        taken.map_err(|number| {
            Error::Damaged(Box::new(Damage {
                path: self.directory.clone(),
                segment: (structure == Structure::SegmentHeader).then(|| SegmentId::new(number)),
                position: Position::new(0),
                bytes: 0,
                log: None,
                offsets: None,
                source: crate::rules::too_long(structure, u64::MAX.saturating_sub(1), number),
            }))
        })
    }

    /// Notes a segment of slabs, as a checkpoint or its creation describes it.
    pub(crate) fn know_slabs(&self, entry: SegmentEntry) {
        self.slabs.lock().insert(entry.segment.get(), entry);
    }

    /// Takes back what damaged references claim to use behind the ends of segments whose length is known.
    pub(crate) fn bound_used(&self) {
        for entry in self.slabs.lock().values_mut() {
            if entry.segment_bytes > ByteLength::ZERO {
                entry.used_bytes = entry.used_bytes.min(entry.segment_bytes);
            }
        }
    }

    /// Forgets a segment of slabs that cannot be opened and that no checkpoint describes.
    pub(crate) fn forget_slabs(&self, id: SegmentId) {
        self.slabs.lock().remove(&id.get());
    }

    /// The segments of slabs in use. Their used bytes are exact for all but the one being filled.
    pub(crate) fn known_slabs(&self) -> Vec<SegmentEntry> {
        self.slabs.lock().values().copied().collect()
    }

    /// Journal segments opened so far.
    pub(crate) fn opened_journals(&self) -> Vec<SegmentId> {
        let open = self.open.read();
        open.values()
            .filter(|segment| segment.kind == SegmentKind::Journal)
            .map(|segment| segment.id)
            .collect()
    }

    /// Where a segment's file is.
    pub(crate) fn path_of(&self, id: SegmentId, kind: SegmentKind) -> PathBuf {
        self.directory.join(segment_file_name(id, kind))
    }

    fn reserve_new(&self, id: SegmentId, bytes: u64) -> Result<PathBuf> {
        let path = self.directory.join(segment_file_name(id, FileKind::Free));
        let file = self
            .disk
            .open(&path, OpenMode::CreateNew)
            .map_err(|source| Error::io("create", &path, source))?;
        if let Err(source) = file.reserve(0..bytes) {
            drop(file);
            // A partly reserved file would keep the very space that is short.
            if let Err(left) = self.disk.unlink(&path) {
                tracing::warn!(path = %path.display(), error = %left, "a file that found no room could not be removed");
            }
            return Err(Error::io("reserve", &path, source));
        }
        Ok(path)
    }

    /// Header, sync, rename, directory sync: only then may anything rely on the segment.
    fn bring_to_life(&self, from: &Path, to: &Path, header: &SegmentHeader) -> Result<Arc<dyn DiskFile>> {
        let file = self
            .disk
            .open(from, OpenMode::ReadWrite)
            .map_err(|source| Error::io("open", from, source))?;
        let mut bytes = AlignedBuffer::new(SEGMENT_HEADER_BYTES)
            .map_err(|source| Error::io("allocate a header for", from, source))?;
        header.encode(bytes.first_chunk_mut().ok_or(Error::Internal {
            what: "a header has its page",
        })?);
        file.write_at(0, bytes.as_ref(), Sync::No)
            .map_err(|source| Error::io("write", from, source))?;
        // Not only the data: the reservation's metadata must be durable too.
        self.syncs.count();
        file.sync_data()
            .map_err(|source| Error::failed_sync(from, source))?;
        self.disk
            .rename(from, to)
            .map_err(|source| failed_renaming(source, from, to))?;
        if !weakened!("directory-unsynced") {
            self.sync_names()?;
        }
        Ok(file)
    }

    /// Makes the names of segments durable.
    pub(crate) fn sync_names(&self) -> Result<()> {
        self.syncs.count();
        self.disk
            .sync_directory(&self.directory)
            .map_err(|source| Error::failed_sync(&self.directory, source))
    }

    /// Ends the life of segments that nothing refers to: some are kept as spares, the largest ones, the others
    /// unlinked.
    pub(crate) fn retire(&self, ids: &[SegmentId]) -> Result<()> {
        let mut retired = Vec::new();
        for id in ids {
            let Some(segment) = self.open.read().get(&id.get()).cloned() else {
                continue;
            };
            let spare = self.directory.join(segment_file_name(*id, FileKind::Free));
            self.disk
                .rename(&segment.path, &spare)
                .map_err(|source| failed_renaming(source, &segment.path, &spare))?;
            // Only now: one that kept its name is retired by the next checkpoint.
            self.open.write().remove(&id.get());
            retired.push(Spare {
                path: spare,
                bytes: segment.bytes,
                generation: Some(segment.generation),
                serves: SpareFor::Anything,
            });
        }
        if !retired.is_empty() && !weakened!("retired-name-unsynced") {
            // A header that is written into a file which still has its old name on the medium would make a segment
            // of the wrong number.
            self.sync_names()?;
        }
        self.spares.lock().extend(retired);
        self.remove_surplus()
    }

    /// Removes the file of a segment of slabs that nothing refers to; gives its length. Nothing is lost if a power cut brings
    /// its name back: nothing refers to it then either.
    pub(crate) fn remove_slabs(&self, id: SegmentId) -> Result<u64> {
        let segment = self.get(id, SegmentKind::Slabs)?;
        // Another process may have the file open, and keep its blocks when only the name goes.
        segment.give_back(FIRST_BLOCK_POSITION..segment.bytes)?;
        self.disk
            .unlink(&segment.path)
            .map_err(|source| Error::io("remove", &segment.path, source))?;
        self.forget_slabs(id);
        self.open.write().remove(&id.get());
        Ok(segment.bytes)
    }

    /// Removes all spares, with what earlier lives left in them.
    pub(crate) fn remove_spares(&self) -> Result<()> {
        while let Some(spare) = self.spares.lock().pop() {
            self.disk
                .unlink(&spare.path)
                .map_err(|source| Error::io("remove", &spare.path, source))?;
        }
        self.sync_names()
    }

    /// Removes spares beyond those that are worth keeping; a crash may have left more.
    fn remove_surplus(&self) -> Result<()> {
        loop {
            let surplus = {
                let mut spares = self.spares.lock();
                // Segments grow with the store: the small spares of its first minutes would fit nothing any more,
                // and every new segment would be written over blocks that never were written before.
                let smallest =
                    (0..spares.len()).min_by_key(|index| spares.get(*index).map(|spare| spare.bytes));
                let surplus = smallest.filter(|_| spares.len() > SPARE_FILES_MAX);
                surplus.map(|index| spares.swap_remove(index))
            };
            let Some(surplus) = surplus else {
                return Ok(());
            };
            self.disk
                .unlink(&surplus.path)
                .map_err(|source| Error::io("remove", &surplus.path, source))?;
        }
    }

    /// Forgets the journal segments that were opened, so that their next use reads the headers again; for readers,
    /// whose writer recycles them.
    pub(crate) fn forget_journals(&self) {
        self.open
            .write()
            .retain(|_, segment| segment.kind != SegmentKind::Journal);
    }

    /// Opens a segment of the journal that is to be retired; one whose header cannot be read is left alone.
    pub(crate) fn open_to_retire(&self, id: SegmentId) {
        if let Err(error) = self.get(id, SegmentKind::Journal) {
            tracing::warn!(segment = id.get(), %error, "an unused segment of the journal is left where it is");
        }
    }

    /// Notes a segment of slabs that was found and that nothing known so far refers to.
    pub(crate) fn know_unused(&self, id: SegmentId) {
        self.slabs.lock().entry(id.get()).or_insert(SegmentEntry {
            segment: id,
            generation: Generation::new(0),
            kind: SegmentKind::Slabs,
            segment_bytes: ByteLength::ZERO,
            used_bytes: ByteLength::new(FIRST_BLOCK_POSITION),
            live_bytes: ByteLength::ZERO,
            free: false,
        });
    }

    /// Notes that a slab is referred to, so that nothing is written over it.
    pub(crate) fn note_used(&self, slab: &Reference) {
        let mut slabs = self.slabs.lock();
        let entry = slabs.entry(slab.segment.get()).or_insert_with(|| SegmentEntry {
            segment: slab.segment,
            generation: slab.generation,
            kind: SegmentKind::Slabs,
            segment_bytes: ByteLength::ZERO,
            used_bytes: ByteLength::ZERO,
            live_bytes: ByteLength::ZERO,
            free: false,
        });
        let end = slab.position.get().saturating_add(slab.bytes.get());
        entry.used_bytes = entry.used_bytes.max(ByteLength::new(end));
    }

    /// Makes every slab written so far durable.
    pub(crate) fn sync_slabs(&self) -> Result<()> {
        for segment in self.opened() {
            if segment.kind == SegmentKind::Slabs {
                segment.sync()?;
            }
        }
        Ok(())
    }
}

/// Names the path that was in the way: where the new name is taken, that one.
fn failed_renaming(source: std::io::Error, from: &Path, to: &Path) -> Error {
    match source.kind() {
        std::io::ErrorKind::AlreadyExists => Error::io("give a segment the name", to, source),
        _ => Error::io("rename", from, source),
    }
}
