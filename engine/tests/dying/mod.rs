//! What the tests of dying devices share: a store of two logs, one of which has a segment to itself, readers that tell
//! right bytes from wrong ones, child processes, and a device that fails.
#![allow(
    dead_code,
    unreachable_pub,
    unsafe_code,
    clippy::cast_possible_truncation,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "each test uses a part of this; tests fail by panicking, and stores are opened over maps"
)]

use std::ops::Range;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use lanterman::{Background, Cursor, Durability, Error, ErrorKind, Options, Store};

/// The log that loses a segment, and the one that does not.
pub const DOOMED: &str = "doomed";
pub const OTHER: &str = "other";
pub const DOOMED_MESSAGES: u64 = 3_000;
pub const OTHER_MESSAGES: u64 = 500;

const DIRECTORY: &str = "LANTERMAN_TEST_DIRECTORY";

pub fn options() -> Options {
    Options::new()
        .slab_bytes_max(64 << 10)
        .tail_memory_bytes(1 << 20)
        .slab_segment_bytes(256 << 10, 512 << 10)
        .journal_segment_bytes(64 << 10, 128 << 10)
}

pub fn open_mapped(options: Options, path: &Path) -> Store {
    // SAFETY: that files are cut short under the maps is what these tests are about; nobody rewrites their bytes.
    unsafe { options.open(path) }.unwrap()
}

/// A value that says which it is and has no zero behind its number, so that lost bytes are never right by chance.
pub fn value(number: u64) -> Vec<u8> {
    let mut value = (number | 0xA5A5_A5A5_0000_0000).to_le_bytes().to_vec();
    value.resize(64 + (number as usize * 37) % 1000, (number % 255) as u8 + 1);
    value
}

/// A store whose slabs are all on the disk, and its segments that can be lost.
pub fn make_store(path: &Path) -> Vec<Victim> {
    let store = options()
        .background(Background::Manual)
        .open_copying(path)
        .unwrap();
    for (name, count) in [(DOOMED, DOOMED_MESSAGES), (OTHER, OTHER_MESSAGES)] {
        let mut writer = store.writer(name).unwrap();
        for number in 0..count {
            writer.append(&value(number)).unwrap();
            if number % 100 == 0 {
                while store.step().unwrap() {}
            }
        }
        writer.commit(Durability::Disk).unwrap();
        store.checkpoint().unwrap();
    }
    store.close().unwrap();
    let mut names: Vec<_> = std::fs::read_dir(path.join("segments"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".slabs"))
        .collect();
    names.sort();
    let victims: Vec<_> = names.iter().filter_map(|name| victim(path, name)).collect();
    assert!(!victims.is_empty(), "no segment is the doomed log's alone");
    victims
}

/// A segment that holds messages of the doomed log, and nothing that the other log or the opening needs.
pub struct Victim {
    pub name: String,
    pub first: u64,
    pub end: u64,
}

fn victim(path: &Path, name: &str) -> Option<Victim> {
    let trial = tempfile::tempdir().unwrap();
    let copy = copy_store(path, trial.path());
    std::fs::write(segment(&copy, name), b"").unwrap();
    let store = options().read_only(true).open_copying(&copy).ok()?;
    if !store.damage().is_empty() {
        return None;
    }
    let is_lost = |log: &str, offset| {
        let mut cursor = store.log(log).unwrap().cursor(0u64).unwrap();
        cursor.get(offset).is_err()
    };
    let first = (0..DOOMED_MESSAGES).find(|offset| is_lost(DOOMED, *offset))?;
    let end = (first..DOOMED_MESSAGES).find(|offset| !is_lost(DOOMED, *offset))?;
    let whole = (0..OTHER_MESSAGES).all(|offset| !is_lost(OTHER, offset));
    let name = name.to_owned();
    (whole && end - first > 100).then_some(Victim { name, first, end })
}

pub fn segment(store: &Path, name: &str) -> PathBuf {
    store.join("segments").join(name)
}

pub fn copy_store(from: &Path, into: &Path) -> PathBuf {
    let to = into.join("store");
    run("cp", &["-r", from.to_str().unwrap(), to.to_str().unwrap()]);
    to
}

/// Another program does something to a file.
pub fn run(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).status().unwrap();
    assert!(status.success(), "{program} {arguments:?}: {status}");
}

pub fn cut(path: &Path, bytes: u64) {
    run("truncate", &["-s", &bytes.to_string(), path.to_str().unwrap()]);
}

/// How a reader asks about a message whose bytes it has looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    Check,
    Verify,
    /// Not at all: the cursor's next call must tell.
    Not,
}

/// What a reader found: messages that were right, offsets that it was told are unreadable, and how often it was told
/// instead that the file is damaged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    pub right: u64,
    pub lost: u64,
    pub damaged: u64,
}

/// The offsets that an error names, after a look at what else it says.
pub fn offsets_of(error: &Error) -> Range<u64> {
    match error {
        Error::Unreadable(lost) => {
            assert_eq!(error.kind(), ErrorKind::CheckTheDevice);
            assert!(
                lost.path.to_str().unwrap().contains("/segments/"),
                "{error} names no file"
            );
            assert!(error.to_string().contains("look at the device"), "{error}");
            lost.offsets.clone().expect("the offsets are known")
        }
        // Bytes that were zeroed without a fault, or whose segment was gone before it was opened.
        Error::Damaged(damage) => damage.offsets.clone().expect("the offsets are known"),
        other => panic!("a lost page gives {other}"),
    }
}

