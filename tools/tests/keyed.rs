//! Promise: a log can be made keyed, asked for a key, read as a table and compacted from the shell, and `verify` finds a store
//! in which that was done sound.
#![allow(clippy::unwrap_used, reason = "tests stop at the first surprise")]

mod common;

use common::{Place, code, run, run_with, stderr, stdout, well};

fn append(store: &str, lines: &str) {
    let call = ["append", store, "users", "-", "--key-delimiter", ":"];
    well(&run_with(&call, lines.as_bytes()));
}

#[test]
fn a_log_is_a_table_from_the_shell() {
    let place = Place::new();
    let store = place.text("store");
    well(&run_with(&["append", &store, "other", "-"], b"first\n"));
    well(&run(&["keyed", &store, "users", "--marker-grace", "1s"]));
    append(&store, "bob:old\nalice:one\nbob:new\n\u{fc}:two\n");
    let get = |key: &str| run(&["get", &store, "users", "--key", key]);
    assert_eq!(stdout(&get("bob")), "new\n");
    let missing = get("carol");
    assert_eq!((code(&missing), stdout(&missing)), (1, String::new()));
    assert!(
        stderr(&missing).contains("nothing of this key"),
        "{}",
        stderr(&missing)
    );
    let json = stdout(&run(&["get", &store, "users", "--key-hex", "626F62", "--json"]));
    assert_eq!(
        json,
        "{\"offset\":2,\"value\":\"new\",\"type\":\"bytes\",\"key\":\"bob\"}\n"
    );
    assert_eq!(
        stdout(&run(&["read", &store, "users", "--latest"])),
        "one\nnew\ntwo\n"
    );
    let some = run(&["read", &store, "users", "--latest", "--prefix", "b", "--keys"]);
    assert_eq!(stdout(&some), "bob\tnew\n");
    let plan = stdout(&run(&["compact", &store, "users", "--dry-run", "--json"]));
    assert!(plan.contains("\"keys\":3"), "{plan}");
    let told = stdout(&run(&["stats", &store, "users", "--keys", "--json"]));
    assert!(told.contains("\"keys\":{\"keys\":3,"), "{told}");
    assert!(told.contains("\"superseded\":1,"), "{told}");
    let compacted = run(&["compact", &store, "users"]);
    well(&compacted);
    assert!(
        stdout(&compacted).starts_with("removed 1 messages"),
        "{}",
        stdout(&compacted)
    );
    assert_eq!(stdout(&run(&["read", &store, "users"])), "one\nnew\ntwo\n");
    append(&store, "bob:newest\n");
    let compacted = stdout(&run(&["compact", &store, "users", "--json"]));
    assert!(compacted.contains("\"removed\":1,"), "{compacted}");
    assert_eq!(stdout(&get("bob")), "newest\n");
    well(&run(&["gc", &store]));
    let verified = run(&["verify", &store]);
    well(&verified);
    assert_eq!(
        stdout(&run(&["read", &store, "users", "--latest"])),
        "one\nnewest\ntwo\n"
    );
}

#[test]
fn a_file_of_any_length_is_the_value_of_a_key_and_comes_out_whole() {
    let place = Place::new();
    let store = place.text("store");
    let (old, new) = (vec![b'o'; 2_000_000], vec![b'n'; 3_000_000]);
    let (old_file, new_file) = (place.text("old"), place.text("new"));
    std::fs::write(&old_file, &old).unwrap();
    std::fs::write(&new_file, &new).unwrap();
    well(&run_with(&["append", &store, "other", "-"], b"first\n"));
    well(&run(&["keyed", &store, "users"]));
    let without = run(&["append", &store, "users", "--whole", &old_file]);
    assert!(stderr(&without).contains("needs a key"), "{}", stderr(&without));
    let put = |file: &str| {
        well(&run(&[
            "append", &store, "users", "--whole", "--key", "film", file,
        ]));
    };
    put(&old_file);
    append(&store, "bob:small\n");
    put(&new_file);
    let whole = [&new[..], b"\n"].concat();
    let check = || {
        assert!(run(&["get", &store, "users", "--key", "film"]).stdout == whole);
        let json = stdout(&run(&["get", &store, "users", "--key", "film", "--json"]));
        assert!(
            json.contains("\"value_bytes\":3000000,\"type\":\"bytes\""),
            "{json}"
        );
        let latest = [b"small\n", &whole[..]].concat();
        assert!(run(&["read", &store, "users", "--latest"]).stdout == latest);
    };
    check();
    let compacted = stdout(&run(&["compact", &store, "users", "--json"]));
    assert!(
        compacted.contains("\"removed\":1,\"removed_bytes\":200"),
        "{compacted}"
    );
    check();
    well(&run(&["gc", &store]));
    well(&run(&["verify", &store]));
    let told = stdout(&run(&["stats", &store, "users", "--json"]));
    assert!(told.contains("\"deleted\":9,\"parts\":12,"), "{told}");
}

#[test]
fn what_cannot_be_is_refused_with_the_reason() {
    let place = Place::new();
    let store = place.text("store");
    well(&run_with(&["append", &store, "plain", "-"], b"first\n"));
    let cases: [(&[&str], &str); 7] = [
        (&["keyed", &store, "plain"], "only an empty log"),
        (
            &["keyed", &store, "new", "--space-amplification", "100"],
            "more than 100",
        ),
        (&["get", &store, "plain", "--key", "a"], "not keyed"),
        (&["get", &store, "absent", "--key", "a"], "no log is named"),
        (&["get", &store, "plain", "--key-hex", "abc"], "hexadecimal"),
        (&["compact", &store, "plain"], "not keyed"),
        (&["read", &store, "plain", "--latest"], "not keyed"),
    ];
    for (call, reason) in cases {
        let refused = run(call);
        assert_eq!(code(&refused), 2, "{call:?}");
        assert!(
            stderr(&refused).contains(reason),
            "{call:?}: {}",
            stderr(&refused)
        );
    }
    well(&run(&["keyed", &store, "users"]));
    let unkeyed = run_with(&["append", &store, "users", "-"], b"no key\n");
    assert_eq!(code(&unkeyed), 2);
    assert!(stderr(&unkeyed).contains("needs a key"), "{}", stderr(&unkeyed));
    well(&run(&["keyed", &store, "users", "--off"]));
    well(&run_with(&["append", &store, "users", "-"], b"no key\n"));
}
