//! Ranges of maps that stay readable when the pages behind them are lost.
//!
//! A page of a mapped file that cannot be had any more, because the device failed or somebody cut the file short, ends
//! the process at the next touch. A map with a [`RangeGuard`] does not: the handler of [`super::bus_error`] lays zeros
//! over what is lost and notes it here, *before* the first thread can see a zero. So whoever looks at bytes first and
//! at the note afterwards ([`any_lost`], then [`RangeGuard::is_lost`]) never takes zeros for what was written.
//!
//! The handler may interrupt any code. So the table of ranges is made of atomics alone: slots in blocks that are never
//! freed, each slot with a sequence number that is odd while the slot changes. The handler skips a slot in change and
//! needs not wait for it: whoever touches a map borrows it, so the slot of a range that faults does not change.
#![allow(
    unsafe_code,
    reason = "The table is reached from a signal handler, through pointers and atomics alone."
)]

use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering, fence};

use lanterman_format::weakened;
use rustix::mm::{MapFlags, ProtFlags};

use super::file::KernelFile;
use super::{PAGE_BYTES, bus_error};

const SLOTS: usize = 64;
const BITS: usize = u64::BITS as usize;

/// Whether a page of any map of this process was ever lost. Alone in its cache line, since every reader looks at it.
#[repr(align(64))]
struct AnyLost(AtomicBool);

static ANY_LOST: AnyLost = AnyLost(AtomicBool::new(false));

static FIRST: Block = Block::new();

struct Block {
    slots: [Slot; SLOTS],
    next: AtomicPtr<Block>,
}

/// A range of addresses and what is known of it. Free while `taken` is not set.
struct Slot {
    taken: AtomicBool,
    /// Odd while the three fields below change.
    sequence: AtomicU64,
    start: AtomicUsize,
    end: AtomicUsize,
    losses: AtomicPtr<Losses>,
}

/// What was lost of one map.
struct Losses {
    any: AtomicBool,
    /// The bytes from here on are lost: the file ended here when a page behind its end was touched.
    end: AtomicUsize,
    /// A bit for each page of [`PAGE_BYTES`].
    pages: Box<[AtomicU64]>,
    file: RawFd,
    writable: bool,
    /// A deliberate defect of tests, decided where a lock may be taken: lost pages are not noted.
    silent: bool,
}

/// Takes the signals of one map, until it is dropped. It must be dropped before the map is unmapped, and it keeps the
/// file open, whose length the handler asks for.
pub(super) struct RangeGuard {
    slot: &'static Slot,
    /// Counted, and not boxed, since the handler reaches it through the slot while we own it.
    losses: Arc<Losses>,
    _file: Arc<KernelFile>,
}

/// Whether any page was ever lost in this process: one load, to be made *after* the bytes were looked at.
#[inline]
pub(crate) fn any_lost() -> bool {
    // Pairs with the release fence of the handler: who has read a zero that the handler laid there sees its note.
    fence(Ordering::Acquire);
    ANY_LOST.0.load(Ordering::Relaxed)
}

/// What is lost of the memory of `bytes`, wherever they come from: the path of the file, and the position in it.
pub(crate) fn place_of_loss(bytes: &[u8]) -> Option<Loss> {
    if !any_lost() || weakened!("kept-unasked") {
        return None;
    }
    let start = bytes.as_ptr().addr();
    let found = find(start)?;
    // SAFETY: the bytes are borrowed from the map that this slot describes, so its guard, which owns the losses, lives.
    let losses = unsafe { &*found.losses };
    let from = start - found.start;
    losses
        .is_lost(from, from.saturating_add(bytes.len()))
        .then_some(Loss {
            file: losses.file,
            position: from as u64,
        })
}

/// A place of a file whose bytes were lost while they were mapped.
pub(crate) struct Loss {
    file: RawFd,
    /// Where the bytes that were asked about begin in the file.
    pub(crate) position: u64,
}

impl Loss {
    /// Where the file is now, as far as the system says.
    pub(crate) fn path(&self) -> std::path::PathBuf {
        path_of(self.file)
    }
}

/// The name of an open file, for messages to people. Empty where the system does not show it.
pub(super) fn path_of(file: RawFd) -> std::path::PathBuf {
    std::fs::read_link(format!("/proc/self/fd/{file}")).unwrap_or_default()
}

