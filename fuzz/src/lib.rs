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

pub mod choices;
pub mod model;
