//! Promise: names and values never steer the terminal of whoever looks at a store, never become paths, and come back as they
//! were given. Shown with hostile names of logs, files and stores through every command.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests stop at the first surprise"
)]

mod common;
#[path = "../../engine/tests/common/hostile_names.rs"]
mod hostile_names;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::process::Output;

use common::{Place, code, lanterman, run, run_with, stderr, stdout, well};

/// Whether a terminal would be steered, or text turned round.
fn steers(character: char) -> bool {
    character.is_control() && character != '\n' && character != '\t'
        || matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Nothing of the output steers a terminal. Bytes that are no text would be shown as such, and C1 characters stand in them
/// only where they are text.
#[track_caller]
fn harmless(output: &Output) {
    for bytes in [&output.stdout, &output.stderr] {
        let text = std::str::from_utf8(bytes).unwrap();
        assert!(!text.contains(steers), "{text:?}");
        assert!(!text.contains("panicked"), "{text}");
    }
}

fn with_bytes(arguments: &[&[u8]]) -> Output {
    let arguments = arguments.iter().map(|argument| OsStr::from_bytes(argument));
    lanterman(&[]).args(arguments).output().unwrap()
}

#[test]
fn names_come_back_as_they_were_given_and_steer_no_terminal() {
    let place = Place::new();
    let store = place.text("store");
    let mut names = hostile_names::allowed();
    for name in &names {
        let output = run_with(&["append", &store, "--", name], name.as_bytes());
        well(&output);
        harmless(&output);
    }
    let listed = run(&["logs", &store, "--json"]);
    well(&listed);
    harmless(&listed);
    let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    let listed: Vec<_> = listed["logs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|log| log["name"].as_str().unwrap().to_owned())
        .collect();
    names.sort();
    assert_eq!(listed, names);
    for arguments in [
        &["logs", store.as_str()][..],
        &["inspect", &store],
        &["inspect", &store, "--json"],
        &["verify", &store],
        &["verify", &store, "--json"],
        &["repair", &store],
    ] {
        let output = run(arguments);
        well(&output);
        harmless(&output);
    }
    for name in names.iter().filter(|name| !name.contains('\u{2028}')) {
        let output = run(&["read", &store, "--", name]);
        assert_eq!(stdout(&output).strip_suffix('\n'), Some(name.as_str()));
    }
    let entries: Vec<_> = std::fs::read_dir(place.path(""))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(entries, ["store"], "something was made outside of the store");
}

#[test]
fn names_that_no_log_can_have_are_refused_by_every_command_and_shown_harmlessly() {
    let place = Place::new();
    let store = place.text("store");
    well(&run_with(&["append", &store, "log"], b"x\n"));
    let refused = hostile_names::refused();
    // A NUL cannot be handed over on a command line.
    let text = refused
        .iter()
        .filter(|name| !name.contains('\0'))
        .map(String::as_bytes);
    for name in text.chain(hostile_names::NOT_TEXT) {
        for command in ["append", "read"] {
            let output = with_bytes(&[command.as_bytes(), store.as_bytes(), b"--", name]);
            assert_eq!(code(&output), 2, "{command} {name:?}: {}", stderr(&output));
            harmless(&output);
        }
    }
    assert_eq!(
        stdout(&run(&["logs", &store, "--json"]))
            .matches("\"name\"")
            .count(),
        1
    );
}

#[test]
fn values_steer_no_terminal_where_they_are_not_asked_for_byte_by_byte() {
    let place = Place::new();
    let store = place.text("store");
    let value = "\u{1b}[2J\u{9b}31m\u{7f}\u{202e}evil\u{8}\r";
    well(&run_with(
        &["append", &store, "log", "--key-delimiter", ":"],
        format!("{value}:{value}\n").as_bytes(),
    ));
    for arguments in [
        &["read", store.as_str(), "log", "--json"][..],
        &["logs", &store],
        &["inspect", &store],
        &["verify", &store],
    ] {
        let output = run(arguments);
        well(&output);
        harmless(&output);
    }
    let json: serde_json::Value =
        serde_json::from_slice(&run(&["read", &store, "log", "--json"]).stdout).unwrap();
    assert_eq!(
        (json["key"].as_str(), json["value"].as_str()),
        (Some(value), Some(value))
    );
    // What went in comes out, byte for byte, for whoever asks for it.
    assert_eq!(stdout(&run(&["read", &store, "log"])), format!("{value}\n"));
}

#[test]
fn errors_about_hostile_paths_and_arguments_steer_no_terminal() {
    let place = Place::new();
    let store = place.text("store");
    let evil = "\u{1b}[2J\u{1b}]0;owned\u{7}\u{9b}1m\u{202e}x";
    well(&run_with(&["append", &store, "log"], b"x\n"));
    let beside = place.text(&format!("nothing-{evil}"));
    for arguments in [
        &["append", store.as_str(), "log", &beside][..],
        &["append", &store, evil],
        &["read", &store, evil],
        &["read", &beside, "log"],
        &["read", &store, "log", "--from", evil],
        &["logs", &beside],
        &["inspect", &beside],
        &["verify", &beside],
        &["repair", &beside],
        &[evil],
        &["logs", "--option", evil],
        &["logs", &format!("--{evil}")],
    ] {
        let output = run(arguments);
        assert_eq!(code(&output), 2, "{arguments:?}: {}", stdout(&output));
        assert!(!stderr(&output).is_empty());
        harmless(&output);
    }
    // Files that somebody put among the store's own, and a foreign directory.
    std::fs::write(place.path("store/segments").join(format!("{evil}.txt")), b"x").unwrap();
    for command in ["verify", "inspect"] {
        let output = run(&[command, &store]);
        well(&output);
        harmless(&output);
    }
    std::fs::create_dir(place.path("foreign")).unwrap();
    std::fs::write(place.path("foreign").join(evil), b"x").unwrap();
    let output = run_with(&["append", &place.text("foreign"), "log"], b"x\n");
    assert_eq!(code(&output), 2);
    harmless(&output);
    // The store itself in a directory of such a name.
    let output = run_with(&["append", &place.text(evil), "log"], b"x\n");
    well(&output);
    std::fs::remove_file(place.path(evil).join("root")).unwrap();
    for command in ["logs", "verify", "repair", "inspect"] {
        let output = run(&[command, &place.text(evil)]);
        assert_ne!(code(&output), 0, "{command}");
        harmless(&output);
    }
}
