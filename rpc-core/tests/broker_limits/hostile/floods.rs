//! Clients that ask for too much.

use std::{net::SocketAddr, pin::Pin};

use tokio::{io::AsyncWriteExt, net::TcpStream};

use super::{Answer, Hostile, Stage};
use crate::socket::{PROTOCOL_HEADER, frame, method, publish_to, publish_with};

type Flood = fn(SocketAddr) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

pub(super) fn all() -> Vec<(&'static str, Flood)> {
    vec![
        ("channels beyond the limit", |address| Box::pin(channels(address))),
        ("exclusive queues, and the socket ends", |address| Box::pin(exclusive_queues(address))),
        ("consumers beyond the limit", |address| Box::pin(consumers(address))),
        ("bindings, and their queue is deleted", |address| Box::pin(bindings(address))),
        ("patterns that take long", |address| Box::pin(patterns(address))),
        ("sockets that say nothing", |address| Box::pin(silent(address))),
        ("connections that come and go", |address| Box::pin(come_and_go(address))),
        ("a consumer that never reads", |address| Box::pin(never_reads(address))),
        ("returns that are never read", |address| Box::pin(returns(address))),
        ("messages that are cut off", |address| Box::pin(cut_off(address))),
        ("giant headers", |address| Box::pin(giant_headers(address))),
        ("a large transaction", |address| Box::pin(transaction(address))),
        ("heartbeats", |address| Box::pin(heartbeats(address))),
        ("one byte at a time", |address| Box::pin(bytes(address))),
        ("deliveries that are requeued again and again", |address| Box::pin(requeues(address))),
        ("a fan-out to many queues", |address| Box::pin(fan_out(address))),
        ("methods whose answers are not read", |address| Box::pin(unread_answers(address))),
    ]
}

/// A queue, without an answer.
fn declare(name: &str, bits: u8) -> Vec<u8> {
    let name = [&[name.len() as u8], name.as_bytes()].concat();
    method(1, &[&[0, 50, 0, 10, 0, 0][..], &name, &[bits | 0b1_0000, 0, 0, 0, 0]].concat())
}

fn bind(queue: &str, exchange: &str, key: &str) -> Vec<u8> {
    let mut bind = vec![0, 50, 0, 20, 0, 0];
    for name in [queue, exchange, key] {
        bind.push(name.len() as u8);
        bind.extend(name.as_bytes());
    }
    bind.extend([1, 0, 0, 0, 0]);
    method(1, &bind)
}

async fn expect(hostile: &mut Hostile, expected: Answer) -> Result<(), String> {
    match hostile.answer().await {
        answer if answer == expected => Ok(()),
        answer => Err(format!("{answer:?} instead of {expected:?}")),
    }
}

async fn channels(address: SocketAddr) -> Result<(), String> {
    let mut hostile = Hostile::at(Stage::Open, address).await;
    for number in 1..=2_048_u16 {
        let mut open = method(0, &[0, 20, 0, 10, 0]);
        open[1..3].copy_from_slice(&number.to_be_bytes());
        hostile.send(&open).await;
    }
    loop {
        match hostile.answer().await {
            Answer::Lives => {}
            Answer::Connection(504 | 530) => return Ok(()),
            answer => return Err(format!("{answer:?}")),
        }
    }
}

async fn exclusive_queues(address: SocketAddr) -> Result<(), String> {
    let mut hostile = Hostile::at(Stage::Channel, address).await;
    for at in 0..3_000 {
        hostile.send(&declare(&format!("exclusive {at}"), 0b100)).await;
    }
    hostile.lives().await
}

async fn consumers(address: SocketAddr) -> Result<(), String> {
    let mut hostile = Hostile::at(Stage::Channel, address).await;
    hostile.send(&declare("many consumers", 0b100)).await;
    let consume = method(1, b"\0\x3c\0\x14\0\0\x0emany consumers\0\x08\0\0\0\0");
    for _ in 0..10_001 / 73 {
        hostile.send(&consume.repeat(73)).await;
    }
    hostile.send(&consume.repeat(10_001 % 73)).await;
    match hostile.answer().await {
        Answer::Channel(_) | Answer::Connection(_) => Ok(()),
        answer => Err(format!("{answer:?}")),
    }
}

