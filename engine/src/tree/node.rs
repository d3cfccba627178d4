//! Nodes in memory.

use std::ops::Range;
use std::sync::Arc;

use lanterman_format::{Histogram64, KeySketch, Reference, Summary};

use crate::atomics::OnceLock;

use super::keys::union_of;
use super::{FAN_OUT, NodeSource, SlabEntry, TreeError, load};

/// A node wherever it is. Trees share branches, so that what one of them loads or writes is loaded or written for
/// all.
#[derive(Debug)]
pub(super) enum Branch {
    /// On the disk, and in memory once it was needed. Boxed, because of most only the reference is ever needed.
    OnDisk {
        reference: Reference,
        node: OnceLock<Box<Node>>,
    },
    /// Made here, and on the disk once a checkpoint wrote it.
    Made {
        node: Box<Node>,
        reference: OnceLock<Reference>,
    },
}

/// A node. It never changes.
#[derive(Debug)]
pub(super) struct Node {
    level: u8,
    /// Where each child ends, in offsets from the node's first. Apart from the children, because a search reads only
    /// these: sixteen cache lines and not a hundred.
    ends: Vec<u64>,
    children: Children,
    summary: Summary,
    histogram: Histogram64,
    /// The keys of all children, put together when somebody asks.
    keys: OnceLock<KeySketch>,
}

/// The children of a node.
#[derive(Debug)]
pub(super) enum Children {
    Slabs(Vec<SlabEntry>),
    Nodes(Vec<Link>),
}

/// A child that is a node, with its summary, so that it need not be loaded to be counted.
#[derive(Debug, Clone)]
pub(super) struct Link {
    pub(super) branch: Arc<Branch>,
    pub(super) offset_count: u64,
    pub(super) summary: Summary,
    /// What the node over it says of its keys; `None` of a node that was made here or is in memory as a root, which is
    /// asked itself.
    pub(super) keys: Option<KeySketch>,
}

/// What the place of a node demands of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected {
    /// `None` for a root of which only the reference is known.
    pub(super) level: Option<u8>,
    pub(super) offset_count: u64,
    /// Where the node's offsets begin in the tree. Nothing in a node says so, and whoever misses it wants to know.
    pub(super) first_offset: u64,
}

/// A child found by an offset.
#[derive(Debug)]
pub(super) struct Child {
    pub(super) index: usize,
    /// The first offset of the child, from the node's first.
    pub(super) start: u64,
}

impl Branch {
    pub(super) fn on_disk(reference: Reference) -> Arc<Self> {
        Arc::new(Self::OnDisk {
            reference,
            node: OnceLock::new(),
        })
    }

    pub(super) fn made(node: Node) -> Arc<Self> {
        Self::holding(node, None)
    }

    /// The node, with its place if it is on the disk too.
    pub(super) fn holding(node: Node, place: Option<Reference>) -> Arc<Self> {
        let reference = OnceLock::new();
        if let Some(place) = place {
            reference.get_or_init(|| place);
        }
        Arc::new(Self::Made {
            node: Box::new(node),
            reference,
        })
    }

    /// Where the node is on the disk, if it is.
    pub(super) fn reference(&self) -> Option<Reference> {
        match self {
            Self::OnDisk { reference, .. } => Some(*reference),
            Self::Made { reference, .. } => reference.get().copied(),
        }
    }

    /// Notes where the node was written. If it was written twice, the first place stands.
    pub(super) fn remember(&self, place: Reference) {
        if let Self::Made { reference, .. } = self {
            reference.get_or_init(|| place);
        }
    }

    /// The node, if it is in memory.
    #[inline]
    pub(super) fn loaded(&self) -> Option<&Node> {
        match self {
            Self::OnDisk { node, .. } => node.get().map(|node| &**node),
            Self::Made { node, .. } => Some(node),
        }
    }

    /// The node, loaded if need be. Threads that come together load it each, and the first is kept: no lock is held
    /// while the source works. A failure is not remembered.
    #[inline]
    pub(super) fn node(&self, source: &dyn NodeSource, expected: Expected) -> Result<&Node, TreeError> {
        match self {
            Self::Made { node, .. } => Ok(node),
            Self::OnDisk { reference, node } => match node.get() {
                Some(node) => Ok(node),
                None => {
                    let loaded = load::load(source, reference, expected)
                        .map_err(|error| error.within(expected.offsets()))?;
                    source.holds(loaded.bytes());
                    Ok(node.get_or_init(|| Box::new(loaded)))
                }
            },
        }
    }
}

impl Node {
    /// A node of what was read, after all of it was checked.
    pub(super) fn checked(
        level: u8,
        ends: Vec<u64>,
        children: Children,
        summary: Summary,
        histogram: Histogram64,
    ) -> Self {
        Self {
            level,
            ends,
            children,
            summary,
            histogram,
            keys: OnceLock::new(),
        }
    }

