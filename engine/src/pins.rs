//! Who holds which version: snapshots, counted by version.

use std::collections::BTreeMap;
use std::sync::Arc;

use lanterman_format::ids::Version;
use lanterman_format::weakened;

use crate::atomics::Mutex;

/// Versions that are held, and by how many.
#[derive(Debug, Default)]
pub(crate) struct PinTable {
    held: Mutex<BTreeMap<u64, u64>>,
}

/// Holds one version for as long as it lives.
#[derive(Debug)]
pub(crate) struct Pin {
    table: Arc<PinTable>,
    version: Version,
}

/// The oldest version that something holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct OldestPin {
    /// The version.
    pub version: Version,
    /// How many snapshots hold it.
    pub holders: u64,
}

impl PinTable {
    pub(crate) fn pin(self: &Arc<Self>, version: Version) -> Pin {
        let mut held = self.held.lock();
        let count = held.entry(version.get()).or_insert(0);
        if *count == 0 || !weakened!("pin-uncounted") {
            *count = count.saturating_add(1);
        }
        Pin {
            table: Arc::clone(self),
            version,
        }
    }

    pub(crate) fn oldest(&self) -> Option<OldestPin> {
        let held = self.held.lock();
        held.first_key_value().map(|(version, holders)| OldestPin {
            version: Version::new(*version),
            holders: *holders,
        })
    }
}

impl Pin {
    pub(crate) fn version(&self) -> Version {
        self.version
    }
}

impl Clone for Pin {
    fn clone(&self) -> Self {
        self.table.pin(self.version)
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut held = self.table.held.lock();
        if let Some(count) = held.get_mut(&self.version.get()) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                held.remove(&self.version.get());
            }
        }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_pin_moves_on_when_its_last_holder_goes() {
        let table = Arc::new(PinTable::default());
        let old = table.pin(Version::new(3));
        let again = old.clone();
        let _new = table.pin(Version::new(8));
        drop(old);
        assert_eq!(
            table.oldest().map(|pin| (pin.version.get(), pin.holders)),
            Some((3, 1))
        );
        drop(again);
        assert_eq!(table.oldest().map(|pin| pin.version.get()), Some(8));
    }
}
