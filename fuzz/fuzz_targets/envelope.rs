//! Feeds arbitrary bytes to the reader of envelopes and statements.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    targets::envelope(data);
});
