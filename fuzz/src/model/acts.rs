//! What is done to the store.

use lanterman::{Durability, Error, ErrorKind, NewMessage, Offset, Result};

use super::expected::{Expected, Parts, Whole};
use super::{APPEND_BYTES_MAX, Driver, NAMES, trace};

/// How often an append that found no memory is tried again, with background work and fewer snapshots between.
const TRIES_MAX: usize = 200;

impl Driver<'_> {
    pub(super) fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    /// A size: mostly small, sometimes none, sometimes more than a slab.
    pub(super) fn size(&mut self) -> usize {
        let size = match self.choices.below(16) {
            0 => 0,
            1..=8 => self.choices.index(200),
            9..=12 => self.choices.index(3000),
            13..=14 => self.choices.index(30_000),
            _ => self.choices.index(300 << 10),
        };
        if self.appended_bytes + size > APPEND_BYTES_MAX {
            return 1;
        }
        self.appended_bytes += size;
        size
    }

    pub(super) fn durability(&mut self) -> Durability {
        if self.choices.byte() & 1 == 0 {
            Durability::Disk
        } else {
            Durability::Process
        }
    }

    /// The log to work on, with its writer open.
    fn writer(&mut self) -> Option<usize> {
        let number = self.choices.index(NAMES.len());
        if self.writers[number].is_none() {
            match self.store().writer(NAMES[number]) {
                Ok(writer) => self.writers[number] = Some(writer),
                Err(error) => {
                    trace!(self, "writer of {number}: {error}");
                    self.expect_trouble(&error);
                    return None;
                }
            }
        } else {
            let second = self.store().writer(NAMES[number]);
            match second {
                Err(Error::WriterOpen { .. }) => {}
                Err(error) => {
                    self.expect_trouble(&error);
                    return None;
                }
                Ok(_) => panic!("a log with two writers"),
            }
        }
        Some(number)
    }

    /// Appends by `append`, again and again where memory is used up; `None` when something failed and nothing was
    /// appended.
    fn persist<T>(
        &mut self,
        number: usize,
        mut append: impl FnMut(&mut lanterman::Writer) -> Result<T>,
    ) -> Option<T> {
        for _ in 0..TRIES_MAX {
            let writer = self.writers[number].as_mut().expect("a writer was opened");
            let error = match append(writer) {
                Ok(appended) => return Some(appended),
                Err(error) => error,
            };
            let end = self.store().log(NAMES[number]).map_or(0, |log| log.end().get());
            assert!(
                end == self.logs[number].end(),
                "a failed append moved the end: {error}"
            );
            if !matches!(error, Error::WouldBlock { .. }) {
                trace!(self, "append failed: {error}");
                self.expect_trouble(&error);
                return None;
            }
            // Whoever holds snapshots and cursors holds memory.
            self.snapshots.clear();
            self.cursors.clear();
            if let Err(error) = self.store().step() {
                self.expect_trouble(&error);
                if self.is_broken {
                    return None;
                }
            }
            if self.is_space_limited {
                return None;
            }
        }
        panic!("memory does not come back");
    }

    pub(super) fn append(&mut self) {
        let Some(number) = self.writer() else { return };
        let bytes = self.size();
        let message = Expected::plain(bytes, self.number());
        trace!(self, "append {bytes} to {number}");
        if let Some(offset) = self.persist(number, |writer| writer.append(&message.value)) {
            assert!(
                offset.get() == self.logs[number].append(message),
                "another offset"
            );
        }
    }

    pub(super) fn many_small_appends(&mut self) {
        let Some(number) = self.writer() else { return };
        let count = self.choices.below(2000);
        let bytes = self.choices.index(120);
        trace!(self, "append {count} times {bytes} to {number}");
        for _ in 0..count {
            if self.appended_bytes > APPEND_BYTES_MAX {
                return;
            }
            self.appended_bytes += bytes + 8;
            let message = Expected::plain(bytes, self.number());
            let Some(offset) = self.persist(number, |writer| writer.append(&message.value)) else {
                return;
            };
            assert!(
                offset.get() == self.logs[number].append(message),
                "another offset"
            );
        }
    }

    pub(super) fn append_full(&mut self) {
        let Some(number) = self.writer() else { return };
        let bytes = self.size();
        let id = self.number();
        let message = Expected::full(&mut self.choices, bytes, id);
        trace!(self, "append full {bytes} to {number}");
        let headers = message.header_slices();
        let new = message.as_new(&headers);
        let appended = self.persist(number, |writer| writer.append_message(&new));
        if let Some(offset) = appended {
            assert!(
                offset.get() == self.logs[number].append(message.clone()),
                "another offset"
            );
        }
    }

    pub(super) fn append_batch(&mut self) {
        let Some(number) = self.writer() else { return };
        let count = self.choices.below(40);
        let mut messages = Vec::new();
        for _ in 0..count {
            let bytes = self.size().min(9_000);
            let id = self.number();
            messages.push(Expected::full(&mut self.choices, bytes, id));
        }
        trace!(self, "append a batch of {count} to {number}");
        let headers: Vec<_> = messages.iter().map(Expected::header_slices).collect();
        let new: Vec<NewMessage<'_>> = messages
            .iter()
            .zip(&headers)
            .map(|(message, headers)| message.as_new(headers))
            .collect();
        let Some(first) = self.persist(number, |writer| writer.append_batch(new.clone())) else {
            return;
        };
        let log = &mut self.logs[number];
        assert!(first.get() == log.end(), "another first offset");
        log.batches.push(log.end()..log.end() + count);
        messages.into_iter().for_each(|message| {
            log.append(message);
        });
    }

    /// Reserves room, fills it, and publishes it or gives it up.
    pub(super) fn append_in_place(&mut self) {
        let Some(number) = self.writer() else { return };
        let bytes = self.size();
        let is_published = !self.choices.one_in(4);
        let message = Expected::plain(bytes, self.number());
        trace!(self, "reserve {bytes} in {number}, publish={is_published}");
        let store = self.store().clone();
        let outcome = self.persist(number, |writer| {
            let mut room = writer.reserve(bytes)?;
            room.fill(|room| room.copy_from_slice(&message.value))?;
            let name = NAMES[number];
            let refused = store.transaction(|transaction| transaction.append(name, b"between"));
            assert!(refused.is_err(), "a transaction came into a reservation");
            if is_published {
                room.publish().map(Some)
            } else {
                Ok(None)
            }
        });
        if let Some(Some(offset)) = outcome {
            assert!(
                offset.get() == self.logs[number].append(message),
                "another offset"
            );
        }
    }

    pub(super) fn append_if(&mut self) {
        let Some(number) = self.writer() else { return };
        let end = self.logs[number].end();
        let bytes = self.size();
        let message = Expected::plain(bytes, self.number());
        let expected = if self.choices.one_in(2) {
            end
        } else {
            self.choices.below(end + 10)
        };
        trace!(self, "append {bytes} to {number} if its end {end} is {expected}");
        let outcome = self.persist(number, |writer| {
            match writer.append_if(Offset::new(expected), &NewMessage::new(&message.value)) {
                Err(Error::OffsetMismatch { found, .. }) => {
                    assert!(found.get() == end && expected != end, "a mismatch that is none");
                    Ok(None)
                }
                other => other.map(Some),
            }
        });
        if let Some(Some(offset)) = outcome {
            assert!(
                expected == end,
                "a condition that does not hold was taken for true"
            );
            assert!(
                offset.get() == self.logs[number].append(message),
                "another offset"
            );
        }
    }

    pub(super) fn settled<T>(
        &mut self,
        numbers: impl Iterator<Item = usize>,
        durability: Durability,
        outcome: Result<T>,
    ) {
        trace!(self, "committed at {durability:?}: {:?}", outcome.as_ref().err());
        match outcome {
            Ok(_) => {
                for number in numbers {
                    let log = &mut self.logs[number];
                    log.committed = log.end();
                    if durability == Durability::Disk {
                        log.durable = log.end();
                        log.is_created |= log.end() > 0;
                    }
                }
            }
            Err(error) => self.expect_trouble(&error),
        }
        let store = self.store().clone();
        for information in store.logs() {
            let log = &self.logs[NAMES
                .iter()
                .position(|name| *name == information.name)
                .expect("only our logs")];
            let (committed, durable) = (information.committed_end.get(), information.durable_end.get());
            assert!(
                committed >= log.committed,
                "the committed end is behind what was acknowledged"
            );
            assert!(
                durable >= log.durable,
                "the durable end is behind what was acknowledged"
            );
        }
    }

    pub(super) fn commit(&mut self) {
        let Some(number) = self.writer() else { return };
        let durability = self.durability();
        trace!(self, "commit {number}");
        let outcome = self.writers[number]
            .as_mut()
            .expect("a writer was opened")
            .commit(durability);
        self.settled(std::iter::once(number), durability, outcome);
    }

    pub(super) fn commit_async(&mut self) {
        let Some(number) = self.writer() else { return };
        let durability = self.durability();
        let is_dropped = self.choices.one_in(3);
        trace!(self, "commit {number} later, dropped={is_dropped}");
        let future = self.writers[number]
            .as_mut()
            .expect("a writer was opened")
            .commit_async(durability);
        let outcome = match future {
            Ok(future) if is_dropped => {
                drop(future);
                return;
            }
            Ok(future) => future.wait(),
            Err(error) => Err(error),
        };
        self.settled(std::iter::once(number), durability, outcome);
    }

    pub(super) fn commit_all(&mut self) {
        let durability = self.durability();
        let outcome = self.store().commit_all(durability);
        self.settled(0..NAMES.len(), durability, outcome);
    }

    pub(super) fn transaction(&mut self) {
        let durability = self.durability();
        let is_given_up = self.choices.one_in(4);
        let mut parts = Parts::new();
        let mut messages = Vec::new();
        for _ in 0..self.choices.below(6) {
            let number = self.choices.index(NAMES.len());
            let (bytes, id) = (self.size(), self.number());
            messages.push((number, Expected::full(&mut self.choices, bytes, id)));
        }
        trace!(
            self,
            "transaction over {:?}",
            messages.iter().map(|(number, _)| *number).collect::<Vec<_>>()
        );
        for _ in 0..TRIES_MAX {
            let outcome = self.store().transaction(|transaction| {
                transaction.durability(durability);
                for (number, message) in &messages {
                    transaction.append_message(NAMES[*number], &message.as_new(&message.header_slices()))?;
                }
                if is_given_up {
                    lanterman::abort("changed its mind")
                } else {
                    Ok(())
                }
            });
            match outcome {
                Err(Error::WouldBlock { .. }) if !self.is_space_limited => {
                    self.snapshots.clear();
                    self.cursors.clear();
                    if let Err(error) = self.store().step() {
                        self.expect_trouble(&error);
                    }
                    if self.is_broken {
                        return;
                    }
                }
                Err(Error::WouldBlock { .. }) => return,
                Err(error) if is_given_up => {
                    assert!(
                        matches!(error, Error::Aborted { .. }),
                        "given up, and yet: {error}"
                    );
                    return;
                }
                outcome => {
                    assert!(!is_given_up, "given up and committed");
                    for (number, _) in &messages {
                        let end = self.logs[*number].end();
                        parts.entry(*number).or_insert(end..end).end += 1;
                    }
                    self.transaction_ended(parts, messages, durability, outcome);
                    return;
                }
            }
        }
        panic!("memory for a transaction does not come back");
    }

    fn transaction_ended(
        &mut self,
        parts: Parts,
        messages: Vec<(usize, Expected)>,
        durability: Durability,
        outcome: Result<lanterman::TransactionReceipt>,
    ) {
        let whole = |parts| Whole {
            parts,
            ..Whole::default()
        };
        let append = |logs: &mut [super::ModelLog]| {
            messages.into_iter().for_each(|(number, message)| {
                logs[number].append(message);
            });
        };
        match outcome {
            Ok(receipt) => {
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
                append(&mut self.logs);
                self.transactions.push(whole(parts.clone()));
                self.settled(parts.into_keys(), durability, Ok(()));
            }
            Err(error) => {
                trace!(self, "transaction failed: {error}");
                for number in parts.keys() {
                    let end = self.store().log(NAMES[*number]).map_or(0, |log| log.end().get());
                    assert!(
                        end == self.logs[*number].end(),
                        "a failed transaction moved an end"
                    );
                }
                self.expect_trouble(&error);
                if self.is_broken {
                    // Its block may have reached the disk all the same: whole or not at all.
                    append(&mut self.logs);
                    self.transactions.push(whole(parts));
                }
            }
        }
    }

    pub(super) fn checkpoint(&mut self) {
        let outcome = self.store().checkpoint();
        trace!(
            self,
            "checkpoint {:?}",
            outcome.as_ref().map(|receipt| receipt.is_some())
        );
        if let Err(error) = outcome {
            self.expect_trouble(&error);
        }
    }

    pub(super) fn step(&mut self) {
        let outcome = self.store().step();
        trace!(self, "step {outcome:?}");
        if let Err(error) = outcome {
            self.expect_trouble(&error);
        }
    }

    pub(super) fn create_log(&mut self) {
        let number = self.choices.index(NAMES.len());
        let outcome = self.store().create_log(NAMES[number]);
        trace!(self, "create {number} {:?}", outcome.as_ref().err());
        match outcome {
            Ok(()) => self.logs[number].is_created = true,
            Err(error @ Error::LogExists { .. }) => assert!(error.kind() == ErrorKind::FixTheCall),
            Err(error) => self.expect_trouble(&error),
        }
    }

    pub(super) fn drop_writer(&mut self) {
        let number = self.choices.index(NAMES.len());
        self.writers[number] = None;
    }
}
