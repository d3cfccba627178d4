//! Promise: what breaks a rule of its log is not in the log, whoever appends it and however, and leaves no trace; who tried
//! learns which rule, where, and what was expected. Batches and transactions are refused whole. What a rule sends
//! elsewhere is there. All of it holds after crashes, in forks, and for threads that append at the same time.
#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests fail by panicking, and their numbers are small"
)]

mod common;

use common::{end, lives, memory, offsets, open_on};
use lanterman::disk::{Disk, OpenMode, Sync};
use lanterman::{Constraints, Durability, Error, ErrorKind, NewMessage, Store, ValueType, Violation};

fn constrained(rules: &str) -> Store {
    let store = open_on(memory());
    constrain(&store, "events", rules);
    store
}

fn constrain(store: &Store, log: &str, rules: &str) {
    if store.log(log).is_err() {
        store.create_log(log).unwrap();
    }
    let constraints = Constraints::from_json(&format!(r#"{{"rules": [{rules}]}}"#)).unwrap();
    store.set_constraints(log, Some(&constraints)).unwrap();
}

#[track_caller]
fn refused<T: std::fmt::Debug>(outcome: Result<T, Error>) -> Violation {
    match outcome {
        Err(Error::Constraint(violation)) => *violation,
        other => panic!("not refused: {other:?}"),
    }
}

fn json(text: &str) -> NewMessage<'_> {
    NewMessage::new(text.as_bytes()).value_type(ValueType::JSON)
}

/// A rule, messages that it takes, and messages that it refuses with the place that is told.
type Case<'a> = (&'a str, Vec<NewMessage<'a>>, Vec<(NewMessage<'a>, &'a str)>);

#[test]
fn each_rule_takes_what_meets_it_and_refuses_the_rest_with_the_place() {
    let bytes = NewMessage::new;
    let with_header: &[(&[u8], &[u8])] = &[(b"source", b"test")];
    let cases: Vec<Case<'_>> = vec![
        (
            r#"{"value_bytes": {"min": 2, "max": 4}}"#,
            vec![bytes(b"ab"), bytes(b"abcd")],
            vec![(bytes(b"a"), "value"), (bytes(b"abcde"), "value")],
        ),
        (
            r#"{"key_bytes": {"max": 3}}"#,
            vec![bytes(b"a"), bytes(b"a").key(b"abc")],
            vec![(bytes(b"a").key(b"abcd"), "key")],
        ),
        (r#""key""#, vec![bytes(b"a").key(b"")], vec![(bytes(b"a"), "key")]),
        (
            r#"{"value_types": ["json", 70]}"#,
            vec![json("1"), bytes(b"a").value_type(ValueType::new(70))],
            vec![(bytes(b"a"), "value")],
        ),
        (
            r#"{"headers": ["source"]}"#,
            vec![bytes(b"a").headers(with_header)],
            vec![(bytes(b"a"), "headers")],
        ),
        (
            r#"{"rising": "/n"}"#,
            vec![json(r#"{"n": 1}"#), json(r#"{"n": 1.5}"#), json(r#"{"n": 7}"#)],
            vec![
                (json(r#"{"n": 7}"#), "value at /n"),
                (json(r#"{"n": "8"}"#), "value at /n"),
                (json(r#"{"m": 8}"#), "value at /n"),
                (json(r#"{"n": [8]}"#), "value at /n"),
                (json("{"), "value"),
                (bytes(b"a").value_type(ValueType::CBOR), "value"),
            ],
        ),
        (
            r#"{"rising": "time"}"#,
            vec![bytes(b"a").time_ms(-5), bytes(b"a").time_ms(3)],
            vec![(bytes(b"a").time_ms(3), "time"), (bytes(b"a"), "time")],
        ),
        (
            r#"{"unique_key": {"within_messages": 2}}"#,
            vec![
                bytes(b"a").key(b"one"),
                bytes(b"a"),
                bytes(b"a").key(b"two"),
                bytes(b"a").key(b"one"),
            ],
            vec![(bytes(b"a").key(b"one"), "key"), (bytes(b"a").key(b"two"), "key")],
        ),
        (
            r#"{"json_schema": {"required": ["n"], "properties": {"n": {"type": "integer", "minimum": 3}}}}"#,
            vec![json(r#"{"n": 3}"#), bytes(br#"{"n": 4, "more": true}"#)],
            vec![
                (json(r#"{"n": 2}"#), "value at /n"),
                (json(r#"{"m": 2}"#), "value"),
                (bytes(b"no json"), "value"),
            ],
        ),
        (
            r#"{"cel": "json.n * 2 < 10 && size(json.list) > 0 && (key == null || key != 'no')"}"#,
            vec![json(r#"{"n": 4, "list": [1]}"#).key(b"yes")],
            vec![
                (json(r#"{"n": 5, "list": [1]}"#), "message"),
                (json(r#"{"n": 1, "list": [1]}"#).key(b"no"), "message"),
                (json(r#"{"n": 1}"#), "message"),
            ],
        ),
        (
            r#"{"cel": "offset == 0 && type == 2 && value.startsWith('a') && time == null && headers.a == 'b'"}"#,
            vec![bytes(b"abc").value_type(ValueType::UTF8).headers(&[(b"a", b"b")])],
            vec![(bytes(b"abc"), "message")],
        ),
    ];
    for (rule, taken, broken) in cases {
        let store = constrained(&format!(r#"{{"name": "the rule", "require": {rule}}}"#));
        let mut writer = store.writer("events").unwrap();
        for message in &taken {
            writer
                .append_message(message)
                .unwrap_or_else(|error| panic!("{rule}: {error}"));
        }
        for (message, place) in &broken {
            let violation = refused(writer.append_message(message));
            assert_eq!(
                (violation.rule.as_str(), violation.log.as_str()),
                ("the rule", "events")
            );
            assert_eq!(violation.place, *place, "{rule}: {violation}");
            assert_eq!(violation.offset.get(), taken.len() as u64);
        }
        assert_eq!(end(&store, "events"), taken.len() as u64, "{rule}");
    }
}

#[test]
fn plain_appends_reservations_and_expected_offsets_are_judged_too() {
    let store = constrained(r#"{"name": "small", "require": {"value_bytes": {"max": 3}}}"#);
    let mut writer = store.writer("events").unwrap();
    writer.append(b"abc").unwrap();
    assert_eq!(refused(writer.append(b"abcd")).found, "4");
    let next = writer.next_offset();
    refused(writer.append_if(next, &NewMessage::new(b"abcd")));
    let mut reserved = writer.reserve(4).unwrap();
    reserved.fill(|bytes| bytes.copy_from_slice(b"abcd")).unwrap();
    let violation = refused(reserved.publish());
    assert_eq!(violation.expected, "at most 3 bytes");
    let mut reserved = writer.reserve(3).unwrap();
    reserved.fill(|bytes| bytes.copy_from_slice(b"abc")).unwrap();
    assert_eq!(reserved.publish().unwrap().get(), 1);
    let error = writer.append(b"abcd").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FixTheCall);
    assert_eq!(
        error.to_string(),
        "message 0 breaks the rule \"small\" of log \"events\": value: expected at most 3 bytes, found 4"
    );
    assert_eq!(end(&store, "events"), 2);
}

const MEMORY: &str = r#"{"name": "rising", "require": {"rising": ""}},
    {"name": "once", "require": {"unique_key": {"within_messages": 100}}},
    {"name": "few", "require": {"rate": {"messages": 4, "per_ms": 86400000}}}"#;

#[test]
fn a_batch_is_refused_whole_and_leaves_no_trace_in_the_memory_of_the_rules() {
    let store = constrained(MEMORY);
    let mut writer = store.writer("events").unwrap();
    writer.append_message(&json("1").key(b"a")).unwrap();
    let batch = [json("5").key(b"b"), json("6").key(b"c"), json("6").key(b"d")];
    let violation = refused(writer.append_batch(batch));
    assert_eq!((violation.rule.as_str(), violation.index), ("rising", 2));
    let batch = [json("5").key(b"b"), json("6").key(b"b")];
    let violation = refused(writer.append_batch(batch));
    assert_eq!((violation.rule.as_str(), violation.index), ("once", 1));
    assert_eq!(end(&store, "events"), 1);
    // Neither the level, nor the keys, nor the rate have moved.
    writer
        .append_batch([json("2").key(b"b"), json("3").key(b"c"), json("4").key(b"d")])
        .unwrap();
    let violation = refused(writer.append_message(&json("5").key(b"e")));
    assert_eq!(violation.rule, "few");
}

#[test]
fn a_transaction_is_refused_whole_and_leaves_no_trace() {
    let store = constrained(MEMORY);
    let append = |numbers: &[&str], also: &str| {
        store.transaction(|transaction| {
            transaction.append("other", also.as_bytes())?;
            numbers
                .iter()
                .try_for_each(|number| transaction.append_message("events", &json(number)))
        })
    };
    append(&["1"], "first").unwrap();
    let violation = refused(append(&["2", "3", "3"], "second"));
    assert_eq!((violation.index, violation.offset.get()), (2, 3));
    assert_eq!((end(&store, "events"), end(&store, "other")), (1, 1));
    append(&["2", "3"], "third").unwrap();
    assert_eq!((end(&store, "events"), end(&store, "other")), (3, 2));
}

#[test]
fn what_a_rule_diverts_is_in_the_other_log_in_the_same_version() {
    let disk = memory();
    let store = open_on(disk.clone());
    let rule =
        r#"{"name": "small", "require": {"value_bytes": {"max": 3}}, "on_violation": {"divert": "dead"}}"#;
    constrain(&store, "events", rule);
    let receipt = store
        .transaction(|transaction| {
            transaction.append("events", b"one")?;
            transaction.append_message("events", &NewMessage::new(b"too long").key(b"k"))?;
            transaction.append("events", b"two")?;
            transaction.append("dead", b"not judged here")
        })
        .unwrap();
    assert_eq!(receipt.offsets["events"], 0..2);
    assert_eq!(receipt.offsets["dead"], 0..2);
    let mut writer = store.writer("events").unwrap();
    let error = writer.append(b"longer").unwrap_err();
    let Error::Diverted {
        violation,
        log,
        offset,
    } = error
    else {
        panic!("{error}");
    };
    assert_eq!(
        (violation.rule.as_str(), log.as_str(), offset.get()),
        ("small", "dead", 2)
    );
    assert_eq!(writer.append(b"abc").unwrap().get(), 2);
    // Of a batch nothing goes anywhere.
    let batch = [NewMessage::new(b"abc"), NewMessage::new(b"abcd")];
    assert_eq!(refused(writer.append_batch(batch)).index, 1);
    let mut reserved = writer.reserve(4).unwrap();
    reserved.fill(|bytes| bytes.copy_from_slice(b"held")).unwrap();
    assert!(matches!(reserved.publish(), Err(Error::Diverted { .. })));
    writer.commit(Durability::Disk).unwrap();
    drop(writer);
    for (how, store) in lives(&disk, store) {
        assert_eq!((end(&store, "events"), end(&store, "dead")), (3, 4), "{how}");
        let mut cursor = store.log("dead").unwrap().cursor(0u64).unwrap();
        for (value, is_told) in [
            (&b"not judged here"[..], false),
            (b"too long", true),
            (b"longer", true),
            (b"held", true),
        ] {
            let message = cursor.next().unwrap().unwrap();
            assert_eq!(message.value(), value, "{how}");
            let told = message
                .headers()
                .any(|header| header == (b"lanterman-rule", b"small"));
            assert_eq!(told, is_told, "{how}");
            assert_eq!(message.key().is_some(), value == b"too long", "{how}");
        }
    }
}

#[test]
fn warnings_let_messages_in() {
    let store = constrained(
        r#"{"name": "small", "require": {"value_bytes": {"max": 3}}, "on_violation": "warn"},
           {"name": "keyed", "require": "key"}"#,
    );
    let mut writer = store.writer("events").unwrap();
    writer
        .append_message(&NewMessage::new(b"longer").key(b"k"))
        .unwrap();
    assert_eq!(refused(writer.append(b"longer")).rule, "keyed");
}

#[test]
fn constraints_and_what_they_remember_outlast_crashes_and_go_into_forks() {
    let disk = memory();
    let store = open_on(disk.clone());
    let rules = r#"{"name": "rising", "require": {"rising": ""}},
        {"name": "once", "require": {"unique_key": {"within_messages": 100}}}"#;
    constrain(&store, "events", rules);
    let mut writer = store.writer("events").unwrap();
    for (number, key) in [("1", b"a"), ("2", b"b"), ("3", b"c")] {
        writer.append_message(&json(number).key(key)).unwrap();
    }
    writer.commit(Durability::Disk).unwrap();
    drop(writer);
    store.fork("events", "fork").unwrap();
    // What is deleted is no longer known after opening, what is left is.
    store.delete("events", 1..2).unwrap();
    assert!(matches!(
        store.splice("events", "fork", 0..1),
        Err(Error::Constrained { .. })
    ));
    for (how, store) in lives(&disk, store) {
        for log in ["events", "fork"] {
            let told = store.log(log).unwrap().constraints().unwrap().unwrap();
            assert_eq!(told.names().collect::<Vec<_>>(), ["rising", "once"], "{how}");
            let mut writer = store.writer(log).unwrap();
            let violation = refused(writer.append_message(&json("3").key(b"d")));
            assert_eq!(violation.rule, "rising", "{how}, {log}");
            let violation = refused(writer.append_message(&json("4").key(b"a")));
            assert_eq!(violation.rule, "once", "{how}, {log}");
            writer.append_message(&json("4").key(b"d")).unwrap();
        }
        store.set_constraints("events", None).unwrap();
        assert_eq!(store.log("events").unwrap().constraints().unwrap(), None);
        store.writer("events").unwrap().append(b"anything").unwrap();
    }
}

#[test]
fn threads_that_append_at_the_same_time_keep_the_rules_together() {
    let store = constrained(r#"{"name": "rising", "require": {"rising": ""}}"#);
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let store = &store;
            scope.spawn(move || {
                for number in 0..200 {
                    let text = (number * 3 + thread).to_string();
                    let outcome = store.transaction(|transaction| {
                        transaction.durability(Durability::Process);
                        transaction.append_message("events", &json(&text))
                    });
                    assert!(matches!(outcome, Ok(_) | Err(Error::Constraint(_))));
                }
            });
        }
        let mut writer = store.writer("events").unwrap();
        for number in 0..600 {
            let text = number.to_string();
            let outcome = writer.append_message(&json(&text));
            assert!(matches!(outcome, Ok(_) | Err(Error::Constraint(_))));
        }
    });
    let mut before = None;
    let snapshot = store.snapshot("events").unwrap();
    for message in snapshot.range(..).unwrap() {
        let text = String::from_utf8(message.unwrap().value().to_vec()).unwrap();
        let number: i64 = text.parse().unwrap();
        assert!(
            before.is_none_or(|before| number > before),
            "{number} behind {before:?}"
        );
        before = Some(number);
    }
    assert!(before.is_some());
}

#[test]
fn old_messages_are_judged_on_demand() {
    let store = open_on(memory());
    let mut writer = store.writer("events").unwrap();
    for number in [5, 1, 2, 9, 9] {
        writer.append(number.to_string().as_bytes()).unwrap();
    }
    for _ in 0..2_000 {
        writer.append(b"10").unwrap();
    }
    writer.commit(Durability::Disk).unwrap();
    store.delete("events", 2..3).unwrap();
    let rules = r#"{"rules": [{"name": "rising", "require": {"rising": ""}},
        {"name": "small", "require": {"cel": "json < 9"}}]}"#;
    let constraints = Constraints::from_json(rules).unwrap();
    let mut found = Vec::new();
    let snapshot = store.snapshot("events").unwrap();
    snapshot
        .check_constraints(&constraints, |violation| {
            found.push((violation.offset.get(), violation.rule));
            found.len() < 5
        })
        .unwrap();
    let found: Vec<_> = found
        .iter()
        .map(|(offset, rule)| (*offset, rule.as_str()))
        .collect();
    assert_eq!(
        found,
        [
            (1, "rising"),
            (3, "small"),
            (4, "rising"),
            (4, "small"),
            (5, "small")
        ]
    );
    // Nothing has changed.
    assert_eq!(offsets(&store, "events").len(), 2_004);
}

#[test]
fn constraints_that_are_none_are_refused_with_the_place() {
    let rule = |require: &str| format!(r#"{{"rules": [{{"name": "a rule", "require": {require}}}]}}"#);
    let long = format!(r#"{{"cel": "{}"}}"#, "1 + ".repeat(2_000) + "1 > 0");
    let deep = format!(r#"{{"cel": "{}true{}"}}"#, "(".repeat(1_000), ")".repeat(1_000));
    for (document, place, reason) in [
        ("{".to_owned(), "line 1, column 1", "EOF"),
        ("[]".to_owned(), "line 1", "expected"),
        (r#"{"rules": []}"#.to_owned(), "rules", "1 to 64"),
        (r#"{"rules": [], "more": 1}"#.to_owned(), "line 1", "more"),
        (rule(r#""nothing""#), "line 1", "nothing"),
        (rule(r#"{"value_bytes": {"max": -1}}"#), "line 1", "-1"),
        (rule(r#"{"value_bytes": {}}"#), "require", "min or max"),
        (
            rule(r#"{"key_bytes": {"min": 3, "max": 2}}"#),
            "require",
            "at most max",
        ),
        (rule(r#"{"value_types": []}"#), "value_types", "a type"),
        (
            rule(r#"{"value_types": ["tombstones"]}"#),
            "value_types",
            "no type",
        ),
        (rule(r#"{"value_types": [0]}"#), "value_types", "0"),
        (
            rule(r#"{"rate": {"messages": 0, "per_ms": 5}}"#),
            "rate",
            "messages",
        ),
        (rule(r#"{"rising": "n"}"#), "rising", "pointer"),
        (
            rule(r#"{"unique_key": {"within_messages": 0}}"#),
            "unique_key",
            "1 to",
        ),
        (
            rule(r#"{"json_schema": {"type": "strin"}}"#),
            "json_schema/type",
            "strin",
        ),
        (
            rule(r#"{"json_schema": {"pattern": "("}}"#),
            "json_schema/pattern",
            "regex",
        ),
        (
            rule(r#"{"json_schema": {"$ref": "http://localhost/x"}}"#),
            "json_schema",
            "localhost",
        ),
        (rule(r#"{"cel": "json.n >"}"#), "line 1, column 9", "mismatched"),
        (rule(r#"{"cel": "nosuch > 1"}"#), "cel", "nosuch"),
        (rule(r#"{"cel": "nosuch(1)"}"#), "cel", "nosuch"),
        (rule(&long), "cel", "4096"),
        (rule(&deep), "cel", ""),
        (
            r#"{"rules": [{"name": "", "require": "key"}]}"#.to_owned(),
            "rules[0].name",
            "1 to 100",
        ),
        (
            r#"{"rules": [{"name": "x", "require": "key"}, {"name": "x", "require": "key"}]}"#.to_owned(),
            "rules[1].name",
            "another",
        ),
    ] {
        match Constraints::from_json(&document) {
            Err(Error::InvalidConstraints {
                place: found_place,
                reason: found_reason,
                ..
            }) => {
                assert!(found_place.contains(place), "{document}: {found_place}");
                assert!(found_reason.contains(reason), "{document}: {found_reason}");
            }
            other => panic!("{document}: {other:?}"),
        }
    }
    let store = constrained(r#"{"name": "a rule", "require": "key"}"#);
    for (to, reason) in [("events", "itself"), ("", "name"), ("a\nb", "name")] {
        let rules = format!(
            r#"{{"rules": [{{"name": "x", "require": "key", "on_violation": {{"divert": {}}}}}]}}"#,
            serde_json::to_string(to).unwrap()
        );
        let constraints = Constraints::from_json(&rules).unwrap();
        let error = store.set_constraints("events", Some(&constraints)).unwrap_err();
        assert!(error.to_string().contains(reason), "{error}");
    }
    let large = format!(
        r#"{{"rules": [{{"name": "x", "require": {{"headers": ["{}"]}}}}]}}"#,
        "x".repeat(61 << 10)
    );
    let constraints = Constraints::from_json(&large).unwrap();
    assert!(matches!(
        store.set_constraints("events", Some(&constraints)),
        Err(Error::InvalidConstraints { .. })
    ));
    assert!(matches!(
        store.set_constraints("nowhere", None),
        Err(Error::UnknownLog { .. })
    ));
    // What was set before holds.
    refused(store.writer("events").unwrap().append(b"a"));
}

#[test]
fn what_would_explode_is_refused_and_what_goes_in_a_circle_ends() {
    let store = constrained(
        r##"{"name": "pairs", "require": {"cel": "json.all(a, json.all(b, a != b || a == b))"}},
           {"name": "circle", "require": {"json_schema": {"$ref": "#"}}},
           {"name": "backtracking", "require": {"json_schema":
               {"items": {"anyOf": [{"type": "number"}, {"pattern": "^(a+)+$"}]}}}}"##,
    );
    let mut writer = store.writer("events").unwrap();
    let list = |length: usize| serde_json::to_string(&vec![1; length]).unwrap();
    writer.append_message(&json(&list(100))).unwrap();
    let violation = refused(writer.append_message(&json(&list(10_000))));
    assert_eq!(violation.rule, "pairs");
    assert!(violation.expected.contains("10000000"), "{violation}");
    let nested = format!("{}{}", "[".repeat(5_000), "]".repeat(5_000));
    assert_eq!(refused(writer.append_message(&json(&nested))).place, "value");
    let text = format!("[\"{}b\"]", "a".repeat(5_000));
    assert_eq!(refused(writer.append_message(&json(&text))).rule, "backtracking");
}

#[test]
fn a_log_with_damaged_messages_takes_new_ones_by_what_is_left() {
    let disk = memory();
    let store = open_on(disk.clone());
    constrain(
        &store,
        "events",
        r#"{"name": "rising", "require": {"rising": ""}}"#,
    );
    let mut writer = store.writer("events").unwrap();
    for number in 0..20_000 {
        writer.append(number.to_string().as_bytes()).unwrap();
    }
    writer.commit(Durability::Disk).unwrap();
    drop(writer);
    store.close().unwrap();
    // Somewhere among the slabs, which are of 64 KiB.
    let segments = std::path::Path::new(common::PATH).join("segments");
    let names = disk.list(&segments).unwrap();
    for name in names.iter().filter(|name| name.ends_with(".slabs")) {
        let file = disk.open(&segments.join(name), OpenMode::ReadWrite).unwrap();
        file.write_at(70 << 10, &[0x55; 4096], Sync::No).unwrap();
    }
    let store = open_on(disk);
    let mut writer = store.writer("events").unwrap();
    refused(writer.append(b"19999"));
    writer.append(b"20000").unwrap();
}
