//! Promise: a log can be compressed from the shell, reads the same, takes less room, and `verify` and `inspect` look into its
//! batches; calls that make no sense are refused with the reason.
#![allow(clippy::unwrap_used, reason = "tests stop at the first surprise")]

mod common;

use common::{Place, code, run, run_with, stderr, stdout, well};

fn lines() -> String {
    (0..20_000)
        .map(|number| {
            format!("{{\"number\":{number},\"what\":\"a line as a program writes it\",\"state\":\"well\"}}\n")
        })
        .collect()
}

#[test]
fn a_log_is_compressed_from_the_shell() {
    let place = Place::new();
    let store = place.text("store");
    let lines = lines();
    well(&run_with(&["append", &store, "other", "-"], b"first\n"));
    let told = run(&[
        "compress", &store, "packed", "--codec", "zstd", "--level", "5", "--json",
    ]);
    well(&told);
    assert_eq!(
        stdout(&told),
        "{\"log\":\"packed\",\"compressed\":true,\"codec\":\"zstd\",\"level\":5,\"batch_bytes\":65536}\n"
    );
    for log in ["packed", "plain"] {
        well(&run_with(&["append", &store, log, "-"], lines.as_bytes()));
    }
    let read = run(&["read", &store, "packed"]);
    well(&read);
    assert!(stdout(&read) == lines, "what is read is not what was appended");
    well(&run(&["verify", &store]));
    let inspected = stdout(&run(&["inspect", &store, "--json"]));
    let bytes = |log: &str| {
        let from = inspected.find(&format!("\"name\":\"{log}\"")).unwrap();
        let rest = &inspected[from..];
        let at = rest.find("\"slab_bytes\":").unwrap() + "\"slab_bytes\":".len();
        let digits: String = rest[at..].chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<u64>().unwrap()
    };
    assert!(bytes("packed") * 4 < bytes("plain"), "{inspected}");
    well(&run(&["compress", &store, "packed", "--off"]));
    well(&run_with(&["append", &store, "packed", "-"], lines.as_bytes()));
    assert!(stdout(&run(&["read", &store, "packed"])) == lines.repeat(2));
    well(&run(&["verify", &store]));
}

#[test]
fn calls_that_make_no_sense_are_refused() {
    let place = Place::new();
    let store = place.text("store");
    well(&run_with(&["append", &store, "other", "-"], b"first\n"));
    for call in [
        &["--codec", "gzip"][..],
        &["--level", "20", "--codec", "zstd"],
        &["--level", "0", "--codec", "zstd"],
        &["--batch-bytes", "17MiB"],
        &["--batch-bytes", "0"],
        &["--batch-bytes", "100GiB"],
        &["--off", "--codec", "lz4"],
    ] {
        let refused = run(&[&["compress", &store, "events"], call].concat());
        assert_eq!(code(&refused), 2, "{call:?}: {}", stdout(&refused));
        assert!(!stderr(&refused).is_empty(), "{call:?}");
    }
    assert_eq!(code(&run(&["compress", &place.text("nowhere"), "events"])), 2);
}
