//! Too many connections, and connections that send next to nothing.

use std::time::{Duration, Instant};

use rpc_core::broker::Broker;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::socket::{LIMIT, PROTOCOL_HEADER, open};

#[tokio::test]
async fn connections_that_say_nothing_are_counted() {
    let broker =
        Broker::builder().connections_max(3).handshake_timeout(Duration::from_millis(800)).start().await.unwrap();
    let mut silent = Vec::new();
    for _ in 0..3 {
        silent.push(TcpStream::connect(broker.address()).await.unwrap());
    }
    // The oldest one has to leave for a client that comes, and the others when their handshake takes too long.
    let started = Instant::now();
    let first = timeout(LIMIT, open(&broker, 0)).await.unwrap();
    is_closed(&mut silent[0]).await;
    assert!(started.elapsed() < Duration::from_millis(700), "closed at once, not by its handshake's timeout");
    for stream in &mut silent[1..] {
        is_closed(stream).await;
    }
    // Clients that have logged in keep their places.
    let guests = [first, open(&broker, 0).await, open(&broker, 0).await];
    let started = Instant::now();
    is_closed(&mut TcpStream::connect(broker.address()).await.unwrap()).await;
    assert!(started.elapsed() < Duration::from_millis(700), "refused at once, not by its handshake's timeout");
    // A connection that ends frees its place.
    drop(guests);
    let served = timeout(LIMIT, async {
        loop {
            let mut stream = TcpStream::connect(broker.address()).await.unwrap();
            // Fails where it is refused already.
            drop(stream.write_all(PROTOCOL_HEADER).await);
            if matches!(stream.read(&mut [0; 8]).await, Ok(1..)) {
                return;
            }
        }
    });
    served.await.unwrap();
}

async fn is_closed(stream: &mut TcpStream) {
    let read = timeout(LIMIT, stream.read(&mut [0; 8])).await.unwrap();
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
}

#[tokio::test]
async fn a_handshake_byte_by_byte_is_cut_off_all_the_same() {
    let broker = Broker::builder().handshake_timeout(Duration::from_millis(300)).start().await.unwrap();
    // The header, and the start of a start-ok of four thousand bytes.
    let head = [1, 0, 0, 0, 0, 0x0F, 0xA0];
    for sent in [PROTOCOL_HEADER.to_vec(), [PROTOCOL_HEADER, &head].concat()] {
        let mut stream = TcpStream::connect(broker.address()).await.unwrap();
        stream.write_all(&sent[..sent.len() - 1]).await.unwrap();
        let (mut reading, mut writing) = stream.split();
        let started = Instant::now();
        let drip = async {
            // Without its last byte a header is incomplete.
            let drop = if sent.len() > 8 { &[0_u8][..] } else { &[] };
            while writing.write_all(drop).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let mut received = Vec::new();
        let until_closed = async { timeout(LIMIT, reading.read_to_end(&mut received)).await.unwrap().ok() };
        tokio::select! {
            _ = until_closed => {}
            () = drip => {}
        }
        let took = started.elapsed();
        assert!((Duration::from_millis(200)..Duration::from_secs(3)).contains(&took), "{took:?}");
    }
}

#[tokio::test]
async fn silent_clients_keep_no_other_out() {
    let broker = Broker::builder().connections_max(60).handshakes_max(10).start().await.unwrap();
    let mut logged_in = open(&broker, 0).await;
    // More than the broker has places for; all of them are still open.
    let mut silent = Vec::new();
    for number in 0..110 {
        let mut stream = TcpStream::connect(broker.address()).await.unwrap();
        if number % 2 == 0 {
            stream.write_all(PROTOCOL_HEADER).await.unwrap();
        }
        silent.push(stream);
    }
    let mut another = timeout(Duration::from_secs(5), open(&broker, 0)).await.expect("well before the silent time out");
    for stream in [&mut logged_in, &mut another] {
        stream.write_all(&crate::socket::channel_open()).await.unwrap();
        let read = timeout(LIMIT, stream.read(&mut [0; 64])).await.unwrap();
        assert!(matches!(read, Ok(1..)), "{read:?}");
    }
    // The first ones were disconnected for the last ones.
    let first = timeout(LIMIT, async { while matches!(silent[1].read(&mut [0; 64]).await, Ok(1..)) {} });
    first.await.expect("the oldest is disconnected");
}
