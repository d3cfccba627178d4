//! The persistent tree that leads from offsets to slabs.
//!
//! A [`Tree`] is a value: an operation answers with another tree that shares all nodes it did not have to copy,
//! and the old one stays what it was. Nodes are in memory, or on the disk and loaded when first needed through a
//! [`NodeSource`]. The tree knows no file, no segment and no lock.
//!
//! Invariants:
//! - all leaves are at level 0, and a child's level is its parent's minus one. This is checked of every node that is
//!   loaded, so that no file, however wrong, leads in a circle or deeper than [`LEVEL_MAX`];
//! - `ends` of a node rise strictly, and the last is the number of offsets of the node, as its parent says;
//! - a node that has a reference never changes, so the reference is good for as long as the node lives.
//!
//! Offsets are relative: a tree covers `0..offset_count`, and whoever owns it adds its base.

mod build;
mod error;
mod find;
mod keys;
mod load;
mod node;
mod reach;
mod splice;
mod summary;
mod times;
mod trim;
mod write;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use lanterman_format::{KeySketch, Reference, Summary, convert, limits};

use crate::slab::SlabHandle;

pub(crate) use error::{NodeRule, TreeError};
pub(crate) use keys::KeyTally;
pub(crate) use load::NodeSource;
pub(crate) use reach::{Reach, reach_from};
pub(crate) use summary::RangeSummary;
pub(crate) use write::NodeWrites;

use node::Branch;

/// How many children a node has at most. At 128 a leaf describes 128 MiB of full slabs in a block of 17 KiB, so that
/// nodes are 0.02 % of what they describe, and four levels are 256 TiB.
pub(crate) const FAN_OUT: usize = convert::index(limits::NODE_ENTRIES_MAX);

/// The highest level of a node. It bounds every recursion here to a few kilobytes of stack.
pub(crate) const LEVEL_MAX: u8 = limits::NODE_LEVEL_MAX;

/// A run of offsets in a slab, or a run that was deleted.
#[derive(Debug, Clone)]
pub(crate) struct SlabEntry {
    /// How many offsets the entry shows; never zero in a tree.
    pub(crate) offset_count: u64,
    /// How many offsets are hidden at the slab's front.
    pub(crate) skip: u64,
    /// The slab; `None` where the offsets are deleted.
    pub(crate) slab: Option<Arc<SlabHandle>>,
    /// What the shown offsets hold; an estimate where only a part of the slab is shown.
    pub(crate) summary: Summary,
    /// Its keys, with those of what is not shown any more if that is the smaller part; see `keys`.
    pub(crate) keys: KeySketch,
}

/// A persistent sequence of slab entries. Cloning is one count.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tree {
    root: Option<Arc<Branch>>,
    /// `None` until the root was loaded, if it was given by reference.
    level: Option<u8>,
    offset_count: u64,
}

impl Tree {
    /// The tree of no offsets.
    pub(crate) const EMPTY: Self = Self {
        root: None,
        level: None,
        offset_count: 0,
    };

    /// The tree whose root is on the disk at `reference` and covers `offset_count` offsets. Nothing is loaded; what
    /// is not so is found out at the first use. `level` is the root's level if the caller knows it.
    ///
    /// # Errors
    ///
    /// [`TreeError::Rule`] if an empty reference is to have offsets, or another one none.
    pub(crate) fn from_reference(
        reference: Reference,
        offset_count: u64,
        level: Option<u8>,
    ) -> Result<Self, TreeError> {
        Self::check_reference(&reference, offset_count)?;
        Ok(match reference.is_empty() {
            true => Self::EMPTY,
            false => Self {
                root: Some(Branch::on_disk(reference)),
                level,
                offset_count,
            },
        })
    }

    /// Whether a reference may be that of a tree of so many offsets, of which nothing is made.
    ///
    /// # Errors
    /// [`TreeError::Rule`] if it may not.
    pub(crate) fn check_reference(reference: &Reference, offset_count: u64) -> Result<(), TreeError> {
        match reference.is_empty() == (offset_count == 0) {
            true => Ok(()),
            false => Err(TreeError::rule(reference, NodeRule::OffsetCount, 0, offset_count)),
        }
    }

    /// How many offsets the tree covers, which is the first offset behind it.
    pub(crate) fn offset_end(&self) -> u64 {
        self.offset_count
    }

    /// Whether it covers none.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.root.is_none()
    }

    /// Where the root is on the disk: [`Reference::EMPTY`] of the empty tree, `None` while it is not written.
    pub(crate) fn reference(&self) -> Option<Reference> {
        match &self.root {
            None => Some(Reference::EMPTY),
            Some(root) => root.reference(),
        }
    }

    /// The same tree without what was loaded of it, or `None` if it is not wholly on the disk. For logs that have
    /// become quiet.
    pub(crate) fn unloaded(&self) -> Option<Self> {
        match &self.root {
            None => Some(Self::EMPTY),
            Some(root) => {
                let root = Some(Branch::on_disk(root.reference()?));
                Some(Self {
                    root,
                    level: self.level,
                    offset_count: self.offset_count,
                })
            }
        }
    }
}

impl SlabEntry {
    /// About how much memory an entry takes in a leaf, with the handle of its slab.
    const BYTES: usize = size_of::<Self>() + size_of::<SlabHandle>() + 2 * size_of::<usize>();

    /// Where the slab is; [`Reference::EMPTY`] where the offsets are deleted.
    pub(crate) fn reference(&self) -> Reference {
        self.slab
            .as_ref()
            .map_or(Reference::EMPTY, |slab| *slab.reference())
    }
}
