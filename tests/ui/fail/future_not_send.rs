//! Handlers run on any thread.

use std::rc::Rc;

use rpc_core::service;

#[service]
trait NotSend {
    async fn m(&self) -> u8;
}

struct Implementation;

impl NotSend for Implementation {
    async fn m(&self) -> u8 {
        let counter = Rc::new(1);
        std::future::ready(()).await;
        *counter
    }
}

fn main() {}
