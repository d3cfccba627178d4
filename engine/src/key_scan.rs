//! The newest messages of a keyed log, in the order of their keys.

use std::sync::Arc;

use lanterman_format::{ValueType, weakened};

use crate::core::Core;
use crate::error::{Error, Result};
use crate::found::Located;
use crate::keys::{KeyedPlace, MergedKeys};
use crate::log::{LogState, Root};
use crate::message::{KeptMessage, Message};
use crate::pins::Pin;

/// Where a scan ends.
#[derive(Debug)]
pub(crate) enum KeyEnd {
    Nowhere,
    Before(Vec<u8>),
    /// Behind the last key that begins so.
    Prefix(Vec<u8>),
}

impl KeyEnd {
    /// Whether the scan ends behind a key, or later.
    fn is_behind(&self, key: &[u8]) -> bool {
        match self {
            KeyEnd::Nowhere => true,
            KeyEnd::Before(end) => key < end.as_slice(),
            KeyEnd::Prefix(prefix) => key.starts_with(prefix),
        }
    }
}

impl Core {
    /// The newest message of a key in a root below `end`; also a delete marker.
    pub(crate) fn newest_of_key(
        &self,
        log: &Arc<LogState>,
        root: &Root,
        end: u64,
        key: &[u8],
    ) -> Result<Option<KeptMessage>> {
        let mut newest = None;
        self.find_key(log, root, end, key, &mut |offset| {
            if let Some(located) = self.locate(log, root, offset)?
                && let Some(message) = located.message(self, log, root)?
            {
                newest = (message.key() == Some(key)).then(|| KeptMessage::from(&message));
            }
            Ok(newest.is_some())
        })?;
        Ok(newest)
    }
}

/// How many entries are looked at ahead of the message that is given, so that what they lead to is on its way from memory: as
/// many as hide the latency of memory, and first fewer, for who wants few.
const AHEAD_MAX: usize = 32;
const AHEAD_FIRST: usize = 4;

/// An entry, and where its message stands.
#[derive(Debug, Default)]
struct Ahead {
    place: KeyedPlace,
    located: Option<Located>,
}

/// The newest message of each key of a range; see [`Snapshot::scan_prefix`](crate::Snapshot::scan_prefix). It ends behind the
/// first error.
///
/// As an iterator it gives messages that count what holds them; [`next_lent`](Self::next_lent) is cheaper where one at a time
/// is enough.
#[derive(Debug)]
pub struct KeyScan {
    core: Arc<Core>,
    log: Arc<LogState>,
    root: Root,
    /// Keeps the root's slabs where they are.
    _pin: Pin,
    merged: MergedKeys,
    until: KeyEnd,
    /// What was gone through ahead, for the most part of it with memory of earlier entries; up to `filled` it counts.
    ahead: Vec<Ahead>,
    filled: usize,
    next: usize,
    /// What comes behind: more, nothing, or why it cannot be told.
    behind: Behind,
    /// The key of which the newest message was found last.
    settled: Option<Vec<u8>>,
    /// What was lent last.
    lent: Option<Located>,
    ended: bool,
}

#[derive(Debug)]
enum Behind {
    More,
    End,
    Failed(Error),
}

impl KeyScan {
    pub(crate) fn new(
        core: Arc<Core>,
        log: Arc<LogState>,
        (root, pin): (Root, Pin),
        merged: MergedKeys,
        until: KeyEnd,
    ) -> Self {
        KeyScan {
            core,
            log,
            root,
            _pin: pin,
            merged,
            until,
            ahead: Vec::new(),
            filled: 0,
            next: 0,
            behind: Behind::More,
            settled: None,
            lent: None,
            ended: false,
        }
    }

    /// The next message, lent until the next call; `None` at the end.
    ///
    /// # Errors
    /// As of [`Cursor::next`](crate::Cursor::next), also for the message that was lent before. Nothing comes behind an error.
    pub fn next_lent(&mut self) -> Result<Option<Message<'_>>> {
        if self.ended {
            return Ok(None);
        }
        // Until it is known how the step ended.
        self.ended = true;
        self.step()?;
        self.ended = self.lent.is_none();
        match &self.lent {
            Some(lent) => lent.message(&self.core, &self.log, &self.root),
            None => Ok(None),
        }
    }

    /// Goes on to the next message, which is lent then.
    fn step(&mut self) -> Result<()> {
        if let Some(lent) = self.lent.take() {
            lent.check(&self.core, &self.log, &self.root)?;
        }
        loop {
            if self.next == self.filled {
                match std::mem::replace(&mut self.behind, Behind::End) {
                    Behind::More => self.look_ahead(),
                    Behind::End => return Ok(()),
                    Behind::Failed(error) => return Err(error),
                }
                continue;
            }
            let Some(entry) = self.ahead.get_mut(self.next) else {
                return Ok(());
            };
            self.next = self.next.saturating_add(1);
            let place = &entry.place;
            if self.settled.as_ref() == Some(&place.key) && !weakened!("scan-shows-superseded") {
                continue;
            }
            let located = match entry.located.take() {
                None => self.core.locate(&self.log, &self.root, place.offset)?,
                located => located,
            };
            let Some(located) = located else { continue };
            let message = located.message(&self.core, &self.log, &self.root)?;
            let Some(message) = message.filter(|message| message.key() == Some(&place.key)) else {
                continue;
            };
            let settled = self.settled.get_or_insert_with(Vec::new);
            settled.clear();
            settled.extend_from_slice(&place.key);
            if message.value_type() != ValueType::NIL {
                self.lent = Some(located);
                return Ok(());
            }
        }
    }

    /// Goes through some more entries, and has the processor fetch what they lead to.
    fn look_ahead(&mut self) {
        let wanted = self.filled.saturating_mul(2).clamp(AHEAD_FIRST, AHEAD_MAX);
        self.ahead
            .resize_with(wanted.max(self.ahead.len()), Ahead::default);
        self.next = 0;
        self.filled = 0;
        for entry in self.ahead.iter_mut().take(wanted) {
            match self.merged.next(self.core.key_context(), &mut entry.place) {
                Ok(true) if self.until.is_behind(&entry.place.key) => {}
                Ok(_) => return self.find_ahead(),
                Err(error) => {
                    let error = self.core.key_error(&self.log, error);
                    if let Error::Damaged(_) = &error {
                        self.core.forget_runs(&self.log);
                    }
                    self.behind = Behind::Failed(error);
                    return self.find_ahead();
                }
            }
            self.filled = self.filled.saturating_add(1);
        }
        self.behind = Behind::More;
        self.find_ahead();
    }

    /// Finds the messages of the entries ahead, of each key the newest that is told of; others are rarely needed. What goes
    /// wrong is told when their turn comes.
    fn find_ahead(&mut self) {
        let ahead = self.ahead.get_mut(..self.filled).unwrap_or_default();
        let mut last_key = self.settled.as_deref();
        for Ahead { place, located } in ahead.iter_mut() {
            *located = None;
            if last_key != Some(&place.key) {
                *located = self
                    .core
                    .locate(&self.log, &self.root, place.offset)
                    .unwrap_or_default();
                last_key = Some(&place.key);
            }
            if let Some(located) = located {
                located.foresee_index();
            }
        }
        for located in ahead.iter().filter_map(|entry| entry.located.as_ref()) {
            located.announce();
        }
    }
}

impl Iterator for KeyScan {
    type Item = Result<KeptMessage>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.next_lent() {
            Ok(Some(message)) => Some(Ok(KeptMessage::from(&message))),
            Ok(None) => None,
            Err(error) => Some(Err(error)),
        }
    }
}
