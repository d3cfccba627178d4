//! The model: what every log must hold, as plain vectors.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use lanterman::{KeptMessage, Message, NewMessage, ValueType};

use crate::choices::{Choices, Seeded};

/// A message as it was appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Expected {
    pub(super) value: Arc<[u8]>,
    pub(super) key: Option<Vec<u8>>,
    pub(super) time_ms: Option<i64>,
    pub(super) headers: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) value_type: ValueType,
}

impl Expected {
    /// A message of bytes whose content follows from `number`.
    pub(super) fn plain(bytes: usize, number: u64) -> Self {
        let value = Seeded::new(number).bytes(bytes).into();
        Expected {
            value,
            key: None,
            time_ms: None,
            headers: Vec::new(),
            value_type: ValueType::BYTES,
        }
    }

    /// A message that may have everything that a message can have.
    pub(super) fn full(choices: &mut Choices<'_>, bytes: usize, number: u64) -> Self {
        let mut message = Self::plain(bytes, number);
        let what = choices.byte();
        let mut seeded = Seeded::new(!number);
        if what & 1 != 0 {
            let bytes = seeded.below(40) as usize;
            message.key = Some(seeded.bytes(bytes));
        }
        if what & 2 != 0 {
            message.time_ms = Some(seeded.number() as i64);
        }
        for _ in 0..(what >> 2 & 3) {
            let (name, value) = (seeded.below(20) as usize, seeded.below(60) as usize);
            message.headers.push((seeded.bytes(name), seeded.bytes(value)));
        }
        if what & 16 != 0 {
            message.value_type = ValueType::UTF8;
        }
        message
    }

    /// Headers in the form in which a new message takes them.
    pub(super) fn header_slices(&self) -> Vec<(&[u8], &[u8])> {
        self.headers
            .iter()
            .map(|(name, value)| (name.as_slice(), value.as_slice()))
            .collect()
    }

    pub(super) fn as_new<'a>(&'a self, headers: &'a [(&'a [u8], &'a [u8])]) -> NewMessage<'a> {
        let mut message = NewMessage::new(&self.value)
            .value_type(self.value_type)
            .headers(headers);
        if let Some(key) = &self.key {
            message = message.key(key);
        }
        match self.time_ms {
            Some(time_ms) => message.time_ms(time_ms),
            None => message,
        }
    }

    pub(super) fn check(&self, log: &str, offset: u64, found: &Message<'_>) {
        assert!(
            found.offset().get() == offset,
            "log {log:?}: asked for {offset}, found {}",
            found.offset()
        );
        let lengths = (self.value.len(), found.value().len());
        assert!(
            lengths.0 == lengths.1,
            "log {log:?}, offset {offset}: wanted and found bytes {lengths:?}"
        );
        assert!(
            *self.value == *found.value(),
            "log {log:?}, offset {offset}: another value of the same length"
        );
        assert!(
            self.key.as_deref() == found.key(),
            "log {log:?}, offset {offset}: another key"
        );
        assert!(
            self.time_ms == found.time_ms(),
            "log {log:?}, offset {offset}: another time"
        );
        assert!(
            self.value_type == found.value_type(),
            "log {log:?}, offset {offset}: another type"
        );
        assert!(
            found.headers().eq(self.header_slices()),
            "log {log:?}, offset {offset}: other headers"
        );
    }

    pub(super) fn check_kept(&self, log: &str, offset: u64, found: &KeptMessage) {
        assert!(
            found.offset().get() == offset,
            "log {log:?}: asked for {offset}, found {}",
            found.offset()
        );
        assert!(
            *self.value == found.value()[..],
            "log {log:?}, offset {offset}: another value in kept bytes"
        );
        assert!(
            self.key.as_deref() == found.key().map(|key| &key[..]),
            "log {log:?}, offset {offset}: another key"
        );
        assert!(
            self.time_ms == found.time_ms(),
            "log {log:?}, offset {offset}: another time"
        );
    }
}

/// A log of the model.
#[derive(Debug, Default, Clone)]
pub(super) struct ModelLog {
    pub(super) messages: Vec<Expected>,
    /// Offsets below this survive a killed process.
    pub(super) committed: u64,
    /// Offsets below this survive a power cut.
    pub(super) durable: u64,
    /// The log itself is known to survive, empty or not.
    pub(super) is_created: bool,
    /// What was appended in one piece and is found whole or not at all.
    pub(super) batches: Vec<Range<u64>>,
    /// What was deleted, in order; each edit deletes something that those before it have left.
    pub(super) edits: Vec<ModelEdit>,
}

