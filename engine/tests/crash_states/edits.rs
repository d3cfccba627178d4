//! Edits of logs, in their order: which messages a log shows when so many of them were done.

use std::collections::BTreeMap;
use std::ops::Range;

use lanterman::{Error, Store};

use crate::history::{Ends, Lives};

/// Which offsets each log's edits delete, in the order in which they were asked for. Each deletes something that those
/// before it have left, so that what a log shows says how many of them were done.
#[derive(Clone, Debug, Default)]
pub struct Edits {
    logs: BTreeMap<String, Vec<Range<u64>>>,
}

impl Edits {
    /// Adds the next edit of a log; gives how many it has now.
    pub fn add(&mut self, log: &str, offsets: Range<u64>) -> u64 {
        let edits = self.logs.entry(log.to_owned()).or_default();
        let mut shown = offsets.clone();
        assert!(
            shown.any(|offset| !deletes(edits, offset)),
            "{offsets:?} of {log} deletes nothing: nobody could see whether it was done"
        );
        edits.push(offsets);
        edits.len() as u64
    }

    /// The first offset from `from` on that is not deleted.
    pub fn next_shown(&self, log: &str, from: u64) -> u64 {
        let edits = self.logs.get(log).map_or(&[][..], Vec::as_slice);
        let mut offsets = from..;
        offsets.find(|offset| !deletes(edits, *offset)).unwrap_or(from)
    }

    /// How many edits each log has.
    pub fn counts(&self) -> Ends {
        let count = |(log, edits): (&String, &Vec<Range<u64>>)| (log.clone(), edits.len() as u64);
        self.logs.iter().map(count).collect()
    }

    /// Those that a store can have after `lives`: of each life's edits, as many as the next one found.
    pub fn of(&self, lives: &Lives) -> Self {
        let mut edits = self.clone();
        for begin in lives.begins() {
            for (log, known) in &mut edits.logs {
                let found = begin.edits.get(log).copied().unwrap_or(0);
                known.truncate(found as usize);
            }
            for (log, offsets) in recovery_edits(&begin.ends) {
                edits.logs.entry(log).or_default().push(offsets);
            }
        }
        edits
    }

    /// How many edits of `log` were done, which shows `shown` and ends at `end`.
    pub fn done(&self, log: &str, shown: &[u64], end: u64) -> Result<u64, String> {
        let edits = self.logs.get(log).map_or(&[][..], Vec::as_slice);
        let fits = |count: &usize| {
            let done = &edits[..*count];
            let wanted = (0..end).filter(|offset| !deletes(done, *offset));
            done.iter().all(|edit| edit.end <= end) && wanted.eq(shown.iter().copied())
        };
        let done = (0..=edits.len()).rev().find(fits);
        done.map(|done| done as u64).ok_or_else(|| {
            format!(
                "{log} ends at {end} and shows {:?}: no number of its edits leaves that: {edits:?}",
                runs(shown)
            )
        })
    }
}

fn deletes(edits: &[Range<u64>], offset: u64) -> bool {
    edits.iter().any(|edit| edit.contains(&offset))
}

/// Offsets as runs, which are shorter to read.
fn runs(offsets: &[u64]) -> Vec<Range<u64>> {
    let mut runs: Vec<Range<u64>> = Vec::new();
    for offset in offsets {
        match runs.last_mut() {
            Some(run) if run.end == *offset => run.end += 1,
            _ => runs.push(*offset..*offset + 1),
        }
    }
    runs
}

/// The log that a recovery goes on with.
pub fn recovery_log(found: &Ends) -> &str {
    let log = found.keys().find(|name| *name != AFTER);
    log.map_or("first", String::as_str)
}

/// The log that only recoveries write to.
pub const AFTER: &str = "after";

/// What a recovery deletes of the log that it goes on with: at first old messages and the first of two new ones, then the
/// second, in the transaction that appends more.
pub fn recovery_edits(found: &Ends) -> [(String, Range<u64>); 2] {
    let log = recovery_log(found);
    let end = found.get(log).copied().unwrap_or(0);
    let edit = |offsets| (log.to_owned(), offsets);
    [edit(end.saturating_sub(3)..end + 1), edit(end + 1..end + 2)]
}

/// The offsets of a log that can be read; whatever else it has says that it is deleted, whoever asks.
pub fn check_deleted(store: &Store, log: &str, shown: &[u64], end: u64) -> Result<(), String> {
    let snapshot = store.snapshot(log).map_err(|error| error.to_string())?;
    let is_shown = |offset: &u64| shown.binary_search(offset).is_ok();
    for offset in (0..end).filter(|offset| !is_shown(offset)) {
        match snapshot.get(offset) {
            Err(Error::Deleted { run, .. })
                if run.contains(&offset) && !(run.clone()).any(|at| is_shown(&at)) => {}
            other => return Err(format!("{offset} of {log} is deleted and answers {other:?}")),
        }
    }
    let ranged = snapshot.range(..).and_then(|messages| {
        let offset = |message: lanterman::Result<lanterman::KeptMessage>| Ok(message?.offset().get());
        messages.map(offset).collect::<lanterman::Result<Vec<_>>>()
    });
    match ranged {
        Ok(ranged) if ranged == shown => Ok(()),
        other => Err(format!("{log} shows other messages through a range: {other:?}")),
    }
}
