//! Promise: every message that `append --acks` called durable is there after `kill -9` at any time, in order. Shown by
//! killing the real process at random moments and opening again.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests stop at the first surprise"
)]

mod common;

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use common::{Place, Random, lanterman, run, stdout, well};

#[test]
fn every_acknowledged_message_survives_a_kill_at_any_time() {
    let seed = 0x5eed_0003;
    let mut random = Random(seed);
    let place = Place::new();
    let store = place.text("store");
    let mut known = 0u64;
    for round in 0..12 {
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
        let wanted = 1 + random.below(60);
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
