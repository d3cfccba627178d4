//! What a power cut may take: the changes that are written and not yet durable, and the images they change.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::sys::PAGE_BYTES;

/// The length of a page as positions are counted.
pub(super) const PAGE: u64 = PAGE_BYTES as u64;

/// A change that is not durable yet, the smallest thing of which a power cut takes all or nothing (a page may be torn).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unit {
    /// Bytes written within one page of a file. They lengthen the file if they end behind its end.
    Write {
        /// The file, by the number under which the disk keeps it.
        file: u64,
        /// Where the bytes begin in the file.
        position: u64,
        /// The bytes.
        bytes: Arc<[u8]>,
    },
    /// A file became longer by a reservation.
    Length {
        /// The file.
        file: u64,
        /// Its new length.
        bytes: u64,
    },
    /// A range of a file was given back.
    Punch {
        /// The file.
        file: u64,
        /// The range that became zeros.
        range: Range<u64>,
    },
    /// A file or directory got a name.
    Link {
        /// The name.
        path: PathBuf,
        /// The file; nothing for a directory.
        file: Option<u64>,
    },
    /// A file got another name.
    Rename {
        /// The old name.
        from: PathBuf,
        /// The new name.
        to: PathBuf,
        /// The file.
        file: u64,
    },
    /// A file lost its name.
    Unlink {
        /// The name.
        path: PathBuf,
        /// The file.
        file: u64,
    },
}

/// What becomes of a unit in a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It never happened.
    Lost,
    /// It survived whole.
    Kept,
    /// Of a write, only the first bytes survived; of anything else, nothing.
    Torn {
        /// How many bytes.
        bytes: usize,
    },
}

impl Unit {
    /// The file whose contents or length this changes.
    pub(super) fn content_of(&self) -> Option<u64> {
        match self {
            Self::Write { file, .. } | Self::Length { file, .. } | Self::Punch { file, .. } => Some(*file),
            Self::Link { .. } | Self::Rename { .. } | Self::Unlink { .. } => None,
        }
    }

    /// Any file this speaks of.
    pub(super) fn file(&self) -> Option<u64> {
        match self {
            Self::Link { file, .. } => *file,
            Self::Write { file, .. }
            | Self::Length { file, .. }
            | Self::Punch { file, .. }
            | Self::Rename { file, .. }
            | Self::Unlink { file, .. } => Some(*file),
        }
    }

    /// Whether this changes the names in `directory`.
    pub(super) fn is_in_directory(&self, directory: &Path) -> bool {
        match self {
            Self::Link { path, .. } | Self::Unlink { path, .. } => path.parent() == Some(directory),
            Self::Rename { from, to, .. } => {
                from.parent() == Some(directory) || to.parent() == Some(directory)
            }
            Self::Write { .. } | Self::Length { .. } | Self::Punch { .. } => false,
        }
    }

    /// The range of its file that this changes.
    pub(super) fn range(&self) -> Option<Range<u64>> {
        match self {
            Self::Write { position, bytes, .. } => Some(*position..*position + bytes.len() as u64),
            Self::Punch { range, .. } => Some(range.clone()),
            _ => None,
        }
    }

    /// Whether this changes the contents of `file` within `range`.
    pub(super) fn touches(&self, of: u64, range: &Range<u64>) -> bool {
        match self {
            Self::Write {
                file,
                position,
                bytes,
            } => *file == of && *position < range.end && position + bytes.len() as u64 > range.start,
            Self::Punch { file, range: punched } => {
                *file == of && punched.start < range.end && punched.end > range.start
            }
            _ => false,
        }
    }
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Node {
    Directory,
    File(u64),
}

/// The contents of a file. Pages that were never written are zeros and not kept.
#[derive(Clone, Debug, Default)]
pub(super) struct Image {
    pub(super) bytes: u64,
    pub(super) pages: BTreeMap<u64, Arc<[u8]>>,
    /// The sum of what [`page_digest`] says of each page; kept up to date, so that images compare in no time.
    digest: u64,
}

impl Image {
    pub(super) fn lengthen(&mut self, bytes: u64) {
        self.bytes = self.bytes.max(bytes);
    }

    /// Reads into the front of `bytes` and says how many there were before the end.
    pub(super) fn read(&self, position: u64, bytes: &mut [u8]) -> usize {
        let left = usize::try_from(self.bytes.saturating_sub(position)).unwrap_or(usize::MAX);
        let count = left.min(bytes.len());
        for (part, offset) in pages_of(position, count as u64) {
            let length = usize::try_from(part.end - part.start).unwrap_or(0);
            let Some(target) = bytes.get_mut(offset..offset + length) else {
                continue;
            };
            let start = usize::try_from(part.start % PAGE).unwrap_or(0);
            let page = self.pages.get(&(part.start / PAGE));
            match page.and_then(|page| page.get(start..start + length)) {
                Some(source) => target.copy_from_slice(source),
                None => target.fill(0),
            }
        }
        count
    }

    /// Writes bytes that lie within one page.
    pub(super) fn write(&mut self, position: u64, bytes: &[u8]) {
        let number = position / PAGE;
        let start = usize::try_from(position % PAGE).unwrap_or(0);
        self.bytes = self.bytes.max(position + bytes.len() as u64);
        let page = self.pages.entry(number).or_insert_with(zero_page);
        self.digest = self.digest.wrapping_sub(page_digest(number, page));
        match Arc::get_mut(page) {
            Some(own) => copy_into(own, start, bytes),
            None => {
                let mut own = [0; PAGE_BYTES];
                copy_into(&mut own, 0, page);
                copy_into(&mut own, start, bytes);
                *page = Arc::new(own);
            }
        }
        self.digest = self.digest.wrapping_add(page_digest(number, page));
    }

