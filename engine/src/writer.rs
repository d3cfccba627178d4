//! The one appender of a log.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use lanterman_format::buffer::{BufferFields, ValueType};
use lanterman_format::ids::{Offset, Version};

use crate::commit::ADOPT_BYTES_MIN;
use crate::constrained::Judge;
use crate::core::Core;
use crate::error::{Error, Result};
use crate::journal::group::GroupFuture;
use crate::log::{LogState, TailState};
use crate::memory::Room;
use crate::options::Durability;
use crate::region::chunk::Full;
use crate::region::gated::Owner;
use crate::store::Handle;

/// A message to append, with whatever it has beside its value.
///
/// ```
/// use lanterman::NewMessage;
/// let message = NewMessage::new(b"paid").key(b"order 7").time_ms(1_700_000_000_000);
/// assert_eq!(message.value(), b"paid");
/// ```
#[derive(Debug, Clone)]
pub struct NewMessage<'a> {
    pub(crate) fields: BufferFields<'a>,
}

impl<'a> NewMessage<'a> {
    /// A message of bytes, without key, time or headers.
    #[must_use]
    pub fn new(value: &'a [u8]) -> Self {
        NewMessage {
            fields: BufferFields::plain(ValueType::BYTES, value),
        }
    }

    /// Gives it a key; at most 64 KiB.
    #[must_use]
    pub fn key(mut self, key: &'a [u8]) -> Self {
        self.fields.key = Some(key);
        self
    }

    /// A message that says of a keyed log that there is nothing of this key any more; see
    /// [`Store::set_keyed`](crate::Store::set_keyed).
    ///
    /// ```
    /// let gone = lanterman::NewMessage::delete_marker(b"order 7");
    /// assert!(gone.value().is_empty());
    /// ```
    #[must_use]
    pub fn delete_marker(key: &'a [u8]) -> Self {
        NewMessage {
            fields: BufferFields::plain(ValueType::NIL, &[]),
        }
        .key(key)
    }

    /// Gives it a time of its own, in milliseconds since 1970.
    #[must_use]
    pub fn time_ms(mut self, time_ms: i64) -> Self {
        self.fields.time_ms = Some(time_ms);
        self
    }

    /// Gives it headers: names and values, in this order; at most 256 KiB in all.
    #[must_use]
    pub fn headers(mut self, headers: &'a [(&'a [u8], &'a [u8])]) -> Self {
        self.fields.headers = headers;
        self
    }

    /// Says what the value is; the default is bytes.
    #[must_use]
    pub fn value_type(mut self, value_type: ValueType) -> Self {
        self.fields.value_type = value_type;
        self
    }

    /// The value.
    #[must_use]
    pub fn value(&self) -> &'a [u8] {
        self.fields.value
    }
}

/// Which rules of its log a buffer is judged by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rules {
    All,
    /// All, but it can go nowhere else.
    WithoutDiverting,
    /// None: it is no message.
    None,
}

/// The one appender of a log. Dropping it lets another be opened; what it appended stays.
#[derive(Debug)]
pub struct Writer {
    owner: Owner<TailState>,
    log: Arc<LogState>,
    store: Arc<Handle>,
    message_bytes_max: usize,
    /// Commit after so many bytes; `u64::MAX` never.
    automatic_bytes: u64,
    appended_bytes: u64,
}

impl Writer {
    pub(crate) fn new(store: Arc<Handle>, log: Arc<LogState>, owner: Owner<TailState>) -> Self {
        let options = &store.core.options;
        Writer {
            owner,
            log,
            message_bytes_max: usize::try_from(options.message_bytes_max).unwrap_or(usize::MAX),
            automatic_bytes: options
                .automatic_commit
                .map_or(u64::MAX, |automatic| automatic.bytes),
            appended_bytes: 0,
            store,
        }
    }

    /// Name of the log.
    #[must_use]
    pub fn name(&self) -> &str {
        self.log.name.as_str()
    }

