//! Promise: rules can be set, shown and tried on what is there, they hold for `append`, and what is no rule is refused with
//! its place and changes nothing.
#![allow(clippy::unwrap_used, reason = "tests stop at the first surprise")]

mod common;

use common::{Place, code, run, run_with, stderr, stdout, well};

const RULES: &str = r#"{"rules": [
    {"name": "small", "require": {"value_bytes": {"max": 20}}},
    {"name": "numbered", "require": {"cel": "json.n >= 0"}, "on_violation": {"divert": "dead"}}
]}"#;

fn append(store: &str, lines: &str) -> std::process::Output {
    run_with(&["append", store, "events", "-"], lines.as_bytes())
}

#[test]
fn rules_are_set_shown_held_and_taken_away() {
    let place = Place::new();
    let store = place.text("store");
    let file = place.file("rules.json", RULES.as_bytes());
    well(&append(&store, "{\"n\": 1}\nolder than the rules\n"));
    let planned = run(&["constrain", &store, "events", &file, "--dry-run"]);
    well(&planned);
    assert!(stdout(&run(&["constraints", &store, "events"])).contains("no rules"));
    well(&run(&["constrain", &store, "events", &file]));
    let shown = stdout(&run(&["constraints", &store, "events"]));
    assert!(
        shown.contains("small: {\"value_bytes\":{\"max\":20}}, or \"refuse\""),
        "{shown}"
    );
    let document = stdout(&run(&["constraints", &store, "events", "--json"]));
    let again = place.file("again.json", document.as_bytes());
    well(&run(&["constrain", &store, "events", &again, "--json"]));
    let found = run(&["check", &store, "events"]);
    assert_eq!(code(&found), 1);
    assert!(
        stdout(&found).contains("offset 1: rule \"numbered\""),
        "{}",
        stdout(&found)
    );
    well(&append(&store, "{\"n\": 2}\n"));
    let refused = append(&store, "{\"n\": 3, \"long\": \"xxxxxxxxxxxxxxxx\"}\n");
    assert_eq!(code(&refused), 2, "{}", stderr(&refused));
    assert!(
        stderr(&refused).contains("rule \"small\""),
        "{}",
        stderr(&refused)
    );
    let diverted = append(&store, "{\"n\": -1}\n");
    assert!(stderr(&diverted).contains("\"dead\""), "{}", stderr(&diverted));
    assert_eq!(stdout(&run(&["read", &store, "dead"])), "{\"n\": -1}\n");
    well(&run(&["constrain", &store, "events", "--clear"]));
    well(&append(&store, "anything at all, however long it may be\n"));
    well(&run(&["check", &store, "events"]));
    let tried = run(&[
        "check", &store, "events", "--rules", &file, "--count", "1", "--json",
    ]);
    assert_eq!((code(&tried), stdout(&tried).lines().count()), (1, 1));
}

#[test]
fn what_is_no_rule_is_refused_with_its_place() {
    let place = Place::new();
    let store = place.text("store");
    well(&append(&store, "a\n"));
    for (text, told) in [
        ("{", "line 1"),
        (r#"{"rules": [{"name": "x", "require": "nothing"}]}"#, "nothing"),
        (
            r#"{"rules": [{"name": "x", "require": {"cel": "json.n >"}}]}"#,
            "line 1, column 9",
        ),
        (
            r#"{"rules": [{"name": "x", "require": {"json_schema": {"type": "strin"}}}]}"#,
            "json_schema/type",
        ),
        (
            r#"{"rules": [{"name": "x", "require": "key", "on_violation": {"divert": "events"}}]}"#,
            "itself",
        ),
    ] {
        let file = place.file("rules.json", text.as_bytes());
        let refused = run(&["constrain", &store, "events", &file]);
        assert_eq!(code(&refused), 2, "{text}");
        assert!(stderr(&refused).contains(told), "{}", stderr(&refused));
    }
    let file = place.file("rules.json", RULES.as_bytes());
    for arguments in [
        vec!["constrain", &store, "elsewhere", &file],
        vec!["constrain", &store, "events"],
        vec!["constrain", &store, "events", &file, "--clear"],
        vec!["constrain", &store, "events", "/nowhere/rules.json"],
        vec!["check", &store, "elsewhere"],
        vec!["constraints", &store, "elsewhere"],
    ] {
        assert_eq!(code(&run(&arguments)), 2, "{arguments:?}");
    }
    assert!(stdout(&run(&["constraints", &store, "events"])).contains("no rules"));
}