async fn bindings(address: SocketAddr) -> Result<(), String> {
    let mut hostile = Hostile::at(Stage::Channel, address).await;
    hostile.send(&declare("bound", 0b100)).await;
    for at in 0..6_000 {
        hostile.send(&bind("bound", "amq.topic", &format!("bound.{at}"))).await;
    }
    hostile.send(&method(1, b"\0\x32\0\x28\0\0\x05bound\0")).await;
    match hostile.until([0, 50, 0, 41]).await {
        true => Ok(()),
        false => Err("the queue is not deleted".to_owned()),
    }
}

async fn patterns(address: SocketAddr) -> Result<(), String> {
    let mut hostile = Hostile::at(Stage::Channel, address).await;
    hostile.send(&declare("patterns", 0b100)).await;
    let declare = b"\0\x28\0\x0a\0\0\x0chostile word\x05topic\x14\0\0\0\0";
    hostile.send(&method(1, declare)).await;
    for at in 0..300 {
        let words: Vec<_> = (0..20).map(|bit| if at >> (bit % 9) & 1 == 0 { "#" } else { "*" }).collect();
        hostile.send(&bind("patterns", "hostile word", &format!("{}.a{at}", words.join(".")))).await;
    }
    for _ in 0..3 {
        hostile.send(&publish_to("hostile word", &["a"; 60].join("."), false, b"x")).await;
    }
    hostile.lives().await
}

async fn silent(address: SocketAddr) -> Result<(), String> {
    let mut streams = Vec::new();
    for at in 0..150 {
        let mut stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
        if at % 2 == 0 {
            drop(stream.write_all(PROTOCOL_HEADER).await);
        }
        streams.push(stream);
    }
    // A client that behaves is served all the same.
    Hostile::at(Stage::Channel, address).await.lives().await
}

async fn come_and_go(address: SocketAddr) -> Result<(), String> {
    for at in 0..150 {
        drop(Hostile::at([Stage::Socket, Stage::Started, Stage::Channel][at % 3], address).await);
    }
    Ok(())
}

async fn never_reads(address: SocketAddr) -> Result<(), String> {
    let mut reader = Hostile::at(Stage::Channel, address).await;
    reader.send(&declare("never read", 0)).await;
    reader.lives().await?;
    reader.send(&method(1, b"\0\x3c\0\x14\0\0\x0anever read\x01t\x0a\0\0\0\0")).await;
    let mut publisher = Hostile::at(Stage::Channel, address).await;
    for _ in 0..400 {
        publisher.send(&publish_to("", "never read", false, &[b'x'; 60_000])).await;
    }
    publisher.send(&method(1, b"\0\x32\0\x28\0\0\x0anever read\0")).await;
    match publisher.until([0, 50, 0, 41]).await {
        true => Ok(()),
        false => Err("the publisher is not served".to_owned()),
    }
}

async fn returns(address: SocketAddr) -> Result<(), String> {
    let mut hostile = Hostile::at(Stage::Channel, address).await;
    let returned = publish_to("", "a queue that is not there", true, &[b'x'; 30_000]);
    // It stops being read when it does not read.
    let flood = async {
        for _ in 0..1_000 {
            hostile.send(&returned).await;
        }
    };
    drop(tokio::time::timeout(std::time::Duration::from_secs(1), flood).await);
    Ok(())
}

async fn cut_off(address: SocketAddr) -> Result<(), String> {
    let whole = publish_to("", "q", false, &[b'x'; 4_000]);
    for end in (1..whole.len()).step_by(97) {
        let mut hostile = Hostile::at(Stage::Channel, address).await;
        hostile.send(&whole[..end]).await;
    }
    Ok(())
}

