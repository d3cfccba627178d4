//! The settings of a log: a list of type, length and value, by rising type.
//!
//! Invariants: what a program does not know and may pass over stays as it was, byte for byte, through reading and writing;
//! what encodes is what decodes, so a list has one encoded form. No settings at all are no bytes at all.

use crate::block::BlockKind;
use crate::compressed_batch::Codec;
use crate::convert::{index, narrow, part, read, wide};
use crate::error::{FormatError, Rule, Structure};
use crate::ids::Version;
use crate::key_page::FILTER_BLOCKS_PER_PAGE;
use crate::limits::{COMPRESSED_BATCH_BYTES_MAX, SETTINGS_BYTES_MAX};
use crate::name::LogName;
use crate::reference::{RawReference, Reference};
use zerocopy::little_endian::{I64, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes};

const RULES: Structure = Structure::Settings;
const HEADER_BYTES: usize = size_of::<RawSetting>();
const FLAG_SKIPPABLE: u16 = 1;

const KIND_RETENTION: u16 = 1;
const KIND_SNAPSHOT: u16 = 2;
const KIND_CONSTRAINTS: u16 = 3;
const KIND_KEYED: u16 = 4;
const KIND_KEY_RUNS: u16 = 5;
const KIND_COMPRESSION: u16 = 6;
/// Kinds that this program knows end with it.
const KIND_LAST: u16 = KIND_COMPRESSION;

const LIMIT_AGE: u32 = 1;
const LIMIT_VALUE_BYTES: u32 = 2;
const LIMIT_MESSAGES: u32 = 4;
const LIMITS: u32 = LIMIT_AGE | LIMIT_VALUE_BYTES | LIMIT_MESSAGES;

const SNAPSHOT_FLAG_AUTOMATIC: u32 = 1;

wire_struct! {
    struct RawSetting is "SettingHeader", 8 bytes {
        0 kind: U16,
        2 flags: U16,
        4 bytes: U32,
    }
}

wire_struct! {
    struct RawRetention is "RetentionSetting", 32 bytes {
        0 limits: U32,
        4 reserved_4: U32,
        8 max_age_ms: U64,
        16 max_value_bytes: U64,
        24 max_messages: U64,
    }
}

wire_struct! {
    struct RawSnapshot is "SnapshotSetting", 24 bytes {
        0 version: U64,
        8 time_ms: I64,
        16 flags: U32,
        20 label_bytes: U32,
    }
}

wire_struct! {
    struct RawConstraints is "ConstraintsSetting", 16 bytes {
        0 version: U64,
        8 document_bytes: U32,
        12 reserved_12: U32,
    }
}

wire_struct! {
    struct RawKeyed is "KeyedSetting", 16 bytes {
        0 space_amplification_percent: U32,
        4 reserved_4: U32,
        8 marker_grace_ms: U64,
    }
}

wire_struct! {
    struct RawCompression is "CompressionSetting", 8 bytes {
        0 codec: u8,
        1 level: u8,
        2 reserved_2: U16,
        4 batch_bytes: U32,
    }
}

wire_struct! {
    struct RawKeyRun is "KeyRun", 144 bytes {
        0 base: U64,
        8 first: U64,
        16 end: U64,
        24 entries: U64,
        32 stored_bytes: U64,
        40 superseded_bytes: U64,
        48 page_count: U64,
        56 leaf_count: U64,
        64 root_page: U64,
        72 filter_page: U64,
        80 filter_blocks: U64,
        88 level: U32,
        92 reserved_92: U32,
        96 tree: RawReference,
    }
}

/// What a log keeps without being asked. Without a limit it keeps everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Retention {
    /// Messages that are older go.
    pub max_age_ms: Option<u64>,
    /// The oldest messages go until the values of the others have no more bytes.
    pub max_value_bytes: Option<u64>,
    /// The oldest messages go until there are no more of the others.
    pub max_messages: Option<u64>,
}

impl Retention {
    /// Whether nothing goes.
    pub const fn is_unlimited(&self) -> bool {
        self.max_age_ms.is_none() && self.max_value_bytes.is_none() && self.max_messages.is_none()
    }

