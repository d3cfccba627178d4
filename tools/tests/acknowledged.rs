//! Promise: every message that `append --acks` called durable is there after `kill -9` at any time, in order. Shown by
//! killing the real process at random moments and opening again. `LANTERMAN_DEEP=1` kills ten times as often.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests stop at the first surprise"
)]

mod common;

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::time::Duration;

use common::{Place, Random, code, lanterman, run, stdout, well};

#[test]
fn every_acknowledged_message_survives_a_kill_at_any_time() {
    let seed = 0x5eed_0003;
    let mut random = Random(seed);
    let place = Place::new();
    let store = place.text("store");
    let mut known = 0u64;
    let rounds = if std::env::var_os("LANTERMAN_DEEP").is_some() {
        120
    } else {
        12
    };
    for round in 0..rounds {
        let mut child = lanterman(&["append", &store, "log", "--commit-every", "10", "--acks"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let start = known;
        let feeding = std::thread::spawn(move || {
            for number in start.. {
                if writeln!(stdin, "message {number}").is_err() {
                    return;
                }
            }
        });
        // Every third is killed by the clock: while it starts, creates, opens, or has hardly begun.
        let wanted = if round % 3 == 2 { 0 } else { 1 + random.below(60) };
        if wanted == 0 {
            std::thread::park_timeout(Duration::from_micros(random.below(60_000)));
        }
        let mut acknowledged = 0u64;
        let mut acks = BufReader::new(child.stdout.take().unwrap()).lines();
        for _ in 0..wanted {
            let line = acks.next().unwrap().unwrap();
            acknowledged = line.strip_prefix("durable ").unwrap().parse().unwrap();
        }
        child.kill().unwrap();
        // Acknowledgements that were on their way count too.
        for line in acks.map_while(Result::ok) {
            if let Some(count) = line.strip_prefix("durable ").and_then(|count| count.parse().ok()) {
                acknowledged = acknowledged.max(count);
            }
        }
        child.wait().unwrap();
        feeding.join().unwrap();
        let read = run(&["read", &store, "log"]);
        if acknowledged == 0 && known == 0 && code(&read) == 2 {
            // Killed before there was a log, or a store; the next round makes it.
            continue;
        }
        well(&read);
        let text = stdout(&read);
        known = text.lines().count() as u64;
        assert!(
            known >= acknowledged,
            "{known} of {acknowledged} are there, round {round}, seed {seed:#x}"
        );
        let expected: String = (0..known).map(|number| format!("message {number}\n")).collect();
        assert!(
            text == expected,
            "order or content is wrong, round {round}, seed {seed:#x}"
        );
    }
    well(&run(&["verify", &store]));
}
