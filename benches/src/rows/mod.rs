//! The rows of the table, in groups that share their preparation.

mod append;
mod collect;
mod commit;
mod compress;
mod constrain;
mod edit;
mod follow;
pub(crate) mod prefetch;
mod read;
mod reopen;
mod space;

use crate::Outcome;
use crate::context::Context;
use crate::table::Sample;

/// Rows that are measured together.
pub(crate) struct Group {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) measure: fn(&mut Context) -> Outcome<Vec<Sample>>,
}

/// All groups, in the order of the table.
pub(crate) const ALL: &[Group] = &[
    Group {
        name: "append-100",
        about: "append of 100 B, one call a message, no sync",
        measure: append::small,
    },
    Group {
        name: "append-1k",
        about: "append of 1 KiB, sustained, no sync, and durable at the end",
        measure: append::sustained,
    },
    Group {
        name: "commit-1",
        about: "durable commits of 1 KiB, one thread",
        measure: commit::one_thread,
    },
    Group {
        name: "commit-16",
        about: "durable commits of 1 KiB, 16 threads, a log each",
        measure: commit::sixteen_threads,
    },
    Group {
        name: "commit-64",
        about: "durable commits of 1 KiB, 64 threads, a log each",
        measure: commit::sixty_four_threads,
    },
    Group {
        name: "many-logs",
        about: "1,000 logs, each commit over 100 of them",
        measure: commit::many_logs,
    },
    Group {
        name: "scan-warm",
        about: "scan of warm 1 KiB messages",
        measure: read::scan_warm,
    },
    Group {
        name: "scan-cold",
        about: "scan of cold 1 KiB messages",
        measure: read::scan_cold,
    },
    Group {
        name: "prefetch-limit",
        about: "the cold scan in a quarter of the data's memory",
        measure: prefetch::in_little_memory,
    },
    Group {
        name: "prefetch-tail",
        about: "reads close behind the end, beside another thread's cold scan in little memory",
        measure: prefetch::beside_a_scan,
    },
    Group {
        name: "prefetch-cost",
        about: "what reading ahead costs who does not need it: warm scans, small stores",
        measure: prefetch::where_nothing_is_cold,
    },
    Group {
        name: "random",
        about: "random reads by offset, warm",
        measure: read::random,
    },
    Group {
        name: "random-cold",
        about: "random reads of cold messages, alone and many together",
        measure: read::random_cold,
    },
    Group {
        name: "tail",
        about: "from the start of an append to a tailing thread",
        measure: follow::latency,
    },
    Group {
        name: "open",
        about: "opening after a crash and after a clean end",
        measure: reopen::open,
    },
    Group {
        name: "space",
        about: "bytes on disk for a byte of payload",
        measure: space::disk,
    },
    Group {
        name: "memory",
        about: "memory of idle logs and of an idle store",
        measure: space::memory,
    },
    Group {
        name: "edit",
        about: "deleting, retaining, forking and holding still, whatever the size (10 GiB on disk)",
        measure: edit::calls,
    },
    Group {
        name: "space-back",
        about: "space that comes back after the last pin",
        measure: edit::space_back,
    },
    Group {
        name: "collection",
        about: "appends and reads beside deletions, with and without collection",
        measure: collect::disturbance,
    },
    Group {
        name: "compression",
        about: "what compression of a log costs and saves",
        measure: compress::logs,
    },
    Group {
        name: "constraints",
        about: "what a rule costs each message, beside appending the same without",
        measure: constrain::rules,
    },
    Group {
        name: "erasing",
        about: "bytes written to erase what was deleted",
        measure: collect::amplification,
    },
];
