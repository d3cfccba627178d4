//! Entry point of libFuzzer; the body is in the library.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| lanterman_fuzz::decoders::key_sketch(input));
