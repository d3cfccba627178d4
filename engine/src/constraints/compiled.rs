//! Rules as they are applied.

use std::cell::OnceCell;
use std::fmt::{self, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use lanterman_format::buffer::{BufferFields, ValueType};
use lanterman_format::ids::Offset;
use lanterman_format::large_value::LargeValue;
use lanterman_format::name::LogName;
use lanterman_format::weakened;
use parking_lot::Mutex;

use super::Refusal;
use super::document::{Bounds, Document, OnViolation, Requirement, Rule, TypeName};
#[cfg(feature = "cel")]
use super::expression::Expression;
#[cfg(feature = "json-schema")]
use super::schema::Schema;
use super::state::{Bucket, Keys, Level, Memory, Undo};
use crate::error::Violation;

/// Types by the names that tools show them with.
const TYPE_NAMES: [(&str, ValueType); 7] = [
    ("bytes", ValueType::BYTES),
    ("utf8", ValueType::UTF8),
    ("nil", ValueType::NIL),
    ("batch", ValueType::BATCH),
    ("json", ValueType::JSON),
    ("cbor", ValueType::CBOR),
    ("messagepack", ValueType::MESSAGE_PACK),
];

/// A message that somebody wants to append, or did.
pub(crate) struct Candidate<'a> {
    pub(crate) fields: &'a BufferFields<'a>,
    pub(crate) offset: u64,
    json: OnceCell<Result<serde_json::Value, Broken>>,
}

impl<'a> Candidate<'a> {
    pub(crate) fn new(fields: &'a BufferFields<'a>, offset: u64) -> Self {
        Candidate {
            fields,
            offset,
            json: OnceCell::new(),
        }
    }

    /// Type and length of a value that is kept in parts.
    fn large(&self) -> Option<(ValueType, u64)> {
        let is_large = self.fields.value_type == ValueType::BY_REFERENCE;
        is_large
            .then(|| LargeValue::decode_head(self.fields.value).ok())
            .flatten()
    }

    fn value_type(&self) -> ValueType {
        self.large().map_or(self.fields.value_type, |large| large.0)
    }

    fn value_bytes(&self) -> u64 {
        self.large()
            .map_or(self.fields.value.len() as u64, |large| large.1)
    }

    /// The value as JSON, if it can be.
    pub(super) fn json(&self) -> Result<&serde_json::Value, Broken> {
        let parsed = self.json.get_or_init(|| {
            let value_type = self.fields.value_type;
            if ![ValueType::JSON, ValueType::UTF8, ValueType::BYTES].contains(&value_type) {
                return Err(Broken::new("value", "JSON", value_type));
            }
            serde_json::from_slice(self.fields.value)
                .map_err(|error| Broken::new("value", "JSON", format_args!("none: {error}")))
        });
        parsed.as_ref().map_err(Clone::clone)
    }
}

/// How one requirement is not met.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Broken {
    pub(crate) place: String,
    pub(crate) expected: String,
    pub(crate) found: String,
}

/// Long values are told by their beginning.
const FOUND_CHARACTERS_MAX: usize = 200;

impl Broken {
    pub(super) fn new(place: impl Into<String>, expected: impl ToString, found: impl fmt::Display) -> Self {
        let mut beginning = Beginning::default();
        // It fails where it is long enough.
        if write!(beginning, "{found}").is_err() {
            beginning.text.push_str("...");
        }
        Broken {
            place: place.into(),
            expected: expected.to_string(),
            found: beginning.text,
        }
    }
}

/// What is shown of a value, without writing all of one that is large.
#[derive(Default)]
struct Beginning {
    text: String,
    characters: usize,
}

impl fmt::Write for Beginning {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        for character in more.chars() {
            if self.characters >= FOUND_CHARACTERS_MAX {
                return Err(fmt::Error);
            }
            self.characters = self.characters.saturating_add(1);
            self.text.push(character);
        }
        Ok(())
    }
}

impl Broken {
    /// The violation that it is.
    pub(crate) fn of(self, log: &LogName, rule: String, index: u64, offset: u64) -> Violation {
        Violation {
            log: log.as_str().to_owned(),
            rule,
            index,
            offset: Offset::new(offset),
            place: self.place,
            expected: self.expected,
            found: self.found,
        }
    }
}

/// A requirement that is ready.
#[derive(Debug)]
enum Check {
    ValueBytes(Bounds),
    KeyBytes(Bounds),
    Key,
    ValueTypes(Vec<ValueType>),
    Headers(Vec<String>),
    Rate,
    Rising(String),
    UniqueKey,
    #[cfg(feature = "json-schema")]
    Schema(Box<Schema>),
    #[cfg(feature = "cel")]
    Cel(Box<Expression>),
}

