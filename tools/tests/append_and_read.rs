//! Promise: what goes in by `append` comes out by `read` byte for byte, whatever the bytes are, in any amount, and a
//! closed pipe ends a call quietly. Shown by driving the real tool and comparing all bytes.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests stop at the first surprise"
)]

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;
use std::time::{Duration, Instant};

use common::{Place, Random, code, lanterman, run, run_with, stderr, stdout, well};

#[test]
fn binary_lines_come_out_as_they_went_in() {
    let seed = 0x5eed_0001;
    let mut input = Random(seed).bytes(300_000);
    input.push(b'\n');
    let place = Place::new();
    let store = place.text("store");
    well(&run_with(&["append", &store, "binary"], &input));
    let read = run(&["read", &store, "binary"]);
    well(&read);
    assert!(read.stdout == input, "the bytes differ, seed {seed:#x}");
}

#[test]
fn a_hundred_thousand_lines_from_a_file_come_out_as_they_went_in() {
    let seed = 0x5eed_0002;
    let mut random = Random(seed);
    let mut input = Vec::new();
    for number in 0..100_000 {
        let length = usize::try_from(random.below(60)).unwrap();
        writeln!(input, "{number} {}", "x".repeat(length)).unwrap();
    }
    let place = Place::new();
    let (store, file) = (place.text("store"), place.file("lines", &input));
    let appended = run(&["append", &store, "lines", &file]);
    well(&appended);
    let bytes = input.len() - 100_000;
    assert_eq!(
        stdout(&appended),
        format!("appended 100000 messages, {bytes} bytes, offsets 0..100000\n")
    );
    let read = run(&["read", &store, "lines"]);
    assert!(read.stdout == input, "the bytes differ, seed {seed:#x}");
    let part = run(&["read", &store, "lines", "--from", "99998", "--count", "1"]);
    let expected = input.split_inclusive(|byte| *byte == b'\n').nth(99_998).unwrap();
    assert!(part.stdout == expected, "the part differs");
}

#[test]
fn a_last_line_without_a_newline_an_empty_line_and_a_carriage_return_are_kept() {
    let place = Place::new();
    let store = place.text("store");
    let appended = run_with(&["append", &store, "odd"], b"one\r\n\n\xffend");
    assert_eq!(stdout(&appended), "appended 3 messages, 8 bytes, offsets 0..3\n");
    assert_eq!(run(&["read", &store, "odd"]).stdout, b"one\r\n\n\xffend\n");
}

#[test]
fn null_separated_and_whole_messages_may_hold_newlines() {
    let place = Place::new();
    let store = place.text("store");
    well(&run_with(&["append", &store, "null", "--null"], b"a\nb\0c\0"));
    assert_eq!(run(&["read", &store, "null", "--null"]).stdout, b"a\nb\0c\0");
    let (first, second) = (place.file("1", b"x\ny\n"), place.file("2", b""));
    let appended = run(&["append", &store, "whole", "--whole", &first, &second]);
    assert_eq!(stdout(&appended), "appended 2 messages, 4 bytes, offsets 0..2\n");
    assert_eq!(run(&["read", &store, "whole"]).stdout, b"x\ny\n\n\n");
}

#[test]
fn a_file_of_any_length_is_one_message_and_comes_out_whole() {
    let place = Place::new();
    let store = place.text("store");
    let film: Vec<u8> = (0..3_000_001_u32).map(|number| (number % 251) as u8).collect();
    let file = place.file("film", &film);
    let short = place.file("short", b"short");
    let appended = run(&["append", &store, "films", "--whole", &file, &short, "--json"]);
    well(&appended);
    let report: serde_json::Value = serde_json::from_slice(&appended.stdout).unwrap();
    assert_eq!(
        (&report["messages"], &report["bytes"]),
        (&2.into(), &3_000_006.into())
    );
    let read = run(&["read", &store, "films"]);
    well(&read);
    assert!(read.stdout == [&film, &b"\nshort\n"[..]].concat());
    let lines = stdout(&run(&["read", &store, "films", "--json"]));
    let first: serde_json::Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    let head = first["offset"].as_u64().unwrap();
    assert_eq!(report["end_offset"], head + 2);
    assert_eq!(
        (&first["value_bytes"], &first["type"]),
        (&3_000_001.into(), &"bytes".into())
    );
    let stats: serde_json::Value =
        serde_json::from_slice(&run(&["stats", &store, "films", "--json"]).stdout).unwrap();
    assert_eq!((&stats["messages"], &stats["parts"]), (&2.into(), &head.into()));
    well(&run(&["verify", &store]));
    // With a limit of its own it is a message of one piece, or refused.
    let refused = run(&["append", &store, "films", "--whole", "--limit", "2999999", &file]);
    assert_eq!(code(&refused), 1);
    assert!(stderr(&refused).contains("more than 2999999 bytes"));
    // A value of which the beginning was deleted is told, and the rest is read.
    well(&run(&["delete", &store, "films", "0..2", "--yes"]));
    let cut = run(&["read", &store, "films"]);
    assert_eq!((code(&cut), cut.stdout.as_slice()), (1, &b"short\n"[..]));
    assert!(stderr(&cut).contains("offset 0 was deleted"), "{}", stderr(&cut));
    // A source that cannot be read leaves nothing.
    let directory = run(&["append", &store, "films", "--whole", "/"]);
    assert_eq!(code(&directory), 2);
}

