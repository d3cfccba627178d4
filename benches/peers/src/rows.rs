//! The rows of the table: which figure of which workload, in which unit, beside which limit of the machine.

use crate::workloads::Workload;

/// Which way a figure is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Better {
    Higher,
    Lower,
}

#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) label: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) workload: Workload,
    pub(crate) figure: &'static str,
    /// What the figure is multiplied by to be in the unit.
    pub(crate) factor: f64,
    pub(crate) better: Better,
    /// The name of a limit in the same unit before the factor, and what it is.
    pub(crate) limit: Option<(&'static str, &'static str)>,
}

const fn rate(
    label: &'static str,
    unit: &'static str,
    workload: Workload,
    figure: &'static str,
    factor: f64,
) -> Row {
    Row {
        label,
        unit,
        workload,
        figure,
        factor,
        better: Better::Higher,
        limit: None,
    }
}

const fn cost(label: &'static str, unit: &'static str, workload: Workload, figure: &'static str) -> Row {
    Row {
        better: Better::Lower,
        ..rate(label, unit, workload, figure, 1.0)
    }
}

impl Row {
    const fn limited(self, figure: &'static str, what: &'static str) -> Self {
        Row {
            limit: Some((figure, what)),
            ..self
        }
    }
}

const MILLION: f64 = 1e-6;
const MIDDLE_MB: f64 = 1024e-6;
const LARGE_MB: f64 = 65_536e-6;
const COPY: &str = "copying into touched memory";

pub(crate) const ALL: &[Row] = &[
    rate(
        "append 100 B, one by one",
        "M/s",
        Workload::AppendSmall,
        "rate",
        MILLION,
    )
    .limited("copy_small_rate", COPY),
    rate(
        "append 100 B, one by one, then synced",
        "M/s",
        Workload::AppendSmall,
        "durable_rate",
        MILLION,
    ),
    rate(
        "append 100 B, batches of 100",
        "M/s",
        Workload::AppendSmallBatch,
        "rate",
        MILLION,
    )
    .limited("copy_small_rate", COPY),
    rate(
        "append 1 KiB, one by one",
        "MB/s",
        Workload::AppendMiddle,
        "rate",
        MIDDLE_MB,
    )
    .limited("copy_middle_rate", COPY),
    rate(
        "append 1 KiB, one by one, then synced",
        "MB/s",
        Workload::AppendMiddle,
        "durable_rate",
        MIDDLE_MB,
    ),
    rate(
        "append 1 KiB, batches of 100",
        "MB/s",
        Workload::AppendMiddleBatch,
        "rate",
        MIDDLE_MB,
    )
    .limited("copy_middle_rate", COPY),
    rate(
        "append 1 KiB, batches, then synced",
        "MB/s",
        Workload::AppendMiddleBatch,
        "durable_rate",
        MIDDLE_MB,
    ),
    rate(
        "append 64 KiB, one by one",
        "MB/s",
        Workload::AppendLarge,
        "rate",
        LARGE_MB,
    ),
    rate(
        "append 64 KiB, batches of 100",
        "MB/s",
        Workload::AppendLargeBatch,
        "rate",
        LARGE_MB,
    ),
    rate(
        "append 64 KiB, batches, then synced",
        "MB/s",
        Workload::AppendLargeBatch,
        "durable_rate",
        LARGE_MB,
    ),
    rate(
        "durable append 1 KiB, 1 thread",
        "/s",
        Workload::DurableOne,
        "rate",
        1.0,
    )
    .limited("dsync_rate", "direct pwritev2 of 4 KiB with RWF_DSYNC"),
    cost(
        "durable append, 1 thread, p50",
        "us",
        Workload::DurableOne,
        "p50_us",
    ),
    cost(
        "durable append, 1 thread, p99",
        "us",
        Workload::DurableOne,
        "p99_us",
    ),
    rate(
        "durable append 1 KiB, 16 threads",
        "/s",
        Workload::DurableSixteen,
        "rate",
        1.0,
    )
    .limited("fdatasync_rate", "pwrite and fdatasync by one thread"),
    cost(
        "durable append, 16 threads, p50",
        "us",
        Workload::DurableSixteen,
        "p50_us",
    ),
    cost(
        "durable append, 16 threads, p99",
        "us",
        Workload::DurableSixteen,
        "p99_us",
    ),
    rate(
        "1,000 logs, 100 of them a commit, durable",
        "/s",
        Workload::ManyLogs,
        "rate",
        1.0,
    ),
    rate(
        "scan warm, every byte touched",
        "MB/s",
        Workload::ScanWarm,
        "megabytes",
        1.0,
    )
    .limited("memory_megabytes", "reading memory"),
    rate(
        "scan cold, every byte touched",
        "MB/s",
        Workload::ScanCold,
        "megabytes",
        1.0,
    )
    .limited("device_read_megabytes", "direct reads of the device"),
    cost(
        "random read of 1 KiB, warm, p50",
        "us",
        Workload::Random,
        "p50_us",
    ),
    cost(
        "random read of 1 KiB, warm, p99",
        "us",
        Workload::Random,
        "p99_us",
    ),
    cost(
        "appended to seen by a follower, p50",
        "us",
        Workload::Tail,
        "p50_us",
    ),
    cost(
        "appended to seen by a follower, p99",
        "us",
        Workload::Tail,
        "p99_us",
    ),
    rate(
        "sustained 1 KiB in batches",
        "MB/s",
        Workload::Sustained,
        "megabytes",
        1.0,
    )
    .limited("device_write_megabytes", "direct writes of the device"),
    cost("sustained, processor time", "s/GB", Workload::Sustained, "cpu"),
    cost("sustained, longest stall", "ms", Workload::Sustained, "stall_ms"),
    cost("open after a clean end", "ms", Workload::Reopen, "clean_ms"),
    cost("open after SIGKILL", "ms", Workload::Reopen, "killed_ms"),
    cost(
        "bytes on disk per byte of 1 KiB messages",
        "",
        Workload::Fill,
        "disk",
    ),
    cost(
        "bytes on disk per byte of 100 B messages",
        "",
        Workload::AppendSmallBatch,
        "disk",
    ),
];

#[cfg(test)]
mod tests {
    #[test]
    fn no_two_rows_have_one_name() {
        let mut labels: Vec<_> = super::ALL.iter().map(|row| row.label).collect();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), super::ALL.len());
    }
}
