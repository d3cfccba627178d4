//! What types of values mean: formats that a program registers with the store.
//!
//! A format is code of the program and never needed to read: whoever does not know a type gets its bytes, and whatever
//! moves messages moves them as they are.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use lanterman_format::buffer::{BufferFields, ValueType};

use crate::error::{Error, Result};

/// What values of one type are like; see [`crate::Options::value_format`].
///
/// ```
/// use lanterman::{Options, ValueFormat, ValueType};
///
/// /// A temperature in thousandths of a degree.
/// #[derive(Debug)]
/// struct Temperature;
///
/// impl ValueFormat for Temperature {
///     fn value_type(&self) -> ValueType {
///         ValueType::new(70_001)
///     }
///     fn name(&self) -> &str {
///         "temperature"
///     }
///     fn validate(&self, value: &[u8]) -> Result<(), String> {
///         match value.len() {
///             4 => Ok(()),
///             length => Err(format!("4 bytes are a temperature, not {length}")),
///         }
///     }
///     fn display(&self, value: &[u8]) -> Option<String> {
///         let thousandths = i32::from_le_bytes(value.try_into().ok()?);
///         Some(format!("{} degrees", f64::from(thousandths) / 1000.0))
///     }
/// }
/// # fn main() -> Result<(), lanterman::Error> {
/// # let directory = tempfile::tempdir().unwrap();
/// use lanterman::NewMessage;
/// let store = Options::new().value_format(Temperature).open_copying(directory.path().join("data"))?;
/// let mut writer = store.writer("outside")?;
/// let value = 21_500_i32.to_le_bytes();
/// let message = NewMessage::new(&value).value_type(ValueType::new(70_001));
/// writer.append_message(&message)?;
/// assert!(writer.append_message(&NewMessage::new(b"warm").value_type(ValueType::new(70_001))).is_ok());
/// assert!(writer.append_message(&NewMessage::new(b"hot").value_type(ValueType::new(70_001))).is_err());
/// assert_eq!(store.display_value(ValueType::new(70_001), &value), "21.5 degrees");
/// assert_eq!(store.display_value(ValueType::new(70_002), &value), "fc530000");
/// # Ok(())
/// # }
/// ```
pub trait ValueFormat: fmt::Debug + Send + Sync + 'static {
    /// The type that it is the format of.
    fn value_type(&self) -> ValueType;

    /// What people call the type.
    fn name(&self) -> &str;

    /// Whether a value is one of this type. Called for each message of the type that is appended, before it is in the log; a
    /// panic refuses the message.
    ///
    /// # Errors
    /// Why it is none, which [`Error::InvalidValue`] then says.
    fn validate(&self, value: &[u8]) -> std::result::Result<(), String> {
        let _any_will_do = value;
        Ok(())
    }

    /// The value for people; `None` where it cannot be shown.
    fn display(&self, value: &[u8]) -> Option<String> {
        let _unshown = value;
        None
    }

    /// What the value is about, in a few words of one line, for lists; `None` where that is its beginning.
    fn summarise(&self, value: &[u8]) -> Option<String> {
        let _its_beginning = value;
        None
    }
}

/// Text that is UTF-8, for those who want it checked.
#[derive(Debug, Clone, Copy, Default)]
pub struct CheckedUtf8;

impl ValueFormat for CheckedUtf8 {
    fn value_type(&self) -> ValueType {
        ValueType::UTF8
    }

    fn name(&self) -> &str {
        "utf8"
    }

    fn validate(&self, value: &[u8]) -> std::result::Result<(), String> {
        std::str::from_utf8(value)
            .map(|_| ())
            .map_err(|error| error.to_string())
    }

    fn display(&self, value: &[u8]) -> Option<String> {
        std::str::from_utf8(value).ok().map(str::to_owned)
    }
}

/// JSON that parses, for those who want it checked.
#[derive(Debug, Clone, Copy, Default)]
pub struct CheckedJson;

impl ValueFormat for CheckedJson {
    fn value_type(&self) -> ValueType {
        ValueType::JSON
    }

    fn name(&self) -> &str {
        "json"
    }

    fn validate(&self, value: &[u8]) -> std::result::Result<(), String> {
        serde_json::from_slice::<serde::de::IgnoredAny>(value)
            .map(|_| ())
            .map_err(|error| error.to_string())
    }

    fn display(&self, value: &[u8]) -> Option<String> {
        std::str::from_utf8(value).ok().map(str::to_owned)
    }
}

/// How long a summary is at most, in characters.
const SUMMARY_CHARACTERS_MAX: usize = 80;
/// Bytes that make more characters than a summary has, each of which takes at most four.
const SUMMARY_BYTES_MAX: usize = 4 * (SUMMARY_CHARACTERS_MAX + 1);

