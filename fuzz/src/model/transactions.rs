//! Transactions: messages for several logs, and ranges that are deleted with them, all or nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use lanterman::{Durability, Error, Result, TransactionReceipt};

use super::expected::Expected;
use super::judging::Judged;
use super::log::{Parts, Whole};
use super::persisting::{TRIES_MAX, is_refusal};
use super::rules::{Breach, any_diverts, dead_letters_of};
use super::{Driver, NAMES, trace};

/// What a transaction is to do, and what must become of it.
struct Together {
    messages: Vec<(usize, Expected)>,
    deletions: Vec<(usize, Range<u64>)>,
    durability: Durability,
    is_given_up: bool,
    judged: BTreeMap<usize, Judged>,
    /// What comes into each log, behind each other.
    content: BTreeMap<usize, Vec<Expected>>,
    refusals: Vec<(usize, Breach)>,
    missing_keys: BTreeSet<usize>,
}

impl Driver<'_> {
    pub(super) fn transaction(&mut self) {
        let durability = self.durability();
        let is_given_up = self.choices.one_in(4);
        let mut messages = Vec::new();
        for _ in 0..self.choices.below(6) {
            let number = self.choices.index(NAMES.len());
            let (bytes, id) = (self.size(), self.number());
            messages.push((number, Expected::full(&mut self.choices, bytes, id)));
        }
        self.transact(messages, Vec::new(), durability, is_given_up);
    }

    /// A message appended to one log, and ranges of others deleted: all or nothing.
    pub(super) fn delete_in_a_transaction(&mut self) {
        let durability = self.durability();
        let appended = self.choices.index(NAMES.len());
        let (bytes, id) = (self.size(), self.number());
        let message = Expected::plain(bytes, id);
        let mut deletions = Vec::new();
        for _ in 0..=self.choices.below(3) {
            let number = self.choices.index(NAMES.len());
            if self.store().log(NAMES[number]).is_ok() {
                deletions.push((number, self.range(number)));
            }
        }
        self.transact(vec![(appended, message)], deletions, durability, false);
    }

    pub(super) fn transact(
        &mut self,
        messages: Vec<(usize, Expected)>,
        deletions: Vec<(usize, Range<u64>)>,
        durability: Durability,
        is_given_up: bool,
    ) {
        let numbers: Vec<usize> = messages.iter().map(|(number, _)| *number).collect();
        trace!(
            self,
            "transaction over {numbers:?}, deletes {deletions:?} at {durability:?}, given up={is_given_up}"
        );
        if !numbers.iter().all(|number| self.make_rules_known(*number)) {
            return;
        }
        let together = self.together(messages, deletions, durability, is_given_up);
        let edits = self.edit_count();
        for _ in 0..TRIES_MAX {
            let outcome = self.store().transaction(|transaction| {
                transaction.durability(durability);
                for (number, message) in &together.messages {
                    transaction.append_message(NAMES[*number], &message.as_new(&message.header_slices()))?;
                }
                for (number, offsets) in &together.deletions {
                    transaction.delete(NAMES[*number], offsets.clone())?;
                }
                if is_given_up {
                    lanterman::abort("changed its mind")
                } else {
                    Ok(())
                }
            });
            if !matches!(outcome, Err(Error::WouldBlock { .. })) {
                self.transaction_ended(together, outcome);
                return;
            }
            self.logs_may_have_recalled(&together);
            if self.is_space_limited {
                return;
            }
            self.make_memory();
            // What rules compare with may not be what it was.
            if self.is_broken || self.edit_count() > edits {
                return;
            }
        }
        panic!("memory for a transaction does not come back");
    }

    fn edit_count(&self) -> usize {
        self.logs.iter().map(|log| log.edits.len()).sum()
    }

    /// Judges the messages of a transaction, log by log.
    fn together(
        &self,
        messages: Vec<(usize, Expected)>,
        deletions: Vec<(usize, Range<u64>)>,
        durability: Durability,
        is_given_up: bool,
    ) -> Together {
        let mut judged = BTreeMap::new();
        let mut content: BTreeMap<usize, Vec<Expected>> = BTreeMap::new();
        let mut refusals = Vec::new();
        for (number, log) in self.logs.iter().enumerate() {
            let own: Vec<&Expected> = messages
                .iter()
                .filter(|(of, _)| *of == number)
                .map(|(_, message)| message)
                .collect();
            if own.is_empty() {
                continue;
            }
            let of_log = log.judge(own);
            content
                .entry(number)
                .or_default()
                .extend(of_log.taken.iter().cloned());
            refusals.extend(of_log.refused.iter().map(|breach| (number, breach.clone())));
            judged.insert(number, of_log);
        }
        // What comes from elsewhere stands behind a log's own messages.
        for (number, of_log) in &judged {
            let turned = of_log
                .diverted
                .iter()
                .map(|(message, breach)| message.turned(*number, breach));
            content
                .entry(dead_letters_of(*number))
                .or_default()
                .extend(turned);
        }
        content.retain(|_, messages| !messages.is_empty());
        let misses = |(number, messages): (&usize, &Vec<Expected>)| {
            self.logs[*number].misses_key(messages).then_some(*number)
        };
        let missing_keys = content.iter().filter_map(misses).collect();
        Together {
            messages,
            deletions,
            durability,
            is_given_up,
            judged,
            content,
            refusals,
            missing_keys,
        }
    }

    fn logs_may_have_recalled(&mut self, together: &Together) {
        for number in together.judged.keys() {
            self.logs[*number].may_have_recalled();
            self.logs[dead_letters_of(*number)].may_have_recalled();
        }
    }

    fn transaction_ended(&mut self, together: Together, outcome: Result<TransactionReceipt>) {
        let mut ranges = together.deletions.iter();
        let is_bad_range = ranges.any(|(number, offsets)| self.is_refused(*number, offsets));
        let error = match outcome {
            Ok(receipt) => {
                assert!(
                    !together.is_given_up
                        && !is_bad_range
                        && together.refusals.is_empty()
                        && together.missing_keys.is_empty(),
                    "committed, given up={}, bad range={is_bad_range}, refused={:?}, without keys={:?}",
                    together.is_given_up,
                    together.refusals,
                    together.missing_keys
                );
                self.committed_together(together, &receipt);
                return;
            }
            Err(error) => error,
        };
        trace!(self, "transaction failed: {error}");
        self.refused += usize::from(is_refusal(&error));
        for (number, name) in NAMES.iter().enumerate() {
            let end = self.store().log(name).map_or(0, |log| log.end().get());
            assert!(
                end == self.logs[number].end(),
                "a failed transaction moved the end of {name:?}: {error}"
            );
        }
        match &error {
            Error::Aborted { .. } => assert!(together.is_given_up, "nobody gave it up"),
            _ if together.is_given_up => panic!("given up, and yet: {error}"),
            Error::InvalidRange { .. } => assert!(is_bad_range, "{:?} is refused", together.deletions),
            Error::Constraint(violation) => {
                let number = NAMES.iter().position(|name| *name == violation.log);
                let wanted = together
                    .refusals
                    .iter()
                    .find(|(of, _)| Some(*of) == number)
                    .unwrap_or_else(|| panic!("no rule refuses it, and yet: {error}"));
                wanted.1.check(wanted.0, violation);
                self.logs_may_have_recalled(&together);
            }
            Error::KeyRequired { name } => {
                let misses = |number: &usize| NAMES[*number] == name;
                assert!(
                    together.refusals.is_empty() && together.missing_keys.iter().any(misses),
                    "no message for {name:?} misses its key"
                );
                self.logs_may_have_recalled(&together);
            }
            error => {
                self.expect_trouble(error);
                self.logs_may_have_recalled(&together);
                if self.is_broken {
                    // Its block may have reached the disk all the same: whole or not at all.
                    self.take_up(together, None);
                }
            }
        }
    }

    fn committed_together(&mut self, together: Together, receipt: &TransactionReceipt) {
        let durability = together.durability;
        let diverted = together.judged.values().map(|judged| judged.diverted.len());
        self.diverted += diverted.sum::<usize>();
        let parts = self.take_up(together, Some(durability));
        for (number, offsets) in &parts {
            assert!(
                receipt.offsets[NAMES[*number]] == *offsets,
                "the receipt names other offsets"
            );
        }
        assert!(
            receipt.offsets.len() == parts.len(),
            "the receipt names other logs"
        );
        self.settled(parts.into_keys(), durability, Ok(()));
    }

    /// Takes up a transaction that came through at a level, or may have.
    fn take_up(&mut self, together: Together, durability: Option<Durability>) -> Parts {
        let (is_committed, is_durable) = (durability.is_some(), durability == Some(Durability::Disk));
        let mut whole = Whole::default();
        for (number, of_log) in together.judged {
            if any_diverts(self.logs[number].rules()) {
                // It is asked to be ready for what may come.
                self.logs[dead_letters_of(number)].has_recalled();
            }
            self.logs[number].now_recalls(of_log.memory);
        }
        for (number, offsets) in together.deletions {
            let log = &mut self.logs[number];
            let end = offsets.end;
            if log.delete(offsets, is_committed, is_durable) == 0 {
                continue;
            }
            whole.edits.push((number, log.edits.len()));
            if is_committed {
                log.committed = log.committed.max(end);
            }
            if is_durable {
                log.durable = log.durable.max(end);
                log.is_created = true;
            }
        }
        for (number, messages) in together.content {
            let log = &mut self.logs[number];
            let first = log.end();
            messages.into_iter().for_each(|message| {
                log.append(message);
            });
            whole.parts.insert(number, first..log.end());
        }
        let parts = whole.parts.clone();
        self.transactions.push(whole);
        parts
    }
}
