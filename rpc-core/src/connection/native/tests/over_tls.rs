//! The same over TLS, which has a buffer of its own between frames and socket.

use std::sync::Arc;

use tokio::net::TcpSocket;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring,
        pki_types::{PrivateKeyDer, pem::PemObject},
    },
};

use super::*;

const BODY_BYTES: usize = 16_000;

async fn with_channel_over_tls() -> (Link, Peer, Channel) {
    let certified = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = PrivateKeyDer::from_pem_slice(certified.signing_key.serialize_pem().as_bytes()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    // Little: it is to be full soon.
    socket.set_recv_buffer_size(64 * 1_024).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let uri = format!("amqps://user:secret@{}/v", listener.local_addr().unwrap());
    let endpoint = Endpoint::parse(&uri).unwrap();
    let tls = crate::ClientTlsOptions::default().ca(certified.cert.pem());
    let options = ConnectionOptions::default().tls(tls);
    let (link, mut peer) = tokio::join!(Link::open(&endpoint, &options), async {
        let (stream, _) = listener.accept().await.unwrap();
        let stream = TlsAcceptor::from(Arc::new(config)).accept(stream).await.unwrap();
        let mut peer = Peer::begin(Box::new(stream)).await;
        peer.shake_hands(TUNE).await;
        peer
    });
    let link = link.unwrap();
    let (channel, _) = tokio::join!(link.channel(), peer.open_channel());
    (link, peer, channel.unwrap())
}

/// Publishes up to `messages_max` messages, until neither the socket nor TLS takes more; returns how many.
async fn fill(link: &Link, channel: &Channel, messages_max: usize) -> usize {
    for messages in 0..messages_max {
        channel.publish(&publish(&[7; BODY_BYTES])).unwrap();
        let mut pause = 0;
        while !link.channels.shared().outbox().is_empty() {
            if pause == 20 {
                return messages;
            }
            pause += 1;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    messages_max
}

#[tokio::test]
async fn bytes_that_tls_buffers_are_sent_when_the_broker_reads_on() {
    let (link, _peer, channel) = with_channel_over_tls().await;
    let enough = fill(&link, &channel, 4_000).await;
    // A little less: it is with TLS then, and nothing else will be written that could push it on.
    for less in 1..=6 {
        let (link, mut peer, channel) = with_channel_over_tls().await;
        let messages = fill(&link, &channel, enough - less).await.max(1);
        for _ in 0..messages {
            assert!(matches!(peer.next().await, Sent::Publish(1)));
            assert!(matches!(peer.next().await, Sent::Header));
            assert!(matches!(peer.next().await, Sent::Body(BODY_BYTES)));
        }
        drop((link, channel));
    }
}
