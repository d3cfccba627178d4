//! Logs with constraints: setting them, judging what is appended, and what becomes of what is not taken.
//!
//! Invariants:
//! - who judges a message of a log holds its gate until the message is there, or what it changed was taken back;
//! - no other gate is asked for while one is held: what is diverted is appended when the gate is free again.

use std::ops::Range;
use std::sync::Arc;

use lanterman_format::buffer::{self, BufferFields, BufferView};
use lanterman_format::ids::Offset;
use lanterman_format::name::LogName;
use lanterman_format::settings::ConstraintSettings;

use crate::constraints::{Candidate, Compiled, Constraints, Judgement, Noted};
use crate::core::Core;
use crate::error::{Error, Result, Violation};
use crate::log::{LogState, Root};
use crate::splice::Piece;
use crate::tree::SlabEntry;
use crate::writer::NewMessage;

/// A document of this size fits the settings of a log beside all others.
const DOCUMENT_BYTES_MAX: usize = 60 << 10;

/// What messages changed in the memory of their log's rules: taken back unless it is kept.
#[derive(Debug, Default)]
pub(crate) struct Judged(Option<(Arc<Compiled>, Vec<Noted>)>);

impl Judged {
    /// The messages are in the log.
    pub(crate) fn keep(&mut self) {
        self.0 = None;
    }
}

impl Drop for Judged {
    fn drop(&mut self) {
        if let Some((compiled, noted)) = self.0.take() {
            compiled.take_back(noted);
        }
    }
}

/// What a rule says of a message that it does not let in.
#[derive(Debug)]
pub(crate) struct Turned {
    pub(crate) violation: Box<Violation>,
    /// The log that it goes to, if it is not just refused.
    pub(crate) divert: Option<String>,
}

impl From<Turned> for Error {
    fn from(turned: Turned) -> Self {
        Error::Constraint(turned.violation)
    }
}

/// Judges messages of one log that follow each other, its gate held.
pub(crate) struct Judge<'a> {
    core: &'a Core,
    log: Arc<LogState>,
    compiled: Arc<Compiled>,
    noted: Vec<Noted>,
    index: u64,
}

impl Judge<'_> {
    /// Judges a message for `offset`; the outer error is one of the store.
    pub(crate) fn judge(
        &mut self,
        fields: &BufferFields<'_>,
        offset: u64,
    ) -> std::result::Result<(), Turned> {
        let candidate = Candidate::new(fields, offset);
        let index = self.index;
        self.index = index.saturating_add(1);
        match self.compiled.judge(&candidate, self.core.clock.monotonic()) {
            Judgement::Taken { noted, warnings } => {
                self.noted.push(noted);
                for (rule, broken) in warnings {
                    let violation = broken.of(&self.log.name, rule, index, offset);
                    tracing::warn!(%violation, "a message was taken though it breaks a rule");
                }
                Ok(())
            }
            Judgement::Refused { rule, broken, divert } => Err(Turned {
                violation: Box::new(broken.of(&self.log.name, rule, index, offset)),
                divert,
            }),
        }
    }

    /// The judged messages are in the log.
    pub(crate) fn keep(judge: Option<Self>) {
        if let Some(judge) = judge {
            judge.done().keep();
        }
    }

    /// The judged messages are on their way.
    pub(crate) fn done(mut self) -> Judged {
        Judged(Some((
            Arc::clone(&self.compiled),
            std::mem::take(&mut self.noted),
        )))
    }
}

impl Drop for Judge<'_> {
    fn drop(&mut self) {
        self.compiled.take_back(std::mem::take(&mut self.noted));
    }
}

impl Core {
    /// Sets the constraints of a log.
    pub(crate) fn set_constraints(&self, name: &str, constraints: Option<&Constraints>) -> Result<()> {
        self.check_writable("set constraints")?;
        LogName::parse(name)?;
        let log = self.find_log(name)?;
        let refuse = |place: &str, reason: String| {
            Err(Error::InvalidConstraints {
                rule: None,
                place: place.to_owned(),
                reason,
            })
        };
        let told = match constraints {
            None => None,
            Some(constraints) => {
                for diverted in constraints.diverted_to() {
                    if let Err(error) = LogName::parse(diverted) {
                        return refuse("on_violation.divert", error.to_string());
                    }
                    if diverted == name {
                        return refuse("on_violation.divert", format!("{name:?} is the log itself"));
                    }
                }
                let document = constraints.to_json()?;
                if document.len() > DOCUMENT_BYTES_MAX {
                    let reason = format!("{} bytes are more than {DOCUMENT_BYTES_MAX}", document.len());
                    return refuse("rules", reason);
                }
                // Compiled once more: they may have been read by another program than this one.
                constraints.compile()?;
                Some(document)
            }
        };
        self.change_settings(&log, |settings| {
            let version = settings.constraints.as_ref().map_or(0, |told| told.version);
            settings.constraints = told.map(|document| ConstraintSettings {
                version: version.saturating_add(1),
                document,
            });
            Ok(())
        })
    }

