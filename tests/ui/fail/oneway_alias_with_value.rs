//! An alias of `Result` whose value is not `()`.

use rpc_core::service;

mod io {
    pub type Result<T> = std::io::Result<T>;
}

#[service]
trait OneWayAlias {
    #[rpc(oneway)]
    async fn m(&self) -> io::Result<u8>;
}

fn main() {}
