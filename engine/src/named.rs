//! Named snapshots, and the history that the store keeps by itself.
//!
//! A named snapshot is a fork that no name leads to and nobody writes: it is found by its label. So it outlasts the
//! process and the log, costs what a fork costs, and holds no version. A point of the history is one that the store
//! made, with a version in the place of a label.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use lanterman_format::ids::{Offset, Version};
use lanterman_format::name::LogName;
use lanterman_format::settings::{Settings, SnapshotSettings};
use lanterman_format::weakened;

use crate::catalog::Cut;
use crate::core::Core;
use crate::edit::Edit;
use crate::error::{Error, Result};
use crate::log::LogState;
use crate::options::History;

/// A named snapshot of one log, as [`Store::named_snapshots`](crate::Store::named_snapshots) lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NamedSnapshot {
    /// Its label; empty of a point of the history.
    pub label: String,
    /// The name that its log had.
    pub log: String,
    /// The version that it holds.
    pub version: Version,
    /// When it was made, in milliseconds since 1970.
    pub time_ms: i64,
    /// First offset.
    pub start: Offset,
    /// Offset behind the last message.
    pub end: Offset,
    /// Whether it is a point of the history, which goes when the history's window has passed.
    pub automatic: bool,
}

/// A moment of the past; see [`Store::snapshot_at`](crate::Store::snapshot_at).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Moment {
    /// When this version was the newest.
    Version(Version),
    /// A time in milliseconds since 1970.
    TimeMs(i64),
}

/// When the history had its last turn, on the monotonic clock.
#[derive(Debug, Default)]
pub(crate) struct HistoryTurn {
    last: Option<Duration>,
}

fn described(log: &LogState, told: &SnapshotSettings) -> NamedSnapshot {
    NamedSnapshot {
        label: told.label.clone(),
        log: log.name.as_str().to_owned(),
        version: told.version,
        time_ms: told.time_ms,
        start: log.first_offset(),
        end: Offset::new(log.end()),
        automatic: told.automatic,
    }
}

impl Core {
    /// All named snapshots, points of the history among them.
    pub(crate) fn named_snapshots(&self) -> Vec<NamedSnapshot> {
        let all = self.catalog.snapshots();
        all.iter()
            .filter_map(|log| Some(described(log, log.named_snapshot()?)))
            .collect()
    }

    /// Those with that label which somebody made.
    fn labelled(&self, label: &str) -> Vec<Arc<LogState>> {
        let mut all = self.catalog.snapshots();
        all.retain(|log| {
            log.named_snapshot()
                .is_some_and(|told| !told.automatic && told.label == label)
        });
        all
    }

    /// Makes snapshots of logs as of one version, all or none.
    pub(crate) fn create_snapshot(&self, label: &str, names: &[&str]) -> Result<Vec<NamedSnapshot>> {
        self.check_writable("make a named snapshot")?;
        LogName::parse(label)?;
        let _one_at_a_time = self.snapshots.lock();
        if !self.labelled(label).is_empty() {
            return Err(Error::SnapshotExists {
                label: label.to_owned(),
            });
        }
        let mut logs: Vec<Arc<LogState>> = if names.is_empty() {
            self.catalog.all()
        } else {
            let names: BTreeSet<&str> = names.iter().copied().collect();
            names
                .into_iter()
                .map(|name| {
                    LogName::parse(name)?;
                    self.find_log(name)
                })
                .collect::<Result<_>>()?
        };
        if names.is_empty() {
            // Nobody asked for logs that nothing was ever committed to.
            logs.retain(|log| log.is_created() || log.end() > 0);
        }
        if logs.is_empty() {
            return Err(Error::InvalidOption {
                option: "logs",
                reason: "there is no log to make a snapshot of",
            });
        }
        for log in &logs {
            self.commit_log(log, log.end(), crate::options::Durability::Disk)?;
        }
        self.make_room_for_copies(&logs)?;
        self.commit_of_cut(|cut| self.snapshot_edits(cut, &logs, label, false))?;
        let made = self.labelled(label);
        Ok(made
            .iter()
            .filter_map(|log| Some(described(log, log.named_snapshot()?)))
            .collect())
    }

