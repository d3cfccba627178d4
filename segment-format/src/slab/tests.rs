use super::*;
use crate::block::BlockHeader;
use crate::buffer::{BufferFields, BufferView, ValueType, walk};
use crate::error::{FormatError, Found, Rule};
use crate::ids::{LogId, Offset};
use crate::key_sketch::KeySketchBuilder;
use crate::summary::{Histogram32, Summary};
use crate::testing::{assert_block_is_guarded, bless, identity, place};
use proptest::prelude::*;

/// A body with its positions, first offsets and description.
struct Sample {
    body: Vec<u8>,
    positions: Vec<u32>,
    firsts: Vec<u32>,
    description: SlabDescription,
}

fn sample(messages: &[(Vec<u8>, u64)]) -> Sample {
    let (mut body, mut positions, mut firsts) = (Vec::new(), Vec::new(), Vec::new());
    let (mut summary, mut histogram, mut offsets) = (Summary::EMPTY, Histogram32::default(), 0_u64);
    let mut keys = KeySketchBuilder::new();
    for (value, count) in messages {
        // A key where the value begins with a 7.
        let key = value
            .first()
            .is_some_and(|first| *first == 7)
            .then_some(&value[..]);
        key.into_iter().for_each(|key| keys.insert(key));
        let fields = BufferFields {
            count: *count,
            key,
            ..BufferFields::plain(ValueType::BYTES, value)
        };
        let start = body.len();
        body.resize(start + fields.encoded_bytes().unwrap() as usize, 0);
        fields.encode(&mut body[start..]).unwrap();
        positions.push((start + SLAB_BODY_POSITION) as u32);
        firsts.push(offsets as u32);
        offsets += count;
        summary.add_buffer(&BufferView::parse(&body[start..]).unwrap());
        histogram.add(value.len() as u32);
    }
    let description = SlabDescription {
        log: LogId::new(5),
        first_offset: Offset::new(1000),
        offset_count: offsets,
        summary,
        histogram,
        is_compressed: false,
        keys: keys.finish(),
    };
    Sample {
        body,
        positions,
        firsts,
        description,
    }
}

impl Sample {
    fn has_runs(&self) -> bool {
        self.description.offset_count != self.positions.len() as u64
    }

    fn seal(&self) -> Result<Vec<u8>, FormatError> {
        let mut head = vec![0xEE; SLAB_BODY_POSITION];
        let body_end = (self.body.len() + SLAB_BODY_POSITION) as u32;
        let sketch = self.description.keys.bytes().len() as u32;
        let mut trailer = vec![0xEE; trailer_bytes(body_end, self.positions.len() as u32, sketch) as usize];
        let runs = self.has_runs().then_some(&self.firsts[..]);
        let sealed = seal(
            &mut head,
            &self.body,
            &mut trailer,
            &self.positions,
            runs,
            &self.description,
            &identity(),
        )?;
        let mut slab = [head, self.body.clone(), trailer].concat();
        let padded = (sealed.block_bytes as usize).next_multiple_of(4096);
        assert!(
            slab[sealed.block_bytes as usize..padded]
                .iter()
                .all(|byte| *byte == 0)
        );
        slab.truncate(sealed.block_bytes as usize);
        Ok(slab)
    }
}

fn messages(lengths: &[usize]) -> Vec<(Vec<u8>, u64)> {
    lengths
        .iter()
        .map(|length| (vec![*length as u8; *length], 1))
        .collect()
}

fn open(slab: &[u8]) -> SlabLayout {
    SlabLayout::parse(slab, &place()).into_result(RULES).unwrap()
}

