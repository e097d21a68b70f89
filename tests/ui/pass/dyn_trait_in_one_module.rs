//! Two twins live in one module, also beside a `Box` imported by name, and in a function.
#![deny(missing_docs, warnings)]

use std::boxed::Box;

use rpc_core::service;

/// One.
#[service(dyn_trait)]
pub trait One {
    /// A method.
    #[deprecated]
    async fn m(&self) -> Box<u8>;
}

/// Another.
#[service(dyn_trait)]
pub trait Two {
    /// A method.
    async fn m(&self);
}

fn main() {
    #[derive(serde::Serialize, serde::Deserialize)]
    struct Local;

    #[service(dyn_trait)]
    trait Inner {
        async fn m(&self, local: Local) -> Local;
    }
}
