//! Where slabs get their bytes from.

use std::fmt::Debug;
use std::sync::Arc;

use lanterman_format::{Reference, StoreId};

use super::{OpenSlab, SlabBytes, SlabError};

/// Whether and how often the checksums of a slab's groups are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Verify {
    /// A group is checked at its first read and remembered for as long as the slab stays open. Pages that are lost later
    /// under a map are errors all the same; bytes that are zeroed without a fault are not seen.
    #[default]
    Once,
    /// Every read checks the groups it touches, before it lends anything of them.
    Always,
    /// No group is checked. The slab's header, index and checksum table still are, when it is opened.
    Never,
}

/// Gives bytes for references: the store, over its table of segments.
///
/// Both calls may block on the disk. They are made without any lock of this module held, from any thread, and for
/// one reference from several threads at a time.
pub(crate) trait SlabSource: Send + Sync + Debug {
    /// The store whose references these are. It is part of every checksum.
    fn store_id(&self) -> StoreId;

    /// The bytes of the block at `reference`, at least `reference.bytes` of them: a window of the mapped segment, or a copy where the store copies. The bytes are not
    /// checked, and a window must not be touched.
    ///
    /// # Errors
    ///
    /// [`SlabError::Missing`] if there is no such segment in that life or it ends before the block does,
    /// [`SlabError::Read`] if a copy could not be read.
    fn open(&self, reference: &Reference) -> Result<SlabBytes, SlabError>;

    /// A copy of the block at `reference` read by a system call, never through a map. It is asked for when bytes
    /// of a window do not verify, since a map may hold a page from before the block was written.
    ///
    /// # Errors
    ///
    /// As of [`open`](Self::open).
    fn reread(&self, reference: &Reference) -> Result<SlabBytes, SlabError>;

    /// Told of each slab opened from a copy. Handles do not keep those: a slab that the source does not
    /// keep is gone with its last reader, and read again for the next. See [`KeptSlabs`](super::KeptSlabs).
    fn keep(&self, slab: &Arc<OpenSlab>);

    /// Told of memory, in bytes, that trees and what is open of their slabs hold from now on, whatever is read.
    fn holds(&self, _bytes: usize) {}
}

/// What a read needs to know beside the place: where bytes come from, and how far they are trusted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReadContext<'a> {
    /// Gives bytes.
    pub(crate) source: &'a dyn SlabSource,
    /// When checksums are compared.
    pub(crate) verify: Verify,
}
