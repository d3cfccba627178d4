//! Nodes from the disk: decoded, checked against their place, and only then believed.

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

use lanterman_format::buffer::ValueType;
use lanterman_format::weakened;
use lanterman_format::{
    KeySketch, KeySketchBuilder, NodeEntry, NodeParts, Reference, StoreId, Structure, Summary, node,
};

use super::node::{Branch, Children, Expected, Link, Node};
use super::{FAN_OUT, LEVEL_MAX, NodeRule, SlabEntry, TreeError};
use crate::slab::{ReadContext, SlabError, SlabHandle, SlabMemory, SlabSource, Verify, check_block, lost};

/// Gives nodes for references. Every [`SlabSource`] is one.
pub(crate) trait NodeSource: Send + Sync + Debug {
    /// The node at `reference`: its bytes decoded, every checksum of it compared, and the header that of the
    /// reference. Whether it fits the tree is checked by the tree.
    ///
    /// # Errors
    ///
    /// [`TreeError::Fetch`] if the bytes cannot be had, [`TreeError::Damaged`] if they are not a node.
    fn load_node(&self, reference: &Reference) -> Result<NodeParts, TreeError>;

    /// Told of memory that a tree holds from now on, in bytes.
    fn holds(&self, bytes: usize);

    /// What the offsets `offsets` of a slab, counted from its first, hold, found by reading them, and their keys; `None` if
    /// they cannot be read.
    fn count(&self, slab: &SlabHandle, offsets: Range<u64>) -> Option<(Summary, KeySketch)>;
}

impl<S: SlabSource> NodeSource for S {
    fn load_node(&self, reference: &Reference) -> Result<NodeParts, TreeError> {
        let store = self.store_id();
        // Nodes are small. What claims to be more is not worth being read again at each attempt.
        let most = node::encoded_bytes_max(FAN_OUT) as u64;
        if reference.bytes.get() > most && !weakened!("length-believed") {
            return Err(TreeError::Damaged {
                reference: Box::new(*reference),
                error: crate::rules::too_long(Structure::Node, most, reference.bytes.get()),
            });
        }
        let bytes = self.open(reference)?;
        let range = 0..bytes.len();
        bytes
            .prepare(range.clone())
            .map_err(|error| SlabError::read(reference, range, error))?;
        let decoded = decode_node(bytes.as_slice(), store, reference);
        lost(&bytes, reference, 0..bytes.len())?;
        match decoded {
            // As with slabs, a map may hold a page from before the node was written.
            Err(TreeError::Damaged { .. }) if bytes.memory() == SlabMemory::Mapped => {
                decode_node(self.reread(reference)?.as_slice(), store, reference)
            }
            decoded => decoded,
        }
    }

    fn holds(&self, bytes: usize) {
        SlabSource::holds(self, bytes);
    }

    fn count(&self, slab: &SlabHandle, offsets: Range<u64>) -> Option<(Summary, KeySketch)> {
        let mut summary = Summary::EMPTY;
        let mut keys = KeySketchBuilder::new();
        if weakened!("parts-estimated") {
            return None;
        }
        if offsets.is_empty() {
            return Some((summary, KeySketch::EMPTY));
        }
        let source: &dyn SlabSource = self;
        let context = ReadContext {
            source,
            verify: Verify::Once,
        };
        let opened = slab.open(source).ok()?.share();
        // In one piece, and not page by page as the walk comes to them.
        opened.bring_in(offsets.clone(), context).ok()?;
        let mut buffers = opened.buffers(offsets.clone(), context);
        while let Some(walked) = buffers.next().ok()? {
            if walked.buffer.value_type() != ValueType::TOMBSTONES {
                summary.add_buffer(&walked.buffer);
                walked.buffer.key().into_iter().for_each(|key| keys.insert(key));
                continue;
            }
            // A run that may begin before the offsets, or end behind them.
            let first = walked.relative_offset.max(offsets.start);
            let end = walked.relative_offset.saturating_add(walked.buffer.count());
            summary.add_deleted(end.min(offsets.end).saturating_sub(first));
        }
        Some((summary, keys.finish()))
    }
}

