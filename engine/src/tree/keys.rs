//! How many different keys a range holds, from the sketches that entries and links carry.
//!
//! Invariants:
//! - an entry or a link whose summary has bytes of keys has a sketch of them, or they are not known, as in what an earlier
//!   program wrote. The keys of a node are known if those of all its children are;
//! - a sketch has all keys that are shown. What was cut off a slab may still be in it where that was the smaller part.

use std::ops::{Range, RangeInclusive};

use lanterman_format::{KeySketch, KeySketchBuilder, Summary, weakened};

use super::node::{Children, Node};
use super::times::{Overlap, overlap};
use super::{NodeSource, SlabEntry, Tree, TreeError};

/// Keys that are being put together.
#[derive(Debug)]
pub(crate) struct KeyTally {
    keys: KeySketchBuilder,
    is_known: bool,
}

impl KeyTally {
    pub(crate) fn new() -> Self {
        KeyTally {
            keys: KeySketchBuilder::new(),
            is_known: true,
        }
    }

    pub(crate) fn insert(&mut self, key: &[u8]) {
        self.keys.insert(key);
    }

    /// About how many different keys there were; `None` if of some nobody knows.
    pub(crate) fn estimate(&self) -> Option<u64> {
        self.is_known.then(|| self.keys.estimate())
    }

    /// Adds the keys of what has that summary.
    fn add(&mut self, summary: &Summary, keys: &KeySketch) {
        self.is_known &= is_known(summary, keys);
        self.keys.merge(keys);
    }
}

fn is_known(summary: &Summary, keys: &KeySketch) -> bool {
    summary.key_bytes == 0 || !keys.is_empty()
}

/// The keys of all children; empty if those of one are not known.
pub(super) fn union_of(children: &Children) -> KeySketch {
    let mut tally = KeyTally::new();
    for index in 0..children.len() {
        if let Some((summary, keys)) = children.keys(index) {
            tally.add(&summary, &keys);
        }
    }
    match tally.is_known {
        true => tally.keys.finish(),
        false => KeySketch::EMPTY,
    }
}

/// The keys of a node and of an entry that is put into it or below it.
pub(super) fn with_keys_of(node: &Node, entry: &SlabEntry) -> KeySketch {
    let keys = node.keys();
    if !is_known(node.summary(), &keys) || !is_known(&entry.summary, &entry.keys) {
        return KeySketch::EMPTY;
    }
    if entry.keys.is_empty() || weakened!("pushed-keys-forgotten") {
        return keys;
    }
    let mut both = KeySketchBuilder::new();
    both.merge(&keys);
    both.merge(&entry.keys);
    both.finish()
}

impl Tree {
    /// Adds the keys of the offsets of `range`, as far as the tree has them. A slab of which a part is in the range is read.
    ///
    /// # Errors
    ///
    /// Errors of loading the nodes along the two ends of the range.
    pub(crate) fn add_keys(
        &self,
        source: &dyn NodeSource,
        range: Range<u64>,
        tally: &mut KeyTally,
    ) -> Result<(), TreeError> {
        let range = range.start..range.end.min(self.offset_count);
        match &self.root {
            Some(root) if !range.is_empty() => {
                tally.add_node(root.node(source, self.expected())?, 0, source, range)
            }
            _ => Ok(()),
        }
    }

    /// Adds the keys of entries with times in `times_ms`: all of an entry of which only a part of the time span lies in it.
    ///
    /// # Errors
    ///
    /// Errors of loading the nodes that are cut.
    pub(crate) fn add_keys_between(
        &self,
        source: &dyn NodeSource,
        times_ms: &RangeInclusive<i64>,
        tally: &mut KeyTally,
    ) -> Result<(), TreeError> {
        match &self.root {
            Some(root) => tally.add_node_between(root.node(source, self.expected())?, 0, source, times_ms),
            None => Ok(()),
        }
    }
}

impl KeyTally {
    /// Adds the keys of `range`, counted from the node's first offset and not empty; the node's offsets begin at
    /// `first_offset` of the tree.
    fn add_node(
        &mut self,
        node: &Node,
        first_offset: u64,
        source: &dyn NodeSource,
        range: Range<u64>,
    ) -> Result<(), TreeError> {
        if range.start == 0 && range.end >= node.offset_count() {
            self.add(node.summary(), &node.keys());
            return Ok(());
        }
        let first = node.child_at(range.start).index;
        for (index, end) in node.ends().iter().enumerate().skip(first) {
            let start = node.start_of(index);
            if start >= range.end {
                break;
            }
            let Some((summary, keys)) = node.children().keys(index) else {
                break;
            };
            let part =
                range.start.max(start).saturating_sub(start)..range.end.min(*end).saturating_sub(start);
            let is_whole = part.start == 0 && part.end == end.saturating_sub(start);
            match node.children() {
                _ if is_whole || summary.key_bytes == 0 => self.add(&summary, &keys),
                Children::Slabs(entries) => {
                    let entry = entries.get(index).filter(|_| !weakened!("cut-keys-unread"));
                    let read = entry.and_then(|entry| entry.read_keys(source, part));
                    self.add(&summary, read.as_ref().unwrap_or(&keys));
                }
                Children::Nodes(links) => {
                    let Some(link) = links.get(index) else { break };
                    let first_offset = first_offset.saturating_add(start);
                    let expected = link.expected(node.level(), first_offset);
                    self.add_node(link.branch.node(source, expected)?, first_offset, source, part)?;
                }
            }
        }
        Ok(())
    }

    fn add_node_between(
        &mut self,
        node: &Node,
        first_offset: u64,
        source: &dyn NodeSource,
        times_ms: &RangeInclusive<i64>,
    ) -> Result<(), TreeError> {
        match overlap(node.summary(), times_ms) {
            Overlap::None => return Ok(()),
            Overlap::Whole => {
                self.add(node.summary(), &node.keys());
                return Ok(());
            }
            Overlap::Part(..) => {}
        }
        for index in 0..node.children().len() {
            let Some((summary, keys)) = node.children().keys(index) else {
                break;
            };
            match (overlap(&summary, times_ms), node.links().get(index)) {
                (Overlap::None, _) => {}
                (Overlap::Part(..), Some(link)) => {
                    let first_offset = first_offset.saturating_add(node.start_of(index));
                    let expected = link.expected(node.level(), first_offset);
                    let child = link.branch.node(source, expected)?;
                    self.add_node_between(child, first_offset, source, times_ms)?;
                }
                _ => self.add(&summary, &keys),
            }
        }
        Ok(())
    }
}

impl SlabEntry {
    /// The keys of the part `part` of what is shown; `None` if it cannot be read.
    fn read_keys(&self, source: &dyn NodeSource, part: Range<u64>) -> Option<KeySketch> {
        let in_slab = self.skip.saturating_add(part.start)..self.skip.saturating_add(part.end);
        source.count(self.slab.as_deref()?, in_slab).map(|(_, keys)| keys)
    }
}
