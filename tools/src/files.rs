//! The files of a store, read piece by piece: nothing is mapped, and nothing is written. Links are not followed, and
//! what is no regular file is not waited for.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use lanterman_format::block::{BlockHeader, Place, decode_block_header};
use lanterman_format::name::parse_segment_file_name;
use lanterman_format::root_slot::{ROOT_SLOT_BYTES, ROOT_SLOTS};
use lanterman_format::segment::SEGMENT_HEADER_BYTES;
use lanterman_format::{
    BLOCK_ALIGNMENT, FileKind, FormatError, Found, Generation, Position, RootSlot, SegmentHeader, SegmentId,
    SegmentKind, StoreId,
};

use lanterman_format::weakened;
use rustix::fs::{Mode, OFlags, SeekFrom, seek};
use rustix::io::Errno;

use crate::problem::Problem;

/// Where the first block of a segment stands.
pub(crate) const FIRST_BLOCK: u64 = SEGMENT_HEADER_BYTES as u64;
/// Blocks begin at multiples of this.
pub(crate) const STEP: u64 = BLOCK_ALIGNMENT as u64;

/// Opens a regular file for reading, and nothing else: a link might lead anywhere, and a FIFO would have to be waited for.
pub(crate) fn open_regular(path: &Path) -> io::Result<File> {
    let no_follow = if weakened!("tool-follows-links") {
        OFlags::empty()
    } else {
        OFlags::NOFOLLOW
    };
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | no_follow | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(descriptor) => File::from(descriptor),
        Err(Errno::LOOP) => {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "it is a symbolic link, and links are not followed",
            ));
        }
        Err(error) => return Err(error.into()),
    };
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is no regular file",
        ));
    }
    Ok(file)
}

/// A file of segments, open for reading.
#[derive(Debug)]
pub(crate) struct SegmentFile {
    pub(crate) path: PathBuf,
    pub(crate) id: SegmentId,
    pub(crate) kind: FileKind,
    /// Length of the file.
    pub(crate) bytes: u64,
    /// What its first page says.
    pub(crate) header: Found<SegmentHeader>,
    /// Why the header does not fit the file, if it does not.
    pub(crate) misfit: Option<FormatError>,
    /// The life in which its blocks were written, as the header says, or else as its first block proves.
    pub(crate) generation: Option<Generation>,
    file: File,
}

impl SegmentFile {
    /// Opens a segment's file; `None` if it is gone, as segments of a running writer may be.
    pub(crate) fn open(path: &Path, store: Option<&StoreId>) -> Result<Option<Self>, Problem> {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let (id, kind) = parse_segment_file_name(name)
            .ok_or_else(|| Problem::Call(format!("{} has no name that a segment has", path.display())))?;
        let file = match open_regular(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Problem::io("open", path, error)),
        };
        let bytes = file
            .metadata()
            .map_err(|error| Problem::io("look at", path, error))?
            .len();
        let header = Found::Empty;
        let mut segment = SegmentFile {
            path: path.to_path_buf(),
            id,
            kind,
            bytes,
            header,
            misfit: None,
            generation: None,
            file,
        };
        let mut page = Vec::new();
        segment.read(0, SEGMENT_HEADER_BYTES as u64, &mut page)?;
        segment.header = SegmentHeader::decode(&page, store);
        if let (Found::Valid(header), Some(own)) = (&segment.header, segment.segment_kind()) {
            segment.misfit = header.check_file(id, own, bytes).err();
        }
        segment.generation = match (&segment.header, segment.misfit) {
            (Found::Valid(header), None) => Some(header.generation),
            _ => segment.proven_generation(store)?,
        };
        Ok(Some(segment))
    }

    /// What the file's name says that it holds; `None` for a spare.
    pub(crate) fn segment_kind(&self) -> Option<SegmentKind> {
        match self.kind {
            FileKind::Journal => Some(SegmentKind::Journal),
            FileKind::Slabs => Some(SegmentKind::Slabs),
            FileKind::Free => None,
        }
    }

    /// The file's name within the store.
    pub(crate) fn name(&self) -> String {
        let name = self
            .path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        format!("segments/{}", name.unwrap_or_default())
    }

    /// Whether its header is whole and fits the file.
    pub(crate) fn is_sound(&self) -> bool {
        self.header.is_valid() && self.misfit.is_none()
    }

    /// Up to `bytes` bytes from `position` on, as many as the file has, in place of what `out` had. The file's length
    /// bounds the memory, whatever a header says.
    pub(crate) fn read(&self, position: u64, bytes: u64, out: &mut Vec<u8>) -> Result<(), Problem> {
        let there = self.bytes.saturating_sub(position).min(bytes);
        out.clear();
        out.resize(usize::try_from(there).unwrap_or(usize::MAX), 0);
        let mut done = 0usize;
        while let Some(rest) = out.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, position + done as u64) {
                Ok(0) => break,
                Ok(got) => done += got,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Problem::io("read", &self.path, error)),
            }
        }
        out.truncate(done);
        Ok(())
    }

    /// Where a block of it is looked for.
    /// The holes before `end`, which the file system has no pages for: rising, disjoint. None where it does not tell.
    pub(crate) fn holes(&self, end: u64) -> Result<Vec<Range<u64>>, Problem> {
        let mut holes = Vec::new();
        let mut at = 0;
        while at < end {
            let Some(start) = self.seek(SeekFrom::Hole(at))?.filter(|start| *start < end) else {
                break;
            };
            at = self.seek(SeekFrom::Data(start))?.unwrap_or(end).min(end);
            if at <= start {
                break;
            }
            holes.push(start..at);
        }
        Ok(holes)
    }

    /// The next place of that kind; none behind the last, and where the file system does not know of such.
    fn seek(&self, to: SeekFrom) -> Result<Option<u64>, Problem> {
        match seek(&self.file, to) {
            Ok(found) => Ok(Some(found)),
            Err(Errno::NXIO | Errno::INVAL | Errno::OPNOTSUPP) => Ok(None),
            Err(error) => Err(Problem::io("look for holes in", &self.path, error.into())),
        }
    }

    pub(crate) fn place(&self, store: StoreId, position: u64) -> Option<Place> {
        let generation = self.generation?;
        Some(Place {
            store,
            segment: self.id,
            generation,
            position: Position::new(position),
        })
    }

    /// The header of the block at `position`.
    pub(crate) fn block(&self, store: StoreId, position: u64) -> Result<Found<BlockHeader>, Problem> {
        let mut bytes = Vec::new();
        self.read(position, 64, &mut bytes)?;
        Ok(match self.place(store, position) {
            Some(place) => decode_block_header(&bytes, &place),
            None => Found::Empty,
        })
    }

    /// The life that the first block's own checksum proves, where the header cannot be believed.
    fn proven_generation(&self, store: Option<&StoreId>) -> Result<Option<Generation>, Problem> {
        let Some(store) = store else { return Ok(None) };
        let mut bytes = Vec::new();
        self.read(FIRST_BLOCK, 64, &mut bytes)?;
        let Some(field) = bytes.get(40..44).and_then(|field| field.first_chunk::<4>()) else {
            return Ok(None);
        };
        let generation = Generation::new(u32::from_le_bytes(*field));
        let place = Place {
            store: *store,
            segment: self.id,
            generation,
            position: Position::new(FIRST_BLOCK),
        };
        Ok(decode_block_header(&bytes, &place)
            .is_valid()
            .then_some(generation))
    }
}

