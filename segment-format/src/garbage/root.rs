//! The root: which pages there are.

use super::{
    Header, PageKind, ROOT_CODE, RULES, append_page, check_limit, check_local, entry_at, list_bytes,
};
use crate::block::{BlockIdentity, BlockKind, Place, Sealed, open_whole_block};
use crate::convert::wide;
use crate::error::{FormatError, Found, Rule};
use crate::limits::GARBAGE_PAGES_MAX;
use crate::reference::{RawReference, Reference};
use zerocopy::IntoBytes;
use zerocopy::little_endian::U64;

wire_struct! {
    struct RawPageEntry is "GarbagePageEntry", 64 bytes {
        0 page_kind: u8,
        1 reserved_1: [u8; 7],
        8 number: U64,
        16 reference: RawReference,
    }
}

const ENTRY_BYTES: usize = size_of::<RawPageEntry>();

/// Where a page of the accounts is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageEntry {
    /// What the page holds.
    pub kind: PageKind,
    /// Its number: of a space page, the id of its segment.
    pub number: u64,
    /// The page.
    pub reference: Reference,
}

/// The root of the accounts: what a checkpoint refers to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GarbageRoot {
    /// The pages, by rising kind and number.
    pub pages: Vec<PageEntry>,
}

impl GarbageRoot {
    /// Length of the block without its padding.
    pub fn encoded_bytes(&self) -> usize {
        list_bytes(self.pages.len(), ENTRY_BYTES)
    }

    /// Appends the root's block to `out`, padded to 4 KiB.
    ///
    /// # Errors
    ///
    /// The rule that the root breaks; `out` is unchanged then.
    pub fn encode(&self, identity: &BlockIdentity, out: &mut Vec<u8>) -> Result<Sealed, FormatError> {
        self.check()?;
        let header = Header::of_list(ROOT_CODE, 0, self.pages.len())?;
        append_page(header, self.encoded_bytes(), identity, out, |filler| {
            self.pages.iter().try_for_each(|page| {
                let raw = RawPageEntry {
                    page_kind: page.kind.code(),
                    reserved_1: [0; 7],
                    number: U64::new(page.number),
                    reference: page.reference.to_raw(),
                };
                filler.push(raw.as_bytes())
            })
        })
    }

    /// Reads the root at `place`; `bytes` may run on behind it.
    pub fn decode(bytes: &[u8], place: &Place) -> Found<Self> {
        open_whole_block(bytes, place, BlockKind::Garbage, RULES).and_then(|(_, block)| decode_block(block))
    }

    /// The rules that hold before writing and after reading.
    fn check(&self) -> Result<(), FormatError> {
        check_limit(wide(self.pages.len()), GARBAGE_PAGES_MAX)?;
        let mut last = None;
        for (number, page) in self.pages.iter().enumerate() {
            let at = entry_at(number, ENTRY_BYTES);
            let key = Some((page.kind, page.number));
            RULES.require(last < key, Rule::Order, at, 0, page.number)?;
            last = key;
            check_local(&page.reference, at)?;
            let found = page.reference.target.map_or(0, BlockKind::code);
            let wanted = BlockKind::Garbage.code();
            RULES.require(
                found == wanted,
                Rule::Kind,
                at,
                u64::from(wanted),
                u64::from(found),
            )?;
        }
        Ok(())
    }
}

pub(super) fn decode_block(block: &[u8]) -> Result<GarbageRoot, FormatError> {
    let header = Header::read(block, ROOT_CODE, GARBAGE_PAGES_MAX)?;
    RULES.require(header.number == 0, Rule::Reserved, 72, 0, header.number)?;
    header.check_list(block, ENTRY_BYTES)?;
    let [count, ..] = header.counts;
    let root = GarbageRoot {
        pages: super::read_list(block, 0, count, decode_entry)?,
    };
    root.check()?;
    Ok(root)
}

fn decode_entry(raw: &RawPageEntry, at: u64) -> Result<PageEntry, FormatError> {
    RULES.require(raw.reserved_1 == [0; 7], Rule::Reserved, at, 0, 1)?;
    let unknown = RULES.breaks(Rule::Kind, at, 2, u64::from(raw.page_kind));
    Ok(PageEntry {
        kind: PageKind::from_code(raw.page_kind).ok_or(unknown)?,
        number: raw.number.get(),
        reference: Reference::from_raw_to(&raw.reference, BlockKind::Garbage, at.saturating_add(16))?,
    })
}
