//! Tests of chunks: against a plain list of messages, beside readers, and sealed.
#![allow(
    clippy::cast_possible_truncation,
    reason = "the numbers of these tests are small, or cut on purpose"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lanterman_format::block::{BlockIdentity, Place};
use lanterman_format::buffer::{BufferFields, BufferView, ValueType};
use lanterman_format::error::Found;
use lanterman_format::ids::{Generation, LogId, Position, SegmentId, StoreId, Version};
use lanterman_format::key_sketch::KeySketchBuilder;
use lanterman_format::slab::SlabLayout;
use proptest::prelude::*;

use super::chunk::{Chunk, ChunkBytes, ChunkWriter, Full};
use super::gated::Gated;
use crate::tail::pool::Pool;

const FIRST: u64 = 1000;

fn writer(capacity: u64) -> ChunkWriter {
    Pool::new(64 << 20, 1 << 20).take(capacity, FIRST, 50).unwrap()
}

fn identity(position: u64) -> BlockIdentity {
    BlockIdentity {
        store: StoreId::from_bytes([7; 16]),
        segment: SegmentId::new(3),
        generation: Generation::new(1),
        position: Position::new(position),
        version: Version::new(9),
    }
}

fn layout_of(slab: &[u8], identity: &BlockIdentity) -> SlabLayout {
    let BlockIdentity {
        store,
        segment,
        generation,
        position,
        ..
    } = *identity;
    let place = Place {
        store,
        segment,
        generation,
        position,
    };
    let Found::Valid(layout) = SlabLayout::parse(slab, &place) else {
        panic!("a sealed chunk is a slab");
    };
    layout
}

/// The values of a slab, every checksum compared.
fn values_of_slab(slab: &[u8], identity: &BlockIdentity) -> Vec<Vec<u8>> {
    let layout = layout_of(slab, identity);
    layout.verify_all(slab).unwrap();
    (0..layout.offset_count())
        .map(|offset| {
            let position = layout.position_of(slab, offset).unwrap();
            BufferView::parse(&slab[position as usize..])
                .unwrap()
                .value()
                .to_vec()
        })
        .collect()
}

/// The published values of a chunk.
fn values_of_chunk(chunk: &Chunk) -> Vec<Vec<u8>> {
    (0..u64::from(chunk.published().entries))
        .map(|entry| {
            chunk
                .buffer_at(chunk.position(entry).unwrap())
                .unwrap()
                .value()
                .to_vec()
        })
        .collect()
}

fn stored(values: &[Vec<u8>]) -> Vec<u8> {
    let mut body = Vec::new();
    for value in values {
        let fields = BufferFields::plain(ValueType::BYTES, value);
        let at = body.len();
        body.resize(at + fields.encoded_bytes().unwrap() as usize, 0);
        fields.encode(&mut body[at..]).unwrap();
    }
    body
}

#[test]
fn a_chunk_filled_to_the_last_byte_has_room_for_its_trailer() {
    for (capacity, value_bytes) in [
        (4096, 0),
        (4096, 1),
        (4096, 16),
        (4096, 3000),
        (1 << 16, 9),
        (1 << 20, 100),
        (1 << 20, 4088),
    ] {
        let mut writer = writer(capacity);
        let mut values = Vec::new();
        while writer
            .append_plain(&vec![values.len() as u8; value_bytes], ValueType::BYTES)
            .is_ok()
        {
            values.push(vec![values.len() as u8; value_bytes]);
        }
        let mut last = value_bytes;
        while last > 0 && writer.append_plain(&vec![1; last], ValueType::BYTES).is_err() {
            last -= 1;
        }
        values.extend((last > 0).then(|| vec![1; last]));
        let chunk = writer.close();
        let sealed = chunk.seal(LogId::new(1), 60, &identity(4096)).unwrap();
        assert!(sealed.stored_bytes <= capacity && sealed.stored_bytes.is_multiple_of(4096));
        assert!(sealed.stored_bytes <= chunk.sealed_bytes_max());
        let image = chunk.image(&sealed);
        assert!(
            values_of_slab((*image).as_ref(), &identity(4096)) == values,
            "{value_bytes} in {capacity}"
        );
    }
}

