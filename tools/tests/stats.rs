//! Promise: `stats` says what a log, or a part of it, holds, and refuses ranges that are none.
#![allow(clippy::unwrap_used, reason = "tests stop at the first surprise")]

mod common;

use common::{Place, code, run, run_with, stderr, stdout, well};
use serde_json::Value;

fn report(arguments: &[&str]) -> Value {
    let output = run(&[&["stats"], arguments, &["--json"]].concat());
    well(&output);
    serde_json::from_slice(&output.stdout).unwrap()
}

fn number(report: &Value, name: &str) -> u64 {
    report.get(name).and_then(Value::as_u64).unwrap()
}

fn store(place: &Place) -> String {
    let store = place.text("store");
    let lines: String = (0..5_000).map(|line| format!("line {line}\n")).collect();
    well(&run_with(&["append", &store, "events", "-"], lines.as_bytes()));
    well(&run(&["delete", &store, "events", "10..40", "--yes"]));
    store
}

#[test]
fn a_log_and_its_parts_are_counted() {
    let place = Place::new();
    let store = store(&place);
    let whole = report(&[&store, "events"]);
    assert_eq!(
        (number(&whole, "messages"), number(&whole, "deleted")),
        (4_970, 30)
    );
    assert_eq!(whole.get("exact"), Some(&Value::Bool(true)));
    assert_eq!(whole.get("types").unwrap().to_string(), r#"["bytes"]"#);
    let rates = whole.get("rates").unwrap().as_array().unwrap();
    let counted: u64 = rates.iter().map(|row| number(row, "messages")).sum();
    assert!(counted.abs_diff(4_970) < 100, "{counted} in the parts");
    let part = report(&[&store, "events", "--from", "5", "--to", "50"]);
    assert_eq!((number(&part, "messages"), number(&part, "deleted")), (15, 30));
    let bytes: usize = (5..10)
        .chain(40..50)
        .map(|line| format!("line {line}").len())
        .sum();
    assert_eq!(number(&part, "value_bytes"), bytes as u64);
    let past = report(&[&store, "events", "--until-ms", "1000"]);
    assert_eq!(number(&past, "messages"), 0);
    let shown = stdout(&run(&["stats", &store, "events"]));
    assert!(
        shown.contains("messages  4970") && shown.contains("####"),
        "{shown}"
    );
}

#[test]
fn different_keys_are_told_in_the_text_and_in_the_report() {
    let place = Place::new();
    let store = store(&place);
    assert_eq!(number(&report(&[&store, "events"]), "distinct_keys"), 0);
    for key in ["one", "two", "one"] {
        well(&run_with(
            &["append", &store, "keys", "-", "--key-delimiter", ":"],
            format!("{key}:text\n").as_bytes(),
        ));
    }
    assert_eq!(number(&report(&[&store, "keys"]), "distinct_keys"), 2);
    let shown = stdout(&run(&["stats", &store, "keys"]));
    assert!(shown.contains("about 2 different ones"), "{shown}");
}

#[test]
fn what_was_chosen_is_explained_in_the_text_and_in_the_report() {
    let place = Place::new();
    let store = store(&place);
    let explained = report(&[&store, "events", "--explain"]);
    let choices = explained.get("choices").and_then(Value::as_array).unwrap();
    let names: Vec<_> = choices
        .iter()
        .filter_map(|choice| choice.get("name")?.as_str())
        .collect();
    assert_eq!(names, ["slab_bytes", "commit_gather", "prefetch_memory"]);
    for choice in choices {
        let (least, most) = (number(choice, "least"), number(choice, "most"));
        assert!((least..=most).contains(&number(choice, "value")));
        assert!(
            choice
                .get("reason")
                .and_then(Value::as_str)
                .is_some_and(|reason| !reason.is_empty())
        );
    }
    assert!(report(&[&store, "events"]).get("choices").is_none());
    let shown = stdout(&run(&["stats", &store, "events", "--explain"]));
    assert!(
        shown.contains("slab_bytes  1048576 bytes, chosen from 65536 to 1048576: "),
        "{shown}"
    );
}

#[test]
fn ranges_that_are_none_and_unknown_logs_are_refused() {
    let place = Place::new();
    let store = store(&place);
    for (arguments, told) in [
        (vec!["events", "--from", "7", "--to", "3"], "before it begins"),
        (vec!["events", "--from", "5001"], "ends at 5000"),
        (vec!["events", "--to", "5001"], "5001"),
        (
            vec!["events", "--since-ms", "7", "--until-ms", "3"],
            "before it begins",
        ),
        (vec!["events", "--from", "-1"], "--from"),
        (vec!["events", "--from", "1", "--since-ms", "3"], "cannot be used"),
        (vec!["elsewhere"], "elsewhere"),
    ] {
        let output = run(&[&["stats", store.as_str()], &arguments[..]].concat());
        assert_eq!(code(&output), 2, "{arguments:?}");
        assert!(stderr(&output).contains(told), "{}", stderr(&output));
    }
    assert_eq!(code(&run(&["stats", &place.text("nothing"), "events"])), 2);
}
