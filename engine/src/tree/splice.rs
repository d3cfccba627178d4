//! Trees from parts of trees: cutting the front off, joining, deleting a range.
//!
//! A join goes down the right edge of the one tree and the left edge of the other and puts the nodes that meet there
//! together, level by level, so that what cuts have left of them becomes full nodes again. A node that is thin even so is
//! put together with one beside it.
//!
//! Invariants:
//! - only nodes at the left and the right edge of a tree may be thin, which is to have fewer than [`THIN`] children;
//! - a root has two children at least, and not two of which one would do.
//!
//! So a root at level `h` has at least `THIN`^(`h` - 2) entries below it, whatever was cut and joined before: its height,
//! and with it the work of every search and edit, is logarithmic in its entries. Nodes that cannot be loaded are left
//! as they are, thin or not, so that damage stands in the way of nothing but itself.

use std::ops::Range;
use std::sync::Arc;

use lanterman_format::{Histogram32, Histogram64, KeySketch, Summary, weakened};

use super::node::{Branch, Children, Expected, Link, Node};
use super::summary::{RangeSummary, scaled_histogram};
use super::{FAN_OUT, LEVEL_MAX, NodeSource, SlabEntry, Tree, TreeError};

/// A node with fewer children is put together with one beside it where it can be. A quarter, and not the half, so that
/// two halves of a full node may lose some children before anything has to be done again.
pub(super) const THIN: usize = FAN_OUT / 4;

/// A subtree at an edge that meets another one.
#[derive(Clone)]
struct Edge {
    link: Link,
    level: u8,
    expected: Expected,
}

/// What a seam became: one node, or two that stand beside each other, all at one level.
struct Seam {
    level: u8,
    links: Vec<Link>,
}

impl Tree {
    /// A tree of one entry.
    ///
    /// # Errors
    ///
    /// [`TreeError::NoOffsets`] if the entry shows none.
    pub(crate) fn of(entry: SlabEntry, histogram: &Histogram32) -> Result<Self, TreeError> {
        let offset_count = entry.offset_count;
        if offset_count == 0 {
            return Err(TreeError::NoOffsets);
        }
        let node = Node::over(0, Children::Slabs(vec![entry]), Histogram64::from(*histogram));
        let node = node.ok_or(TreeError::Full)?;
        Ok(Self::over(Link::to(node), 0, offset_count))
    }

    /// A tree of one run of deleted offsets; the empty one of none.
    pub(crate) fn deleted(offset_count: u64) -> Self {
        if offset_count == 0 {
            return Self::EMPTY;
        }
        let summary = Summary {
            deleted: offset_count,
            ..Summary::EMPTY
        };
        let entry = SlabEntry {
            offset_count,
            skip: 0,
            slab: None,
            summary,
            keys: KeySketch::EMPTY,
        };
        let node = Node::over(0, Children::Slabs(vec![entry]), Histogram64::default());
        node.map_or(Self::EMPTY, |node| Self::over(Link::to(node), 0, offset_count))
    }

    /// The offsets of `range`, as far as the tree has them. Entries at its ends may show only a part of their slabs.
    ///
    /// # Errors
    ///
    /// Errors of loading the nodes along the two cuts.
    pub(crate) fn slice(&self, source: &dyn NodeSource, range: Range<u64>) -> Result<Self, TreeError> {
        self.truncate_to(source, range.end)?
            .without_first(source, range.start)
    }

    fn without_first(&self, source: &dyn NodeSource, hidden: u64) -> Result<Self, TreeError> {
        let Some(edge) = self.edge(source)?.filter(|_| hidden > 0) else {
            return Ok(self.clone());
        };
        let Some(left) = self.offset_count.checked_sub(hidden).filter(|left| *left > 0) else {
            return Ok(Self::EMPTY);
        };
        let cut = cut_front(&edge.link, edge.expected, source, hidden)?;
        Self::over(cut, edge.level, left).lowered(source)
    }

