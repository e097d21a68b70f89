//! Queues of the broker are not for services.

use rpc_core::service;

#[service(queue = "amq.mine")]
trait BareReserved {
    async fn a(&self, n: u8) -> u8;
}

fn main() {}
