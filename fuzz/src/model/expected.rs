//! The model: messages as they were appended, and how they are compared with what is read.

use std::sync::Arc;

use lanterman::{KeptMessage, Message, NewMessage, ValueType};

use super::NAMES;
use super::rules::Breach;

use crate::choices::{Choices, Seeded};

/// A message as it was appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Expected {
    pub(super) value: Arc<[u8]>,
    pub(super) key: Option<Vec<u8>>,
    pub(super) time_ms: Option<i64>,
    pub(super) headers: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) value_type: ValueType,
    /// When it was made, in milliseconds, where that matters.
    pub(super) made_ms: i64,
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
            made_ms: 0,
        }
    }

    /// A message for keyed logs and logs with rules: one of `keys` different keys, of which some are the beginnings of
    /// others, a value that shrinks, a field and a time that mostly rise; now and then a delete marker.
    pub(super) fn structured(seeded: &mut Seeded, keys: u64, number: u64, now_ms: i64) -> Self {
        let mut message = Self::plain(0, number);
        message.made_ms = now_ms;
        let what = seeded.number();
        if what & 15 != 0 {
            message.key = Some(Self::key(seeded.below(keys)));
        }
        if what >> 4 & 7 == 0 {
            message.key = Some(Self::key(seeded.below(keys)));
            message.value_type = ValueType::NIL;
            return message;
        }
        if what >> 16 & 3 != 0 {
            let is_behind = what >> 18 & 15 == 0;
            message.time_ms = Some(if is_behind { 3 } else { number as i64 });
        }
        let field = if what >> 22 & 15 == 0 { 1 } else { number };
        let pad = "lantern ".repeat((what >> 26 & 63) as usize);
        message.value = format!("{{\"n\":{field},\"pad\":\"{pad}\"}}").into_bytes().into();
        message.value_type = match what >> 32 & 7 {
            0 => ValueType::BYTES,
            1 => ValueType::UTF8,
            _ => ValueType::JSON,
        };
        message
    }

    fn key(number: u64) -> Vec<u8> {
        match number % 3 {
            0 => format!("key {number}").into_bytes(),
            1 => vec![0xFD; (number / 3) as usize],
            _ => format!("a key with a long beginning {number:04}").into_bytes(),
        }
    }

    /// The message as it goes to the log that a rule of the log `number` sends it to.
    pub(super) fn turned(&self, number: usize, breach: &Breach) -> Self {
        let mut turned = self.clone();
        let told: [(&[u8], &str); 3] = [
            (b"lanterman-log", NAMES[number]),
            (b"lanterman-rule", breach.rule),
            (b"lanterman-place", breach.place),
        ];
        let told = told.map(|(name, value)| (name.to_vec(), value.as_bytes().to_vec()));
        turned.headers.extend(told);
        turned
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
