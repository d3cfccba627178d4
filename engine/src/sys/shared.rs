//! A small file of 64-bit words that several processes map, write and read at once.
#![allow(
    unsafe_code,
    reason = "Words shared with other processes are reached through raw memory."
)]

use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use memmap2::{MmapOptions, MmapRaw};

use super::file::KernelFile;
use super::guard::RangeGuard;

/// The most words a table may have: 1 MiB, far above what a table of readers needs.
const WORDS_MAX: usize = 131_072;

/// The mapped words. Every access is atomic, so that other processes may store at any time.
///
/// Where they are guarded and the page is lost, the words become words of this process alone, beginning at zero.
pub(crate) struct SharedWords {
    /// Declared first: it is gone before the map is.
    _guard: Option<RangeGuard>,
    map: MmapRaw,
    words: usize,
    file: Arc<KernelFile>,
}

impl SharedWords {
    /// Maps the first `words` words of the file, reserving their blocks first: a store through a map into a hole of a
    /// full disk would kill the process.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for no words or too many, `StorageFull`, or what else the kernel answers.
    pub(crate) fn new(file: Arc<KernelFile>, words: usize, guarded: bool) -> io::Result<Self> {
        if words == 0 || words > WORDS_MAX {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let length = words * size_of::<u64>();
        // Once is enough: on a full disk some file systems refuse to reserve again what a file has.
        if file.bytes()? < length as u64 {
            file.reserve(0..length as u64)?;
        }
        let map = MmapOptions::new().len(length).map_raw(file.buffered())?;
        let guard = if guarded {
            Some(RangeGuard::new(
                map.as_ptr().addr(),
                length,
                Arc::clone(&file),
                true,
            )?)
        } else {
            None
        };
        Ok(Self {
            _guard: guard,
            map,
            words,
            file,
        })
    }

    /// The number of words.
    pub(crate) fn words(&self) -> usize {
        self.words
    }

    /// The word at `index`.
    pub(crate) fn word(&self, index: usize) -> Option<&AtomicU64> {
        if index >= self.words {
            return None;
        }
        let word = self.map.as_mut_ptr().cast::<u64>().wrapping_add(index);
        // SAFETY: the index was checked against the mapped words, the map begins on a page so that every word is
        // aligned, it is mapped writable for as long as `self` lives, and all access in this program is atomic. Other
        // processes use the same words with atomic instructions. If somebody cuts the file short, the guard lays a
        // page of our own under the words; without one the touch ends the process and reads nothing.
        Some(unsafe { AtomicU64::from_ptr(word) })
    }

    /// The descriptor that carries the locks.
    pub(crate) fn descriptor(&self) -> std::os::fd::BorrowedFd<'_> {
        self.file.buffered().as_fd()
    }
}

impl fmt::Debug for SharedWords {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("SharedWords")
            .field("words", &self.words)
            .finish()
    }
}
