//! What compression of a log costs and saves, beside the same log without.

use std::time::Instant;

use lanterman::{Compression, Durability, Store};

use crate::Outcome;
use crate::context::{Context, remove};
use crate::table::Sample;

const LOG: &str = "events";
const WITHOUT: &str = "the same, not compressed";

const ROWS_LZ4: [&str; 4] = [
    "bytes in slabs of lines of 170 B, LZ4",
    "append of them until all are in slabs, LZ4",
    "scan of them, warm, LZ4",
    "random reads of them, warm, LZ4",
];
const ROWS_ZSTD: [&str; 4] = [
    "bytes in slabs of lines of 170 B, Zstandard 3",
    "append of them until all are in slabs, Zstandard 3",
    "scan of them, warm, Zstandard 3",
    "random reads of them, warm, Zstandard 3",
];

/// A line as a web server writes it: what is the same in all of them, and what is not.
fn line(number: u64) -> String {
    let mixed = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    format!(
        r#"{{"time":"2026-11-{:02}T{:02}:{:02}:{:02}Z","client":"10.{}.{}.{}","method":"GET","path":"/orders/{}/items","status":{},"bytes":{},"agent":"Mozilla/5.0 (X11; Linux x86_64)"}}"#,
        1 + number / 86_400 % 30,
        number / 3600 % 24,
        number / 60 % 60,
        number % 60,
        mixed >> 56,
        mixed >> 48 & 255,
        mixed >> 40 & 255,
        mixed >> 20 & 0xF_FFFF,
        [200, 200, 200, 304, 404][(mixed >> 3) as usize % 5],
        mixed & 0xFFFF,
    )
}

/// What was measured of one log.
struct Measured {
    append_ns: f64,
    slab_bytes: f64,
    scan_ns: f64,
    random_ns: f64,
}

fn measure(store: &Store, count: u64) -> Outcome<Measured> {
    let lines: Vec<String> = (0..4096).map(line).collect();
    let mut writer = store.writer(LOG)?;
    let start = Instant::now();
    for number in 0..count {
        writer.append(lines[number as usize % lines.len()].as_bytes())?;
    }
    writer.commit(Durability::Disk)?;
    store.checkpoint()?;
    let append_ns = start.elapsed().as_secs_f64() * 1e9 / count as f64;
    let slab_bytes = store.counters().slab_bytes_written as f64;
    drop(writer);
    let mut cursor = store.log(LOG)?.cursor(0u64)?;
    let start = Instant::now();
    let mut sum = 0_u64;
    while let Some(message) = cursor.next()? {
        let value = message.value();
        sum = sum.wrapping_add(u64::from(value[value.len() / 2]));
    }
    let scan_ns = start.elapsed().as_secs_f64() * 1e9 / count as f64;
    let reads = count / 50;
    let start = Instant::now();
    for number in 0..reads {
        let offset = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) % count;
        sum = sum.wrapping_add(u64::from(cursor.get(offset)?.value()[0]));
    }
    std::hint::black_box(sum);
    Ok(Measured {
        append_ns,
        slab_bytes,
        scan_ns,
        random_ns: start.elapsed().as_secs_f64() * 1e9 / reads as f64,
    })
}

pub(super) fn logs(context: &mut Context) -> Outcome<Vec<Sample>> {
    let count: u64 = context.pick(2_000_000, 100_000);
    let of = |compression: Option<Compression>| {
        let path = context.path("compress");
        let store = context.open(&path)?;
        store.set_compression(LOG, compression.as_ref())?;
        let measured = measure(&store, count)?;
        store.close()?;
        remove(&path)?;
        Outcome::Ok(measured)
    };
    let plain = of(None)?;
    let mut samples = Vec::new();
    for (rows, compression) in [(ROWS_LZ4, Compression::lz4()), (ROWS_ZSTD, Compression::zstd(3))] {
        let packed = of(Some(compression))?;
        let figures = [
            ("B", packed.slab_bytes, plain.slab_bytes),
            ("ns", packed.append_ns, plain.append_ns),
            ("ns", packed.scan_ns, plain.scan_ns),
            ("ns", packed.random_ns, plain.random_ns),
        ];
        for (row, (unit, with, without)) in rows.into_iter().zip(figures) {
            samples.push(Sample::cost(row, unit, with, without, WITHOUT));
        }
    }
    Ok(samples)
}
