//! Promise: the subcommands that edit logs do what they say and tell it, a dry run and a wrong call change nothing, a
//! person at the terminal is asked and a program is not, and reading, listing and verifying go on behind every edit.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests stop at the first surprise"
)]

mod common;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Output, Stdio};

use common::{Place, code, lanterman, run, run_with, stderr, stdout, tree_of, well};
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::{Value, json};

/// A store with a log of so many lines, which are their offsets.
fn store_of(place: &Place, log: &str, count: u64) -> String {
    let store = place.text("store");
    append(&store, log, 0..count);
    store
}

fn append(store: &str, log: &str, offsets: std::ops::Range<u64>) {
    let lines: String = offsets.map(|offset| format!("{offset}\n")).collect();
    well(&run_with(&["append", store, log], lines.as_bytes()));
}

fn json_of(output: &Output) -> Value {
    well(output);
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The numbers that a log has, from an offset on.
fn read(store: &str, log: &str, more: &[&str]) -> Vec<u64> {
    let output = run(&[&["read", store, log], more].concat());
    well(&output);
    stdout(&output)
        .lines()
        .map(|line| line.parse().unwrap())
        .collect()
}

#[track_caller]
fn sound(store: &str) {
    let verified = json_of(&run(&["verify", store, "--json"]));
    assert_eq!(
        (&verified["well"], &verified["notes"]),
        (&json!(true), &json!([])),
        "{verified}"
    );
    for command in ["inspect", "logs"] {
        well(&run(&[command, store]));
    }
}

/// Every file of the store but the table of its readers, in which whoever looks writes his name.
fn files_of(place: &Place) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = tree_of(&place.path("store"));
    files.retain(|path, _| path.file_name() != Some(OsStr::new("readers")));
    files
}

/// A dry run: it changes no byte.
#[track_caller]
fn planned(place: &Place, arguments: &[&str]) -> Value {
    let before = files_of(place);
    let plan = json_of(&run(&[arguments, &["--dry-run", "--json"]].concat()));
    assert!(files_of(place) == before, "a plan wrote something: {arguments:?}");
    plan
}

/// The call fails as wrong and says so; logs and snapshots are as they were, and a dry run changes no byte.
#[track_caller]
fn refused(place: &Place, arguments: &[&str], words: &str) {
    let store = place.text("store");
    let listed = || {
        [&["logs"][..], &["snapshot", "list"]].map(|command| {
            let output = run(&[command, &[store.as_str(), "--json"]].concat());
            json_of(&output)
        })
    };
    let before = (listed(), files_of(place));
    let output = run(arguments);
    let told = stderr(&output);
    assert_eq!(code(&output), 2, "{arguments:?}: {told}");
    let is_told = told.contains(words) && !told.contains("panicked");
    assert!(is_told, "{arguments:?}: {told}");
    assert!(output.stdout.is_empty(), "{arguments:?}");
    if arguments.contains(&"--dry-run") {
        assert!(
            files_of(place) == before.1,
            "something was written: {arguments:?}"
        );
    }
    assert_eq!(listed(), before.0, "{arguments:?}");
}

#[test]
fn a_deletion_is_planned_done_and_passed_over() {
    let place = Place::new();
    let store = store_of(&place, "log", 100);
    let plan = planned(&place, &["delete", &store, "log", "10..20"]);
    let done = json_of(&run(&["delete", &store, "log", "10..20", "--json"]));
    for report in [&plan, &done] {
        assert_eq!(report["log"], "log");
        assert_eq!((&report["first"], &report["end"]), (&json!(10), &json!(20)));
        assert_eq!(report["messages"], 10);
        assert!(report["bytes"].is_u64() && report["exact"].is_boolean());
    }
    assert_eq!((&plan["dry_run"], &plan["version"]), (&json!(true), &Value::Null));
    assert!(done["dry_run"] == false && done["version"].is_u64());
    let left: Vec<u64> = (0..10).chain(20..100).collect();
    assert_eq!(read(&store, "log", &[]), left);
    assert_eq!(read(&store, "log", &["--from", "12", "--count", "2"]), [20, 21]);
    sound(&store);
    // What is deleted already is no error, and neither is nothing.
    let again = json_of(&run(&["delete", &store, "log", "10..20", "--json"]));
    assert_eq!(again["messages"], 0);
    let nothing = run(&["delete", &store, "log", "50..50"]);
    well(&nothing);
    assert!(stdout(&nothing).starts_with("deleted 0 messages"), "{nothing:?}");
    // Both ends may be left out.
    well(&run(&["delete", &store, "log", "..5"]));
    well(&run(&["delete", &store, "log", "95.."]));
    let left: Vec<u64> = (5..10).chain(20..95).collect();
    assert_eq!(read(&store, "log", &[]), left);
    append(&store, "log", 100..103);
    assert_eq!(read(&store, "log", &["--from", "94"]), [94, 100, 101, 102]);
    sound(&store);
    well(&run(&["delete", &store, "log", ".."]));
    assert_eq!(read(&store, "log", &[]), [0u64; 0]);
    sound(&store);
}