impl RangeGuard {
    /// Guards the `bytes` mapped at `start`.
    ///
    /// # Errors
    ///
    /// What the kernel answers when the handler of the process is to be installed.
    pub(super) fn new(
        start: usize,
        bytes: usize,
        file: Arc<KernelFile>,
        writable: bool,
    ) -> std::io::Result<Self> {
        bus_error::install()?;
        let words = bytes.div_ceil(PAGE_BYTES).div_ceil(BITS);
        let losses = Arc::new(Losses {
            any: AtomicBool::new(false),
            end: AtomicUsize::new(usize::MAX),
            pages: (0..words).map(|_| AtomicU64::new(0)).collect(),
            file: file.buffered().as_raw_fd(),
            writable,
            silent: weakened!("lost-page-unnoted"),
        });
        let slot = take_slot();
        slot.change(start, start.saturating_add(bytes), Arc::as_ptr(&losses));
        Ok(Self {
            slot,
            losses,
            _file: file,
        })
    }

    /// Whether anything of the map was lost.
    #[inline]
    pub(super) fn has_losses(&self) -> bool {
        self.losses.any.load(Ordering::Relaxed)
    }

    /// Whether bytes `from..to` of the map are lost, in part at least.
    pub(super) fn is_lost(&self, from: usize, to: usize) -> bool {
        any_lost() && self.losses.is_lost(from, to)
    }
}

impl Drop for RangeGuard {
    fn drop(&mut self) {
        if weakened!("range-never-removed") {
            // Kept, so that the defect is a stale range and not a stale pointer.
            std::mem::forget(Arc::clone(&self.losses));
            return;
        }
        self.slot.change(0, 0, ptr::null());
        self.slot.taken.store(false, Ordering::Release);
    }
}

impl Losses {
    fn is_lost(&self, from: usize, to: usize) -> bool {
        if !self.any.load(Ordering::Relaxed) || from >= to {
            return false;
        }
        let is_page_lost = |page: usize| {
            let word = self.pages.get(page / BITS);
            word.is_some_and(|word| word.load(Ordering::Relaxed) & (1 << (page % BITS)) != 0)
        };
        to > self.end.load(Ordering::Relaxed)
            || (from / PAGE_BYTES..to.div_ceil(PAGE_BYTES)).any(is_page_lost)
    }

    fn note_pages(&self, from: usize, to: usize) {
        for page in from / PAGE_BYTES..to.div_ceil(PAGE_BYTES) {
            if let Some(word) = self.pages.get(page / BITS) {
                word.fetch_or(1 << (page % BITS), Ordering::Relaxed);
            }
        }
        self.any.store(true, Ordering::Relaxed);
    }

    fn note_end(&self, end: usize) {
        self.end.fetch_min(end, Ordering::Relaxed);
        self.any.store(true, Ordering::Relaxed);
    }
}

impl Slot {
    const fn free() -> Self {
        Self {
            taken: AtomicBool::new(false),
            sequence: AtomicU64::new(0),
            start: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            losses: AtomicPtr::new(ptr::null_mut()),
        }
    }

    fn change(&self, start: usize, end: usize, losses: *const Losses) {
        // Only the one who took the slot changes it.
        let sequence = self.sequence.load(Ordering::Relaxed);
        self.sequence.store(sequence.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        self.start.store(start, Ordering::Relaxed);
        self.end.store(end, Ordering::Relaxed);
        self.losses.store(losses.cast_mut(), Ordering::Relaxed);
        self.sequence.store(sequence.wrapping_add(2), Ordering::Release);
    }

    /// The range, unless it does not hold `address` or is being changed.
    fn holding(&self, address: usize) -> Option<Found> {
        let sequence = self.sequence.load(Ordering::Acquire);
        let found = Found {
            start: self.start.load(Ordering::Relaxed),
            end: self.end.load(Ordering::Relaxed),
            losses: self.losses.load(Ordering::Relaxed),
        };
        fence(Ordering::Acquire);
        let is_stable = sequence.is_multiple_of(2) && self.sequence.load(Ordering::Relaxed) == sequence;
        (is_stable && (found.start..found.end).contains(&address)).then_some(found)
    }
}

impl Block {
    const fn new() -> Self {
        Self {
            slots: [const { Slot::free() }; SLOTS],
            next: AtomicPtr::new(ptr::null_mut()),
        }
    }

