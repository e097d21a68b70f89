//! Keys of #[service] are known.

use rpc_core::service;

#[service(nmae = "x")]
trait UnknownServiceKey {
    async fn m(&self) -> u8;
}

fn main() {}
