//! Promise: logs that share what they hold, because one was forked from the other, or spliced into it, or appended to it,
//! are as separate as copies would be: what is appended to one or deleted in one, or what becomes of it when it is dropped,
//! changes no other, through crashes and openings; snapshots hold what they held, and cursors that were held meanwhile go
//! on. Shown by random work on several logs beside a model that copies; each failure says the seed that replays it.
#![allow(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests fail by panicking, and say which seed replays them"
)]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::model::{Model, Random, check_snapshot, message};
use common::{large_slabs, memory, small};
use lanterman::disk::MemoryDisk;
use lanterman::{Compression, Cursor, Durability, Error, Retention, Snapshot, Store};

const LOGS_MAX: usize = 8;
const CURSORS_MAX: usize = 6;

/// A cursor that is held while its log is edited.
struct Reading {
    cursor: Cursor,
    /// What its snapshot held, or what its log had when it was last used.
    model: Model,
    /// The log that it follows, or none where it reads a snapshot.
    follows: Option<String>,
    next: u64,
}

impl Reading {
    /// Compares up to `most` messages. `now` is what the log has that it follows, or nothing once that was dropped.
    fn read(&mut self, most: u64, now: Option<&Model>, context: &str) {
        for _ in 0..most {
            let found = self.cursor.next().unwrap();
            let offset = found.as_ref().map(|message| message.offset().get());
            let until = offset.unwrap_or(match (&self.follows, now) {
                (None, _) => self.model.len() as u64,
                (Some(_), Some(now)) => now.len() as u64,
                (Some(_), None) => self.next,
            });
            assert!(until >= self.next, "{context}: {until} behind {}", self.next);
            // Of a log it passes over what is deleted by now, of a snapshot what was deleted then.
            // Nobody knows what was deleted before its log was dropped.
            let shown = if self.follows.is_some() {
                now
            } else {
                Some(&self.model)
            };
            let passed = shown.map(|shown| &shown[self.next as usize..until as usize]);
            let missed = passed.and_then(|passed| passed.iter().position(Option::is_some));
            assert!(
                missed.is_none(),
                "{context}: passed over {missed:?} behind {}, to {until}",
                self.next
            );
            let Some(message) = found else {
                self.next = until;
                return;
            };
            let expected = match (&self.follows, self.model.get(until as usize)) {
                // Appended since, and deleted before it was looked at.
                (Some(_), None) => now.and_then(|now| now[until as usize].as_ref()),
                (_, expected) => expected.and_then(Option::as_ref),
            };
            let is_known = self.follows.is_none() || expected.is_some();
            assert!(
                !is_known || expected.is_some_and(|expected| message.value() == &expected[..]),
                "{context}: another message at {until}"
            );
            self.next = until + 1;
        }
    }
}

/// The store, what it must hold, and what is held of it.
struct Work {
    seed: u64,
    random: Random,
    disk: Arc<MemoryDisk>,
    store: Store,
    models: BTreeMap<String, Model>,
    held: Vec<(Snapshot, Model)>,
    reading: Vec<Reading>,
    /// Named snapshots, by label and log.
    named: BTreeMap<(String, String), Model>,
    messages: u64,
    names: u64,
    context: String,
}

/// Every third seed has slabs that are adopted.
fn open(seed: u64, disk: &Arc<MemoryDisk>) -> Store {
    let options = if seed.is_multiple_of(3) {
        large_slabs()
    } else {
        small()
    };
    options.disk(disk.clone()).open_copying(common::PATH).unwrap()
}

impl Work {
    fn new(seed: u64) -> Self {
        let disk = memory();
        Work {
            seed,
            random: Random::from_seed(seed),
            store: open(seed, &disk),
            disk,
            models: BTreeMap::from([("log 0".to_owned(), Model::new())]),
            held: Vec::new(),
            reading: Vec::new(),
            named: BTreeMap::new(),
            messages: 0,
            names: 0,
            context: String::new(),
        }
    }

    fn any_log(&mut self) -> String {
        let number = self.random.below(self.models.len() as u64) as usize;
        self.models.keys().nth(number).unwrap().clone()
    }

    fn new_name(&mut self) -> String {
        self.names += 1;
        format!("log {}", self.names)
    }

