//! Parts of large values whose message never came, because the process was killed between them.
//!
//! Whoever opens a writer of a log is the only one who may append such values to it from then on, so parts at its end that
//! no message behind them names belong to nobody. They are deleted by an ordinary edit. Nothing is written for that in a
//! log without such parts, and opening a store writes nothing.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use lanterman_format::large_value::LargeValue;
use lanterman_format::{ValueType, weakened};

use crate::core::Core;
use crate::edit::Edit;
use crate::error::{Error, Result};
use crate::found::find_slab;
use crate::log::{LogState, Root};

/// How many offsets in a row are looked at, from the log's end back, without one that is abandoned: what transactions may have
/// appended behind them meanwhile.
const LOOK_BACK: u32 = 256;

impl Core {
    /// Deletes the abandoned parts at the end of a log, for who has its writer. That this may fail keeps nobody from
    /// appending: the next writer tries again.
    pub(crate) fn delete_abandoned_parts(&self, log: &Arc<LogState>) {
        let deleted = self.abandoned_parts(log).and_then(|parts| {
            if parts.is_empty() || weakened!("abandoned-parts-stay") {
                return Ok(());
            }
            tracing::info!(
                log = log.name.as_str(),
                "parts of a value that was never whole are deleted"
            );
            let deletion = |offsets| Edit::Delete {
                log: Arc::clone(log),
                offsets,
            };
            self.commit_edits(parts.into_iter().map(deletion).collect())
                .map(|_| ())
        });
        if let Err(error) = deleted {
            tracing::warn!(log = log.name.as_str(), %error, "parts of a value that was never whole stay for now");
        }
    }

    /// Offsets of parts near the end of a log that no message behind them names, by falling offsets.
    fn abandoned_parts(&self, log: &LogState) -> Result<Vec<Range<u64>>> {
        let root = log.root();
        let mut found: Vec<Range<u64>> = Vec::new();
        if !self.may_have_parts(log, &root)? {
            return Ok(found);
        }
        let mut named = BTreeSet::new();
        let mut left = LOOK_BACK;
        let mut behind = root.end();
        while let Some(at) = behind.checked_sub(1).filter(|at| left > 0 && *at >= root.start) {
            behind = at;
            left = left.saturating_sub(1);
            if let Some(run) = self.deleted_run(log, &root, at)? {
                behind = run.start;
                continue;
            }
            let Some(located) = self.locate(log, &root, at)? else {
                continue;
            };
            let buffer = located.buffer(self, log, &root)?;
            match buffer.value_type() {
                ValueType::PART if !named.contains(&at) => {
                    left = LOOK_BACK;
                    match found.last_mut() {
                        Some(run) if run.start == at.saturating_add(1) => run.start = at,
                        _ => found.push(at..at.saturating_add(1)),
                    }
                }
                ValueType::BY_REFERENCE => {
                    let decoded = LargeValue::decode(buffer.value());
                    located.check(self, log, &root)?;
                    // What a list names that cannot be read is not known: all before it stays.
                    let Ok(value) = decoded else { break };
                    let parts = value.parts.iter();
                    named.extend(parts.filter_map(|part| at.checked_sub(part.offsets_before)));
                }
                _ => {}
            }
        }
        Ok(found)
    }

    /// Whether a log has parts at all, by its summaries.
    fn may_have_parts(&self, log: &LogState, root: &Root) -> Result<bool> {
        if root.chunks.iter().any(|chunk| chunk.has_parts()) {
            return Ok(true);
        }
        let trees = std::iter::once(&root.tree).chain(root.pending.iter().map(|run| &run.tree));
        for tree in trees {
            let summary = tree.summary(self.source.as_ref(), 0..tree.offset_end());
            let summary = summary.map_err(|error| self.tree_error(log, error))?.summary;
            if summary.types.contains(ValueType::PART) {
                return Ok(true);
            }
        }
        let Some(tail) = &root.tail else {
            return Ok(false);
        };
        self.announce_tail(root);
        let opened = self.source.open_tail(&tail.slab);
        let opened = opened.map_err(|error| self.slab_error(log, None, error))?;
        Ok(opened.layout().summary().types.contains(ValueType::PART))
    }

    /// The run of deleted offsets around `at`, where it is one of the log's masks or of its tree.
    fn deleted_run(&self, log: &LogState, root: &Root, at: u64) -> Result<Option<Range<u64>>> {
        if let Some(mask) = root.mask_at(at) {
            return Ok(Some(mask.clone()));
        }
        if root.chunk_at(at).is_some_and(|chunk| at < chunk.end_offset()) {
            return Ok(None);
        }
        match find_slab(self, log, root, at) {
            Ok(_) => Ok(None),
            Err(Error::Deleted { run, .. }) => Ok(Some(run)),
            Err(error) => Err(error),
        }
    }
}
