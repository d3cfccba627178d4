//! Many logs, one version: all or nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Range, RangeBounds};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lanterman_format::buffer::{self, BufferFields};
use lanterman_format::ids::Version;
use lanterman_format::name::LogName;
use lanterman_format::settings::Settings;

use crate::catalog::Catalog;
use crate::commit::{Request, StagedLog};
use crate::constrained::{Judge, Judged, Turned, fields_of};
use crate::constraints::Constraints;
use crate::core::Core;
use crate::deletion::{DeletionReceipt, WantedRange};
use crate::edit::{Destroyed, Edit, EditOutcome, Rehearsal};
use crate::error::{Error, Result, Violation};
use crate::formats::Formats;
use crate::log::{LogState, Root, TailState};
use crate::memory::Room;
use crate::options::Durability;
use crate::parts::{Messages, Part, Parts};
use crate::region::gated::Intruder;
use crate::writer::{NewMessage, check_fields, encode, key_required};

/// Largest transaction in bytes of stored messages: it is one block of the journal, which must stay within its limit.
pub const TRANSACTION_BYTES_MAX: u64 = 64 << 20;

/// What goes into a log where rules had a say.
struct Judgements {
    body: Vec<u8>,
    count: u64,
    judged: Judged,
}

/// Collects what a transaction does; see [`crate::Store::transaction`].
#[derive(Debug)]
pub struct Transaction {
    catalog: Arc<Catalog>,
    parts: Parts,
    deletions: Vec<(LogName, WantedRange)>,
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
        check_fields(&message.fields, self.message_bytes_max)?;
        self.formats.check(&message.fields)?;
        let fields = &message.fields;
        self.parts.append(
            &self.catalog,
            log,
            fields.key.is_none(),
            TRANSACTION_BYTES_MAX,
            |stored| encode(fields, stored),
        )
    }

    /// Adds a message that a rule turned away to the log that the rule names.
    pub(crate) fn append_turned(
        &mut self,
        log: &str,
        fields: &BufferFields<'_>,
        violation: &Violation,
    ) -> Result<()> {
        let messages = self.parts.of_log(&self.catalog, log)?;
        turn_in(messages, fields, violation)
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

/// Takes a message that a rule turned away, with headers that say which rule it was.
fn turn_in(messages: &mut Messages, fields: &BufferFields<'_>, violation: &Violation) -> Result<()> {
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
    encode(&turned, &mut messages.turned)?;
    messages.turned_count = messages.turned_count.saturating_add(1);
    Ok(())
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
            catalog: Arc::clone(&self.catalog),
            parts: self.spare_parts.take(),
            deletions: Vec::new(),
            message_bytes_max: usize::try_from(self.options.message_bytes_max).unwrap_or(usize::MAX),
            formats: Arc::clone(&self.options.formats),
            durability: Durability::Disk,
        };
        let outcome = work(&mut transaction).and_then(|()| self.commit_collected(&mut transaction));
        self.spare_parts.give_back(transaction.parts);
        outcome
    }

    fn commit_collected(&self, transaction: &mut Transaction) -> Result<TransactionReceipt> {
        transaction.parts.resolve(|name| self.log_named(name))?;
        let (edits, deleted) = self.edits_of(std::mem::take(&mut transaction.deletions))?;
        if transaction.parts.is_empty() && edits.is_empty() {
            return Ok(TransactionReceipt {
                version: self.catalog.version(),
                offsets: BTreeMap::new(),
                deletions: Vec::new(),
            });
        }
        self.add_diverted(&mut transaction.parts)?;
        let staged = self.stage(&transaction.parts)?;
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
    ///
    /// # Errors
    /// As of finding it.
    pub(crate) fn log_named(&self, name: &LogName) -> Result<Arc<LogState>> {
        let make = |id| {
            Arc::new(LogState::new(
                id,
                name.clone(),
                Root::empty(),
                Settings::default(),
            ))
        };
        Ok(self.catalog.find_or_insert(name, make)?.0)
    }

    /// Adds the logs that rules may send messages to.
    fn add_diverted(&self, parts: &mut Parts) -> Result<()> {
        let mut wanted = BTreeSet::new();
        for part in parts.list() {
            if part.log.is_constrained()
                && part.messages.count > 0
                && let Some(told) = &part.log.settings().constraints
            {
                let constraints = Constraints::stored(&told.document)?;
                wanted.extend(constraints.diverted_to().map(str::to_owned));
            }
        }
        for name in wanted {
            parts.add_log(self.log_named(&LogName::parse(&name)?)?);
        }
        Ok(())
    }

    /// Judges the messages of a transaction, the gates of their logs held; says what goes into the logs that rules concern,
    /// by their places in the list. All others get what was collected.
    fn judge_parts(&self, parts: &Parts) -> Result<BTreeMap<usize, Judgements>> {
        let mut judgements = BTreeMap::new();
        let mut diverted: BTreeMap<String, Messages> = BTreeMap::new();
        for (place, part) in parts.list().iter().enumerate() {
            if let Some(judge) = self.judge_of(&part.log)?.filter(|_| part.messages.count > 0) {
                let judged = judge_part(parts, part, judge, &mut diverted)?;
                judgements.insert(place, judged);
            }
        }
        for (place, Part { log, messages }) in parts.list().iter().enumerate() {
            let from_others = match diverted.is_empty() {
                true => None,
                false => diverted.remove(log.name.as_str()),
            };
            for turned in [Some(messages), from_others.as_ref()].into_iter().flatten() {
                if turned.turned_count > 0 {
                    let taken = judgements.entry(place).or_insert_with(|| Judgements {
                        body: messages
                            .runs()
                            .flat_map(|run| parts.stored(run))
                            .copied()
                            .collect(),
                        count: messages.count,
                        judged: Judged::default(),
                    });
                    taken.body.extend_from_slice(&turned.turned);
                    taken.count = taken.count.saturating_add(turned.turned_count);
                }
            }
        }
        Ok(judgements)
    }

    /// Refuses what takes more memory than all tails may have, for which nobody could wait.
    fn check_memory_for(&self, parts: &Parts) -> Result<()> {
        let messages = parts.list().iter().map(|part| &part.messages);
        let chunks = messages
            .filter(|messages| messages.count > 0)
            .map(|messages| self.pool.capacity_for(messages.bytes, messages.count));
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
    fn stage(&self, parts: &Parts) -> Result<Vec<StagedLog>> {
        loop {
            let logs = || parts.list().iter().map(|part| &part.log);
            if let Some(log) = logs().find(|log| log.filling.load(Ordering::Acquire)) {
                return Err(reserved(log));
            }
            let mut staged: Vec<StagedLog> = Vec::with_capacity(parts.list().len());
            let tails = LogState::intrude_all(logs());
            // For all of them before any is waited for, so that the device reads them side by side.
            let cold = logs().zip(&tails).filter(|(_, tail)| tail.writer.is_none());
            cold.for_each(|(log, _)| self.announce_tail(&log.root()));
            let mut judgements = self.judge_parts(parts)?;
            let mut has_memory = true;
            for (place, (part, tail)) in parts.list().iter().zip(tails).enumerate() {
                match self.stage_part(parts, part, tail, judgements.remove(&place))? {
                    Staging::Staged(part) => staged.push(part),
                    Staging::Nothing => {}
                    Staging::NoMemory => {
                        has_memory = false;
                        break;
                    }
                }
            }
            if has_memory {
                return Ok(staged);
            }
            // Memory comes back only when no gate is held.
            drop(staged);
            self.check_memory_for(parts)?;
            self.wait_for_memory()?;
        }
    }

    /// Puts the messages of one log behind its end: those that were judged, or all that were collected.
    fn stage_part(
        &self,
        parts: &Parts,
        Part { log, messages }: &Part,
        mut tail: Intruder<TailState>,
        judgements: Option<Judgements>,
    ) -> Result<Staging> {
        if tail.reserved {
            return Err(reserved(log));
        }
        let (bytes, count, lacks_key) = match &judgements {
            Some(told) => (told.body.len() as u64, told.count, lacks_key(&told.body)),
            None => (messages.bytes, messages.count, messages.lacks_key),
        };
        if count == 0 {
            return Ok(Staging::Nothing);
        }
        if lacks_key && log.is_keyed() {
            return Err(key_required(log));
        }
        if self.make_room(log, &mut tail, bytes, count)? == Room::NoMemory {
            return Ok(Staging::NoMemory);
        }
        let writer = tail.writer.as_mut().ok_or_else(no_chunk)?;
        // From here on it takes back what it staged when it is dropped.
        let mut staged = StagedLog {
            log: Arc::clone(log),
            first: writer.next_offset(),
            tail,
            count,
            judged: Judged::default(),
        };
        match judgements {
            Some(told) => {
                staged.judged = told.judged;
                staged.stage(&told.body, count)?;
            }
            None => messages
                .runs()
                .try_for_each(|run| staged.stage(parts.stored(run), run.count))?,
        }
        Ok(Staging::Staged(staged))
    }
}

/// What became of the messages of one log.
enum Staging {
    Staged(StagedLog),
    /// There were none.
    Nothing,
    /// Memory is used up.
    NoMemory,
}

impl StagedLog {
    fn stage(&mut self, body: &[u8], count: u64) -> Result<()> {
        match self.tail.writer.as_mut() {
            Some(writer) => writer.stage_stored(body, count),
            None => Err(no_chunk()),
        }
    }
}

fn no_chunk() -> Error {
    Error::Internal {
        what: "room has a chunk",
    }
}

/// Judges the messages of one log; what its rules send elsewhere goes to `diverted`.
fn judge_part(
    parts: &Parts,
    Part { log, messages }: &Part,
    mut judge: Judge<'_>,
    diverted: &mut BTreeMap<String, Messages>,
) -> Result<Judgements> {
    // Constraints that were set a moment ago may name a log whose gate is not held: then the transaction is refused.
    let is_held = |name: &str| parts.list().iter().any(|part| part.log.name.as_str() == name);
    let end = log.end();
    let mut body = Vec::with_capacity(usize::try_from(messages.bytes).unwrap_or(0));
    let mut count = 0_u64;
    for stored in messages.runs().map(|run| parts.stored(run)) {
        for found in buffer::walk(stored) {
            let (position, message) = found.map_err(|_| Error::Internal {
                what: "a message that was encoded parses",
            })?;
            let headers: Vec<(&[u8], &[u8])> = message.headers().collect();
            let fields = fields_of(&message, &headers);
            match judge.judge(&fields, end.saturating_add(count)) {
                Ok(()) => {
                    let at = position as usize;
                    let whole = at..at.saturating_add(message.stored_bytes() as usize);
                    body.extend_from_slice(stored.get(whole).unwrap_or_default());
                    count = count.saturating_add(1);
                }
                Err(Turned {
                    violation,
                    divert: Some(log),
                }) if is_held(&log) => turn_in(diverted.entry(log).or_default(), &fields, &violation)?,
                Err(turned) => return Err(turned.into()),
            }
        }
    }
    Ok(Judgements {
        body,
        count,
        judged: judge.done(),
    })
}

/// Whether some stored message has no key.
fn lacks_key(body: &[u8]) -> bool {
    buffer::walk(body).any(|found| found.is_ok_and(|(_, message)| message.key().is_none()))
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
