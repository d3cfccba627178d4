//! Which slabs are read next, and which of them in one read.

use std::ops::Range;
use std::sync::Arc;

use lanterman_format::Reference;

use crate::core::Core;
use crate::log::Root;
use crate::slab::{Opened, SlabHandle};
use crate::sys::PAGE_BYTES;

/// Slabs that lie behind each other on the disk are read together up to so many bytes: larger reads gain nothing.
pub(super) const BATCH_BYTES: u64 = 1 << 20;

/// One slab that comes.
#[derive(Debug)]
pub(super) struct Coming {
    /// The first offset of the log that it shows.
    pub(super) first: u64,
    pub(super) handle: Arc<SlabHandle>,
}

impl Coming {
    /// Where it is.
    pub(super) fn reference(&self) -> &Reference {
        self.handle.reference()
    }
}

/// Slabs that one read can bring.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    pub(super) slabs: Vec<Coming>,
    /// Where they are in their segment, in whole pages.
    pub(super) range: Range<u64>,
    /// The first offset that is not answered for by them or by what was deleted before them.
    pub(super) end: u64,
    /// They need not be read, because they are open.
    pub(super) are_open: bool,
    /// How often they were wanted before when no cache had them.
    pub(super) cold_reads: u8,
}

/// How much may be gathered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limit {
    /// The first offset that is not wanted.
    pub(super) until: u64,
    /// How many slabs at most; at least one.
    pub(super) slabs: usize,
}

fn pages(reference: &Reference) -> Range<u64> {
    let page = PAGE_BYTES as u64;
    let start = reference.position.get();
    let end = start.saturating_add(reference.bytes.get());
    (start / page).saturating_mul(page)..end.checked_next_multiple_of(page).unwrap_or(end)
}

/// The next slabs from the offset `from` of the log on that lie together. Nothing where there are none, or where a node of the
/// tree cannot be had: that is told to whoever comes there.
pub(super) fn gather(core: &Core, root: &Root, from: u64, limit: Limit) -> Option<Gathered> {
    let mut gathered = Gathered {
        end: from,
        ..Gathered::default()
    };
    let from_start = from.checked_sub(root.start)?;
    for placed in root.tree.slabs_from(core.source.as_ref(), from_start) {
        let Ok(placed) = placed else { break };
        let first = placed.first_offset.saturating_add(root.start);
        if first >= limit.until {
            break;
        }
        let end = placed.end_offset().saturating_add(root.start);
        let Some(handle) = &placed.entry.slab else {
            gathered.end = end;
            continue;
        };
        let reference = *handle.reference();
        let range = pages(&reference);
        // A copy that the store keeps anyway.
        let is_open = matches!(handle.opened(), Some(Opened::Passing(_)));
        let cold_reads = handle.cold_reads();
        if let Some(last) = gathered.slabs.last() {
            if *last.reference() == reference {
                // Two parts of one slab, with something deleted between them: it is read once.
                gathered.end = end;
                continue;
            }
            let together = gathered.range.start..range.end;
            let is_next = last.reference().segment == reference.segment
                && range.start <= gathered.range.end
                && range.end >= gathered.range.end
                && is_open == gathered.are_open
                && cold_reads == gathered.cold_reads
                && together.end.saturating_sub(together.start) <= BATCH_BYTES;
            if !is_next || gathered.slabs.len() >= limit.slabs {
                break;
            }
            gathered.range.end = range.end;
        } else {
            gathered.range = range;
            gathered.are_open = is_open;
            gathered.cold_reads = cold_reads;
        }
        gathered.slabs.push(Coming {
            first,
            handle: Arc::clone(handle),
        });
        gathered.end = end;
    }
    (gathered.end > from).then_some(gathered)
}
