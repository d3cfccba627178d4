//! The check of one state: it opens within bounds, holds what it must, goes on, and opens again.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lanterman::disk::{Disk, Fate, MemoryDisk, OpenMode, RecordingDisk};
use lanterman::{Options, Store};
use lanterman_format::error::Found;
use lanterman_format::name::{FileKind, parse_segment_file_name};
use lanterman_format::root_slot::{ROOT_SLOT_BYTES, ROOT_SLOTS, RootSlot};

use crate::history::{Found as Held, Lives, Oracle};
use crate::probe::Probe;

pub const PATH: &str = "/store";

/// Nobody waits longer for a store to open. Far above what is needed, so that a busy machine does not matter.
const OPENING_LIMIT: Duration = Duration::from_secs(2);

/// What of a file is read whatever it holds: its header, and what is read ahead.
const FILE_READ_BYTES: u64 = 16 << 10;

/// Spare files that a store keeps, its reserve for a full disk, and one that a crash may add.
const SPARES_MAX: usize = 5;

/// How the state is to be tried.
pub struct Trial<'a> {
    pub options: &'a Options,
    pub oracle: &'a dyn Oracle,
    /// Whose messages the state may hold.
    pub lives: &'a Lives,
    /// What slabs and catalog add to the bytes that opening reads, at most.
    pub unsealed_read_bytes: u64,
    /// Decides what differs from state to state and need not differ within one.
    pub choice: u64,
}

pub fn open(options: &Options, disk: Arc<dyn Disk>) -> Result<Store, String> {
    options
        .clone()
        .disk(disk)
        .open_copying(PATH)
        .map_err(|error| format!("opening: {error}"))
}

/// Opens the state on `image`, within the bounds.
fn open_bounded(trial: &Trial<'_>, probe: &Arc<Probe>, bound: u64) -> Result<Store, String> {
    let began = Instant::now();
    let store = open(trial.options, Arc::<Probe>::clone(probe))?;
    let (read, took) = (probe.read_bytes(), began.elapsed());
    if read > bound {
        return Err(format!("opening read {read} bytes, and {bound} must do"));
    }
    if took > OPENING_LIMIT {
        return Err(format!("opening took {took:?}"));
    }
    Ok(store)
}

impl Trial<'_> {
    /// Everything that is asked of a state, but for what was acknowledged: `judge` says that. Gives what it held.
    pub fn run(
        &self,
        image: MemoryDisk,
        judge: impl FnOnce(&Held) -> Result<(), String>,
    ) -> Result<Held, String> {
        let image = Arc::new(image);
        let bound = reading_bound(image.as_ref(), self.unsealed_read_bytes)?;
        let probe = Arc::new(Probe::new(Arc::<MemoryDisk>::clone(&image)));
        let store = open_bounded(self, &probe, bound)?;
        let found = self.oracle.look(&store, self.lives)?;
        judge(&found)?;
        let lives = self.lives.and(&found);
        let went_on = self.oracle.go_on(&store, &found, &lives)?;
        if self.choice & 1 == 0 {
            store.close().map_err(|error| format!("closing: {error}"))?;
            check_names(image.as_ref())?;
        } else {
            probe.cut_off();
            drop(store);
        }
        // What it went on with was durable: it may lose everything else.
        let fate = if self.choice & 2 == 0 {
            Fate::Lost
        } else {
            Fate::Kept
        };
        let again = Arc::new(Probe::new(Arc::new(image.crash_image(|_, _| fate).unwrap())));
        let store =
            open(self.options, Arc::<Probe>::clone(&again)).map_err(|error| format!("again: {error}"))?;
        let kept = self
            .oracle
            .look(&store, &lives)
            .map_err(|error| format!("again: {error}"))?;
        again.cut_off();
        drop(store);
        if kept != went_on {
            return Err(format!("had {went_on:?} and after a second opening {kept:?}"));
        }
        Ok(found)
    }

    /// What the state does while it is opened, written again and closed, recorded for crashes within; with what it held
    /// and when it had acknowledged what.
    pub fn record(&self, image: &MemoryDisk) -> Result<Recovery, String> {
        let recording = Arc::new(RecordingDisk::new(Arc::new(image.kill_image().unwrap())));
        let store = open(self.options, Arc::<RecordingDisk>::clone(&recording))?;
        let opened = recording.operation_count();
        let found = self.oracle.look(&store, self.lives)?;
        let lives = self.lives.and(&found);
        let went_on = self.oracle.go_on(&store, &found, &lives)?;
        let done = recording.operation_count();
        store.close().map_err(|error| format!("closing: {error}"))?;
        Ok(Recovery {
            operations: recording.operations(),
            opened,
            done,
            found,
            went_on,
        })
    }
}

/// A recovery and what followed it, as recorded.
pub struct Recovery {
    pub operations: Vec<lanterman::disk::Operation>,
    /// Changes until the store was open.
    pub opened: usize,
    /// Changes until new messages were acknowledged.
    pub done: usize,
    pub found: Held,
    pub went_on: Held,
}

/// Opening reads the journal, not the slabs. It reads its segments once to replay them, and those at its end again when it
/// looks for what follows, for a hole, and for what a writer may have put there meanwhile.
fn reading_bound(image: &MemoryDisk, unsealed: u64) -> Result<u64, String> {
    let directory = Path::new(PATH).join("segments");
    let failed = |error: std::io::Error| format!("looking at the state: {error}");
    let names = image.list(&directory).unwrap_or_default();
    let mut bound = unsealed + 2 * FILE_READ_BYTES;
    for name in names {
        bound += FILE_READ_BYTES;
        if name.ends_with(".journal") {
            let metadata = image.metadata(&directory.join(name)).map_err(failed)?;
            bound += metadata.map_or(0, |metadata| 4 * metadata.bytes);
        }
    }
    Ok(bound)
}

/// After a checkpoint no file is left that nobody owns: nothing but the store's own names, no journal segment that no
/// recovery reads, few spares.
fn check_names(image: &MemoryDisk) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("looking at names: {error}");
    let own = ["lock", "readers", "root", "segments"];
    let names = image.list(Path::new(PATH)).map_err(failed)?;
    if let Some(foreign) = names.iter().find(|name| !own.contains(&name.as_str())) {
        return Err(format!("{foreign} is left for ever"));
    }
    let root = image
        .open(&Path::new(PATH).join("root"), OpenMode::Read)
        .map_err(failed)?;
    let first = (0..ROOT_SLOTS).filter_map(|slot| {
        let mut bytes = [0; ROOT_SLOT_BYTES];
        root.read_at(u64::from(slot) * ROOT_SLOT_BYTES as u64, &mut bytes)
            .ok()?;
        match RootSlot::decode(&bytes, slot) {
            Found::Valid(slot) => Some((slot.sequence, slot.journal_segment)),
            Found::Empty | Found::Invalid(_) => None,
        }
    });
    let (_, first) = first.max().ok_or("closed without a root")?;
    let mut spares = 0;
    for name in image.list(&Path::new(PATH).join("segments")).map_err(failed)? {
        match parse_segment_file_name(&name) {
            Some((id, FileKind::Journal)) if id < first => {
                return Err(format!("{name} is left, and the root begins with {first:?}"));
            }
            Some((_, FileKind::Free)) => spares += 1,
            Some(_) => {}
            None => return Err(format!("segments/{name} is left for ever")),
        }
    }
    if spares > SPARES_MAX {
        return Err(format!("{spares} spare files"));
    }
    Ok(())
}
