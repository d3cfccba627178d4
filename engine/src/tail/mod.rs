//! Memory for tails: bounded in bytes, reused while it is warm.

pub(crate) mod pool;

#[cfg(all(test, not(loom)))]
mod tests;
