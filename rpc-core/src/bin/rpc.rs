//! The `rpc` program.

use std::process::ExitCode;

/// After a burst of messages its memory can go back to the system, of which glibc's allocator keeps nearly all.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

// One thread: matching is all under one lock, and a second thread would only wait for it and cost wake-ups.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    rpc_core::cli::run(give_back_memory).await
}

/// Gives the system what is free. The allocator does so by itself only while it is used, and a program that has become
/// idle keeps what was freed last.
#[allow(unsafe_code, reason = "the allocator's crate has no safe call for it")]
fn give_back_memory() {
    // SAFETY: it takes no pointer, and may be called at any time; it touches free blocks of this thread alone.
    unsafe { libmimalloc_sys::mi_collect(true) };
}
