//! Catalog pages: the names, settings and roots of up to 128 logs with consecutive ids.

pub(crate) mod index;
mod packed;

pub use index::{CatalogIndex, NO_LOG, PageEntry, bit_of};
pub use packed::PackedPage;

use crate::block::{
    BLOCK_HEADER_BYTES, BlockIdentity, BlockKind, Filler, Place, Sealed, append_whole_block, open_whole_block,
};
use crate::convert::{index, narrow, part, read, wide};
use crate::error::{FormatError, Found, Rule, Structure};
use crate::ids::{LogId, Offset, Version};
use crate::limits::{CATALOG_PAGE_LOGS, LOG_ID_MAX, NAME_BYTES_MAX, SETTINGS_BYTES_MAX};
use crate::name::LogName;
use crate::reference::{RawReference, Reference};
use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U32, U64};

const RULES: Structure = Structure::CatalogPage;

/// Flag of an entry: the log is a named snapshot.
pub const CATALOG_FLAG_SNAPSHOT: u32 = 1;

/// Where the entries begin, from the block's beginning.
pub const CATALOG_ENTRIES_POSITION: usize = 96;

wire_struct! {
    struct RawPageHeader is "CatalogPageHeader", 32 bytes {
        0 page: U64,
        8 entry_count: U32,
        12 entries_bytes: U32,
        16 reserved: [u8; 16],
    }
}

wire_struct! {
    struct RawCatalogEntry is "CatalogEntry", 160 bytes {
        0 entry_bytes: U32,
        4 flags: U32,
        8 log: U64,
        16 start_offset: U64,
        24 end_offset: U64,
        32 created_version: U64,
        40 modified_version: U64,
        48 tree: RawReference,
        96 tail: RawReference,
        144 tree_end: U64,
        152 name_bytes: U16,
        154 reserved: U16,
        156 settings_bytes: U32,
    }
}

/// A log in the catalog: its name, its settings and its root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogEntry {
    /// The log's id.
    pub log: LogId,
    /// [`CATALOG_FLAG_SNAPSHOT`] or 0.
    pub flags: u32,
    /// The log's name.
    pub name: LogName,
    /// Offset of the first message that is kept.
    pub start_offset: Offset,
    /// Offset that the next message gets.
    pub end_offset: Offset,
    /// First offset that is not in the tree.
    pub tree_end: Offset,
    /// Version in which the log was created.
    pub created_version: Version,
    /// Version in which it last changed.
    pub modified_version: Version,
    /// The tree's root node; empty if there is none.
    pub tree: Reference,
    /// Slab with the messages from `tree_end` on; empty if there are none.
    pub tail: Reference,
    /// The log's encoded settings.
    pub settings: Vec<u8>,
}

/// A log in the catalog, with its name and settings where they stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CatalogEntryView<'a> {
    /// The log's id.
    pub log: LogId,
    /// [`CATALOG_FLAG_SNAPSHOT`] or 0.
    pub flags: u32,
    /// The log's name, which obeys the rules of names.
    pub name: &'a str,
    /// Offset of the first message that is kept.
    pub start_offset: Offset,
    /// Offset that the next message gets.
    pub end_offset: Offset,
    /// First offset that is not in the tree.
    pub tree_end: Offset,
    /// Version in which the log was created.
    pub created_version: Version,
    /// Version in which it last changed.
    pub modified_version: Version,
    /// The tree's root node; empty if there is none.
    pub tree: Reference,
    /// Slab with the messages from `tree_end` on; empty if there are none.
    pub tail: Reference,
    /// The log's encoded settings.
    pub settings: &'a [u8],
}

impl CatalogEntry {
    /// The same, with its name and settings borrowed.
    pub fn view(&self) -> CatalogEntryView<'_> {
        CatalogEntryView {
            log: self.log,
            flags: self.flags,
            name: self.name.as_str(),
            start_offset: self.start_offset,
            end_offset: self.end_offset,
            tree_end: self.tree_end,
            created_version: self.created_version,
            modified_version: self.modified_version,
            tree: self.tree,
            tail: self.tail,
            settings: &self.settings,
        }
    }
}

