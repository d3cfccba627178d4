//! The tree of a log: every node, down to the slabs.

use std::ops::Range;

use lanterman_format::{NodeParts, Reference, ReferenceKind, node};

use super::{Checker, finding_at};
use crate::check::report::{DamageKind, Finding};
use crate::problem::Problem;

/// A part of a tree in which nothing was found.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subtree {
    offset_count: u64,
    level: u8,
    slabs: u64,
    slab_bytes: u64,
}

impl Checker<'_> {
    /// Checks the tree that shows `offsets` of a log.
    pub(super) fn tree(&mut self, log: u64, root: &Reference, offsets: Range<u64>) -> Result<(), Problem> {
        if offsets.is_empty() && root.is_empty() {
            return Ok(());
        }
        self.subtree(log, root, offsets, None)
    }

    /// `level` is the level that the parent demands; it falls with each step, so that a circle cannot go on for ever.
    fn subtree(
        &mut self,
        log: u64,
        reference: &Reference,
        offsets: Range<u64>,
        level: Option<u8>,
    ) -> Result<(), Problem> {
        // No block: everything below is deleted.
        if reference.is_empty() && level.is_some() {
            return Ok(());
        }
        let wanted = offsets.end - offsets.start;
        if let Some(known) = self.whole_subtrees.get(reference).copied()
            && known.offset_count == wanted
            && level.is_none_or(|level| level == known.level)
        {
            self.add_to_log(log, known);
            return Ok(());
        }
        if reference.kind != ReferenceKind::Local {
            let detail = "a reference leads to no block of this store".to_owned();
            self.damaged_node(log, reference, offsets, detail);
            return Ok(());
        }
        let Some(bytes) = self.referred(reference, DamageKind::Node, Some(log), Some(offsets.clone()))?
        else {
            return Ok(());
        };
        let parts: NodeParts = match self.try_decode(&bytes, reference, node::decode) {
            Ok(parts) => parts,
            Err(rule) => {
                self.damaged_node(log, reference, offsets, rule.to_string());
                return Ok(());
            }
        };
        self.live(reference);
        self.report.checked.nodes += 1;
        if let Some(log) = self.report.logs.get_mut(&log) {
            log.tree_levels = log.tree_levels.max(u64::from(parts.level) + 1);
        }
        if parts.offset_count() != wanted || level.is_some_and(|level| level != parts.level) {
            let detail = format!(
                "it shows {} offsets at level {}, expected were {wanted}",
                parts.offset_count(),
                parts.level
            );
            let finding = finding_at(DamageKind::Disagreement, reference, detail);
            let log = self.report.name_of(log);
            self.report.find(Finding {
                log,
                offsets: Some(offsets),
                ..finding
            });
            return Ok(());
        }
        let before = (
            self.report.damage.len(),
            self.report.notes.len(),
            self.slabs_of(log),
        );
        let mut first = offsets.start;
        for entry in &parts.entries {
            let end = offsets.start.saturating_add(entry.offset_end);
            match parts.level.checked_sub(1) {
                Some(below) => self.subtree(log, &entry.reference, first..end, Some(below))?,
                None => self.slab(log, &entry.reference, entry.skip, first..end)?,
            }
            first = end;
        }
        let (damage, notes, (slabs, slab_bytes)) = before;
        // What was told is told again, with the offsets that it has in another log.
        if self.report.damage.len() == damage && self.report.notes.len() == notes {
            let now = self.slabs_of(log);
            let whole = Subtree {
                offset_count: wanted,
                level: parts.level,
                slabs: now.0.saturating_sub(slabs),
                slab_bytes: now.1.saturating_sub(slab_bytes),
            };
            self.whole_subtrees.insert(*reference, whole);
        }
        Ok(())
    }

    /// Slabs of a log so far, and their bytes.
    fn slabs_of(&self, log: u64) -> (u64, u64) {
        let log = self.report.logs.get(&log);
        log.map_or((0, 0), |log| (log.slabs, log.slab_bytes))
    }

    fn add_to_log(&mut self, log: u64, known: Subtree) {
        if let Some(log) = self.report.logs.get_mut(&log) {
            log.tree_levels = log.tree_levels.max(u64::from(known.level) + 1);
            log.slabs = log.slabs.saturating_add(known.slabs);
            log.slab_bytes = log.slab_bytes.saturating_add(known.slab_bytes);
        }
    }

    fn damaged_node(&mut self, log: u64, reference: &Reference, offsets: Range<u64>, detail: String) {
        let finding = finding_at(DamageKind::Node, reference, detail);
        let log = self.report.name_of(log);
        self.report.find(Finding {
            log,
            offsets: Some(offsets),
            ..finding
        });
    }
}
