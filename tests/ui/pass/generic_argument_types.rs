//! Arguments may be of generic types.
#![deny(missing_docs, warnings)]

use rpc_core::service;

use std::collections::{BTreeMap, HashMap};

/// A service.
#[service]
pub trait Generic {
    /// A method.
    async fn m(&self, a: Vec<HashMap<String, Option<(u8, [u16; 4])>>>, b: Box<BTreeMap<u8, ()>>) -> Result<Vec<u8>, ()>;
}

fn main() {}
