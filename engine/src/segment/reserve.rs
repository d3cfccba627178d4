//! Room that is kept back for making room: a spare file that no append gets.
//!
//! On a full disk a deletion needs a commit, and giving back what it leaves needs checkpoints and slabs written anew. For
//! these, and for nothing else, the reserve is given up: its file is removed, and what is written takes its place. Until
//! there is room for another reserve, new segments for anything else find the disk full, so that appends do not take what
//! was freed.
//!
//! The reserve is an ordinary spare that has never been a segment: an opening finds it again by that, and a version of the
//! format that knows nothing of it uses it as a spare.

use std::cell::Cell;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use lanterman_format::ids::{Generation, SegmentId};
use lanterman_format::weakened;

use super::sizes::{bytes_for_block, small_segment_bytes};
use super::{FIRST_BLOCK_POSITION, SegmentFile, SegmentTable, Spare, SpareFor};
use crate::error::{Error, Result};

/// A reserve smaller than this helps nobody, and a store that would have one is small.
const RESERVE_BYTES_MIN: u64 = 256 << 10;
/// A store has so many times the bytes of its reserve at least.
const STORE_TO_RESERVE: u64 = 16;

thread_local! {
    /// How many calls of this thread, one in the other, make room.
    static MAKING_ROOM: Cell<u32> = const { Cell::new(0) };
}

/// While it lives, segments that this thread makes may take the place of the reserve.
#[derive(Debug)]
pub(crate) struct MakingRoom(());

impl MakingRoom {
    pub(crate) fn begin() -> Self {
        MAKING_ROOM.with(|depth| depth.set(depth.get().saturating_add(1)));
        MakingRoom(())
    }

    fn is_going_on() -> bool {
        MAKING_ROOM.with(Cell::get) > 0 && !weakened!("reserve-untouchable")
    }
}

impl Drop for MakingRoom {
    fn drop(&mut self) {
        MAKING_ROOM.with(|depth| depth.set(depth.get().saturating_sub(1)));
    }
}

/// The reserve of a store.
#[derive(Debug, Default)]
pub(super) struct Reserve {
    /// How large it should be; 0 while the store needs none.
    wanted: u64,
    file: Option<Spare>,
}

impl Reserve {
    /// Whether one is wanted and there is none.
    fn is_used_up(&self) -> bool {
        self.wanted > 0 && self.file.is_none()
    }
}

impl SegmentTable {
    /// Sees to a reserve of `most` bytes, or a part of that in a small store. A full disk is no error: then there is none.
    pub(crate) fn keep_reserve(&self, most: u64) {
        self.find_reserve(most);
        self.enlarge(&mut self.reserve.lock());
    }

    /// Notes how large the reserve should be, and takes the one that an earlier opening of the store has left.
    pub(crate) fn find_reserve(&self, most: u64) {
        let slabs: u64 = self
            .known_slabs()
            .iter()
            .map(|known| known.segment_bytes.get())
            .sum();
        let wanted = most.min(slabs / STORE_TO_RESERVE);
        // By doubling, so that a store that grows does not make a new one all the time.
        let wanted = if wanted < RESERVE_BYTES_MIN {
            0
        } else {
            most.min(wanted.next_power_of_two())
        };
        let mut reserve = self.reserve.lock();
        reserve.wanted = reserve.wanted.max(wanted);
        if reserve.is_used_up() {
            reserve.file = self.take_unused_spare();
        }
        self.note(&reserve);
    }

    /// Tells those who only ask; after each change.
    fn note(&self, reserve: &Reserve) {
        self.reserve_used_up
            .store(reserve.is_used_up(), Ordering::Release);
    }

    /// A spare that has never been a segment, large enough to be a reserve: the largest one, which is the newest as a rule.
    fn take_unused_spare(&self) -> Option<Spare> {
        let serves = |spare: &Spare| spare.serves == SpareFor::Anything && spare.bytes >= RESERVE_BYTES_MIN;
        let mut spares = self.spares.lock();
        // Headers are read one by one, each from the device, so the likely ones first.
        spares.sort_by_key(|spare| std::cmp::Reverse(spare.bytes));
        let index = spares
            .iter_mut()
            .position(|spare| serves(spare) && self.generation_of(spare) == Generation::new(0))?;
        Some(spares.swap_remove(index))
    }

    /// Makes the reserve that is wanted, if there is none; says whether there is one.
    fn restore(&self, reserve: &mut Reserve) -> bool {
        // One that is too small is replaced by a checkpoint.
        if !reserve.is_used_up() {
            return true;
        }
        self.enlarge(reserve)
    }

    /// Makes a reserve of the length that is wanted, in the place of a smaller one.
    fn enlarge(&self, reserve: &mut Reserve) -> bool {
        let has = reserve.file.as_ref().map_or(0, |file| file.bytes);
        if has >= reserve.wanted {
            return true;
        }
        let make = || {
            let id = self.take_segment_number()?;
            // Nothing is synced: a reserve that a power cut takes is made anew.
            let path = self.reserve_new(id, reserve.wanted)?;
            Ok(Spare {
                path,
                bytes: reserve.wanted,
                generation: Some(Generation::new(0)),
                serves: SpareFor::Anything,
            })
        };
        match make() {
            Ok(file) => {
                if let Some(smaller) = reserve.file.replace(file) {
                    self.spares.lock().push(smaller);
                }
            }
            Err(Error::StorageFull { .. }) => {}
            Err(error) => tracing::warn!(%error, "no reserve could be made for a full disk"),
        }
        self.note(reserve);
        // A smaller one from when the store was smaller is one too.
        reserve.file.is_some()
    }

