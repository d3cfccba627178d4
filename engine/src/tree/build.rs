//! Trees from trees: pushing, cutting, replacing the last.
//!
//! Each function makes new nodes along one path and leaves the given tree as it was, also when it fails midway.

use std::sync::Arc;

use lanterman_format::{Histogram32, Histogram64};

use super::keys::with_keys_of;
use super::node::{Branch, Children, Expected, Link, Node};
use super::summary::scaled_histogram;
use super::{FAN_OUT, LEVEL_MAX, NodeSource, SlabEntry, Tree, TreeError};

/// What became of a node at whose right end something was to be put.
enum Grown {
    /// The node with the new entry in it.
    Replaced(Link),
    /// The node was full and stays; this one stands beside it.
    Beside(Link),
}

impl Tree {
    /// The tree with `entry` behind its last. `histogram` is of the sizes of the entry's messages.
    ///
    /// # Errors
    ///
    /// [`TreeError::NoOffsets`] if the entry shows none, [`TreeError::Full`] beyond 2^64 offsets, and errors of
    /// loading the nodes at the right edge.
    pub(crate) fn push(
        &self,
        source: &dyn NodeSource,
        entry: SlabEntry,
        histogram: &Histogram32,
    ) -> Result<Self, TreeError> {
        if entry.offset_count == 0 {
            return Err(TreeError::NoOffsets);
        }
        let offset_count = self
            .offset_count
            .checked_add(entry.offset_count)
            .ok_or(TreeError::Full)?;
        source.holds(SlabEntry::BYTES);
        let addition = Addition {
            entry,
            histogram: Histogram64::from(*histogram),
        };
        let Some(root) = &self.root else {
            return Ok(Self::over(addition.alone()?, 0, offset_count));
        };
        let node = root.node(source, self.expected())?;
        let level = node.level();
        let sibling = match addition.put(root, self.expected(), source)? {
            Grown::Replaced(link) => return Ok(Self::over(link, level, offset_count)),
            Grown::Beside(link) => link,
        };
        let level = level
            .checked_add(1)
            .filter(|level| *level <= LEVEL_MAX)
            .ok_or(TreeError::Full)?;
        let links = vec![self.root_link(root, node), sibling];
        let histogram = addition.added_to(node.histogram());
        let root = Node::over(level, Children::Nodes(links), histogram).ok_or(TreeError::Full)?;
        Ok(Self::over(Link::to(root), level, offset_count))
    }

    /// The first `offset_end` offsets of the tree. The last entry may show only a part of its slab afterwards. The
    /// histograms along the cut are estimates in proportion.
    ///
    /// # Errors
    ///
    /// Errors of loading the nodes along the cut.
    pub(crate) fn truncate_to(&self, source: &dyn NodeSource, offset_end: u64) -> Result<Self, TreeError> {
        let Some(root) = self.root.as_ref().filter(|_| offset_end < self.offset_count) else {
            return Ok(self.clone());
        };
        if offset_end == 0 {
            return Ok(Self::EMPTY);
        }
        let node = root.node(source, self.expected())?;
        let cut = cut(&self.root_link(root, node), self.expected(), source, offset_end)?;
        Self::over(cut, node.level(), offset_end).lowered(source)
    }

    pub(super) fn over(root: Link, level: u8, offset_count: u64) -> Self {
        Self {
            root: Some(root.branch),
            level: Some(level),
            offset_count,
        }
    }

    pub(super) fn root_link(&self, root: &Arc<Branch>, node: &Node) -> Link {
        Link {
            branch: Arc::clone(root),
            offset_count: self.offset_count,
            summary: *node.summary(),
            keys: None,
        }
    }
}

/// An entry on its way to the right end of a tree.
struct Addition {
    entry: SlabEntry,
    histogram: Histogram64,
}

impl Addition {
    /// Puts the entry at the right end of the node of `branch`.
    fn put(&self, branch: &Branch, expected: Expected, source: &dyn NodeSource) -> Result<Grown, TreeError> {
        let node = branch.node(source, expected)?;
        let level = node.level();
        let children = match node.children() {
            Children::Slabs(entries) if entries.len() >= FAN_OUT => return Ok(Grown::Beside(self.alone()?)),
            Children::Slabs(entries) => Children::Slabs(with_last(entries, self.entry.clone())),
            Children::Nodes(links) => {
                let Some((last, before)) = links.split_last() else {
                    return Err(TreeError::NoOffsets);
                };
                let first_offset = expected.first_offset.saturating_add(node.start_of(before.len()));
                match self.put(&last.branch, last.expected(level, first_offset), source)? {
                    Grown::Replaced(link) => Children::Nodes(with_last(before, link)),
                    Grown::Beside(link) if links.len() < FAN_OUT => Children::Nodes(with_last(links, link)),
                    Grown::Beside(link) => {
                        let children = Children::Nodes(vec![link]);
                        let node = Node::over(level, children, self.histogram).ok_or(TreeError::Full)?;
                        return Ok(Grown::Beside(Link::to(node)));
                    }
                }
            }
        };
        let keys = with_keys_of(node, &self.entry);
        let node = Node::over(level, children, self.added_to(node.histogram())).ok_or(TreeError::Full)?;
        Ok(Grown::Replaced(Link::to(node.with_keys(keys))))
    }

    /// A leaf with nothing but the entry.
    fn alone(&self) -> Result<Link, TreeError> {
        let children = Children::Slabs(vec![self.entry.clone()]);
        Ok(Link::to(
            Node::over(0, children, self.histogram).ok_or(TreeError::Full)?,
        ))
    }

    fn added_to(&self, histogram: &Histogram64) -> Histogram64 {
        let mut sum = *histogram;
        sum.merge(&self.histogram);
        sum
    }
}

/// The node of `link` with its first `keep` offsets, of which there is at least one.
fn cut(link: &Link, expected: Expected, source: &dyn NodeSource, keep: u64) -> Result<Link, TreeError> {
    // Asked of the link, so that a node that is kept whole need not be loaded, nor even be there.
    if keep >= link.offset_count {
        return Ok(link.clone());
    }
    let node = link.branch.node(source, expected)?;
    let last = node.child_at(keep.saturating_sub(1));
    let start = last.start;
    let keep_of_last = keep.saturating_sub(start);
    let children = match node.children() {
        Children::Slabs(entries) => {
            let (before, last) = split_at_child(entries, last.index)?;
            Children::Slabs(with_last(before, last.part(source, 0..keep_of_last)))
        }
        Children::Nodes(links) => {
            let (before, last) = split_at_child(links, last.index)?;
            let first_offset = expected.first_offset.saturating_add(start);
            let below = last.expected(node.level(), first_offset);
            let last = cut(last, below, source, keep_of_last)?;
            Children::Nodes(with_last(before, last))
        }
    };
    let whole = node.summary().messages;
    let cut = Node::over(node.level(), children, *node.histogram()).ok_or(TreeError::Full)?;
    let histogram = scaled_histogram(node.histogram(), cut.summary().messages, whole);
    Ok(Link::to(cut.with_histogram(histogram)))
}

fn split_at_child<T>(children: &[T], index: usize) -> Result<(&[T], &T), TreeError> {
    let before = children.get(..index);
    // The index came from `ends`, which are as many as the children; were they not, nothing is cut.
    before.zip(children.get(index)).ok_or(TreeError::NoOffsets)
}

fn with_last<T: Clone>(before: &[T], last: T) -> Vec<T> {
    let mut all = Vec::with_capacity(before.len().saturating_add(1));
    all.extend_from_slice(before);
    all.push(last);
    all
}