    /// The offsets of this tree, and behind them those of `right`.
    ///
    /// # Errors
    ///
    /// [`TreeError::Full`] beyond 2^64 offsets, and errors of loading the nodes where the two meet.
    pub(crate) fn join(&self, source: &dyn NodeSource, right: &Self) -> Result<Self, TreeError> {
        let (left_edge, right_edge) = match (self.edge(source)?, right.edge(source)?) {
            (None, _) => return Ok(right.clone()),
            (_, None) => return Ok(self.clone()),
            (Some(left), Some(right)) => (left, right.behind(self.offset_count)),
        };
        let offset_count = self
            .offset_count
            .checked_add(right.offset_count)
            .ok_or(TreeError::Full)?;
        let seam = sew(&left_edge, &right_edge, source)?;
        if let [only] = seam.links.as_slice() {
            return Self::over(only.clone(), seam.level, offset_count).lowered(source);
        }
        let histogram = left_edge.histogram_with(&right_edge, source)?;
        let level = seam
            .level
            .checked_add(1)
            .filter(|level| *level <= LEVEL_MAX)
            .ok_or(TreeError::Full)?;
        let root = Node::over(level, Children::Nodes(seam.links), histogram).ok_or(TreeError::Full)?;
        Ok(Self::over(Link::to(root), level, offset_count))
    }

    /// The tree with the offsets of `range` deleted, and what they held.
    ///
    /// # Errors
    ///
    /// Errors of loading the nodes along the two ends of the range.
    pub(crate) fn delete(
        &self,
        source: &dyn NodeSource,
        range: Range<u64>,
    ) -> Result<(Self, RangeSummary), TreeError> {
        let range = range.start..range.end.min(self.offset_count);
        let held = self.summary(source, range.clone())?;
        if range.is_empty() {
            return Ok((self.clone(), held));
        }
        let run = Self::deleted(range.end.saturating_sub(range.start));
        let tree = self.replace(source, range, &run)?;
        Ok((tree, held))
    }

    /// The tree with `with` in the place of the offsets of `range`.
    ///
    /// # Errors
    ///
    /// Errors of loading the nodes along the two ends of the range.
    pub(crate) fn replace(
        &self,
        source: &dyn NodeSource,
        range: Range<u64>,
        with: &Self,
    ) -> Result<Self, TreeError> {
        let behind = self.without_first(source, range.end)?;
        self.truncate_to(source, range.start)?
            .join(source, with)?
            .join(source, &behind)
    }

    /// The whole tree as an edge; nothing of the empty one.
    fn edge(&self, source: &dyn NodeSource) -> Result<Option<Edge>, TreeError> {
        let Some(root) = &self.root else { return Ok(None) };
        let expected = self.expected();
        let node = root.node(source, expected)?;
        Ok(Some(Edge {
            link: self.root_link(root, node),
            level: node.level(),
            expected,
        }))
    }

    /// The same offsets under as low a root as the invariants demand: a cut may leave roots that have one child only, or
    /// two of which one would do.
    ///
    /// # Errors
    ///
    /// [`TreeError::Full`], which is not to be expected.
    pub(super) fn lowered(self, source: &dyn NodeSource) -> Result<Self, TreeError> {
        let mut tree = self.without_lone_roots();
        while let Some(merged) = tree.with_one_child(source)? {
            tree = merged.without_lone_roots();
        }
        Ok(tree)
    }

    fn without_lone_roots(mut self) -> Self {
        while let Some(Children::Nodes(links)) =
            self.root.as_deref().and_then(Branch::loaded).map(Node::children)
            && let [only] = links.as_slice()
        {
            let branch = Arc::clone(&only.branch);
            self.level = self.level.and_then(|level| level.checked_sub(1));
            self.root = Some(branch);
        }
        self
    }

    /// The tree with the two children of its root as its root, if they fit into one node.
    fn with_one_child(&self, source: &dyn NodeSource) -> Result<Option<Self>, TreeError> {
        let root = self.root.as_deref().and_then(Branch::loaded);
        let has_two = root.is_some_and(|root| root.level() > 0 && root.children().len() == 2);
        if !has_two || weakened!("high-roots") {
            return Ok(None);
        }
        let Some(edge) = self.edge(source)? else {
            return Ok(None);
        };
        let children = [edge.child(source, 0), edge.child(source, 1)];
        let [Ok(left), Ok(right)] = children else {
            return Ok(None);
        };
        // The two children that meet may become one.
        let fits = match (left.node(source), right.node(source)) {
            (Ok(left), Ok(right)) => left.children().len() + right.children().len() <= FAN_OUT + 1,
            _ => false,
        };
        if !fits {
            return Ok(None);
        }
        let Some(seam) = unless_unreadable(sew(&left, &right, source))? else {
            return Ok(None);
        };
        Ok(match seam.links.as_slice() {
            [only] => Some(Self::over(only.clone(), seam.level, self.offset_count)),
            _ => None,
        })
    }
}

