//! All mistakes are reported at once, and nothing cascades from them.

use rpc_core::service;

use rpc_core::Connection;

#[service(nmae = "x")]
trait Several {
    async fn good(&self, n: u8) -> u8;
    async fn bad(&self, text: &str) -> u8;
    #[rpc(timeout = "soon")]
    async fn late(&self) -> u8;
}

struct Implementation;

impl Several for Implementation {
    async fn good(&self, n: u8) -> u8 {
        n
    }
    async fn bad(&self, _: &str) -> u8 {
        0
    }
    async fn late(&self) -> u8 {
        0
    }
}

async fn use_them(connection: &Connection) {
    let _ = SeveralServer::new(Implementation);
    let client = SeveralClient::new(connection);
    let _ = client.good(1).await;
    let _ = client.late().await;
}

fn main() {}
