use super::*;
use crate::block::{BlockKind, Sealed, decode_block_header};
use crate::buffer::{BufferFields, ValueType};
use crate::error::Found;
use crate::ids::{Crc, Version};
use crate::limits::LOG_ID_MAX;
use crate::testing::{assert_block_is_guarded, bless, identity, place};
use proptest::prelude::*;

const PARAMETERS: CommitParameters = CommitParameters {
    durable_version: Version::new(75),
    time_ms: -5,
    previous_crc: Crc::new(0xABCD),
    adoptions_durable: false,
};

fn body(values: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    for value in values {
        let fields = BufferFields::plain(ValueType::BYTES, value);
        let start = out.len();
        out.resize(start + fields.encoded_bytes().unwrap() as usize, 0);
        fields.encode(&mut out[start..]).unwrap();
    }
    out
}

fn frame_of(log: u64, entries: u32) -> FrameDescription {
    FrameDescription {
        log: LogId::new(log),
        first_offset: Offset::new(10),
        offset_count: u64::from(entries),
        entry_count: entries,
    }
}

fn adoption() -> SlabAdoption {
    let sealed = Sealed {
        block_bytes: 5000,
        header_crc: Crc::new(9),
    };
    SlabAdoption {
        log: LogId::new(2),
        first_offset: Offset::new(1),
        offset_count: 4,
        skip: 3,
        slab: Reference::local(BlockKind::Slab, &identity(), &sealed),
    }
}

const CHANGES: [Change<'static>; 9] = [
    Change::CreateLog {
        log: LogId::new(7),
        name: "a/b",
        settings: b"abc",
    },
    Change::DropLog { log: LogId::new(8) },
    Change::SetSettings {
        log: LogId::new(9),
        settings: b"",
    },
    Change::DeleteRange {
        log: LogId::new(1),
        first: Offset::new(3),
        end: Offset::new(4),
    },
    Change::Retain {
        log: LogId::new(1),
        start: Offset::new(2),
    },
    Change::Fork {
        log: LogId::new(10),
        origin: LogId::new(9),
        end: Offset::new(12),
        snapshot: true,
        name: "a/b",
        settings: b"label",
    },
    Change::Fork {
        log: LogId::new(11),
        origin: LogId::new(1),
        end: Offset::new(0),
        snapshot: false,
        name: "f",
        settings: b"",
    },
    Change::Splice {
        log: LogId::new(11),
        first: Offset::new(0),
        source: LogId::new(11),
        source_first: Offset::new(u64::MAX - 1),
        source_end: Offset::new(u64::MAX),
    },
    Change::Replace {
        log: LogId::new(1),
        first: Offset::new(3),
        end: Offset::new(9),
        slab: Reference::EMPTY,
    },
];

fn deleted_run() -> SlabAdoption {
    SlabAdoption {
        first_offset: Offset::new(5),
        offset_count: 1 << 40,
        skip: 0,
        slab: Reference::EMPTY,
        ..adoption()
    }
}

fn sample() -> Vec<u8> {
    let bodies = [body(&[b"one", b"two"]), body(&[b"three"])];
    let counts = CommitCounts {
        frames: 2,
        adoptions: 2,
        change_bytes: CHANGES.iter().map(Change::encoded_bytes).sum(),
        body_bytes: bodies.iter().map(|body| body.len() as u64).sum(),
    };
    let mut out = vec![0xEE; 4096];
    let mut writer = CommitWriter::new(&mut out, counts, &identity()).unwrap();
    writer.change(&CHANGES[0]).unwrap();
    writer.frame(&frame_of(1, 2), &bodies[0]).unwrap();
    writer.adoption(&adoption()).unwrap();
    writer.change(&CHANGES[1]).unwrap();
    writer.frame(&frame_of(4, 1), &bodies[1]).unwrap();
    writer.adoption(&deleted_run()).unwrap();
    for change in &CHANGES[2..] {
        writer.change(change).unwrap();
    }
    let finished = writer.finish(&PARAMETERS).unwrap();
    assert!(out[finished.block_bytes as usize..].iter().all(|byte| *byte == 0));
    out.truncate(finished.block_bytes as usize);
    out
}

fn decode(block: &[u8]) -> Found<CommitView<'_>> {
    decode_block_header(block, &place()).and_then(|header| CommitView::parse(block, &header))
}

fn refused(block: &[u8]) -> FormatError {
    match decode(block) {
        Found::Invalid(error) => error,
        other => panic!("accepted: {other:?}"),
    }
}

