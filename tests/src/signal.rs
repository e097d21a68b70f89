//! Signals to processes.

use std::process::Command;

/// Sends the signal of that name (`STOP`, `CONT`, `TERM`) to a process.
///
/// # Panics
/// When there is no such process.
pub fn signal(process_id: u32, name: &str) {
    let status = Command::new("kill").args([&format!("-{name}"), &process_id.to_string()]).status();
    assert!(status.expect("there is a `kill`").success(), "process {process_id} is ours, and running");
}
