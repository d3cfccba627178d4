//! What the journal will ask for next: the slabs that its next versions adopt, seen before they are come to.

use std::collections::VecDeque;

use lanterman_format::block::{BLOCK_ALIGNMENT, BLOCK_HEADER_BYTES, BlockKind, Place, decode_block_header};
use lanterman_format::commit::CommitView;
use lanterman_format::error::Found;
use lanterman_format::ids::{Position, SegmentId};
use lanterman_format::reference::Reference;
use lanterman_format::weakened;

use super::replay::{Window, adopted_slabs};

/// How far a scan has looked ahead of where it stands.
#[derive(Debug, Default)]
pub(super) struct LookedAhead {
    segment: Option<SegmentId>,
    /// Where the first block stands that was not looked at.
    position: u64,
    /// Blocks that were looked at and not passed: where each stands, and how many it has.
    blocks: VecDeque<(u64, usize)>,
    /// The sum of these slabs.
    slabs: usize,
}

impl LookedAhead {
    /// Goes on through the blocks that `window` has from `next` on, until `most` slabs were found that `next` has not passed; gives
    /// those that were not given before. Slabs that no sync came before are left out, for of these what the page cache has may
    /// not be believed. Bodies are not checked: it is a hint.
    pub(super) fn look(&mut self, window: &Window, next: Place, most: usize) -> Vec<Reference> {
        let mut found = Vec::new();
        if weakened!("adopted-slabs-unannounced") {
            return found;
        }
        self.forget_passed(next.segment, next.position.get());
        while self.slabs < most {
            let place = Place {
                position: Position::new(self.position),
                ..next
            };
            let Some((length, view)) = commit_at(window, &place) else {
                break;
            };
            let before = found.len();
            if view.adoptions_durable() {
                found.extend(adopted_slabs(&view).take(most.saturating_sub(self.slabs)));
            }
            let count = found.len().saturating_sub(before);
            self.blocks.push_back((self.position, count));
            self.slabs = self.slabs.saturating_add(count);
            let stored = (length as u64).next_multiple_of(BLOCK_ALIGNMENT as u64);
            self.position = self.position.saturating_add(stored);
        }
        found
    }

    fn forget_passed(&mut self, segment: SegmentId, next: u64) {
        if self.segment != Some(segment) {
            *self = LookedAhead {
                segment: Some(segment),
                ..LookedAhead::default()
            };
        }
        while let Some((position, count)) = self.blocks.front()
            && *position < next
        {
            self.slabs = self.slabs.saturating_sub(*count);
            self.blocks.pop_front();
        }
        self.position = self.position.max(next);
    }
}

/// The commit block at a place, if the window has all of it: its length and what it says.
fn commit_at<'a>(window: &'a Window, place: &Place) -> Option<(usize, CommitView<'a>)> {
    let position = place.position.get();
    let header = match decode_block_header(window.at(position, BLOCK_HEADER_BYTES)?, place) {
        Found::Valid(header) if header.kind == BlockKind::Commit => header,
        _ => return None,
    };
    let length = usize::try_from(header.block_bytes).ok()?;
    let view = CommitView::parse(window.at(position, length)?, &header).ok()?;
    Some((length, view))
}
