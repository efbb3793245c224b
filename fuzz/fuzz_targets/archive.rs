//! Feeds arbitrary bytes to the reader of packed bundles, and the archives within.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    targets::archive(data);
});
