//! Requests with extreme properties: the worker answers them or never sees them, and other calls do not notice.

use std::{collections::BTreeMap, time::Duration};

use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable},
};
use rpc_core::{Context, service};
use rpc_tests::{
    Stage, eventually, on_both_brokers,
    raw::{Peer, header, kind},
};

on_both_brokers!(
    ten_thousand_headers_are_one_request_as_any_other,
    a_header_beyond_a_frame_ends_its_senders_connection_alone,
    a_header_that_the_broker_makes_larger_than_a_frame_is_read,
    extreme_priorities_expirations_and_numbers_are_harmless,
);

macro_rules! echo {
    ($name:literal) => {
        #[service(name = $name)]
        trait Echo {
            async fn ask(&self, n: u32, ctx: &Context) -> u32;
        }
        struct Echoing;
        impl Echo for Echoing {
            async fn ask(&self, n: u32, ctx: &Context) -> u32 {
                // All that a handler can read without knowing a header's name.
                let _ = (ctx.attempt(), ctx.remaining(), ctx.deadline(), ctx.user_id(), ctx.is_cancelled());
                n + u32::from(ctx.header("h9999").is_some())
            }
        }
    };
}

fn table(fields: impl IntoIterator<Item = (String, AMQPValue)>) -> FieldTable {
    FieldTable::from(fields.into_iter().map(|(name, value)| (name.into(), value)).collect::<BTreeMap<_, _>>())
}

/// Asks with an array of the one argument, and returns the body of the answer.
async fn ask(peer: &Peer, routing_key: &str, properties: BasicProperties) -> Vec<u8> {
    let reply = peer.call("rpc", routing_key, properties, &[0x91, 3]).await;
    assert_eq!(kind(&reply), Some("rpc.ok"), "{:?}", header(&reply, "rpc-message"));
    reply.data
}

async fn ten_thousand_headers_are_one_request_as_any_other(stage: &Stage) {
    echo!("hostile-many");
    let pool = stage.pool(EchoServer::new(Echoing)).await.start().await.unwrap();
    let client = EchoClient::new(&stage.connect().await);
    // 90 kB: less than a frame.
    let many = || table((0..10_000).map(|n| (format!("h{n:04}"), AMQPValue::Boolean(true))));
    let peer = stage.raw().await;
    assert_eq!(ask(&peer, "hostile-many.ask", BasicProperties::default().with_headers(many())).await, [4]);
    for _ in 0..8 {
        peer.publish("rpc", "hostile-many.ask", BasicProperties::default().with_headers(many()), &[0x91, 3]).await;
    }
    for n in 0..20 {
        // lapin reads such a table slowly.
        assert_eq!(client.ask(n).timeout(Duration::from_secs(40)).await.unwrap(), n);
    }
    eventually(SOON, "all have arrived", async || pool.stats().received == 29).await;
    pool.shutdown(SOON).await.unwrap();
}

/// No broker splits a header, so one beyond frame_max never reaches a worker.
async fn a_header_beyond_a_frame_ends_its_senders_connection_alone(stage: &Stage) {
    echo!("hostile-large");
    let pool = stage.pool(EchoServer::new(Echoing)).await.start().await.unwrap();
    let client = EchoClient::new(&stage.connect().await);
    assert_eq!(client.ask(1).await.unwrap(), 1);
    for bytes in [8 << 20, 1 << 20, 140_000] {
        let peer = stage.raw().await;
        let large = table([("large".to_owned(), AMQPValue::LongString("x".repeat(bytes).into()))]);
        let properties = BasicProperties::default().with_headers(large);
        peer.try_publish("rpc", "hostile-large.ask", properties, &[0x91, 3]).await;
        eventually(SOON, "the sender is disconnected", async || !peer.is_open()).await;
        assert_eq!(client.ask(2).await.unwrap(), 2);
    }
    let stats = pool.shutdown(SOON).await.unwrap().stats;
    assert_eq!(stats.received, 4, "none reached the worker");
}

/// A dead letter gets the header `x-death`, however large its headers are.
async fn a_header_that_the_broker_makes_larger_than_a_frame_is_read(stage: &Stage) {
    echo!("hostile-grown");
    let pool = stage.pool(EchoServer::new(Echoing)).await.start().await.unwrap();
    let peer = stage.raw().await;
    let queue = peer.expiring_queue("rpc", "hostile-grown.ask").await;
    let large = table([("large".to_owned(), AMQPValue::LongString("x".repeat(130_900).into()))]);
    let reply = peer.call("", &queue, BasicProperties::default().with_headers(large), &[0x91, 3]).await;
    assert_eq!((kind(&reply), &reply.data[..]), (Some("rpc.ok"), &[3][..]));
    let client = EchoClient::new(&stage.connect().await);
    assert_eq!(client.ask(1).await.unwrap(), 1);
    pool.shutdown(SOON).await.unwrap();
}

async fn extreme_priorities_expirations_and_numbers_are_harmless(stage: &Stage) {
    echo!("hostile-extreme");
    let pool = stage.pool(EchoServer::new(Echoing)).await.max_priority(3).start().await.unwrap();
    let client = EchoClient::new(&stage.connect().await);
    let plain = BasicProperties::default;
    let number = |name: &str, value| plain().with_headers(table([(name.to_owned(), AMQPValue::LongLongInt(value))]));
    let accepted = [
        plain().with_priority(255),
        plain().with_expiration("4294967295".into()),
        plain().with_timestamp(u64::MAX),
        number("rpc-attempt", i64::MAX),
        number("rpc-attempt", i64::MIN),
        number("rpc-depth", i64::MAX),
        number("rpc-depth", i64::MIN),
        number("x-delivery-count", i64::MAX),
        number("x-death", -1),
    ];
    let peer = stage.raw().await;
    for properties in accepted {
        println!("{properties:?}");
        assert_eq!(ask(&peer, "hostile-extreme.ask", properties.clone()).await, [3]);
        // Nested requests read further headers.
        let reply = peer.call("rpc.nested", "hostile-extreme.ask", properties, &[0x91, 3]).await;
        assert_eq!(kind(&reply), Some("rpc.ok"), "{:?}", header(&reply, "rpc-message"));
    }
    // RabbitMQ 3.10 takes them.
    for expiration in ["4294967296", "18446744073709551615", "18446744073709551616"] {
        let peer = stage.raw().await;
        let properties = plain().with_expiration(expiration.into());
        peer.try_publish("rpc", "hostile-extreme.ask", properties, &[0x91, 3]).await;
        assert_eq!(client.ask(7).await.unwrap(), 7, "{expiration}");
    }
    let mut refused: Vec<_> = ["-1", "1e3", "x"].map(|expiration| plain().with_expiration(expiration.into())).into();
    if stage.expects().refuses_delivery_modes {
        refused.push(plain().with_delivery_mode(255));
    }
    for properties in refused {
        let peer = stage.raw().await;
        peer.try_publish("rpc", "hostile-extreme.ask", properties, &[0x91, 3]).await;
        eventually(SOON, "the sender's channel is closed", async || !peer.is_open()).await;
    }
    assert_eq!(client.ask(7).await.unwrap(), 7);
    pool.shutdown(SOON).await.unwrap();
}

const SOON: Duration = Duration::from_secs(10);
