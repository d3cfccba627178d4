//! Checkpoint blocks: the whole store at one version, by reference.

use crate::block::{
    BLOCK_HEADER_BYTES, BlockIdentity, BlockKind, Filler, Place, Sealed, append_whole_block, open_whole_block,
};
use crate::catalog::CatalogIndex;
use crate::catalog::index::encoded_bytes;
use crate::convert::{index, narrow, read, wide};
use crate::error::{FormatError, Found, Rule, Structure};
use crate::ids::{ByteLength, Crc, Generation, LogId, Position, SegmentId, Version};
use crate::reference::{RawReference, Reference};
use crate::segment::SegmentKind;
use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U32, U64};

const RULES: Structure = Structure::Checkpoint;
const LISTS_AT: usize = 192;
const ENTRY_BYTES: usize = 48;
const FLAG_FREE: u8 = 1;
/// Behind the references to pages stands what is told of them.
const FLAG_INDEX: u32 = 1;

wire_struct! {
    struct RawCheckpoint is "CheckpointHeader", 128 bytes {
        0 version: U64,
        8 journal_segment: U64,
        16 journal_position: U64,
        24 next_log: U64,
        32 next_segment: U64,
        40 last_commit_crc: U32,
        44 segment_count: U32,
        48 page_count: U32,
        52 flags: U32,
        56 garbage: RawReference,
        104 name_run_count: U32,
        108 reserved: [u8; 20],
    }
}

wire_struct! {
    struct RawSegmentEntry is "SegmentEntry", 48 bytes {
        0 segment: U64,
        8 generation: U32,
        12 kind: u8,
        13 flags: u8,
        14 reserved_14: U16,
        16 segment_bytes: U64,
        24 used_bytes: U64,
        32 live_bytes: U64,
        40 reserved: U64,
    }
}

/// A segment as the checkpoint knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentEntry {
    /// Its id.
    pub segment: SegmentId,
    /// Which life of the file it is.
    pub generation: Generation,
    /// What it holds.
    pub kind: SegmentKind,
    /// Whether nothing in it is needed: its file waits to be written again.
    pub free: bool,
    /// Length of the file.
    pub segment_bytes: ByteLength,
    /// Where its last block ends, padding included; what stands behind it is not part of the checkpoint.
    pub used_bytes: ByteLength,
    /// Bytes of the blocks that are referred to.
    pub live_bytes: ByteLength,
}

/// The whole store at one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The version.
    pub version: Version,
    /// Journal segment in which the block of the next version stands or will stand.
    pub journal_segment: SegmentId,
    /// Position of that block.
    pub journal_position: Position,
    /// Id that the next log gets.
    pub next_log: LogId,
    /// Id that the next segment gets.
    pub next_segment: SegmentId,
    /// Header checksum of the commit block of this version; zero if there is none.
    pub last_commit_crc: Crc,
    /// Root of the garbage log; empty while there is none.
    pub garbage: Reference,
    /// The segments, by rising id.
    pub segments: Vec<SegmentEntry>,
    /// The pages of the catalog that have entries, by rising page number.
    pub pages: Vec<Reference>,
    /// What is told of them; nothing in checkpoints from before there was an index, of which all pages are to be read.
    pub index: Option<CatalogIndex>,
}

impl Checkpoint {
    /// Length of the block without its padding.
    pub fn encoded_bytes(&self) -> usize {
        let index = self.index.as_ref().map_or(0, CatalogIndex::encoded_bytes);
        self.index_at().saturating_add(index)
    }

    /// Where the index stands, if there is one: behind the other lists.
    fn index_at(&self) -> usize {
        let entries = self.segments.len().saturating_add(self.pages.len());
        entries.saturating_mul(ENTRY_BYTES).saturating_add(LISTS_AT)
    }

