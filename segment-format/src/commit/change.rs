//! Changes of the catalog and of logs that travel in a commit block.
//!
//! A change says what was asked for, not what became of it: what it does to a log follows from the log's state and from
//! the order of effects in SPEC.md. Hence a decoder checks only what holds for every log.

use super::{RawChange, RawCreateLog, RawDeleteRange, RawFork, RawReplace, RawRetain, RawSplice};
use crate::block::{BlockKind, Filler};
use crate::convert::{index, narrow, part, read, wide};
use crate::error::{FormatError, Rule, Structure};
use crate::ids::{LogId, Offset};
use crate::limits::{LOG_ID_MAX, NAME_BYTES_MAX, SETTINGS_BYTES_MAX};
use crate::reference::Reference;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes};

const RULES: Structure = Structure::Change;
const HEADER_BYTES: usize = 8;
const FLAG_SKIPPABLE: u16 = 1;
const FORK_FLAG_SNAPSHOT: u16 = 1;

/// Numbers of the kinds of changes.
mod kinds {
    pub(super) const CREATE_LOG: u16 = 1;
    pub(super) const DROP_LOG: u16 = 2;
    pub(super) const SET_SETTINGS: u16 = 3;
    pub(super) const DELETE_RANGE: u16 = 4;
    pub(super) const RETAIN: u16 = 5;
    pub(super) const FORK: u16 = 6;
    pub(super) const SPLICE: u16 = 9;
    pub(super) const REPLACE: u16 = 10;

    pub(super) const KNOWN: [u16; 8] = [
        CREATE_LOG,
        DROP_LOG,
        SET_SETTINGS,
        DELETE_RANGE,
        RETAIN,
        FORK,
        SPLICE,
        REPLACE,
    ];
}

/// A change of the catalog or of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change<'a> {
    /// A log begins.
    CreateLog {
        /// Its id, never used before.
        log: LogId,
        /// Its name, as found: whoever uses it checks it with [`crate::LogName::parse`].
        name: &'a str,
        /// Its encoded settings.
        settings: &'a [u8],
    },
    /// A log ends.
    DropLog {
        /// Its id.
        log: LogId,
    },
    /// A log has other settings from now on.
    SetSettings {
        /// Its id.
        log: LogId,
        /// Its encoded settings.
        settings: &'a [u8],
    },
    /// Messages of a log are deleted.
    DeleteRange {
        /// Its id.
        log: LogId,
        /// The first offset that is deleted.
        first: Offset,
        /// The first offset behind them; greater than `first`.
        end: Offset,
    },
    /// A log begins later from now on: what stands before is deleted.
    Retain {
        /// Its id.
        log: LogId,
        /// The first offset that is kept, unless the log begins behind it already.
        start: Offset,
    },
    /// A log begins that shows what another one has, by reference.
    Fork {
        /// Its id, never used before.
        log: LogId,
        /// The log whose messages it shows.
        origin: LogId,
        /// The first offset of the origin that it does not show.
        end: Offset,
        /// Whether it is a named snapshot: nothing can be added to it, and its name may be that of other logs.
        snapshot: bool,
        /// Its name, as found: whoever uses it checks it with [`crate::LogName::parse`].
        name: &'a str,
        /// Its encoded settings.
        settings: &'a [u8],
    },
    /// A log goes on with what another one has, or itself, by reference.
    Splice {
        /// The log that grows.
        log: LogId,
        /// The offset that the first message gets: the log's end before.
        first: Offset,
        /// The log whose messages it shows.
        source: LogId,
        /// The first offset of the source that is shown.
        source_first: Offset,
        /// The first offset behind them; greater than `source_first`.
        source_end: Offset,
    },
    /// Messages of a log that stand in slabs stand in another one from now on, without those that newer ones with the same
    /// keys supersede.
    Replace {
        /// Its id.
        log: LogId,
        /// The first offset.
        first: Offset,
        /// The first offset behind them; greater than `first`.
        end: Offset,
        /// The slab, which has just these offsets; empty where none of the messages is left.
        slab: Reference,
    },
    /// A change of a later minor version. A reader that does not know it refuses the version, unless it may be skipped.
    Unknown {
        /// Its kind.
        kind: u16,
        /// Whether a reader that does not know it may go on as if it were not there.
        skippable: bool,
    },
}