    fn next(&self) -> Option<&'static Block> {
        let next = self.next.load(Ordering::Acquire);
        // SAFETY: what stands here came from a box that was leaked when it was put here, and it is never taken away.
        unsafe { next.as_ref() }
    }

    /// The block behind this one, which is made if there is none.
    fn next_or_new(&self) -> &'static Block {
        if let Some(next) = self.next() {
            return next;
        }
        let made = Box::into_raw(Box::new(Block::new()));
        let placed = self
            .next
            .compare_exchange(ptr::null_mut(), made, Ordering::AcqRel, Ordering::Acquire);
        match placed {
            // SAFETY: the block was made above, is leaked from here on, and only shared references to it exist.
            Ok(_) => unsafe { &*made },
            Err(other) => {
                // SAFETY: it came from a box above and nobody else has seen it.
                drop(unsafe { Box::from_raw(made) });
                // SAFETY: as in `next`: what stands there is leaked.
                unsafe { &*other }
            }
        }
    }
}

struct Found {
    start: usize,
    end: usize,
    losses: *const Losses,
}

fn find(address: usize) -> Option<Found> {
    let mut block = Some(&FIRST);
    while let Some(current) = block {
        if let Some(found) = current.slots.iter().find_map(|slot| slot.holding(address)) {
            return Some(found);
        }
        block = current.next();
    }
    None
}

fn take_slot() -> &'static Slot {
    let mut block = &FIRST;
    loop {
        let free = block.slots.iter().find(|slot| {
            slot.taken
                .compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed)
                .is_ok()
        });
        match free {
            Some(slot) => return slot,
            None => block = block.next_or_new(),
        }
    }
}

/// Lays zeros over what is lost at `address`, if it is in a guarded map; says whether it did. Called by the handler, so
/// it takes no lock, allocates nothing and makes two system calls, which leave `errno` alone.
pub(super) fn absorb(address: usize, page_bytes: usize) -> bool {
    let Some(found) = find(address) else {
        return false;
    };
    // SAFETY: the thread that was interrupted touches this map, so it borrows it, and the guard, which owns the losses,
    // is dropped only when no borrow is left.
    let losses = unsafe { &*found.losses };
    let at = address - found.start;
    let page = at - at % page_bytes;
    let map_bytes = found.end - found.start;
    // SAFETY: the guard keeps the file open for as long as it lives.
    let file = unsafe { BorrowedFd::borrow_raw(losses.file) };
    // If nobody can tell the length, this page alone is known to be lost.
    let file_bytes =
        rustix::fs::fstat(file).map_or(usize::MAX, |found| usize::try_from(found.st_size).unwrap_or(0));
    let is_cut = file_bytes <= page;
    // Behind the end of the file every page is gone; one by one each would cost a signal.
    let (from, to) = if is_cut {
        (file_bytes.next_multiple_of(page_bytes), map_bytes)
    } else {
        (page, page.saturating_add(page_bytes))
    };
    if !losses.silent {
        if is_cut {
            losses.note_end(file_bytes);
        } else {
            losses.note_pages(from, to);
        }
        ANY_LOST.0.store(true, Ordering::Relaxed);
        // Noted first: whoever sees a zero must be able to see the note.
        fence(Ordering::Release);
    }
    if lay_zeros(found.start, from, to, losses.writable) {
        return true;
    }
    // The process has as many maps as it may have, so none can be split. All of this one can be replaced.
    losses.note_end(0);
    fence(Ordering::Release);
    lay_zeros(found.start, 0, map_bytes, losses.writable)
}

fn lay_zeros(start: usize, from: usize, to: usize, writable: bool) -> bool {
    let protection = if writable {
        ProtFlags::READ | ProtFlags::WRITE
    } else {
        ProtFlags::READ
    };
    let flags = MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE;
    let first = ptr::without_provenance_mut(start.saturating_add(from));
    // SAFETY: the range begins and ends on a page and lies within a map of ours, which is borrowed meanwhile (see
    // `absorb`); the last page may reach behind its length, as the map itself does. Slices that are lent over these bytes
    // stay readable; that their contents become zeros is what the note says, and only where reading would have ended the
    // process.
    let laid = unsafe { rustix::mm::mmap_anonymous(first, to.saturating_sub(from), protection, flags) };
    laid.is_ok()
}

