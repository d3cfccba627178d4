//! Bodies of the fuzz targets, as plain functions over bytes.
//!
//! A body fails by panicking. The entry points of libFuzzer in `fuzz_targets/` only call these; the tests in `tests/`
//! run each over the saved corpus and over fixed seeds, so that plain `cargo test` needs no fuzzer.
#![allow(
    clippy::panic,
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::missing_panics_doc,
    reason = "everything here is a test: it fails by panicking, and panicking is its answer"
)]

pub mod canary;
pub mod choices;
pub mod crafted;
pub mod decoders;
pub mod flat;
pub mod hostile;
pub mod model;
pub mod store;

/// A fuzz target: its name, which is also that of its entry point and of its corpus, and its body.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// The name.
    pub name: &'static str,
    /// What it does with an input; a panic is a finding.
    pub body: fn(&[u8]),
    /// Inputs from seeds that the tests run, beside the corpus.
    pub seeds: u64,
    /// Greatest length of such an input.
    pub input_bytes_max: u64,
}

const fn target(name: &'static str, body: fn(&[u8]), seeds: u64, input_bytes_max: u64) -> Target {
    Target {
        name,
        body,
        seeds,
        input_bytes_max,
    }
}

/// All targets but the canary.
pub const TARGETS: [Target; 18] = [
    target("block_header", decoders::block_header, 2000, 200),
    target("buffer", decoders::buffer, 5000, 300),
    target("commit", decoders::commit, 3000, 600),
    target("slab", decoders::slab, 3000, 9000),
    target("tree_node", decoders::tree_node, 2000, 2000),
    target("catalog_page", decoders::catalog_page, 2000, 1200),
    target("checkpoint", decoders::checkpoint, 2000, 600),
    target("settings", decoders::settings, 5000, 200),
    target("key_page", decoders::key_page, 5000, 400),
    target("key_sketch", decoders::key_sketch, 5000, 641),
    target("large_value", decoders::large_value, 5000, 200),
    target("compressed_batch", decoders::compressed_batch, 3000, 400),
    target("gathered_tails", decoders::gathered_tails, 2000, 300),
    target("root_slots", decoders::root_slots, 1000, 8192),
    target("segment_header", decoders::segment_header, 1000, 4096),
    target("segment_scan", decoders::segment_scan, 200, 20_000),
    target("names", decoders::names, 3000, 300),
    target("open_mutated", store::open_mutated, 300, 60),
];
