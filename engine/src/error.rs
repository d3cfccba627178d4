//! The one public error type, its kinds, and what it says of damage.
//!
//! Every variant that speaks of a file carries its path; kinds tell a caller what to do and are stable, texts are for
//! people and may change.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lanterman_format::buffer::ValueType;
use lanterman_format::error::FormatError;
use lanterman_format::ids::{Offset, Position, SegmentId};
use lanterman_format::name::NameError;

/// What a caller can do about an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The same call may succeed later: something is busy or used up for the moment.
    Retry,
    /// The call was wrong: a name, an offset, a size, an option.
    FixTheCall,
    /// The disk is full: free space and call again; nothing was lost.
    FreeSpace,
    /// Stored bytes are damaged: restore them from elsewhere, or look at `verify` and `repair` of the tool.
    RestoreData,
    /// The store refuses to go on after a failed write or sync: close it, look at the device, open it again.
    Reopen,
    /// Stored bytes could not be read: the device failed, or another program cut a file short. Look at both, then open
    /// the store again; what the error does not name goes on meanwhile.
    CheckTheDevice,
    /// The operating system refused an operation; the source says why.
    System,
    /// An invariant of the store itself is broken: please report it.
    ReportBug,
}

/// Where stored bytes are damaged, and whose they are.
#[derive(Debug, Clone)]
pub struct Damage {
    /// File of the damaged bytes.
    pub path: PathBuf,
    /// Segment of the damaged bytes, if they are in one.
    pub segment: Option<SegmentId>,
    /// Byte of the segment or file at which the damaged structure begins.
    pub position: Position,
    /// Length of the damaged structure in bytes, as far as it is known.
    pub bytes: u64,
    /// Log whose messages are concerned, if that is known.
    pub log: Option<String>,
    /// Offsets that cannot be read, if they are known.
    pub offsets: Option<Range<u64>>,
    /// The rule of the format that the bytes break.
    pub source: FormatError,
}

/// Whose the bytes are, as far as that is known.
fn write_whose(
    formatter: &mut std::fmt::Formatter<'_>,
    log: Option<&str>,
    offsets: Option<&Range<u64>>,
) -> std::fmt::Result {
    if let Some(log) = log {
        write!(formatter, ", log {log:?}")?;
    }
    if let Some(offsets) = offsets {
        write!(formatter, ", offsets {}..{}", offsets.start, offsets.end)?;
    }
    Ok(())
}

impl std::fmt::Display for Damage {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}: position {}", self.path.display(), self.position)?;
        write_whose(formatter, self.log.as_deref(), self.offsets.as_ref())?;
        write!(formatter, ": {}", self.source)
    }
}

/// How a message breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Violation {
    /// Name of the log.
    pub log: String,
    /// Name of the rule.
    pub rule: String,
    /// Which message of a batch or of a transaction's messages to the log it was, from 0; of a log that is checked, its
    /// offset.
    pub index: u64,
    /// The offset that it would have got, or has.
    pub offset: Offset,
    /// Where in the message: `value`, `value at /a/b`, `key`, `headers`, `time`, or `rate`.
    pub place: String,
    /// What the rule requires.
    pub expected: String,
    /// What was found.
    pub found: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            log,
            rule,
            index,
            place,
            expected,
            found,
            ..
        } = self;
        write!(
            formatter,
            "message {index} breaks the rule {rule:?} of log {log:?}: {place}: expected {expected}, found {found}"
        )
    }
}

/// Which stored bytes could not be read, and whose they are.
#[derive(Debug, Clone)]
pub struct Unreadable {
    /// File of the bytes.
    pub path: PathBuf,
    /// Segment of the bytes, if they are in one.
    pub segment: Option<SegmentId>,
    /// First byte of the file that was wanted.
    pub position: Position,
    /// How many bytes were wanted.
    pub bytes: u64,
    /// Log whose messages are concerned, if that is known.
    pub log: Option<String>,
    /// Offsets that cannot be read, if they are known.
    pub offsets: Option<Range<u64>>,
    /// What the system said.
    pub source: Arc<io::Error>,
}

impl std::fmt::Display for Unreadable {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            path,
            position,
            bytes,
            ..
        } = self;
        write!(
            formatter,
            "{}: {bytes} bytes at position {position}",
            path.display()
        )?;
        write_whose(formatter, self.log.as_deref(), self.offsets.as_ref())?;
        write!(
            formatter,
            ": {}: look at the device and at the file, then open the store again",
            self.source
        )
    }
}

