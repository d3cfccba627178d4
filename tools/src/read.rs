//! `lanterman read`: messages of a log to standard output.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use lanterman::{
    Cursor, Damage, Error, Log, LogItem, Message, Offset, Options, Snapshot, Store, ValueReader, ValueType,
    check_bytes,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};

use crate::cli::{log_name, parse_delimiter};
use crate::output::{Output, complain};
use crate::problem::{Outcome, Problem};
use crate::text::Hex;

/// How long a following reader waits before it looks whether anybody still reads its output.
const FOLLOW_TURN: Duration = Duration::from_millis(100);

/// Read messages of a log, byte for byte what went in
///
/// Prints each value and a newline behind it. Reads what is committed when the call begins, also beside a running
/// writer; with --follow it goes on with what is committed later, until it is interrupted. A closed pipe ends it
/// quietly. Messages that were deleted are passed over, also with --from.
///
/// --json prints one object a line: offset, value, type, and where the message has them key, time_ms and headers. Bytes
/// that are not UTF-8 come as hexadecimal digits, in value_hex and key_hex. With --deleted a line with offset and deleted,
/// their number, stands for each run of offsets that have no message.
///
/// A value that is kept in parts (`append --whole`) is printed whole; --json gives its length, as value_bytes, in its place.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:\n  \
    lanterman read demo events | sha256sum\n  \
    lanterman read demo events --from 1000 --count 10 --json\n  \
    lanterman read demo events --follow\n  \
    lanterman read demo events --json --deleted\n  \
    lanterman read demo files --null | xargs -0 ls -l\n  \
    lanterman read demo users --keys --key-delimiter :\n  \
    lanterman read demo users --latest --prefix a --json\n\n\
    Exit codes:\n  \
    0  everything asked for was read, or the pipe was closed\n  \
    1  messages are damaged; what stands before them was printed (--skip-damaged goes on behind them)\n  \
    2  no such store or log, or --from is not within the log")]
pub(crate) struct ReadCall {
    /// The store's directory
    store: PathBuf,
    /// Name of the log
    log: OsString,
    /// Begin at this offset; default the log's first
    #[arg(long, value_name = "N")]
    from: Option<u64>,
    /// Stop after so many messages
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Read the log as the named snapshot with this label holds it, also if the log is gone
    #[arg(long, value_name = "LABEL", conflicts_with = "follow")]
    snapshot: Option<OsString>,
    /// Wait for more at the end of the log
    #[arg(long)]
    follow: bool,
    /// Of a keyed log: the newest message of each key, in the order of the keys
    #[arg(long, conflicts_with_all = ["follow", "from", "skip_damaged", "deleted"])]
    latest: bool,
    /// Only keys that begin so
    #[arg(long, value_name = "K", requires = "latest")]
    prefix: Option<OsString>,
    /// Print the key and a tab before the value of each message that has a key
    #[arg(long, conflicts_with = "json")]
    keys: bool,
    /// What stands between key and value, in place of a tab
    #[arg(long, value_name = "C", value_parser = parse_delimiter, requires = "keys", default_value = "\\t")]
    key_delimiter: u8,
    /// End each message with a NUL byte and not with a newline
    #[arg(long, conflicts_with = "json")]
    null: bool,
    /// Leave out damaged messages, name them on standard error, and exit with 1
    #[arg(long)]
    skip_damaged: bool,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
    /// Show where messages were deleted
    #[arg(long, requires = "json", conflicts_with = "follow")]
    deleted: bool,
}

pub(crate) fn run(call: &ReadCall, output: &mut Output) -> Result<Outcome, Problem> {
    let name = log_name(&call.log)?;
    let store = Options::new().read_only(true).open_copying(&call.store)?;
    if call.latest {
        return latest(call, snapshot_of(call, &store, name)?, output);
    }
    let (cursor, values) = if call.follow {
        let log = store.log(name)?;
        let cursor = log.cursor(call.from.unwrap_or_else(|| log.start().get()))?;
        (cursor, Values::Log(log))
    } else {
        let snapshot = snapshot_of(call, &store, name)?;
        let cursor = snapshot.cursor(call.from.unwrap_or_else(|| snapshot.start().get()))?;
        (cursor, Values::Snapshot(snapshot))
    };
    let mut reading = Reading {
        call,
        cursor,
        values,
        left: call.count.unwrap_or(u64::MAX),
        outcome: Outcome::Well,
    };
    reading.all(output)?;
    Ok(reading.outcome)
}

