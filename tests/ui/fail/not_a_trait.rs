//! The attribute belongs on a trait.

use rpc_core::service;

#[service]
struct NotATrait;

fn main() {}
