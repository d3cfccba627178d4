//! What is set of a log.

use crate::error::{FormatError, Rule, Structure};

/// How much of a log is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Greatest age in milliseconds.
    pub max_age_ms: Option<u64>,
    /// Most bytes of keys and values.
    pub max_value_bytes: Option<u64>,
    /// Most messages.
    pub max_messages: Option<u64>,
}

/// What is told of a named snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotSettings {
    /// Its label.
    pub label: String,
    /// The version that it holds.
    pub version: crate::ids::Version,
    /// When it was made, in milliseconds since 1970.
    pub time_ms: i64,
    /// Whether the store made it by itself.
    pub automatic: bool,
}

/// What is set of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// How much of it is kept.
    pub retention: Retention,
    /// What is told of a named snapshot.
    pub snapshot: Option<SnapshotSettings>,
}

impl Settings {
    /// Encodes.
    ///
    /// # Errors
    /// none
    pub fn encode(&self) -> Result<Vec<u8>, FormatError> {
        let mut out = Vec::new();
        for limit in [
            self.retention.max_age_ms,
            self.retention.max_value_bytes,
            self.retention.max_messages,
        ] {
            out.push(u8::from(limit.is_some()));
            out.extend_from_slice(&limit.unwrap_or(0).to_le_bytes());
        }
        if let Some(snapshot) = &self.snapshot {
            out.push(u8::from(snapshot.automatic));
            out.extend_from_slice(&snapshot.version.get().to_le_bytes());
            out.extend_from_slice(&snapshot.time_ms.to_le_bytes());
            out.extend_from_slice(snapshot.label.as_bytes());
        }
        if *self == Self::default() {
            out.clear();
        }
        Ok(out)
    }

    /// Decodes.
    ///
    /// # Errors
    /// rules
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let broken = || Structure::Change.breaks(Rule::Bounds, 0, 0, 0);
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        let number = |at: usize| -> Result<[u8; 8], FormatError> {
            let part = bytes.get(at..at.saturating_add(8)).ok_or_else(broken)?;
            part.try_into().map_err(|_| broken())
        };
        let limit = |at: usize| -> Result<Option<u64>, FormatError> {
            let is_set = *bytes.get(at).ok_or_else(broken)? != 0;
            Ok(is_set.then_some(u64::from_le_bytes(number(at.saturating_add(1))?)))
        };
        let retention = Retention {
            max_age_ms: limit(0)?,
            max_value_bytes: limit(9)?,
            max_messages: limit(18)?,
        };
        let snapshot = if bytes.len() > 27 {
            Some(SnapshotSettings {
                automatic: bytes.get(27) == Some(&1),
                version: crate::ids::Version::new(u64::from_le_bytes(number(28)?)),
                time_ms: i64::from_le_bytes(number(36)?),
                label: String::from_utf8(bytes.get(44..).unwrap_or_default().to_vec())
                    .map_err(|_| broken())?,
            })
        } else {
            None
        };
        Ok(Self { retention, snapshot })
    }
}
