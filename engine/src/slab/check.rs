//! Comparing what was read with the reference that led to it.

use std::ops::Range;

use lanterman_format::block::decode_block_header;
use lanterman_format::slab::{self, SLAB_BODY_POSITION};
use lanterman_format::{BlockKind, FormatError, Reference, ReferenceKind, SlabLayout, StoreId, Structure};

use super::{SlabBytes, SlabError};

/// Whether the reference is one to a slab of this store.
pub(super) fn check_kind(reference: &Reference) -> Result<(), SlabError> {
    match reference.kind {
        ReferenceKind::Local if reference.target == Some(BlockKind::Slab) => Ok(()),
        ReferenceKind::Lost => Err(SlabError::Lost {
            reference: Box::new(*reference),
        }),
        _ => Err(SlabError::NotHere {
            reference: Box::new(*reference),
        }),
    }
}

/// Checks that `bytes` begin with the header of the very block that `reference` speaks of.
pub(crate) fn check_block(bytes: &[u8], store: StoreId, reference: &Reference) -> Result<(), FormatError> {
    let header = decode_block_header(bytes, &reference.place(store)).into_result(Structure::BlockHeader)?;
    reference.check(&header)
}

/// Checks header, index and checksum table of the slab at `reference`, after bringing them into memory.
pub(super) fn parse(
    bytes: &SlabBytes,
    reference: &Reference,
    store: StoreId,
) -> Result<SlabLayout, SlabError> {
    let damaged = |error| match lost(bytes, reference, 0..bytes.len()) {
        Err(lost) => lost,
        Ok(()) => SlabError::damaged(reference, None, 0..bytes.len(), error),
    };
    let prepare = |range: Range<usize>| {
        bytes
            .prepare(range.clone())
            .map_err(|error| SlabError::read(reference, range, error))
    };
    prepare(0..SLAB_BODY_POSITION.min(bytes.len()))?;
    let slice = bytes.as_slice();
    check_block(slice, store, reference).map_err(damaged)?;
    // Unverified as yet, and good enough to say which pages the checks will touch.
    let trailer = slab::trailer_hint(slice);
    prepare(trailer.clone())?;
    let layout = SlabLayout::parse(slice, &reference.place(store))
        .into_result(Structure::Slab)
        .map_err(damaged)?;
    lost(bytes, reference, 0..SLAB_BODY_POSITION.min(bytes.len()))?;
    lost(bytes, reference, trailer)?;
    Ok(layout)
}

/// Fails if bytes of `range` were lost under the map; asked after they were looked at.
#[inline]
pub(crate) fn lost(bytes: &SlabBytes, reference: &Reference, range: Range<usize>) -> Result<(), SlabError> {
    if bytes.is_lost(range.clone()) {
        return Err(SlabError::read(reference, range.clone(), bytes.why_lost(range)));
    }
    Ok(())
}
