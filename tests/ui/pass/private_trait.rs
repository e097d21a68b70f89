//! A private trait makes a private client and server, used or not.
#![deny(missing_docs, warnings)]

use rpc_core::service;

#[service]
trait Private {
    async fn m(&self) -> u8;
}

fn main() {}
