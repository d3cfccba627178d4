//! A store of a few dozen pages that has every structure of the format, made block by block without the engine: slabs with
//! all kinds of index, messages with all that a message can have, a tree of two levels, gathered tails, three pages of the
//! catalog, a run of names, a checkpoint with an index, both root slots, a journal over two segments with frames, adoptions of both kinds and a new log,
//! and a spare file. Every block's place is known, so that a test can say what it damaged.

mod parts;
pub mod reading;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use lanterman_format::catalog::{CatalogIndex, PageEntry, bit_of};
use lanterman_format::limits::NODE_LEVEL_MAX;
use lanterman_format::{
    ByteLength, Change, Checkpoint, CommitParameters, Crc, FormatVersion, LogId, Offset, Position, Reference,
    RootSlot, SegmentEntry, SegmentId, SegmentKind, Sequence, SlabAdoption, StoreId, Version,
};

use parts::{Commit, Messages, Segment, entry, leaf, name_run, node};
pub use parts::{Written, written};

/// Where the store is.
pub const PATH: &str = "/store";
/// Its id.
pub const STORE: StoreId = StoreId::from_bytes(*b"crafted by hands");
/// The version of its checkpoint.
pub const CHECKPOINT_VERSION: u64 = 7;
/// Its newest version.
pub const NEWEST_VERSION: u64 = 13;

const SPARE: u64 = 4;
const JOURNAL: u64 = 5;
const SLABS: u64 = 6;
const SECOND_JOURNAL: u64 = 7;
/// A log that nothing comes to, alone on its page of the catalog.
const QUIET: u64 = 260;
/// A log that the journal creates.
const LATER: u64 = 400;
const LAST_CRC: Crc = Crc::new(0x0123_4567);
const TIME_MS: i64 = 1_700_000_000_000;

/// A block, or another structure with a checksum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// What it is, for people and for looking it up.
    pub name: String,
    /// Which of the files it is in.
    pub file: usize,
    /// Its first byte.
    pub position: usize,
    /// Its length without padding.
    pub bytes: usize,
}

impl Place {
    /// The bytes of the file that it takes.
    #[must_use]
    pub fn range(&self) -> Range<usize> {
        self.position..self.position + self.bytes
    }
}

/// A log as it must be read.
#[derive(Debug, Clone, Default)]
pub struct Expected {
    /// Its messages, from offset 0.
    pub messages: Vec<Written>,
    /// How many of them versions 11 and 12 had.
    pub earlier_ends: [usize; 2],
}

/// The store: its files, where its blocks are, and what must be read from it.
#[derive(Debug, Clone)]
pub struct Crafted {
    /// Files by path.
    pub files: Vec<(PathBuf, Vec<u8>)>,
    /// All blocks, root slots and segment headers.
    pub places: Vec<Place>,
    /// The logs.
    pub logs: BTreeMap<String, Expected>,
}

impl Expected {
    /// How many messages the log has in a version that a reader may take for the newest when the blocks behind it are gone.
    #[must_use]
    pub fn end_in(&self, version: u64) -> Option<usize> {
        match version {
            11 => Some(self.earlier_ends[0]),
            12 => Some(self.earlier_ends[1]),
            NEWEST_VERSION => Some(self.messages.len()),
            _ => None,
        }
    }
}

impl Crafted {
    /// The place of that name.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn place(&self, name: &str) -> &Place {
        let found = self.places.iter().find(|place| place.name == name);
        found.unwrap_or_else(|| panic!("nothing is named {name}"))
    }
}

/// Everything that the checkpoint refers to, and the slabs that the journal adopts.
struct Slabs {
    checkpoint: Reference,
    adopted: [Reference; 3],
}

/// Messages of the logs, cut as the store holds them.
struct Content {
    orders: Vec<Written>,
    large: Vec<Written>,
    audit: Vec<Written>,
    quiet: Vec<Written>,
    later: Vec<Written>,
}

fn content() -> Content {
    let many = |log: u64, count: u64| (0..count).map(|number| written(log, number)).collect();
    let mut large: Vec<Written> = many(2, 3);
    large[0].value = (0..5200u32).map(|number| (number % 251) as u8).collect();
    Content {
        orders: many(1, 64),
        large,
        audit: many(130, 5),
        quiet: many(QUIET, 2),
        later: many(LATER, 4),
    }
}

/// Where the tree of `orders` is cut into slabs, and where it ends.
const ORDERS_CUTS: [usize; 5] = [0, 3, 52, 55, 57];
/// Where its tail ends, and its frames.
const ORDERS_TAIL_END: usize = 59;

/// Makes the store.
#[must_use]
pub fn crafted() -> Crafted {
    make(true, |_, tree| tree)
}

/// The store with a checkpoint that has no index of the catalog, as was written before there was one.
#[must_use]
pub fn without_index() -> Crafted {
    make(false, |_, tree| tree)
}