#[test]
fn what_is_written_is_read() {
    let block = sample();
    let view = decode(&block).valid().unwrap();
    assert_eq!(
        (
            view.version(),
            view.durable_version(),
            view.time_ms(),
            view.previous_crc()
        ),
        (Version::new(77), Version::new(75), -5, Crc::new(0xABCD))
    );
    let frames: Vec<_> = view
        .frames()
        .map(|frame| (frame.description, frame.body.unwrap()))
        .collect();
    let bodies = [body(&[b"one", b"two"]), body(&[b"three"])];
    assert_eq!(
        frames,
        [(frame_of(1, 2), &bodies[0][..]), (frame_of(4, 1), &bodies[1][..])]
    );
    assert_eq!(view.adoptions().collect::<Vec<_>>(), [adoption(), deleted_run()]);
    assert_eq!(view.changes().collect::<Result<Vec<_>, _>>().unwrap(), CHANGES);
    assert_eq!(view.counts().block_bytes().unwrap() as usize, block.len());
}

#[test]
fn a_flipped_bit_is_found_in_the_directory_or_in_its_own_frame() {
    assert_block_is_guarded(&sample(), |block, place| {
        decode_block_header(block, place).and_then(|header| {
            let view = CommitView::parse(block, &header)?;
            view.frames().try_for_each(|frame| frame.body.map(|_| ()))?;
            Ok(view.version())
        })
    });
}

#[test]
fn a_damaged_body_leaves_the_rest_of_the_version_readable() {
    let mut block = sample();
    let second = decode(&block)
        .valid()
        .unwrap()
        .frames()
        .nth(1)
        .unwrap()
        .body_position;
    block[second as usize + 9] ^= 4;
    let view = decode(&block).valid().unwrap();
    let bodies: Vec<_> = view
        .frames()
        .map(|frame| frame.body.map_err(|error| error.at))
        .collect();
    assert!(bodies[0].is_ok());
    assert_eq!(bodies[1], Err(u64::from(second)));
}

#[test]
fn bodies_of_the_same_bytes_cannot_be_exchanged() {
    let same = body(&[b"same"]);
    let counts = CommitCounts {
        frames: 2,
        body_bytes: 32,
        ..CommitCounts::default()
    };
    let mut out = vec![0; 4096];
    let mut writer = CommitWriter::new(&mut out, counts, &identity()).unwrap();
    writer.frame(&frame_of(1, 1), &same).unwrap();
    writer.frame(&frame_of(2, 1), &same).unwrap();
    writer.finish(&PARAMETERS).unwrap();
    assert_ne!(out[128 + 36..128 + 40], out[176 + 36..176 + 40]);
}

#[test]
fn hostile_directories_are_refused_behind_a_fitting_checksum() {
    let directory = decode(&sample())
        .valid()
        .unwrap()
        .frames()
        .next()
        .unwrap()
        .body_position as usize;
    let with = |at: usize, bytes: &[u8]| {
        let mut block = sample();
        block[at..at + bytes.len()].copy_from_slice(bytes);
        bless(&mut block, &[(64, directory)]);
        refused(&block).rule
    };
    let huge = u32::MAX.to_le_bytes();
    assert_eq!(with(84, &huge), Rule::Count, "frames");
    assert_eq!(with(88, &huge), Rule::Count, "adoptions");
    assert_eq!(with(92, &huge), Rule::Count, "changes");
    assert_eq!(with(96, &huge), Rule::Truncated, "directory");
    assert_eq!(with(100, &[2]), Rule::Flags);
    assert_eq!(with(104, &[1]), Rule::Reserved);
    assert_eq!(
        with(64, &77_u64.to_le_bytes()),
        Rule::Order,
        "durable before it was written"
    );
    assert_eq!(
        with(128 + 8, &u64::MAX.to_le_bytes()),
        Rule::Bounds,
        "offsets overflow"
    );
    assert_eq!(
        with(128 + 16, &1_u64.to_le_bytes()),
        Rule::Count,
        "fewer offsets than entries"
    );
    assert_eq!(with(128 + 24, &huge), Rule::Count, "more entries than bytes");
    assert_eq!(with(128 + 24, &[0, 0, 0, 0]), Rule::Zero);
    assert_eq!(with(128 + 28, &huge), Rule::Alignment);
    assert_eq!(
        with(128 + 28, &0xFFFF_FFF8_u32.to_le_bytes()),
        Rule::Order,
        "the next body overlaps"
    );
    assert_eq!(with(128 + 32, &[0, 0, 0, 0]), Rule::Order);
    assert_eq!(with(128 + 40, &[1]), Rule::Flags);
    assert_eq!(with(128 + 44, &[1]), Rule::Reserved);
    let adoption = 128 + 96;
    assert_eq!(with(adoption + 24, &u64::MAX.to_le_bytes()), Rule::Bounds);
    assert_eq!(with(adoption + 32, &[9]), Rule::Kind, "kind of reference");
    assert_eq!(with(adoption + 33, &[3]), Rule::Kind, "no slab");
    let deleted = adoption + 80;
    assert_eq!(with(deleted + 16, &[0; 8]), Rule::Zero, "a run of nothing");
    assert_eq!(with(deleted + 24, &[1]), Rule::Reserved, "front of a run");
    assert_eq!(with(deleted + 33, &[2]), Rule::Reserved, "kind of no block");
    let change = deleted + 80;
    assert_eq!(with(change, &[0, 0]), Rule::Zero);
    assert_eq!(with(change + 2, &[1]), Rule::Flags);
    assert_eq!(with(change + 4, &huge), Rule::Truncated);
    assert_eq!(with(change + 16, &[0xFF, 0xFF]), Rule::Limit, "name");
    assert_eq!(with(change + 20, &huge), Rule::Limit, "settings");
    assert_eq!(with(change + 24, &[0xFF]), Rule::Text);
    assert_eq!(with(change + 30, &[1]), Rule::Reserved, "padding");
}

