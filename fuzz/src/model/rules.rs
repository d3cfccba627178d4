//! The rules of the model: a few sets of constraints, and what each rule says of a message, found out without the engine.

use std::collections::BTreeMap;

use lanterman::{Constraints, ValueType, Violation};
use serde_json::Value;

use super::NAMES;
use super::expected::Expected;

/// What becomes of a message that breaks a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OnBreach {
    Refuse,
    Warn,
    Divert,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Check {
    ValueBytesMax(usize),
    KeyBytesMax(usize),
    Key,
    Types(&'static [ValueType]),
    RisingTime,
    RisingField,
    UniqueKey(u64),
    /// The field `n`, which must be there in an object, is so large at most.
    FieldMax(i64),
    /// It has a key, or is text, or its offset is no multiple of three.
    Expression,
}

#[derive(Debug)]
pub(super) struct Rule {
    name: &'static str,
    /// What it requires, in JSON.
    require: &'static str,
    check: Check,
    on_breach: OnBreach,
}

const fn rule(name: &'static str, require: &'static str, check: Check, on_breach: OnBreach) -> Rule {
    Rule {
        name,
        require,
        check,
        on_breach,
    }
}

/// What logs may demand.
pub(super) const SETS: [&[Rule]; 8] = [
    &[rule(
        "small",
        r#"{"value_bytes": {"max": 200}}"#,
        Check::ValueBytesMax(200),
        OnBreach::Refuse,
    )],
    &[rule(
        "typed",
        r#"{"value_types": ["json", "utf8", "nil"]}"#,
        Check::Types(&[ValueType::JSON, ValueType::UTF8, ValueType::NIL]),
        OnBreach::Divert,
    )],
    &[
        rule(
            "short",
            r#"{"key_bytes": {"max": 12}}"#,
            Check::KeyBytesMax(12),
            OnBreach::Warn,
        ),
        rule("keyed", r#""key""#, Check::Key, OnBreach::Refuse),
    ],
    &[rule(
        "in order",
        r#"{"rising": "time"}"#,
        Check::RisingTime,
        OnBreach::Refuse,
    )],
    &[rule(
        "once",
        r#"{"unique_key": {"within_messages": 12}}"#,
        Check::UniqueKey(12),
        OnBreach::Divert,
    )],
    &[
        rule(
            "shaped",
            r#"{"json_schema": {"required": ["n"], "properties": {"n": {"type": "integer", "maximum": 4000}}}}"#,
            Check::FieldMax(4000),
            OnBreach::Refuse,
        ),
        rule(
            "counted",
            r#"{"rising": "/n"}"#,
            Check::RisingField,
            OnBreach::Divert,
        ),
    ],
    &[rule(
        "told",
        r#"{"cel": "key != null || type == 2 || offset % 3 != 0"}"#,
        Check::Expression,
        OnBreach::Refuse,
    )],
    &[
        rule(
            "small",
            r#"{"value_bytes": {"max": 200}}"#,
            Check::ValueBytesMax(200),
            OnBreach::Warn,
        ),
        rule(
            "once",
            r#"{"unique_key": {"within_messages": 5}}"#,
            Check::UniqueKey(5),
            OnBreach::Refuse,
        ),
        rule(
            "in order",
            r#"{"rising": "time"}"#,
            Check::RisingTime,
            OnBreach::Divert,
        ),
    ],
];

/// The log that rules of a log send messages to.
pub(super) fn dead_letters_of(number: usize) -> usize {
    (number + 1) % NAMES.len()
}

/// Whether any of the rules sends messages to another log.
pub(super) fn any_diverts(rules: &[Rule]) -> bool {
    rules.iter().any(|rule| rule.on_breach == OnBreach::Divert)
}

/// A set of rules, as the log `number` may have them.
pub(super) fn constraints(set: usize, number: usize) -> Constraints {
    let dead = Value::from(NAMES[dead_letters_of(number)]).to_string();
    let rules: Vec<String> = SETS[set]
        .iter()
        .map(|rule| {
            let on_breach = match rule.on_breach {
                OnBreach::Refuse => "\"refuse\"".to_owned(),
                OnBreach::Warn => "\"warn\"".to_owned(),
                OnBreach::Divert => format!("{{\"divert\": {dead}}}"),
            };
            let name = Value::from(rule.name);
            format!(
                "{{\"name\": {name}, \"require\": {}, \"on_violation\": {on_breach}}}",
                rule.require
            )
        })
        .collect();
    let document = format!("{{\"rules\": [{}]}}", rules.join(", "));
    Constraints::from_json(&document).unwrap_or_else(|error| panic!("{document}: {error}"))
}

/// How a message breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Breach {
    pub(super) rule: &'static str,
    pub(super) place: &'static str,
    /// Which of the messages of the call for its log it is.
    pub(super) index: u64,
    /// The offset that it would have got.
    pub(super) offset: u64,
    pub(super) is_diverted: bool,
}

impl Breach {
    pub(super) fn check(&self, number: usize, found: &Violation) {
        let told = (
            found.log.as_str(),
            found.rule.as_str(),
            found.place.as_str(),
            found.index,
            found.offset.get(),
        );
        let wanted = (NAMES[number], self.rule, self.place, self.index, self.offset);
        assert!(told == wanted, "wanted {wanted:?}, and it says {told:?}: {found}");
    }
}

/// What rules remember of the messages before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Memory {
    time: Option<i64>,
    field: Option<i64>,
    /// The newest offset of each key.
    keys: BTreeMap<Vec<u8>, u64>,
}