/// Messages with keys, and plain ones behind them, whichever fit.
#[test]
fn a_chunk_with_keys_filled_to_the_last_byte_has_room_for_their_sketch() {
    for (capacity, keyed, value_bytes) in [
        (4096, 1, 0),
        (4096, 1000, 0),
        (1 << 16, 350, 9),
        (1 << 20, 100_000, 8),
    ] {
        let mut writer = writer(capacity);
        let mut keys = KeySketchBuilder::new();
        for number in 0..keyed {
            let key = u32::to_le_bytes(number);
            let fields = BufferFields {
                key: Some(&key),
                ..BufferFields::plain(ValueType::BYTES, &[7; 9][..value_bytes])
            };
            if writer.append_fields(&fields).is_err() {
                break;
            }
            keys.insert(&key);
        }
        while writer.append_plain(&[1; 16], ValueType::BYTES).is_ok() {}
        while writer.append_plain(b"", ValueType::BYTES).is_ok() {}
        let keyed = keys.finish();
        let count = writer.entry_count();
        let mut copy = vec![0; writer.chunk().copy_sealed_bytes_max(0, count).unwrap()];
        let copied = writer
            .chunk()
            .seal_copy(0, count, LogId::new(1), 60, &identity(64), &mut copy)
            .unwrap();
        let chunk = writer.close();
        let sealed = chunk.seal(LogId::new(1), 60, &identity(4096)).unwrap();
        assert!(sealed.stored_bytes <= capacity && sealed.stored_bytes <= chunk.sealed_bytes_max());
        assert_eq!((&sealed.keys, &copied.keys), (&keyed, &keyed));
        let image = chunk.image(&sealed);
        let layout = layout_of((*image).as_ref(), &identity(4096));
        assert_eq!(layout.keys((*image).as_ref()), Ok(keyed));
    }
}

#[test]
fn a_chunk_is_sealed_again_for_another_place_once_its_image_is_gone() {
    let mut writer = writer(4096);
    writer.append_plain(b"one", ValueType::UTF8).unwrap();
    let chunk = writer.close();
    let sealed = chunk.seal(LogId::new(1), 60, &identity(4096)).unwrap();
    let image = chunk.image(&sealed);
    assert!(chunk.seal(LogId::new(1), 60, &identity(8192)).is_err());
    assert_eq!(values_of_slab((*image).as_ref(), &identity(4096)), [b"one"]);
    drop(image);
    let sealed = chunk.seal(LogId::new(1), 60, &identity(8192)).unwrap();
    assert_eq!(
        values_of_slab((*chunk.image(&sealed)).as_ref(), &identity(8192)),
        [b"one"]
    );
}

#[test]
fn a_chunk_that_still_has_its_writer_is_neither_sealed_nor_lent_whole() {
    let mut writer = writer(4096);
    writer.append_plain(b"one", ValueType::UTF8).unwrap();
    let chunk = Arc::clone(writer.chunk());
    assert!(chunk.seal(LogId::new(1), 60, &identity(4096)).is_err());
    let mut copy = vec![0; chunk.copy_sealed_bytes_max(0, 1).unwrap()];
    let sealed = chunk
        .seal_copy(0, 1, LogId::new(1), 60, &identity(64), &mut copy)
        .unwrap();
    assert!((*chunk.image(&sealed)).as_ref().is_empty());
}

