use super::*;
use crate::ids::{Crc, LogId, Offset, Position, SegmentId, Version};
use crate::limits::{GARBAGE_ENTRIES_MAX, GARBAGE_PAGES_MAX, SPACE_ENTRIES_MAX};
use crate::reference::ReferenceKind;
use crate::testing::{assert_block_is_guarded, bless, identity, place};

fn to(target: BlockKind) -> Reference {
    let sealed = Sealed {
        block_bytes: 4100,
        header_crc: Crc::new(3),
    };
    Reference::local(target, &identity(), &sealed)
}

fn root() -> GarbageRoot {
    let page = |kind, number| PageEntry {
        kind,
        number,
        reference: to(BlockKind::Garbage),
    };
    GarbageRoot {
        pages: vec![
            page(PageKind::Dead, 0),
            page(PageKind::Dead, 7),
            page(PageKind::Space, 3),
            page(PageKind::Erase, 0),
        ],
    }
}

fn dead(kind: DeadKind, target: BlockKind) -> DeadEntry {
    DeadEntry {
        kind,
        birth: Version::new(76),
        death: Version::new(90),
        bytes: 8192,
        reference: to(target),
    }
}

fn dead_page() -> DeadPage {
    DeadPage {
        number: 7,
        entries: vec![
            dead(DeadKind::Subtree, BlockKind::Node),
            dead(DeadKind::Block, BlockKind::Slab),
            dead(DeadKind::Block, BlockKind::Garbage),
        ],
    }
}

fn erase_page() -> ErasePage {
    let entry = EraseEntry {
        log: LogId::new(4),
        first: Offset::new(0),
        end: Offset::new(u64::MAX),
        version: Version::new(5),
    };
    ErasePage {
        number: 1,
        entries: vec![entry, entry],
    }
}

fn share(position: u64, extra: u32) -> Share {
    Share {
        position: Position::new(position),
        extra,
    }
}

fn free(position: u64, bytes: u64) -> FreeRange {
    FreeRange {
        position: Position::new(position),
        bytes,
    }
}

fn deaths(position: u64, dead: u32) -> GatheredDeaths {
    GatheredDeaths {
        position: Position::new(position),
        dead,
    }
}

fn space() -> SpacePage {
    SpacePage {
        segment: SegmentId::new(3),
        shares: vec![share(4096, 1), share(4160, u32::MAX), share(20_480, 2)],
        free: vec![free(8192, 4096), free(12_288, 8192), free((1 << 32) - 4096, 4096)],
        gathered: vec![deaths(4096, 9), deaths(24_576, 1)],
    }
}

/// A block of each kind, whole.
fn blocks() -> [Vec<u8>; 4] {
    let mut out = [vec![], vec![], vec![], vec![]];
    let sealed = [
        (root().encode(&identity(), &mut out[0]), root().encoded_bytes()),
        (
            dead_page().encode(&identity(), &mut out[1]),
            dead_page().encoded_bytes(),
        ),
        (space().encode(&identity(), &mut out[2]), space().encoded_bytes()),
        (
            erase_page().encode(&identity(), &mut out[3]),
            erase_page().encoded_bytes(),
        ),
    ];
    for (block, (sealed, encoded_bytes)) in out.iter_mut().zip(sealed) {
        let block_bytes = sealed.unwrap().block_bytes as usize;
        assert_eq!(block_bytes, encoded_bytes);
        assert!(block[block_bytes..].iter().all(|byte| *byte == 0));
        block.truncate(block_bytes);
    }
    out
}

fn pages() -> [GarbagePage; 4] {
    [
        GarbagePage::Root(root()),
        GarbagePage::Dead(dead_page()),
        GarbagePage::Space(space()),
        GarbagePage::Erase(erase_page()),
    ]
}

