//! Values that fit a schema.

use jsonschema::{PatternOptions, Validator};

use super::Refusal;
use super::compiled::{Broken, Candidate};
use super::document::Rule;

/// A compiled schema.
#[derive(Debug)]
pub(super) struct Schema {
    validator: Validator,
}

impl Schema {
    /// Compiles a schema. Its patterns are those of the crate `regex`, which take linear time; nothing is loaded from
    /// elsewhere.
    pub(super) fn new(rule: &Rule, schema: &serde_json::Value) -> Result<Self, Refusal> {
        let built = jsonschema::options()
            .with_pattern_options(PatternOptions::regex())
            .build(schema);
        match built {
            Ok(validator) => Ok(Schema { validator }),
            Err(error) => {
                let place = format!("require.json_schema{}", error.instance_path());
                rule.refuse(&place, error.to_string())
            }
        }
    }

    pub(super) fn look(&self, candidate: &Candidate<'_>) -> Result<(), Broken> {
        let value = candidate.json()?;
        self.validator.validate(value).map_err(|error| {
            let place = match error.instance_path().to_string() {
                root if root.is_empty() => "value".to_owned(),
                pointer => format!("value at {pointer}"),
            };
            let expected = format!("what the schema says at {}", error.schema_path());
            Broken::new(place, expected, error)
        })
    }
}
