//! A pool serves a generated server, not the implementation itself.

use rpc_core::{Connection, WorkerPool, service};

#[service]
trait Fibonacci {
    async fn fib(&self, n: u32) -> u64;
}

struct Fast;

impl Fibonacci for Fast {
    async fn fib(&self, n: u32) -> u64 {
        n.into()
    }
}

fn serve(connection: &Connection) {
    let _ = WorkerPool::new(connection).serve(Fast);
}

fn main() {}
