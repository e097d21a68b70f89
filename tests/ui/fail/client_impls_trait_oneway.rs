//! A client that is the trait reports a failed call in a `Result`, and a one-way method has none.

use rpc_core::service;

#[service(client_impls_trait)]
trait OneWay {
    #[rpc(oneway)]
    async fn m(&self);
}

fn main() {}
