//! A type may implement the twin alone, by `#[async_trait]`.
#![deny(missing_docs, warnings)]

use async_trait::async_trait;
use rpc_core::{Context, service};

/// A service.
#[service(dyn_trait)]
pub trait Store {
    /// A method.
    async fn get(&self, ctx: &Context, key: String) -> Option<u8>;
}

struct Empty;

#[async_trait]
impl DynStore for Empty {
    async fn get(&self, _: &Context, _: String) -> Option<u8> {
        None
    }
}

fn main() {
    let store: Box<dyn DynStore> = Box::new(Empty);
    let _ = StoreServer::new(store);
}
