//! An attempt to append, and what memory, rules and keys make of it.

use lanterman::{Durability, Error, Result};

use super::expected::Expected;
use super::judging::Judged;
use super::log::{Parts, Whole};
use super::rules::{Breach, dead_letters_of};
use super::{Driver, NAMES, trace};

/// How often an append that found no memory is tried again, with background work and fewer snapshots between.
pub(super) const TRIES_MAX: usize = 200;

/// What a call to append wants to bring into a log.
#[derive(Clone, Copy)]
pub(super) enum Attempt<'a> {
    /// Nothing; no rule is asked.
    Nothing,
    Message(&'a Expected),
    Batch(&'a [Expected]),
}

impl Attempt<'_> {
    fn messages(&self) -> &[Expected] {
        match self {
            Attempt::Nothing => &[],
            Attempt::Message(message) => std::slice::from_ref(message),
            Attempt::Batch(messages) => messages,
        }
    }

    fn is_judged(&self) -> bool {
        !matches!(self, Attempt::Nothing)
    }
}

/// What must become of an attempt.
#[derive(Debug)]
enum Verdict {
    Taken(Judged),
    MissesKey,
    Refused(Breach),
    Diverted(Expected, Breach),
}

impl Driver<'_> {
    fn verdict(&self, number: usize, attempt: Attempt<'_>) -> Verdict {
        let log = &self.logs[number];
        if log.misses_key(attempt.messages()) {
            return Verdict::MissesKey;
        }
        let judged = log.judge(attempt.messages());
        match (judged.first_broken(), attempt) {
            (None, _) => Verdict::Taken(judged),
            (Some(breach), Attempt::Message(message)) if breach.is_diverted => {
                Verdict::Diverted(message.turned(number, breach), breach.clone())
            }
            // Of a batch nothing goes anywhere.
            (Some(breach), _) => Verdict::Refused(breach.clone()),
        }
    }

    /// Appends by `append`, again and again where memory is used up; `None` when something failed, or a rule or a missing
    /// key refuses it, and nothing was appended.
    pub(super) fn persist<T>(
        &mut self,
        number: usize,
        attempt: Attempt<'_>,
        mut append: impl FnMut(&mut lanterman::Writer) -> Result<T>,
    ) -> Option<T> {
        if !self.make_rules_known(number) {
            return None;
        }
        let verdict = self.verdict(number, attempt);
        let edits = self.logs[number].edits.len();
        for _ in 0..TRIES_MAX {
            let writer = self.writers[number].as_mut().expect("a writer was opened");
            let error = match append(writer) {
                Ok(appended) => {
                    self.taken(number, attempt, verdict);
                    return Some(appended);
                }
                Err(error) => error,
            };
            let end = self.store().log(NAMES[number]).map_or(0, |log| log.end().get());
            assert!(
                end == self.logs[number].end(),
                "a failed append moved the end: {error}"
            );
            if is_refusal(&error) {
                trace!(self, "refused: {error}");
                self.refused(number, &verdict, &error);
                return None;
            }
            self.logs[number].may_have_recalled();
            self.logs[dead_letters_of(number)].may_have_recalled();
            if !matches!(error, Error::WouldBlock { .. }) {
                trace!(self, "append failed: {error}");
                self.expect_trouble(&error);
                self.perhaps_diverted(number, &verdict);
                return None;
            }
            self.make_memory();
            // What rules compare with may not be what it was.
            if self.is_broken || self.is_space_limited || self.logs[number].edits.len() > edits {
                return None;
            }
        }
        panic!("memory does not come back");
    }

    /// Gives memory back: whoever holds snapshots and cursors holds memory.
    pub(super) fn make_memory(&mut self) {
        self.snapshots.clear();
        self.cursors.clear();
        self.work_in_background();
    }

    fn taken(&mut self, number: usize, attempt: Attempt<'_>, verdict: Verdict) {
        let Verdict::Taken(judged) = verdict else {
            let recall = &self.logs[number].recall;
            panic!(
                "log {:?} has taken it, and must not: {verdict:?}, by {recall:?}",
                NAMES[number]
            );
        };
        if attempt.is_judged() {
            self.logs[number].now_recalls(judged.memory);
        }
    }

    fn refused(&mut self, number: usize, verdict: &Verdict, error: &Error) {
        let dead = dead_letters_of(number);
        self.refused += 1;
        match (verdict, error) {
            (Verdict::MissesKey, Error::KeyRequired { name }) => {
                assert!(name == NAMES[number], "another log requires a key");
                return;
            }
            (Verdict::Refused(breach), Error::Constraint(violation)) => breach.check(number, violation),
            (
                Verdict::Diverted(message, breach),
                Error::Diverted {
                    violation,
                    log,
                    offset,
                },
            ) => {
                breach.check(number, violation);
                assert!(log == NAMES[dead], "diverted to another log");
                self.diverted += 1;
                self.logs[dead].has_recalled();
                assert!(
                    offset.get() == self.logs[dead].append(message.clone()),
                    "another offset in the log that it is diverted to"
                );
                self.settled(std::iter::once(dead), Durability::Process, Ok(()));
            }
            (Verdict::Diverted(message, _), Error::KeyRequired { name }) => {
                let messages = std::slice::from_ref(message);
                assert!(
                    name == NAMES[dead] && self.logs[dead].misses_key(messages),
                    "{name:?} requires a key of {message:?}"
                );
                self.logs[dead].has_recalled();
            }
            _ => panic!("expected {verdict:?}, and it is {error}"),
        }
        self.logs[number].has_recalled();
    }

    /// A message that was on its way to another log when something failed may have reached the disk.
    fn perhaps_diverted(&mut self, number: usize, verdict: &Verdict) {
        let dead = dead_letters_of(number);
        let Verdict::Diverted(message, _) = verdict else {
            return;
        };
        if self.is_broken && !self.logs[dead].misses_key([message]) {
            let offset = self.logs[dead].append(message.clone());
            self.transactions.push(Whole {
                parts: Parts::from([(dead, offset..offset + 1)]),
                ..Whole::default()
            });
        }
    }
}

/// Whether rules or a missing key are why a message was not taken.
pub(super) fn is_refusal(error: &Error) -> bool {
    matches!(
        error,
        Error::KeyRequired { .. } | Error::Constraint(_) | Error::Diverted { .. }
    )
}
