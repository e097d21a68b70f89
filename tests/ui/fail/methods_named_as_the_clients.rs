//! One error for each method that is named like a function of the generated client, raw or not.

use rpc_core::service;

#[service]
trait MethodsNamedAsTheClients {
    async fn client(&self) -> u8;
    async fn with_options(&self, options: u8) -> u8;
    #[rpc(name = "from")]
    async fn r#from_client(&self) -> u8;
    async fn fake(&self) -> u8;
    async fn layer(&self, layer: u8) -> u8;
}

fn main() {}