/// Enough of a value for its summary, cut where a character of text ends.
fn beginning(value: &[u8]) -> &[u8] {
    let Some(cut) = value.get(..SUMMARY_BYTES_MAX) else {
        return value;
    };
    match std::str::from_utf8(cut) {
        Err(error) if error.error_len().is_none() => cut.get(..error.valid_up_to()).unwrap_or(cut),
        _ => cut,
    }
}

/// The formats of an open store: few, so that a list is searched fastest.
#[derive(Debug, Clone, Default)]
pub(crate) struct Formats {
    known: Vec<Known>,
}

/// A format, with what it said of itself when it was registered: it is asked once.
#[derive(Debug, Clone)]
struct Known {
    format: Arc<dyn ValueFormat>,
    /// No type if it panicked.
    value_type: Option<ValueType>,
    name: String,
}

impl Formats {
    pub(crate) fn register(&mut self, format: Arc<dyn ValueFormat>) {
        let told = catch_unwind(AssertUnwindSafe(|| {
            (format.value_type(), format.name().to_owned())
        }));
        let (value_type, name) = match told {
            Ok((value_type, name)) => (Some(value_type), name),
            Err(_) => (None, String::new()),
        };
        self.known.push(Known {
            format,
            value_type,
            name,
        });
    }

    /// Why they cannot be together, if they cannot.
    pub(crate) fn problem(&self) -> Option<&'static str> {
        let own = [
            ValueType::BYTES,
            ValueType::NESTED_LOG,
            ValueType::BATCH,
            ValueType::TOMBSTONES,
            ValueType::BY_REFERENCE,
            ValueType::KEY_PAGE,
            ValueType::PART,
            ValueType::COMPRESSED_BATCH,
        ];
        self.known.iter().enumerate().find_map(|(number, known)| {
            let Some(value_type) = known.value_type else {
                return Some("a format panicked when it was asked for its type and name");
            };
            let mut before = self.known.iter().take(number);
            if !value_type.is_valid() || own.contains(&value_type) {
                Some("no format can have that type: 0, 255, and what the store itself gives a meaning")
            } else if before.clone().any(|other| other.value_type == Some(value_type)) {
                Some("two formats have the same type")
            } else if before.any(|other| other.name == known.name) {
                Some("two formats have the same name")
            } else {
                None
            }
        })
    }

    fn find(&self, value_type: ValueType) -> Option<&Known> {
        self.known
            .iter()
            .find(|known| known.value_type == Some(value_type))
    }

    /// Compares a message with the format of its type, if that is registered.
    #[inline]
    pub(crate) fn check(&self, fields: &BufferFields<'_>) -> Result<()> {
        if self.known.is_empty() {
            return Ok(());
        }
        self.check_known(fields)
    }

    fn check_known(&self, fields: &BufferFields<'_>) -> Result<()> {
        let Some(known) = self.find(fields.value_type) else {
            return Ok(());
        };
        let validated = catch_unwind(AssertUnwindSafe(|| known.format.validate(fields.value)));
        let reason = match validated {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(reason)) => reason,
            Err(_) => "its format panicked".to_owned(),
        };
        Err(Error::InvalidValue {
            value_type: fields.value_type,
            format: known.name.clone(),
            reason,
        })
    }

    /// A value in one line of at most [`SUMMARY_CHARACTERS_MAX`] characters, and a mark where more stood.
    pub(crate) fn summarise(&self, value_type: ValueType, value: &[u8]) -> String {
        let known = self.find(value_type);
        let told = known.and_then(|known| {
            catch_unwind(AssertUnwindSafe(|| known.format.summarise(value)))
                .ok()
                .flatten()
        });
        let whole = told.unwrap_or_else(|| match known {
            // A format may need all of a value to show any of it.
            Some(_) => self.display(value_type, value),
            None => self.display(value_type, beginning(value)),
        });
        let is_cut = whole.chars().nth(SUMMARY_CHARACTERS_MAX).is_some();
        let shown = whole.chars().take(SUMMARY_CHARACTERS_MAX);
        let mut line: String = shown
            .map(|character| if character.is_control() { ' ' } else { character })
            .collect();
        if is_cut {
            line.push_str("...");
        }
        line
    }

    /// A value for people.
    pub(crate) fn display(&self, value_type: ValueType, value: &[u8]) -> String {
        let known = self.find(value_type);
        let shown = known.and_then(|known| {
            catch_unwind(AssertUnwindSafe(|| known.format.display(value)))
                .ok()
                .flatten()
        });
        let text = || {
            let is_text = [ValueType::UTF8, ValueType::JSON].contains(&value_type);
            let text = std::str::from_utf8(value).ok();
            text.filter(|_| is_text).map(str::to_owned)
        };
        shown
            .or_else(text)
            .unwrap_or_else(|| value.iter().map(|byte| format!("{byte:02x}")).collect())
    }
}
