//! The accounts of space in slabs segments: which blocks are dead and wait, which space is free, which blocks are shared,
//! and which offsets are still to be erased.
//!
//! The root lists the pages, and is what a checkpoint refers to. A page is written anew when it changed. A decoder of a
//! page believes no number before it was compared with its limit and with the bytes that remain; what it lets through is
//! in order, so that nobody who gives back space by it can free a byte twice.

pub(crate) mod dead;
pub(crate) mod erase;
pub(crate) mod root;
pub(crate) mod space;

pub use dead::{DeadEntry, DeadKind, DeadPage};
pub use erase::{EraseEntry, ErasePage};
pub use root::{GarbageRoot, PageEntry};
pub use space::{FreeRange, GatheredDeaths, Share, SpacePage};

use crate::block::{
    BLOCK_HEADER_BYTES, BlockIdentity, BlockKind, Filler, Place, Sealed, append_whole_block, open_whole_block,
};
use crate::convert::{index, narrow, read, wide};
use crate::error::{FormatError, Found, Rule, Structure};
use crate::reference::Reference;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes};

const RULES: Structure = Structure::Garbage;

/// Where the entries begin, from the block's beginning.
pub const GARBAGE_ENTRIES_POSITION: usize = 128;

const ROOT_CODE: u8 = 1;

wire_struct! {
    struct RawGarbageHeader is "GarbageHeader", 64 bytes {
        0 page_kind: u8,
        1 reserved_1: [u8; 3],
        4 entry_count: U32,
        8 number: U64,
        16 free_count: U32,
        20 gathered_count: U32,
        24 reserved: [u8; 40],
    }
}

const _: () = assert!(BLOCK_HEADER_BYTES + size_of::<RawGarbageHeader>() == GARBAGE_ENTRIES_POSITION);

/// What a page that a root lists holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PageKind {
    /// Blocks that died: [`DeadPage`].
    Dead,
    /// The space of one segment: [`SpacePage`].
    Space,
    /// Offsets whose messages are still to be erased: [`ErasePage`].
    Erase,
}

impl PageKind {
    /// The number that stands for the kind on disk. A root, which no root lists, has 1.
    pub const fn code(self) -> u8 {
        match self {
            Self::Dead => 2,
            Self::Space => 3,
            Self::Erase => 4,
        }
    }

    /// The kind that a number stands for.
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            2 => Some(Self::Dead),
            3 => Some(Self::Space),
            4 => Some(Self::Erase),
            _ => None,
        }
    }
}

/// A block of the accounts, whatever it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GarbagePage {
    /// The root.
    Root(GarbageRoot),
    /// A page of dead blocks.
    Dead(DeadPage),
    /// The space of a segment.
    Space(SpacePage),
    /// A page of what is to be erased.
    Erase(ErasePage),
}

impl GarbagePage {
    /// Reads the block at `place`; `bytes` may run on behind it.
    pub fn decode(bytes: &[u8], place: &Place) -> Found<Self> {
        open_whole_block(bytes, place, BlockKind::Garbage, RULES).and_then(|(_, block)| {
            let found: RawGarbageHeader = read(block, BLOCK_HEADER_BYTES, RULES)?;
            match (found.page_kind, PageKind::from_code(found.page_kind)) {
                (ROOT_CODE, _) => root::decode_block(block).map(Self::Root),
                (_, Some(PageKind::Dead)) => dead::decode_block(block).map(Self::Dead),
                (_, Some(PageKind::Space)) => space::decode_block(block).map(Self::Space),
                (_, Some(PageKind::Erase)) => erase::decode_block(block).map(Self::Erase),
                (other, None) => Err(RULES.breaks(Rule::Kind, 64, 1, u64::from(other))),
            }
        })
    }
}

/// What a page's header says.
#[derive(Clone, Copy)]
struct Header {
    page_kind: u8,
    number: u64,
    /// Lengths of the lists; only space pages have more than one.
    counts: [u32; 3],
}

impl Header {
    /// A page of one list.
    fn of_list(page_kind: u8, number: u64, entries: usize) -> Result<Self, FormatError> {
        Ok(Self {
            page_kind,
            number,
            counts: [narrow(entries, RULES, 68)?, 0, 0],
        })
    }

