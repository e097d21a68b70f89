//! A box of the twin is an implementation.
#![deny(missing_docs, warnings)]

use rpc_core::service;

use rpc_core::Context;

/// A service.
#[service(dyn_trait)]
pub trait Store {
    /// A method.
    async fn get(&self, ctx: &Context, key: String) -> Option<u8>;
}

struct Empty;

impl Store for Empty {
    async fn get(&self, _: &Context, _: String) -> Option<u8> {
        None
    }
}

fn main() {
    let store: Box<dyn DynStore> = Box::new(Empty);
    let _ = StoreServer::new(store);
    let store: std::sync::Arc<dyn DynStore> = std::sync::Arc::new(Empty);
    let _ = StoreServer::new(store);
}