    /// Appends the checkpoint's block to `out`, padded to 4 KiB.
    ///
    /// # Errors
    ///
    /// The rule that the checkpoint breaks; `out` is unchanged then.
    pub fn encode(&self, identity: &BlockIdentity, out: &mut Vec<u8>) -> Result<Sealed, FormatError> {
        self.check()?;
        let payload_bytes = narrow(self.encoded_bytes().saturating_sub(BLOCK_HEADER_BYTES), RULES, 8)?;
        let names = self.index.iter().flat_map(|index| &index.names);
        append_whole_block(identity, BlockKind::Checkpoint, payload_bytes, out, |payload| {
            let header = RawCheckpoint {
                version: U64::new(self.version.get()),
                journal_segment: U64::new(self.journal_segment.get()),
                journal_position: U64::new(self.journal_position.get()),
                next_log: U64::new(self.next_log.get()),
                next_segment: U64::new(self.next_segment.get()),
                last_commit_crc: U32::new(self.last_commit_crc.get()),
                segment_count: U32::new(narrow(self.segments.len(), RULES, 108)?),
                page_count: U32::new(narrow(self.pages.len(), RULES, 112)?),
                flags: U32::new(if self.index.is_some() { FLAG_INDEX } else { 0 }),
                garbage: self.garbage.to_raw(),
                name_run_count: U32::new(narrow(names.clone().count(), RULES, 168)?),
                reserved: [0; 20],
            };
            let mut filler = Filler::new(payload, RULES);
            filler.push(header.as_bytes())?;
            self.segments
                .iter()
                .try_for_each(|entry| filler.push(raw_segment(entry).as_bytes()))?;
            self.pages
                .iter()
                .try_for_each(|page| filler.push(page.to_raw().as_bytes()))?;
            let mut told = self.index.iter().flat_map(|index| &index.pages);
            told.try_for_each(|entry| filler.push(entry.to_raw().as_bytes()))?;
            let mut names = names;
            names.try_for_each(|run| filler.push(run.to_raw().as_bytes()))
        })
    }

    /// Reads the checkpoint at `place`; `bytes` may run on behind it.
    pub fn decode(bytes: &[u8], place: &Place) -> Found<Self> {
        open_whole_block(bytes, place, BlockKind::Checkpoint, RULES)
            .and_then(|(_, block)| decode_block(block))
    }

    /// The rules that hold before writing and after reading.
    fn check(&self) -> Result<(), FormatError> {
        let position = self.journal_position.get();
        RULES.require(position.is_multiple_of(4096), Rule::Alignment, 80, 4096, position)?;
        // Reserved: whoever writes a list of what is dead counts on it that nobody passes over one.
        RULES.require(self.garbage.is_empty(), Rule::Reserved, 120, 0, 1)?;
        let mut least = 0;
        for (number, entry) in self.segments.iter().enumerate() {
            let at = wide(number.saturating_mul(ENTRY_BYTES).saturating_add(LISTS_AT));
            let id = entry.segment.get();
            RULES.require(id >= least, Rule::Order, at, least, id)?;
            RULES.require(
                entry.segment < self.next_segment,
                Rule::Bounds,
                at,
                self.next_segment.get(),
                id,
            )?;
            let (length, used, live) = (
                entry.segment_bytes.get(),
                entry.used_bytes.get(),
                entry.live_bytes.get(),
            );
            RULES.require(used <= length, Rule::Bounds, at, length, used)?;
            RULES.require(live <= length, Rule::Bounds, at, length, live)?;
            least = id.saturating_add(1);
        }
        let pages_at = self
            .segments
            .len()
            .saturating_mul(ENTRY_BYTES)
            .saturating_add(LISTS_AT);
        self.pages.iter().try_for_each(|page| {
            let found = page.target.map_or(0, |target| u64::from(target.code()));
            let wanted = u64::from(BlockKind::CatalogPage.code());
            RULES.require(found == wanted, Rule::Kind, wide(pages_at), wanted, found)
        })?;
        let at = wide(self.index_at());
        let index = self.index.as_ref();
        index.map_or(Ok(()), |index| index.check(at, self.pages.len(), self.next_log))
    }
}

fn raw_segment(entry: &SegmentEntry) -> RawSegmentEntry {
    RawSegmentEntry {
        segment: U64::new(entry.segment.get()),
        generation: U32::new(entry.generation.get()),
        kind: entry.kind.code(),
        flags: if entry.free { FLAG_FREE } else { 0 },
        reserved_14: U16::ZERO,
        segment_bytes: U64::new(entry.segment_bytes.get()),
        used_bytes: U64::new(entry.used_bytes.get()),
        live_bytes: U64::new(entry.live_bytes.get()),
        reserved: U64::ZERO,
    }
}