    /// A node over `children`, at the level that they demand, or `None` if there are none, too many, or more
    /// offsets than 64 bits can count.
    pub(super) fn over(level: u8, children: Children, histogram: Histogram64) -> Option<Self> {
        let mut ends = Vec::with_capacity(children.len());
        let mut summary = Summary::default();
        let mut end = 0_u64;
        for (offset_count, part) in (0..children.len()).filter_map(|index| children.count(index)) {
            end = end.checked_add(offset_count)?;
            ends.push(end);
            summary.merge(&part);
        }
        let is_sound = !ends.is_empty() && ends.len() <= FAN_OUT;
        is_sound.then_some(Self {
            level,
            ends,
            children,
            summary,
            histogram,
            keys: OnceLock::new(),
        })
    }

    /// The node with another histogram, for one that is not shared yet.
    pub(super) fn with_histogram(self, histogram: Histogram64) -> Self {
        Self { histogram, ..self }
    }

    /// The node, of which the keys are known already.
    pub(super) fn with_keys(self, keys: KeySketch) -> Self {
        self.keys.get_or_init(|| keys);
        self
    }

    /// About how much memory it takes, the handles of its slabs included.
    fn bytes(&self) -> usize {
        let child = match &self.children {
            Children::Slabs(_) => SlabEntry::BYTES,
            Children::Nodes(_) => size_of::<Link>().saturating_add(size_of::<Branch>()),
        };
        let children = self
            .ends
            .len()
            .saturating_mul(child.saturating_add(size_of::<u64>()));
        size_of::<Self>().saturating_add(children)
    }

    pub(super) fn level(&self) -> u8 {
        self.level
    }

    pub(super) fn ends(&self) -> &[u64] {
        &self.ends
    }

    pub(super) fn children(&self) -> &Children {
        &self.children
    }

    /// The children of a node above level 0; none of a leaf.
    pub(super) fn links(&self) -> &[Link] {
        match &self.children {
            Children::Nodes(links) => links,
            Children::Slabs(_) => &[],
        }
    }

    pub(super) fn summary(&self) -> &Summary {
        &self.summary
    }

    pub(super) fn histogram(&self) -> &Histogram64 {
        &self.histogram
    }

    /// The keys of all children; empty if those of one are not known.
    pub(super) fn keys(&self) -> KeySketch {
        if self.summary.key_bytes == 0 {
            return KeySketch::EMPTY;
        }
        self.keys.get_or_init(|| union_of(&self.children)).clone()
    }

    pub(super) fn offset_count(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    /// Where child `index` begins.
    pub(super) fn start_of(&self, index: usize) -> u64 {
        index
            .checked_sub(1)
            .and_then(|before| self.ends.get(before))
            .copied()
            .unwrap_or(0)
    }

    /// The child that covers `offset`, counted from the node's first; behind the last if none does.
    #[inline]
    pub(super) fn child_at(&self, offset: u64) -> Child {
        let index = self.ends.partition_point(|end| *end <= offset);
        Child {
            index,
            start: self.start_of(index),
        }
    }
}

impl Children {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Slabs(entries) => entries.len(),
            Self::Nodes(links) => links.len(),
        }
    }

    /// Summary and keys of child `index`.
    pub(super) fn keys(&self, index: usize) -> Option<(Summary, KeySketch)> {
        match self {
            Self::Slabs(entries) => entries
                .get(index)
                .map(|entry| (entry.summary, entry.keys.clone())),
            Self::Nodes(links) => links.get(index).map(|link| (link.summary, link.keys())),
        }
    }

    /// Offsets and summary of child `index`.
    fn count(&self, index: usize) -> Option<(u64, Summary)> {
        match self {
            Self::Slabs(entries) => entries
                .get(index)
                .map(|entry| (entry.offset_count, entry.summary)),
            Self::Nodes(links) => links.get(index).map(|link| (link.offset_count, link.summary)),
        }
    }
}

impl Link {
    /// A link to a node in memory.
    pub(super) fn to(node: Node) -> Self {
        let (offset_count, summary) = (node.offset_count(), node.summary);
        Self {
            branch: Branch::made(node),
            offset_count,
            summary,
            keys: None,
        }
    }

    /// The keys of the child; empty though it has some if they are not known. Nothing is loaded for them.
    pub(super) fn keys(&self) -> KeySketch {
        match &self.keys {
            Some(keys) => keys.clone(),
            None => self.branch.loaded().map(Node::keys).unwrap_or_default(),
        }
    }

    /// What a child of a node at `parent_level` must be whose offsets begin at `first_offset` of the tree.
    pub(super) fn expected(&self, parent_level: u8, first_offset: u64) -> Expected {
        // A node at level 0 has no links, so that the level never wraps.
        Expected {
            level: Some(parent_level.saturating_sub(1)),
            offset_count: self.offset_count,
            first_offset,
        }
    }
}

impl Expected {
    /// The offsets of the tree that nobody finds without the node.
    fn offsets(&self) -> Range<u64> {
        self.first_offset..self.first_offset.saturating_add(self.offset_count)
    }
}
