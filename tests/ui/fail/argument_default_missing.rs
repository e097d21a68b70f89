//! An argument with a default is of a type that has one.

use rpc_core::service;

#[derive(serde::Serialize, serde::Deserialize)]
struct NoDefault;

#[service]
trait DefaultMissing {
    async fn m(&self, #[rpc(default)] n: NoDefault) -> u8;
}

fn main() {}
