//! A workload that goes on when calls fail, and what it was told meanwhile.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lanterman::disk::Disk;
use lanterman::{Durability, Error, ErrorKind, Options, Store};

use crate::common::small;

/// Logs with small messages.
const LOGS: [&str; 3] = ["events", "orders", "quiet"];
/// A log with messages so large that commits adopt slabs.
const LARGE: &str = "large";
/// Two logs that only transactions write to, one message each.
const PAIR: [&str; 2] = ["left", "right"];
const ALL: [&str; 6] = [LOGS[0], LOGS[1], LOGS[2], LARGE, PAIR[0], PAIR[1]];
/// How often the store is opened, worked on and closed.
const SESSIONS: u64 = 2;

/// Small numbers from a seed.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end
    }
}

/// Where the workload runs.
pub(crate) struct Scene<'a> {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) path: PathBuf,
    /// How many syncs have failed so far.
    pub(crate) failed_syncs: &'a (dyn Fn() -> u64 + Sync),
    /// How much of the workload is done: 1 for all of it, 2 for half.
    pub(crate) divisor: u64,
    /// Whether damage may be found: the medium lies.
    pub(crate) lies: bool,
}

impl Scene<'_> {
    fn options(&self) -> Options {
        small().disk(Arc::clone(&self.disk))
    }
}

/// What the store said, as far as it binds it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Acknowledged {
    /// Per log the end that survives a power cut.
    pub(crate) durable: BTreeMap<&'static str, u64>,
    /// The end that survives the death of the process.
    pub(crate) committed: BTreeMap<&'static str, u64>,
    /// The end that the log can have at most.
    pub(crate) most: BTreeMap<&'static str, u64>,
    pub(crate) durable_commits: u64,
    pub(crate) errors: Vec<String>,
    lies: bool,
}

fn raise(ends: &mut BTreeMap<&'static str, u64>, log: &'static str, end: u64) {
    let known = ends.entry(log).or_default();
    *known = (*known).max(end);
}

impl Acknowledged {
    fn note<T>(&mut self, outcome: Result<T, Error>) -> Option<T> {
        match outcome {
            Ok(value) => Some(value),
            Err(error) => {
                self.check_error(&error);
                self.errors.push(error.to_string());
                None
            }
        }
    }

    /// An error says what and where, and is of a kind that a caller can act on.
    fn check_error(&self, error: &Error) {
        let is_told = match error.kind() {
            ErrorKind::System | ErrorKind::FreeSpace | ErrorKind::Reopen | ErrorKind::CheckTheDevice => true,
            ErrorKind::RestoreData => self.lies,
            _ => false,
        };
        assert!(is_told, "a fault of the disk is answered with {error:?}");
        assert!(
            error.to_string().contains('/'),
            "an error that names no place: {error}"
        );
    }

    fn durable_end(&self, log: &str) -> u64 {
        self.durable.get(log).copied().unwrap_or(0)
    }
}

/// The message of a log at an offset: no two are the same.
fn value(log: &str, offset: u64) -> Vec<u8> {
    let place = ALL.iter().position(|name| *name == log).unwrap_or(0) as u64;
    let bytes = if log == LARGE {
        20_000 + (offset * 977) % 20_000
    } else {
        16 + (offset * 37) % 400
    };
    let mut value = offset.to_le_bytes().to_vec();
    value.extend(place.to_le_bytes());
    value.resize(bytes as usize, (offset + place * 41) as u8);
    value
}

/// Opens the store a few times and works on it; every call may fail.
pub(crate) fn run(scene: &Scene<'_>, seed: u64) -> Acknowledged {
    let mut acknowledged = Acknowledged {
        lies: scene.lies,
        ..Acknowledged::default()
    };
    let mut dice = Dice::new(seed);
    for _ in 0..SESSIONS {
        let Some(store) = acknowledged.note(scene.options().open_copying(&scene.path)) else {
            continue;
        };
        let before = (scene.failed_syncs)();
        let mut session = Session {
            scene,
            store: &store,
            acknowledged: &mut acknowledged,
            dice: &mut dice,
            failed_syncs: before,
        };
        session.look();
        session.work();
        session.read_beside();
        let ends = session.ends();
        let was_poisoned = session.is_poisoned();
        if acknowledged.note(store.close()).is_some() {
            assert!(!was_poisoned, "closing well after a failed sync");
            for (log, end) in ends {
                raise(&mut acknowledged.durable, log, end);
                raise(&mut acknowledged.committed, log, end);
            }
        }
    }
    acknowledged
}

/// The store, open once.
struct Session<'a> {
    scene: &'a Scene<'a>,
    store: &'a Store,
    acknowledged: &'a mut Acknowledged,
    dice: &'a mut Dice,
    failed_syncs: u64,
}

