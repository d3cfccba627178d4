//! Which segments of slabs an opened store has, where it writes on, and what a close gives back of that.

use lanterman_format::ids::ByteLength;
use lanterman_format::segment::SegmentKind;
use lanterman_format::weakened;

use crate::core::Core;
use crate::error::Result;
use crate::segment::{KEPT_BYTES, Listing, SlabAllocator};

/// Where the next slab goes: behind everything that the checkpoint or the journal refers to.
pub(crate) fn find_room(core: &Core, listing: &Listing) -> Result<SlabAllocator> {
    for id in &listing.slabs {
        core.segments.know_unused(*id);
    }
    let (first, max) = (
        core.options.slab_segment_bytes_first,
        core.options.slab_segment_bytes_max,
    );
    // The list of a checkpoint may have segments that a collection has removed since.
    for known in core.segments.known_slabs() {
        if !listing.slabs.contains(&known.segment) {
            core.segments.forget_slabs(known.segment);
        }
    }
    let mut newest = None;
    core.segments.bound_used();
    for known in core.segments.known_slabs().into_iter().rev() {
        // What only the journal refers to is known without its length, which the next checkpoint must tell.
        let is_complete = known.segment_bytes > ByteLength::ZERO;
        if is_complete && newest.is_some() {
            continue;
        }
        let Ok(segment) = core.segments.get(known.segment, SegmentKind::Slabs) else {
            if !is_complete {
                core.segments.forget_slabs(known.segment);
            }
            continue;
        };
        // An adoption that was damaged may name anything.
        let used_bytes = known.used_bytes.min(ByteLength::new(segment.bytes));
        core.segments
            .know_slabs(lanterman_format::checkpoint::SegmentEntry {
                generation: segment.generation,
                segment_bytes: ByteLength::new(segment.bytes),
                used_bytes,
                ..known
            });
        if newest.is_none() {
            newest = Some((segment, used_bytes.get()));
        }
    }
    core.segments.find_reserve(core.options.reserve_bytes_max());
    Ok(SlabAllocator::new(newest, first, max))
}

/// Gives back the room that nothing was written to, when all is durable: who opens the store again does without. A failure costs
/// nobody's data, and is only told.
pub(crate) fn give_room_back(core: &Core) {
    if !weakened!("rest-kept-at-close")
        && let Err(error) = core.allocator.lock().give_back_rest(KEPT_BYTES)
    {
        tracing::warn!(%error, "the unused room of a closed store stays reserved");
    }
}