#[test]
fn what_is_written_is_read() {
    let [one, two, three, four] = blocks();
    assert_eq!(GarbageRoot::decode(&one, &place()), Found::Valid(root()));
    assert_eq!(DeadPage::decode(&two, &place()), Found::Valid(dead_page()));
    assert_eq!(SpacePage::decode(&three, &place()), Found::Valid(space()));
    assert_eq!(ErasePage::decode(&four, &place()), Found::Valid(erase_page()));
    for (block, page) in blocks().iter().zip(pages()) {
        assert_eq!(GarbagePage::decode(block, &place()), Found::Valid(page));
    }
}

#[test]
fn pages_of_nothing_are_read_as_written() {
    let mut out = Vec::new();
    let empty = SpacePage {
        segment: SegmentId::new(1),
        ..SpacePage::default()
    };
    empty.encode(&identity(), &mut out).unwrap();
    assert_eq!(SpacePage::decode(&out, &place()), Found::Valid(empty));
    out.clear();
    GarbageRoot::default().encode(&identity(), &mut out).unwrap();
    assert_eq!(
        GarbageRoot::decode(&out, &place()),
        Found::Valid(GarbageRoot::default())
    );
}

#[test]
fn a_page_decodes_only_whole_and_in_its_own_place() {
    for block in blocks() {
        assert_block_is_guarded(&block, GarbagePage::decode);
    }
}

#[test]
fn a_page_of_one_kind_is_not_read_as_one_of_another() {
    let rule = |found: Option<FormatError>| found.map(|error| error.rule);
    for (number, block) in blocks().iter().enumerate() {
        let found = [
            invalid(GarbageRoot::decode(block, &place())),
            invalid(DeadPage::decode(block, &place())),
            invalid(SpacePage::decode(block, &place())),
            invalid(ErasePage::decode(block, &place())),
        ];
        for (reader, error) in found.into_iter().enumerate() {
            let expected = (reader != number).then_some(Rule::Kind);
            assert_eq!(rule(error), expected, "page {number} by reader {reader}");
        }
    }
}

fn invalid<T>(found: Found<T>) -> Option<FormatError> {
    match found {
        Found::Invalid(error) => Some(error),
        Found::Valid(_) | Found::Empty => None,
    }
}

/// The rule that a block breaks with `patch` laid over it, behind a fitting checksum.
fn with(block: &[u8], at: usize, patch: &[u8]) -> Rule {
    let mut block = block.to_vec();
    block[at..at + patch.len()].copy_from_slice(patch);
    let length = block.len();
    bless(&mut block, &[(64, length)]);
    match GarbagePage::decode(&block, &place()) {
        Found::Invalid(error) => error.rule,
        other => panic!("accepted: {other:?}"),
    }
}

#[test]
fn hostile_headers_are_refused_behind_a_fitting_checksum() {
    let huge = u32::MAX.to_le_bytes();
    for (number, block) in blocks().iter().enumerate() {
        assert_eq!(with(block, 64, &[0]), Rule::Kind);
        assert_eq!(with(block, 64, &[5]), Rule::Kind);
        assert_eq!(with(block, 65, &[1]), Rule::Reserved);
        assert_eq!(with(block, 68, &huge), Rule::Limit, "entries of page {number}");
        assert_eq!(with(block, 68, &[1]), Rule::Count, "entries of page {number}");
        assert_eq!(with(block, 68, &[99]), Rule::Count, "entries of page {number}");
        assert_eq!(with(block, 127, &[1]), Rule::Reserved);
        let is_space = number == 2;
        let others = if is_space { Rule::Count } else { Rule::Reserved };
        for at in [80, 84] {
            assert_eq!(with(block, at, &[9]), others, "other lists of page {number}");
            assert_eq!(
                with(block, at, &huge),
                Rule::Limit,
                "other lists of page {number}"
            );
        }
    }
    let [root, _, space, _] = blocks();
    assert_eq!(with(&root, 72, &[1]), Rule::Reserved, "a root has no number");
    assert_eq!(with(&space, 72, &[0]), Rule::Zero, "no segment has the id 0");
}