impl Memory {
    pub(super) fn note(&mut self, rules: &[Rule], message: &Expected, offset: u64) {
        for rule in rules {
            let rise = |level: &mut Option<i64>, to: Option<i64>| {
                if to > *level {
                    *level = to;
                }
            };
            match rule.check {
                Check::RisingTime => rise(&mut self.time, message.time_ms),
                Check::RisingField => rise(&mut self.field, field_of(message).ok()),
                Check::UniqueKey(within) => {
                    self.keys.retain(|_, known| offset - *known <= within);
                    if let Some(key) = &message.key {
                        self.keys.insert(key.clone(), offset);
                    }
                }
                _ => {}
            }
        }
    }
}

/// How many of the newest offsets are looked at when rules are asked for the first time.
pub(super) fn offsets_recalled(rules: &[Rule]) -> u64 {
    let recalled = rules.iter().map(|rule| match rule.check {
        Check::RisingTime | Check::RisingField => 10_000,
        Check::UniqueKey(within) => within,
        _ => 0,
    });
    recalled.max().unwrap_or(0)
}

/// What the first rule says that a message breaks, those that only warn left out: its name, the place in the message, and
/// whether the message goes to another log.
pub(super) fn broken_by(
    rules: &[Rule],
    memory: &Memory,
    message: &Expected,
    offset: u64,
) -> Option<(&'static str, &'static str, bool)> {
    rules
        .iter()
        .filter(|rule| rule.on_breach != OnBreach::Warn)
        .find_map(|rule| {
            let place = broken_place(rule.check, memory, message, offset)?;
            Some((rule.name, place, rule.on_breach == OnBreach::Divert))
        })
}

fn broken_place(check: Check, memory: &Memory, message: &Expected, offset: u64) -> Option<&'static str> {
    let key = message.key.as_ref();
    let broken = |is_broken: bool, place| is_broken.then_some(place);
    match check {
        Check::ValueBytesMax(most) => broken(message.value.len() > most, "value"),
        Check::KeyBytesMax(most) => broken(key.is_some_and(|key| key.len() > most), "key"),
        Check::Key => broken(key.is_none(), "key"),
        Check::Types(types) => broken(!types.contains(&message.value_type), "value"),
        Check::RisingTime => {
            let is_above = message.time_ms.is_some() && message.time_ms > memory.time;
            broken(!is_above, "time")
        }
        Check::RisingField => match field_of(message) {
            Err(place) => Some(place),
            Ok(field) => broken(Some(field) <= memory.field, "value at /n"),
        },
        Check::UniqueKey(within) => {
            let known = key.and_then(|key| memory.keys.get(key));
            broken(known.is_some_and(|known| offset - known <= within), "key")
        }
        Check::FieldMax(most) => match json_of(message) {
            None => Some("value"),
            Some(Value::Object(fields)) => match fields.get("n").map(Value::as_i64) {
                None => Some("value"),
                Some(field) => broken(field.is_none_or(|field| field > most), "value at /n"),
            },
            Some(_) => None,
        },
        Check::Expression => {
            let holds = key.is_some() || message.value_type == ValueType::UTF8 || !offset.is_multiple_of(3);
            broken(!holds, "message")
        }
    }
}

fn json_of(message: &Expected) -> Option<Value> {
    let may_be = [ValueType::JSON, ValueType::UTF8, ValueType::BYTES].contains(&message.value_type);
    may_be
        .then(|| serde_json::from_slice(&message.value).ok())
        .flatten()
}

/// The field that rises, or the place where there is none.
fn field_of(message: &Expected) -> Result<i64, &'static str> {
    let json = json_of(message).ok_or("value")?;
    json.pointer("/n").and_then(Value::as_i64).ok_or("value at /n")
}