/// What a change is read as behind a fitting checksum, with `patch` laid over its encoded form.
fn patched(change: &Change<'_>, at: usize, patch: &[u8]) -> Result<(), Rule> {
    let counts = CommitCounts {
        change_bytes: change.encoded_bytes(),
        ..CommitCounts::default()
    };
    let mut out = vec![0; 4096];
    let mut writer = CommitWriter::new(&mut out, counts, &identity()).unwrap();
    writer.change(change).unwrap();
    let finished = writer.finish(&PARAMETERS).unwrap();
    out.truncate(finished.block_bytes as usize);
    out[128 + at..128 + at + patch.len()].copy_from_slice(patch);
    bless(&mut out, &[(64, finished.block_bytes as usize)]);
    match decode(&out) {
        Found::Valid(_) => Ok(()),
        Found::Invalid(error) => Err(error.rule),
        Found::Empty => panic!("a block was taken for nothing"),
    }
}

#[test]
fn edits_with_hostile_numbers_are_refused() {
    let [create, drop, _, delete, retain, snapshot, fork, splice, _] = &CHANGES;
    let (low, high) = ([0; 8], [0xFF; 8]);
    for change in [create, fork] {
        assert_eq!(patched(change, 8, &high), Err(Rule::Bounds), "the last id");
        assert_eq!(patched(change, 8, &LOG_ID_MAX.to_le_bytes()), Ok(()));
    }
    for change in [drop, delete, retain, splice] {
        assert_eq!(patched(change, 2, &[1]), Err(Rule::Flags), "{change:?}");
        let bytes = change.encoded_bytes() - 16;
        assert_eq!(
            patched(change, 4, &bytes.to_le_bytes()),
            Err(Rule::Count),
            "{change:?}"
        );
    }
    assert_eq!(
        patched(delete, 24, &3_u64.to_le_bytes()),
        Err(Rule::Order),
        "empty"
    );
    assert_eq!(patched(delete, 24, &low), Err(Rule::Order), "backwards");
    assert_eq!(
        patched(delete, 16, &high),
        Err(Rule::Order),
        "from the last offset"
    );
    assert_eq!(patched(delete, 24, &high), Ok(()), "up to the last offset");
    assert_eq!(patched(fork, 2, &[1]), Err(Rule::Flags));
    assert_eq!(
        patched(fork, 8, &1_u64.to_le_bytes()),
        Err(Rule::Order),
        "of itself"
    );
    assert_eq!(patched(fork, 16, &high), Err(Rule::Order), "of a later log");
    assert_eq!(patched(fork, 32, &[0, 0]), Err(Rule::Limit), "no name");
    assert_eq!(patched(fork, 32, &[0, 1]), Err(Rule::Limit), "long name");
    assert_eq!(
        patched(fork, 32, &[2]),
        Err(Rule::Truncated),
        "name behind the payload"
    );
    assert_eq!(
        patched(snapshot, 32, &[2]),
        Err(Rule::Count),
        "a byte is nobody's"
    );
    assert_eq!(
        patched(fork, 34, &[2]),
        Err(Rule::Flags),
        "unknown flag of a fork"
    );
    assert_eq!(patched(fork, 34, &[1]), Ok(()));
    assert_eq!(patched(fork, 36, &[0, 0, 1, 0]), Err(Rule::Truncated), "settings");
    assert_eq!(patched(fork, 36, &[1, 0, 1, 0]), Err(Rule::Limit), "settings");
    assert_eq!(patched(fork, 40, &[0xFF]), Err(Rule::Text));
    assert_eq!(
        patched(splice, 40, &(u64::MAX - 1).to_le_bytes()),
        Err(Rule::Order),
        "empty"
    );
    assert_eq!(patched(splice, 40, &low), Err(Rule::Order), "backwards");
    assert_eq!(
        patched(splice, 16, &high),
        Err(Rule::Bounds),
        "an end that overflows"
    );
    assert_eq!(patched(splice, 16, &(u64::MAX - 1).to_le_bytes()), Ok(()));
}

