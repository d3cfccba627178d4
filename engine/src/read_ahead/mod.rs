//! Reading slabs ahead of a cursor.
//!
//! The cursor says which slab it comes to, and gets it if it was read ahead, or nothing, and then opens it as it always does.
//! The tree of the root that it reads tells which slabs come next. Their stored bytes are read around the page cache into
//! memory of the store's own, several reads at a time; no thread is needed where there is a ring, because whoever waits for a
//! read begins the next ones first. What is wanted for the second time is left to the page cache.
//!
//! Invariants:
//! - what is read ahead is a guess and never an answer: a slab is taken from it only for a reference that the cursor found
//!   itself, in the root that it reads now, and with header, index and checksums compared as for any other bytes;
//! - a read that fails, or memory that is not to be had, leaves the cursor where it was without;
//! - bytes are read into memory that nobody else sees, so nothing is touched through a map, written slabs are all that is
//!   read, and a place that is punched or used again meanwhile gives bytes that nobody asks for, or that no checksum fits.

mod active;
mod plan;

use std::sync::Arc;

use crate::core::Core;
use crate::found::FoundSlab;
use crate::log::Root;
use crate::prefetch::{Prefetch, PrefetchReason, PrefetchState};
use crate::slab::OpenSlab;

use active::Active;

/// The slab that a cursor comes to, and how far it will read.
#[derive(Clone, Copy)]
pub(crate) struct Entered<'a> {
    /// What the cursor reads.
    pub(crate) root: &'a Root,
    /// The offset that it wants.
    pub(crate) next: u64,
    /// The offset before which it stays, as far as it knows now.
    pub(crate) limit: u64,
    /// The slab that has it.
    pub(crate) found: &'a FoundSlab<'a>,
}

/// What one cursor reads ahead.
#[derive(Debug)]
pub(crate) struct ReadAhead {
    policy: Prefetch,
    /// The offset at which whoever reads through the cursor will stop.
    until: u64,
    /// Behind the slab that the cursor came to last.
    entered_end: Option<u64>,
    /// There once something is to be read ahead, and only as long as the cursor is among slabs.
    active: Option<Box<Active>>,
}

impl ReadAhead {
    pub(crate) fn new(policy: Prefetch) -> Self {
        ReadAhead {
            policy,
            until: u64::MAX,
            entered_end: None,
            active: None,
        }
    }

    /// Reads ahead by another policy from the next slab on.
    pub(crate) fn set_policy(&mut self, policy: Prefetch) {
        if self.policy != policy {
            self.policy = policy;
            self.active = None;
        }
    }

    /// Nothing from this offset on will be wanted.
    pub(crate) fn stop_at(&mut self, until: u64) {
        self.until = until;
    }

    /// The cursor left the slabs: what it may still have ahead goes, and all memory with it.
    #[inline]
    pub(crate) fn rest(&mut self) {
        if self.active.is_some() {
            self.active = None;
        }
    }

    /// The cursor comes to a slab. Gives it if it was read ahead, after waiting for it where it is on its way, and begins to
    /// read what comes behind.
    pub(crate) fn enter(&mut self, core: &Arc<Core>, entered: Entered<'_>) -> Option<Arc<OpenSlab>> {
        let can_be = match self.policy {
            Prefetch::Off | Prefetch::Slabs(0) | Prefetch::Bytes(0) => false,
            _ => core.prefetch_memory.bytes_max() > 0,
        };
        if !can_be {
            return None;
        }
        let first = entered.found.first;
        // Who jumps lands in the middle of slabs, almost always.
        let is_in_order = entered.next == first && self.entered_end.is_some_and(|end| end <= first);
        self.entered_end = Some(entered.found.end);
        if self.active.is_none() {
            if self.policy == Prefetch::Automatic && !is_in_order {
                return None;
            }
            self.active = Some(Box::new(Active::new(core, self.policy)));
        }
        let active = self.active.as_mut()?;
        active.enter(entered, self.until, is_in_order)
    }

    /// What is done now, and why.
    pub(crate) fn state(&self, core: &Core) -> PrefetchState {
        let nothing = PrefetchState {
            policy: self.policy,
            reason: PrefetchReason::NotInOrder,
            target_bytes: 0,
            slabs_ahead: 0,
            reader_bytes_per_second: None,
            read_time: None,
        };
        match (&self.active, self.policy) {
            (_, Prefetch::Off | Prefetch::Slabs(0) | Prefetch::Bytes(0)) => PrefetchState {
                reason: PrefetchReason::Off,
                ..nothing
            },
            _ if core.prefetch_memory.bytes_max() == 0 => PrefetchState {
                reason: PrefetchReason::Off,
                ..nothing
            },
            (Some(active), _) => active.state(nothing),
            (None, _) => nothing,
        }
    }
}
