//! Letting go of what was loaded.

use std::sync::Arc;

use super::Tree;
use super::node::{Branch, Children, Link, Node};

impl Tree {
    /// Whether more of it is in memory than where its root is.
    pub(crate) fn is_loaded(&self) -> bool {
        self.root.as_ref().is_some_and(|root| root.loaded().is_some())
    }

    /// The same tree without the nodes, and with them the open slabs, that can be had from the disk again. Those along its
    /// right end stay: slabs are pushed there, and that must not depend on a disk that reads. So the new tree holds a leaf and
    /// a node for each level, and what is nowhere on the disk yet.
    ///
    /// Other trees keep what they hold; what they load from now on is theirs alone.
    pub(crate) fn trimmed(&self) -> Self {
        Self {
            root: self.root.as_ref().map(|root| trimmed(root, true)),
            level: self.level,
            offset_count: self.offset_count,
        }
    }
}

fn trimmed(branch: &Arc<Branch>, is_last: bool) -> Arc<Branch> {
    let kept = branch
        .loaded()
        .filter(|_| is_last || branch.reference().is_none());
    match (branch.reference(), kept.map(|node| (node, node.children()))) {
        // Also where nothing is loaded yet: otherwise other trees would hold what is loaded for this one.
        (Some(reference), None) => Branch::on_disk(reference),
        (None, None) | (_, Some((_, Children::Slabs(_)))) => Arc::clone(branch),
        (reference, Some((node, Children::Nodes(links)))) => {
            let last = links.len().saturating_sub(1);
            let links = links.iter().enumerate();
            let links = links.map(|(index, link)| link.trimmed(is_last && index == last));
            Branch::holding(node.with_links(links.collect()), reference)
        }
    }
}

impl Link {
    fn trimmed(&self, is_last: bool) -> Self {
        Self {
            branch: trimmed(&self.branch, is_last),
            // What only the node itself knew, the link must know from now on.
            keys: Some(self.keys()),
            ..*self
        }
    }
}

impl Node {
    /// The same node over the same children, held in another way.
    fn with_links(&self, links: Vec<Link>) -> Self {
        let node = Self::checked(
            self.level(),
            self.ends().to_vec(),
            Children::Nodes(links),
            *self.summary(),
            *self.histogram(),
        );
        node.with_keys(self.keys())
    }
}
