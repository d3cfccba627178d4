//! What a transaction has collected: the stored forms of its messages in one buffer, and for each log where its own are.
//!
//! Invariants:
//! - the messages of a log keep the order in which they were added;
//! - once [`Parts::resolve`] was called, no log has two parts, and they are in the order of their logs' ids.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::Range;
use std::sync::Arc;

use lanterman_format::name::LogName;
use lanterman_format::weakened;
use parking_lot::Mutex;

use crate::catalog::Catalog;
use crate::error::{Error, Result};
use crate::log::LogState;

/// The memory of a transaction is kept for the next one unless its buffer grew beyond this.
const KEPT_BYTES_MAX: usize = 1 << 20;
/// And unless it had more logs than this.
const KEPT_LOGS_MAX: usize = 4096;

/// Messages of one log that stand behind each other in the buffer.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) bytes: Range<usize>,
    pub(crate) count: u64,
}

/// The messages of one log.
#[derive(Debug, Default)]
pub(crate) struct Messages {
    first: Option<Run>,
    /// Runs behind the first: there are such only where a log gets messages in between others.
    more: Vec<Run>,
    pub(crate) bytes: u64,
    pub(crate) count: u64,
    /// Some message has no key.
    pub(crate) lacks_key: bool,
    /// Messages that rules of other logs sent here, which no rule judges once more.
    pub(crate) turned: Vec<u8>,
    pub(crate) turned_count: u64,
}

impl Messages {
    /// Where they are, in their order.
    pub(crate) fn runs(&self) -> impl Iterator<Item = &Run> {
        self.first.iter().chain(&self.more)
    }

    fn is_empty(&self) -> bool {
        self.count == 0 && self.turned_count == 0
    }

    fn add(&mut self, run: Run, lacks_key: bool) {
        self.bytes = self.bytes.saturating_add(run.bytes.len() as u64);
        self.count = self.count.saturating_add(run.count);
        self.lacks_key |= lacks_key;
        let last = self.more.last_mut().or(self.first.as_mut());
        match last {
            Some(last) if last.bytes.end == run.bytes.start => {
                last.bytes.end = run.bytes.end;
                last.count = last.count.saturating_add(run.count);
            }
            Some(_) => self.more.push(run),
            None => self.first = Some(run),
        }
    }

    /// Takes messages that were added later.
    fn join(&mut self, later: Messages) {
        later
            .runs()
            .for_each(|run| self.add(run.clone(), later.lacks_key));
        self.turned.extend_from_slice(&later.turned);
        self.turned_count = self.turned_count.saturating_add(later.turned_count);
    }
}

/// A log with its messages.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) log: Arc<LogState>,
    pub(crate) messages: Messages,
}

/// Hashes the numbers of logs, which are given out one after the other and by nobody who could choose them badly.
#[derive(Debug, Default)]
pub(crate) struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        // An odd factor near the golden ratio of 2^64: low digits stay different, high ones are mixed.
        self.0 = (self.0 ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

/// What a transaction has collected.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    /// Stored messages of all logs, in the order in which they came.
    buffer: Vec<u8>,
    list: Vec<Part>,
    /// Places in the list by the ids of logs.
    places: HashMap<u64, usize, BuildHasherDefault<NumberHasher>>,
    /// Messages of logs that there are none of yet.
    unknown: BTreeMap<LogName, Messages>,
}