    /// A number that is the same for the same bytes, and another for others but by a chance of one in 2^64.
    pub(super) fn digest(&self) -> u64 {
        self.digest ^ mix(self.bytes)
    }

    pub(super) fn punch(&mut self, range: &Range<u64>) {
        for (part, _) in pages_of(range.start, range.end.saturating_sub(range.start)) {
            let number = part.start / PAGE;
            if part.end - part.start == PAGE {
                if let Some(page) = self.pages.remove(&number) {
                    self.digest = self.digest.wrapping_sub(page_digest(number, &page));
                }
            } else if self.pages.contains_key(&number) {
                let (length, zeros) = (self.bytes, [0; PAGE_BYTES]);
                let count = usize::try_from(part.end - part.start).unwrap_or(0);
                self.write(part.start, zeros.get(..count).unwrap_or(&zeros));
                self.bytes = length;
            }
        }
    }
}

fn zero_page() -> Arc<[u8]> {
    Arc::new([0; PAGE_BYTES])
}

fn copy_into(target: &mut [u8], start: usize, bytes: &[u8]) {
    if let Some(target) = target.get_mut(start..start + bytes.len()) {
        target.copy_from_slice(bytes);
    }
}

/// Nothing for a page of zeros, as for one that is not there.
fn page_digest(number: u64, page: &[u8]) -> u64 {
    let mut sum = mix(number);
    let mut any = 0;
    for word in page.chunks_exact(8) {
        let word = word.try_into().map_or(0, u64::from_le_bytes);
        any |= word;
        sum = (sum.rotate_left(23) ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
    if any == 0 { 0 } else { mix(sum) }
}

/// Spreads the bits of a number.
pub(super) fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_mul(0xD6E8_FEB8_6659_FD93);
    mixed ^= mixed >> 32;
    mixed = mixed.wrapping_mul(0xD6E8_FEB8_6659_FD93);
    mixed ^ (mixed >> 32)
}

/// The medium: names and contents. What a power cut leaves is computed on a copy of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Medium {
    pub(super) names: BTreeMap<PathBuf, Node>,
    /// Shared between the media that have them alike.
    pub(super) images: HashMap<u64, Arc<Image>>,
}

impl Medium {
    /// The image of a file, to be changed.
    fn image_of(&mut self, file: u64) -> &mut Image {
        Arc::make_mut(self.images.entry(file).or_default())
    }

    /// A number that is the same for the same names with the same contents, however the files are numbered.
    pub(super) fn digest(&self) -> u64 {
        let mut digest = 0_u64;
        for (path, node) in &self.names {
            let mut hasher = DefaultHasher::new();
            path.hash(&mut hasher);
            if let Node::File(file) = node {
                hasher.write_u64(self.images.get(file).map_or(0, |image| image.digest()));
            }
            digest = digest.wrapping_add(hasher.finish());
        }
        digest
    }

    /// Lets a unit happen as far as its fate says.
    pub(super) fn apply(&mut self, unit: &Unit, fate: Fate) {
        let torn = match fate {
            Fate::Lost => return,
            Fate::Kept => usize::MAX,
            Fate::Torn { bytes } => bytes,
        };
        if let Unit::Write {
            file,
            position,
            bytes,
        } = unit
        {
            let surviving = bytes.get(..torn).unwrap_or(bytes);
            if !surviving.is_empty() {
                self.image_of(*file).write(*position, surviving);
            }
        } else if fate == Fate::Kept {
            self.apply_whole(unit);
        }
    }

    fn apply_whole(&mut self, unit: &Unit) {
        match unit {
            Unit::Write { .. } => {}
            Unit::Length { file, bytes } => {
                self.image_of(*file).lengthen(*bytes);
            }
            Unit::Punch { file, range } => self.image_of(*file).punch(range),
            Unit::Link { path, file } => {
                self.names
                    .insert(path.clone(), file.map_or(Node::Directory, Node::File));
            }
            Unit::Rename { from, to, file } => {
                self.remove_if_it_names(from, *file);
                self.names.insert(to.clone(), Node::File(*file));
            }
            Unit::Unlink { path, file } => self.remove_if_it_names(path, *file),
        }
    }

    fn remove_if_it_names(&mut self, path: &Path, file: u64) {
        if self.names.get(path) == Some(&Node::File(file)) {
            self.names.remove(path);
        }
    }

    /// Removes what cannot be reached: names whose directory did not survive, contents without a name.
    pub(super) fn prune(&mut self) {
        // Parents sort before their children, so one pass in order sees each parent's fate first.
        let paths: Vec<PathBuf> = self.names.keys().cloned().collect();
        for path in paths {
            let parent = path.parent().map(Path::to_path_buf);
            if parent.is_some_and(|parent| self.names.get(&parent) != Some(&Node::Directory)) {
                self.names.remove(&path);
            }
        }
        let names = &self.names;
        let named: std::collections::HashSet<u64> = names
            .values()
            .filter_map(|node| match node {
                Node::File(file) => Some(*file),
                Node::Directory => None,
            })
            .collect();
        self.images.retain(|file, _| named.contains(file));
        // A name that survived without anything of its file stands for an empty one.
        for file in named {
            self.images.entry(file).or_default();
        }
    }
}

/// Cuts a range of a file at page borders; with each part, where it begins within the range.
pub(super) fn pages_of(position: u64, bytes: u64) -> impl Iterator<Item = (Range<u64>, usize)> {
    let end = position.saturating_add(bytes);
    let mut at = position;
    std::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let part = at..end.min((at / PAGE + 1) * PAGE);
        let offset = usize::try_from(at - position).ok()?;
        at = part.end;
        Some((part, offset))
    })
}