impl<'a> Change<'a> {
    /// The bytes that the change takes in a commit block, padding included; 0 for an unknown change, which cannot be
    /// written.
    pub fn encoded_bytes(&self) -> u32 {
        let payload = match self {
            Self::CreateLog { name, settings, .. } => size_of::<RawCreateLog>()
                .saturating_add(name.len())
                .saturating_add(settings.len()),
            Self::DropLog { .. } => 8,
            Self::DeleteRange { .. } => size_of::<RawDeleteRange>(),
            Self::Retain { .. } => size_of::<RawRetain>(),
            Self::Fork { name, settings, .. } => size_of::<RawFork>()
                .saturating_add(name.len())
                .saturating_add(settings.len()),
            Self::Splice { .. } => size_of::<RawSplice>(),
            Self::Replace { .. } => size_of::<RawReplace>(),
            Self::SetSettings { settings, .. } => settings.len().saturating_add(8),
            Self::Unknown { .. } => return 0,
        };
        let padded = payload.saturating_add(HEADER_BYTES).saturating_add(7) & !7;
        u32::try_from(padded).unwrap_or(u32::MAX)
    }

    pub(super) fn encode(&self, filler: &mut Filler<'_>) -> Result<(), FormatError> {
        self.check()?;
        match *self {
            Self::CreateLog { log, name, settings } => {
                let fixed = RawCreateLog {
                    log: U64::new(log.get()),
                    name_bytes: name_length(name),
                    reserved: U16::ZERO,
                    settings_bytes: U32::new(narrow(settings.len(), RULES, 20)?),
                };
                push(
                    filler,
                    kinds::CREATE_LOG,
                    &[fixed.as_bytes(), name.as_bytes(), settings],
                )
            }
            Self::DropLog { log } => push(filler, kinds::DROP_LOG, &[&log.get().to_le_bytes()]),
            Self::SetSettings { log, settings } => {
                push(filler, kinds::SET_SETTINGS, &[&log.get().to_le_bytes(), settings])
            }
            Self::DeleteRange { log, first, end } => {
                let fixed = RawDeleteRange {
                    log: U64::new(log.get()),
                    first: U64::new(first.get()),
                    end: U64::new(end.get()),
                };
                push(filler, kinds::DELETE_RANGE, &[fixed.as_bytes()])
            }
            Self::Retain { log, start } => {
                let fixed = RawRetain {
                    log: U64::new(log.get()),
                    start: U64::new(start.get()),
                };
                push(filler, kinds::RETAIN, &[fixed.as_bytes()])
            }
            Self::Fork {
                log,
                origin,
                end,
                snapshot,
                name,
                settings,
            } => {
                let fixed = RawFork {
                    log: U64::new(log.get()),
                    origin: U64::new(origin.get()),
                    end: U64::new(end.get()),
                    name_bytes: name_length(name),
                    flags: U16::new(if snapshot { FORK_FLAG_SNAPSHOT } else { 0 }),
                    settings_bytes: U32::new(narrow(settings.len(), RULES, 36)?),
                };
                push(
                    filler,
                    kinds::FORK,
                    &[fixed.as_bytes(), name.as_bytes(), settings],
                )
            }
            Self::Splice {
                log,
                first,
                source,
                source_first,
                source_end,
            } => {
                let fixed = RawSplice {
                    log: U64::new(log.get()),
                    first: U64::new(first.get()),
                    source: U64::new(source.get()),
                    source_first: U64::new(source_first.get()),
                    source_end: U64::new(source_end.get()),
                };
                push(filler, kinds::SPLICE, &[fixed.as_bytes()])
            }
            Self::Replace {
                log,
                first,
                end,
                slab,
            } => {
                let fixed = RawReplace {
                    log: U64::new(log.get()),
                    first: U64::new(first.get()),
                    end: U64::new(end.get()),
                    slab: slab.to_raw(),
                };
                push(filler, kinds::REPLACE, &[fixed.as_bytes()])
            }
            Self::Unknown { kind, .. } => Err(RULES.breaks(Rule::Kind, 0, 1, u64::from(kind))),
        }
    }

