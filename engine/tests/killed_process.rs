//! Promise: a killed process loses nothing that was committed, at either level; the next one opens the store by itself and at
//! once, and readers that were killed stand in nobody's way. Shown by killing real processes at random moments.
//!
//! `LANTERMAN_DEEP=1` kills 250 writers in place of 10.
#![allow(
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "tests stop at the first surprise, and say what they did"
)]

#[path = "common/processes.rs"]
mod processes;
#[path = "common/witness.rs"]
mod witness;

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use lanterman::disk::Choice;
use lanterman::{Durability, Options};
use processes::{child, is_deep, place_of_child, within};
use witness::{Ack, Random, Witness, Work, quick};

/// Longer than opening and reading a store of this size takes, on any machine.
const PATIENCE: Duration = Duration::from_secs(120);
const RUN: &str = "LANTERMAN_TEST_RUN";

fn options(run: u64) -> Options {
    let choice = |bit: u64| if run & bit == 0 { Choice::Auto } else { Choice::Off };
    quick().ring(choice(1)).direct(choice(2))
}

/// The life of a writer, until it is killed: everything that was committed is told on standard output.
fn write_until_killed(place: &Path) {
    let run: u64 = std::env::var(RUN).unwrap().parse().unwrap();
    let store = options(run).open_copying(place.join("store")).unwrap();
    let stop = AtomicBool::new(false);
    let work = Work {
        run,
        level: Durability::Process,
        seed: run.wrapping_mul(0x2545_f491_4f6c_dd1d),
        stop: &stop,
        tell: &|ack| std::io::stdout().write_all(ack.to_line().as_bytes()).unwrap(),
    };
    let errors = work.go_on(&store);
    panic!("a writer ended by itself: {errors:?}");
}

/// Starts a writer, kills it after a while, and takes down what it was promised.
fn kill_one(place: &Path, run: u64, after: Duration, witness: &mut Witness) -> usize {
    let mut writer = child(
        "exec \"$0\" \"$@\"",
        "every_commit_of_a_killed_process_is_there_when_the_store_is_opened_again",
        place,
    )
    .env(RUN, run.to_string())
    .stdout(Stdio::piped())
    .spawn()
    .unwrap();
    let mut told = BufReader::new(writer.stdout.take().unwrap());
    let listening = std::thread::spawn(move || {
        let (mut acks, mut line) = (Vec::new(), Vec::new());
        // What was on its way when the process was killed was promised too.
        while told.read_until(b'\n', &mut line).unwrap() > 0 {
            acks.extend(Ack::from_line(&String::from_utf8_lossy(&line)));
            line.clear();
        }
        acks
    });
    std::thread::park_timeout(after);
    if let Some(status) = writer.try_wait().unwrap() {
        panic!("the writer of run {run} ended by itself: {status}");
    }
    writer.kill().unwrap();
    writer.wait().unwrap();
    let acks = listening.join().unwrap();
    for ack in &acks {
        witness.hear(ack);
    }
    acks.len()
}

#[test]
fn every_commit_of_a_killed_process_is_there_when_the_store_is_opened_again() {
    if let Some(place) = place_of_child() {
        write_until_killed(&place);
    }
    let (kills, seed) = (if is_deep() { 250 } else { 10 }, 0x5eed_4b11);
    let mut random = Random(seed);
    let mut witness = Witness::default();
    let (mut acks, mut early) = (0, 0);
    let directory = tempfile::tempdir().unwrap();
    for run in 1..=kills {
        // Half of them while a process starts, opens or creates; the others in the midst of everything.
        let after = match run % 2 {
            0 => Duration::from_micros(random.below(60_000)),
            _ => Duration::from_millis(60 + random.below(340)),
        };
        // A fresh store now and then: creation is interrupted too, and reading all of it stays cheap.
        if run % 12 == 0 {
            std::fs::remove_dir_all(directory.path().join("store")).unwrap();
            witness.forget();
        }
        let told = kill_one(directory.path(), run, after, &mut witness);
        acks += told;
        early += u64::from(told == 0);
        let context = format!("run {run}, killed after {after:?}, seed {seed:#x}");
        within(PATIENCE, &context, || {
            // The lock is free at once: nobody waits, and nobody tries again.
            let store = options(run + 1).open_copying(directory.path().join("store"));
            let store = store.unwrap_or_else(|error| panic!("{context}: {error}"));
            if let Err(wrong) = witness.check(&store) {
                panic!("{context}: {wrong}");
            }
            if run % 3 == 0 {
                store.close().unwrap();
            }
        });
    }
    assert!(
        acks > 100,
        "only {acks} commits were acknowledged: too few to say anything"
    );
    eprintln!(
        "{kills} kills, {early} of them before the first commit, {acks} commits acknowledged, {} messages read back, 0 lost",
        witness.messages_seen
    );
}

