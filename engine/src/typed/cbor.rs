//! Values of Rust types as CBOR, through serde.

use std::io;

use lanterman_format::buffer::ValueType;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::ser::Serialize;

use super::no_value;
use crate::error::{Error, Result};
use crate::formats::ValueFormat;
use crate::message::{KeptMessage, Message};
use crate::writer::NewMessage;

const NAME: &str = "cbor";
const TYPE: ValueType = ValueType::CBOR;

fn refused(reason: impl ToString) -> Error {
    no_value(TYPE, NAME, reason.to_string())
}

/// The one value that `bytes` are.
fn decode<T: DeserializeOwned>(bytes: &[u8]) -> std::result::Result<T, String> {
    let mut rest = io::Cursor::new(bytes);
    let value = ciborium::from_reader(&mut rest).map_err(|error| error.to_string())?;
    match rest.position() == bytes.len() as u64 {
        true => Ok(value),
        false => Err(format!("it ends at byte {} of {}", rest.position(), bytes.len())),
    }
}

fn read<T: DeserializeOwned>(value_type: ValueType, bytes: &[u8]) -> Result<T> {
    if value_type != TYPE {
        return Err(no_value(
            value_type,
            NAME,
            "the message is of another type".to_owned(),
        ));
    }
    decode(bytes).map_err(refused)
}

impl<'a> NewMessage<'a> {
    /// A message of CBOR: `value`, written to `buffer` in the place of what stands there. The buffer can be used again.
    ///
    /// ```
    /// # fn main() -> Result<(), lanterman::Error> {
    /// let mut buffer = Vec::new();
    /// let message = lanterman::NewMessage::cbor(&("paid", 7), &mut buffer)?.key(b"order 7");
    /// assert_eq!(message.value(), b"\x82\x64paid\x07");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidValue`] for what CBOR has no form for.
    pub fn cbor<T: Serialize + ?Sized>(value: &T, buffer: &'a mut Vec<u8>) -> Result<Self> {
        buffer.clear();
        ciborium::into_writer(value, &mut *buffer).map_err(refused)?;
        Ok(NewMessage::new(buffer).value_type(TYPE))
    }
}

impl Message<'_> {
    /// Its value, which is CBOR, as a Rust value.
    ///
    /// # Errors
    /// [`Error::InvalidValue`] if the message is of another type, or its CBOR does not have this form.
    pub fn cbor<T: DeserializeOwned>(&self) -> Result<T> {
        read(self.value_type(), self.value())
    }
}

impl KeptMessage {
    /// Its value, which is CBOR, as a Rust value.
    ///
    /// # Errors
    /// As [`Message::cbor`].
    pub fn cbor<T: DeserializeOwned>(&self) -> Result<T> {
        read(self.value_type(), self.value())
    }
}

/// CBOR that parses, for those who want it checked. It is shown as JSON, where JSON can say it.
#[derive(Debug, Clone, Copy, Default)]
pub struct CheckedCbor;

impl ValueFormat for CheckedCbor {
    fn value_type(&self) -> ValueType {
        TYPE
    }

    fn name(&self) -> &str {
        NAME
    }

    fn validate(&self, value: &[u8]) -> std::result::Result<(), String> {
        decode::<IgnoredAny>(value).map(|_| ())
    }

    fn display(&self, value: &[u8]) -> Option<String> {
        decode::<serde_json::Value>(value)
            .ok()
            .map(|value| value.to_string())
    }
}