    fn decode(kind: u16, flags: u16, payload: &'a [u8]) -> Result<Self, FormatError> {
        let skippable = flags & FLAG_SKIPPABLE != 0;
        if !kinds::KNOWN.contains(&kind) {
            RULES.require(kind != 0, Rule::Zero, 0, 1, 0)?;
            return Ok(Self::Unknown { kind, skippable });
        }
        RULES.require(flags == 0, Rule::Flags, 2, 0, u64::from(flags))?;
        let change = match kind {
            kinds::CREATE_LOG => decode_create(payload),
            kinds::DROP_LOG => whole(payload).map(|log: U64| Self::DropLog {
                log: LogId::new(log.get()),
            }),
            kinds::DELETE_RANGE => whole(payload).map(|raw: RawDeleteRange| Self::DeleteRange {
                log: LogId::new(raw.log.get()),
                first: Offset::new(raw.first.get()),
                end: Offset::new(raw.end.get()),
            }),
            kinds::RETAIN => whole(payload).map(|raw: RawRetain| Self::Retain {
                log: LogId::new(raw.log.get()),
                start: Offset::new(raw.start.get()),
            }),
            kinds::FORK => decode_fork(payload),
            kinds::SPLICE => whole(payload).map(|raw: RawSplice| Self::Splice {
                log: LogId::new(raw.log.get()),
                first: Offset::new(raw.first.get()),
                source: LogId::new(raw.source.get()),
                source_first: Offset::new(raw.source_first.get()),
                source_end: Offset::new(raw.source_end.get()),
            }),
            kinds::REPLACE => whole(payload).and_then(|raw: RawReplace| {
                Ok(Self::Replace {
                    log: LogId::new(raw.log.get()),
                    first: Offset::new(raw.first.get()),
                    end: Offset::new(raw.end.get()),
                    slab: Reference::from_raw_to(&raw.slab, BlockKind::Slab, 32)?,
                })
            }),
            _ => read(payload, 0, RULES).map(|log: U64| Self::SetSettings {
                log: LogId::new(log.get()),
                settings: payload.get(8..).unwrap_or_default(),
            }),
        }?;
        change.check()?;
        Ok(change)
    }

    /// The rules that hold before writing and after reading. Positions are from the beginning of the change.
    fn check(&self) -> Result<(), FormatError> {
        match *self {
            Self::CreateLog { log, name, settings } => {
                check_new_log(log)?;
                check_name(name, 16)?;
                check_settings(settings, 20)
            }
            Self::SetSettings { settings, .. } => check_settings(settings, 4),
            Self::DeleteRange { first, end, .. } | Self::Replace { first, end, .. } => {
                check_range(first, end, 24)
            }
            Self::Fork {
                log,
                origin,
                name,
                settings,
                ..
            } => {
                // A log begins behind its origin: no log can show itself.
                RULES.require(log > origin, Rule::Order, 16, log.get(), origin.get())?;
                check_new_log(log)?;
                check_name(name, 32)?;
                check_settings(settings, 36)
            }
            Self::Splice {
                first,
                source_first,
                source_end,
                ..
            } => {
                check_range(source_first, source_end, 40)?;
                let count = source_end.get().saturating_sub(source_first.get());
                let end = first.checked_add(count);
                RULES.require(end.is_some(), Rule::Bounds, 16, u64::MAX, first.get())
            }
            Self::DropLog { .. } | Self::Retain { .. } | Self::Unknown { .. } => Ok(()),
        }
    }
}

fn check_new_log(log: LogId) -> Result<(), FormatError> {
    RULES.require(log.get() <= LOG_ID_MAX, Rule::Bounds, 8, LOG_ID_MAX, log.get())
}

/// A payload that is one structure.
fn whole<T: FromBytes + Immutable>(payload: &[u8]) -> Result<T, FormatError> {
    let (expected, found) = (wide(size_of::<T>()), wide(payload.len()));
    RULES.require(expected == found, Rule::Count, 4, expected, found)?;
    read(payload, 0, RULES)
}

fn decode_create(payload: &[u8]) -> Result<Change<'_>, FormatError> {
    let fixed: RawCreateLog = read(payload, 0, RULES)?;
    let reserved = u64::from(fixed.reserved.get());
    RULES.require(reserved == 0, Rule::Reserved, 18, 0, reserved)?;
    let lengths = (fixed.name_bytes.get(), fixed.settings_bytes.get());
    let (name, settings) = decode_name_and_settings(payload, size_of::<RawCreateLog>(), lengths)?;
    Ok(Change::CreateLog {
        log: LogId::new(fixed.log.get()),
        name,
        settings,
    })
}

fn decode_fork(payload: &[u8]) -> Result<Change<'_>, FormatError> {
    let fixed: RawFork = read(payload, 0, RULES)?;
    let flags = fixed.flags.get();
    let known = u64::from(FORK_FLAG_SNAPSHOT);
    RULES.require(
        flags & !FORK_FLAG_SNAPSHOT == 0,
        Rule::Flags,
        34,
        known,
        u64::from(flags),
    )?;
    let lengths = (fixed.name_bytes.get(), fixed.settings_bytes.get());
    let (name, settings) = decode_name_and_settings(payload, size_of::<RawFork>(), lengths)?;
    Ok(Change::Fork {
        log: LogId::new(fixed.log.get()),
        origin: LogId::new(fixed.origin.get()),
        end: Offset::new(fixed.end.get()),
        snapshot: flags & FORK_FLAG_SNAPSHOT != 0,
        name,
        settings,
    })
}

