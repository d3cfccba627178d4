//! Changes of the catalog that travel in a commit block.

use super::{RawChange, RawCreateLog};
use crate::block::Filler;
use crate::convert::{index, narrow, part, read, wide};
use crate::error::{FormatError, Rule, Structure};
use crate::ids::LogId;
use crate::limits::{NAME_BYTES_MAX, SETTINGS_BYTES_MAX};
use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U32, U64};

const RULES: Structure = Structure::Change;
const HEADER_BYTES: usize = 8;
const FLAG_SKIPPABLE: u16 = 1;

/// Numbers of the kinds of changes.
mod kinds {
    pub(super) const CREATE_LOG: u16 = 1;
    pub(super) const DROP_LOG: u16 = 2;
    pub(super) const SET_SETTINGS: u16 = 3;
}

/// A change of the catalog.
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
    /// stub
    DeleteRange {
        /// l
        log: LogId,
        /// f
        first: crate::ids::Offset,
        /// e
        end: crate::ids::Offset,
    },
    /// stub
    Retain {
        /// l
        log: LogId,
        /// s
        start: crate::ids::Offset,
    },
    /// A log begins with the value of another one.
    Fork {
        /// Its id, never used before.
        log: LogId,
        /// The log whose value it takes.
        origin: LogId,
        /// Offset behind the last message that it takes.
        end: crate::ids::Offset,
        /// Whether it is a named snapshot, which nobody writes to.
        snapshot: bool,
        /// Its name, as found.
        name: &'a str,
        /// Its encoded settings.
        settings: &'a [u8],
    },
    /// The end of a log takes offsets of another one.
    Splice {
        /// The log that takes them.
        log: LogId,
        /// The offset that the first of them gets.
        first: crate::ids::Offset,
        /// The log that has them.
        source: LogId,
        /// The first offset there.
        source_first: crate::ids::Offset,
        /// The offset behind the last one there.
        source_end: crate::ids::Offset,
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
            Self::DeleteRange { .. } => 24,
            Self::Retain { .. } => 16,
            Self::SetSettings { settings, .. } => settings.len().saturating_add(8),
            Self::Fork { name, settings, .. } => {
                32_usize.saturating_add(name.len()).saturating_add(settings.len())
            }
            Self::Splice { .. } => 40,
            Self::Unknown { .. } => return 0,
        };
        let padded = payload.saturating_add(HEADER_BYTES).saturating_add(7) & !7;
        u32::try_from(padded).unwrap_or(u32::MAX)
    }

    pub(super) fn encode(&self, filler: &mut Filler<'_>) -> Result<(), FormatError> {
        match self {
            Self::CreateLog { log, name, settings } => {
                check_settings(settings.len())?;
                let (limit, found) = (wide(NAME_BYTES_MAX), wide(name.len()));
                RULES.require((1..=limit).contains(&found), Rule::Limit, 16, limit, found)?;
                let fixed = RawCreateLog {
                    log: U64::new(log.get()),
                    name_bytes: U16::new(u16::try_from(name.len()).unwrap_or(u16::MAX)),
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
                check_settings(settings.len())?;
                push(filler, kinds::SET_SETTINGS, &[&log.get().to_le_bytes(), settings])
            }
            Self::DeleteRange { log, first, end } => push(
                filler,
                4,
                &[
                    &log.get().to_le_bytes(),
                    &first.get().to_le_bytes(),
                    &end.get().to_le_bytes(),
                ],
            ),
            Self::Retain { log, start } => {
                push(filler, 5, &[&log.get().to_le_bytes(), &start.get().to_le_bytes()])
            }
            Self::Fork {
                log,
                origin,
                end,
                snapshot,
                name,
                settings,
            } => {
                check_settings(settings.len())?;
                push(
                    filler,
                    6,
                    &[
                        &log.get().to_le_bytes(),
                        &origin.get().to_le_bytes(),
                        &end.get().to_le_bytes(),
                        &u16::try_from(name.len()).unwrap_or(u16::MAX).to_le_bytes(),
                        &u16::from(*snapshot).to_le_bytes(),
                        &narrow(settings.len(), RULES, 20)?.to_le_bytes(),
                        name.as_bytes(),
                        settings,
                    ],
                )
            }
            Self::Splice {
                log,
                first,
                source,
                source_first,
                source_end,
            } => push(
                filler,
                9,
                &[
                    &log.get().to_le_bytes(),
                    &first.get().to_le_bytes(),
                    &source.get().to_le_bytes(),
                    &source_first.get().to_le_bytes(),
                    &source_end.get().to_le_bytes(),
                ],
            ),
            Self::Unknown { kind, .. } => Err(RULES.breaks(Rule::Kind, 0, 1, u64::from(*kind))),
        }
    }

    fn decode(kind: u16, flags: u16, payload: &'a [u8]) -> Result<Self, FormatError> {
        let skippable = flags & FLAG_SKIPPABLE != 0;
        if kind == 4 {
            let n = |i| -> Result<u64, FormatError> {
                let v: U64 = read(payload, i, RULES)?;
                Ok(v.get())
            };
            return Ok(Self::DeleteRange {
                log: LogId::new(n(0)?),
                first: crate::ids::Offset::new(n(8)?),
                end: crate::ids::Offset::new(n(16)?),
            });
        }
        if kind == 6 || kind == 9 {
            let n = |i| -> Result<u64, FormatError> {
                let v: U64 = read(payload, i, RULES)?;
                Ok(v.get())
            };
            if kind == 9 {
                return Ok(Self::Splice {
                    log: LogId::new(n(0)?),
                    first: crate::ids::Offset::new(n(8)?),
                    source: LogId::new(n(16)?),
                    source_first: crate::ids::Offset::new(n(24)?),
                    source_end: crate::ids::Offset::new(n(32)?),
                });
            }
            let name_bytes: U16 = read(payload, 24, RULES)?;
            let flags: U16 = read(payload, 26, RULES)?;
            let settings_bytes: U32 = read(payload, 28, RULES)?;
            let name_bytes = index(u32::from(name_bytes.get()));
            let name = part(payload, 32, name_bytes, RULES)?;
            let settings = part(
                payload,
                name_bytes.saturating_add(32),
                index(settings_bytes.get()),
                RULES,
            )?;
            let name = core::str::from_utf8(name).map_err(|_| RULES.breaks(Rule::Text, 24, 0, 0))?;
            return Ok(Self::Fork {
                log: LogId::new(n(0)?),
                origin: LogId::new(n(8)?),
                end: crate::ids::Offset::new(n(16)?),
                snapshot: flags.get() != 0,
                name,
                settings,
            });
        }
        if kind == 5 {
            let n = |i| -> Result<u64, FormatError> {
                let v: U64 = read(payload, i, RULES)?;
                Ok(v.get())
            };
            return Ok(Self::Retain {
                log: LogId::new(n(0)?),
                start: crate::ids::Offset::new(n(8)?),
            });
        }
        if !matches!(kind, kinds::CREATE_LOG | kinds::DROP_LOG | kinds::SET_SETTINGS) {
            RULES.require(kind != 0, Rule::Zero, 0, 1, 0)?;
            return Ok(Self::Unknown { kind, skippable });
        }
        RULES.require(flags == 0, Rule::Flags, 2, 0, u64::from(flags))?;
        let number: U64 = read(payload, 0, RULES)?;
        let log = LogId::new(number.get());
        let rest = payload.get(8..).unwrap_or_default();
        match kind {
            kinds::CREATE_LOG => decode_create(log, payload),
            kinds::DROP_LOG => {
                RULES.require(rest.is_empty(), Rule::Count, 4, 8, wide(payload.len()))?;
                Ok(Self::DropLog { log })
            }
            _ => {
                check_settings(rest.len())?;
                Ok(Self::SetSettings { log, settings: rest })
            }
        }
    }
}

