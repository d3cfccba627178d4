//! Drives the engine through its public interface beside a plain model, with crashes between.
//!
//! An input is a list of decisions. Every answer of the engine is compared at once; after each reopening, everything
//! that was promised must be there, in order and equal, and what follows must be a prefix of what was appended, with
//! transactions and batches whole or absent; what was deleted is gone for good, and for nobody who held it.
//!
//! Logs may be keyed, have rules and be compressed. The model says by itself what is refused, by which rule and where, and what
//! goes to another log; a keyed log answers as the table of its newest messages, of which a compaction may take none.
//! The store lives on a disk in memory, with limits so small that growing, sealing, rolling, checkpoints and recycling
//! happen all the time, and has a clock that goes as it is told.

mod acts;
mod appending;
mod check;
mod deleting;
mod expected;
mod judging;
mod keyed;
mod log;
mod options;
mod persisting;
mod reopen;
mod rules;
mod settings;
mod transactions;

use std::cell::Cell;
use std::sync::Arc;

use lanterman::disk::{Fault, FaultyDisk, MemoryDisk, OperationKind};
use lanterman::{Clock, Cursor, Options, Snapshot, Store, Writer};

use crate::choices::Choices;
use log::{ModelLog, Whole};
use options::{ModelClock, small_options};

/// Names of the logs; some look like paths and must never become any.
const NAMES: [&str; 5] = ["orders", "../audit", "a/b/../c", "\u{1F4D6} log", "."];
const PATH: &str = "/store";
/// Bytes that one input may append, which bounds its time.
const APPEND_BYTES_MAX: usize = 6 << 20;
/// How long an act takes.
const ACT_MS: u64 = 200;
/// How many snapshots and cursors are held at a time.
const HELD_MAX: usize = 3;

/// A snapshot and what it must hold for good.
struct HeldSnapshot {
    snapshot: Snapshot,
    log: usize,
    wanted: ModelLog,
}

/// A cursor that follows a log.
struct HeldCursor {
    cursor: Cursor,
    log: usize,
    next: u64,
    is_durable: bool,
    /// How many edits of the log were done when it was made: what they deleted it never shows.
    edits: usize,
}

/// Prints what is done if the environment asks for it; a failing seed can so be followed.
macro_rules! trace {
    ($driver:expr, $($part:tt)*) => {
        if $driver.is_traced {
            $driver.trace.push(format!($($part)*));
        }
    };
}
pub(crate) use trace;

struct Driver<'a> {
    choices: Choices<'a>,
    memory: Arc<MemoryDisk>,
    faulty: Arc<FaultyDisk>,
    options: Options,
    clock: Arc<ModelClock>,
    store: Option<Store>,
    reader: Option<Store>,
    writers: Vec<Option<Writer>>,
    logs: Vec<ModelLog>,
    transactions: Vec<Whole>,
    snapshots: Vec<HeldSnapshot>,
    cursors: Vec<HeldCursor>,
    appended_bytes: usize,
    refused: usize,
    diverted: usize,
    compacted: usize,
    retained: usize,
    keys_found: Cell<usize>,
    next_number: u64,
    is_space_limited: bool,
    /// An operation failed that may have left something behind: nothing but a reopening may follow.
    is_broken: bool,
    /// A sync was planned to lose what it should have made durable. Linux then shows bytes in its cache that the device
    /// never gets, and nobody who opens the files can tell: only a loss of power shows what is really there.
    may_have_lost: bool,
    is_traced: bool,
    trace: Vec<String>,
}

/// What a run did, to see that it did something.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Messages that the model holds at the end.
    pub messages: usize,
    /// Bytes appended in the run.
    pub appended_bytes: usize,
    /// Calls that a rule or a missing key refused.
    pub refused: usize,
    /// Messages that a rule sent to another log.
    pub diverted: usize,
    /// Messages that compactions removed.
    pub compacted: usize,
    /// Messages that retentions removed which were set.
    pub retained: usize,
    /// Keys that were looked for and found.
    pub keys_found: usize,
}

impl Summary {
    /// Adds what another run did.
    pub fn add(&mut self, other: &Self) {
        self.messages += other.messages;
        self.appended_bytes += other.appended_bytes;
        self.refused += other.refused;
        self.diverted += other.diverted;
        self.compacted += other.compacted;
        self.retained += other.retained;
        self.keys_found += other.keys_found;
    }
}

/// Runs the decisions in `input`.
///
/// # Panics
/// When the engine breaks a promise; that is what it is for.
pub fn drive(input: &[u8]) {
    let _ = run(input);
}

/// As [`drive`], and says what was done.
///
/// # Panics
/// As [`drive`].
#[must_use]
pub fn run(input: &[u8]) -> Summary {
    let mut driver = Driver::new(input);
    driver.open();
    while !driver.choices.is_empty() {
        driver.act();
        if driver.is_broken {
            driver.crash();
        }
    }
    driver.finish()
}

