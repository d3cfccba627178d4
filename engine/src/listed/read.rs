//! Reading blocks of the catalog: each is compared with what led to it.

use std::sync::Arc;

use lanterman_format::Structure;
use lanterman_format::block::Place;
use lanterman_format::catalog::{CatalogEntryView, PackedPage, PageEntry};
use lanterman_format::error::Found;
use lanterman_format::reference::Reference;
use lanterman_format::segment::SegmentKind;

use crate::error::{Damage, Error, Result};
use crate::segment::SegmentTable;
use crate::source::tree_error;
use crate::tree::Tree;

/// A checkpoint writes its nodes, its pages of the catalog and its own block one behind the other, mostly in so many bytes; all
/// are needed to open the store and its writers.
const WRITTEN_BEFORE_BYTES: u64 = 64 << 10;

/// Reads a page of the catalog. Where it is told what the page says, that is compared.
///
/// # Errors
/// As of reading; [`Error::Damaged`] for what does not decode, or does not agree with itself or with what is told of it.
pub(crate) fn read_page(
    table: &SegmentTable,
    reference: &Reference,
    told: Option<&PageEntry>,
) -> Result<Arc<PackedPage>> {
    let mut broken = None;
    let page = read_block(table, reference, |bytes, place| {
        PackedPage::decode(bytes, place, |entry| {
            if let Err(error) = check_pieces(table, reference, entry) {
                broken.get_or_insert(error);
            }
        })
    })?;
    broken.map_or(Ok(()), Err)?;
    if let Some(told) = told {
        let found = page.told();
        if found != *told {
            let structure = Structure::CatalogPage;
            return Err(disagreement(table, reference, structure, told.page, found.page));
        }
    }
    Ok(Arc::new(page))
}

/// Whether tree and tail together hold the log to its end: what neither holds would be missing without a word.
fn check_pieces(table: &SegmentTable, page: &Reference, entry: &CatalogEntryView<'_>) -> Result<()> {
    let (end, tree_end) = (entry.end_offset.get(), entry.tree_end.get());
    if entry.tail.is_empty() != (tree_end == end) || entry.start_offset > entry.tree_end {
        return Err(disagreement(table, page, Structure::CatalogPage, end, tree_end));
    }
    let failed = |error| tree_error(table, entry.name, entry.start_offset.get(), error);
    let offsets = tree_end.saturating_sub(entry.start_offset.get());
    Tree::check_reference(&entry.tree, offsets).map_err(failed)
}

/// Damage of a block that is whole and contradicts another one.
pub(crate) fn disagreement(
    table: &SegmentTable,
    reference: &Reference,
    structure: Structure,
    expected: u64,
    found: u64,
) -> Error {
    Error::Damaged(Box::new(Damage {
        path: table.path_of(reference.segment, SegmentKind::Slabs),
        segment: Some(reference.segment),
        position: reference.position,
        bytes: reference.bytes.get(),
        log: None,
        offsets: None,
        source: crate::rules::disagree(structure, expected, found),
    }))
}

/// Reads and decodes one block of a checkpoint; what does not decode is damage that names the place.
pub(crate) fn read_block<T>(
    table: &SegmentTable,
    reference: &Reference,
    decode: impl FnOnce(Vec<u8>, &Place) -> Found<T>,
) -> Result<T> {
    let bytes_wanted = reference.bytes.get();
    let position = reference.position.get();
    let near = position.saturating_sub(WRITTEN_BEFORE_BYTES)..position.saturating_add(bytes_wanted);
    let segment = table.get_to_read(reference.segment, SegmentKind::Slabs, near)?;
    let fits = position
        .checked_add(bytes_wanted)
        .is_some_and(|end| end <= segment.bytes);
    if !fits || segment.generation != reference.generation {
        let rule = crate::rules::truncated(
            Structure::Checkpoint,
            bytes_wanted,
            segment.bytes.saturating_sub(position),
        );
        return Err(segment.damaged(position, bytes_wanted, rule));
    }
    // The segment's true length bounds the allocation.
    let mut bytes = vec![0u8; usize::try_from(bytes_wanted).unwrap_or(0)];
    segment.read_exact(position, &mut bytes)?;
    let place = Place {
        store: table.store(),
        segment: reference.segment,
        generation: reference.generation,
        position: reference.position,
    };
    let rule = match lanterman_format::block::decode_block_header(&bytes, &place) {
        Found::Valid(header) if header.header_crc != reference.header_crc => crate::rules::misplaced(
            Structure::Checkpoint,
            u64::from(reference.header_crc.get()),
            u64::from(header.header_crc.get()),
        ),
        _ => match decode(bytes, &place) {
            Found::Valid(value) => return Ok(value),
            Found::Empty => crate::rules::empty(Structure::Checkpoint),
            Found::Invalid(rule) => rule,
        },
    };
    Err(segment.damaged(position, bytes_wanted, rule))
}