/// Everything that can go wrong with a store.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused an operation on a file.
    #[error("cannot {operation} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        operation: &'static str,
        /// File or directory concerned.
        path: PathBuf,
        /// The system's answer.
        source: Arc<io::Error>,
    },
    /// The disk is full. Nothing acknowledged is lost; reading goes on, and so does appending once there is room.
    #[error("no space left to {operation} {}: free some space and call again", path.display())]
    StorageFull {
        /// What was tried, as a verb.
        operation: &'static str,
        /// File or directory concerned.
        path: PathBuf,
    },
    /// A message breaks a rule of its log; nothing of the call was done.
    #[error("{0}")]
    Constraint(Box<Violation>),
    /// A message breaks a rule of its log and went where the rule says.
    #[error("{violation}; it went to log {log:?}, offset {offset}")]
    Diverted {
        /// The rule, and how it is broken.
        violation: Box<Violation>,
        /// Name of the log that has it now, with headers that name the log, the rule and the place.
        log: String,
        /// Its offset there.
        offset: Offset,
    },
    /// A value is none of the type that its message says; nothing was appended.
    #[error("not a value of {value_type} ({format}): {reason}")]
    InvalidValue {
        /// The type that it should be of.
        value_type: ValueType,
        /// Name of the format that says so.
        format: String,
        /// Why it is none.
        reason: String,
    },
    /// Constraints that cannot be understood or compiled.
    #[error("constraints are not valid{}, at {place}: {reason}", rule.as_ref().map(|rule| format!(", rule {rule:?}")).unwrap_or_default())]
    InvalidConstraints {
        /// Name of the rule, if it is one that is wrong.
        rule: Option<String>,
        /// Where in the document, or in the rule.
        place: String,
        /// Why.
        reason: String,
    },
    /// The log has constraints, and what should be taken by reference was not judged by them.
    #[error("log {name:?} has constraints: append messages to it one by one, or splice into a log without")]
    Constrained {
        /// Name of the log.
        name: String,
    },
    /// The log was edited while something was done that holds for the value it had.
    #[error("log {name:?} was edited meanwhile: try again")]
    Changed {
        /// Name of the log.
        name: String,
    },
    /// A message without a key was to be appended to a keyed log.
    #[error("log {name:?} is keyed: every message of it needs a key")]
    KeyRequired {
        /// Name of the log.
        name: String,
    },
    /// A log that is not keyed was asked for a key.
    #[error(
        "log {name:?} is not keyed, so it has no messages by key: make an empty log keyed and append to that"
    )]
    NotKeyed {
        /// Name of the log.
        name: String,
    },
    /// The log has messages, and what was asked for can be done to an empty one only.
    #[error("log {name:?} has messages, and only an empty log can {operation}")]
    NotEmpty {
        /// Name of the log.
        name: String,
        /// What was to be done.
        operation: &'static str,
    },
    /// The directory does not exist and creating it was not asked for.
    #[error("{} does not exist", path.display())]
    NoStore {
        /// Directory that was to be opened.
        path: PathBuf,
    },
    /// The directory holds other things and no store; nothing was written to it.
    #[error("{} is not a store ({found}); nothing was written to it", path.display())]
    NotAStore {
        /// Directory that was to be opened.
        path: PathBuf,
        /// What is found there instead, such as an entry that does not belong to a store.
        found: String,
    },
    /// The store was written by a newer version of the format.
    #[error("{} has format version {found_major}, this library reads up to {supported_major}: use a newer library", path.display())]
    NewerFormat {
        /// File that says so.
        path: PathBuf,
        /// Major version found.
        found_major: u64,
        /// Greatest major version that this library reads.
        supported_major: u64,
    },
    /// Another process, or another handle of this one, has the store open for writing.
    #[error("{} is open for writing elsewhere: close it there, or open it read-only", path.display())]
    Locked {
        /// The store's directory.
        path: PathBuf,
    },
    /// The store was opened read-only.
    #[error("cannot {operation}: the store was opened read-only")]
    ReadOnly {
        /// What was tried.
        operation: &'static str,
    },
    /// No log of that name exists.
    #[error("no log is named {name:?}")]
    UnknownLog {
        /// The name asked for.
        name: String,
    },
    /// A log of that name exists already.
    #[error("a log named {name:?} exists already")]
    LogExists {
        /// The name asked for.
        name: String,
    },
    /// The name is not one a log may have.
    #[error("not a log name: {0}")]
    InvalidName(#[from] NameError),
    /// The log has a writer already; there is one at a time.
    #[error("log {name:?} has a writer already: drop that one first")]
    WriterOpen {
        /// Name of the log.
        name: String,
    },
    /// A message, or a part of one, is larger than its limit.
    #[error("the {part} has {bytes} bytes, the limit is {limit_bytes}")]
    TooLarge {
        /// What is too large: message, key, headers, transaction.
        part: &'static str,
        /// Its size in bytes.
        bytes: u64,
        /// The limit in bytes.
        limit_bytes: u64,
    },
    /// A conditional append found the log at another offset.
    #[error("log {name:?} is at offset {found}, expected was {expected}")]
    OffsetMismatch {
        /// Name of the log.
        name: String,
        /// Offset that the caller expected to be given.
        expected: Offset,
        /// Offset that the next message would be given.
        found: Offset,
    },
    /// The offset is not in the log.
    #[error("offset {offset} is not in {start}..{end} of log {name:?}")]
    OutOfRange {
        /// Name of the log.
        name: String,
        /// Offset asked for.
        offset: Offset,
        /// First offset of the log.
        start: Offset,
        /// Offset behind the last message.
        end: Offset,
    },
    /// The message at the offset was deleted. Offsets are never given out again.
    #[error("offset {offset} of log {name:?} was deleted, with all of {}..{}", run.start, run.end)]
    Deleted {
        /// Name of the log.
        name: String,
        /// Offset asked for.
        offset: Offset,
        /// Deleted offsets around it; there may be more of them before and behind.
        run: Range<u64>,
    },
    /// A range of offsets is none, or reaches beyond the log.
    #[error("{first}..{end} is no range of offsets of log {name:?}, which has {start}..{log_end}: {reason}")]
    InvalidRange {
        /// Name of the log.
        name: String,
        /// First offset of the range.
        first: Offset,
        /// Offset behind the range.
        end: Offset,
        /// First offset of the log.
        start: Offset,
        /// Offset behind the log's last message.
        log_end: Offset,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A log cannot take messages of itself: which of them would be meant is not clear.
    #[error("log {name:?} cannot be put behind itself: fork it, and splice from the fork")]
    SpliceIntoItself {
        /// Name of the log.
        name: String,
    },
    /// A named snapshot with that label exists already.
    #[error("a snapshot labelled {label:?} exists already: drop it, or take another label")]
    SnapshotExists {
        /// The label asked for.
        label: String,
    },
    /// No named snapshot has that label.
    #[error("no snapshot is labelled {label:?}")]
    UnknownSnapshot {
        /// The label asked for.
        label: String,
    },
    /// The history of a log does not reach to the moment asked for.
    #[error("the history of log {name:?} does not hold that moment: {reason}")]
    NoHistory {
        /// Name of the log.
        name: String,
        /// Why it does not.
        reason: &'static str,
    },
    /// Deleted messages are still in a file, because somebody holds them.
    #[error("messages deleted from log {name:?} are not erased yet: held by {held}")]
    StillHeld {
        /// Name of the log.
        name: String,
        /// Who holds what.
        held: String,
    },
    /// There is no message at the offset, but a part of the value of a message behind it.
    #[error(
        "offset {offset} of log {name:?} has no message: it holds a part of a large value, whose message stands behind it"
    )]
    PartOfValue {
        /// Name of the log.
        name: String,
        /// Offset of the part.
        offset: Offset,
    },
    /// Some of the parts of a large value are deleted, though its message is not.
    #[error(
        "the value of message {offset} of log {name:?} is gone in part: offset {missing} was deleted; delete the message too"
    )]
    ValueCut {
        /// Name of the log.
        name: String,
        /// Offset of the message.
        offset: Offset,
        /// Offset of the first part that is gone.
        missing: Offset,
    },
    /// The value of a message was to be read from somewhere, and that failed; the message was not appended.
    #[error("the value for log {name:?} cannot be read: {source}; nothing of it stays in the log")]
    ValueSource {
        /// Name of the log.
        name: String,
        /// What went wrong.
        source: Arc<io::Error>,
    },
    /// An option has a value that the store cannot work with.
    #[error("option {option}: {reason}")]
    InvalidOption {
        /// Name of the option.
        option: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Stored bytes break a rule of the format.
    #[error("damaged: {0}")]
    Damaged(Box<Damage>),
    /// Stored bytes could not be read: the device failed, or another program cut the file short. Everything else goes on.
    #[error("cannot read {0}")]
    Unreadable(Box<Unreadable>),
    /// The memory for tails is used up, and the options say not to wait.
    #[error("the {limit_bytes} bytes of tail memory are used up: commit, or call again")]
    WouldBlock {
        /// The limit, as set in the options.
        limit_bytes: u64,
    },
    /// A write or sync failed earlier; the store acknowledges nothing more until it is opened again.
    #[error("the store takes no more commits since an earlier failure ({cause}): open it again")]
    Poisoned {
        /// The failure that poisoned it.
        cause: Arc<Error>,
    },
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
    /// A transaction was given up by its own function.
    #[error("the transaction was given up: {reason}")]
    Aborted {
        /// The reason that the function gave.
        reason: String,
    },
    /// A message of the log is being filled in place.
    #[error("a message of log {name:?} is being filled in place: publish or drop it first")]
    Reserved {
        /// Name of the log.
        name: String,
    },
    /// An invariant of the store is broken.
    #[error("internal error, please report: {what}")]
    Internal {
        /// Which invariant.
        what: &'static str,
    },
}