/// The store with `count` more nodes of one child above the root of `large`, each `step` levels above the one below.
#[must_use]
pub fn with_deep_tree(count: u8, step: u8) -> Crafted {
    make(true, |segment, tree| {
        (1..=count).fold(tree, |below, number| {
            let level = number.saturating_mul(step).min(NODE_LEVEL_MAX);
            node("a lone node", segment, level, &[(below, 1)])
        })
    })
}

/// Makes the store; `grow` may put more nodes above the root of `large`.
fn make(has_index: bool, grow: impl FnOnce(&mut Segment, Reference) -> Reference) -> Crafted {
    let content = content();
    let mut slabs = Segment::new(SegmentKind::Slabs, SLABS, 3, 1);
    let written_slabs = write_slabs(&mut slabs, &content, has_index, grow);
    let mut first = Segment::new(SegmentKind::Journal, JOURNAL, 2, CHECKPOINT_VERSION + 1);
    let mut second = Segment::new(SegmentKind::Journal, SECOND_JOURNAL, 1, 11);
    write_journal(&mut first, &mut second, &content, &written_slabs.adopted);
    // Room for what comes next.
    second.bytes.resize(second.bytes.len() + 4096, 0);
    let mut spare = Segment::new(SegmentKind::Journal, SPARE, 1, 1);
    let old = Messages::of(&content.audit[..2]);
    let commit = Commit {
        version: 1,
        previous: Crc::ZERO,
        ..Commit::default()
    };
    commit.frame(130, 0, &old).write("old commit", &mut spare);

    let mut files = Vec::new();
    let mut places = Vec::new();
    files.push((Path::new(PATH).join("root"), write_root(written_slabs.checkpoint)));
    for slot in 0..2 {
        places.push(Place {
            name: format!("root slot {slot}"),
            file: 0,
            position: slot * 4096,
            bytes: 4096,
        });
    }
    for (segment, ending) in [
        (spare, "free"),
        (first, "journal"),
        (slabs, "slabs"),
        (second, "journal"),
    ] {
        segment.finish(ending, &mut files, &mut places);
    }
    let expected = |messages: Vec<Written>, earlier_ends| Expected {
        messages,
        earlier_ends,
    };
    let logs = BTreeMap::from([
        ("orders/ü".to_owned(), expected(content.orders, [61, 63])),
        ("large".to_owned(), expected(content.large, [3, 3])),
        ("empty".to_owned(), Expected::default()),
        ("audit".to_owned(), expected(content.audit, [5, 5])),
        ("quiet".to_owned(), expected(content.quiet, [2, 2])),
        ("later".to_owned(), expected(content.later, [2, 3])),
    ]);
    Crafted { files, places, logs }
}

fn write_slabs(
    segment: &mut Segment,
    content: &Content,
    has_index: bool,
    grow: impl FnOnce(&mut Segment, Reference) -> Reference,
) -> Slabs {
    let mut entries = Vec::new();
    for (number, cut) in ORDERS_CUTS.windows(2).enumerate() {
        let mut messages = Messages::of(&content.orders[cut[0]..cut[1]]);
        if number == 1 {
            messages = messages.compressed(cut[1] - cut[0] - 2);
        }
        let name = format!("slab {number} of orders");
        let reference = messages.write(&name, segment, 1, cut[0], 3);
        entries.push((reference, messages));
    }
    let count = |from: usize, to: usize| (ORDERS_CUTS[to] - ORDERS_CUTS[from]) as u64;
    let first = leaf("first leaf of orders", segment, &entries[..2]);
    let second = leaf("second leaf of orders", segment, &entries[2..]);
    let orders = node(
        "root of orders",
        segment,
        1,
        &[(first, count(0, 2)), (second, count(2, 4))],
    );
    let messages = Messages::of(&content.large[..1]);
    let reference = messages.write("slab of large", segment, 2, 0, 3);
    let large = leaf("root of large", segment, &[(reference, messages)]);
    let large = grow(segment, large);
    let tails = segment.gathered(
        "gathered tails",
        &[
            (
                1,
                ORDERS_CUTS[4],
                Messages::of(&content.orders[ORDERS_CUTS[4]..ORDERS_TAIL_END]),
            ),
            (130, 0, Messages::of(&content.audit[..2])),
            (QUIET, 0, Messages::of(&content.quiet)),
        ],
    );
    let entries = [
        entry(1, "orders/ü", (ORDERS_CUTS[4], ORDERS_TAIL_END), orders, tails[0]),
        entry(2, "large", (1, 1), large, Reference::EMPTY),
        entry(3, "empty", (0, 0), Reference::EMPTY, Reference::EMPTY),
    ];
    let first_page = segment.page("catalog page 0", 0, &entries);
    let audit = entry(130, "audit", (0, 2), Reference::EMPTY, tails[1]);
    let second_page = segment.page("catalog page 1", 1, &[audit]);
    let quiet = entry(QUIET, "quiet", (0, 2), Reference::EMPTY, tails[2]);
    let third_page = segment.page("catalog page 2", 2, &[quiet]);
    // In the order of their bytes.
    let names = [
        ("audit", 130),
        ("empty", 3),
        ("large", 2),
        ("orders/ü", 1),
        ("quiet", QUIET),
    ];
    let told = |page, logs: &[u64]| PageEntry {
        page,
        logs: logs.iter().map(|log| bit_of(LogId::new(*log))).sum(),
        named: logs.len() as u32,
        needed: false,
    };
    let index = has_index.then(|| CatalogIndex {
        pages: vec![told(0, &[1, 2, 3]), told(1, &[130]), told(2, &[QUIET])],
        names: vec![name_run(segment, &names)],
    });
    let checkpoint = write_checkpoint(segment, vec![first_page, second_page, third_page], index);
    let mut adopt = |name: &str, log, messages: &[Written], first, version| {
        Messages::of(messages).write(name, segment, log, first, version)
    };
    let adopted = [
        adopt("adopted slab of audit", 130, &content.audit, 0, 10),
        adopt("adopted slab of large", 2, &content.large[1..], 1, 11),
        adopt("adopted slab of later", LATER, &content.later, 0, 13),
    ];
    Slabs { checkpoint, adopted }
}

