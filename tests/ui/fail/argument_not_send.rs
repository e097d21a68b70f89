//! Arguments are handed to handlers on any thread.

use std::{marker::PhantomData, rc::Rc};

use rpc_core::service;

#[derive(serde::Serialize, serde::Deserialize)]
struct Local(PhantomData<Rc<u8>>);

#[service]
trait ArgumentNotSend {
    async fn m(&self, local: Local) -> u8;
}

struct Implementation;

impl ArgumentNotSend for Implementation {
    async fn m(&self, local: Local) -> u8 {
        std::future::ready(()).await;
        drop(local);
        0
    }
}

fn main() {}
