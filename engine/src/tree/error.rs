//! What can go wrong in a tree.

use std::ops::Range;

use lanterman_format::{FormatError, Reference};

use crate::slab::SlabError;

/// Why a tree cannot answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum TreeError {
    /// A node's bytes cannot be had.
    #[error("a node of the tree cannot be fetched")]
    Fetch(#[from] SlabError),
    /// A node's bytes are not what was written.
    #[error("node at position {position} of segment {segment:016x} is damaged",
        position = reference.position.get(), segment = reference.segment.get())]
    Damaged {
        /// The node.
        reference: Box<Reference>,
        /// The rule that its bytes break.
        #[source]
        error: FormatError,
    },
    /// A node is whole but does not fit its place in the tree.
    #[error("node at position {position} of segment {segment:016x} does not belong there: {rule} is {found}, not {expected}",
        position = reference.position.get(), segment = reference.segment.get())]
    Rule {
        /// The node.
        reference: Box<Reference>,
        /// What it breaks.
        rule: NodeRule,
        /// What its place demands.
        expected: u64,
        /// What it says.
        found: u64,
    },
    /// A node could not be loaded, and with it these offsets of the tree cannot be found.
    #[error("{error} (offsets {}..{} of the tree)", offsets.start, offsets.end)]
    Within {
        /// The offsets, counted from the tree's first.
        offsets: Range<u64>,
        /// What is wrong with the node.
        #[source]
        error: Box<TreeError>,
    },
    /// An entry without offsets was to be put into the tree.
    #[error("an entry of a tree must show at least one offset")]
    NoOffsets,
    /// The tree cannot grow further: offsets are 64 bits wide, and levels are bounded.
    #[error("the tree is full")]
    Full,
}

/// What a node must be to stand where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NodeRule {
    /// One level below its parent, and below the limit.
    Level,
    /// As many offsets as its parent says.
    OffsetCount,
    /// At least one entry and at most the fan-out.
    EntryCount,
    /// Each entry ends behind the one before it.
    OffsetEnd,
    /// No offset of a slab is beyond 64 bits, and child nodes are shown whole.
    Skip,
    /// Children of inner nodes are nodes on a disk.
    Child,
}

impl std::fmt::Display for NodeRule {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Level => "its level",
            Self::OffsetCount => "its number of offsets",
            Self::EntryCount => "its number of entries",
            Self::OffsetEnd => "the end of an entry",
            Self::Skip => "what an entry hides",
            Self::Child => "the kind of a child",
        })
    }
}

impl TreeError {
    /// The same error with the offsets that are lost with the node.
    #[cold]
    pub(super) fn within(self, offsets: Range<u64>) -> Self {
        let error = Box::new(self);
        Self::Within { offsets, error }
    }

    #[cold]
    pub(super) fn rule(reference: &Reference, rule: NodeRule, expected: u64, found: u64) -> Self {
        Self::Rule {
            reference: Box::new(*reference),
            rule,
            expected,
            found,
        }
    }
}
