//! Which parts of a segment's map somebody looks at.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;

use super::SegmentFile;

/// Parts of a segment's map that are open, each with how often: their bytes must stay where they are.
#[derive(Debug, Default)]
pub(crate) struct Windows {
    open: Mutex<BTreeMap<(usize, usize), u64>>,
}

/// Keeps a part of a segment's map open for as long as it lives.
#[derive(Debug)]
pub(crate) struct Window {
    windows: Arc<Windows>,
    range: (usize, usize),
}

impl Drop for Window {
    fn drop(&mut self) {
        let mut open = self.windows.open.lock();
        if let Some(count) = open.get_mut(&self.range) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                open.remove(&self.range);
            }
        }
    }
}

impl SegmentFile {
    /// Notes that somebody looks at a part of the map.
    pub(crate) fn window(&self, range: Range<usize>) -> Arc<Window> {
        let range = (range.start, range.end);
        let mut open = self.windows.open.lock();
        let count = open.entry(range).or_insert(0);
        *count = count.saturating_add(1);
        drop(open);
        Arc::new(Window {
            windows: Arc::clone(&self.windows),
            range,
        })
    }

    /// The parts of the map that somebody looks at now.
    pub(crate) fn open_windows(&self) -> Vec<Range<u64>> {
        let open = self.windows.open.lock();
        open.keys()
            .map(|(start, end)| *start as u64..*end as u64)
            .collect()
    }
}