/// A fork as log 5.
const fn fork<'a>(origin: u64, name: &'a str, settings: &'a [u8]) -> Change<'a> {
    Change::Fork {
        log: LogId::new(5),
        origin: LogId::new(origin),
        end: Offset::new(3),
        snapshot: false,
        name,
        settings,
    }
}

#[test]
fn edits_that_cannot_be_read_are_not_written() {
    let refused = |change: Change<'_>| {
        let counts = CommitCounts {
            change_bytes: change.encoded_bytes(),
            ..CommitCounts::default()
        };
        let mut out = vec![0; 1 << 17];
        let mut writer = CommitWriter::new(&mut out, counts, &identity()).unwrap();
        writer.change(&change).unwrap_err().rule
    };
    let log = LogId::new(5);
    let empty = Change::DeleteRange {
        log,
        first: Offset::new(3),
        end: Offset::new(3),
    };
    assert_eq!(refused(empty), Rule::Order);
    assert_eq!(refused(fork(5, "a", b"")), Rule::Order);
    assert_eq!(refused(fork(4, "", b"")), Rule::Limit);
    let long = "x".repeat(256);
    assert_eq!(refused(fork(4, &long, b"")), Rule::Limit);
    assert_eq!(refused(fork(4, "a", &[0; 65_537])), Rule::Limit);
    let splice = |first, source_first, source_end| Change::Splice {
        log,
        first: Offset::new(first),
        source: log,
        source_first: Offset::new(source_first),
        source_end: Offset::new(source_end),
    };
    assert_eq!(refused(splice(0, 7, 7)), Rule::Order);
    assert_eq!(refused(splice(u64::MAX - 9, 0, 10)), Rule::Bounds);
    let nothing = Change::Replace {
        log,
        first: Offset::new(3),
        end: Offset::new(3),
        slab: Reference::EMPTY,
    };
    assert_eq!(refused(nothing), Rule::Order);
}

#[test]
fn reserved_numbers_of_changes_stay_unknown() {
    for kind in [7_u8, 8, 11] {
        assert_eq!(patched(&CHANGES[1], 0, &[kind]), Ok(()), "kind {kind}");
        let mut block = sample();
        let change = 128 + 96 + 160;
        block[change] = kind;
        let end = change + decode(&sample()).valid().unwrap().counts().change_bytes as usize;
        bless(&mut block, &[(64, end)]);
        let first = decode(&block).valid().unwrap().changes().next().unwrap();
        let unknown = Change::Unknown {
            kind: kind.into(),
            skippable: false,
        };
        assert_eq!(first, Ok(unknown));
    }
}

#[test]
fn an_unknown_change_is_named_and_tells_whether_it_may_be_skipped() {
    for (flags, skippable) in [(0, false), (1, true)] {
        let mut block = sample();
        let change = 128 + 96 + 160;
        block[change..change + 4].copy_from_slice(&[99, 0, flags, 0]);
        bless(
            &mut block,
            &[(
                64,
                change + decode(&sample()).valid().unwrap().counts().change_bytes as usize,
            )],
        );
        let first = decode(&block).valid().unwrap().changes().next().unwrap();
        assert_eq!(first, Ok(Change::Unknown { kind: 99, skippable }));
    }
}

