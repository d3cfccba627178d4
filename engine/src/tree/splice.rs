//! Trees from parts of trees: cutting the front off, joining, deleting a range.
//!
//! A join goes down the right edge of the one tree and the left edge of the other and puts the nodes that meet there
//! together, level by level, so that what cuts have left of them becomes full nodes again. Nothing else is loaded or
//! copied. The height of the whole is at most that of the higher part and one.

use std::ops::Range;

use lanterman_format::{Histogram32, Histogram64, Summary};

use super::node::{Children, Expected, Link, Node};
use super::summary::{RangeSummary, scaled_histogram, scaled_summary};
use super::{FAN_OUT, LEVEL_MAX, NodeSource, SlabEntry, Tree, TreeError};

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
        };
        let node = Node::over(0, Children::Slabs(vec![entry]), Histogram64::default());
        node.map_or(Self::EMPTY, |node| Self::over(Link::to(node), 0, offset_count))
    }

    /// The offsets of `range`, as far as the tree has them. Entries at its ends may show only a part of their slabs; what
    /// is known of their sizes is then an estimate in proportion.
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
        Ok(Self::over(cut, edge.level, left).without_lone_roots())
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
            (Some(left), Some(right)) => (left, right),
        };
        let offset_count = self
            .offset_count
            .checked_add(right.offset_count)
            .ok_or(TreeError::Full)?;
        let seam = sew(&left_edge, &right_edge, source)?;
        if let [only] = seam.links.as_slice() {
            return Ok(Self::over(only.clone(), seam.level, offset_count).without_lone_roots());
        }
        let mut histogram = Histogram64::default();
        for edge in [&left_edge, &right_edge] {
            histogram.merge(edge.node(source)?.histogram());
        }
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
}

impl Edge {
    fn node(&self, source: &dyn NodeSource) -> Result<&Node, TreeError> {
        self.link.branch.node(source, self.expected)
    }

    /// The child at `index` of the node, which is at a level above 0.
    fn child(&self, node: &Node, index: usize) -> Result<Edge, TreeError> {
        let Children::Nodes(links) = node.children() else {
            return Err(TreeError::NoOffsets);
        };
        let link = links.get(index).ok_or(TreeError::NoOffsets)?;
        let first_offset = self.expected.first_offset.saturating_add(node.start_of(index));
        Ok(Edge {
            link: link.clone(),
            level: node.level().saturating_sub(1),
            expected: link.expected(node.level(), first_offset),
        })
    }
}

/// Puts two subtrees side by side.
fn sew(left: &Edge, right: &Edge, source: &dyn NodeSource) -> Result<Seam, TreeError> {
    let (left_node, right_node) = (left.node(source)?, right.node(source)?);
    let mut histogram = *left_node.histogram();
    histogram.merge(right_node.histogram());
    let level = left.level.max(right.level);
    let children = match (left_node.children(), right_node.children()) {
        (Children::Slabs(left), Children::Slabs(right)) => {
            return pack(level, &coalesced(left, right), &histogram, Children::Slabs);
        }
        (Children::Nodes(before), _) if left.level > right.level => {
            let last = before.len().saturating_sub(1);
            let seam = sew(&left.child(left_node, last)?, right, source)?;
            [before.get(..last).unwrap_or_default(), &seam.links].concat()
        }
        (_, Children::Nodes(behind)) if right.level > left.level => {
            let seam = sew(left, &right.child(right_node, 0)?, source)?;
            [&seam.links, behind.get(1..).unwrap_or_default()].concat()
        }
        (Children::Nodes(before), Children::Nodes(behind)) => {
            let last = before.len().saturating_sub(1);
            let seam = sew(
                &left.child(left_node, last)?,
                &right.child(right_node, 0)?,
                source,
            )?;
            let before = before.get(..last).unwrap_or_default();
            [before, &seam.links, behind.get(1..).unwrap_or_default()].concat()
        }
        // Levels and kinds of children were compared when the nodes were loaded.
        _ => return Err(TreeError::NoOffsets),
    };
    pack(level, &children, &histogram, Children::Nodes)
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
            let shortened = entry.without_first(hidden_of_first);
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

impl SlabEntry {
    /// The entry without its first `hidden` offsets.
    fn without_first(&self, hidden: u64) -> Self {
        let offset_count = self.offset_count.saturating_sub(hidden);
        let skip = if self.slab.is_some() { hidden } else { 0 };
        Self {
            offset_count,
            skip: self.skip.saturating_add(skip),
            slab: self.slab.clone(),
            summary: scaled_summary(&self.summary, offset_count, self.offset_count),
        }
    }
}
