//! Promise: `verify` and `inspect` count the pages of a store as the library does, though they share no code for it, and
//! every page is one of live, garbage and free.
#![allow(clippy::unwrap_used, reason = "tests stop at the first surprise")]

mod common;

use common::{Place, run, well};
use lanterman::{Background, Durability, Options, Space, Store};
use serde_json::Value;

/// Live with what is pinned, garbage, free.
type Parts = [u64; 3];

fn counted(store: &str, command: &str) -> (u64, Parts) {
    let output = run(&[command, store, "--json"]);
    well(&output);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        report.get("notes"),
        Some(&Value::Array(Vec::new())),
        "nothing is odd"
    );
    let space = |name: &str| {
        report
            .get("space")
            .and_then(|space| space.get(name)?.as_u64())
            .unwrap()
    };
    let parts = ["live", "garbage", "free"].map(space);
    assert_eq!(parts.iter().sum::<u64>(), space("bytes"), "{report}");
    (space("bytes"), parts)
}

fn known(space: &Space) -> (u64, Parts) {
    (
        space.bytes,
        [space.live + space.pinned, space.garbage, space.free],
    )
}

/// The library counts by what is referred to now, the tools by the newest checkpoint: the same, once there is one.
#[track_caller]
fn agree(store: &Store, path: &str) -> Parts {
    let space = store.space().unwrap();
    let (bytes, parts) = known(&space);
    for command in ["verify", "inspect"] {
        let (counted_bytes, counted) = counted(path, command);
        assert_eq!(counted_bytes, bytes, "{command}: {space:?}");
        assert_eq!(counted, parts, "{command}: {space:?}");
    }
    parts
}

#[test]
fn the_tools_count_what_the_library_counts() {
    let place = Place::new();
    let path = place.text("store");
    let options = Options::new()
        .background(Background::Manual)
        .collect(false)
        .slab_segment_bytes(4 << 20, 4 << 20);
    let store = options.open_copying(&path).unwrap();
    for name in ["first", "second"] {
        let mut writer = store.writer(name).unwrap();
        for number in 0..20_000_u64 {
            writer
                .append(&[u8::try_from(number % 251).unwrap(); 200])
                .unwrap();
        }
        writer.commit(Durability::Disk).unwrap();
        drop(writer);
        while store.step().unwrap() {}
        store.checkpoint().unwrap();
    }
    let full = agree(&store, &path);
    store.fork("first", "fork").unwrap();
    store.create_snapshot("kept", &[]).unwrap();
    store.delete("first", 1_000..15_000).unwrap();
    store.drop_log("second").unwrap();
    store.checkpoint().unwrap();
    let shared = agree(&store, &path);
    assert!(
        shared[0] >= full[0],
        "the snapshot holds all of it: {full:?}, {shared:?}"
    );
    store.drop_snapshot("kept").unwrap();
    store.drop_log("fork").unwrap();
    store.checkpoint().unwrap();
    store.checkpoint().unwrap();
    let dropped = agree(&store, &path);
    assert!(dropped[0] < full[0] / 2, "{full:?}, {dropped:?}");
    assert!(dropped[1] > full[1] + 3_000_000, "{full:?}, {dropped:?}");
    store.collect().unwrap();
    let collected = agree(&store, &path);
    assert!(collected[1] < dropped[1] / 4, "{dropped:?}, {collected:?}");
    store.close().unwrap();
}
