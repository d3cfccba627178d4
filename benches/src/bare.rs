//! The machine's own limits: what the plainest program that moves the same bytes reaches.
#![allow(
    unsafe_code,
    reason = "io_uring is given raw buffers, and files are mapped; both live in this module alone"
)]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU8;

use io_uring::{IoUring, opcode, squeue, types};
use lanterman_format::block::BlockKind;
use lanterman_format::catalog::NO_LOG;
use lanterman_format::error::Found;
use lanterman_format::scan::scan;
use lanterman_format::segment::SegmentHeader;
use lanterman_format::slab::{SLAB_BODY_POSITION, SlabLayout};
use memmap2::{Advice, Mmap, MmapMut, MmapOptions};
use rustix::io::ReadWriteFlags;

use crate::Outcome;

/// Bytes of one write or read in bulk.
pub const PIECE_BYTES: usize = 1 << 20;
/// Writes or reads in flight.
const DEPTH: usize = 8;
/// What a file gives at least, read around the page cache.
const PAGE_BYTES: u64 = 4096;

/// What is done to a piece before it is written.
#[derive(Debug, Clone, Copy)]
pub enum Filling<'a> {
    /// Nothing: the device alone.
    None,
    /// Records with an 8-byte header each, and one checksum over the piece: the least that any log must do.
    Records(&'a [u8]),
}

/// Memory in huge pages, all touched.
///
/// # Errors
///
/// What the operating system gives.
pub fn huge_memory(bytes: usize) -> Outcome<MmapMut> {
    let mut memory = MmapOptions::new().len(bytes).map_anon()?;
    // Refused where the kernel has none; then small pages are the machine's limit.
    let _ = memory.advise(Advice::HugePage);
    memory.fill(1);
    Ok(memory)
}

/// Opens for writing around the page cache.
///
/// # Errors
///
/// What the operating system gives.
pub fn open_direct(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .custom_flags(libc::O_DIRECT);
    options.open(path)
}

/// A file of `bytes` with its blocks reserved.
///
/// # Errors
///
/// What the operating system gives.
pub fn reserve(path: &Path, bytes: u64) -> Outcome<File> {
    let file = open_direct(path)?;
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes)?;
    file.sync_all()?;
    Ok(file)
}

/// One durable write at `position`: what a commit cannot do without.
///
/// # Errors
///
/// What the operating system gives.
pub fn durable_write(file: &File, position: u64, bytes: &[u8]) -> Outcome<()> {
    let written = rustix::io::pwritev2(file, &[io::IoSlice::new(bytes)], position, ReadWriteFlags::DSYNC)?;
    if written == bytes.len() {
        Ok(())
    } else {
        Err("a short write".into())
    }
}

/// Reads or writes of one length, each in memory of its own, some in flight at once.
struct InFlight {
    // Before the memory: the ring is gone when that is.
    ring: IoUring,
    memory: MmapMut,
    bytes: usize,
    count: usize,
    free: Vec<usize>,
}

impl InFlight {
    fn new(bytes: usize, count: usize) -> Outcome<Self> {
        Ok(InFlight {
            memory: huge_memory(bytes * count)?,
            ring: IoUring::new(count as u32 * 2)?,
            bytes,
            count,
            free: (0..count).collect(),
        })
    }

    /// One that is not in flight, when there is one.
    fn free_slot(&mut self) -> Outcome<usize> {
        while self.free.is_empty() {
            self.finish_one()?;
        }
        Ok(self.free.pop().unwrap_or_default())
    }

    /// The memory of one that is not in flight.
    fn memory(&mut self, slot: usize) -> &mut [u8] {
        &mut self.memory[slot * self.bytes..(slot + 1) * self.bytes]
    }

    /// Has a read or write begin.
    ///
    /// # Safety
    ///
    /// It is of the memory of `slot`, which nobody looks at until its completion put it back among those that are free, and its
    /// file lives until all completions are taken.
    unsafe fn submit(&mut self, slot: usize, entry: squeue::Entry) -> Outcome<()> {
        // SAFETY: as the caller says; and the memory lives as long as the ring.
        unsafe { self.ring.submission().push(&entry.user_data(slot as u64))? };
        self.ring.submit()?;
        Ok(())
    }

    /// Takes what is done, and waits for one.
    fn finish_one(&mut self) -> Outcome<()> {
        self.ring.submit_and_wait(1)?;
        for completion in self.ring.completion() {
            if completion.result() != self.bytes as i32 {
                return Err(format!("a bare write or read gave {}", completion.result()).into());
            }
            self.free.push(completion.user_data() as usize);
        }
        Ok(())
    }

    /// Waits for all.
    fn finish(&mut self) -> Outcome<()> {
        while self.free.len() < self.count {
            self.finish_one()?;
        }
        Ok(())
    }
}