#[test]
fn retention_keeps_what_its_limit_names() {
    let place = Place::new();
    let store = store_of(&place, "log", 100);
    let plan = planned(&place, &["retain", &store, "log", "--from", "40"]);
    assert_eq!((&plan["first"], &plan["end"]), (&json!(0), &json!(40)));
    let done = run(&["retain", &store, "log", "--from", "40"]);
    well(&done);
    assert!(stdout(&done).contains("offsets 0..40"), "{}", stdout(&done));
    let left: Vec<u64> = (40..100).collect();
    assert_eq!(read(&store, "log", &[]), left);
    assert_eq!(read(&store, "log", &["--from", "3", "--count", "1"]), [40]);
    let logs = json_of(&run(&["logs", &store, "--json"]));
    assert_eq!(
        (&logs["logs"][0]["start"], &logs["logs"][0]["end"]),
        (&json!(40), &json!(100))
    );
    sound(&store);
    for limits in [
        &["--max-age", "7d"][..],
        &["--max-bytes", "64KiB"],
        &["--max-messages", "1000"],
        &["--max-messages", "1000", "--max-age", "36h"],
    ] {
        let kept = json_of(&run(&[&["retain", &store, "log", "--json"], limits].concat()));
        assert_eq!(kept["messages"], 0, "{limits:?}");
    }
    // Every call writes its messages as a slab, and slabs go whole.
    (1..5).for_each(|part| append(&store, "log", part * 100..part * 100 + 100));
    let trimmed = json_of(&run(&[
        "retain",
        &store,
        "log",
        "--max-messages",
        "150",
        "--json",
    ]));
    let left = read(&store, "log", &[]);
    assert_eq!(left.len() as u64, 460 - trimmed["messages"].as_u64().unwrap());
    assert!(left.len() >= 150 && left.last() == Some(&499), "{left:?}");
    sound(&store);
}

#[test]
fn forks_and_what_is_put_behind_a_log_go_their_own_ways() {
    let place = Place::new();
    let store = store_of(&place, "log", 100);
    let forked = json_of(&run(&["fork", &store, "log", "part", "--at", "30", "--json"]));
    assert_eq!((&forked["log"], &forked["new"]), (&json!("log"), &json!("part")));
    assert_eq!((&forked["first"], &forked["end"]), (&json!(0), &json!(30)));
    well(&run(&["fork", &store, "log", "whole"]));
    well(&run(&["delete", &store, "part", "10..20"]));
    append(&store, "part", 500..503);
    let part: Vec<u64> = (0..10).chain(20..30).chain(500..503).collect();
    assert_eq!(read(&store, "part", &[]), part);
    let whole: Vec<u64> = (0..100).collect();
    assert_eq!(read(&store, "whole", &[]), whole);
    sound(&store);
    let joined = json_of(&run(&["concat", &store, "whole", "part", "--json"]));
    assert_eq!((&joined["first"], &joined["end"]), (&json!(100), &json!(133)));
    let both: Vec<u64> = whole.iter().chain(&part).copied().collect();
    assert_eq!(read(&store, "whole", &[]), both);
    append(&store, "whole", 7..8);
    sound(&store);
    refused(&place, &["fork", &store, "log", "part"], "exists already");
    refused(
        &place,
        &["fork", &store, "log", "new", "--at", "101"],
        "offset 101",
    );
    refused(&place, &["fork", &store, "part", "new", "--at", "12"], "deleted");
    refused(&place, &["fork", &store, "none", "new"], "no log is named");
    refused(&place, &["fork", &store, "log", ""], "not a log name");
    refused(&place, &["concat", &store, "log", "log"], "behind itself");
    refused(&place, &["concat", &store, "log", "none"], "no log is named");
}

#[test]
fn a_dropped_log_is_gone_and_its_forks_are_not() {
    let place = Place::new();
    let store = store_of(&place, "log", 50);
    well(&run(&["fork", &store, "log", "kept"]));
    let plan = planned(&place, &["drop", &store, "log"]);
    assert_eq!((&plan["messages"], &plan["end"]), (&json!(50), &json!(50)));
    let done = json_of(&run(&["drop", &store, "log", "--json"]));
    assert!(done["version"].is_u64() && done["messages"] == 50, "{done}");
    assert_eq!(code(&run(&["read", &store, "log"])), 2);
    assert_eq!(read(&store, "kept", &[]).len(), 50);
    refused(&place, &["drop", &store, "log"], "no log is named");
    append(&store, "log", 0..3);
    assert_eq!(read(&store, "log", &[]), [0, 1, 2]);
    sound(&store);
}

