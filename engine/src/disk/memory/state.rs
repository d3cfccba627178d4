//! What a disk in memory holds: names and contents as programs see them, and what of it is durable.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::sys::file::Sync;

use super::contents::Contents;
use super::table::TableState;
use super::unit::{Fate, Medium, Node, PAGE, Unit, pages_of};

/// A file as programs see it.
#[derive(Debug)]
pub(super) struct Inode {
    pub(super) contents: Arc<Contents>,
    /// Pages that count against the space of the disk.
    allocated: BTreeSet<u64>,
    has_name: bool,
    handles: usize,
    pub(super) table: Option<Arc<TableState>>,
}

/// Everything, under one lock: tests want order more than speed.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) names: BTreeMap<PathBuf, Node>,
    pub(super) inodes: HashMap<u64, Inode>,
    pub(super) medium: Medium,
    /// In the order in which they were made.
    pub(super) unsynced: Vec<Unit>,
    /// Pages of files that a failed sync left in the page cache as if they were durable, though the medium never got them.
    doubtful: BTreeMap<u64, BTreeSet<u64>>,
    pub(super) locked: HashSet<u64>,
    pub(super) space: Option<u64>,
    pub(super) used: u64,
    next_file: u64,
}

impl State {
    /// A disk with nothing but its two roots, for absolute and for relative paths.
    pub(super) fn new() -> Self {
        let mut state = Self::default();
        for root in ["/", ""] {
            state.names.insert(PathBuf::from(root), Node::Directory);
            state.medium.names.insert(PathBuf::from(root), Node::Directory);
        }
        state
    }

    /// The disk that a medium becomes when it is used again.
    pub(super) fn from_medium(mut medium: Medium, space: Option<u64>) -> Self {
        medium.prune();
        let mut state = Self {
            names: medium.names.clone(),
            space,
            next_file: 1,
            ..Self::default()
        };
        for (&file, image) in &medium.images {
            let allocated: BTreeSet<u64> = image.pages.keys().copied().collect();
            state.used += allocated.len() as u64 * PAGE;
            state.next_file = state.next_file.max(file + 1);
            state.inodes.insert(
                file,
                Inode {
                    contents: Arc::new(Contents::new(Arc::clone(image))),
                    allocated,
                    has_name: true,
                    handles: 0,
                    table: None,
                },
            );
        }
        state.medium = medium;
        state
    }

    /// The same disk as another process finds it after this one was killed: all that was written is there, what was not
    /// durable still is not, and no lock is held.
    pub(super) fn after_kill(&self) -> io::Result<Self> {
        let mut state = Self {
            names: self.names.clone(),
            medium: self.medium.clone(),
            unsynced: self.unsynced.clone(),
            doubtful: self.doubtful.clone(),
            space: self.space,
            next_file: self.next_file,
            ..Self::default()
        };
        for (&file, inode) in self.inodes.iter().filter(|(_, inode)| inode.has_name) {
            let contents = inode.contents.copied(inode.allocated.iter().copied())?;
            state.used += inode.allocated.len() as u64 * PAGE;
            state.inodes.insert(
                file,
                Inode {
                    contents: Arc::new(contents),
                    allocated: inode.allocated.clone(),
                    has_name: true,
                    handles: 0,
                    table: inode.table.as_ref().map(|table| Arc::new(table.after_kill())),
                },
            );
        }
        Ok(state)
    }

    /// What a power cut leaves when each unit meets the fate given for it.
    pub(super) fn after_power_cut(&self, mut fate: impl FnMut(usize, &Unit) -> Fate) -> Self {
        let mut medium = self.medium.clone();
        for (number, unit) in self.unsynced.iter().enumerate() {
            medium.apply(unit, fate(number, unit));
        }
        Self::from_medium(medium, self.space)
    }

