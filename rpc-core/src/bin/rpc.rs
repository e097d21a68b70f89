//! The `rpc` program.

use std::process::ExitCode;

/// After a burst of messages most of its memory goes back to the system, of which glibc's allocator keeps nearly all.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

// One thread: matching is all under one lock, and a second thread would only wait for it and cost wake-ups.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    rpc_core::cli::run().await
}
