//! What the tests of the table share.

use std::path::Path;
use std::sync::Arc;

use lanterman_format::ids::StoreId;

use super::SegmentTable;
use crate::disk::Disk;

/// The table of a store without a segment.
pub(super) fn table(disk: Arc<dyn Disk>) -> SegmentTable {
    let store = Path::new("store");
    disk.create_directory(store).unwrap();
    disk.create_directory(&store.join("segments")).unwrap();
    SegmentTable::new(disk, store, StoreId::from_bytes([7; 16]), true)
}