fn assert_every_offset_is_found(slab: &[u8], sample: &Sample) {
    let layout = open(slab);
    layout.verify_all(slab).unwrap();
    assert_eq!(layout.description(slab), sample.description);
    for (entry, (position, first)) in sample.positions.iter().zip(&sample.firsts).enumerate() {
        assert_eq!(layout.entry_position(slab, entry as u32), Some(*position));
        assert_eq!(
            layout.entry_first_offset(slab, entry as u32),
            Some(u64::from(*first))
        );
        let end = sample
            .firsts
            .get(entry + 1)
            .map_or(sample.description.offset_count, |next| u64::from(*next));
        for offset in [u64::from(*first), end - 1] {
            assert_eq!(layout.position_of(slab, offset), Some(*position));
            let place = EntryPlace {
                entry: entry as u32,
                position: *position,
                first_offset: u64::from(*first),
            };
            assert_eq!(layout.entry_of(slab, offset), Some(place));
        }
    }
    let count = sample.positions.len() as u32;
    for offset in [sample.description.offset_count, u64::from(u32::MAX) + 1, u64::MAX] {
        assert_eq!(layout.position_of(slab, offset), None);
        assert_eq!(layout.entry_of(slab, offset), None);
    }
    assert_eq!(
        (
            layout.entry_position(slab, count),
            layout.entry_first_offset(slab, count)
        ),
        (None, None)
    );
}

#[test]
fn messages_of_one_length_need_no_index() {
    for count in [1, 2, 500] {
        let sample = sample(&messages(&vec![20; count]));
        let slab = sample.seal().unwrap();
        assert_eq!(open(&slab).index_kind(), IndexKind::Stride);
        assert_every_offset_is_found(&slab, &sample);
    }
}

#[test]
fn messages_of_many_lengths_have_a_dense_index() {
    let sample = sample(&messages(
        &(0..200).map(|number| number * 7 % 90).collect::<Vec<_>>(),
    ));
    let slab = sample.seal().unwrap();
    assert_eq!(open(&slab).index_kind(), IndexKind::Dense);
    assert_every_offset_is_found(&slab, &sample);
}

#[test]
fn buffers_of_many_offsets_have_an_index_of_runs() {
    let counted: Vec<(Vec<u8>, u64)> = (1..100).map(|number| (vec![1; 5], number % 4 + 1)).collect();
    let sample = sample(&counted);
    let slab = sample.seal().unwrap();
    assert_eq!(open(&slab).index_kind(), IndexKind::Runs);
    assert_every_offset_is_found(&slab, &sample);
}

#[test]
fn offsets_are_found_in_runs_of_the_most_unlike_lengths() {
    // Where a place in proportion leads far away: all at one end, and lengths that double and halve.
    let shapes: [fn(u64) -> u64; 4] = [
        |number| if number == 0 { 1 << 31 } else { 1 },
        |number| if number == 299 { 1 << 31 } else { 1 },
        |number| 1 << (number % 23),
        |number| if number % 50 == 7 { 1 << 20 } else { number % 3 + 1 },
    ];
    for shape in shapes {
        let counted: Vec<(Vec<u8>, u64)> = (0..300).map(|number| (vec![1; 5], shape(number))).collect();
        let sample = sample(&counted);
        let slab = sample.seal().unwrap();
        assert_every_offset_is_found(&slab, &sample);
    }
}

#[test]
fn a_flipped_bit_is_found_by_the_head_or_by_its_group() {
    let counted: Vec<(Vec<u8>, u64)> = vec![(vec![1; 5], 2), (vec![2; 100], 1), (vec![3; 9], 9)];
    for messages in [messages(&[30, 30]), messages(&[1, 100, 0]), counted] {
        let slab = sample(&messages).seal().unwrap();
        assert_block_is_guarded(&slab, |slab, place| {
            SlabLayout::parse(slab, place).and_then(|layout| layout.verify_all(slab))
        });
    }
}

#[test]
fn groups_cover_the_body_without_gap_or_overlap() {
    // Bodies that end before, at and behind the ends of groups.
    for length in [8, 3824, 3832, 3840, 4088 + 3840 - 256, 12_000] {
        let slab = sample(&messages(&[length])).seal().unwrap();
        let layout = open(&slab);
        let mut end = SLAB_BODY_POSITION;
        for group in 0..layout.group_count() {
            let range = layout.group_range(group);
            assert_eq!(range.start, end);
            assert!(!range.is_empty() && range.len() <= GROUP_BYTES);
            assert_eq!(layout.groups_of(range.clone()), group..group + 1);
            end = range.end;
        }
        assert_eq!(end, layout.body_end() as usize);
        assert_eq!(layout.groups_of(0..usize::MAX), 0..layout.group_count());
        assert!(layout.groups_of(usize::MAX..usize::MAX).is_empty());
        assert!(layout.group_range(u32::MAX).is_empty());
        assert_eq!(
            layout.verify_group(&slab, layout.group_count()).unwrap_err().rule,
            Rule::Bounds
        );
        assert_eq!(
            layout.verify_group(&slab[..100], 0).unwrap_err().rule,
            Rule::Truncated
        );
    }
}

