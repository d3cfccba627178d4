//! Memory for tails: bounded in bytes, reused while it is warm.

pub(crate) mod pool;
