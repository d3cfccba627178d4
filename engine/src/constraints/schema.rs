//! Values that fit a schema.

use jsonschema::{PatternOptions, Validator};

use super::compiled::{Broken, Candidate};
use super::document::Rule;
use super::schema_cost::{SchemaCost, TooCostly};
use super::{Refusal, STEPS_MAX};

/// Where a value is wrong is looked for within so many steps, since to tell it costs more than to judge.
const STEPS_TO_TELL_MAX: u64 = 100_000;

/// A compiled schema.
#[derive(Debug)]
pub(super) struct Schema {
    validator: Validator,
    cost: SchemaCost,
}

impl Schema {
    /// Compiles a schema. Its patterns are those of the crate `regex`, which take linear time; nothing is loaded from
    /// elsewhere.
    pub(super) fn new(rule: &Rule, schema: &serde_json::Value) -> Result<Self, Refusal> {
        let cost = SchemaCost::of(rule, schema)?;
        let built = jsonschema::options()
            .with_pattern_options(PatternOptions::regex())
            .build(schema);
        match built {
            Ok(validator) => Ok(Schema { validator, cost }),
            Err(error) => {
                let place = format!("require.json_schema{}", error.instance_path());
                rule.refuse(&place, error.to_string())
            }
        }
    }

    pub(super) fn look(&self, candidate: &Candidate<'_>) -> Result<(), Broken> {
        let value = candidate.json()?;
        let allowed = self.cost.allows(value, candidate.fields.value.len());
        allowed.map_err(|TooCostly| {
            let expected = format!("a value that the schema judges in at most {STEPS_MAX} steps");
            Broken::new(
                "value",
                expected,
                "one that takes more, or leads too deep into the schema",
            )
        })?;
        if self.validator.is_valid(value) {
            return Ok(());
        }
        let is_cheap = self
            .cost
            .steps(value)
            .is_ok_and(|steps| steps <= STEPS_TO_TELL_MAX);
        if is_cheap && let Err(error) = self.validator.validate(value) {
            let place = match error.instance_path().to_string() {
                root if root.is_empty() => "value".to_owned(),
                pointer => format!("value at {pointer}"),
            };
            let expected = format!("what the schema says at {}", error.schema_path());
            return Err(Broken::new(place, expected, error));
        }
        let found = format!("something else; to tell where takes more than {STEPS_TO_TELL_MAX} steps");
        Err(Broken::new("value", "what the schema says", found))
    }
}
