//! A service's error without `Deserialize` is one error.

use rpc_core::service;

#[derive(serde::Serialize)]
struct Failure;

#[service]
trait ErrorNotSerde {
    async fn m(&self) -> Result<u8, Failure>;
}

fn main() {}
