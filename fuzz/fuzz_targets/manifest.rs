//! Feeds arbitrary bytes to the reader of manifests.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    targets::manifest(data);
});