    /// Appends a message of bytes and gives its offset. Cursors of the process see it at once; see
    /// [`commit`](Self::commit) for what makes it last.
    ///
    /// Costs no system call, no lock and no allocation while the log's chunk has room.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::WouldBlock`] if the options say so, [`Error::StorageFull`] when tail memory is
    /// used up and slabs find no room on disk; nothing was appended then. Where the log has constraints
    /// ([`Store::set_constraints`](crate::Store::set_constraints)), [`Error::Constraint`] for a message that breaks one, and
    /// [`Error::Diverted`] if it went to another log for that.
    #[inline]
    pub fn append(&mut self, value: &[u8]) -> Result<Offset> {
        if value.len() <= self.message_bytes_max && !self.log.has_demands() {
            let mut tail = self.owner.enter();
            if let Some(writer) = tail.writer.as_mut()
                && let Ok(offset) = writer.append_plain(value, ValueType::BYTES)
            {
                drop(tail);
                self.appended_bytes = self.appended_bytes.wrapping_add(value.len() as u64);
                if self.appended_bytes >= self.automatic_bytes {
                    self.commit_automatically();
                }
                return Ok(Offset::new(offset));
            }
        }
        self.append_slowly(&BufferFields::plain(ValueType::BYTES, value))
    }

    /// Appends a message with key, time, headers or a type of its own, and gives its offset.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub fn append_message(&mut self, message: &NewMessage<'_>) -> Result<Offset> {
        self.append_slowly(&message.fields)
    }

    /// Appends the message only if it gets the offset `expected`.
    ///
    /// # Errors
    /// [`Error::OffsetMismatch`] with the offset it would have got; otherwise as [`append`](Self::append).
    pub fn append_if(&mut self, expected: Offset, message: &NewMessage<'_>) -> Result<Offset> {
        let found = self.next_offset();
        if found != expected {
            return Err(Error::OffsetMismatch {
                name: self.log.name.as_str().to_owned(),
                expected,
                found,
            });
        }
        // A transaction may come between: the offset is compared once more where it is given.
        self.append_at(Some(expected), &message.fields)
    }

    /// Appends all messages or none, next to each other, and gives the offset of the first. Readers see them at once.
    ///
    /// # Errors
    /// As [`append`](Self::append); a batch must fit in one slab, or be at most as large as one message may be. A message
    /// that breaks a rule of the log refuses the batch, also where the rule would divert it: [`Error::Constraint`] says
    /// which it is.
    pub fn append_batch<'a>(&mut self, messages: impl IntoIterator<Item = NewMessage<'a>>) -> Result<Offset> {
        // Whoever makes them does so before the log's gate is closed.
        let messages: Vec<BufferFields<'a>> = messages.into_iter().map(|message| message.fields).collect();
        let count = messages.len() as u64;
        let is_constrained = self.log.is_constrained();
        let is_keyed = self.log.is_keyed();
        let mut bytes = 0u64;
        for fields in &messages {
            if is_keyed {
                check_key(&self.log, fields)?;
            }
            let stored = match is_bare(fields) && fields.value.len() <= self.message_bytes_max {
                true => lanterman_format::buffer::plain_stored_bytes(
                    u32::try_from(fields.value.len()).unwrap_or(u32::MAX),
                ),
                false => {
                    check_fields(fields, self.message_bytes_max)?;
                    self.store.core.options.formats.check(fields)?;
                    stored_bytes(fields)?
                }
            };
            bytes = bytes.saturating_add(u64::from(stored));
        }
        let limit = self
            .store
            .core
            .options
            .message_bytes_max
            .max(self.store.core.options.slab_bytes_max / 2);
        if bytes > limit {
            return Err(Error::TooLarge {
                part: "batch",
                bytes,
                limit_bytes: limit,
            });
        }
        loop {
            let mut tail = self.owner.enter();
            if !is_keyed && self.log.is_keyed() {
                // It became so just now.
                return Err(key_required(&self.log));
            }
            let room = self.store.core.make_room(&self.log, &mut tail, bytes, count)?;
            if room == Room::NoMemory {
                drop(tail);
                self.store.core.wait_for_memory()?;
                continue;
            }
            let writer = tail.writer.as_mut().ok_or(Error::Internal {
                what: "room has a chunk",
            })?;
            let first = writer.next_offset();
            let mut judge = self.store.core.judge_of(&self.log)?.filter(|_| is_constrained);
            if let Some(judge) = &mut judge {
                (first..)
                    .zip(&messages)
                    .try_for_each(|(offset, fields)| judge.judge(fields, offset))?;
            }
            if messages.iter().any(|fields| writer.stage_fields(fields).is_err()) {
                writer.roll_back_staged();
                return Err(Error::Internal {
                    what: "a batch fits the room that was made for it",
                });
            }
            writer.publish_staged();
            Judge::keep(judge);
            drop(tail);
            self.count_bytes(bytes);
            return Ok(Offset::new(first));
        }
    }

    /// Room for a message of `bytes`, to be filled in place; nothing is appended until it is published.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub fn reserve(&mut self, bytes: usize) -> Result<Reservation<'_>> {
        if bytes > self.message_bytes_max {
            return Err(too_large(bytes, self.message_bytes_max));
        }
        let stored = lanterman_format::buffer::plain_stored_bytes(u32::try_from(bytes).unwrap_or(u32::MAX));
        loop {
            let mut tail = self.owner.enter();
            check_key(&self.log, &BufferFields::plain(ValueType::BYTES, &[]))?;
            if self
                .store
                .core
                .make_room(&self.log, &mut tail, u64::from(stored), 1)?
                == Room::Made
            {
                tail.reserved = true;
                self.log.filling.store(true, Ordering::Release);
                break;
            }
            drop(tail);
            self.store.core.wait_for_memory()?;
        }
        Ok(Reservation {
            writer: self,
            bytes,
            value_type: ValueType::BYTES,
        })
    }

    fn append_slowly(&mut self, fields: &BufferFields<'_>) -> Result<Offset> {
        self.append_at(None, fields)
    }

    #[cold]
    fn append_at(&mut self, expected: Option<Offset>, fields: &BufferFields<'_>) -> Result<Offset> {
        check_fields(fields, self.message_bytes_max)?;
        self.store.core.options.formats.check(fields)?;
        self.append_by(expected, fields, Rules::All)
    }

    /// Appends what was checked, or needs no check.
    pub(crate) fn append_by(
        &mut self,
        expected: Option<Offset>,
        fields: &BufferFields<'_>,
        rules: Rules,
    ) -> Result<Offset> {
        let stored = stored_bytes(fields)?;
        let offset = loop {
            let mut tail = self.owner.enter();
            if rules != Rules::None {
                check_key(&self.log, fields)?;
            }
            if self
                .store
                .core
                .make_room(&self.log, &mut tail, u64::from(stored), 1)?
                == Room::NoMemory
            {
                drop(tail);
                self.store.core.wait_for_memory()?;
                continue;
            }
            let writer = tail.writer.as_mut().ok_or(Error::Internal {
                what: "room has a chunk",
            })?;
            let found = Offset::new(writer.next_offset());
            if let Some(expected) = expected.filter(|expected| *expected != found) {
                return Err(Error::OffsetMismatch {
                    name: self.log.name.as_str().to_owned(),
                    expected,
                    found,
                });
            }
            let mut judge = match rules {
                Rules::None => None,
                _ => self.store.core.judge_of(&self.log)?,
            };
            if let Some(judge) = &mut judge
                && let Err(turned) = judge.judge(fields, found.get())
            {
                drop(tail);
                if rules == Rules::WithoutDiverting {
                    return Err(turned.into());
                }
                return Err(self.store.core.divert(turned, fields));
            }
            match writer.append_fields(fields) {
                Ok(offset) => {
                    Judge::keep(judge);
                    break offset;
                }
                Err(Full) => {
                    return Err(Error::Internal {
                        what: "room takes what it was made for",
                    });
                }
            }
        };
        self.count_bytes(u64::from(stored));
        Ok(Offset::new(offset))
    }

    pub(crate) fn core(&self) -> &Core {
        &self.store.core
    }

    pub(crate) fn log_state(&self) -> &LogState {
        &self.log
    }

    fn count_bytes(&mut self, bytes: u64) {
        self.appended_bytes = self.appended_bytes.wrapping_add(bytes);
        if self.appended_bytes >= self.automatic_bytes {
            self.commit_automatically();
        }
    }

    #[cold]
    fn commit_automatically(&mut self) {
        self.appended_bytes = 0;
        if let Some(automatic) = self.store.core.options.automatic_commit {
            // Nobody waits for it: a failure poisons the store, and the next call tells.
            drop(
                self.store
                    .core
                    .commit_log_later(&self.log, self.log.end(), automatic.durability),
            );
        }
    }

    /// Offset that the next message gets, unless a transaction comes first.
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        Offset::new(self.log.end())
    }

    /// Offset below which every message would survive a killed process.
    #[must_use]
    pub fn committed_end(&self) -> Offset {
        Offset::new(self.log.journaled_end())
    }

    /// Offset below which every message would survive a power cut.
    #[must_use]
    pub fn durable_end(&self) -> Offset {
        Offset::new(self.log.durable_end())
    }

    /// Makes everything appended so far last as `durability` says, and gives the version that has it.
    ///
    /// Threads that commit at the same time share one write.
    ///
    /// # Errors
    /// [`Error::StorageFull`] when the journal finds no room: nothing is lost, call again when there is some.
    /// [`Error::Poisoned`] after a failed write or sync.
    pub fn commit(&mut self, durability: Durability) -> Result<Version> {
        self.appended_bytes = 0;
        let end = self.log.end();
        self.write_large_parts(end, true)?;
        self.store.core.commit_log(&self.log, end, durability)
    }

    /// The same as a future that needs no runtime: the store's own thread writes, and wakes the task. Dropping the
    /// future does not take the commit back.
    ///
    /// # Errors
    /// [`Error::Poisoned`] after a failed write or sync; what the commit itself meets comes out of the future.
    pub fn commit_async(&mut self, durability: Durability) -> Result<CommitFuture> {
        self.appended_bytes = 0;
        self.store.core.check_poison()?;
        let end = self.log.end();
        self.write_large_parts(end, false)?;
        let inner = self.store.core.commit_log_later(&self.log, end, durability);
        if !self.store.core.background.has_thread() {
            self.store.core.groups.lead(self.store.core.as_ref());
        }
        Ok(CommitFuture { inner })
    }

    /// What is large enough to be a slab is written as one, not copied into the journal.
    fn write_large_parts(&mut self, end: u64, wait: bool) -> Result<()> {
        let journaled = self.log.journaled_end();
        if end <= journaled {
            return Ok(());
        }
        let mut tail = self.owner.enter();
        let large = tail
            .writer
            .as_ref()
            .is_some_and(|writer| writer.bytes_from(journaled) >= ADOPT_BYTES_MIN);
        if large {
            self.store.core.close_chunk(&self.log, &mut tail);
        }
        drop(tail);
        let root = self.log.root();
        let waiting = root.chunks.iter().rfind(|chunk| {
            chunk.is_closed()
                && chunk.end_offset() > root.tree_end
                && chunk.bytes_from(journaled) >= ADOPT_BYTES_MIN
        });
        match waiting {
            Some(chunk) if wait => self.store.core.flush_log(&self.log, chunk.end_offset()),
            _ => Ok(()),
        }
    }
}

