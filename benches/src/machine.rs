//! What a figure depends on beside the program.

use std::fmt::Write as _;

use serde::Serialize;

use crate::Outcome;
use crate::context::Context;

/// Facts of the machine and of how the store works on it.
#[derive(Debug, Serialize)]
pub(crate) struct Facts {
    cores: usize,
    processor: String,
    memory_gib: f64,
    kernel: String,
    file_system: String,
    huge_pages: String,
    direct: bool,
    ring: bool,
    disk: &'static str,
    quick: bool,
}

/// Collects them; opens a store for a moment to learn how it writes.
pub(crate) fn facts(context: &Context) -> Outcome<Facts> {
    let path = context.path("facts");
    let store = context.open(&path)?;
    store
        .writer("facts")?
        .append(b"a store knows how it writes when it has written")?;
    store.checkpoint()?;
    let how = store.describe();
    store.close()?;
    std::fs::remove_dir_all(&path)?;
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let line = |text: &str, key: &str| -> String {
        let found = text.lines().find(|line| line.starts_with(key));
        found
            .and_then(|line| line.split(':').nth(1))
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    let kilobytes = line(&read("/proc/meminfo"), "MemTotal");
    let memory: f64 = kilobytes.trim_end_matches(" kB").parse().unwrap_or_default();
    Ok(Facts {
        cores: std::thread::available_parallelism().map_or(0, usize::from),
        processor: line(&read("/proc/cpuinfo"), "model name"),
        memory_gib: (memory / f64::from(1 << 20) * 10.0).round() / 10.0,
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        file_system: file_system(context, &read("/proc/self/mountinfo")),
        huge_pages: read("/sys/kernel/mm/transparent_hugepage/enabled")
            .trim()
            .to_owned(),
        direct: how.direct,
        ring: how.ring,
        disk: how.name,
        quick: context.quick,
    })
}

/// Kind and options of the mount that holds the data.
fn file_system(context: &Context, mounts: &str) -> String {
    let path = std::fs::canonicalize(context.directory()).unwrap_or_default();
    let best = mounts
        .lines()
        .filter_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            let mount = left.split(' ').nth(4)?;
            let kind = right.split(' ').next()?;
            let options = left.split(' ').nth(5)?;
            path.starts_with(mount)
                .then(|| (mount.len(), format!("{kind} ({options})")))
        })
        .max();
    best.map_or_else(|| "unknown".to_owned(), |(_, found)| found)
}

impl Facts {
    /// One line for each.
    pub(crate) fn markdown(&self) -> String {
        let mut out = String::new();
        let writes = match (self.direct, self.ring) {
            (true, true) => "direct, bulk through io_uring",
            (true, false) => "direct, plain system calls",
            (false, true) => "page cache, bulk through io_uring",
            (false, false) => "page cache, plain system calls",
        };
        writeln!(
            out,
            "{} cores ({}), {} GiB of memory, Linux {}, {}, huge pages {}; the store writes {writes}.{}",
            self.cores,
            self.processor,
            self.memory_gib,
            self.kernel,
            self.file_system,
            self.huge_pages,
            if self.quick {
                " A quick run: not for quoting."
            } else {
                ""
            }
        )
        .expect("a string takes what is written");
        out
    }
}