#[test]
fn groups_of_the_same_bytes_have_different_checksums() {
    let mut slab = sample(&messages(&[20_000])).seal().unwrap();
    let layout = open(&slab);
    assert_eq!(slab[4096..8192], slab[8192..12288]);
    let table = layout.trailer.crc_table_position as usize;
    slab.copy_within(table + 4..table + 8, table + 8);
    assert_eq!(layout.verify_group(&slab, 1), Ok(()));
    assert_eq!(layout.verify_group(&slab, 2).unwrap_err().rule, Rule::Checksum);
}

#[test]
fn hostile_heads_are_refused_behind_a_fitting_checksum() {
    let whole = sample(&messages(&[1, 100, 0])).seal().unwrap();
    let with = |at: usize, bytes: &[u8]| {
        let mut slab = whole.clone();
        slab[at..at + bytes.len()].copy_from_slice(bytes);
        let body_end = u32::from_le_bytes(slab[96..100].try_into().unwrap()) as usize;
        let trailer_start = body_end.min(slab.len());
        let length = slab.len();
        bless(&mut slab, &[(64, 256), (trailer_start, length)]);
        match SlabLayout::parse(&slab, &place()) {
            Found::Invalid(error) => error.rule,
            other => panic!("accepted: {other:?}"),
        }
    };
    let huge = u32::MAX.to_le_bytes();
    assert_eq!(with(72, &u64::MAX.to_le_bytes()), Rule::Bounds, "first offset");
    assert_eq!(with(80, &4_u64.to_le_bytes()), Rule::Count, "offsets");
    assert_eq!(with(88, &[0, 0, 0, 0]), Rule::Zero, "entries");
    assert_eq!(with(88, &huge), Rule::Count, "entries");
    assert_eq!(with(92, &[0]), Rule::Kind);
    assert_eq!(with(92, &[1]), Rule::Count, "a stride of 0");
    assert_eq!(
        with(92, &[3]),
        Rule::Bounds,
        "an index of runs has another length"
    );
    assert_eq!(with(93, &[13]), Rule::Layout);
    assert_eq!(with(94, &[2]), Rule::Flags);
    assert_eq!(with(95, &[1]), Rule::Flags);
    assert_eq!(with(124, &[1]), Rule::Reserved);
    assert_eq!(with(96, &huge), Rule::Bounds, "body end");
    assert_eq!(with(96, &257_u32.to_le_bytes()), Rule::Alignment, "body end");
    assert_eq!(with(96, &256_u32.to_le_bytes()), Rule::Count, "body end");
    assert_eq!(with(100, &huge), Rule::Bounds, "index position");
    assert_eq!(with(104, &huge), Rule::Bounds, "index bytes");
    assert_eq!(with(108, &[8]), Rule::Reserved, "stride");
    assert_eq!(with(112, &huge), Rule::Bounds, "table position");
    assert_eq!(with(116, &huge), Rule::Bounds, "table count");
    assert_eq!(with(120, &huge), Rule::Bounds, "histogram position");
    assert_eq!(with(124, &[1]), Rule::Reserved);
    assert_eq!(with(176, &[1]), Rule::Reserved, "summary");
    assert_eq!(with(192, &[1]), Rule::Bounds, "a sketch of keys");
    assert_eq!(with(192, &641_u32.to_le_bytes()), Rule::Limit);
    assert_eq!(with(196, &[1]), Rule::Reserved);
}

#[test]
fn keys_are_told_by_a_sketch_that_is_checked_when_it_is_asked_for() {
    let sample = sample(&messages(&[7, 263, 519, 1]));
    let mut slab = sample.seal().unwrap();
    let layout = open(&slab);
    assert_eq!(layout.keys(&slab), Ok(sample.description.keys.clone()));
    assert_eq!(sample.description.keys.bytes().len(), 6);
    // Three entries of two bytes, rounded up to 8.
    let (at, table) = (
        layout.trailer.key_sketch_position,
        layout.trailer.crc_table_position,
    );
    assert_eq!(table - at, 8);
    slab[at as usize..at as usize + 2].fill(0);
    assert_eq!(layout.keys(&slab).unwrap_err().rule, Rule::Zero);
    assert_eq!(layout.keys(&[]).unwrap_err().rule, Rule::Truncated);
}

