//! An alias means one method.

use rpc_core::service;

#[service]
trait AliasTaken {
    async fn a(&self) -> u8;
    #[rpc(alias = "a")]
    async fn b(&self) -> u8;
}

fn main() {}
