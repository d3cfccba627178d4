//! Appending in memory and committing in memory, without a disk: what a call costs by itself.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "a bench stops at the first surprise, and its macros document nothing"
)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use lanterman::disk::{AlignedBuffer, MemoryDisk};
use lanterman::{Background, Durability, NewMessage, Options, Store, Writer};

/// Appended before the store is replaced: less than the memory of tails, so that nothing is written meanwhile.
const BYTES_A_STORE: usize = 24 << 20;

fn store() -> Store {
    let options = Options::new()
        .disk(Arc::new(MemoryDisk::new()))
        .background(Background::Manual);
    options
        .tail_memory_bytes(64 << 20)
        .open_copying("/store")
        .unwrap()
}

/// A writer whose chunks were touched and grew to full size.
fn warm_writer() -> (Store, Writer) {
    let store = store();
    let mut writer = store.writer("log").unwrap();
    for _ in 0..2 << 10 {
        writer.append(&[1; 1024]).unwrap();
    }
    (store, writer)
}

fn append(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("append");
    for bytes in [16usize, 100, 1 << 10, 64 << 10] {
        let message = vec![7u8; bytes];
        let each = (BYTES_A_STORE / (bytes + 24)).min(100_000);
        group.throughput(Throughput::Elements(each as u64));
        group.bench_function(format!("{bytes} B, {each} messages"), |bench| {
            bench.iter_batched(
                warm_writer,
                |(store, mut writer)| {
                    for _ in 0..each {
                        writer.append(black_box(&message)).unwrap();
                    }
                    (store, writer)
                },
                BatchSize::PerIteration,
            );
        });
    }
    let message = [7u8; 100];
    group.throughput(Throughput::Elements(100_000));
    group.bench_function("batches of 100 of 100 B, 100000 messages", |bench| {
        bench.iter_batched(
            warm_writer,
            |(store, mut writer)| {
                for _ in 0..1_000 {
                    writer
                        .append_batch((0..100).map(|_| NewMessage::new(black_box(&message))))
                        .unwrap();
                }
                (store, writer)
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

fn commit(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("commit in memory");
    group.throughput(Throughput::Elements(1_000));
    group.bench_function("1 KiB, 1000 commits", |bench| {
        bench.iter_batched(
            warm_writer,
            |(store, mut writer)| {
                for _ in 0..1_000 {
                    writer.append(&[7; 1024]).unwrap();
                    writer.commit(Durability::Disk).unwrap();
                }
                (store, writer)
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

fn aligned_memory(criterion: &mut Criterion) {
    criterion.bench_function("new aligned buffer of 1 MiB", |bench| {
        bench.iter(|| AlignedBuffer::new(black_box(1 << 20)).unwrap());
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2));
    targets = append, commit, aligned_memory
}
criterion_main!(benches);