#[cfg(test)]
mod tests {
    use super::super::file::{Choice, OpenMode, Sync};
    use super::super::map::{MapGrant, Mapping};
    use super::*;

    fn mapped(directory: &tempfile::TempDir, name: usize, bytes: usize) -> (std::path::PathBuf, Mapping) {
        let path = directory.path().join(name.to_string());
        let file = Arc::new(KernelFile::open(&path, OpenMode::CreateNew, Choice::Off).unwrap());
        file.write_at(0, &vec![1; bytes], Sync::No).unwrap();
        (
            path,
            Mapping::new(file, bytes as u64, MapGrant::for_tests()).unwrap(),
        )
    }

    fn cut(path: &std::path::Path, bytes: u64) {
        let mut command = std::process::Command::new("truncate");
        let status = command.arg("-s").arg(bytes.to_string()).arg(path).status();
        assert!(status.unwrap().success());
    }

    #[test]
    fn behind_the_end_of_a_cut_file_everything_is_lost_to_the_byte_and_nothing_before() {
        let directory = tempfile::tempdir().unwrap();
        let (path, map) = mapped(&directory, 0, 40_000);
        assert_eq!(map[..], [1; 40_000]);
        cut(&path, 9_000);
        assert!(!map.has_losses(), "nobody has touched what is gone");
        assert_eq!(map[20_000], 0);
        assert!(map.has_losses());
        assert!(!map.is_lost(0..9_000) && map.is_lost(0..9_001) && map.is_lost(8_999..9_001));
        assert!(map.is_lost(39_999..40_000) && !map.is_lost(20_000..20_000));
        assert_eq!(
            map.slice(0..9_000).unwrap(),
            [1; 9_000],
            "what is left of the file stays"
        );
        assert!(map.slice(9_000..40_000).unwrap().iter().all(|byte| *byte == 0));
        let lost = place_of_loss(&map[12_345..12_346]).unwrap();
        assert_eq!((lost.position, lost.path()), (12_345, path.clone()));
        assert!(place_of_loss(&map[..9_000]).is_none() && place_of_loss(&[1, 2, 3]).is_none());
        assert_eq!(
            map.populate(8_192..12_288).unwrap_err().kind(),
            std::io::ErrorKind::UnexpectedEof
        );
        // The zeros of ours could be brought in; they must not be.
        cut(&path, 40_000);
        assert!(map.populate(20_000..20_001).is_err());
        map.populate(0..8_192).unwrap();
    }

    #[test]
    fn a_page_that_fails_in_a_whole_file_is_lost_alone() {
        let directory = tempfile::tempdir().unwrap();
        let (_, map) = mapped(&directory, 0, 700 * PAGE_BYTES);
        let inside = map[300 * PAGE_BYTES + 17..].as_ptr().addr();
        assert!(absorb(inside, PAGE_BYTES), "the address is in a map of ours");
        for page in 0..700 {
            let range = page * PAGE_BYTES..(page + 1) * PAGE_BYTES;
            assert_eq!(map.is_lost(range.clone()), page == 300, "page {page}");
            assert_eq!(map[range.start], u8::from(page != 300));
        }
        assert!(map.is_lost(300 * PAGE_BYTES - 1..300 * PAGE_BYTES + 1));
    }

    #[test]
    fn more_maps_than_a_block_has_slots_are_all_found_and_none_after_it_went() {
        let directory = tempfile::tempdir().unwrap();
        for _ in 0..3 {
            let maps: Vec<_> = (0..SLOTS * 2 + 3)
                .map(|_| {
                    let name = directory.path().read_dir().unwrap().count();
                    mapped(&directory, name, PAGE_BYTES).1
                })
                .collect();
            let addresses: Vec<_> = maps.iter().map(|map| map.as_ptr().addr()).collect();
            for address in &addresses {
                let found = find(*address + 17).unwrap();
                assert_eq!((found.start, found.end), (*address, *address + PAGE_BYTES));
                assert!(find(*address - 1).is_none_or(|found| found.end == *address));
            }
            drop(maps);
            // Other tests of this process map files meanwhile, perhaps at the same addresses.
            let still = addresses
                .iter()
                .filter(|address| find(**address).is_some())
                .count();
            assert!(still < SLOTS, "{still} ranges are still there");
        }
    }
}