fn stored_bytes(fields: &BufferFields<'_>) -> Result<u32> {
    fields.encoded_bytes().map_err(|_| Error::TooLarge {
        part: "message",
        bytes: fields.value.len() as u64,
        limit_bytes: u64::from(lanterman_format::limits::VALUE_BYTES_MAX),
    })
}

fn too_large(bytes: usize, limit: usize) -> Error {
    Error::TooLarge {
        part: "message",
        bytes: bytes as u64,
        limit_bytes: limit as u64,
    }
}

/// # Errors
/// [`Error::KeyRequired`] for a message without a key, if the log is keyed.
pub(crate) fn check_key(log: &LogState, fields: &BufferFields<'_>) -> Result<()> {
    match fields.key.is_none() && log.is_keyed() {
        true => Err(key_required(log)),
        false => Ok(()),
    }
}

#[cold]
pub(crate) fn key_required(log: &LogState) -> Error {
    Error::KeyRequired {
        name: log.name.as_str().to_owned(),
    }
}

/// Whether it is bytes and nothing else, of which only the length can be wrong.
#[inline]
fn is_bare(fields: &BufferFields<'_>) -> bool {
    fields.value_type == ValueType::BYTES && fields.is_plain()
}

/// Compares the parts of a message with their limits.
pub(crate) fn check_fields(fields: &BufferFields<'_>, message_bytes_max: usize) -> Result<()> {
    if fields.value.len() > message_bytes_max {
        return Err(too_large(fields.value.len(), message_bytes_max));
    }
    let own = [
        ValueType::TOMBSTONES,
        ValueType::KEY_PAGE,
        ValueType::PART,
        ValueType::BY_REFERENCE,
        ValueType::COMPRESSED_BATCH,
    ];
    if own.contains(&fields.value_type) {
        return Err(Error::InvalidValue {
            value_type: fields.value_type,
            format: fields.value_type.to_string(),
            reason: "only the store itself makes such values".to_owned(),
        });
    }
    let limit = |part: &'static str, bytes: usize, limit: usize| {
        if bytes > limit {
            return Err(Error::TooLarge {
                part,
                bytes: bytes as u64,
                limit_bytes: limit as u64,
            });
        }
        Ok(())
    };
    limit(
        "key",
        fields.key.map_or(0, <[u8]>::len),
        lanterman_format::limits::KEY_BYTES_MAX as usize,
    )?;
    let headers = fields
        .headers
        .iter()
        .map(|(name, value)| name.len().saturating_add(value.len()).saturating_add(8));
    limit(
        "headers",
        headers.fold(0, usize::saturating_add),
        lanterman_format::limits::HEADERS_BYTES_MAX as usize,
    )
}

