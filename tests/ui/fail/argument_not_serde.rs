//! A type without serde's traits is one error, also when the service is implemented, served and called.

use rpc_core::{Connection, service};

struct Opaque;

#[service(dyn_trait)]
trait NotSerde {
    async fn m(&self, opaque: Opaque) -> u8;
}

struct Implementation;

impl NotSerde for Implementation {
    async fn m(&self, _: Opaque) -> u8 {
        0
    }
}

async fn use_them(connection: &Connection) {
    let _ = NotSerdeServer::new(Implementation);
    let _ = NotSerdeClient::new(connection).m(Opaque).await;
}

fn main() {}
