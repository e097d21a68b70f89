//! The profiles of the bundled broker, and the warnings about another version.
#![cfg(feature = "broker")]
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties, Error,
    options::*,
    types::{AMQPValue, FieldArray, FieldTable},
};
use rpc_core::broker::{Broker, DeprecatedFeature, Profile};

async fn connect(broker: &Broker, user: &str, name: &str) -> Connection {
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    Connection::connect(&broker.uri_for(user, "/").unwrap(), properties).await.unwrap()
}

fn table<const N: usize>(fields: [(&str, AMQPValue); N]) -> FieldTable {
    fields.into_iter().fold(FieldTable::default(), |mut table, (name, value)| {
        table.insert(name.into(), value);
        table
    })
}

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

async fn declare(channel: &Channel, queue: &str, durable: bool, arguments: FieldTable) -> Result<(), Error> {
    let options = QueueDeclareOptions { durable, exclusive: !durable, ..Default::default() };
    channel.queue_declare(queue.into(), options, arguments).await.map(drop)
}

async fn publish(channel: &Channel, exchange: &str, key: &str, body: &[u8], headers: FieldTable) {
    let properties = BasicProperties::default().with_headers(headers);
    let options = BasicPublishOptions::default();
    drop(channel.basic_publish(exchange.into(), key.into(), options, body, properties).await.unwrap());
}

/// Uses each feature that RabbitMQ 4.3 refuses or does otherwise, on a connection with a name.
async fn use_what_is_deprecated(connection: &Connection) {
    let channel = || async { connection.create_channel().await.unwrap() };
    let main = channel().await;
    main.queue_declare("transient".into(), QueueDeclareOptions::default(), FieldTable::default()).await.unwrap();
    main.basic_qos(5, BasicQosOptions { global: true }).await.unwrap();
    declare(&main, "lazy", true, table([("x-queue-mode", text("lazy"))])).await.unwrap();
    declare(&main, "one", true, table([("x-queue-version", AMQPValue::LongInt(1))])).await.unwrap();
    declare(&main, "timed", true, table([("x-consumer-timeout", AMQPValue::LongInt(60_000))])).await.unwrap();
    let quorum = |name, value| table([("x-queue-type", text("quorum")), (name, value)]);
    let refused = declare(&channel().await, "levels", true, quorum("x-max-priority", AMQPValue::LongInt(5))).await;
    refused.unwrap_err();
    let options = QueueBindOptions::default;
    main.queue_bind("lazy".into(), "amq.topic".into(), "#.a.#.b.#".into(), options(), table([])).await.unwrap();
    let (name, direct) = ("amq.rabbitmq.reply-to", "amq.direct");
    channel().await.queue_bind(name.into(), direct.into(), "k".into(), options(), table([])).await.unwrap_err();
    publish(&main, "", "lazy", b"x", table([("x-death", AMQPValue::FieldArray(FieldArray::default()))])).await;
    publish(&main, "", "one", &vec![0; (16 << 20) + 1], table([])).await;
    let copies = AMQPValue::FieldArray(FieldArray::from(vec![text("elsewhere")]));
    publish(&main, "amq.topic", "here", b"x", table([("CC", copies)])).await;
    let transacted = channel().await;
    transacted.tx_select().await.unwrap();
    declare(&main, "gone", true, table([])).await.unwrap();
    publish(&transacted, "", "gone", b"x", table([])).await;
    // The publish has arrived when its channel answers.
    transacted.basic_qos(1, BasicQosOptions::default()).await.unwrap();
    main.queue_delete("gone".into(), QueueDeleteOptions::default()).await.unwrap();
    transacted.tx_commit().await.unwrap();
    declare(&main, "replicated", true, table([("x-queue-type", text("quorum"))])).await.unwrap();
    publish(&main, "", "replicated", b"x", table([])).await;
    let nack = BasicNackOptions { requeue: true, ..Default::default() };
    for _ in 0..2 {
        let got = main.basic_get("replicated".into(), BasicGetOptions::default()).await.unwrap().unwrap();
        got.acker.nack(nack).await.unwrap();
    }
    main.queue_purge("replicated".into(), QueuePurgeOptions::default()).await.unwrap();
}

#[tokio::test]
async fn every_use_of_what_rabbitmq_4_3_changes_is_counted() {
    let broker = Broker::builder()
        .user("shop", "secret")
        .permissions("shop", "/", ".*", ".*", ".*")
        .topic_permissions("shop", "/", "amq.topic", "^here$", ".*")
        .warn_as(Profile::RabbitMq4_3)
        .start()
        .await
        .unwrap();
    let connection = connect(&broker, "shop", "old program").await;
    use_what_is_deprecated(&connection).await;
    let expected = [
        (DeprecatedFeature::TransientQueue, "transient", 1),
        (DeprecatedFeature::GlobalQos, "", 1),
        (DeprecatedFeature::QueueMode, "lazy", 1),
        (DeprecatedFeature::QueueVersion1, "one", 1),
        (DeprecatedFeature::MaxPriorityOfQuorumQueue, "levels", 1),
        (DeprecatedFeature::ConsumerTimeoutOfClassicQueue, "timed", 1),
        (DeprecatedFeature::LargeMessage, "one", 1),
        (DeprecatedFeature::ManyHashes, "#.a.#.b.#", 1),
        (DeprecatedFeature::DeathsOfClient, "lazy", 1),
        (DeprecatedFeature::BindingToDirectReplies, "amq.rabbitmq.reply-to", 1),
        (DeprecatedFeature::CopyBeyondTopicPermissions, "elsewhere", 1),
        (DeprecatedFeature::QueueDeletedInTransaction, "gone", 1),
        (DeprecatedFeature::CountedNack, "replicated", 2),
    ];
    let counted = broker.deprecations();
    let found: Vec<_> = counted.iter().map(|one| (one.feature, one.queue.as_str(), one.count)).collect();
    assert_eq!(found, expected);
    assert!(counted.iter().all(|one| one.client == "old program" && one.user == "shop"));
}

#[tokio::test]
async fn a_broker_that_watches_for_nothing_counts_nothing() {
    let broker = Broker::start().await.unwrap();
    let connection = connect(&broker, "guest", "p").await;
    let channel = connection.create_channel().await.unwrap();
    channel.queue_declare("q".into(), QueueDeclareOptions::default(), FieldTable::default()).await.unwrap();
    assert!(broker.deprecations().is_empty());
}

#[tokio::test]
async fn rabbitmq_4_3_takes_no_message_above_16_mib() {
    for (profile, is_taken) in [(Profile::RabbitMq3_10, true), (Profile::RabbitMq4_3, false)] {
        let broker = Broker::builder().profile(profile).start().await.unwrap();
        let connection = connect(&broker, "guest", "p").await;
        let channel = connection.create_channel().await.unwrap();
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        declare(&channel, "q", false, table([])).await.unwrap();
        let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
        let body = vec![0; 17 << 20];
        let confirm = channel.basic_publish("".into(), "q".into(), options, &body, properties).await.unwrap();
        let confirmed = tokio::time::timeout(Duration::from_secs(60), confirm).await.unwrap();
        assert_eq!(confirmed.is_ok_and(|confirmation| confirmation.is_ack()), is_taken, "{profile:?}");
        if !is_taken {
            assert!(!channel.status().connected());
        }
    }
}
