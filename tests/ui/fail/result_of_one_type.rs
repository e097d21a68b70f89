//! Both types of a result are needed.

use rpc_core::service;

#[service]
trait HalfResult {
    async fn m(&self) -> std::io::Result<u8>;
}

fn main() {}
