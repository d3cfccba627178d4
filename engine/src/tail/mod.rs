//! Memory for tails: bounded in bytes, reused while it is warm.

pub(crate) mod pool;

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