fn snapshot_of(call: &ReadCall, store: &Store, name: &str) -> Result<Snapshot, Problem> {
    Ok(match &call.snapshot {
        Some(label) => store.named_snapshot(log_name(label)?, name)?,
        None => store.snapshot(name)?,
    })
}

/// Prints the newest message of each key.
fn latest(call: &ReadCall, snapshot: Snapshot, output: &mut Output) -> Result<Outcome, Problem> {
    let prefix = call.prefix.as_deref().unwrap_or_default().as_encoded_bytes();
    let mut cursor = snapshot.cursor(snapshot.start())?;
    let count = usize::try_from(call.count.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
    let found = snapshot.scan_prefix(prefix)?.take(count);
    let values = Values::Snapshot(snapshot);
    let mut outcome = Outcome::Well;
    for found in found {
        let message = cursor.get(found?.offset())?;
        match values.of(&message) {
            Ok(large) => print(call, &message, large, output)?,
            Err(error @ Error::ValueCut { .. }) => {
                complain(&error);
                outcome = Outcome::Found;
            }
            Err(error) => return Err(error.into()),
        }
        message.check()?;
    }
    Ok(outcome)
}

/// Prints one message of a snapshot: as an object, or its value and a newline.
pub(crate) fn print_one(
    snapshot: Snapshot,
    offset: Offset,
    json: bool,
    output: &mut Output,
) -> Result<(), Problem> {
    let mut cursor = snapshot.cursor(snapshot.start())?;
    let values = Values::Snapshot(snapshot);
    let message = cursor.get(offset)?;
    let large = values.of(&message)?;
    if json {
        print_json(&message, large.as_ref(), output)?;
    } else {
        print_value(&message, large, output)?;
        output.bytes(b"\n")?;
    }
    message.check()?;
    Ok(())
}

/// Where values that are kept in parts are read.
enum Values {
    Log(Log),
    Snapshot(Snapshot),
}

impl Values {
    /// The value of a message, if it is kept in parts.
    #[inline]
    fn of(&self, message: &Message<'_>) -> lanterman::Result<Option<ValueReader>> {
        if message.value_type() != ValueType::BY_REFERENCE {
            return Ok(None);
        }
        let offset = message.offset();
        let opened = match self {
            Values::Log(log) => log.read_value(offset),
            Values::Snapshot(snapshot) => snapshot.read_value(offset),
        };
        opened.map(Some)
    }
}

struct Reading<'a> {
    call: &'a ReadCall,
    cursor: Cursor,
    values: Values,
    left: u64,
    outcome: Outcome,
}

impl Reading<'_> {
    fn all(&mut self, output: &mut Output) -> Result<(), Problem> {
        while self.left > 0 {
            let next = match self.call.deleted {
                true => self.cursor.next_item(),
                false => self.cursor.next().map(|message| message.map(LogItem::Message)),
            };
            match next {
                Ok(Some(LogItem::Message(message))) => {
                    match self.values.of(&message) {
                        Ok(large) => print(self.call, &message, large, output)?,
                        Err(error) => self.skip(error)?,
                    }
                    self.left -= 1;
                }
                Ok(Some(LogItem::Deleted(run))) => output.json(&JsonRun {
                    offset: run.start,
                    deleted: run.end - run.start,
                })?,
                // Nothing else is shown yet.
                Ok(Some(_)) => {}
                Ok(None) if !self.call.follow => break,
                Ok(None) => self.wait(output)?,
                Err(error) => self.skip(error)?,
            }
        }
        Ok(())
    }

    /// At the end for now: hands over what was read, and waits for more.
    fn wait(&mut self, output: &mut Output) -> Result<(), Problem> {
        if !output.is_flushed() {
            output.flush()?;
        }
        match self.cursor.next_within(FOLLOW_TURN) {
            Ok(Some(message)) => {
                match self.values.of(&message) {
                    Ok(large) => print(self.call, &message, large, output)?,
                    Err(error) => self.skip(error)?,
                }
                self.left -= 1;
                Ok(())
            }
            Ok(None) if is_output_closed() => Err(Problem::PipeClosed),
            Ok(None) => Ok(()),
            Err(error) => self.skip(error),
        }
    }

    /// Goes on behind damaged messages, if that is asked for and it is known where they end.
    fn skip(&mut self, error: Error) -> Result<(), Problem> {
        // The rest of a value that was deleted in part: the cursor is behind it.
        if let Error::ValueCut { .. } = &error {
            complain(&error);
            self.outcome = Outcome::Found;
            return Ok(());
        }
        let behind = match &error {
            Error::Damaged(damage) if self.call.skip_damaged => self.behind(damage),
            _ => None,
        };
        let Some(behind) = behind else {
            return Err(error.into());
        };
        complain(&error);
        self.outcome = Outcome::Found;
        self.cursor.seek(behind)?;
        Ok(())
    }

    fn behind(&self, damage: &Damage) -> Option<u64> {
        let lost = damage.offsets.clone()?;
        (lost.end > self.cursor.offset().get()).then_some(lost.end)
    }
}

