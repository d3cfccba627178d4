//! Making an empty store, so that it is there whole or not at all, whenever whoever makes it is cut short.

use std::path::Path;
use std::sync::Arc;

use lanterman_format::FormatVersion;
use lanterman_format::block::{BLOCK_HEADER_BYTES, decode_block_header};
use lanterman_format::error::Found;
use lanterman_format::ids::{Position, Sequence, StoreId, Version};
use lanterman_format::reference::Reference;
use lanterman_format::root_slot::RootSlot;
use lanterman_format::segment::{SEGMENT_HEADER_BYTES, SegmentHeader, SegmentKind};

use crate::disk::{Disk, OpenMode, read_full_at};
use crate::error::{Error, Result};
use crate::options::Options;
use crate::root_file::RootFile;
use crate::segment::{FIRST_BLOCK_POSITION, SegmentTable};

/// Makes the name of the store's directory durable, whoever made it: a process that was killed in the midst of this may
/// not have come so far.
pub(crate) fn sync_name_of(disk: &Arc<dyn Disk>, path: &Path, was_there: bool) -> Result<()> {
    let Some(parent) = path.parent() else {
        return Ok(());
    };
    match disk.sync_directory(parent) {
        // Not ours to open; then somebody else gave us the directory, and answers for its name.
        Err(error) if was_there && error.kind() == std::io::ErrorKind::PermissionDenied => Ok(()),
        outcome => outcome.map_err(|source| Error::failed_sync(parent, source)),
    }
}

/// Makes an empty store: a first journal segment, then the root file, whose name makes it one.
pub(crate) fn create_store(disk: &Arc<dyn Disk>, path: &Path, options: &Options) -> Result<()> {
    let segments = path.join("segments");
    if disk
        .exists(&segments)
        .map_err(|source| Error::io("look for", &segments, source))?
    {
        clear_interrupted_creation(disk, path, &segments)?;
    } else {
        disk.create_directory(&segments)
            .map_err(|source| Error::io("create", &segments, source))?;
    }
    disk.sync_directory(path)
        .map_err(|source| Error::failed_sync(path, source))?;
    let identity = options
        .randomness
        .identity()
        .map_err(|source| Error::io("draw an identity for", path, source))?;
    let store = StoreId::from_bytes(identity);
    let table = SegmentTable::new(Arc::clone(disk), path, store, true);
    let time_ms = options.clock.wall_ms();
    let bytes = options.journal_segment_bytes_first;
    let journal = table.create(SegmentKind::Journal, bytes, bytes, Version::new(1), time_ms)?;
    let slot = RootSlot {
        format: FormatVersion::CURRENT,
        store,
        sequence: Sequence::new(0),
        version: Version::new(0),
        checkpoint: Reference::EMPTY,
        journal_segment: journal.id,
        journal_position: Position::new(FIRST_BLOCK_POSITION),
        next_segment: table.next(),
        time_ms,
    };
    RootFile::create(disk, path, &slot).map(|_| ())
}

/// A creation that was cut short leaves at most one file of segments, with nothing in it. Anything more is a store that
/// lost its root, and not for us to touch.
fn clear_interrupted_creation(disk: &Arc<dyn Disk>, path: &Path, segments: &Path) -> Result<()> {
    let names = disk
        .list(segments)
        .map_err(|source| Error::io("list", segments, source))?;
    for name in &names {
        let first =
            lanterman_format::name::parse_segment_file_name(name).is_some_and(|(id, _)| id.get() == 1);
        let file = segments.join(name);
        if names.len() > 1 || !first || holds_a_commit(disk, &file)? {
            return Err(Error::NotAStore {
                path: path.to_path_buf(),
                found: format!("it holds segments/{name} without a root file"),
            });
        }
        disk.unlink(&file)
            .map_err(|source| Error::io("remove", &file, source))?;
    }
    Ok(())
}

/// Whether the file is a journal segment with a first version in it.
fn holds_a_commit(disk: &Arc<dyn Disk>, path: &Path) -> Result<bool> {
    let file = disk
        .open(path, OpenMode::Read)
        .map_err(|source| Error::io("open", path, source))?;
    let mut page = [0u8; SEGMENT_HEADER_BYTES];
    let mut block = [0u8; BLOCK_HEADER_BYTES];
    read_full_at(file.as_ref(), 0, &mut page).map_err(|source| Error::io("read", path, source))?;
    read_full_at(file.as_ref(), FIRST_BLOCK_POSITION, &mut block)
        .map_err(|source| Error::io("read", path, source))?;
    Ok(match SegmentHeader::decode(&page, None) {
        Found::Valid(header) => {
            decode_block_header(&block, &header.place(Position::new(FIRST_BLOCK_POSITION))).is_valid()
        }
        Found::Empty | Found::Invalid(_) => false,
    })
}
