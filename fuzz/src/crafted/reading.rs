//! Reading the crafted store through the engine and judging the answers: right as far as they go, and every gap named.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lanterman::disk::Disk;
use lanterman::{Background, Damage, Error, Log, Message, Options, Store};

use super::{Crafted, Expected, NEWEST_VERSION, PATH, Written};

/// What a reader got from a store that may be damaged. Wrong answers are none of these: they are panics.
#[derive(Debug, Clone)]
pub enum Answers {
    /// Every message of every log.
    Same,
    /// The store was refused, or some messages were; each error names its place.
    Damaged(Vec<Damage>),
    /// The store was refused with another error than damage.
    Refused(Error),
    /// Everything up to this version, and nothing behind it, without a word.
    EndsAt(u64),
}

impl Answers {
    /// The messages that cannot be read, by log and offset.
    #[must_use]
    pub fn lost(&self, crafted: &Crafted) -> BTreeSet<(String, u64)> {
        let all = |name: &String, from: usize, to: usize| {
            let name = name.clone();
            (from as u64..to as u64).map(move |offset| (name.clone(), offset))
        };
        let behind = |version: u64| {
            let logs = crafted.logs.iter();
            logs.flat_map(|(name, log)| all(name, log.end_in(version).unwrap_or(0), log.messages.len()))
                .collect()
        };
        match self {
            Answers::Same => BTreeSet::new(),
            Answers::EndsAt(version) => behind(*version),
            Answers::Refused(_) => behind(0),
            Answers::Damaged(damage) => {
                let known = |damage: &Damage| Some((damage.log.clone()?, damage.offsets.clone()?));
                let known: Option<Vec<_>> = damage.iter().map(known).collect();
                let Some(known) = known else {
                    return behind(0);
                };
                known
                    .iter()
                    .flat_map(|(name, lost)| all(name, lost.start as usize, lost.end as usize))
                    .collect()
            }
        }
    }

    /// Whether one of the errors names a place of the journal.
    #[must_use]
    pub fn names_a_journal(&self) -> bool {
        let is_journal = |damage: &Damage| damage.path.extension().is_some_and(|kind| kind == "journal");
        matches!(self, Answers::Damaged(damage) if damage.iter().any(is_journal))
    }

    /// Whether one of the errors names a place of this file.
    #[must_use]
    pub fn names(&self, path: &Path) -> bool {
        match self {
            Answers::Damaged(damage) => damage.iter().any(|damage| damage.path == path),
            Answers::Refused(error) => error.to_string().contains(&path.display().to_string()),
            Answers::Same | Answers::EndsAt(_) => false,
        }
    }
}

/// The options of all these tests: small, without a thread.
#[must_use]
pub fn options(disk: Arc<dyn Disk>) -> Options {
    Options::new()
        .disk(disk)
        .create(false)
        .background(Background::Manual)
        .slab_bytes_max(64 << 10)
        .tail_memory_bytes(1 << 20)
        .journal_bytes_max(64 << 10)
        .slab_segment_bytes(64 << 10, 512 << 10)
        .journal_segment_bytes(64 << 10, 128 << 10)
}

/// Opens for reading and reads everything.
///
/// # Panics
/// If anything is read that was not written, or a log ends early where nothing says why.
#[must_use]
pub fn read(crafted: &Crafted, disk: Arc<dyn Disk>) -> Answers {
    match options(disk).read_only(true).open_copying(PATH) {
        Ok(store) => read_store(crafted, &store),
        Err(Error::Damaged(damage)) => Answers::Damaged(vec![*damage]),
        Err(error) => Answers::Refused(error),
    }
}

