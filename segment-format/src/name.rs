//! Names of logs and of segment files. A log's name never becomes a path; a segment's file name is made from numbers.

use crate::ids::SegmentId;
use crate::limits::NAME_BYTES_MAX;
use crate::segment::SegmentKind;
use crate::weakened;
use core::fmt;
use std::sync::Arc;

/// Why a text is no log name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// A name has at least one byte.
    #[error("a log name may not be empty")]
    Empty,
    /// A name has at most 255 bytes.
    #[error("a log name has at most {NAME_BYTES_MAX} bytes, this one has {bytes}")]
    TooLong {
        /// Length of the refused name.
        bytes: usize,
    },
    /// A name is text.
    #[error("a log name must be UTF-8, but byte {at} is not")]
    NotUtf8 {
        /// First byte that is not UTF-8.
        at: usize,
    },
    /// A name can be printed on one line.
    #[error("a log name may not contain control characters, but byte {at} is one")]
    ControlCharacter {
        /// First byte of the control character.
        at: usize,
    },
}

/// Name of a log: 1 to 255 bytes of UTF-8 without control characters. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogName(Arc<str>);

impl LogName {
    /// Checks a text.
    ///
    /// # Errors
    ///
    /// What makes the text no name.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        Self::check(text.as_bytes()).map(|text| Self(Arc::from(text)))
    }

    /// Checks bytes.
    ///
    /// # Errors
    ///
    /// What makes the bytes no name.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, NameError> {
        Self::check(bytes).map(|text| Self(Arc::from(text)))
    }

    /// Checks bytes, and gives the text that they are.
    ///
    /// # Errors
    ///
    /// What makes the bytes no name.
    pub fn check(bytes: &[u8]) -> Result<&str, NameError> {
        if bytes.is_empty() {
            return Err(NameError::Empty);
        }
        // The limit first: no walk over a long text that is refused anyway.
        if bytes.len() > NAME_BYTES_MAX {
            return Err(NameError::TooLong { bytes: bytes.len() });
        }
        let text = core::str::from_utf8(bytes).map_err(|error| NameError::NotUtf8 {
            at: error.valid_up_to(),
        })?;
        let refused = |character: char| character.is_control() && !weakened!("names-by-length-only");
        match text.char_indices().find(|(_, character)| refused(*character)) {
            Some((at, _)) => Err(NameError::ControlCharacter { at }),
            None => Ok(text),
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LogName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl AsRef<str> for LogName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl core::borrow::Borrow<str> for LogName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// What the ending of a segment file's name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileKind {
    /// `.journal`: commit blocks.
    Journal,
    /// `.slabs`: slabs, nodes, catalog pages, checkpoints.
    Slabs,
    /// `.free`: waits to be written again; its content means nothing.
    Free,
}

impl FileKind {
    const ALL: [Self; 3] = [Self::Journal, Self::Slabs, Self::Free];

    const fn ending(self) -> &'static str {
        match self {
            Self::Journal => "journal",
            Self::Slabs => "slabs",
            Self::Free => "free",
        }
    }
}

impl From<SegmentKind> for FileKind {
    fn from(kind: SegmentKind) -> Self {
        match kind {
            SegmentKind::Journal => Self::Journal,
            SegmentKind::Slabs => Self::Slabs,
        }
    }
}

/// File name of a segment, without a directory: 16 hexadecimal digits and the ending of its kind.
pub fn segment_file_name(segment: SegmentId, kind: impl Into<FileKind>) -> String {
    format!("{:016x}.{}", segment.get(), kind.into().ending())
}

/// What a file name in the directory of segments says; `None` if it is no segment's.
pub fn parse_segment_file_name(name: &str) -> Option<(SegmentId, FileKind)> {
    let (digits, ending) = name.split_once('.')?;
    let kind = FileKind::ALL.into_iter().find(|kind| kind.ending() == ending)?;
    // `from_str_radix` would also take a sign and capitals, and two names for one segment must not exist.
    let canonical = digits.len() == 16
        && digits
            .bytes()
            .all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    let number = if canonical {
        u64::from_str_radix(digits, 16).ok()?
    } else {
        return None;
    };
    Some((SegmentId::new(number), kind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn any_printable_text_is_a_name_even_one_that_looks_like_a_path() {
        for text in [
            "a",
            "orders",
            "../../etc/passwd",
            "a/b",
            "C:\\",
            "Ünïcode ☃",
            " ",
            &"x".repeat(255),
        ] {
            assert_eq!(LogName::parse(text).unwrap().as_str(), text);
        }
    }

    #[test]
    fn what_is_no_name_is_told_why() {
        assert_eq!(LogName::parse(""), Err(NameError::Empty));
        assert_eq!(
            LogName::parse(&"ä".repeat(128)),
            Err(NameError::TooLong { bytes: 256 })
        );
        assert_eq!(LogName::parse("a\nb"), Err(NameError::ControlCharacter { at: 1 }));
        assert_eq!(
            LogName::parse("a\u{85}"),
            Err(NameError::ControlCharacter { at: 1 })
        );
        assert_eq!(LogName::from_bytes(b"a\xFF"), Err(NameError::NotUtf8 { at: 1 }));
        assert_eq!(
            LogName::from_bytes(&[0xFF; 256]),
            Err(NameError::TooLong { bytes: 256 })
        );
    }

    #[test]
    fn only_the_one_name_of_a_segment_is_parsed() {
        let good = "000000000000001f.slabs";
        assert_eq!(
            parse_segment_file_name(good),
            Some((SegmentId::new(31), FileKind::Slabs))
        );
        let bad = [
            "",
            ".slabs",
            "1f.slabs",
            "000000000000001F.slabs",
            "+00000000000001f.slabs",
            "0000000000000001f.slabs",
            "000000000000001f.slab",
            "000000000000001f.slabs.journal",
            "000000000000001f",
            "00000000000001ä.slabs",
        ];
        assert!(bad.iter().all(|name| parse_segment_file_name(name).is_none()));
    }

    proptest! {
        #[test]
        fn a_file_name_is_parsed_back(number in any::<u64>(), which in 0..3_usize) {
            let (segment, kind) = (SegmentId::new(number), FileKind::ALL[which]);
            prop_assert_eq!(parse_segment_file_name(&segment_file_name(segment, kind)), Some((segment, kind)));
        }
    }
}
