//! The on-disk format of Lanterman stores: slices in, values out.
//!
//! No I/O, no clock, no unsafe code. `SPEC.md` at the root of the repository holds the normative text.
#![forbid(unsafe_code)]