#[test]
fn a_hostile_index_yields_no_position_outside_of_the_body() {
    let mut slab = sample(&messages(&[1, 100, 0])).seal().unwrap();
    let layout = open(&slab);
    for position in [0, 8, 255, 257, layout.body_end(), u32::MAX] {
        let at = layout.trailer.index_position as usize + 4;
        slab[at..at + 4].copy_from_slice(&position.to_le_bytes());
        assert_eq!(layout.position_of(&slab, 1), None);
    }
    // Bytes that are not the slab at all.
    assert_eq!(layout.position_of(&[], 1), None);
    assert_eq!(layout.histogram(&[]), Histogram32::default());
}

#[test]
fn sealing_refuses_what_does_not_describe_the_body() {
    let whole = || sample(&messages(&[1, 100, 0]));
    let refused = |sample: Sample| sample.seal().unwrap_err().rule;
    assert_eq!(
        refused(Sample {
            positions: vec![],
            ..whole()
        }),
        Rule::Order
    );
    assert_eq!(
        refused(Sample {
            positions: vec![264, 272, 380],
            ..whole()
        }),
        Rule::Order
    );
    assert_eq!(
        refused(Sample {
            positions: vec![256, 256, 272],
            ..whole()
        }),
        Rule::Order
    );
    assert_eq!(
        refused(Sample {
            positions: vec![256, 270, 272],
            ..whole()
        }),
        Rule::Alignment
    );
    assert_eq!(
        refused(Sample {
            positions: vec![256, 272, 40_000],
            ..whole()
        }),
        Rule::Bounds
    );
    let mut overflowing = whole();
    overflowing.description.first_offset = Offset::new(u64::MAX);
    assert_eq!(refused(overflowing), Rule::Bounds);
    let mut wrong_runs = sample(&[(vec![1], 2), (vec![2], 2)]);
    wrong_runs.firsts = vec![1, 2];
    assert_eq!(refused(wrong_runs), Rule::Order);
    let one = whole();
    let seal_with = |head: usize, trailer: usize| {
        seal(
            &mut vec![0; head],
            &one.body,
            &mut vec![0; trailer],
            &one.positions,
            None,
            &one.description,
            &identity(),
        )
    };
    assert_eq!(seal_with(255, 4096).unwrap_err().rule, Rule::NoRoom);
    assert_eq!(seal_with(256, 100).unwrap_err().rule, Rule::NoRoom);
    // Without the padding to 4 KiB a slab can stand in a gathered block.
    let sealed = seal_with(256, 12 + 4 + 128 + 4).unwrap();
    assert_eq!(sealed.block_bytes as usize, 256 + one.body.len() + 148);
}

#[test]
fn a_layout_remembers_the_header_of_its_block() {
    let slab = sample(&messages(&[3])).seal().unwrap();
    let BlockHeader {
        identity: found,
        block_bytes,
        ..
    } = *open(&slab).header();
    assert_eq!((found, block_bytes as usize), (identity(), slab.len()));
}

proptest! {
    #[test]
    fn any_slab_is_read_as_sealed(
        messages in proptest::collection::vec(
            (proptest::collection::vec(any::<u8>(), 0..200), prop_oneof![9 => Just(1_u64), 1 => 1_u64..1000]),
            1..120,
        ),
    ) {
        let sample = sample(&messages);
        let slab = sample.seal().unwrap();
        assert_every_offset_is_found(&slab, &sample);
        let layout = open(&slab);
        let body = &slab[SLAB_BODY_POSITION..layout.body_end() as usize];
        let found: Vec<(Vec<u8>, u64)> =
            walk(body).map(|step| step.map(|(_, view)| (view.value().to_vec(), view.count())).unwrap()).collect();
        prop_assert_eq!(found, messages);
    }
}
