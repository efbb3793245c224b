//! The `cardea` binary.

use std::process::ExitCode;

/// Answers of a few hundred bytes, made and dropped a hundred thousand times a second.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cardea_server::cli::run()
}
