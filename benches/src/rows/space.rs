//! What a store takes: on disk for each byte of payload, and in memory when nobody does anything.

use lanterman::Durability;

use crate::Outcome;
use crate::child;
use crate::context::{Context, LOG, MESSAGE_BYTES, payload, remove};
use crate::table::Sample;

pub(super) fn disk(context: &mut Context) -> Outcome<Vec<Sample>> {
    let mut samples = Vec::new();
    for (bytes, row, target) in [
        (MESSAGE_BYTES, "bytes in slabs for a byte of payload, 1 KiB", 1.03),
        (100, "bytes in slabs for a byte of payload, 100 B", 1.2),
    ] {
        let path = context.path("space");
        let store = context.open(&path)?;
        let mut writer = store.writer(LOG)?;
        let message = payload(bytes);
        let count = (64u64 << 20) / bytes as u64;
        for _ in 0..count {
            writer.append(&message)?;
        }
        writer.commit(Durability::Disk)?;
        store.checkpoint()?;
        let written = store.counters().slab_bytes_written as f64;
        drop(writer);
        store.close()?;
        remove(&path)?;
        let payload_bytes = (count * bytes as u64) as f64;
        samples.push(Sample::cost(row, "", written / payload_bytes, 1.0, "the payload").target(target));
    }
    Ok(samples)
}

pub(super) fn memory(context: &mut Context) -> Outcome<Vec<Sample>> {
    let path = context.path("memory");
    let empty = child::start(child::IDLE_STORE, &path, context.quick)?;
    remove(&path)?;
    let used = child::start(child::USED_STORE, &path, context.quick)?;
    remove(&path)?;
    let logs = child::start(child::IDLE_LOGS, &path, context.quick)?;
    let reopened = child::start(child::REOPENED_LOGS, &path, context.quick)?;
    remove(&path)?;
    Ok(vec![
        Sample::cost(
            "memory of an idle log, one of many",
            "B",
            logs.number("bytes_a_log")?,
            1024.0,
            "1 KiB",
        )
        .target(1.0),
        Sample::cost(
            "memory of an idle log in a store opened again",
            "B",
            reopened.number("bytes_a_log")?,
            1024.0,
            "1 KiB",
        )
        .target(1.0),
        Sample::cost(
            "memory of an idle store, never written to",
            "MiB",
            empty.number("mib")?,
            8.0,
            "8 MiB",
        )
        .target(1.0),
        Sample::cost(
            "memory of an idle store, 256 MiB written before",
            "MiB",
            used.number("mib")?,
            8.0,
            "8 MiB",
        )
        .target(1.0),
    ])
}
