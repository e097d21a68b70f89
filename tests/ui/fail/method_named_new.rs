//! The generated client has functions of its own; a method of the same name could not be called beside them.

use rpc_core::service;

#[service]
trait MethodNamedNew {
    async fn new(&self, n: u8) -> u8;
    async fn still_generated(&self) -> u8;
}

fn main() {
    fn call(client: &MethodNamedNewClient) -> rpc_core::Call<u8> {
        client.still_generated()
    }
    let _ = call;
}