/// What follows the `fixed` bytes of a payload and ends it. The lengths stand at the end of the fixed bytes.
fn decode_name_and_settings(
    payload: &[u8],
    fixed: usize,
    (name_bytes, settings_bytes): (u16, u32),
) -> Result<(&str, &[u8]), FormatError> {
    let lengths_at = wide(fixed);
    let (limit, found) = (wide(NAME_BYTES_MAX), u64::from(name_bytes));
    RULES.require(
        (1..=limit).contains(&found),
        Rule::Limit,
        lengths_at,
        limit,
        found,
    )?;
    let (limit, found) = (u64::from(SETTINGS_BYTES_MAX), u64::from(settings_bytes));
    RULES.require(
        found <= limit,
        Rule::Limit,
        lengths_at.saturating_add(4),
        limit,
        found,
    )?;
    let name_bytes = index(u32::from(name_bytes));
    let settings_bytes = index(settings_bytes);
    let name = part(payload, fixed, name_bytes, RULES)?;
    let settings_at = name_bytes.saturating_add(fixed);
    let settings = part(payload, settings_at, settings_bytes, RULES)?;
    let end = settings_at.saturating_add(settings_bytes);
    RULES.require(
        end == payload.len(),
        Rule::Count,
        4,
        wide(end),
        wide(payload.len()),
    )?;
    let name_at = fixed.saturating_add(HEADER_BYTES);
    let name = core::str::from_utf8(name).map_err(|error| {
        let at = name_at.saturating_add(error.valid_up_to());
        RULES.breaks(Rule::Text, wide(at), 0, 0)
    })?;
    Ok((name, settings))
}

/// The length of a name that was checked.
fn name_length(name: &str) -> U16 {
    U16::new(u16::try_from(name.len()).unwrap_or(u16::MAX))
}

fn check_name(name: &str, at: u64) -> Result<(), FormatError> {
    let (limit, found) = (wide(NAME_BYTES_MAX), wide(name.len()));
    RULES.require((1..=limit).contains(&found), Rule::Limit, at, limit, found)
}

/// A range of offsets that is not empty. No sum of its parts can overflow then.
fn check_range(first: Offset, end: Offset, at: u64) -> Result<(), FormatError> {
    let least = first.get().saturating_add(1);
    RULES.require(end > first, Rule::Order, at, least, end.get())
}

fn check_settings(settings: &[u8], at: u64) -> Result<(), FormatError> {
    let (limit, found) = (u64::from(SETTINGS_BYTES_MAX), wide(settings.len()));
    RULES.require(found <= limit, Rule::Limit, at, limit, found)
}

fn push(filler: &mut Filler<'_>, kind: u16, parts: &[&[u8]]) -> Result<(), FormatError> {
    let bytes = parts
        .iter()
        .fold(0_usize, |sum, part| sum.saturating_add(part.len()));
    let header = RawChange {
        kind: U16::new(kind),
        flags: U16::ZERO,
        bytes: U32::new(narrow(bytes, RULES, 4)?),
    };
    filler.push(header.as_bytes())?;
    parts.iter().try_for_each(|part| filler.push(part))?;
    filler.pad_to_8()
}

/// The changes of a commit block. The iteration ends behind the first error.
#[derive(Clone, Debug)]
pub struct Changes<'a> {
    bytes: &'a [u8],
}

impl<'a> Changes<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    fn take(&mut self) -> Result<Change<'a>, FormatError> {
        let header: RawChange = read(self.bytes, 0, RULES)?;
        let bytes = index(header.bytes.get());
        let payload = part(self.bytes, HEADER_BYTES, bytes, RULES)?;
        let end = bytes.saturating_add(HEADER_BYTES);
        let padded = end.saturating_add(7) & !7;
        let padding = part(self.bytes, end, padded.saturating_sub(end), RULES)?;
        RULES.require(
            padding.iter().all(|byte| *byte == 0),
            Rule::Reserved,
            wide(end),
            0,
            1,
        )?;
        self.bytes = self.bytes.get(padded..).unwrap_or_default();
        Change::decode(header.kind.get(), header.flags.get(), payload)
    }
}

impl<'a> Iterator for Changes<'a> {
    type Item = Result<Change<'a>, FormatError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.bytes.is_empty() {
            return None;
        }
        let change = self.take();
        if change.is_err() {
            self.bytes = &[];
        }
        Some(change)
    }
}
