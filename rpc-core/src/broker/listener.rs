//! Accepts connections, and owns the tasks that serve them.

use std::{sync::Arc, time::Duration};

use tokio::{
    net::TcpListener,
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use tracing::Instrument;

use super::{connection, core::Peer, shared::Shared};

/// Runs until the broker stops, and until its connections are closed.
pub(super) async fn run(socket: TcpListener, shared: Arc<Shared>) {
    let mut stopping = shared.stopping();
    let mut connections = JoinSet::new();
    connections.spawn(keep_time(Arc::clone(&shared)));
    loop {
        tokio::select! {
            () = stopping.wait() => break,
            accepted = socket.accept() => match accepted {
                Ok((stream, address)) => {
                    let span = tracing::info_span!("connection", peer = %address);
                    let peer = Peer { is_loopback: address.ip().to_canonical().is_loopback(), certificate_name: None };
                    connections.spawn(connection::serve(stream, peer, Arc::clone(&shared)).instrument(span));
                }
                Err(error) => {
                    // Out of file descriptors, most likely: they come back when connections close.
                    tracing::warn!(%error, "cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
            // Keeps the set from growing.
            Some(_) = connections.join_next() => {}
        }
    }
    drop(socket);
    while connections.join_next().await.is_some() {}
}

/// Does what is due when it is due.
async fn keep_time(shared: Arc<Shared>) {
    let mut stopping = shared.stopping();
    loop {
        let next = shared.tick();
        let due = async {
            match next {
                Some(at) => sleep_until(Instant::from_std(at)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = due => {}
            () = shared.timer.notified() => {}
            () = stopping.wait() => return,
        }
    }
}

const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
