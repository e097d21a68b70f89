//! Connections that come in thousands, or come and say nothing.

use rpc_core::broker::Broker;
use tokio::{io::AsyncWriteExt, net::TcpStream, time::timeout};

use crate::socket::{LIMIT, PROTOCOL_HEADER, open, read_frame};

#[tokio::test]
async fn thousands_of_connections_come_and_go() {
    const CONNECTIONS: usize = 10_000;
    let broker = Broker::start().await.unwrap();
    for round in 0..CONNECTIONS / 100 {
        let mut streams = Vec::new();
        for _ in 0..100 {
            let mut stream = TcpStream::connect(broker.address()).await.unwrap();
            stream.write_all(PROTOCOL_HEADER).await.unwrap();
            streams.push(stream);
        }
        // Half of them say goodbye in the middle of a sentence.
        for stream in streams.iter_mut().skip(50) {
            let (_, start) = timeout(LIMIT, read_frame(stream)).await.unwrap();
            assert_eq!(start[..4], [0, 10, 0, 10], "round {round}");
        }
    }
    open(&broker, 0).await;
}
