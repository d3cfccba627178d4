//! What the model says of messages before the engine does: taken, refused, or sent to another log.
//!
//! Rules that compare with the messages before are asked from the log once, when the first message is judged after they
//! were set or the store opened. Where it cannot be seen whether that has happened, and something is deleted, the model does
//! not know any more what they compare with, and sets them anew.

use super::expected::Expected;
use super::log::ModelLog;
use super::rules::{Breach, Memory, broken_by, offsets_recalled};

/// What the rules of a log remember.
#[derive(Debug, Clone)]
pub(super) enum Recall {
    /// Nothing yet; or, where a call may have judged a message, what the log holds.
    Empty {
        may_be_filled: bool,
    },
    Filled(Memory),
    Lost,
}

impl Default for Recall {
    fn default() -> Self {
        Recall::Empty { may_be_filled: false }
    }
}

impl Recall {
    /// Messages of the log go: what was recalled before remembers them, what is recalled later does not.
    pub(super) fn forget_what_is_unsure(&mut self) {
        if let Recall::Empty { may_be_filled: true } = self {
            *self = Recall::Lost;
        }
    }
}

/// Messages that a call appends to one log, judged one after the other.
#[derive(Debug, Clone, Default)]
pub(super) struct Judged {
    pub(super) taken: Vec<Expected>,
    /// What goes to the other log, without the headers that tell of it.
    pub(super) diverted: Vec<(Expected, Breach)>,
    /// The first message that is refused; none is judged behind it.
    pub(super) refused: Option<Breach>,
    /// What the rules remember if all of it comes to pass.
    pub(super) memory: Memory,
}

impl Judged {
    /// The first message that breaks a rule that does not only warn.
    pub(super) fn first_broken(&self) -> Option<&Breach> {
        let diverted = self.diverted.first().map(|(_, breach)| breach);
        diverted.or(self.refused.as_ref())
    }
}

impl ModelLog {
    fn recalled(&self) -> Memory {
        match &self.recall {
            _ if self.rules().is_empty() => Memory::default(),
            Recall::Filled(memory) => memory.clone(),
            Recall::Empty { .. } => {
                let mut memory = Memory::default();
                let end = self.end();
                for offset in end.saturating_sub(offsets_recalled(self.rules()))..end {
                    if !self.is_deleted(offset) {
                        memory.note(self.rules(), self.at(offset), offset);
                    }
                }
                memory
            }
            Recall::Lost => panic!("it is made sure that the rules are known"),
        }
    }

    /// Whether it is known what the rules compare with.
    pub(super) fn knows_rules(&self) -> bool {
        self.rules().is_empty() || !matches!(self.recall, Recall::Lost)
    }

    /// A message of the log has been judged, or would have been.
    pub(super) fn has_recalled(&mut self) {
        if !self.rules().is_empty() && matches!(self.recall, Recall::Empty { .. }) {
            self.recall = Recall::Filled(self.recalled());
        }
    }

    /// Messages were judged and are in the log.
    pub(super) fn now_recalls(&mut self, memory: Memory) {
        if !self.rules().is_empty() {
            self.recall = Recall::Filled(memory);
        }
    }

    /// Perhaps a message of the log has been judged.
    pub(super) fn may_have_recalled(&mut self) {
        if let Recall::Empty { may_be_filled } = &mut self.recall {
            *may_be_filled |= self.settings.rules.is_some();
        }
    }

    /// Judges messages that are appended next.
    pub(super) fn judge<'a>(&self, messages: impl IntoIterator<Item = &'a Expected>) -> Judged {
        let mut judged = Judged {
            memory: self.recalled(),
            ..Judged::default()
        };
        for (index, message) in messages.into_iter().enumerate() {
            let offset = self.end() + judged.taken.len() as u64;
            let Some((rule, place, is_diverted)) = broken_by(self.rules(), &judged.memory, message, offset)
            else {
                judged.memory.note(self.rules(), message, offset);
                judged.taken.push(message.clone());
                continue;
            };
            let breach = Breach {
                rule,
                place,
                index: index as u64,
                offset,
                is_diverted,
            };
            if is_diverted {
                judged.diverted.push((message.clone(), breach));
            } else {
                judged.refused = Some(breach);
                break;
            }
        }
        judged
    }

    /// Whether the log is keyed and one of the messages has no key.
    pub(super) fn misses_key<'a>(&self, messages: impl IntoIterator<Item = &'a Expected>) -> bool {
        self.is_keyed() && messages.into_iter().any(|message| message.key.is_none())
    }
}
