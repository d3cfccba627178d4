//! Work of which every step is durable before the next one begins, and what the store must hold after each: whatever goes
//! wrong leaves what one of them left, not earlier than the last one that was acknowledged, and nothing between two.
#![allow(dead_code, unreachable_pub, reason = "each test uses a part of this")]

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Mutex;

use lanterman::{DeletionReceipt, Error, Result, Retention, Snapshot, Store};

/// What a log holds: the number of a message, or nothing, at each offset.
pub type Log = Vec<Option<u64>>;

/// What a store holds.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct State {
    pub logs: BTreeMap<String, Log>,
    /// Named snapshots, by label and log.
    pub named: BTreeMap<(String, String), Log>,
}

/// Each log by its end, how many messages it shows, and the first and last of them.
impl fmt::Debug for State {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short = |log: &Log| {
            let mut shown = log.iter().flatten();
            let (count, first) = (shown.clone().count(), shown.next());
            format!("{count} of {}, {first:?} to {:?}", log.len(), shown.next_back())
        };
        let logs = self.logs.iter().map(|(name, log)| (name.clone(), short(log)));
        let named = self
            .named
            .iter()
            .map(|((label, log), held)| (format!("{label} of {log}"), short(held)));
        formatter.debug_map().entries(logs.chain(named)).finish()
    }
}

/// What the store held behind a step.
#[derive(Debug)]
pub struct Stage {
    /// How many changes the disk had seen when the step was acknowledged.
    pub changes: usize,
    pub state: State,
}

/// Works on a store step by step, and notes what it must hold after each.
pub struct Stages {
    changes: Box<dyn Fn() -> usize + Send + Sync>,
    pub value_bytes: fn(u64) -> usize,
    notes: Mutex<Vec<Stage>>,
    /// What the step would have left that was refused last.
    refused: Mutex<Option<State>>,
}

impl fmt::Debug for Stages {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Stages")
            .field("notes", &self.notes)
            .finish_non_exhaustive()
    }
}

/// The bytes of message `number` of life `life`.
pub fn value(value_bytes: fn(u64) -> usize, number: u64, life: u64) -> Vec<u8> {
    let mut value = number.to_le_bytes().to_vec();
    value.push(life as u8);
    value.resize(value_bytes(number).max(9), (number % 251) as u8 | 1);
    value
}

impl Stages {
    /// `changes` says how many changes the disk has seen.
    pub fn new(changes: impl Fn() -> usize + Send + Sync + 'static, value_bytes: fn(u64) -> usize) -> Self {
        let empty = Stage {
            changes: 0,
            state: State::default(),
        };
        Self {
            changes: Box::new(changes),
            value_bytes,
            notes: Mutex::new(vec![empty]),
            refused: Mutex::new(None),
        }
    }

    /// Takes a step that changes the state so, and notes whether it was acknowledged.
    fn step<T>(&self, call: impl FnOnce() -> Result<T>, change: impl FnOnce(&mut State)) -> Result<T> {
        let mut state = self.newest();
        change(&mut state);
        let outcome = call();
        if outcome.is_err() {
            *self.refused.lock().unwrap() = Some(state);
            return outcome;
        }
        let mut notes = self.notes.lock().unwrap();
        let known = notes.iter().rposition(|stage| stage.state == state);
        assert!(
            known.is_none_or(|known| known + 1 == notes.len()),
            "a state that was there before tells nothing"
        );
        notes.push(Stage {
            changes: (self.changes)(),
            state,
        });
        outcome
    }

    /// What the store holds behind the last step that was acknowledged.
    pub fn newest(&self) -> State {
        self.notes.lock().unwrap().last().unwrap().state.clone()
    }

    /// What the step would have left that was refused last.
    pub fn refused(&self) -> Option<State> {
        self.refused.lock().unwrap().clone()
    }

    /// The number of the last step that left this.
    pub fn number_of(&self, state: &State) -> Option<usize> {
        self.notes
            .lock()
            .unwrap()
            .iter()
            .rposition(|stage| stage.state == *state)
    }

    /// The number of the last step that was acknowledged when the disk had seen so many changes.
    pub fn acknowledged_at(&self, changes: usize) -> usize {
        let notes = self.notes.lock().unwrap();
        notes
            .iter()
            .rposition(|stage| stage.changes <= changes)
            .unwrap_or(0)
    }

    /// What a log holds now.
    pub fn log(&self, name: &str) -> Log {
        let notes = self.notes.lock().unwrap();
        notes
            .last()
            .unwrap()
            .state
            .logs
            .get(name)
            .cloned()
            .unwrap_or_default()
    }

    /// The first offset from `from` on that `log` shows, or else its end.
    pub fn next_shown(&self, log: &str, from: u64) -> u64 {
        let log = self.log(log);
        let shown = log.iter().skip(from as usize).position(Option::is_some);
        shown.map_or(log.len() as u64, |found| from + found as u64)
    }