#[test]
fn hostile_roots_are_refused_behind_a_fitting_checksum() {
    let [root, ..] = blocks();
    assert_eq!(with(&root, 128, &[0]), Rule::Kind);
    assert_eq!(with(&root, 128, &[1]), Rule::Kind, "a root in a root");
    assert_eq!(with(&root, 129, &[1]), Rule::Reserved);
    assert_eq!(with(&root, 128, &[4]), Rule::Order, "kinds out of order");
    assert_eq!(with(&root, 128 + 8, &[7]), Rule::Order, "one page twice");
    assert_eq!(with(&root, 128 + 16, &[3]), Rule::Kind, "in another storage");
    assert_eq!(with(&root, 128 + 17, &[3]), Rule::Kind, "a node");
}

#[test]
fn hostile_dead_lists_are_refused_behind_a_fitting_checksum() {
    let [_, dead, ..] = blocks();
    assert_eq!(with(&dead, 128, &[0]), Rule::Kind);
    assert_eq!(with(&dead, 128, &[3]), Rule::Kind);
    assert_eq!(with(&dead, 135, &[1]), Rule::Reserved);
    assert_eq!(with(&dead, 128 + 8, &[90]), Rule::Order, "dead when it was born");
    assert_eq!(
        with(&dead, 128 + 16, &[0]),
        Rule::Order,
        "dead before it was born"
    );
    assert_eq!(with(&dead, 128 + 32, &[4]), Rule::Kind, "a lost block");
    assert_eq!(with(&dead, 128 + 33, &[2]), Rule::Kind, "a subtree of a slab");
    assert_eq!(
        with(&dead, 128 + 80 + 33, &[1]),
        Rule::Kind,
        "a block of the journal"
    );
    assert_eq!(with(&dead, 128 + 32 + 16, &[1]), Rule::Alignment);
}

#[test]
fn hostile_accounts_of_space_are_refused_behind_a_fitting_checksum() {
    let [_, _, space, erase] = blocks();
    let number = |number: u64| number.to_le_bytes();
    let (free, gathered) = (128 + 3 * 16, 128 + 6 * 16);
    assert_eq!(with(&space, 128, &number(4128)), Rule::Alignment);
    assert_eq!(
        with(&space, 128, &number(0)),
        Rule::Order,
        "in the segment's header"
    );
    assert_eq!(with(&space, 128, &number(4160)), Rule::Order, "one block twice");
    assert_eq!(with(&space, 128 + 8, &[0]), Rule::Zero);
    assert_eq!(with(&space, 128 + 12, &[1]), Rule::Reserved);
    assert_eq!(
        with(&space, 128 + 32, &number(8192)),
        Rule::Bounds,
        "shared and free"
    );
    assert_eq!(
        with(&space, 128 + 32, &number(12_224)),
        Rule::Bounds,
        "shared and free"
    );
    assert_eq!(
        with(&space, 128 + 32, &number(20_416)),
        Rule::Bounds,
        "shared and free"
    );
    assert_eq!(with(&space, 128 + 32, &number(1 << 32)), Rule::Bounds);
    assert_eq!(with(&space, free, &number(8256)), Rule::Alignment);
    assert_eq!(
        with(&space, free, &number(0)),
        Rule::Order,
        "the segment's header"
    );
    assert_eq!(with(&space, free + 8, &number(0)), Rule::Zero);
    assert_eq!(with(&space, free + 8, &number(64)), Rule::Alignment);
    assert_eq!(with(&space, free + 8, &number(8192)), Rule::Order, "free twice");
    assert_eq!(with(&space, free + 8, &number(1 << 33)), Rule::Bounds);
    assert_eq!(
        with(&space, free + 8, &number(!4095)),
        Rule::Bounds,
        "an end that overflows"
    );
    assert_eq!(with(&space, free + 16, &number(4096)), Rule::Order, "backwards");
    assert_eq!(with(&space, free + 32, &number(1 << 32)), Rule::Bounds);
    assert_eq!(with(&space, gathered, &number(4160)), Rule::Alignment);
    assert_eq!(
        with(&space, gathered, &number(8192)),
        Rule::Bounds,
        "gathered and free"
    );
    assert_eq!(
        with(&space, gathered, &number(24_576)),
        Rule::Order,
        "one block twice"
    );
    assert_eq!(with(&space, gathered + 8, &[0]), Rule::Zero);
    assert_eq!(with(&space, gathered + 8, &[0xFF; 4]), Rule::Limit);
    assert_eq!(with(&space, gathered + 12, &[1]), Rule::Reserved);
    assert_eq!(with(&erase, 128 + 16, &[0; 8]), Rule::Order, "nothing to erase");
    assert_eq!(with(&erase, 128 + 8, &[0xFF; 8]), Rule::Order, "nothing to erase");
}

