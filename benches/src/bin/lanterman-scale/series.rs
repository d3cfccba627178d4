//! Which series there are, and the places at which they are measured.

use crate::work::Task;

/// How figures become a cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Figure {
    /// So many a second: the cost is the time of one.
    Rate,
    Cost,
}

/// One chart.
#[derive(Debug)]
pub(crate) struct SeriesPlan {
    /// Of the file, too.
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) x: &'static str,
    pub(crate) y: &'static str,
    pub(crate) figure: Figure,
    /// Bytes of a message are `x`, and MB/s can be told.
    pub(crate) bytes: bool,
    pub(crate) tasks: &'static [Task],
    /// How it is measured, and what may grow with it.
    pub(crate) remark: &'static str,
}

pub(crate) const SERIES: [SeriesPlan; 7] = [
    SeriesPlan {
        name: "message-size",
        title: "Appending, by the size of messages",
        x: "bytes of a message",
        y: "messages a second",
        figure: Figure::Rate,
        bytes: true,
        tasks: &[Task::Append],
        remark: "Appended one by one, made durable once at the end. The payload may grow with its size: an exponent of 1 is its bytes alone.",
    },
    SeriesPlan {
        name: "logs",
        title: "Durable commits, by the number of logs",
        x: "logs in the store",
        y: "messages a second",
        figure: Figure::Rate,
        bytes: false,
        tasks: &[Task::CommitSome, Task::CommitAll],
        remark: "A transaction puts a message of 100 B into each of 100 logs (all, where there are fewer), or into each of all, durably. \
                 Each log was appended to once before, in transactions over 100, which is the line of the first time: it is read and made then. \
                 The memory of tails is 1 GiB. The limit is a bare durable write of the same bytes. The cost is that of a message.",
    },
    SeriesPlan {
        name: "threads",
        title: "Scanning, by the number of threads",
        x: "threads that read",
        y: "messages a second, all together",
        figure: Figure::Rate,
        bytes: false,
        tasks: &[Task::Threads],
        remark: "Each scans the same log, warm, messages of 4 KiB, and reads every byte. The limit is walking the same bytes in a bare \
                 map on as many threads. The cost is that of a message, over all threads.",
    },
    SeriesPlan {
        name: "processes",
        title: "Scanning, by the number of processes",
        x: "processes that read",
        y: "messages a second, all together",
        figure: Figure::Rate,
        bytes: false,
        tasks: &[Task::Processes],
        remark: "As with threads, by processes beside one that has the store open for writing.",
    },
    SeriesPlan {
        name: "open",
        title: "Opening after a clean end, by the size of the store",
        x: "bytes of messages in the log",
        y: "milliseconds",
        figure: Figure::Cost,
        bytes: false,
        tasks: &[Task::OpenWritten, Task::OpenSmallSlabs, Task::OpenByReference],
        remark: "Messages of 4 KiB in slabs of up to 1 MiB, in slabs of 64 KiB, and in a log of 16 MiB that was put behind itself by \
                 reference until it is as long. One opening in a new process.",
    },
    SeriesPlan {
        name: "open-logs",
        title: "Opening after a clean end, by the number of logs",
        x: "logs in the store",
        y: "milliseconds",
        figure: Figure::Cost,
        bytes: false,
        tasks: &[Task::OpenLogs],
        remark: "A message of 100 B in each log.",
    },
    SeriesPlan {
        name: "memory",
        title: "Memory of a process, by logs and by slabs",
        x: "logs, or slabs",
        y: "MiB",
        figure: Figure::Cost,
        bytes: false,
        tasks: &[Task::MemoryLogs, Task::MemorySlabs, Task::MemoryByReference],
        remark: "«All» is VmRSS, which counts pages of mapped files that were looked at and that the kernel can take back; «own» is RssAnon. \
                 A store of many logs is opened; of a log in slabs of 64 KiB a message of each slab is read; of one that has so many \
                 slabs by reference, 10,000 messages at random. What leads to messages may take 4 MiB.",
    },
];

/// Where a task is measured, ascending.
pub(crate) fn values(task: Task, quick: bool, gib: u64) -> Vec<u64> {
    let times = |first: u64, factor: u64, last: u64| -> Vec<u64> {
        std::iter::successors(Some(first), |value| value.checked_mul(factor))
            .take_while(|value| *value <= last)
            .collect()
    };
    let largest = if quick { 256 << 20 } else { gib.max(1) << 30 };
    match task {
        Task::Append => times(16, 4, 16 << 20),
        Task::CommitSome | Task::CommitAll | Task::OpenLogs | Task::MemoryLogs => {
            times(1, 10, if quick { 10_000 } else { 100_000 })
        }
        Task::Threads => times(1, 2, 64),
        Task::Processes => times(1, 2, 8),
        Task::OpenWritten | Task::OpenSmallSlabs => times(16 << 20, 4, largest),
        // Ten thousand times what is written, and more.
        Task::OpenByReference => times(16 << 20, 16, 16 << 40),
        Task::MemorySlabs => times(64, 4, largest >> 16),
        Task::MemoryByReference => times(256, 16, 256 << 20),
        Task::Reader => Vec::new(),
    }
}
