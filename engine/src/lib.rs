//! Lanterman: an embeddable log store. One directory holds many named, append-only logs; commits over any number of
//! them are one write; readers copy nothing, take no lock and never hold up the writer.
//!
//! It is not a server, a key-value store or a replicated system. One process writes a store; others may read it
//! meanwhile ([`Options::read_only`]). It runs on Linux alone.
//!
//! ```
//! # fn main() -> Result<(), lanterman::Error> {
//! # let directory = tempfile::tempdir().unwrap();
//! # let path = directory.path().join("data");
//! use lanterman::{Durability, Store};
//!
//! // SAFETY: no other program truncates or rewrites these files while they are mapped.
//! let store = unsafe { Store::open(&path)? };
//! let mut orders = store.writer("orders")?;
//! let offset = orders.append(b"hello")?;
//! orders.commit(Durability::Disk)?;
//!
//! let mut cursor = store.log("orders")?.cursor(offset)?;
//! while let Some(message) = cursor.next()? {
//!     println!("{} {:?}", message.offset(), message.value());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # What a commit promises
//!
//! | | seen by cursors of the process | survives a killed process | survives a power cut |
//! |---|---|---|---|
//! | [`Writer::append`] returned | yes | no | no |
//! | [`Writer::commit`] with [`Durability::Process`] returned | yes | yes | no |
//! | [`Writer::commit`] with [`Durability::Disk`] returned | yes | yes | yes |
//! | [`Store::transaction`] returned, at its level | yes, in all its logs at once | yes | as its level says |
//!
//! What survives is a prefix of each log, and of each version everything or nothing. Dropping the last handle of a
//! store commits everything to the disk. After a failed write or sync the store acknowledges nothing more until it is
//! opened again ([`Error::Poisoned`]); a full disk is no such failure ([`Error::StorageFull`]).
//!
//! # Where to begin
//!
//! - [`Store`] and [`Options`]: open or create; [`Store::open`] is `unsafe` since reads borrow from mapped files,
//!   [`Store::open_copying`] is the safe way, which copies.
//! - [`Writer`]: append one message, a batch, in place, or only at an expected offset; commit, waiting or as a future
//!   that needs no runtime.
//! - [`Cursor`] lends one message after the other and follows the log; [`Snapshot`] holds a log still; values can be kept
//!   as [`bytes::Bytes`] without a copy.
//! - [`Transaction`]: many logs, all or nothing.
//! - [`Message::check`]: what is lent from a map can be lost with the device; asked afterwards, it says so.
//! - [`Error::kind`] says what can be done about an error.
//!
//! # Features
//!
//! - `json-schema`, `cel`: constraints that are JSON Schemas, and expressions in CEL; see [`Constraints`]. A program without
//!   them refuses to append to a log that has such constraints.
//! - `cbor`, `message-pack`: Rust values as CBOR and MessagePack, and formats that check them, as JSON always is there.
//! - `testing`: disks in memory that lose what was not synced, fail by plan or record what is done to them, for tests of
//!   programs that embed a store. See [`disk`].
//!
//! The files are described in `SPEC.md`, the code in `ARCHITECTURE.md`, both beside the workspace's `README.md`.

mod abandoned;
mod atomics;
mod background;
mod catalog;
mod checkpoint;
mod choices;
mod clock;
mod closing;
mod commit;
mod compaction;
mod compression;
mod constrained;
mod constraints;
mod core;
mod counters;
mod create;
mod cursor;
mod deletion;
pub mod disk;
mod dormant;
mod dropping;
mod edit;
mod error;
mod few;
mod flush;
mod fork;
mod formats;
mod found;
mod gc;
mod held_roots;
mod index_memory;
mod journal;
mod key_index;
mod key_scan;
mod keyed;
mod keys;
mod large;
mod listed;
mod log;
mod log_settings;
#[cfg(all(loom, test))]
mod loom_models;
mod lost;
mod memory;
mod message;
mod named;
mod number_map;
mod options;
mod parts;
mod pins;
mod prefetch;
mod publication;
mod read_ahead;
mod reader_table;
mod readers;
mod recover;
mod region;
mod replace;
mod replayed;
mod retention;
mod room;
mod root_file;
mod rules;
mod segment;
mod settings;
mod sharing;
mod sizing;
mod slab;
mod slow_reader;
mod snapshot;
mod source;
mod splice;
mod store;
mod summary;
mod sys;
mod tables;
mod tail;
mod transaction;
mod tree;
mod typed;
mod writer;

pub use checkpoint::CheckpointReceipt;
pub use choices::Choice;
pub use clock::{Clock, Randomness, SystemClock, SystemRandomness};
pub use compaction::{CompactionPlan, CompactionReceipt};
pub use compression::Compression;
pub use constraints::Constraints;
pub use counters::CounterReadings;
pub use cursor::{Cursor, LogItem, ToOffset};
pub use deletion::{BlockPlace, DeletionPlan, DeletionReceipt};
pub use error::{Damage, Error, ErrorKind, Result, Unreadable, Violation};
pub use formats::{CheckedJson, CheckedUtf8, ValueFormat};
pub use gc::{Collected, HeldBack, Space, SpaceCheck};
pub use key_scan::KeyScan;
pub use keyed::Keyed;
pub use lanterman_format::{FormatError, LogId, Offset, Position, SegmentId, ValueType, Version};
pub use large::ValueReader;
pub use lost::{LostCommits, LostMessages};
pub use message::{KeptMessage, Message, check_bytes};
pub use named::{Moment, NamedSnapshot};
pub use options::{AutomaticCommit, Background, Durability, Options, Verify, WhenFull};
pub use pins::{Holder, OldestPin};
pub use prefetch::{Prefetch, PrefetchReason, PrefetchState};
pub use reader_table::ReaderView;
pub use retention::Retention;
pub use slow_reader::{SlowReader, SlowReaderKind};
pub use snapshot::{Log, Messages, Snapshot, StoreSnapshot};
pub use splice::SpliceReceipt;
pub use store::{LogInformation, Store};
pub use summary::LogSummary;
pub use transaction::{TRANSACTION_BYTES_MAX, Transaction, TransactionReceipt, abort};
#[cfg(feature = "cbor")]
pub use typed::CheckedCbor;
#[cfg(feature = "message-pack")]
pub use typed::CheckedMessagePack;
pub use writer::{CommitFuture, NewMessage, Reservation, Writer};

/// The examples of the README, compiled and run with the documentation's own.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
