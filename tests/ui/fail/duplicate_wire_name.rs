//! Every name on the wire means one method.

use rpc_core::service;

#[service]
trait Duplicate {
    async fn a(&self) -> u8;
    #[rpc(name = "a")]
    async fn b(&self) -> u8;
}

fn main() {}
