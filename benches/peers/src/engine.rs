//! What is asked of each engine, and how it says that it cannot.

use std::error::Error;
use std::fmt;
use std::ops::Range;
use std::path::Path;

/// Why there is no figure.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The engine has no such notion; the table shows a dash with this reason.
    CannotDo(&'static str),
    /// Something went wrong, and the whole run stops.
    Failed(Box<dyn Error + Send + Sync>),
}

impl Failure {
    pub(crate) fn because(text: impl Into<String>) -> Self {
        Failure::Failed(text.into().into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::CannotDo(reason) => formatter.write_str(reason),
            Failure::Failed(error) => error.fmt(formatter),
        }
    }
}

impl<E: Error + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Failure::Failed(Box::new(error))
    }
}

/// What every measurement returns.
pub(crate) type Outcome<T> = Result<T, Failure>;

/// What an engine is opened for; some must know when they are opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Appends are handed to the engine, and a sync is asked for by itself, if at all.
    Fast,
    /// As fast, and everything must still be there when it is opened again.
    Keep,
    /// Every append lasts a power cut before it returns.
    Durable,
    /// As durable, with a thousand logs.
    ManyLogs,
}

/// The log that workloads with one log use.
pub(crate) const LOG: u64 = 0;

/// Looks at every byte of a value, so that it must have been brought into the caches of the processor.
#[inline]
pub(crate) fn touch(value: &[u8]) -> u64 {
    let mut sum = 0_u64;
    let mut words = value.chunks_exact(8);
    for word in &mut words {
        sum = sum.wrapping_add(u64::from_le_bytes(word.try_into().unwrap_or_default()));
    }
    words
        .remainder()
        .iter()
        .fold(sum, |sum, byte| sum.wrapping_add(u64::from(*byte)))
}

/// One engine, opened.
pub(crate) trait Engine: Sized + Sync {
    /// As the table calls it.
    const NAME: &'static str;
    /// The package whose version the table shows.
    const PACKAGE: &'static str;
    /// Whether what a process has read can be read again by it.
    const READS_AGAIN: bool = true;
    /// What a figure of appending without a sync means here: where the bytes are when the call returns.
    const APPENDED_MEANS: &'static str;

    type Appender<'e>: Appender + Send
    where
        Self: 'e;
    type Reader<'e>: Reader + Send
    where
        Self: 'e;

    /// Opens or makes one in a directory that exists.
    fn open(directory: &Path, mode: Mode) -> Outcome<Self>;
    /// Ends in good order.
    fn close(self) -> Outcome<()>;
    /// Appends to a log of a new store; one thread uses it.
    fn appender(&self, log: u64) -> Outcome<Self::Appender<'_>>;
    /// Touches all messages of [`LOG`] in order, from the first on; gives their number.
    fn scan(&self) -> Outcome<u64>;
    /// Reads [`LOG`] by number, and follows it from its first message.
    fn reader(&self) -> Outcome<Self::Reader<'_>>;
    /// Appends a message to each of these logs, durably, in one commit if there is such a thing. `round` counts the calls for a log.
    fn append_to_logs(&self, logs: Range<u64>, round: u64, value: &[u8]) -> Outcome<()>;
}

/// The writing end of a log.
pub(crate) trait Appender {
    fn append(&mut self, value: &[u8]) -> Outcome<()>;
    fn append_batch(&mut self, values: &[&[u8]]) -> Outcome<()>;
    /// Appends, and returns when that would last a power cut. Only asked of an engine opened as [`Mode::Durable`].
    fn append_durable(&mut self, value: &[u8]) -> Outcome<()>;
    /// Makes everything that was appended durable.
    fn sync(&mut self) -> Outcome<()>;
}

/// The reading end of a log.
pub(crate) trait Reader {
    /// Calls `visit` with the message of this number, counted from 0.
    fn get(&mut self, number: u64, visit: impl FnOnce(&[u8])) -> Outcome<()>;
    /// Calls `visit` with the next message, if there is one already; whether there was.
    fn next(&mut self, visit: impl FnOnce(&[u8])) -> Outcome<bool>;
}

/// Log and number as a key that sorts as they do.
#[cfg(any(feature = "rocksdb", feature = "heed", feature = "fjall"))]
pub(crate) fn key(log: u64, number: u64) -> [u8; 16] {
    let mut key = [0; 16];
    let (left, right) = key.split_at_mut(8);
    left.copy_from_slice(&log.to_be_bytes());
    right.copy_from_slice(&number.to_be_bytes());
    key
}

/// Says that a number is not there.
pub(crate) fn missing(number: u64) -> Failure {
    Failure::because(format!("message {number} is not there"))
}
