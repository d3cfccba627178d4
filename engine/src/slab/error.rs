//! What can go wrong between a reference to a slab and a message of it.

use std::io;
use std::ops::Range;

use lanterman_format::{FormatError, Reference};

/// Why a slab, or a part of it, cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum SlabError {
    /// The store has no such segment, or it is in another life than the reference says.
    #[error("slab at position {position} of segment {segment:016x}: the store has no such segment",
        position = reference.position.get(), segment = reference.segment.get())]
    Missing {
        /// The slab that was asked for.
        reference: Box<Reference>,
    },
    /// The bytes are there by name, but the system could not give them.
    #[error("slab at position {position} of segment {segment:016x}: bytes {from}..{to} of it cannot be read",
        position = reference.position.get(), segment = reference.segment.get(), from = range.start, to = range.end)]
    Read {
        /// The slab that was asked for.
        reference: Box<Reference>,
        /// The bytes of the slab that were wanted.
        range: Range<usize>,
        /// What the system said.
        #[source]
        error: io::Error,
    },
    /// The bytes were read and are not what was written.
    #[error("{}", .0)]
    Damaged(#[source] Box<SlabDamage>),
    /// The reference says itself that the slab was lost, found so by an earlier repair.
    #[error("slab at position {position} of segment {segment:016x} was lost earlier",
        position = reference.position.get(), segment = reference.segment.get())]
    Lost {
        /// The slab that was asked for.
        reference: Box<Reference>,
    },
    /// The reference points to what this build cannot fetch: another storage, or no slab at all.
    #[error("the reference to position {position} of segment {segment:016x} is none to a slab in this store",
        position = reference.position.get(), segment = reference.segment.get())]
    NotHere {
        /// The reference as found.
        reference: Box<Reference>,
    },
    /// An offset was asked for that the slab does not have: what shows the slab and the slab itself contradict each other.
    #[error("slab at position {position} of segment {segment:016x} has {offset_count} offsets, and number {relative_offset} was asked for",
        position = reference.position.get(), segment = reference.segment.get())]
    Outside {
        /// The slab.
        reference: Box<Reference>,
        /// The offset asked for, counted from the slab's first.
        relative_offset: u64,
        /// How many the slab has.
        offset_count: u64,
    },
}

/// Which bytes of which slab are damaged, and what is wrong with them.
#[derive(Debug, thiserror::Error)]
#[error("slab at position {position} of segment {segment:016x} is damaged in its bytes {from}..{to}",
    position = reference.position.get(), segment = reference.segment.get(), from = range.start, to = range.end)]
pub(crate) struct SlabDamage {
    /// The damaged slab.
    pub(crate) reference: Reference,
    /// The checksum group that does not verify; `None` where it is the header, the index or a buffer in good bytes.
    pub(crate) group: Option<u32>,
    /// The bytes of the slab that must not be believed.
    pub(crate) range: Range<usize>,
    /// The rule that they break.
    #[source]
    pub(crate) error: FormatError,
}

impl SlabError {
    /// Damage of `range` of the slab.
    #[cold]
    pub(crate) fn damaged(
        reference: &Reference,
        group: Option<u32>,
        range: Range<usize>,
        error: FormatError,
    ) -> Self {
        Self::Damaged(Box::new(SlabDamage {
            reference: *reference,
            group,
            range,
            error,
        }))
    }

    /// A failed read of `range` of the slab.
    #[cold]
    pub(crate) fn read(reference: &Reference, range: Range<usize>, error: io::Error) -> Self {
        Self::Read {
            reference: Box::new(*reference),
            range,
            error,
        }
    }
}
