//! The queue of the dead letters is no queue for requests.

use rpc_core::service;

#[service]
trait QueueDead {
    #[rpc(queue = "dead")]
    async fn m(&self);
}

fn main() {}