/// Appends the stored form of a message to `body`.
pub(crate) fn encode(fields: &BufferFields<'_>, body: &mut Vec<u8>) -> Result<()> {
    let is_bare =
        fields.key.is_none() && fields.headers.is_empty() && fields.time_ms.is_none() && fields.count == 1;
    if is_bare
        && fields.value_type == ValueType::BYTES
        && let Ok(length) = u32::try_from(fields.value.len())
        && length <= lanterman_format::limits::VALUE_BYTES_MAX
    {
        // The usual message, without the detour over zeros that are written over.
        let stored = lanterman_format::buffer::plain_stored_bytes(length);
        let end = body.len().saturating_add(stored as usize);
        body.extend_from_slice(
            &lanterman_format::buffer::plain_header_word(length, ValueType::BYTES).to_le_bytes(),
        );
        body.extend_from_slice(fields.value);
        body.resize(end, 0);
        return Ok(());
    }
    let at = body.len();
    let bytes = usize::try_from(stored_bytes(fields)?).unwrap_or(usize::MAX);
    body.resize(at.saturating_add(bytes), 0);
    let out = body.get_mut(at..).unwrap_or_default();
    fields.encode(out).map(|_| ()).map_err(|_| Error::Internal {
        what: "a message encodes into its room",
    })
}

