#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuota::fuzzing::native(data));
