//! The `lanterman` tool.
fn main() {}