fn write_checkpoint(segment: &mut Segment, pages: Vec<Reference>, index: Option<CatalogIndex>) -> Reference {
    let checkpoint = Checkpoint {
        version: Version::new(CHECKPOINT_VERSION),
        journal_segment: SegmentId::new(JOURNAL),
        journal_position: Position::new(4096),
        next_log: LogId::new(LATER),
        next_segment: SegmentId::new(SECOND_JOURNAL),
        last_commit_crc: LAST_CRC,
        garbage: Reference::EMPTY,
        segments: vec![SegmentEntry {
            segment: SegmentId::new(SLABS),
            generation: segment.generation(),
            kind: SegmentKind::Slabs,
            free: false,
            segment_bytes: ByteLength::new(1 << 20),
            used_bytes: ByteLength::new(segment.bytes.len() as u64),
            live_bytes: ByteLength::new(segment.bytes.len() as u64),
        }],
        pages,
        index,
    };
    segment.checkpoint(&checkpoint)
}

/// Versions 8 to 13. All were acknowledged as durable; of all but the newest a later block says so.
fn write_journal(first: &mut Segment, second: &mut Segment, content: &Content, adopted: &[Reference; 3]) {
    let orders = |range: Range<usize>| Messages::of(&content.orders[range]);
    let adoption = |log, first_offset, offset_count, slab| SlabAdoption {
        log: LogId::new(log),
        first_offset: Offset::new(first_offset),
        offset_count,
        skip: 0,
        slab,
    };
    let commit = Commit {
        version: 8,
        previous: LAST_CRC,
        ..Commit::default()
    };
    let commit = commit
        .frame(1, 59, &orders(59..61))
        .frame(130, 2, &Messages::of(&content.audit[2..3]))
        .write("commit 8", first);
    let create = Change::CreateLog {
        log: LogId::new(LATER),
        name: "later",
        settings: b"",
    };
    let commit = commit
        .change(create)
        .frame(LATER, 0, &Messages::of(&content.later[..2]))
        .write("commit 9", first);
    let commit = commit
        .adopt(adoption(130, 0, 5, adopted[0]))
        .durable()
        .write("commit 10", first);
    let commit = commit
        .adopt(adoption(2, 1, 2, adopted[1]))
        .write("commit 11", second);
    let commit = commit
        .frame(1, 61, &orders(61..63))
        .frame(LATER, 2, &Messages::of(&content.later[2..3]))
        .write("commit 12", second);
    commit
        .adopt(adoption(LATER, 0, 4, adopted[2]))
        .frame(1, 63, &orders(63..64))
        .write("commit 13", second);
}

fn write_root(checkpoint: Reference) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (number, sequence) in [(0, 12), (1, 13)] {
        let slot = RootSlot {
            format: FormatVersion::CURRENT,
            store: STORE,
            sequence: Sequence::new(sequence),
            version: Version::new(CHECKPOINT_VERSION),
            checkpoint,
            journal_segment: SegmentId::new(JOURNAL),
            journal_position: Position::new(4096),
            next_segment: SegmentId::new(SECOND_JOURNAL),
            time_ms: TIME_MS,
        };
        let mut page = [0; 4096];
        slot.encode(number, &mut page);
        bytes.extend(page);
    }
    bytes
}

/// What a commit says beside what it holds.
fn parameters(version: u64, previous_crc: Crc, adoptions_durable: bool) -> CommitParameters {
    CommitParameters {
        durable_version: Version::new(version - 1),
        time_ms: TIME_MS,
        previous_crc,
        adoptions_durable,
    }
}