    fn to_raw(self) -> RawRetention {
        let limit = |value: Option<u64>, bit: u32| if value.is_some() { bit } else { 0 };
        let limits = limit(self.max_age_ms, LIMIT_AGE)
            | limit(self.max_value_bytes, LIMIT_VALUE_BYTES)
            | limit(self.max_messages, LIMIT_MESSAGES);
        let number = |value: Option<u64>| U64::new(value.unwrap_or_default());
        RawRetention {
            limits: U32::new(limits),
            reserved_4: U32::ZERO,
            max_age_ms: number(self.max_age_ms),
            max_value_bytes: number(self.max_value_bytes),
            max_messages: number(self.max_messages),
        }
    }

    fn decode(payload: &[u8], at: u64) -> Result<Self, FormatError> {
        let raw: RawRetention = whole(payload, at)?;
        let (limits, reserved) = (raw.limits.get(), u64::from(raw.reserved_4.get()));
        RULES.require(reserved == 0, Rule::Reserved, at, 0, reserved)?;
        let (known, found) = (u64::from(LIMITS), u64::from(limits));
        RULES.require(limits & !LIMITS == 0, Rule::Flags, at, known, found)?;
        RULES.require(limits != 0, Rule::Zero, at, 1, 0)?;
        let number = |bit: u32, value: U64| {
            let value = value.get();
            let is_set = limits & bit != 0;
            RULES.require(is_set || value == 0, Rule::Reserved, at, 0, value)?;
            Ok(is_set.then_some(value))
        };
        Ok(Self {
            max_age_ms: number(LIMIT_AGE, raw.max_age_ms)?,
            max_value_bytes: number(LIMIT_VALUE_BYTES, raw.max_value_bytes)?,
            max_messages: number(LIMIT_MESSAGES, raw.max_messages)?,
        })
    }
}

/// What a named snapshot is called, and what it shows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SnapshotSettings {
    /// What it is called: as a log's name; an automatic one may have no name.
    pub label: String,
    /// The version of the store that it shows.
    pub version: Version,
    /// When it was made.
    pub time_ms: i64,
    /// Whether it was made for the history of the log, and goes when the history is long enough.
    pub automatic: bool,
}

impl SnapshotSettings {
    /// The rules that hold before writing and after reading.
    fn check(&self, at: u64) -> Result<(), FormatError> {
        let is_named = LogName::parse(&self.label).is_ok() || (self.automatic && self.label.is_empty());
        RULES.require(is_named, Rule::Text, at, 1, wide(self.label.len()))
    }

    fn to_raw(&self) -> Result<RawSnapshot, FormatError> {
        let flags = if self.automatic {
            SNAPSHOT_FLAG_AUTOMATIC
        } else {
            0
        };
        Ok(RawSnapshot {
            version: U64::new(self.version.get()),
            time_ms: I64::new(self.time_ms),
            flags: U32::new(flags),
            label_bytes: U32::new(narrow(self.label.len(), RULES, 20)?),
        })
    }

    fn decode(payload: &[u8], at: u64) -> Result<Self, FormatError> {
        let raw: RawSnapshot = read(payload, 0, RULES)?;
        let label = payload.get(size_of::<RawSnapshot>()..).unwrap_or_default();
        let (expected, found) = (wide(label.len()), u64::from(raw.label_bytes.get()));
        RULES.require(expected == found, Rule::Count, at, expected, found)?;
        let (known, flags) = (SNAPSHOT_FLAG_AUTOMATIC, raw.flags.get());
        RULES.require(
            flags & !known == 0,
            Rule::Flags,
            at,
            u64::from(known),
            u64::from(flags),
        )?;
        let text = core::str::from_utf8(label)
            .map_err(|error| RULES.breaks(Rule::Text, at, 0, wide(error.valid_up_to())))?;
        let settings = Self {
            label: text.to_owned(),
            version: Version::new(raw.version.get()),
            time_ms: raw.time_ms.get(),
            automatic: flags & SNAPSHOT_FLAG_AUTOMATIC != 0,
        };
        settings.check(at)?;
        Ok(settings)
    }
}

/// What messages must be like to come into a log.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ConstraintSettings {
    /// Rises with each change of the constraints of the log; not 0.
    pub version: u64,
    /// The rules, in JSON.
    pub document: String,
}

impl ConstraintSettings {
    /// The rules that hold before writing and after reading.
    fn check(&self, at: u64) -> Result<(), FormatError> {
        RULES.require(self.version != 0, Rule::Zero, at, 1, 0)?;
        RULES.require(!self.document.is_empty(), Rule::Text, at, 1, 0)
    }

