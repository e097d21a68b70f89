//! Two types without serde's traits are two errors.

use rpc_core::service;

struct Opaque;
struct Dark;

#[service]
trait NoneSerde {
    async fn m(&self, n: u8, opaque: Opaque, list: Vec<Dark>) -> u8;
}

fn main() {}
