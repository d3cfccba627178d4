//! One suite that every disk passes, and what only the disk of the system can show.

mod suite;
mod system;
mod wrappers;

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use super::*;

/// Runs a function of the suite on every disk.
fn on_every_disk(check: fn(&dyn Disk, &Path)) {
    let directory = tempfile::tempdir().unwrap();
    for (number, (name, disk)) in system_disks().into_iter().enumerate() {
        let root = directory.path().join(format!("{number}-{name}"));
        disk.create_directory(&root).unwrap();
        check(&*disk, &root);
    }
    let over_system = SystemDisk::new(SystemOptions::for_tests()).unwrap();
    let root = directory.path().join("wrapped");
    over_system.create_directory(&root).unwrap();
    check(&FaultyDisk::new(Arc::new(over_system)), &root);
    let root = Path::new("/suite");
    let in_memory: [Box<dyn Disk>; 3] = [
        Box::new(MemoryDisk::new()),
        Box::new(FaultyDisk::new(Arc::new(MemoryDisk::new()))),
        Box::new(RecordingDisk::new(Arc::new(MemoryDisk::new()))),
    ];
    for disk in in_memory {
        disk.create_directory(root).unwrap();
        check(&*disk, root);
    }
}

/// The disk of the system in every way in which this machine lets it work.
fn system_disks() -> Vec<(&'static str, Box<dyn Disk>)> {
    let mut disks: Vec<(&'static str, Box<dyn Disk>)> = Vec::new();
    for (name, ring, direct) in [
        ("ring", Choice::Required, Choice::Auto),
        ("plain", Choice::Off, Choice::Auto),
        ("ring-buffered", Choice::Required, Choice::Off),
        ("plain-buffered", Choice::Off, Choice::Off),
    ] {
        match SystemDisk::new(SystemOptions {
            ring,
            direct,
            ..SystemOptions::for_tests()
        }) {
            Ok(disk) => disks.push((name, Box::new(disk))),
            Err(error) => skip(name, &error),
        }
    }
    disks
}

#[allow(
    clippy::print_stderr,
    reason = "A skipped test must say so where the tester looks."
)]
fn skip(what: &str, error: &io::Error) {
    eprintln!("skipped: {what}: {error}");
}

/// Bytes that differ from page to page and from seed to seed.
fn pattern(bytes: usize, seed: u8) -> AlignedBuffer {
    let mut buffer = AlignedBuffer::new(bytes).unwrap();
    for (position, byte) in buffer.iter_mut().enumerate() {
        *byte = u8::try_from((position / 7 + position / 4096 * 31) % 251).unwrap() ^ seed;
    }
    buffer
}

/// Runs one test of this program again, in a child with a variable set, by a shell line that ends in `exec "$0" "$@"`
/// or the like.
fn child(shell: &str, test: &str, variable: &str, value: &Path) -> Command {
    let mut command = Command::new("sh");
    command
        .args(["-c", shell])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(variable, value)
        .stdout(Stdio::null());
    command
}

fn contents(file: &dyn DiskFile) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(file.bytes().unwrap()).unwrap()];
    assert_eq!(read_full_at(file, 0, &mut bytes).unwrap(), bytes.len());
    bytes
}

fn shared(bytes: AlignedBuffer) -> SharedBytes {
    Arc::new(bytes)
}