fn start_reader(place: &Path) -> Child {
    let mut reader = child(
        "exec \"$0\" \"$@\"",
        "killed_readers_stop_counting_at_once_and_their_slots_serve_others",
        place,
    )
    .stdin(Stdio::piped())
    .stdout(Stdio::piped())
    .spawn()
    .unwrap();
    let mut told = BufReader::new(reader.stdout.take().unwrap());
    let mut line = String::new();
    while !line.ends_with("reading\n") {
        assert!(
            told.read_line(&mut line).unwrap() > 0,
            "the reader ended by itself"
        );
    }
    reader
}

#[test]
fn killed_readers_stop_counting_at_once_and_their_slots_serve_others() {
    if let Some(place) = place_of_child() {
        let store = Options::new()
            .read_only(true)
            .open_copying(place.join("store"))
            .unwrap();
        let _held = store.snapshot("log").unwrap();
        std::io::stdout().write_all(b"reading\n").unwrap();
        // Ends by itself when the parent is gone, whatever became of it.
        std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let store = quick().open_copying(place.path().join("store")).unwrap();
    let mut writer = store.writer("log").unwrap();
    for round in 0..if is_deep() { 40 } else { 3 } {
        writer.append(b"message").unwrap();
        writer.commit(Durability::Disk).unwrap();
        let mut readers: Vec<_> = (0..3).map(|_| start_reader(place.path())).collect();
        let mut expected: Vec<_> = readers.iter().map(|reader| u64::from(reader.id())).collect();
        expected.sort_unstable();
        let views = store.readers().unwrap();
        let mut seen: Vec<_> = views.iter().map(|view| view.process).collect();
        seen.sort_unstable();
        assert_eq!(seen, expected, "round {round}");
        // Whoever died in earlier rounds left no slot behind.
        assert!(views.iter().all(|view| view.slot < 3), "round {round}: {views:?}");
        // Each stands on the newest checkpoint that there was.
        assert!(views.iter().all(|view| view.version <= store.version()));
        for reader in &mut readers {
            reader.kill().unwrap();
            reader.wait().unwrap();
        }
        assert_eq!(store.readers().unwrap(), [], "round {round}");
    }
}

/// A second process is told that the store is taken, until the first one is killed.
#[test]
fn a_second_writer_is_refused_until_the_first_one_is_killed() {
    if let Some(place) = place_of_child() {
        let _store = Options::new().open_copying(place.join("store")).unwrap();
        std::io::stdout().write_all(b"reading\n").unwrap();
        std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
        return;
    }
    let place = tempfile::tempdir().unwrap();
    for round in 0..3 {
        let mut first = child(
            "exec \"$0\" \"$@\"",
            "a_second_writer_is_refused_until_the_first_one_is_killed",
            place.path(),
        )
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
        let mut told = BufReader::new(first.stdout.take().unwrap());
        let mut line = String::new();
        while !line.ends_with("reading\n") {
            assert!(
                told.read_line(&mut line).unwrap() > 0,
                "the first ended by itself"
            );
        }
        let refused = Options::new().open_copying(place.path().join("store"));
        assert!(
            matches!(refused, Err(lanterman::Error::Locked { .. })),
            "round {round}: two writers at once"
        );
        first.kill().unwrap();
        first.wait().unwrap();
        let store = Options::new().open_copying(place.path().join("store")).unwrap();
        store.close().unwrap();
    }
}
