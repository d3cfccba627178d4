//! Constraints as people write them: a JSON document, strict about what it does not know.

use serde::{Deserialize, Serialize};

use super::Refusal;

/// Rules of one log at most; each is looked at with each message.
pub(super) const RULES_MAX: usize = 64;
const NAME_BYTES_MAX: usize = 100;
/// A window of unique keys is kept in memory, at about 40 bytes a message.
pub(super) const WINDOW_MESSAGES_MAX: u64 = 1_000_000;
const RATE_INTERVAL_MS_MAX: u64 = 24 * 60 * 60 * 1000;

/// The whole document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Document {
    pub(super) rules: Vec<Rule>,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rule {
    pub(super) name: String,
    pub(super) require: Requirement,
    #[serde(default, skip_serializing_if = "OnViolation::is_default")]
    pub(super) on_violation: OnViolation,
}

/// What a message must be like.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Requirement {
    /// The value has so many bytes.
    ValueBytes(Bounds),
    /// The key, if there is one, has so many bytes.
    KeyBytes(Bounds),
    /// There is a key.
    Key,
    /// The value has one of these types: names as the tools show them, or numbers.
    ValueTypes(Vec<TypeName>),
    /// There are headers of these names.
    Headers(Vec<String>),
    /// No more messages than that come in a time.
    Rate(Rate),
    /// A field of the value, or `"time"`, is greater than that of the message before.
    Rising(String),
    /// No message of the window before has the same key.
    UniqueKey(Window),
    /// The value is JSON that fits a schema.
    JsonSchema(serde_json::Value),
    /// An expression in CEL is true.
    Cel(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Bounds {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) min: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) max: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum TypeName {
    Number(u64),
    Name(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rate {
    pub(super) messages: u64,
    pub(super) per_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Window {
    pub(super) within_messages: u64,
}

/// What becomes of a message that breaks a rule.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum OnViolation {
    /// It is refused.
    #[default]
    Refuse,
    /// It is taken, and the process is told.
    Warn,
    /// It goes to the log of this name.
    Divert(String),
}

impl OnViolation {
    fn is_default(&self) -> bool {
        *self == Self::Refuse
    }
}

impl Document {
    /// Reads a document; says where one is wrong.
    pub(super) fn parse(text: &str) -> Result<Self, Refusal> {
        let document: Self = serde_json::from_str(text).map_err(|error| Refusal {
            rule: None,
            place: format!("line {}, column {}", error.line(), error.column()),
            reason: error.to_string(),
        })?;
        document.check()?;
        Ok(document)
    }

    fn check(&self) -> Result<(), Refusal> {
        let refuse = |place: String, reason: &str| {
            Err(Refusal {
                rule: None,
                place,
                reason: reason.to_owned(),
            })
        };
        if self.rules.is_empty() || self.rules.len() > RULES_MAX {
            return refuse("rules".to_owned(), "there must be 1 to 64 rules");
        }
        for (number, rule) in self.rules.iter().enumerate() {
            let place = format!("rules[{number}].name");
            if rule.name.is_empty() || rule.name.len() > NAME_BYTES_MAX {
                return refuse(place, "a rule has a name of 1 to 100 bytes");
            }
            if rule.name.chars().any(char::is_control) {
                return refuse(place, "a name has no control characters");
            }
            let is_taken = |other: &Rule| other.name == rule.name;
            if self.rules.iter().take(number).any(is_taken) {
                return refuse(place, "another rule has this name");
            }
            rule.check()?;
        }
        Ok(())
    }
}

impl Rule {
    pub(super) fn refuse<T>(&self, place: &str, reason: impl Into<String>) -> Result<T, Refusal> {
        Err(Refusal {
            rule: Some(self.name.clone()),
            place: place.to_owned(),
            reason: reason.into(),
        })
    }

    fn check(&self) -> Result<(), Refusal> {
        match &self.require {
            Requirement::ValueBytes(bounds) | Requirement::KeyBytes(bounds) => {
                let (min, max) = (bounds.min.unwrap_or(0), bounds.max.unwrap_or(u64::MAX));
                if min > max || (bounds.min.is_none() && bounds.max.is_none()) {
                    return self.refuse("require", "it needs min or max, and min is at most max");
                }
            }
            Requirement::ValueTypes(types) if types.is_empty() => {
                return self.refuse("require.value_types", "there must be a type");
            }
            Requirement::Headers(names) if names.is_empty() => {
                return self.refuse("require.headers", "there must be a name");
            }
            Requirement::Rate(rate) => {
                let is_sound = (1..=RATE_INTERVAL_MS_MAX).contains(&rate.per_ms)
                    && (1..=1 << 32).contains(&rate.messages);
                if !is_sound {
                    return self.refuse(
                        "require.rate",
                        "messages is 1 to 2^32, per_ms 1 to 86400000, which is a day",
                    );
                }
            }
            Requirement::Rising(field) if field != "time" && !field.is_empty() && !field.starts_with('/') => {
                return self.refuse(
                    "require.rising",
                    "it is \"time\", or a JSON pointer: \"/name\", or \"\" for the whole value",
                );
            }
            Requirement::UniqueKey(window)
                if !(1..=WINDOW_MESSAGES_MAX).contains(&window.within_messages) =>
            {
                return self.refuse("require.unique_key", "within_messages is 1 to 1000000");
            }
            _ => {}
        }
        Ok(())
    }
}
