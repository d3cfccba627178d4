//! What a hole in the journal took, and how the rest stays in order around it.
//!
//! A hole is a run of versions that were durable and cannot be read any more, with whole versions behind it. Whose
//! messages stood in it is written nowhere else, so it is inferred from what follows:
//!
//! - a log whose next messages behind the hole go on where it ended lost nothing;
//! - a log whose next messages begin later lost the offsets between: they become a run of the log's tree that refers to
//!   the lost place, and answer [`Error::Damaged`] for ever;
//! - a log of which nothing follows may have lost messages at its end, or not: reading up to its end answers
//!   [`Error::Damaged`] there instead of claiming that this is the end;
//! - a log that was created in the hole has lost its name; its messages are counted and cannot be read. So a name that
//!   is not known answers [`Error::Damaged`] to a reader.
//!
//! A store that is only read does this by itself. One that writes would give the offsets at an open end away anew, so it
//! refuses such a journal unless [`Options::accept_lost_commits`](crate::Options::accept_lost_commits) says otherwise;
//! then a checkpoint at opening makes the loss a part of the logs, and the journal in front of it is needed no more.

use std::path::PathBuf;
use std::sync::Arc;

use lanterman_format::block::BlockKind;
use lanterman_format::error::FormatError;
use lanterman_format::ids::{ByteLength, Crc, LogId, Offset, Position, SegmentId, Version};
use lanterman_format::key_sketch::KeySketch;
use lanterman_format::limits::BLOCK_BYTES_MAX;
use lanterman_format::reference::{Reference, ReferenceKind};
use lanterman_format::summary::{Histogram32, Summary};
use lanterman_format::weakened;
use parking_lot::Mutex;

use crate::core::Core;
use crate::error::{Damage, Error, Result};
use crate::few::Few;
use crate::journal::replay::Hole;
use crate::log::{LogState, PendingRun, Root, TailSlab, TailState};
use crate::slab::SlabHandle;
use crate::tree::{SlabEntry, Tree};

/// Commits that were durable and stand in a damaged part of the journal.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LostCommits {
    /// File of the damaged part.
    pub path: PathBuf,
    /// Segment of the damaged part.
    pub segment: SegmentId,
    /// Where it begins.
    pub position: Position,
    /// Its length in bytes.
    pub bytes: u64,
    /// The versions that are lost, the last one included.
    pub versions: std::ops::RangeInclusive<Version>,
    /// What the lost versions held, as far as it can be inferred.
    pub messages: Vec<LostMessages>,
    /// What is wrong where the first of them should stand.
    pub source: FormatError,
}

/// Messages of one log that a damaged part of the journal held.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LostMessages {
    /// The log's name; `None` of a log whose creation is lost.
    pub log: Option<String>,
    /// The log's number.
    pub number: LogId,
    /// Offset of the first lost message.
    pub first: Offset,
    /// Offset behind the last lost message; `None` where it cannot be told whether any is lost, or how many.
    pub end: Option<Offset>,
}

/// The holes that were stepped over.
#[derive(Debug, Default)]
pub(crate) struct Holes {
    found: Mutex<Vec<(Hole, Vec<LostMessages>)>>,
}

impl Holes {
    pub(crate) fn is_empty(&self) -> bool {
        self.found.lock().is_empty()
    }

    /// The hole that was found last.
    pub(crate) fn newest(&self) -> Option<usize> {
        self.found.lock().len().checked_sub(1)
    }

    fn note(&self, number: usize, lost: LostMessages) {
        if let Some((_, messages)) = self.found.lock().get_mut(number) {
            messages.push(lost);
        }
    }
}

impl Core {
    /// Notes a hole: from here on the end of every log is in doubt.
    pub(crate) fn step_over(&self, hole: Hole) {
        tracing::error!(
            error = %hole.error(), first = hole.versions.start, end = hole.versions.end,
            "commits that were durable cannot be read"
        );
        let mut found = self.holes.found.lock();
        found.push((hole, Vec::new()));
        let number = u32::try_from(found.len()).unwrap_or(u32::MAX);
        drop(found);
        for log in self.catalog.all() {
            log.leave_end_open(number);
        }
    }

    /// Everything that is known of commits that were lost.
    pub(crate) fn lost_commits(&self) -> Vec<LostCommits> {
        if self.holes.is_empty() {
            return Vec::new();
        }
        let logs = self.catalog.all();
        let found = self.holes.found.lock();
        let open = |number: usize| {
            logs.iter()
                .filter(move |log| log.open_end() == Some(number))
                .map(|log| LostMessages {
                    log: Some(log.name.as_str().to_owned()),
                    number: log.id,
                    first: Offset::new(log.end()),
                    end: None,
                })
        };
        let mut lost: Vec<_> = found
            .iter()
            .enumerate()
            .map(|(number, (hole, messages))| LostCommits {
                path: hole.segment.path.clone(),
                segment: hole.segment.id,
                position: Position::new(hole.position),
                bytes: hole.bytes,
                versions: Version::new(hole.versions.start)
                    ..=Version::new(hole.versions.end.saturating_sub(1)),
                messages: messages.iter().cloned().chain(open(number)).collect(),
                source: hole.rule,
            })
            .collect();
        for commits in &mut lost {
            commits
                .messages
                .sort_by_key(|messages| (messages.number, messages.first));
        }
        lost
    }

