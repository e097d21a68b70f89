//! An alias called `Result` may give its parameters another meaning.

use rpc_core::service;

type Result<E, T> = core::result::Result<T, E>;

#[service]
trait Swapped {
    async fn m(&self) -> Result<String, u8>;
}

fn main() {}