    fn append(&mut self, name: &str) {
        let mut writer = self.store.writer(name).unwrap();
        let most = if self.random.below(6) == 0 { 200 } else { 40 };
        for _ in 0..1 + self.random.below(most) {
            self.messages += 1;
            let message = message(&mut self.random, self.messages);
            writer.append(&message).unwrap();
            self.models.get_mut(name).unwrap().push(Some(message));
        }
        // A fork or a splice commits what it takes, and a drop needs none of it.
        match self.random.below(4) {
            0 => {}
            1 => {
                writer.commit(Durability::Process).unwrap();
            }
            _ => {
                writer.commit(Durability::Disk).unwrap();
            }
        }
    }

    fn delete(&mut self, name: &str) {
        let length = self.models[name].len() as u64;
        if length == 0 {
            return;
        }
        let first = self.random.below(length);
        let end = first + self.random.below((length - first).min(60) + 1);
        self.store.delete(name, first..end).unwrap();
        for slot in &mut self.models.get_mut(name).unwrap()[first as usize..end as usize] {
            *slot = None;
        }
    }

    fn retain(&mut self, name: &str) {
        if self.store.log(name).is_err() {
            return;
        }
        let from = self.random.below(self.models[name].len() as u64 + 1);
        let retention = Retention::new().from(from);
        let receipt = self.store.retain(name, &retention).unwrap();
        let kept = &mut self.models.get_mut(name).unwrap()[..from as usize];
        let destroyed = kept.iter().flatten().count() as u64;
        assert_eq!(
            (receipt.messages, receipt.is_exact),
            (destroyed, true),
            "{}",
            self.context
        );
        kept.fill(None);
    }

    /// Deletes in one log and appends to another in one version.
    fn transact(&mut self, name: &str) {
        let other = self.any_log();
        let length = self.models[name].len() as u64;
        if length == 0 || other == name {
            return;
        }
        self.messages += 1;
        let message = message(&mut self.random, self.messages);
        let first = self.random.below(length);
        let end = (first + 5).min(length);
        self.store
            .transaction(|transaction| {
                transaction.delete(name, first..end)?;
                transaction.append(&other, &message)
            })
            .unwrap();
        self.models.get_mut(name).unwrap()[first as usize..end as usize].fill(None);
        self.models.get_mut(&other).unwrap().push(Some(message));
    }

    /// From now on its slabs are compressed, or no more; forks inherit it.
    fn compress(&mut self, name: &str) {
        if self.store.log(name).is_err() {
            return;
        }
        let compression = match self.random.below(3) {
            0 => None,
            1 => Some(Compression::lz4().with_batch_bytes(1 << self.random.below(18))),
            _ => Some(Compression::zstd(1).with_batch_bytes(1 << self.random.below(18))),
        };
        self.store.set_compression(name, compression.as_ref()).unwrap();
        assert_eq!(self.store.log(name).unwrap().compression(), compression);
    }

    fn collect_some(&mut self) {
        let bytes = self.random.below(1 << 20);
        self.store.collect_step(bytes).unwrap();
        let faults = self.store.check_space().unwrap().faults;
        assert!(faults.is_empty(), "{}: {faults:?}", self.context);
    }

    fn fork(&mut self, name: &str) {
        let model = self.models[name].clone();
        if self.store.log(name).is_err() || self.models.len() >= LOGS_MAX {
            return;
        }
        let new = self.new_name();
        let end = self.random.below(model.len() as u64 + 1) as usize;
        let start = self.store.log(name).unwrap().start().get() as usize;
        if self.random.below(2) == 0 {
            self.store.fork(name, &new).unwrap();
            self.models.insert(new, model);
            return;
        }
        match self.store.fork_at(name, &new, end as u64) {
            Ok(()) => {
                assert!(
                    end == start || end == model.len() || model[end].is_some(),
                    "{}: forked from a deleted offset",
                    self.context
                );
                self.models.insert(new, model[..end].to_vec());
            }
            Err(Error::Deleted { .. }) => assert!(end < start || model[end].is_none(), "{}", self.context),
            Err(other) => panic!("{}: {other}", self.context),
        }
    }

