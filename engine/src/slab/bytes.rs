//! The bytes of one slab, wherever they are.
//!
//! Invariant: bytes behind a [`SlabBytes`] never change while it lives. A window lies over a map that nobody
//! writes, and a copy is our own.

use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use lanterman_format::weakened;

use crate::disk::{Advice, Mapping};
use crate::segment::Window;
use crate::sys::guard;
use crate::sys::map::MappedPart;

/// A range of at most so many bytes is asked of the kernel by itself, without what lies around it.
const SMALL_BYTES: usize = 16 << 10;

/// Memory that can be lent for as long as somebody counts it.
pub(crate) type SharedMemory = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// Where the bytes of a slab are, which says how long they may be kept and how far they are to be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SlabMemory {
    /// A window of a mapped segment: costs no memory of ours, but a touch may fail and a page may be stale.
    Mapped,
    /// A copy read from the disk: costs memory, so whoever keeps it must have a budget.
    Copied,
}

/// The bytes of one slab, from its header to its last block byte. Cloning counts an owner and copies nothing.
#[derive(Clone)]
pub(crate) struct SlabBytes {
    memory: Memory,
    /// The slab in the memory; the constructors checked that it is inside.
    start: usize,
    end: usize,
}

#[derive(Clone)]
enum Memory {
    /// A map.
    Map {
        part: MappedPart,
        /// Tells the segment, for as long as it lives, that somebody looks at this part of it.
        _window: Option<Arc<Window>>,
    },
    Copy(SharedMemory),
    /// Passes for a map of which the range `broken` cannot be brought in.
    #[cfg(test)]
    Pretended {
        owner: SharedMemory,
        broken: Range<usize>,
    },
}

impl SlabBytes {
    /// A window of a mapped segment, or `None` where `range` is not inside the map.
    pub(crate) fn window(
        map: Arc<Mapping>,
        range: Range<usize>,
        window: Option<Arc<Window>>,
    ) -> Option<Self> {
        let part = MappedPart::new(map, range.clone())?;
        Some(Self {
            memory: Memory::Map {
                part,
                _window: window,
            },
            start: range.start,
            end: range.end,
        })
    }

    /// A copy read from the disk, or `None` where `range` is not inside `owner`. The slab must begin at an
    /// address that is a multiple of eight if values are to be aligned.
    pub(crate) fn copied(owner: SharedMemory, range: Range<usize>) -> Option<Self> {
        Self::of_owner(Memory::Copy(owner), range)
    }

    /// Memory that passes for a window of a map, for tests of what is done about maps. Of `broken`, bytes of the
    /// slab, the kernel says that it cannot be brought in.
    #[cfg(test)]
    pub(crate) fn window_of_memory(owner: SharedMemory, broken: Range<usize>) -> Option<Self> {
        let range = 0..(*owner).as_ref().len();
        Self::of_owner(Memory::Pretended { owner, broken }, range)
    }

    fn of_owner(memory: Memory, range: Range<usize>) -> Option<Self> {
        memory.slice(range.clone())?;
        Some(Self {
            memory,
            start: range.start,
            end: range.end,
        })
    }

    /// The bytes. Two loads for a window.
    #[inline]
    pub(crate) fn as_slice(&self) -> &[u8] {
        // An owner that answers otherwise than when it was asked first gets nothing read.
        self.memory.slice(self.start..self.end).unwrap_or_default()
    }

    /// The bytes `part` counted by themselves, or `None` if they are none of these.
    pub(crate) fn part(&self, part: &[u8]) -> Option<Self> {
        let (whole, wanted) = (self.as_slice().as_ptr_range(), part.as_ptr_range());
        if wanted.start < whole.start || wanted.end > whole.end {
            return None;
        }
        let skip = wanted.start.addr().checked_sub(whole.start.addr())?;
        let start = self.start.checked_add(skip)?;
        let end = start.checked_add(part.len())?;
        if let Memory::Map {
            part,
            _window: window,
        } = &self.memory
        {
            return Self::window(Arc::clone(part.map()), start..end, window.clone());
        }
        Some(Self {
            memory: self.memory.clone(),
            start,
            end,
        })
    }

    /// How many bytes there are.
    pub(crate) fn len(&self) -> usize {
        self.end.saturating_sub(self.start)
    }

