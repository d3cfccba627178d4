//! Opening: after a crash with a full journal, and after a clean end.

use std::time::Instant;

use crate::Outcome;
use crate::child;
use crate::context::{Context, LOG, remove};
use crate::table::Sample;

/// What opening may take beside the replay.
const TARGET_MS: f64 = 50.0;

pub(super) fn open(context: &mut Context) -> Outcome<Vec<Sample>> {
    let mut samples = Vec::new();
    for (task, row) in [
        (
            child::CRASH_SMALL,
            "open after a crash, full journal of 1 KiB commits",
        ),
        (
            child::CRASH_LARGE,
            "open after a crash, full journal of 64 KiB commits",
        ),
    ] {
        let path = context.path("open");
        let told = child::start(task, &path, context.quick)?;
        let (journal_bytes, end) = (told.number("journal_bytes")?, told.number("end")?);
        let start = Instant::now();
        let store = context.open(&path)?;
        let crashed = start.elapsed().as_secs_f64() * 1e3;
        let found = store.log(LOG)?.end().get() as f64;
        if found != end {
            return Err(format!("{found} messages after the crash, {end} before").into());
        }
        store.close()?;
        let allowed = TARGET_MS + journal_bytes / 1e6;
        samples
            .push(Sample::cost(row, "ms", crashed, allowed, "50 ms and the journal at 1 GB/s").target(1.0));
        if task == child::CRASH_LARGE {
            let replay = journal_bytes / 1e6 / crashed * 1e3;
            samples.push(Sample::rate(
                "replay of that journal, opening included",
                "MB/s",
                replay,
                1000.0,
                "1 GB/s",
            ));
            let start = Instant::now();
            let store = context.open(&path)?;
            let clean = start.elapsed().as_secs_f64() * 1e3;
            store.close()?;
            samples.push(Sample::cost("open after a clean end", "ms", clean, TARGET_MS, "50 ms").target(1.0));
        }
        remove(&path)?;
    }
    Ok(samples)
}