    /// Who judges what is appended to a log, if it has constraints. Its gate is held.
    pub(crate) fn judge_of(&self, log: &Arc<LogState>) -> Result<Option<Judge<'_>>> {
        if !log.is_constrained() {
            return Ok(None);
        }
        let compiled = log.compiled(|settings| {
            let told = settings.constraints.as_ref();
            told.map(|told| Constraints::stored(&told.document)?.compile())
                .transpose()
        })?;
        let Some(compiled) = compiled else {
            return Ok(None);
        };
        compiled.fill_once(self.clock.monotonic(), |note| {
            let root = log.root();
            let end = root.end();
            let first = end.saturating_sub(compiled.memory_messages()).max(root.start);
            // What is damaged is not known any more, and is no reason to take no more messages.
            let skips_damage = true;
            self.each_message_of(log, &root, first..end, skips_damage, &mut |offset, fields| {
                note(&Candidate::new(fields, offset));
                true
            })
        })?;
        Ok(Some(Judge {
            core: self,
            log: Arc::clone(log),
            compiled,
            noted: Vec::new(),
            index: 0,
        }))
    }

    /// Appends a message that was turned away to the log that its rule names; gives the error that says so. No gate is held.
    pub(crate) fn divert(&self, turned: Turned, fields: &BufferFields<'_>) -> Error {
        let Some(log) = turned.divert.clone() else {
            return turned.into();
        };
        let violation = turned.violation;
        let appended = self.transaction(|transaction| {
            transaction.append_turned(&log, fields, &violation)?;
            transaction.durability(crate::options::Durability::Process);
            Ok(())
        });
        match appended {
            Ok(receipt) => Error::Diverted {
                offset: Offset::new(receipt.offsets.get(&log).map_or(0, |offsets| offsets.start)),
                violation,
                log,
            },
            Err(error) => error,
        }
    }

    /// Judges the messages of a value; see [`crate::Snapshot::check_constraints`].
    pub(crate) fn review(
        &self,
        log: &LogState,
        root: &Root,
        end: u64,
        constraints: &Constraints,
        mut tell: impl FnMut(Violation) -> bool,
    ) -> Result<()> {
        let compiled = constraints.compile()?;
        self.each_message_of(log, root, root.start..end, false, &mut |offset, fields| {
            compiled
                .review(&Candidate::new(fields, offset))
                .into_iter()
                .all(|(rule, broken)| tell(broken.of(&log.name, rule, offset, offset)))
        })
    }

    /// Calls `look` for each message of a root at `offsets`, in order, until it says `false`.
    fn each_message_of(
        &self,
        log: &LogState,
        root: &Root,
        offsets: Range<u64>,
        skips_damage: bool,
        look: &mut dyn FnMut(u64, &BufferFields<'_>) -> bool,
    ) -> Result<()> {
        let mut first = offsets.start;
        for piece in self.pieces(log, root, offsets)? {
            match piece {
                Piece::Shared(tree) => {
                    for placed in tree.slabs_from(self.source.as_ref(), 0) {
                        let placed = placed.map_err(|error| self.tree_error(log, error))?;
                        let begin = first.saturating_add(placed.first_offset);
                        let entry = &placed.entry;
                        if entry.slab.is_none() {
                            continue;
                        }
                        match self.each_message_in(log, entry, begin, look) {
                            Ok(true) => {}
                            Ok(false) => return Ok(()),
                            Err(Error::Damaged(_)) if skips_damage => {}
                            Err(error) => return Err(error),
                        }
                    }
                    first = first.saturating_add(tree.offset_end());
                }
                Piece::InMemory {
                    chunk,
                    offsets,
                    deleted,
                } => {
                    first = offsets.end;
                    let entry = offsets.start.saturating_sub(chunk.first_offset());
                    let count = offsets.end.saturating_sub(offsets.start);
                    let body = chunk.entries_bytes(entry, count)?;
                    for (offset, found) in (offsets.start..).zip(buffer::walk(body)) {
                        let (_, message) = found.map_err(|_| Error::Internal {
                            what: "a published buffer parses",
                        })?;
                        let is_deleted = deleted.iter().any(|mask| mask.contains(&offset));
                        if !is_deleted && !look_at(&message, offset, look) {
                            return Ok(());
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

impl Core {
    /// The same for what an entry of a tree shows, of which the first offset is `begin`.
    fn each_message_in(
        &self,
        log: &LogState,
        entry: &SlabEntry,
        begin: u64,
        look: &mut dyn FnMut(u64, &BufferFields<'_>) -> bool,
    ) -> Result<bool> {
        let Some(handle) = &entry.slab else {
            return Ok(true);
        };
        let held = begin..begin.saturating_add(entry.offset_count);
        let failed = |error| self.slab_error(log, Some(held.clone()), error);
        let slab = handle.open(self.source.as_ref()).map_err(failed)?.share();
        let shown = entry.skip..entry.skip.saturating_add(entry.offset_count);
        let mut buffers = slab.buffers(shown, self.read_context());
        while let Some(walked) = buffers.next().map_err(failed)? {
            let in_entry = walked.relative_offset.saturating_sub(entry.skip);
            if !look_at(&walked.buffer, begin.saturating_add(in_entry), look) {
                return Ok(false);
            }
        }
        slab.check_whole().map_err(failed)?;
        Ok(true)
    }
}

fn look_at(
    message: &BufferView<'_>,
    offset: u64,
    look: &mut dyn FnMut(u64, &BufferFields<'_>) -> bool,
) -> bool {
    if message.is_hidden() {
        return true;
    }
    let headers: Vec<(&[u8], &[u8])> = message.headers().collect();
    look(offset, &fields_of(message, &headers))
}

/// The parts of a stored message.
pub(crate) fn fields_of<'a>(
    message: &BufferView<'a>,
    headers: &'a [(&'a [u8], &'a [u8])],
) -> BufferFields<'a> {
    let mut fields = BufferFields::plain(message.value_type(), message.value());
    fields.key = message.key();
    fields.time_ms = message.time_ms();
    fields.headers = headers;
    fields.count = message.count();
    fields
}

impl<'a> From<BufferFields<'a>> for NewMessage<'a> {
    fn from(fields: BufferFields<'a>) -> Self {
        NewMessage { fields }
    }
}