impl Edge {
    fn node(&self, source: &dyn NodeSource) -> Result<&Node, TreeError> {
        self.link.branch.node(source, self.expected)
    }

    /// The same where its tree stands behind `offset_count` offsets.
    fn behind(mut self, offset_count: u64) -> Self {
        self.expected.first_offset = self.expected.first_offset.saturating_add(offset_count);
        self
    }

    /// A node at the level of the children of `self`, made to stand at `first_offset`.
    fn of_child(&self, link: &Link, first_offset: u64) -> Self {
        Edge {
            link: link.clone(),
            level: self.level.saturating_sub(1),
            expected: link.expected(self.level, first_offset),
        }
    }

    /// The child at `index` of the node, which is at a level above 0.
    fn child(&self, source: &dyn NodeSource, index: usize) -> Result<Edge, TreeError> {
        let node = self.node(source)?;
        let link = node.links().get(index).ok_or(TreeError::NoOffsets)?;
        let first_offset = self.expected.first_offset.saturating_add(node.start_of(index));
        Ok(self.of_child(link, first_offset))
    }

    fn histogram_with(&self, other: &Edge, source: &dyn NodeSource) -> Result<Histogram64, TreeError> {
        let mut histogram = *self.node(source)?.histogram();
        histogram.merge(other.node(source)?.histogram());
        Ok(histogram)
    }

    /// The edge's node under nodes of one child each, at `level`.
    fn raised(&self, level: u8, source: &dyn NodeSource) -> Result<Link, TreeError> {
        let mut link = self.link.clone();
        for level in self.level.saturating_add(1)..=level {
            // Known of what is in memory; of others nothing but that it is not known.
            let loaded = self.node(source).map(|node| *node.histogram());
            let node = Node::over(level, Children::Nodes(vec![link]), loaded.unwrap_or_default());
            link = Link::to(node.ok_or(TreeError::Full)?);
        }
        Ok(link)
    }
}

/// Nothing where a node could not be loaded.
fn unless_unreadable<T>(result: Result<T, TreeError>) -> Result<Option<T>, TreeError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(TreeError::Full) => Err(TreeError::Full),
        Err(_) => Ok(None),
    }
}

/// Puts two subtrees side by side.
fn sew(left: &Edge, right: &Edge, source: &dyn NodeSource) -> Result<Seam, TreeError> {
    let (left_node, right_node) = (left.node(source)?, right.node(source)?);
    let histogram = left.histogram_with(right, source)?;
    if let (Children::Slabs(left), Children::Slabs(right)) = (left_node.children(), right_node.children()) {
        return pack(0, &coalesced(left, right), &histogram, Children::Slabs);
    }
    let level = left.level.max(right.level);
    // What meets below, and what stands beside it.
    let (lower_left, before) = match left.level < level {
        true => (left.clone(), [].as_slice()),
        false => {
            let last = left_node.children().len().saturating_sub(1);
            (
                left.child(source, last)?,
                left_node.links().get(..last).unwrap_or_default(),
            )
        }
    };
    let (lower_right, behind) = match right.level < level {
        true => (right.clone(), [].as_slice()),
        false => (
            right.child(source, 0)?,
            right_node.links().get(1..).unwrap_or_default(),
        ),
    };
    let parent = Edge {
        level,
        ..left.clone()
    };
    let below = level.saturating_sub(1);
    let seam = sew(&lower_left, &lower_right, source);
    let row = match unless_unreadable(seam)? {
        Some(seam) => Row {
            before,
            first_offset: lower_left.expected.first_offset,
            seam: seam.links,
            behind,
        }
        .thickened(&parent, source)?,
        None => {
            let met = [
                lower_left.raised(below, source)?,
                lower_right.raised(below, source)?,
            ];
            [before, &met, behind].concat()
        }
    };
    pack(level, &row, &histogram, Children::Nodes)
}

/// The children of a node to be: those before the seam, the seam, and those behind it.
struct Row<'a> {
    before: &'a [Link],
    /// Where the seam begins.
    first_offset: u64,
    seam: Vec<Link>,
    behind: &'a [Link],
}