fn decode_create(log: LogId, payload: &[u8]) -> Result<Change<'_>, FormatError> {
    let fixed: RawCreateLog = read(payload, 0, RULES)?;
    RULES.require(
        fixed.reserved.get() == 0,
        Rule::Reserved,
        18,
        0,
        u64::from(fixed.reserved.get()),
    )?;
    let name_bytes = index(u32::from(fixed.name_bytes.get()));
    let (limit, found) = (wide(NAME_BYTES_MAX), wide(name_bytes));
    RULES.require((1..=limit).contains(&found), Rule::Limit, 16, limit, found)?;
    let settings_bytes = index(fixed.settings_bytes.get());
    check_settings(settings_bytes)?;
    let name = part(payload, 16, name_bytes, RULES)?;
    let settings_at = name_bytes.saturating_add(16);
    let settings = part(payload, settings_at, settings_bytes, RULES)?;
    let end = settings_at.saturating_add(settings_bytes);
    RULES.require(
        end == payload.len(),
        Rule::Count,
        4,
        wide(end),
        wide(payload.len()),
    )?;
    let name = core::str::from_utf8(name)
        .map_err(|error| RULES.breaks(Rule::Text, wide(error.valid_up_to()).saturating_add(24), 0, 0))?;
    Ok(Change::CreateLog { log, name, settings })
}

fn check_settings(bytes: usize) -> Result<(), FormatError> {
    let limit = u64::from(SETTINGS_BYTES_MAX);
    RULES.require(wide(bytes) <= limit, Rule::Limit, 20, limit, wide(bytes))
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