    /// Damage that was found and gone around: what opening found, and pages of the catalog that could not be read since.
    pub(crate) fn damage(&self) -> Vec<Damage> {
        let mut damage = self.damage_of_opening();
        damage.extend(self.catalog.damaged_pages());
        damage
    }

    /// Damage that opening went around: pages of the catalog, and the holes that were stepped over in a store that is only
    /// read. Where it is written, they were accepted.
    fn damage_of_opening(&self) -> Vec<Damage> {
        let mut damage = self.catalog.lost_pages().to_vec();
        if self.options.read_only {
            let found = self.holes.found.lock();
            damage.extend(found.iter().map(|(hole, _)| damage_of(hole, None)));
        }
        damage
    }

    /// The log of that name, for reading.
    ///
    /// # Errors
    /// [`Error::UnknownLog`] if there is none, [`Error::Damaged`] if it may be in what cannot be read.
    pub(crate) fn find_log(&self, name: &str) -> Result<Arc<LogState>> {
        let may_have_it = |_: &Damage| !weakened!("lost-page-forgotten");
        self.catalog
            .find(name)?
            .ok_or_else(|| match self.damage_of_opening().into_iter().find(may_have_it) {
                Some(damage) => Error::Damaged(Box::new(damage)),
                None => Error::UnknownLog {
                    name: name.to_owned(),
                },
            })
    }

    /// The error for who reads up to the end of a log whose end is in doubt.
    #[cold]
    pub(crate) fn open_end_error(&self, log: &LogState, number: usize) -> Error {
        match self.holes.found.lock().get(number) {
            Some((hole, _)) => Error::Damaged(Box::new(damage_of(hole, Some(log)))),
            None => Error::Internal {
                what: "an open end names a hole that was found",
            },
        }
    }

    /// Notes messages of a log that nothing tells the name of. `false` where no hole explains that.
    pub(crate) fn lose_nameless(&self, number: LogId, first: u64, count: u64) -> bool {
        let Some(hole) = self.holes.newest() else {
            return false;
        };
        self.catalog.raise_next_log(number.get().saturating_add(1));
        self.holes.note(
            hole,
            LostMessages {
                log: None,
                number,
                first: Offset::new(first),
                end: Some(Offset::new(first.saturating_add(count))),
            },
        );
        true
    }

    /// Makes the log end at `first`, where the next messages behind a hole begin; what it does not have below is lost.
    /// `false` where no hole explains a gap.
    pub(crate) fn bridge(&self, log: &Arc<LogState>, tail: &mut TailState, first: u64) -> Result<bool> {
        let have = log.end();
        let Some(number) = log.open_end() else {
            return Ok(first <= have);
        };
        if first <= have {
            return Ok(true);
        }
        let Some(lost) = self.lost_run(log, number, first.saturating_sub(have))? else {
            return Ok(false);
        };
        self.holes.note(
            number,
            LostMessages {
                log: Some(log.name.as_str().to_owned()),
                number: log.id,
                first: Offset::new(have),
                end: Some(Offset::new(first)),
            },
        );
        self.put_behind(log, tail, lost)?;
        Ok(true)
    }

    /// A run of offsets that a hole took; `None` if there is no such hole.
    pub(crate) fn lost_run(&self, log: &LogState, number: usize, offset_count: u64) -> Result<Option<Tree>> {
        let Some(reference) = self.lost_reference(number) else {
            return Ok(None);
        };
        let entry = SlabEntry {
            offset_count,
            skip: 0,
            slab: Some(Arc::new(SlabHandle::new(reference))),
            summary: Summary {
                messages: offset_count,
                ..Summary::EMPTY
            },
            keys: KeySketch::EMPTY,
        };
        let run = Tree::of(entry, &Histogram32::default());
        Ok(Some(run.map_err(|error| self.tree_error(log, error))?))
    }

    /// Puts a run of offsets behind everything that the log has.
    pub(crate) fn put_behind(&self, log: &Arc<LogState>, tail: &mut TailState, tree: Tree) -> Result<()> {
        self.close_chunk(log, tail);
        self.tail_into_tree(log)?;
        log.change_root(|root| -> Result<()> {
            let mut pending = root.pending.to_vec();
            let first = root.end();
            pending.push(PendingRun { first, tree });
            root.pending = Few::from(pending);
            self.absorb_pending(log, root)
        })
    }

    /// Moves those pending runs into the tree before which nothing is missing there any more.
    pub(crate) fn absorb_pending(&self, log: &LogState, root: &mut Root) -> Result<()> {
        while let Some((next, rest)) = root.pending.split_first() {
            if next.first != root.tree_end {
                break;
            }
            let joined = root.tree.join(self.source.as_ref(), &next.tree);
            let (end, rest) = (next.end(), Few::from(rest.to_vec()));
            root.tree = joined.map_err(|error| self.tree_error(log, error))?;
            root.tree_end = end;
            root.pending = rest;
        }
        self.masks_into_tree(log, root, &[])
    }

