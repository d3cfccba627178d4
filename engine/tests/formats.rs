//! Promise: a value that is none of its type is refused by whoever knows the type, and by every way to append; values of
//! types that nobody knows keep their bytes and their type through everything that moves them.
#![allow(clippy::panic, clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use common::{PATH, lives, memory, open_on, small};
use lanterman::disk::MemoryDisk;
use lanterman::{
    CheckedJson, CheckedUtf8, Durability, Error, NewMessage, Options, Store, ValueFormat, ValueType,
};
use std::sync::Arc;

const EVEN: u64 = 70_000;

/// Values of an even number of bytes; eleven of them are a mistake of the format.
#[derive(Debug)]
struct Even(u64, &'static str);

impl ValueFormat for Even {
    fn value_type(&self) -> ValueType {
        ValueType::new(self.0)
    }

    fn name(&self) -> &str {
        self.1
    }

    fn validate(&self, value: &[u8]) -> Result<(), String> {
        assert_ne!(value.len(), 11, "a mistake of the format");
        match value.len() % 2 {
            0 => Ok(()),
            _ => Err("an odd number of bytes".to_owned()),
        }
    }

    fn display(&self, value: &[u8]) -> Option<String> {
        assert_ne!(value.len(), 11, "a mistake of the format");
        Some(format!("{} pairs", value.len() / 2))
    }
}

fn open(disk: &Arc<MemoryDisk>) -> Store {
    let options = small().disk(disk.clone());
    let options = options.value_format(Even(EVEN, "even")).value_format(CheckedJson);
    options.open_copying(PATH).unwrap()
}

#[track_caller]
fn refused<T: std::fmt::Debug>(outcome: Result<T, Error>, reason: &str) {
    match outcome {
        Err(Error::InvalidValue { reason: found, .. }) => assert!(found.contains(reason), "{found}"),
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn values_are_compared_with_the_format_of_their_type_by_every_way_to_append() {
    let store = open(&memory());
    let mut writer = store.writer("events").unwrap();
    let even = |value| NewMessage::new(value).value_type(ValueType::new(EVEN));
    let json = |value| NewMessage::new(value).value_type(ValueType::JSON);
    writer.append_message(&even(b"four")).unwrap();
    writer.append_message(&json(b"[1, 2]")).unwrap();
    // Nobody has said what UTF-8 must be like here.
    let text = NewMessage::new(b"\xff").value_type(ValueType::UTF8);
    writer.append_message(&text).unwrap();
    refused(writer.append_message(&even(b"three")), "odd");
    refused(writer.append_message(&json(b"[1, 2")), "EOF");
    refused(writer.append_message(&even(b"hello world")), "panicked");
    refused(writer.append_if(writer.next_offset(), &even(b"1")), "odd");
    refused(writer.append_batch([even(b"12"), even(b"1")]), "odd");
    refused(
        store.transaction(|transaction| transaction.append_message("events", &even(b"1"))),
        "odd",
    );
    let mut reserved = writer.reserve(1).unwrap().value_type(ValueType::new(EVEN));
    reserved.fill(|bytes| bytes.fill(1)).unwrap();
    refused(reserved.publish(), "odd");
    assert_eq!(writer.next_offset().get(), 3);
    let shown = |number: u64, value: &[u8]| store.display_value(ValueType::new(number), value);
    assert_eq!(shown(EVEN, b"four"), "2 pairs");
    assert_eq!(shown(EVEN, b"hello world"), "68656c6c6f20776f726c64");
    assert_eq!(
        (shown(6, b"{}"), shown(2, b"\xff"), shown(99, b"ab")),
        ("{}".to_owned(), "ff".to_owned(), "6162".to_owned())
    );
}

#[test]
fn formats_that_cannot_be_together_are_refused_when_the_store_is_opened() {
    let with = |options: Options| options.disk(memory()).open_copying(PATH);
    for (options, reason) in [
        (
            small().value_format(Even(70, "a")).value_format(Even(70, "b")),
            "same type",
        ),
        (
            small().value_format(Even(70, "a")).value_format(Even(71, "a")),
            "same name",
        ),
        (small().value_format(Even(0, "a")), "no format"),
        (small().value_format(Even(255, "a")), "no format"),
        (small().value_format(Even(9, "a")), "no format"),
        (small().value_format(Even(1, "a")), "no format"),
    ] {
        let error = with(options).unwrap_err();
        assert!(
            matches!(
                &error,
                Error::InvalidOption {
                    option: "value_format",
                    ..
                }
            ),
            "{error}"
        );
        assert!(error.to_string().contains(reason), "{error}");
    }
    with(small().value_format(CheckedUtf8).value_format(CheckedJson)).unwrap();
}

#[test]
fn values_of_unknown_types_keep_bytes_and_type_through_all_that_moves_them() {
    let disk = memory();
    let store = open_on(disk.clone());
    let message = |number: u64| {
        let value = vec![u8::try_from(number % 251).unwrap(); usize::try_from(number % 300).unwrap()];
        (value, ValueType::new(64 + number * number * number % 200_000))
    };
    let is_valid = |number: u64| message(number).1.is_valid();
    let numbers: Vec<u64> = (0..2_000).filter(|number| is_valid(*number)).collect();
    let mut writer = store.writer("events").unwrap();
    for number in &numbers {
        let (value, value_type) = message(*number);
        writer
            .append_message(&NewMessage::new(&value).value_type(value_type))
            .unwrap();
    }
    writer.commit(Durability::Disk).unwrap();
    drop(writer);
    store.fork("events", "fork").unwrap();
    store.create_log("spliced").unwrap();
    store.splice("spliced", "events", ..).unwrap();
    store.delete("fork", 3..1_000).unwrap();
    // Slabs that are cut are written anew.
    store.checkpoint().unwrap();
    store.collect().unwrap();
    for (how, store) in lives(&disk, store) {
        for log in ["events", "fork", "spliced"] {
            for kept in store.snapshot(log).unwrap().range(..).unwrap() {
                let kept = kept.unwrap();
                let index = usize::try_from(kept.offset().get()).unwrap();
                let (value, value_type) = message(*numbers.get(index).unwrap());
                assert!(kept.value() == &value[..], "{how}, {log}, {index}");
                assert_eq!(kept.value_type(), value_type, "{how}, {log}, {index}");
            }
        }
    }
}

#[test]
fn json_goes_in_and_comes_out_as_rust_values_or_says_why_not() {
    let store = open_on(memory());
    let mut writer = store.writer("log").unwrap();
    let mut buffer = b"left over".to_vec();
    for (text, number) in [("one", 1_u32), ("two", 2)] {
        let message = NewMessage::json(&(text, number), &mut buffer).unwrap();
        writer.append_message(&message).unwrap();
    }
    writer.append(b"[\"bytes\",3]").unwrap();
    let broken = NewMessage::new(b"[\"four\",").value_type(ValueType::JSON);
    writer.append_message(&broken).unwrap();
    let snapshot = store.snapshot("log").unwrap();
    let mut cursor = snapshot.cursor(0u64).unwrap();
    let (text, number): (&str, u32) = cursor.next().unwrap().unwrap().json().unwrap();
    assert_eq!((text, number), ("one", 1));
    let kept = snapshot.get(1u64).unwrap();
    assert_eq!(kept.json::<(String, u32)>().unwrap(), ("two".to_owned(), 2));
    refused(kept.json::<Vec<u32>>(), "expected u32 at line 1 column 6");
    refused(
        snapshot.get(2u64).unwrap().json::<(String, u32)>(),
        "another type",
    );
    refused(snapshot.get(3u64).unwrap().json::<(String, u32)>(), "EOF");
    let unwritable = std::collections::BTreeMap::from([((1, 2), 3)]);
    refused(
        NewMessage::json(&unwritable, &mut buffer).map(|_| ()),
        "key must be a string",
    );
}

/// A format that cannot even say what it is.
#[derive(Debug)]
struct Nameless;

impl ValueFormat for Nameless {
    fn value_type(&self) -> ValueType {
        panic!("it has none")
    }

    fn name(&self) -> &str {
        panic!("it has none")
    }
}

#[test]
fn a_format_that_panics_when_it_is_asked_what_it_is_is_refused_when_the_store_is_opened() {
    let opened = common::small()
        .value_format(Nameless)
        .disk(memory())
        .open_copying(common::PATH);
    match opened {
        Err(Error::InvalidOption { option, reason }) => {
            assert_eq!(option, "value_format");
            assert!(reason.contains("panicked"), "{reason}");
        }
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn types_that_the_store_itself_uses_are_refused_in_messages() {
    let store = common::open_on(memory());
    let mut writer = store.writer("log").unwrap();
    for value_type in [ValueType::TOMBSTONES, ValueType::KEY_PAGE] {
        let outcome = writer.append_message(&NewMessage::new(b"").value_type(value_type));
        assert!(matches!(outcome, Err(Error::InvalidValue { .. })), "{outcome:?}");
    }
    assert_eq!(writer.next_offset().get(), 0);
}