    /// Appends messages with the given numbers to each of the logs, all or nothing.
    pub fn append(&self, store: &Store, logs: &[&str], numbers: Range<u64>) -> Result<()> {
        let call = || {
            let receipt = store.transaction(|transaction| {
                for log in logs {
                    for number in numbers.clone() {
                        transaction.append(log, &value(self.value_bytes, number, 0))?;
                    }
                }
                Ok(())
            });
            receipt.map(drop)
        };
        self.step(call, |state| {
            for log in logs {
                let log = state.logs.entry((*log).to_owned()).or_default();
                log.extend(numbers.clone().map(Some));
            }
        })
    }

    pub fn delete(&self, store: &Store, log: &str, offsets: Range<u64>) -> Result<DeletionReceipt> {
        let call = || store.delete(log, offsets.clone());
        self.step(call, |state| {
            let log = state.logs.get_mut(log).unwrap();
            log[offsets.start as usize..offsets.end as usize].fill(None);
        })
    }

    pub fn retain(&self, store: &Store, log: &str, from: u64) -> Result<DeletionReceipt> {
        let call = || store.retain(log, &Retention::new().from(from));
        self.step(call, |state| {
            state.logs.get_mut(log).unwrap()[..from as usize].fill(None);
        })
    }

    /// Forks a log, at an offset or whole.
    pub fn fork(&self, store: &Store, log: &str, new: &str, at: Option<u64>) -> Result<()> {
        let call = || match at {
            Some(offset) => store.fork_at(log, new, offset),
            None => store.fork(log, new),
        };
        self.step(call, |state| {
            let mut held = state.logs[log].clone();
            held.truncate(at.map_or(usize::MAX, |offset| offset as usize));
            state.logs.insert(new.to_owned(), held);
        })
    }

    pub fn splice(&self, store: &Store, log: &str, source: &str, offsets: Range<u64>) -> Result<()> {
        let call = || store.splice(log, source, offsets.clone()).map(drop);
        self.step(call, |state| {
            let taken = state.logs[source][offsets.start as usize..offsets.end as usize].to_vec();
            state.logs.get_mut(log).unwrap().extend(taken);
        })
    }

    pub fn drop_log(&self, store: &Store, log: &str) -> Result<DeletionReceipt> {
        self.step(
            || store.drop_log(log),
            |state| {
                state.logs.remove(log).unwrap();
            },
        )
    }

    /// A named snapshot of some logs, or of all.
    pub fn create_snapshot(&self, store: &Store, label: &str, logs: &[&str]) -> Result<()> {
        let call = || store.create_snapshot(label, logs).map(drop);
        self.step(call, |state| {
            for (log, held) in &state.logs {
                if logs.is_empty() || logs.contains(&log.as_str()) {
                    state.named.insert((label.to_owned(), log.clone()), held.clone());
                }
            }
        })
    }

    pub fn drop_snapshot(&self, store: &Store, label: &str) -> Result<()> {
        let call = || store.drop_snapshot(label).map(drop);
        self.step(call, |state| state.named.retain(|(known, _), _| known != label))
    }

    /// A fork of what a named snapshot holds.
    pub fn fork_named(&self, store: &Store, label: &str, log: &str, new: &str) -> Result<()> {
        let call = || store.named_snapshot(label, log)?.fork(new);
        self.step(call, |state| {
            let held = state.named[&(label.to_owned(), log.to_owned())].clone();
            state.logs.insert(new.to_owned(), held);
        })
    }

    /// Reads a log, each message of which must be one of the first life.
    pub fn read(&self, snapshot: &Snapshot) -> std::result::Result<Log, String> {
        let name = snapshot.name();
        let failed = |error: Error| format!("reading {name}: {error}");
        let mut log = vec![None; snapshot.end().get() as usize];
        let mut cursor = snapshot.cursor(0u64).map_err(failed)?;
        while let Some(message) = cursor.next().map_err(failed)? {
            let offset = message.offset().get() as usize;
            let found = message.value();
            let number = found.first_chunk().map_or(0, |head| u64::from_le_bytes(*head));
            if found != value(self.value_bytes, number, 0) {
                return Err(format!("no message of this life at {offset} of {name}"));
            }
            log[offset] = Some(number);
        }
        Ok(log)
    }

    /// Reads all named snapshots, and the logs that are `wanted`.
    pub fn read_state(
        &self,
        store: &Store,
        wanted: impl Fn(&str) -> bool,
    ) -> std::result::Result<State, String> {
        let failed = |error: Error| format!("reading: {error}");
        let mut state = State::default();
        for log in store.logs().into_iter().filter(|log| wanted(&log.name)) {
            let snapshot = store.snapshot(&log.name).map_err(failed)?;
            state.logs.insert(log.name, self.read(&snapshot)?);
        }
        for named in store.named_snapshots() {
            let snapshot = store.named_snapshot(&named.label, &named.log).map_err(failed)?;
            state
                .named
                .insert((named.label, named.log), self.read(&snapshot)?);
        }
        Ok(state)
    }
}