    fn splice(&mut self, name: &str) {
        let source = self.any_log();
        let model = self.models[&source].clone();
        if self.store.log(name).is_err() || self.store.log(&source).is_err() {
            return;
        }
        let length = model.len() as u64;
        let whole = self.random.below(4) == 0;
        let (first, end, spliced) = if whole {
            // A log in a log: from its start on, which may stand behind what was deleted first.
            let first = self.store.log(&source).unwrap().start().get();
            (first, length, self.store.append_log(name, &source))
        } else {
            let first = self.random.below(length + 1);
            let end = first + self.random.below(length - first + 1);
            (first, end, self.store.splice(name, &source, first..end))
        };
        match spliced {
            Ok(receipt) => {
                assert_ne!(name, source, "{}: a splice into itself", self.context);
                let taken = &model[first as usize..end as usize];
                let destination = self.models.get_mut(name).unwrap();
                let offsets = destination.len() as u64..(destination.len() + taken.len()) as u64;
                assert_eq!(receipt.offsets, offsets, "{}", self.context);
                destination.extend_from_slice(taken);
            }
            Err(Error::SpliceIntoItself { .. }) => assert_eq!(name, source, "{}", self.context),
            Err(Error::InvalidRange { .. }) => assert_eq!(first, end, "{}", self.context),
            Err(other) => panic!("{}: {other}", self.context),
        }
        if self.models[name].len() > 20_000 {
            self.drop_log(name);
        }
    }

    fn drop_log(&mut self, name: &str) {
        if self.store.log(name).is_err() {
            return;
        }
        self.store.drop_log(name).unwrap();
        assert!(self.store.log(name).is_err(), "{}", self.context);
        self.models.remove(name);
        if self.models.is_empty() {
            let name = self.new_name();
            self.models.insert(name, Model::new());
        }
    }

    fn hold(&mut self, name: &str) {
        if let Ok(snapshot) = self.store.snapshot(name) {
            self.held.push((snapshot, self.models[name].clone()));
        }
        if self.held.len() > 4 {
            self.held.remove(0);
        }
    }

    /// Begins to read a log, or the newest snapshot that is held, anywhere.
    fn begin_reading(&mut self, name: &str) {
        let follows = self.random.below(2) == 0;
        let (cursor, model, next) = match self.held.last() {
            Some((snapshot, model)) if !follows => {
                let next = self.random.below(model.len() as u64 + 1);
                (snapshot.cursor(next).unwrap(), model.clone(), next)
            }
            _ => {
                let Ok(log) = self.store.log(name) else { return };
                let model = self.models[name].clone();
                let next = self.random.below(model.len() as u64 + 1);
                (log.cursor(next).unwrap(), model, next)
            }
        };
        let follows = (follows || self.held.is_empty()).then(|| name.to_owned());
        self.reading.push(Reading {
            cursor,
            model,
            follows,
            next,
        });
        if self.reading.len() > CURSORS_MAX {
            self.reading.remove(0);
        }
    }

    fn read_on(&mut self) {
        for reading in &mut self.reading {
            let now = reading.follows.as_ref().and_then(|name| self.models.get(name));
            let context = format!("{}, cursor on {:?}", self.context, reading.follows);
            reading.read(self.random.below(40), now, &context);
            // It may show for a while what was deleted since: that is no longer in the model, but was when it was used.
            if let (Some(_), Some(now)) = (&reading.follows, now) {
                let known = reading.model.len();
                reading.model.extend_from_slice(&now[known..]);
            }
        }
    }

    fn fork_held(&mut self) {
        if self.held.is_empty() || self.models.len() >= LOGS_MAX {
            return;
        }
        let number = self.random.below(self.held.len() as u64) as usize;
        let new = self.new_name();
        let (snapshot, model) = &self.held[number];
        snapshot.fork(&new).unwrap();
        self.models.insert(new, model.clone());
    }

    fn create_snapshot(&mut self, name: &str) {
        if self.named.len() > 6 {
            return self.drop_snapshot();
        }
        let label = self.new_name();
        let all = self.random.below(3) == 0;
        let logs: Vec<&str> = if all { Vec::new() } else { vec![name] };
        let known = |name: &str| self.store.log(name).is_ok_and(|log| log.end().get() > 0);
        if !self.models.keys().any(|name| known(name)) || (!all && !known(name)) {
            return;
        }
        let made = self.store.create_snapshot(&label, &logs).unwrap();
        for snapshot in made {
            let model = self.models[&snapshot.log].clone();
            assert_eq!(snapshot.end.get(), model.len() as u64, "{}", self.context);
            self.named.insert((label.clone(), snapshot.log), model);
        }
    }