/// Reads everything of an open store.
///
/// # Panics
/// As [`read`].
#[must_use]
pub fn read_store(crafted: &Crafted, store: &Store) -> Answers {
    let mut damage = Vec::new();
    let version = store.version().get();
    for known in store.logs() {
        assert!(
            crafted.logs.contains_key(&known.name),
            "nobody made {:?}",
            known.name
        );
    }
    for (name, expected) in &crafted.logs {
        let log = match store.log(name) {
            Ok(log) => log,
            Err(Error::Damaged(found)) => {
                // Which logs a lost page of the catalog had, the library cannot say; the test can.
                damage.push(Damage {
                    log: Some(name.clone()),
                    offsets: Some(0..expected.messages.len() as u64),
                    ..*found
                });
                continue;
            }
            Err(error) => panic!("log {name:?}: {error}"),
        };
        let end = log.end().get() as usize;
        match doubt_at_end(&log) {
            // Behind a damaged part of the journal nothing vouches for the end, and the library says so.
            Some(found) if end <= expected.messages.len() => damage.push(Damage {
                offsets: Some(end as u64..expected.messages.len() as u64),
                ..found
            }),
            doubt => assert!(
                doubt.is_none() && expected.end_in(version) == Some(end),
                "log {name:?} ends at {end} in version {version}"
            ),
        }
        read_log(&log, expected, end as u64, &mut damage);
    }
    match (damage.is_empty(), version) {
        (false, _) => Answers::Damaged(damage),
        (true, NEWEST_VERSION) => Answers::Same,
        (true, version) => Answers::EndsAt(version),
    }
}

/// What reading at the end of the log answers, if it is not that this is the end.
fn doubt_at_end(log: &Log) -> Option<Damage> {
    let mut cursor = log.cursor(log.end()).expect("the end");
    match cursor.next() {
        Ok(None) => None,
        Ok(Some(_)) => panic!("a message behind the end of log {:?}", log.name()),
        Err(Error::Damaged(found)) => Some(*found),
        Err(error) => panic!("the end of log {:?} gives {error}", log.name()),
    }
}

fn read_log(log: &Log, expected: &Expected, end: u64, damage: &mut Vec<Damage>) {
    let mut cursor = log.cursor(0u64).expect("offset 0");
    let mut next = 0;
    while next < end {
        match cursor.next() {
            Ok(Some(message)) => {
                assert!(
                    message.offset().get() == next,
                    "offset {} is not {next}",
                    message.offset()
                );
                assert_message(&message, &expected.messages[next as usize]);
                next += 1;
            }
            Ok(None) => panic!("log {:?} ends at {next}, before its end {end}", log.name()),
            Err(Error::Damaged(found)) => {
                assert!(
                    found.log.as_deref() == Some(log.name()),
                    "{found} does not name the log"
                );
                let lost = found.offsets.clone();
                let lost = lost.unwrap_or_else(|| panic!("{found} does not name its offsets"));
                assert!(
                    lost.contains(&next) && lost.end <= end,
                    "{found} is read at offset {next}"
                );
                damage.push(*found);
                next = lost.end;
                cursor.seek(next).expect("an offset up to the end");
            }
            Err(error) => panic!("damage of log {:?} gives {error}", log.name()),
        }
    }
    // By number as well, which goes another way; one of them will do.
    if end > 0 {
        let offset = damage.len() as u64 % end;
        match cursor.get(offset) {
            Ok(message) => assert_message(&message, &expected.messages[offset as usize]),
            Err(Error::Damaged(found)) => damage.push(*found),
            Err(error) => panic!("damage of log {:?} gives {error}", log.name()),
        }
    }
    if let Err(error) = log.snapshot().summary() {
        assert!(matches!(error, Error::Damaged(_)), "a summary gives {error}");
    }
}

fn assert_message(found: &Message<'_>, wanted: &Written) {
    let same = found.value() == wanted.value
        && found.value_type() == wanted.value_type
        && found.time_ms() == wanted.time_ms
        && found.key() == wanted.key.as_deref()
        && found.headers().count() == wanted.headers.len()
        && found
            .headers()
            .zip(&wanted.headers)
            .all(|(found, wanted)| found == (wanted.0.as_slice(), wanted.1.as_slice()));
    assert!(same, "wrong bytes at {}", found.offset());
}

/// Paths of files, for messages.
#[must_use]
pub fn path_of(crafted: &Crafted, file: usize) -> &PathBuf {
    &crafted.files[file].0
}
