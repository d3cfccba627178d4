//! Memory that a writer and its readers share: the one place with unsafe code beside `sys`.
//!
//! What callers may rely on:
//! - bytes lent by a [`chunk::Chunk`] lie below its published end and never change again while anybody holds the chunk;
//! - a [`gated::Gated`] value has one user at a time, though its owner pays no atomic operation for it;
//! - a [`root::RootCell`] gives whole values.

pub(crate) mod chunk;
pub(crate) mod gated;
pub(crate) mod root;

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
