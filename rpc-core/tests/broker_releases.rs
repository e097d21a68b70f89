//! Ten thousand ended connections leave no tasks, files or memory behind. The test is alone in its process, because it counts
//! the files and the memory of the process.
#![cfg(all(feature = "broker", target_os = "linux"))]
#![allow(clippy::unwrap_used)]

#[path = "broker_limits/socket.rs"]
#[expect(dead_code, reason = "shared with tests that need more of it")]
mod socket;

use std::time::Duration;

use rpc_core::broker::Broker;
use socket::{PROTOCOL_HEADER, channel_open, consume_q, declare_q, open, publish, read_frame};
use tokio::{io::AsyncWriteExt, net::TcpStream, runtime::Handle, time::timeout};

#[tokio::test]
async fn thousands_of_connections_come_and_go_and_leave_nothing() {
    const ROUNDS: usize = 100;
    let broker = Broker::start().await.unwrap();
    // The first rounds allocate what the process keeps.
    for _ in 0..ROUNDS / 10 {
        round(&broker).await;
    }
    settled(&broker).await;
    let before = used();
    for _ in 0..ROUNDS {
        round(&broker).await;
    }
    settled(&broker).await;
    let after = used();
    assert_eq!((before.files, before.tasks), (after.files, after.tasks));
    let grown = after.memory_kib.saturating_sub(before.memory_kib);
    assert!(grown < 8 * 1_024, "{grown} KiB more after {} connections", ROUNDS * 100);
    assert_eq!(broker.queue("q").map(|queue| (queue.ready, queue.unacked, queue.consumers)), None);
}

/// A hundred connections, most of which end in the middle of a handshake or of a message.
async fn round(broker: &Broker) {
    let mut streams = Vec::new();
    for _ in 0..90 {
        streams.push(TcpStream::connect(broker.address()).await.unwrap());
    }
    for stream in &mut streams[30..] {
        stream.write_all(PROTOCOL_HEADER).await.unwrap();
    }
    for stream in &mut streams[60..] {
        let (_, start) = timeout(socket::LIMIT, read_frame(stream)).await.unwrap();
        assert_eq!(start[..4], [0, 10, 0, 10]);
    }
    for _ in 0..10 {
        let mut stream = open(broker, 0).await;
        // The queue is deleted with its last consumer.
        let mut auto_delete = declare_q(false);
        auto_delete[15] = 0b0_1000;
        let half = publish("q", false, &[b'x'; 20_000]);
        let bytes = [channel_open(), auto_delete, consume_q(), half[..half.len() / 2].to_vec()].concat();
        stream.write_all(&bytes).await.unwrap();
        socket::until(&mut stream, [0, 60, 0, 21]).await;
        streams.push(stream);
    }
}

/// Waits until the broker has removed all connections.
async fn settled(broker: &Broker) {
    let gone = async {
        while !broker.connections().is_empty() || Handle::current().metrics().num_alive_tasks() > TASKS {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(socket::LIMIT, gone).await.unwrap();
}

struct Used {
    files: usize,
    tasks: usize,
    memory_kib: usize,
}

fn used() -> Used {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    Used {
        files: std::fs::read_dir("/proc/self/fd").unwrap().count(),
        tasks: Handle::current().metrics().num_alive_tasks(),
        memory_kib: resident.trim().trim_end_matches(" kB").parse().unwrap(),
    }
}

/// The broker's own tasks: its listener, its accept loop and its timers.
const TASKS: usize = 3;