#[test]
fn named_snapshots_outlast_the_log() {
    let place = Place::new();
    let store = store_of(&place, "log", 20);
    append(&store, "other", 0..5);
    assert_eq!(
        stdout(&run(&["snapshot", "list", &store])),
        "no named snapshots\n"
    );
    let made = json_of(&run(&["snapshot", "create", &store, "all", "--json"]));
    assert_eq!(made["snapshots"].as_array().unwrap().len(), 2);
    well(&run(&["snapshot", "create", &store, "one", "log"]));
    well(&run(&["delete", &store, "log", "3..17"]));
    well(&run(&["drop", &store, "other"]));
    let listed = json_of(&run(&["snapshot", "list", &store, "--json"]));
    let labels: Vec<_> = listed["snapshots"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (row["label"].as_str().unwrap(), row["log"].as_str().unwrap()))
        .collect();
    assert_eq!(labels, [("all", "log"), ("all", "other"), ("one", "log")]);
    let held: Vec<u64> = (0..20).collect();
    assert_eq!(read(&store, "log", &["--snapshot", "all"]), held);
    assert_eq!(read(&store, "other", &["--snapshot", "all"]), held[..5]);
    assert_eq!(read(&store, "log", &[]).len(), 6);
    sound(&store);
    let plan = planned(&place, &["snapshot", "drop", &store, "all"]);
    let done = json_of(&run(&["snapshot", "drop", &store, "all", "--json"]));
    assert_eq!(plan["snapshots"], done["snapshots"]);
    sound(&store);
    refused(&place, &["snapshot", "drop", &store, "all"], "\"all\"");
    refused(&place, &["snapshot", "create", &store, "one"], "one");
    refused(
        &place,
        &["snapshot", "create", &store, "new", "none"],
        "no log is named",
    );
    refused(&place, &["read", &store, "log", "--snapshot", "all"], "all");
}

#[test]
fn what_makes_no_sense_is_refused_and_changes_nothing() {
    let place = Place::new();
    let store = store_of(&place, "log", 10);
    for (range, words) in [
        ("8..3", "before it begins"),
        ("0..11", "behind the last message"),
        ("12..", "ends before it begins"),
        ("-1..3", "negative"),
        ("3", "FROM..TO"),
        ("3..=5", "first offset that is kept"),
    ] {
        refused(&place, &["delete", &store, "log", range], words);
        refused(&place, &["delete", &store, "log", range, "--dry-run"], words);
    }
    for (limit, value, words) in [
        ("--max-age", "0s", "keep nothing"),
        ("--max-age", "-5m", "negative"),
        ("--max-age", "90", "unit"),
        ("--max-age", "999999999w", "hundred years"),
        ("--max-bytes", "0", "keep nothing"),
        ("--max-bytes", "-1", "negative"),
        ("--max-bytes", "10k", "units"),
        ("--max-bytes", "99999999999GiB", "so many"),
        ("--max-messages", "0", "keep nothing"),
        ("--max-messages", "-3", "negative"),
        ("--from", "11", "behind the last message"),
        ("--from", "-1", "negative"),
    ] {
        refused(&place, &["retain", &store, "log", limit, value], words);
        refused(
            &place,
            &["retain", &store, "log", limit, value, "--dry-run"],
            words,
        );
    }
    refused(&place, &["retain", &store, "log"], "--max-age");
    for arguments in [
        &["delete", store.as_str(), "none", "0..1"][..],
        &["retain", &store, "none", "--from", "1"],
        &["drop", &store, "none"],
    ] {
        refused(&place, arguments, "no log is named \"none\"");
        refused(
            &place,
            &[arguments, &["--dry-run"]].concat(),
            "no log is named \"none\"",
        );
    }
    let held: Vec<u64> = (0..10).collect();
    assert_eq!(read(&store, "log", &[]), held);
    // A store that is not there is not made.
    let nowhere = place.text("nowhere");
    for arguments in [
        &["delete", nowhere.as_str(), "log", "0..1"][..],
        &["retain", &nowhere, "log", "--from", "1"],
        &["fork", &nowhere, "log", "new"],
        &["concat", &nowhere, "log", "new"],
        &["drop", &nowhere, "log"],
        &["snapshot", "create", &nowhere, "label"],
    ] {
        refused(&place, arguments, "does not exist");
        assert!(!place.path("nowhere").exists(), "{arguments:?}");
    }
}

