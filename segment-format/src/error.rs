//! What a decoder answers: which rule of which structure was broken, and where.
//!
//! A `FormatError` never knows a path or a segment; whoever read the bytes adds them.

use core::fmt;

/// The structure whose rule was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Structure {
    /// One of the two slots of the `root` file.
    RootSlot,
    /// The first 4 KiB of a segment.
    SegmentHeader,
    /// The first 64 bytes of any block.
    BlockHeader,
    /// A commit block's header or directory.
    Commit,
    /// A frame of a commit block.
    Frame,
    /// An adoption in a commit block.
    Adoption,
    /// A change of the catalog in a commit block.
    Change,
    /// A slab's header or index.
    Slab,
    /// A group of a slab's body, covered by one checksum.
    SlabGroup,
    /// A stored message.
    Buffer,
    /// A tree node.
    Node,
    /// A reference to a block.
    Reference,
    /// A page of the catalog.
    CatalogPage,
    /// A checkpoint block.
    Checkpoint,
    /// A block of gathered slabs.
    Gathered,
    /// The settings of a log.
    Settings,
    /// A page of a key run.
    KeyPage,
    /// The value of a message whose value stands in parts before it.
    LargeValue,
    /// Buffers that are compressed together.
    CompressedBatch,
    /// A sketch of the keys of a slab or a subtree.
    KeySketch,
}

impl Structure {
    pub(crate) const fn breaks(self, rule: Rule, at: u64, expected: u64, found: u64) -> FormatError {
        FormatError {
            structure: self,
            rule,
            at,
            expected,
            found,
        }
    }

    /// `Ok` if `holds`, or else the broken rule.
    pub(crate) fn require(
        self,
        holds: bool,
        rule: Rule,
        at: u64,
        expected: u64,
        found: u64,
    ) -> Result<(), FormatError> {
        if holds {
            Ok(())
        } else {
            Err(self.breaks(rule, at, expected, found))
        }
    }

    const fn words(self) -> &'static str {
        match self {
            Self::RootSlot => "root slot",
            Self::SegmentHeader => "segment header",
            Self::BlockHeader => "block header",
            Self::Commit => "commit block",
            Self::Frame => "frame of a commit block",
            Self::Adoption => "adoption of a commit block",
            Self::Change => "change of a commit block",
            Self::Slab => "slab",
            Self::SlabGroup => "group of a slab's body",
            Self::Buffer => "buffer",
            Self::Node => "tree node",
            Self::Reference => "reference",
            Self::CatalogPage => "catalog page",
            Self::Checkpoint => "checkpoint",
            Self::Gathered => "gathered block",
            Self::Settings => "settings of a log",
            Self::KeyPage => "page of a key run",
            Self::KeySketch => "sketch of keys",
            Self::LargeValue => "reference to a large value",
            Self::CompressedBatch => "compressed batch",
        }
    }
}

impl fmt::Display for Structure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.words())
    }
}

/// The rule that was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Rule {
    /// The bytes end before the structure does.
    Truncated,
    /// All bytes are zero where something had to be.
    Zero,
    /// The first bytes are not those of this structure.
    Magic,
    /// The checksum does not fit the bytes.
    Checksum,
    /// The bytes are whole, but were written for another place, another file or an earlier life of the file.
    Identity,
    /// Written by a newer version of the format than this program reads.
    NewerVersion,
    /// Not the kind of structure that had to be here, or of an unknown kind.
    Kind,
    /// The layout of the block is unknown.
    Layout,
    /// A bit is set that has no meaning.
    Flags,
    /// A reserved byte is not zero.
    Reserved,
    /// A number exceeds the format's limit.
    Limit,
    /// Something lies outside of what contains it.
    Bounds,
    /// A position or length is not a multiple of what it must be a multiple of.
    Alignment,
    /// Entries do not follow one another as they must.
    Order,
    /// Two numbers that must agree do not.
    Count,
    /// A text is not UTF-8, or has characters that it may not have.
    Text,
    /// It was found damaged before, and what refers to it says that it is lost.
    Lost,
    /// Good as far as can be told, but of a kind that this program was built without.
    Unsupported,
    /// The output has less room than the structure needs.
    NoRoom,
}

