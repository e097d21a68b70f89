//! The `rpc` program.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    rpc_core::cli::run().await
}
