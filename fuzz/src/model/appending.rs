//! Appending to one log, in all ways.

use lanterman::{Durability, Error, NewMessage, Offset};

use super::expected::Expected;
use super::persisting::Attempt;
use super::{APPEND_BYTES_MAX, Driver, NAMES, trace};

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
    pub(super) fn writer(&mut self) -> Option<usize> {
        let number = self.choices.index(NAMES.len());
        self.writer_of(number).then_some(number)
    }

    /// Opens the writer of a log; says whether it is open.
    pub(super) fn writer_of(&mut self, number: usize) -> bool {
        if self.writers[number].is_none() {
            match self.store().writer(NAMES[number]) {
                Ok(writer) => self.writers[number] = Some(writer),
                Err(error) => {
                    trace!(self, "writer of {number}: {error}");
                    self.expect_trouble(&error);
                    return false;
                }
            }
        } else {
            let second = self.store().writer(NAMES[number]);
            match second {
                Err(Error::WriterOpen { .. }) => {}
                Err(error) => {
                    self.expect_trouble(&error);
                    return false;
                }
                Ok(_) => panic!("a log with two writers"),
            }
        }
        true
    }

    pub(super) fn append(&mut self) {
        let Some(number) = self.writer() else { return };
        let bytes = self.size();
        let message = Expected::plain(bytes, self.number());
        trace!(self, "append {bytes} to {number}");
        let appended = self.persist(number, Attempt::Message(&message), |writer| {
            writer.append(&message.value)
        });
        if let Some(offset) = appended {
            self.appended(number, offset, message);
        }
    }

    fn appended(&mut self, number: usize, offset: Offset, message: Expected) {
        assert!(
            offset.get() == self.logs[number].append(message),
            "another offset"
        );
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
            let appended = self.persist(number, Attempt::Message(&message), |writer| {
                writer.append(&message.value)
            });
            let Some(offset) = appended else { return };
            self.appended(number, offset, message);
        }
    }

    pub(super) fn append_full(&mut self) {
        let Some(number) = self.writer() else { return };
        let bytes = self.size();
        let id = self.number();
        let message = Expected::full(&mut self.choices, bytes, id);
        trace!(self, "append full {bytes} to {number}");
        self.append_one(number, message);
    }

    /// Appends a message with all that it has; says whether it is in the log.
    pub(super) fn append_one(&mut self, number: usize, message: Expected) -> bool {
        let headers = message.header_slices();
        let new = message.as_new(&headers);
        let appended = self.persist(number, Attempt::Message(&message), |writer| {
            writer.append_message(&new)
        });
        let Some(offset) = appended else { return false };
        self.appended(number, offset, message.clone());
        true
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
        self.append_together(number, messages);
    }

    pub(super) fn append_together(&mut self, number: usize, messages: Vec<Expected>) {
        let headers: Vec<_> = messages.iter().map(Expected::header_slices).collect();
        let new: Vec<NewMessage<'_>> = messages
            .iter()
            .zip(&headers)
            .map(|(message, headers)| message.as_new(headers))
            .collect();
        let appended = self.persist(number, Attempt::Batch(&messages), |writer| {
            writer.append_batch(new.clone())
        });
        let Some(first) = appended else { return };
        let count = messages.len() as u64;
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
        // Room for what has no key is refused, and rules are asked when it is published.
        let attempt = match is_published || self.logs[number].is_keyed() {
            true => Attempt::Message(&message),
            false => Attempt::Nothing,
        };
        let store = self.store().clone();
        let outcome = self.persist(number, attempt, |writer| {
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
            self.appended(number, offset, message);
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
        let attempt = match expected == end {
            true => Attempt::Message(&message),
            false => Attempt::Nothing,
        };
        let outcome = self.persist(number, attempt, |writer| {
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
            self.appended(number, offset, message);
        }
    }
}