/// The operation of which a failure is final.
const SYNC: &str = "sync";

/// Result of the store's calls.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// What a caller can do about this error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Io { .. } => ErrorKind::System,
            Error::Unreadable(_) => ErrorKind::CheckTheDevice,
            Error::StorageFull { .. } => ErrorKind::FreeSpace,
            Error::Constraint(_)
            | Error::Diverted { .. }
            | Error::InvalidValue { .. }
            | Error::InvalidConstraints { .. }
            | Error::Constrained { .. }
            | Error::Changed { .. }
            | Error::KeyRequired { .. }
            | Error::NotKeyed { .. }
            | Error::NotEmpty { .. }
            | Error::NoStore { .. }
            | Error::NotAStore { .. }
            | Error::NewerFormat { .. }
            | Error::ReadOnly { .. }
            | Error::UnknownLog { .. }
            | Error::LogExists { .. }
            | Error::InvalidName(_)
            | Error::TooLarge { .. }
            | Error::OffsetMismatch { .. }
            | Error::OutOfRange { .. }
            | Error::Deleted { .. }
            | Error::PartOfValue { .. }
            | Error::ValueCut { .. }
            | Error::ValueSource { .. }
            | Error::InvalidRange { .. }
            | Error::SpliceIntoItself { .. }
            | Error::SnapshotExists { .. }
            | Error::UnknownSnapshot { .. }
            | Error::NoHistory { .. }
            | Error::InvalidOption { .. }
            | Error::Aborted { .. }
            | Error::Closed => ErrorKind::FixTheCall,
            Error::Locked { .. }
            | Error::WriterOpen { .. }
            | Error::StillHeld { .. }
            | Error::WouldBlock { .. }
            | Error::Reserved { .. } => ErrorKind::Retry,
            Error::Damaged(_) => ErrorKind::RestoreData,
            Error::Poisoned { .. } => ErrorKind::Reopen,
            Error::Internal { .. } => ErrorKind::ReportBug,
        }
    }

    /// Wraps a system error; a full disk or quota gets its own variant.
    pub(crate) fn io(operation: &'static str, path: &Path, source: io::Error) -> Error {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::StorageFull {
                operation,
                path: path.to_path_buf(),
            },
            _ => Error::Io {
                operation,
                path: path.to_path_buf(),
                source: Arc::new(source),
            },
        }
    }

    /// A sync that failed, for whatever reason: also a full disk leaves open what became of the bytes before it.
    pub(crate) fn failed_sync(path: &Path, source: impl Into<Arc<io::Error>>) -> Error {
        Error::Io {
            operation: SYNC,
            path: path.to_path_buf(),
            source: source.into(),
        }
    }

    /// Whether nothing is known any more of what was written before.
    pub(crate) fn is_failed_sync(&self) -> bool {
        matches!(self, Error::Io { operation: SYNC, .. })
    }

    /// The error that later calls get after this one stopped the writer.
    pub(crate) fn poisoning(self) -> Error {
        match self {
            Error::Poisoned { .. } => self,
            other => Error::Poisoned {
                cause: Arc::new(other),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_apart_from_other_system_errors() {
        let full = Error::io(
            "write",
            Path::new("x"),
            io::Error::from(io::ErrorKind::StorageFull),
        );
        assert_eq!(full.kind(), ErrorKind::FreeSpace);
        let other = Error::io(
            "write",
            Path::new("x"),
            io::Error::from(io::ErrorKind::PermissionDenied),
        );
        assert_eq!(other.kind(), ErrorKind::System);
        assert!(other.to_string().contains("cannot write x"));
    }

    #[test]
    fn what_cannot_be_read_is_named_with_its_place_its_reason_and_what_to_do() {
        let error = Error::Unreadable(Box::new(Unreadable {
            path: PathBuf::from("segments/3.slabs"),
            segment: Some(SegmentId::new(3)),
            position: Position::new(8192),
            bytes: 4096,
            log: Some("orders".to_owned()),
            offsets: Some(7..9),
            source: Arc::new(io::Error::other("reason")),
        }));
        assert_eq!(error.kind(), ErrorKind::CheckTheDevice);
        assert_eq!(
            error.to_string(),
            "cannot read segments/3.slabs: 4096 bytes at position 8192, log \"orders\", offsets 7..9: reason: \
             look at the device and at the file, then open the store again"
        );
    }

    #[test]
    fn poisoning_keeps_the_first_cause() {
        let first = Error::Internal { what: "first" }.poisoning();
        assert_eq!(first.kind(), ErrorKind::Reopen);
        assert_eq!(first.clone().poisoning().to_string(), first.to_string());
    }
}
