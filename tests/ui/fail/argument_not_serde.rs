//! An argument that is no serde type is named once, where it stands.

use rpc_core::service;

struct Opaque;

#[service]
trait NotSerde {
    async fn m(&self, opaque: Opaque) -> u8;
}

fn main() {}
