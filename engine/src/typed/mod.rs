//! Values of Rust types through serde, into messages and out of them: JSON here, other formats in files of their own.

#[cfg(feature = "cbor")]
mod cbor;
#[cfg(feature = "message-pack")]
mod message_pack;

#[cfg(feature = "cbor")]
pub use cbor::CheckedCbor;
#[cfg(feature = "message-pack")]
pub use message_pack::CheckedMessagePack;

use serde::de::Deserialize;
use serde::ser::Serialize;

use lanterman_format::buffer::ValueType;

use crate::error::{Error, Result};
use crate::message::{KeptMessage, Message};
use crate::writer::NewMessage;

fn no_value(value_type: ValueType, format: &str, reason: String) -> Error {
    Error::InvalidValue {
        value_type,
        format: format.to_owned(),
        reason,
    }
}

fn no_json(value_type: ValueType, reason: String) -> Error {
    no_value(value_type, "json", reason)
}

fn read<'a, T: Deserialize<'a>>(value_type: ValueType, value: &'a [u8]) -> Result<T> {
    if value_type != ValueType::JSON {
        return Err(no_json(value_type, "the message is of another type".to_owned()));
    }
    serde_json::from_slice(value).map_err(|error| no_json(value_type, error.to_string()))
}

impl<'a> NewMessage<'a> {
    /// A message of JSON: `value`, written to `buffer` in the place of what stands there. The buffer can be used again.
    ///
    /// ```
    /// # fn main() -> Result<(), lanterman::Error> {
    /// let mut buffer = Vec::new();
    /// let message = lanterman::NewMessage::json(&("paid", 7), &mut buffer)?.key(b"order 7");
    /// assert_eq!(message.value(), br#"["paid",7]"#);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidValue`] for what JSON has no form for, such as a map whose keys are no text.
    pub fn json<T: Serialize + ?Sized>(value: &T, buffer: &'a mut Vec<u8>) -> Result<Self> {
        buffer.clear();
        serde_json::to_writer(&mut *buffer, value)
            .map_err(|error| no_json(ValueType::JSON, error.to_string()))?;
        Ok(NewMessage::new(buffer).value_type(ValueType::JSON))
    }
}

impl<'a> Message<'a> {
    /// Its value, which is JSON, as a Rust value; texts in it may borrow from the message.
    ///
    /// # Errors
    /// [`Error::InvalidValue`] if the message is of another type, or its JSON does not have this form; it says where.
    pub fn json<T: Deserialize<'a>>(&self) -> Result<T> {
        read(self.value_type(), self.value())
    }
}

impl KeptMessage {
    /// Its value, which is JSON, as a Rust value; texts in it may borrow from the message.
    ///
    /// # Errors
    /// As [`Message::json`].
    pub fn json<'a, T: Deserialize<'a>>(&'a self) -> Result<T> {
        read(self.value_type(), self.value())
    }
}
