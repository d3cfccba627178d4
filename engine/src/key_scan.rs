//! The newest messages of a keyed log, in the order of their keys.

use std::sync::Arc;

use lanterman_format::{ValueType, weakened};

use crate::core::Core;
use crate::cursor::Cursor;
use crate::error::{Error, Result};
use crate::keys::{KeyedPlace, MergedKeys};
use crate::log::LogState;
use crate::message::KeptMessage;

/// Where a scan ends.
#[derive(Debug)]
pub(crate) enum KeyEnd {
    Nowhere,
    Before(Vec<u8>),
    /// Behind the last key that begins so.
    Prefix(Vec<u8>),
}

impl KeyEnd {
    fn is_behind(&self, key: &[u8]) -> bool {
        match self {
            KeyEnd::Nowhere => true,
            KeyEnd::Before(end) => key < end.as_slice(),
            KeyEnd::Prefix(prefix) => key.starts_with(prefix),
        }
    }
}

/// The message at `offset` if it is there still and has the key.
pub(crate) fn message_of(cursor: &mut Cursor, offset: u64, key: &[u8]) -> Result<Option<KeptMessage>> {
    match cursor.get(offset) {
        Ok(message) => Ok((message.key() == Some(key)).then(|| KeptMessage::from(&message))),
        Err(Error::Deleted { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The newest message of each key of a range; see [`Snapshot::scan_prefix`](crate::Snapshot::scan_prefix). It ends behind the
/// first error.
#[derive(Debug)]
pub struct KeyScan {
    core: Arc<Core>,
    log: Arc<LogState>,
    cursor: Cursor,
    merged: MergedKeys,
    until: KeyEnd,
    place: KeyedPlace,
    /// The key of which the newest message was found last.
    settled: Option<Vec<u8>>,
    ended: bool,
}

impl KeyScan {
    pub(crate) fn new(
        core: Arc<Core>,
        log: Arc<LogState>,
        cursor: Cursor,
        merged: MergedKeys,
        until: KeyEnd,
    ) -> Self {
        KeyScan {
            core,
            log,
            cursor,
            merged,
            until,
            place: KeyedPlace::default(),
            settled: None,
            ended: false,
        }
    }

    fn step(&mut self) -> Result<Option<KeptMessage>> {
        loop {
            let stepped = self.merged.next(self.core.key_context(), &mut self.place);
            let stepped = stepped.map_err(|error| self.core.key_error(&self.log, error));
            if let Err(Error::Damaged(_)) = &stepped {
                self.core.forget_runs(&self.log);
            }
            if !stepped? || !self.until.is_behind(&self.place.key) {
                return Ok(None);
            }
            if self.settled.as_ref() == Some(&self.place.key) && !weakened!("scan-shows-superseded") {
                continue;
            }
            let Some(message) = message_of(&mut self.cursor, self.place.offset, &self.place.key)? else {
                continue;
            };
            let settled = self.settled.get_or_insert_with(Vec::new);
            settled.clear();
            settled.extend_from_slice(&self.place.key);
            if message.value_type() != ValueType::NIL {
                return Ok(Some(message));
            }
        }
    }
}

impl Iterator for KeyScan {
    type Item = Result<KeptMessage>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let item = self.step().transpose();
        self.ended = !matches!(item, Some(Ok(_)));
        item
    }
}
