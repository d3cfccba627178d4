//! Finding slabs by offset, and going on from there.

use super::node::{Branch, Children, Expected, Node};
use super::{NodeSource, SlabEntry, Tree, TreeError};

/// A slab entry and where it stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PlacedSlab<'t> {
    /// The entry.
    pub(crate) entry: &'t SlabEntry,
    /// The first offset that it shows.
    pub(crate) first_offset: u64,
}

impl PlacedSlab<'_> {
    /// The first offset behind the entry.
    pub(crate) fn end_offset(&self) -> u64 {
        self.first_offset.saturating_add(self.entry.offset_count)
    }

    /// The offset in the slab, counted from the slab's own first, of the tree's offset `offset`.
    #[cfg(test)]
    pub(crate) fn offset_in_slab(&self, offset: u64) -> Option<u64> {
        let shown = offset.checked_sub(self.first_offset)?;
        if shown >= self.entry.offset_count {
            return None;
        }
        self.entry.skip.checked_add(shown)
    }
}

impl Tree {
    /// The entry that shows `offset`; `None` at and behind the end. Takes no lock and allocates nothing where the
    /// nodes are loaded.
    ///
    /// # Errors
    ///
    /// [`TreeError`] if a node on the way cannot be loaded.
    pub(crate) fn find(
        &self,
        source: &dyn NodeSource,
        offset: u64,
    ) -> Result<Option<PlacedSlab<'_>>, TreeError> {
        self.descend(offset, |branch, expected| branch.node(source, expected))
    }

    /// The same where every node on the way is loaded and the offset is in the tree; nothing otherwise.
    #[inline]
    pub(crate) fn find_loaded(&self, offset: u64) -> Option<PlacedSlab<'_>> {
        let found = self.descend(offset, |branch, _| branch.loaded().ok_or(()));
        found.ok().flatten()
    }

    /// Goes down to the entry that shows `offset`, by nodes that `node_of` gives.
    #[inline]
    pub(super) fn descend<'t, E>(
        &'t self,
        offset: u64,
        mut node_of: impl FnMut(&'t Branch, Expected) -> Result<&'t Node, E>,
    ) -> Result<Option<PlacedSlab<'t>>, E> {
        let Some(root) = &self.root else { return Ok(None) };
        if offset >= self.offset_count {
            return Ok(None);
        }
        let mut node = node_of(root, self.expected())?;
        let mut first = 0_u64;
        loop {
            // The sums stay below the tree's offset count, since each child lies within its parent.
            let child = node.child_at(offset.saturating_sub(first));
            first = first.saturating_add(child.start);
            match node.children() {
                Children::Slabs(entries) => {
                    let entry = entries.get(child.index);
                    return Ok(entry.map(|entry| PlacedSlab {
                        entry,
                        first_offset: first,
                    }));
                }
                Children::Nodes(links) => {
                    let Some(link) = links.get(child.index) else {
                        return Ok(None);
                    };
                    node = node_of(&link.branch, link.expected(node.level(), first))?;
                }
            }
        }
    }

    /// The entries from the one that shows `offset` on, in order.
    pub(crate) fn slabs_from<'t>(&'t self, source: &'t dyn NodeSource, offset: u64) -> TreeSlabs<'t> {
        TreeSlabs {
            tree: self,
            source,
            steps: Vec::new(),
            next_offset: offset,
            is_placed: false,
        }
    }

    /// What the tree demands of its root.
    pub(super) fn expected(&self) -> Expected {
        Expected {
            level: self.level,
            offset_count: self.offset_count,
            first_offset: 0,
        }
    }
}

/// An iterator over the entries of a tree. Where a node cannot be loaded it answers the error once, and goes on
/// behind the offsets that the node covers, so that damage hides nothing but itself.
#[derive(Debug)]
pub(crate) struct TreeSlabs<'t> {
    tree: &'t Tree,
    source: &'t dyn NodeSource,
    /// From the root down to the leaf of the next entry. Levels bound its length.
    steps: Vec<Step<'t>>,
    next_offset: u64,
    is_placed: bool,
}

#[derive(Debug)]
struct Step<'t> {
    node: &'t Node,
    next: usize,
    first_offset: u64,
}

impl<'t> TreeSlabs<'t> {
    /// The first offset that was not yet answered for: after an error, the first one behind the gap.
    #[cfg(test)]
    pub(crate) fn next_offset(&self) -> u64 {
        self.next_offset
    }

    /// Takes the root as the first step.
    fn place(&mut self) -> Result<(), TreeError> {
        self.is_placed = true;
        let Some(root) = &self.tree.root else {
            return Ok(());
        };
        if self.next_offset >= self.tree.offset_count {
            return Ok(());
        }
        match root.node(self.source, self.tree.expected()) {
            Ok(node) => self.descend(node, 0),
            Err(error) => {
                self.next_offset = self.tree.offset_count;
                return Err(error);
            }
        }
        Ok(())
    }

    fn descend(&mut self, node: &'t Node, first_offset: u64) {
        let child = node.child_at(self.next_offset.saturating_sub(first_offset));
        self.steps.push(Step {
            node,
            next: child.index,
            first_offset,
        });
    }

    fn advance(&mut self) -> Result<Option<PlacedSlab<'t>>, TreeError> {
        if !self.is_placed {
            self.place()?;
        }
        while let Some(step) = self.steps.last_mut() {
            let (node, index) = (step.node, step.next);
            step.next = index.saturating_add(1);
            let first_offset = step.first_offset.saturating_add(node.start_of(index));
            match node.children() {
                Children::Slabs(entries) => {
                    if let Some(entry) = entries.get(index) {
                        let placed = PlacedSlab { entry, first_offset };
                        self.next_offset = placed.end_offset();
                        return Ok(Some(placed));
                    }
                }
                Children::Nodes(links) => {
                    if let Some(link) = links.get(index) {
                        match link
                            .branch
                            .node(self.source, link.expected(node.level(), first_offset))
                        {
                            Ok(child) => self.descend(child, first_offset),
                            Err(error) => {
                                self.next_offset = first_offset.saturating_add(link.offset_count);
                                return Err(error);
                            }
                        }
                        continue;
                    }
                }
            }
            self.steps.pop();
        }
        Ok(None)
    }
}

impl<'t> Iterator for TreeSlabs<'t> {
    type Item = Result<PlacedSlab<'t>, TreeError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.advance().transpose()
    }
}
