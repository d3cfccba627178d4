//! Lanterman: an embeddable, memory-mapped log store.

pub mod disk;
mod sys;
