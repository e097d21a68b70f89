//! A result without serde's traits is one error.

use rpc_core::service;

struct Opaque;

#[service]
trait ResultNotSerde {
    async fn m(&self) -> Vec<Opaque>;
}

fn main() {}
