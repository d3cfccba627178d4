//! Many logs, one version: all or nothing.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Range, RangeBounds};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lanterman_format::buffer::{self, BufferFields};
use lanterman_format::ids::Version;
use lanterman_format::name::LogName;
use lanterman_format::settings::Settings;

use crate::commit::{Request, StagedLog};
use crate::constrained::{Judged, Turned, fields_of};
use crate::constraints::Constraints;
use crate::core::Core;
use crate::deletion::{DeletionReceipt, WantedRange};
use crate::edit::{Destroyed, Edit, EditOutcome, Rehearsal};
use crate::error::{Error, Result, Violation};
use crate::formats::Formats;
use crate::log::{LogState, Root};
use crate::memory::Room;
use crate::options::Durability;
use crate::writer::{NewMessage, check_fields, encode, key_required};

/// Largest transaction in bytes of stored messages: it is one block of the journal, which must stay within its limit.
pub const TRANSACTION_BYTES_MAX: u64 = 64 << 20;

/// Messages of one log, in their stored form.
#[derive(Debug, Default)]
struct Part {
    body: Vec<u8>,
    count: u64,
    /// Messages that rules of other logs sent here, which no rule judges once more.
    turned: Vec<u8>,
    turned_count: u64,
}

/// A part as it goes into its log.
struct Ready<'a> {
    body: Cow<'a, [u8]>,
    count: u64,
    judged: Judged,
}

/// Collects what a transaction does; see [`crate::Store::transaction`].
#[derive(Debug)]
pub struct Transaction {
    parts: BTreeMap<LogName, Part>,
    deletions: Vec<(LogName, WantedRange)>,
    bytes: u64,
    message_bytes_max: usize,
    formats: Arc<Formats>,
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
    /// What its deletions destroyed, in their order; those of empty ranges are left out.
    pub deletions: Vec<DeletionReceipt>,
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
        self.formats.check(&message.fields)?;
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

    /// Adds a message that a rule turned away to the log that the rule names.
    pub(crate) fn append_turned(
        &mut self,
        log: &str,
        fields: &BufferFields<'_>,
        violation: &Violation,
    ) -> Result<()> {
        let part = self.parts.entry(LogName::parse(log)?).or_default();
        part.turn_in(fields, violation)
    }

    /// Deletes the messages of a range of offsets of `log`. What the same transaction appends is not concerned: a range
    /// without an end goes up to the messages that were there before.
    ///
    /// # Errors
    /// [`Error::InvalidName`]. Whether the log has such offsets is found out at the end of the transaction.
    pub fn delete(&mut self, log: &str, offsets: impl RangeBounds<u64>) -> Result<()> {
        self.deletions
            .push((LogName::parse(log)?, WantedRange::of(&offsets)));
        Ok(())
    }

    /// What the commit promises; the default is [`Durability::Disk`].
    pub fn durability(&mut self, durability: Durability) {
        self.durability = durability;
    }
}