/// Writes `total` bytes in pieces from huge pages, some in flight, and syncs.
///
/// # Errors
///
/// What the operating system gives.
pub fn ring_write(path: &Path, total: u64, filling: Filling<'_>) -> Outcome<()> {
    let file = open_direct(path)?;
    let mut writes = InFlight::new(PIECE_BYTES, DEPTH)?;
    for piece in 0..total / PIECE_BYTES as u64 {
        let slot = writes.free_slot()?;
        let bytes = writes.memory(slot);
        if let Filling::Records(record) = filling {
            fill(bytes, record);
        }
        let write = opcode::Write::new(types::Fd(file.as_raw_fd()), bytes.as_ptr(), PIECE_BYTES as u32)
            .offset(piece * PIECE_BYTES as u64)
            .build();
        // SAFETY: the slot is not written to until it is free again, and the file lives until all have finished below.
        unsafe { writes.submit(slot, write)? };
    }
    writes.finish()?;
    file.sync_data()?;
    Ok(())
}

/// Fills a piece with records, each with a header of 8 bytes, and makes one checksum over it.
fn fill(piece: &mut [u8], record: &[u8]) {
    let stored = 8 + record.len().next_multiple_of(8);
    let body_bytes = piece.len() - 8;
    let (body, checksum) = piece.split_at_mut(body_bytes);
    for slot in body.chunks_exact_mut(stored) {
        slot[..8].copy_from_slice(&(record.len() as u64).to_le_bytes());
        slot[8..8 + record.len()].copy_from_slice(record);
    }
    checksum[..4].copy_from_slice(&crc32fast::hash(body).to_le_bytes());
}

/// Copies `count` records with headers of 8 bytes into touched memory, over and over.
pub fn copy_records(memory: &mut [u8], record: &[u8], count: u64) {
    let stored = 8 + record.len().next_multiple_of(8);
    let mut done = 0;
    while done < count {
        for slot in memory.chunks_exact_mut(stored) {
            slot[..8].copy_from_slice(&(record.len() as u64).to_le_bytes());
            slot[8..8 + record.len()].copy_from_slice(std::hint::black_box(record));
            done += 1;
            if done == count {
                break;
            }
        }
    }
    std::hint::black_box(memory);
}

/// Copies into memory that another thread reads behind a release store, at the speed of a plain copy.
///
/// # Panics
///
/// When the lengths differ.
pub fn copy_shared(target: &[AtomicU8], source: &[u8]) {
    assert!(target.len() == source.len(), "a slot takes one message");
    let to = target.as_ptr().cast_mut().cast::<u8>();
    // SAFETY: atomics may be written through a shared reference, the lengths are equal, and readers look at a slot only
    // after the release store that follows; a slot is written again a thousand messages later, when they have.
    unsafe { std::ptr::copy_nonoverlapping(source.as_ptr(), to, source.len()) };
}

/// Reads files whole, in pieces, around the page cache, some in flight, and shows `visit` each piece before its memory is read
/// into again; gives the bytes.
///
/// # Errors
///
/// What the operating system gives.
pub fn ring_read(paths: &[PathBuf], mut visit: impl FnMut(&[u8])) -> Outcome<u64> {
    let mut reads = InFlight::new(PIECE_BYTES, DEPTH)?;
    let mut total = 0;
    for path in paths {
        let file = open_direct(path)?;
        let pieces = file.metadata()?.len() / PIECE_BYTES as u64;
        let mut is_filled = [false; DEPTH];
        for piece in 0..pieces {
            let slot = reads.free_slot()?;
            let bytes = reads.memory(slot);
            if std::mem::replace(&mut is_filled[slot], true) {
                visit(bytes);
            }
            let read = opcode::Read::new(
                types::Fd(file.as_raw_fd()),
                bytes.as_mut_ptr(),
                PIECE_BYTES as u32,
            )
            .offset(piece * PIECE_BYTES as u64)
            .build();
            // SAFETY: as for writes: nobody looks at the slot before it is free again, and all have finished below.
            unsafe { reads.submit(slot, read)? };
        }
        reads.finish()?;
        (0..DEPTH)
            .filter(|slot| is_filled[*slot])
            .for_each(|slot| visit(reads.memory(slot)));
        total += pieces * PIECE_BYTES as u64;
    }
    Ok(total)
}

/// One of all pages of 4 KiB of files of these lengths, by any number: which file, and where in it.
#[must_use]
pub fn page_at(lengths: &[u64], number: u64) -> (usize, u64) {
    let pages: u64 = lengths.iter().map(|length| length / PAGE_BYTES).sum();
    let mut page = number % pages.max(1);
    for (file, length) in lengths.iter().enumerate() {
        if page < length / PAGE_BYTES {
            return (file, page * PAGE_BYTES);
        }
        page -= length / PAGE_BYTES;
    }
    (0, 0)
}