/// Runs the decisions in `input` and gives what was done when it fails.
///
/// # Panics
/// As [`drive`], with the list of acts in the message.
pub fn explain(input: &[u8]) {
    let mut driver = Driver::new(input);
    driver.is_traced = true;
    let mut acts = Vec::new();
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        driver.open();
        while !driver.choices.is_empty() {
            driver.act();
            if driver.is_broken {
                driver.crash();
            }
        }
    }));
    std::mem::swap(&mut acts, &mut driver.trace);
    if outcome.is_err() {
        panic!("after these acts:\n{}", acts.join("\n"));
    }
}

impl<'a> Driver<'a> {
    fn new(input: &'a [u8]) -> Self {
        let mut choices = Choices::new(input);
        let memory = Arc::new(MemoryDisk::new());
        let faulty = Arc::new(FaultyDisk::new(memory.clone()));
        let clock = Arc::new(ModelClock::default());
        let options = small_options(&mut choices).clock(Arc::clone(&clock) as Arc<dyn Clock>);
        Driver {
            choices,
            memory,
            faulty,
            options,
            clock,
            store: None,
            reader: None,
            writers: NAMES.map(|_| None).into(),
            logs: vec![ModelLog::default(); NAMES.len()],
            transactions: Vec::new(),
            snapshots: Vec::new(),
            cursors: Vec::new(),
            appended_bytes: 0,
            refused: 0,
            diverted: 0,
            compacted: 0,
            retained: 0,
            keys_found: Cell::new(0),
            next_number: 1,
            is_space_limited: false,
            is_broken: false,
            may_have_lost: false,
            is_traced: false,
            trace: Vec::new(),
        }
    }

    fn store(&self) -> &Store {
        self.store.as_ref().expect("the store is open between acts")
    }

    fn act(&mut self) {
        self.clock.advance_ms(ACT_MS);
        match self.choices.below(64) {
            0..=8 => self.append(),
            9..=10 => self.append_batch(),
            11..=12 => self.append_full(),
            13 => self.append_in_place(),
            14 => self.append_if(),
            15..=16 => self.commit(),
            17 => self.commit_async(),
            18 => self.commit_all(),
            19..=20 => self.transaction(),
            21 => self.hold_snapshot(),
            22 => self.check_snapshot(),
            23 => self.hold_cursor(),
            24..=25 => self.follow(),
            26 => self.get_some(),
            27 => self.checkpoint(),
            28..=29 => self.work_in_background(),
            30 => self.create_log(),
            31 => self.read_beside(),
            32 => self.snapshot_all(),
            33 => self.drop_writer(),
            34 => self.toggle_space(),
            35 => self.plan_fault(),
            36 => self.close_and_reopen(),
            37..=38 => self.crash(),
            39 => self.many_small_appends(),
            40..=41 => self.delete(),
            42 => self.retain(),
            43 => self.delete_in_a_transaction(),
            44..=47 => self.put(),
            48 => self.put_many(),
            49..=50 => self.put_together(),
            51..=52 => self.put_in_a_transaction(),
            53..=54 => self.set_keyed(),
            55..=57 => self.set_constraints(),
            58 => self.set_compression(),
            59..=60 => self.compact(),
            61 => self.look_up(),
            62 => self.pass_time(),
            _ => self.set_retention(),
        }
    }

    /// A disk that soon runs full, or has all the room again.
    fn toggle_space(&mut self) {
        self.is_space_limited = !self.is_space_limited;
        let room = self.choices.below(64) * (16 << 10);
        let space = self.is_space_limited.then(|| self.memory.used_bytes() + room);
        trace!(self, "space {space:?}");
        self.memory.set_space(space);
    }

    fn plan_fault(&mut self) {
        let kind = FAULTY_KINDS[self.choices.index(FAULTY_KINDS.len())];
        let skip = self.choices.below(8);
        let fault = match self.choices.below(3) {
            0 => Fault::Error(EIO),
            1 => Fault::Torn {
                bytes: self.choices.index(5000),
                error: EIO,
            },
            _ => {
                self.may_have_lost = true;
                Fault::SyncLost { error: EIO }
            }
        };
        trace!(self, "fault at {kind:?} after {skip} more: {fault:?}");
        self.faulty.fail_kind(kind, skip, fault);
    }

    fn finish(mut self) -> Summary {
        self.crash();
        self.memory.set_space(None);
        self.close_and_reopen();
        self.check_everything();
        Summary {
            messages: self.logs.iter().map(|log| log.messages.len()).sum(),
            appended_bytes: self.appended_bytes,
            refused: self.refused,
            diverted: self.diverted,
            compacted: self.compacted,
            retained: self.retained,
            keys_found: self.keys_found.get(),
        }
    }
}

/// What may fail: everything that changes the disk.
const FAULTY_KINDS: [OperationKind; 7] = [
    OperationKind::WriteSync,
    OperationKind::SyncData,
    OperationKind::Write,
    OperationKind::SyncDirectory,
    OperationKind::Rename,
    OperationKind::Unlink,
    OperationKind::Reserve,
];

/// The number of a failed input or output, as Linux counts.
const EIO: i32 = 5;
