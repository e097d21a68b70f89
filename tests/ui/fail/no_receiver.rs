//! A remote method takes &self.

use rpc_core::service;

#[service]
trait NoReceiver {
    async fn m(n: u8) -> u8;
}

fn main() {}
