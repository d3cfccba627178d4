//! Measurements that need a process of their own: to crash, and to have memory that nobody else used.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use lanterman::{Durability, Options, Prefetch};
use serde_json::{Value, json};

use crate::Outcome;
use crate::context::{self, LOG, MESSAGE_BYTES, payload};
use crate::memory_group::MemoryGroup;
use crate::rows::prefetch::{self, Beside};

/// Fills a journal with small commits, and dies.
pub(crate) const CRASH_SMALL: &str = "crash-small";
/// Fills a journal with large commits, and dies.
pub(crate) const CRASH_LARGE: &str = "crash-large";
/// Opens an empty store and tells its memory.
pub(crate) const IDLE_STORE: &str = "idle-store";
/// Writes to a store, lets it come to rest and tells its memory.
pub(crate) const USED_STORE: &str = "used-store";
/// Makes many logs, lets them come to rest and tells their memory.
pub(crate) const IDLE_LOGS: &str = "idle-logs";
/// Opens a store of many logs and tells their memory.
pub(crate) const REOPENED_LOGS: &str = "reopened-logs";
/// Scans a store that no cache has, and reads ahead.
pub(crate) const SCAN_AHEAD: &str = "scan-ahead";
/// The same without reading ahead.
pub(crate) const SCAN_PLAIN: &str = "scan-plain";
/// Follows a log close behind its end beside a thread that computes.
pub(crate) const FOLLOW_COMPUTING: &str = "follow-computing";
/// The same beside a cold scan that reads ahead.
pub(crate) const FOLLOW_AHEAD: &str = "follow-ahead";
/// The same beside a cold scan that does not.
pub(crate) const FOLLOW_PLAIN: &str = "follow-plain";

/// Longer than the store's interval of checkpoints, at which quiet logs give their memory back.
const REST: Duration = Duration::from_millis(1_500);

/// What a child told.
#[derive(Debug)]
pub(crate) struct Told(Value);

impl Told {
    pub(crate) fn number(&self, name: &str) -> Outcome<f64> {
        self.0[name]
            .as_f64()
            .ok_or_else(|| format!("the child told no {name}: {}", self.0).into())
    }
}

/// Starts this program again for one task.
pub(crate) fn start(task: &str, path: &Path, quick: bool) -> Outcome<Told> {
    start_in(None, task, path, quick)
}

/// The same with the memory of a group.
pub(crate) fn start_in(group: Option<&MemoryGroup>, task: &str, path: &Path, quick: bool) -> Outcome<Told> {
    let mut command = Command::new(std::env::current_exe()?);
    if let Some(group) = group {
        command.arg("--memory-group").arg(group.path());
    }
    command.arg("--child").arg(task).arg("--directory").arg(path);
    if quick {
        command.arg("--quick");
    }
    let output = command.output()?;
    let line = String::from_utf8_lossy(&output.stdout);
    let told = serde_json::from_str(line.trim()).map_err(|_| {
        format!(
            "the child for {task} said {line:?}, {}",
            String::from_utf8_lossy(&output.stderr)
        )
    })?;
    Ok(Told(told))
}

/// Does a task and prints what was found.
pub(crate) fn run(task: &str, path: &Path, quick: bool) -> Outcome<()> {
    let told = match task {
        CRASH_SMALL => fill_journal(path, MESSAGE_BYTES, quick)?,
        CRASH_LARGE => fill_journal(path, 64 << 10, quick)?,
        IDLE_STORE => idle_store(path, 0)?,
        USED_STORE => idle_store(path, if quick { 32 << 20 } else { 256 << 20 })?,
        IDLE_LOGS => idle_logs(path, if quick { 1_000 } else { 50_000 })?,
        REOPENED_LOGS => reopened_logs(path)?,
        SCAN_AHEAD => prefetch::scan_once(path, Prefetch::Automatic)?,
        SCAN_PLAIN => prefetch::scan_once(path, Prefetch::Off)?,
        FOLLOW_COMPUTING => prefetch::follow(path, quick, Beside::Computing)?,
        FOLLOW_AHEAD => prefetch::follow(path, quick, Beside::Scan(Prefetch::Automatic))?,
        FOLLOW_PLAIN => prefetch::follow(path, quick, Beside::Scan(Prefetch::Off))?,
        other => return Err(format!("no such task: {other}").into()),
    };
    println!("{told}");
    if task.starts_with("crash") {
        // No destructor may commit or make a checkpoint: this is the crash.
        std::process::abort();
    }
    Ok(())
}

/// Some bulk, a checkpoint, and then commits until the next checkpoint would be due.
fn fill_journal(path: &Path, message_bytes: usize, quick: bool) -> Outcome<Value> {
    let store = context::open(path, Options::new())?;
    let mut writer = store.writer(LOG)?;
    let bulk = payload(64 << 10);
    for _ in 0..if quick { 256 } else { 16 << 10 } {
        writer.append(&bulk)?;
    }
    writer.commit(Durability::Disk)?;
    store.checkpoint()?;
    let message = payload(message_bytes);
    let wanted = if quick { 8 << 20 } else { 60 << 20 };
    while store.counters().journal_replay_bytes < wanted {
        writer.append(&message)?;
        writer.commit(Durability::Process)?;
    }
    let told =
        json!({"journal_bytes": store.counters().journal_replay_bytes, "end": writer.next_offset().get()});
    std::mem::forget((writer, store));
    Ok(told)
}

/// Bytes of memory of this process that are its own: files that are mapped cost nothing that matters.
fn own_memory() -> Outcome<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))
        .unwrap_or_default();
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").trim().parse()?;
    Ok(kilobytes << 10)
}

fn idle_store(path: &Path, bytes: u64) -> Outcome<Value> {
    let before = own_memory()?;
    let store = context::open(path, Options::new())?;
    let mut writer = store.writer(LOG)?;
    let message = payload(MESSAGE_BYTES);
    for _ in 0..bytes / MESSAGE_BYTES as u64 {
        writer.append(&message)?;
    }
    writer.commit(Durability::Disk)?;
    store.checkpoint()?;
    std::thread::sleep(REST);
    let used = own_memory()?.saturating_sub(before);
    Ok(json!({"mib": used as f64 / f64::from(1 << 20)}))
}

fn idle_logs(path: &Path, count: usize) -> Outcome<Value> {
    let store = context::open(path, Options::new())?;
    let message = payload(100);
    store.transaction(|transaction| transaction.append("first", &message))?;
    store.checkpoint()?;
    let before = own_memory()?;
    for first in (0..count).step_by(1_000) {
        // The names are the program's own: one at a time, so that what is counted is the store's.
        store.transaction(|transaction| {
            (first..count)
                .take(1_000)
                .try_for_each(|number| transaction.append(&format!("log {number}"), &message))
        })?;
        store.checkpoint()?;
    }
    // Logs give their memory back at the first checkpoint that does not concern them.
    store.transaction(|transaction| transaction.append("first", &message))?;
    store.checkpoint()?;
    std::thread::sleep(REST);
    let used = own_memory()?.saturating_sub(before);
    store.close()?;
    Ok(json!({"bytes_a_log": used as f64 / count as f64}))
}

fn reopened_logs(path: &Path) -> Outcome<Value> {
    let before = own_memory()?;
    let store = context::open(path, Options::new())?;
    std::thread::sleep(REST);
    let used = own_memory()?.saturating_sub(before);
    let count = store.logs().len();
    Ok(json!({"bytes_a_log": used as f64 / count as f64}))
}
