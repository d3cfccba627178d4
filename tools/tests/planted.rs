//! Promise: the tool is not led astray by what stands in a store's place: it follows no link, waits for no FIFO, and repairs
//! nothing through either. Shown with links, FIFOs and second names in place of a store's files.
#![allow(
    clippy::print_stderr,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests stop at the first surprise, and say what they skip"
)]

mod common;
#[path = "../../engine/tests/common/processes.rs"]
mod processes;

use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use common::{Place, code, copy_tree, run, run_with, stderr, stdout, tree_of, well};
use processes::within;

/// Longer than any call takes, on any machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn make_store(place: &Place) -> String {
    let store = place.text("store");
    let text: String = (0..3000).map(|number| format!("{number:0>500}\n")).collect();
    well(&run_with(&["append", &store, "log"], text.as_bytes()));
    std::fs::create_dir(place.path("outside")).unwrap();
    place.file("outside/canary", b"canary");
    store
}

fn files(store: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(store.join("segments"))
        .unwrap()
        .map(|entry| format!("segments/{}", entry.unwrap().file_name().into_string().unwrap()))
        .collect();
    names.push("root".to_owned());
    names.sort();
    names
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn no_command_follows_a_link_or_waits_for_a_fifo_in_place_of_a_file_of_the_store() {
    let place = Place::new();
    let store = make_store(&place);
    let whole = place.path("whole");
    copy_tree(Path::new(&store), &whole);
    for (number, name) in files(&whole).iter().enumerate() {
        for plant in ["link", "fifo", "directory"] {
            let broken = place.path(&format!("broken-{number}-{plant}"));
            copy_tree(&whole, &broken);
            let path = broken.join(name);
            let moved = place.path(&format!("outside/moved-{number}-{plant}"));
            std::fs::rename(&path, &moved).unwrap();
            match plant {
                "link" => symlink(&moved, &path).unwrap(),
                "fifo" => assert!(Command::new("mkfifo").arg(&path).status().unwrap().success()),
                _ => std::fs::create_dir(&path).unwrap(),
            }
            let before = tree_of(&place.path("outside"));
            for command in [
                &["verify"][..],
                &["inspect"],
                &["repair"],
                &["repair", "--apply"],
                &["logs"],
            ] {
                let mut arguments = command.to_vec();
                arguments.insert(1, broken.to_str().unwrap());
                let context = format!("{command:?} with a {plant} at {name}");
                let output = within(PATIENCE, &context, || run(&arguments));
                // Listing logs looks into the segments that it needs, the others look into all.
                if command != ["logs"] {
                    assert_ne!(code(&output), 0, "{context}: {}", stdout(&output));
                    let told = format!("{}{}", stderr(&output), stdout(&output));
                    assert!(told.contains(name.as_str()), "{context}: {told}");
                }
            }
            assert!(
                tree_of(&place.path("outside")) == before,
                "a {plant} at {name}: something outside was changed"
            );
        }
    }
}

#[test]
fn repair_writes_through_no_link_and_into_no_file_with_a_second_name() {
    let place = Place::new();
    let store = make_store(&place);
    flip(&place.path("store/root"), 100);
    let root = place.path("store/root");
    let outside = place.path("outside/root");
    std::fs::hard_link(&root, &outside).unwrap();
    let before = std::fs::read(&outside).unwrap();
    let output = run(&["repair", &store, "--apply"]);
    assert_eq!(code(&output), 2, "{}", stdout(&output));
    assert!(stderr(&output).contains("root"), "{}", stderr(&output));
    assert!(stderr(&output).contains("hard links"), "{}", stderr(&output));
    assert!(
        std::fs::read(&outside).unwrap() == before,
        "it was written through the link"
    );
    std::fs::remove_file(&root).unwrap();
    symlink(&outside, &root).unwrap();
    let output = run(&["repair", &store, "--apply"]);
    assert_ne!(code(&output), 0);
    assert!(
        std::fs::read(&outside).unwrap() == before,
        "it was written through the link"
    );
    std::fs::remove_file(&root).unwrap();
    std::fs::rename(&outside, &root).unwrap();
    well(&run(&["repair", &store, "--apply"]));
    well(&run(&["verify", &store]));
}

#[test]
fn what_repair_keeps_is_for_its_owner_alone_whatever_the_umask() {
    for umask in ["0", "0777", "022"] {
        let place = Place::new();
        let store = make_store(&place);
        flip(&place.path("store/root"), 100);
        let status = Command::new("sh")
            .args(["-c", &format!("umask {umask}; exec \"$0\" \"$@\"")])
            .args([env!("CARGO_BIN_EXE_lanterman"), "repair", &store, "--apply"])
            .output()
            .unwrap();
        well(&status);
        let kept = std::fs::read_dir(place.path("")).unwrap().find_map(|entry| {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            name.starts_with("store.damaged-").then(|| entry.path())
        });
        let kept = kept.unwrap();
        let mode = |path: &Path| path.metadata().unwrap().mode() & 0o7777;
        assert_eq!(mode(&kept), 0o700, "umask {umask}");
        assert_eq!(mode(&kept.join("root")), 0o600, "umask {umask}");
    }
}