    fn to_raw(&self) -> Result<RawConstraints, FormatError> {
        Ok(RawConstraints {
            version: U64::new(self.version),
            document_bytes: U32::new(narrow(self.document.len(), RULES, 8)?),
            reserved_12: U32::ZERO,
        })
    }

    fn decode(payload: &[u8], at: u64) -> Result<Self, FormatError> {
        let raw: RawConstraints = read(payload, 0, RULES)?;
        let document = payload.get(size_of::<RawConstraints>()..).unwrap_or_default();
        let (expected, found) = (wide(document.len()), u64::from(raw.document_bytes.get()));
        RULES.require(expected == found, Rule::Count, at, expected, found)?;
        let reserved = u64::from(raw.reserved_12.get());
        RULES.require(reserved == 0, Rule::Reserved, at, 0, reserved)?;
        let text = core::str::from_utf8(document)
            .map_err(|error| RULES.breaks(Rule::Text, at, 0, wide(error.valid_up_to())))?;
        let settings = Self {
            version: raw.version.get(),
            document: text.to_owned(),
        };
        settings.check(at)?;
        Ok(settings)
    }
}

/// That a log is keyed, and how it is compacted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyedSettings {
    /// The bytes of all messages may be so much of the bytes of the newest of each key, in percent; at least 100.
    pub space_amplification_percent: u32,
    /// For how long a delete marker is kept, in milliseconds.
    pub marker_grace_ms: u64,
}

impl KeyedSettings {
    fn to_raw(self) -> RawKeyed {
        RawKeyed {
            space_amplification_percent: U32::new(self.space_amplification_percent),
            reserved_4: U32::ZERO,
            marker_grace_ms: U64::new(self.marker_grace_ms),
        }
    }

    fn decode(payload: &[u8], at: u64) -> Result<Self, FormatError> {
        let raw: RawKeyed = whole(payload, at)?;
        let reserved = u64::from(raw.reserved_4.get());
        RULES.require(reserved == 0, Rule::Reserved, at, 0, reserved)?;
        let settings = Self {
            space_amplification_percent: raw.space_amplification_percent.get(),
            marker_grace_ms: raw.marker_grace_ms.get(),
        };
        settings.check(at)?;
        Ok(settings)
    }

    /// The rule that holds before writing and after reading.
    fn check(&self, at: u64) -> Result<(), FormatError> {
        let percent = u64::from(self.space_amplification_percent);
        RULES.require(percent >= 100, Rule::Bounds, at, 100, percent)
    }
}

/// That slabs of a log are made of compressed batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CompressionSettings {
    /// How they are compressed.
    pub codec: Codec,
    /// How much work is put into it: 1 to 19 for Zstandard, 0 for LZ4.
    pub level: u8,
    /// Bytes of buffers of which a batch is made; a longer buffer is a batch of its own.
    pub batch_bytes: u32,
}

impl CompressionSettings {
    /// The greatest level of a codec; the least is 1, and 0 where there are none.
    pub const fn level_max(codec: Codec) -> u8 {
        match codec {
            Codec::Lz4 => 0,
            Codec::Zstd => 19,
        }
    }

    fn to_raw(self) -> RawCompression {
        RawCompression {
            codec: self.codec.code(),
            level: self.level,
            reserved_2: U16::ZERO,
            batch_bytes: U32::new(self.batch_bytes),
        }
    }

    fn decode(payload: &[u8], at: u64) -> Result<Self, FormatError> {
        let raw: RawCompression = whole(payload, at)?;
        let reserved = u64::from(raw.reserved_2.get());
        RULES.require(reserved == 0, Rule::Reserved, at, 0, reserved)?;
        let unknown = RULES.breaks(Rule::Kind, at, 1, u64::from(raw.codec));
        let settings = Self {
            codec: Codec::from_code(raw.codec).ok_or(unknown)?,
            level: raw.level,
            batch_bytes: raw.batch_bytes.get(),
        };
        settings.check(at)?;
        Ok(settings)
    }

    /// The rules that hold before writing and after reading.
    fn check(&self, at: u64) -> Result<(), FormatError> {
        let most = Self::level_max(self.codec);
        let (least, level) = (most.min(1), self.level);
        let fits = (least..=most).contains(&level);
        RULES.require(fits, Rule::Bounds, at, u64::from(most), u64::from(level))?;
        let (limit, bytes) = (u64::from(COMPRESSED_BATCH_BYTES_MAX), u64::from(self.batch_bytes));
        RULES.require((1..=limit).contains(&bytes), Rule::Limit, at, limit, bytes)
    }
}

