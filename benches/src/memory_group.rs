//! Groups of processes with a limit on their memory, page cache included, as the kernel keeps them: version 1 and 2.

use std::path::{Path, PathBuf};

use crate::Outcome;

/// Where the kernel shows its groups, and what the files in them are called.
struct Kind {
    root: &'static str,
    limit: &'static str,
    peak: &'static str,
}

const KINDS: [Kind; 2] = [
    Kind {
        root: "/sys/fs/cgroup/memory",
        limit: "memory.limit_in_bytes",
        peak: "memory.max_usage_in_bytes",
    },
    Kind {
        root: "/sys/fs/cgroup",
        limit: "memory.max",
        peak: "memory.peak",
    },
];

/// A group of processes that may have so much memory; removed when dropped, which needs that they have ended.
#[derive(Debug)]
pub(crate) struct MemoryGroup {
    path: PathBuf,
    peak: &'static str,
}

impl MemoryGroup {
    /// A group with `bytes` of memory; nothing where this process may not make one, which takes rights that few have.
    pub(crate) fn new(bytes: u64) -> Option<Self> {
        KINDS.iter().find_map(|kind| {
            let path = Path::new(kind.root).join(format!("lanterman-bench-{}", std::process::id()));
            // In a directory that is not of this kind of groups, it is made and has no limit to set.
            std::fs::create_dir(&path).ok()?;
            let group = MemoryGroup {
                path,
                peak: kind.peak,
            };
            std::fs::metadata(group.path.join(kind.limit)).ok()?;
            std::fs::write(group.path.join(kind.limit), bytes.to_string()).ok()?;
            Some(group)
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The most memory that its processes had at once, with what the page cache had for them.
    pub(crate) fn peak_bytes(&self) -> Outcome<u64> {
        let text = std::fs::read_to_string(self.path.join(self.peak))?;
        Ok(text.trim().parse()?)
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.path);
    }
}

/// Puts this process into a group, before it has taken any memory worth counting.
pub(crate) fn enter(group: &Path) -> Outcome<()> {
    // Zero is whoever writes it.
    std::fs::write(group.join("cgroup.procs"), "0").map_err(Into::into)
}
