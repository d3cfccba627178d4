//! Blocks that nothing of the newest checkpoint reaches, and that wait until nobody can read them any more.

use super::{Header, PageKind, RULES, append_page, check_limit, check_local, entry_at, list_bytes};
use crate::block::{BlockIdentity, BlockKind, Place, Sealed, open_whole_block};
use crate::convert::wide;
use crate::error::{FormatError, Found, Rule};
use crate::ids::Version;
use crate::limits::GARBAGE_ENTRIES_MAX;
use crate::reference::{RawReference, Reference};
use zerocopy::IntoBytes;
use zerocopy::little_endian::U64;

wire_struct! {
    struct RawDeadEntry is "DeadEntry", 80 bytes {
        0 kind: u8,
        1 reserved_1: [u8; 7],
        8 birth: U64,
        16 death: U64,
        24 bytes: U64,
        32 reference: RawReference,
    }
}

const ENTRY_BYTES: usize = size_of::<RawDeadEntry>();

/// What lost its last or one of its references.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DeadKind {
    /// The block itself; what it refers to is accounted for elsewhere.
    Block,
    /// A node and all that only it reaches, which nobody has looked at yet.
    Subtree,
}

impl DeadKind {
    /// The number that stands for the kind on disk.
    pub const fn code(self) -> u8 {
        match self {
            Self::Block => 1,
            Self::Subtree => 2,
        }
    }

    /// The kind that a number stands for.
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Block),
            2 => Some(Self::Subtree),
            _ => None,
        }
    }
}

/// A reference to a block that is gone, and who could still follow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeadEntry {
    /// What lost the reference.
    pub kind: DeadKind,
    /// The first version that may reach the block by this reference.
    pub birth: Version,
    /// The first version behind it that does not any more.
    pub death: Version,
    /// What is expected to become free, padding included; of a subtree an estimate.
    pub bytes: u64,
    /// The block.
    pub reference: Reference,
}

/// A page of dead blocks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeadPage {
    /// Its number.
    pub number: u64,
    /// What died, in no order.
    pub entries: Vec<DeadEntry>,
}

impl DeadPage {
    /// Length of the block without its padding.
    pub fn encoded_bytes(&self) -> usize {
        list_bytes(self.entries.len(), ENTRY_BYTES)
    }

    /// Appends the page's block to `out`, padded to 4 KiB.
    ///
    /// # Errors
    ///
    /// The rule that the page breaks; `out` is unchanged then.
    pub fn encode(&self, identity: &BlockIdentity, out: &mut Vec<u8>) -> Result<Sealed, FormatError> {
        self.check()?;
        let header = Header::of_list(PageKind::Dead.code(), self.number, self.entries.len())?;
        append_page(header, self.encoded_bytes(), identity, out, |filler| {
            self.entries.iter().try_for_each(|entry| {
                let raw = RawDeadEntry {
                    kind: entry.kind.code(),
                    reserved_1: [0; 7],
                    birth: U64::new(entry.birth.get()),
                    death: U64::new(entry.death.get()),
                    bytes: U64::new(entry.bytes),
                    reference: entry.reference.to_raw(),
                };
                filler.push(raw.as_bytes())
            })
        })
    }

    /// Reads the page at `place`; `bytes` may run on behind it.
    pub fn decode(bytes: &[u8], place: &Place) -> Found<Self> {
        open_whole_block(bytes, place, BlockKind::Garbage, RULES).and_then(|(_, block)| decode_block(block))
    }

    /// The rules that hold before writing and after reading.
    fn check(&self) -> Result<(), FormatError> {
        check_limit(wide(self.entries.len()), GARBAGE_ENTRIES_MAX)?;
        self.entries.iter().enumerate().try_for_each(|(number, entry)| {
            let at = entry_at(number, ENTRY_BYTES);
            let (birth, death) = (entry.birth.get(), entry.death.get());
            RULES.require(death > birth, Rule::Order, at, birth, death)?;
            check_local(&entry.reference, at)?;
            let found = entry.reference.target.map_or(0, BlockKind::code);
            let fits = match entry.kind {
                DeadKind::Subtree => entry.reference.target == Some(BlockKind::Node),
                // The journal's blocks go with their segment.
                DeadKind::Block => entry.reference.target != Some(BlockKind::Commit),
            };
            let wanted = u64::from(BlockKind::Node.code());
            RULES.require(fits, Rule::Kind, at, wanted, u64::from(found))
        })
    }
}

pub(super) fn decode_block(block: &[u8]) -> Result<DeadPage, FormatError> {
    let header = Header::read(block, PageKind::Dead.code(), GARBAGE_ENTRIES_MAX)?;
    header.check_list(block, ENTRY_BYTES)?;
    let [count, ..] = header.counts;
    let page = DeadPage {
        number: header.number,
        entries: super::read_list(block, 0, count, decode_entry)?,
    };
    page.check()?;
    Ok(page)
}

fn decode_entry(raw: &RawDeadEntry, at: u64) -> Result<DeadEntry, FormatError> {
    RULES.require(raw.reserved_1 == [0; 7], Rule::Reserved, at, 0, 1)?;
    let unknown = RULES.breaks(Rule::Kind, at, 1, u64::from(raw.kind));
    Ok(DeadEntry {
        kind: DeadKind::from_code(raw.kind).ok_or(unknown)?,
        birth: Version::new(raw.birth.get()),
        death: Version::new(raw.death.get()),
        bytes: raw.bytes.get(),
        reference: Reference::from_raw(&raw.reference, at.saturating_add(32))?,
    })
}