#[test]
fn a_free_range_may_end_where_the_next_one_begins_and_where_a_block_does() {
    let page = SpacePage {
        shares: vec![share(4096, 1), share(16_384, 1)],
        free: vec![free(8192, 4096), free(12_288, 4096)],
        ..space()
    };
    let mut out = Vec::new();
    page.encode(&identity(), &mut out).unwrap();
    assert_eq!(SpacePage::decode(&out, &place()), Found::Valid(page));
}

#[test]
fn what_breaks_a_rule_is_not_written() {
    let mut out = vec![1];
    let mut pages = root();
    pages.pages.swap(0, 1);
    assert_eq!(pages.encode(&identity(), &mut out).unwrap_err().rule, Rule::Order);
    pages = root();
    pages.pages[0].reference = Reference::EMPTY;
    assert_eq!(pages.encode(&identity(), &mut out).unwrap_err().rule, Rule::Kind);
    let many = |number| PageEntry {
        number,
        ..root().pages[0]
    };
    pages.pages = (0..=u64::from(GARBAGE_PAGES_MAX)).map(many).collect();
    assert_eq!(pages.encode(&identity(), &mut out).unwrap_err().rule, Rule::Limit);
    let mut remote = dead_page();
    remote.entries[1].reference.kind = ReferenceKind::Remote;
    assert_eq!(remote.encode(&identity(), &mut out).unwrap_err().rule, Rule::Kind);
    let many = DeadPage {
        entries: vec![dead(DeadKind::Block, BlockKind::Slab); GARBAGE_ENTRIES_MAX as usize + 1],
        ..dead_page()
    };
    assert_eq!(many.encode(&identity(), &mut out).unwrap_err().rule, Rule::Limit);
    let many = ErasePage {
        entries: vec![erase_page().entries[0]; GARBAGE_ENTRIES_MAX as usize + 1],
        ..erase_page()
    };
    assert_eq!(many.encode(&identity(), &mut out).unwrap_err().rule, Rule::Limit);
    let covered = SpacePage {
        free: vec![free(4096, 4096)],
        ..space()
    };
    assert_eq!(
        covered.encode(&identity(), &mut out).unwrap_err().rule,
        Rule::Bounds
    );
    let twice = SpacePage {
        free: vec![free(8192, 8192), free(12_288, 4096)],
        ..space()
    };
    assert_eq!(twice.encode(&identity(), &mut out).unwrap_err().rule, Rule::Order);
    assert_eq!(out, [1], "what is not written leaves nothing behind");
}

#[test]
fn full_pages_are_written_and_the_fullest_accounts_of_a_segment_fit_into_a_block() {
    let mut out = Vec::new();
    let many = |number| PageEntry {
        number,
        ..root().pages[0]
    };
    let full = GarbageRoot {
        pages: (0..u64::from(GARBAGE_PAGES_MAX)).map(many).collect(),
    };
    full.encode(&identity(), &mut out).unwrap();
    assert_eq!(GarbageRoot::decode(&out, &place()), Found::Valid(full));
    out.clear();
    let full = DeadPage {
        entries: vec![dead(DeadKind::Block, BlockKind::Slab); GARBAGE_ENTRIES_MAX as usize],
        ..dead_page()
    };
    full.encode(&identity(), &mut out).unwrap();
    assert_eq!(DeadPage::decode(&out, &place()), Found::Valid(full));
    let fullest = list_bytes(SPACE_ENTRIES_MAX as usize, 16);
    assert!(fullest <= crate::limits::BLOCK_BYTES_MAX as usize);
}