    /// Makes the slab with a quiet log's newest messages a part of its tree, as it stands.
    pub(crate) fn tail_into_tree(&self, log: &Arc<LogState>) -> Result<()> {
        let root = log.root();
        let Some(tail) = root.tail.filter(|_| root.chunks.is_empty()) else {
            return Ok(());
        };
        let end = tail.first.saturating_add(tail.count);
        let (entry, histogram) = self.tail_entry(log, tail)?;
        log.change_root(|root| {
            // In this order: what fails leaves the root as it is.
            self.push_tail(log, root, (entry, &histogram), end)?;
            root.tail = None;
            Ok(())
        })
    }

    /// Puts the tail slab of `root` behind its tree, which ends at `end` then. The slab has all masks as runs.
    fn push_tail(
        &self,
        log: &LogState,
        root: &mut Root,
        (entry, histogram): (SlabEntry, &Histogram32),
        end: u64,
    ) -> Result<()> {
        let pushed = root.tree.push(self.source.as_ref(), entry, histogram);
        root.tree = pushed.map_err(|error| self.tree_error(log, error))?;
        root.tree_end = end;
        root.take_masks(end);
        Ok(())
    }

    /// The newest root of a log, with its tail slab in the tree: what an edit would find there.
    pub(crate) fn root_to_edit(&self, log: &LogState) -> Result<Root> {
        let mut root = log.root();
        if root.chunks.is_empty()
            && let Some(tail) = root.tail.take()
        {
            let end = tail.first.saturating_add(tail.count);
            let (entry, histogram) = self.tail_entry(log, tail)?;
            self.push_tail(log, &mut root, (entry, &histogram), end)?;
        }
        Ok(root)
    }

    /// The tail slab as an entry of the tree.
    pub(crate) fn tail_entry(&self, log: &LogState, tail: TailSlab) -> Result<(SlabEntry, Histogram32)> {
        let (summary, histogram, keys) = self.look_at_tail(log, &tail)?;
        let entry = SlabEntry {
            offset_count: tail.count,
            skip: tail.skip,
            slab: Some(tail.slab),
            summary,
            keys,
        };
        Ok((entry, histogram))
    }

    /// What a tail slab says of itself; of one that is damaged only how many messages it has.
    fn look_at_tail(&self, log: &LogState, tail: &TailSlab) -> Result<(Summary, Histogram32, KeySketch)> {
        let end = tail.first.saturating_add(tail.count);
        let looked = tail.slab.open(self.source.as_ref()).and_then(|opened| {
            let histogram = opened.histogram()?;
            Ok((*opened.layout().summary(), histogram, opened.keys()?))
        });
        match looked {
            Ok(looked) => Ok(looked),
            Err(error) => match self.slab_error(log, Some(tail.first..end), error) {
                Error::Damaged(_) => {
                    let messages = tail.count;
                    let summary = Summary {
                        messages,
                        ..Summary::EMPTY
                    };
                    Ok((summary, Histogram32::default(), KeySketch::EMPTY))
                }
                other => Err(other),
            },
        }
    }

    /// What the tree says of offsets that a hole took: where they were.
    fn lost_reference(&self, number: usize) -> Option<Reference> {
        let found = self.holes.found.lock();
        let (hole, _) = found.get(number)?;
        Some(Reference {
            kind: ReferenceKind::Lost,
            target: Some(BlockKind::Slab),
            generation: hole.segment.generation,
            segment: hole.segment.id,
            position: Position::new(hole.position),
            bytes: ByteLength::new(hole.bytes.min(u64::from(BLOCK_BYTES_MAX))),
            version: Version::new(hole.versions.start),
            header_crc: Crc::ZERO,
        })
    }

    /// After opening for writing: the loss becomes a part of the logs, for good.
    pub(crate) fn settle_losses(&self) -> Result<()> {
        if self.holes.is_empty() {
            return Ok(());
        }
        self.checkpoint()?;
        for log in self.catalog.all() {
            log.set_adopted_end(log.root().tree_end);
            if let Some(number) = log.open_end() {
                // From now on its end is where it is; what was in doubt stays on record.
                self.holes.note(
                    number,
                    LostMessages {
                        log: Some(log.name.as_str().to_owned()),
                        number: log.id,
                        first: Offset::new(log.end()),
                        end: None,
                    },
                );
                log.close_end();
            }
        }
        for commits in self.lost_commits() {
            for LostMessages {
                log,
                number,
                first,
                end,
            } in commits.messages
            {
                tracing::error!(?log, %number, %first, ?end, "messages are lost with a damaged part of the journal");
            }
        }
        Ok(())
    }
}

fn damage_of(hole: &Hole, log: Option<&LogState>) -> Damage {
    Damage {
        path: hole.segment.path.clone(),
        segment: Some(hole.segment.id),
        position: Position::new(hole.position),
        bytes: hole.bytes,
        log: log.map(|log| log.name.as_str().to_owned()),
        offsets: None,
        source: hole.rule,
    }
}
