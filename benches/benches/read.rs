//! Reading what is warm, and sealing a slab.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "a bench stops at the first surprise, and its macros document nothing"
)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use lanterman::disk::MemoryDisk;
use lanterman::{Background, Durability, Options, Snapshot, Store};
use lanterman_format::block::BlockIdentity;
use lanterman_format::buffer::{plain_header_word, plain_stored_bytes};
use lanterman_format::slab::{SLAB_BODY_POSITION, SlabDescription, seal, trailer_bytes};
use lanterman_format::{
    Generation, Histogram32, KeySketch, LogId, Offset, Position, SegmentId, StoreId, Summary, ValueType,
    Version,
};

const MESSAGES: u64 = 64 << 10;

/// A log of 64 MiB in slabs, most of which is in no chunk any more.
fn filled() -> (Store, Snapshot) {
    let options = Options::new()
        .disk(Arc::new(MemoryDisk::new()))
        .background(Background::Manual);
    let store = options.tail_memory_bytes(4 << 20).open_copying("/store").unwrap();
    let mut writer = store.writer("log").unwrap();
    for number in 0..MESSAGES {
        let mut message = [1u8; 1024];
        message[..8].copy_from_slice(&number.to_le_bytes());
        writer.append(&message).unwrap();
    }
    writer.commit(Durability::Disk).unwrap();
    let snapshot = store.snapshot("log").unwrap();
    (store, snapshot)
}

fn read(criterion: &mut Criterion) {
    let (_store, snapshot) = filled();
    let mut group = criterion.benchmark_group("read");
    group.throughput(Throughput::Elements(1));
    let mut cursor = snapshot.cursor(0u64).unwrap();
    let mut offset = 0u64;
    group.bench_function("get by offset, random, warm, 1 KiB", |bench| {
        bench.iter(|| {
            offset = offset
                .wrapping_mul(0x5851_f42d_4c95_7f2d)
                .wrapping_add(0x1405_7b7e_f767_814f);
            black_box(
                cursor
                    .get((offset >> 33) % MESSAGES)
                    .unwrap()
                    .value()
                    .first()
                    .copied(),
            )
        });
    });
    group.throughput(Throughput::Elements(MESSAGES));
    group.bench_function("scan of 64 Ki messages, warm", |bench| {
        bench.iter(|| {
            let mut cursor = snapshot.cursor(0u64).unwrap();
            let mut sum = 0u64;
            while let Some(message) = cursor.next().unwrap() {
                sum = sum.wrapping_add(message.value().first().copied().unwrap_or(0).into());
            }
            black_box(sum)
        });
    });
    group.finish();
}

fn seal_slab(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("seal");
    for bytes in [100usize, 1024] {
        let value = vec![7u8; bytes];
        let mut body = Vec::new();
        let mut positions = Vec::new();
        while body.len() < 1_000_000 {
            positions.push(u32::try_from(SLAB_BODY_POSITION + body.len()).unwrap());
            let length = u32::try_from(bytes).unwrap();
            let end = body.len() + plain_stored_bytes(length) as usize;
            body.extend_from_slice(&plain_header_word(length, ValueType::BYTES).to_le_bytes());
            body.extend_from_slice(&value);
            body.resize(end, 0);
        }
        let body_end = u32::try_from(SLAB_BODY_POSITION + body.len()).unwrap();
        let entries = u32::try_from(positions.len()).unwrap();
        let mut head = [0u8; SLAB_BODY_POSITION];
        let mut trailer = vec![0u8; trailer_bytes(body_end, entries, 0) as usize + 4096];
        let description = SlabDescription {
            log: LogId::new(1),
            first_offset: Offset::new(0),
            offset_count: u64::from(entries),
            summary: Summary::default(),
            histogram: Histogram32::default(),
            is_compressed: false,
            keys: KeySketch::EMPTY,
        };
        let identity = BlockIdentity {
            store: StoreId::from_bytes([1; 16]),
            segment: SegmentId::new(1),
            generation: Generation::new(1),
            position: Position::new(4096),
            version: Version::new(1),
        };
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(format!("1 MB of {bytes} B messages"), |bench| {
            bench.iter(|| {
                seal(
                    &mut head,
                    &body,
                    &mut trailer,
                    black_box(&positions),
                    None,
                    &description,
                    &identity,
                )
                .unwrap()
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = read, seal_slab
}
criterion_main!(benches);
