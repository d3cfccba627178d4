//! Writers whose messages say of themselves what they must be, and the witness who knows what was acknowledged.
//!
//! A message names its log, its offset and the run (the life of the process, or the time between two power cuts) that wrote
//! it, and its other bytes follow from these. So whoever reads it can tell whether it is whole, in its place, and not
//! older than what was written there later.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "each test uses a part of this; tests stop at the first surprise"
)]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use lanterman::{Background, Durability, Error, Options, Store};

/// Bytes at the head of a message: run, offset, log, length.
const HEAD_BYTES: usize = 28;

/// A small generator (xorshift) whose seed a failing test prints.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }
}

/// A promise that the store made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ack {
    /// The messages of `run` from `first` on and below `end` will be there.
    Messages {
        log: String,
        first: u64,
        end: u64,
        run: u64,
    },
    /// The log will be there.
    Created { log: String },
}

impl Ack {
    pub fn to_line(&self) -> String {
        match self {
            Ack::Messages { log, first, end, run } => format!("ack {log} {first} {end} {run}\n"),
            Ack::Created { log } => format!("created {log}\n"),
        }
    }

    /// Takes a line apart; a line that was cut off, or is something else, says nothing.
    pub fn from_line(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.strip_suffix('\n')?.split(' ').collect();
        match words[..] {
            ["ack", log, first, end, run] => Some(Ack::Messages {
                log: log.to_owned(),
                first: first.parse().ok()?,
                end: end.parse().ok()?,
                run: run.parse().ok()?,
            }),
            ["created", log] => Some(Ack::Created { log: log.to_owned() }),
            _ => None,
        }
    }
}

fn number_of(log: &str) -> u32 {
    lanterman_format::checksum::crc32(0, log.as_bytes())
}

/// The message that `run` appends at `offset`. Mostly short, sometimes some pages, rarely as long as a slab.
pub fn message(log: &str, offset: u64, run: u64) -> Vec<u8> {
    let mut random =
        Random((offset + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ u64::from(number_of(log)) ^ (run << 40));
    let drawn = random.next() >> 8;
    let length = match drawn % 500 {
        0 => 70_000 + drawn % 200_000,
        1..20 => 4000 + drawn % 12_000,
        _ => drawn % 600,
    } as usize;
    let mut bytes = Vec::with_capacity(HEAD_BYTES + length);
    bytes.extend_from_slice(&run.to_le_bytes());
    bytes.extend_from_slice(&offset.to_le_bytes());
    bytes.extend_from_slice(&number_of(log).to_le_bytes());
    bytes.extend_from_slice(&(length as u64).to_le_bytes());
    let pattern = random.next().to_le_bytes();
    bytes.extend(pattern.iter().cycle().take(length));
    bytes
}

/// What must be there, and what was found before and must not change any more.
#[derive(Default)]
pub struct Witness {
    acknowledged: BTreeMap<String, Vec<(u64, u64, u64)>>,
    /// Messages that were looked at in all.
    pub messages_seen: u64,
}

impl Witness {
    pub fn hear(&mut self, ack: &Ack) {
        match ack {
            Ack::Messages { log, first, end, run } => {
                self.acknowledged
                    .entry(log.clone())
                    .or_default()
                    .push((*first, *end, *run));
            }
            Ack::Created { log } => {
                self.acknowledged.entry(log.clone()).or_default();
            }
        }
    }

    /// How many promises are known.
    pub fn acknowledgements(&self) -> usize {
        self.acknowledged.values().map(Vec::len).sum()
    }

    /// Forgets everything: the store was removed.
    pub fn forget(&mut self) {
        self.acknowledged.clear();
    }

    /// Checks a store that was opened again; gives what is wrong with it.
    pub fn check(&mut self, store: &Store) -> Result<(), String> {
        let mut runs_of: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for log in store.logs() {
            runs_of.insert(log.name.clone(), self.check_log(store, &log.name)?);
        }
        for (log, stretches) in &self.acknowledged {
            let runs = runs_of.get(log).ok_or_else(|| format!("{log} is gone"))?;
            for (first, end, run) in stretches {
                let found = runs.get(*first as usize..*end as usize);
                let found =
                    found.ok_or_else(|| format!("{log} ends at {}, {end} was acknowledged", runs.len()))?;
                if let Some(at) = found.iter().position(|found| found != run) {
                    let offset = first + at as u64;
                    return Err(format!(
                        "{log} has at {offset} run {}, run {run} was acknowledged",
                        found[at]
                    ));
                }
            }
        }
        // What one transaction wrote into both is there in both, or in neither.
        for (left, runs) in runs_of.iter().filter(|(log, _)| log.starts_with("left")) {
            let right = left.replace("left", "right");
            if runs_of.get(&right).is_none_or(|found| found != runs) {
                return Err(format!("a transaction is not whole in {left} and {right}"));
            }
        }
        Ok(())
    }

    /// Reads a log from its start; gives the run of each of its messages.
    fn check_log(&mut self, store: &Store, log: &str) -> Result<Vec<u64>, String> {
        let failed = |error: Error| format!("{log} cannot be read: {error}");
        let snapshot = store.snapshot(log).map_err(failed)?;
        let mut runs: Vec<u64> = Vec::new();
        for message_found in snapshot.range(..).map_err(failed)? {
            let found = message_found.map_err(failed)?;
            let offset = runs.len() as u64;
            let value = found.value();
            let run = value.first_chunk().map_or(0, |run| u64::from_le_bytes(*run));
            if found.offset().get() != offset || value[..] != message(log, offset, run)[..] {
                return Err(format!("{log} has another message at {offset}"));
            }
            if runs.last().is_some_and(|last| *last > run) {
                return Err(format!(
                    "{log} has at {offset} a message of an older run than before it"
                ));
            }
            runs.push(run);
            self.messages_seen += 1;
        }
        if runs.len() as u64 != snapshot.end().get() {
            return Err(format!("{log} has {} of {} messages", runs.len(), snapshot.end()));
        }
        Ok(runs)
    }
}

/// Limits so small that everything happens within milliseconds: slabs, rolling, checkpoints, recycling.
pub fn quick() -> Options {
    Options::new()
        .background(Background::Thread)
        .slab_bytes_max(64 << 10)
        .tail_memory_bytes(2 << 20)
        .journal_bytes_max(256 << 10)
        .slab_segment_bytes(64 << 10, 1 << 20)
        .journal_segment_bytes(64 << 10, 256 << 10)
}

/// What the writers of one run are to do.
pub struct Work<'a> {
    pub run: u64,
    /// The weakest level that is told to `tell`.
    pub level: Durability,
    pub seed: u64,
    pub stop: &'a AtomicBool,
    pub tell: &'a (dyn Fn(Ack) + Sync),
}