#[test]
fn a_copied_slab_holds_the_messages_asked_for_while_the_writer_goes_on() {
    let mut writer = writer(1 << 16);
    for number in 0..100u8 {
        writer
            .append_plain(&vec![number; number.into()], ValueType::BYTES)
            .unwrap();
    }
    let chunk = Arc::clone(writer.chunk());
    for (from, count) in [(0, 100), (0, 1), (99, 1), (17, 44)] {
        let mut copy = vec![0xFF; chunk.copy_sealed_bytes_max(from, count).unwrap()];
        let sealed = chunk
            .seal_copy(from, count, LogId::new(1), 60, &identity(64), &mut copy)
            .unwrap();
        assert!(sealed.stored_bytes <= copy.len() as u64);
        let found = values_of_slab(&copy, &identity(64));
        let expected: Vec<Vec<u8>> = (from..from + count)
            .map(|number| vec![number as u8; number as usize])
            .collect();
        assert!(found == expected, "{count} from {from}");
        writer.append_plain(b"later", ValueType::BYTES).unwrap();
    }
    let mut copy = vec![0; 4096];
    assert!(
        chunk
            .seal_copy(100, 50, LogId::new(1), 60, &identity(64), &mut copy)
            .is_err()
    );
}

#[test]
fn staged_messages_are_unseen_until_they_are_published_and_gone_when_they_are_taken_back() {
    let mut writer = writer(4096);
    writer.append_plain(b"before", ValueType::BYTES).unwrap();
    let chunk = Arc::clone(writer.chunk());
    let both = stored(&[b"a".to_vec(), b"bb".to_vec()]);
    writer.stage_stored(&both, 2).unwrap();
    assert!(writer.has_staged());
    assert_eq!(
        (writer.staged_body(), writer.next_offset()),
        (&both[..], FIRST + 3)
    );
    assert_eq!(values_of_chunk(&chunk), [b"before"]);
    writer.roll_back_staged();
    assert_eq!((writer.has_staged(), writer.next_offset()), (false, FIRST + 1));
    writer.stage_stored(&both[..16], 1).unwrap();
    writer.publish_staged();
    assert_eq!(values_of_chunk(&chunk), [&b"before"[..], b"a"]);
    assert!(chunk.bytes_from(FIRST + 1) == 16 && chunk.bytes_from(FIRST + 2) == 0);
}

#[test]
fn stored_bytes_that_are_no_whole_buffers_are_refused_and_change_nothing() {
    let mut writer = writer(4096);
    let good = stored(&[b"good".to_vec()]);
    let run = BufferFields {
        count: 2,
        ..BufferFields::plain(ValueType::TOMBSTONES, b"")
    };
    let mut counted = vec![0; run.encoded_bytes().unwrap() as usize];
    run.encode(&mut counted).unwrap();
    assert!(writer.append_stored(&good[..8], 1).is_err());
    assert!(writer.append_stored(&good, 2).is_err());
    assert!(writer.append_stored(&[0; 16], 1).is_err());
    assert!(writer.append_stored(&counted, 1).is_err());
    assert_eq!(writer.append_fields(&run), Err(Full));
    assert!(
        writer
            .append_stored(&stored(&vec![vec![1; 100]; 60]), 60)
            .is_err()
    );
    assert_eq!(
        (writer.entry_count(), writer.body_bytes(), writer.has_staged()),
        (0, 0, false)
    );
}

#[test]
fn room_that_was_filled_in_place_becomes_a_message_with_clean_padding() {
    let mut writer = writer(4096);
    assert!(writer.reserved(5000).is_none() && writer.reserved(usize::MAX).is_none());
    writer.reserved(32).unwrap().fill(0xFF);
    writer.reserved(3).unwrap().copy_from_slice(b"abc");
    writer.publish_reserved(3, ValueType::UTF8).unwrap();
    let chunk = writer.chunk();
    assert_eq!(chunk.entries_bytes(0, 1).unwrap(), stored_utf8(b"abc"));
    writer.reserved(0).unwrap();
    writer.publish_reserved(0, ValueType::BYTES).unwrap();
    assert_eq!(values_of_chunk(writer.chunk()), [&b"abc"[..], b""]);
}

fn stored_utf8(value: &[u8]) -> Vec<u8> {
    let mut out = vec![0; 16];
    BufferFields::plain(ValueType::UTF8, value)
        .encode(&mut out)
        .unwrap();
    out
}