/// Room for one message, filled in place.
#[derive(Debug)]
pub struct Reservation<'a> {
    writer: &'a mut Writer,
    bytes: usize,
    value_type: ValueType,
}

impl Reservation<'_> {
    /// Says what the value is; the default is bytes.
    #[must_use]
    pub fn value_type(mut self, value_type: ValueType) -> Self {
        self.value_type = value_type;
        self
    }

    /// The bytes to fill. What they hold at first is not specified.
    ///
    /// # Errors
    /// [`Error::Internal`] if the room is not there, which would be a mistake of the store.
    pub fn fill<T>(&mut self, fill: impl FnOnce(&mut [u8]) -> T) -> Result<T> {
        let mut tail = self.writer.owner.enter();
        let writer = tail.writer.as_mut().ok_or(Error::Internal {
            what: "a reservation has its chunk",
        })?;
        let bytes = writer.reserved(self.bytes).ok_or(Error::Internal {
            what: "a reservation has its room",
        })?;
        Ok(fill(bytes))
    }

    /// Appends the message and gives its offset.
    ///
    /// # Errors
    /// [`Error::Constraint`] and [`Error::Diverted`] as [`Writer::append`]; the reservation is gone then.
    /// [`Error::Internal`] if the room is not there, which would be a mistake of the store.
    pub fn publish(self) -> Result<Offset> {
        let core = Arc::clone(&self.writer.store.core);
        let mut tail = self.writer.owner.enter();
        let writer = tail.writer.as_mut().ok_or(Error::Internal {
            what: "a reservation has its chunk",
        })?;
        let no_room = || Error::Internal {
            what: "a reservation has its room",
        };
        let value = writer.reserved(self.bytes).ok_or_else(no_room)?;
        core.options
            .formats
            .check(&BufferFields::plain(self.value_type, value))?;
        let mut judge = core.judge_of(&self.writer.log)?;
        if let Some(judge) = &mut judge {
            let offset = writer.next_offset();
            let value = writer.reserved(self.bytes).ok_or_else(no_room)?;
            let fields = BufferFields::plain(self.value_type, value);
            if let Err(turned) = judge.judge(&fields, offset) {
                let (value, value_type) = (value.to_vec(), self.value_type);
                drop(tail);
                drop(self);
                return Err(core.divert(turned, &BufferFields::plain(value_type, &value)));
            }
        }
        let offset = writer
            .publish_reserved(self.bytes, self.value_type)
            .map_err(|Full| no_room())?;
        Judge::keep(judge);
        drop(tail);
        Ok(Offset::new(offset))
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.writer.log.filling.store(false, Ordering::Release);
        self.writer.owner.enter().reserved = false;
    }
}

/// The outcome of [`Writer::commit_async`].
#[derive(Debug)]
#[must_use = "the outcome of a commit is known only when its future is ready"]
pub struct CommitFuture {
    inner: GroupFuture,
}

impl CommitFuture {
    /// Blocks until the commit is done.
    ///
    /// # Errors
    /// As [`Writer::commit`].
    pub fn wait(self) -> Result<Version> {
        self.inner.wait()
    }
}

impl Future for CommitFuture {
    type Output = Result<Version>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.inner).poll(context)
    }
}