    /// A new file of `bytes`; a smaller one for a block of `block_bytes`, in the place of the reserve, if the disk is full and
    /// room is being made. Gives its path and length.
    pub(super) fn reserve_room(&self, id: SegmentId, bytes: u64, block_bytes: u64) -> Result<(PathBuf, u64)> {
        let mut reserve = self.reserve.lock();
        if !MakingRoom::is_going_on() {
            self.check(&mut reserve)?;
            return Ok((self.reserve_new(id, bytes)?, bytes));
        }
        // With the reserve used up already, there is no room for more than what is needed.
        if !reserve.is_used_up() {
            match self.reserve_new(id, bytes) {
                Err(Error::StorageFull { .. }) => {}
                made => return Ok((made?, bytes)),
            }
            if let Some(file) = reserve.file.take() {
                self.note(&reserve);
                self.disk
                    .unlink(&file.path)
                    .map_err(|source| Error::io("remove", &file.path, source))?;
                tracing::warn!(path = %file.path.display(), bytes = file.bytes, "the disk is full: the reserve is used to make room");
            }
        }
        let small = small_segment_bytes(block_bytes).min(bytes);
        match self.reserve_new(id, small) {
            Err(Error::StorageFull { .. }) => {}
            made => return Ok((made?, small)),
        }
        let least = bytes_for_block(block_bytes).min(bytes);
        Ok((self.reserve_new(id, least)?, least))
    }

    /// Has the blocks of a segment that an earlier life gave back reserved again, from `from` up to `wanted`, or only up to `end`
    /// where there is not room for more, or where room is being made; says up to where.
    ///
    /// # Errors
    /// [`Error::StorageFull`], for those who make no room also while the reserve is used up.
    pub(super) fn reserve_again(
        &self,
        segment: &SegmentFile,
        from: u64,
        end: u64,
        wanted: u64,
    ) -> Result<u64> {
        let mut reserve = self.reserve.lock();
        if !MakingRoom::is_going_on() {
            self.check(&mut reserve)?;
            match segment.reserve(from..wanted) {
                Err(Error::StorageFull { .. }) => {}
                reserved => return reserved.map(|()| wanted),
            }
        }
        segment.reserve(from..end).map(|()| end)
    }

    /// Fails while the reserve is used up and cannot be had again, for what takes memory now and room later. Takes no lock
    /// otherwise: an append asks for each chunk, and the lock is held while the blocks of a new segment are reserved.
    ///
    /// # Errors
    /// [`Error::StorageFull`].
    pub(crate) fn check_reserve(&self) -> Result<()> {
        if !self.reserve_used_up.load(Ordering::Acquire) {
            return Ok(());
        }
        self.check(&mut self.reserve.lock())
    }

    fn check(&self, reserve: &mut Reserve) -> Result<()> {
        if self.restore(reserve) || weakened!("reserve-for-everybody") {
            return Ok(());
        }
        let full = io::Error::from(io::ErrorKind::StorageFull);
        Err(Error::io("keep a reserve in", &self.directory, full))
    }

    /// Whether the reserve was used and there is none since.
    pub(crate) fn is_reserve_used_up(&self) -> bool {
        self.reserve.lock().is_used_up()
    }

    /// Whether new segments of `bytes` together find room, if the reserve may be used for them.
    ///
    /// # Errors
    /// The system's errors, but for a full disk, which is an answer.
    pub(crate) fn has_room(&self, bytes: u64) -> Result<bool> {
        let reserve = self.reserve.lock();
        let has = reserve.file.as_ref().map_or(0, |file| file.bytes);
        let missing = bytes.saturating_sub(has);
        if missing == 0 {
            return Ok(true);
        }
        // Only a reservation tells for sure: what a file system calls free has quotas and metadata of its own in it. A power cut
        // may bring the file back, as a spare, so it is as long as one may be.
        let missing = missing.next_multiple_of(FIRST_BLOCK_POSITION);
        match self.reserve_new(self.take_segment_number()?, missing) {
            Ok(path) => {
                let removed = self.disk.unlink(&path);
                removed.map_err(|source| Error::io("remove", &path, source))?;
                Ok(true)
            }
            Err(Error::StorageFull { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Tries to have a reserve again, when room was made.
    pub(crate) fn restore_reserve(&self) {
        self.restore(&mut self.reserve.lock());
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::sync::{Arc, mpsc};
    use std::time::Duration;

    use lanterman_format::ids::StoreId;

    use super::*;
    use crate::disk::{SystemDisk, SystemOptions};

    #[test]
    fn who_asks_whether_there_is_a_reserve_does_not_wait_for_a_file_that_is_being_made() {
        let directory = tempfile::tempdir().unwrap();
        let disk = SystemDisk::new(SystemOptions::for_tests()).unwrap();
        let store = StoreId::from_bytes([1; 16]);
        let table = Arc::new(SegmentTable::new(Arc::new(disk), directory.path(), store, true));
        let making = table.reserve.lock();
        let (tell, told) = mpsc::channel();
        let asked = Arc::clone(&table);
        let asking = std::thread::spawn(move || tell.send(asked.check_reserve().is_ok()));
        // Not a bound of what it may take, but the end of waiting for who waits for us.
        let answer = told.recv_timeout(Duration::from_secs(20));
        drop(making);
        asking.join().unwrap().unwrap();
        assert_eq!(answer, Ok(true));
    }
}
