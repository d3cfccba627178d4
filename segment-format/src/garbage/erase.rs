//! Offsets whose messages are deleted but may still stand in a slab that is shown in part.

use super::{Header, PageKind, RULES, append_page, check_limit, entry_at, list_bytes};
use crate::block::{BlockIdentity, BlockKind, Place, Sealed, open_whole_block};
use crate::convert::wide;
use crate::error::{FormatError, Found, Rule};
use crate::ids::{LogId, Offset, Version};
use crate::limits::GARBAGE_ENTRIES_MAX;
use zerocopy::IntoBytes;
use zerocopy::little_endian::U64;

wire_struct! {
    struct RawEraseEntry is "EraseEntry", 32 bytes {
        0 log: U64,
        8 first: U64,
        16 end: U64,
        24 version: U64,
    }
}

const ENTRY_BYTES: usize = size_of::<RawEraseEntry>();

/// A deletion whose bytes may still be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EraseEntry {
    /// The log.
    pub log: LogId,
    /// The first offset that was deleted.
    pub first: Offset,
    /// The first offset behind them.
    pub end: Offset,
    /// The version that deleted them.
    pub version: Version,
}

/// A page of what is to be erased.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErasePage {
    /// Its number.
    pub number: u64,
    /// What is to be erased, in no order.
    pub entries: Vec<EraseEntry>,
}

impl ErasePage {
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
        let header = Header::of_list(PageKind::Erase.code(), self.number, self.entries.len())?;
        append_page(header, self.encoded_bytes(), identity, out, |filler| {
            self.entries.iter().try_for_each(|entry| {
                let raw = RawEraseEntry {
                    log: U64::new(entry.log.get()),
                    first: U64::new(entry.first.get()),
                    end: U64::new(entry.end.get()),
                    version: U64::new(entry.version.get()),
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
            let (first, end) = (entry.first.get(), entry.end.get());
            RULES.require(
                end > first,
                Rule::Order,
                entry_at(number, ENTRY_BYTES),
                first,
                end,
            )
        })
    }
}

pub(super) fn decode_block(block: &[u8]) -> Result<ErasePage, FormatError> {
    let header = Header::read(block, PageKind::Erase.code(), GARBAGE_ENTRIES_MAX)?;
    header.check_list(block, ENTRY_BYTES)?;
    let [count, ..] = header.counts;
    let entry = |raw: &RawEraseEntry, _| {
        Ok(EraseEntry {
            log: LogId::new(raw.log.get()),
            first: Offset::new(raw.first.get()),
            end: Offset::new(raw.end.get()),
            version: Version::new(raw.version.get()),
        })
    };
    let page = ErasePage {
        number: header.number,
        entries: super::read_list(block, 0, count, entry)?,
    };
    page.check()?;
    Ok(page)
}
