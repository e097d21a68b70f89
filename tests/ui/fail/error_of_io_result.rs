//! `std::io::Error` cannot be sent.

use rpc_core::service;

#[service]
trait Io {
    async fn m(&self) -> std::io::Result<u8>;
}

fn main() {}
