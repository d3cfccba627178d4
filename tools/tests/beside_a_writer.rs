//! Promise: a store can be read, listed, inspected and verified while another process writes it, and what a running
//! writer is just doing is never taken for damage. Shown by doing so over and over while commits, slabs, checkpoints and
//! recycled journals follow each other.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests stop at the first surprise"
)]

mod common;

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::Stdio;

use common::{Place, code, lanterman, run, run_with, stderr, stdout, well};

#[test]
fn what_a_running_writer_does_is_never_taken_for_damage() {
    let place = Place::new();
    let store = place.text("store");
    well(&run_with(&["append", &store, "log"], b"0\n"));
    let mut writer = lanterman(&["append", &store, "log", "--commit-every", "2000"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = writer.stdin.take().unwrap();
    let feeding = std::thread::spawn(move || {
        let mut text = String::new();
        for block in 0..60u64 {
            text.clear();
            for number in 0..20_000 {
                writeln!(text, "{:0>120}", block * 20_000 + number + 1).unwrap();
            }
            stdin.write_all(text.as_bytes()).unwrap();
        }
    });
    let mut rounds = 0;
    while writer.try_wait().unwrap().is_none() {
        for arguments in [
            &["read", store.as_str(), "log", "--count", "1"][..],
            &["logs", &store],
            &["inspect", &store],
            &["verify", &store],
        ] {
            let output = run(arguments);
            let command = arguments[0];
            assert_eq!(
                code(&output),
                0,
                "{command}: {}{}",
                stderr(&output),
                stdout(&output)
            );
        }
        rounds += 1;
    }
    feeding.join().unwrap();
    assert!(rounds > 0, "the writer ended before anybody looked");
    well(&run(&["verify", &store]));
    assert_eq!(stdout(&run(&["logs", &store])).lines().count(), 2);
}