/// Reads pages of 4 KiB at these places of files, around the page cache, so many in flight at once.
///
/// # Errors
///
/// What the operating system gives.
pub fn ring_read_pages(paths: &[PathBuf], places: &[(usize, u64)], in_flight: usize) -> Outcome<()> {
    let mut reads = InFlight::new(PAGE_BYTES as usize, in_flight)?;
    let files = paths
        .iter()
        .map(|path| open_direct(path))
        .collect::<std::io::Result<Vec<_>>>()?;
    for (file, position) in places {
        let slot = reads.free_slot()?;
        let page = reads.memory(slot).as_mut_ptr();
        let read = opcode::Read::new(types::Fd(files[*file].as_raw_fd()), page, PAGE_BYTES as u32)
            .offset(*position)
            .build();
        // SAFETY: as for writes: nobody looks at the slot before it is free again, and all have finished below.
        unsafe { reads.submit(slot, read)? };
    }
    reads.finish()
}

/// The slabs of a store that nobody writes to, mapped, with the places of their bodies.
#[derive(Debug)]
pub struct MappedSlabs {
    maps: Vec<Mmap>,
    /// Map, start and end of each body, by first offset.
    bodies: Vec<(usize, usize, usize)>,
}

/// The files of a store's slabs, in order.
///
/// # Errors
///
/// What the operating system gives.
pub fn slab_files(store: &Path) -> Outcome<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(store.join("segments"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "slabs") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

impl MappedSlabs {
    /// Maps the store's segments of slabs and finds the bodies of its one log.
    ///
    /// # Errors
    ///
    /// What the operating system gives.
    pub fn open(store: &Path) -> Outcome<Self> {
        let mut maps = Vec::new();
        let mut bodies = Vec::new();
        for path in slab_files(store)? {
            let file = File::open(&path)?;
            // SAFETY: the store is closed or only read, and its files never shrink.
            let map = unsafe { Mmap::map(&file)? };
            let Found::Valid(header) = SegmentHeader::decode(&map, None) else {
                return Err(format!("{} has no header", path.display()).into());
            };
            for scanned in scan(&map, &header) {
                let Some(found) = scanned.found.valid() else {
                    continue;
                };
                if found.kind != BlockKind::Slab {
                    continue;
                }
                let start = scanned.position.get() as usize;
                let slab = SlabLayout::parse(&map[start..], &header.place(scanned.position));
                let Found::Valid(layout) = slab else {
                    return Err("a slab does not parse".into());
                };
                // The names of logs are in slabs that are of no log.
                if layout.log() == NO_LOG {
                    continue;
                }
                let end = start + layout.body_end() as usize;
                bodies.push((
                    layout.first_offset().get(),
                    (maps.len(), start + SLAB_BODY_POSITION, end),
                ));
            }
            maps.push(map);
        }
        bodies.sort_unstable();
        Ok(MappedSlabs {
            maps,
            bodies: bodies.into_iter().map(|(_, body)| body).collect(),
        })
    }

    /// Calls `visit` with each value, found in the barest way: a length, and the next one behind it.
    #[inline]
    pub fn walk(&self, mut visit: impl FnMut(&[u8])) {
        for (map, start, end) in &self.bodies {
            let mut rest = &self.maps[*map][*start..*end];
            while let Some((header, body)) = rest.split_first_chunk::<8>() {
                let length = (u64::from_le_bytes(*header) & u64::from(u32::MAX)) as usize;
                visit(&body[..length]);
                rest = &body[length.next_multiple_of(8)..];
            }
        }
    }

    /// Where each value begins, in order.
    #[must_use]
    pub fn positions(&self) -> Vec<&[u8]> {
        let mut found = Vec::new();
        for (map, start, end) in &self.bodies {
            let mut rest = &self.maps[*map][*start..*end];
            while let Some((header, body)) = rest.split_first_chunk::<8>() {
                let length = (u64::from_le_bytes(*header) & u64::from(u32::MAX)) as usize;
                found.push(&body[..length]);
                rest = &body[length.next_multiple_of(8)..];
            }
        }
        found
    }
}

/// Has the kernel forget the cached pages of these files.
///
/// # Errors
///
/// What the operating system gives.
pub fn drop_caches(paths: &[PathBuf]) -> Outcome<()> {
    for path in paths {
        let file = File::open(path)?;
        file.sync_all()?;
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    }
    // Allowed to few; the advice above does where no map holds the pages.
    let _ = std::fs::write("/proc/sys/vm/drop_caches", "1");
    Ok(())
}

/// How many bytes of these files the page cache has. Touches none of them.
///
/// # Errors
///
/// What the operating system gives.
pub fn cached_bytes(paths: &[PathBuf]) -> Outcome<u64> {
    let page = rustix::param::page_size();
    let mut cached = 0;
    for path in paths {
        let file = File::open(path)?;
        // SAFETY: nothing is read of the map; whether the file changes does not matter.
        let map = unsafe { Mmap::map(&file)? };
        let mut pages = vec![0u8; map.len().div_ceil(page)];
        // SAFETY: the range is that of the map, and `pages` has a byte for each page of it, as the call demands.
        let answer = unsafe { libc::mincore(map.as_ptr().cast_mut().cast(), map.len(), pages.as_mut_ptr()) };
        if answer != 0 {
            return Err(io::Error::last_os_error().into());
        }
        cached += pages.iter().filter(|state| **state & 1 != 0).count() * page;
    }
    Ok(cached as u64)
}