    /// Has what of logs would be copied written, as far as it is much, and waits for memory for the rest.
    fn make_room_for_copies(&self, logs: &[Arc<LogState>]) -> Result<()> {
        for log in logs {
            self.write_newest_large(log, log.end())?;
            self.wait_for_room(log, log.end())?;
        }
        Ok(())
    }

    /// The edits that make snapshots of logs as they are in the newest version, which is `cut`.
    fn snapshot_edits(
        &self,
        cut: &Cut,
        logs: &[Arc<LogState>],
        label: &str,
        automatic: bool,
    ) -> Result<Vec<Edit>> {
        let told = SnapshotSettings {
            label: label.to_owned(),
            version: cut.version,
            time_ms: self.now_ms(),
            automatic,
        };
        let edit_of = |log: &Arc<LogState>| {
            let name = log.name.clone();
            // Dropped since it was found, perhaps.
            let committed = cut.logs.get(log.id.get()).ok_or_else(|| Error::UnknownLog {
                name: name.as_str().to_owned(),
            })?;
            let settings = Settings {
                snapshot: Some(told.clone()),
                ..Settings::default()
            };
            self.fork_edit(log, committed.end, name, settings, None)
        };
        logs.iter().map(edit_of).collect()
    }

    /// The snapshot of a log with that label.
    pub(crate) fn find_snapshot(&self, label: &str, log: &str) -> Result<Arc<LogState>> {
        LogName::parse(label)?;
        LogName::parse(log)?;
        let labelled = self.labelled(label);
        if labelled.is_empty() {
            return Err(unknown_snapshot(label));
        }
        let mut of_log = labelled.into_iter().filter(|found| found.name.as_str() == log);
        of_log
            .next()
            .ok_or_else(|| Error::UnknownLog { name: log.to_owned() })
    }

    /// Drops the snapshots with that label.
    pub(crate) fn drop_snapshot(&self, label: &str) -> Result<Version> {
        self.check_writable("drop a named snapshot")?;
        LogName::parse(label)?;
        let _one_at_a_time = self.snapshots.lock();
        let labelled = self.labelled(label);
        if labelled.is_empty() {
            return Err(unknown_snapshot(label));
        }
        let edits = labelled.into_iter().map(|log| Edit::Drop { log }).collect();
        Ok(self.commit_edits(edits)?.0)
    }

    /// The points of the history, by the names of their logs, each log's by rising version.
    fn points(&self) -> BTreeMap<LogName, Vec<(SnapshotSettings, Arc<LogState>)>> {
        let mut points: BTreeMap<LogName, Vec<_>> = BTreeMap::new();
        for log in self.catalog.snapshots() {
            if let Some(told) = log.named_snapshot().filter(|told| told.automatic) {
                let of_log = points.entry(log.name.clone()).or_default();
                of_log.push((told.clone(), Arc::clone(&log)));
            }
        }
        for of_log in points.values_mut() {
            of_log.sort_by_key(|(told, _)| told.version);
        }
        points
    }

    /// The newest point of a log's history at or before a moment.
    pub(crate) fn find_point(&self, name: &str, moment: Moment) -> Result<Arc<LogState>> {
        LogName::parse(name)?;
        let refuse = |reason| {
            Err(Error::NoHistory {
                name: name.to_owned(),
                reason,
            })
        };
        let now_ms = self.now_ms();
        let future = match moment {
            Moment::Version(version) => version > self.catalog.version(),
            Moment::TimeMs(time_ms) => time_ms > now_ms,
        };
        if future {
            return refuse("the moment is in the future");
        }
        if let (Moment::TimeMs(time_ms), Some(history)) = (moment, self.options.history)
            && time_ms < now_ms.saturating_sub(in_ms(history.window))
        {
            return refuse("the moment is before the window of the history");
        }
        let points = self.points();
        let Some(of_log) = points.get(name) else {
            return refuse("there is no point of its history");
        };
        let is_before = |told: &SnapshotSettings| match moment {
            Moment::Version(version) => told.version <= version,
            Moment::TimeMs(time_ms) => told.time_ms <= time_ms,
        };
        match of_log.iter().rfind(|(told, _)| is_before(told)) {
            Some((_, log)) => Ok(Arc::clone(log)),
            None => refuse("its first point is after the moment"),
        }
    }

