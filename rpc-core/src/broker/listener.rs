//! Accepts connections, and owns the tasks that serve them.

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use tokio::{
    net::TcpListener,
    task::{JoinSet, yield_now},
    time::{Instant, sleep, sleep_until},
};
use tracing::Instrument;

use super::{
    connection::{self, Transport},
    core::Peer,
    shared::Shared,
};

/// A socket that accepts clients, and the transport that they use there.
pub(super) struct Door {
    pub(super) socket: TcpListener,
    pub(super) transport: Transport,
}

/// Runs until the broker stops and all its connections are closed.
pub(super) async fn run(doors: Vec<Door>, shared: Arc<Shared>) {
    let mut tasks = JoinSet::new();
    tasks.spawn(keep_time(Arc::clone(&shared)));
    for door in doors {
        tasks.spawn(accept(door, Arc::clone(&shared)));
    }
    while tasks.join_next().await.is_some() {}
}

async fn accept(Door { socket, transport }: Door, shared: Arc<Shared>) {
    let mut stopping = shared.stopping();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stopping.wait() => break,
            accepted = socket.accept() => match accepted {
                Ok(_) if shared.refuses() => tracing::debug!("connection refused: a fault asks for it"),
                Ok((stream, address)) => {
                    let Some(seat) = shared.seats.admit().await else {
                        tracing::warn!(peer = %address, "connection refused: the broker has connections_max of them");
                        continue;
                    };
                    let span = tracing::info_span!("connection", peer = %address);
                    let ip = address.ip().to_canonical();
                    let peer = Peer {
                        address: address.to_string(),
                        origin: origin_of(ip),
                        is_loopback: ip.is_loopback(),
                        certificate_name: None,
                    };
                    let serving = connection::serve(stream, peer, transport.clone(), Arc::clone(&shared), seat);
                    connections.spawn(serving.instrument(span));
                }
                Err(error) => {
                    // Most likely the process has no file descriptors left, until connections close.
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

/// The address that failed logins are counted by. A client has a whole network of IPv6 addresses, of 64 bits.
fn origin_of(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).to_string()
        }
    }
}

/// Runs the timers of the core.
async fn keep_time(shared: Arc<Shared>) {
    let mut stopping = shared.stopping();
    loop {
        let next = shared.tick();
        if next.is_some_and(|at| at <= Instant::now().into_std()) {
            // The core stopped early, so that other tasks get the lock.
            yield_now().await;
        }
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