#[test]
fn what_is_printed_of_hostile_names_steers_no_terminal() {
    let place = Place::new();
    let name = "a\u{202e}b";
    let store = store_of(&place, name, 10);
    let label = "c\u{2066}d";
    for arguments in [
        &["delete", store.as_str(), name, "1..2"][..],
        &["retain", &store, name, "--from", "3"],
        &["fork", &store, name, "e\u{200f}f"],
        &["concat", &store, "e\u{200f}f", name],
        &["snapshot", "create", &store, label],
        &["snapshot", "list", &store],
        &["snapshot", "drop", &store, label],
        &["drop", &store, name],
    ] {
        let output = run(arguments);
        well(&output);
        let told = stdout(&output) + &stderr(&output);
        assert!(
            !told.contains(['\u{202e}', '\u{2066}', '\u{200f}']),
            "{arguments:?}: {told:?}"
        );
        assert!(told.contains("\\u{"), "{arguments:?}: {told:?}");
    }
}

/// A terminal: the side of the person, and the side of the program.
fn terminal() -> (File, OwnedFd) {
    let person = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&person).unwrap();
    unlockpt(&person).unwrap();
    let name = ptsname(&person, Vec::new()).unwrap();
    let program = rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
    (File::from(person), program)
}

#[test]
fn deleted_runs_are_shown_where_that_is_asked_for() {
    let place = Place::new();
    let store = store_of(&place, "log", 20);
    well(&run(&["delete", &store, "log", "5..9"]));
    well(&run(&["delete", &store, "log", "9..10"]));
    well(&run(&["delete", &store, "log", "18..20"]));
    let output = run(&["read", &store, "log", "--json", "--deleted", "--from", "4"]);
    well(&output);
    let lines = stdout(&output);
    let items: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(items.len(), 11, "{lines}");
    assert_eq!(items[0]["value"], "4");
    assert_eq!(items[1], json!({"offset": 5, "deleted": 5}));
    assert_eq!(items[2]["offset"], 10);
    assert_eq!(items[10], json!({"offset": 18, "deleted": 2}));
    assert_eq!(
        code(&run(&["read", &store, "log", "--deleted"])),
        2,
        "only as JSON"
    );
}

#[test]
fn a_log_comes_back_from_a_named_snapshot() {
    let place = Place::new();
    let store = store_of(&place, "log", 30);
    well(&run(&["snapshot", "create", &store, "monday"]));
    well(&run(&["drop", &store, "log"]));
    let fork = ["fork", &store, "log", "back", "--snapshot"];
    refused(&place, &[&fork[..], &["tuesday"]].concat(), "tuesday");
    refused(&place, &[&fork[..], &["monday", "--at", "3"]].concat(), "--at");
    let report = json_of(&run(&[&fork[..], &["monday", "--json"]].concat()));
    assert_eq!((&report["first"], &report["end"]), (&json!(0), &json!(30)));
    assert_eq!(read(&store, "back", &[]), (0..30).collect::<Vec<_>>());
    sound(&store);
}

/// Runs the tool with a person at its terminal who types something; what it says on standard error comes back.
fn at_a_terminal(arguments: &[&str], typed: &str) -> Output {
    let (mut person, program) = terminal();
    let child = lanterman(arguments)
        .stdin(Stdio::from(program.try_clone().unwrap()))
        .stdout(Stdio::from(program))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    person.write_all(typed.as_bytes()).unwrap();
    let reading = std::thread::spawn(move || {
        // The terminal ends with an error once the program has closed its side.
        let mut shown = Vec::new();
        let _ended = person.read_to_end(&mut shown);
        shown
    });
    let output = child.wait_with_output().unwrap();
    let stdout = reading.join().unwrap();
    Output { stdout, ..output }
}

#[test]
fn a_person_at_the_terminal_is_asked_and_only_yes_goes_on() {
    let place = Place::new();
    let store = store_of(&place, "log", 30);
    well(&run(&["snapshot", "create", &store, "label"]));
    let calls = [
        &["delete", store.as_str(), "log", "0..5"][..],
        &["retain", &store, "log", "--from", "10"],
        &["snapshot", "drop", &store, "label"],
        &["drop", &store, "log"],
    ];
    for arguments in calls {
        let denied = at_a_terminal(arguments, "no\n");
        assert_eq!(code(&denied), 1, "{}", stderr(&denied));
        assert!(stderr(&denied).contains("Type yes"), "{}", stderr(&denied));
        assert_eq!(read(&store, "log", &[]).len(), 30);
        let planned = at_a_terminal(&[arguments, &["--dry-run"]].concat(), "");
        well(&planned);
        assert!(!stderr(&planned).contains("Type yes"));
    }
    let unasked = at_a_terminal(&["delete", &store, "log", "20..25", "--yes"], "");
    well(&unasked);
    assert!(stderr(&unasked).is_empty(), "{}", stderr(&unasked));
    for (arguments, left) in calls.into_iter().zip([20, 15, 15]) {
        well(&at_a_terminal(arguments, "yes\n"));
        assert_eq!(read(&store, "log", &[]).len(), left);
    }
    well(&at_a_terminal(calls[3], "yes\n"));
    assert_eq!(code(&run(&["read", &store, "log"])), 2);
}