/// Where the keys of a range of a keyed log's offsets are told in their order ([`crate::key_page`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyRun {
    /// The offset of the log that its pages call 0.
    pub base: u64,
    /// The first offset that it speaks of.
    pub first: u64,
    /// The first offset behind them; greater than `first`.
    pub end: u64,
    /// How many entries its leaves have.
    pub entries: u64,
    /// Bytes that the buffers of these messages take in slabs.
    pub stored_bytes: u64,
    /// Bytes of those among them that a newer one of the run supersedes.
    pub superseded_bytes: u64,
    /// How many pages it has.
    pub page_count: u64,
    /// How many of them, at the front, are leaves.
    pub leaf_count: u64,
    /// Number of the page from which all leaves are found; below `page_count`.
    pub root_page: u64,
    /// Number of the first page of its filter.
    pub filter_page: u64,
    /// How many blocks the filter has.
    pub filter_blocks: u64,
    /// How often runs were joined for it.
    pub level: u32,
    /// The tree over the slabs that hold its pages; empty while it is in memory alone.
    pub tree: Reference,
}

impl KeyRun {
    pub(crate) fn to_raw(self) -> RawKeyRun {
        RawKeyRun {
            base: U64::new(self.base),
            first: U64::new(self.first),
            end: U64::new(self.end),
            entries: U64::new(self.entries),
            stored_bytes: U64::new(self.stored_bytes),
            superseded_bytes: U64::new(self.superseded_bytes),
            page_count: U64::new(self.page_count),
            leaf_count: U64::new(self.leaf_count),
            root_page: U64::new(self.root_page),
            filter_page: U64::new(self.filter_page),
            filter_blocks: U64::new(self.filter_blocks),
            level: U32::new(self.level),
            reserved_92: U32::ZERO,
            tree: self.tree.to_raw(),
        }
    }

    pub(crate) fn of_raw(raw: &RawKeyRun, at: u64) -> Result<Self, FormatError> {
        let reserved = u64::from(raw.reserved_92.get());
        RULES.require(reserved == 0, Rule::Reserved, at, 0, reserved)?;
        let run = Self {
            base: raw.base.get(),
            first: raw.first.get(),
            end: raw.end.get(),
            entries: raw.entries.get(),
            stored_bytes: raw.stored_bytes.get(),
            superseded_bytes: raw.superseded_bytes.get(),
            page_count: raw.page_count.get(),
            leaf_count: raw.leaf_count.get(),
            root_page: raw.root_page.get(),
            filter_page: raw.filter_page.get(),
            filter_blocks: raw.filter_blocks.get(),
            level: raw.level.get(),
            tree: Reference::from_raw_to(&raw.tree, BlockKind::Node, at)?,
        };
        run.check(at)?;
        Ok(run)
    }

    /// The rules that hold before writing and after reading.
    pub(crate) fn check(&self, at: u64) -> Result<(), FormatError> {
        RULES.require(self.first < self.end, Rule::Order, at, self.first, self.end)?;
        RULES.require(!self.tree.is_empty(), Rule::Zero, at, 1, 0)?;
        let pages = self.page_count;
        RULES.require(self.root_page < pages, Rule::Bounds, at, pages, self.root_page)?;
        RULES.require(
            (1..=pages).contains(&self.leaf_count),
            Rule::Bounds,
            at,
            pages,
            self.leaf_count,
        )?;
        let filter_end = self
            .filter_page
            .checked_add(self.filter_blocks.div_ceil(FILTER_BLOCKS_PER_PAGE));
        let fits = self.filter_blocks != 0 && filter_end.is_some_and(|end| end <= pages);
        RULES.require(fits, Rule::Bounds, at, pages, self.filter_page)
    }
}

/// The runs of a log: rising, none over another one.
fn decode_key_runs(payload: &[u8], at: u64) -> Result<Vec<KeyRun>, FormatError> {
    let each = size_of::<RawKeyRun>();
    let is_whole = !payload.is_empty() && payload.len().is_multiple_of(each);
    RULES.require(is_whole, Rule::Count, at, wide(each), wide(payload.len()))?;
    let runs: Result<Vec<_>, _> = payload
        .chunks_exact(each)
        .map(|raw| read(raw, 0, RULES).and_then(|raw| KeyRun::of_raw(&raw, at)))
        .collect();
    let runs = runs?;
    check_key_runs(&runs, at)?;
    Ok(runs)
}

