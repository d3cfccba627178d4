//! What whoever embeds the store is told of a reader that keeps garbage from being given back.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use lanterman_format::ids::Version;

use crate::pins::Holder;

/// A reader that has held garbage back for longer than [`crate::Options::on_slow_reader`] allows.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SlowReader {
    /// Who it is.
    pub reader: SlowReaderKind,
    /// The version that it holds.
    pub version: Version,
    /// For how long it has held it; of another process, for how long that was seen.
    pub age: Duration,
    /// Bytes of garbage that wait for it. Nobody knows what another process looks at, so that all may.
    pub held_bytes: Option<u64>,
}

/// Who reads slowly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SlowReaderKind {
    /// Something of this process.
    Here(Holder),
    /// The process of this number.
    Process(u64),
}

/// Whom to tell, and from what age on.
#[derive(Clone)]
pub(crate) struct SlowReaderWatch {
    pub(crate) age: Duration,
    pub(crate) tell: Arc<dyn Fn(&SlowReader) + Send + Sync>,
}

impl fmt::Debug for SlowReaderWatch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("SlowReaderWatch")
            .field("age", &self.age)
            .finish_non_exhaustive()
    }
}
