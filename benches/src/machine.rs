//! What a figure depends on beside the program.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use lanterman::Options;

use crate::{Outcome, data};

/// Facts of the machine and of how the store works on it.
#[derive(Debug, Serialize)]
pub struct Facts {
    date: String,
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
///
/// # Errors
///
/// What opening or writing that store gives.
pub fn facts(directory: &Path, quick: bool) -> Outcome<Facts> {
    let path = directory.join("facts");
    let store = data::open(&path, Options::new())?;
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
        date: today(),
        cores: std::thread::available_parallelism().map_or(0, usize::from),
        processor: line(&read("/proc/cpuinfo"), "model name"),
        memory_gib: (memory / f64::from(1 << 20) * 10.0).round() / 10.0,
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        file_system: file_system(directory, &read("/proc/self/mountinfo")),
        huge_pages: read("/sys/kernel/mm/transparent_hugepage/enabled")
            .trim()
            .to_owned(),
        direct: how.direct,
        ring: how.ring,
        disk: how.name,
        quick,
    })
}

/// A line of this process's status that is told in kilobytes, such as `VmRSS:`; in bytes.
///
/// # Errors
///
/// When there is no such line.
pub fn own_status_bytes(key: &str) -> Outcome<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    let line = line.ok_or_else(|| format!("the status of a process has no {key}"))?;
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").trim().parse()?;
    Ok(kilobytes << 10)
}

/// The day it is, in UTC.
fn today() -> String {
    let seconds = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    date_of(seconds / 86_400)
}

/// Year, month and day of a number of days since 1970, in the Gregorian calendar.
///
/// Years begin in March here, so that the day that some of them have more is their last.
fn date_of(days: u64) -> String {
    const DAYS_FROM_YEAR_0: u64 = 719_468;
    const DAYS_OF_400_YEARS: u64 = 146_097;
    let days = days + DAYS_FROM_YEAR_0;
    let (era, day_of_era) = (days / DAYS_OF_400_YEARS, days % DAYS_OF_400_YEARS);
    let leap_days = day_of_era / 1_460 - day_of_era / 36_524 + day_of_era / 146_096;
    let year_of_era = (day_of_era - leap_days.min(day_of_era)) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02}")
}

/// Kind and options of the mount that holds the data.
fn file_system(directory: &Path, mounts: &str) -> String {
    let path = std::fs::canonicalize(directory).unwrap_or_default();
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
    /// The day of the run, as year, month and day, in UTC.
    #[must_use]
    pub fn date(&self) -> &str {
        &self.date
    }

    /// Processor, memory, kernel and file system: what fits under a chart.
    #[must_use]
    pub fn short(&self) -> String {
        format!(
            "{} cores ({}), {} GiB, Linux {}, {}",
            self.cores, self.processor, self.memory_gib, self.kernel, self.file_system
        )
    }

    /// One line for all.
    #[must_use]
    pub fn markdown(&self) -> String {
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

#[cfg(test)]
mod tests {
    use super::date_of;

    #[test]
    fn days_become_dates_over_leap_years_and_ends_of_months() {
        assert_eq!(date_of(0), "1970-01-01");
        assert_eq!(date_of(11_016), "2000-02-29");
        assert_eq!(date_of(11_017), "2000-03-01");
        assert_eq!(date_of(20_453), "2025-12-31");
        assert_eq!(date_of(20_454), "2026-01-01");
    }
}
