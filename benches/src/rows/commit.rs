//! Durable commits: alone, by many threads, over many logs.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use lanterman::{Durability, Store};

use crate::Outcome;
use crate::bare;
use crate::context::{Context, LOG, MESSAGE_BYTES, megabytes, payload, remove};
use crate::table::Sample;

/// Room that bare commits go round in.
const BARE_BYTES: u64 = 32 << 20;
/// What the journal holds at its default before a checkpoint is made.
const JOURNAL_BYTES: u64 = 64 << 20;
const ROUNDS_TO_SETTLE: usize = 4;
const LOGS: usize = 1_000;
const LOGS_TOUCHED: usize = 100;

/// Has the journal go round until it writes over blocks that were written before, as it does in any store that lives.
fn settle_journal(store: &Store) -> Outcome<()> {
    let mut writer = store.writer("settling")?;
    let message = payload(128 << 10);
    // Segments double up to 64 MiB; the third time round, spares of full size are there.
    for _ in 0..ROUNDS_TO_SETTLE {
        for _ in 0..JOURNAL_BYTES / message.len() as u64 {
            writer.append(&message)?;
            writer.commit(Durability::Process)?;
        }
        store.checkpoint()?;
    }
    writer.commit(Durability::Disk)?;
    Ok(())
}

pub(super) fn one_thread(context: &mut Context) -> Outcome<Vec<Sample>> {
    let message = payload(MESSAGE_BYTES);
    let path = context.path("commit-1");
    let file = bare::open_direct(&context.written_before()?)?;
    let mut page = bare::huge_memory(4096)?;
    page[..MESSAGE_BYTES].copy_from_slice(&message);
    let store = context.open(&path)?;
    let mut writer = store.writer(LOG)?;
    let (turns, each) = context.pick((10, 400), (2, 50));
    let mut position = 0;
    let mut compare = |writer: &mut lanterman::Writer| {
        context.alternate(
            turns,
            || {
                for _ in 0..each {
                    writer.append(&message)?;
                    writer.commit(Durability::Disk)?;
                }
                Ok(())
            },
            || {
                for _ in 0..each {
                    bare::durable_write(&file, position, &page[..4096])?;
                    position = (position + 4096) % BARE_BYTES;
                }
                Ok(())
            },
        )
    };
    let new = compare(&mut writer)?;
    settle_journal(&store)?;
    let settled = compare(&mut writer)?;
    drop(writer);
    store.close()?;
    remove(&path)?;
    let rate = |time: Duration| f64::from(turns as u32 * each) / time.as_secs_f64();
    let limit = "pwritev2 of 4 KiB, direct, RWF_DSYNC, file written before";
    Ok(vec![
        Sample::rate(
            "durable commit 1 KiB, one thread",
            "/s",
            rate(settled.0),
            rate(settled.1),
            limit,
        )
        .target(0.95),
        Sample::rate(
            "the same, first commits of a new store",
            "/s",
            rate(new.0),
            rate(new.1),
            limit,
        ),
    ])
}

/// Group commit as one writes it in an afternoon: a buffer, a mutex, a condition variable, `fdatasync`.
struct PlainGroup {
    file: File,
    state: Mutex<PlainState>,
    done: Condvar,
}

#[derive(Default)]
struct PlainState {
    buffer: Vec<u8>,
    group: u64,
    synced: u64,
    writing: bool,
    position: u64,
}

impl PlainGroup {
    fn open(path: &Path) -> Outcome<Self> {
        let file = File::options().write(true).open(path)?;
        let state = PlainState {
            group: 1,
            ..PlainState::default()
        };
        Ok(PlainGroup {
            file,
            state: Mutex::new(state),
            done: Condvar::new(),
        })
    }

    fn commit(&self, record: &[u8]) -> Outcome<()> {
        let mut state = self.state.lock().unwrap();
        state.buffer.extend_from_slice(record);
        let mine = state.group;
        while state.synced < mine {
            if state.writing {
                state = self.done.wait(state).unwrap();
                continue;
            }
            state.writing = true;
            let group = state.group;
            state.group += 1;
            let bytes = std::mem::take(&mut state.buffer);
            let position = state.position;
            state.position = (position + bytes.len() as u64) % BARE_BYTES;
            drop(state);
            self.file.write_all_at(&bytes, position)?;
            self.file.sync_data()?;
            state = self.state.lock().unwrap();
            state.synced = group;
            state.writing = false;
            self.done.notify_all();
        }
        Ok(())
    }
}

