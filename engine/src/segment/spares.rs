//! Files that hold no segment in use and become the next ones.

use std::path::PathBuf;

use lanterman_format::error::Found;
use lanterman_format::ids::Generation;
use lanterman_format::segment::{SEGMENT_HEADER_BYTES, SegmentHeader, SegmentKind};
use lanterman_format::weakened;

use super::{FIRST_BLOCK_POSITION, SegmentTable};
use crate::disk::OpenMode;

/// A file of the segments directory that holds no segment in use.
#[derive(Debug, Clone)]
pub(super) struct Spare {
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
    /// Of its last life, 0 if it has had none; nothing where nobody has [looked](SegmentTable::generation_of) yet.
    pub(super) generation: Option<Generation>,
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

    /// A spare that was found. What cannot be opened for writing, such as a link or a file with a second
    /// name, serves nothing and is left alone.
    pub(super) fn look_at_spare(&self, name: &str) -> Option<Spare> {
        let path = self.directory.join(name);
        let file = self.disk.open(&path, OpenMode::ReadWrite).ok()?;
        // Whole pages, as a segment has them, whatever the file's length is.
        let bytes = file.bytes().ok()?;
        let mut spare = Spare {
            path,
            bytes: bytes - bytes % FIRST_BLOCK_POSITION,
            generation: None,
            serves: SpareFor::Anything,
        };
        if weakened!("spares-read-at-opening") {
            self.generation_of(&mut spare);
        }
        Some(spare)
    }

    /// The generation of a spare, read from its header when it is first asked for: most spares that an opening finds are not
    /// needed for long. A spare whose header cannot be read still serves: its next life rewrites the header.
    pub(super) fn generation_of(&self, spare: &mut Spare) -> Generation {
        let read = || {
            let file = self.disk.open(&spare.path, OpenMode::ReadWrite).ok()?;
            let mut header = [0u8; SEGMENT_HEADER_BYTES];
            let whole = file.read_at(0, &mut header).is_ok_and(|got| got == header.len());
            match SegmentHeader::decode(&header, Some(&self.store)) {
                Found::Valid(found) if whole => Some(found.generation),
                _ => None,
            }
        };
        let generation = spare.generation.or_else(read).unwrap_or(Generation::new(0));
        spare.generation = Some(generation);
        generation
    }

    /// Whether a new segment would be made out of a spare.
    pub(super) fn has_spare(&self, kind: SegmentKind, bytes: u64) -> bool {
        self.spares.lock().iter().any(|spare| spare.fits(kind, bytes))
    }
}
