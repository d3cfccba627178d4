//! Promise: `append` onto a full disk says what to do about it, keeps what it acknowledged, and goes on once there is room.
//! Shown on small ext4 and XFS file systems in image files; skipped with a message where they cannot be mounted.
#![allow(
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "tests stop at the first surprise, and say what they skip"
)]

mod common;
#[path = "../../engine/tests/common/loop_disk.rs"]
mod loop_disk;

use common::{code, run, run_with, stderr, stdout, well};
use loop_disk::{FileSystem, LoopDisk};

fn fill(kind: FileSystem) {
    let disk = match LoopDisk::new(kind, 40) {
        Ok(disk) => disk,
        Err(why) => return eprintln!("skipped: {kind:?}: {why}"),
    };
    disk.fill_with("weight", 6 << 20);
    let store = disk.path().join("store").to_str().unwrap().to_owned();
    let lines = |first: u64| -> Vec<String> {
        (first..first + 12_000)
            .map(|number| format!("{number:0>1000}"))
            .collect()
    };
    let input = lines(0).join("\n");
    let full = run_with(
        &["append", &store, "log", "--commit-every", "200", "--acks"],
        input.as_bytes(),
    );
    let told = stderr(&full);
    assert_eq!(code(&full), 2, "{told}");
    for part in ["no space left", "free some space", "are on disk"] {
        assert!(told.contains(part), "{part:?} is not in {told:?}");
    }
    let acknowledged: u64 = stdout(&full)
        .lines()
        .filter_map(|line| line.strip_prefix("durable ")?.parse().ok())
        .max()
        .unwrap();
    assert!(acknowledged >= 1000, "{acknowledged} messages were acknowledged");
    assert!(told.contains(&acknowledged.to_string()), "{told}");
    // Reading, listing and checking go on where nothing can be written.
    let read = run(&["read", &store, "log"]);
    well(&read);
    let there = stdout(&read).lines().count() as u64;
    assert!(there >= acknowledged, "{there} of {acknowledged} are there");
    assert!(
        stdout(&read)
            .lines()
            .eq(lines(0).iter().take(there.try_into().unwrap()))
    );
    for command in ["logs", "inspect", "verify"] {
        well(&run(&[command, &store]));
    }
    // Another call meets the same, or finds the room that the first one could not use; it loses nothing either.
    disk.fill_with("rest", 0);
    let again = run_with(&["append", &store, "log"], input.as_bytes());
    assert_eq!(code(&again), 2, "{}", stdout(&again));
    assert!(stderr(&again).contains("free some space"), "{}", stderr(&again));
    let there = stdout(&run(&["read", &store, "log"])).lines().count() as u64;
    assert!(there >= acknowledged);
    for ballast in ["weight", "rest"] {
        std::fs::remove_file(disk.path().join(ballast)).unwrap();
    }
    well(&run_with(&["append", &store, "log"], b"with room again\n"));
    let read = stdout(&run(&["read", &store, "log"]));
    assert_eq!(read.lines().count() as u64, there + 1);
    assert!(read.ends_with("with room again\n"));
    well(&run(&["verify", &store]));
}

#[test]
fn append_onto_a_full_ext4_disk_says_what_to_do_and_keeps_what_it_acknowledged() {
    fill(FileSystem::Ext4);
}

#[test]
fn append_onto_a_full_xfs_disk_says_what_to_do_and_keeps_what_it_acknowledged() {
    fill(FileSystem::Xfs);
}
