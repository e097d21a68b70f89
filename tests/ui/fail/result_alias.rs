//! A `Result` under another name would send its error as a part of the value.

use rpc_core::service;

type MyResult<T> = Result<T, String>;
type Outcome = Result<(), String>;

#[service]
trait Aliased {
    async fn one(&self) -> MyResult<u8>;
    async fn another(&self) -> Outcome;
    async fn fine(&self) -> Result<u8, String>;
}

fn main() {}
