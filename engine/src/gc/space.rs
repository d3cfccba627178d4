//! Who needs which bytes of a store's segments, and giving back at once what nobody does.

use lanterman_format::Structure;
use lanterman_format::ids::Position;
use lanterman_format::ids::SegmentId;
use lanterman_format::segment::SegmentKind;

use super::collect::{HeldBack, Piece};
use super::reached::{Detail, length, unite, without};
use crate::core::Core;
use crate::error::{Damage, Error, Result};
use crate::segment::{FIRST_BLOCK_POSITION, MakingRoom};

/// What the segments of slabs are used for, in bytes of whole pages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Space {
    /// Segments of slabs.
    pub segments: u64,
    /// Their lengths together.
    pub bytes: u64,
    /// Headers of segments, and what newest roots and the newest checkpoint reach.
    pub live: u64,
    /// What only snapshots and cursors of this process still reach.
    pub pinned: u64,
    /// What nobody reaches and is not given back yet.
    pub garbage: u64,
    /// What was given back, or was not written yet.
    pub free: u64,
    /// Bytes given back since the store was opened.
    pub given_back: u64,
    /// Who holds garbage back.
    pub held: Vec<HeldBack>,
}

/// What [`crate::Store::check_space`] found: every byte is one of live, pinned, garbage and free.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SpaceCheck {
    /// The sums.
    pub space: Space,
    /// Blocks that lie over each other or behind the end of their segment; none in a sound store.
    pub faults: Vec<String>,
}

impl Core {
    /// Gives back all that is garbage by now, and spare files, for who needs the room to go on.
    pub(crate) fn give_back_now(&self) -> Result<()> {
        let _busy = self.collector.busy.lock();
        let _permit = self.permit()?;
        let _room = MakingRoom::begin();
        self.segments.remove_spares()?;
        self.find_garbage()?;
        self.give_back(u64::MAX)?;
        // The checkpoint may have put segments of the journal away.
        self.segments.remove_spares()?;
        self.segments.restore_reserve();
        Ok(())
    }

    /// Who needs which bytes, and whether blocks lie where they may.
    pub(crate) fn check_space(&self) -> Result<SpaceCheck> {
        let _busy = self.collector.busy.lock();
        let mut held = Vec::new();
        let mut check = SpaceCheck::default();
        if self.catalog.version().get() == 0 {
            return Ok(check);
        }
        let Some(findings) = self.look(Detail::Blocks, &mut held)? else {
            return Ok(check);
        };
        if let Some((segment, position)) = findings.kept.overlap() {
            let path = self.segments.path_of(SegmentId::new(segment), SegmentKind::Slabs);
            check.faults.push(format!(
                "{}: two blocks lie over each other at {position}",
                path.display()
            ));
        }
        let known = self.segments.known_slabs();
        for number in findings.kept.segments() {
            if !known.iter().any(|known| known.segment.get() == number) {
                check
                    .faults
                    .push(format!("segment {number:#x} is referred to and not known"));
            }
        }
        for entry in known {
            let segment = self.segments.get(entry.segment, SegmentKind::Slabs)?;
            let number = entry.segment.get();
            let end = findings.kept.end(number);
            if end > segment.bytes {
                return Err(Error::Damaged(Box::new(Damage {
                    path: segment.path.clone(),
                    segment: Some(segment.id),
                    position: Position::new(segment.bytes),
                    bytes: end.saturating_sub(segment.bytes),
                    log: None,
                    offsets: None,
                    source: crate::rules::truncated(Structure::SegmentHeader, end, segment.bytes),
                })));
            }
            let space = &mut check.space;
            let bound = findings.bound(number, segment.bytes);
            let live = findings.live.bytes(number);
            let kept = findings.kept.pages().of(number);
            let mut given = self.free_pages(number);
            unite(&mut given, bound.max(FIRST_BLOCK_POSITION)..segment.bytes);
            let free: u64 = given
                .iter()
                .flat_map(|range| without(range.clone(), &kept))
                .map(|range| length(&range))
                .sum();
            let pinned = findings.kept.pages().bytes(number).saturating_sub(live);
            space.segments = space.segments.saturating_add(1);
            space.bytes = space.bytes.saturating_add(segment.bytes);
            space.live = space
                .live
                .saturating_add(live)
                .saturating_add(FIRST_BLOCK_POSITION);
            space.pinned = space.pinned.saturating_add(pinned);
            space.free = space.free.saturating_add(free);
            let rest = segment
                .bytes
                .saturating_sub(live)
                .saturating_sub(FIRST_BLOCK_POSITION)
                .saturating_sub(pinned)
                .saturating_sub(free);
            space.garbage = space.garbage.saturating_add(rest);
        }
        check.space.given_back = self.given_back();
        check.space.held = held;
        Ok(check)
    }

    /// Bytes of garbage that the newest look found and nobody holds, and that were not given back since.
    pub(crate) fn waiting_garbage_bytes(&self) -> u64 {
        let waiting = self.collector.state.lock().waiting.clone();
        let known = self.segments.known_slabs();
        let bytes_of = |piece: &Piece| match piece {
            Piece::Pages { range, .. } => range.end.saturating_sub(range.start),
            Piece::Segment { segment } => {
                let known = known.iter().find(|known| known.segment.get() == *segment);
                known.map_or(0, |known| known.segment_bytes.get())
            }
        };
        waiting.iter().map(bytes_of).fold(0, u64::saturating_add)
    }
}