#[test]
fn counted_bytes_outlive_writer_and_chunk_and_are_of_their_chunk_alone() {
    let mut writer = writer(4096);
    writer.append_plain(b"kept", ValueType::UTF8).unwrap();
    let chunk = writer.close();
    let value = chunk.buffer_at(256).unwrap().value();
    let kept = ChunkBytes::of(&chunk, value).unwrap();
    assert!(ChunkBytes::of(&chunk, b"elsewhere").is_none());
    drop(chunk);
    let bytes = bytes::Bytes::from_owner(kept);
    assert_eq!(&bytes[..], b"kept");
}

#[test]
fn a_reader_beside_the_writer_finds_every_message_whole_and_in_order() {
    for round in 0..20u64 {
        let mut writer = writer(1 << 20);
        let chunk = Arc::clone(writer.chunk());
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut entry = 0u64;
                loop {
                    let last = done.load(Ordering::Acquire);
                    let published = u64::from(chunk.published().entries);
                    while entry < published {
                        check_message(&chunk, entry, round);
                        entry += 1;
                    }
                    if last {
                        break;
                    }
                }
            });
            for number in 0u64.. {
                if writer
                    .append_plain(&message(number, round), ValueType::BYTES)
                    .is_err()
                {
                    break;
                }
            }
            done.store(true, Ordering::Release);
            reader.join().unwrap();
        });
    }
}

/// A message that says what it must be: number, round, and bytes that follow from both.
fn message(number: u64, round: u64) -> Vec<u8> {
    let mut value = number.to_le_bytes().to_vec();
    value.extend(round.to_le_bytes());
    value.resize(16 + (number * 31 % 300) as usize, (number ^ round) as u8);
    value
}

fn check_message(chunk: &Chunk, entry: u64, round: u64) {
    let found = chunk.buffer_at(chunk.position(entry).unwrap()).unwrap();
    assert!(
        found.value() == message(entry, round),
        "message {entry} of round {round}"
    );
}

#[test]
fn intruders_and_the_owner_append_to_one_chunk_and_nothing_is_lost() {
    let gated = Arc::new(Gated::new(writer(1 << 20)));
    let mut owner = gated.take_owner().unwrap();
    let chunk = Arc::clone(owner.enter().chunk());
    std::thread::scope(|scope| {
        let owner =
            scope.spawn(move || (0..8000u32).for_each(|number| append(&mut owner.enter(), 0, number)));
        let intruders = [1, 2].map(|thread| {
            let gated = Arc::clone(&gated);
            scope.spawn(move || {
                for number in 0..1000u32 {
                    append(&mut gated.intrude(), thread, number);
                }
            })
        });
        owner.join().unwrap();
        intruders
            .into_iter()
            .for_each(|intruder| intruder.join().unwrap());
    });
    let mut next = [0u32; 3];
    for value in values_of_chunk(&chunk) {
        let number = u32::from_le_bytes(value[..4].try_into().unwrap());
        assert_eq!(number, next[usize::from(value[4])]);
        next[usize::from(value[4])] += 1;
    }
    assert_eq!(next, [8000, 1000, 1000]);
}

fn append(writer: &mut ChunkWriter, thread: u8, number: u32) {
    let [a, b, c, d] = number.to_le_bytes();
    writer
        .append_plain(&[a, b, c, d, thread], ValueType::BYTES)
        .unwrap();
}

#[test]
fn an_owner_who_panics_inside_leaves_the_gate_open() {
    let gated = Arc::new(Gated::new(1u32));
    let mut owner = gated.take_owner().unwrap();
    let panicked = std::thread::spawn(move || {
        let mut inside = owner.enter();
        *inside = 2;
        panic!("inside, as the test wants it");
    });
    assert!(panicked.join().is_err());
    assert_eq!(*gated.intrude(), 2);
    assert!(gated.take_owner().is_some());
}

#[test]
fn an_owner_who_comes_while_an_intruder_is_inside_waits_for_him() {
    let gated = Arc::new(Gated::new(0u32));
    let mut inside = gated.intrude();
    let mut owner = gated.take_owner().unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(move || *owner.enter());
        std::thread::park_timeout(std::time::Duration::from_millis(20));
        assert!(!waiting.is_finished());
        *inside = 5;
        drop(inside);
        assert_eq!(waiting.join().unwrap(), 5);
    });
}

