//! Expressions in CEL, the Common Expression Language: no loops, no calls of anything outside, and here a limit on cost.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, LazyLock};

use cel::objects::{Key, Map};
use cel::{Context, Env, Program, Value};
use lanterman_format::buffer::ValueType;

use super::compiled::{Broken, Candidate};
use super::document::Rule;
use super::expression_cost::Shape;
use super::{Refusal, STEPS_MAX};

const SOURCE_BYTES_MAX: usize = 4096;
/// What the library has without its extensions; operators are functions too, with other names.
const FUNCTIONS: [&str; 13] = [
    "bool",
    "bytes",
    "contains",
    "double",
    "dyn",
    "endsWith",
    "int",
    "matches",
    "size",
    "startsWith",
    "string",
    "type",
    "uint",
];
const VARIABLES: [&str; 7] = ["value", "json", "key", "headers", "time", "offset", "type"];

/// A compiled expression.
pub(super) struct Expression {
    source: String,
    program: Program,
    shape: Shape,
    /// What it asks for.
    wants: BTreeSet<&'static str>,
}

impl std::fmt::Debug for Expression {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Expression")
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

impl Expression {
    pub(super) fn new(rule: &Rule, source: &str) -> Result<Self, Refusal> {
        if source.len() > SOURCE_BYTES_MAX {
            return rule.refuse("require.cel", "an expression has at most 4096 bytes");
        }
        let program = match Program::compile(source) {
            Ok(program) => program,
            Err(errors) => {
                let first = errors.errors.first();
                let place = first.map_or_else(
                    || "require.cel".to_owned(),
                    |error| format!("require.cel, line {}, column {}", error.pos.0, error.pos.1),
                );
                let reason = first.map_or_else(|| errors.to_string(), |error| error.msg.clone());
                return rule.refuse(&place, reason);
            }
        };
        let shape = Shape::of(rule, program.expression())?;
        let wants = {
            let references = program.references();
            let names = references.variables();
            let unknown = names
                .iter()
                .find(|name| !VARIABLES.contains(name) && !shape.bound.contains(**name));
            if let Some(unknown) = unknown {
                let reason = format!("there is no {unknown:?}, only {}", VARIABLES.join(", "));
                return rule.refuse("require.cel", reason);
            }
            let wanted = |name: &&&'static str| names.contains(&**name);
            VARIABLES.iter().filter(wanted).copied().collect()
        };
        let unknown = {
            let references = program.references();
            let names = references.functions();
            let is_known = |name: &str| FUNCTIONS.contains(&name) || !name.chars().all(char::is_alphanumeric);
            names
                .iter()
                .find(|name| !is_known(name))
                .map(|name| (*name).to_owned())
        };
        if let Some(unknown) = unknown {
            let reason = format!("there is no function {unknown:?}, only {}", FUNCTIONS.join(", "));
            return rule.refuse("require.cel", reason);
        }
        Ok(Expression {
            source: source.to_owned(),
            shape,
            wants,
            program,
        })
    }

    pub(super) fn look(&self, candidate: &Candidate<'_>) -> Result<(), Broken> {
        let fields = candidate.fields;
        /// Making it takes a hundred times as long as a small expression.
        static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));
        let mut context = Context::with_env(Arc::clone(&ENVIRONMENT));
        let mut elements = self.source.len() as u64;
        for name in &self.wants {
            let value = match *name {
                "value" => match fields.value_type {
                    ValueType::JSON => from_json(candidate.json()?),
                    ValueType::UTF8 => text_or_bytes(fields.value),
                    ValueType::BY_REFERENCE => {
                        return Err(Broken::new("value", "a value of one piece", fields.value_type));
                    }
                    _ => Value::Bytes(Arc::new(fields.value.to_vec())),
                },
                "json" => from_json(candidate.json()?),
                "key" => fields.key.map_or(Value::Null, text_or_bytes),
                "headers" => {
                    let entry = |(name, value): &(&[u8], &[u8])| {
                        let name = Arc::new(String::from_utf8_lossy(name).into_owned());
                        (Key::String(name), text_or_bytes(value))
                    };
                    let map: HashMap<Key, Value> = fields.headers.iter().map(entry).collect();
                    Value::Map(Map { map: Arc::new(map) })
                }
                "time" => fields.time_ms.map_or(Value::Null, Value::Int),
                "offset" => number(candidate.offset),
                _ => number(fields.value_type.get()),
            };
            elements = elements.saturating_add(count(&value));
            context.add_variable_from_value(*name, value);
        }
        let steps = self.shape.steps(elements);
        if steps > STEPS_MAX {
            let found = format!("{steps} steps, for {elements} elements");
            let expected = format!("an expression that costs at most {STEPS_MAX} steps");
            return Err(Broken::new("value", expected, found));
        }
        match self.program.execute(&context) {
            Ok(Value::Bool(true)) => Ok(()),
            Ok(other) => Err(Broken::new(
                "message",
                format_args!("{} to be true", self.source),
                format_args!("{other:?}"),
            )),
            Err(error) => Err(Broken::new(
                "message",
                format_args!("{} to be true", self.source),
                format_args!("an error: {error}"),
            )),
        }
    }
}

fn number(number: u64) -> Value {
    i64::try_from(number).map_or(Value::UInt(number), Value::Int)
}

fn text_or_bytes(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => Value::String(Arc::new(text.to_owned())),
        Err(_) => Value::Bytes(Arc::new(bytes.to_vec())),
    }
}

/// Whole numbers are of the signed type of CEL, as in its literals, so that both can be compared and added.
fn from_json(json: &serde_json::Value) -> Value {
    match json {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(whether) => Value::Bool(*whether),
        serde_json::Value::Number(found) => match (found.as_i64(), found.as_u64()) {
            (Some(signed), _) => Value::Int(signed),
            (None, Some(unsigned)) => Value::UInt(unsigned),
            (None, None) => Value::Float(found.as_f64().unwrap_or(f64::NAN)),
        },
        serde_json::Value::String(text) => Value::String(Arc::new(text.clone())),
        serde_json::Value::Array(list) => Value::List(Arc::new(list.iter().map(from_json).collect())),
        serde_json::Value::Object(object) => {
            let entry = |(name, value): (&String, &serde_json::Value)| {
                (Key::String(Arc::new(name.clone())), from_json(value))
            };
            let map: HashMap<Key, Value> = object.iter().map(entry).collect();
            Value::Map(Map { map: Arc::new(map) })
        }
    }
}

/// Elements of a value; long texts count by their length.
fn count(value: &Value) -> u64 {
    const BYTES_PER_ELEMENT: usize = 64;
    let of_bytes = |bytes: usize| (bytes / BYTES_PER_ELEMENT) as u64;
    let more = match value {
        Value::List(list) => list.iter().map(count).fold(0, u64::saturating_add),
        Value::Map(map) => map.map.values().map(count).fold(0, u64::saturating_add),
        Value::String(text) => of_bytes(text.len()),
        Value::Bytes(bytes) => of_bytes(bytes.len()),
        _ => 0,
    };
    more.saturating_add(1)
}
