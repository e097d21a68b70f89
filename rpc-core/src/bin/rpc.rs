//! The `rpc` program.

use std::process::ExitCode;

// One thread: matching is all under one lock, and a second thread would only wait for it and cost wake-ups.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    rpc_core::cli::run().await
}
