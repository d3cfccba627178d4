//! Giving back the space of what nobody can reach any more.
//!
//! A collection finds out what is reached: from the newest checkpoint, from the newest roots of all logs, and from what
//! snapshots and cursors hold. Whatever else lies in the segments of slabs before the place where the next block goes is
//! garbage: whole segments are put away, pages of others are punched. So nothing needs to be counted, written down or
//! replayed for it: sharing between logs is safe by construction, and a crash at any point costs a repetition. Only nodes
//! are read, which are about 0.02 % of what they describe.
//!
//! Invariants:
//! - both root slots name the checkpoint from which a collection looks, and no version after it edited a log: so neither
//!   a recovery nor the journal refers to anything that is found to be garbage;
//! - while it looks, no checkpoint is written and no log is edited; appends and commits go on;
//! - what other processes may read is left alone: while one of them stands on an older checkpoint, nothing is given back;
//! - what somebody looks at through a map stays until he lets go of it.

mod collect;
mod erase;
mod reached;
mod space;

pub(crate) use collect::Collector;
pub use collect::{Collected, HeldBack};
pub use space::{Space, SpaceCheck};