#[inline]
fn print(
    call: &ReadCall,
    message: &Message<'_>,
    large: Option<ValueReader>,
    output: &mut Output,
) -> Result<(), Problem> {
    if call.json {
        return print_json(message, large.as_ref(), output);
    }
    if call.keys
        && let Some(key) = message.key()
    {
        output.bytes(key)?;
        output.bytes(&[call.key_delimiter])?;
    }
    print_value(message, large, output)?;
    output.bytes(if call.null { b"\0" } else { b"\n" })
}

fn print_json(
    message: &Message<'_>,
    large: Option<&ValueReader>,
    output: &mut Output,
) -> Result<(), Problem> {
    match large {
        Some(large) => output.json(&JsonMessage::in_parts(message, large)),
        None => output.json(&JsonMessage::new(message)),
    }
}

#[inline]
fn print_value(
    message: &Message<'_>,
    large: Option<ValueReader>,
    output: &mut Output,
) -> Result<(), Problem> {
    let Some(mut large) = large else {
        return output.bytes(message.value());
    };
    while let Some(part) = large.next_part()? {
        output.bytes(&part)?;
        check_bytes(&part)?;
    }
    Ok(())
}

/// Whether the other end of a pipe on standard output is gone, which a writer would learn only by writing.
fn is_output_closed() -> bool {
    let stdout = std::io::stdout();
    let mut asked = [PollFd::new(&stdout, PollFlags::empty())];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let answered = poll(&mut asked, Some(&now)).is_ok_and(|count| count > 0);
    let gone = PollFlags::ERR | PollFlags::NVAL;
    answered && asked.iter().any(|asked| asked.revents().intersects(gone))
}

#[derive(Serialize)]
struct JsonRun {
    offset: u64,
    deleted: u64,
}

/// A message as an object.
struct JsonMessage<'a> {
    message: &'a Message<'a>,
    value_type: ValueType,
    /// Length of a value that is not shown.
    value_bytes: Option<u64>,
}

impl<'a> JsonMessage<'a> {
    fn new(message: &'a Message<'a>) -> Self {
        JsonMessage {
            message,
            value_type: message.value_type(),
            value_bytes: None,
        }
    }

    fn in_parts(message: &'a Message<'a>, large: &ValueReader) -> Self {
        JsonMessage {
            message,
            value_type: large.value_type(),
            value_bytes: Some(large.value_bytes()),
        }
    }
}

impl Serialize for JsonMessage<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        let message = self.message;
        map.serialize_entry("offset", &message.offset().get())?;
        match self.value_bytes {
            Some(bytes) => map.serialize_entry("value_bytes", &bytes)?,
            None => bytes_entry(&mut map, "value", "value_hex", message.value())?,
        }
        map.serialize_entry("type", &TypeName(self.value_type))?;
        if let Some(key) = message.key() {
            bytes_entry(&mut map, "key", "key_hex", key)?;
        }
        if let Some(time_ms) = message.time_ms() {
            map.serialize_entry("time_ms", &time_ms)?;
        }
        if message.headers().next().is_some() {
            map.serialize_entry("headers", &JsonHeaders(message))?;
        }
        map.end()
    }
}

struct TypeName(ValueType);

impl Serialize for TypeName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

struct JsonHeaders<'a>(&'a Message<'a>);

impl Serialize for JsonHeaders<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(None)?;
        for (name, value) in self.0.headers() {
            list.serialize_element(&JsonHeader { name, value })?;
        }
        list.end()
    }
}

struct JsonHeader<'a> {
    name: &'a [u8],
    value: &'a [u8],
}

impl Serialize for JsonHeader<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        bytes_entry(&mut map, "name", "name_hex", self.name)?;
        bytes_entry(&mut map, "value", "value_hex", self.value)?;
        map.end()
    }
}

/// Text under one name, other bytes under another.
fn bytes_entry<M: SerializeMap>(
    map: &mut M,
    text: &'static str,
    hex: &'static str,
    bytes: &[u8],
) -> Result<(), M::Error> {
    match std::str::from_utf8(bytes) {
        Ok(string) => map.serialize_entry(text, string),
        Err(_) => map.serialize_entry(hex, &Hex(bytes)),
    }
}