impl CatalogEntryView<'_> {
    /// Whether it is a named snapshot: a log to which nothing is added, and whose name may be that of other logs.
    pub const fn is_snapshot(&self) -> bool {
        self.flags & CATALOG_FLAG_SNAPSHOT != 0
    }

    /// Whether something is to be done about the log without anybody's asking for it: it has settings, or is a named snapshot.
    pub const fn is_needed(&self) -> bool {
        self.is_snapshot() || !self.settings.is_empty()
    }

    /// A copy that owns what it has.
    ///
    /// # Errors
    ///
    /// [`Rule::Text`] if the name is none, as no name of a page that was checked is.
    pub fn to_entry(&self) -> Result<CatalogEntry, FormatError> {
        let broken = |_| RULES.breaks(Rule::Text, 160, 0, wide(self.name.len()));
        Ok(CatalogEntry {
            log: self.log,
            flags: self.flags,
            name: LogName::parse(self.name).map_err(broken)?,
            start_offset: self.start_offset,
            end_offset: self.end_offset,
            tree_end: self.tree_end,
            created_version: self.created_version,
            modified_version: self.modified_version,
            tree: self.tree,
            tail: self.tail,
            settings: self.settings.to_vec(),
        })
    }

    /// Bytes that the entry takes in its page.
    ///
    /// # Errors
    ///
    /// [`Rule::Limit`] if the settings exceed theirs.
    pub fn encoded_bytes(&self) -> Result<u32, FormatError> {
        let (limit, found) = (u64::from(SETTINGS_BYTES_MAX), wide(self.settings.len()));
        RULES.require(found <= limit, Rule::Limit, 156, limit, found)?;
        let bytes = self.name.len().saturating_add(self.settings.len());
        narrow(bytes.saturating_add(160).next_multiple_of(8), RULES, 0)
    }

    /// The rules that hold before writing and after reading.
    fn check(&self, page: u64, at: u64) -> Result<(), FormatError> {
        let own_page = page_of(self.log);
        RULES.require(own_page == page, Rule::Bounds, at, page, own_page)?;
        let log = self.log.get();
        RULES.require(log <= LOG_ID_MAX, Rule::Bounds, at, LOG_ID_MAX, log)?;
        let (known, flags) = (u64::from(CATALOG_FLAG_SNAPSHOT), u64::from(self.flags));
        RULES.require(flags & !known == 0, Rule::Flags, at, known, flags)?;
        let end = self.end_offset.get();
        RULES.require(
            self.start_offset <= self.end_offset,
            Rule::Order,
            at,
            end,
            self.start_offset.get(),
        )?;
        RULES.require(
            self.tree_end <= self.end_offset,
            Rule::Order,
            at,
            end,
            self.tree_end.get(),
        )?;
        let (created, modified) = (self.created_version.get(), self.modified_version.get());
        RULES.require(created <= modified, Rule::Order, at, modified, created)?;
        for (reference, kind) in [(&self.tree, BlockKind::Node), (&self.tail, BlockKind::Slab)] {
            let found = reference.target.map_or(0, |target| u64::from(target.code()));
            let fits = found == 0 || reference.target == Some(kind);
            RULES.require(fits, Rule::Kind, at, u64::from(kind.code()), found)?;
        }
        Ok(())
    }
}

/// A page of the catalog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogPage {
    /// Its number: the page of log id n is n / 128.
    pub page: u64,
    /// Its logs, by rising id.
    pub entries: Vec<CatalogEntry>,
}

/// The page that a log's entry stands on.
pub const fn page_of(log: LogId) -> u64 {
    log.get().wrapping_div(CATALOG_PAGE_LOGS)
}