fn check_key_runs(runs: &[KeyRun], at: u64) -> Result<(), FormatError> {
    let rising = runs.windows(2).all(|pair| match pair {
        [one, next] => one.end <= next.first,
        _ => true,
    });
    RULES.require(rising, Rule::Order, at, 0, 1)
}

/// The settings of one log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Settings {
    /// What the log keeps without being asked.
    pub retention: Retention,
    /// If the log is a named snapshot, what it shows.
    pub snapshot: Option<SnapshotSettings>,
    /// What messages must be like that are appended.
    pub constraints: Option<ConstraintSettings>,
    /// If the log is keyed, how.
    pub keyed: Option<KeyedSettings>,
    /// Where the keys of a keyed log are told; in pages of the catalog alone.
    pub key_runs: Vec<KeyRun>,
    /// If slabs of the log are compressed, how.
    pub compression: Option<CompressionSettings>,
    /// Settings of later versions that this program may pass over, as they stood.
    pub unknown: Vec<u8>,
}

impl Settings {
    /// The encoded settings; no bytes for the default.
    ///
    /// # Errors
    ///
    /// [`Rule::Text`] if a label is no name, [`Rule::Limit`] if all together are too long, or the rule that
    /// [`Self::unknown`] breaks.
    pub fn encode(&self) -> Result<Vec<u8>, FormatError> {
        let mut out = Vec::new();
        if !self.retention.is_unlimited() {
            push(&mut out, KIND_RETENTION, &[self.retention.to_raw().as_bytes()])?;
        }
        if let Some(snapshot) = &self.snapshot {
            snapshot.check(wide(out.len()))?;
            let fixed = snapshot.to_raw()?;
            push(
                &mut out,
                KIND_SNAPSHOT,
                &[fixed.as_bytes(), snapshot.label.as_bytes()],
            )?;
        }
        if let Some(constraints) = &self.constraints {
            constraints.check(wide(out.len()))?;
            let fixed = constraints.to_raw()?;
            push(
                &mut out,
                KIND_CONSTRAINTS,
                &[fixed.as_bytes(), constraints.document.as_bytes()],
            )?;
        }
        if let Some(keyed) = &self.keyed {
            keyed.check(wide(out.len()))?;
            push(&mut out, KIND_KEYED, &[keyed.to_raw().as_bytes()])?;
        }
        if !self.key_runs.is_empty() {
            check_key_runs(&self.key_runs, wide(out.len()))?;
            let mut payload = Vec::new();
            for run in &self.key_runs {
                run.check(wide(out.len()))?;
                payload.extend_from_slice(run.to_raw().as_bytes());
            }
            push(&mut out, KIND_KEY_RUNS, &[&payload])?;
        }
        if let Some(compression) = &self.compression {
            compression.check(wide(out.len()))?;
            push(&mut out, KIND_COMPRESSION, &[compression.to_raw().as_bytes()])?;
        }
        check_unknown(&self.unknown)?;
        out.extend_from_slice(&self.unknown);
        check_length(out.len())?;
        Ok(out)
    }

    /// Reads settings. None at all are the default.
    ///
    /// # Errors
    ///
    /// The rule that the bytes break; [`Rule::Kind`] for settings of a later version that may not be passed over.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        check_length(bytes.len())?;
        let mut settings = Self::default();
        let mut list = List::new(bytes);
        while let Some(setting) = list.next()? {
            let Setting { kind, at, .. } = setting;
            match kind {
                KIND_RETENTION => settings.retention = Retention::decode(setting.payload, at)?,
                KIND_SNAPSHOT => settings.snapshot = Some(SnapshotSettings::decode(setting.payload, at)?),
                KIND_CONSTRAINTS => {
                    settings.constraints = Some(ConstraintSettings::decode(setting.payload, at)?);
                }
                KIND_KEYED => settings.keyed = Some(KeyedSettings::decode(setting.payload, at)?),
                KIND_KEY_RUNS => settings.key_runs = decode_key_runs(setting.payload, at)?,
                KIND_COMPRESSION => {
                    settings.compression = Some(CompressionSettings::decode(setting.payload, at)?);
                }
                _ => {
                    RULES.require(setting.skippable, Rule::Kind, at, 0, u64::from(kind))?;
                    settings.unknown.extend_from_slice(setting.whole);
                    continue;
                }
            }
            // What this program knows has one form.
            RULES.require(!setting.skippable, Rule::Flags, at, 0, u64::from(FLAG_SKIPPABLE))?;
        }
        Ok(settings)
    }
}

