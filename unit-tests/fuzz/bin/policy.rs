//! libFuzzer's program for `sarus_fuzz::policy`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| sarus_fuzz::policy(input));