fn check_order(before: Option<LogId>, log: LogId) -> Result<(), FormatError> {
    let rises = before.is_none_or(|before| before < log);
    RULES.require(rises, Rule::Order, wide(CATALOG_ENTRIES_POSITION), 0, 0)
}

/// Appends a page's block to `out`, padded to 4 KiB. The entries come by rising id.
///
/// # Errors
///
/// The rule that the page breaks; `out` is unchanged then.
pub fn encode_page(
    page: u64,
    entries: &[CatalogEntryView<'_>],
    identity: &BlockIdentity,
    out: &mut Vec<u8>,
) -> Result<Sealed, FormatError> {
    let mut entries_bytes = 0_u32;
    let mut before = None;
    for entry in entries {
        check_order(before.replace(entry.log), entry.log)?;
        entry.check(
            page,
            u64::from(entries_bytes).saturating_add(wide(CATALOG_ENTRIES_POSITION)),
        )?;
        entries_bytes = entries_bytes.saturating_add(entry.encoded_bytes()?);
    }
    let header = RawPageHeader {
        page: U64::new(page),
        entry_count: U32::new(narrow(entries.len(), RULES, 72)?),
        entries_bytes: U32::new(entries_bytes),
        reserved: [0; 16],
    };
    append_whole_block(
        identity,
        BlockKind::CatalogPage,
        entries_bytes.saturating_add(32),
        out,
        |payload| {
            let mut filler = Filler::new(payload, RULES);
            filler.push(header.as_bytes())?;
            entries
                .iter()
                .try_for_each(|entry| fill_entry(&mut filler, entry))
        },
    )
}

fn fill_entry(filler: &mut Filler<'_>, entry: &CatalogEntryView<'_>) -> Result<(), FormatError> {
    let name = entry.name;
    let raw = RawCatalogEntry {
        entry_bytes: U32::new(entry.encoded_bytes()?),
        flags: U32::new(entry.flags),
        log: U64::new(entry.log.get()),
        start_offset: U64::new(entry.start_offset.get()),
        end_offset: U64::new(entry.end_offset.get()),
        created_version: U64::new(entry.created_version.get()),
        modified_version: U64::new(entry.modified_version.get()),
        tree: entry.tree.to_raw(),
        tail: entry.tail.to_raw(),
        tree_end: U64::new(entry.tree_end.get()),
        // A name has at most 255 bytes.
        name_bytes: U16::new(u16::try_from(name.len()).unwrap_or(u16::MAX)),
        reserved: U16::ZERO,
        settings_bytes: U32::new(narrow(entry.settings.len(), RULES, 156)?),
    };
    filler.push(raw.as_bytes())?;
    filler.push(name.as_bytes())?;
    filler.push(entry.settings)?;
    filler.pad_to_8()
}

/// Reads the page at `place`; `bytes` may run on behind it.
pub fn decode_page(bytes: &[u8], place: &Place) -> Found<CatalogPage> {
    open_whole_block(bytes, place, BlockKind::CatalogPage, RULES).and_then(|(_, block)| decode_block(block))
}

fn decode_block(block: &[u8]) -> Result<CatalogPage, FormatError> {
    let stored = StoredEntries::of_block(block)?;
    let page = stored.page;
    let entries = stored.map(|entry| entry.and_then(|(_, entry)| entry.to_entry()));
    Ok(CatalogPage {
        page,
        entries: entries.collect::<Result<_, _>>()?,
    })
}

/// The entries of a page, one after the other, each checked when it is come to, and what is to be checked of all of them behind
/// the last. Nothing follows an error.
struct StoredEntries<'a> {
    page: u64,
    bytes: &'a [u8],
    left: u64,
    at: usize,
    before: Option<LogId>,
}

