//! The on-disk format of Lanterman stores: slices in, values out.
//!
//! No I/O, no clock, no unsafe code. `SPEC.md` at the root of the repository holds the normative text; a test of this
//! crate reads its tables and compares them with the structures here.
//!
//! What this crate is not: it knows no paths, opens no file, keeps no state and decides no policy. Every decoder is
//! distrustful: the checksum comes before the fields, a limit and the bytes that remain come before a length is used,
//! and no input makes it panic or allocate more than the input justifies.
//!
//! ```
//! use lanterman_format::buffer::{self, BufferFields, BufferView, ValueType};
//!
//! let fields = BufferFields::plain(ValueType::UTF8, b"hello");
//! let mut stored = vec![0; 64];
//! let stored_bytes = fields.encode(&mut stored)?;
//! assert_eq!(stored_bytes, buffer::plain_stored_bytes(5));
//! assert_eq!(BufferView::parse(&stored)?.value(), b"hello");
//! # Ok::<(), lanterman_format::FormatError>(())
//! ```
#![forbid(unsafe_code)]
#![deny(clippy::arithmetic_side_effects, clippy::as_conversions)]
#![cfg_attr(
    test,
    allow(
        clippy::arithmetic_side_effects,
        clippy::as_conversions,
        clippy::cast_possible_truncation,
        reason = "tests compute with small numbers; the same code is checked without them"
    )
)]

#[macro_use]
mod wire;

pub mod block;
pub mod buffer;
pub mod catalog;
pub mod checkpoint;
pub mod checksum;
pub mod commit;
pub mod compressed_batch;
pub mod convert;
pub mod error;
pub mod gathered;
pub mod ids;
pub mod key_page;
pub mod key_sketch;
pub mod large_value;
#[doc(hidden)]
pub mod layout;
pub mod limits;
pub mod name;
pub mod node;
pub mod reference;
pub mod root_slot;
pub mod scan;
pub mod segment;
pub mod settings;
pub mod slab;
pub mod summary;
pub mod version;
#[doc(hidden)]
pub mod weakening;

#[cfg(test)]
mod testing;

pub use block::{BLOCK_ALIGNMENT, BlockHeader, BlockIdentity, BlockKind, Place, Sealed};
pub use buffer::{BufferFields, BufferView, ValueType};
pub use catalog::{CatalogEntry, CatalogEntryView, CatalogIndex, CatalogPage, PackedPage, PageEntry};
pub use checkpoint::{Checkpoint, SegmentEntry};
pub use commit::{
    Change, CommitCounts, CommitFinished, CommitParameters, CommitView, CommitWriter, FrameDescription,
    FrameView, SlabAdoption,
};
pub use compressed_batch::{Codec, CompressedBatch};
pub use error::{FormatError, Found, Rule, Structure};
pub use ids::{ByteLength, Crc, Generation, LogId, Offset, Position, SegmentId, Sequence, StoreId, Version};
pub use key_sketch::{KeySketch, KeySketchBuilder};
pub use name::{FileKind, LogName, NameError};
pub use node::{NodeEntry, NodeParts};
pub use reference::{Reference, ReferenceKind};
pub use root_slot::RootSlot;
pub use segment::{SegmentHeader, SegmentKind};
pub use settings::{CompressionSettings, KeyRun, KeyedSettings, Retention, Settings, SnapshotSettings};
pub use slab::{SlabDescription, SlabLayout};
pub use summary::{Histogram32, Histogram64, Summary, ValueTypes};
pub use version::FormatVersion;
