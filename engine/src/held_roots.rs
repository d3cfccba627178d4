//! Roots of logs that readers hold: pinned, so that the collector leaves what they show where it is.

use std::time::Duration;

use crate::core::Core;
use crate::log::{LogState, Root};
use crate::pins::{Holder, Kept, Pin};

impl Core {
    /// The newest root of a log, kept from the collector for as long as the pin lives.
    /// `reads_from` is from where on a cursor reads, or `u64::MAX`.
    pub(crate) fn pin_root(&self, log: &LogState, holder: Holder, reads_from: u64) -> (Pin, Root) {
        self.pin_root_since(log, holder, self.clock.monotonic(), reads_from)
    }

    /// The same for as long as one call takes, which is never slow.
    pub(crate) fn pin_root_for_a_call(&self, log: &LogState) -> (Pin, Root) {
        self.pin_root_since(log, Holder::Snapshot(log.id), Duration::MAX, u64::MAX)
    }

    fn pin_root_since(
        &self,
        log: &LogState,
        holder: Holder,
        since: Duration,
        reads_from: u64,
    ) -> (Pin, Root) {
        self.pins.pin_with(holder, since, reads_from, || {
            let version = self.catalog.version();
            let root = log.root();
            (version, Kept::Root(root.clone()), root)
        })
    }
}