impl Part {
    /// Takes a message that a rule turned away, with headers that say which rule it was.
    fn turn_in(&mut self, fields: &BufferFields<'_>, violation: &Violation) -> Result<()> {
        let told: [(&[u8], &[u8]); 3] = [
            (b"lanterman-log", violation.log.as_bytes()),
            (b"lanterman-rule", violation.rule.as_bytes()),
            (b"lanterman-place", violation.place.as_bytes()),
        ];
        let mut headers: Vec<(&[u8], &[u8])> = fields.headers.to_vec();
        headers.extend(told);
        let mut turned = *fields;
        turned.headers = &headers;
        if check_fields(&turned, usize::MAX).is_err() {
            // There is no room beside its own.
            turned.headers = &told;
        }
        encode(&turned, &mut self.turned)?;
        self.turned_count = self.turned_count.saturating_add(1);
        Ok(())
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
            deletions: Vec::new(),
            bytes: 0,
            message_bytes_max: usize::try_from(self.options.message_bytes_max).unwrap_or(usize::MAX),
            formats: Arc::clone(&self.options.formats),
            durability: Durability::Disk,
        };
        work(&mut transaction)?;
        transaction
            .parts
            .retain(|_, part| part.count > 0 || part.turned_count > 0);
        let (edits, deleted) = self.edits_of(std::mem::take(&mut transaction.deletions))?;
        if transaction.parts.is_empty() && edits.is_empty() {
            return Ok(TransactionReceipt {
                version: self.catalog.version(),
                offsets: BTreeMap::new(),
                deletions: Vec::new(),
            });
        }
        let mut logs: Vec<(Arc<LogState>, Part)> = std::mem::take(&mut transaction.parts)
            .into_iter()
            .map(|(name, part)| (self.log_named(&name), part))
            .collect();
        self.add_diverted(&mut logs)?;
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
        let (version, destroyed) = self.commit_whole(staged, edits, transaction.durability)?;
        let deletions = deleted
            .into_iter()
            .zip(destroyed)
            .map(|((name, offsets), destroyed)| {
                DeletionReceipt::new(name.as_str(), offsets, destroyed, version)
            })
            .collect();
        Ok(TransactionReceipt {
            version,
            offsets,
            deletions,
        })
    }

    /// The edits that a transaction's deletions are.
    #[allow(
        clippy::type_complexity,
        reason = "the two halves are used once, right at the call"
    )]
    fn edits_of(
        &self,
        deletions: Vec<(LogName, WantedRange)>,
    ) -> Result<(Vec<Edit>, Vec<(LogName, Range<u64>)>)> {
        let mut edits = Vec::with_capacity(deletions.len());
        let mut deleted = Vec::with_capacity(deletions.len());
        for (name, range) in deletions {
            let log = self.find_log(name.as_str())?;
            let offsets = range.within(&log)?;
            if offsets.is_empty() {
                continue;
            }
            edits.push(Edit::Delete {
                log,
                offsets: offsets.clone(),
            });
            deleted.push((name, offsets));
        }
        self.rehearse(&mut Rehearsal::default(), &edits)?;
        Ok((edits, deleted))
    }

    /// Commits edits alone, durably; gives the version and what they destroyed together.
    pub(crate) fn commit_edits(&self, edits: Vec<Edit>) -> Result<(Version, Destroyed)> {
        self.commit_edits_holding(Vec::new(), edits)
    }

    /// The same, with the gates that the edits need.
    pub(crate) fn commit_edits_holding(
        &self,
        held: Vec<StagedLog>,
        edits: Vec<Edit>,
    ) -> Result<(Version, Destroyed)> {
        self.rehearse(&mut Rehearsal::default(), &edits)?;
        let (version, each) = self.commit_whole(held, edits, Durability::Disk)?;
        let mut destroyed = Destroyed::default();
        each.into_iter().for_each(|one| destroyed.add(one));
        Ok((version, destroyed))
    }

    /// Commits staged messages and edits as one version.
    fn commit_whole(
        &self,
        staged: Vec<StagedLog>,
        edits: Vec<Edit>,
        durability: Durability,
    ) -> Result<(Version, Vec<Destroyed>)> {
        let written = Arc::new(AtomicU64::new(0));
        let destroyed = EditOutcome::default();
        let request = Request::Transaction {
            staged,
            edits,
            durability,
            written: Arc::clone(&written),
            outcome: Arc::clone(&destroyed),
        };
        let outcome = self.groups.commit(request, self);
        let results = std::mem::take(&mut *destroyed.lock());
        if let Some(refused) = results.refused {
            return Err(refused);
        }
        let version = match written.load(Ordering::Acquire) {
            0 => outcome?,
            version => Version::new(version),
        };
        Ok((version, results.destroyed))
    }

    /// The log of that name; one that is made here is in no version before something of it is committed.
    pub(crate) fn log_named(&self, name: &LogName) -> Arc<LogState> {
        let make = |id| {
            Arc::new(LogState::new(
                id,
                name.clone(),
                Root::empty(),
                Settings::default(),
            ))
        };
        self.catalog.find_or_insert(name, make).0
    }

    /// Adds the logs that rules may send messages to.
    fn add_diverted(&self, logs: &mut Vec<(Arc<LogState>, Part)>) -> Result<()> {
        let mut wanted = BTreeSet::new();
        for (log, _) in logs
            .iter()
            .filter(|(log, part)| log.is_constrained() && part.count > 0)
        {
            if let Some(told) = &log.settings().constraints {
                let constraints = Constraints::stored(&told.document)?;
                wanted.extend(constraints.diverted_to().map(str::to_owned));
            }
        }
        for name in wanted {
            if !logs.iter().any(|(log, _)| log.name.as_str() == name) {
                logs.push((self.log_named(&LogName::parse(&name)?), Part::default()));
            }
        }
        Ok(())
    }

    /// Judges the messages of a transaction, the gates of their logs held; gives each log what goes into it.
    fn judge_parts<'a>(&self, logs: &'a [(Arc<LogState>, Part)]) -> Result<Vec<Ready<'a>>> {
        let mut ready = Vec::with_capacity(logs.len());
        let mut diverted: BTreeMap<String, Part> = BTreeMap::new();
        // Constraints that were set a moment ago may name a log whose gate is not held: then the transaction is refused.
        let is_held = |name: &str| logs.iter().any(|(log, _)| log.name.as_str() == name);
        for (log, part) in logs {
            let mut taken = Ready {
                body: Cow::Borrowed(&part.body),
                count: part.count,
                judged: Judged::default(),
            };
            if let Some(mut judge) = self.judge_of(log)?.filter(|_| part.count > 0) {
                let end = log.end();
                let mut kept = Vec::with_capacity(part.body.len());
                taken.count = 0;
                for found in buffer::walk(&part.body) {
                    let (position, message) = found.map_err(|_| Error::Internal {
                        what: "a message that was encoded parses",
                    })?;
                    let headers: Vec<(&[u8], &[u8])> = message.headers().collect();
                    let fields = fields_of(&message, &headers);
                    match judge.judge(&fields, end.saturating_add(taken.count)) {
                        Ok(()) => {
                            let at = position as usize;
                            let stored = at..at.saturating_add(message.stored_bytes() as usize);
                            kept.extend_from_slice(part.body.get(stored).unwrap_or_default());
                            taken.count = taken.count.saturating_add(1);
                        }
                        Err(Turned {
                            violation,
                            divert: Some(log),
                        }) if is_held(&log) => {
                            diverted.entry(log).or_default().turn_in(&fields, &violation)?
                        }
                        Err(turned) => return Err(turned.into()),
                    }
                }
                taken.body = Cow::Owned(kept);
                taken.judged = judge.done();
            }
            ready.push(taken);
        }
        for ((log, part), taken) in logs.iter().zip(&mut ready) {
            let from_others = diverted.remove(log.name.as_str());
            for (body, count) in [
                (&part.turned, part.turned_count),
                from_others
                    .as_ref()
                    .map_or((&Vec::new(), 0), |part| (&part.turned, part.turned_count)),
            ] {
                if count > 0 {
                    taken.body.to_mut().extend_from_slice(body);
                    taken.count = taken.count.saturating_add(count);
                }
            }
        }
        Ok(ready)
    }

    /// Refuses what takes more memory than all tails may have, for which nobody could wait.
    fn check_memory_for(&self, logs: &[(Arc<LogState>, Part)]) -> Result<()> {
        let parts = logs.iter().filter(|(_, part)| part.count > 0);
        let chunks = parts.map(|(_, part)| self.pool.capacity_for(part.body.len() as u64, part.count));
        match self.pool.beyond_budget(chunks) {
            Some(bytes) => Err(Error::TooLarge {
                part: "transaction, with a chunk in the memory of tails for each of its logs,",
                bytes,
                limit_bytes: self.options.tail_memory_bytes,
            }),
            None => Ok(()),
        }
    }

    /// Puts the messages behind the ends of their logs, unseen, and keeps the gates closed.
    fn stage(&self, logs: &[(Arc<LogState>, Part)]) -> Result<Vec<StagedLog>> {
        loop {
            let mut staged: Vec<StagedLog> = Vec::with_capacity(logs.len());
            if let Some((log, _)) = logs.iter().find(|(log, _)| log.filling.load(Ordering::Acquire)) {
                return Err(reserved(log));
            }
            let mut has_memory = true;
            let tails = LogState::intrude_all(logs.iter().map(|(log, _)| log));
            let ready = self.judge_parts(logs)?;
            for (((log, _), part), mut tail) in logs.iter().zip(ready).zip(tails) {
                if tail.reserved {
                    return Err(reserved(log));
                }
                if part.count == 0 {
                    continue;
                }
                if log.is_keyed() && !have_keys(&part.body) {
                    return Err(key_required(log));
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
                    judged: part.judged,
                });
            }
            if !has_memory {
                // Memory comes back only when no gate is held.
                drop(staged);
                self.check_memory_for(logs)?;
                self.wait_for_memory()?;
                continue;
            }
            return Ok(staged);
        }
    }
}

/// Whether all stored messages have keys.
fn have_keys(body: &[u8]) -> bool {
    lanterman_format::buffer::walk(body).all(|found| found.is_ok_and(|(_, message)| message.key().is_some()))
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