impl Rule {
    const fn words(self) -> &'static str {
        match self {
            Self::Truncated => "the bytes end too early",
            Self::Zero => "all bytes are zero",
            Self::Magic => "the magic number is wrong",
            Self::Checksum => "the checksum is wrong",
            Self::Identity => "written for another place or an earlier life of the file",
            Self::NewerVersion => "written by a newer version of the format",
            Self::Kind => "of another or an unknown kind",
            Self::Layout => "the block's layout is unknown",
            Self::Flags => "unknown flags are set",
            Self::Reserved => "reserved bytes are not zero",
            Self::Limit => "a number exceeds its limit",
            Self::Bounds => "a part lies outside of its container",
            Self::Alignment => "a position or length is not aligned",
            Self::Order => "entries are out of order",
            Self::Count => "two numbers disagree",
            Self::Text => "a text is not well-formed",
            Self::Lost => "lost with a part that was found damaged before",
            Self::Unsupported => {
                "this program was built without the codec that it needs (the feature `zstd`)"
            }
            Self::NoRoom => "the output has too little room",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.words())
    }
}

/// Which rule of which structure was broken, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FormatError {
    /// The structure whose rule was broken.
    pub structure: Structure,
    /// The broken rule.
    pub rule: Rule,
    /// Byte within the structure's block (or within the file's part that was handed over) that broke it.
    pub at: u64,
    /// What had to be there: a value, a limit or a checksum, as the rule says.
    pub expected: u64,
    /// What was there.
    pub found: u64,
}

impl fmt::Display for FormatError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            structure,
            rule,
            at,
            expected,
            found,
        } = self;
        match rule {
            Rule::Checksum | Rule::Magic => {
                write!(
                    formatter,
                    "{structure}: {rule} (byte {at}, expected {expected:#x}, found {found:#x})"
                )
            }
            _ => write!(
                formatter,
                "{structure}: {rule} (byte {at}, expected {expected}, found {found})"
            ),
        }
    }
}

impl core::error::Error for FormatError {}

/// What stands where a structure was looked for. Empty, present and unreadable need different reactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found<T> {
    /// All zero where the header would be: nothing was written here.
    Empty,
    /// Whole and sound.
    Valid(T),
    /// Something is here, but not a whole structure of this place and time.
    Invalid(FormatError),
}

impl<T> Found<T> {
    /// The structure, if it is sound.
    pub fn valid(self) -> Option<T> {
        match self {
            Self::Valid(value) => Some(value),
            Self::Empty | Self::Invalid(_) => None,
        }
    }

    /// Whether nothing was written here.
    pub const fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }

    /// Whether the structure is sound.
    pub const fn is_valid(&self) -> bool {
        matches!(self, Self::Valid(_))
    }

    /// The same answer with a borrowed structure.
    pub const fn as_ref(&self) -> Found<&T> {
        match self {
            Self::Empty => Found::Empty,
            Self::Valid(value) => Found::Valid(value),
            Self::Invalid(error) => Found::Invalid(*error),
        }
    }

    /// The structure; emptiness counts as an error of `structure`.
    ///
    /// # Errors
    ///
    /// The error found, or [`Rule::Zero`] where nothing was written.
    pub fn into_result(self, structure: Structure) -> Result<T, FormatError> {
        match self {
            Self::Empty => Err(structure.breaks(Rule::Zero, 0, 1, 0)),
            Self::Valid(value) => Ok(value),
            Self::Invalid(error) => Err(error),
        }
    }

    /// Goes on with a sound structure.
    pub fn and_then<U>(self, next: impl FnOnce(T) -> Result<U, FormatError>) -> Found<U> {
        match self {
            Self::Empty => Found::Empty,
            Self::Valid(value) => match next(value) {
                Ok(value) => Found::Valid(value),
                Err(error) => Found::Invalid(error),
            },
            Self::Invalid(error) => Found::Invalid(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_small_and_says_the_rule_in_words() {
        assert!(size_of::<FormatError>() <= 32);
        let error = Structure::Slab.breaks(Rule::Limit, 8, 10, 11);
        assert_eq!(
            error.to_string(),
            "slab: a number exceeds its limit (byte 8, expected 10, found 11)"
        );
        let error = Structure::Node.breaks(Rule::Checksum, 12, 0xAB, 0xCD);
        assert_eq!(
            error.to_string(),
            "tree node: the checksum is wrong (byte 12, expected 0xab, found 0xcd)"
        );
    }
}