#[derive(Clone, Debug)]
enum Step {
    Plain(usize),
    Keyed(usize),
    Reserved(usize),
    AbandonReserved(usize),
    Stored(Vec<usize>),
    StageAndTakeBack(Vec<usize>),
    Grow,
}

fn step() -> impl Strategy<Value = Step> {
    let length = prop_oneof![4 => 0..40usize, 1 => 0..3000usize];
    let lengths = prop::collection::vec(0..100usize, 0..6);
    prop_oneof![
        6 => length.clone().prop_map(Step::Plain),
        2 => length.clone().prop_map(Step::Keyed),
        2 => length.clone().prop_map(Step::Reserved),
        1 => length.prop_map(Step::AbandonReserved),
        2 => lengths.clone().prop_map(Step::Stored),
        1 => lengths.prop_map(Step::StageAndTakeBack),
        1 => Just(Step::Grow),
    ]
}

fn values(lengths: &[usize]) -> Vec<Vec<u8>> {
    lengths.iter().map(|length| vec![0xA5; *length]).collect()
}

/// Does one step; gives the values that it appended, none if there was no room.
fn apply(writer: &mut ChunkWriter, step: &Step) -> Vec<Vec<u8>> {
    match step {
        Step::Plain(length) => {
            let value = vec![1; *length];
            Vec::from_iter(
                writer
                    .append_plain(&value, ValueType::BYTES)
                    .is_ok()
                    .then_some(value),
            )
        }
        Step::Keyed(length) => {
            let value = vec![2; *length];
            let plain = BufferFields::plain(ValueType::JSON, &value);
            let appended = writer
                .append_fields(&BufferFields {
                    key: Some(b"key"),
                    ..plain
                })
                .is_ok();
            Vec::from_iter(appended.then_some(value))
        }
        Step::Reserved(length) => {
            let Some(room) = writer.reserved(*length) else {
                return Vec::new();
            };
            room.fill(3);
            writer.publish_reserved(*length, ValueType::BYTES).unwrap();
            vec![vec![3; *length]]
        }
        Step::AbandonReserved(length) => {
            let _filled = writer.reserved(*length).map(|room| room.fill(4));
            Vec::new()
        }
        Step::Stored(lengths) => {
            let values = values(lengths);
            let appended = writer
                .append_stored(&stored(&values), values.len() as u64)
                .is_ok();
            if appended { values } else { Vec::new() }
        }
        Step::StageAndTakeBack(lengths) => {
            let values = values(lengths);
            let _staged = writer.stage_stored(&stored(&values), values.len() as u64);
            writer.roll_back_staged();
            Vec::new()
        }
        Step::Grow => {
            let mut bigger = self::writer((writer.capacity() * 4).min(1 << 20));
            if bigger.capacity() > writer.capacity() {
                writer.copy_into(&mut bigger).unwrap();
                *writer = bigger;
            }
            Vec::new()
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_chunk_holds_what_a_list_of_messages_holds(steps in prop::collection::vec(step(), 0..80)) {
        let mut writer = writer(4096);
        let mut expected: Vec<Vec<u8>> = Vec::new();
        for step in &steps {
            expected.extend(apply(&mut writer, step));
            prop_assert_eq!(writer.next_offset(), FIRST + expected.len() as u64);
            prop_assert_eq!(writer.chunk().end_offset(), writer.next_offset());
        }
        let chunk = writer.close();
        prop_assert!(values_of_chunk(&chunk) == expected);
        if !expected.is_empty() {
            let sealed = chunk.seal(LogId::new(1), 60, &identity(4096)).unwrap();
            prop_assert!(values_of_slab((*chunk.image(&sealed)).as_ref(), &identity(4096)) == expected);
            prop_assert_eq!(sealed.summary.messages, expected.len() as u64);
        }
    }
}