impl Parts {
    /// The parts, by the ids of their logs, once they are resolved.
    pub(crate) fn list(&self) -> &[Part] {
        &self.list
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The stored messages of a run.
    pub(crate) fn stored(&self, run: &Run) -> &[u8] {
        self.buffer.get(run.bytes.clone()).unwrap_or_default()
    }

    /// The messages of the log of that name. A log that nobody has made yet is not made here: the transaction may be
    /// given up.
    pub(crate) fn of_log(&mut self, catalog: &Catalog, name: &str) -> Result<&mut Messages> {
        Self::find(&mut self.list, &mut self.places, &mut self.unknown, catalog, name)
    }

    fn find<'a>(
        list: &'a mut Vec<Part>,
        places: &mut HashMap<u64, usize, BuildHasherDefault<NumberHasher>>,
        unknown: &'a mut BTreeMap<LogName, Messages>,
        catalog: &Catalog,
        name: &str,
    ) -> Result<&'a mut Messages> {
        // A log that was not there before stays unknown to the end: its messages keep their order so.
        let known = match unknown.contains_key(name) {
            true => None,
            false => catalog.find(name)?,
        };
        let Some(log) = known else {
            return Ok(unknown.entry(LogName::parse(name)?).or_default());
        };
        let next = list.len();
        let place = *places.entry(log.id.get()).or_insert(next);
        if place == next {
            list.push(Part {
                log,
                messages: Messages::default(),
            });
        }
        let part = list.get_mut(place).ok_or(Error::Internal {
            what: "a log of a transaction has its part",
        })?;
        Ok(&mut part.messages)
    }

    /// Adds a message, whose stored form `encode` puts behind the others, unless all together would take more than
    /// `bytes_max`.
    pub(crate) fn append(
        &mut self,
        catalog: &Catalog,
        name: &str,
        lacks_key: bool,
        bytes_max: u64,
        encode: impl FnOnce(&mut Vec<u8>) -> Result<()>,
    ) -> Result<()> {
        let Parts {
            buffer,
            list,
            places,
            unknown,
        } = self;
        let messages = Self::find(list, places, unknown, catalog, name)?;
        let start = buffer.len();
        let encoded = encode(buffer);
        let bytes = buffer.len() as u64;
        if encoded.is_err() || bytes > bytes_max {
            buffer.truncate(start);
            encoded?;
            return Err(Error::TooLarge {
                part: "transaction",
                bytes,
                limit_bytes: bytes_max,
            });
        }
        let run = Run {
            bytes: start..buffer.len(),
            count: 1,
        };
        messages.add(run, lacks_key);
        Ok(())
    }

    /// Adds a log that may get messages from others, if it is not there.
    pub(crate) fn add_log(&mut self, log: Arc<LogState>) {
        if !self.list.iter().any(|part| part.log.id == log.id) {
            self.list.push(Part {
                log,
                messages: Messages::default(),
            });
            self.sort();
        }
    }

    /// Finds the logs that were not there when their messages were added, or have gone since, by `make`, which makes them if
    /// need be. Parts without messages go.
    ///
    /// # Errors
    /// As of `make`.
    pub(crate) fn resolve(&mut self, make: impl Fn(&LogName) -> Result<Arc<LogState>>) -> Result<()> {
        self.list.retain(|part| !part.messages.is_empty());
        for part in &mut self.list {
            // Its name may be another's by now.
            if part.log.is_dropped() && !weakened!("dropped-log-kept-in-transaction") {
                part.log = make(&part.log.name)?;
            }
        }
        for (name, messages) in std::mem::take(&mut self.unknown) {
            if !messages.is_empty() {
                let log = make(&name)?;
                self.list.push(Part { log, messages });
            }
        }
        self.sort();
        // Two parts of one log: a log was dropped between them, and made anew.
        self.list.dedup_by(|later, part| {
            let is_same = later.log.id == part.log.id;
            if is_same {
                if weakened!("later-part-joined-first") {
                    std::mem::swap(&mut part.messages, &mut later.messages);
                }
                part.messages.join(std::mem::take(&mut later.messages));
            }
            is_same
        });
        Ok(())
    }

    /// One order for everybody: two transactions over the same logs never wait for each other in a circle. Parts of the same
    /// log stay in the order in which they were begun.
    fn sort(&mut self) {
        self.list.sort_by_key(|part| part.log.id);
    }

    fn clear(&mut self) {
        self.buffer.clear();
        self.list.clear();
        self.places.clear();
        self.unknown.clear();
    }
}

/// The memory of a transaction that is over, for the next one.
#[derive(Debug, Default)]
pub(crate) struct SpareParts(Mutex<Option<Parts>>);

impl SpareParts {
    pub(crate) fn take(&self) -> Parts {
        self.0.lock().take().unwrap_or_default()
    }

    pub(crate) fn give_back(&self, mut parts: Parts) {
        if parts.buffer.capacity() <= KEPT_BYTES_MAX && parts.list.capacity() <= KEPT_LOGS_MAX {
            parts.clear();
            *self.0.lock() = Some(parts);
        }
    }

    /// Lets go of it.
    pub(crate) fn free(&self) {
        *self.0.lock() = None;
    }
}
