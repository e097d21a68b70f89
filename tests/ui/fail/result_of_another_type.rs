//! A type called `Result` is the standard one.

use rpc_core::service;

#[derive(serde::Serialize, serde::Deserialize)]
struct Result {
    goals: u8,
}

#[service]
trait Match {
    async fn m(&self) -> Result;
}

fn main() {}