fn decode_block(block: &[u8]) -> Result<Checkpoint, FormatError> {
    let header: RawCheckpoint = read(block, BLOCK_HEADER_BYTES, RULES)?;
    RULES.require(header.reserved == [0; 20], Rule::Reserved, 172, 0, 1)?;
    let (flags, names) = (header.flags.get(), index(header.name_run_count.get()));
    let known = u64::from(FLAG_INDEX);
    RULES.require(
        flags & !FLAG_INDEX == 0,
        Rule::Flags,
        116,
        known,
        u64::from(flags),
    )?;
    let has_index = flags & FLAG_INDEX != 0;
    RULES.require(has_index || names == 0, Rule::Reserved, 168, 0, wide(names))?;
    let (segments, pages) = (index(header.segment_count.get()), index(header.page_count.get()));
    // Remaining bytes before anything is allocated: the lists fill the block.
    let index_at = segments
        .saturating_add(pages)
        .saturating_mul(ENTRY_BYTES)
        .saturating_add(LISTS_AT);
    let told = if has_index { pages } else { 0 };
    let needed = encoded_bytes(told, names).saturating_add(index_at);
    RULES.require(
        needed == block.len(),
        Rule::Count,
        108,
        wide(block.len()),
        wide(needed),
    )?;
    let garbage = Reference::from_raw_to(&header.garbage, BlockKind::Garbage, 120)?;
    let position = |number: usize| number.saturating_mul(ENTRY_BYTES).saturating_add(LISTS_AT);
    let checkpoint = Checkpoint {
        version: Version::new(header.version.get()),
        journal_segment: SegmentId::new(header.journal_segment.get()),
        journal_position: Position::new(header.journal_position.get()),
        next_log: LogId::new(header.next_log.get()),
        next_segment: SegmentId::new(header.next_segment.get()),
        last_commit_crc: Crc::new(header.last_commit_crc.get()),
        garbage,
        segments: (0..segments)
            .map(|number| decode_segment(block, position(number)))
            .collect::<Result<_, _>>()?,
        pages: (segments..segments.saturating_add(pages))
            .map(|number| decode_page_reference(block, position(number)))
            .collect::<Result<_, _>>()?,
        index: match has_index {
            true => Some(CatalogIndex::decode(block, index_at, pages, names)?),
            false => None,
        },
    };
    checkpoint.check()?;
    Ok(checkpoint)
}

fn decode_segment(block: &[u8], at: usize) -> Result<SegmentEntry, FormatError> {
    let raw: RawSegmentEntry = read(block, at, RULES)?;
    let at = wide(at);
    let reserved = u64::from(raw.reserved_14.get()) | raw.reserved.get();
    RULES.require(reserved == 0, Rule::Reserved, at, 0, reserved)?;
    RULES.require(
        raw.flags & !FLAG_FREE == 0,
        Rule::Flags,
        at,
        u64::from(FLAG_FREE),
        u64::from(raw.flags),
    )?;
    let kind =
        SegmentKind::from_code(raw.kind).ok_or(RULES.breaks(Rule::Kind, at, 1, u64::from(raw.kind)))?;
    Ok(SegmentEntry {
        segment: SegmentId::new(raw.segment.get()),
        generation: Generation::new(raw.generation.get()),
        kind,
        free: raw.flags & FLAG_FREE != 0,
        segment_bytes: ByteLength::new(raw.segment_bytes.get()),
        used_bytes: ByteLength::new(raw.used_bytes.get()),
        live_bytes: ByteLength::new(raw.live_bytes.get()),
    })
}

