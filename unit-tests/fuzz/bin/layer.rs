//! libFuzzer's program for `sarus_fuzz::layer`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| sarus_fuzz::layer(input));