#[test]
fn keys_go_in_and_out() {
    let place = Place::new();
    let store = place.text("store");
    well(&run_with(
        &["append", &store, "keys", "--key-delimiter", ":"],
        b"a:1:2\nplain\n:empty key\n",
    ));
    let read = run(&["read", &store, "keys", "--keys", "--key-delimiter", ":"]);
    assert_eq!(read.stdout, b"a:1:2\nplain\n:empty key\n");
    assert_eq!(
        run(&["read", &store, "keys", "--keys"]).stdout,
        b"a\t1:2\nplain\n\tempty key\n"
    );
    assert_eq!(run(&["read", &store, "keys"]).stdout, b"1:2\nplain\nempty key\n");
}

#[test]
fn json_is_one_object_a_line_with_text_or_hexadecimal_digits() {
    let place = Place::new();
    let store = place.text("store");
    well(&run_with(
        &["append", &store, "json", "--key-delimiter", "="],
        b"k=\"quoted\"\n\xfe=\xff\n",
    ));
    let read = run(&["read", &store, "json", "--json"]);
    let lines: Vec<serde_json::Value> = stdout(&read)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let expected = [
        serde_json::json!({"offset": 0, "value": "\"quoted\"", "type": "bytes", "key": "k"}),
        serde_json::json!({"offset": 1, "value_hex": "ff", "type": "bytes", "key_hex": "fe"}),
    ];
    assert_eq!(lines, expected);
    let logs: serde_json::Value = serde_json::from_slice(&run(&["logs", &store, "--json"]).stdout).unwrap();
    assert_eq!(logs["logs"][0]["name"], "json");
    assert_eq!(logs["logs"][0]["durable_end"], 2);
    let report = run_with(&["append", &store, "json", "--json", "--acks"], b"more\n");
    let lines: Vec<serde_json::Value> = stdout(&report)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines[0]["durable"], 3);
    assert_eq!(
        (&lines[1]["messages"], &lines[1]["first_offset"]),
        (&1.into(), &2.into())
    );
}

#[test]
fn a_pipe_that_closes_ends_a_reader_quietly() {
    let place = Place::new();
    let store = place.text("store");
    let input = "some line\n".repeat(200_000);
    well(&run_with(&["append", &store, "long"], input.as_bytes()));
    for extra in [&[][..], &["--follow"], &["--json"]] {
        let arguments = [&["read", store.as_str(), "long"][..], extra].concat();
        let mut child = lanterman(&arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut some = [0u8; 100];
        let mut pipe = child.stdout.take().unwrap();
        pipe.read_exact(&mut some).unwrap();
        drop(pipe);
        let output = child.wait_with_output().unwrap();
        assert_eq!((code(&output), stderr(&output)), (0, String::new()), "{extra:?}");
    }
}

#[test]
fn a_following_reader_sees_what_another_process_commits_and_ends_with_its_pipe() {
    let place = Place::new();
    let store = place.text("store");
    well(&run_with(&["append", &store, "log"], b"first\n"));
    let mut reader = lanterman(&["read", &store, "log", "--follow"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(reader.stdout.take().unwrap());
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    assert_eq!(line, "first\n");
    // The second call commits in many steps, and makes a checkpoint at its end.
    let input: String = (0..500).map(|number| format!("line {number}\n")).collect();
    well(&run_with(
        &["append", &store, "log", "--commit-every", "50"],
        input.as_bytes(),
    ));
    let mut followed = String::new();
    for _ in 0..500 {
        lines.read_line(&mut followed).unwrap();
    }
    assert!(followed == input, "what was followed differs");
    let began = Instant::now();
    drop(lines);
    while reader.try_wait().unwrap().is_none() {
        if began.elapsed() > Duration::from_secs(10) {
            reader.kill().unwrap();
            panic!("an idle reader does not notice that its pipe is closed");
        }
        std::thread::yield_now();
    }
    let output = reader.wait_with_output().unwrap();
    assert_eq!((code(&output), stderr(&output)), (0, String::new()));
}
