//! Files that hold no segment in use and become the next ones.

use std::path::PathBuf;

use lanterman_format::ids::Generation;
use lanterman_format::segment::SegmentKind;
use lanterman_format::weakened;

use super::SegmentTable;

/// A file of the segments directory that holds no segment in use.
#[derive(Debug, Clone)]
pub(super) struct Spare {
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
    pub(super) generation: Generation,
    pub(super) serves: SpareFor,
}

/// What a spare may become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SpareFor {
    /// The next segment of whatever kind.
    Anything,
    /// The next segment of the journal, for which it was made.
    Journal,
}

impl Spare {
    /// Whether it holds `bytes` and does not waste three quarters of itself for them.
    fn fits(&self, kind: SegmentKind, bytes: u64) -> bool {
        let serves = self.serves == SpareFor::Anything
            || kind == SegmentKind::Journal
            || weakened!("spare-of-the-journal-for-slabs");
        serves && self.bytes >= bytes && self.bytes / 4 <= bytes
    }
}

impl SegmentTable {
    /// Takes the smallest spare that fits.
    pub(super) fn take_spare(&self, kind: SegmentKind, bytes: u64) -> Option<Spare> {
        let mut spares = self.spares.lock();
        let (index, _) = spares
            .iter()
            .enumerate()
            .filter(|(_, spare)| spare.fits(kind, bytes))
            .min_by_key(|(_, spare)| spare.bytes)?;
        Some(spares.swap_remove(index))
    }

    /// Whether a new segment would be made out of a spare.
    pub(super) fn has_spare(&self, kind: SegmentKind, bytes: u64) -> bool {
        self.spares.lock().iter().any(|spare| spare.fits(kind, bytes))
    }
}