    /// How long the background may sleep before the history has its next turn.
    pub(crate) fn history_pause(&self) -> Duration {
        let (Some(history), Some(last)) = (self.options.history, self.history.lock().last) else {
            return Duration::MAX;
        };
        let since = self.clock.monotonic().saturating_sub(last);
        history
            .interval
            .saturating_sub(since)
            .max(Duration::from_millis(1))
    }

    /// Makes points of logs that changed and drops those that nobody can ask for any more, once an interval; says whether
    /// there was anything to do.
    pub(crate) fn keep_history(&self) -> Result<bool> {
        let Some(history) = self.options.history.filter(|_| !self.options.read_only) else {
            return Ok(false);
        };
        if self.history_pause() > Duration::from_millis(1) && self.history.lock().last.is_some() {
            return Ok(false);
        }
        let _one_at_a_time = self.snapshots.lock();
        let points = self.points();
        if !self.history_is_due(history, &points) {
            return Ok(false);
        }
        let changed = |cut: &Cut| -> Vec<Arc<LogState>> {
            let named = cut.logs.values().filter(|entry| entry.is_named());
            let changed = named.filter(|entry| {
                let newest = points.get(&entry.log.name).and_then(|of_log| of_log.last());
                newest.is_none_or(|(told, _)| entry.modified > told.version)
            });
            changed.map(|entry| Arc::clone(&entry.log)).collect()
        };
        self.make_room_for_copies(&changed(&self.catalog.cut()))?;
        let version = self.commit_of_cut(|cut| {
            let mut edits = self.snapshot_edits(cut, &changed(cut), "", true)?;
            let passed = self.passed_points(history, &points);
            edits.extend(passed.into_iter().map(|log| Edit::Drop { log }));
            Ok(edits)
        })?;
        Ok(version.is_some())
    }

    fn history_is_due(
        &self,
        history: History,
        points: &BTreeMap<LogName, Vec<(SnapshotSettings, Arc<LogState>)>>,
    ) -> bool {
        let now = self.clock.monotonic();
        let mut turn = self.history.lock();
        let since = match turn.last {
            Some(last) => now.saturating_sub(last),
            None => {
                // The process before this one may have made a point just now.
                let newest = points.values().flatten().map(|(told, _)| told.time_ms).max();
                let age_ms = newest.map(|newest| self.now_ms().saturating_sub(newest));
                let age = age_ms.and_then(|age| u64::try_from(age).ok());
                age.map_or(Duration::MAX, Duration::from_millis)
            }
        };
        if since < history.interval {
            turn.last.get_or_insert(now.saturating_sub(since));
            return false;
        }
        turn.last = Some(now);
        true
    }

    /// The points that answer for no moment of the window.
    fn passed_points(
        &self,
        history: History,
        points: &BTreeMap<LogName, Vec<(SnapshotSettings, Arc<LogState>)>>,
    ) -> Vec<Arc<LogState>> {
        let begin_ms = self.now_ms().saturating_sub(in_ms(history.window));
        let mut passed = Vec::new();
        for (name, of_log) in points {
            let behind = if weakened!("point-dropped-by-its-own-time") {
                0
            } else {
                1
            };
            let next = of_log.iter().skip(behind).map(|(told, _)| told.time_ms);
            // The newest one answers for as long as its log is there.
            let last_until = match self.catalog.find(name.as_str()) {
                Ok(Some(_)) | Err(_) => i64::MAX,
                Ok(None) => of_log.last().map_or(i64::MAX, |(told, _)| told.time_ms),
            };
            for ((_, log), until) in of_log.iter().zip(next.chain([last_until])) {
                if until < begin_ms {
                    passed.push(Arc::clone(log));
                }
            }
        }
        passed
    }
}

fn in_ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn unknown_snapshot(label: &str) -> Error {
    Error::UnknownSnapshot {
        label: label.to_owned(),
    }
}
