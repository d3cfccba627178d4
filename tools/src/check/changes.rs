//! What the changes of a commit do to logs: deletions, retention, forks, splices, drops.

use std::ops::Range;

use lanterman_format::{Change, SegmentId};

use super::{Checker, snapshot_label};
use crate::check::report::LogReport;

impl Checker<'_> {
    /// Takes up a change other than the creation of a log, behind the adoptions and frames of its version.
    pub(super) fn edit(&mut self, segment: SegmentId, position: u64, change: &Change<'_>) {
        let fits = match *change {
            Change::DeleteRange { log, first, end } => self.delete(log.get(), first.get()..end.get()),
            Change::Retain { log, start } => self.delete(log.get(), 0..start.get()),
            Change::Fork { .. } => self.fork(change),
            Change::Splice { .. } => self.splice(change),
            Change::Replace { log, first, end, .. } => self.has(log.get(), first.get()..end.get()),
            Change::DropLog { log } => self.report.logs.remove(&log.get()).is_some(),
            _ => true,
        };
        // Behind a hole it may speak of what is lost.
        if !fits && self.report.journal.holes.is_empty() {
            let (log, offsets) = speaks_of(change);
            self.contradiction(segment, position, log, offsets);
        }
    }

    /// Whether the log has the offsets.
    fn delete(&mut self, id: u64, offsets: Range<u64>) -> bool {
        let Some(log) = self.report.logs.get_mut(&id) else {
            return false;
        };
        let end = offsets.end.min(log.end);
        if offsets.start <= log.start && end > log.start {
            log.start = end;
            log.tree_end = log.tree_end.max(end);
            log.begins_later = true;
        }
        end == offsets.end
    }

    /// Whether the log has the offsets.
    fn has(&self, id: u64, offsets: Range<u64>) -> bool {
        let log = self.report.logs.get(&id);
        log.is_some_and(|log| offsets.start >= log.start && offsets.end <= log.end)
    }

    /// Whether the origin has what the fork takes.
    fn fork(&mut self, change: &Change<'_>) -> bool {
        let Change::Fork {
            log,
            origin,
            end,
            name,
            settings,
            ..
        } = *change
        else {
            return true;
        };
        let Some(origin) = self.report.logs.get(&origin.get()) else {
            return false;
        };
        let taken = end.get().clamp(origin.start, origin.end.max(origin.start));
        let fork = LogReport {
            start: origin.start,
            end: taken,
            tree_end: origin.tree_end.min(taken),
            begins_later: origin.begins_later,
            shared_end: taken,
            snapshot: snapshot_label(settings),
            ..LogReport::new(log.get(), name)
        };
        // Where the origin's beginning is known from below only, the fork may end before it.
        let fits = taken == end.get() || origin.begins_later && end.get() <= origin.end;
        let is_new = self.report.logs.insert(log.get(), fork).is_none();
        fits && is_new
    }

    /// Whether the source has what the log takes, and the log ends where it should.
    fn splice(&mut self, change: &Change<'_>) -> bool {
        let Change::Splice {
            log,
            first,
            source,
            source_first,
            source_end,
        } = *change
        else {
            return true;
        };
        let source = self.report.logs.get(&source.get());
        let has = source.is_some_and(|source| source_first < source_end && source_end.get() <= source.end);
        let count = source_end.get().saturating_sub(source_first.get());
        let end = first.get().saturating_add(count);
        self.lost_before(log.get(), first.get(), end);
        let Some(log) = self.report.logs.get_mut(&log.get()) else {
            return false;
        };
        let follows = log.end == first.get();
        log.end = log.end.max(end);
        log.shared_end = log.end;
        has && follows
    }
}

/// The log and the offsets that a change is about.
fn speaks_of(change: &Change<'_>) -> (u64, Range<u64>) {
    match *change {
        Change::DeleteRange { log, first, end } => (log.get(), first.get()..end.get()),
        Change::Retain { log, start } => (log.get(), 0..start.get()),
        Change::Fork { origin, end, .. } => (origin.get(), 0..end.get()),
        Change::Replace { log, first, end, .. } => (log.get(), first.get()..end.get()),
        Change::Splice {
            source,
            source_first,
            source_end,
            ..
        } => (source.get(), source_first.get()..source_end.get()),
        Change::DropLog { log } => (log.get(), 0..0),
        _ => (0, 0..0),
    }
}
