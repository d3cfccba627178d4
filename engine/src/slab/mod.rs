//! Reading slabs: bytes by reference, checked group by group, message by message.
//!
//! [`SlabHandle`] is what trees share, [`OpenSlab`] is a slab whose header and index are known to be good, and
//! [`SlabWalk`] goes through its messages. Bytes come from a [`SlabSource`]; this module opens no file, and holds
//! no lock while a source works.
//!
//! Pages of a map are asked for before they are first touched, and a failure is then an error. The kernel may drop them
//! afterwards, and a later touch that fails gives zeros and a note (see `sys::guard`). So whatever is looked at in a
//! window is asked about afterwards; what a user looks at later, he asks about himself. Only sources that copy are free of
//! that.

mod build;
mod bytes;
mod check;
mod compress;
mod error;
mod groups;
mod handle;
mod held;
mod kept;
mod open;
mod piece;
mod source;
mod walk;

#[cfg(test)]
mod tests;

pub(crate) use build::SlabBuilder;
pub(crate) use bytes::{SharedMemory, SlabBytes, SlabMemory};
pub(crate) use check::{check_block, lost};
pub(crate) use error::{SlabDamage, SlabError};
pub(crate) use handle::{Opened, SlabHandle};
pub(crate) use kept::KeptSlabs;
pub(crate) use open::OpenSlab;
pub(crate) use piece::Pieces;
pub use source::Verify;
pub(crate) use source::{ReadContext, SlabSource};
pub(crate) use walk::{SlabWalk, WalkPlace, Walked};
