//! What each kind of rule costs a message.

use std::time::Instant;

use lanterman::{Constraints, NewMessage, Store, ValueType};

use crate::Outcome;
use crate::context::{Context, remove};
use crate::table::Sample;

const LOG: &str = "events";
/// What all rules below let in.
const VALUE: &str =
    r#"{"id": 1234567, "name": "a value of about a hundred bytes", "amount": 12.5, "tags": ["a", "b"]}"#;
const WITHOUT: &str = "the same without a rule";

/// A row and what its rule requires.
const RULES: [(&str, &str); 7] = [
    ("append judged by size", r#"{"value_bytes": {"max": 1000}}"#),
    ("append judged by type", r#"{"value_types": ["json"]}"#),
    (
        "append judged by rate",
        r#"{"rate": {"messages": 1000000000, "per_ms": 1000}}"#,
    ),
    (
        "append judged by unique key",
        r#"{"unique_key": {"within_messages": 100000}}"#,
    ),
    ("append judged by a rising time", r#"{"rising": "time"}"#),
    (
        "append judged by JSON Schema",
        r#"{"json_schema": {"type": "object", "required": ["id"], "properties": {"id": {"type": "integer", "minimum": 0},
            "name": {"type": "string", "maxLength": 100}, "tags": {"type": "array", "items": {"type": "string"}}}}}"#,
    ),
    (
        "append judged by CEL",
        r#"{"cel": "json.id > 0 && json.amount < 100.0 && json.tags.exists(tag, tag == 'a')"}"#,
    ),
];

/// Nanoseconds for each of `count` appends.
fn append_ns(store: &Store, count: u64) -> Outcome<f64> {
    let mut writer = store.writer(LOG)?;
    let start = Instant::now();
    for number in 0..count {
        let key = number.to_le_bytes();
        let time_ms = i64::try_from(number)?;
        let message = NewMessage::new(VALUE.as_bytes())
            .value_type(ValueType::JSON)
            .key(&key)
            .time_ms(time_ms);
        writer.append_message(&message)?;
    }
    Ok(start.elapsed().as_secs_f64() * 1e9 / count as f64)
}

pub(super) fn rules(context: &mut Context) -> Outcome<Vec<Sample>> {
    let count: u64 = context.pick(100_000, 10_000);
    let mut samples = Vec::new();
    for (row, require) in RULES {
        let mut times = [0.0; 2];
        for (constrained, time) in [false, true].into_iter().zip(&mut times) {
            let path = context.path("constrain");
            let store = context.open(&path)?;
            store.create_log(LOG)?;
            if constrained {
                let document = format!(r#"{{"rules": [{{"name": "a rule", "require": {require}}}]}}"#);
                store.set_constraints(LOG, Some(&Constraints::from_json(&document)?))?;
            }
            *time = append_ns(&store, count)?;
            store.close()?;
            remove(&path)?;
        }
        let [without, with] = times;
        samples.push(Sample::cost(row, "ns", with, without, WITHOUT));
    }
    Ok(samples)
}