/// What a later program wrote, and this one keeps, is a list of its own that may stand behind what is known.
fn check_unknown(bytes: &[u8]) -> Result<(), FormatError> {
    check_length(bytes.len())?;
    let mut list = List::new(bytes);
    list.least = KIND_LAST.saturating_add(1);
    while let Some(setting) = list.next()? {
        let found = u64::from(setting.kind);
        RULES.require(setting.skippable, Rule::Kind, setting.at, 0, found)?;
    }
    Ok(())
}

fn check_length(bytes: usize) -> Result<(), FormatError> {
    let (limit, found) = (u64::from(SETTINGS_BYTES_MAX), wide(bytes));
    RULES.require(found <= limit, Rule::Limit, 0, limit, found)
}

/// A payload that is one structure.
fn whole<T: FromBytes + Immutable>(payload: &[u8], at: u64) -> Result<T, FormatError> {
    let (expected, found) = (wide(size_of::<T>()), wide(payload.len()));
    RULES.require(expected == found, Rule::Count, at, expected, found)?;
    read(payload, 0, RULES)
}

fn push(out: &mut Vec<u8>, kind: u16, parts: &[&[u8]]) -> Result<(), FormatError> {
    let bytes = parts
        .iter()
        .fold(0_usize, |sum, part| sum.saturating_add(part.len()));
    let header = RawSetting {
        kind: U16::new(kind),
        flags: U16::ZERO,
        bytes: U32::new(narrow(bytes, RULES, wide(out.len()))?),
    };
    out.extend_from_slice(header.as_bytes());
    parts.iter().for_each(|part| out.extend_from_slice(part));
    out.resize(out.len().next_multiple_of(8), 0);
    Ok(())
}

/// A setting as found.
struct Setting<'a> {
    kind: u16,
    skippable: bool,
    payload: &'a [u8],
    /// With its header and its padding.
    whole: &'a [u8],
    /// Where it stands in the list.
    at: u64,
}

/// A walk over encoded settings.
struct List<'a> {
    bytes: &'a [u8],
    at: usize,
    /// The kinds rise, so that none stands there twice.
    least: u16,
}

impl<'a> List<'a> {
    const fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            at: 0,
            least: 1,
        }
    }

    fn next(&mut self) -> Result<Option<Setting<'a>>, FormatError> {
        if self.at == self.bytes.len() {
            return Ok(None);
        }
        let position = wide(self.at);
        let header: RawSetting = read(self.bytes, self.at, RULES)?;
        let (kind, flags) = (header.kind.get(), header.flags.get());
        RULES.require(kind != 0, Rule::Zero, position, 1, 0)?;
        let (least, found) = (u64::from(self.least), u64::from(kind));
        RULES.require(kind >= self.least, Rule::Order, position, least, found)?;
        let (known, found) = (u64::from(FLAG_SKIPPABLE), u64::from(flags));
        RULES.require(flags & !FLAG_SKIPPABLE == 0, Rule::Flags, position, known, found)?;
        let bytes = index(header.bytes.get());
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let payload = part(rest, HEADER_BYTES, bytes, RULES)?;
        // The payload lies in what is there, so the sum does not overflow.
        let used = bytes.saturating_add(HEADER_BYTES);
        let whole = part(rest, 0, used.next_multiple_of(8), RULES)?;
        let padding = whole.get(used..).unwrap_or_default();
        let is_clean = padding.iter().all(|byte| *byte == 0);
        RULES.require(is_clean, Rule::Reserved, position, 0, 1)?;
        self.at = self.at.saturating_add(whole.len());
        // Behind the greatest kind nothing can follow: the next one would not be greater.
        self.least = kind.saturating_add(1);
        let is_last = kind == u16::MAX;
        let end = wide(self.bytes.len());
        let at_end = wide(self.at) == end;
        RULES.require(!is_last || at_end, Rule::Order, wide(self.at), end, wide(self.at))?;
        Ok(Some(Setting {
            kind,
            skippable: flags & FLAG_SKIPPABLE != 0,
            payload,
            whole,
            at: position,
        }))
    }
}

#[cfg(test)]
mod tests;