impl Session<'_> {
    /// Whether a sync has failed since the store was opened: from then on nothing may be acknowledged.
    fn is_poisoned(&self) -> bool {
        (self.scene.failed_syncs)() > self.failed_syncs
    }

    /// Nothing if what leads to the log cannot be read now.
    fn end(&self, log: &str) -> Option<u64> {
        match self.store.log(log) {
            Ok(log) => Some(log.end().get()),
            Err(Error::UnknownLog { .. }) => Some(0),
            Err(_) => None,
        }
    }

    /// The ends of all logs of which they can be told.
    fn ends(&self) -> Vec<(&'static str, u64)> {
        let ends = ALL.into_iter().map(|log| Some((log, self.end(log)?)));
        ends.flatten().collect()
    }

    /// Takes up what the store has now: a failed commit may have come through all the same.
    fn look(&mut self) {
        for (log, end) in self.ends() {
            let durable = self.acknowledged.durable_end(log);
            assert!(end >= durable, "log {log} opens with {end} messages of {durable}");
            raise(&mut self.acknowledged.durable, log, end);
            raise(&mut self.acknowledged.most, log, end);
        }
    }

    fn work(&mut self) {
        let rounds = 10 / self.scene.divisor;
        for round in 0..rounds {
            let log = LOGS[self.dice.below(LOGS.len() as u64) as usize];
            let count = 5 + self.dice.below(120);
            self.append(log, count);
            self.commit(log);
            match round % 5 {
                1 | 3 => self.transaction(),
                2 => {
                    self.append(LARGE, if round == 2 { 11 } else { 2 });
                    self.commit(LARGE);
                }
                4 => {
                    self.acknowledged.note(self.store.checkpoint());
                }
                _ => self.commit_all(),
            }
            while self.acknowledged.note(self.store.step()) == Some(true) {}
            if round == rounds / 2 {
                read_snapshots(self.store, self.acknowledged);
            }
        }
    }

    fn append(&mut self, log: &'static str, count: u64) {
        let Some(mut writer) = self.acknowledged.note(self.store.writer(log)) else {
            return;
        };
        for _ in 0..count {
            let next = writer.next_offset().get();
            let outcome = writer.append(&value(log, next));
            if let Some(offset) = self.acknowledged.note(outcome) {
                assert_eq!(offset.get(), next);
                raise(&mut self.acknowledged.most, log, next + 1);
            }
        }
    }

    /// Commits what was appended, in one of the ways.
    fn commit(&mut self, log: &'static str) {
        let Some(mut writer) = self.acknowledged.note(self.store.writer(log)) else {
            return;
        };
        let end = writer.next_offset().get();
        let was_poisoned = self.is_poisoned();
        let (durability, outcome) = match self.dice.below(4) {
            0 => (Durability::Process, writer.commit(Durability::Process)),
            1 => {
                let outcome = writer
                    .commit_async(Durability::Disk)
                    .and_then(|future| future.wait());
                (Durability::Disk, outcome)
            }
            _ => (Durability::Disk, writer.commit(Durability::Disk)),
        };
        let told = self.acknowledged.durable_end(log);
        if self.acknowledged.note(outcome).is_some() {
            assert!(!was_poisoned, "a commit is acknowledged after a failed sync");
            assert!(writer.committed_end().get() >= end);
            raise(&mut self.acknowledged.committed, log, end);
            if durability == Durability::Disk {
                assert!(writer.durable_end().get() >= end, "acknowledged and not durable");
                raise(&mut self.acknowledged.durable, log, end);
                self.acknowledged.durable_commits += 1;
            }
        } else if self.is_poisoned() {
            assert!(
                writer.durable_end().get() < end || end == told,
                "a failed commit is called durable"
            );
        }
        assert!(writer.durable_end().get() >= told, "the watermark went back");
    }

    /// Commits of several logs share a group.
    fn commit_all(&mut self) {
        let ends = self.ends();
        let was_poisoned = self.is_poisoned();
        let outcome = self.store.commit_all(Durability::Disk);
        if self.acknowledged.note(outcome).is_some() {
            assert!(!was_poisoned, "a group is acknowledged after a failed sync");
            for (log, end) in ends {
                raise(&mut self.acknowledged.durable, log, end);
                raise(&mut self.acknowledged.committed, log, end);
            }
            self.acknowledged.durable_commits += 1;
        }
    }

    fn transaction(&mut self) {
        let was_poisoned = self.is_poisoned();
        let Some(end) = self.end(PAIR[0]) else { return };
        for log in PAIR {
            raise(&mut self.acknowledged.most, log, end + 1);
        }
        let outcome = self.store.transaction(|transaction| {
            transaction.append(PAIR[0], &value(PAIR[0], end))?;
            transaction.append(PAIR[1], &value(PAIR[1], end))
        });
        if self.acknowledged.note(outcome).is_some() {
            assert!(!was_poisoned, "a transaction is acknowledged after a failed sync");
            for log in PAIR {
                raise(&mut self.acknowledged.durable, log, end + 1);
            }
            self.acknowledged.durable_commits += 1;
        } else {
            let ends = self.end(PAIR[0]).zip(self.end(PAIR[1]));
            assert!(
                ends.is_none_or(|(one, other)| one == other),
                "a failed transaction shows in part: {ends:?}"
            );
        }
    }

    /// A reader beside the writer.
    fn read_beside(&mut self) {
        let options = self.scene.options().read_only(true);
        if let Some(reader) = self.acknowledged.note(options.open_copying(&self.scene.path)) {
            read_all(&reader, self.acknowledged);
            self.acknowledged.note(reader.refresh());
        }
    }
}