fn decode_page_reference(block: &[u8], at: usize) -> Result<Reference, FormatError> {
    let raw: RawReference = read(block, at, RULES)?;
    Reference::from_raw_to(&raw, BlockKind::CatalogPage, wide(at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KeyRun;
    use crate::catalog::PageEntry;
    use crate::testing::{assert_block_is_guarded, bless, identity, place};

    fn segment(id: u64, kind: SegmentKind, free: bool) -> SegmentEntry {
        SegmentEntry {
            segment: SegmentId::new(id),
            generation: Generation::new(2),
            kind,
            free,
            segment_bytes: ByteLength::new(1 << 20),
            used_bytes: ByteLength::new(8192),
            live_bytes: ByteLength::new(4096),
        }
    }

    fn checkpoint() -> Checkpoint {
        let sealed = Sealed {
            block_bytes: 4100,
            header_crc: Crc::new(3),
        };
        Checkpoint {
            version: Version::new(77),
            journal_segment: SegmentId::new(4),
            journal_position: Position::new(4096),
            next_log: LogId::new(300),
            next_segment: SegmentId::new(6),
            last_commit_crc: Crc::new(0x55),
            garbage: Reference::EMPTY,
            segments: vec![
                segment(1, SegmentKind::Journal, true),
                segment(3, SegmentKind::Slabs, false),
                segment(4, SegmentKind::Journal, false),
            ],
            pages: vec![Reference::local(BlockKind::CatalogPage, &identity(), &sealed); 2],
            index: None,
        }
    }

    fn indexed() -> Checkpoint {
        let sealed = Sealed {
            block_bytes: 4100,
            header_crc: Crc::new(3),
        };
        let entry = PageEntry {
            page: 0,
            logs: 0b1110,
            named: 2,
            needed: true,
        };
        let run = KeyRun {
            base: 0,
            first: 0,
            end: 300,
            entries: 7,
            stored_bytes: 0,
            superseded_bytes: 0,
            page_count: 2,
            leaf_count: 1,
            root_page: 0,
            filter_page: 1,
            filter_blocks: 1,
            level: 0,
            tree: Reference::local(BlockKind::Node, &identity(), &sealed),
        };
        let last = PageEntry {
            page: 2,
            logs: 1 << 43,
            named: 1,
            needed: false,
        };
        let index = CatalogIndex {
            pages: vec![entry, last],
            names: vec![run],
        };
        Checkpoint {
            index: Some(index),
            ..checkpoint()
        }
    }

    fn encoded(checkpoint: &Checkpoint) -> Result<Vec<u8>, FormatError> {
        let mut out = Vec::new();
        let sealed = checkpoint.encode(&identity(), &mut out)?;
        assert_eq!(sealed.block_bytes as usize, checkpoint.encoded_bytes());
        out.truncate(sealed.block_bytes as usize);
        Ok(out)
    }

    #[test]
    fn what_is_written_is_read() {
        let bare = Checkpoint {
            segments: vec![],
            pages: vec![],
            ..checkpoint()
        };
        let bare_index = Checkpoint {
            index: Some(CatalogIndex::default()),
            ..bare.clone()
        };
        for checkpoint in [checkpoint(), indexed(), bare, bare_index] {
            let found = Checkpoint::decode(&encoded(&checkpoint).unwrap(), &place());
            assert_eq!(found, Found::Valid(checkpoint));
        }
    }

    #[test]
    fn a_checkpoint_decodes_only_whole_and_in_its_own_place() {
        assert_block_is_guarded(&encoded(&checkpoint()).unwrap(), Checkpoint::decode);
        assert_block_is_guarded(&encoded(&indexed()).unwrap(), Checkpoint::decode);
    }

    #[test]
    fn what_breaks_a_rule_is_not_written() {
        let refused = |change: fn(&mut Checkpoint)| {
            let mut checkpoint = checkpoint();
            change(&mut checkpoint);
            encoded(&checkpoint).unwrap_err().rule
        };
        assert_eq!(
            refused(|it| it.journal_position = Position::new(64)),
            Rule::Alignment
        );
        assert_eq!(
            refused(|it| {
                let target = Some(BlockKind::Garbage);
                it.garbage = Reference {
                    target,
                    ..it.pages[0]
                };
            }),
            Rule::Reserved
        );
        assert_eq!(refused(|it| it.segments.swap(0, 1)), Rule::Order);
        assert_eq!(refused(|it| it.segments[1] = it.segments[0]), Rule::Order);
        assert_eq!(refused(|it| it.next_segment = SegmentId::new(4)), Rule::Bounds);
        assert_eq!(
            refused(|it| it.segments[0].used_bytes = ByteLength::new(1 << 21)),
            Rule::Bounds
        );
        assert_eq!(
            refused(|it| it.segments[0].live_bytes = ByteLength::new(1 << 21)),
            Rule::Bounds
        );
        assert_eq!(refused(|it| it.pages[1] = Reference::EMPTY), Rule::Kind);
    }

    #[test]
    fn an_index_that_breaks_a_rule_is_not_written() {
        let refused = |change: fn(&mut CatalogIndex)| {
            let mut checkpoint = indexed();
            change(checkpoint.index.as_mut().unwrap());
            encoded(&checkpoint).unwrap_err().rule
        };
        assert_eq!(refused(|it| it.pages.truncate(1)), Rule::Count);
        assert_eq!(refused(|it| it.pages.swap(0, 1)), Rule::Order);
        assert_eq!(refused(|it| it.pages[1].page = 0), Rule::Order);
        assert_eq!(refused(|it| it.pages[1].logs = 0), Rule::Zero);
        assert_eq!(refused(|it| it.pages[1].named = 2), Rule::Bounds);
        assert_eq!(
            refused(|it| it.pages[1].logs = 1 << 44),
            Rule::Bounds,
            "no id yet"
        );
        assert_eq!(refused(|it| it.pages[1].page = u64::MAX), Rule::Bounds, "no page");
        assert_eq!(refused(|it| it.names[0].end = 301), Rule::Bounds);
        assert_eq!(refused(|it| it.names[0].first = 300), Rule::Order);
        assert_eq!(refused(|it| it.names[0].tree = Reference::EMPTY), Rule::Zero);
    }

    #[test]
    fn hostile_checkpoints_are_refused_behind_a_fitting_checksum() {
        let of = |checkpoint: &Checkpoint, at: usize, bytes: &[u8]| {
            let mut block = encoded(checkpoint).unwrap();
            block[at..at + bytes.len()].copy_from_slice(bytes);
            let length = block.len();
            bless(&mut block, &[(64, length)]);
            match Checkpoint::decode(&block, &place()) {
                Found::Invalid(error) => error.rule,
                other => panic!("accepted: {other:?}"),
            }
        };
        let with = |at: usize, bytes: &[u8]| of(&checkpoint(), at, bytes);
        let huge = u32::MAX.to_le_bytes();
        assert_eq!(with(80, &[1]), Rule::Alignment);
        assert_eq!(with(108, &huge), Rule::Count, "segments");
        assert_eq!(with(112, &huge), Rule::Count, "pages");
        assert_eq!(with(116, &[1]), Rule::Count, "no index");
        assert_eq!(with(116, &[2]), Rule::Flags);
        assert_eq!(with(120, &[0]), Rule::Kind, "garbage");
        assert_eq!(with(168, &[1]), Rule::Reserved, "runs without an index");
        assert_eq!(with(172, &[1]), Rule::Reserved);
        assert_eq!(with(192 + 12, &[0]), Rule::Kind);
        assert_eq!(with(192 + 13, &[2]), Rule::Flags);
        assert_eq!(with(192 + 14, &[1]), Rule::Reserved);
        assert_eq!(with(192 + 40, &[1]), Rule::Reserved);
        assert_eq!(with(192 + 3 * 48, &[0]), Rule::Kind, "page");
        let with = |at: usize, bytes: &[u8]| of(&indexed(), at, bytes);
        let index = 192 + 5 * 48;
        assert_eq!(with(168, &huge), Rule::Count, "runs");
        assert_eq!(with(116, &[0]), Rule::Reserved, "runs without an index");
        assert_eq!(with(index, &[5]), Rule::Bounds, "no ids yet");
        assert_eq!(with(index + 32, &[0]), Rule::Order, "page numbers");
        assert_eq!(with(index + 8, &[4]), Rule::Bounds, "more names than logs");
        assert_eq!(with(index + 12, &[2]), Rule::Flags);
        assert_eq!(with(index + 32 + 16, &[0; 16]), Rule::Zero, "no log");
        assert_eq!(with(index + 64 + 92, &[1]), Rule::Reserved, "run");
        assert_eq!(with(index + 64 + 96, &[0]), Rule::Kind, "tree of a run");
    }
}
