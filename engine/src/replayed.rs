//! Edits that the journal has: read from changes, compared with what is there, done once more.
//!
//! What a change says is held against the logs before anything is done, since the bytes may be damaged in a way that no
//! checksum tells. Behind a hole in the journal a log may have fewer messages than a change speaks of; what it does not
//! have is lost for the logs that take it too.

use std::sync::Arc;

use lanterman_format::Structure;
use lanterman_format::block::BlockHeader;
use lanterman_format::commit::Change;
use lanterman_format::ids::{LogId, Version};
use lanterman_format::name::LogName;
use lanterman_format::segment::SegmentKind;
use lanterman_format::settings::Settings;
use lanterman_format::weakened;

use crate::core::Core;
use crate::edit::{Changed, Edit, Rehearsal};
use crate::error::{Error, Result};
use crate::log::{Committed, LogState, Root, TailState};

impl Core {
    /// Does what a change says beside creating a log; gives the logs that it changed.
    pub(crate) fn replay_edit(
        &self,
        change: &Change<'_>,
        version: Version,
        header: &BlockHeader,
    ) -> Result<Vec<Arc<LogState>>> {
        let Some(edit) = self.replayed_edit(change, header)? else {
            return self.replay_without_source(change, header);
        };
        // Behind a hole in the journal some of them may be missing.
        for (log, end) in edit.reaches() {
            if end > log.end() && self.holes.is_empty() {
                return Err(self.disagreeing_change(header, log.end(), end));
            }
        }
        self.rehearse(&mut Rehearsal::default(), std::iter::once(&edit))?;
        let mut changed = Changed::default();
        let mut tail = edit.gated().map(|log| log.intrude());
        if let (Edit::Splice { log, first, .. }, Some(tail)) = (&edit, tail.as_mut()) {
            self.meet(log, tail, *first, header)?;
        }
        self.apply_edit(&edit, version, tail.as_deref_mut(), &mut changed)?;
        Ok(changed.ends.into_iter().map(|(log, _)| log).collect())
    }

    /// Brings the end of a log to `first`, where the next offsets of a splice go.
    fn meet(
        &self,
        log: &Arc<LogState>,
        tail: &mut TailState,
        first: u64,
        header: &BlockHeader,
    ) -> Result<()> {
        if log.end() > first || !self.bridge(log, tail, first)? {
            return Err(self.disagreeing_change(header, log.end(), first));
        }
        log.close_end();
        Ok(())
    }

    fn disagreeing_change(&self, header: &BlockHeader, expected: u64, found: u64) -> Error {
        self.journal_damage(header, crate::rules::disagree(Structure::Change, expected, found))
    }

    /// What a change does; nothing for one that may be passed over, or whose log is lost.
    fn replayed_edit(&self, change: &Change<'_>, header: &BlockHeader) -> Result<Option<Edit>> {
        let edit = match *change {
            Change::CreateLog { .. } | Change::Unknown { skippable: true, .. } => return Ok(None),
            Change::DeleteRange { log, first, end } => {
                let offsets = first.get()..end.get();
                self.replayed_ordinary_log(log, (offsets.start, 0), header)?
                    .map(|log| Edit::Delete { log, offsets })
            }
            Change::Retain { log, start } => {
                let start = start.get();
                self.replayed_ordinary_log(log, (start, 0), header)?
                    .map(|log| Edit::Retain { log, start })
            }
            Change::Fork { log, origin, .. } => match self.replayed_log(origin, (0, 0), header)? {
                Some(origin) => Some(self.replayed_fork(change, origin, header)?),
                None => {
                    self.catalog.raise_next_log(log.get().saturating_add(1));
                    None
                }
            },
            Change::Splice {
                log,
                first,
                source,
                source_first,
                source_end,
            } => {
                let offsets = source_first.get()..source_end.get();
                if offsets.is_empty() {
                    return Err(self.disagreeing_change(header, offsets.start, offsets.end));
                }
                let count = offsets.end.saturating_sub(offsets.start);
                let log = self.replayed_ordinary_log(log, (first.get(), count), header)?;
                let source = self.replayed_log(source, (offsets.start, 0), header)?;
                log.zip(source).map(|(log, source)| Edit::Splice {
                    log,
                    first: first.get(),
                    source,
                    offsets,
                })
            }
            Change::Replace {
                log,
                first,
                end,
                slab,
            } => {
                let offsets = first.get()..end.get();
                if !weakened!("replaced-room-unknown") {
                    self.note_adopted_slab(&slab);
                }
                match self.replayed_ordinary_log(log, (offsets.end, 0), header)? {
                    Some(log) => Some(self.replayed_replacement(log, offsets, &slab, header)?),
                    None => None,
                }
            }
            Change::DropLog { log } => self
                .replayed_log(log, (0, 0), header)?
                .map(|log| Edit::Drop { log }),
            Change::SetSettings { log, settings } => {
                let parsed = self.replayed_settings(settings, header)?;
                let encoded = Arc::from(settings);
                self.replayed_log(log, (0, 0), header)?
                    .map(|log| Edit::SetSettings {
                        log,
                        settings: parsed,
                        encoded,
                    })
            }
            _ => {
                return Err(Error::NewerFormat {
                    path: self
                        .segments
                        .path_of(header.identity.segment, SegmentKind::Journal),
                    found_major: u64::from(lanterman_format::FormatVersion::CURRENT.major).saturating_add(1),
                    supported_major: u64::from(lanterman_format::FormatVersion::CURRENT.major),
                });
            }
        };
        Ok(edit)
    }

