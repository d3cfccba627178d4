//! A test that runs itself again in a child process, and a watchdog for what must not hang.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "each test uses a part of this; tests stop at the first surprise"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

/// Where a child finds the place that it is to work in.
const PLACE: &str = "LANTERMAN_TEST_CHILD_PLACE";

/// Runs the test named `test` of this program again, in a child of its own that a shell line such as
/// `umask 0; exec "$0" "$@"` prepares.
pub fn child(shell: &str, test: &str, place: &Path) -> Command {
    let mut command = Command::new("sh");
    command
        .args(["-c", shell])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(PLACE, place)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command
}

/// The place, in a child; nothing in the test itself.
pub fn place_of_child() -> Option<PathBuf> {
    std::env::var_os(PLACE).map(PathBuf::from)
}

/// Whether the long form of a test is asked for.
pub fn is_deep() -> bool {
    std::env::var_os("LANTERMAN_DEEP").is_some_and(|value| value != "0" && !value.is_empty())
}

/// Says that something was not tested, and why.
pub fn skip(what: &str, why: impl std::fmt::Display) {
    eprintln!("skipped: {what}: {why}");
}

/// Ends the whole program if `work` takes longer than anything may: a hang cannot be told in any other way.
pub fn within<T>(limit: Duration, what: &str, work: impl FnOnce() -> T) -> T {
    let (done, waiting) = channel::<()>();
    let what = what.to_owned();
    let watching = std::thread::spawn(move || {
        if waiting.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
            eprintln!("{what} hangs");
            std::process::abort();
        }
    });
    let outcome = work();
    drop(done);
    watching.join().unwrap();
    outcome
}