#[derive(Debug)]
struct CompiledRule {
    name: String,
    check: Check,
    require: Requirement,
    on_violation: OnViolation,
}

/// The rules of one log, ready, with what they remember.
#[derive(Debug)]
pub(crate) struct Compiled {
    rules: Vec<CompiledRule>,
    memories: Mutex<Memories>,
}

#[derive(Debug)]
struct Memories {
    each: Vec<Memory>,
    /// Whether they have been filled from the log.
    is_filled: bool,
}

/// What became of a message that was judged.
pub(crate) enum Judgement {
    /// It may come in. Its changes of the memory of the rules are made, and can be taken back.
    Taken {
        noted: Noted,
        warnings: Vec<(String, Broken)>,
    },
    /// It may not; `divert` says where it goes.
    Refused {
        rule: String,
        broken: Broken,
        divert: Option<String>,
    },
}

/// What a message changed in the memory of the rules.
#[derive(Debug, Default)]
pub(crate) struct Noted(Vec<(usize, Undo)>);

impl Compiled {
    pub(super) fn new(document: &Document) -> Result<Self, Refusal> {
        let rules: Vec<CompiledRule> = document.rules.iter().map(compile).collect::<Result<_, _>>()?;
        let each = rules
            .iter()
            .map(|rule| rule.fresh_memory(Duration::ZERO))
            .collect();
        Ok(Compiled {
            rules,
            memories: Mutex::new(Memories {
                each,
                is_filled: false,
            }),
        })
    }

    /// Judges a message, and notes it where it may come in. Whoever asks holds the gate of the log.
    pub(crate) fn judge(&self, candidate: &Candidate<'_>, now: Duration) -> Judgement {
        let mut memories = self.memories.lock();
        let mut warnings = Vec::new();
        for (rule, memory) in self.rules.iter().zip(&mut memories.each) {
            let Err(broken) = rule.look(candidate, memory, now) else {
                continue;
            };
            let divert = match &rule.on_violation {
                OnViolation::Warn => {
                    warnings.push((rule.name.clone(), broken));
                    continue;
                }
                OnViolation::Refuse => None,
                OnViolation::Divert(log) => Some(log.clone()),
            };
            return Judgement::Refused {
                rule: rule.name.clone(),
                broken,
                divert,
            };
        }
        let noted = self.note(candidate, &mut memories);
        Judgement::Taken { noted, warnings }
    }

    fn note(&self, candidate: &Candidate<'_>, memories: &mut Memories) -> Noted {
        let mut noted = Noted::default();
        for (number, (rule, memory)) in self.rules.iter().zip(&mut memories.each).enumerate() {
            if let Some(undo) = rule.note(candidate, memory) {
                noted.0.push((number, undo));
            }
        }
        noted
    }

    /// Takes back what was noted, the last first.
    pub(crate) fn take_back(&self, noted: Vec<Noted>) {
        if weakened!("judged-never-taken-back") {
            return;
        }
        let mut memories = self.memories.lock();
        for (number, undo) in noted.into_iter().rev().flat_map(|noted| noted.0) {
            if let Some(memory) = memories.each.get_mut(number) {
                memory.take_back(undo);
            }
        }
    }

    /// How many of the newest offsets the memory of the rules goes back, where it must be filled from the log.
    pub(crate) fn memory_messages(&self) -> u64 {
        /// A field that rises is in every message since its rule was made: but for those before, and deleted ones.
        const RISING_MESSAGES: u64 = 10_000;
        let needed = self.rules.iter().map(|rule| match &rule.require {
            Requirement::Rising(_) => RISING_MESSAGES,
            Requirement::UniqueKey(window) => window.within_messages,
            _ => 0,
        });
        needed.max().unwrap_or(0)
    }