async fn giant_headers(address: SocketAddr) -> Result<(), String> {
    let mut hostile = Hostile::at(Stage::Channel, address).await;
    hostile.send(&declare("giant", 0b100)).await;
    let fields: Vec<u8> = (0..9_000).flat_map(|at| format!("\x05{at:05}V").into_bytes()).collect();
    let table = [&(fields.len() as u32).to_be_bytes()[..], &fields].concat();
    for _ in 0..200 {
        hostile.send(&publish_with("giant", &table, b"x")).await;
    }
    hostile.lives().await
}

async fn transaction(address: SocketAddr) -> Result<(), String> {
    let mut hostile = Hostile::at(Stage::Channel, address).await;
    hostile.send(&declare("transaction", 0b100)).await;
    hostile.send(&method(1, &[0, 90, 0, 10])).await;
    let publishes = publish_to("", "transaction", false, b"x").repeat(500);
    for _ in 0..40 {
        hostile.send(&publishes).await;
    }
    hostile.send(&method(1, &[0, 90, 0, 20])).await;
    match hostile.until([0, 90, 0, 21]).await {
        true => Ok(()),
        false => Err("not committed".to_owned()),
    }
}

async fn heartbeats(address: SocketAddr) -> Result<(), String> {
    let mut hostile = Hostile::at(Stage::Channel, address).await;
    for _ in 0..50 {
        hostile.send(&frame(8, 0, b"").repeat(1_000)).await;
    }
    hostile.lives().await
}

async fn bytes(address: SocketAddr) -> Result<(), String> {
    let mut hostile = Hostile::at(Stage::Channel, address).await;
    for byte in [publish_to("", "q", false, &[b'x'; 300]), frame(7, 1, b"")].concat() {
        hostile.send(&[byte]).await;
    }
    expect(&mut hostile, Answer::Connection(501)).await
}

async fn requeues(address: SocketAddr) -> Result<(), String> {
    let mut hostile = Hostile::at(Stage::Channel, address).await;
    hostile.send(&declare("again", 0b100)).await;
    hostile.send(&publish_to("", "again", false, b"x").repeat(2_000)).await;
    hostile.send(&method(1, b"\0\x3c\0\x14\0\0\x05again\x01t\x08\0\0\0\0")).await;
    let (reading, writing) = hostile.0.split();
    let read = async {
        let mut reading = reading;
        let mut buffer = vec![0; 64 * 1_024];
        while matches!(tokio::io::AsyncReadExt::read(&mut reading, &mut buffer).await, Ok(1..)) {}
    };
    let write = async {
        let mut writing = writing;
        for _ in 0..20 {
            // All that was delivered, requeued.
            drop(writing.write_all(&method(1, &[0, 60, 0, 120, 0, 0, 0, 0, 0, 0, 0, 0, 0b11])).await);
        }
        drop(writing.shutdown().await);
    };
    tokio::join!(read, write);
    Ok(())
}

async fn fan_out(address: SocketAddr) -> Result<(), String> {
    let mut hostile = Hostile::at(Stage::Channel, address).await;
    hostile.send(&method(1, b"\0\x28\0\x0a\0\0\x0bhostile fan\x06fanout\x14\0\0\0\0")).await;
    for at in 0..2_000 {
        let name = format!("fan {at}");
        hostile.send(&[declare(&name, 0b100), bind(&name, "hostile fan", "")].concat()).await;
    }
    hostile.send(&publish_to("hostile fan", "", false, b"x").repeat(10)).await;
    hostile.lives().await
}

async fn unread_answers(address: SocketAddr) -> Result<(), String> {
    let mut hostile = Hostile::at(Stage::Channel, address).await;
    let asked = method(1, &[0, 60, 0, 10, 0, 0, 0, 0, 0, 1, 0]).repeat(1_000);
    let flood = async {
        for _ in 0..300 {
            hostile.send(&asked).await;
        }
    };
    drop(tokio::time::timeout(std::time::Duration::from_secs(1), flood).await);
    Ok(())
}
