//! Constraints: what a message must be like to come into a log.
//!
//! They are data, a JSON document in the log's settings, compiled once when they are set or the log is first written to.
//! Each message is judged under the gate of its log, before anything of it is there.
//!
//! Invariants:
//! - a message that breaks a rule leaves nothing behind, neither in the log nor in the memory of the rules;
//! - what judges is bounded: schemas have no patterns that go back, expressions a limit on what they may cost, and a rule
//!   that panics refuses its message;
//! - rules judge what is appended. What a fork or a splice takes over was judged in its own log.

mod compiled;
mod document;
#[cfg(feature = "cel")]
mod expression;
#[cfg(feature = "cel")]
mod expression_cost;
#[cfg(feature = "json-schema")]
mod schema;
#[cfg(feature = "json-schema")]
mod schema_cost;
mod state;

pub(crate) use compiled::{Candidate, Compiled, Judgement, Noted};

use document::Document;

/// Steps that a rule may take for a message, counted before it is judged; so many take up to about a second.
#[cfg(any(feature = "cel", feature = "json-schema"))]
const STEPS_MAX: u64 = 10_000_000;

/// What a log demands of the messages that are appended to it; see [`crate::Store::set_constraints`].
///
/// A document in JSON with one to 64 rules. Each has a name, says what it requires, and what becomes of a message that
/// breaks it: `"refuse"`, which is the default, `"warn"`, or `{"divert": "name of a log"}`.
///
/// ```
/// use lanterman::Constraints;
/// let constraints = Constraints::from_json(r#"{"rules": [
///     {"name": "small", "require": {"value_bytes": {"max": 1000}}},
///     {"name": "keyed", "require": "key"},
///     {"name": "known types", "require": {"value_types": ["json", 70]}, "on_violation": "warn"},
///     {"name": "not too fast", "require": {"rate": {"messages": 1000, "per_ms": 1000}}},
///     {"name": "in order", "require": {"rising": "/sequence"}},
///     {"name": "once", "require": {"unique_key": {"within_messages": 10000}},
///      "on_violation": {"divert": "duplicates"}}
/// ]}"#)?;
/// assert_eq!(constraints.names().count(), 6);
/// # Ok::<(), lanterman::Error>(())
/// ```
///
/// | `require` | holds if |
/// |---|---|
/// | `{"value_bytes": {"min": n, "max": n}}` | the value has so many bytes; one bound is enough |
/// | `{"key_bytes": {"min": n, "max": n}}` | there is no key, or it has so many bytes |
/// | `"key"` | there is a key |
/// | `{"value_types": ["json", "utf8", 70]}` | the value has one of the types, by name or number |
/// | `{"headers": ["name"]}` | there are headers of all these names |
/// | `{"rate": {"messages": n, "per_ms": t}}` | no more come in any such time, counted since the store was opened |
/// | `{"rising": "/pointer"}`, `{"rising": "time"}` | the field of the JSON value, or the message's time, is above the one before |
/// | `{"unique_key": {"within_messages": n}}` | none of the n offsets before has the key; a message without a key passes |
/// | `{"json_schema": {...}}` | the value is JSON that fits the schema; with the feature `json-schema` |
/// | `{"cel": "expression"}` | the expression is true; with the feature `cel` |
///
/// Bytes and UTF-8 text count as JSON where a rule needs JSON and they parse. An expression in CEL has the variables
/// `value` (JSON if that is its type, text if that is, or else bytes), `json` (the value as JSON, of any of the three
/// types), `key` (text, or bytes if it is none, or null), `headers` (a map of texts), `time` (milliseconds, or null),
/// `offset` and `type` (numbers).
///
/// What a rule may cost is bounded, by counting beforehand and rather too high: a schema and an expression take at most
/// 10,000,000 steps for a message, some tenths of a second, or the message is refused. A step is a look of one schema at one
/// place of a value, or a turn of a macro (`all`, `map`, ...) over the elements of the value and of the expression
/// together; what goes over a whole text or list in each turn, as `==` of two fields, `in`, `contains` and `+` do, counts
/// its share of all elements in each. Patterns are texts in quotes. A schema or an expression that costs more for any value, or is nested
/// so deep that the stack might not hold it, is refused when it is set.
#[derive(Debug, Clone, PartialEq)]
pub struct Constraints {
    document: Document,
}

impl Constraints {
    /// Reads a document, and compiles its rules to see that they can be.
    ///
    /// # Errors
    /// [`crate::Error::InvalidConstraints`] with the rule, the place in it and the reason.
    pub fn from_json(text: &str) -> crate::Result<Self> {
        let constraints = Self::stored(text)?;
        constraints.compile()?;
        Ok(constraints)
    }

    /// Reads a document that was compiled before, perhaps by a program with more features.
    pub(crate) fn stored(text: &str) -> crate::Result<Self> {
        Ok(Constraints {
            document: Document::parse(text)?,
        })
    }

    /// The document.
    ///
    /// # Errors
    /// [`crate::Error::Internal`] if it cannot be written as JSON, which would be a mistake of the store.
    pub fn to_json(&self) -> crate::Result<String> {
        serde_json::to_string(&self.document).map_err(|_| crate::Error::Internal {
            what: "constraints can be written as JSON",
        })
    }

    /// The names of the rules.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.document.rules.iter().map(|rule| rule.name.as_str())
    }

    /// The logs that messages are diverted to.
    pub(crate) fn diverted_to(&self) -> impl Iterator<Item = &str> {
        self.document
            .rules
            .iter()
            .filter_map(|rule| match &rule.on_violation {
                document::OnViolation::Divert(log) => Some(log.as_str()),
                _ => None,
            })
    }

    pub(crate) fn compile(&self) -> crate::Result<Compiled> {
        Ok(Compiled::new(&self.document)?)
    }
}

/// Why constraints are none.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Refusal {
    pub(crate) rule: Option<String>,
    pub(crate) place: String,
    pub(crate) reason: String,
}

impl From<Refusal> for crate::Error {
    fn from(refusal: Refusal) -> Self {
        crate::Error::InvalidConstraints {
            rule: refusal.rule,
            place: refusal.place,
            reason: refusal.reason,
        }
    }
}