#[test]
fn the_writer_refuses_more_and_less_than_was_counted() {
    let one = body(&[b"one"]);
    let counts = CommitCounts {
        frames: 1,
        body_bytes: 16,
        ..CommitCounts::default()
    };
    let mut out = vec![0; 4096];
    let unused = CommitWriter::new(&mut out, counts, &identity()).unwrap();
    assert_eq!(unused.finish(&PARAMETERS).unwrap_err().rule, Rule::Count);
    let mut writer = CommitWriter::new(&mut out, counts, &identity()).unwrap();
    assert_eq!(
        writer.frame(&frame_of(1, 1), &[0; 24]).unwrap_err().rule,
        Rule::NoRoom
    );
    assert_eq!(
        writer.frame(&frame_of(1, 1), &one[..12]).unwrap_err().rule,
        Rule::Alignment
    );
    assert_eq!(writer.frame(&frame_of(1, 0), &one).unwrap_err().rule, Rule::Zero);
    assert_eq!(writer.adoption(&adoption()).unwrap_err().rule, Rule::NoRoom);
    assert_eq!(writer.change(&CHANGES[0]).unwrap_err().rule, Rule::NoRoom);
    writer.frame(&frame_of(1, 1), &one).unwrap();
    assert_eq!(
        writer.frame(&frame_of(2, 1), &one).unwrap_err().rule,
        Rule::NoRoom
    );
    writer.finish(&PARAMETERS).unwrap();
    let short = CommitWriter::new(&mut out[..100], counts, &identity()).unwrap_err();
    assert_eq!(short.rule, Rule::NoRoom);
    let huge = CommitCounts {
        body_bytes: !7,
        ..counts
    };
    assert_eq!(huge.block_bytes().unwrap_err().rule, Rule::Limit);
    assert_eq!(
        CommitCounts {
            change_bytes: 4,
            ..counts
        }
        .block_bytes()
        .unwrap_err()
        .rule,
        Rule::Alignment
    );
}

#[test]
fn a_block_continues_only_the_journal_for_which_it_was_written() {
    let block = sample();
    let view = decode(&block).valid().unwrap();
    assert!(view.continues(PARAMETERS.previous_crc));
    assert!(!view.continues(Crc::new(1)) && !view.continues(Crc::ZERO));
}

#[test]
fn a_version_may_be_empty() {
    let mut out = vec![0; 4096];
    let writer = CommitWriter::new(&mut out, CommitCounts::default(), &identity()).unwrap();
    let finished = writer.finish(&PARAMETERS).unwrap();
    assert_eq!(finished.block_bytes, 128);
    let view = decode(&out).valid().unwrap();
    assert_eq!(
        (
            view.frames().count(),
            view.adoptions().count(),
            view.changes().count()
        ),
        (0, 0, 0)
    );
}

proptest! {
    #[test]
    fn any_commit_is_read_as_written(
        values in proptest::collection::vec(
            proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..60), 1..6),
            0..6,
        ),
        names in proptest::collection::vec("[a-zäöü /.]{1,20}", 0..4),
        damage in any::<proptest::sample::Index>(),
    ) {
        let bodies: Vec<Vec<u8>> = values
            .iter()
            .map(|values| body(&values.iter().map(|value| &value[..]).collect::<Vec<_>>()))
            .collect();
        let changes: Vec<Change<'_>> = names
            .iter()
            .map(|name| Change::CreateLog { log: LogId::new(1), name, settings: name.as_bytes() })
            .collect();
        let counts = CommitCounts {
            frames: bodies.len() as u32,
            adoptions: 0,
            change_bytes: changes.iter().map(Change::encoded_bytes).sum(),
            body_bytes: bodies.iter().map(|body| body.len() as u64).sum(),
        };
        let mut out = vec![0; counts.block_bytes().unwrap() as usize];
        let mut writer = CommitWriter::new(&mut out, counts, &identity()).unwrap();
        for (number, body) in bodies.iter().enumerate() {
            writer.frame(&frame_of(number as u64, values[number].len() as u32), body).unwrap();
        }
        for change in &changes {
            writer.change(change).unwrap();
        }
        writer.finish(&PARAMETERS).unwrap();
        let view = decode(&out).valid().unwrap();
        let found: Vec<&[u8]> = view.frames().map(|frame| frame.body.unwrap()).collect();
        prop_assert_eq!(found, bodies.iter().map(|body| &body[..]).collect::<Vec<_>>());
        prop_assert_eq!(view.changes().collect::<Result<Vec<_>, _>>().unwrap(), changes);
        let at = damage.index(out.len());
        out[at] ^= 0x10;
        let noticed = match decode(&out) {
            Found::Valid(view) => view.frames().any(|frame| frame.body.is_err()),
            Found::Invalid(_) => true,
            Found::Empty => false,
        };
        prop_assert!(noticed, "byte {} damaged unnoticed", at);
    }
}
