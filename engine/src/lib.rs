//! Lanterman: an embeddable, memory-mapped log store.

pub mod disk;
#[allow(
    dead_code,
    unused_imports,
    reason = "the store, which reads through it, comes with the next layer"
)]
mod slab;
mod sys;
#[allow(
    dead_code,
    unused_imports,
    reason = "the catalog, whose logs are trees, comes with the next layer"
)]
mod tree;
