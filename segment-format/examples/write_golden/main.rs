//! Writes the golden files of the current version of the format, `segment-format/testdata/v1/*.bin`:
//! `cargo run -p lanterman-format --example write_golden`. They change only together with the version of the format.

mod sample;

use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/v1");
    std::fs::create_dir_all(&directory)?;
    let compressed = ("compressed.bin", sample::compressed()?);
    for (name, bytes) in sample::files()?.into_iter().chain([compressed]) {
        std::fs::write(directory.join(name), bytes)?;
    }
    Ok(())
}