/// Decodes the bytes of the node at `reference` and compares them with it.
///
/// # Errors
///
/// [`TreeError::Damaged`] with the rule that the bytes break.
pub(crate) fn decode_node(
    bytes: &[u8],
    store: StoreId,
    reference: &Reference,
) -> Result<NodeParts, TreeError> {
    let decoded = check_block(bytes, store, reference)
        .and_then(|()| node::decode(bytes, &reference.place(store)).into_result(Structure::Node));
    decoded.map_err(|error| TreeError::Damaged {
        reference: Box::new(*reference),
        error,
    })
}

/// Loads the node at `reference` and checks that it may stand where its parent has it.
pub(super) fn load(
    source: &dyn NodeSource,
    reference: &Reference,
    expected: Expected,
) -> Result<Node, TreeError> {
    let parts = source.load_node(reference)?;
    let rule = |rule, expected, found| Err(TreeError::rule(reference, rule, expected, found));
    // Levels first: that they fall at each step is what ends every descent, whatever the references say.
    let level_wanted = expected.level.unwrap_or(parts.level);
    let fits = parts.level == level_wanted && parts.level <= LEVEL_MAX;
    if !fits && !weakened!("level-unchecked") {
        return rule(NodeRule::Level, u64::from(level_wanted), u64::from(parts.level));
    }
    let count = parts.entries.len();
    if count == 0 || count > FAN_OUT {
        return rule(NodeRule::EntryCount, FAN_OUT as u64, count as u64);
    }
    let ends: Vec<u64> = parts.entries.iter().map(|entry| entry.offset_end).collect();
    let mut before = 0;
    for end in &ends {
        if *end <= before {
            return rule(NodeRule::OffsetEnd, before.saturating_add(1), *end);
        }
        before = *end;
    }
    if before != expected.offset_count {
        return rule(NodeRule::OffsetCount, expected.offset_count, before);
    }
    let children = match parts.level {
        0 => Children::Slabs(slabs(reference, &parts.entries)?),
        _ => Children::Nodes(links(reference, &parts.entries)?),
    };
    Ok(Node::checked(
        parts.level,
        ends,
        children,
        parts.summary,
        parts.histogram,
    ))
}

fn slabs(reference: &Reference, entries: &[NodeEntry]) -> Result<Vec<SlabEntry>, TreeError> {
    counted(entries)
        .map(|(entry, offset_count)| {
            if entry.skip.checked_add(offset_count).is_none() {
                let skip_max = u64::MAX.saturating_sub(offset_count);
                return Err(TreeError::rule(reference, NodeRule::Skip, skip_max, entry.skip));
            }
            let slab = (!entry.reference.is_empty()).then(|| Arc::new(SlabHandle::new(entry.reference)));
            Ok(SlabEntry {
                offset_count,
                skip: entry.skip,
                slab,
                summary: entry.summary,
                keys: entry.keys.clone(),
            })
        })
        .collect()
}

fn links(reference: &Reference, entries: &[NodeEntry]) -> Result<Vec<Link>, TreeError> {
    counted(entries)
        .map(|(entry, offset_count)| {
            if entry.skip != 0 {
                return Err(TreeError::rule(reference, NodeRule::Skip, 0, entry.skip));
            }
            if entry.reference.is_empty() {
                return Err(TreeError::rule(reference, NodeRule::Child, 1, 2));
            }
            let branch = Branch::on_disk(entry.reference);
            Ok(Link {
                branch,
                offset_count,
                summary: entry.summary,
                keys: Some(entry.keys.clone()),
            })
        })
        .collect()
}

/// Each entry with how many offsets it shows. The ends were checked to rise.
fn counted(entries: &[NodeEntry]) -> impl Iterator<Item = (&NodeEntry, u64)> {
    let starts = std::iter::once(0).chain(entries.iter().map(|entry| entry.offset_end));
    entries
        .iter()
        .zip(starts)
        .map(|(entry, start)| (entry, entry.offset_end.saturating_sub(start)))
}