    /// What kind of memory this is.
    pub(crate) fn memory(&self) -> SlabMemory {
        match &self.memory {
            Memory::Map { .. } => SlabMemory::Mapped,
            Memory::Copy(_) => SlabMemory::Copied,
            #[cfg(test)]
            Memory::Pretended { .. } => SlabMemory::Mapped,
        }
    }

    /// Has the system begin to read `range` (bytes of the slab), for who prepares it soon. A hint; refused, it costs speed only.
    pub(crate) fn announce(&self, range: Range<usize>) {
        if let Memory::Map { part, .. } = &self.memory {
            let _advised = part.map().advise(self.in_memory(range), Advice::WillNeed);
        }
    }

    /// Brings `range` (bytes of the slab) into memory before its first touch, because asking the kernel gives an
    /// error where a bare touch of a page that cannot be read is a signal. Does nothing for memory of our own.
    ///
    /// # Errors
    ///
    /// The kernel's error if the range cannot be read: the device failed, or others cut the file short.
    pub(crate) fn prepare(&self, range: Range<usize>) -> io::Result<()> {
        let Range { start: from, end: to } = self.in_memory(range);
        if from >= to {
            return Ok(());
        }
        match &self.memory {
            Memory::Map { part, .. } => {
                let map = part.map();
                if to.saturating_sub(from) <= SMALL_BYTES {
                    // Asks for just these pages: a fault would read around itself, which costs a random reader all but
                    // a twentieth of what the device gives. Refused advice costs speed only.
                    let _advised = map.advise(from..to, Advice::WillNeed);
                }
                map.populate(from..to)
            }
            Memory::Copy(_) => Ok(()),
            #[cfg(test)]
            Memory::Pretended { broken, .. } if from < broken.end && to > broken.start => {
                Err(io::Error::from_raw_os_error(libc::EFAULT))
            }
            #[cfg(test)]
            Memory::Pretended { .. } => Ok(()),
        }
    }
}

impl SlabBytes {
    /// Whether bytes of `range` (bytes of the slab) were lost under the map and are zeros since. To be asked *after* they
    /// were looked at; one load as long as this process never lost a page.
    #[inline]
    pub(crate) fn is_lost(&self, range: Range<usize>) -> bool {
        guard::any_lost() && self.is_lost_in_map(range)
    }

    #[cold]
    fn is_lost_in_map(&self, range: Range<usize>) -> bool {
        match &self.memory {
            Memory::Map { part, .. } => {
                !weakened!("loss-unasked") && part.map().is_lost(self.in_memory(range))
            }
            _ => false,
        }
    }

    /// Whether anything was lost in the map that the slab is in.
    #[inline]
    pub(crate) fn has_losses(&self) -> bool {
        match &self.memory {
            Memory::Map { part, .. } => part.map().has_losses(),
            _ => false,
        }
    }

    /// Why bytes of `range` were lost.
    pub(crate) fn why_lost(&self, range: Range<usize>) -> io::Error {
        match &self.memory {
            Memory::Map { part, .. } => part.map().why_lost(&self.in_memory(range)),
            _ => io::ErrorKind::Other.into(),
        }
    }

    /// The file that they are mapped from.
    pub(crate) fn path(&self) -> Option<std::path::PathBuf> {
        match &self.memory {
            Memory::Map { part, .. } => part.map().path(),
            _ => None,
        }
    }

    fn in_memory(&self, range: Range<usize>) -> Range<usize> {
        let from = self.start.saturating_add(range.start).min(self.end);
        from..self.start.saturating_add(range.end).min(self.end)
    }

    /// Where `part` begins in the slab, if it is of these bytes.
    pub(crate) fn position_of(&self, part: &[u8]) -> Option<usize> {
        let whole = self.as_slice().as_ptr_range();
        let inside = whole.contains(&part.as_ptr());
        inside
            .then(|| part.as_ptr().addr().checked_sub(whole.start.addr()))
            .flatten()
    }
}

impl Memory {
    /// The bytes of `range`, which of a map is that of its part.
    #[inline]
    fn slice(&self, range: Range<usize>) -> Option<&[u8]> {
        match self {
            Self::Map { part, .. } => Some(part.as_slice()),
            Self::Copy(owner) => (**owner).as_ref().get(range),
            #[cfg(test)]
            Self::Pretended { owner, .. } => (**owner).as_ref().get(range),
        }
    }
}

impl AsRef<[u8]> for SlabBytes {
    fn as_ref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl fmt::Debug for SlabBytes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("SlabBytes")
            .field("memory", &self.memory())
            .field("bytes", &self.len())
            .finish()
    }
}
