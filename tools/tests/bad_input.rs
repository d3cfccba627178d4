//! Promise: wrong calls and hostile surroundings get a clear message and the right exit code, and leave nothing behind.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests stop at the first surprise"
)]

mod common;

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::os::unix::ffi::OsStrExt;
use std::process::Stdio;

use common::{Place, code, lanterman, run, run_with, stderr, stdout, tree_of, well};
use lanterman_format::{FormatVersion, Found, RootSlot};

#[track_caller]
fn refused(output: &std::process::Output, expected: i32, words: &[&str]) {
    let told = stderr(output);
    assert_eq!(code(output), expected, "{told}");
    for word in words {
        assert!(told.contains(word), "{word:?} is not in {told:?}");
    }
    assert_eq!(told.lines().filter(|line| line.contains("panicked")).count(), 0);
}

#[test]
fn names_that_no_log_can_have_are_refused_before_anything_is_created() {
    let place = Place::new();
    let store = place.text("store");
    refused(&run_with(&["append", &store, ""], b"x\n"), 2, &["empty"]);
    refused(
        &run_with(&["append", &store, &"n".repeat(256)], b"x\n"),
        2,
        &["255", "256"],
    );
    refused(&run_with(&["append", &store, "a\nb"], b"x\n"), 2, &["control"]);
    let output = lanterman(&["append", &store])
        .arg(OsStr::from_bytes(b"a\xff"))
        .output()
        .unwrap();
    refused(&output, 2, &["UTF-8"]);
    assert!(!place.path("store").exists());
}

#[test]
fn names_with_slashes_and_dots_are_names_like_any_other() {
    let place = Place::new();
    let store = place.text("store");
    for name in ["../../escape", "/etc/passwd", ".", "..", "a b", "żółw"] {
        well(&run_with(&["append", &store, name], name.as_bytes()));
        assert_eq!(stdout(&run(&["read", &store, name])), format!("{name}\n"));
    }
    let names: Vec<_> = std::fs::read_dir(place.path(""))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["store"]);
}

#[test]
fn a_line_over_the_limit_is_named_with_the_limit_and_those_before_it_are_kept() {
    let place = Place::new();
    let store = place.text("store");
    let output = run_with(
        &["append", &store, "log", "--limit", "10"],
        b"1234567890\n12345678901\nthird\n",
    );
    refused(&output, 1, &["line 2", "10 bytes"]);
    assert_eq!(stdout(&output), "appended 1 messages, 10 bytes, offsets 0..1\n");
    assert_eq!(stdout(&run(&["read", &store, "log"])), "1234567890\n");
    let large = place.file("large", &[b'x'; 11]);
    refused(
        &run(&["append", &store, "log", "--whole", "--limit", "10", &large]),
        1,
        &["large", "10 bytes"],
    );
}

#[test]
fn a_directory_that_is_no_store_is_never_written_into() {
    let place = Place::new();
    std::fs::create_dir(place.path("photos")).unwrap();
    place.file("photos/cat.jpg", b"not a store");
    let before = tree_of(&place.path("photos"));
    let photos = place.text("photos");
    refused(
        &run_with(&["append", &photos, "log"], b"x\n"),
        2,
        &["is not a store", "cat.jpg"],
    );
    for command in ["logs", "verify", "repair"] {
        refused(&run(&[command, &photos]), 2, &["is not a store"]);
    }
    refused(&run(&["repair", &photos, "--apply"]), 2, &["is not a store"]);
    assert!(tree_of(&place.path("photos")) == before, "something was written");
}

#[test]
fn unknown_stores_logs_files_and_offsets_are_told_apart() {
    let place = Place::new();
    let store = place.text("store");
    refused(&run(&["read", &store, "log"]), 2, &["does not exist"]);
    refused(
        &run(&["append", &store, "log", &place.text("nothing")]),
        2,
        &["nothing"],
    );
    refused(
        &run(&["append", &store, "log", &place.text("")]),
        2,
        &["directory"],
    );
    assert!(!place.path("store").exists());
    well(&run_with(&["append", &store, "log"], b"a\nb\n"));
    refused(&run(&["read", &store, "other"]), 2, &["other"]);
    refused(
        &run(&["read", &store, "log", "--from", "3"]),
        2,
        &["offset 3", "0..2"],
    );
    let end = run(&["read", &store, "log", "--from", "2"]);
    well(&end);
    assert!(end.stdout.is_empty());
    refused(&run(&["read", &store, "log", "--from", "-1"]), 2, &[]);
    refused(&run(&["frobnicate"]), 2, &["frobnicate"]);
}

#[test]
fn a_second_writer_is_refused_and_readers_are_not() {
    let place = Place::new();
    let store = place.text("store");
    let mut first = lanterman(&["append", &store, "log", "--commit-every", "1", "--acks"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = first.stdin.take().unwrap();
    std::io::Write::write_all(&mut stdin, b"held\n").unwrap();
    let mut line = String::new();
    let mut acks = BufReader::new(first.stdout.take().unwrap());
    acks.read_line(&mut line).unwrap();
    assert_eq!(line, "durable 1\n");
    refused(
        &run_with(&["append", &store, "other"], b"x\n"),
        2,
        &["open for writing elsewhere"],
    );
    refused(
        &run(&["repair", &store, "--apply"]),
        2,
        &["open for writing elsewhere"],
    );
    assert_eq!(stdout(&run(&["read", &store, "log"])), "held\n");
    for command in ["logs", "inspect", "verify"] {
        well(&run(&[command, &store]));
    }
    drop(stdin);
    first.wait().unwrap();
}

#[test]
fn every_command_explains_itself_with_examples_and_exit_codes() {
    for command in [
        "append", "read", "logs", "inspect", "verify", "repair", "delete", "retain", "fork", "concat",
        "drop", "snapshot",
    ] {
        let help = run(&[command, "--help"]);
        well(&help);
        let text = stdout(&help);
        for part in ["Examples:", "Exit codes:", &format!("lanterman {command} ")] {
            assert!(text.contains(part), "{part} is not in the help of {command}");
        }
    }
}

#[test]
fn a_store_of_a_newer_format_is_left_alone_by_every_command() {
    let place = Place::new();
    let store = place.text("store");
    well(&run_with(&["append", &store, "log"], b"x\n"));
    let root = place.path("store/root");
    let mut bytes = std::fs::read(&root).unwrap();
    let Found::Valid(slot) = RootSlot::decode(&bytes[4096..], 1) else {
        panic!("the slot is whole")
    };
    let format = FormatVersion {
        major: slot.format.major + 1,
        minor: 0,
    };
    let mut page = [0u8; 4096];
    RootSlot { format, ..slot }.encode(1, &mut page);
    bytes[4096..8192].copy_from_slice(&page);
    std::fs::write(&root, bytes).unwrap();
    let before = tree_of(&place.path("store"));
    refused(&run_with(&["append", &store, "log"], b"x\n"), 2, &["newer"]);
    for arguments in [
        &["read", store.as_str(), "log"][..],
        &["logs", &store],
        &["verify", &store],
        &["inspect", &store],
    ] {
        refused(&run(arguments), 2, &["newer"]);
    }
    refused(&run(&["repair", &store, "--apply"]), 2, &["newer"]);
    assert!(tree_of(&place.path("store")) == before, "something was written");
}
