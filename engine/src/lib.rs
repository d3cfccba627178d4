//! Lanterman: an embeddable, memory-mapped log store.
