//! Carrying a plan out. Every file that is changed is copied and synced before.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lanterman::disk::{
    Choice, Disk, DiskFile, FileLock, OpenMode, Sync, SystemDisk, SystemOptions, read_full_at,
};
use lanterman::{Background, Clock, Options, SystemClock};
use lanterman_format::name::segment_file_name;
use lanterman_format::root_slot::ROOT_SLOT_BYTES;
use lanterman_format::segment::SEGMENT_HEADER_BYTES;
use lanterman_format::{
    ByteLength, FileKind, FormatVersion, Found, Generation, RootSlot, SegmentHeader, SegmentId, SegmentKind,
    Sequence, StoreId, Version,
};

use crate::files::{RootBytes, STEP, StoreFiles};
use crate::problem::Problem;
use crate::repair::plan::{Action, Plan};

/// Files are copied in pieces of this size.
const PIECE_BYTES: usize = 64 << 10;

/// The disk through which everything is done here, as the library itself does it: it follows no links, writes no file
/// that has a second name, and what it makes is for its owner alone.
fn disk(for_what: &Path) -> Result<SystemDisk, Problem> {
    let options = SystemOptions {
        ring: Choice::Off,
        direct: Choice::Off,
        ..SystemOptions::default()
    };
    SystemDisk::new(options).map_err(|error| Problem::io("prepare to repair", for_what, error))
}

/// Takes the lock that a writer would take.
pub(super) fn lock(store: &Path) -> Result<Box<dyn FileLock>, Problem> {
    let path = store.join("lock");
    let lock = disk(store)?
        .lock(&path)
        .map_err(|error| Problem::io("lock", &path, error))?;
    lock.ok_or_else(|| {
        lanterman::Error::Locked {
            path: store.to_path_buf(),
        }
        .into()
    })
}

/// Carries the plan out; gives the directory with the files as they were. The lock is held for all but the last step,
/// in which the library takes it.
pub(super) fn apply(
    store: &Path,
    plan: &Plan,
    mut lock: Option<Box<dyn FileLock>>,
) -> Result<PathBuf, Problem> {
    let kept = make_directory(store)?;
    for action in &plan.actions {
        match action {
            Action::RewriteRootSlot { slot } => rewrite_root_slot(store, &kept, *slot)?,
            Action::RebuildSegmentHeader {
                segment,
                kind,
                generation,
                first_version,
            } => {
                rebuild_header(store, &kept, *segment, *kind, *generation, *first_version)?;
            }
            Action::GiveUpCommits { .. } => give_up_commits(store, &kept, &mut lock)?,
        }
    }
    Ok(kept)
}

/// A new directory beside the store: within it, only what belongs to a store may stand.
fn make_directory(store: &Path) -> Result<PathBuf, Problem> {
    let absolute = store
        .canonicalize()
        .map_err(|error| Problem::io("find", store, error))?;
    let mut name = absolute.clone().into_os_string();
    name.push(format!(".damaged-{}", SystemClock::new().wall_ms()));
    let kept = PathBuf::from(name);
    disk(store)?
        .create_directory(&kept)
        .map_err(|error| Problem::io("create", &kept, error))?;
    if let Some(parent) = absolute.parent() {
        sync_directory(parent)?;
    }
    Ok(kept)
}

fn keep(path: &Path, kept: &Path) -> Result<(), Problem> {
    let target = kept.join(path.file_name().unwrap_or_default());
    if target.exists() {
        return Ok(());
    }
    let disk = disk(path)?;
    let failed = |error| Problem::io("copy", path, error);
    let from = disk.open(path, OpenMode::Read).map_err(failed)?;
    let to = disk
        .open(&target, OpenMode::CreateNew)
        .map_err(|error| Problem::io("create", &target, error))?;
    let mut bytes = vec![0u8; PIECE_BYTES];
    let mut position = 0u64;
    loop {
        let read = read_full_at(from.as_ref(), position, &mut bytes).map_err(failed)?;
        if read == 0 {
            break;
        }
        to.write_at(position, bytes.get(..read).unwrap_or_default(), Sync::No)
            .map_err(|error| Problem::io("write", &target, error))?;
        position += read as u64;
    }
    to.sync_data()
        .map_err(|error| Problem::io("sync", &target, error))?;
    sync_directory(kept)
}

fn sync_directory(path: &Path) -> Result<(), Problem> {
    let directory = File::open(path).map_err(|error| Problem::io("open", path, error))?;
    directory
        .sync_all()
        .map_err(|error| Problem::io("sync", path, error))
}

fn open_for_writing(path: &Path) -> Result<Arc<dyn DiskFile>, Problem> {
    disk(path)?
        .open(path, OpenMode::ReadWrite)
        .map_err(|error| Problem::io("open", path, error))
}

fn write(path: &Path, position: u64, bytes: &[u8]) -> Result<(), Problem> {
    let file = open_for_writing(path)?;
    file.write_at(position, bytes, Sync::No)
        .map_err(|error| Problem::io("write", path, error))?;
    file.sync_data().map_err(|error| Problem::io("sync", path, error))
}

fn whole_slot(store: &Path) -> Result<RootSlot, Problem> {
    let root = RootBytes::read(store)?;
    let whole = root.slots.iter().find_map(|slot: &Found<RootSlot>| slot.valid());
    whole.ok_or_else(|| Problem::Call("no root slot is whole".to_owned()))
}

/// Says in the lost slot what the whole one says, one step older, so that the whole one stays the newest.
fn rewrite_root_slot(store: &Path, kept: &Path, slot: u32) -> Result<(), Problem> {
    let path = store.join("root");
    keep(&path, kept)?;
    let whole = whole_slot(store)?;
    let number = whole.sequence.get();
    let sequence = if number > 1 { number - 1 } else { number + 1 };
    let mut page = [0u8; ROOT_SLOT_BYTES];
    RootSlot {
        sequence: Sequence::new(sequence),
        ..whole
    }
    .encode(slot, &mut page);
    write(&path, u64::from(slot) * ROOT_SLOT_BYTES as u64, &page)
}

fn rebuild_header(
    store: &Path,
    kept: &Path,
    segment: SegmentId,
    kind: SegmentKind,
    generation: Generation,
    first_version: Version,
) -> Result<(), Problem> {
    let path = store
        .join("segments")
        .join(segment_file_name(segment, FileKind::from(kind)));
    keep(&path, kept)?;
    let id: StoreId = whole_slot(store)?.store;
    let length = path
        .metadata()
        .map_err(|error| Problem::io("look at", &path, error))?
        .len();
    let header = SegmentHeader {
        format: FormatVersion::CURRENT,
        kind,
        store: id,
        segment,
        generation,
        segment_bytes: ByteLength::new(length - length % STEP),
        first_version,
        time_ms: SystemClock::new().wall_ms(),
    };
    let mut page = [0u8; SEGMENT_HEADER_BYTES];
    header.encode(&mut page);
    write(&path, 0, &page)
}

/// Opens the store with the loss accepted, which makes it a part of the logs. A crash on the way leaves the store as it
/// was, and the plan is the same again.
fn give_up_commits(store: &Path, kept: &Path, lock: &mut Option<Box<dyn FileLock>>) -> Result<(), Problem> {
    keep(&store.join("root"), kept)?;
    let files = StoreFiles::open(store, None)?;
    for file in files.journals_from(SegmentId::new(0)) {
        keep(&file.path, kept)?;
    }
    drop(lock.take());
    let options = Options::new()
        .create(false)
        .accept_lost_commits(true)
        .background(Background::Manual);
    options.open_copying(store)?.close()?;
    Ok(())
}
