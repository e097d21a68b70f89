//! A pool whose handle is dropped at once stops at once.
#![deny(unused_must_use)]

use rpc_core::{Error, WorkerPool};

async fn serve(pool: WorkerPool) -> Result<(), Error> {
    pool.start().await?;
    std::future::pending().await
}

fn main() {}