impl<'a> StoredEntries<'a> {
    /// Those of a block whose checksum was compared.
    fn of_block(block: &'a [u8]) -> Result<Self, FormatError> {
        let header: RawPageHeader = read(block, BLOCK_HEADER_BYTES, RULES)?;
        RULES.require(header.reserved == [0; 16], Rule::Reserved, 80, 0, 1)?;
        let count = u64::from(header.entry_count.get());
        RULES.require(
            count <= CATALOG_PAGE_LOGS,
            Rule::Limit,
            72,
            CATALOG_PAGE_LOGS,
            count,
        )?;
        let bytes = part(
            block,
            CATALOG_ENTRIES_POSITION,
            index(header.entries_bytes.get()),
            RULES,
        )?;
        let end = bytes.len().saturating_add(CATALOG_ENTRIES_POSITION);
        RULES.require(end == block.len(), Rule::Count, 76, wide(block.len()), wide(end))?;
        let has_entries = count > 0 || bytes.is_empty();
        RULES.require(has_entries, Rule::Count, 76, 0, wide(bytes.len()))?;
        Ok(StoredEntries {
            page: header.page.get(),
            bytes,
            left: count,
            at: 0,
            before: None,
        })
    }

    /// The next entry, and where it stands.
    fn step(&mut self) -> Result<(usize, CatalogEntryView<'a>), FormatError> {
        let at = self.at;
        let (entry, entry_bytes) = decode_entry(self.bytes, at)?;
        entry.check(self.page, wide(at.saturating_add(CATALOG_ENTRIES_POSITION)))?;
        check_order(self.before.replace(entry.log), entry.log)?;
        self.at = at.saturating_add(entry_bytes);
        self.left = self.left.saturating_sub(1);
        if self.left == 0 {
            let (wanted, found) = (wide(self.bytes.len()), wide(self.at));
            RULES.require(wanted == found, Rule::Count, 76, wanted, found)?;
        }
        Ok((at, entry))
    }
}

impl<'a> Iterator for StoredEntries<'a> {
    type Item = Result<(usize, CatalogEntryView<'a>), FormatError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        let step = self.step();
        if step.is_err() {
            self.left = 0;
        }
        Some(step)
    }
}

