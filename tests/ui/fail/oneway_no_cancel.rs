//! A one-way request has no caller who could give it up.

use rpc_core::service;

#[service]
trait OneWayNoCancel {
    #[rpc(oneway, no_cancel)]
    async fn m(&self);
}

fn main() {}