/// Reads everything with cursors; a read may fail, and must not be wrong.
fn read_all(store: &Store, acknowledged: &mut Acknowledged) {
    for name in ALL {
        let Ok(log) = store.log(name) else { continue };
        let Some(mut cursor) = acknowledged.note(log.cursor(0u64)) else {
            continue;
        };
        let mut next = 0;
        while let Some(Some(message)) = acknowledged.note(cursor.next()) {
            assert_eq!(message.offset().get(), next, "log {name}");
            assert!(
                message.value() == value(name, next),
                "another value at {next} of {name}"
            );
            next += 1;
        }
    }
}

/// The same through snapshots, of the small logs.
fn read_snapshots(store: &Store, acknowledged: &mut Acknowledged) {
    let all = store.snapshot_all();
    for name in LOGS {
        let Ok(snapshot) = store.snapshot(name) else {
            continue;
        };
        let Some(messages) = acknowledged.note(snapshot.range(..)) else {
            continue;
        };
        for (offset, message) in messages.enumerate() {
            let Some(message) = acknowledged.note(message) else {
                break;
            };
            assert!(
                message.value()[..] == value(name, offset as u64),
                "another value at {offset} of {name} in a snapshot"
            );
        }
    }
    drop(all);
}

/// Opens without faults; everything acknowledged is there, in order, once, whole. Then goes on; gives the open store and
/// what is acknowledged now.
pub(crate) fn check_reopened(
    disk: &Arc<dyn Disk>,
    path: &Path,
    acknowledged: &Acknowledged,
    counts_committed: bool,
) -> (Store, Acknowledged) {
    let store = small().disk(Arc::clone(disk)).open_copying(path).unwrap();
    let mut now = Acknowledged {
        lies: false,
        errors: Vec::new(),
        ..acknowledged.clone()
    };
    read_all(&store, &mut now);
    assert!(now.errors.is_empty(), "without faults: {:?}", now.errors);
    let end = |log: &str| store.log(log).map_or(0, |log| log.end().get());
    for log in ALL {
        let (end, most) = (end(log), acknowledged.most.get(log).copied().unwrap_or(0));
        let mut least = acknowledged.durable_end(log);
        if counts_committed {
            least = least.max(acknowledged.committed.get(log).copied().unwrap_or(0));
        }
        assert!(end >= least, "log {log}: {end} of {least} acknowledged messages");
        assert!(
            end <= most,
            "log {log}: {end} messages, of which {most} were appended"
        );
        raise(&mut now.durable, log, end);
    }
    assert_eq!(end(PAIR[0]), end(PAIR[1]), "a transaction in part");
    for log in LOGS {
        let mut writer = store.writer(log).unwrap();
        let next = writer.next_offset().get();
        writer.append(&value(log, next)).unwrap();
        writer.commit(Durability::Disk).unwrap();
        raise(&mut now.durable, log, next + 1);
        raise(&mut now.most, log, next + 1);
    }
    (store, now)
}

/// Opens a store whose medium lied: it opens or says what is wrong, and what it gives is right as far as it goes.
pub(crate) fn check_shortened(disk: &Arc<dyn Disk>, path: &Path, acknowledged: &Acknowledged) {
    let mut found = acknowledged.clone();
    found.lies = true;
    match small().disk(Arc::clone(disk)).open_copying(path) {
        Err(error) => {
            // Of a store whose creation was lost only a part may be there.
            let is_clear = matches!(error.kind(), ErrorKind::RestoreData | ErrorKind::System)
                || matches!(error, Error::NotAStore { .. });
            assert!(is_clear, "{error:?}");
        }
        Ok(store) => {
            read_all(&store, &mut found);
            for log in ALL {
                let end = store.log(log).map_or(0, |log| log.end().get());
                let most = acknowledged.most.get(log).copied().unwrap_or(0);
                assert!(
                    end <= most,
                    "log {log}: {end} messages, of which {most} were appended"
                );
            }
        }
    }
}
