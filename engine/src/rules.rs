//! Rules of the format that the engine finds broken itself, between structures that are each well-formed.

use lanterman_format::{FormatError, Rule, Structure};

/// The bytes end before the structure does.
pub(crate) fn truncated(structure: Structure, expected: u64, found: u64) -> FormatError {
    FormatError {
        structure,
        rule: Rule::Truncated,
        at: 0,
        expected,
        found,
    }
}

/// A length or a number beyond what the structure may have.
pub(crate) fn too_long(structure: Structure, most: u64, found: u64) -> FormatError {
    FormatError {
        structure,
        rule: Rule::Limit,
        at: 0,
        expected: most,
        found,
    }
}

/// Nothing but zeros, where something must stand.
pub(crate) fn empty(structure: Structure) -> FormatError {
    FormatError {
        structure,
        rule: Rule::Zero,
        at: 0,
        expected: 1,
        found: 0,
    }
}

/// Well-formed, but of another place or another life than what refers to it.
pub(crate) fn misplaced(structure: Structure, expected: u64, found: u64) -> FormatError {
    FormatError {
        structure,
        rule: Rule::Identity,
        at: 0,
        expected,
        found,
    }
}

/// Two numbers that must agree do not.
pub(crate) fn disagree(structure: Structure, expected: u64, found: u64) -> FormatError {
    FormatError {
        structure,
        rule: Rule::Count,
        at: 0,
        expected,
        found,
    }
}

/// Known to be lost.
pub(crate) fn lost(structure: Structure) -> FormatError {
    FormatError {
        structure,
        rule: Rule::Lost,
        at: 0,
        expected: 1,
        found: 0,
    }
}
