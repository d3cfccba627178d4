//! Promise: `verify`, `inspect` and `repair` end soon on any store, however malformed, with one of their exit codes and without
//! a panic; and what a reader calls damaged, `verify` reports. Shown on malformed stores whose checksums fit, and on the store
//! that has every structure with damage in every block of it. `LANTERMAN_DEEP=1` takes all of them, otherwise a sample by seed.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    reason = "tests stop at the first surprise"
)]

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::{Place, Random, code, run, stderr, stdout};
use lanterman_fuzz::crafted::crafted;
use lanterman_fuzz::crafted::reading::{Answers, read};
use lanterman_fuzz::flat::FlatDisk;
use lanterman_fuzz::hostile::{Case, cases};

fn is_deep() -> bool {
    std::env::var_os("LANTERMAN_DEEP").is_some()
}

fn seed() -> u64 {
    let given = std::env::var("LANTERMAN_SEED").ok();
    given
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| u64::from(std::process::id()))
}

/// Where a file of the crafted store goes below `store`.
fn target(store: &Path, path: &Path) -> PathBuf {
    store.join(path.strip_prefix("/store").unwrap())
}

fn lay_out(case: &Case, store: &Path) {
    let _ = std::fs::remove_dir_all(store);
    std::fs::create_dir_all(store.join("segments")).unwrap();
    for (path, bytes, length) in &case.files {
        let target = target(store, path);
        std::fs::write(&target, bytes).unwrap();
        if *length > bytes.len() as u64 {
            let file = std::fs::OpenOptions::new().write(true).open(&target).unwrap();
            #[allow(
                clippy::disallowed_methods,
                reason = "a sparse file is what the case is about"
            )]
            file.set_len(*length).unwrap();
        }
    }
}

#[test]
fn the_tool_ends_with_an_exit_code_on_every_malformed_store() {
    let place = Place::new();
    let (store, seed) = (place.text("store"), seed());
    let mut random = Random(seed | 1);
    let mut tried = 0;
    for case in cases() {
        // Longer files than a file system takes are tried in memory alone.
        let sampled = is_deep() || random.below(12) == 0;
        if !sampled || case.length() > 1 << 30 {
            continue;
        }
        tried += 1;
        lay_out(&case, &place.path("store"));
        for arguments in [
            vec!["verify", &store],
            vec!["inspect", &store],
            vec!["logs", &store],
            vec!["repair", &store],
            vec!["repair", &store, "--apply"],
        ] {
            let output = run(&arguments);
            let told = format!("{} (seed {seed}): {arguments:?}: {}", case.name, stderr(&output));
            assert!((0..=2).contains(&code(&output)), "exit {}: {told}", code(&output));
            assert!(!told.contains("panicked"), "{told}");
        }
    }
    eprintln!("seed {seed}: {tried} malformed stores");
}

#[test]
fn what_a_reader_calls_damaged_verify_reports_too() {
    let place = Place::new();
    let (store, seed) = (place.text("store"), seed());
    let mut random = Random(seed | 1);
    let crafted = crafted();
    let flips = if is_deep() { 40 } else { 5 };
    let mut damaged = 0;
    for block in &crafted.places {
        for _ in 0..flips {
            let mut files = crafted.files.clone();
            let at = block.position + usize::try_from(random.below(block.bytes as u64)).unwrap();
            files[block.file].1[at] ^= 1 << random.below(8);
            let answers = read(&crafted, Arc::new(FlatDisk::with(&files)));
            let name = format!("{} byte {at}, seed {seed}", block.name);
            let with_length = |(path, bytes): (PathBuf, Vec<u8>)| {
                let length = bytes.len() as u64;
                (path, bytes, length)
            };
            let case = Case {
                name: name.clone(),
                files: files.into_iter().map(with_length).collect(),
            };
            lay_out(&case, &place.path("store"));
            let verified = run(&["verify", &store]);
            let told = format!("{name}: {answers:?}: {}{}", stdout(&verified), stderr(&verified));
            assert!(!told.contains("panicked"), "{told}");
            match &answers {
                Answers::Damaged(_) | Answers::Refused(_) => {
                    assert_ne!(code(&verified), 0, "{told}");
                    damaged += 1;
                }
                Answers::EndsAt(_) => {
                    assert!(
                        code(&verified) != 0 || told.contains("note: the journal ends"),
                        "{told}"
                    );
                }
                // One root slot of two, the header of gathered tails: no reader misses them, and damaged they are.
                Answers::Same => {}
            }
        }
    }
    assert!(
        damaged > 50,
        "{damaged} readers found damage: the sample looks at nothing"
    );
}
