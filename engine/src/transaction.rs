//! Many logs, one version: all or nothing.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lanterman_format::ids::Version;
use lanterman_format::name::LogName;

use crate::commit::{Request, StagedLog};
use crate::core::Core;
use crate::error::{Error, Result};
use crate::log::{LogState, Root};
use crate::memory::Room;
use crate::options::Durability;
use crate::region::gated::Gated;
use crate::writer::{NewMessage, check_fields, encode};

/// Largest transaction in bytes of stored messages: it is one block of the journal, which must stay within its limit.
pub const TRANSACTION_BYTES_MAX: u64 = 64 << 20;

/// Messages of one log, in their stored form.
#[derive(Debug, Default)]
struct Part {
    body: Vec<u8>,
    count: u64,
}

/// Collects what a transaction does; see [`crate::Store::transaction`].
#[derive(Debug)]
pub struct Transaction {
    parts: BTreeMap<LogName, Part>,
    bytes: u64,
    message_bytes_max: usize,
    durability: Durability,
}

/// What a transaction did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TransactionReceipt {
    /// The version that holds all of it.
    pub version: Version,
    /// The offsets that its messages got, by log.
    pub offsets: BTreeMap<String, Range<u64>>,
}

impl Transaction {
    /// Adds a message of bytes to the end of `log`, which is created if there is none.
    ///
    /// # Errors
    /// [`Error::InvalidName`], [`Error::TooLarge`].
    pub fn append(&mut self, log: &str, value: &[u8]) -> Result<()> {
        self.append_message(log, &NewMessage::new(value))
    }

    /// Adds a message with key, time, headers or a type of its own.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub fn append_message(&mut self, log: &str, message: &NewMessage<'_>) -> Result<()> {
        let name = LogName::parse(log)?;
        check_fields(&message.fields, self.message_bytes_max)?;
        let part = self.parts.entry(name).or_default();
        let before = part.body.len();
        encode(&message.fields, &mut part.body)?;
        let bytes = self
            .bytes
            .saturating_add(part.body.len().saturating_sub(before) as u64);
        if bytes > TRANSACTION_BYTES_MAX {
            part.body.truncate(before);
            return Err(Error::TooLarge {
                part: "transaction",
                bytes,
                limit_bytes: TRANSACTION_BYTES_MAX,
            });
        }
        part.count = part.count.saturating_add(1);
        self.bytes = bytes;
        Ok(())
    }

    /// What the commit promises; the default is [`Durability::Disk`].
    pub fn durability(&mut self, durability: Durability) {
        self.durability = durability;
    }
}

impl Drop for StagedLog {
    fn drop(&mut self) {
        // Published messages are staged no more; those of a commit that failed must not appear.
        if let Some(writer) = self.tail.writer.as_mut() {
            writer.roll_back_staged();
        }
    }
}

impl Core {
    /// Runs `work` and commits what it collected.
    pub(crate) fn transaction(
        &self,
        work: impl FnOnce(&mut Transaction) -> Result<()>,
    ) -> Result<TransactionReceipt> {
        self.check_writable("commit a transaction")?;
        let mut transaction = Transaction {
            parts: BTreeMap::new(),
            bytes: 0,
            message_bytes_max: usize::try_from(self.options.message_bytes_max).unwrap_or(usize::MAX),
            durability: Durability::Disk,
        };
        work(&mut transaction)?;
        transaction.parts.retain(|_, part| part.count > 0);
        if transaction.parts.is_empty() {
            return Ok(TransactionReceipt {
                version: self.catalog.version(),
                offsets: BTreeMap::new(),
            });
        }
        let mut logs: Vec<(Arc<LogState>, Part)> = std::mem::take(&mut transaction.parts)
            .into_iter()
            .map(|(name, part)| (self.log_named(&name), part))
            .collect();
        // One order for everybody: two transactions over the same logs never wait for each other in a circle.
        logs.sort_by_key(|(log, _)| log.id);
        let staged = self.stage(&logs)?;
        let offsets = staged
            .iter()
            .map(|staged| {
                let end = staged.first.saturating_add(staged.count);
                (staged.log.name.as_str().to_owned(), staged.first..end)
            })
            .collect();
        let written = Arc::new(AtomicU64::new(0));
        let request = Request::Transaction {
            staged,
            durability: transaction.durability,
            written: Arc::clone(&written),
        };
        let outcome = self.groups.commit(request, self);
        match written.load(Ordering::Acquire) {
            0 => outcome.map(|version| TransactionReceipt { version, offsets }),
            version => Ok(TransactionReceipt {
                version: Version::new(version),
                offsets,
            }),
        }
    }

    /// The log of that name; one that is made here is in no version before something of it is committed.
    pub(crate) fn log_named(&self, name: &LogName) -> Arc<LogState> {
        let make = |id| Arc::new(LogState::new(id, name.clone(), Root::empty(), Vec::new()));
        self.catalog.find_or_insert(name, make).0
    }

    /// Puts the messages behind the ends of their logs, unseen, and keeps the gates closed.
    fn stage(&self, logs: &[(Arc<LogState>, Part)]) -> Result<Vec<StagedLog>> {
        loop {
            let mut staged: Vec<StagedLog> = Vec::with_capacity(logs.len());
            if let Some((log, _)) = logs.iter().find(|(log, _)| log.filling.load(Ordering::Acquire)) {
                return Err(reserved(log));
            }
            let mut has_memory = true;
            let tails = Gated::intrude_all(logs.iter().map(|(log, _)| &log.tail));
            for ((log, part), mut tail) in logs.iter().zip(tails) {
                if tail.reserved {
                    return Err(reserved(log));
                }
                let room = self.make_room(log, &mut tail, part.body.len() as u64, part.count)?;
                if room == Room::NoMemory {
                    has_memory = false;
                    break;
                }
                let writer = tail.writer.as_mut().ok_or(Error::Internal {
                    what: "room has a chunk",
                })?;
                let first = writer.next_offset();
                writer.stage_stored(&part.body, part.count)?;
                staged.push(StagedLog {
                    log: Arc::clone(log),
                    tail,
                    first,
                    count: part.count,
                });
            }
            if !has_memory {
                // Memory comes back only when no gate is held.
                drop(staged);
                self.wait_for_memory()?;
                continue;
            }
            return Ok(staged);
        }
    }
}

/// The error for a log in which a message is being filled in place.
fn reserved(log: &LogState) -> Error {
    Error::Reserved {
        name: log.name.as_str().to_owned(),
    }
}

/// A convenience for closures: gives a transaction up.
///
/// # Errors
/// Always [`Error::Aborted`].
pub fn abort<T>(reason: impl Into<String>) -> Result<T> {
    Err(Error::Aborted {
        reason: reason.into(),
    })
}