/// Reads from where the cursor is to the end. Panics if wrong bytes pass for right ones, or a message is left out without
/// a word.
pub fn read_all(cursor: &mut Cursor, ask: Ask) -> Tally {
    let mut tally = Tally::default();
    // Seen wrong and not yet told of.
    let mut suspect: Option<u64> = None;
    let mut next = cursor.offset().get();
    loop {
        let error = match cursor.next() {
            Ok(Some(message)) => {
                let offset = message.offset().get();
                assert!(
                    suspect.is_none(),
                    "wrong bytes at {suspect:?} passed for right ones"
                );
                assert_eq!(offset, next, "a message is left out");
                let is_right = message.value() == value(offset);
                let asked = match ask {
                    Ask::Check => message.check(),
                    Ask::Verify => message.verify(),
                    Ask::Not => Ok(()),
                };
                match asked {
                    Ok(()) if is_right => tally.right += 1,
                    Ok(()) if ask == Ask::Not => suspect = Some(offset),
                    Ok(()) => panic!("wrong bytes at {offset} were called whole"),
                    Err(error) => {
                        assert_eq!(offsets_of(&error), offset..offset + 1);
                        tally.damaged += u64::from(matches!(error, Error::Damaged(_)));
                        tally.lost += 1;
                    }
                }
                next = offset + 1;
                continue;
            }
            Ok(None) => {
                assert!(
                    suspect.is_none(),
                    "wrong bytes at {suspect:?} passed for right ones"
                );
                return tally;
            }
            Err(error) => error,
        };
        let lost = offsets_of(&error);
        tally.damaged += u64::from(matches!(error, Error::Damaged(_)));
        assert!(
            lost.contains(&next) || lost.contains(&next.saturating_sub(1)),
            "{error} at {next}"
        );
        if suspect.is_some_and(|offset| lost.contains(&offset)) {
            suspect = None;
            tally.lost += 1;
        }
        tally.lost += lost.end.saturating_sub(next);
        let before = next.checked_sub(1);
        next = next.max(lost.end);
        // The next slab could not be opened, and only then were bytes of the message before it lost: seeking tells, once.
        if let Err(error) = cursor.seek(next) {
            let lost = offsets_of(&error);
            assert_eq!(before, Some(lost.start), "{error} while seeking to {next}");
            assert_eq!(lost.end, lost.start + 1, "{error}");
            if suspect.take().is_some() {
                tally.lost += 1;
            }
            cursor.seek(next).unwrap();
        }
    }
}

/// What a child process works on: nothing when the test is run by itself.
pub fn directory() -> Option<PathBuf> {
    std::env::var_os(DIRECTORY).map(PathBuf::from)
}

pub fn setting(name: &str) -> Option<String> {
    std::env::var(format!("LANTERMAN_TEST_{name}")).ok()
}

/// Runs the ignored test `name` in a process of its own, which a wrong store would kill.
pub fn in_a_child(name: &str, directory: &Path, settings: &[(&str, &str)]) -> ExitStatus {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--ignored", "--exact", "--nocapture", name])
        .env(DIRECTORY, directory)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    for (name, value) in settings {
        command.env(format!("LANTERMAN_TEST_{name}"), value);
    }
    command.status().unwrap()
}

pub fn succeeds_in_a_child(name: &str, directory: &Path, settings: &[(&str, &str)]) {
    let status = in_a_child(name, directory, settings);
    assert!(status.success(), "{name} {settings:?}: {status}");
}

/// Whether this is a build with a sanitizer, which has handlers of its own and does not like forks.
pub fn has_sanitizer() -> bool {
    [c"__asan_init", c"__tsan_init"].iter().any(|name| {
        // SAFETY: the name ends with a zero byte, and the call only looks it up.
        !unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) }.is_null()
    })
}

pub fn assert_died_of_the_fault(status: ExitStatus) {
    let is_reported = has_sanitizer() && !status.success();
    assert!(status.signal() == Some(libc::SIGBUS) || is_reported, "{status}");
}

/// The addresses at which files under `path` are mapped.
pub fn maps_of(path: &Path) -> Vec<Range<usize>> {
    let table = std::fs::read_to_string("/proc/self/maps").unwrap();
    let path = path.to_str().unwrap();
    table
        .lines()
        .filter(|line| line.contains(path) && line.contains(".slabs"))
        .map(|line| {
            let (start, rest) = line.split_once('-').unwrap();
            let end = rest.split(' ').next().unwrap();
            let number = |text| usize::from_str_radix(text, 16).unwrap();
            number(start)..number(end)
        })
        .collect()
}

/// Lets the system forget the pages of all files of the store, so that the next touch asks the device.
pub fn forget_pages(store: &Path) {
    for map in maps_of(store) {
        let first = std::ptr::without_provenance_mut(map.start);
        // SAFETY: the range is a shared, read-only map of a file: what is dropped comes back from the file.
        let answer = unsafe { libc::madvise(first, map.len(), libc::MADV_DONTNEED) };
        assert_eq!(answer, 0);
    }
    for entry in std::fs::read_dir(store.join("segments")).unwrap() {
        let path = entry.unwrap().path();
        let input = format!("if={}", path.display());
        run("dd", &[&input, "iflag=nocache", "count=0", "status=none"]);
    }
}
