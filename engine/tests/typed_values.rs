//! Promise: Rust values go into messages as JSON, CBOR and MessagePack and come out the same; what is none of these is
//! refused with the reason; plain structs are read where they stand.
#![allow(clippy::panic, clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use common::{PATH, memory, small};
use lanterman::{
    CheckedCbor, CheckedJson, CheckedMessagePack, Error, KeptMessage, NewMessage, Store, ValueFormat,
    ValueType,
};
use serde::{Deserialize, Serialize};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Order {
    number: u64,
    items: Vec<(String, f64)>,
    note: Option<String>,
}

fn order() -> Order {
    Order {
        number: u64::MAX,
        items: vec![("lamp".to_owned(), 12.5), ("wick".to_owned(), -0.25)],
        note: None,
    }
}

fn store() -> Store {
    small()
        .value_format(CheckedJson)
        .value_format(CheckedCbor)
        .value_format(CheckedMessagePack)
        .disk(memory())
        .open_copying(PATH)
        .unwrap()
}

fn kept(store: &Store) -> Vec<KeptMessage> {
    let snapshot = store.snapshot("orders").unwrap();
    snapshot.range(..).unwrap().map(Result::unwrap).collect()
}

#[test]
fn rust_values_come_out_as_they_went_in() {
    let store = store();
    let mut writer = store.writer("orders").unwrap();
    let mut buffer = Vec::new();
    let json = NewMessage::json(&order(), &mut buffer).unwrap();
    writer.append_message(&json).unwrap();
    let cbor = NewMessage::cbor(&order(), &mut buffer).unwrap();
    writer.append_message(&cbor).unwrap();
    let packed = NewMessage::message_pack(&order(), &mut buffer).unwrap();
    writer.append_message(&packed).unwrap();
    let messages = kept(&store);
    assert_eq!(messages.first().unwrap().json::<Order>().unwrap(), order());
    assert_eq!(messages.get(1).unwrap().cbor::<Order>().unwrap(), order());
    assert_eq!(messages.get(2).unwrap().message_pack::<Order>().unwrap(), order());
    let mut cursor = store.log("orders").unwrap().cursor(1u64).unwrap();
    assert_eq!(cursor.next().unwrap().unwrap().cbor::<Order>().unwrap(), order());
    assert_eq!(
        cursor.next().unwrap().unwrap().message_pack::<Order>().unwrap(),
        order()
    );
    // Of another type, and of another form.
    for message in &messages {
        let right = [
            message.json::<Order>().is_ok(),
            message.cbor::<Order>().is_ok(),
            message.message_pack::<Order>().is_ok(),
        ];
        assert_eq!(
            right.iter().filter(|is_right| **is_right).count(),
            1,
            "{message:?}"
        );
        let error = message.cbor::<Vec<u8>>().unwrap_err();
        assert!(matches!(error, Error::InvalidValue { .. }), "{error}");
        let shown = store.display_value(message.value_type(), message.value());
        assert_eq!(serde_json::from_str::<Order>(&shown).unwrap(), order());
    }
}

#[test]
fn what_is_no_value_of_its_type_is_refused_whatever_it_is() {
    let store = store();
    let mut writer = store.writer("orders").unwrap();
    let mut refuse = |value_type: ValueType, value: &[u8]| {
        let refused = writer.append_message(&NewMessage::new(value).value_type(value_type));
        match refused {
            Err(Error::InvalidValue { reason, .. }) => reason,
            other => panic!("{value_type}, {} bytes: {other:?}", value.len()),
        }
    };
    let mut buffer = Vec::new();
    let cbor = NewMessage::cbor(&order(), &mut buffer).unwrap().value().to_vec();
    let packed = NewMessage::message_pack(&order(), &mut buffer)
        .unwrap()
        .value()
        .to_vec();
    for (value_type, whole) in [(ValueType::CBOR, &cbor), (ValueType::MESSAGE_PACK, &packed)] {
        for length in 0..whole.len() {
            refuse(value_type, whole.get(..length).unwrap());
        }
        let more = [whole.as_slice(), &[0]].concat();
        assert!(refuse(value_type, &more).contains(&format!("of {}", more.len())));
    }
    // Nested deeper than a stack is, and longer than any memory.
    refuse(ValueType::CBOR, &vec![0x81; 1 << 20]);
    refuse(ValueType::MESSAGE_PACK, &vec![0x91; 1 << 20]);
    refuse(
        ValueType::CBOR,
        &[0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    );
    refuse(
        ValueType::CBOR,
        &[0x5b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    );
    refuse(ValueType::MESSAGE_PACK, &[0xdd, 0xff, 0xff, 0xff, 0xff]);
    refuse(ValueType::MESSAGE_PACK, &[0xc6, 0xff, 0xff, 0xff, 0xff]);
}

/// A format that says what its values are about.
#[derive(Debug)]
struct Picture;

impl ValueFormat for Picture {
    fn value_type(&self) -> ValueType {
        ValueType::new(70_002)
    }

    fn name(&self) -> &str {
        "picture"
    }

    fn summarise(&self, value: &[u8]) -> Option<String> {
        assert_ne!(value.len(), 11, "a mistake of the format");
        Some(format!("a picture\nof {} bytes", value.len()))
    }
}

#[test]
fn a_summary_is_one_short_line() {
    let store = small()
        .value_format(Picture)
        .value_format(CheckedJson)
        .disk(memory())
        .open_copying(PATH)
        .unwrap();
    let picture = ValueType::new(70_002);
    assert_eq!(store.summarise_value(picture, &[0; 7]), "a picture of 7 bytes");
    assert_eq!(store.summarise_value(picture, &[0; 11]), "00".repeat(11));
    assert_eq!(store.summarise_value(ValueType::UTF8, b"one\ttwo"), "one two");
    let long = "\u{1F3EE}x\u{e9}".repeat(10_000);
    let line = store.summarise_value(ValueType::UTF8, long.as_bytes());
    assert_eq!(line, long.chars().take(80).collect::<String>() + "...");
    let bytes = store.summarise_value(ValueType::BYTES, &[0xab; 1000]);
    assert_eq!(bytes, "ab".repeat(40) + "...");
    assert_eq!(store.summarise_value(ValueType::JSON, b"[1]"), "[1]");
}

#[derive(
    Debug, PartialEq, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout, zerocopy::Immutable,
)]
#[repr(C)]
struct Sample {
    time_ns: u64,
    level: f64,
    channel: u32,
    flags: u32,
}

#[test]
fn plain_structs_are_read_where_they_stand() {
    use zerocopy::{FromBytes, IntoBytes};
    let store = small().disk(memory()).open_copying(PATH).unwrap();
    let mut writer = store.writer("samples").unwrap();
    let sample = |number: u32| Sample {
        time_ns: u64::from(number) << 33,
        level: f64::from(number) / 3.0,
        channel: number,
        flags: !number,
    };
    for number in 0..5000 {
        // Keys and odd values between them move where values begin.
        let key = vec![7; usize::try_from(number % 13).unwrap()];
        let value = sample(number);
        writer
            .append_message(&NewMessage::new(value.as_bytes()).key(&key))
            .unwrap();
        writer.append(&key).unwrap();
    }
    for round in 0..2 {
        let mut cursor = store.log("samples").unwrap().cursor(0u64).unwrap();
        for number in 0..5000 {
            let message = cursor.next().unwrap().unwrap();
            let lent = Sample::ref_from_bytes(message.value()).unwrap();
            assert_eq!(*lent, sample(number), "round {round}");
            assert!(cursor.next().unwrap().is_some());
        }
        store.checkpoint().unwrap();
    }
}