    fn drop_snapshot(&mut self) {
        let Some((label, _)) = self.named.keys().next().cloned() else {
            return;
        };
        self.store.drop_snapshot(&label).unwrap();
        self.named.retain(|(other, _), _| *other != label);
    }

    fn fork_named(&mut self) {
        let number = self.random.below(self.named.len() as u64 + 1) as usize;
        let Some(((label, log), model)) = self.named.iter().nth(number) else {
            return;
        };
        if self.models.len() >= LOGS_MAX {
            return;
        }
        let (snapshot, model) = (self.store.named_snapshot(label, log).unwrap(), model.clone());
        let new = self.new_name();
        snapshot.fork(&new).unwrap();
        self.models.insert(new, model);
    }

    fn check_named(&self) {
        let listed = self.store.named_snapshots();
        assert_eq!(listed.len(), self.named.len(), "{}", self.context);
        for ((label, log), model) in &self.named {
            let snapshot = self.store.named_snapshot(label, log).unwrap();
            let context = format!("{}, snapshot {label} of {log}", self.context);
            check_snapshot(&snapshot, model, &context);
        }
    }

    fn reopen(&mut self) {
        self.held.clear();
        self.reading.clear();
        // What was appended and never committed is not promised to anybody.
        self.store.commit_all(Durability::Disk).unwrap();
        if self.random.below(2) == 0 {
            self.disk = Arc::new(self.disk.kill_image().unwrap());
            std::mem::forget(std::mem::replace(&mut self.store, open(self.seed, &self.disk)));
        } else {
            self.store.clone().close().unwrap();
            self.store = open(self.seed, &self.disk);
        }
        self.check_all();
    }

    fn check(&self, name: &str) {
        let context = format!("{}, {name}", self.context);
        let model = &self.models[name];
        match self.store.snapshot(name) {
            Ok(snapshot) => check_snapshot(&snapshot, model, &context),
            Err(Error::UnknownLog { .. }) => assert!(model.is_empty(), "{context} is unknown"),
            Err(other) => panic!("{context}: {other}"),
        }
    }

    fn check_all(&self) {
        for log in self.store.logs() {
            assert!(
                self.models.contains_key(&log.name),
                "{}: a log {} from nowhere",
                self.context,
                log.name
            );
        }
        self.models.keys().for_each(|name| self.check(name));
        self.check_named();
        for (snapshot, model) in &self.held {
            let context = format!("{}, held snapshot of {}", self.context, snapshot.name());
            check_snapshot(snapshot, model, &context);
        }
    }

    fn step(&mut self, step: u64) {
        self.context = format!("seed {}, step {step}", self.seed);
        let name = self.any_log();
        match self.random.below(34) {
            0..=7 => self.append(&name),
            8..=10 => self.delete(&name),
            11 | 12 => self.fork(&name),
            13..=15 => self.splice(&name),
            16 => self.drop_log(&name),
            17 => {
                self.store.checkpoint().unwrap();
            }
            18 => while self.store.step().unwrap() {},
            19 => self.hold(&name),
            20 => self.fork_held(),
            21 => self.reopen(),
            22 => self.check_all(),
            23 => self.create_snapshot(&name),
            24 => self.drop_snapshot(),
            25 => self.fork_named(),
            26 => drop(self.store.collect().unwrap()),
            27 => self.retain(&name),
            28 => self.transact(&name),
            29 => self.collect_some(),
            30 => self.begin_reading(&name),
            31 => self.read_on(),
            32 => self.compress(&name),
            _ => self.check(&name),
        }
    }
}

#[test]
fn random_forks_splices_and_drops_agree_with_a_model_that_copies() {
    let only = std::env::var("LANTERMAN_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let is_deep = std::env::var("LANTERMAN_DEEP").is_ok_and(|deep| deep == "1");
    let seeds = if is_deep { 1..2_000 } else { 1..40 };
    for seed in only.map_or(seeds, |seed: u64| seed..seed + 1) {
        let mut work = Work::new(seed);
        (0..120).for_each(|step| work.step(step));
        work.context = format!("seed {seed}, at the end");
        work.check_all();
        work.reopen();
    }
}