/// Both slots of the root file.
#[derive(Debug)]
pub(crate) struct RootBytes {
    pub(crate) bytes: Vec<u8>,
    pub(crate) slots: [Found<RootSlot>; 2],
}

impl RootBytes {
    /// Reads the root file; one byte more than there should be, to see whether it has grown.
    pub(crate) fn read(store: &Path) -> Result<Self, Problem> {
        let path = store.join("root");
        let file = open_regular(&path).map_err(|error| Problem::io("open", &path, error))?;
        let most = ROOT_SLOT_BYTES as u64 * u64::from(ROOT_SLOTS) + 1;
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut io::Read::take(file, most), &mut bytes)
            .map_err(|error| Problem::io("read", &path, error))?;
        let slot = |number: u32| {
            let at = ROOT_SLOT_BYTES * number as usize;
            let end = bytes.len().min(at + ROOT_SLOT_BYTES);
            RootSlot::decode(bytes.get(at..end).unwrap_or_default(), number)
        };
        let slots = [slot(0), slot(1)];
        Ok(RootBytes { bytes, slots })
    }
}

/// The segments of a store.
#[derive(Debug)]
pub(crate) struct StoreFiles {
    pub(crate) segments: BTreeMap<(u64, FileKind), SegmentFile>,
    /// Files that are no segments.
    pub(crate) foreign: Vec<String>,
}

impl StoreFiles {
    pub(crate) fn open(store: &Path, id: Option<&StoreId>) -> Result<Self, Problem> {
        let directory = store.join("segments");
        check_is_directory(&directory)?;
        let mut files = StoreFiles {
            segments: BTreeMap::new(),
            foreign: Vec::new(),
        };
        let entries = directory
            .read_dir()
            .map_err(|error| Problem::io("list", &directory, error))?;
        for entry in entries {
            let entry = entry.map_err(|error| Problem::io("list", &directory, error))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if parse_segment_file_name(&name).is_none() {
                files.foreign.push(name);
                continue;
            }
            if let Some(segment) = SegmentFile::open(&entry.path(), id)? {
                files.segments.insert((segment.id.get(), segment.kind), segment);
            }
        }
        Ok(files)
    }

    pub(crate) fn get(&self, id: SegmentId, kind: FileKind) -> Option<&SegmentFile> {
        self.segments.get(&(id.get(), kind))
    }

    /// The journal segments from `first` on, in order.
    pub(crate) fn journals_from(&self, first: SegmentId) -> Vec<&SegmentFile> {
        let wanted = |segment: &&SegmentFile| segment.kind == FileKind::Journal && segment.id >= first;
        self.segments.values().filter(wanted).collect()
    }
}

/// Refuses a link, also one to a directory.
fn check_is_directory(path: &Path) -> Result<(), Problem> {
    let found = path
        .symlink_metadata()
        .map_err(|error| Problem::io("look at", path, error))?;
    if found.is_dir() {
        return Ok(());
    }
    Err(Problem::Call(format!(
        "{} is not a directory of its own (links are not followed)",
        path.display()
    )))
}

/// Whether the directory looks like a store; the answer to a path that is none.
pub(crate) fn check_is_store(path: &Path) -> Result<(), Problem> {
    let found = path
        .metadata()
        .map_err(|error| Problem::io("look at", path, error))?;
    if !found.is_dir() {
        return Err(Problem::Call(format!(
            "{} is not a store: it is no directory",
            path.display()
        )));
    }
    if !path.join("root").exists() {
        let why = if path.join("segments").exists() {
            "it has segments but no root file"
        } else {
            "it has no root file"
        };
        return Err(Problem::Call(format!("{} is not a store: {why}", path.display())));
    }
    Ok(())
}
