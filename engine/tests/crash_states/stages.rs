//! What a crash may leave of work in steps, and going on behind it.

use lanterman::{Durability, Error, Snapshot, Store};

use crate::common_stages::{Log, Stages, State, value};
use crate::edits::AFTER;
use crate::history::{Found, Lives, Oracle};

/// Name under which the number of the step is found.
const STAGE: &str = "stage";
/// What logs made after a crash are called, with the number of the life.
const FORK_AFTER: &str = "fork-after-";

impl Stages {
    /// The state without what was written after crashes, and what was.
    fn read_all(&self, store: &Store, lives: &Lives) -> Result<(State, Found), String> {
        let (mut state, mut found) = (self.read_state(store, |name| name != AFTER)?, Found::default());
        if let Ok(snapshot) = store.snapshot(AFTER) {
            found
                .ends
                .insert(AFTER.to_owned(), self.read_after(&snapshot, lives)?);
        }
        let is_fork = |log: &String, _: &mut Log| log.starts_with(FORK_AFTER);
        let forks: Vec<_> = state.logs.extract_if(.., is_fork).collect();
        for (fork, held) in forks {
            if Some(&held) != state.logs.values().next() {
                return Err(format!("{fork} does not hold what it was forked from"));
            }
            found.ends.insert(fork, held.len() as u64);
        }
        Ok((state, found))
    }

    /// Reads the log that is written after crashes.
    fn read_after(&self, snapshot: &Snapshot, lives: &Lives) -> Result<u64, String> {
        let end = snapshot.end().get();
        for offset in 0..end {
            let failed = |error: Error| format!("reading {offset} of {AFTER}: {error}");
            let message = snapshot.get(offset).map_err(failed)?;
            if message.value()[..] != value(self.value_bytes, offset, lives.of(AFTER, offset)) {
                return Err(format!("another message at {offset} of {AFTER}"));
            }
        }
        Ok(end)
    }
}

impl Oracle for Stages {
    fn look(&self, store: &Store, lives: &Lives) -> Result<Found, String> {
        let (state, mut found) = self.read_all(store, lives)?;
        let stage = self
            .number_of(&state)
            .ok_or_else(|| format!("no step left this: {state:?}"))?;
        found.ends.insert(STAGE.to_owned(), stage as u64);
        Ok(found)
    }

    fn judge(&self, found: &Found, changes: usize, _: Durability) -> Result<(), String> {
        let acknowledged = self.acknowledged_at(changes);
        let stage = found.ends.get(STAGE).copied().unwrap_or(0);
        if stage < acknowledged as u64 {
            return Err(format!(
                "step {stage} is found, and step {acknowledged} was acknowledged"
            ));
        }
        Ok(())
    }

    fn go_on(&self, store: &Store, found: &Found, lives: &Lives) -> Result<Found, String> {
        let failed = |error: Error| format!("going on: {error}");
        let life = lives.newest();
        let mut went_on = found.clone();
        let there = found.ends.get(AFTER).copied().unwrap_or(0);
        store
            .transaction(|transaction| transaction.append(AFTER, &value(self.value_bytes, there, life)))
            .map_err(failed)?;
        went_on.ends.insert(AFTER.to_owned(), there + 1);
        let first = store.logs().into_iter().map(|log| log.name);
        let origin = first
            .filter(|name| name != AFTER && !name.starts_with(FORK_AFTER))
            .min();
        if let Some(origin) = origin {
            let fork = format!("{FORK_AFTER}{life}");
            store.fork(&origin, &fork).map_err(failed)?;
            let end = store.log(&fork).map_err(failed)?.end().get();
            went_on.ends.insert(fork, end);
        }
        // A step, and not all of it: each change that it makes is one more moment of a crash.
        store.collect_step(32 << 10).map_err(failed)?;
        let faults = store.check_space().map_err(failed)?.faults;
        if !faults.is_empty() {
            return Err(format!("blocks lie where they may not: {faults:?}"));
        }
        Ok(went_on)
    }
}
