//! A page of the catalog kept in memory in the bytes that it has on the disk.
//!
//! A store has an entry for each log, and most logs are not asked for: one allocation for up to 128 of them, in which an
//! entry is found and decoded when it is needed.

use super::index::PageEntry;
use super::{CATALOG_ENTRIES_POSITION, CatalogEntryView, RULES, StoredEntries, decode_entry, encode_page};
use crate::block::{BlockIdentity, BlockKind, Place, Sealed, open_whole_block};
use crate::convert::{index, narrow, part, wide};
use crate::error::{FormatError, Found};
use crate::ids::LogId;

/// The block of a page, each entry of which was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedPage {
    page: u64,
    block: Box<[u8]>,
    /// Where in the block each entry begins, from the first.
    starts: Box<[u32]>,
}

impl PackedPage {
    /// Reads the page at `place`, as [`decode_page`](super::decode_page) does; `bytes` may run on behind it. `look` is shown each
    /// entry when it has been checked, also where a later one turns out to be none.
    pub fn decode(mut bytes: Vec<u8>, place: &Place, look: impl FnMut(&CatalogEntryView<'_>)) -> Found<Self> {
        let length = open_whole_block(&bytes, place, BlockKind::CatalogPage, RULES)
            .and_then(|(_, block)| Ok(block.len()));
        length.and_then(|length| {
            bytes.truncate(length);
            Self::of_block(bytes, look)
        })
    }

    /// Appends a page's block to `out`, as [`encode_page`] does, and keeps the page.
    ///
    /// # Errors
    ///
    /// The rule that the page breaks; `out` is unchanged then.
    pub fn encode(
        page: u64,
        entries: &[CatalogEntryView<'_>],
        identity: &BlockIdentity,
        out: &mut Vec<u8>,
    ) -> Result<(Sealed, Self), FormatError> {
        let begin = out.len();
        let sealed = encode_page(page, entries, identity, out)?;
        let mut starts = Vec::with_capacity(entries.len());
        let mut at = 0u32;
        for entry in entries {
            starts.push(at);
            at = at.saturating_add(entry.encoded_bytes()?);
        }
        let block = part(out, begin, index(sealed.block_bytes), RULES)?;
        let packed = PackedPage {
            page,
            block: Box::from(block),
            starts: starts.into_boxed_slice(),
        };
        Ok((sealed, packed))
    }

    /// The entries of a whole block whose checksum was compared.
    fn of_block(block: Vec<u8>, mut look: impl FnMut(&CatalogEntryView<'_>)) -> Result<Self, FormatError> {
        let mut entries = StoredEntries::of_block(&block)?;
        let page = entries.page;
        let mut starts = Vec::with_capacity(index(u32::try_from(entries.left).unwrap_or(0)));
        for entry in entries.by_ref() {
            let (at, entry) = entry?;
            look(&entry);
            starts.push(narrow(
                at,
                RULES,
                wide(at.saturating_add(CATALOG_ENTRIES_POSITION)),
            )?);
        }
        Ok(PackedPage {
            page,
            block: block.into_boxed_slice(),
            starts: starts.into_boxed_slice(),
        })
    }

    /// Its number.
    pub const fn page(&self) -> u64 {
        self.page
    }

    /// What a checkpoint tells of it.
    pub fn told(&self) -> PageEntry {
        PageEntry::of(self.page, self.entries())
    }

    /// How many entries it has.
    pub const fn len(&self) -> usize {
        self.starts.len()
    }

    /// Whether it has none.
    pub const fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// The entries, by rising ids.
    pub fn entries(&self) -> impl Iterator<Item = CatalogEntryView<'_>> {
        self.starts.iter().filter_map(|start| self.at(*start))
    }

    /// The greatest id.
    pub fn last(&self) -> Option<LogId> {
        self.log_at(*self.starts.last()?)
    }

    /// The entry of a log.
    pub fn find(&self, log: LogId) -> Option<CatalogEntryView<'_>> {
        let place = self
            .starts
            .partition_point(|start| self.log_at(*start) < Some(log));
        let entry = self.at(*self.starts.get(place)?)?;
        (entry.log == log).then_some(entry)
    }

    fn at(&self, start: u32) -> Option<CatalogEntryView<'_>> {
        let entries = self.block.get(CATALOG_ENTRIES_POSITION..)?;
        // It was checked when the page was made.
        decode_entry(entries, index(start)).ok().map(|(entry, _)| entry)
    }

    /// The id of the entry that begins there, without a look at the rest.
    fn log_at(&self, start: u32) -> Option<LogId> {
        let at = index(start).saturating_add(CATALOG_ENTRIES_POSITION + 8);
        let bytes = self.block.get(at..)?.first_chunk()?;
        Some(LogId::new(u64::from_le_bytes(*bytes)))
    }
}
