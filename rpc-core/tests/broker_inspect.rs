//! The inspection methods of a running broker.
#![cfg(all(feature = "broker", feature = "macros"))]
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use lapin::{BasicProperties, Connection, ConnectionProperties, ExchangeKind, options::*, types::FieldTable};
use rpc_core::broker::Broker;

#[tokio::test]
async fn a_broker_shows_its_queues_exchanges_bindings_and_connections() {
    let broker = Broker::builder().vhost("shop").start().await.unwrap();
    let uri = broker.uri_for("guest", "shop").unwrap();
    let connection = Connection::connect(&uri, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let table = FieldTable::default;
    channel
        .queue_declare("q".into(), QueueDeclareOptions { durable: true, ..Default::default() }, table())
        .await
        .unwrap();
    let kind = ExchangeKind::Topic;
    channel.exchange_declare("e".into(), kind, ExchangeDeclareOptions::default(), table()).await.unwrap();
    channel.queue_bind("q".into(), "e".into(), "a.*".into(), QueueBindOptions::default(), table()).await.unwrap();
    for body in [b"1", b"2"] {
        let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
        channel.basic_publish("e".into(), "a.b".into(), options, body, properties).await.unwrap();
    }
    let got = channel.basic_get("q".into(), BasicGetOptions::default()).await.unwrap().unwrap();
    let shop = broker.vhost("shop");
    let queue = shop.queue("q").unwrap();
    assert_eq!((queue.ready, queue.unacked, queue.consumers, queue.durable), (1, 1, 0, true));
    assert!(shop.exchanges().iter().any(|exchange| exchange.name == "e" && exchange.kind == "topic"));
    let bindings = shop.bindings();
    let binding = (&*bindings[0].source, &*bindings[0].destination, &*bindings[0].routing_key);
    assert_eq!((bindings.len(), binding), (1, ("e", "q", "a.*")));
    assert!(broker.queues().is_empty() && broker.bindings().is_empty());
    assert!(broker.exchanges().iter().all(|exchange| exchange.name != "e"));
    let connections = broker.connections();
    assert_eq!((connections.len(), connections[0].channels, &*connections[0].vhost), (1, 1, "shop"));
    assert!(!broker.wait_until_idle(Duration::from_millis(50)).await, "one is ready, one not acknowledged");
    let settle = async {
        got.acker.ack(BasicAckOptions::default()).await.unwrap();
        channel.queue_purge("q".into(), QueuePurgeOptions::default()).await.unwrap();
    };
    let (is_idle, ()) = tokio::join!(broker.wait_until_idle(Duration::from_secs(20)), settle);
    assert!(is_idle);
}