    /// The file at a path.
    pub(super) fn find(&self, path: &Path) -> io::Result<u64> {
        match self.names.get(path) {
            Some(Node::File(file)) => Ok(*file),
            Some(Node::Directory) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn inode(&mut self, file: u64) -> io::Result<&mut Inode> {
        self.inodes
            .get_mut(&file)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn check_free(&self, path: &Path) -> io::Result<()> {
        if self.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let parent = path.parent().ok_or(io::ErrorKind::AlreadyExists)?;
        match self.names.get(parent) {
            Some(Node::Directory) => Ok(()),
            Some(Node::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn create_directory(&mut self, path: &Path) -> io::Result<()> {
        self.check_free(path)?;
        self.names.insert(path.to_path_buf(), Node::Directory);
        self.unsynced.push(Unit::Link {
            path: path.to_path_buf(),
            file: None,
        });
        Ok(())
    }

    pub(super) fn create_file(&mut self, path: &Path) -> io::Result<u64> {
        self.check_free(path)?;
        let contents = Arc::new(Contents::new(Arc::default()));
        let file = self.next_file;
        self.next_file += 1;
        self.inodes.insert(
            file,
            Inode {
                contents,
                allocated: BTreeSet::new(),
                has_name: true,
                handles: 0,
                table: None,
            },
        );
        self.names.insert(path.to_path_buf(), Node::File(file));
        self.unsynced.push(Unit::Link {
            path: path.to_path_buf(),
            file: Some(file),
        });
        Ok(file)
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let file = self.find(from)?;
        self.check_free(to)?;
        self.names.remove(from);
        self.names.insert(to.to_path_buf(), Node::File(file));
        self.unsynced.push(Unit::Rename {
            from: from.to_path_buf(),
            to: to.to_path_buf(),
            file,
        });
        Ok(())
    }

    pub(super) fn unlink(&mut self, path: &Path) -> io::Result<()> {
        let file = self.find(path)?;
        self.names.remove(path);
        self.unsynced.push(Unit::Unlink {
            path: path.to_path_buf(),
            file,
        });
        self.inode(file)?.has_name = false;
        self.release_if_orphan(file);
        Ok(())
    }

    pub(super) fn opened(&mut self, file: u64) -> io::Result<Arc<Contents>> {
        let inode = self.inode(file)?;
        inode.handles += 1;
        Ok(Arc::clone(&inode.contents))
    }

    pub(super) fn closed(&mut self, file: u64) {
        if let Some(inode) = self.inodes.get_mut(&file) {
            inode.handles = inode.handles.saturating_sub(1);
        }
        self.release_if_orphan(file);
    }

    /// Gives the space of a file back that has neither name nor handle. What the medium knows of it stays, for a power
    /// cut may bring the name back.
    fn release_if_orphan(&mut self, file: u64) {
        let Some(inode) = self.inodes.get(&file) else {
            return;
        };
        if !inode.has_name && inode.handles == 0 {
            self.used = self.used.saturating_sub(inode.allocated.len() as u64 * PAGE);
            self.inodes.remove(&file);
            self.doubtful.remove(&file);
            self.locked.remove(&file);
        }
    }

    pub(super) fn sync_directory(&mut self, path: &Path) -> io::Result<()> {
        match self.names.get(path) {
            Some(Node::Directory) => {}
            Some(Node::File(_)) => return Err(io::ErrorKind::NotADirectory.into()),
            None => return Err(io::ErrorKind::NotFound.into()),
        }
        self.make_durable(|unit| unit.is_in_directory(path));
        self.sweep();
        Ok(())
    }

    /// Drops what no power cut can bring back any more.
    fn sweep(&mut self) {
        let mut reachable: HashSet<u64> = self.inodes.keys().copied().collect();
        reachable.extend(self.medium.names.values().filter_map(|node| match node {
            Node::File(file) => Some(*file),
            Node::Directory => None,
        }));
        reachable.extend(
            self.unsynced
                .iter()
                .filter(|unit| unit.content_of().is_none())
                .filter_map(Unit::file),
        );
        self.medium.images.retain(|file, _| reachable.contains(file));
        self.unsynced
            .retain(|unit| unit.content_of().is_none_or(|file| reachable.contains(&file)));
    }

    /// Moves the units that fit to the medium, in order.
    fn make_durable(&mut self, mut fits: impl FnMut(&Unit) -> bool) {
        let medium = &mut self.medium;
        self.unsynced.retain(|unit| {
            let durable = fits(unit);
            if durable {
                medium.apply(unit, Fate::Kept);
            }
            !durable
        });
    }

    pub(super) fn sync_data(&mut self, file: u64) {
        self.medium.images.entry(file).or_default();
        self.make_durable(|unit| unit.content_of() == Some(file));
    }

    pub(super) fn lose_unsynced(&mut self, file: u64) {
        let doubtful = self.doubtful.entry(file).or_default();
        self.unsynced.retain(|unit| {
            // A length is the file system's own matter: it is in its journal, and what that loses stops the file system.
            let is_lost = unit.content_of() == Some(file) && !matches!(unit, Unit::Length { .. });
            if let Some(range) = unit.range().filter(|_| is_lost) {
                doubtful.extend(range.start / PAGE..range.end.div_ceil(PAGE));
            }
            !is_lost
        });
    }

    /// Drops what the page cache has of a range and is not waiting to be written, so that reads show the medium. As with
    /// Linux, a file that is mapped keeps its pages.
    pub(super) fn forget_cached(&mut self, file: u64, range: &Range<u64>) -> io::Result<()> {
        let contents = Arc::clone(&self.inode(file)?.contents);
        let Some(doubtful) = self.doubtful.get_mut(&file).filter(|_| !contents.is_mapped()) else {
            return Ok(());
        };
        let image = self.medium.images.get(&file);
        let (bytes, unsynced) = (contents.bytes()?, &self.unsynced);
        let mut page = vec![0; usize::try_from(PAGE).unwrap_or(0)];
        let mut outcome = Ok(());
        doubtful.retain(|&number| {
            let place = number * PAGE..(number + 1) * PAGE;
            let is_dirty = unsynced.iter().any(|unit| unit.touches(file, &place));
            if is_dirty || place.start < range.start || place.end > range.end {
                return true;
            }
            page.fill(0);
            if let Some(image) = image {
                image.read(place.start, &mut page);
            }
            let kept = usize::try_from(bytes.saturating_sub(place.start)).unwrap_or(usize::MAX);
            let written = contents.write_at(place.start, page.get(..kept).unwrap_or(&page));
            outcome = std::mem::replace(&mut outcome, Ok(())).and(written);
            false
        });
        outcome
    }

    /// Makes the pages of a range durable and nothing else of the file, as a write with `RWF_DSYNC` does.
    fn sync_range(&mut self, file: u64, range: &Range<u64>) {
        let pages = range.start / PAGE * PAGE..range.end.div_ceil(PAGE) * PAGE;
        let is_punched = self
            .unsynced
            .iter()
            .any(|unit| matches!(unit, Unit::Punch { .. }) && unit.touches(file, &pages));
        if is_punched {
            // A punch reaches into other pages, whose older writes must not come back over it.
            self.sync_data(file);
        } else {
            self.make_durable(|unit| unit.touches(file, &pages));
        }
    }

    /// Counts pages against the space of the disk.
    fn allocate(&mut self, file: u64, range: Range<u64>) -> io::Result<()> {
        let (used, space) = (self.used, self.space);
        let inode = self.inode(file)?;
        let pages = range.start / PAGE..range.end.div_ceil(PAGE);
        let present = inode.allocated.range(pages.clone()).count() as u64;
        let needed = (pages.end.saturating_sub(pages.start) - present) * PAGE;
        let used = used.saturating_add(needed);
        if needed > 0 && space.is_some_and(|space| used > space) {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        inode.allocated.extend(pages);
        self.used = used;
        Ok(())
    }

    pub(super) fn write(&mut self, file: u64, position: u64, bytes: &[u8], sync: Sync) -> io::Result<()> {
        let end = position
            .checked_add(bytes.len() as u64)
            .ok_or(io::ErrorKind::InvalidInput)?;
        self.allocate(file, position..end)?;
        self.inode(file)?.contents.write_at(position, bytes)?;
        for (part, offset) in pages_of(position, bytes.len() as u64) {
            let count = usize::try_from(part.end - part.start).unwrap_or(0);
            let bytes = bytes.get(offset..offset + count).unwrap_or(&[]).into();
            self.unsynced.push(Unit::Write {
                file,
                position: part.start,
                bytes,
            });
        }
        if sync == Sync::Data {
            self.sync_range(file, &(position..end));
        }
        Ok(())
    }

    pub(super) fn reserve(&mut self, file: u64, range: Range<u64>) -> io::Result<()> {
        let bytes = range.end;
        i64::try_from(bytes).map_err(|_| io::ErrorKind::InvalidInput)?;
        self.allocate(file, range)?;
        let contents = Arc::clone(&self.inode(file)?.contents);
        if bytes > contents.bytes()? {
            contents.lengthen(bytes)?;
            self.unsynced.push(Unit::Length { file, bytes });
        }
        Ok(())
    }

    pub(super) fn punch(&mut self, file: u64, range: Range<u64>) -> io::Result<()> {
        let inode = self.inode(file)?;
        inode.contents.punch(range.clone())?;
        let whole = range.start.div_ceil(PAGE)..range.end / PAGE;
        let before = inode.allocated.len();
        inode.allocated.retain(|page| !whole.contains(page));
        let freed = before - inode.allocated.len();
        self.used = self.used.saturating_sub(freed as u64 * PAGE);
        if !range.is_empty() {
            self.unsynced.push(Unit::Punch { file, range });
        }
        Ok(())
    }

    /// The image of a file on the medium, for tests.
    #[cfg(test)]
    pub(super) fn image(&self, file: u64) -> Option<&super::unit::Image> {
        self.medium.images.get(&file).map(Arc::as_ref)
    }
}