fn decode_entry(bytes: &[u8], at: usize) -> Result<(CatalogEntryView<'_>, usize), FormatError> {
    let position = wide(at.saturating_add(CATALOG_ENTRIES_POSITION));
    let raw: RawCatalogEntry = read(bytes, at, RULES)?;
    RULES.require(
        raw.reserved.get() == 0,
        Rule::Reserved,
        position,
        0,
        u64::from(raw.reserved.get()),
    )?;
    let (name_bytes, settings_bytes) = (
        index(u32::from(raw.name_bytes.get())),
        index(raw.settings_bytes.get()),
    );
    let limit = wide(NAME_BYTES_MAX);
    RULES.require(
        wide(name_bytes) <= limit,
        Rule::Limit,
        position,
        limit,
        wide(name_bytes),
    )?;
    let limit = u64::from(SETTINGS_BYTES_MAX);
    RULES.require(
        wide(settings_bytes) <= limit,
        Rule::Limit,
        position,
        limit,
        wide(settings_bytes),
    )?;
    // Both lengths are limited, so none of the sums overflows.
    let used = name_bytes.saturating_add(settings_bytes).saturating_add(160);
    let (padded, entry_bytes) = (used.next_multiple_of(8), index(raw.entry_bytes.get()));
    RULES.require(
        padded == entry_bytes,
        Rule::Count,
        position,
        wide(padded),
        wide(entry_bytes),
    )?;
    let entry = part(bytes, at, entry_bytes, RULES)?;
    let padding = entry.get(used..).unwrap_or_default();
    RULES.require(
        padding.iter().all(|byte| *byte == 0),
        Rule::Reserved,
        position,
        0,
        1,
    )?;
    let name = LogName::check(part(entry, 160, name_bytes, RULES)?)
        .map_err(|_| RULES.breaks(Rule::Text, position.saturating_add(160), 0, wide(name_bytes)))?;
    let settings = part(entry, name_bytes.saturating_add(160), settings_bytes, RULES)?;
    let entry = CatalogEntryView {
        log: LogId::new(raw.log.get()),
        flags: raw.flags.get(),
        name,
        start_offset: Offset::new(raw.start_offset.get()),
        end_offset: Offset::new(raw.end_offset.get()),
        tree_end: Offset::new(raw.tree_end.get()),
        created_version: Version::new(raw.created_version.get()),
        modified_version: Version::new(raw.modified_version.get()),
        tree: Reference::from_raw_to(&raw.tree, BlockKind::Node, position.saturating_add(48))?,
        tail: Reference::from_raw_to(&raw.tail, BlockKind::Slab, position.saturating_add(96))?,
        settings,
    };
    Ok((entry, entry_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Crc;
    use crate::testing::{assert_block_is_guarded, bless, identity, place};

    fn entry(log: u64, name: &str, settings: &[u8]) -> CatalogEntry {
        let sealed = Sealed {
            block_bytes: 4100,
            header_crc: Crc::new(3),
        };
        CatalogEntry {
            log: LogId::new(log),
            flags: 0,
            name: LogName::parse(name).unwrap(),
            start_offset: Offset::new(5),
            end_offset: Offset::new(90),
            tree_end: Offset::new(80),
            created_version: Version::new(1),
            modified_version: Version::new(77),
            tree: Reference::local(BlockKind::Node, &identity(), &sealed),
            tail: Reference::local(BlockKind::Slab, &identity(), &sealed),
            settings: settings.to_vec(),
        }
    }

    fn page() -> CatalogPage {
        let bare = CatalogEntry {
            flags: CATALOG_FLAG_SNAPSHOT,
            tree: Reference::EMPTY,
            tail: Reference::EMPTY,
            ..entry(255, "ä", b"")
        };
        CatalogPage {
            page: 1,
            entries: vec![
                entry(128, "a/b", b"settings"),
                entry(200, &"x".repeat(255), b""),
                bare,
            ],
        }
    }

    fn encoded(page: &CatalogPage) -> Result<Vec<u8>, FormatError> {
        let mut out = Vec::new();
        let entries: Vec<_> = page.entries.iter().map(CatalogEntry::view).collect();
        let sealed = encode_page(page.page, &entries, &identity(), &mut out)?;
        assert!(out[sealed.block_bytes as usize..].iter().all(|byte| *byte == 0));
        out.truncate(sealed.block_bytes as usize);
        Ok(out)
    }

    #[test]
    fn what_is_written_is_read() {
        for page in [
            page(),
            CatalogPage {
                page: 0,
                entries: vec![],
            },
        ] {
            assert_eq!(
                decode_page(&encoded(&page).unwrap(), &place()),
                Found::Valid(page)
            );
        }
    }

    #[test]
    fn a_page_decodes_only_whole_and_in_its_own_place() {
        assert_block_is_guarded(&encoded(&page()).unwrap(), decode_page);
        assert_block_is_guarded(&encoded(&page()).unwrap(), |bytes, place| {
            PackedPage::decode(bytes.to_vec(), place, |_| ())
        });
    }

    #[test]
    fn a_packed_page_has_the_entries_of_the_page() {
        let (page, bytes) = (page(), encoded(&page()).unwrap());
        let mut shown = Vec::new();
        let packed = PackedPage::decode(bytes.clone(), &place(), |entry| {
            shown.push(entry.to_entry().unwrap())
        });
        let packed = packed.valid().unwrap();
        assert_eq!(shown, page.entries);
        let entries: Vec<_> = page.entries.iter().map(CatalogEntry::view).collect();
        // Behind another block as well.
        let mut out = vec![7; 4096];
        let (_, kept) = PackedPage::encode(1, &entries, &identity(), &mut out).unwrap();
        assert_eq!(
            (&kept, out.get(4096..4096 + bytes.len())),
            (&packed, Some(&*bytes))
        );
        let entries = packed.entries().map(|entry| entry.to_entry().unwrap());
        assert_eq!(entries.collect::<Vec<_>>(), page.entries);
        assert_eq!((packed.page(), packed.len()), (1, 3));
        for log in 120..260 {
            let wanted = page.entries.iter().find(|entry| entry.log.get() == log);
            assert_eq!(
                packed.find(LogId::new(log)),
                wanted.map(CatalogEntry::view),
                "{log}"
            );
        }
    }

    #[test]
    fn what_breaks_a_rule_is_not_written() {
        let refused = |entry: CatalogEntry| {
            let page = CatalogPage {
                page: 1,
                entries: vec![entry],
            };
            encoded(&page).unwrap_err().rule
        };
        let good = || entry(128, "a", b"");
        assert_eq!(refused(entry(127, "a", b"")), Rule::Bounds);
        assert_eq!(refused(CatalogEntry { flags: 2, ..good() }), Rule::Flags);
        assert_eq!(
            refused(CatalogEntry {
                start_offset: Offset::new(91),
                ..good()
            }),
            Rule::Order
        );
        assert_eq!(
            refused(CatalogEntry {
                tree_end: Offset::new(91),
                ..good()
            }),
            Rule::Order
        );
        assert_eq!(
            refused(CatalogEntry {
                created_version: Version::new(78),
                ..good()
            }),
            Rule::Order
        );
        assert_eq!(
            refused(CatalogEntry {
                tree: good().tail,
                ..good()
            }),
            Rule::Kind
        );
        assert_eq!(
            refused(CatalogEntry {
                tail: good().tree,
                ..good()
            }),
            Rule::Kind
        );
        assert_eq!(
            refused(CatalogEntry {
                settings: vec![0; 65_537],
                ..good()
            }),
            Rule::Limit
        );
        let twice = CatalogPage {
            page: 1,
            entries: vec![good(), good()],
        };
        assert_eq!(encoded(&twice).unwrap_err().rule, Rule::Order);
        for (log, is_allowed) in [(LOG_ID_MAX, true), (u64::MAX, false)] {
            let last = CatalogPage {
                page: page_of(LogId::new(log)),
                entries: vec![entry(log, "a", b"")],
            };
            assert_eq!(encoded(&last).is_ok(), is_allowed, "{log}");
        }
    }

    #[test]
    fn hostile_pages_are_refused_behind_a_fitting_checksum() {
        let with = |at: usize, bytes: &[u8]| {
            let mut block = encoded(&page()).unwrap();
            block[at..at + bytes.len()].copy_from_slice(bytes);
            let length = block.len();
            bless(&mut block, &[(64, length)]);
            match decode_page(&block, &place()) {
                Found::Invalid(error) => error.rule,
                other => panic!("accepted: {other:?}"),
            }
        };
        let huge = u32::MAX.to_le_bytes();
        assert_eq!(with(64, &[2]), Rule::Bounds, "another page");
        assert_eq!(with(72, &huge), Rule::Limit, "entries");
        assert_eq!(with(72, &[4]), Rule::Truncated, "entries");
        assert_eq!(with(72, &[2]), Rule::Count, "entries");
        assert_eq!(with(76, &huge), Rule::Truncated, "bytes");
        assert_eq!(with(76, &[0, 0]), Rule::Count, "bytes");
        assert_eq!(with(80, &[1]), Rule::Reserved);
        assert_eq!(with(96, &huge), Rule::Count, "entry bytes");
        assert_eq!(with(100, &[2]), Rule::Flags);
        assert_eq!(with(100, &[0, 0, 0, 0x80]), Rule::Flags);
        assert_eq!(with(104, &[0; 8]), Rule::Bounds, "log");
        assert_eq!(with(96 + 152, &[0, 1]), Rule::Limit, "name");
        assert_eq!(with(96 + 154, &[1]), Rule::Reserved);
        assert_eq!(with(96 + 156, &huge), Rule::Limit, "settings");
        assert_eq!(with(96 + 160, &[0]), Rule::Text);
        assert_eq!(with(96 + 160 + 11, &[1]), Rule::Reserved, "padding");
    }
}