impl Row<'_> {
    /// The children, in order; a thin seam put together with what stands beside it.
    fn thickened(mut self, parent: &Edge, source: &dyn NodeSource) -> Result<Vec<Link>, TreeError> {
        if let Some(seam) = self.thin()
            && let Some((next, rest)) = self.behind.split_first()
        {
            let next_first = self.first_offset.saturating_add(seam.offset_count);
            let seam = parent.of_child(seam, self.first_offset);
            let next = parent.of_child(next, next_first);
            if let Some(sewn) = unless_unreadable(sew(&seam, &next, source))? {
                (self.seam, self.behind) = (sewn.links, rest);
            }
        }
        if let Some(seam) = self.thin()
            && let Some((last, rest)) = self.before.split_last()
        {
            let last_first = self.first_offset.saturating_sub(last.offset_count);
            let seam = parent.of_child(seam, self.first_offset);
            let last = parent.of_child(last, last_first);
            if let Some(sewn) = unless_unreadable(sew(&last, &seam, source))? {
                (self.seam, self.before) = (sewn.links, rest);
            }
        }
        Ok([self.before, &self.seam, self.behind].concat())
    }

    /// The seam, if it is one node and thin.
    fn thin(&self) -> Option<&Link> {
        match self.seam.as_slice() {
            [only] if only.branch.loaded()?.children().len() < THIN && !weakened!("thin-seams") => Some(only),
            _ => None,
        }
    }
}

/// The entries of two leaves, two runs of deleted offsets that meet as one.
fn coalesced(left: &[SlabEntry], right: &[SlabEntry]) -> Vec<SlabEntry> {
    let mut all = [left, right].concat();
    if let (Some(last), Some(first)) = (left.last(), right.first())
        && last.slab.is_none()
        && first.slab.is_none()
    {
        let mut run = last.clone();
        run.offset_count = run.offset_count.saturating_add(first.offset_count);
        run.summary.merge(&first.summary);
        let at = left.len().saturating_sub(1);
        all.splice(at..=at.saturating_add(1), [run]);
    }
    all
}

/// One node over the children, or two of about the same size.
fn pack<T: Clone>(
    level: u8,
    children: &[T],
    histogram: &Histogram64,
    wrap: impl Fn(Vec<T>) -> Children,
) -> Result<Seam, TreeError> {
    let node = |part: &[T]| Node::over(level, wrap(part.to_vec()), *histogram).ok_or(TreeError::Full);
    if children.len() <= FAN_OUT {
        let links = vec![Link::to(node(children)?)];
        return Ok(Seam { level, links });
    }
    let (front, back) = children.split_at(children.len() / 2);
    let (front, back) = (node(front)?, node(back)?);
    let messages = front.summary().messages.saturating_add(back.summary().messages);
    let links = [front, back].map(|part| {
        let share = scaled_histogram(histogram, part.summary().messages, messages);
        Link::to(part.with_histogram(share))
    });
    Ok(Seam {
        level,
        links: links.into(),
    })
}

/// The node of `link` without its first `hidden` offsets, which are not all.
fn cut_front(
    link: &Link,
    expected: Expected,
    source: &dyn NodeSource,
    hidden: u64,
) -> Result<Link, TreeError> {
    if hidden == 0 {
        return Ok(link.clone());
    }
    let node = link.branch.node(source, expected)?;
    let first = node.child_at(hidden);
    let hidden_of_first = hidden.saturating_sub(first.start);
    let behind = first.index.saturating_add(1);
    let children = match node.children() {
        Children::Slabs(entries) => {
            let entry = entries.get(first.index).ok_or(TreeError::NoOffsets)?;
            let shortened = entry.part(source, hidden_of_first..entry.offset_count);
            Children::Slabs([&[shortened], entries.get(behind..).unwrap_or_default()].concat())
        }
        Children::Nodes(links) => {
            let link = links.get(first.index).ok_or(TreeError::NoOffsets)?;
            let first_offset = expected.first_offset.saturating_add(first.start);
            let cut = cut_front(
                link,
                link.expected(node.level(), first_offset),
                source,
                hidden_of_first,
            )?;
            Children::Nodes([&[cut], links.get(behind..).unwrap_or_default()].concat())
        }
    };
    let whole = node.summary().messages;
    let cut = Node::over(node.level(), children, *node.histogram()).ok_or(TreeError::Full)?;
    let histogram = scaled_histogram(node.histogram(), cut.summary().messages, whole);
    Ok(Link::to(cut.with_histogram(histogram)))
}
