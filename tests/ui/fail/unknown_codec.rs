//! Codecs are known.

use rpc_core::service;

#[service(codec = "xml")]
trait UnknownCodec {
    async fn m(&self) -> u8;
}

fn main() {}