impl Work<'_> {
    /// Appends to several logs, commits, runs transactions, creates logs and makes checkpoints until it is told to stop or
    /// an error comes; gives the errors.
    pub fn go_on(&self, store: &Store) -> Vec<Error> {
        std::thread::scope(|scope| {
            let mut workers = Vec::new();
            for number in 0..3 {
                workers.push(scope.spawn(move || self.write(store, number)));
            }
            workers.push(scope.spawn(|| self.transact(store)));
            workers.push(scope.spawn(|| self.look_after(store)));
            let ended = workers.into_iter().map(|worker| worker.join().unwrap());
            ended.filter_map(Result::err).collect()
        })
    }

    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn acknowledge(&self, log: &str, first: u64, end: u64) {
        (self.tell)(Ack::Messages {
            log: log.to_owned(),
            first,
            end,
            run: self.run,
        });
    }

    /// Appends and commits at either level, and now and then within a transaction that takes part in another log.
    fn write(&self, store: &Store, number: u64) -> Result<(), Error> {
        let mut random = Random(self.seed ^ (number + 1) << 17 | 1);
        let log = format!("log-{number}");
        let mut writer = store.writer(&log)?;
        let (mut told, mut next) = (writer.next_offset().get(), writer.next_offset().get());
        while !self.is_over() {
            if random.below(12) == 0 {
                let receipt = store.transaction(|transaction| {
                    transaction.durability(self.level);
                    transaction.append(&log, &message(&log, next, self.run))
                })?;
                let given = receipt.offsets[&log].clone();
                assert_eq!(given, next..next + 1, "{log}");
                next += 1;
            } else {
                for _ in 0..1 + random.below(30) {
                    let offset = writer.append(&message(&log, next, self.run))?.get();
                    assert_eq!(offset, next, "{log}");
                    next += 1;
                }
                let level = match random.below(3) {
                    0 => Durability::Process,
                    _ => Durability::Disk,
                };
                writer.commit(level)?;
                if level < self.level {
                    continue;
                }
            }
            self.acknowledge(&log, told, next);
            told = next;
        }
        Ok(())
    }

    fn transact(&self, store: &Store) -> Result<(), Error> {
        let mut random = Random(self.seed ^ 0x7ab5 | 1);
        let end_of = |log: &str| store.log(log).map_or(0, |log| log.information().end.get());
        let mut next = end_of("left");
        while !self.is_over() {
            let count = 1 + random.below(20);
            store.transaction(|transaction| {
                transaction.durability(self.level);
                for offset in next..next + count {
                    transaction.append("left", &message("left", offset, self.run))?;
                    transaction.append("right", &message("right", offset, self.run))?;
                }
                Ok(())
            })?;
            for log in ["left", "right"] {
                self.acknowledge(log, next, next + count);
            }
            next += count;
        }
        Ok(())
    }

    fn look_after(&self, store: &Store) -> Result<(), Error> {
        let mut random = Random(self.seed ^ 0x1009 | 1);
        let mut created = 0;
        while !self.is_over() {
            std::thread::park_timeout(std::time::Duration::from_millis(1 + random.below(12)));
            store.checkpoint()?;
            if random.below(4) == 0 && created < 5 {
                let log = format!("created-{}-{created}", self.run);
                store.create_log(&log)?;
                (self.tell)(Ack::Created { log });
                created += 1;
            }
        }
        Ok(())
    }
}
