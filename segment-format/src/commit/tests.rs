use super::*;
use crate::block::{BlockKind, Sealed, decode_block_header};
use crate::buffer::{BufferFields, ValueType};
use crate::error::Found;
use crate::ids::{Crc, Version};
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

const CHANGES: [Change<'static>; 3] = [
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
];

fn sample() -> Vec<u8> {
    let bodies = [body(&[b"one", b"two"]), body(&[b"three"])];
    let counts = CommitCounts {
        frames: 2,
        adoptions: 1,
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
    writer.change(&CHANGES[2]).unwrap();
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
    assert_eq!(view.adoptions().collect::<Vec<_>>(), [adoption()]);
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
    let change = adoption + 80;
    assert_eq!(with(change, &[0, 0]), Rule::Zero);
    assert_eq!(with(change + 2, &[1]), Rule::Flags);
    assert_eq!(with(change + 4, &huge), Rule::Truncated);
    assert_eq!(with(change + 16, &[0xFF, 0xFF]), Rule::Limit, "name");
    assert_eq!(with(change + 20, &huge), Rule::Limit, "settings");
    assert_eq!(with(change + 24, &[0xFF]), Rule::Text);
    assert_eq!(with(change + 30, &[1]), Rule::Reserved, "padding");
}

#[test]
fn an_unknown_change_is_named_and_tells_whether_it_may_be_skipped() {
    for (flags, skippable) in [(0, false), (1, true)] {
        let mut block = sample();
        let change = 128 + 96 + 80;
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