    fn to_raw(self) -> RawGarbageHeader {
        let [entries, free, gathered] = self.counts;
        RawGarbageHeader {
            page_kind: self.page_kind,
            reserved_1: [0; 3],
            entry_count: U32::new(entries),
            number: U64::new(self.number),
            free_count: U32::new(free),
            gathered_count: U32::new(gathered),
            reserved: [0; 40],
        }
    }

    /// The header of a page of the kind `page_kind`, of which all lists together have at most `limit` entries.
    fn read(block: &[u8], page_kind: u8, limit: u32) -> Result<Self, FormatError> {
        let raw: RawGarbageHeader = read(block, BLOCK_HEADER_BYTES, RULES)?;
        let (expected, found) = (u64::from(page_kind), u64::from(raw.page_kind));
        RULES.require(expected == found, Rule::Kind, 64, expected, found)?;
        let is_clean = raw.reserved_1 == [0; 3] && raw.reserved == [0; 40];
        RULES.require(is_clean, Rule::Reserved, 65, 0, 1)?;
        let header = Self {
            page_kind,
            number: raw.number.get(),
            counts: [
                raw.entry_count.get(),
                raw.free_count.get(),
                raw.gathered_count.get(),
            ],
        };
        check_limit(header.total(), limit)?;
        Ok(header)
    }

    fn total(&self) -> u64 {
        self.counts.iter().map(|count| u64::from(*count)).sum()
    }

    /// That there is one list only, and that it fills the block: before anything is allocated for it.
    fn check_list(&self, block: &[u8], entry_bytes: usize) -> Result<(), FormatError> {
        let [entries, free, gathered] = self.counts;
        let others = u64::from(free | gathered);
        RULES.require(others == 0, Rule::Reserved, 80, 0, others)?;
        check_filled(block, index(entries), entry_bytes)
    }
}

/// That `entries` of `entry_bytes` fill the block behind the header.
fn check_filled(block: &[u8], entries: usize, entry_bytes: usize) -> Result<(), FormatError> {
    let (needed, found) = (wide(list_bytes(entries, entry_bytes)), wide(block.len()));
    RULES.require(needed == found, Rule::Count, 68, needed, found)
}

fn check_limit(found: u64, limit: u32) -> Result<(), FormatError> {
    let limit = u64::from(limit);
    RULES.require(found <= limit, Rule::Limit, 68, limit, found)
}

/// Length of a page with so many entries, without its padding.
const fn list_bytes(entries: usize, entry_bytes: usize) -> usize {
    entries
        .saturating_mul(entry_bytes)
        .saturating_add(GARBAGE_ENTRIES_POSITION)
}

/// Where an entry stands, for errors.
fn entry_at(number: usize, entry_bytes: usize) -> u64 {
    wide(list_bytes(number, entry_bytes))
}

/// Appends a page's block to `out`, padded to 4 KiB.
fn append_page(
    header: Header,
    block_bytes: usize,
    identity: &BlockIdentity,
    out: &mut Vec<u8>,
    fill: impl FnOnce(&mut Filler<'_>) -> Result<(), FormatError>,
) -> Result<Sealed, FormatError> {
    let payload_bytes = narrow(block_bytes.saturating_sub(BLOCK_HEADER_BYTES), RULES, 8)?;
    append_whole_block(identity, BlockKind::Garbage, payload_bytes, out, |payload| {
        let mut filler = Filler::new(payload, RULES);
        filler.push(header.to_raw().as_bytes())?;
        fill(&mut filler)
    })
}

/// The entries `first .. first + count` of a list of entries of one length.
fn read_list<R: FromBytes + Immutable, T>(
    block: &[u8],
    first: usize,
    count: u32,
    entry: impl Fn(&R, u64) -> Result<T, FormatError>,
) -> Result<Vec<T>, FormatError> {
    let numbers = first..first.saturating_add(index(count));
    numbers
        .map(|number| {
            let at = list_bytes(number, size_of::<R>());
            let raw: R = read(block, at, RULES)?;
            entry(&raw, wide(at))
        })
        .collect()
}

/// A reference of the accounts: the block is here, since somebody is to give back its space.
fn check_local(reference: &Reference, at: u64) -> Result<(), FormatError> {
    RULES.require(reference.is_local(), Rule::Kind, at, 1, 0)
}

#[cfg(test)]
mod tests;
