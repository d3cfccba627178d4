//! What measuring programs share: the machine's own limits and facts, data that repeats, medians, and charts.
//!
//! The program `lanterman-bench` and the comparison with other engines (`benches/peers`, outside the workspace) are made of these, so that a limit means the same in both.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    reason = "for measuring programs, which stop at the first surprise and read the clock"
)]

pub mod bare;
pub mod chart;
pub mod data;
pub mod growth;
pub mod machine;
pub mod spread;

use std::error::Error;

/// What every measurement returns.
pub type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;
