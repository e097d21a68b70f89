//! A service has methods.

use rpc_core::service;

#[service]
trait Empty {}

fn main() {}
