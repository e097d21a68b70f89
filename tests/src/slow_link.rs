//! A TCP proxy that delays every byte: a broker that is far away.

use std::time::Duration;

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, sleep_until},
};

/// A proxy in front of a broker; dropping it takes no new connections.
#[derive(Debug)]
pub struct SlowLink {
    uri: String,
    listener: JoinHandle<()>,
}

impl SlowLink {
    /// A proxy in front of the broker at `uri`, on a free port, that needs `one_way` in each direction.
    ///
    /// # Panics
    /// When the operating system gives no port.
    pub async fn start(uri: &str, one_way: Duration) -> Self {
        let (before, rest) = uri.rsplit_once('@').unwrap_or_else(|| uri.split_at("amqp://".len()));
        // The vhost and the parameters.
        let (authority, more) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let own = listener.local_addr().expect("it is bound");
        let before = if before.ends_with("//") { before.to_owned() } else { format!("{before}@") };
        let listener = tokio::spawn(accept(listener, authority.to_owned(), one_way));
        Self { uri: format!("{before}{own}{more}"), listener }
    }

    /// The URI that clients connect to instead of the broker's.
    pub fn uri(&self) -> &str {
        &self.uri
    }
}

impl Drop for SlowLink {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

async fn accept(listener: TcpListener, broker: String, one_way: Duration) {
    while let Ok((peer, _)) = listener.accept().await {
        let broker = TcpStream::connect(&broker).await.expect("the broker is reachable");
        for socket in [&peer, &broker] {
            socket.set_nodelay(true).expect("a TCP socket");
        }
        let (from_peer, to_peer) = peer.into_split();
        let (from_broker, to_broker) = broker.into_split();
        carry(from_peer, to_broker, one_way);
        carry(from_broker, to_peer, one_way);
    }
}

fn carry(
    mut from: impl AsyncRead + Unpin + Send + 'static,
    mut to: impl AsyncWrite + Unpin + Send + 'static,
    one_way: Duration,
) {
    // Bounded: a peer that does not read stops the other one.
    let (sender, mut late) = mpsc::channel::<(Instant, Vec<u8>)>(1_024);
    tokio::spawn(async move {
        let mut buffer = vec![0; 65_536];
        while let Ok(bytes @ 1..) = from.read(&mut buffer).await {
            if sender.send((Instant::now() + one_way, buffer[..bytes].to_vec())).await.is_err() {
                return;
            }
        }
    });
    tokio::spawn(async move {
        while let Some((at, bytes)) = late.recv().await {
            sleep_until(at).await;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
        drop(to.shutdown().await);
    });
}