/// A range of offsets that was deleted.
#[derive(Debug, Clone)]
pub(super) struct ModelEdit {
    pub(super) offsets: Range<u64>,
    /// It survives a killed process.
    pub(super) is_committed: bool,
    /// It survives a power cut.
    pub(super) is_durable: bool,
}

impl ModelLog {
    pub(super) fn end(&self) -> u64 {
        self.messages.len() as u64
    }

    pub(super) fn at(&self, offset: u64) -> &Expected {
        &self.messages[offset as usize]
    }

    pub(super) fn append(&mut self, message: Expected) -> u64 {
        self.messages.push(message);
        self.end() - 1
    }

    /// Deletes offsets; gives how many messages that destroys. What destroys none is no edit: nobody can see it.
    pub(super) fn delete(&mut self, offsets: Range<u64>, is_committed: bool, is_durable: bool) -> u64 {
        let destroyed = self.shown().filter(|offset| offsets.contains(offset)).count();
        if destroyed > 0 {
            self.edits.push(ModelEdit {
                offsets,
                is_committed,
                is_durable,
            });
        }
        destroyed as u64
    }

    /// Whether one of the first so many edits deleted an offset.
    pub(super) fn is_deleted_by(&self, edits: usize, offset: u64) -> bool {
        let edits = &self.edits[..edits.min(self.edits.len())];
        edits.iter().any(|edit| edit.offsets.contains(&offset))
    }

    pub(super) fn is_deleted(&self, offset: u64) -> bool {
        self.is_deleted_by(self.edits.len(), offset)
    }

    /// Offsets of the messages that can be read.
    pub(super) fn shown(&self) -> impl Iterator<Item = u64> + '_ {
        (0..self.end()).filter(|offset| !self.is_deleted(*offset))
    }

    /// How many edits were done in a log that ends at `end` and shows `found`.
    pub(super) fn edits_done(&self, found: &[u64], end: u64) -> Option<usize> {
        let fits = |done: &usize| {
            let shown = (0..end).filter(|offset| !self.is_deleted_by(*done, *offset));
            self.edits[..*done].iter().all(|edit| edit.offsets.end <= end) && shown.eq(found.iter().copied())
        };
        (0..=self.edits.len()).rev().find(fits)
    }

    /// Nothing takes back what was edited up to now.
    pub(super) fn edits_are_durable(&mut self) {
        for edit in &mut self.edits {
            edit.is_committed = true;
            edit.is_durable = true;
        }
    }

    /// After a reopening: what was found is what there is, and all of it is durable.
    pub(super) fn cut(&mut self, end: u64, edits: usize) {
        self.messages.truncate(end as usize);
        self.edits.truncate(edits);
        self.edits_are_durable();
        self.committed = end;
        self.durable = end;
        self.is_created |= end > 0;
        self.batches.retain(|batch| batch.end <= end);
    }
}

/// The parts of one transaction, by the number of the log.
pub(super) type Parts = BTreeMap<usize, Range<u64>>;

/// A transaction: what it appended, and the numbers of its edits, from 1, log by log.
#[derive(Debug, Clone, Default)]
pub(super) struct Whole {
    pub(super) parts: Parts,
    pub(super) edits: Vec<(usize, usize)>,
}

/// Whether a transaction is found whole (`Some(true)`), not at all (`Some(false)`) or in parts, given the logs' ends and
/// how many edits of each were done.
pub(super) fn wholeness(
    transaction: &Whole,
    end_of: impl Fn(usize) -> u64,
    edits_of: impl Fn(usize) -> usize,
) -> Option<bool> {
    let (mut parts, edits) = (transaction.parts.iter(), &transaction.edits);
    let has_edit = |(log, number): &(usize, usize)| edits_of(*log) >= *number;
    let whole = parts.clone().all(|(log, offsets)| end_of(*log) >= offsets.end) && edits.iter().all(has_edit);
    let absent = parts.all(|(log, offsets)| end_of(*log) <= offsets.start) && !edits.iter().any(has_edit);
    if whole || absent { Some(whole) } else { None }
}
