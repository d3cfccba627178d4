//! Dropping logs: the name is free at once, what others hold goes on.

use std::sync::Arc;

use lanterman_format::name::LogName;
use lanterman_format::weakened;

use crate::core::Core;
use crate::deletion::{BlockPlace, DeletionReceipt};
use crate::edit::{Destroyed, Edit};
use crate::error::{Error, Result};
use crate::log::{LogState, TailState};
use crate::region::gated::Owner;

impl Core {
    /// The log has no name any more; what it held stays for snapshots and cursors of it.
    pub(crate) fn apply_drop(&self, log: &Arc<LogState>) {
        log.set_dropped();
        // Chunks that wait are not written any more.
        self.incoming.forget(log);
        if !weakened!("dropped-memory-counted") {
            // Snapshots and cursors keep it, and no writer has anything of it written any more: if it were counted as
            // the writers', they could wait for it for ever.
            for chunk in log.root().chunks.iter() {
                chunk.retire();
            }
            self.memory_came_back();
        }
        self.catalog.hide(log);
        self.kept_keys.forget_log(log.id.get());
    }

    /// What a log held that was dropped, counted.
    fn destroyed_with(&self, log: &LogState) -> Destroyed {
        let root = log.root();
        let blocks = root
            .tree
            .blocks(self.source.as_ref(), 0..u64::MAX)
            .unwrap_or_default();
        let blocks = blocks.iter().filter_map(BlockPlace::of).collect();
        match self.summarise(log, &root, root.end()) {
            Ok(held) => Destroyed {
                messages: held.messages(),
                bytes: held.value_bytes().saturating_add(held.key_bytes()),
                is_exact: held.is_exact(),
                blocks,
            },
            // What cannot be read can be dropped all the same.
            Err(_) => Destroyed {
                messages: root.end().saturating_sub(root.start),
                bytes: 0,
                is_exact: false,
                blocks,
            },
        }
    }

    /// The log of that name, made if there is none, and the right to append to it.
    pub(crate) fn take_writer(&self, name: &LogName) -> Result<(Arc<LogState>, Owner<TailState>)> {
        loop {
            let log = self.log_named(name)?;
            let owner = log.take_owner().ok_or_else(|| Error::WriterOpen {
                name: name.as_str().to_owned(),
            })?;
            // A log that was dropped between the two gets no writer any more; there may be a new one.
            if !log.is_dropped() {
                return Ok((log, owner));
            }
        }
    }

    /// Drops the log `name`, durably.
    pub(crate) fn drop_log(&self, name: &str) -> Result<DeletionReceipt> {
        self.check_writable("drop a log")?;
        LogName::parse(name)?;
        let log = self.find_log(name)?;
        // Held to the end: whoever opens a writer meanwhile is refused, and afterwards finds the log dropped.
        let _owner = log.take_owner().ok_or_else(|| Error::WriterOpen {
            name: name.to_owned(),
        })?;
        let edit = Edit::Drop {
            log: Arc::clone(&log),
        };
        // What it holds is counted afterwards, when nothing comes to it any more.
        let _pin = self.pin_root_for_a_call(&log);
        let (version, _) = self.commit_edits(vec![edit])?;
        let destroyed = self.destroyed_with(&log);
        let root = log.root();
        Ok(DeletionReceipt::new(
            name,
            root.start..root.end(),
            destroyed,
            version,
        ))
    }
}
