//! Which blocks a tree reaches: its nodes and slabs on the disk, found without keeping what is read for it.

use std::ops::Range;

use lanterman_format::{NodeParts, Reference, ReferenceKind};

use super::node::{Branch, Children, Expected};
use super::{LEVEL_MAX, NodeRule, NodeSource, Tree, TreeError};

/// Takes up blocks that something reaches.
pub(crate) trait Reach {
    /// Takes up a node; `false` if it was taken up before, and with it all that it reaches.
    fn node(&mut self, reference: &Reference) -> bool;
    /// Takes up a slab.
    fn slab(&mut self, reference: &Reference);
}

impl Tree {
    /// Tells `reach` every block of the tree.
    ///
    /// # Errors
    ///
    /// Errors of loading nodes: what they reach is then unknown.
    pub(crate) fn reach(&self, source: &dyn NodeSource, reach: &mut dyn Reach) -> Result<(), TreeError> {
        match &self.root {
            Some(root) => reach_branch(root, source, reach, LEVEL_MAX),
            None => Ok(()),
        }
    }
}

impl Tree {
    /// The blocks on the disk that hold something of `range`: slabs, and where `range` covers all of a node, that node in
    /// the place of what it reaches. Their number grows with the height of the tree, not with the range.
    ///
    /// # Errors
    ///
    /// Errors of loading the nodes along the two ends of the range.
    pub(crate) fn blocks(
        &self,
        source: &dyn NodeSource,
        range: Range<u64>,
    ) -> Result<Vec<Reference>, TreeError> {
        let mut blocks = Vec::new();
        let range = range.start..range.end.min(self.offset_count);
        if let Some(root) = &self.root
            && !range.is_empty()
        {
            collect_blocks(root, self.expected(), source, range, &mut blocks)?;
        }
        Ok(blocks)
    }
}

/// Adds the blocks of a node that hold something of `range`, counted from its first offset.
fn collect_blocks(
    branch: &Branch,
    expected: Expected,
    source: &dyn NodeSource,
    range: Range<u64>,
    blocks: &mut Vec<Reference>,
) -> Result<(), TreeError> {
    if let Some(reference) = branch.reference()
        && range.start == 0
        && range.end >= expected.offset_count
    {
        blocks.push(reference);
        return Ok(());
    }
    let node = branch.node(source, expected)?;
    let mut index = node.child_at(range.start).index;
    loop {
        let start = node.start_of(index);
        if index >= node.children().len() || start >= range.end {
            return Ok(());
        }
        match node.children() {
            Children::Slabs(entries) => {
                let slab = entries.get(index).and_then(|entry| entry.slab.as_ref());
                blocks.extend(slab.map(|slab| *slab.reference()));
            }
            Children::Nodes(links) => {
                if let Some(link) = links.get(index) {
                    let first_offset = expected.first_offset.saturating_add(start);
                    let below = link.expected(node.level(), first_offset);
                    let part = range.start.saturating_sub(start)
                        ..range.end.saturating_sub(start).min(link.offset_count);
                    collect_blocks(&link.branch, below, source, part, blocks)?;
                }
            }
        }
        index = index.saturating_add(1);
    }
}

/// Tells `reach` every block that the node at `reference` reaches, itself included.
///
/// # Errors
///
/// As [`Tree::reach`].
pub(crate) fn reach_from(
    reference: &Reference,
    source: &dyn NodeSource,
    reach: &mut dyn Reach,
) -> Result<(), TreeError> {
    reach_node(reference, source, reach, LEVEL_MAX)
}

fn reach_branch(
    branch: &Branch,
    source: &dyn NodeSource,
    reach: &mut dyn Reach,
    level_max: u8,
) -> Result<(), TreeError> {
    let reference = branch.reference();
    let Some(node) = branch.loaded() else {
        return match reference {
            Some(reference) => reach_node(&reference, source, reach, level_max),
            None => Ok(()),
        };
    };
    if reference.is_some_and(|reference| !reach.node(&reference)) {
        return Ok(());
    }
    match node.children() {
        Children::Slabs(entries) => {
            for slab in entries.iter().filter_map(|entry| entry.slab.as_ref()) {
                reach_slab(slab.reference(), reach);
            }
            Ok(())
        }
        // Levels were compared when the nodes were made or loaded.
        Children::Nodes(links) => links
            .iter()
            .try_for_each(|link| reach_branch(&link.branch, source, reach, level_max.saturating_sub(1))),
    }
}

/// `level_max` falls at each step, which ends every descent, whatever the references say.
fn reach_node(
    reference: &Reference,
    source: &dyn NodeSource,
    reach: &mut dyn Reach,
    level_max: u8,
) -> Result<(), TreeError> {
    if !reach.node(reference) {
        return Ok(());
    }
    let NodeParts { level, entries, .. } = source.load_node(reference)?;
    if level > level_max {
        let rule = NodeRule::Level;
        return Err(TreeError::rule(
            reference,
            rule,
            u64::from(level_max),
            u64::from(level),
        ));
    }
    for entry in entries.iter().filter(|entry| !entry.reference.is_empty()) {
        match level.checked_sub(1) {
            None => reach_slab(&entry.reference, reach),
            Some(below) => reach_node(&entry.reference, source, reach, below)?,
        }
    }
    Ok(())
}

/// Lost references lead nowhere, and remote ones to no segment.
fn reach_slab(reference: &Reference, reach: &mut dyn Reach) {
    if reference.kind == ReferenceKind::Local {
        reach.slab(reference);
    }
}