    /// The log that a version adds to; `None` where its creation was lost, or where it may be one of a lost page of the
    /// catalog, whose messages nobody can ask for.
    pub(crate) fn replayed_log(
        &self,
        id: LogId,
        (first, count): (u64, u64),
        header: &BlockHeader,
    ) -> Result<Option<Arc<LogState>>> {
        match self.catalog.by_id(id.get())? {
            None if !self.catalog.lost_pages().is_empty() || self.lose_nameless(id, first, count) => Ok(None),
            None => Err(self.journal_damage(header, crate::rules::disagree(Structure::Commit, 0, id.get()))),
            found => Ok(found),
        }
    }

    pub(crate) fn replay_creation(
        &self,
        id: LogId,
        name: &str,
        settings: &[u8],
        version: Version,
        header: &BlockHeader,
    ) -> Result<()> {
        let log = self.replayed_new_log(id, name, settings, header)?;
        log.set_created();
        self.catalog.restore(Committed {
            log: Arc::clone(&log),
            end: 0,
            created: version,
            modified: version,
        });
        self.catalog.mark_dirty(&log);
        Ok(())
    }

    /// A log of which something changes; a named snapshot never does.
    pub(crate) fn replayed_ordinary_log(
        &self,
        id: LogId,
        offsets: (u64, u64),
        header: &BlockHeader,
    ) -> Result<Option<Arc<LogState>>> {
        let log = self.replayed_log(id, offsets, header)?;
        match log.as_ref().and_then(|log| log.named_snapshot()) {
            Some(_) => Err(self.disagreeing_change(header, 0, id.get())),
            None => Ok(log),
        }
    }

    fn replayed_settings(&self, settings: &[u8], header: &BlockHeader) -> Result<Settings> {
        Settings::decode(settings).map_err(|rule| self.journal_damage(header, rule))
    }

    fn replayed_fork(
        &self,
        change: &Change<'_>,
        origin: Arc<LogState>,
        header: &BlockHeader,
    ) -> Result<Edit> {
        let Change::Fork {
            log,
            end,
            snapshot,
            name,
            settings,
            ..
        } = *change
        else {
            return Err(Error::Internal {
                what: "a fork is read from a change that is one",
            });
        };
        if end.get() < origin.first_offset().get() {
            return Err(self.disagreeing_change(header, origin.first_offset().get(), end.get()));
        }
        let fork = self.replayed_new_log(log, name, settings, header)?;
        if fork.named_snapshot().is_some() != snapshot {
            return Err(self.disagreeing_change(header, u64::from(snapshot), log.get()));
        }
        self.catalog.raise_next_log(log.get().saturating_add(1));
        Ok(Edit::Fork {
            origin,
            end: end.get(),
            fork,
            settings: Arc::from(settings),
            edits: None,
        })
    }

    /// A log that a version makes. A reader that began anew at a checkpoint finds the one that it knew.
    pub(crate) fn replayed_new_log(
        &self,
        id: LogId,
        name: &str,
        settings: &[u8],
        header: &BlockHeader,
    ) -> Result<Arc<LogState>> {
        let settings = self.replayed_settings(settings, header)?;
        let known = LogName::parse(name).ok();
        if let Some(again) = self.catalog.found_again(id)
            && Some(&again.name) == known.as_ref()
        {
            again.replace_root(Root::empty());
            again.set_settings(settings);
            return Ok(again);
        }
        let is_new = self.catalog.by_id(id.get())?.is_none();
        let is_free = settings.snapshot.is_some() || self.catalog.is_name_free(name)?;
        match known.filter(|_| is_new && is_free) {
            Some(name) => Ok(Arc::new(LogState::new(id, name, Root::empty(), settings))),
            None => Err(self.journal_damage(header, crate::rules::disagree(Structure::Commit, 0, id.get()))),
        }
    }

    /// A splice whose source was lost with a hole in the journal: its offsets are lost in the log that took them too.
    fn replay_without_source(&self, change: &Change<'_>, header: &BlockHeader) -> Result<Vec<Arc<LogState>>> {
        let Change::Splice {
            log,
            first,
            source_first,
            source_end,
            ..
        } = *change
        else {
            return Ok(Vec::new());
        };
        let Some(log) = self.catalog.by_id(log.get())? else {
            return Ok(Vec::new());
        };
        let Some(hole) = self.holes.newest() else {
            return Ok(Vec::new());
        };
        let mut tail = log.intrude();
        self.meet(&log, &mut tail, first.get(), header)?;
        let count = source_end.get().saturating_sub(source_first.get());
        if let Some(lost) = self.lost_run(&log, hole, count)? {
            self.put_behind(&log, &mut tail, lost)?;
        }
        drop(tail);
        Ok(vec![log])
    }
}
