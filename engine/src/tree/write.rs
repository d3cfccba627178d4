//! Writing what is new in a tree.

use std::collections::HashMap;
use std::sync::Arc;

use lanterman_format::{NodeEntry, NodeParts, Reference};

use super::Tree;
use super::node::{Branch, Children, Node};

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