    /// Fills the memory of the rules by `replay`, which hands over the newest messages, once.
    pub(crate) fn fill_once<E>(
        &self,
        now: Duration,
        replay: impl FnOnce(&mut dyn FnMut(&Candidate<'_>)) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut memories = self.memories.lock();
        if memories.is_filled {
            return Ok(());
        }
        memories.each = self.rules.iter().map(|rule| rule.fresh_memory(now)).collect();
        replay(&mut |candidate| {
            for (rule, memory) in self.rules.iter().zip(&mut memories.each) {
                if !matches!(rule.check, Check::Rate) {
                    let _kept = rule.note(candidate, memory);
                }
            }
        })?;
        memories.is_filled = true;
        Ok(())
    }

    /// Judges a message of a log as if it came now; rules about time are left out. All that it breaks is told.
    pub(crate) fn review(&self, candidate: &Candidate<'_>) -> Vec<(String, Broken)> {
        let mut memories = self.memories.lock();
        let mut found = Vec::new();
        for (rule, memory) in self.rules.iter().zip(&mut memories.each) {
            if matches!(rule.check, Check::Rate) {
                continue;
            }
            if let Err(broken) = rule.look(candidate, memory, Duration::ZERO) {
                found.push((rule.name.clone(), broken));
            }
            let _kept = rule.note(candidate, memory);
        }
        found
    }
}

fn compile(rule: &Rule) -> Result<CompiledRule, Refusal> {
    let check = match &rule.require {
        Requirement::ValueBytes(bounds) => Check::ValueBytes(*bounds),
        Requirement::KeyBytes(bounds) => Check::KeyBytes(*bounds),
        Requirement::Key => Check::Key,
        Requirement::ValueTypes(types) => {
            let types = types.iter().map(|name| type_of(rule, name));
            Check::ValueTypes(types.collect::<Result<_, _>>()?)
        }
        Requirement::Headers(names) => Check::Headers(names.clone()),
        Requirement::Rate(_) => Check::Rate,
        Requirement::Rising(field) => Check::Rising(field.clone()),
        Requirement::UniqueKey(_) => Check::UniqueKey,
        #[cfg(feature = "json-schema")]
        Requirement::JsonSchema(schema) => Check::Schema(Box::new(Schema::new(rule, schema)?)),
        #[cfg(not(feature = "json-schema"))]
        Requirement::JsonSchema(_) => {
            return rule.refuse("require.json_schema", "this program is built without JSON Schema");
        }
        #[cfg(feature = "cel")]
        Requirement::Cel(source) => Check::Cel(Box::new(Expression::new(rule, source)?)),
        #[cfg(not(feature = "cel"))]
        Requirement::Cel(_) => return rule.refuse("require.cel", "this program is built without CEL"),
    };
    Ok(CompiledRule {
        name: rule.name.clone(),
        check,
        require: rule.require.clone(),
        on_violation: rule.on_violation.clone(),
    })
}

fn type_of(rule: &Rule, name: &TypeName) -> Result<ValueType, Refusal> {
    match name {
        TypeName::Number(number) => {
            let value_type = ValueType::new(*number);
            match value_type.is_valid() && value_type != ValueType::TOMBSTONES {
                true => Ok(value_type),
                false => rule.refuse("require.value_types", format!("no value has the type {number}")),
            }
        }
        TypeName::Name(name) => match TYPE_NAMES.iter().find(|(known, _)| known == name) {
            Some((_, value_type)) => Ok(*value_type),
            None => {
                let known: Vec<&str> = TYPE_NAMES.iter().map(|(known, _)| *known).collect();
                let reason = format!("{name:?} is no type: a number, or one of {}", known.join(", "));
                rule.refuse("require.value_types", reason)
            }
        },
    }
}

fn within(bounds: Bounds, place: &str, bytes: u64) -> Result<(), Broken> {
    let (min, max) = (bounds.min.unwrap_or(0), bounds.max.unwrap_or(u64::MAX));
    if (min..=max).contains(&bytes) {
        return Ok(());
    }
    let expected = match (bounds.min, bounds.max) {
        (Some(min), Some(max)) => format!("{min} to {max} bytes"),
        (None, Some(max)) => format!("at most {max} bytes"),
        _ => format!("at least {min} bytes"),
    };
    Err(Broken::new(place, expected, format_args!("{bytes}")))
}

impl CompiledRule {
    fn fresh_memory(&self, now: Duration) -> Memory {
        match &self.require {
            Requirement::Rate(rate) => Memory::Rate(Bucket::new(rate.messages, rate.per_ms, now)),
            Requirement::Rising(_) => Memory::Rising(None),
            Requirement::UniqueKey(window) => Memory::Unique(Keys::new(window.within_messages)),
            _ => Memory::None,
        }
    }

    /// Whether a message meets the requirement. What others wrote may panic; then it does not.
    fn look(&self, candidate: &Candidate<'_>, memory: &mut Memory, now: Duration) -> Result<(), Broken> {
        let looked = catch_unwind(AssertUnwindSafe(|| self.look_unguarded(candidate, memory, now)));
        looked.unwrap_or_else(|_| {
            Err(Broken::new(
                "value",
                "a rule that can be applied",
                "a panic in it",
            ))
        })
    }

    fn look_unguarded(
        &self,
        candidate: &Candidate<'_>,
        memory: &mut Memory,
        now: Duration,
    ) -> Result<(), Broken> {
        let fields = candidate.fields;
        match (&self.check, memory) {
            (Check::ValueBytes(bounds), _) => within(*bounds, "value", candidate.value_bytes()),
            (Check::KeyBytes(bounds), _) => match fields.key {
                Some(key) => within(*bounds, "key", key.len() as u64),
                None => Ok(()),
            },
            (Check::Key, _) => match fields.key {
                Some(_) => Ok(()),
                None => Err(Broken::new("key", "a key", "none")),
            },
            (Check::ValueTypes(types), _) => match types.contains(&candidate.value_type()) {
                true => Ok(()),
                false => {
                    let names: Vec<String> = types.iter().map(ToString::to_string).collect();
                    Err(Broken::new("value", names.join(" or "), fields.value_type))
                }
            },
            (Check::Headers(names), _) => {
                let has = |name: &String| fields.headers.iter().any(|(known, _)| *known == name.as_bytes());
                match names.iter().find(|name| !has(name)) {
                    None => Ok(()),
                    Some(name) => Err(Broken::new(
                        "headers",
                        format_args!("{name:?}"),
                        "none of that name",
                    )),
                }
            }
            (Check::Rate, Memory::Rate(bucket)) => match bucket.has_one(now) {
                true => Ok(()),
                false => Err(Broken::new("rate", self.rate(), "one more")),
            },
            (Check::Rising(field), Memory::Rising(before)) => {
                let level = level_of(candidate, field)?;
                match before.as_ref().map(|before| (level.is_above(before), before)) {
                    None | Some((Some(true), _)) => Ok(()),
                    Some((_, before)) => {
                        let expected = format_args!("more than {before}").to_string();
                        Err(Broken::new(place_of(field), expected, level))
                    }
                }
            }
            (Check::UniqueKey, Memory::Unique(keys)) => {
                let found = fields.key.and_then(|key| keys.find(key, candidate.offset));
                match found {
                    None => Ok(()),
                    Some(offset) => {
                        let found = format_args!("the key of offset {offset}").to_string();
                        Err(Broken::new("key", "a key that is new", found))
                    }
                }
            }
            #[cfg(feature = "json-schema")]
            (Check::Schema(schema), _) => schema.look(candidate),
            #[cfg(feature = "cel")]
            (Check::Cel(expression), _) => expression.look(candidate),
            _ => Ok(()),
        }
    }

    fn rate(&self) -> String {
        match &self.require {
            Requirement::Rate(rate) => format!("at most {} messages in {} ms", rate.messages, rate.per_ms),
            _ => String::new(),
        }
    }

    /// Remembers a message that came in.
    fn note(&self, candidate: &Candidate<'_>, memory: &mut Memory) -> Option<Undo> {
        match (&self.check, memory) {
            (Check::Rate, Memory::Rate(bucket)) => {
                bucket.take_one();
                Some(Undo::Rate(1.0))
            }
            (Check::Rising(field), Memory::Rising(before)) => {
                let level = level_of(candidate, field).ok()?;
                let is_above = before
                    .as_ref()
                    .is_none_or(|before| level.is_above(before) == Some(true));
                is_above.then(|| Undo::Rising(before.replace(level)))
            }
            (Check::UniqueKey, Memory::Unique(keys)) => {
                let put = keys.put(candidate.fields.key?, candidate.offset);
                Some(Undo::Unique(put))
            }
            _ => None,
        }
    }
}

fn place_of(field: &str) -> String {
    match field {
        "time" => "time".to_owned(),
        "" => "value".to_owned(),
        pointer => format!("value at {pointer}"),
    }
}

/// The field that must rise.
fn level_of(candidate: &Candidate<'_>, field: &str) -> Result<Level, Broken> {
    if field == "time" {
        let time_ms = candidate.fields.time_ms;
        return time_ms
            .map(|time_ms| Level::Number(time_ms.into()))
            .ok_or_else(|| Broken::new("time", "a time of its own", "none"));
    }
    match candidate.json()?.pointer(field) {
        Some(serde_json::Value::Number(number)) => Ok(Level::Number(number.clone())),
        Some(serde_json::Value::String(text)) => Ok(Level::Text(text.clone())),
        Some(other) => Err(Broken::new(place_of(field), "a number or a text", other)),
        None => Err(Broken::new(place_of(field), "a number or a text", "nothing")),
    }
}