/// Commits a second that `threads` reach together, each calling what `work` made for it.
fn together<F>(threads: usize, time: Duration, work: impl Fn(usize) -> Outcome<F>) -> Outcome<f64>
where
    F: FnMut() -> Outcome<()> + Send,
{
    let (stop, count) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut workers = Vec::new();
    for thread in 0..threads {
        workers.push(work(thread)?);
    }
    let start = Instant::now();
    std::thread::scope(|scope| -> Outcome<()> {
        let handles: Vec<_> = workers
            .into_iter()
            .map(|mut worker| {
                let (stop, count) = (&stop, &count);
                scope.spawn(move || -> Outcome<()> {
                    while !stop.load(Ordering::Relaxed) {
                        worker()?;
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(())
                })
            })
            .collect();
        std::thread::sleep(time);
        stop.store(true, Ordering::Relaxed);
        for handle in handles {
            handle.join().map_err(|_| "a thread panicked")??;
        }
        Ok(())
    })?;
    Ok(count.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64())
}

fn threads(context: &mut Context, threads: usize, row: &'static str) -> Outcome<Vec<Sample>> {
    let message = payload(MESSAGE_BYTES);
    let path = context.path("commit-threads");
    let plain = PlainGroup::open(&context.written_before()?)?;
    let store = context.open(&path)?;
    settle_journal(&store)?;
    let time = Duration::from_millis(context.pick(500, 100));
    let (mut ours, mut limit) = (0.0, 0.0);
    let turns = 3;
    for _ in 0..turns {
        ours += together(threads, time, |thread| {
            let mut writer = store.writer(&format!("log {thread}"))?;
            let message = &message;
            Ok(move || {
                writer.append(message)?;
                writer.commit(Durability::Disk)?;
                Ok(())
            })
        })?;
        limit += together(threads, time, |_| Ok(|| plain.commit(&message)))?;
    }
    store.close()?;
    remove(&path)?;
    let limit_name = "plain group commit, mutex and condition variable over fdatasync";
    Ok(vec![
        Sample::rate(
            row,
            "/s",
            ours / f64::from(turns),
            limit / f64::from(turns),
            limit_name,
        )
        .target(1.5),
    ])
}

pub(super) fn sixteen_threads(context: &mut Context) -> Outcome<Vec<Sample>> {
    threads(context, 16, "durable commit 1 KiB, 16 threads, a log each")
}

pub(super) fn sixty_four_threads(context: &mut Context) -> Outcome<Vec<Sample>> {
    threads(context, 64, "durable commit 1 KiB, 64 threads, a log each")
}

pub(super) fn many_logs(context: &mut Context) -> Outcome<Vec<Sample>> {
    let message = payload(MESSAGE_BYTES);
    let path = context.path("many-logs");
    let store = context.open(&path)?;
    let names: Vec<String> = (0..LOGS).map(|number| format!("log {number}")).collect();
    store.transaction(|transaction| {
        names
            .iter()
            .try_for_each(|name| transaction.append(name, &message))
    })?;
    let mut writer = store.writer("one")?;
    settle_journal(&store)?;
    let (turns, each) = context.pick((6, 100), (2, 10));
    let mut next = 0;
    let versions = store.version().get();
    let (many, one) = context.alternate(
        turns,
        || {
            for _ in 0..each {
                store.transaction(|transaction| {
                    (0..LOGS_TOUCHED).try_for_each(|_| {
                        next = (next + 7) % LOGS;
                        transaction.append(&names[next], &message)
                    })
                })?;
            }
            Ok(())
        },
        || {
            for _ in 0..each {
                for _ in 0..LOGS_TOUCHED {
                    writer.append(&message)?;
                }
                writer.commit(Durability::Disk)?;
            }
            Ok(())
        },
    )?;
    let commits = (turns * each) as u64;
    let written = store.version().get() - versions;
    drop(writer);
    store.close()?;
    remove(&path)?;
    let bytes = commits * (LOGS_TOUCHED * MESSAGE_BYTES) as u64;
    Ok(vec![
        Sample::rate(
            "1,000 logs, durable commits over 100 of them",
            "MB/s",
            megabytes(bytes, many),
            megabytes(bytes, one),
            "the store itself, the same bytes a commit into one log",
        )
        .target(0.8),
        Sample::cost(
            "blocks written (one sync each) a commit",
            "",
            written as f64 / (2 * commits) as f64,
            1.0,
            "one",
        )
        .target(1.01),
    ])
}
