//! Writing what is new in a tree.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use lanterman_format::block::BLOCK_ALIGNMENT;
use lanterman_format::node::encoded_bytes_max;
use lanterman_format::{NodeEntry, NodeParts, Reference};

use super::node::{Branch, Children, Node};
use super::{FAN_OUT, NodeSource, Tree, TreeError};

/// The nodes that a checkpoint wrote, and where. A node takes note of its place only when the caller says that the
/// writing is done, by [`remember`](Self::remember): had it done so at once, and the sync failed, the next
/// checkpoint would refer to a block that never reached the disk.
///
/// One value serves all trees of a checkpoint, so that nodes which several trees share are written once.
#[derive(Debug, Default)]
pub(crate) struct NodeWrites {
    /// By the address of the branch, which stays its own because the branch is counted here.
    written: HashMap<usize, (Arc<Branch>, Reference)>,
}

impl NodeWrites {
    /// How many nodes were written.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.written.len()
    }

    /// Lets every node written note its place. Only to be called when all of them are durable.
    pub(crate) fn remember(self) {
        for (branch, reference) in self.written.into_values() {
            branch.remember(reference);
        }
    }

    fn place_of(&self, branch: &Arc<Branch>) -> Option<Reference> {
        branch.reference().or_else(|| {
            self.written
                .get(&address(branch))
                .map(|(_, reference)| *reference)
        })
    }
}

/// How many entries more a leaf may have when something takes the place of the middle of an entry.
const ENTRIES_CUT: usize = 2;

impl Tree {
    /// Gives every node that is nowhere on the disk to `write`, with its level, children before parents, and answers
    /// the root's place: [`Reference::EMPTY`] of the empty tree.
    ///
    /// # Errors
    ///
    /// The first error of `write`, after which nothing is lost: what was written before is in `writes`.
    pub(crate) fn write_dirty<E>(
        &self,
        writes: &mut NodeWrites,
        write: &mut impl FnMut(u8, &NodeParts) -> Result<Reference, E>,
    ) -> Result<Reference, E> {
        match &self.root {
            Some(root) => write_branch(root, writes, write),
            None => Ok(Reference::EMPTY),
        }
    }

    /// How many bytes of blocks the next checkpoint writes for the nodes of the tree, at most: for those that are nowhere on
    /// the disk, and for those that would be others if something took the place of each of the ranges of offsets in `replaced`.
    ///
    /// # Errors
    ///
    /// Errors of loading the nodes along the ends of the ranges.
    pub(crate) fn unwritten_bytes(
        &self,
        source: &dyn NodeSource,
        replaced: &[Range<u64>],
    ) -> Result<u64, TreeError> {
        let Some(root) = &self.root else { return Ok(0) };
        let mut paths: Vec<&Node> = Vec::new();
        let mut bytes = made_bytes(root);
        for range in replaced {
            let first = self.path(source, range.start)?;
            // A seam that is thin takes up a node at each side, and so does what that sews together on the levels below.
            let below_root = first.first().map_or(0, |root| root.children().len());
            let beside = (1..first.len()).map(|depth| match depth {
                1 => below_root.saturating_sub(1).min(2),
                depth => depth.saturating_mul(2),
            });
            let beside = beside.fold(0, usize::saturating_add) as u64;
            bytes = bytes.saturating_add(block_bytes(FAN_OUT).saturating_mul(beside));
            paths.extend(first);
            paths.extend(self.path(source, range.end.saturating_sub(1))?);
        }
        paths.sort_unstable_by_key(|node| std::ptr::from_ref::<Node>(node));
        paths.dedup_by(|one, other| std::ptr::eq::<Node>(*one, *other));
        let cut = ENTRIES_CUT.saturating_mul(replaced.len());
        let nodes = paths
            .iter()
            .map(|node| block_bytes(node.children().len().saturating_add(cut)));
        Ok(nodes.fold(bytes, u64::saturating_add))
    }

    /// The nodes from the root to the leaf of `offset`.
    fn path<'t>(&'t self, source: &dyn NodeSource, offset: u64) -> Result<Vec<&'t Node>, TreeError> {
        let mut path = Vec::new();
        self.descend(offset, |branch, expected| {
            branch.node(source, expected).inspect(|node| path.push(*node))
        })?;
        Ok(path)
    }
}

/// The bytes of the nodes below a branch, and of itself, that are nowhere on the disk: what is below one that is, is too.
fn made_bytes(branch: &Branch) -> u64 {
    let Some(node) = branch.loaded().filter(|_| branch.reference().is_none()) else {
        return 0;
    };
    let below = match node.children() {
        Children::Slabs(_) => 0,
        Children::Nodes(links) => {
            let below = links.iter().map(|link| made_bytes(&link.branch));
            below.fold(0, u64::saturating_add)
        }
    };
    below.saturating_add(block_bytes(node.children().len()))
}

/// What the block of a node of so many entries takes at most.
fn block_bytes(entries: usize) -> u64 {
    let bytes = encoded_bytes_max(entries) as u64;
    bytes.next_multiple_of(BLOCK_ALIGNMENT as u64)
}

fn write_branch<E>(
    branch: &Arc<Branch>,
    writes: &mut NodeWrites,
    write: &mut impl FnMut(u8, &NodeParts) -> Result<Reference, E>,
) -> Result<Reference, E> {
    if let Some(reference) = writes.place_of(branch) {
        return Ok(reference);
    }
    // What is not loaded is on the disk, and was answered above.
    let Some(node) = branch.loaded() else {
        return Ok(Reference::EMPTY);
    };
    let references: Result<Vec<_>, E> = match node.children() {
        Children::Slabs(entries) => entries
            .iter()
            .map(|entry| Ok((entry.skip, entry.reference())))
            .collect(),
        Children::Nodes(links) => links
            .iter()
            .map(|link| Ok((0, write_branch(&link.branch, writes, write)?)))
            .collect(),
    };
    let reference = write(node.level(), &parts(node, references?))?;
    writes
        .written
        .insert(address(branch), (Arc::clone(branch), reference));
    Ok(reference)
}

/// The node as it is written, with what each child hides and where it is.
fn parts(node: &Node, references: Vec<(u64, Reference)>) -> NodeParts {
    let places = node
        .ends()
        .iter()
        .zip(references)
        .zip((0..node.children().len()).filter_map(|index| node.children().keys(index)));
    let entries = places
        .map(|((end, (skip, reference)), (summary, keys))| NodeEntry {
            offset_end: *end,
            skip,
            reference,
            summary,
            keys,
        })
        .collect();
    NodeParts {
        level: node.level(),
        entries,
        summary: *node.summary(),
        histogram: *node.histogram(),
    }
}

fn address(branch: &Arc<Branch>) -> usize {
    Arc::as_ptr(branch).addr()
}
